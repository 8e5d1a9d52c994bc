//! Cells made of cells: one above another, with a way around, in both directions of time.

use super::Cell;
use crate::prelude::*;

/// Layers, each on what the one below it gives, within one step: x → layer 1 → layer 2 → …
///
/// Each layer is a cell with its number of units, in a scope of its own: `layer1`, `layer2`, …, so that its states and
/// parameters are `layer1.h`, `layer1.gates.w`. Gives what the last layer gives; x itself if there is none.
///
/// ```
/// use retrograd::{cells, prelude::*};
///
/// let program = Program::record("deep", |p| {
///     let x = p.sequence("x", 8);
///     let run = p.scan("deep", |s| {
///         cells::stacked(s, s.at(x), &[
///             (&cells::lstm, 32),
///             (&|s, x, units| cells::residual(s, x, units, &cells::gru), 32),
///             (&|s, x, units| cells::projected_lstm(s, x, units, 8), 64),
///         ])
///     });
///     p.output("y", run.all()); // f32[T, B, 8]
///     p.output("c", run.state("layer1.c"));
/// })?;
/// assert!(program.parameter("deep.layer2.x.w").is_some());
/// # Ok::<(), RecordErrors>(())
/// ```
#[track_caller]
pub fn stacked<'r>(s: &Step<'r>, x: Expr<'r>, layers: &[(Cell<'_, 'r>, usize)]) -> Expr<'r> {
    let layers = layers.iter().enumerate();
    layers.fold(x, |x, (i, (cell, units))| s.scope(&format!("layer{}", i + 1), |s| cell(s, x, *units)))
}

/// A cell with a way around it: x + cell(x), or x·W_s + cell(x) where the cell gives another number of features.
///
/// He et al. (2016), "Deep residual learning for image recognition"; in stacks of LSTMs, Wu et al. (2016), "Google's
/// neural machine translation system".
///
/// Parameters: those of the cell and, where the numbers differ, `shortcut.w` `[inputs, features]`. States: the cell's.
#[track_caller]
pub fn residual<'r>(s: &Step<'r>, x: Expr<'r>, units: usize, cell: Cell<'_, 'r>) -> Expr<'r> {
    let y = cell(s, x, units);
    let around = if x.units() == y.units() { x } else { s.linear("shortcut", x, y.units()) };
    around + y
}

/// Two scans over one sequence: see [`bidirectional`].
#[derive(Clone, Copy)]
pub struct Bidirectional<'r> {
    /// From the first step to the last.
    pub forward: Run<'r>,
    /// From the last step to the first.
    pub backward: Run<'r>,
}

impl<'r> Bidirectional<'r> {
    /// What both give at each step, side by side: `[T, B, 2 units]`. Each step knows the whole sequence.
    #[track_caller]
    pub fn all(self) -> Expr<'r> {
        concat([self.forward.all(), self.backward.all()])
    }

    /// What each gives at its own end: the forward scan at the last step, the backward scan at the first, side by side:
    /// `[B, 2 units]`.
    #[track_caller]
    pub fn last(self) -> Expr<'r> {
        concat([self.forward.last(), self.backward.last()])
    }
}

/// A cell over a sequence in both directions, with weights of their own.
///
/// Schuster & Paliwal (1997), "Bidirectional recurrent neural networks". Samples of different
/// [lengths](TimeAxis::lengths) are each taken from their own end.
///
/// Parameters: those of the cell twice, in the scopes `name.forward` and `name.backward`.
///
/// ```
/// use retrograd::{cells, prelude::*};
///
/// let tagger = Program::record("tagger", |p| {
///     let time = p.lengths("lengths"); // or p.axis("time"), where all samples are of one length
///     let (x, tag) = (time.sequence("x", 8), time.labels("tag"));
///     let first = cells::bidirectional(p, time, "first", x, 16, &cells::lstm);
///     let second = cells::bidirectional(p, time, "second", first.all(), 16, &cells::lstm);
///     p.output("about", second.last()); // f32[B, 32]
///     p.minimize(p.affine("readout", second.all(), 4).cross_entropy(tag).mean_over(time));
/// })?;
/// assert!(tagger.parameter("second.backward.gates.w").is_some());
/// # Ok::<(), RecordErrors>(())
/// ```
#[track_caller]
pub fn bidirectional<'r>(
    p: &Recorder<'r>,
    time: TimeAxis<'r>,
    name: &str,
    x: Expr<'r>,
    units: usize,
    cell: Cell<'_, 'r>,
) -> Bidirectional<'r> {
    p.scope(name, |_| Bidirectional {
        forward: time.scan("forward", |s| cell(s, s.at(x), units)),
        backward: time.scan_reverse("backward", |s| cell(s, s.at(x), units)),
    })
}
