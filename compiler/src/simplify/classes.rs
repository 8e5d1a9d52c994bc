//! When a value of a loop's body can be known.

use crate::ir::op::Eval;
use crate::ir::{Extent, Op, Scan};

/// When a value of a body can be known: the earlier, the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The same at every step: depends on captures and constants only.
    Invariant,
    /// Depends on no state: a row of it is a function of the same row of sequences, so it can be computed for all
    /// steps at once before the loop.
    Before,
    /// Depends on a state, or sums over the rows of one step.
    Within,
}

/// Whether a row of the result is a function of the same row of each operand, so that the op commutes with any
/// choice and repetition of rows.
pub fn is_rowwise(op: &Op) -> bool {
    matches!(op.row().eval, Eval::Pointwise(_) | Eval::Row(_))
}

/// The class of each value of a body.
pub fn classes(scan: &Scan) -> Vec<Class> {
    let body = &scan.body;
    let mut classes: Vec<Class> = Vec::with_capacity(body.len());
    for v in body.values() {
        let node = body.node(v);
        classes.push(match &node.op {
            Op::Capture(_) | Op::Constant(_) | Op::RowCount(_) | Op::Training => Class::Invariant,
            Op::Each(_) => Class::Before,
            // A loop within a loop stays where it is.
            Op::Carry(_) | Op::Scan(_) | Op::Yield(_) | Op::Final(_) | Op::Total(_) => Class::Within,
            op => {
                let latest = node.operands.iter().map(|o| classes[o.index()]).max().unwrap_or(Class::Invariant);
                // A sum over the rows of one step has one row a step, which no extent outside has.
                let per_row = is_rowwise(op) && node.ty.extent == Extent::Batch;
                if latest == Class::Before && !per_row { Class::Within } else { latest }
            }
        });
    }
    classes
}
