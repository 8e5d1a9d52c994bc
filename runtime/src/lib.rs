//! The runtime of Retrograd: buffers, matrix micro-kernels, vector maths, threads, training.

pub mod execute;
pub mod float;
pub mod gemm;
pub mod session;
pub mod team;
pub mod train;
pub mod vmath;

pub mod checkpoint;
pub mod error;
pub mod feed;
pub mod init;
pub mod optimizer;
pub mod schedule;
pub mod stages;
