//! Folding: an op on constants is a constant, a linear op on zero is zero.

use super::algebra::{evaluate, is_zero, type_of};
use super::rebuild::Numbered;
use crate::ir::op::Tangent;
use crate::ir::{Op, Value};

/// The constant that an op on these operands equals.
pub fn fold(g: &mut Numbered, op: &Op, x: &[Value]) -> Option<Value> {
    let value = on_numbers(g, op, x).or_else(|| on_zero(g, op, x).then_some(0.0))?;
    let ty = type_of(g, op, x);
    Some(g.constant(value, ty))
}

fn on_numbers(g: &Numbered, op: &Op, x: &[Value]) -> Option<f64> {
    let numbers: Vec<f64> = x.iter().map(|&v| g.number(v)).collect::<Option<_>>()?;
    let first = numbers[0];
    match op {
        Op::Reshape(_) | Op::Transpose(_) | Op::Slice { .. } | Op::Broadcast(_) | Op::Max(_) => Some(first),
        Op::Expand(_) | Op::Last => Some(first),
        Op::Concat(_) => numbers.iter().all(|n| n.to_bits() == first.to_bits()).then_some(first),
        Op::Sum(shape) => Some(first * (g.ty(x[0]).shape.len() / shape.len()) as f64),
        op => evaluate(op, &numbers),
    }
}

/// Whether a zero among the operands makes the result zero.
fn on_zero(g: &Numbered, op: &Op, x: &[Value]) -> bool {
    match op {
        Op::Pad { .. } | Op::PlaceLast(_) | Op::SumRows(_) => is_zero(g, x[0]),
        Op::Gather => is_zero(g, x[0]),
        Op::ScatterAdd(_) => is_zero(g, x[1]),
        // Of infinity it is not a number.
        Op::Binary(_) => false,
        op => matches!(op.row().tangent, Tangent::Multilinear) && x.iter().any(|&v| is_zero(g, v)),
    }
}
