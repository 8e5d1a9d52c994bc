//! Transpose: from cotangents of the results of a linear program to those of what it starts from, node by node from
//! its end.
//!
//! The transpose of a linear scan runs the other way. The cotangent of a yield is read as a sequence, that of a total
//! is a capture, that of a final value the initial value of a state; and the other way round for what comes out. At
//! each step the cotangent of a state's next value is what the later step left, and what arrives at the state itself
//! goes on to the earlier step. Coefficients are read as the linear scan read them.
//!
//! Zeros are not computed with: where no cotangent arrives there is no node.

use super::build::{ScanBuilder, copy_into, flow, flow_back, needed};
use crate::ir::ops::leaves::is_result;
use crate::ir::scan::Scan;
use crate::ir::{Binary, Graph, Op, Value};

/// Adds a contribution; a single one is taken as it is.
pub fn accumulate(graph: &mut Graph, sum: &mut Option<Value>, v: Value) {
    *sum = Some(match *sum {
        None => v,
        Some(sum) => graph.binary(Binary::Add, sum, v),
    });
}

/// Runs the cotangents in `cotangents` back through the linear values, as many as `linear` has marks; adds those that
/// arrive.
pub fn transpose(graph: &mut Graph, linear: &[bool], cotangents: &mut [Option<Value>]) {
    let kept = graph.location;
    let values: Vec<Value> = graph.values().zip(linear).filter(|(_, linear)| **linear).map(|(v, _)| v).collect();
    for v in values.into_iter().rev() {
        graph.location = graph.node(v).location;
        if matches!(graph.op(v), Op::Scan(_)) {
            transpose_scan(graph, v, linear, cotangents);
            continue;
        }
        let Some(ct) = cotangents[v.index()].filter(|_| !is_result(graph.op(v))) else { continue };
        for (i, o) in graph.operands(v).to_vec().into_iter().enumerate() {
            if linear[o.index()] {
                let rule = graph.op(v).row().transpose.unwrap_or_else(|| {
                    panic!("the tangent of an op is linear, but `{}` has no transpose", graph.op(v).name())
                });
                let part = rule(graph, v, i, ct);
                assert_eq!(
                    graph.ty(part),
                    graph.ty(o),
                    "the cotangent of operand {i} of `{}` has its type",
                    graph.op(v).name()
                );
                accumulate(graph, &mut cotangents[o.index()], part);
            }
        }
    }
    graph.location = kept;
}

/// Builds the transpose of the linear scan `v` for the cotangents of its results, and enters those of its operands.
fn transpose_scan(graph: &mut Graph, v: Value, linear: &[bool], cotangents: &mut [Option<Value>]) {
    let Op::Scan(scan) = graph.op(v).clone() else { unreachable!("called for scans") };
    let operands = graph.operands(v).to_vec();
    let (captures, each, initial) = scan.split_operands(&operands);
    let mut yields = vec![None; scan.yields.len()];
    let mut totals = vec![None; scan.sums.len()];
    let mut finals = vec![None; scan.carries.len()];
    for u in graph.users(v) {
        let Some(ct) = cotangents.get(u.index()).copied().flatten() else { continue };
        let slot = match *graph.op(u) {
            Op::Yield(i) => &mut yields[i],
            Op::Total(i) => &mut totals[i],
            Op::Final(i) => &mut finals[i],
            _ => unreachable!("only results read a scan"),
        };
        accumulate(graph, slot, ct);
    }

    // What in the body is linear, and where cotangents arrive.
    let ports = scan.captures.iter().chain(&scan.each).map(|p| p.value);
    let leaves = ports.chain(scan.carries.iter().map(|c| c.value));
    let starts = leaves.zip(&operands).filter(|(_, o)| linear[o.index()]).map(|(leaf, _)| leaf);
    let within = flow(&scan, starts.collect(), |_, _| true);
    let some = |(ct, b): (&Option<Value>, Value)| ct.is_some().then_some(b);
    let roots: Vec<Value> = yields
        .iter()
        .zip(scan.yields.iter().map(|p| p.value))
        .chain(totals.iter().zip(scan.sums.iter().map(|p| p.value)))
        .chain(finals.iter().zip(scan.carries.iter().map(|c| c.next)))
        .filter_map(some)
        .filter(|b| within[b.index()])
        .collect();
    if roots.is_empty() {
        return;
    }
    let arrives = flow_back(&scan, roots, |b, i| within[scan.body.operands(b)[i].index()]);
    let arrives: Vec<bool> = arrives.iter().zip(&within).map(|(a, w)| *a && *w).collect();

    // The cotangents of one step, on a copy of the body, from placeholders for the leaves of the transposed scan.
    let mut joint = scan.body.clone();
    let mut steps = vec![None; joint.len()];
    let mut placed = Vec::new();
    let mut place = |joint: &mut Graph, of: Value, leaf: Value| {
        let placeholder = joint.leaf(Op::Input("cotangent".to_string()), joint.ty(of).clone());
        accumulate(joint, &mut steps[of.index()], placeholder);
        placed.push((placeholder, leaf));
    };
    let mut back = ScanBuilder::new(Scan::new(d(&scan.name), scan.axis, !scan.reverse));
    for (port, ct) in scan.sums.iter().zip(totals).filter(|(p, _)| within[p.value.index()]) {
        if let Some(ct) = ct {
            let leaf = back.capture(&d(&port.name), ct, joint.ty(port.value));
            place(&mut joint, port.value, leaf);
        }
    }
    for (port, ct) in scan.yields.iter().zip(yields).filter(|(p, _)| within[p.value.index()]) {
        if let Some(ct) = ct {
            let leaf = back.each(&d(&port.name), ct, joint.ty(port.value));
            place(&mut joint, port.value, leaf);
        }
    }
    // A next value that is not linear, such as 0, takes no cotangent, but the state before the first step may.
    let mut states = Vec::new();
    for (i, carry) in scan.carries.iter().enumerate() {
        let last = finals[i].filter(|_| within[carry.next.index()]);
        if arrives[carry.value.index()] || last.is_some() {
            let ty = joint.ty(carry.value).clone();
            let start = last.unwrap_or_else(|| graph.constant(0.0, ty.clone()));
            let leaf = back.carry(&d(&carry.name), start, &ty);
            if within[carry.next.index()] {
                place(&mut joint, carry.next, leaf);
            }
            states.push(i);
        }
    }
    transpose(&mut joint, &within, &mut steps);

    // The part of it that is needed, with the coefficients.
    let mut map = vec![None; joint.len()];
    for (placeholder, leaf) in placed {
        map[placeholder.index()] = Some(leaf);
    }
    let outputs = scan.each.iter().zip(each).chain(scan.captures.iter().zip(captures)).map(|(p, _)| p.value);
    let outputs = outputs.filter(|b| arrives[b.index()]);
    let nexts = states.iter().map(|&i| scan.carries[i].value).filter(|b| arrives[b.index()]);
    let roots: Vec<Value> = outputs.chain(nexts).map(|b| steps[b.index()].expect("a cotangent arrives")).collect();
    let reached = needed(&joint, roots.iter().copied(), |b| map[b.index()].is_some());
    for b in scan.body.values().filter(|b| reached[b.index()]) {
        assert!(!within[b.index()], "cotangents do not depend on tangents");
        match *joint.op(b) {
            Op::Capture(i) => map[b.index()] = Some(back.capture(&scan.captures[i].name, captures[i], joint.ty(b))),
            Op::Each(i) => map[b.index()] = Some(back.each(&scan.each[i].name, each[i], joint.ty(b))),
            Op::Carry(_) => panic!("a state of tangents is no coefficient"),
            _ => {}
        }
    }
    copy_into(&mut back.scan.body, &joint, &mut map, roots);

    // Results: what arrived at each leaf, for the operand that it reads.
    let arrived = |b: Value| steps[b.index()].filter(|_| arrives[b.index()]).and_then(|ct| map[ct.index()]);
    let mut results = Vec::new();
    for (state, &i) in states.iter().enumerate() {
        let carry = &scan.carries[i];
        let body = &mut back.scan.body;
        let next = arrived(carry.value);
        back.scan.carries[state].next = next.unwrap_or_else(|| body.constant(0.0, scan.body.ty(carry.value).clone()));
        if next.is_some() && linear[initial[i].index()] {
            results.push((initial[i], Op::Final(state)));
        }
    }
    for (port, &o) in scan.each.iter().zip(each) {
        if let Some(ct) = arrived(port.value) {
            results.push((o, Op::Yield(back.yields(&d(&port.name), ct))));
        }
    }
    for (port, &o) in scan.captures.iter().zip(captures) {
        if let Some(ct) = arrived(port.value) {
            results.push((o, Op::Total(back.sum(&d(&port.name), ct))));
        }
    }
    let node = back.finish(graph);
    for (o, result) in results {
        let ct = graph.scan_result(node, result);
        accumulate(graph, &mut cotangents[o.index()], ct);
    }
}

/// Name of the cotangent of a value, given the value's name or that of its tangent.
fn d(name: &str) -> String {
    format!("d.{}", name.strip_prefix("dot.").unwrap_or(name))
}
