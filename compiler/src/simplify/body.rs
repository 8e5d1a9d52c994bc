//! A scan under construction: leaves and results are added by what they read and give, each once.

use rustc_hash::{FxHashMap, FxHashSet};

use super::rebuild::{Numbered, Results, Used};
use crate::ir::scan::Port;
use crate::ir::{Carry, Op, Scan, Type, Value};

/// A scan under construction: its body, its ports, and the outside values that they read.
pub struct Body {
    /// The body's graph.
    pub g: Numbered,
    scan: Scan,
    captures: Vec<Value>,
    each: Vec<Value>,
    initial: Vec<Value>,
    /// Positions by what is read or given, so that no list is gone through for each port.
    known: Known,
}

/// Where ports are in their lists, by the outside or body value that they are for, and which names they have.
#[derive(Default)]
struct Known {
    captures: FxHashMap<Value, usize>,
    each: FxHashMap<Value, usize>,
    yields: FxHashMap<Value, usize>,
    sums: FxHashMap<Value, usize>,
    /// The leaves of a body share one space of names.
    leaf_names: Names,
    yield_names: Names,
    sum_names: Names,
}

impl Body {
    /// A scan with the name, axis and direction of another, and no ports yet.
    pub fn like(scan: &Scan) -> Body {
        Body {
            g: Numbered::default(),
            scan: Scan::new(scan.name.clone(), scan.axis, scan.reverse),
            captures: Vec::new(),
            each: Vec::new(),
            initial: Vec::new(),
            known: Known::default(),
        }
    }

    /// The leaf that reads an outside value at every step, made if there is none.
    pub fn capture(&mut self, name: &str, outside: Value, ty: &Type) -> Value {
        if let Some(&i) = self.known.captures.get(&outside) {
            return self.scan.captures[i].value;
        }
        let leaf = self.g.leaf(Op::Capture(self.captures.len()), ty.clone());
        self.known.captures.insert(outside, self.captures.len());
        self.captures.push(outside);
        self.scan.captures.push(Port { name: self.known.leaf_names.unused(name), value: leaf });
        leaf
    }

    /// The leaf that reads a sequence step by step, made if there is none.
    pub fn each(&mut self, name: &str, outside: Value, ty: &Type) -> Value {
        if let Some(&i) = self.known.each.get(&outside) {
            return self.scan.each[i].value;
        }
        let leaf = self.g.leaf(Op::Each(self.each.len()), ty.clone());
        self.known.each.insert(outside, self.each.len());
        self.each.push(outside);
        self.scan.each.push(Port { name: self.known.leaf_names.unused(name), value: leaf });
        leaf
    }

    /// A new state, which keeps its value until [`next`](Body::next) says otherwise.
    pub fn carry(&mut self, name: &str, initial: Value, ty: &Type) -> Value {
        let leaf = self.g.leaf(Op::Carry(self.initial.len()), ty.clone());
        self.initial.push(initial);
        self.scan.carries.push(Carry { name: name.to_string(), value: leaf, next: leaf });
        leaf
    }

    /// The next value of state `i`.
    pub fn next(&mut self, i: usize, next: Value) {
        self.scan.carries[i].next = next;
    }

    /// The yield of a body value, made if there is none.
    pub fn yielded(&mut self, name: &str, value: Value) -> usize {
        if let Some(&i) = self.known.yields.get(&value) {
            return i;
        }
        self.known.yields.insert(value, self.scan.yields.len());
        self.scan.yields.push(Port { name: self.known.yield_names.unused(name), value });
        self.scan.yields.len() - 1
    }

    /// The sum of a body value over the steps, made if there is none.
    pub fn total(&mut self, name: &str, value: Value) -> usize {
        if let Some(&i) = self.known.sums.get(&value) {
            return i;
        }
        self.known.sums.insert(value, self.scan.sums.len());
        self.scan.sums.push(Port { name: self.known.sum_names.unused(name), value });
        self.scan.sums.len() - 1
    }

    /// The same leaves as another scan, on these operands; returns them by the other body's values.
    pub fn copy_ports(&mut self, scan: &Scan, operands: &[Value]) -> Vec<Option<Value>> {
        let (captures, each, initial) = scan.split_operands(operands);
        let mut seeds = vec![None; scan.body.len()];
        for (port, &v) in scan.captures.iter().zip(captures) {
            seeds[port.value.index()] = Some(self.capture(&port.name, v, scan.body.ty(port.value)));
        }
        for (port, &v) in scan.each.iter().zip(each) {
            seeds[port.value.index()] = Some(self.each(&port.name, v, scan.body.ty(port.value)));
        }
        for (carry, &v) in scan.carries.iter().zip(initial) {
            seeds[carry.value.index()] = Some(self.carry(&carry.name, v, scan.body.ty(carry.value)));
        }
        seeds
    }

    /// The same next values and used results as another scan whose values are mapped; adds the scan to `g`.
    pub fn copy_results(self, scan: &Scan, map: &[Option<Value>], used: &Used, g: &mut Numbered) -> Results {
        self.give_results(scan, map, used, g).1
    }

    /// [`copy_results`](Body::copy_results), with the scan's node: there may be more states than the other has.
    pub fn give_results(
        mut self,
        scan: &Scan,
        map: &[Option<Value>],
        used: &Used,
        g: &mut Numbered,
    ) -> (Value, Results) {
        let new = |v: Value| map[v.index()].expect("a walk maps all roots");
        for (i, carry) in scan.carries.iter().enumerate() {
            self.next(i, new(carry.next));
        }
        let keep = |used: &[bool], ports: &[Port], add: &mut dyn FnMut(&str, Value) -> usize| {
            let pick = |(port, used): (&Port, &bool)| used.then(|| add(&port.name, new(port.value)));
            ports.iter().zip(used).map(pick).collect::<Vec<Option<usize>>>()
        };
        let yields = keep(&used.yields, &scan.yields, &mut |name, v| self.yielded(name, v));
        let totals = keep(&used.totals, &scan.sums, &mut |name, v| self.total(name, v));
        let node = self.place(g);
        let results = Results {
            yields: yields.into_iter().map(|i| i.map(|i| g.result(node, Op::Yield(i)))).collect(),
            finals: used.finals.iter().enumerate().map(|(i, u)| u.then(|| g.result(node, Op::Final(i)))).collect(),
            totals: totals.into_iter().map(|i| i.map(|i| g.result(node, Op::Total(i)))).collect(),
        };
        (node, results)
    }

    /// Adds the scan to the graph around it.
    pub fn place(self, g: &mut Numbered) -> Value {
        let operands = [self.captures, self.each, self.initial].concat();
        g.scan(Scan { body: self.g.finish(), ..self.scan }, &operands)
    }
}

/// Names of ports, each once.
#[derive(Default)]
struct Names {
    taken: FxHashSet<String>,
    /// By name, the first number that may be free behind it.
    next: FxHashMap<String, usize>,
}

impl Names {
    /// The name, with a number behind it if a port has it.
    fn unused(&mut self, name: &str) -> String {
        let mut own = name.to_string();
        if self.taken.contains(name) {
            let next = self.next.entry(own.clone()).or_insert(1);
            while self.taken.contains(&own) {
                own = format!("{name}_{next}");
                *next += 1;
            }
        }
        self.taken.insert(own.clone());
        own
    }
}
