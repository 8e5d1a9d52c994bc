//! Residuals: which values of a step are saved for its derivative, and which are computed again.
//!
//! Saving costs memory and its traffic, T rows a sample; computing again costs operations. Cheap pointwise work and
//! moves of features are computed again; products, reductions, lookups and transcendental functions are saved. What a
//! step has from outside costs nothing: sequences are read once more, and what depends on captures alone leaves the
//! loop when work is hoisted.
//!
//! What is compared for equality is saved, or the outcome is: a value computed again may be rounded differently (a
//! product and a sum contracted to one operation here and not there), so that a maximum would be found nowhere.
//!
//! What a product of the step takes its rows from is in memory anyway, so saving it costs room, but no time, while computing
//! it again for all steps is a pass over two values and one more to write: `r ⊙ h` of a GRU or an MGU, 1 and 2 % of a
//! training step.
//!
//! What a state becomes lies in memory one step behind what it was: if that is kept, so is this, at no cost. Peephole weights
//! of an output gate are multiplied by the new `c`; computing it again was a kernel of its own, 2 % of a training step.
//!
//! Computing a value again never saves more than saving the value itself would: where `a + b` is needed and neither
//! `a` nor `b` otherwise, the sum is saved.

use std::collections::BTreeSet;

use crate::ir::scan::Scan;
use crate::ir::types::{DType, Extent};
use crate::ir::{Binary, Graph, Op, Unary, Value};

/// How many nodes one coefficient may be computed again by before it counts as costly.
const CHAIN: usize = 64;

/// Chooses the values of `joint`, the body of `scan` with the derivative's nodes behind it, that the scan has to yield
/// so that the `coefficients` (in order) can be had from those, the scan's yields, its sequences and its captures.
pub fn choose(joint: &Graph, scan: &Scan, coefficients: &[Value]) -> BTreeSet<Value> {
    // What can be had without another sequence: leaves from outside and what depends on nothing else, and yields.
    let mut at_hand = vec![false; joint.len()];
    let mut invariant = vec![false; joint.len()];
    let mut of_state = vec![false; joint.len()];
    for v in joint.values() {
        let i = v.index();
        invariant[i] = match joint.op(v) {
            Op::Each(_) | Op::Carry(_) => false,
            op => op.is_leaf() || joint.operands(v).iter().all(|o| invariant[o.index()]),
        };
        at_hand[i] = invariant[i] || matches!(joint.op(v), Op::Each(_));
        of_state[i] = matches!(joint.op(v), Op::Carry(_)) || joint.operands(v).iter().any(|o| of_state[o.index()]);
    }
    for port in &scan.yields {
        at_hand[port.value.index()] = true;
    }
    // What the derivative's rules made is computed in the linear scan and nowhere else, whatever it is; but for a norm
    // and its divisor, each of whose rules is written with the other, and which the step computes together.
    let mut of_maximum = vec![false; joint.len()];
    for v in scan.body.values().filter(|&v| matches!(joint.op(v), Op::Max(_))) {
        of_maximum[joint.operands(v)[0].index()] = true;
    }
    // Rows of products, alone or among others side by side.
    let mut of_product = vec![false; joint.len()];
    for v in scan.body.values().rev() {
        let operands = joint.operands(v);
        match joint.op(v) {
            Op::Dot | Op::DotNt => of_product[operands[0].index()] = true,
            Op::Concat(_) if of_product[v.index()] => operands.iter().for_each(|o| of_product[o.index()] = true),
            _ => {}
        }
    }
    let is_row_of_product = |v: Value| of_product[v.index()] && joint.op(v).is_pointwise();
    let is_norm = |v: Value| matches!(joint.op(v), Op::Norm(_) | Op::Divisor(_));
    let costly = |v: Value| {
        is_norm(v)
            || v.index() < scan.body.len() && (of_maximum[v.index()] || is_row_of_product(v) || !is_cheap(joint, v))
    };
    // What states become, where the states themselves are kept. Not what no state takes part in, which leaves the loop when
    // work is hoisted and is a sequence of its own then; nor shared values, which have no history.
    let pairs = scan.carries.iter().map(|carry| (carry.value, carry.next));
    let lie_beside: Vec<(Value, Value)> =
        pairs.filter(|(_, next)| of_state[next.index()] && joint.ty(*next).extent == Extent::Batch).collect();
    let save_next = |at_hand: &mut [bool], saved: &mut BTreeSet<Value>| {
        for &(now, next) in &lie_beside {
            if at_hand[now.index()] && !at_hand[next.index()] {
                at_hand[next.index()] = true;
                saved.insert(next);
            }
        }
    };
    let mut saved = BTreeSet::new();
    for &c in coefficients {
        if !at_hand[c.index()] && costly(c) {
            at_hand[c.index()] = true;
            saved.insert(c);
        }
    }
    save_next(&mut at_hand, &mut saved);
    for &c in coefficients {
        // The chain between the coefficient and what is at hand or has to be saved for it.
        let (mut chain, mut frontier, mut open) = (BTreeSet::new(), BTreeSet::new(), vec![c]);
        let mut features = 0;
        let must = is_unsavable(joint, c);
        let mut worth = true;
        while let Some(v) = open.pop().filter(|_| worth) {
            if at_hand[v.index()] || chain.contains(&v) || frontier.contains(&v) {
                continue;
            }
            if costly(v) {
                features += joint.ty(v).shape.len();
                frontier.insert(v);
            } else {
                chain.insert(v);
                open.extend(joint.operands(v));
            }
            worth = must || (features <= joint.ty(c).shape.len() && chain.len() <= CHAIN);
        }
        if !worth {
            frontier = BTreeSet::from([c]);
            chain.clear();
        }
        for v in chain.into_iter().chain(frontier.iter().copied()) {
            at_hand[v.index()] = true;
        }
        saved.extend(frontier);
        save_next(&mut at_hand, &mut saved);
    }
    saved
}

/// Whether a value is cheaper to compute again than to store and load.
fn is_cheap(graph: &Graph, v: Value) -> bool {
    match graph.op(v) {
        Op::Unary(u) => match u {
            Unary::Neg | Unary::Abs | Unary::Sign | Unary::Relu => true,
            Unary::Powi(n) => (0..=4).contains(n),
            _ => false,
        },
        Op::Binary(b) => !matches!(b, Binary::Pow | Binary::Eq | Binary::Ne),
        // A choice of integers may be what makes one an index: with its mask saved, nobody would see that it is.
        Op::Select => graph.is_float(v),
        Op::StopGradient | Op::ToFloat | Op::OneHot(_) => true,
        Op::Broadcast(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Slice { .. } | Op::Pad { .. } => true,
        Op::Concat(_) | Op::Expand(_) => true,
        Op::Carry(_) => false,
        _ => is_unsavable(graph, v),
    }
}

/// A shared value has no sequence; expanded to a batch and averaged it is saved nevertheless, but not an integer.
fn is_unsavable(graph: &Graph, v: Value) -> bool {
    let ty = graph.ty(v);
    ty.extent == Extent::Shared && ty.dtype == DType::I32
}

#[cfg(test)]
mod tests {
    use crate::ir::{Op, Program};

    /// The joint program's forward loop yields what its state becomes, in the step that is given: `next` of `c`, from the
    /// state (or what a reset makes of it) and an input, whose value the gradient of `w` needs beside the state's own.
    fn yields_next(now: &str, next: &str) -> bool {
        let text = format!(
            "\
program step {{
  axis T = time
  sequence x: f32[T, B, 3]
  sequence keep: f32[T, B, 3]
  parameter w: f32[3] = 1
  parameter v: f32[3] = 1
  scan loop {{
    shared w: f32[3] = w
    shared v: f32[3] = v
    each x: f32[B, 3] = x
    each keep: f32[B, 3] = keep
    carry c: f32[B, 3] = 0
    %0: f32[B, 3] = mul {now}
    %1: f32[B, 3] = mul %0, v
    %2: f32[B, 3] = add {next}
    %3: f32[B, 3] = mul %2, w
    %4: f32[B, 3] = add %3, %1
    %5: f32[B, 3] = sin %4
    yield y = %5
    next c = %2
  }}
  %0: f32[T, B, 3] = yield y of loop
  %1: f32[T, B, 1] = sum %0
  %2: f32[T, B] = reshape %1
  %3: f32 = sum_rows %2
  objective %3
}}
"
        );
        let program = Program::parse(&text).expect("a program");
        let joint = program.backward().expect("it has an objective");
        let first = joint.graph.values().find_map(|v| match joint.graph.op(v) {
            Op::Scan(scan) => Some(scan),
            _ => None,
        });
        let scan = first.expect("its loop");
        scan.yields.iter().any(|port| port.value == scan.carries[0].next)
    }

    #[test]
    fn what_a_state_becomes_is_saved_where_the_state_is() {
        assert!(yields_next("c, x", "%1, x"));
        // What a reset makes of it is cheap, so the state itself is what is saved.
        assert!(yields_next("c, keep", "%1, x"));
        // No state takes part: computed again from sequences.
        assert!(!yields_next("c, x", "x, keep"));
    }
}
