//! What a plan costs, before anything runs: arithmetic and memory traffic of its phases, and the time below which no
//! machine of known speed can do them.
//!
//! Arithmetic is that of the products, two operations for each multiply-add. Traffic is what must move at least once:
//! each buffer that a phase reads or writes, whole if it goes through all steps; at the rate of what can hold so much. Weights that a loop reads again at each
//! step, or rows that a product reads again for each panel, come out of a cache and are not counted again. So a bound is
//! one from below, but for what one phase leaves in a cache for the next; and the distance of a measured time to it is what is
//! left to gain, or to explain.

use super::{At, BufferId, Domain, Kernel, Plan, Rows, Segments, Stage, Unit, Work};
use crate::ir::Sizes;
use crate::ir::sizes::{plus, times, total};
use crate::ir::types::Axis;

/// Operations of a product in the time of one element of a routine of vector maths.
const ROUTINE: usize = 48;
/// And in that of one element that is moved, added or multiplied.
const MOVE: usize = 12;

/// Arithmetic and traffic of one phase of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Where in the plan: see [`Plan::phase_names`].
    pub name: String,
    /// Floating-point operations of its products.
    pub flops: usize,
    /// Bytes that it reads or writes at least.
    pub bytes: usize,
    /// In how many pieces: one for each segment of a sweep, and one more for each that is computed again.
    pub pieces: usize,
}

/// A stage or a loop, and its phase.
struct Part<'p> {
    unit: &'p Unit,
    phase: String,
    /// The axis of the sweep that it is in.
    sweep: Option<Axis>,
    /// Whether it is run again on the way back.
    again: bool,
}

/// How fast a machine is at its best.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Floating-point operations a second, two for each multiply-add.
    pub flops_per_second: f64,
    /// Bytes a second from or to whatever holds so many bytes, a cache or memory: (bytes, rate), from few to many. With none,
    /// traffic sets no bound.
    pub bytes_per_second: Vec<(usize, f64)>,
}

impl Machine {
    /// Bytes a second of so many bytes at best: the rate of the largest number that is not above it, else of the first.
    fn rate(&self, bytes: usize) -> f64 {
        let reached = self.bytes_per_second.partition_point(|&(some, _)| some <= bytes);
        self.bytes_per_second.get(reached.saturating_sub(1)).map_or(f64::INFINITY, |&(_, rate)| rate)
    }
}

/// What keeps a phase from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Multiply-adds.
    Arithmetic,
    /// Traffic.
    Memory,
}

impl Phase {
    /// The least time in seconds, and what sets it.
    ///
    /// ```
    /// use retrograd_compiler::plan::{Bound, Machine, Phase};
    /// let phase = Phase { name: "loop cell".into(), flops: 2_000_000, bytes: 1_000, pieces: 1 };
    /// let machine = Machine { flops_per_second: 1e9, bytes_per_second: vec![(10_000, 2e9), (1 << 20, 1e9)] };
    /// let (seconds, bound) = phase.bound(&machine);
    /// assert_eq!((seconds, bound), (0.002, Bound::Arithmetic));
    /// ```
    pub fn bound(&self, machine: &Machine) -> (f64, Bound) {
        let arithmetic = self.flops as f64 / machine.flops_per_second;
        let memory = self.bytes as f64 / machine.rate(self.bytes / self.pieces.max(1));
        if arithmetic >= memory { (arithmetic, Bound::Arithmetic) } else { (memory, Bound::Memory) }
    }
}

impl Plan {
    /// For each stage the phase that it belongs to: before the first loop, in each loop, behind it; packing weights,
    /// products over rows (weight gradients) and sums over rows apart from the rest.
    pub fn phase_names(&self) -> Vec<String> {
        let parts = self.parts().into_iter();
        parts.flat_map(|part| std::iter::repeat_n(part.phase, part.unit.stages().len())).collect()
    }

    /// Stages and loops, those of sweeps among them, in order.
    fn parts(&self) -> Vec<Part<'_>> {
        fn collect<'p>(
            units: &'p [Unit],
            sweep: Option<(Axis, &[usize])>,
            place: &mut String,
            all: &mut Vec<Part<'p>>,
        ) {
            for (i, unit) in units.iter().enumerate() {
                let phase = match unit {
                    Unit::Loop(l) => {
                        *place = format!("after {}", l.name);
                        format!("loop {}", l.name)
                    }
                    Unit::Sweep(sweep) => {
                        collect(&sweep.forth, Some((sweep.axis, &sweep.again)), place, all);
                        collect(&sweep.between, None, place, all);
                        collect(&sweep.back, Some((sweep.axis, &[])), place, all);
                        continue;
                    }
                    Unit::Stage(stage) => match stage.work {
                        Work::Pack { .. } => "pack".to_string(),
                        Work::ReduceProduct { .. } => "weight gradients".to_string(),
                        Work::ReduceRows { .. } => "sums over rows".to_string(),
                        _ => place.clone(),
                    },
                };
                let again = sweep.is_some_and(|(_, units)| units.contains(&i));
                all.push(Part { unit, phase, sweep: sweep.map(|(axis, _)| axis), again });
            }
        }
        let mut all = Vec::new();
        collect(&self.units, None, &mut "before".to_string(), &mut all);
        all
    }

    /// The phases of a run of these sizes, in the order in which they begin. What checkpointing computes again is
    /// counted again. What is more than can be counted is [`TOO_LARGE`](crate::ir::sizes::TOO_LARGE).
    pub fn cost(&self, sizes: &Sizes) -> Vec<Phase> {
        let segments = self.segments(sizes);
        let mut phases: Vec<(Phase, Vec<Part<'_>>)> = Vec::new();
        for part in self.parts() {
            let at = phases.iter().position(|(phase, _)| phase.name == part.phase).unwrap_or_else(|| {
                phases.push((Phase { name: part.phase.clone(), flops: 0, bytes: 0, pieces: 1 }, Vec::new()));
                phases.len() - 1
            });
            phases[at].1.push(part);
        }
        let bytes = |parts: &[&Part<'_>]| {
            let stages = parts.iter().flat_map(|part| part.unit.stages()).map(|(stage, _)| stage);
            self.bytes(&stages.collect::<Vec<_>>(), sizes, &segments)
        };
        for (phase, parts) in &mut phases {
            phase.flops = total(parts.iter().map(|part| part.unit.flops(sizes)));
            phase.bytes = bytes(&parts.iter().collect::<Vec<_>>());
            phase.pieces =
                parts.iter().filter_map(|part| part.sweep).map(|axis| segments.count(axis)).max().unwrap_or(1);
            let again: Vec<&Part<'_>> = parts.iter().filter(|part| part.again).collect();
            if let Some(axis) = again.first().and_then(|part| part.sweep) {
                // Once more, but for the segment where the way back begins.
                let steps = sizes.steps(axis).max(1);
                let repeated = steps.saturating_sub(segments.steps(axis));
                let more = again.iter().map(|part| times(part.unit.flops(sizes) / steps, repeated));
                phase.flops = plus(phase.flops, total(more));
                phase.bytes = plus(phase.bytes, times(bytes(&again) / steps, repeated));
                phase.pieces = plus(phase.pieces, segments.count(axis).saturating_sub(1));
            }
        }
        phases.into_iter().map(|(phase, _)| phase).collect()
    }

    /// Floating-point operations of the products of one run: two for each multiply-add. What checkpointing computes
    /// again is counted again.
    pub fn flops(&self, sizes: &Sizes) -> usize {
        total(self.cost(sizes).iter().map(|phase| phase.flops))
    }

    /// Roughly what a stage takes, in the time of one operation of a product: of all its rows, at one step if it is in a
    /// loop. Enough to say whether several threads are worth their meeting.
    ///
    /// ```
    /// use retrograd_compiler::ir::{Program, Sizes};
    /// let program = Program::record("square", |p| p.output("y", p.input("x", 64).square()))?;
    /// let plan = program.plan();
    /// let effort = |batch| plan.stages().map(|(stage, _)| plan.effort(stage, &Sizes::new(1, batch))).sum::<usize>();
    /// assert_eq!(effort(8), 8 * effort(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn effort(&self, stage: &Stage, sizes: &Sizes) -> usize {
        let written = || stage.writes.iter().map(|access| self.buffers[access.buffer.0].stride).sum::<usize>();
        let of_row = match &stage.work {
            Work::Kernel(kernel) => {
                let nodes = kernel.nodes.iter();
                nodes.map(|node| node.len * if node.op.is_routine() { ROUTINE } else { MOVE }).sum()
            }
            Work::Pack { k, n, .. } => k * n * MOVE,
            Work::ReduceRows { from, .. } => from.len * MOVE,
            Work::ReduceProduct { .. } | Work::MatrixRows { .. } | Work::MatMul { .. } => 0,
            _ => written() * MOVE,
        };
        times(stage.rows(sizes), plus(of_row, stage.work.flops_per_row()))
    }

    /// Bytes of all that these stages read or write.
    fn bytes(&self, stages: &[&Stage], sizes: &Sizes, segments: &Segments) -> usize {
        // The most rows that any of them touches, for each buffer.
        let mut touched: Vec<(BufferId, usize)> = Vec::new();
        for stage in stages {
            for access in stage.reads.iter().chain(&stage.writes) {
                let all = self.buffers[access.buffer.0].rows.count(sizes, segments);
                let through = matches!(access.at, At::Step(_)) || matches!(stage.domain, Domain::Time(_));
                let rows = match self.buffers[access.buffer.0].rows {
                    Rows::One => 1,
                    _ if through => all,
                    _ => all.min(sizes.batch),
                };
                match touched.iter_mut().find(|(buffer, _)| *buffer == access.buffer) {
                    Some((_, most)) => *most = rows.max(*most),
                    None => touched.push((access.buffer, rows)),
                }
            }
        }
        let row = |buffer: BufferId| {
            let buffer = &self.buffers[buffer.0];
            buffer.stride * if buffer.integer { 4 } else { self.target.float_size }
        };
        total(touched.into_iter().map(|(buffer, rows)| times(rows, row(buffer))))
    }
}

impl Stage {
    /// Its rows; at one step, if it is in a loop.
    pub fn rows(&self, sizes: &Sizes) -> usize {
        match self.domain {
            Domain::Shared => 1,
            Domain::Batch => sizes.batch,
            Domain::Time(a) | Domain::EachStep(a) => times(sizes.batch, sizes.steps(a)),
        }
    }
}

impl Unit {
    fn flops(&self, sizes: &Sizes) -> usize {
        let of_stage = |stage: &Stage| times(stage.rows(sizes), stage.work.flops_per_row());
        match self {
            Unit::Stage(stage) => of_stage(stage),
            Unit::Loop(l) => times(sizes.steps(l.axis), total(l.stages.iter().map(of_stage))),
            Unit::Sweep(_) => unreachable!("sweeps have been taken apart"),
        }
    }
}

impl Work {
    fn flops_per_row(&self) -> usize {
        match self {
            Work::Kernel(Kernel { tile: Some(tile), .. }) => tile.products.iter().map(|p| 2 * p.k * tile.n).sum(),
            Work::ReduceProduct { a, b, pairs, .. } => 2 * a.len * b.len / pairs,
            Work::MatrixRows { m, k, n, .. } => 2 * m * k * n,
            Work::MatMul { mkn: [m, k, n], .. } => 2 * m * k * n,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Program;
    use crate::plan::Checkpointing;

    #[test]
    fn a_bound_takes_the_rate_of_what_holds_a_piece() {
        let rates = vec![(100, 8.0), (1000, 4.0), (10_000, 1.0)];
        let machine = Machine { flops_per_second: 1.0, bytes_per_second: rates };
        let seconds = |bytes, pieces| Phase { name: String::new(), flops: 0, bytes, pieces }.bound(&machine).0;
        assert_eq!([seconds(80, 1), seconds(999, 1), seconds(1000, 1)], [10.0, 999.0 / 8.0, 250.0]);
        assert_eq!([seconds(20_000, 1), seconds(20_000, 4)], [20_000.0, 5000.0]);
        let none = Machine { flops_per_second: 1.0, bytes_per_second: Vec::new() };
        let phase = Phase { name: String::new(), flops: 3, bytes: 80, pieces: 1 };
        assert_eq!(phase.bound(&none), (3.0, Bound::Arithmetic));
    }

    #[test]
    fn what_is_computed_again_is_counted_in_proportion() {
        let program = Program::record("follow", |p| {
            let x = p.sequence("x", 16);
            let run = p.scan("rnn", |s| {
                let h = s.state("h", 64);
                s.next(h, (s.linear("h", h, 64) + s.affine("x", s.at(x), 64)).tanh())
            });
            p.minimize(run.all().square().mean_features().mean_rows());
        });
        let joint = program.expect("no mistakes").backward().expect("an objective");
        let sizes = Sizes::new(12, 2);
        let counted = |every: usize| {
            let plan = joint.checkpointed_plan(Checkpointing::Every(every));
            let phase = plan.cost(&sizes).into_iter().find(|phase| phase.name == "loop rnn").expect("its loop");
            let parts = plan.parts();
            let units = parts.iter().filter(|part| part.phase == phase.name).map(|part| part.unit);
            let stages: Vec<&Stage> = units.flat_map(Unit::stages).map(|(stage, _)| stage).collect();
            (phase, plan.bytes(&stages, &sizes, &plan.segments(&sizes)))
        };
        let flops = counted(12).0.flops;
        // Segments' lengths; of twelve steps those computed again; segments and those computed again.
        for (every, again, pieces) in [(12, 0, 1), (4, 8, 5), (1, 11, 23)] {
            let (phase, once) = counted(every);
            assert_eq!(phase.flops, flops + flops / 12 * again, "{every}");
            assert_eq!(phase.bytes, once + once / 12 * again, "{every}");
            assert_eq!(phase.pieces, pieces, "{every}");
        }
    }

    /// Products in a row have 2·m·k·n operations, of each row; what belongs to which phase is told by its work.
    #[test]
    fn phases_are_named_and_counted() {
        let program = Program::record("pairs", |p| {
            let (a, b) = (p.sequence("a", [40, 33]), p.sequence("b", [33, 35]));
            p.output("y", a.matmul(b));
        });
        let phases = program.expect("no mistakes").plan().cost(&Sizes::new(7, 4));
        assert_eq!(phases.iter().map(|phase| phase.flops).sum::<usize>(), 2 * 40 * 33 * 35 * 7 * 4);

        let program = Program::record("rnn", |p| {
            let x = p.sequence("x", 3);
            let run = p.scan("rnn", |s| {
                let h = s.state("h", 8);
                s.next(h, (s.linear("h", h, 8) + s.affine("x", s.at(x), 8)).tanh())
            });
            p.minimize(run.all().square().mean_features().mean_rows());
        });
        let plan = program.expect("no mistakes").backward().expect("an objective").plan();
        let names = plan.phase_names();
        assert_eq!(names.len(), plan.units.iter().map(|unit| unit.stages().len()).sum::<usize>(), "one a stage");
        for (phase, work) in [
            ("loop rnn", None),
            ("loop d.rnn", None),
            ("pack", Some(plan_has(&plan, |work| matches!(work, Work::Pack { .. })))),
            ("weight gradients", Some(plan_has(&plan, |work| matches!(work, Work::ReduceProduct { .. })))),
            ("sums over rows", Some(plan_has(&plan, |work| matches!(work, Work::ReduceRows { .. })))),
        ] {
            let named = names.iter().filter(|name| *name == phase).count();
            assert!(work.map_or(named > 0, |stages| named == stages), "{phase}: {names:?}");
        }
    }

    /// How many stages of a plan outside of its loops have such work.
    fn plan_has(plan: &Plan, is: impl Fn(&Work) -> bool) -> usize {
        let stages = plan.units.iter().flat_map(Unit::stages);
        stages.filter(|(stage, of_loop)| of_loop.is_none() && is(&stage.work)).count()
    }
}
