//! What both passes build with: scans from ports and operands, copies of parts of a graph, and reachability through
//! the states of a scan.

use std::collections::BTreeMap;

use crate::ir::ops::leaves::is_result;
use crate::ir::scan::{Carry, Port, Scan};
use crate::ir::types::{Extent, Type};
use crate::ir::{Graph, Op, Value};

/// Copies what `roots` need from one graph into another, in order. `map` says for each value of `source` what it is
/// in `target`, where it is known; what is copied is entered.
pub fn copy_into(
    target: &mut Graph,
    source: &Graph,
    map: &mut [Option<Value>],
    roots: impl IntoIterator<Item = Value>,
) {
    let needed = needed(source, roots, |v| map[v.index()].is_some());
    let kept = target.location;
    for v in source.values().filter(|v| needed[v.index()]) {
        if map[v.index()].is_some() {
            continue;
        }
        let node = source.node(v);
        let operands: Vec<Value> =
            node.operands.iter().map(|o| map[o.index()].expect("operands come before their users")).collect();
        target.location = node.location;
        map[v.index()] = Some(if node.op.is_leaf() {
            target.leaf(node.op.clone(), node.ty.clone())
        } else if is_result(&node.op) {
            target.scan_result(operands[0], node.op.clone())
        } else {
            target.add(node.op.clone(), &operands)
        });
    }
    target.location = kept;
}

/// Which values the roots need when those that `stop` are there already. Stops that are reached are marked too.
pub fn needed(graph: &Graph, roots: impl IntoIterator<Item = Value>, stop: impl Fn(Value) -> bool) -> Vec<bool> {
    let mut needed = vec![false; graph.len()];
    for root in roots {
        needed[root.index()] = true;
    }
    for v in graph.values().rev() {
        if needed[v.index()] && !stop(v) {
            for o in graph.operands(v) {
                needed[o.index()] = true;
            }
        }
    }
    needed
}

/// Which values of a body something flows to from `starts`, within a step and from a state's next value to the state.
/// `passes(v, i)` says whether it flows from operand i of v to v.
pub fn flow(scan: &Scan, starts: Vec<Value>, passes: impl Fn(Value, usize) -> bool) -> Vec<bool> {
    let mut states: BTreeMap<Value, Vec<Value>> = BTreeMap::new();
    for carry in &scan.carries {
        states.entry(carry.next).or_default().push(carry.value);
    }
    let mut reached = vec![false; scan.body.len()];
    let mut open = starts;
    while let Some(v) = open.pop() {
        if std::mem::replace(&mut reached[v.index()], true) {
            continue;
        }
        open.extend(states.get(&v).into_iter().flatten());
        open.extend(scan.body.users(v).into_iter().filter(|&u| {
            !reached[u.index()] && scan.body.operands(u).iter().enumerate().any(|(i, &o)| o == v && passes(u, i))
        }));
    }
    reached
}

/// The other way: from values to their operands, and from a state to its next value.
pub fn flow_back(scan: &Scan, starts: Vec<Value>, passes: impl Fn(Value, usize) -> bool) -> Vec<bool> {
    let mut reached = vec![false; scan.body.len()];
    let mut open = starts;
    while let Some(v) = open.pop() {
        if std::mem::replace(&mut reached[v.index()], true) {
            continue;
        }
        if let Op::Carry(i) = *scan.body.op(v) {
            open.push(scan.carries[i].next);
        }
        let operands = scan.body.operands(v).iter().enumerate();
        open.extend(operands.filter(|&(i, o)| !reached[o.index()] && passes(v, i)).map(|(_, &o)| o));
    }
    reached
}

/// Names of ports, each once.
#[derive(Default)]
pub struct Names(BTreeMap<String, usize>);

impl Names {
    /// The names that a scan has.
    pub fn of(scan: &Scan) -> Names {
        let ports = [&scan.captures, &scan.each, &scan.yields, &scan.sums];
        let ports = ports.into_iter().flatten().map(|p| &p.name);
        Names(ports.chain(scan.carries.iter().map(|c| &c.name)).map(|name| (name.clone(), 1)).collect())
    }

    /// The name itself, or with a number behind it if it is taken.
    pub fn fresh(&mut self, name: &str) -> String {
        let mut fresh = name.to_string();
        while self.0.contains_key(&fresh) {
            let count = self.0.entry(name.to_string()).or_insert(1);
            *count += 1;
            fresh = format!("{name}.{count}");
        }
        self.0.insert(fresh.clone(), 1);
        fresh
    }
}

/// A scan in the making: its ports together with the outside values that they read.
pub struct ScanBuilder {
    /// What there is so far.
    pub scan: Scan,
    names: Names,
    captures: Vec<Value>,
    each: Vec<Value>,
    initial: Vec<Value>,
}

impl ScanBuilder {
    /// A scan with an empty body.
    pub fn new(scan: Scan) -> ScanBuilder {
        let names = Names::of(&scan);
        ScanBuilder { scan, names, captures: Vec::new(), each: Vec::new(), initial: Vec::new() }
    }

    /// A value from outside; gives its leaf.
    pub fn capture(&mut self, name: &str, outside: Value, ty: &Type) -> Value {
        let value = self.scan.body.leaf(Op::Capture(self.captures.len()), ty.clone());
        self.captures.push(outside);
        self.scan.captures.push(Port { name: self.names.fresh(name), value });
        value
    }

    /// A sequence; gives its leaf.
    pub fn each(&mut self, name: &str, outside: Value, ty: &Type) -> Value {
        let value = self.scan.body.leaf(Op::Each(self.each.len()), ty.at(Extent::Batch));
        self.each.push(outside);
        self.scan.each.push(Port { name: self.names.fresh(name), value });
        value
    }

    /// A state, whose next value is set later; gives its leaf.
    pub fn carry(&mut self, name: &str, initial: Value, ty: &Type) -> Value {
        let value = self.scan.body.leaf(Op::Carry(self.initial.len()), ty.clone());
        self.initial.push(initial);
        self.scan.carries.push(Carry { name: self.names.fresh(name), value, next: value });
        value
    }

    /// A sequence written; gives its position.
    pub fn yields(&mut self, name: &str, value: Value) -> usize {
        self.scan.yields.push(Port { name: self.names.fresh(name), value });
        self.scan.yields.len() - 1
    }

    /// A sum over the steps; gives its position.
    pub fn sum(&mut self, name: &str, value: Value) -> usize {
        self.scan.sums.push(Port { name: self.names.fresh(name), value });
        self.scan.sums.len() - 1
    }

    /// Adds the node.
    pub fn finish(self, graph: &mut Graph) -> Value {
        let operands = [self.captures, self.each, self.initial].concat();
        graph.add(Op::Scan(Box::new(self.scan)), &operands)
    }
}
