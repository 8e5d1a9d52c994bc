//! The same features elsewhere: reshape, transpose, slice and pad (each other's transposes), concat. All linear.

use crate::ir::op::{Eval, Op, Row, Tangent};
use crate::ir::types::{Shape, Type};

fn one<'a>(operands: &[&'a Type]) -> Result<&'a Type, String> {
    match operands {
        [t] => Ok(t),
        _ => Err("it takes one operand".to_string()),
    }
}

/// A shape as (product before the axis, the axis, product behind it).
pub fn around(shape: &Shape, axis: usize) -> (usize, usize, usize) {
    (shape.0[..axis].iter().product(), shape.0[axis], shape.0[axis + 1..].iter().product())
}

fn axis_in(axis: usize, shape: &Shape) -> Result<(), String> {
    if axis < shape.rank() { Ok(()) } else { Err(format!("axis {axis} is not one of the {} of {shape}", shape.rank())) }
}

pub static RESHAPE: Row = Row {
    name: "reshape",
    infer: |op, t| {
        let Op::Reshape(shape) = op else { unreachable!("the row of reshape") };
        let t = one(t)?;
        if t.shape.len() != shape.len() {
            return Err(format!("{} has {} features, {shape} has {}", t.shape, t.shape.len(), shape.len()));
        }
        Ok(t.reshaped(shape.clone()))
    },
    tangent: Tangent::Linear,
    transpose: Some(|g, node, _, ct| {
        let shape = g.ty(g.operands(node)[0]).shape.clone();
        g.add(Op::Reshape(shape), &[ct])
    }),
    eval: Eval::Row(|_, a, _, out| out.copy_from_slice(a[0].x)),
};

/// For each feature of the transposed shape, the operand's feature.
pub fn transpose_index(operand: &Shape, perm: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; operand.rank()];
    for d in (0..operand.rank().saturating_sub(1)).rev() {
        strides[d] = strides[d + 1] * operand.0[d + 1];
    }
    let mut index = vec![0];
    for &p in perm {
        index = index
            .iter()
            .flat_map(|&base| (0..operand.0[p]).map(move |i| (base, i)))
            .map(|(base, i)| base + i * strides[p])
            .collect();
    }
    index
}

pub static TRANSPOSE: Row = Row {
    name: "transpose",
    infer: |op, t| {
        let Op::Transpose(perm) = op else { unreachable!("the row of transpose") };
        let t = one(t)?;
        let mut seen = perm.clone();
        seen.sort_unstable();
        if seen != (0..t.shape.rank()).collect::<Vec<_>>() {
            return Err(format!("{perm:?} is not an order of the {} dimensions of {}", t.shape.rank(), t.shape));
        }
        Ok(t.reshaped(perm.iter().map(|&p| t.shape.0[p]).collect::<Vec<_>>()))
    },
    tangent: Tangent::Linear,
    transpose: Some(|g, node, _, ct| {
        let Op::Transpose(perm) = g.op(node) else { unreachable!("the row of transpose") };
        let mut inverse = vec![0; perm.len()];
        for (i, &p) in perm.iter().enumerate() {
            inverse[p] = i;
        }
        g.add(Op::Transpose(inverse), &[ct])
    }),
    eval: Eval::Row(|op, a, _, out| {
        let Op::Transpose(perm) = op else { unreachable!("the row of transpose") };
        for (o, i) in out.iter_mut().zip(transpose_index(a[0].shape, perm)) {
            *o = a[0].x[i];
        }
    }),
};

pub static SLICE: Row = Row {
    name: "slice",
    infer: |op, t| {
        let Op::Slice { axis, start, len } = *op else { unreachable!("the row of slice") };
        let t = one(t)?;
        axis_in(axis, &t.shape)?;
        let n = t.shape.0[axis];
        let end = start.saturating_add(len);
        if len == 0 || end > n {
            return Err(format!("{start}..{end} is not within the {n} of axis {axis}"));
        }
        Ok(t.reshaped(t.shape.with(axis, len)))
    },
    tangent: Tangent::Linear,
    transpose: Some(|g, node, _, ct| {
        let Op::Slice { axis, start, len } = *g.op(node) else { unreachable!("the row of slice") };
        let n = g.ty(g.operands(node)[0]).shape.0[axis];
        g.add(Op::Pad { axis, before: start, after: n - start - len }, &[ct])
    }),
    eval: Eval::Row(|op, a, _, out| {
        let Op::Slice { axis, start, len } = *op else { unreachable!("the row of slice") };
        let (outer, n, inner) = around(a[0].shape, axis);
        for o in 0..outer {
            let from = (o * n + start) * inner;
            out[o * len * inner..(o + 1) * len * inner].copy_from_slice(&a[0].x[from..from + len * inner]);
        }
    }),
};

pub static PAD: Row = Row {
    name: "pad",
    infer: |op, t| {
        let Op::Pad { axis, before, after } = *op else { unreachable!("the row of pad") };
        let t = one(t)?;
        if !t.is_float() {
            return Err("it works on floats".to_string());
        }
        axis_in(axis, &t.shape)?;
        Ok(t.reshaped(t.shape.with(axis, t.shape.0[axis].saturating_add(before).saturating_add(after))))
    },
    tangent: Tangent::Linear,
    transpose: Some(|g, node, _, ct| {
        let Op::Pad { axis, before, .. } = *g.op(node) else { unreachable!("the row of pad") };
        let len = g.ty(g.operands(node)[0]).shape.0[axis];
        g.add(Op::Slice { axis, start: before, len }, &[ct])
    }),
    eval: Eval::Row(|op, a, shape, out| {
        let Op::Pad { axis, before, .. } = *op else { unreachable!("the row of pad") };
        let (outer, n, inner) = around(shape, axis);
        let len = a[0].shape.0[axis] * inner;
        for o in 0..outer {
            let to = (o * n + before) * inner;
            out[to..to + len].copy_from_slice(&a[0].x[o * len..(o + 1) * len]);
        }
    }),
};

pub static CONCAT: Row = Row {
    name: "concat",
    infer: |op, t| {
        let Op::Concat(axis) = *op else { unreachable!("the row of concat") };
        let Some((first, rest)) = t.split_first() else { return Err("it takes at least one operand".to_string()) };
        axis_in(axis, &first.shape)?;
        let mut out = (*first).clone();
        for t in rest {
            if t.dtype != out.dtype || t.shape.rank() != out.shape.rank() {
                return Err("all must have the same element type and number of dimensions".to_string());
            }
            if t.shape.with(axis, 1) != out.shape.with(axis, 1) {
                return Err(format!("shapes differ in another dimension than {axis}"));
            }
            out.shape = out.shape.with(axis, out.shape.0[axis] + t.shape.0[axis]);
            out.extent = out.extent.join(t.extent).ok_or("sequences on different time axes have no common steps")?;
        }
        Ok(out)
    },
    tangent: Tangent::Linear,
    transpose: Some(|g, node, i, ct| {
        let Op::Concat(axis) = *g.op(node) else { unreachable!("the row of concat") };
        let operands = g.operands(node).to_vec();
        let start = operands[..i].iter().map(|&v| g.ty(v).shape.0[axis]).sum();
        let ty = g.ty(operands[i]).clone();
        let part = g.add(Op::Slice { axis, start, len: ty.shape.0[axis] }, &[ct]);
        g.sum_to(part, &ty)
    }),
    eval: Eval::Row(|op, a, shape, out| {
        let Op::Concat(axis) = *op else { unreachable!("the row of concat") };
        let (outer, n, inner) = around(shape, axis);
        let mut start = 0;
        for part in a {
            let len = part.shape.0[axis] * inner;
            for o in 0..outer {
                let to = o * n * inner + start;
                out[to..to + len].copy_from_slice(&part.x[o * len..(o + 1) * len]);
            }
            start += len;
        }
    }),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposed_features_come_from_their_places() {
        assert_eq!(transpose_index(&Shape(vec![2, 3]), &[1, 0]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(transpose_index(&Shape::scalar(), &[]), [0]);
    }

    #[test]
    fn a_slice_outside_says_where() {
        let t = Type::float(crate::ir::Extent::Batch, 4);
        let op = Op::Slice { axis: 0, start: 3, len: 2 };
        let error = op.infer(&[&t]).expect_err("3..5 of 4").to_string();
        assert_eq!(error, "`slice` cannot take f32[B, 4]: 3..5 is not within the 4 of axis 0");
    }
}
