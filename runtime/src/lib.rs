pub mod gemm;
pub mod team;
pub mod vmath;
