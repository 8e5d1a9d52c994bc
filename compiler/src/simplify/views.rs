//! Views (reshape, transpose, slice, pad, concat), sums and repetitions along features and rows: identities go,
//! chains merge, and what meets its inverse cancels.

use super::algebra::{binary, emit, type_of};
use super::rebuild::Numbered;
use crate::ir::{Binary, Extent, Op, Shape, Unary, Value};

/// What a view, reduction or repetition of these operands equals, if that is simpler.
pub fn rule(g: &mut Numbered, op: &Op, operands: &[Value]) -> Option<Value> {
    let x = operands[0];
    let identity =
        matches!(op, Op::Reshape(_) | Op::Slice { .. } | Op::Pad { .. } | Op::Sum(_) | Op::Max(_) | Op::Broadcast(_))
            || matches!(op, Op::Concat(_)) && operands.len() == 1
            || matches!(op, Op::Transpose(perm) if perm.is_sorted());
    if identity && type_of(g, op, operands) == *g.ty(x) {
        return Some(x);
    }
    let inner = g.op(x).clone();
    let y = g.operands(x).first().copied();
    match (op, inner, y) {
        (Op::Reshape(_), Op::Reshape(_), Some(y))
        | (Op::Sum(_), Op::Sum(_), Some(y))
        | (Op::Max(_), Op::Max(_), Some(y))
        | (Op::Broadcast(_), Op::Broadcast(_), Some(y))
        | (Op::SumRows(_), Op::SumRows(_), Some(y))
        | (Op::Expand(_), Op::Expand(_), Some(y)) => Some(emit(g, op.clone(), &[y])),

        (Op::Transpose(outer), Op::Transpose(inner), Some(y)) => {
            let perm = outer.iter().map(|&p| inner[p]).collect();
            Some(emit(g, Op::Transpose(perm), &[y]))
        }
        // A sign goes outwards: it is one for the sum instead of one for each term.
        (Op::Sum(_), Op::Unary(Unary::Neg), Some(y)) => {
            let sum = emit(g, op.clone(), &[y]);
            Some(emit(g, Op::Unary(Unary::Neg), &[sum]))
        }
        (Op::Sum(shape), Op::Broadcast(large), Some(y)) if *shape == g.ty(y).shape => {
            let count = g.scalar((large.len() / shape.len()) as f64);
            Some(binary(g, Binary::Mul, y, count))
        }
        (&Op::Slice { axis, start, len }, inner, Some(y)) => slice(g, x, &inner, y, axis, start, len),
        (&Op::Pad { axis, before, after }, Op::Pad { axis: same, before: b, after: a }, Some(y)) if axis == same => {
            Some(emit(g, Op::Pad { axis, before: before + b, after: after + a }, &[y]))
        }
        (&Op::Concat(axis), ..) => concat(g, axis, operands),

        (&Op::SumRows(to), Op::Expand(from), Some(y)) => Some(sum_of_repeated(g, to, from, y)),
        (&Op::SumRows(Extent::Batch), Op::PlaceLast(_), Some(y)) => Some(y),
        (Op::SumRows(_), Op::PlaceLast(_), Some(y)) => Some(emit(g, op.clone(), &[y])),
        (Op::Last, Op::PlaceLast(_), Some(y)) => Some(y),
        (Op::Last, Op::Expand(_), Some(y)) if g.ty(y).extent == Extent::Batch => Some(y),
        (Op::Last, Op::Expand(_), Some(y)) => Some(emit(g, Op::Expand(Extent::Batch), &[y])),
        // The last step of what a scan writes as its next state is its last state.
        (Op::Last, Op::Yield(i), Some(y)) => {
            let Op::Scan(scan) = g.op(y) else { unreachable!("a yield reads a scan") };
            let state = scan.carries.iter().position(|c| c.next == scan.yields[i].value && !scan.reverse)?;
            Some(g.result(y, Op::Final(state)))
        }
        _ => None,
    }
}

/// Σ over rows of a repeated row is that row times how often it is repeated.
fn sum_of_repeated(g: &mut Numbered, to: Extent, from: Extent, y: Value) -> Value {
    let own = g.ty(y).extent;
    let count = g.rows_for_each(from, own.max(to));
    let scaled = binary(g, Binary::Mul, y, count);
    match own.cmp(&to) {
        std::cmp::Ordering::Less => emit(g, Op::Expand(to), &[scaled]),
        std::cmp::Ordering::Equal => scaled,
        std::cmp::Ordering::Greater => emit(g, Op::SumRows(to), &[scaled]),
    }
}

/// Features `start .. start + len` of `x`, which is `inner` of `y` (and others).
fn slice(g: &mut Numbered, x: Value, inner: &Op, y: Value, axis: usize, start: usize, len: usize) -> Option<Value> {
    let end = start + len;
    match inner {
        Op::Slice { axis: same, start: first, .. } if *same == axis => {
            Some(emit(g, Op::Slice { axis, start: first + start, len }, &[y]))
        }
        Op::Pad { axis: same, before, .. } if *same == axis => {
            let n = g.ty(y).shape.0[axis];
            let (from, to) = (start.max(*before), end.min(before + n));
            if from >= to {
                let ty = g.ty(x).reshaped(g.ty(x).shape.with(axis, len));
                return Some(g.constant(0.0, ty));
            }
            let part = emit(g, Op::Slice { axis, start: from - before, len: to - from }, &[y]);
            Some(emit(g, Op::Pad { axis, before: from - start, after: end - to }, &[part]))
        }
        Op::Concat(same) if *same == axis => {
            let ends = g.ends_of_parts(x);
            let mut parts = Vec::new();
            for i in ends.partition_point(|&end| end <= start)..ends.len() {
                let (v, at) = (g.operands(x)[i], if i == 0 { 0 } else { ends[i - 1] });
                if at >= end {
                    break;
                }
                let (from, to) = (start.max(at), end.min(ends[i]));
                parts.push(emit(g, Op::Slice { axis, start: from - at, len: to - from }, &[v]));
            }
            let extent = g.ty(x).extent;
            let v = emit(g, Op::Concat(axis), &parts);
            Some(if g.ty(v).extent == extent { v } else { emit(g, Op::Expand(extent), &[v]) })
        }
        Op::Broadcast(shape) => {
            let part = if g.ty(y).shape.0[axis] == 1 { y } else { emit(g, Op::Slice { axis, start, len }, &[y]) };
            Some(emit(g, Op::Broadcast(shape.with(axis, len)), &[part]))
        }
        Op::Transpose(perm) => {
            let part = emit(g, Op::Slice { axis: perm[axis], start, len }, &[y]);
            Some(emit(g, Op::Transpose(perm.clone()), &[part]))
        }
        _ => None,
    }
}

/// Parts of parts become parts; neighbours that are slices of one value side by side, or the same constant, become
/// one; a single part between zeros is a pad.
fn concat(g: &mut Numbered, axis: usize, operands: &[Value]) -> Option<Value> {
    let ty = type_of(g, &Op::Concat(axis), operands);
    let mut flat = Vec::new();
    for &v in operands {
        match g.op(v) {
            Op::Concat(inner) if *inner == axis => flat.extend_from_slice(g.operands(v)),
            _ => flat.push(v),
        }
    }
    let mut parts: Vec<Value> = Vec::new();
    for v in flat {
        match parts.last().and_then(|&last| joined(g, axis, last, v)) {
            Some(both) => *parts.last_mut().expect("it joined the last") = both,
            None => parts.push(v),
        }
    }
    let zero = |v: &Value| g.number(*v) == Some(0.0);
    let solid: Vec<usize> = (0..parts.len()).filter(|&i| !zero(&parts[i])).collect();
    let v = match solid[..] {
        [i] if parts.len() > 1 => {
            let width = |parts: &[Value]| parts.iter().map(|&v| g.ty(v).shape.0[axis]).sum();
            let (before, after) = (width(&parts[..i]), width(&parts[i + 1..]));
            emit(g, Op::Pad { axis, before, after }, &[parts[i]])
        }
        _ if parts == operands => return None,
        _ => emit(g, Op::Concat(axis), &parts),
    };
    Some(if g.ty(v).extent == ty.extent { v } else { emit(g, Op::Expand(ty.extent), &[v]) })
}

/// Two neighbours as one value.
fn joined(g: &mut Numbered, axis: usize, a: Value, b: Value) -> Option<Value> {
    if let (Some(x), Some(y)) = (g.number(a), g.number(b)) {
        let n = g.ty(a).shape.0[axis] + g.ty(b).shape.0[axis];
        let ty = g.ty(a).at(g.ty(a).extent.join(g.ty(b).extent)?);
        let shape: Shape = ty.shape.with(axis, n);
        return (x.to_bits() == y.to_bits()).then(|| g.constant(x, ty.reshaped(shape)));
    }
    let (&Op::Slice { axis: i, start, len }, &Op::Slice { axis: j, start: next, len: more }) = (g.op(a), g.op(b))
    else {
        return None;
    };
    let whole = g.operands(a)[0];
    let adjacent = i == axis && j == axis && g.operands(b)[0] == whole && start + len == next;
    adjacent.then(|| emit(g, Op::Slice { axis, start, len: len + more }, &[whole]))
}
