//! Along the features of a row: sum and maximum (ranks stay, reduced axes become 1), and their inverse direction,
//! broadcast. Sum and broadcast are each other's transposes.

use crate::ir::dual::Dual;
use crate::ir::graph::{Graph, Value};
use crate::ir::op::{Binary, Eval, Op, Row, RowArg, Tangent};
use crate::ir::types::{Shape, Type};

fn one<'a>(operands: &[&'a Type]) -> Result<&'a Type, String> {
    match operands {
        [t] if t.is_float() => Ok(t),
        [_] => Err("it works on floats".to_string()),
        _ => Err("it takes one operand".to_string()),
    }
}

fn attribute(op: &Op) -> &Shape {
    match op {
        Op::Sum(s) | Op::Max(s) | Op::Broadcast(s) => s,
        _ => unreachable!("a row of this file"),
    }
}

/// `small` has 1 in some places where `large` has more.
fn spreads(small: &Shape, large: &Shape) -> bool {
    small.rank() == large.rank() && small.0.iter().zip(&large.0).all(|(s, l)| s == l || *s == 1)
}

/// For each feature of `large`, the feature of `small` that it belongs to.
pub fn broadcast_index(small: &Shape, large: &Shape) -> Vec<usize> {
    let mut index = vec![0; large.len()];
    for (flat, out) in index.iter_mut().enumerate() {
        let (mut rest, mut stride) = (flat, 1);
        for d in (0..large.rank()).rev() {
            let at = rest % large.0[d];
            rest /= large.0[d];
            if small.0[d] != 1 {
                *out += at * stride;
            }
            stride *= small.0[d];
        }
    }
    index
}

fn reduce_type(op: &Op, t: &[&Type]) -> Result<Type, String> {
    let (t, shape) = (one(t)?, attribute(op));
    if !spreads(shape, &t.shape) {
        return Err(format!("{} does not reduce to {shape}", t.shape));
    }
    Ok(t.reshaped(shape.clone()))
}

fn operand_shape(g: &Graph, node: Value) -> Shape {
    g.ty(g.operands(node)[0]).shape.clone()
}

pub static SUM: Row = Row {
    name: "sum",
    infer: reduce_type,
    tangent: Tangent::Linear,
    transpose: Some(|g, node, _, ct| {
        let shape = operand_shape(g, node);
        g.add(Op::Broadcast(shape), &[ct])
    }),
    eval: Eval::Row(|_, a: &[RowArg], shape, out| {
        for (i, x) in broadcast_index(shape, a[0].shape).into_iter().zip(a[0].x) {
            out[i] = out[i] + *x;
        }
    }),
};

/// Equal maxima share the derivative.
pub static MAX: Row = Row {
    name: "max_over",
    infer: reduce_type,
    tangent: Tangent::Rule(|g, node, tangents| {
        let x = g.operands(node)[0];
        let (large, small) = (operand_shape(g, node), g.ty(node).shape.clone());
        let spread = g.add(Op::Broadcast(large.clone()), &[node]);
        let mask = g.binary(Binary::Eq, x, spread);
        let count = g.add(Op::Sum(small.clone()), &[mask]);
        let count = g.add(Op::Broadcast(large), &[count]);
        let share = g.binary(Binary::Div, mask, count);
        let tangent = tangents[0].expect("a rule is asked for only where a tangent is");
        let t = g.binary(Binary::Mul, tangent, share);
        g.add(Op::Sum(small), &[t])
    }),
    transpose: None,
    eval: Eval::Row(|_, a: &[RowArg], shape, out| {
        let index = broadcast_index(shape, a[0].shape);
        let mut count = vec![0.0; out.len()];
        out.fill(Dual::new(f64::NEG_INFINITY));
        for (&i, x) in index.iter().zip(a[0].x) {
            if (x.re > out[i].re || x.re.is_nan()) && !out[i].re.is_nan() {
                out[i] = Dual::new(x.re);
            }
        }
        for (&i, x) in index.iter().zip(a[0].x) {
            if x.re == out[i].re {
                out[i].du += x.du;
                count[i] += 1.0;
            }
        }
        for (o, n) in out.iter_mut().zip(count) {
            o.du /= f64::max(n, 1.0);
        }
    }),
};

pub static BROADCAST: Row = Row {
    name: "broadcast",
    infer: |op, t| {
        let (t, shape) = (one(t)?, attribute(op));
        if !spreads(&t.shape, shape) {
            return Err(format!("{} does not broadcast to {shape}", t.shape));
        }
        Ok(t.reshaped(shape.clone()))
    },
    tangent: Tangent::Linear,
    transpose: Some(|g, node, _, ct| {
        let shape = operand_shape(g, node);
        g.add(Op::Sum(shape), &[ct])
    }),
    eval: Eval::Row(|_, a: &[RowArg], shape, out| {
        for (o, i) in out.iter_mut().zip(broadcast_index(a[0].shape, shape)) {
            *o = a[0].x[i];
        }
    }),
};
