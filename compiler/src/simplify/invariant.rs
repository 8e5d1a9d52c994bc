//! What no step of a loop changes is computed once, before the loop.
//!
//! Before: bodies may compute on captures. After: a value that depends on captures only is itself a capture.
//! Constants and row counts stay inside: they cost nothing there. Run before differentiation, this makes a slice of
//! a weight a capture of its own, so that its gradient is one sum of its own size.

use super::classes::{Class, classes};
use super::rebuild::{Body, Numbered, Results, Rewrite, Used, rewrite, walk};
use crate::ir::{Graph, Op, Program, Scan, Value};

/// Moves what depends on captures only in front of its loop.
pub fn invariant(program: &Program) -> Program {
    rewrite(program, &Invariant)
}

struct Invariant;

impl Rewrite for Invariant {
    type Facts = ();
    fn facts(&self, _: &Graph, _: &[Value], _: Option<&Scan>) {}

    fn scan(&self, g: &mut Numbered, scan: &Scan, operands: &[Value], used: &Used) -> Results {
        let body = &scan.body;
        let classes = classes(scan);
        let mut read = vec![false; body.len()];
        for v in scan.roots() {
            read[v.index()] = true;
        }
        for v in body.values().filter(|v| classes[v.index()] != Class::Invariant) {
            body.operands(v).iter().for_each(|o| read[o.index()] = true);
        }
        let mut new = Body::like(scan);
        let mut seeds = new.copy_ports(scan, operands);
        let mut outside: Vec<Option<Value>> = vec![None; body.len()];
        let needed = body.reachable(scan.roots());
        for v in body.values().filter(|v| needed[v.index()] && classes[v.index()] == Class::Invariant) {
            let node = body.node(v);
            let value = match &node.op {
                Op::Capture(i) => operands[*i],
                Op::Constant(x) => g.constant(*x, node.ty.clone()),
                op => {
                    let at: Vec<Value> =
                        node.operands.iter().map(|o| outside[o.index()].expect("operands come first")).collect();
                    g.add(op.clone(), &at)
                }
            };
            outside[v.index()] = Some(value);
            if read[v.index()] && !node.op.is_leaf() {
                seeds[v.index()] = Some(new.capture(name(scan, v), value, &node.ty));
            }
        }
        let map = walk(self, body, &scan.roots(), Some(scan), seeds, &mut new.g);
        new.copy_results(scan, &map, used, g)
    }
}

/// What a value that no step changes is called: as the capture that it is first made of.
fn name(scan: &Scan, v: Value) -> &str {
    match (scan.body.op(v), scan.body.operands(v).first()) {
        (Op::Capture(i), _) => &scan.captures[*i].name,
        (_, Some(&operand)) => name(scan, operand),
        (_, None) => "fixed",
    }
}
