//! The compiler of Retrograd: records recurrent programs as graphs, differentiates them, moves work out of time,
//! plans stages and memory, and generates code through Cranelift.
//!
//! A program's way, and where to read about each part of it:
//!
//! | module | from | to |
//! |---|---|---|
//! | [`record`] | a closure on values that stand for numbers to come | a [`Program`](ir::Program) |
//! | [`differentiate`] | a program with an objective | the *joint* program: forward, and gradients as outputs |
//! | [`simplify`] | any program | a plainer one of the same meaning |
//! | [`time`] | any program | one with nothing but the recurrence in its loops; or unrolled; or with states carried |
//! | [`plan`] | a hoisted program | a [`Plan`](plan::Plan): stages and memory, for any T and B |
//! | [`codegen`] | a plan, and the addresses of the runtime's routines | machine code |
//!
//! [`pipeline`] is that line; [`stages`] shows a program at each point of it as text. [`ir`] is what all stand on:
//! types, graphs, and the table of ops. [`interpret`] evaluates any graph plainly, in 64 bits on dual numbers, and
//! is what everything is checked against. What a user can do wrong is in [`error`].
//!
//! Nothing here runs a program, reads a file, or knows how many steps or samples there will be: that is the
//! runtime's. To write a cell, start at [`record`]; to change what is made of it, at [`pipeline`].

pub mod codegen;
pub mod differentiate;
pub mod error;
pub mod interpret;
pub mod ir;
pub mod pipeline;
pub mod plan;
pub mod record;
pub mod simplify;
pub mod stages;
pub mod time;
