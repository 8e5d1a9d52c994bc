//! Memory from liveness: buffers whose lives do not overlap share a slot.
//!
//! A buffer lives from the first unit that names it to the last; a loop is one unit for all that is named inside it
//! and outside, and its own temporaries are told apart by stage. Slots are shared only among buffers with the same
//! number of rows, so a slot's size is (widest row) × rows, whatever T and B are.
//!
//! Within a loop there are no barriers: one member of the team may be at another stage, or step, than its mates. What
//! keeps them apart is that each has its own rows, so temporaries of one loop share a slot only if row r is at the
//! same place for all of them.

use super::{BufferId, Keep, Plan, Slot, Unit};

/// From the first to the last position at which something is in use.
#[derive(Clone, Copy)]
struct Life {
    first: usize,
    last: usize,
}

impl Life {
    fn meets(self, other: Life) -> bool {
        self.first <= other.last && self.last >= other.first
    }

    fn extend(&mut self, other: Life) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// A slot in the making, with the life and the bytes of a row of each of its buffers.
struct Shared {
    slot: Slot,
    tenants: Vec<(Life, usize)>,
}

/// Gives every buffer its slot.
pub fn assign(plan: &mut Plan) {
    let (lives, loops) = lives(plan);
    // In the same loop, that is; a life ends where the loop ends at the latest, or goes on through all of it.
    let together = |a: Life, b: Life| loops.iter().any(|&l| a.meets(l) && b.meets(l));
    let mut slots: Vec<Shared> = Vec::new();
    let mut order: Vec<usize> = (0..plan.buffers.len()).collect();
    order.sort_by_key(|&b| lives[b].first);
    for b in order {
        let buffer = &plan.buffers[b];
        let size = if buffer.integer { 4 } else { plan.target.float_size };
        let row_bytes = buffer.stride * size;
        let life = lives[b];
        let fits = |shared: &Shared| {
            let free = |&(t, bytes): &(Life, usize)| !life.meets(t) && (bytes == row_bytes || !together(life, t));
            shared.slot.rows == buffer.rows && shared.tenants.iter().all(free)
        };
        // Of the slots that are free, the one that wastes or grows least.
        let waste = |&s: &usize| slots[s].slot.row_bytes.abs_diff(row_bytes);
        let s = (0..slots.len()).filter(|&s| fits(&slots[s])).min_by_key(waste).unwrap_or(slots.len());
        if s == slots.len() {
            slots.push(Shared { slot: Slot { rows: buffer.rows, row_bytes: 0 }, tenants: Vec::new() });
        }
        slots[s].slot.row_bytes = slots[s].slot.row_bytes.max(row_bytes);
        slots[s].tenants.push((life, row_bytes));
        plan.buffers[b].slot = s;
    }
    plan.slots = slots.into_iter().map(|shared| shared.slot).collect();
}

/// The lives of all buffers, and of all loops; positions count stages, those in loops included.
fn lives(plan: &Plan) -> (Vec<Life>, Vec<Life>) {
    let mut loops = Vec::new();
    let mut lives: Vec<Option<Life>> = vec![None; plan.buffers.len()];
    let mut touch = |b: BufferId, first: usize, last: usize| {
        let life = Life { first, last };
        lives[b.0].get_or_insert(life).extend(life);
    };
    let mut at = 1;
    for unit in &plan.units {
        match unit {
            Unit::Stage(stage) => {
                for access in stage.reads.iter().chain(&stage.writes) {
                    touch(access.buffer, at, at);
                }
                at += 1;
            }
            Unit::Loop(l) => {
                let (begin, end) = (at, at + l.stages.len());
                loops.push(Life { first: begin, last: end });
                // A buffer that is written before it is read within a step, and by rows of the step alone, is a
                // temporary of the step; any other is alive all through the loop.
                let mut written: Vec<BufferId> = Vec::new();
                for (i, stage) in l.stages.iter().enumerate() {
                    for access in &stage.reads {
                        let local = written.contains(&access.buffer);
                        let (from, to) = if local { (begin + i, begin + i) } else { (begin, end) };
                        touch(access.buffer, from, to);
                    }
                    for access in &stage.writes {
                        let history = !matches!(access.at, super::At::Row(0) | super::At::Shared);
                        let (from, to) = if history { (begin, end) } else { (begin + i, begin + i) };
                        touch(access.buffer, from, to);
                        written.push(access.buffer);
                    }
                }
                at = end + 1;
            }
        }
    }
    let end = at;
    let mut lives: Vec<Life> = lives.into_iter().map(|l| l.unwrap_or(Life { first: 0, last: 0 })).collect();
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
