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

/// Gives every buffer its slot.
pub fn assign(plan: &mut Plan) {
    let (lives, loops) = lives(plan);
    // In the same loop, that is; a life ends where the loop ends at the latest, or goes on through all of it.
    let together = |a: (usize, usize), b: (usize, usize)| {
        loops.iter().any(|l| a.0 <= l.1 && a.1 >= l.0 && b.0 <= l.1 && b.1 >= l.0)
    };
    // For each slot, the lives of its buffers and the bytes of their rows.
    let mut slots: Vec<(Slot, Vec<((usize, usize), usize)>)> = Vec::new();
    let mut order: Vec<usize> = (0..plan.buffers.len()).collect();
    order.sort_by_key(|&b| lives[b].0);
    for b in order {
        let buffer = &plan.buffers[b];
        let size = if buffer.integer { 4 } else { plan.target.float_size };
        let row_bytes = buffer.stride * size;
        let life = lives[b];
        let fits = |(slot, taken): &(Slot, Vec<((usize, usize), usize)>)| {
            slot.rows == buffer.rows
                && taken
                    .iter()
                    .all(|&(t, bytes)| (life.0 > t.1 || life.1 < t.0) && (bytes == row_bytes || !together(life, t)))
        };
        // Of the slots that are free, the one that wastes or grows least.
        let best =
            (0..slots.len()).filter(|&s| fits(&slots[s])).min_by_key(|&s| slots[s].0.row_bytes.abs_diff(row_bytes));
        let s = best.unwrap_or_else(|| {
            slots.push((Slot { rows: buffer.rows, row_bytes: 0 }, Vec::new()));
            slots.len() - 1
        });
        slots[s].0.row_bytes = slots[s].0.row_bytes.max(row_bytes);
        slots[s].1.push((life, row_bytes));
        plan.buffers[b].slot = s;
    }
    plan.slots = slots.into_iter().map(|(slot, _)| slot).collect();
}

/// First and last position at which each buffer is in use, and those of each loop; positions count stages, loops
/// included.
fn lives(plan: &Plan) -> (Vec<(usize, usize)>, Vec<(usize, usize)>) {
    let mut loops = Vec::new();
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; plan.buffers.len()];
    let mut touch = |b: BufferId, from: usize, to: usize| {
        let life = lives[b.0].get_or_insert((from, to));
        *life = (life.0.min(from), life.1.max(to));
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
                loops.push((begin, end));
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
    let mut lives: Vec<(usize, usize)> = lives.into_iter().map(|l| l.unwrap_or((0, 0))).collect();
    for (life, buffer) in lives.iter_mut().zip(&plan.buffers) {
        match buffer.keep {
            Keep::Run => {}
            Keep::Always => *life = (0, usize::MAX),
            Keep::Output => life.1 = usize::MAX,
        }
    }
    for (value, _, _) in &plan.updates {
        for span in &value.spans {
            lives[span.access.buffer.0].1 = end + 1;
        }
    }
    (lives, loops)
}
