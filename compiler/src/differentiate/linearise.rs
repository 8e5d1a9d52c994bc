//! Linearise: tangents of values along tangents of others, node by node in the order of the graph.
//!
//! A scan becomes two. The second one runs in the same direction and is linear: it carries the tangents of the states
//! that have one, reads tangents of captures and sequences, and gives tangents only. The primal values that it needs
//! as coefficients are captures and sequences that the primal scan reads too, or sequences that the primal scan is
//! made to yield; what is cheap is computed again from those (see [`residuals`](super::residuals)).
//!
//! A state has a tangent if its initial value has one or its next value depends on one, which may go through other
//! states: a fixpoint, found by following derivatives from the leaves. Only what the wanted results need is built.

use std::collections::BTreeMap;

use super::build::{Names, ScanBuilder, copy_into, flow, flow_back, needed};
use super::residuals;
use super::transpose::accumulate;
use crate::ir::op::Tangent;
use crate::ir::ops::leaves::is_result;
use crate::ir::scan::{Port, Scan};
use crate::ir::types::Extent;
use crate::ir::{Binary, Graph, Op, Value};

/// Tangents of `wanted` along the seeds, (value, its tangent); `None` where no derivative arrives.
///
/// A seeded value that depends on another one has the seed added to what arrives from there.
pub fn jvp(graph: &mut Graph, seeds: &[(Value, Value)], wanted: &[Value]) -> Vec<Option<Value>> {
    let mut active = vec![false; graph.len()];
    for v in wanted {
        active[v.index()] = true;
    }
    for v in graph.values().rev() {
        if active[v.index()] {
            for (i, o) in graph.operands(v).iter().enumerate() {
                active[o.index()] |= passes(graph, v, i);
            }
        }
    }
    let mut tangents = vec![None; graph.len()];
    for &(v, t) in seeds {
        assert_eq!(graph.ty(v), graph.ty(t), "a tangent has the type of its value");
        accumulate(graph, &mut tangents[v.index()], t);
    }
    linearise(graph, &active, &mut tangents);
    wanted.iter().map(|v| tangents[v.index()]).collect()
}

/// Whether a derivative can pass from operand i of a node to the node.
fn passes(graph: &Graph, v: Value, i: usize) -> bool {
    let node = graph.node(v);
    let mask = matches!(node.op, Op::Select) && i == 0;
    let zero = matches!(node.op.row().tangent, Tangent::Zero);
    !mask && !zero && node.ty.is_float() && graph.is_float(node.operands[i])
}

/// Adds to `tangents`, which has the seeds, those of the active values that depend on them.
fn linearise(graph: &mut Graph, active: &[bool], tangents: &mut [Option<Value>]) {
    let kept = graph.location;
    let values: Vec<Value> = graph.values().zip(active).filter(|(_, active)| **active).map(|(v, _)| v).collect();
    for v in values {
        graph.location = graph.node(v).location;
        if matches!(graph.op(v), Op::Scan(_)) {
            linearise_scan(graph, v, active, tangents);
        } else if let Some(t) = tangent(graph, v, tangents) {
            accumulate(graph, &mut tangents[v.index()], t);
        }
    }
    graph.location = kept;
}

/// The tangent of one node that is not a scan or a scan's result, by the rule of its row.
fn tangent(graph: &mut Graph, v: Value, tangents: &[Option<Value>]) -> Option<Value> {
    let operands = graph.operands(v).to_vec();
    let along: Vec<Option<Value>> =
        operands.iter().enumerate().map(|(i, o)| tangents[o.index()].filter(|_| passes(graph, v, i))).collect();
    if along.iter().all(Option::is_none) {
        return None;
    }
    let op = graph.op(v).clone();
    match op.row().tangent {
        Tangent::Zero | Tangent::Scan => None,
        Tangent::Rule(rule) => Some(rule(graph, v, &along)),
        Tangent::Linear => {
            let moved: Vec<Value> = operands
                .iter()
                .zip(along)
                .map(|(&o, t)| match t {
                    Some(t) => t,
                    None if graph.is_float(o) => graph.constant(0.0, graph.ty(o).clone()),
                    None => o,
                })
                .collect();
            Some(graph.add(op, &moved))
        }
        Tangent::Multilinear => {
            let mut sum = None;
            for (i, t) in along.iter().enumerate() {
                if let Some(t) = *t {
                    let mut moved = operands.clone();
                    moved[i] = t;
                    let term = graph.add(op.clone(), &moved);
                    accumulate(graph, &mut sum, term);
                }
            }
            sum
        }
    }
}

/// Builds the scan of tangents for those results of the scan `v` that are active, and enters their tangents.
fn linearise_scan(graph: &mut Graph, v: Value, active: &[bool], tangents: &mut [Option<Value>]) {
    let Op::Scan(scan) = graph.op(v).clone() else { unreachable!("called for scans") };
    let mut primal = *scan;
    assert!(!primal.body.values().any(|b| matches!(primal.body.op(b), Op::Scan(_))), "a body has no scan");
    let operands = graph.operands(v).to_vec();
    let (captures, each, initial) = primal.split_operands(&operands);
    let users = graph.users(v);
    let results: Vec<Value> = users
        .iter()
        .copied()
        .filter(|u| u.index() < active.len() && active[u.index()] && graph.is_float(*u) && is_result(graph.op(*u)))
        .collect();

    // What in the body has a tangent, and which of it the results want.
    let ports = primal.captures.iter().chain(&primal.each).map(|p| p.value);
    let leaves = ports.chain(primal.carries.iter().map(|c| c.value));
    let seeded = leaves.zip(&operands).filter(|(_, o)| tangents[o.index()].is_some()).map(|(leaf, _)| leaf);
    let live = flow(&primal, seeded.collect(), |b, i| passes(&primal.body, b, i));
    let roots: Vec<Value> = results
        .iter()
        .map(|&u| match *graph.op(u) {
            Op::Yield(i) => primal.yields[i].value,
            Op::Total(i) => primal.sums[i].value,
            Op::Final(i) => primal.carries[i].next,
            _ => unreachable!("results are these"),
        })
        .collect();
    if !roots.iter().any(|r| live[r.index()]) {
        return;
    }
    let wanted = flow_back(&primal, roots, |b, i| passes(&primal.body, b, i));
    let inside: Vec<bool> = live.iter().zip(&wanted).map(|(l, w)| *l && *w).collect();

    // The tangents of one step, on a copy of the body, from placeholders for the leaves of the linear scan.
    let mut joint = primal.body.clone();
    let mut steps = vec![None; joint.len()];
    let mut placed = Vec::new();
    let mut linear = ScanBuilder::new(Scan::new(dot(&primal.name), primal.axis, primal.reverse));
    for (port, o) in primal.captures.iter().zip(captures).filter(|(p, _)| inside[p.value.index()]) {
        let t = tangents[o.index()].expect("a capture inside has a tangent");
        let leaf = linear.capture(&dot(&port.name), t, joint.ty(port.value));
        place(&mut joint, &mut steps, &mut placed, port.value, leaf);
    }
    for (port, o) in primal.each.iter().zip(each).filter(|(p, _)| inside[p.value.index()]) {
        let t = tangents[o.index()].expect("a sequence inside has a tangent");
        let leaf = linear.each(&dot(&port.name), t, joint.ty(port.value));
        place(&mut joint, &mut steps, &mut placed, port.value, leaf);
    }
    // A state that nothing in the body reads still has a last value.
    let mut states: BTreeMap<usize, usize> = BTreeMap::new();
    for (i, carry) in primal.carries.iter().enumerate() {
        let last =
            inside[carry.next.index()] && results.iter().any(|&u| matches!(*graph.op(u), Op::Final(f) if f == i));
        if inside[carry.value.index()] || last {
            let ty = joint.ty(carry.value).clone();
            let t = tangents[initial[i].index()].unwrap_or_else(|| graph.constant(0.0, ty.clone()));
            states.insert(i, states.len());
            let leaf = linear.carry(&dot(&carry.name), t, &ty);
            place(&mut joint, &mut steps, &mut placed, carry.value, leaf);
        }
    }
    linearise(&mut joint, &inside, &mut steps);

    // What the linear scan computes, and the coefficients that it needs for that.
    let mut depends = vec![false; joint.len()];
    for (placeholder, _) in &placed {
        depends[placeholder.index()] = true;
    }
    for b in joint.values().skip(primal.body.len()) {
        depends[b.index()] |= joint.operands(b).iter().any(|o| depends[o.index()]);
    }
    let nexts = states.keys().map(|&i| primal.carries[i].next);
    let given = primal.yields.iter().chain(&primal.sums).map(|p| p.value).filter(|b| wanted[b.index()]);
    let roots: Vec<Value> = nexts.chain(given).filter_map(|b| steps[b.index()]).collect();
    let reached = needed(&joint, roots.iter().copied(), |b| !depends[b.index()]);
    let coefficients: Vec<Value> = joint.values().filter(|b| reached[b.index()] && !depends[b.index()]).collect();

    let mut map = vec![None; joint.len()];
    for (placeholder, leaf) in placed {
        map[placeholder.index()] = Some(leaf);
    }
    let yielded: BTreeMap<Value, usize> = primal.yields.iter().enumerate().rev().map(|(i, p)| (p.value, i)).collect();
    let saved = residuals::choose(&joint, &primal, &coefficients);
    let reached = needed(&joint, coefficients, |b| saved.contains(&b) || yielded.contains_key(&b));
    let reads: Vec<Value> = joint.values().filter(|b| reached[b.index()]).collect();
    let sequences = save(&mut primal, &joint, &reads, &yielded, |b| saved.contains(&b));
    *graph.op_mut(v) = Op::Scan(Box::new(primal.clone()));
    for b in reads {
        map[b.index()] = match *joint.op(b) {
            Op::Capture(i) => Some(linear.capture(&primal.captures[i].name, captures[i], joint.ty(b))),
            Op::Each(i) => Some(linear.each(&primal.each[i].name, each[i], joint.ty(b))),
            _ => sequences.get(&b).map(|&i| {
                let known = users.iter().copied().find(|&u| matches!(*graph.op(u), Op::Yield(y) if y == i));
                let sequence = known.unwrap_or_else(|| graph.scan_result(v, Op::Yield(i)));
                let leaf = linear.each(&primal.yields[i].name, sequence, joint.ty(b));
                if joint.ty(b).extent == Extent::Shared { shared_again(&mut linear.scan.body, leaf) } else { leaf }
            }),
        };
    }
    copy_into(&mut linear.scan.body, &joint, &mut map, roots);

    let copied = |b: Value| steps[b.index()].map(|t: Value| map[t.index()].expect("copied just now"));
    for (&i, &state) in &states {
        let carry = &primal.carries[i];
        let next = copied(carry.next);
        let body = &mut linear.scan.body;
        let next = next.unwrap_or_else(|| body.constant(0.0, joint.ty(carry.value).clone()));
        linear.scan.carries[state].next = next;
    }
    let mut taken: BTreeMap<(u8, usize), Op> = BTreeMap::new();
    let mut given = Vec::new();
    for &u in &results {
        let result = match *graph.op(u) {
            Op::Final(i) => copied(primal.carries[i].next).map(|_| Op::Final(states[&i])),
            Op::Yield(i) => copied(primal.yields[i].value).map(|t| {
                let port = || Op::Yield(linear.yields(&dot(&primal.yields[i].name), t));
                taken.entry((0, i)).or_insert_with(port).clone()
            }),
            Op::Total(i) => copied(primal.sums[i].value).map(|t| {
                let port = || Op::Total(linear.sum(&dot(&primal.sums[i].name), t));
                taken.entry((1, i)).or_insert_with(port).clone()
            }),
            _ => unreachable!("results are these"),
        };
        given.extend(result.map(|result| (u, result)));
    }
    let node = linear.finish(graph);
    for (u, result) in given {
        let t = graph.scan_result(node, result);
        accumulate(graph, &mut tangents[u.index()], t);
    }
}

/// Enters a placeholder in the step's graph for a leaf of the linear scan as the tangent of `of`.
fn place(joint: &mut Graph, steps: &mut [Option<Value>], placed: &mut Vec<(Value, Value)>, of: Value, leaf: Value) {
    let placeholder = joint.leaf(joint.op(of).clone(), joint.ty(of).clone());
    steps[of.index()] = Some(placeholder);
    placed.push((placeholder, leaf));
}

/// Makes the primal scan yield what is saved; gives the yield of each value that is read as one. Coefficients that a
/// rule made are computed in the primal body if they are what is saved.
fn save(
    primal: &mut Scan,
    joint: &Graph,
    reads: &[Value],
    yielded: &BTreeMap<Value, usize>,
    saved: impl Fn(Value) -> bool,
) -> BTreeMap<Value, usize> {
    let old = primal.body.len();
    let mut map: Vec<Option<Value>> = joint.values().map(|b| (b.index() < old).then_some(b)).collect();
    let mut names = Names::of(primal);
    let mut sequences = BTreeMap::new();
    for &b in reads {
        if let Some(&i) = yielded.get(&b) {
            sequences.insert(b, i);
        } else if saved(b) {
            let name = names.fresh(&residual_name(primal, joint, b));
            copy_into(&mut primal.body, joint, &mut map, [b]);
            let mut value = map[b.index()].expect("copied just now");
            if joint.ty(b).extent == Extent::Shared {
                // A shared value that changes from step to step has no sequence of its own: every sample has it.
                value = primal.body.add(Op::Expand(Extent::Batch), &[value]);
            }
            primal.yields.push(Port { name, value });
            sequences.insert(b, primal.yields.len() - 1);
        }
    }
    sequences
}

/// The mean over samples that are all the same: inverse of the expansion under which a shared value is saved, and
/// linear, so derivatives of derivatives run through it.
fn shared_again(body: &mut Graph, v: Value) -> Value {
    assert!(body.is_float(v), "integers that are shared and change from step to step are computed again, not saved");
    let sum = body.add(Op::SumRows(Extent::Shared), &[v]);
    let count = body.add(Op::RowCount(Extent::Batch), &[]);
    body.binary(Binary::Div, sum, count)
}

/// A residual is called after the state that it becomes or was, else after its op.
fn residual_name(primal: &Scan, joint: &Graph, b: Value) -> String {
    if let Op::Carry(i) = *joint.op(b) {
        return format!("{}.before", primal.carries[i].name);
    }
    let state = primal.carries.iter().find(|c| c.next == b);
    state.map_or_else(|| joint.op(b).name().to_string(), |c| c.name.clone())
}

/// Name of a tangent.
fn dot(name: &str) -> String {
    format!("dot.{name}")
}
