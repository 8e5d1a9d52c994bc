//! What only matters to differentiation, once that is done: `stop_gradient` is the value itself, and norms, which have
//! derivatives of their own ([`crate::ir::op::Norm`]), are sums, differences and a division a row, and small products within a
//! row are pointwise work and sums ([`matmul`](super::matmul)). A program that has
//! not been [made for training](super::mode) is not in training.

use super::algebra::emit;
use super::matmul;
use super::rebuild::{Numbered, Rewrite, Site, rewrite};
use crate::ir::op::Norm;
use crate::ir::{Binary, Graph, Op, Program, Scan, Unary, Value};

/// Drops `stop_gradient` and writes norms out.
pub fn write_out(program: &Program) -> Program {
    rewrite(program, &WriteOut)
}

struct WriteOut;

impl Rewrite for WriteOut {
    type Facts = ();
    fn facts(&self, _: &Graph, _: &[Value], _: Option<&Scan>) {}

    fn node(&self, site: Site<()>, op: &Op, operands: &[Value]) -> Option<Value> {
        if let Op::Training = op {
            return Some(site.g.scalar(0.0));
        }
        let (g, x) = (site.g, *operands.first()?);
        match *op {
            Op::StopGradient => Some(x),
            Op::MatMul { ta, tb } => matmul::written_out(g, ta, tb, x, operands[1]),
            Op::Norm(norm) => {
                let (centred, divisor) = parts(g, norm, x);
                // One division a row instead of one an element.
                let one = g.scalar(1.0);
                let scale = emit(g, Op::Binary(Binary::Div), &[one, divisor]);
                let scale = emit(g, Op::Broadcast(g.ty(x).shape.clone()), &[scale]);
                Some(emit(g, Op::Binary(Binary::Mul), &[centred, scale]))
            }
            Op::Divisor(norm) => Some(parts(g, norm, x).1),
            _ => None,
        }
    }
}

/// What is divided, x − μ or x, and the divisor √(mean of its squares + ε).
fn parts(g: &mut Numbered, norm: Norm, x: Value) -> (Value, Value) {
    let shape = g.ty(x).shape.clone();
    let small = shape.with(shape.rank() - 1, 1);
    let mean = |g: &mut Numbered, v: Value| {
        let (sum, n) = (emit(g, Op::Sum(small.clone()), &[v]), g.scalar(shape.last() as f64));
        emit(g, Op::Binary(Binary::Div), &[sum, n])
    };
    let mut centred = x;
    if norm.centred {
        let mean = mean(g, x);
        let mean = emit(g, Op::Broadcast(shape.clone()), &[mean]);
        centred = emit(g, Op::Binary(Binary::Sub), &[x, mean]);
    }
    let squares = emit(g, Op::Binary(Binary::Mul), &[centred, centred]);
    let (square, epsilon) = (mean(g, squares), g.scalar(norm.epsilon));
    let square = emit(g, Op::Binary(Binary::Add), &[square, epsilon]);
    (centred, emit(g, Op::Unary(Unary::Sqrt), &[square]))
}
