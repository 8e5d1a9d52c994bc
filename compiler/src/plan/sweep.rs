//! What can run segment by segment is gathered into sweeps: for memory, for caches, and for checkpointing.
//!
//! Before: a plan whose stages and loops each run over all steps, one behind another, so that all that the backward pass
//! needs of the forward pass is held for all steps. After: on each time axis where it is possible, they are a **sweep**
//! over segments of k steps. On the way *forth*, from the segment where the first loop starts to the one where it ends,
//! the first loop and what feeds it run; the states before each segment are kept as checkpoints. On the way *back*, the
//! same runs *again* from each segment's checkpoint (but for the segment where the way forth ended, whose values are
//! still there), then the stages between the loops, the backward loop, which takes its state from segment to segment,
//! and the sums over rows, which add to their result from segment to segment. What is read within a segment only has
//! rows for one segment.
//!
//! Without checkpoints nothing runs again, and what is written forth and read back is whole, and so are the forward loop's
//! states: what has rows for one segment is what the way forth makes for itself, as a product for all steps that a loop
//! adds to, and what the way back does, the adjoints that weight gradients are summed from. What is used up while it is in
//! a cache never comes from memory.
//!
//! Nothing is computed differently, only when: each row of a stage depends on its own operands, and a sum over rows has
//! one order, that of the way back. So results have the same bits.
//!
//! # When a unit runs
//!
//! Units depend on each other in two ways. An **aligned** dependence is from a step's rows to the same step's rows, and
//! holds segment by segment; any other waits for all steps. There are five phases: before the sweep, forth, between,
//! back, behind. A unit of one phase depends on units of earlier phases, and in an aligned way on units of its own. A
//! loop in the direction of the axis's first loop can run forth, one in the other direction back, sums over rows back,
//! and a stage that works row by row either way; anything else runs at once for all steps, before, between or behind.
//!
//! - Backward from the end of the plan: the last loops against the first one's direction run back, with the stages whose
//!   results they need in an aligned way. Whatever they need otherwise must be done before the way back begins.
//! - Forward from the start: each unit in the earliest phase that its operands allow.
//! - Then stages that work row by row move behind again, to where they are read.
//!
//! A value has rows for one segment only if all who write and read it do so forth and back, and it can be computed again
//! if it is written forth and read back. All others stay whole, and so does a loop that finds no place forth or back:
//! it runs as it would without checkpoints. The rest, before, between and behind, may hold sweeps of its own, over this
//! axis or another: an encoder's sweep has the decoder's between its two ways.

mod analysis;
pub(super) mod apart;

use std::collections::HashSet;

use super::{Access, At, Buffer, BufferId, Keep, Loop, Plan, Rows, Span, Stage, State, Sweep, Unit, Work};
use crate::ir::types::Axis;

use analysis::{Analysis, Phase, is_aligned};
use apart::apart;

/// Gathers all units that can run segment by segment into sweeps.
pub fn gather(plan: &mut Plan) {
    let units: Vec<Unit> =
        std::mem::take(&mut plan.units).into_iter().flat_map(|unit| apart(unit, &plan.buffers)).collect();
    let mut axes = Vec::new();
    for unit in &units {
        if let Unit::Loop(l) = unit
            && !axes.contains(&l.axis)
        {
            axes.push(l.axis);
        }
    }
    let mut gathering = Gathering { plan, axes, moved: Vec::new() };
    let units = gathering.list(units, &HashSet::new());
    let moved = gathering.moved;
    plan.units = units;
    for unit in &mut plan.units {
        redirect(unit, &moved);
    }
    let Plan { outputs, objective, updates, buffers, .. } = plan;
    let ports = outputs.iter_mut().chain(objective).chain(updates.iter_mut().map(|(port, _, _)| port));
    for access in ports.flat_map(|port| &mut port.spans).map(|span| &mut span.access) {
        let kept = elsewhere(&moved, *access, false);
        if kept != *access {
            buffers[access.buffer.0].keep = Keep::Run;
            buffers[kept.buffer.0].keep = Keep::Output;
            *access = kept;
        }
    }
}

/// Where the outside finds what a loop's state was: the end of one that has checkpoints it reads behind the last of
/// these, and how it begins it writes to the first.
fn elsewhere(moved: &[State], access: Access, writes: bool) -> Access {
    let place = |state: &State| if writes { state.begin } else { state.end };
    let Some(state) = moved.iter().find(|state| place(state) == access) else { return access };
    let buffer = state.checkpoints.expect("it has moved");
    Access { buffer, at: if writes { At::Row(0) } else { state.end_of_checkpoints() } }
}

/// Has all but a loop itself find its states elsewhere.
fn redirect(unit: &mut Unit, moved: &[State]) {
    let new = |access, writes| elsewhere(moved, access, writes);
    match unit {
        Unit::Stage(stage) => stage.map(new),
        Unit::Loop(l) => {
            // The loop itself works on the state.
            let own: Vec<BufferId> = l.states.iter().map(|s| s.begin.buffer).collect();
            for stage in &mut l.stages {
                stage.map(|access, writes| if own.contains(&access.buffer) { access } else { new(access, writes) });
            }
        }
        Unit::Sweep(sweep) => {
            for unit in sweep.forth.iter_mut().chain(&mut sweep.between).chain(&mut sweep.back) {
                redirect(unit, moved);
            }
        }
    }
}

/// A plan whose units are being put into sweeps.
struct Gathering<'p> {
    plan: &'p mut Plan,
    axes: Vec<Axis>,
    /// States that have checkpoints.
    moved: Vec<State>,
}

impl Gathering<'_> {
    /// A list of units with its sweeps. `foreign` are buffers that are named outside it.
    fn list(&mut self, units: Vec<Unit>, foreign: &HashSet<BufferId>) -> Vec<Unit> {
        for axis in self.axes.clone() {
            let analysis = Analysis::new(self.plan, &units, axis);
            let Some(phases) = analysis.phases() else { continue };
            let local = analysis.locals(self.plan, &units, &phases, foreign);
            let (local, again) = analysis.again(self.plan, &units, &phases, local);
            if local.is_empty() {
                continue;
            }
            return self.split(&analysis, units, &phases, &local, &again, foreign);
        }
        units
    }

    /// Puts units into their phases.
    fn split(
        &mut self,
        analysis: &Analysis,
        units: Vec<Unit>,
        phases: &[Phase],
        local: &HashSet<BufferId>,
        again: &HashSet<usize>,
        foreign: &HashSet<BufferId>,
    ) -> Vec<Unit> {
        let axis = analysis.axis;
        let mut parts: [Vec<Unit>; 5] = Default::default();
        let mut repeated = Vec::new();
        for (i, mut unit) in units.into_iter().enumerate() {
            let phase = phases[i];
            let part = &mut parts[phase as usize];
            if phase.is_swept() {
                if let Unit::Stage(stage) = &mut unit {
                    step_by_step(stage, axis, &self.plan.buffers);
                }
                if let (Phase::Forth, Unit::Loop(l)) = (phase, &mut unit) {
                    self.add_checkpoints(l, local, again.contains(&i));
                }
                if again.contains(&i) {
                    repeated.push(part.len());
                }
            }
            part.push(unit);
        }
        for buffer in local {
            let rows = &mut self.plan.buffers[buffer.0].rows;
            *rows = match rows {
                Rows::Time(axis) => Rows::Segment(*axis),
                Rows::History(axis) => Rows::SegmentHistory(*axis),
                other => panic!("{other:?} are not those of a time axis"),
            };
        }
        let [before, forth, between, back, behind] = parts;
        let swept = named(forth.iter().chain(&back));
        let outside = |parts: [&[Unit]; 2]| -> HashSet<BufferId> {
            swept.iter().copied().chain(named(parts.into_iter().flatten())).chain(foreign.iter().copied()).collect()
        };
        let (of_before, of_between, of_behind) =
            (outside([&between, &behind]), outside([&before, &behind]), outside([&before, &between]));
        let mut list = self.list(before, &of_before);
        let between = self.list(between, &of_between);
        list.push(Unit::Sweep(Sweep { axis, reverse: analysis.reverse, forth, between, again: repeated, back }));
        list.extend(self.list(behind, &of_behind));
        list
    }

    /// Memory for a loop's states before each segment: where they have no rows for all steps and are wanted again.
    fn add_checkpoints(&mut self, l: &mut Loop, local: &HashSet<BufferId>, again: bool) {
        for state in &mut l.states {
            let own = &self.plan.buffers[state.begin.buffer.0];
            let wanted = match own.rows {
                Rows::History(_) => local.contains(&state.begin.buffer),
                _ => again,
            };
            if !wanted {
                continue;
            }
            let buffer = BufferId(self.plan.buffers.len());
            let name = format!("{}.kept", own.name);
            let kept = Buffer { name, rows: Rows::Checkpoints(l.axis), keep: Keep::Run, ..own.clone() };
            self.plan.buffers.push(kept);
            state.checkpoints = Some(buffer);
            self.moved.push(*state);
        }
    }
}

fn named<'a>(units: impl IntoIterator<Item = &'a Unit>) -> HashSet<BufferId> {
    let stages = units.into_iter().flat_map(Unit::stages);
    stages
        .flat_map(|(stage, _)| stage.reads.iter().chain(&stage.writes).map(|a| a.buffer).collect::<Vec<_>>())
        .collect()
}

/// Rows of a stage over all steps at once, counted from the first step of a segment.
fn step_by_step(stage: &mut Stage, axis: Axis, buffers: &[Buffer]) {
    let seen = stage.clone();
    stage.map(|access, writes| match access.at {
        At::Row(shift) if is_aligned(&seen, None, access, writes, axis, buffers) => {
            Access { at: At::Step(shift), ..access }
        }
        _ => access,
    });
}

impl Stage {
    /// Changes what it reads and what it writes, everywhere it says so.
    fn map(&mut self, new: impl Fn(Access, bool) -> Access) {
        self.reads.iter_mut().for_each(|access| *access = new(*access, false));
        self.writes.iter_mut().for_each(|access| *access = new(*access, true));
        let read = |span: &mut Span| span.access = new(span.access, false);
        let write = |span: &mut Span| span.access = new(span.access, true);
        match &mut self.work {
            Work::Kernel(kernel) => {
                let (reads, writes) = kernel.strides.split_at_mut(kernel.reads);
                reads.iter_mut().for_each(|(access, _)| *access = new(*access, false));
                writes.iter_mut().for_each(|(access, _)| *access = new(*access, true));
            }
            // A matrix is in a shared row, and so is what is packed.
            Work::Pack { .. } => {}
            Work::ReduceProduct { a, b, sums, .. } => {
                read(a);
                read(b);
                sums.iter_mut().for_each(write);
            }
            Work::ReduceRows { from, times, into, .. } => {
                read(from);
                times.iter_mut().for_each(read);
                write(into);
            }
            Work::MatrixRows { from, into, .. }
            | Work::Argmax { from, into, .. }
            | Work::ToFloat { from, into }
            | Work::Copy { from, into, .. }
            | Work::PlaceLast { from, into, .. }
            | Work::Within { from, into, .. }
            | Work::OneHot { index: from, into, .. } => {
                read(from);
                write(into);
            }
            Work::MatMul { a, b, into, .. }
            | Work::Gather { table: a, index: b, into, .. }
            | Work::Scatter { index: a, from: b, into, .. } => {
                read(a);
                read(b);
                write(into);
            }
            Work::Choose { mask, yes, no, into } => {
                read(mask);
                read(yes);
                read(no);
                write(into);
            }
            Work::Fill { into, .. } => write(into),
        }
    }
}
