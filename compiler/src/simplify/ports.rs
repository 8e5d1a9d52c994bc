//! What a scan reads, carries and gives in vain.
//!
//! Before: any scan. After:
//! - every yield, sum and final value has a reader, every capture and sequence is read by a node of the body, and
//!   a state is needed by a result other than its own next value;
//! - no value is captured twice, no sequence read twice, no value yielded or summed twice;
//! - a state that never changes is a capture;
//! - what comes from outside unchanged does not pass through the loop: a yield of a sequence is that sequence, a
//!   repeated row read as a sequence is a capture, a captured constant is a constant.

use super::rebuild::{Body, Numbered, Results, Rewrite, Used, rewrite, walk};
use crate::ir::scan::Port;
use crate::ir::{Binary, Extent, Graph, Op, Program, Scan, Value};

/// Drops and merges ports of scans.
pub fn ports(program: &Program) -> Program {
    rewrite(program, &Ports)
}

struct Ports;

/// Which carries a used result needs, through other carries or not.
fn live_carries(scan: &Scan, used: &Used) -> Vec<bool> {
    let mut live = used.finals.clone();
    let mut roots = used.roots(scan);
    loop {
        let nexts = scan.carries.iter().zip(&live).filter(|(_, l)| **l).map(|(c, _)| c.next);
        let needed = scan.body.reachable(roots.iter().copied().chain(nexts).collect::<Vec<_>>());
        let more: Vec<bool> = scan.carries.iter().zip(&live).map(|(c, l)| *l || needed[c.value.index()]).collect();
        if more == live {
            return live;
        }
        live = more;
        roots = used.roots(scan);
    }
}

impl Rewrite for Ports {
    type Facts = ();
    fn facts(&self, _: &Graph, _: &[Value], _: Option<&Scan>) {}

    fn scan(&self, g: &mut Numbered, scan: &Scan, operands: &[Value], used: &Used) -> Results {
        let (captures, each, initial) = scan.split_operands(operands);
        let old = &scan.body;
        let time = Extent::Time(scan.axis);
        let live = live_carries(scan, used);
        let fixed = |i: usize| scan.carries[i].next == scan.carries[i].value;

        let mut roots = used.roots(scan);
        roots.extend((0..live.len()).filter(|&i| live[i]).map(|i| scan.carries[i].next));
        let needed = old.reachable(roots.iter().copied());

        // The leaves: states in their order, the others as they are read, so that order tells nothing of history.
        let first_reader = |v: Value| old.users(v).into_iter().find(|u| needed[u.index()]);
        let by_reader = |ports: &[Port], operands: &[Value]| {
            let mut read: Vec<(Port, Value)> = ports.iter().cloned().zip(operands.iter().copied()).collect();
            read.retain(|(port, _)| needed[port.value.index()]);
            read.sort_by_key(|(port, _)| first_reader(port.value).map_or(old.len(), Value::index));
            read
        };
        let mut body = Body::like(scan);
        let mut seeds: Vec<Option<Value>> = vec![None; old.len()];
        for (port, v) in by_reader(&scan.captures, captures) {
            let ty = old.ty(port.value);
            seeds[port.value.index()] = Some(match g.number(v) {
                Some(x) => body.g.constant(x, ty.clone()),
                None => body.capture(&port.name, v, ty),
            });
        }
        for (port, v) in by_reader(&scan.each, each) {
            let ty = old.ty(port.value);
            seeds[port.value.index()] = Some(match g.op(v) {
                Op::Constant(x) => body.g.constant(*x, ty.clone()),
                Op::Expand(_) => {
                    let row = g.operands(v)[0];
                    let leaf = body.capture(&port.name, row, g.ty(row));
                    body.g.spread(leaf, ty)
                }
                _ => body.each(&port.name, v, ty),
            });
        }
        let mut place: Vec<Option<usize>> = vec![None; live.len()];
        for (i, carry) in scan.carries.iter().enumerate().filter(|(i, _)| live[*i]) {
            let ty = old.ty(carry.value);
            seeds[carry.value.index()] = Some(match (fixed(i), g.number(initial[i])) {
                (true, Some(x)) => body.g.constant(x, ty.clone()),
                (true, None) => body.capture(&carry.name, initial[i], ty),
                (false, _) => {
                    place[i] = Some(place.iter().flatten().count());
                    body.carry(&carry.name, initial[i], ty)
                }
            });
        }
        let map = walk(self, old, &roots, Some(scan), seeds, &mut body.g);
        let new = |v: Value| map[v.index()].expect("a walk maps all roots");
        for (i, carry) in scan.carries.iter().enumerate() {
            if let Some(at) = place[i] {
                body.next(at, new(carry.next));
            }
        }

        // What the loop does not make is taken from outside.
        let mut results = Results {
            yields: vec![None; used.yields.len()],
            finals: vec![None; used.finals.len()],
            totals: vec![None; used.totals.len()],
        };
        let unchanging = |g: &mut Numbered, v: Value| match old.op(v) {
            Op::Capture(i) => Some(captures[*i]),
            Op::Constant(x) => Some(g.constant(*x, old.ty(v).clone())),
            Op::Carry(i) if fixed(*i) => Some(initial[*i]),
            _ => None,
        };
        let mut from_yields = vec![None; used.yields.len()];
        for (i, port) in scan.yields.iter().enumerate().filter(|(i, _)| used.yields[*i]) {
            if let Op::Each(j) = old.op(port.value) {
                results.yields[i] = Some(each[*j]);
            } else if let Some(v) = unchanging(g, port.value) {
                results.yields[i] = Some(match g.number(v) {
                    Some(x) => g.constant(x, old.ty(port.value).at(time)),
                    None => g.add(Op::Expand(time), &[v]),
                });
            } else {
                from_yields[i] = Some(body.yielded(&port.name, new(port.value)));
            }
        }
        let mut from_totals = vec![None; used.totals.len()];
        for (i, port) in scan.sums.iter().enumerate().filter(|(i, _)| used.totals[*i]) {
            if let Some(v) = unchanging(g, port.value) {
                let steps = g.rows_for_each(time, Extent::Batch);
                results.totals[i] = Some(g.add(Op::Binary(Binary::Mul), &[v, steps]));
            } else {
                from_totals[i] = Some(body.total(&port.name, new(port.value)));
            }
        }
        for (i, carry) in scan.carries.iter().enumerate().filter(|(i, _)| used.finals[*i]) {
            results.finals[i] = match old.op(carry.next) {
                Op::Each(j) if !scan.reverse => Some(g.add(Op::Last, &[each[*j]])),
                _ => unchanging(g, carry.next),
            };
        }
        let from_finals: Vec<Option<usize>> = (0..used.finals.len())
            .map(|i| if used.finals[i] && results.finals[i].is_none() { place[i] } else { None })
            .collect();
        if [&from_yields, &from_totals, &from_finals].iter().all(|from| from.iter().all(Option::is_none)) {
            return results;
        }
        let node = body.place(g);
        let mut take = |to: &mut [Option<Value>], from: Vec<Option<usize>>, op: fn(usize) -> Op| {
            for (to, i) in to.iter_mut().zip(from) {
                if let Some(i) = i {
                    *to = Some(g.result(node, op(i)));
                }
            }
        };
        take(&mut results.yields, from_yields, Op::Yield);
        take(&mut results.finals, from_finals, Op::Final);
        take(&mut results.totals, from_totals, Op::Total);
        results
    }
}
