//! In a loop, the terms of a sum that are known before the loop are summed first.
//!
//! `(x·W_x + h·W_h) + b` becomes `h·W_h + (x·W_x + b)`: the bracket needs no state, so it is computed for all steps
//! before the loop, and one sequence is read in place of two values. Before: any tree of additions and
//! subtractions. After: at most one term of a sum that depends on a state does not.

use super::algebra::binary;
use super::classes::{Class, classes};
use super::rebuild::{Numbered, Rewrite, Site, rewrite};
use crate::ir::{Binary, Graph, Op, Program, Scan, Value};

/// Gathers the terms of sums by whether they can be known before the loop.
pub fn gather_sums(program: &Program) -> Program {
    rewrite(program, &Gather)
}

struct Gather;

struct Facts {
    classes: Vec<Class>,
    /// Sums that are nothing but a term of another sum.
    link: Vec<bool>,
}

fn sign(op: &Op) -> Option<bool> {
    match op {
        Op::Binary(Binary::Add) => Some(false),
        Op::Binary(Binary::Sub) => Some(true),
        _ => None,
    }
}

impl Rewrite for Gather {
    type Facts = Option<Facts>;

    fn facts(&self, graph: &Graph, roots: &[Value], scan: Option<&Scan>) -> Option<Facts> {
        let classes = classes(scan?);
        let needed = graph.reachable(roots.iter().copied());
        let mut link: Vec<bool> = graph
            .values()
            .map(|v| {
                let within = sign(graph.op(v)).is_some() && classes[v.index()] == Class::Within;
                let users = graph.users(v);
                let mut users = users.iter().filter(|u| needed[u.index()]);
                let only = (users.next(), users.next());
                within && matches!(only, (Some(u), None) if sign(graph.op(*u)).is_some())
            })
            .collect();
        roots.iter().for_each(|r| link[r.index()] = false);
        Some(Facts { classes, link })
    }

    fn node(&self, site: Site<Self::Facts>, op: &Op, _: &[Value]) -> Option<Value> {
        sign(op)?;
        let facts = site.facts.as_ref()?;
        if facts.classes[site.value.index()] != Class::Within || facts.link[site.value.index()] {
            return None;
        }
        let terms = flatten(site.old, facts, site.value);
        let (inside, outside): (Vec<_>, Vec<_>) =
            terms.into_iter().partition(|(v, _)| facts.classes[v.index()] == Class::Within);
        if outside.len() < 2 {
            return None;
        }
        let new = |terms: Vec<(Value, bool)>| {
            let at = |(v, minus): (Value, bool)| (site.map[v.index()].expect("operands come first"), minus);
            terms.into_iter().map(at).collect::<Vec<_>>()
        };
        let outside = sum(site.g, &new(outside));
        let (whole, minus) = sum(site.g, &[new(inside), vec![outside]].concat());
        assert!(!minus, "the first term of a tree of sums and differences is positive");
        Some(whole)
    }
}

/// The terms of a sum with their signs, from left to right, through sums that are only terms. A sum may be as deep as the
/// graph is long, so the walk keeps a list of its own.
fn flatten(old: &Graph, facts: &Facts, v: Value) -> Vec<(Value, bool)> {
    let mut terms = Vec::new();
    // What is yet to be looked at, the next one last; whether it is a sum to go through.
    let mut open = vec![(v, false, true)];
    while let Some((v, minus, through)) = open.pop() {
        if !through {
            terms.push((v, minus));
            continue;
        }
        let second = sign(old.op(v)).expect("only sums are flattened");
        let operands = old.operands(v).iter().zip([false, second]).rev();
        open.extend(operands.map(|(&o, flip)| (o, minus ^ flip, facts.link[o.index()])));
    }
    terms
}

/// The sum of terms up to its sign: minus if all are negative.
fn sum(g: &mut Numbered, terms: &[(Value, bool)]) -> (Value, bool) {
    let minus = terms.iter().all(|(_, minus)| *minus);
    let first = terms.iter().position(|(_, m)| *m == minus).expect("there is a term");
    let mut sum = terms[first].0;
    for (i, &(v, m)) in terms.iter().enumerate() {
        if i != first {
            sum = binary(g, if m == minus { Binary::Add } else { Binary::Sub }, sum, v);
        }
    }
    (sum, minus)
}
