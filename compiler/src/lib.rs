//! The compiler of Retrograd: records recurrent programs as graphs, differentiates them, moves work out of time,
//! plans stages and memory, and generates code through Cranelift.

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
