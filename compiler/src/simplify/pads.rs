//! The adjoint of a split comes as a sum of pads, one for each part: here it becomes one concatenation.
//!
//! Both sides of a sum are read as segments along one axis, zero or not. Where at most one side is not zero, the
//! sum has that one's segment; where both have a segment at the same place, their sum. So disjoint pads that tile
//! the axis end as a plain concatenation, and what they do not cover as parts that are constant zero.

use std::collections::BTreeMap;

use super::algebra::{binary, emit, widened};
use super::rebuild::Numbered;
use crate::ir::{Binary, Graph, Op, Shape, Type, Value};

/// A segment that is not zero: where it starts, how long it is, and what it holds.
pub type Segment = (usize, usize, Value);

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
    let shape = g.ty(x).shape.clone();
    Some(tiled(g, &shape, axis, &merged))
}

/// Segments that do not meet, in order, with zeros between them.
pub fn tiled(g: &mut Numbered, shape: &Shape, axis: usize, segments: &[Segment]) -> Value {
    let mut parts = Vec::new();
    let mut at = 0;
    let ends = segments.iter().map(|&(start, len, v)| (start, len, Some(v))).chain([(shape.0[axis], 0, None)]);
    for (start, len, v) in ends {
        if start > at {
            let zeros = Type::float(crate::ir::Extent::Shared, shape.with(axis, start - at));
            parts.push(g.constant(0.0, zeros));
        }
        parts.extend(v);
        at = start + len;
    }
    emit(g, Op::Concat(axis), &parts)
}

/// Sums of many terms that have zeros, found in the graph before it is rewritten. Put together term by term, each of n
/// would be a concatenation of all terms before it; so such a sum is put together at once, where it ends.
pub struct LongSums {
    /// Whether a value is nothing but a term of such a sum.
    inner: Vec<bool>,
    /// Whether it is the end of one.
    ends: Vec<bool>,
}

/// Terms with zeros from which on a sum is long.
const LONG: usize = 4;

impl LongSums {
    pub fn find(graph: &Graph, roots: &[Value]) -> LongSums {
        let none = || vec![false; graph.len()];
        let mut this = LongSums { inner: none(), ends: none() };
        let needed = graph.reachable(roots.iter().copied());
        // How many users each value has, and whether the last of them is a sum.
        let mut users = vec![(0, false); graph.len()];
        roots.iter().for_each(|root| users[root.index()] = (2, false));
        let is_sum = |v: Value| matches!(graph.op(v), Op::Binary(Binary::Add)) && graph.ty(v).shape.rank() > 0;
        for v in graph.values().filter(|v| needed[v.index()]) {
            for o in graph.operands(v) {
                let (count, _) = users[o.index()];
                users[o.index()] = (count + 1, is_sum(v));
            }
        }
        let has_zeros = |v: Value| match *graph.op(v) {
            Op::Pad { .. } => true,
            Op::Concat(_) => graph.operands(v).iter().any(|&part| matches!(graph.op(part), Op::Constant(0.0))),
            _ => false,
        };
        // Terms with zeros of the sum that ends in each value.
        let mut terms = vec![0usize; graph.len()];
        for v in graph.values().filter(|&v| needed[v.index()] && is_sum(v)) {
            for &o in graph.operands(v) {
                let goes_on = is_sum(o) && users[o.index()] == (1, true);
                terms[v.index()] += if goes_on { terms[o.index()] } else { usize::from(has_zeros(o)) };
            }
        }
        for v in graph.values().rev().filter(|&v| needed[v.index()] && is_sum(v)) {
            this.ends[v.index()] = !this.inner[v.index()] && terms[v.index()] >= LONG;
            if this.ends[v.index()] || this.inner[v.index()] {
                for &o in graph.operands(v) {
                    this.inner[o.index()] = is_sum(o) && users[o.index()] == (1, true);
                }
            }
        }
        this
    }

    /// What to put for a sum with these new operands: of one that goes on, anything of its type.
    pub fn node(
        &self,
        g: &mut Numbered,
        old: &Graph,
        v: Value,
        operands: &[Value],
        map: &[Option<Value>],
    ) -> Option<Value> {
        if self.inner[v.index()] {
            return Some(g.add(Op::Binary(Binary::Add), operands));
        }
        if !self.ends[v.index()] {
            return None;
        }
        // The terms from left to right; a sum may be as deep as the graph is long.
        let (mut terms, mut open) = (Vec::new(), vec![v]);
        while let Some(v) = open.pop() {
            for &o in old.operands(v).iter().rev() {
                open.push(o);
            }
            while let Some(&o) = open.last().filter(|o| !self.inner[o.index()]) {
                open.pop();
                terms.push(map[o.index()].expect("operands come before their users"));
            }
        }
        let ty = old.ty(v);
        let sum = sum_of(g, &terms);
        Some(widened(g, sum, ty))
    }
}

/// Concatenations in the making, of segments along one axis that do not meet, by where they start.
struct Layer {
    axis: usize,
    shape: Shape,
    segments: BTreeMap<usize, (usize, Value)>,
}

impl Layer {
    /// Whether a segment is at the place of one that is there, or meets none.
    fn takes(&self, start: usize, len: usize) -> bool {
        let before = self.segments.range(..start).next_back().is_none_or(|(at, (n, _))| at + n <= start);
        match self.segments.range(start..).next() {
            Some((&at, &(n, _))) if at == start => n == len,
            Some((&at, _)) => before && start + len <= at,
            None => before,
        }
    }
}

/// A sum of many terms: those with zeros as few concatenations, behind all others.
fn sum_of(g: &mut Numbered, terms: &[Value]) -> Value {
    /// Layers that are tried: where all terms meet, there would be one for each.
    const TRIED: usize = 4;
    let mut layers: Vec<Layer> = Vec::new();
    let mut sum: Option<Value> = None;
    let add =
        |g: &mut Numbered, sum: Option<Value>, v: Value| Some(sum.map_or(v, |sum| binary(g, Binary::Add, sum, v)));
    for &v in terms {
        let axis = zeros_along(g, v);
        let Some((axis, own)) = axis.and_then(|axis| Some((axis, segments(g, v, axis)?))) else {
            sum = add(g, sum, v);
            continue;
        };
        let shape = g.ty(v).shape.clone();
        let fits = |layer: &Layer| {
            layer.axis == axis && layer.shape == shape && own.iter().all(|&(start, len, _)| layer.takes(start, len))
        };
        let at = match layers.iter().rev().take(TRIED).position(fits) {
            Some(back) => layers.len() - 1 - back,
            None => {
                layers.push(Layer { axis, shape, segments: BTreeMap::new() });
                layers.len() - 1
            }
        };
        for (start, len, part) in own {
            let part = match layers[at].segments.get(&start) {
                Some(&(_, other)) => binary(g, Binary::Add, other.min(part), other.max(part)),
                None => part,
            };
            layers[at].segments.insert(start, (len, part));
        }
    }
    for layer in layers {
        let segments: Vec<Segment> = layer.segments.into_iter().map(|(start, (len, v))| (start, len, v)).collect();
        let whole = tiled(g, &layer.shape, layer.axis, &segments);
        sum = add(g, sum, whole);
    }
    sum.expect("a sum has terms")
}
