//! What a program that records cells, trains them and runs them imports.

pub use retrograd_compiler::ir::{Axis, DType, Extent, Init, Program, Shape, Sizes, Type};
pub use retrograd_compiler::plan::Checkpointing;
pub use retrograd_compiler::record::{
    Expr, Operand, RecordError, RecordErrorKind, RecordErrors, Recorder, Run, Scope, States, Step, TimeAxis, concat,
    concat_axis, select, stack,
};
pub use retrograd_runtime::decode::{Decoder, Hypothesis, Search, beam_search, greedy};
pub use retrograd_runtime::feed::Feed;
pub use retrograd_runtime::optimizer::{Adam, AdamW, RmsProp, Sgd};
pub use retrograd_runtime::schedule::Schedule;
pub use retrograd_runtime::settings::{InstructionSet, Settings};
pub use retrograd_runtime::train::{Report, Stream, Trainer, Training};
