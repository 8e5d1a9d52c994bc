//! Products over concatenations are sums of products: `[a; b]·W = a·W_a + b·W_b`.
//!
//! Written as one product, the input's part of a gate could not leave the loop, since the state's part is on the
//! recurrence. After this pass no `dot` has a concatenation (or a pad) on its left, no `dot.tn` has one on its
//! left, and a `dot.nt` whose result is only cut up is computed piece by piece. A concatenation on the right of
//! `dot.tn` and on the left of `dot.nt` stays: there it is the gates side by side, which is one wide product.

use super::algebra::{binary, emit, is_zero};
use super::pads;
use super::rebuild::{Numbered, Rewrite, Site, rewrite};
use super::slices::{Range, requests};
use crate::ir::{Binary, Graph, Op, Program, Scan, Shape, Value};

/// Splits products whose left side is a concatenation.
pub fn split_products(program: &Program) -> Program {
    rewrite(program, &Split)
}

struct Split;

impl Rewrite for Split {
    type Facts = Vec<Option<Vec<Range>>>;

    /// Which slices are asked of each `dot.nt`, if nothing else is.
    fn facts(&self, graph: &Graph, roots: &[Value], _: Option<&Scan>) -> Self::Facts {
        requests(graph, roots, |v| matches!(graph.op(v), Op::DotNt))
    }

    fn node(&self, site: Site<Self::Facts>, op: &Op, operands: &[Value]) -> Option<Value> {
        let (g, &x) = (site.g, operands.first()?);
        match op {
            Op::Dot => dot(g, x, operands[1]),
            Op::DotNt => dot_nt(g, x, operands[1]),
            Op::DotTn => dot_tn(g, x, operands[1]),
            &Op::Slice { axis, start, len } => {
                let product = site.old.operands(site.value)[0];
                site.facts[product.index()].as_ref()?;
                if !matches!(g.op(x), Op::DotNt) || axis + 1 != g.ty(x).shape.rank() {
                    return None;
                }
                let (dz, w) = (g.operands(x)[0], g.operands(x)[1]);
                let rows = emit(g, Op::Slice { axis: 0, start, len }, &[w]);
                Some(emit(g, Op::DotNt, &[dz, rows]))
            }
            _ => None,
        }
    }
}

/// The parts of a value along its last axis with where each starts; `None` if it is whole. Zeros are left out.
fn parts(g: &Numbered, v: Value) -> Option<Vec<(usize, Value)>> {
    let last = g.ty(v).shape.rank().checked_sub(1)?;
    match *g.op(v) {
        Op::Concat(axis) if axis == last => {
            let mut at = 0;
            let mut parts = Vec::new();
            for &part in g.operands(v) {
                parts.push((at, part));
                at += g.ty(part).shape.last();
            }
            parts.retain(|(_, part)| !is_zero(g, *part));
            Some(parts)
        }
        Op::Pad { axis, before, .. } if axis == last => Some(vec![(before, g.operands(v)[0])]),
        _ => None,
    }
}

fn dot(g: &mut Numbered, x: Value, w: Value) -> Option<Value> {
    let extent = g.ty(x).extent;
    let mut sum: Option<Value> = None;
    for (start, part) in parts(g, x)? {
        let rows = emit(g, Op::Slice { axis: 0, start, len: g.ty(part).shape.last() }, &[w]);
        let product = emit(g, Op::Dot, &[part, rows]);
        sum = Some(sum.map_or(product, |sum| binary(g, Binary::Add, sum, product)));
    }
    let sum = sum?;
    Some(if g.ty(sum).extent == extent { sum } else { emit(g, Op::Expand(extent), &[sum]) })
}

/// Only a pad: its zeros need no product.
fn dot_nt(g: &mut Numbered, dz: Value, w: Value) -> Option<Value> {
    if !matches!(g.op(dz), Op::Pad { .. }) {
        return None;
    }
    let (start, part) = *parts(g, dz)?.first()?;
    let columns = emit(g, Op::Slice { axis: 1, start, len: g.ty(part).shape.last() }, &[w]);
    Some(emit(g, Op::DotNt, &[part, columns]))
}

/// Σ over rows, so each part must keep the rows that the whole had.
fn dot_tn(g: &mut Numbered, x: Value, y: Value) -> Option<Value> {
    let rows = g.ty(x).extent.join(g.ty(y).extent)?;
    let whole_rows = |g: &mut Numbered, part: Value, other: Value| {
        if g.ty(part).extent.join(g.ty(other).extent) == Some(rows) { part } else { emit(g, Op::Expand(rows), &[part]) }
    };
    if let Some(parts) = parts(g, x) {
        let mut blocks = Vec::new();
        for (before, part) in parts {
            let part = whole_rows(g, part, y);
            let block = emit(g, Op::DotTn, &[part, y]);
            blocks.push((before, g.ty(block).shape.0[0], block));
        }
        let shape = Shape(vec![g.ty(x).shape.last(), g.ty(y).shape.last()]);
        return (!blocks.is_empty()).then(|| pads::tiled(g, &shape, 0, &blocks));
    }
    if !matches!(g.op(y), Op::Pad { .. }) {
        return None;
    }
    let n = g.ty(y).shape.last();
    let (before, part) = *parts(g, y)?.first()?;
    let part = whole_rows(g, part, x);
    let after = n - before - g.ty(part).shape.last();
    let block = emit(g, Op::DotTn, &[x, part]);
    Some(emit(g, Op::Pad { axis: 1, before, after }, &[block]))
}
