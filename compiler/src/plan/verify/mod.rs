//! Plans are verified, as graphs are: what runs trusts its plan, so each plan is looked at before anything is made of it.
//!
//! Expects a plan with its memory. Afterwards, for all sizes of the batch, of time axes and of segments:
//!
//! - every access is within its buffer, vector loads and stores included, and every buffer within its slot ([`rows`] says
//!   which rows a stage may mean, [`touch`] which features its work touches, [`kernel`] what kernels do inside);
//! - numbers are read as what they are, integers or floats;
//! - sums over rows that are taken in pieces have memory of their own for what they go on from ([`carried`]);
//! - the parts of a stage that threads share do not meet: what a stage writes, each row or panel writes for itself, and
//!   nothing else of the stage reads it, but for the element that it replaces;
//! - each read finds what was written for it: nothing is read before it is written, nor after something else has been
//!   written to the same memory ([`run`]).
//!
//! The last is found out by going through the plan as the executor does, segments included, and keeping account of who
//! has written what. This owes nothing to the liveness that gave out the slots. It is done for a few numbers of steps, which stand for all: places of
//! rows are t, t + 1, the first, and one or two before the end, as `rows` has made sure, so whatever goes wrong goes wrong
//! for three steps or fewer.
//!
//! Every plan that is compiled is verified, whatever its program was made from; `inspect` prints how long it takes.

mod carried;
mod kernel;
mod rows;
mod run;
mod touch;

use std::collections::{HashMap, HashSet};

use super::{Access, At, Buffer, BufferId, Keep, Loop, Plan, Port, Rows, Stage, State, Sweep, Unit};
use crate::ir::types::{Axis, Extent};

use rows::{Count, Place};
use touch::Touch;

/// What is wrong with a plan. That is a fault of the compiler, whatever the program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plan of `{program}` is not sound, which is a fault of this compiler: {place}: {reason}")]
pub struct PlanError {
    /// The program.
    pub program: String,
    /// The stage, loop or buffer.
    pub place: String,
    /// What is wrong there.
    pub reason: String,
}

/// What was found, and where.
type Found<T = ()> = Result<T, (String, String)>;
/// What is wrong with something whose name is known elsewhere.
type Wrong<T = ()> = Result<T, String>;

/// `Err` with a reason unless something holds.
macro_rules! ensure {
    ($holds:expr, $($reason:tt)*) => {
        if !$holds {
            return Err(format!($($reason)*));
        }
    };
}
use ensure;

impl Plan {
    /// Whether running it reads and writes nothing but what is its own, in an order that makes sense. See the module's text.
    ///
    /// ```
    /// use retrograd_compiler::ir::Program;
    /// use retrograd_compiler::plan::BufferId;
    ///
    /// let program = Program::record("twice", |p| p.output("y", 2.0 * p.sequence("x", 5)))?;
    /// let mut plan = program.plan();
    /// assert_eq!(plan.verify(), Ok(()));
    /// plan.outputs[0].spans[0].offset = 1000;
    /// assert!(plan.verify().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self) -> Result<(), PlanError> {
        let found = self.verify_all();
        found.map_err(|(place, reason)| PlanError { program: self.name.clone(), place, reason })
    }

    fn verify_all(&self) -> Found {
        for buffer in &self.buffers {
            self.verify_buffer(buffer).map_err(at(|| format!("buffer `{}`", buffer.name)))?;
        }
        self.verify_ports()?;
        let mut tenants = vec![0; self.slots.len()];
        self.buffers.iter().for_each(|buffer| tenants[buffer.slot] += 1);
        let mut stages = Stages { plan: self, touches: Vec::new(), carried: HashSet::new(), tenants };
        for unit in &self.units {
            stages.unit(unit, None)?;
        }
        let touches = stages.touches;
        self.verify_padding(&touches)?;
        run::verify(self, &touches)
    }

    /// Whether it is within its slot, which has as many rows as it, at least as long ones, for all sizes.
    fn verify_buffer(&self, buffer: &Buffer) -> Wrong {
        let slot = self.slots.get(buffer.slot).ok_or_else(|| format!("there is no slot {}", buffer.slot))?;
        let bytes = self.element(buffer).checked_mul(buffer.stride);
        ensure!(
            bytes.is_some_and(|bytes| bytes <= slot.row_bytes),
            "rows of {} elements are longer than the {} bytes of slot {}",
            buffer.stride,
            slot.row_bytes,
            buffer.slot
        );
        ensure!(
            slot.rows.join(buffer.rows) == Some(slot.rows),
            "{:?} are more rows than slot {} has, {:?}",
            buffer.rows,
            buffer.slot,
            slot.rows
        );
        Ok(())
    }

    /// Bytes of an element.
    fn element(&self, buffer: &Buffer) -> usize {
        if buffer.integer { 4 } else { self.target.float_size }
    }

    fn buffer(&self, id: BufferId) -> Wrong<&Buffer> {
        self.buffers.get(id.0).ok_or_else(|| format!("there is no buffer {}", id.0))
    }

    fn verify_ports(&self) -> Found {
        let always = [&self.parameters, &self.inputs];
        for port in always.into_iter().flatten() {
            self.verify_port(port, &[Keep::Always]).map_err(at(|| format!("input `{}`", port.name)))?;
        }
        for port in self.results() {
            self.verify_port(port, &[Keep::Output, Keep::Always]).map_err(at(|| format!("output `{}`", port.name)))?;
        }
        // What reads each buffer behind the run, the last first: results, then updates in their turn.
        let mut readers: HashMap<BufferId, (usize, &Port)> = HashMap::new();
        let updates = self.updates.iter().enumerate().map(|(i, (value, _, _))| (i, value));
        for (turn, port) in updates.chain(self.results().map(|port| (usize::MAX, port))) {
            readers.extend(port.spans.iter().map(|span| (span.access.buffer, (turn, port))));
        }
        for (i, update) in self.updates.iter().enumerate() {
            self.verify_update(i, update, &readers).map_err(at(|| format!("update {i}")))?;
        }
        for &(id, _) in &self.row_counts {
            let right = |id| -> Wrong {
                let buffer = self.buffer(id)?;
                let is_right = buffer.rows == Rows::One && !buffer.integer && buffer.stride > 0;
                ensure!(is_right && buffer.keep == Keep::Always, "a number of rows is one float, which is kept");
                Ok(())
            };
            right(id).map_err(at(|| format!("number of rows in buffer {}", id.0)))?;
        }
        Ok(())
    }

    fn verify_port(&self, port: &Port, keeps: &[Keep]) -> Wrong {
        let [span] = &port.spans[..] else { return Err(format!("it has {} parts, not 1", port.spans.len())) };
        let buffer = self.buffer(span.access.buffer)?;
        ensure!(buffer.integer == port.integer, "its buffer has elements of another type");
        ensure!(keeps.contains(&buffer.keep), "its buffer is kept as {:?}", buffer.keep);
        ensure!(span.len == port.shape.iter().product::<usize>(), "{} elements of shape {:?}", span.len, port.shape);
        let end = span.offset.checked_add(span.len);
        ensure!(end.is_some_and(|end| end <= buffer.stride), "its elements reach past the row");
        let count = Count::of(port.extent);
        rows::verify(buffer.rows, span.access.at, count, Place::default())
    }

    /// An update: copied behind the run, one after the other, and outputs are read later.
    fn verify_update(
        &self,
        i: usize,
        (value, target, is_parameter): &(Port, usize, bool),
        readers: &HashMap<BufferId, (usize, &Port)>,
    ) -> Wrong {
        self.verify_port(value, &[Keep::Output, Keep::Always])?;
        let ports = if *is_parameter { &self.parameters } else { &self.inputs };
        let port = ports.get(*target).ok_or_else(|| format!("there is no port {target}"))?;
        let alike = value.spans[0].len == port.spans[0].len && value.extent == port.extent;
        ensure!(alike && value.integer == port.integer, "its value has another type than what it updates");
        let own = port.spans[0].access.buffer;
        ensure!(value.spans[0].access.buffer != own, "it is copied onto itself");
        match readers.get(&own) {
            Some((turn, other)) if *turn > i => Err(format!("`{}` is read after that", other.name)),
            _ => Ok(()),
        }
    }

    /// What vector stores write behind the features of a value must be nobody's.
    fn verify_padding(&self, touches: &[Vec<Touch>]) -> Found {
        let mut parts: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.buffers.len()];
        for touch in touches.iter().flatten() {
            parts[touch.access.buffer.0].push((touch.first, touch.end));
        }
        let ports = self.parameters.iter().chain(&self.inputs).chain(self.results());
        for span in ports.chain(self.updates.iter().map(|(port, _, _)| port)).flat_map(|port| &port.spans) {
            parts[span.access.buffer.0].push((span.offset, span.offset + span.len));
        }
        for parts in &mut parts {
            parts.sort_unstable();
            parts.dedup_by(|next, last| {
                let meets = next.0 <= last.1;
                if meets {
                    last.1 = last.1.max(next.1);
                }
                meets
            });
        }
        for touch in touches.iter().flatten().filter(|touch| touch.writes && touch.reach > touch.end) {
            let parts = &parts[touch.access.buffer.0];
            let next = parts.partition_point(|part| part.1 <= touch.end);
            if parts.get(next).is_some_and(|part| part.0 < touch.reach) {
                let name = &self.buffers[touch.access.buffer.0].name;
                let [end, reach] = [touch.end, touch.reach];
                let reason = format!("what is written behind its elements, {end} to {reach}, is another value's");
                return Err((format!("buffer `{name}`"), reason));
            }
        }
        Ok(())
    }
}

/// Says where something is wrong.
fn at(place: impl Fn() -> String) -> impl Fn(String) -> (String, String) {
    move |reason| (place(), reason)
}

/// Goes through all stages, in the order in which a plan counts them, and keeps what each touches.
struct Stages<'p> {
    plan: &'p Plan,
    touches: Vec<Vec<Touch>>,
    /// What sums in several pieces go on from.
    carried: HashSet<BufferId>,
    /// Buffers of each slot.
    tenants: Vec<usize>,
}

impl Stages<'_> {
    /// A unit, in the way of a sweep over an axis or in none.
    fn unit(&mut self, unit: &Unit, window: Option<Axis>) -> Found {
        match unit {
            Unit::Stage(stage) => self.stage(stage, None, window),
            Unit::Loop(l) => self.steps(l, window),
            Unit::Sweep(sweep) => {
                let place = || format!("sweep over {}", sweep.axis.letter());
                if window.is_some() {
                    return Err((place(), "it is in the way of another".to_string()));
                }
                self.sweep(sweep, place)
            }
        }
    }

    fn sweep(&mut self, sweep: &Sweep, place: impl Fn() -> String) -> Found {
        use super::Domain;
        let ways = sweep.forth.iter().chain(&sweep.back);
        for unit in ways {
            let is_over = |axis: Axis| axis == sweep.axis;
            let belongs = match unit {
                Unit::Loop(l) => is_over(l.axis),
                Unit::Stage(stage) => matches!(stage.domain, Domain::Time(a) | Domain::EachStep(a) if is_over(a)),
                Unit::Sweep(_) => false,
            };
            if !belongs {
                return Err((place(), "something else than steps of its axis is in its way".to_string()));
            }
        }
        if sweep.again.iter().any(|&i| i >= sweep.forth.len()) {
            return Err((place(), "what runs again is not in the way forth".to_string()));
        }
        for unit in &sweep.forth {
            self.unit(unit, Some(sweep.axis))?;
        }
        for unit in &sweep.between {
            self.unit(unit, None)?;
        }
        for unit in &sweep.back {
            self.unit(unit, Some(sweep.axis))?;
        }
        Ok(())
    }

    fn steps(&mut self, l: &Loop, window: Option<Axis>) -> Found {
        let name = || format!("loop `{}`", l.name);
        for state in &l.states {
            self.state(l, state, window).map_err(at(name))?;
        }
        let first = self.touches.len();
        for stage in &l.stages {
            self.stage(stage, Some(l), window)?;
        }
        // One member may be at another step than its mates: what shares memory has each row at the same place.
        let ids: HashSet<BufferId> = self.touches[first..].iter().flatten().map(|touch| touch.access.buffer).collect();
        let mut tenants: Vec<(usize, BufferId)> =
            ids.into_iter().map(|id| (self.plan.buffers[id.0].slot, id)).collect();
        tenants.sort_unstable();
        for pair in tenants.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let [a, b] = [pair[0].1, pair[1].1].map(|id| &self.plan.buffers[id.0]);
            let bytes = |buffer: &Buffer| buffer.stride * self.plan.element(buffer);
            if bytes(a) != bytes(b) {
                let reason = format!("`{}` and `{}` share memory, and have rows of different lengths", a.name, b.name);
                return Err((name(), reason));
            }
        }
        Ok(())
    }

    fn state(&self, l: &Loop, state: &State, window: Option<Axis>) -> Wrong {
        ensure!(state.axis == l.axis, "a state of another axis");
        let place = Place { steps: None, window, is_kernel: false };
        let (begin, end) = (self.plan.buffer(state.begin.buffer)?, self.plan.buffer(state.end.buffer)?);
        for (buffer, access) in [(begin, &state.begin), (end, &state.end)] {
            let count = if buffer.rows == Rows::One { Count::One } else { Count::Samples };
            rows::verify(buffer.rows, access.at, count, place)?;
        }
        let alike = |a: &Buffer, b: &Buffer| a.stride == b.stride && a.integer == b.integer;
        ensure!(alike(begin, end), "`{}` ends in rows of another length", begin.name);
        if let Some(kept) = state.checkpoints {
            let kept = self.plan.buffer(kept)?;
            ensure!(kept.rows == Rows::Checkpoints(l.axis), "`{}` has {:?}", kept.name, kept.rows);
            ensure!(alike(begin, kept), "`{}` is kept in rows of another length", begin.name);
            ensure!(begin.rows != Rows::One && end.rows != Rows::One, "`{}` has one row, and is kept", begin.name);
        }
        Ok(())
    }

    fn stage(&mut self, stage: &Stage, l: Option<&Loop>, window: Option<Axis>) -> Found {
        let found = touch::of(self.plan, stage).and_then(|touches| {
            for touch in &touches {
                self.touch(stage, touch, l, window)?;
            }
            self.apart(&touches, l.is_some())?;
            carried::verify(self.plan, stage, window, &mut self.carried, &self.tenants)?;
            Ok(touches)
        });
        let within = || l.map_or(String::new(), |l| format!(" of loop `{}`", l.name));
        self.touches.push(found.map_err(at(|| format!("stage `{}`{}", stage.name, within())))?);
        Ok(())
    }

    /// Whether what a stage touches is in its buffer, and in the list of what it touches.
    fn touch(&self, stage: &Stage, touch: &Touch, l: Option<&Loop>, window: Option<Axis>) -> Wrong {
        let buffer = self.plan.buffer(touch.access.buffer)?;
        let list = if touch.writes { &stage.writes } else { &stage.reads };
        ensure!(list.contains(&touch.access), "`{}` is not in the list of what it touches", buffer.name);
        let count = touch.count.unwrap_or(Count::of_domain(stage.domain));
        let steps = rows::steps(stage.domain, l)?;
        let place = Place { steps, window, is_kernel: matches!(stage.work, super::Work::Kernel(_)) };
        rows::verify(buffer.rows, touch.access.at, count, place).map_err(|e| format!("`{}`: {e}", buffer.name))?;
        ensure!(
            touch.first < touch.end && touch.end <= buffer.stride && touch.end <= touch.reach,
            "elements {} to {} of the {} of a row of `{}`",
            touch.first,
            touch.end,
            buffer.stride,
            buffer.name
        );
        let past = touch.reach.saturating_sub(buffer.stride) * self.plan.element(buffer);
        let slack = if touch.writes { 0 } else { super::ARENA_SLACK };
        ensure!(past <= slack, "vectors reach {past} bytes past a row of `{}`", buffer.name);
        if touch.writes {
            let is_one = buffer.rows == Rows::One;
            ensure!(!is_one || count == Count::One, "all rows write to the one row of `{}`", buffer.name);
        }
        Ok(())
    }

    /// Whether what the parts of a stage write is nobody else's: of other parts, or read by any.
    fn apart(&self, touches: &[Touch], in_loop: bool) -> Wrong {
        let buffer = |touch: &Touch| &self.plan.buffers[touch.access.buffer.0];
        let last = |touch: &Touch| touch.reach.max(touch.end);
        // Of each slot in turn, from its first element on: only what reaches past the start of the next one can meet it.
        let mut order: Vec<usize> = (0..touches.len()).collect();
        order.sort_by_key(|&i| (buffer(&touches[i]).slot, touches[i].access.buffer, touches[i].first));
        for own in order.chunk_by(|&a, &b| buffer(&touches[a]).slot == buffer(&touches[b]).slot) {
            if let Some(&write) = own.iter().find(|&&i| touches[i].writes)
                && let Some(&other) = own.iter().find(|&&i| touches[i].access.buffer != touches[write].access.buffer)
            {
                let [own, theirs] = [write, other].map(|i| &buffer(&touches[i]).name);
                return Err(format!("it writes `{own}` and touches `{theirs}`, which is the same memory"));
            }
            let [mut writes, mut reads] = [Vec::new(), Vec::new()];
            for &i in own {
                let touch = &touches[i];
                for open in [&mut writes, &mut reads] {
                    open.retain(|&before: &usize| last(&touches[before]) > touch.first);
                }
                for &before in &writes {
                    self.pair_apart(touches, before, i, in_loop)?;
                }
                if touch.writes {
                    for &before in &reads {
                        self.pair_apart(touches, i, before, in_loop)?;
                    }
                    writes.push(i);
                } else {
                    reads.push(i);
                }
            }
        }
        Ok(())
    }

    /// Whether what a touch writes is not what another one touches: of two that write, the first is looked at.
    fn pair_apart(&self, touches: &[Touch], write: usize, other: usize, in_loop: bool) -> Wrong {
        let both_write = touches[write].writes && touches[other].writes;
        let (write, other) = if both_write { (write.min(other), write.max(other)) } else { (write, other) };
        let (write, other) = (&touches[write], &touches[other]);
        let apart = write.reach.max(write.end) <= other.first || other.reach <= write.first;
        let exact = write.end <= other.first || other.end <= write.first;
        // What is read behind the features is not looked at.
        let apart = apart || (exact && !other.writes && other.first < write.first);
        let other_rows = are_other_rows(write.access, other.access, in_loop, write, other);
        ensure!(
            apart || other_rows || write.replaces(other),
            "it writes `{}` and touches the same elements otherwise",
            self.plan.buffers[write.access.buffer.0].name
        );
        Ok(())
    }
}

/// Whether two accesses of a stage never mean the same row, whichever rows its parts are at.
fn are_other_rows(a: Access, b: Access, in_loop: bool, first: &Touch, second: &Touch) -> bool {
    let by_sample = |touch: &Touch| touch.count.is_none_or(|count| count == Count::Samples);
    match (a.at, b.at) {
        // Each step is over before the next begins, for the rows of a member at least.
        (At::Step(a), At::Step(b)) => in_loop && a != b && by_sample(first) && by_sample(second),
        _ => false,
    }
}

impl Count {
    fn of(extent: Extent) -> Count {
        match extent {
            Extent::Shared => Count::One,
            Extent::Batch => Count::Samples,
            Extent::Time(axis) => Count::All(axis),
        }
    }
}
