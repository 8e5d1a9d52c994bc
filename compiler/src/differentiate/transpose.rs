//! Transpose: from cotangents of the results of a linear program to those of what it starts from, node by node from
//! its end.
//!
//! The transpose of a linear scan runs the other way. The cotangent of a yield is read as a sequence, that of a total
//! is a capture, that of a final value the initial value of a state; and the other way round for what comes out. At
//! each step the cotangent of a state's next value is what the later step left, and what arrives at the state itself
//! goes on to the earlier step. Coefficients are read as the linear scan read them.
//!
//! Zeros are not computed with: where no cotangent arrives there is no node, and where one counts in some rows only, it
//! says so ([`places`](super::places)).

use super::build::{ScanBuilder, copy_into, flow, flow_back, needed};
use super::places::{Arrived, Cotangent, Outside, Places, Rows, both, samples, steps_that_count};
use crate::ir::ops::leaves::is_result;
use crate::ir::scan::Scan;
use crate::ir::{Binary, Extent, Graph, Op, Type, Value};

/// Adds a contribution; a single one is taken as it is.
pub fn accumulate(graph: &mut Graph, sum: &mut Option<Value>, v: Value) {
    *sum = Some(match *sum {
        None => v,
        Some(sum) => graph.binary(Binary::Add, sum, v),
    });
}

/// Runs the cotangents in `cotangents` back through the linear values, as many as `linear` has marks; adds those that
/// arrive. Within a body, `outside` is what its leaves stand for.
pub fn transpose(
    graph: &mut Graph,
    linear: &[bool],
    cotangents: &mut [Arrived],
    places: &mut Places,
    outside: Option<Outside>,
) {
    let kept = graph.location;
    let values: Vec<Value> = graph.values().zip(linear).filter(|(_, linear)| **linear).map(|(v, _)| v).collect();
    for v in values.into_iter().rev() {
        graph.location = graph.node(v).location;
        if matches!(graph.op(v), Op::Scan(_)) {
            transpose_scan(graph, v, linear, cotangents, places);
            continue;
        }
        if is_result(graph.op(v)) {
            continue;
        }
        let Some(ct) = places.sum(graph, &cotangents[v.index()]) else { continue };
        let mut operands: Vec<(usize, Value)> = graph.operands(v).iter().copied().enumerate().collect();
        operands.retain(|(_, o)| linear[o.index()]);
        // Where rows are summed, those that do not count are made 0; the other operands take what is made there.
        operands.sort_by_key(|&(_, o)| graph.ty(o).extent >= graph.ty(v).extent);
        for (i, o) in operands {
            let ct = places.known(ct);
            let part = part(graph, v, i, ct, places, outside);
            assert_eq!(
                graph.ty(part.value),
                graph.ty(o),
                "the cotangent of operand {i} of `{}` has its type",
                graph.op(v).name()
            );
            cotangents[o.index()].add(graph, part);
        }
    }
    graph.location = kept;
}

/// What the cotangent of a node is for one of its operands.
fn part(
    graph: &mut Graph,
    v: Value,
    i: usize,
    ct: Cotangent,
    places: &mut Places,
    outside: Option<Outside>,
) -> Cotangent {
    let o = graph.operands(v)[i];
    let rule = graph
        .op(v)
        .row()
        .transpose
        .unwrap_or_else(|| panic!("the tangent of an op is linear, but `{}` has no transpose", graph.op(v).name()));
    let chosen = match graph.op(v) {
        // What another is chosen of counts in all rows that it has.
        Op::Select if graph.ty(o) == graph.ty(v) => places.chosen_by(graph, v, i == 1),
        _ => None,
    };
    if let Some(chosen) = chosen {
        return match ct.rows {
            None => Cotangent { value: ct.value, rows: Some(chosen), settled: false },
            Some(rows) if rows == chosen => ct,
            // Both say which rows count.
            Some(rows) => Cotangent { rows: Some(both(graph, rows, chosen)), settled: false, ..ct },
        };
    }
    let before = graph.len();
    let value = rule(graph, v, i, ct.value);
    let Some(rows) = ct.rows else { return Cotangent::new(value) };
    if graph.ty(o).extent >= graph.ty(v).extent {
        let settled = ct.settled && places.stays_settled(graph, v, i, rows, outside);
        return Cotangent { value, rows: Some(rows), settled };
    }
    let value = places.guard(graph, before, value, rows, outside);
    // A sum over a sample's steps counts for the samples that count.
    let rows = match (graph.ty(rows.mask).extent, graph.ty(o).extent) {
        (mask, own) if mask <= own => Some(rows),
        (Extent::Time(_), Extent::Batch) => Some(samples(graph, rows)),
        _ => None,
    };
    Cotangent { value, rows, settled: true }
}

/// Builds the transpose of the linear scan `v` for the cotangents of its results, and enters those of its operands.
fn transpose_scan(graph: &mut Graph, v: Value, linear: &[bool], cotangents: &mut [Arrived], places: &mut Places) {
    let Op::Scan(scan) = graph.op(v).clone() else { unreachable!("called for scans") };
    let operands = graph.operands(v).to_vec();
    let (captures, each, initial) = scan.split_operands(&operands);
    let mut yields = vec![Arrived::default(); scan.yields.len()];
    let mut totals = vec![None; scan.sums.len()];
    let mut finals = vec![None; scan.carries.len()];
    for u in graph.users(v) {
        let Some(ct) = cotangents.get(u.index()).and_then(|arrived| places.sum(graph, arrived)) else { continue };
        let slot = match *graph.op(u) {
            Op::Yield(i) => {
                yields[i].add(graph, ct);
                continue;
            }
            Op::Total(i) => &mut totals[i],
            Op::Final(i) => &mut finals[i],
            _ => unreachable!("only results read a scan"),
        };
        let ct = places.settle(graph, ct);
        accumulate(graph, slot, ct);
    }
    // Rows that a mask chooses outside are chosen by its leaf within, if the body reads it.
    let leaf_of = |mask: Value| each.iter().position(|&o| o == mask).map(|port| scan.each[port].value);
    let mut within_rows: Vec<Option<Rows>> = vec![None; scan.yields.len()];
    let mut settled = vec![true; scan.yields.len()];
    let mut sequences = vec![None; scan.yields.len()];
    for (i, arrived) in yields.iter().enumerate() {
        let Some(ct) = places.sum(graph, arrived) else { continue };
        let inner = ct.rows.and_then(|rows| Some(Rows { mask: leaf_of(rows.mask)?, ..rows }));
        within_rows[i] = inner;
        settled[i] = inner.is_none() || ct.settled;
        sequences[i] = Some(if inner.is_some() { ct.value } else { places.settle(graph, ct) });
    }
    let yields = sequences;

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

    // Values of a sample that its steps read count if some of its steps do.
    let samples_that_count = steps_that_count(&scan, each, &within).map(|mask| Rows { mask, chosen: true });
    let samples_that_count = samples_that_count.map(|rows| samples(graph, rows));
    let of_sample = |ty: &Type| samples_that_count.filter(|_| ty.extent == Extent::Batch);

    // The cotangents of one step, on a copy of the body, from placeholders for the leaves of the transposed scan.
    let mut joint = scan.body.clone();
    let mut steps = vec![Arrived::default(); joint.len()];
    let mut placed = Vec::new();
    let mut place = |joint: &mut Graph, of: Value, leaf: Value, rows: Option<Rows>, settled: bool| {
        let placeholder = joint.leaf(Op::Input("cotangent".to_string()), joint.ty(of).clone());
        steps[of.index()].add(joint, Cotangent { value: placeholder, rows, settled });
        placed.push((placeholder, leaf));
    };
    let mut back = ScanBuilder::new(Scan::new(d(&scan.name), scan.axis, !scan.reverse));
    for (port, ct) in scan.sums.iter().zip(totals).filter(|(p, _)| within[p.value.index()]) {
        if let Some(ct) = ct {
            let leaf = back.capture(&d(&port.name), ct, joint.ty(port.value));
            place(&mut joint, port.value, leaf, None, true);
        }
    }
    for (i, (port, ct)) in scan.yields.iter().zip(yields).enumerate().filter(|(_, (p, _))| within[p.value.index()]) {
        if let Some(ct) = ct {
            let leaf = back.each(&d(&port.name), ct, joint.ty(port.value));
            place(&mut joint, port.value, leaf, within_rows[i], settled[i]);
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
                place(&mut joint, carry.next, leaf, None, true);
            }
            states.push(i);
        }
    }
    let mut inner = Places::default();
    transpose(&mut joint, &within, &mut steps, &mut inner, Some(Outside { graph, each, scan: &scan }));
    // What leaves the step counts in all rows, but for a sequence that outside counts in the same rows.
    let mut left = vec![None; steps.len()];
    let mut left_rows = vec![None; scan.each.len()];
    for b in scan.captures.iter().chain(&scan.each).map(|p| p.value).chain(scan.carries.iter().map(|c| c.value)) {
        let Some(ct) = inner.sum(&mut joint, &steps[b.index()]) else { continue };
        left[b.index()] = Some(match (joint.op(b).clone(), ct.rows) {
            (Op::Each(port), Some(Rows { mask, chosen })) => match *joint.op(mask) {
                Op::Each(of) => {
                    left_rows[port] = Some((Rows { mask: each[of], chosen }, ct.settled));
                    ct.value
                }
                _ => inner.settle(&mut joint, ct),
            },
            _ => inner.settle(&mut joint, ct),
        });
    }
    let steps = left;

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
            Op::Capture(i) => {
                let value = match of_sample(joint.ty(b)) {
                    Some(rows) => places.coefficient(graph, captures[i], rows),
                    None => captures[i],
                };
                map[b.index()] = Some(back.capture(&scan.captures[i].name, value, joint.ty(b)));
            }
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
            results.push((initial[i], Op::Final(state), None));
        }
    }
    for ((port, &o), rows) in scan.each.iter().zip(each).zip(left_rows) {
        if let Some(ct) = arrived(port.value) {
            results.push((o, Op::Yield(back.yields(&d(&port.name), ct)), rows));
        }
    }
    for (port, &o) in scan.captures.iter().zip(captures) {
        if let Some(ct) = arrived(port.value) {
            let rows = of_sample(back.scan.body.ty(ct)).map(|rows| (rows, true));
            results.push((o, Op::Total(back.sum(&d(&port.name), ct)), rows));
        }
    }
    let node = back.finish(graph);
    for (o, result, rows) in results {
        let value = graph.scan_result(node, result);
        let ct = match rows {
            Some((rows, settled)) => Cotangent { value, rows: Some(rows), settled },
            None => Cotangent::new(value),
        };
        cotangents[o.index()].add(graph, ct);
    }
}

/// Name of the cotangent of a value, given the value's name or that of its tangent.
fn d(name: &str) -> String {
    format!("d.{}", name.strip_prefix("dot.").unwrap_or(name))
}
