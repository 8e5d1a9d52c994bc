//! When each unit of a list runs, and which values need rows for one segment only.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::ir::types::{Axis, Extent};
use crate::plan::{Access, At, Buffer, BufferId, Domain, Keep, Loop, Plan, Rows, Stage, Unit, Work};

/// What a unit is to a sweep over one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A loop in the direction of the way forth.
    Forth,
    /// A loop the other way.
    Back,
    /// A sum over rows.
    Sum,
    /// A stage that works row by row.
    Rows,
    /// Anything else.
    Whole,
}

/// When a unit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Before,
    Forth,
    Between,
    Back,
    Behind,
}

impl Phase {
    /// The earliest phase in which all of this one is done.
    fn done(self) -> Phase {
        match self {
            Phase::Forth => Phase::Between,
            Phase::Back => Phase::Behind,
            whole => whole,
        }
    }

    pub fn is_swept(self) -> bool {
        matches!(self, Phase::Forth | Phase::Back)
    }
}

/// What the way back needs of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// All its results, before it begins.
    All,
    /// It is part of it.
    Part,
    /// Nothing.
    Nothing,
}

/// One unit's use of a buffer.
#[derive(Clone, Copy, Debug)]
struct Use {
    access: Access,
    writes: bool,
    /// A step's rows for the same step.
    aligned: bool,
}

/// A dependence on an earlier unit.
#[derive(Clone, Copy, Debug)]
struct Edge {
    from: usize,
    into: usize,
    aligned: bool,
    /// The later unit only overwrites what the earlier one reads.
    overwrites: bool,
}

/// Units of one list with all that decides when they run.
pub struct Analysis {
    pub axis: Axis,
    /// Whether the way forth begins at the end.
    pub reverse: bool,
    computes_again: bool,
    kinds: Vec<Kind>,
    uses: Vec<Vec<Use>>,
    /// By the earlier unit, then the later one.
    edges: Vec<Edge>,
    /// Of each unit the edges that end there, by position.
    ends: Vec<Vec<usize>>,
}

impl Analysis {
    pub fn new(plan: &Plan, units: &[Unit], axis: Axis) -> Analysis {
        let reverse = !plan.sums_from_the_end(axis);
        let kinds: Vec<Kind> = units.iter().map(|unit| kind(unit, axis, reverse)).collect();
        let uses: Vec<Vec<Use>> = units.iter().map(|unit| uses(unit, axis, &plan.buffers)).collect();
        let edges = edges(&uses, &kinds);
        let mut ends = vec![Vec::new(); units.len()];
        edges.iter().enumerate().for_each(|(i, edge)| ends[edge.into].push(i));
        Analysis { axis, reverse, computes_again: plan.computes_again(), kinds, uses, edges, ends }
    }

    fn into(&self, u: usize) -> impl Iterator<Item = &Edge> {
        self.ends[u].iter().map(|&i| &self.edges[i])
    }

    fn out_of(&self, u: usize) -> impl Iterator<Item = &Edge> {
        let first = self.edges.partition_point(|e| e.from < u);
        self.edges[first..].iter().take_while(move |e| e.from == u)
    }

    /// When each unit runs; `None` if there is nothing for a sweep.
    pub fn phases(&self) -> Option<Vec<Phase>> {
        let n = self.kinds.len();
        if !self.kinds.contains(&Kind::Forth) {
            return None;
        }
        // What comes of a loop that runs forth.
        let mut behind_forth = vec![false; n];
        for u in 0..n {
            behind_forth[u] = self.kinds[u] == Kind::Forth || self.into(u).any(|e| behind_forth[e.from]);
        }
        // What a loop that runs forth waits for.
        let mut before_forth = vec![false; n];
        for u in (0..n).rev() {
            before_forth[u] = self.out_of(u).any(|e| self.kinds[e.into] == Kind::Forth || before_forth[e.into]);
        }
        let mut needs = vec![Need::Nothing; n];
        for u in (0..n).rev() {
            let mut edges = self.out_of(u).filter(|e| needs[e.into] != Need::Nothing).peekable();
            let asked = edges.peek().is_some();
            let aligned = edges.all(|e| needs[e.into] == Need::Part && e.aligned);
            // What the way forth waits for is computed once, unless all is to be computed again.
            let free = self.computes_again || !before_forth[u];
            needs[u] = match self.kinds[u] {
                Kind::Back | Kind::Rows if asked && aligned && free => Need::Part,
                _ if asked => Need::All,
                // Without checkpoints all that can goes along, so that sums find what a segment has just made.
                Kind::Back if behind_forth[u] || !self.computes_again => Need::Part,
                _ => Need::Nothing,
            };
        }
        // Without a loop on the way back, sums would be all that is there, and have everything computed again.
        let goes_back = (0..n).any(|u| self.kinds[u] == Kind::Back && needs[u] == Need::Part);
        let mut phases: Vec<Phase> = Vec::with_capacity(n);
        for (u, &need) in needs.iter().enumerate() {
            let earliest = self.into(u).map(|e| match (e.aligned, phases[e.from]) {
                (true, phase) => phase,
                // It may be read again on the way back.
                (false, Phase::Forth) if e.overwrites => Phase::Behind,
                (false, phase) => phase.done(),
            });
            let earliest = earliest.max().unwrap_or(Phase::Before);
            let at_once = earliest.done();
            // What only reads what is made between the two ways can stay there, for a sweep of its own.
            let read_swept = self.into(u).any(|e| e.aligned && phases[e.from].is_swept());
            let joins = goes_back && (earliest != Phase::Between || read_swept);
            let phase = match (self.kinds[u], need) {
                (Kind::Forth, _) if earliest <= Phase::Forth => Phase::Forth,
                (Kind::Back | Kind::Rows, Need::Part) => Phase::Back,
                (Kind::Sum, Need::Nothing) if joins && earliest <= Phase::Back => Phase::Back,
                (Kind::Rows, Need::All) => earliest,
                (Kind::Rows, Need::Nothing) => match earliest {
                    Phase::Between if joins => Phase::Back,
                    other => other,
                },
                _ => at_once,
            };
            let latest = match need {
                Need::All => Phase::Between,
                Need::Part => Phase::Back,
                Need::Nothing => Phase::Behind,
            };
            // Something is overwritten that is still wanted: it cannot be put off.
            if earliest > phase || phase > latest {
                return None;
            }
            phases.push(phase);
        }
        for u in (0..n).rev().filter(|&u| self.kinds[u] == Kind::Rows) {
            let moves = |phase: Phase| {
                let fits = |e: &Edge| phases[e.into] >= if e.aligned { phase } else { Phase::Behind };
                phases[u] < phase
                    && self.out_of(u).all(fits)
                    && self.out_of(u).any(|e| e.aligned && phases[e.into] == phase)
            };
            if phases[u] <= Phase::Forth {
                if moves(Phase::Back) {
                    phases[u] = Phase::Back;
                } else if moves(Phase::Forth) {
                    phases[u] = Phase::Forth;
                }
            }
        }
        // What nothing goes into, the zeros that a loop back starts from, waits until the way forth has left its memory.
        for u in 0..n {
            let behind = |e: &Edge| phases[e.into] >= Phase::Between;
            if phases[u] == Phase::Before
                && self.into(u).next().is_none()
                && self.uses[u].iter().all(|x| x.writes)
                && self.out_of(u).next().is_some()
                && self.out_of(u).all(behind)
            {
                phases[u] = Phase::Between;
            }
        }
        Some(phases)
    }

    /// Values of which one segment's rows are enough.
    pub fn locals(
        &self,
        plan: &Plan,
        units: &[Unit],
        phases: &[Phase],
        foreign: &HashSet<BufferId>,
    ) -> HashSet<BufferId> {
        // The loop of each state that has rows for each step.
        let mut states = HashMap::new();
        for (u, unit) in units.iter().enumerate() {
            let Unit::Loop(l) = unit else { continue };
            states.extend(l.states.iter().map(|state| (state.begin.buffer, (phases[u], *state))));
        }
        let forth_ends = |buffer| states.get(&buffer).filter(|(phase, _)| *phase == Phase::Forth).map(|(_, s)| s.end);
        let mut outside: HashMap<BufferId, Vec<(Access, Extent)>> = HashMap::new();
        for port in plan.results().chain(plan.updates.iter().map(|(port, _, _)| port)) {
            for span in &port.spans {
                outside.entry(span.access.buffer).or_default().push((span.access, port.extent));
            }
        }
        let candidate = |id: BufferId| {
            let buffer = &plan.buffers[id.0];
            let wide = matches!(buffer.rows, Rows::Time(a) | Rows::History(a) if a == self.axis);
            let by_end =
                |&(access, extent): &(Access, Extent)| extent == Extent::Batch && forth_ends(id) == Some(access);
            let own = outside.get(&id).into_iter().flatten();
            wide && buffer.keep != Keep::Always && own.into_iter().all(by_end) && !foreign.contains(&id)
        };
        let mut local: HashSet<BufferId> = (0..plan.buffers.len()).map(BufferId).filter(|&id| candidate(id)).collect();
        let of_others = |u: &usize| phases[*u] != Phase::Forth;
        let written_otherwise: HashSet<BufferId> = (0..units.len())
            .filter(of_others)
            .flat_map(|u| self.uses[u].iter().filter(|w| w.writes).map(|w| w.access.buffer))
            .collect();
        for (u, uses) in self.uses.iter().enumerate() {
            for use_ in uses {
                let id = use_.access.buffer;
                if !local.contains(&id) {
                    continue;
                }
                let state = states.get(&id);
                let fits = if use_.aligned {
                    phases[u].is_swept()
                } else {
                    match state {
                        Some((Phase::Forth, s)) if use_.access == s.begin || use_.access == s.end => true,
                        Some((Phase::Back, s)) if use_.access == s.begin => phases[u] < Phase::Back,
                        // Where the way back ends at the first step, the end is the first block.
                        Some((Phase::Back, s)) if use_.access == s.end => phases[u] == Phase::Behind && !self.reverse,
                        // The last steps are there as long as the way back has not begun, and for what is in no sweep
                        // of its own over this axis: to that, the end is the end of its own segment.
                        _ => {
                            let last = matches!(use_.access.at, At::FromEnd(..)) && !use_.writes;
                            let alone = self.kinds[u] == Kind::Whole && phases[u] == Phase::Between;
                            last && alone && !self.reverse && !written_otherwise.contains(&id)
                        }
                    }
                };
                if !fits {
                    local.remove(&id);
                }
            }
        }
        // What nobody names needs no rows of its own kind.
        let named: HashSet<BufferId> = self.uses.iter().flatten().map(|u| u.access.buffer).collect();
        local.retain(|id| named.contains(id));
        local
    }

    /// What must run again on the way back, and the values that remain of `local`: what cannot be computed again is
    /// whole, and so is what is not to be computed again, and the states of the way forth with it.
    pub fn again(
        &self,
        plan: &Plan,
        units: &[Unit],
        phases: &[Phase],
        mut local: HashSet<BufferId>,
    ) -> (HashSet<BufferId>, HashSet<usize>) {
        let repeatable = |u: usize| match &units[u] {
            _ if !plan.computes_again() => false,
            Unit::Loop(l) => l.states.iter().all(|s| plan.buffers[s.begin.buffer.0].rows != Rows::One),
            _ => true,
        };
        if !plan.computes_again() {
            for (unit, phase) in units.iter().zip(phases) {
                if let (Unit::Loop(l), Phase::Forth) = (unit, phase) {
                    local.retain(|id| l.states.iter().all(|state| state.begin.buffer != *id));
                }
            }
        }
        let mut writers: HashMap<BufferId, Vec<usize>> = HashMap::new();
        for w in (0..units.len()).filter(|&w| phases[w] == Phase::Forth) {
            for x in self.uses[w].iter().filter(|x| x.writes) {
                writers.entry(x.access.buffer).or_default().push(w);
            }
        }
        'whole: loop {
            let mut again = HashSet::new();
            let mut open: Vec<usize> = (0..units.len()).filter(|&u| phases[u] == Phase::Back).collect();
            while let Some(u) = open.pop() {
                // What makes the values that it reads, in order.
                let mut makers: BTreeMap<usize, Vec<BufferId>> = BTreeMap::new();
                let read = self.uses[u].iter().filter(|r| !r.writes).map(|r| r.access.buffer);
                for b in read.filter(|b| local.contains(b)) {
                    writers.get(&b).into_iter().flatten().for_each(|&w| makers.entry(w).or_default().push(b));
                }
                for (w, wanted) in makers {
                    if !repeatable(w) {
                        local.retain(|b| !wanted.contains(b));
                        continue 'whole;
                    }
                    if again.insert(w) {
                        open.push(w);
                    }
                }
            }
            return (local, again);
        }
    }
}

fn kind(unit: &Unit, axis: Axis, reverse: bool) -> Kind {
    match unit {
        Unit::Loop(l) if l.axis == axis => {
            if l.reverse == reverse {
                Kind::Forth
            } else {
                Kind::Back
            }
        }
        Unit::Stage(stage) if matches!(stage.domain, Domain::Time(a) | Domain::EachStep(a) if a == axis) => {
            if stage.work.sums_rows() { Kind::Sum } else { Kind::Rows }
        }
        _ => Kind::Whole,
    }
}

/// How a unit uses memory, as seen from one axis.
fn uses(unit: &Unit, axis: Axis, buffers: &[Buffer]) -> Vec<Use> {
    let mut uses = Vec::new();
    for (stage, l) in unit.stages() {
        let reads = stage.reads.iter().map(|a| (*a, false));
        for (access, writes) in reads.chain(stage.writes.iter().map(|a| (*a, true))) {
            let aligned = match unit {
                Unit::Sweep(_) => false,
                _ => is_aligned(stage, l, access, writes, axis, buffers),
            };
            uses.push(Use { access, writes, aligned });
        }
    }
    uses
}

/// Whether what a stage uses of a buffer at a step is that step's rows.
pub fn is_aligned(
    stage: &Stage,
    l: Option<&Loop>,
    access: Access,
    writes: bool,
    axis: Axis,
    buffers: &[Buffer],
) -> bool {
    let wide = matches!(buffers[access.buffer.0].rows, Rows::Time(a) | Rows::History(a) if a == axis);
    let over = match (l, stage.domain) {
        (Some(l), _) => l.axis == axis,
        (None, Domain::Time(a) | Domain::EachStep(a)) => a == axis,
        _ => false,
    };
    let follows = match access.at {
        At::Step(_) => true,
        At::Row(_) => {
            // Of their operands a row per sample is read.
            let of_sample = matches!(stage.work, Work::PlaceLast { .. } | Work::Within { .. }) && !writes;
            l.is_none() && matches!(stage.domain, Domain::Time(_)) && !of_sample
        }
        _ => false,
    };
    wide && over && follows
}

/// Dependences between units, at most one from a unit to another.
fn edges(uses: &[Vec<Use>], kinds: &[Kind]) -> Vec<Edge> {
    // Two sums that write one buffer are parts of a concat.
    let apart = |a: usize, b: usize| kinds[a] == Kind::Sum && kinds[b] == Kind::Sum;
    let mut by_buffer: HashMap<BufferId, Vec<(usize, Use)>> = HashMap::new();
    for (u, own) in uses.iter().enumerate() {
        for &x in own {
            by_buffer.entry(x.access.buffer).or_default().push((u, x));
        }
    }
    let mut found: HashMap<(usize, usize), Edge> = HashMap::new();
    for all in by_buffer.values() {
        // What is only read waits for nothing but writes, which are few.
        let every: Vec<usize> = (0..all.len()).collect();
        let writes: Vec<usize> = every.iter().copied().filter(|&i| all[i].1.writes).collect();
        for (i, (from, x)) in all.iter().enumerate() {
            let waits = |(into, y): &&(usize, Use)| into != from && !(x.writes && y.writes && apart(*from, *into));
            let later = if x.writes { &every } else { &writes };
            let later = &later[later.partition_point(|&other| other < i)..];
            for (into, y) in later.iter().map(|&other| &all[other]).filter(waits) {
                let (aligned, overwrites) = (x.aligned && y.aligned, !(x.writes || x.aligned && y.aligned));
                let new = Edge { from: *from, into: *into, aligned, overwrites };
                let edge = found.entry((*from, *into)).or_insert(new);
                edge.aligned &= aligned;
                edge.overwrites |= overwrites;
            }
        }
    }
    let mut edges: Vec<Edge> = found.into_values().collect();
    edges.sort_by_key(|e| (e.from, e.into));
    edges
}

impl Work {
    /// Whether it sums over the rows of its domain.
    pub(in crate::plan) fn sums_rows(&self) -> bool {
        matches!(self, Work::ReduceProduct { .. } | Work::ReduceRows { .. } | Work::Scatter { .. })
    }

    /// Elements of what a sum in several pieces takes along: of products whole panels, and a row for the sums beside them.
    pub(in crate::plan) fn carried_len(&self, panel: usize) -> usize {
        match self {
            Work::ReduceProduct { a, b, pairs, sums, .. } => {
                (a.len / pairs + usize::from(sums.is_some())) * (b.len / pairs).next_multiple_of(panel)
            }
            Work::ReduceRows { into, .. } | Work::Scatter { into, .. } => into.len,
            _ => 0,
        }
    }

    /// Elements that its sums over the rows of its domain have.
    pub(in crate::plan) fn summed(&self) -> usize {
        match self {
            Work::ReduceProduct { a, b, pairs, sums, .. } => a.len * b.len / pairs + sums.map_or(0, |sums| sums.len),
            Work::ReduceRows { into, .. } => into.len,
            // Rows of the table that a segment meets are few.
            _ => 0,
        }
    }
}
