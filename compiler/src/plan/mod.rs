//! The plan: which stages run in which order over which memory. What code generation and the executor work from.
//!
//! A **stage** runs over rows: those of the batch (inside a loop, at one step), or all rows of a time axis, or the
//! one row of shared values. Most stages are **kernels**, which become machine code:
//!
//! - a *tile* kernel takes a block of rows and a few panels of features at a time. It runs the matrix micro-kernel
//!   into a tile that stays in cache, then the pointwise work on that tile: all gates of a feature block lie side by
//!   side. A tile kernel without products is plain pointwise work;
//! - a *row* kernel takes one row at a time and may reduce along features (softmax, layer norm) and read its
//!   values through views (slices, broadcasts, transposes).
//!
//! The others are few and move or sum data: packing weights, products that sum over rows (weight gradients), sums
//! over rows, lookups and their scatter, strided copies.
//!
//! Every value that outlives its kernel has a **home**: a buffer, and which of its rows. A loop's state lives in a
//! buffer of T + 1 blocks when its history is wanted (backward needs it), so that "h before" and "h after" step t
//! are blocks t and t + 1 of the same memory and no copy is made.
//!
//! Memory: liveness gives every buffer a slot such that buffers whose lives overlap never share one. Nothing here
//! depends on T or B; the sizes of slots are formulas in them.
//!
//! What can be done segment after segment of a time axis is gathered into *sweeps*, whose intermediate values have rows
//! for one segment only (see `sweep`). With **checkpointing** these are all but a state now and then, computed again.
//!
//! **Sums over the rows of a time axis** (weight gradients) run against the axis's first loop: from the last row to the
//! first where that loop runs from the first step to the last. That is the order in which a backward loop makes what is
//! summed, and the only one that can be had segment by segment; so gradients have the same bits with checkpointing and
//! without, whatever the length of segments.

mod build;
mod checkpointing;
mod cost;
mod draw;
mod group;
mod kernel;
mod memory;
mod print;
mod sums;
mod sweep;
mod verify;

pub use build::plan;
pub use checkpointing::{Checkpointing, Segments};
pub use cost::{Bound, Machine, Phase};
pub use kernel::{Kernel, KernelNode, KernelOp, Product, Read, Source, Start, Tile};

pub use verify::PlanError;

use std::collections::HashSet;

use crate::ir::Sizes;
use crate::ir::sizes::{plus, times, total};
use crate::ir::types::{Axis, Extent};

/// What the plan must know of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Columns of a panel of the matrix micro-kernel.
    pub panel: usize,
    /// Bytes of a float.
    pub float_size: usize,
}

impl Target {
    /// Elements to which rows are padded: the widest thing that is ever loaded or stored at once.
    pub fn pad(&self) -> usize {
        self.panel.max(64 / self.float_size)
    }

    /// `n` rounded up to whole pads.
    pub fn padded(&self, n: usize) -> usize {
        n.next_multiple_of(self.pad())
    }

    /// Elements from one row of `n` to the next.
    ///
    /// Tiles go down the rows, a few features wide. Rows a multiple of 1024 bytes apart would meet in a few sets
    /// of the first-level cache and push each other out: those get one pad more (1 to 4 % of a training step at 128
    /// to 256 units, measured).
    pub fn stride(&self, n: usize) -> usize {
        let padded = self.padded(n);
        if (padded * self.float_size).is_multiple_of(ALIASING) { padded + self.pad() } else { padded }
    }
}

/// Index of a buffer of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub usize);

/// How many blocks of rows a buffer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rows {
    /// One row.
    One,
    /// A row per sample.
    Batch,
    /// A row per step and sample.
    Time(Axis),
    /// A row per step and sample, and one block more: the history of a state.
    History(Axis),
    /// As `Time`, for the steps of one segment.
    Segment(Axis),
    /// As `History`, for the steps of one segment.
    SegmentHistory(Axis),
    /// Checkpoints of a state: a row per sample before each segment, and behind the last.
    Checkpoints(Axis),
    /// One row, if the axis has more than one segment.
    IfSegments(Axis),
    /// A row per sample, if the axis has more than one segment.
    BatchIfSegments(Axis),
    /// One row, if a segment ends within a block of [`SUM_BLOCK`] rows.
    IfUneven(Axis),
}

/// Rows whose products are summed from zero, before their sum is added to that of others.
pub const SUM_BLOCK: usize = 64;

/// Where a sum over rows that is taken piece after piece keeps what it goes on from: sums in 64 bits and, of a product, the
/// block of rows that has begun. See `sums`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Two elements for each of the sum's, or one where these have 64 bits themselves.
    pub totals: BufferId,
    /// One for each.
    pub begun: Option<BufferId>,
}

impl Rows {
    /// Rows of a value's extent.
    pub fn of(extent: Extent) -> Rows {
        match extent {
            Extent::Shared => Rows::One,
            Extent::Batch => Rows::Batch,
            Extent::Time(axis) => Rows::Time(axis),
        }
    }

    /// Their number; [`TOO_LARGE`](crate::ir::sizes::TOO_LARGE) if they are more than can be counted.
    pub fn count(self, sizes: &Sizes, segments: &Segments) -> usize {
        let blocks = match self {
            Rows::One => return 1,
            Rows::Batch => 1,
            Rows::Time(axis) => sizes.steps(axis),
            Rows::History(axis) => plus(sizes.steps(axis), 1),
            Rows::Segment(axis) => segments.steps(axis),
            Rows::SegmentHistory(axis) => plus(segments.steps(axis), 1),
            Rows::Checkpoints(axis) => plus(segments.count(axis), 1),
            Rows::IfSegments(axis) => return usize::from(segments.count(axis) > 1),
            Rows::BatchIfSegments(axis) => usize::from(segments.count(axis) > 1),
            Rows::IfUneven(axis) => {
                let is_uneven = !times(segments.steps(axis), sizes.batch).is_multiple_of(SUM_BLOCK);
                return usize::from(segments.count(axis) > 1 && is_uneven);
            }
        };
        times(sizes.batch, blocks)
    }

    /// The kind that has room for both, if they differ by a block of rows at most.
    pub fn join(self, other: Rows) -> Option<Rows> {
        match (self, other) {
            (one, other) if one == other => Some(one),
            (Rows::Time(a), Rows::History(b)) | (Rows::History(b), Rows::Time(a)) if a == b => Some(Rows::History(a)),
            (Rows::Segment(a), Rows::SegmentHistory(b)) | (Rows::SegmentHistory(b), Rows::Segment(a)) if a == b => {
                Some(Rows::SegmentHistory(a))
            }
            _ => None,
        }
    }

    /// Whether it has rows for one segment of a time axis at a time.
    pub fn is_of_segment(self) -> bool {
        matches!(self, Rows::Segment(_) | Rows::SegmentHistory(_))
    }
}

/// What keeps a buffer alive beyond the stages that name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Run,
    /// It holds its contents from run to run: parameters, inputs, packed weights.
    Always,
    /// It is read when the run is over.
    Output,
}

/// A piece of memory: rows of equal width.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Name for texts.
    pub name: String,
    /// Number of rows.
    pub rows: Rows,
    /// Elements from one row to the next, padding included.
    pub stride: usize,
    /// Whether elements are 32-bit integers rather than floats.
    pub integer: bool,
    /// How long it must live.
    pub keep: Keep,
    /// The slot that liveness gave it.
    pub slot: usize,
}

/// A region of the arena that buffers with disjoint lives share.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Number of rows.
    pub rows: Rows,
    /// Bytes of a row.
    pub row_bytes: usize,
}

impl Slot {
    /// Its bytes, without the slack behind it; [`TOO_LARGE`](crate::ir::sizes::TOO_LARGE) if they are more than can be
    /// counted.
    pub fn bytes(&self, sizes: &Sizes, segments: &Segments) -> usize {
        times(self.row_bytes, self.rows.count(sizes, segments))
    }
}

/// Which rows of a buffer a stage's row r at step t means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// The one row.
    Shared,
    /// Row r, or row (block·B + r).
    Row(usize),
    /// Row (t + shift)·B + r. In a sweep, t counts from the segment's first step, and is 0 for a stage over all its
    /// rows at once.
    Step(usize),
    /// Row (T − back)·B + r. Of a buffer with rows for one segment, the end is that of the segment; of checkpoints, it is
    /// the state behind the last.
    FromEnd(Axis, usize),
}

/// Rows of a buffer as a stage reads or writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// The buffer.
    pub buffer: BufferId,
    /// Its rows.
    pub at: At,
}

/// Part of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The row.
    pub access: Access,
    /// First element.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
}

/// A matrix within a shared row: element (k, n) is at `offset + k·k_stride + n·n_stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Matrix {
    /// The buffer's one row.
    pub buffer: BufferId,
    /// Its first element.
    pub offset: usize,
    /// Elements from k to k + 1.
    pub k_stride: usize,
    /// Elements from n to n + 1.
    pub n_stride: usize,
}

/// The rows a stage runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// One.
    Shared,
    /// The batch.
    Batch,
    /// All steps at once.
    Time(Axis),
    /// All steps, one after another: some operand has a row per sample only.
    EachStep(Axis),
}

/// What a stage does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Generated code.
    Kernel(Kernel),
    /// Rows of a shared matrix into panels of the micro-kernel's width, behind `k_offset` rows already there.
    Pack {
        /// Source.
        from: Matrix,
        /// Inner dimension.
        k: usize,
        /// Columns.
        n: usize,
        /// Packed buffer, panel after panel of `k_total` rows.
        into: BufferId,
        /// Inner dimension of the whole product.
        k_total: usize,
        /// First row of each panel to fill.
        k_offset: usize,
    },
    /// c\[i, j\] = Σ over rows of a\[i\]·b\[j\].
    ReduceProduct {
        /// Left rows.
        a: Span,
        /// Right rows.
        b: Span,
        /// How many equal pairs each row holds, one behind another (leading dimensions).
        pairs: usize,
        /// Result, shared.
        into: BufferId,
        /// First element of the result.
        offset: usize,
        /// Elements from a result row to the next.
        stride: usize,
        /// Where the sum of the right rows goes, if that is wanted, too.
        sums: Option<Span>,
        /// What it goes on from, where it is taken in several pieces.
        carried: Option<Carried>,
    },
    /// Sums rows to a narrower extent.
    ReduceRows {
        /// Rows to sum.
        from: Span,
        /// Rows that each is multiplied by first, element by element.
        times: Option<Span>,
        /// Result: one row, or one per sample.
        into: Span,
        /// What it goes on from, where it is taken in several pieces.
        carried: Option<Carried>,
    },
    /// Rows times a packed matrix, where a row is itself a matrix of `m` rows.
    MatrixRows {
        /// Operand rows, m·k elements.
        from: Span,
        /// Result rows, m·n elements.
        into: Span,
        /// Rows within a row.
        m: usize,
        /// Inner dimension.
        k: usize,
        /// Columns.
        n: usize,
        /// Packed matrix.
        packed: BufferId,
    },
    /// A product of two matrices within each row.
    MatMul {
        /// Left, (offset, row stride, column stride) after transposition.
        a: Span,
        /// Right.
        b: Span,
        /// Result.
        into: Span,
        /// Rows, inner dimension, columns.
        mkn: [usize; 3],
        /// Whether the left is stored transposed.
        ta: bool,
        /// Whether the right is.
        tb: bool,
    },
    /// Rows of a table by index.
    Gather {
        /// Shared table.
        table: Span,
        /// Indices.
        index: Span,
        /// Result.
        into: Span,
        /// Features of a table row.
        width: usize,
    },
    /// Sums rows into a table.
    Scatter {
        /// Indices.
        index: Span,
        /// Rows.
        from: Span,
        /// Shared table.
        into: Span,
        /// Features of a table row.
        width: usize,
        /// What it goes on from, where it is taken in several pieces.
        carried: Option<Carried>,
    },
    /// 1 at the index.
    OneHot {
        /// Indices.
        index: Span,
        /// Result.
        into: Span,
        /// Number of classes.
        n: usize,
    },
    /// Position of the first maximum.
    Argmax {
        /// Scores.
        from: Span,
        /// Indices.
        into: Span,
        /// Scores of one maximum.
        n: usize,
    },
    /// Integers as floats.
    ToFloat {
        /// Integers.
        from: Span,
        /// Floats.
        into: Span,
    },
    /// Integers of one of two values: of `yes` where the mask is not 0, else of `no`.
    Choose {
        /// One float for the row, or one for each integer.
        mask: Span,
        /// Integers.
        yes: Span,
        /// Integers.
        no: Span,
        /// Integers.
        into: Span,
    },
    /// A strided copy within rows: element (i₀, i₁, ..) of `dims`.
    Copy {
        /// Source row; element (i₀, ..) at the offset plus each index times its stride.
        from: Span,
        /// Destination row, dense.
        into: Span,
        /// Loop.
        dims: Vec<usize>,
        /// Source strides.
        strides: Vec<usize>,
        /// Destination strides.
        into_strides: Vec<usize>,
    },
    /// One number everywhere.
    Fill {
        /// Destination.
        into: Span,
        /// The number.
        value: f64,
    },
    /// Zeros, and a value in the last step's rows.
    PlaceLast {
        /// A row per sample.
        from: Span,
        /// Sequence.
        into: Span,
        /// Its axis.
        axis: Axis,
    },
    /// 1 at the steps before each sample's length, 0 from there on.
    Within {
        /// An integer per sample: its length.
        from: Span,
        /// Sequence.
        into: Span,
    },
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Names of what it computes, for texts.
    pub name: String,
    /// Its rows.
    pub domain: Domain,
    /// What it does.
    pub work: Work,
    /// Rows it reads. A kernel names them by position.
    pub reads: Vec<Access>,
    /// Rows it writes, behind the reads in a kernel's numbering.
    pub writes: Vec<Access>,
    /// Whether it depends on nothing but parameters: run only when these have changed.
    pub constant: bool,
}

/// A state of a loop, as the outside sees it.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Axis of the loop.
    pub axis: Axis,
    /// Where it is before the first step.
    pub begin: Access,
    /// Where it is behind the last.
    pub end: Access,
    /// In a sweep, what it was before each segment, and behind the last.
    pub checkpoints: Option<BufferId>,
}

impl State {
    /// Of its checkpoints, the state behind the last step.
    pub fn end_of_checkpoints(&self) -> At {
        At::FromEnd(self.axis, 0)
    }
}

/// A loop over time.
#[derive(Clone, Debug)]
pub struct Loop {
    /// Name of the scan.
    pub name: String,
    /// Its axis.
    pub axis: Axis,
    /// Whether it runs from the last step to the first.
    pub reverse: bool,
    /// Its states.
    pub states: Vec<State>,
    /// The stages of one step.
    pub stages: Vec<Stage>,
}

/// What runs segment after segment of a time axis, there and back again. See `sweep`.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The axis.
    pub axis: Axis,
    /// Whether the way forth begins with the last segment.
    pub reverse: bool,
    /// Stages and loops of a segment on the way forth.
    pub forth: Vec<Unit>,
    /// What runs between the two ways, for all steps.
    pub between: Vec<Unit>,
    /// Which of `forth` run again on the way back, before `back`; not in the segment where the way forth ends, whose
    /// values are still there.
    pub again: Vec<usize>,
    /// Stages and loops of a segment on the way back.
    pub back: Vec<Unit>,
}

/// A part of a plan.
#[derive(Clone, Debug)]
pub enum Unit {
    /// A stage.
    Stage(Stage),
    /// A loop of stages.
    Loop(Loop),
    /// Stages and loops, segment by segment.
    Sweep(Sweep),
}

impl Sweep {
    /// Whether some loop's states are kept between segments.
    pub fn has_checkpoints(&self) -> bool {
        self.forth.iter().any(|unit| matches!(unit, Unit::Loop(l) if l.states.iter().any(|s| s.checkpoints.is_some())))
    }
}

impl Unit {
    /// All its stages, each with its loop.
    pub fn stages(&self) -> Vec<(&Stage, Option<&Loop>)> {
        match self {
            Unit::Stage(stage) => vec![(stage, None)],
            Unit::Loop(l) => l.stages.iter().map(|s| (s, Some(l))).collect(),
            Unit::Sweep(sweep) => {
                let units = sweep.forth.iter().chain(&sweep.between).chain(&sweep.back);
                units.flat_map(Unit::stages).collect()
            }
        }
    }
}

/// A named value at the boundary.
#[derive(Clone, Debug)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Where it is; each row's features lie one behind another in these spans.
    pub spans: Vec<Span>,
    /// Extent.
    pub extent: Extent,
    /// Features.
    pub shape: Vec<usize>,
    /// Whether it is an integer.
    pub integer: bool,
}

/// Stages in order, with their memory. See the module's text.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the program.
    pub name: String,
    /// The machine it is for.
    pub target: Target,
    /// What runs, in order.
    pub units: Vec<Unit>,
    /// Memory.
    pub buffers: Vec<Buffer>,
    /// Regions of the arena.
    pub slots: Vec<Slot>,
    /// Parameters.
    pub parameters: Vec<Port>,
    /// Inputs.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
    /// The objective, whatever outputs are called.
    pub objective: Option<Port>,
    /// New values of parameters and inputs, copied behind the run: (new value, which port, is it a parameter).
    pub updates: Vec<(Port, usize, bool)>,
    /// Numbers of rows that some kernel reads, filled in by the executor.
    pub row_counts: Vec<(BufferId, Extent)>,
    /// Axes whose first loop that reads more than its states runs from the last step to the first: see
    /// [`sums_from_the_end`](Plan::sums_from_the_end).
    pub turned: Vec<Axis>,
    /// How long the segments of its sweeps are, if that was asked for; else they suit a cache.
    pub checkpointing: Option<Checkpointing>,
}

impl Plan {
    /// All stages, each with the axis of its loop.
    pub fn stages(&self) -> impl Iterator<Item = (&Stage, Option<Axis>)> {
        self.units.iter().flat_map(Unit::stages).map(|(stage, l)| (stage, l.map(|l| l.axis)))
    }

    /// What is read when a run is over: outputs and the objective.
    pub fn results(&self) -> impl Iterator<Item = &Port> {
        self.outputs.iter().chain(&self.objective)
    }

    /// Whether sums over the rows of an axis run from the last row to the first: against its first loop.
    pub fn sums_from_the_end(&self, axis: Axis) -> bool {
        !self.turned.contains(&axis)
    }

    /// Bytes of memory for these sizes: what an executor allocates for values, but for alignment and whole pages. If it has to fit a limit and
    /// cannot, this is the least that is possible. Where it is more than can be counted, it is
    /// [`TOO_LARGE`](crate::ir::sizes::TOO_LARGE), which no limit reaches and no machine has.
    ///
    /// ```
    /// use retrograd_compiler::ir::{Program, Sizes};
    /// use retrograd_compiler::plan::Checkpointing;
    ///
    /// let program = Program::record("follow", |p| {
    ///     let x = p.sequence("x", 16);
    ///     let run = p.scan("rnn", |s| {
    ///         let h = s.state("h", 64);
    ///         s.next(h, (s.linear("h", h, 64) + s.affine("x", s.at(x), 64)).tanh())
    ///     });
    ///     p.minimize(run.all().square().mean_features().mean_rows());
    /// })?
    /// .backward()?;
    /// let (whole, checkpointed) = (program.plan(), program.checkpointed_plan(Checkpointing::Sqrt));
    /// let sizes = Sizes::new(1000, 32);
    /// assert!(checkpointed.memory(&sizes) < whole.memory(&sizes) / 3);
    /// assert!(checkpointed.flops(&sizes) < whole.flops(&sizes) * 3 / 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn memory(&self, sizes: &Sizes) -> usize {
        self.memory_in(sizes, &self.segments(sizes))
    }

    /// Bytes of memory with segments of these lengths.
    fn memory_in(&self, sizes: &Sizes, segments: &Segments) -> usize {
        total(self.slots.iter().map(|slot| plus(slot.bytes(sizes, segments), ARENA_SLACK)))
    }

    /// Whether some stage writes a parameter where it stands.
    pub fn writes_parameters(&self) -> bool {
        let held: HashSet<BufferId> = self.parameters.iter().map(|p| p.spans[0].access.buffer).collect();
        self.stages().any(|(s, _)| s.writes.iter().any(|w| held.contains(&w.buffer)))
    }
}

/// Distance of rows, in bytes, at which few sets of a first-level cache (64 sets of 64 bytes) are in use.
const ALIASING: usize = 1024;

/// Bytes behind every slot: vector loads may read past the end of the last row, by less than the widest panel. Plans are
/// verified to need no more.
pub const ARENA_SLACK: usize = 128;
