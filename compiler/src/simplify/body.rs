//! A scan under construction: leaves and results are added by what they read and give, each once.

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
        }
    }

    /// The leaf that reads an outside value at every step, made if there is none.
    pub fn capture(&mut self, name: &str, outside: Value, ty: &Type) -> Value {
        let Some(i) = self.captures.iter().position(|&v| v == outside) else {
            let leaf = self.g.leaf(Op::Capture(self.captures.len()), ty.clone());
            self.captures.push(outside);
            let name = self.unused(name);
            self.scan.captures.push(Port { name, value: leaf });
            return leaf;
        };
        self.scan.captures[i].value
    }

    /// The leaf that reads a sequence step by step, made if there is none.
    pub fn each(&mut self, name: &str, outside: Value, ty: &Type) -> Value {
        let Some(i) = self.each.iter().position(|&v| v == outside) else {
            let leaf = self.g.leaf(Op::Each(self.each.len()), ty.clone());
            self.each.push(outside);
            let name = self.unused(name);
            self.scan.each.push(Port { name, value: leaf });
            return leaf;
        };
        self.scan.each[i].value
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
        if let Some(i) = self.scan.yields.iter().position(|p| p.value == value) {
            return i;
        }
        let name = unused_among(name, || self.scan.yields.iter());
        self.scan.yields.push(Port { name, value });
        self.scan.yields.len() - 1
    }

    /// The sum of a body value over the steps, made if there is none.
    pub fn total(&mut self, name: &str, value: Value) -> usize {
        if let Some(i) = self.scan.sums.iter().position(|p| p.value == value) {
            return i;
        }
        let name = unused_among(name, || self.scan.sums.iter());
        self.scan.sums.push(Port { name, value });
        self.scan.sums.len() - 1
    }

    /// The name, with a number behind it if it is taken: the leaves of a body share one space of names.
    fn unused(&self, name: &str) -> String {
        unused_among(name, || self.scan.captures.iter().chain(&self.scan.each))
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

/// The name, with a number behind it if a port has it.
fn unused_among<'a, I: Iterator<Item = &'a Port>>(name: &str, ports: impl Fn() -> I) -> String {
    let taken = |name: &str| ports().any(|p| p.name == name);
    let numbered = || (1..).map(|i| format!("{name}_{i}")).find(|n| !taken(n)).expect("numbers do not end");
    if taken(name) { numbered() } else { name.to_string() }
}
