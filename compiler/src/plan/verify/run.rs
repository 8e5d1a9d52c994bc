//! Goes through a plan as the executor does, and keeps account of what memory holds.
//!
//! For each block of rows of each buffer: which elements have been written, since something else was last written to its
//! slot. What is read must be among them. A batch is one row here, since all samples are alike; steps and segments are
//! few, and stand for all (see [`super`]).

use crate::ir::types::{Axis, Extent, Sizes};
use crate::plan::checkpointing::Segments;
use crate::plan::{Access, At, BufferId, Domain, Loop, Plan, Rows, Span, Stage, State, Sweep, Unit, Work};

use super::Found;
use super::rows::Count;
use super::touch::Touch;

/// Steps of all axes, and steps of a segment: one of all; several in one segment; a first segment that is shorter than the
/// last; a segment that is neither the first nor the last.
const SIZES: [(usize, usize); 4] = [(1, 1), (3, 3), (3, 2), (3, 1)];

/// Whether all that is read has been written; `touches` are of the plan's stages, in its order.
pub fn verify(plan: &Plan, touches: &[Vec<Touch>]) -> Found {
    let stages: Vec<Effects> =
        plan.stages().zip(touches).map(|((stage, _), touches)| Effects::of(stage, touches)).collect();
    let has_axes = plan.buffers.iter().any(|buffer| buffer.rows.axis().is_some());
    let has_sweeps = plan.units.iter().any(|unit| matches!(unit, Unit::Sweep(_)));
    let sizes = match (has_axes, has_sweeps) {
        (false, _) => &SIZES[..1],
        (true, false) => &SIZES[..2],
        (true, true) => &SIZES[..],
    };
    for &(steps, of_segment) in sizes {
        let mut run = Run::new(plan, &stages, steps, of_segment);
        run.twice().map_err(|(place, reason)| {
            let how = format!("with {steps} steps in segments of {of_segment}");
            (place, format!("{reason}, {how}"))
        })?;
    }
    Ok(())
}

/// Elements of rows that a stage reads or writes.
#[derive(Clone, Copy)]
struct Effect {
    access: Access,
    first: usize,
    end: usize,
    count: Option<Count>,
}

/// What a stage reads and writes, each once.
struct Effects {
    reads: Vec<Effect>,
    writes: Vec<Effect>,
}

impl Effects {
    fn of(stage: &Stage, touches: &[Touch]) -> Effects {
        let mut effects = Effects { reads: Vec::new(), writes: Vec::new() };
        for touch in touches {
            let &Touch { access, first, end, count, .. } = touch;
            let list = if touch.writes { &mut effects.writes } else { &mut effects.reads };
            let new = Effect { access, first, end, count };
            let is_known = |known: &&Effect| {
                known.access == access && known.count == count && known.first <= first && end <= known.end
            };
            // The last ones are the likeliest, and a long list is not gone through for each.
            if !list.iter().rev().take(8).any(|known| is_known(&known)) {
                list.push(new);
            }
        }
        // Panels are filled by rows, of which a matrix has some.
        if let Work::Pack { k, k_total, .. } = &stage.work
            && k < k_total
        {
            effects.reads.retain(|read| effects.writes.iter().all(|write| write.access != read.access));
        }
        effects
    }
}

/// The segment that a sweep is in.
#[derive(Clone, Copy)]
struct Window {
    axis: Axis,
    start: usize,
    len: usize,
    is_first: bool,
}

/// How states begin a segment; see the executor.
#[derive(Clone, Copy, PartialEq)]
enum Begin {
    Forth(usize),
    Again(usize),
    Back,
}

/// Elements that have been written, in order and apart.
type Written = Vec<(usize, usize)>;

struct Run<'p> {
    plan: &'p Plan,
    stages: &'p [Effects],
    sizes: Sizes,
    segments: Segments,
    /// Of each block of each buffer.
    written: Vec<Vec<Written>>,
    /// Whose memory a slot is.
    tenants: Vec<Option<BufferId>>,
    window: Option<Window>,
    /// Constant stages run, too.
    stale: bool,
    /// Packed copies of what is kept: (the buffer, its copy). A copy is of no use once its buffer is written to.
    copies: Vec<(BufferId, BufferId)>,
}

impl<'p> Run<'p> {
    fn new(plan: &'p Plan, stages: &'p [Effects], steps: usize, of_segment: usize) -> Run<'p> {
        let sizes = Sizes { batch: 1, steps: vec![steps; usize::from(Axis::MAX)] };
        let segments = Segments::new(&sizes, |_| of_segment);
        let blocks = |rows: Rows| rows.count(&sizes, &segments);
        let copy = |stage: &Stage| match stage.work {
            Work::Pack { from, into, .. } => Some((from.buffer, into)),
            _ => None,
        };
        let copies = plan.stages().filter_map(|(stage, _)| copy(stage));
        let copies = copies.filter(|(from, _)| plan.buffers[from.0].keep == super::Keep::Always).collect();
        Run {
            written: plan.buffers.iter().map(|buffer| vec![Written::new(); blocks(buffer.rows)]).collect(),
            tenants: vec![None; plan.slots.len()],
            plan,
            stages,
            sizes,
            segments,
            window: None,
            stale: true,
            copies,
        }
    }

    /// A run, and one behind it, which has of the first one what is kept.
    fn twice(&mut self) -> Found {
        let plan = self.plan;
        for port in plan.parameters.iter().chain(&plan.inputs) {
            self.write_port(&port.spans[0], port.extent)?;
        }
        for &(buffer, _) in &plan.row_counts {
            self.write(&shared(buffer), Domain::Shared, 0)?;
        }
        self.once()?;
        if plan.stages().any(|(stage, _)| stage.constant) {
            for (written, buffer) in self.written.iter_mut().zip(&plan.buffers) {
                if buffer.keep != super::Keep::Always {
                    written.iter_mut().for_each(Written::clear);
                }
            }
            self.stale = plan.updates.iter().any(|(_, _, parameter)| *parameter) || plan.writes_parameters();
            self.once()?;
        }
        Ok(())
    }

    fn once(&mut self) -> Found {
        let plan = self.plan;
        let mut first = 0;
        for unit in &plan.units {
            self.unit(unit, &mut first)?;
        }
        for (value, port, parameter) in &plan.updates {
            self.read_port("an update", &value.spans[0], value.extent)?;
            let ports = if *parameter { &plan.parameters } else { &plan.inputs };
            self.write_port(&ports[*port].spans[0], ports[*port].extent)?;
        }
        for port in plan.results() {
            self.read_port(&port.name, &port.spans[0], port.extent)?;
        }
        for port in plan.parameters.iter().chain(&plan.inputs) {
            self.read_port(&port.name, &port.spans[0], port.extent)?;
        }
        for &(buffer, _) in &plan.row_counts {
            self.read("number of rows", &shared(buffer), Domain::Shared, 0)?;
        }
        Ok(())
    }

    // ---- memory -------------------------------------------------------------------------------------------------

    fn read_port(&mut self, name: &str, span: &Span, extent: Extent) -> Found {
        self.read(name, &of_span(span, extent), Domain::Shared, 0)
    }

    fn write_port(&mut self, span: &Span, extent: Extent) -> Found {
        self.write(&of_span(span, extent), Domain::Shared, 0)
    }

    /// The blocks that are meant at step t.
    fn blocks(&self, effect: &Effect, domain: Domain, t: usize) -> std::ops::Range<usize> {
        let id = effect.access.buffer;
        let rows = self.plan.buffers[id.0].rows;
        if rows == Rows::One {
            return 0..1;
        }
        let first = match effect.access.at {
            At::Shared => 0,
            At::Row(block) => block,
            At::Step(shift) => self.first_block(rows) + t + shift,
            At::FromEnd(axis, back) => self.end_block(rows, axis) - back,
        };
        let count = match effect.count.unwrap_or(Count::of_domain(domain)) {
            Count::One | Count::Samples => 1,
            Count::All(axis) => self.steps_of(axis),
        };
        first..first + count
    }

    fn first_block(&self, rows: Rows) -> usize {
        match (rows, self.window) {
            (Rows::Time(axis) | Rows::History(axis), Some(window)) if window.axis == axis => window.start,
            _ => 0,
        }
    }

    fn end_block(&self, rows: Rows, axis: Axis) -> usize {
        match rows {
            Rows::Segment(own) | Rows::SegmentHistory(own) => {
                self.window.filter(|window| window.axis == own).map_or(self.segments.steps(own), |window| window.len)
            }
            Rows::Checkpoints(own) => self.segments.count(own),
            _ => self.sizes.steps(axis),
        }
    }

    fn steps_of(&self, axis: Axis) -> usize {
        self.window.filter(|window| window.axis == axis).map_or(self.sizes.steps(axis), |window| window.len)
    }

    fn read(&self, place: &str, effect: &Effect, domain: Domain, t: usize) -> Found {
        let id = effect.access.buffer;
        for block in self.blocks(effect, domain, t) {
            let Some(written) = self.written[id.0].get(block) else {
                return self.fault(place, effect, block, "is past its end");
            };
            let at = written.partition_point(|part| part.1 < effect.end);
            if written.get(at).is_none_or(|part| part.0 > effect.first) {
                return self.fault(
                    place,
                    effect,
                    block,
                    "is read before it is written, or after its memory was given away",
                );
            }
        }
        Ok(())
    }

    fn write(&mut self, effect: &Effect, domain: Domain, t: usize) -> Found {
        let id = effect.access.buffer;
        self.own(id);
        for block in self.blocks(effect, domain, t) {
            let Some(written) = self.written[id.0].get_mut(block) else {
                return self.fault("it", effect, block, "is past its end");
            };
            insert(written, effect.first, effect.end);
        }
        for (_, copy) in self.copies.iter().filter(|(from, _)| *from == id) {
            self.written[copy.0].iter_mut().for_each(Written::clear);
        }
        Ok(())
    }

    /// A slot is that buffer's from now on.
    fn own(&mut self, id: BufferId) {
        let slot = self.plan.buffers[id.0].slot;
        let before = self.tenants[slot].replace(id);
        if let Some(before) = before.filter(|&before| before != id) {
            self.written[before.0].iter_mut().for_each(Written::clear);
        }
    }

    fn fault<T>(&self, place: &str, effect: &Effect, block: usize, what: &str) -> Found<T> {
        let name = &self.plan.buffers[effect.access.buffer.0].name;
        let (first, end) = (effect.first, effect.end);
        Err((place.to_string(), format!("`{name}`, elements {first} to {end} of block {block}, {what}")))
    }

    // ---- units --------------------------------------------------------------------------------------------------

    fn unit(&mut self, unit: &'p Unit, first: &mut usize) -> Found {
        match unit {
            Unit::Stage(stage) => self.rows(stage, *first)?,
            Unit::Loop(l) => self.steps(l, *first)?,
            Unit::Sweep(sweep) => return self.sweep(sweep, first),
        }
        *first += count(unit);
        Ok(())
    }

    /// A stage outside of loops.
    fn rows(&mut self, stage: &Stage, at: usize) -> Found {
        if stage.constant && !self.stale {
            return Ok(());
        }
        let Domain::EachStep(axis) = stage.domain else { return self.stage(stage, at, 0) };
        let steps = self.steps_of(axis);
        for i in 0..steps {
            let t = if self.plan.sums_from_the_end(axis) { steps - 1 - i } else { i };
            self.stage(stage, at, t)?;
        }
        Ok(())
    }

    fn steps(&mut self, l: &Loop, first: usize) -> Found {
        let steps = self.steps_of(l.axis);
        for i in 0..steps {
            let t = if l.reverse { steps - 1 - i } else { i };
            for (i, stage) in l.stages.iter().enumerate() {
                self.stage(stage, first + i, t)?;
            }
        }
        Ok(())
    }

    fn stage(&mut self, stage: &Stage, at: usize, t: usize) -> Found {
        let effects = &self.stages[at];
        let is_skipped = match stage.work {
            // What is placed is read in the rows of the last step.
            Work::PlaceLast { axis, .. } => {
                self.window.is_some_and(|window| window.start + window.len < self.sizes.steps(axis))
            }
            _ => false,
        };
        if !is_skipped {
            for effect in &effects.reads {
                self.read(&stage.name, effect, stage.domain, t)?;
            }
        }
        if stage.work.sums_rows() && self.goes_on(stage.domain, t) {
            for effect in &effects.writes {
                self.read(&stage.name, effect, stage.domain, t)?;
            }
        }
        for effect in &effects.writes {
            self.write(effect, stage.domain, t).map_err(|(_, reason)| (stage.name.clone(), reason))?;
        }
        Ok(())
    }

    /// Whether a sum goes on from what its result holds.
    fn goes_on(&self, domain: Domain, t: usize) -> bool {
        let in_later_segment = self.window.is_some_and(|window| !window.is_first);
        match domain {
            Domain::Shared | Domain::Batch => false,
            Domain::Time(_) => in_later_segment,
            Domain::EachStep(axis) if self.plan.sums_from_the_end(axis) => {
                t + 1 < self.steps_of(axis) || in_later_segment
            }
            Domain::EachStep(_) => t > 0 || in_later_segment,
        }
    }

    fn sweep(&mut self, sweep: &'p Sweep, first: &mut usize) -> Found {
        let segments = self.segments.count(sweep.axis);
        if segments == 1 && !sweep.has_checkpoints() {
            let all = sweep.forth.iter().chain(&sweep.between).chain(&sweep.back);
            return all.into_iter().try_for_each(|unit| self.unit(unit, first));
        }
        let forth = *first;
        for i in 0..segments {
            self.window = Some(self.segment(sweep, i, i == 0));
            *first = forth;
            for unit in &sweep.forth {
                self.in_segment(unit, first, Begin::Forth(i))?;
            }
        }
        self.window = None;
        for unit in &sweep.between {
            self.unit(unit, first)?;
        }
        let back = *first;
        let ways_back = if sweep.back.is_empty() { 0 } else { segments };
        for i in (0..ways_back).rev() {
            let is_first = i + 1 == segments;
            self.window = Some(self.segment(sweep, i, is_first));
            let mut at = forth;
            for (u, unit) in sweep.forth.iter().enumerate() {
                if !is_first && sweep.again.contains(&u) {
                    self.in_segment(unit, &mut at, Begin::Again(i))?;
                } else {
                    at += count(unit);
                }
            }
            *first = back;
            for unit in &sweep.back {
                self.in_segment(unit, first, Begin::Back)?;
            }
        }
        self.window = None;
        Ok(())
    }

    fn segment(&self, sweep: &Sweep, i: usize, is_first: bool) -> Window {
        let (start, len) = self.segments.segment(sweep.axis, sweep.reverse, i);
        Window { axis: sweep.axis, start, len, is_first }
    }

    fn in_segment(&mut self, unit: &'p Unit, first: &mut usize, begin: Begin) -> Found {
        let Unit::Loop(l) = unit else { return self.unit(unit, first) };
        let failed = |(_, reason)| (format!("loop `{}`", l.name), reason);
        for state in &l.states {
            self.begin(state, begin).map_err(failed)?;
        }
        self.unit(unit, first)?;
        if let Begin::Forth(i) = begin {
            for state in &l.states {
                let Some(kept) = state.checkpoints else { continue };
                let last = self.block(&state.end);
                self.copy((state.end.buffer, last), (kept, i + 1)).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, state: &State, begin: Begin) -> Found {
        let first = (state.begin.buffer, self.block(&state.begin));
        let rows = self.plan.buffers[state.begin.buffer.0].rows;
        let is_later = self.window.is_some_and(|window| !window.is_first);
        match (begin, state.checkpoints) {
            (Begin::Forth(i) | Begin::Again(i), Some(kept)) => self.copy((kept, i), first),
            (Begin::Back, None) if rows.is_of_segment() && is_later => {
                // The last segment was a full one.
                let window = self.window.take();
                let last = (state.end.buffer, self.block(&state.end));
                self.window = window;
                self.copy(last, first)
            }
            _ => Ok(()),
        }
    }

    /// The block of a state.
    fn block(&self, access: &Access) -> usize {
        self.blocks(&Effect { access: *access, ..shared(access.buffer) }, Domain::Batch, 0).start
    }

    /// Copies a block of rows.
    fn copy(&mut self, from: (BufferId, usize), into: (BufferId, usize)) -> Found {
        let whole = |(id, _): (BufferId, usize)| Effect { end: 0, ..shared(id) };
        let written = match self.written[from.0.0].get(from.1) {
            Some(written) if !written.is_empty() => written.clone(),
            _ => return self.fault("it", &whole(from), from.1, "has no state to go on from"),
        };
        self.own(into.0);
        match self.written[into.0.0].get_mut(into.1) {
            Some(block) => *block = written,
            None => return self.fault("it", &whole(into), into.1, "is past its end"),
        }
        Ok(())
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

/// The first element of a buffer's one row.
fn shared(buffer: BufferId) -> Effect {
    Effect { access: Access { buffer, at: At::Shared }, first: 0, end: 1, count: Some(Count::One) }
}

fn of_span(span: &Span, extent: Extent) -> Effect {
    Effect { access: span.access, first: span.offset, end: span.offset + span.len, count: Some(Count::of(extent)) }
}

/// Adds elements to those that are there.
fn insert(written: &mut Written, first: usize, end: usize) {
    let from = written.partition_point(|part| part.1 < first);
    let to = from + written[from..].partition_point(|part| part.0 <= end);
    let joined = match &written[from..to] {
        [] => (first, end),
        [only] => (only.0.min(first), only.1.max(end)),
        [least, .., most] => (least.0.min(first), most.1.max(end)),
    };
    written.splice(from..to, [joined]);
}

#[cfg(test)]
mod tests {
    use super::insert;

    #[test]
    fn parts_grow_together() {
        let mut parts = Vec::new();
        for (first, end, expected) in [
            (4, 6, vec![(4, 6)]),
            (8, 9, vec![(4, 6), (8, 9)]),
            (0, 2, vec![(0, 2), (4, 6), (8, 9)]),
            (6, 8, vec![(0, 2), (4, 9)]),
            (1, 5, vec![(0, 9)]),
            (2, 3, vec![(0, 9)]),
        ] {
            insert(&mut parts, first, end);
            assert_eq!(parts, expected);
        }
    }
}
