//! Segment after segment: the two ways of a sweep.
//!
//! On the way forth each loop's states begin a segment as the checkpoint before it says, and leave the next one; on the
//! way back they begin there again. A loop of the way back takes its states along: those with rows for one segment go
//! from where the last segment left them to where the next one begins. Stages are bound anew for each segment, in
//! memory that is there; the team meets at each stage, and once for a loop over a segment.

use retrograd_compiler::ir::Axis;
use retrograd_compiler::plan::{Access, BufferId, Loop, Rows, Stage, Sweep, Unit};

use super::share::Share;
use super::{Binding, Executor, Run, accesses};
use crate::float::Float;

/// The segment that a sweep is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    axis: Axis,
    /// Its first step.
    pub(super) start: usize,
    /// Its steps.
    len: usize,
    /// Whether nothing has been run before it on this way.
    pub(super) is_first: bool,
}

/// How a loop's states begin a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// As the checkpoint of this number says, and they leave the next one.
    Forth(usize),
    /// As that checkpoint says, once more.
    Again(usize),
    /// As they ended the last segment.
    Back,
}

impl<E: Float> Executor<E> {
    /// Runs a sweep whose first stage is `first`, and counts its stages.
    pub(super) fn sweep(&mut self, sweep: &Sweep, first: &mut usize) {
        let segments = self.binding.segments.count(sweep.axis);
        if segments == 1 && !sweep.has_checkpoints() {
            // All is bound as it is outside of sweeps.
            for unit in sweep.forth.iter().chain(&sweep.between).chain(&sweep.back) {
                self.unit(unit, first);
            }
            return;
        }
        let forth = *first;
        let mut between = forth + sweep.forth.iter().map(count).sum::<usize>();
        for i in 0..segments {
            let window = self.window(sweep, i, i == 0);
            let mut at = forth;
            for unit in &sweep.forth {
                self.in_segment(unit, at, window, Begin::Forth(i));
                at += count(unit);
            }
        }
        for unit in &sweep.between {
            self.unit(unit, &mut between);
        }
        let back = between;
        *first = back + sweep.back.iter().map(count).sum::<usize>();
        // Without a way back, this would only compute again.
        let ways_back = if sweep.back.is_empty() { 0 } else { segments };
        for i in (0..ways_back).rev() {
            let is_first = i + 1 == segments;
            let window = self.window(sweep, i, is_first);
            let mut at = forth;
            for (u, unit) in sweep.forth.iter().enumerate() {
                if !is_first && sweep.again.contains(&u) {
                    self.in_segment(unit, at, window, Begin::Again(i));
                }
                at += count(unit);
            }
            let mut at = back;
            for unit in &sweep.back {
                self.in_segment(unit, at, window, Begin::Back);
                at += count(unit);
            }
        }
    }

    fn window(&self, sweep: &Sweep, segment: usize, is_first: bool) -> Window {
        let (start, len) = self.binding.segments.segment(sweep.axis, sweep.reverse, segment);
        Window { axis: sweep.axis, start, len, is_first }
    }

    /// Runs a unit, whose first stage is `first`, over one segment.
    fn in_segment(&mut self, unit: &Unit, first: usize, window: Window, begin: Begin) {
        match unit {
            Unit::Stage(stage) => self.timed(first, |this| {
                this.bind_in(stage, first, window);
                this.stage(stage, first, Some(window));
            }),
            Unit::Loop(l) => self.timed(first, |this| {
                for (i, stage) in l.stages.iter().enumerate() {
                    this.bind_in(stage, first + i, window);
                }
                let before: super::Aside<E> = &|run, share| run.begin(l, begin, share);
                let behind: super::Aside<E> = &|run, share| run.leave(l, begin, share);
                this.steps(l, first, Some(window), before, behind);
            }),
            Unit::Sweep(_) => unreachable!("a sweep is between the ways of another, or outside of it"),
        }
    }

    /// Binds a stage to the rows of a segment, in the memory that it was bound in.
    fn bind_in(&mut self, stage: &Stage, at: usize, window: Window) {
        let Executor { compiled, own, kernels, binding, .. } = self;
        let Binding { buffers, bound, sizes, segments, order, .. } = binding;
        let run = Run { compiled, buffers, bound: &[], own, order, sizes, segments, kernels, window: Some(window) };
        for (base, access) in bound[at].bases.iter_mut().zip(accesses(stage)) {
            *base = run.base(access);
        }
    }
}

/// Stages of a unit.
fn count(unit: &Unit) -> usize {
    match unit {
        Unit::Stage(_) => 1,
        Unit::Loop(l) => l.stages.len(),
        Unit::Sweep(sweep) => sweep.forth.iter().chain(&sweep.between).chain(&sweep.back).map(count).sum(),
    }
}

impl<E: Float> Run<'_, E> {
    /// Steps of an axis that are run: of the segment, within one.
    pub(super) fn steps_of(&self, axis: Axis) -> usize {
        self.window.filter(|window| window.axis == axis).map_or(self.sizes.steps(axis), |window| window.len)
    }

    /// The first of these steps, and how many they are.
    pub(super) fn steps_in(&self, axis: Axis) -> (usize, usize) {
        let window = self.window.filter(|window| window.axis == axis);
        window.map_or((0, self.sizes.steps(axis)), |window| (window.start, window.len))
    }

    /// The block of a buffer that belongs to the first of these steps.
    pub(super) fn first_block(&self, buffer: BufferId) -> usize {
        match (self.compiled.plan.buffers[buffer.0].rows, self.window) {
            (Rows::Time(axis) | Rows::History(axis), Some(window)) if window.axis == axis => window.start,
            _ => 0,
        }
    }

    /// The block behind the last step of a buffer. Outside of the sweep the segment is the one where the way forth ends
    /// and the way back begins, which is a full one.
    pub(super) fn end_block(&self, buffer: BufferId, axis: Axis) -> usize {
        match self.compiled.plan.buffers[buffer.0].rows {
            Rows::Segment(own) | Rows::SegmentHistory(own) => {
                self.window.filter(|window| window.axis == own).map_or(self.segments.steps(own), |window| window.len)
            }
            Rows::Checkpoints(own) => self.segments.count(own),
            _ => self.sizes.steps(axis),
        }
    }

    /// Sets a member's rows of a loop's states to what they are before the segment.
    fn begin(&self, l: &Loop, begin: Begin, share: Share) {
        for state in &l.states {
            let first = (state.begin.buffer, self.first_row(&state.begin, 0));
            match (begin, state.checkpoints) {
                (Begin::Forth(i) | Begin::Again(i), Some(kept)) => {
                    self.copy_block((kept, i * self.sizes.batch), first, share);
                }
                (Begin::Back, None) if self.goes_along(&state.begin) => {
                    // The last segment was a full one.
                    let full = Run { window: None, ..*self };
                    let last = (state.end.buffer, full.first_row(&state.end, 0));
                    self.copy_block(last, first, share);
                }
                _ => {}
            }
        }
    }

    /// Whether a state has rows for one segment only, and another segment was before this.
    fn goes_along(&self, begin: &Access) -> bool {
        let rows = self.compiled.plan.buffers[begin.buffer.0].rows;
        rows.is_of_segment() && self.window.is_some_and(|window| !window.is_first)
    }

    /// Keeps a member's rows of a loop's states behind the segment.
    fn leave(&self, l: &Loop, begin: Begin, share: Share) {
        let Begin::Forth(i) = begin else { return };
        for state in &l.states {
            let Some(kept) = state.checkpoints else { continue };
            let last = (state.end.buffer, self.first_row(&state.end, 0));
            self.copy_block(last, (kept, (i + 1) * self.sizes.batch), share);
        }
    }

    /// Copies a member's part of B rows, from a row on to a row on of a buffer that is as wide.
    fn copy_block(&self, from: (BufferId, usize), into: (BufferId, usize), share: Share) {
        let row_bytes = self.compiled.plan.buffers[from.0.0].stride * self.element_size(from.0);
        let mine = share.of(self.sizes.batch);
        let address =
            |(buffer, row): (BufferId, usize)| self.buffers[buffer.0].wrapping_add((row + mine.start) * row_bytes);
        // SAFETY: both are blocks of the plan's states and checkpoints, which are equally wide, and not the same; each
        // member has its own rows.
        unsafe { std::ptr::copy_nonoverlapping(address(from), address(into), mine.len() * row_bytes) };
    }
}
