//! What users write: a program is recorded by running ordinary Rust on values that stand for numbers to come.
//!
//! [`Program::record`] runs a closure once. Each operator on an [`Expr`] adds a node to the program's graph, and
//! [`Recorder::scan`] runs its closure once more to record one step of a loop over time:
//!
//! ```
//! use retrograd_compiler::ir::Program;
//! use retrograd_compiler::record::{Expr, Step, concat};
//!
//! fn rnn<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
//!     let h = s.state("h", units);
//!     s.next(h, s.affine("cell", concat([h, x]), units).tanh())
//! }
//!
//! let digits = Program::record("digits", |p| {
//!     let rows = p.sequence("rows", 28); // f32[T, B, 28]
//!     let label = p.labels("label"); // i32[B]
//!     let run = p.scan("rnn", |s| rnn(s, s.at(rows), 128));
//!     p.minimize(p.affine("readout", run.last(), 10).cross_entropy(label));
//! })?;
//! assert_eq!(digits.parameters[0].name, "rnn.cell.w");
//! # Ok::<(), retrograd_compiler::error::RecordErrors>(())
//! ```
//!
//! # Who is who
//!
//! [`Recorder`] (`p`) is the program, [`Step`] (`s`) one step of a scan; both are a [`Scope`], which makes
//! parameters, so a layer without state is a function of `&Scope` and serves in both. [`Run`] is a scan that has
//! been recorded. [`Expr`] is a value; all of its methods are in files by family: `pointwise`, `features`,
//! `compound` (short compositions of the others, such as softmax), `rows` and losses.
//!
//! # Where a node goes
//!
//! A value belongs to a *frame*: the program's graph, or the body of one scan. A node is added to the frame that
//! is being recorded, whatever its operands: what is written in the step is in the step. An outer value that a
//! step uses is captured, once; the inverse, a step's value used outside of it, is an error, as it is not one
//! value but one for each step. Moving work out of loops is for later passes, not for the recorder.
//!
//! # Mistakes
//!
//! Expressions do not return `Result`. A mistake is noted with the place of the user's call (every public function
//! here is `#[track_caller]`), its result is *poisoned*, and a poisoned operand makes a poisoned result without
//! another word. [`Program::record`] returns all mistakes at once.

mod compound;
mod declare;
mod expr;
mod features;
mod loss;
mod pointwise;
mod recorder;
mod recording;
mod rows;
mod scans;
mod scope;
mod step;

use std::panic::Location;

pub use expr::{Expr, Operand};
pub use features::{concat, concat_axis, stack};
pub use pointwise::select;
pub use recorder::{Recorder, TimeAxis};
pub use scope::Scope;
pub use step::{Run, States, Step, StepResult, Unrolled};

pub use crate::error::{RecordError, RecordErrorKind, RecordErrors};
use crate::ir::{Draft, Program};
use recording::Recording;

impl Program {
    /// Records a program. See the [module's text](crate::record).
    ///
    /// # Errors
    /// All mistakes of the recording, each with the file and line of the user's expression.
    #[track_caller]
    pub fn record(name: impl Into<String>, body: impl for<'r> FnOnce(&Recorder<'r>)) -> Result<Program, RecordErrors> {
        run(Location::caller(), Draft::new(name), body)
    }

    /// Records more onto a program: outputs, [updates](Recorder::update), another objective's parts. The values it
    /// has are reached by [name](Recorder::value) or [position](Recorder::from_value).
    ///
    /// ```
    /// # use retrograd_compiler::ir::{Init, Program};
    /// let counted = Program::record("count", |p| {
    ///     p.parameter("n", (), Init::Constant(0.0));
    /// })?;
    /// let counting = counted.extend(|p| p.update(p.value("n"), p.value("n") + 1.0))?;
    /// assert_eq!(counting.updates.len(), 1);
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    ///
    /// # Errors
    /// As for [`record`](Program::record).
    #[track_caller]
    pub fn extend(&self, body: impl for<'r> FnOnce(&Recorder<'r>)) -> Result<Program, RecordErrors> {
        run(Location::caller(), self.to_draft(), body)
    }
}

fn run(site: Site, program: Draft, body: impl for<'r> FnOnce(&Recorder<'r>)) -> Result<Program, RecordErrors> {
    let recording = Recording::new(program);
    body(&Recorder::new(&recording));
    recording.finish(site)
}

/// A place in the user's source.
type Site = &'static Location<'static>;
