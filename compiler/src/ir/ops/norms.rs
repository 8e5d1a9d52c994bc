//! Rows brought to a standard size along their last axis, y = (x − μ)/σ or y = x/ρ, and the divisors σ and ρ themselves.
//!
//! They are ops, not compositions, because of what their derivative needs. With n features, and 1 the row of ones,
//!
//! ```text
//! dy = (I − 11ᵀ/n − yyᵀ/n) dx / σ        dσ = yᵀ dx / n
//! dy = (I − yyᵀ/n) dx / ρ                dρ = yᵀ dx / n
//! ```
//!
//! which is in terms of y and the divisor alone, and symmetric: one value and one number a row are kept, both sums are
//! taken in one pass, and backward has the form of forward. The derivative of the composition would keep x − μ, and
//! could not know that it sums to zero: three passes, each waiting for the one before. Each op's derivative is written
//! with the other, so higher orders follow.
//!
//! Once derivatives are taken, `simplify::write_out` writes them out; no later pass knows them.

use crate::ir::dual::Dual;
use crate::ir::graph::{Graph, Value};
use crate::ir::op::{Binary, Eval, Norm, Op, Row, RowArg, Tangent};
use crate::ir::types::{Shape, Type};

fn attribute(op: &Op) -> Norm {
    match op {
        Op::Norm(norm) | Op::Divisor(norm) => *norm,
        _ => unreachable!("a row of this file"),
    }
}

fn floats<'a>(operands: &[&'a Type]) -> Result<&'a Type, String> {
    match operands {
        [t] if t.is_float() && t.shape.rank() > 0 => Ok(t),
        [_] => Err("it works on floats that have a last axis".to_string()),
        _ => Err("it takes one operand".to_string()),
    }
}

/// The shape with the last axis of length 1.
fn one_each(shape: &Shape) -> Shape {
    shape.with(shape.rank() - 1, 1)
}

/// The mean of the last axis, repeated along it.
fn mean(g: &mut Graph, v: Value) -> Value {
    let shape = g.ty(v).shape.clone();
    let sum = g.add(Op::Sum(one_each(&shape)), &[v]);
    let n = g.scalar(shape.last() as f64);
    let mean = g.binary(Binary::Div, sum, n);
    g.add(Op::Broadcast(shape), &[mean])
}

/// dy, given y and dx.
fn tangent(g: &mut Graph, node: Value, tangents: &[Option<Value>]) -> Value {
    let norm = attribute(g.op(node));
    let (x, shape) = (g.operands(node)[0], g.ty(node).shape.clone());
    let divisor = g.add(Op::Divisor(norm), &[x]);
    let one = g.scalar(1.0);
    let scale = g.binary(Binary::Div, one, divisor);
    let scale = g.add(Op::Broadcast(shape), &[scale]);
    let dx = tangents[0].expect("a rule is asked for only where a tangent is");
    let dx = g.binary(Binary::Mul, dx, scale);
    let along = g.binary(Binary::Mul, dx, node);
    let along = mean(g, along);
    let along = g.binary(Binary::Mul, along, node);
    let rest = if norm.centred {
        let mean = mean(g, dx);
        g.binary(Binary::Sub, dx, mean)
    } else {
        dx
    };
    g.binary(Binary::Sub, rest, along)
}

/// dσ, given dx.
fn tangent_of_divisor(g: &mut Graph, node: Value, tangents: &[Option<Value>]) -> Value {
    let norm = attribute(g.op(node));
    let x = g.operands(node)[0];
    let (shape, small) = (g.ty(x).shape.clone(), g.ty(node).shape.clone());
    let y = g.add(Op::Norm(norm), &[x]);
    let dx = tangents[0].expect("a rule is asked for only where a tangent is");
    let along = g.binary(Binary::Mul, dx, y);
    let sum = g.add(Op::Sum(small), &[along]);
    let n = g.scalar(shape.last() as f64);
    g.binary(Binary::Div, sum, n)
}

/// x − μ, or x, and √(mean of its squares + ε).
fn evaluate(norm: Norm, x: &[Dual]) -> (Vec<Dual>, Dual) {
    let n = Dual::new(x.len() as f64);
    let sum = |x: &mut dyn Iterator<Item = Dual>| x.fold(Dual::default(), |sum, x| sum + x);
    let mean = if norm.centred { sum(&mut x.iter().copied()) / n } else { Dual::default() };
    let centred: Vec<Dual> = x.iter().map(|&x| x - mean).collect();
    let square = sum(&mut centred.iter().map(|&x| x * x)) / n + Dual::new(norm.epsilon);
    let root = square.re.sqrt();
    (centred, square.chain(root, 0.5 / root))
}

fn norm(op: &Op, a: &[RowArg], _: &Shape, out: &mut [Dual]) {
    let n = a[0].shape.last();
    for (x, y) in a[0].x.chunks(n).zip(out.chunks_mut(n)) {
        let (centred, divisor) = evaluate(attribute(op), x);
        y.iter_mut().zip(centred).for_each(|(y, x)| *y = x / divisor);
    }
}

fn divisor(op: &Op, a: &[RowArg], _: &Shape, out: &mut [Dual]) {
    for (x, y) in a[0].x.chunks(a[0].shape.last()).zip(out) {
        *y = evaluate(attribute(op), x).1;
    }
}

const fn of_norm(name: &'static str) -> Row {
    Row {
        name,
        infer: |_, t| floats(t).cloned(),
        tangent: Tangent::Rule(tangent),
        transpose: None,
        eval: Eval::Row(norm),
    }
}

const fn of_divisor(name: &'static str) -> Row {
    Row {
        name,
        infer: |_, t| floats(t).map(|t| t.reshaped(one_each(&t.shape))),
        tangent: Tangent::Rule(tangent_of_divisor),
        transpose: None,
        eval: Eval::Row(divisor),
    }
}

pub static LAYER_NORM: Row = of_norm("layer_norm");
pub static RMS_NORM: Row = of_norm("rms_norm");
pub static DEVIATION: Row = of_divisor("deviation");
pub static ROOT_MEAN_SQUARE: Row = of_divisor("root_mean_square");
