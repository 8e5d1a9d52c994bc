//! Sums over rows that are taken in several pieces, and what each piece leaves for the next: see [`Carried`](crate::plan::Carried).
//!
//! The executor and its routines find that memory by its buffer alone, so no access of a stage says which rows and elements
//! of it they touch. Instead it must be the stage's own, kept all through a run, and as large as the sum.

use std::collections::HashSet;

use crate::ir::types::Axis;
use crate::plan::{BufferId, Domain, Keep, Plan, Rows, Stage, Work};

use super::{At, Wrong, ensure};

/// Whether a stage, in the way of a sweep or in none, has memory for what it goes on from exactly if it may be taken in
/// several pieces. Its buffers are added to those of other sums;
/// `tenants` counts the buffers of each slot.
pub fn verify(
    plan: &Plan,
    stage: &Stage,
    window: Option<Axis>,
    others: &mut HashSet<BufferId>,
    tenants: &[usize],
) -> Wrong {
    let (carried, is_product, per_sample) = match &stage.work {
        Work::ReduceProduct { carried, .. } => (carried, true, false),
        Work::ReduceRows { into, carried, .. } | Work::Scatter { into, carried, .. } => {
            (carried, false, into.access.at != At::Shared)
        }
        _ => return Ok(()),
    };
    let wanted = match stage.domain {
        Domain::EachStep(_) => Some((if per_sample { Rows::Batch } else { Rows::One }, Rows::One)),
        Domain::Time(axis) if window.is_some() => {
            Some((if per_sample { Rows::BatchIfSegments(axis) } else { Rows::IfSegments(axis) }, Rows::IfUneven(axis)))
        }
        Domain::Shared | Domain::Batch | Domain::Time(_) => None,
    };
    let (Some((totals, begun)), Some(carried)) = (wanted, carried) else {
        ensure!(wanted.is_none() == carried.is_none(), "a sum has memory to go on from where it is taken in pieces");
        return Ok(());
    };
    ensure!(carried.begun.is_some() == is_product, "products alone have blocks that have begun");
    let len = stage.work.carried_len(plan.target.panel);
    let wide = size_of::<f64>() / plan.target.float_size;
    for (id, rows, per_element) in [(Some(carried.totals), totals, wide), (carried.begun, begun, 1)] {
        let Some(id) = id else { continue };
        let buffer = plan.buffer(id)?;
        let has_room = len.checked_mul(per_element).is_some_and(|len| len <= buffer.stride);
        ensure!(has_room && !buffer.integer, "`{}` is not for sums of {len}", buffer.name);
        ensure!(buffer.rows == rows, "`{}`, of what a sum goes on from, has {:?}", buffer.name, buffer.rows);
        let is_own = buffer.keep == Keep::Always && tenants[buffer.slot] == 1 && others.insert(id);
        ensure!(is_own, "`{}`, of what a sum goes on from, is not its own", buffer.name);
    }
    Ok(())
}
