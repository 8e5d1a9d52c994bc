//! The two float widths a program can be compiled for, and the routines each has.

use retrograd_compiler::codegen::{KernelTable, Precision};
use retrograd_compiler::ir::Unary;

use crate::gemm::{Element, Kernels};
use crate::tensor::Item;
use crate::vmath::{BinaryFunction, Function, Table};

/// An element type that programs can be compiled for.
pub trait Float: Element + Item + Into<f64> {
    /// Its width.
    const PRECISION: Precision;
    /// The nearest value.
    fn from_f64(x: f64) -> Self;
    /// The routines of this machine.
    fn table() -> KernelTable;
}

fn unary(f: Function) -> Unary {
    match f {
        Function::Exp => Unary::Exp,
        Function::Expm1 => Unary::Expm1,
        Function::Ln => Unary::Ln,
        Function::Log1p => Unary::Log1p,
        Function::Tanh => Unary::Tanh,
        Function::Sigmoid => Unary::Sigmoid,
        Function::Silu => Unary::Silu,
        Function::Softplus => Unary::Softplus,
        Function::Erf => Unary::Erf,
        Function::NormalCdf => Unary::NormalCdf,
        Function::Gelu => Unary::Gelu,
        Function::Sin => Unary::Sin,
        Function::Cos => Unary::Cos,
    }
}

fn table<E: Element>(kernels: &Kernels<E>, vmath: &Table<E>) -> KernelTable {
    KernelTable {
        panel: kernels.nr,
        products: kernels.products as usize,
        unary: Function::ALL.iter().map(|&f| (unary(f), vmath.unary(f) as usize)).collect(),
        pow: vmath.binary(BinaryFunction::Pow) as usize,
    }
}

impl Float for f32 {
    const PRECISION: Precision = Precision::F32;
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    fn table() -> KernelTable {
        table(Kernels::<f32>::detect(), Table::<f32>::detect())
    }
}

impl Float for f64 {
    const PRECISION: Precision = Precision::F64;
    fn from_f64(x: f64) -> f64 {
        x
    }
    fn table() -> KernelTable {
        table(Kernels::<f64>::detect(), Table::<f64>::detect())
    }
}
