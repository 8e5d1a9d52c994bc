//! The runtime of Retrograd: buffers, matrix micro-kernels, vector maths, threads, training.
//!
//! From what most programs use to what it stands on:
//!
//! - [`train`]: a recorded program with an [`optimizer`] and a [`schedule`], compiled once and fed batch after batch;
//!   and one step at a time, as a stream. Start here;
//! - [`decode`]: writing with what was trained, symbol after symbol: greedily, or by beam search;
//! - [`session`]: any compiled program, in 32 or 64 bits; values go in by name as a [`feed`] and come out by name;
//!   [`settings`]: how it is compiled and run;
//! - [`checkpoint`]: what is kept to go on later, in one safetensors file of [`tensor`]s; [`init`]: how parameters start;
//! - `execute`: a plan bound to memory (`arena`), stage after stage, which trusts that plan and is therefore not public;
//!   `memory`: what is refused; [`team`]: its threads;
//! - [`gemm`] and [`vmath`]: the routines that generated code calls, for each instruction set; [`float`] hands their
//!   addresses to the compiler, which knows nothing else of this crate; [`machine`]: what they can be compared with.
//!
//! What a user can do wrong is in [`error`]. A run gives the same bits on any number of threads.
//!
//! # Subnormal numbers
//!
//! While a program runs, subnormal numbers (below 1.2e-38 in f32, 2.2e-308 in f64) count as zero, as operands of
//! arithmetic and as its results, in every instruction set: so the logarithm of one is −∞, and a quotient by one is
//! infinite. Processors take up to 150 cycles for each of them, and states, adjoints and an optimiser's moments that
//! decay meet millions. A number that is only moved keeps its bits. The calling thread's floating-point control register
//! (MXCSR, FPCR) is set for the time of a run and put back afterwards, also when something panics; whatever rounding mode
//! or exception masks the caller has, results have the same bits.

mod arena;
mod execute;
pub mod float;
mod flush;
pub mod gemm;
#[doc(hidden)]
pub mod guard;
mod memory;
pub mod session;
pub mod settings;
pub mod stream;
pub mod team;
pub mod train;
pub mod vmath;
pub mod windows;

pub mod checkpoint;
pub mod decode;
pub mod error;
pub mod feed;
pub mod init;
pub mod machine;
pub mod optimizer;
pub mod schedule;
pub mod stages;
pub mod tensor;
