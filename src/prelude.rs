//! What a program that records cells imports.

pub use retrograd_compiler::ir::{Axis, DType, Extent, Init, Program, Shape, Sizes, Type};
pub use retrograd_compiler::record::{
    Expr, Operand, RecordError, RecordErrorKind, RecordErrors, Recorder, Run, Scope, States, Step, TimeAxis, concat,
    concat_axis, select, stack,
};
