//! States that outlive a run: for training window by window, and for one step at a time.
//!
//! Before: each run starts the states of its loops anew. After: the state of every loop that runs forwards starts
//! from an input, and the run's last state is stored in that input's place for the next run. Where the first run
//! starts from is what the program started from before. Loops that run backwards see the future first and have
//! nothing to carry over: they stay as they are.

use crate::ir::{Graph, Input, Op, Program, Scan, Update, Value};
use crate::simplify::rebuild::{Numbered, Results, Rewrite, Used, copy_face, walk, with_graph};

/// A state that became an input.
#[derive(Clone, Debug, PartialEq)]
pub struct CarriedState {
    /// Name of the input: `state.<scan>.<state>`.
    pub input: String,
    /// What the state started from, as a value of the program that is returned with it. No root needs it, so a
    /// later pass drops it: evaluate it on this program.
    pub initial: Value,
}

/// Makes the states of all forward loops inputs that each run updates.
pub fn carry_state(program: &Program) -> (Program, Vec<CarriedState>) {
    // Inputs are declared before anything is computed, so that they are there for every loop.
    let mut g = Numbered::default();
    let mut seeds = vec![None; program.graph.len()];
    copy_face(program, &mut g, &mut seeds);
    let mut taken: Vec<String> = program.inputs.iter().map(|i| i.name.clone()).collect();
    taken.extend(program.parameters.iter().map(|p| p.name.clone()));
    let needed = program.graph.reachable(program.roots());
    let mut inputs = Vec::new();
    for v in program.graph.values().filter(|v| needed[v.index()]) {
        let Op::Scan(scan) = program.graph.op(v) else { continue };
        if scan.reverse {
            continue;
        }
        for carry in &scan.carries {
            let plain = format!("state.{}.{}", scan.name, carry.name);
            let numbered = || (2..).map(|i| format!("{plain}.{i}")).find(|n| !taken.contains(n));
            let name = if taken.contains(&plain) { numbered().expect("numbers do not end") } else { plain };
            taken.push(name.clone());
            let value = g.leaf(Op::Input(name.clone()), scan.body.ty(carry.value).clone());
            inputs.push(Input { name, value, bound: None });
        }
    }
    let pass = CarryState { inputs, found: Default::default() };
    let map = walk(&pass, &program.graph, &program.roots(), None, seeds, &mut g);
    let found = pass.found.into_inner();
    let mut new = with_graph(program, g.finish(), &map);
    for (input, (_, last)) in pass.inputs.iter().zip(&found) {
        new.updates.push(Update { target: input.value, value: *last });
    }
    let states = pass.inputs.iter().zip(&found);
    let states = states.map(|(input, &(initial, _))| CarriedState { input: input.name.clone(), initial }).collect();
    new.inputs.extend(pass.inputs);
    (new.by_pass(), states)
}

struct CarryState {
    inputs: Vec<Input>,
    /// For each input that has been used up: the initial value it stands for, and the last state.
    found: std::cell::RefCell<Vec<(Value, Value)>>,
}

impl Rewrite for CarryState {
    type Facts = ();
    fn facts(&self, _: &Graph, _: &[Value], _: Option<&Scan>) {}

    fn scan(&self, g: &mut Numbered, scan: &Scan, operands: &[Value], used: &Used) -> Results {
        let mut operands = operands.to_vec();
        let mut found = self.found.borrow_mut();
        let first = operands.len() - scan.carries.len();
        let states = if scan.reverse { 0 } else { scan.carries.len() };
        let mut initial = Vec::new();
        for i in 0..states {
            let input = self.inputs[found.len() + i].value;
            initial.push(std::mem::replace(&mut operands[first + i], input));
        }
        let node = g.scan(scan.clone(), &operands);
        for (i, &initial) in initial.iter().enumerate() {
            found.push((initial, g.result(node, Op::Final(i))));
        }
        let mut take = |used: &[bool], op: fn(usize) -> Op| {
            used.iter().enumerate().map(|(i, u)| u.then(|| g.result(node, op(i)))).collect()
        };
        Results {
            yields: take(&used.yields, Op::Yield),
            finals: take(&used.finals, Op::Final),
            totals: take(&used.totals, Op::Total),
        }
    }
}
