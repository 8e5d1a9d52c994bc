//! The adjoint of a split comes as a sum of pads, one for each part: here it becomes one concatenation.
//!
//! Both sides of a sum are read as segments along one axis, zero or not. Where at most one side is not zero, the
//! sum has that one's segment; where both have a segment at the same place, their sum. So disjoint pads that tile
//! the axis end as a plain concatenation, and what they do not cover as parts that are constant zero.

use super::algebra::{binary, emit};
use super::rebuild::Numbered;
use crate::ir::{Binary, Op, Type, Value};

/// A segment that is not zero: where it starts, how long it is, and what it holds.
type Segment = (usize, usize, Value);

/// The axis along which a value has zeros, and what it has between them.
fn segments(g: &Numbered, v: Value, axis: usize) -> Option<Vec<Segment>> {
    let operands = g.operands(v);
    match *g.op(v) {
        Op::Pad { axis: same, before, .. } if same == axis => {
            Some(vec![(before, g.ty(operands[0]).shape.0[axis], operands[0])])
        }
        Op::Concat(same) if same == axis => {
            let mut at = 0;
            let mut found = Vec::new();
            for &part in operands {
                let len = g.ty(part).shape.0[axis];
                if g.number(part) != Some(0.0) {
                    found.push((at, len, part));
                }
                at += len;
            }
            Some(found)
        }
        _ => None,
    }
}

/// The axis along which a value has zeros.
fn zeros_along(g: &Numbered, v: Value) -> Option<usize> {
    match *g.op(v) {
        Op::Pad { axis, .. } => Some(axis),
        Op::Concat(axis) if g.operands(v).iter().any(|&part| g.number(part) == Some(0.0)) => Some(axis),
        _ => None,
    }
}

/// x + y as one concatenation, or with two terms of a longer sum joined.
pub fn add(g: &mut Numbered, x: Value, y: Value) -> Option<Value> {
    if let Some(v) = joined(g, x, y) {
        return Some(v);
    }
    for (sum, other) in [(x, y), (y, x)] {
        if !matches!(g.op(sum), Op::Binary(Binary::Add)) || g.ty(other).shape.rank() == 0 {
            continue;
        }
        let (a, b) = (g.operands(sum)[0], g.operands(sum)[1]);
        for (rest, term) in [(a, b), (b, a)] {
            if let Some(v) = joined(g, term, other) {
                return Some(binary(g, Binary::Add, rest, v));
            }
        }
    }
    None
}

fn joined(g: &mut Numbered, x: Value, y: Value) -> Option<Value> {
    if g.ty(x).shape != g.ty(y).shape {
        return None;
    }
    let axis = zeros_along(g, x).or_else(|| zeros_along(g, y))?;
    let mut all = segments(g, x, axis)?;
    all.extend(segments(g, y, axis)?);
    all.sort();
    let mut merged: Vec<Segment> = Vec::new();
    for (start, len, v) in all {
        match merged.last().copied() {
            Some((at, n, other)) if (at, n) == (start, len) => {
                let sum = binary(g, Binary::Add, other, v);
                *merged.last_mut().expect("there is one") = (at, n, sum);
            }
            Some((at, n, _)) if at + n > start => return None,
            _ => merged.push((start, len, v)),
        }
    }
    let ty = g.ty(x).clone();
    let mut parts = Vec::new();
    let mut at = 0;
    let end = (ty.shape.0[axis], 0, x);
    for (start, len, v) in merged.into_iter().chain([end]) {
        if start > at {
            let zeros = Type::float(crate::ir::Extent::Shared, ty.shape.with(axis, start - at));
            parts.push(g.constant(0.0, zeros));
        }
        if len > 0 {
            parts.push(v);
        }
        at = start + len;
    }
    Some(emit(g, Op::Concat(axis), &parts))
}
