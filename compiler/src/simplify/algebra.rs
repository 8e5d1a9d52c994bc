//! Local algebra: what a node equals, seen from its operands.
//!
//! Every rule holds for all finite values. One holds for no others: a product with a weight of a state or a cotangent that
//! is 0 everywhere is 0, also where the weight is infinite or not a number. A state that starts at 0 is not multiplied, and
//! a derivative that is not there meets no value; the interpreter's dual numbers do the same.
//!
//! A rule builds its result through [`emit`], so that what it builds is simplified in turn.

use super::classes::is_rowwise;
use super::pads::LongSums;
use super::rebuild::{Numbered, Rewrite, Site, rewrite};
use super::{constants, pads, views};
use crate::ir::op::Eval;
use crate::ir::{Binary, Extent, Graph, Op, Program, Scan, Shape, Type, Unary, Value};

/// Folds constants, cancels, merges views and sums of pads.
pub fn algebra(program: &Program) -> Program {
    rewrite(program, &Algebra)
}

struct Algebra;

impl Rewrite for Algebra {
    type Facts = LongSums;
    fn facts(&self, graph: &Graph, roots: &[Value], _: Option<&Scan>) -> LongSums {
        LongSums::find(graph, roots)
    }

    fn node(&self, site: Site<LongSums>, op: &Op, operands: &[Value]) -> Option<Value> {
        let Site { g, old, value, map, facts } = site;
        facts.node(g, old, value, operands, map).or_else(|| rule(g, op, operands))
    }
}

/// The simplest value that equals an op on these operands.
pub fn emit(g: &mut Numbered, op: Op, x: &[Value]) -> Value {
    rule(g, &op, x).unwrap_or_else(|| g.add(op, x))
}

/// A binary op, simplified.
pub fn binary(g: &mut Numbered, op: Binary, x: Value, y: Value) -> Value {
    emit(g, Op::Binary(op), &[x, y])
}

/// The type of an op on these operands.
pub fn type_of(g: &Numbered, op: &Op, x: &[Value]) -> Type {
    let types: Vec<&Type> = x.iter().map(|&v| g.ty(v)).collect();
    op.infer(&types).expect("a rewrite looks at nodes that fit")
}

/// The value with what a rule took away of its type put back.
pub fn widened(g: &mut Numbered, v: Value, ty: &Type) -> Value {
    let mut v = v;
    if g.ty(v).shape != ty.shape {
        v = emit(g, Op::Reshape(Shape(vec![1; ty.shape.rank()])), &[v]);
        v = emit(g, Op::Broadcast(ty.shape.clone()), &[v]);
    }
    if g.ty(v).extent != ty.extent {
        v = emit(g, Op::Expand(ty.extent), &[v]);
    }
    v
}

/// What an op on these operands equals, if that is simpler.
fn rule(g: &mut Numbered, op: &Op, x: &[Value]) -> Option<Value> {
    if x.is_empty() {
        return None;
    }
    constants::fold(g, op, x).or_else(|| narrower_rows(g, op, x)).or_else(|| narrower_features(g, op, x)).or_else(
        || match op {
            Op::Unary(u) => unary(g, *u, x[0]),
            Op::Binary(b) => arithmetic(g, *b, x[0], x[1]).or_else(|| in_order(g, *b, x[0], x[1])),
            Op::Select => select(g, x),
            Op::DotTn => fewer_rows(g, x),
            _ => views::rule(g, op, x),
        },
    )
}

/// A rowwise op commutes with the repetition of rows: it is computed on the fewer ones.
fn narrower_rows(g: &mut Numbered, op: &Op, x: &[Value]) -> Option<Value> {
    let repeated = |v: &Value| matches!(g.op(*v), Op::Expand(_));
    if !is_rowwise(op) || !x.iter().any(repeated) {
        return None;
    }
    let ty = type_of(g, op, x);
    let few: Vec<Value> = x.iter().map(|v| if repeated(v) { g.operands(*v)[0] } else { *v }).collect();
    let v = emit(g, op.clone(), &few);
    Some(widened(g, v, &ty))
}

/// A product over rows, one side of which is the same for many of them, multiplies the sum of the other side's:
/// `Σ_t Σ_b a[b]ᵀ·y[t, b] = Σ_b a[b]ᵀ·(Σ_t y[t, b])`. Concatenations are taken apart before: see `split`.
fn fewer_rows(g: &mut Numbered, x: &[Value]) -> Option<Value> {
    let extent = x.iter().map(|&v| g.ty(v).extent).max()?;
    for (i, other) in [(0, 1), (1, 0)] {
        let few = if matches!(g.op(x[i]), Op::Expand(_)) { g.operands(x[i])[0] } else { x[i] };
        let rows = g.ty(few).extent;
        if rows < extent && g.ty(x[other]).extent == extent && !matches!(g.op(x[other]), Op::Concat(_)) {
            let mut y = [few; 2];
            y[other] = emit(g, Op::SumRows(rows), &[x[other]]);
            return Some(emit(g, Op::DotTn, &y));
        }
    }
    None
}

/// A pointwise op needs no constant or repeated scalar written out over the features of another operand, and it is
/// computed before a broadcast that all its operands go through.
fn narrower_features(g: &mut Numbered, op: &Op, x: &[Value]) -> Option<Value> {
    // Integers are chosen as they are.
    if !op.is_pointwise() || x[1..].iter().any(|&v| !g.is_float(v)) {
        return None;
    }
    let ty = type_of(g, op, x);
    let mut y = x.to_vec();
    for i in 0..x.len() {
        let scalar = match g.op(x[i]) {
            Op::Constant(c) if *g.ty(x[i]) != Type::float(Extent::Shared, ()) => g.scalar(*c),
            Op::Broadcast(_) if g.ty(g.operands(x[i])[0]).shape.len() == 1 => {
                let one = g.operands(x[i])[0];
                emit(g, Op::Reshape(Shape::scalar()), &[one])
            }
            _ => continue,
        };
        let whole = std::mem::replace(&mut y[i], scalar);
        if type_of(g, op, &y) != ty {
            y[i] = whole;
        }
    }
    if y != x {
        return Some(emit(g, op.clone(), &y));
    }
    let small = x.iter().find_map(|&v| match g.op(v) {
        Op::Broadcast(_) => Some(g.ty(g.operands(v)[0]).shape.clone()),
        _ => None,
    })?;
    for v in &mut y {
        match g.op(*v) {
            Op::Broadcast(_) if g.ty(g.operands(*v)[0]).shape == small => *v = g.operands(*v)[0],
            _ if g.ty(*v).shape.rank() == 0 => {}
            _ => return None,
        }
    }
    let v = emit(g, op.clone(), &y);
    Some(emit(g, Op::Broadcast(ty.shape), &[v]))
}

/// The operand of a negation, which may be seen in another shape.
fn negated(g: &mut Numbered, v: Value) -> Option<Value> {
    match g.op(v).clone() {
        Op::Unary(Unary::Neg) => Some(g.operands(v)[0]),
        op @ (Op::Broadcast(_) | Op::Reshape(_)) => {
            let small = g.operands(v)[0];
            let small = matches!(g.op(small), Op::Unary(Unary::Neg)).then(|| g.operands(small)[0])?;
            Some(emit(g, op, &[small]))
        }
        _ => None,
    }
}

fn unary(g: &mut Numbered, op: Unary, x: Value) -> Option<Value> {
    match op {
        Unary::Neg => match g.op(x) {
            Op::Unary(Unary::Neg) => Some(g.operands(x)[0]),
            Op::Binary(Binary::Sub) => {
                let (a, b) = (g.operands(x)[0], g.operands(x)[1]);
                Some(binary(g, Binary::Sub, b, a))
            }
            Op::Binary(Binary::Mul) => {
                let (a, b) = (g.operands(x)[0], g.operands(x)[1]);
                let factor = g.number(b)?;
                let factor = g.constant(-factor, g.ty(b).clone());
                Some(binary(g, Binary::Mul, a, factor))
            }
            _ => None,
        },
        Unary::Powi(0) => {
            let ty = g.ty(x).clone();
            Some(g.constant(1.0, ty))
        }
        Unary::Powi(1) => Some(x),
        Unary::Powi(2) => Some(binary(g, Binary::Mul, x, x)),
        _ => None,
    }
}

fn arithmetic(g: &mut Numbered, op: Binary, x: Value, y: Value) -> Option<Value> {
    let ty = type_of(g, &Op::Binary(op), &[x, y]);
    let (a, b) = (g.number(x), g.number(y));
    let (minus_x, minus_y) = (negated(g, x), negated(g, y));
    match op {
        Binary::Add => match (minus_x, minus_y) {
            _ if a == Some(0.0) => Some(widened(g, y, &ty)),
            _ if b == Some(0.0) => Some(widened(g, x, &ty)),
            (_, Some(y)) => Some(binary(g, Binary::Sub, x, y)),
            (Some(x), _) => Some(binary(g, Binary::Sub, y, x)),
            _ => pads::add(g, x, y).map(|v| widened(g, v, &ty)),
        },
        Binary::Sub if b == Some(0.0) => Some(widened(g, x, &ty)),
        Binary::Sub if a == Some(0.0) => {
            let v = emit(g, Op::Unary(Unary::Neg), &[y]);
            Some(widened(g, v, &ty))
        }
        Binary::Sub => minus_y.map(|y| binary(g, Binary::Add, x, y)),
        // The constant factor stands on the right, and there is one of them.
        Binary::Mul if a.is_some() => Some(binary(g, Binary::Mul, y, x)),
        Binary::Mul if b == Some(1.0) => Some(widened(g, x, &ty)),
        Binary::Mul if b == Some(-1.0) => {
            let v = emit(g, Op::Unary(Unary::Neg), &[x]);
            Some(widened(g, v, &ty))
        }
        Binary::Mul if b.is_some() && matches!(g.op(x), Op::Binary(Binary::Mul)) => {
            let (inner, factor) = (g.operands(x)[0], g.operands(x)[1]);
            g.number(factor)?;
            let factor = binary(g, Binary::Mul, factor, y);
            Some(binary(g, Binary::Mul, inner, factor))
        }
        Binary::Div if b == Some(1.0) => Some(widened(g, x, &ty)),
        Binary::Div if b == Some(-1.0) => {
            let v = emit(g, Op::Unary(Unary::Neg), &[x]);
            Some(widened(g, v, &ty))
        }
        // A sign goes outwards, where it meets a sum.
        Binary::Mul | Binary::Div => {
            let (x, y) = match (minus_x, minus_y) {
                (Some(a), Some(b)) => return Some(binary(g, op, a, b)),
                (Some(a), None) => match (b, op) {
                    (Some(factor), Binary::Mul) => {
                        let factor = g.constant(-factor, g.ty(y).clone());
                        return Some(binary(g, op, a, factor));
                    }
                    _ => (a, y),
                },
                (None, Some(b)) => (x, b),
                (None, None) => return None,
            };
            let v = binary(g, op, x, y);
            Some(emit(g, Op::Unary(Unary::Neg), &[v]))
        }
        Binary::Pow if b == Some(1.0) => Some(widened(g, x, &ty)),
        Binary::Pow if b == Some(2.0) && *g.ty(x) == ty => Some(binary(g, Binary::Mul, x, x)),
        _ => None,
    }
}

/// Sums and products have their wider, larger, computed operand first, and a sequence before a state: two
/// spellings of a cell become one.
fn in_order(g: &mut Numbered, op: Binary, x: Value, y: Value) -> Option<Value> {
    let rank = |v: Value| {
        let made = match g.op(v) {
            Op::Carry(_) => 1,
            Op::Each(_) => 2,
            Op::Parameter(_) | Op::Input(_) | Op::Capture(_) | Op::Constant(_) => 0,
            _ => 3,
        };
        (g.number(v).is_none(), g.ty(v).extent, g.ty(v).shape.len(), made)
    };
    let swap = matches!(op, Binary::Add | Binary::Mul) && rank(x) < rank(y);
    swap.then(|| g.add(Op::Binary(op), &[y, x]))
}

fn select(g: &mut Numbered, x: &[Value]) -> Option<Value> {
    let ty = type_of(g, &Op::Select, x);
    let branch = match g.number(x[0]) {
        Some(mask) => x[if mask != 0.0 { 1 } else { 2 }],
        None if x[1] == x[2] => x[1],
        None => return None,
    };
    Some(widened(g, branch, &ty))
}

/// Whether a value is zero everywhere.
pub fn is_zero(g: &Numbered, v: Value) -> bool {
    g.number(v) == Some(0.0)
}

/// Evaluates a pointwise op on numbers.
pub fn evaluate(op: &Op, x: &[f64]) -> Option<f64> {
    let Eval::Pointwise(f) = op.row().eval else { return None };
    let x: Vec<_> = x.iter().map(|&x| crate::ir::dual::Dual::new(x)).collect();
    Some(f(op, &x).re)
}
