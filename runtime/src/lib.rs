//! Being written.
pub mod gemm;
pub mod team;
pub mod vmath;

pub mod checkpoint;
pub mod error;
pub mod feed;
pub mod init;
pub mod schedule;
