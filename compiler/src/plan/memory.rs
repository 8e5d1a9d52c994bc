//! Memory from liveness: buffers whose lives do not overlap share a slot.
//!
//! A buffer lives from the first unit that names it to the last; a loop is one unit for all that is named inside it
//! and outside, and its own temporaries are told apart by stage. Slots are shared only among buffers with the same
//! number of rows, or one block more for a state's history, so a slot's size is (widest row) × rows, whatever T and B are.
//!
//! Within a loop there are no barriers: one member of the team may be at another stage, or step, than its mates. What
//! keeps them apart is that each has its own rows, so temporaries of one loop share a slot only if row r is at the
//! same place for all of them.
//!
//! In a sweep there are barriers, and what has rows for one segment lives from where it is written to where it is read,
//! on either way. If it is written forth and read back, that is all the time between: where the way back begins, the
//! values of its first segment are those that the way forth has left. All else that a sweep names is alive all through
//! the way that names it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet};

use super::{At, BufferId, Keep, Loop, Plan, Rows, Slot, Unit};

/// From the first to the last position at which something is in use.
#[derive(Clone, Copy)]
struct Life {
    first: usize,
    last: usize,
}

impl Life {
    fn extend(&mut self, other: Life) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// A slot in the making, with the life and the bytes of a row of each of its buffers, in the order of their lives, none of
/// which meet.
struct Shared {
    slot: Slot,
    tenants: Vec<(Life, usize)>,
}

/// Slots that nobody lives in at present, found by the size of their rows.
#[derive(Default)]
struct Free {
    /// (bytes of a row, slot), of each kind of rows.
    slots: BTreeMap<Rows, BTreeSet<(usize, usize)>>,
}

impl Free {
    /// What kinds of rows that can share a slot have in common.
    fn kind(rows: Rows) -> Rows {
        match rows {
            Rows::Time(axis) => Rows::History(axis),
            Rows::Segment(axis) => Rows::SegmentHistory(axis),
            other => other,
        }
    }

    fn add(&mut self, s: usize, slot: &Slot) {
        self.slots.entry(Free::kind(slot.rows)).or_default().insert((slot.row_bytes, s));
    }

    /// Takes the slot that wastes or grows least, of equals the first, among those that fit.
    fn take(&mut self, rows: Rows, row_bytes: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let of_kind = self.slots.get_mut(&Free::kind(rows))?;
        let below = of_kind.range(..(row_bytes, 0)).rev().find(|(_, s)| fits(*s)).copied();
        let above = of_kind.range((row_bytes, 0)..).find(|(_, s)| fits(*s)).copied();
        // Of those with rows as wide as the widest below, the first.
        let below = below
            .and_then(|(bytes, _)| of_kind.range((bytes, 0)..=(bytes, usize::MAX)).find(|(_, s)| fits(*s)).copied());
        let best = [below, above].into_iter().flatten().min_by_key(|(bytes, s)| (bytes.abs_diff(row_bytes), *s))?;
        of_kind.remove(&best);
        Some(best.1)
    }
}

/// Gives every buffer its slot.
pub fn assign(plan: &mut Plan) {
    let (lives, loops) = lives(plan);
    let mut slots: Vec<Shared> = Vec::new();
    let mut free = Free::default();
    // Slots that somebody lives in, the first to be left on top.
    let mut taken: BinaryHeap<Reverse<(usize, usize)>> = BinaryHeap::new();
    let mut order: Vec<usize> = (0..plan.buffers.len()).collect();
    order.sort_by_key(|&b| lives[b].first);
    for b in order {
        let buffer = &plan.buffers[b];
        let size = if buffer.integer { 4 } else { plan.target.float_size };
        let row_bytes = buffer.stride * size;
        let life = lives[b];
        while let Some(&Reverse((last, s))) = taken.peek()
            && last < life.first
        {
            taken.pop();
            free.add(s, &slots[s].slot);
        }
        // In the same loop only rows of equal width share a slot. Loops lie one behind another, so only one of them can
        // reach from a life that is over into this one.
        let at = loops.partition_point(|l| l.last < life.first);
        let around = loops.get(at).filter(|l| l.first < life.first);
        let fits = |s: usize| {
            let in_loop = |t: &&(Life, usize)| around.is_some_and(|l| t.0.last >= l.first);
            slots[s].tenants.iter().rev().take_while(in_loop).all(|&(_, bytes)| bytes == row_bytes)
        };
        let s = free.take(buffer.rows, row_bytes, fits).unwrap_or(slots.len());
        if s == slots.len() {
            slots.push(Shared { slot: Slot { rows: buffer.rows, row_bytes: 0 }, tenants: Vec::new() });
        }
        let slot = &mut slots[s].slot;
        *slot = Slot { rows: slot.rows.join(buffer.rows).expect("it fits"), row_bytes: slot.row_bytes.max(row_bytes) };
        slots[s].tenants.push((life, row_bytes));
        taken.push(Reverse((life.last, s)));
        plan.buffers[b].slot = s;
    }
    plan.slots = slots.into_iter().map(|shared| shared.slot).collect();
}

/// The lives of all buffers, and of all loops; positions count stages, those in loops included, and those that run again
/// once more.
fn lives(plan: &Plan) -> (Vec<Life>, Vec<Life>) {
    let mut walk = Walk { plan, at: 1, lives: vec![None; plan.buffers.len()], loops: Vec::new() };
    for unit in &plan.units {
        walk.unit(unit);
    }
    let (end, loops) = (walk.at, walk.loops);
    let mut lives: Vec<Life> = walk.lives.into_iter().map(|l| l.unwrap_or(Life { first: 0, last: 0 })).collect();
    for (life, buffer) in lives.iter_mut().zip(&plan.buffers) {
        match buffer.keep {
            Keep::Run => {}
            Keep::Always => *life = Life { first: 0, last: usize::MAX },
            Keep::Output => life.last = usize::MAX,
        }
    }
    for (value, _, _) in &plan.updates {
        for span in &value.spans {
            lives[span.access.buffer.0].last = end + 1;
        }
    }
    (lives, loops)
}

/// A walk through a plan in the order in which it runs.
struct Walk<'p> {
    plan: &'p Plan,
    /// Position of the next stage.
    at: usize,
    lives: Vec<Option<Life>>,
    loops: Vec<Life>,
}

impl Walk<'_> {
    fn touch(&mut self, b: BufferId, first: usize, last: usize) {
        let life = Life { first, last };
        self.lives[b.0].get_or_insert(life).extend(life);
    }

    fn unit(&mut self, unit: &Unit) {
        match unit {
            Unit::Stage(stage) => {
                for access in stage.reads.iter().chain(&stage.writes) {
                    self.touch(access.buffer, self.at, self.at);
                }
                self.at += 1;
            }
            Unit::Loop(l) => self.steps(l),
            Unit::Sweep(sweep) => {
                self.way(sweep.forth.iter().map(|unit| (unit, true)));
                for unit in &sweep.between {
                    self.unit(unit);
                }
                let again = sweep.again.iter().map(|&i| (&sweep.forth[i], true));
                self.way(again.chain(sweep.back.iter().map(|unit| (unit, false))));
            }
        }
    }

    /// A loop. A buffer that is written before it is read within a step, and by rows of the step alone, is a temporary of
    /// the step; any other is alive all through the loop.
    fn steps(&mut self, l: &Loop) {
        let (begin, end) = (self.at, self.at + l.stages.len());
        self.loops.push(Life { first: begin, last: end });
        for (buffer, stage) in uses(l) {
            let (first, last) = stage.map_or((begin, end), |i| (begin + i, begin + i));
            self.touch(buffer, first, last);
        }
        self.at = end + 1;
    }

    /// One way of a sweep: units, and whether their states begin each segment as a checkpoint says.
    fn way<'u>(&mut self, units: impl Iterator<Item = (&'u Unit, bool)>) {
        let begin = self.at;
        let mut through: Vec<BufferId> = Vec::new();
        for (unit, from_checkpoint) in units {
            self.unit(unit);
            match unit {
                Unit::Stage(stage) => {
                    let all = stage.reads.iter().chain(&stage.writes).map(|a| a.buffer);
                    through.extend(all.filter(|&b| !self.is_of_segment(b)));
                }
                Unit::Loop(l) => {
                    let all = uses(l).into_iter().filter(|(_, stage)| stage.is_none()).map(|(buffer, _)| buffer);
                    through.extend(all.filter(|&b| !self.is_of_segment(b)));
                    // Otherwise a state goes on from the segment before.
                    if !from_checkpoint {
                        through.extend(l.states.iter().map(|state| state.begin.buffer));
                    }
                    through.extend(l.states.iter().filter_map(|state| state.checkpoints));
                }
                Unit::Sweep(_) => unreachable!("a sweep is between the ways of another, or outside of it"),
            }
        }
        let end = self.at;
        for b in through {
            self.touch(b, begin, end);
        }
        self.at += 1;
    }

    fn is_of_segment(&self, b: BufferId) -> bool {
        self.plan.buffers[b.0].rows.is_of_segment()
    }
}

/// What a loop names: the stage, if it is a temporary of the step.
fn uses(l: &Loop) -> Vec<(BufferId, Option<usize>)> {
    let mut uses = Vec::new();
    let mut written: HashSet<BufferId> = HashSet::new();
    for (i, stage) in l.stages.iter().enumerate() {
        for access in &stage.reads {
            uses.push((access.buffer, written.contains(&access.buffer).then_some(i)));
        }
        for access in &stage.writes {
            let local = matches!(access.at, At::Row(0) | At::Shared);
            uses.push((access.buffer, local.then_some(i)));
            written.insert(access.buffer);
        }
    }
    uses
}
