//! The two float widths a program can be compiled for, and the routines each has.

use retrograd_compiler::codegen::{InstructionSet, KernelTable, Precision};
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
    /// The routines of an instruction set that this machine has.
    ///
    /// # Panics
    /// If it does not have it.
    fn table(set: InstructionSet) -> KernelTable;
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

const AVAILABLE: &str = "an instruction set that this machine has";

fn table<E: Element>(set: InstructionSet, vmath: &Table<E>) -> KernelTable {
    let kernels = Kernels::<E>::of(set).expect(AVAILABLE);
    let routines = Function::ALL.iter().map(|&f| (unary(f), vmath.unary(f) as usize)).collect();
    let (products, pow) = (kernels.products as usize, vmath.binary(BinaryFunction::Pow) as usize);
    // SAFETY: these are this crate's routines for `E`, of the types that are asked for and of a set that was looked for
    // on this machine.
    unsafe { KernelTable::new(set, kernels.nr, products, routines, pow) }
}

impl Float for f32 {
    const PRECISION: Precision = Precision::F32;
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    fn table(set: InstructionSet) -> KernelTable {
        table(set, Table::<f32>::of(set).expect(AVAILABLE))
    }
}

impl Float for f64 {
    const PRECISION: Precision = Precision::F64;
    fn from_f64(x: f64) -> f64 {
        x
    }
    fn table(set: InstructionSet) -> KernelTable {
        table(set, Table::<f64>::detect())
    }
}
