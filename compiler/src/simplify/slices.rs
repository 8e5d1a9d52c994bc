//! The slice of a pointwise value is the pointwise value of slices.
//!
//! Gates that are written as `split(sigmoid(z))` become one chain for each gate, each on a slice of the product.
//! A pointwise value is taken apart if nothing but disjoint slices is asked of it, directly or through other such
//! values; in a loop only where it depends on the state: what is known before the loop is computed whole, outside.

use std::collections::HashMap;

use super::algebra::emit;
use super::classes::{Class, classes};
use super::rebuild::{Rewrite, Site, rewrite};
use crate::ir::{Graph, Op, Program, Scan, Value};

/// Moves slices through pointwise ops towards products, sequences and leaves.
pub fn distribute_slices(program: &Program) -> Program {
    rewrite(program, &Distribute)
}

/// A slice: axis, start, length.
pub type Range = (usize, usize, usize);

/// For each value that `splits` admits, the disjoint slices that are all that is asked of it.
pub fn requests(graph: &Graph, roots: &[Value], splits: impl Fn(Value) -> bool) -> Vec<Option<Vec<Range>>> {
    let needed = graph.reachable(roots.iter().copied());
    let mut asked: Vec<Option<Vec<Range>>> = vec![Some(Vec::new()); graph.len()];
    for root in roots {
        asked[root.index()] = None;
    }
    for v in graph.values().rev().filter(|v| needed[v.index()]) {
        let disjoint =
            |ranges: &[Range]| ranges.is_sorted_by(|a, b| a.0 == b.0 && a.1 + a.2 <= b.1) && !ranges.is_empty();
        let mine = asked[v.index()].take().map(|mut ranges| {
            ranges.sort_unstable();
            ranges.dedup();
            ranges
        });
        let mine = mine.filter(|ranges| splits(v) && disjoint(ranges));
        for &operand in graph.operands(v) {
            let through = match graph.op(v) {
                &Op::Slice { axis, start, len } => Some(vec![(axis, start, len)]),
                op if op.is_pointwise() && graph.ty(operand).shape.rank() > 0 => mine.clone(),
                _ => None,
            };
            let theirs = &mut asked[operand.index()];
            match (through, &mut *theirs) {
                (Some(ranges), Some(all)) => all.extend(ranges),
                _ => *theirs = None,
            }
        }
        asked[v.index()] = mine;
    }
    asked
}

struct Distribute;

struct Facts {
    /// Which values are taken apart.
    apart: Vec<bool>,
    /// Their parts that have been made.
    parts: HashMap<(Value, Range), Value>,
}

impl Rewrite for Distribute {
    type Facts = Facts;

    fn facts(&self, graph: &Graph, roots: &[Value], scan: Option<&Scan>) -> Facts {
        let classes = scan.map(classes);
        let within = |v: Value| classes.as_ref().is_none_or(|c| c[v.index()] == Class::Within);
        let requests = requests(graph, roots, |v| graph.op(v).is_pointwise() && within(v));
        // Where a slice of a result is all there is to a product, `split_products` takes that apart.
        let apart = graph.values().map(|v| requests[v.index()].is_some()).collect();
        Facts { apart, parts: HashMap::new() }
    }

    fn node(&self, mut site: Site<Facts>, op: &Op, _: &[Value]) -> Option<Value> {
        let &Op::Slice { axis, start, len } = op else { return None };
        let whole = site.old.operands(site.value)[0];
        site.facts.apart[whole.index()].then(|| part(&mut site, whole, (axis, start, len)))
    }
}

/// The slice of an old value.
fn part(site: &mut Site<Facts>, v: Value, range: Range) -> Value {
    if let Some(&part) = site.facts.parts.get(&(v, range)) {
        return part;
    }
    let (axis, start, len) = range;
    let part = if site.facts.apart[v.index()] {
        let node = site.old.node(v);
        let operands: Vec<Value> = node
            .operands
            .iter()
            .map(|&o| match site.old.ty(o).shape.rank() {
                0 => site.map[o.index()].expect("operands come before their users"),
                _ => self::part(site, o, range),
            })
            .collect();
        emit(site.g, node.op.clone(), &operands)
    } else {
        let whole = site.map[v.index()].expect("operands come before their users");
        emit(site.g, Op::Slice { axis, start, len }, &[whole])
    };
    site.facts.parts.insert((v, range), part);
    part
}
