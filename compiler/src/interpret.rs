//! The oracle: plain evaluation of any graph in 64 bits, on dual numbers.
//!
//! Every node is evaluated by its row of the op table, in node order, into a slot of its own; nothing is fused,
//! hoisted or reused. What an engine computes and what a pass preserves is defined by what is computed here. As the
//! numbers are dual, a run also gives the derivative of every value along the direction that the leaves' `du` hold,
//! and owes nothing to the rules that derive graphs.
//!
//! Before a graph is run, its leaves hold their values: named ones from the caller, constants from themselves, and
//! in the body of a scan captures, sequences and carries from the loop. After it, so does every value the roots need.
//!
//! A `Time` value is step-major: row `t·B + b` is sample b at step t, so a step is one contiguous block.

use std::collections::BTreeMap;

use crate::ir::dual::Dual;
use crate::ir::graph::{Graph, Value};
use crate::ir::op::{Binary, Data, Eval, Op, RowArg, Unary};
use crate::ir::ops::leaves::is_result;
use crate::ir::program::Draft;
use crate::ir::scan::Scan;
use crate::ir::sizes::{Sizes, times};
use crate::ir::types::{Extent, Type};

/// Values of parameters and inputs by name.
pub type Values = BTreeMap<String, Data>;

/// What a run gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Outputs by name.
    pub outputs: Values,
    /// What training minimises.
    pub objective: Option<Dual>,
    /// New values of stored leaves, by the leaf's name, in the program's order.
    pub updates: Vec<(String, Data)>,
}

/// Evaluates everything the program's roots need.
///
/// ```
/// use retrograd_compiler::interpret::{interpret, random_values};
/// use retrograd_compiler::ir::op::{Op, Unary};
/// use retrograd_compiler::ir::program::{Draft, Input};
/// use retrograd_compiler::ir::types::{Extent, Sizes, Type};
///
/// let mut p = Draft::new("square");
/// let x = p.graph.leaf(Op::Input("x".into()), Type::float(Extent::Batch, 3));
/// p.inputs.push(Input { name: "x".into(), value: x, bound: None });
/// let y = p.graph.add(Op::Unary(Unary::Powi(2)), &[x]);
/// p.outputs.push(("y".into(), y));
///
/// let sizes = Sizes::new(1, 2);
/// let mut values = random_values(&p, &sizes, 0);
/// values.get_mut("x").unwrap().x[4].du = 1.0;
/// let y = &interpret(&p, &values, &sizes).outputs["y"];
/// assert_eq!(y.x[4].re, values["x"].x[4].re.powi(2));
/// assert_eq!(y.x[4].du, 2.0 * values["x"].x[4].re);
/// ```
///
/// # Panics
/// If a value that is needed is missing, or is not of its leaf's type and these sizes; if there is no memory for values of
/// these sizes.
pub fn interpret(program: &Draft, values: &Values, sizes: &Sizes) -> Outcome {
    interpret_with(program, values, sizes, &mut Rounding::none())
}

/// As [`interpret`], but what rounds is off by a random part of itself, up to `size`: Monte Carlo arithmetic (Parker 1997).
/// The terms of sums are rounded, too, since code adds them up in another order. How far results are from the exact ones is
/// what rounding of that size makes of them, whatever cancels on the way.
///
/// ```
/// # use retrograd_compiler::interpret::{interpret, interpret_rounded, random_values};
/// # use retrograd_compiler::ir::{Program, Sizes};
/// let program = Program::record("cancel", |p| {
///     let x = p.input("x", 1);
///     p.output("y", (x + 1000.0) - 1000.0);
/// })?;
/// let sizes = Sizes::new(1, 1);
/// let values = random_values(&program, &sizes, 0);
/// let exact = interpret(&program, &values, &sizes).outputs["y"].x[0].re;
/// let rounded = interpret_rounded(&program, &values, &sizes, 1e-7, 3).outputs["y"].x[0].re;
/// assert!((1e-7..2e-4).contains(&(rounded - exact).abs()));
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
///
/// # Panics
/// As [`interpret`].
pub fn interpret_rounded(program: &Draft, values: &Values, sizes: &Sizes, size: f64, seed: u64) -> Outcome {
    interpret_with(program, values, sizes, &mut Rounding { size, state: seed })
}

fn interpret_with(program: &Draft, values: &Values, sizes: &Sizes, rounding: &mut Rounding) -> Outcome {
    let mut data = evaluate_with(program, values, sizes, &program.roots(), rounding).into_iter();
    let mut next = || data.next().expect("one value for each root");
    Outcome {
        outputs: program.outputs.iter().map(|(name, _)| (name.clone(), next())).collect(),
        objective: program.objective.map(|_| next().x[0]),
        updates: program.updates.iter().map(|u| (leaf_name(program.graph.op(u.target)).to_string(), next())).collect(),
    }
}

/// Evaluates single values of the program's graph, and all that they need.
///
/// # Panics
/// As [`interpret`].
pub fn evaluate(program: &Draft, values: &Values, sizes: &Sizes, wanted: &[Value]) -> Vec<Data> {
    evaluate_with(program, values, sizes, wanted, &mut Rounding::none())
}

/// Errors that results of ops are given.
struct Rounding {
    /// Relative to each number; none at all if it is 0.
    size: f64,
    state: u64,
}

impl Rounding {
    fn none() -> Rounding {
        Rounding { size: 0.0, state: 0 }
    }

    /// Rounds what an op has computed, if it rounds.
    fn apply(&mut self, op: &Op, out: &mut Data) {
        let rounds = match op {
            Op::Unary(u) => !matches!(u, Unary::Neg | Unary::Abs | Unary::Sign | Unary::Relu),
            Op::Binary(b) => matches!(b, Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Pow),
            op => has_sum(op),
        };
        if rounds {
            self.round(out);
        }
    }

    /// Rounds the terms of a sum: what code adds up in another order rounds elsewhere, and the terms may cancel.
    fn terms(&mut self, op: &Op, args: &[&Data]) -> Option<Vec<Data>> {
        let applies = self.size != 0.0 && has_sum(op);
        applies.then(|| {
            let mut args: Vec<Data> = args.iter().map(|&a| a.clone()).collect();
            args.iter_mut().for_each(|a| self.round(a));
            args
        })
    }

    fn round(&mut self, data: &mut Data) {
        if self.size != 0.0 && data.ty.is_float() {
            data.x.iter_mut().for_each(|x| x.re = self.rounded(x.re));
        }
    }

    fn rounded(&mut self, x: f64) -> f64 {
        let uniform = (splitmix64(&mut self.state) >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
        x * (1.0 + self.size * uniform)
    }
}

/// Whether an op adds up more than two terms.
fn has_sum(op: &Op) -> bool {
    matches!(
        op,
        Op::Dot
            | Op::DotNt
            | Op::DotTn
            | Op::MatMul { .. }
            | Op::Sum(_)
            | Op::Norm(_)
            | Op::Divisor(_)
            | Op::SumRows(_)
            | Op::ScatterAdd(_)
    )
}

fn evaluate_with(
    program: &Draft,
    values: &Values,
    sizes: &Sizes,
    wanted: &[Value],
    rounding: &mut Rounding,
) -> Vec<Data> {
    let graph = &program.graph;
    let (order, mut slots) = prepare(graph, wanted, values, sizes);
    run(graph, &order, sizes, &mut slots, rounding);
    wanted.iter().map(|v| slots[v.index()].clone()).collect()
}

fn leaf_name(op: &Op) -> &str {
    match op {
        Op::Parameter(name) | Op::Input(name) => name,
        _ => panic!("an update replaces a parameter or an input, not `{}`", op.name()),
    }
}

/// The nodes to compute for the roots, in order, and a slot for every value of the graph: that of a leaf filled,
/// as far as the graph itself and `values` know it, that of another needed node zeroed, all others empty.
fn prepare(graph: &Graph, roots: &[Value], values: &Values, sizes: &Sizes) -> (Vec<Value>, Vec<Data>) {
    let needed = graph.reachable(roots.iter().copied());
    let slots = graph.values().map(|v| {
        let ty = graph.ty(v);
        match graph.op(v) {
            _ if !needed[v.index()] => Data { ty: Type::float(Extent::Shared, ()), x: Vec::new() },
            Op::Parameter(name) | Op::Input(name) => {
                let data = values.get(name).unwrap_or_else(|| panic!("no value is given for `{name}`"));
                assert_eq!(data.ty, *ty, "the value given for `{name}` has another type");
                assert_eq!(data.x.len(), times(sizes.rows(ty.extent), ty.shape.len()), "`{name}` has another size");
                data.clone()
            }
            Op::Constant(value) => filled(ty, sizes, *value),
            // What is evaluated as it was recorded is not in training.
            Op::Training => filled(ty, sizes, 0.0),
            Op::RowCount(extent) => filled(ty, sizes, sizes.rows(*extent) as f64),
            _ => Data::zeros(ty.clone(), sizes),
        }
    });
    let slots = slots.collect();
    // Results of a scan are set when the scan is run.
    let computed = |v: &Value| needed[v.index()] && !graph.op(*v).is_leaf() && !is_result(graph.op(*v));
    (graph.values().filter(computed).collect(), slots)
}

fn filled(ty: &Type, sizes: &Sizes, value: f64) -> Data {
    let mut data = Data::zeros(ty.clone(), sizes);
    data.x.fill(Dual::new(value));
    data
}

/// Computes the nodes in `order`; slots are as [`prepare`] made them, or as a former run left them.
fn run(graph: &Graph, order: &[Value], sizes: &Sizes, slots: &mut [Data], rounding: &mut Rounding) {
    for &v in order {
        let node = graph.node(v);
        // Operands come before their users.
        let (before, rest) = slots.split_at_mut(v.index());
        let args: Vec<&Data> = node.operands.iter().map(|o| &before[o.index()]).collect();
        let rounded = rounding.terms(&node.op, &args);
        let args: Vec<&Data> = rounded.as_ref().map_or(args, |rounded| rounded.iter().collect());
        let out = &mut rest[0];
        match node.op.row().eval {
            Eval::Pointwise(f) => pointwise(&node.op, f, &args, out),
            Eval::Row(f) => {
                out.x.fill(Dual::default());
                for (r, row) in out.x.chunks_mut(out.ty.shape.len()).enumerate() {
                    let rows: Vec<RowArg> = args.iter().map(|a| RowArg { shape: &a.ty.shape, x: a.row(r) }).collect();
                    f(&node.op, &rows, &out.ty.shape, row);
                }
            }
            Eval::Rows(f) => {
                out.x.fill(Dual::default());
                f(&node.op, &args, sizes, out);
            }
            Eval::Interpreter => {
                let Op::Scan(scan) = &node.op else { panic!("nothing evaluates `{}`", node.op.name()) };
                let results = run_scan(scan, &args, sizes, rounding);
                for user in graph.users(v) {
                    rest[user.index() - v.index()] = match *graph.op(user) {
                        Op::Yield(i) => results.yields[i].clone(),
                        Op::Final(i) => results.finals[i].clone(),
                        Op::Total(i) => results.totals[i].clone(),
                        ref op => panic!("`{}` is not a result of a scan", op.name()),
                    };
                }
                continue;
            }
        }
        rounding.apply(&node.op, out);
    }
}

fn pointwise(op: &Op, f: fn(&Op, &[Dual]) -> Dual, args: &[&Data], out: &mut Data) {
    let mut x = vec![Dual::default(); args.len()];
    for (r, row) in out.x.chunks_mut(out.ty.shape.len()).enumerate() {
        for (i, o) in row.iter_mut().enumerate() {
            for (x, a) in x.iter_mut().zip(args) {
                // A scalar meets every feature.
                *x = a.row(r)[if a.ty.shape.rank() == 0 { 0 } else { i }];
            }
            *o = f(op, &x);
        }
    }
}

/// The results of a scan, in the order of its ports.
struct Results {
    yields: Vec<Data>,
    finals: Vec<Data>,
    totals: Vec<Data>,
}

fn run_scan(scan: &Scan, operands: &[&Data], sizes: &Sizes, rounding: &mut Rounding) -> Results {
    let body = &scan.body;
    let expected = scan.captures.len() + scan.each.len() + scan.carries.len();
    assert_eq!(operands.len(), expected, "operands of scan `{}`", scan.name);
    let (captures, rest) = operands.split_at(scan.captures.len());
    let (each, initial) = rest.split_at(scan.each.len());

    let (order, mut slots) = prepare(body, &scan.roots(), &Values::new(), sizes);
    let mut bind = |leaf: Value, data: &Data| {
        assert_eq!(data.ty, *body.ty(leaf), "an operand of scan `{}` has another type than its leaf", scan.name);
        slots[leaf.index()] = data.clone();
    };
    for (port, data) in scan.captures.iter().zip(captures) {
        bind(port.value, data);
    }
    for (carry, data) in scan.carries.iter().zip(initial) {
        bind(carry.value, data);
    }
    for (port, sequence) in scan.each.iter().zip(each) {
        let ty = body.ty(port.value);
        assert_eq!(sequence.ty, ty.at(Extent::Time(scan.axis)), "a sequence of scan `{}` has another type", scan.name);
        slots[port.value.index()] = Data::zeros(ty.clone(), sizes);
    }

    let mut yields: Vec<Data> = (0..scan.yields.len()).map(|i| Data::zeros(scan.yield_type(i), sizes)).collect();
    let mut totals: Vec<Data> = (0..scan.sums.len()).map(|i| Data::zeros(scan.total_type(i), sizes)).collect();
    let mut next = Vec::new();
    let steps = sizes.steps(scan.axis);
    for i in 0..steps {
        let t = if scan.reverse { steps - 1 - i } else { i };
        for (port, sequence) in scan.each.iter().zip(each) {
            let now = &mut slots[port.value.index()].x;
            let n = now.len();
            now.copy_from_slice(&sequence.x[t * n..][..n]);
        }
        run(body, &order, sizes, &mut slots, rounding);
        for (port, out) in scan.yields.iter().zip(&mut yields) {
            let now = &slots[port.value.index()];
            assert_eq!(now.ty.extent, Extent::Batch, "scan `{}` yields a value that is not of a batch", scan.name);
            let n = now.x.len();
            out.x[t * n..][..n].copy_from_slice(&now.x);
        }
        for (port, total) in scan.sums.iter().zip(&mut totals) {
            for (sum, x) in total.x.iter_mut().zip(&slots[port.value.index()].x) {
                *sum = *sum + *x;
                if rounding.size != 0.0 {
                    sum.re = rounding.rounded(sum.re);
                }
            }
        }
        // All next values are read before any carry is written: one may be another's carry.
        next.clear();
        for carry in &scan.carries {
            next.extend_from_slice(&slots[carry.next.index()].x);
        }
        let mut from = 0;
        for carry in &scan.carries {
            let state = &mut slots[carry.value.index()].x;
            let n = state.len();
            state.copy_from_slice(&next[from..][..n]);
            from += n;
        }
        assert_eq!(from, next.len(), "a carry of scan `{}` does not keep its type", scan.name);
    }
    let finals = scan.carries.iter().map(|c| slots[c.value.index()].clone()).collect();
    Results { yields, finals, totals }
}

/// Pseudo-random values for all parameters and inputs: floats around 0 with standard deviation ½ (within ±1.5),
/// integers below the input's bound, or below 2 where it has none.
///
/// A value depends on the seed, its name and its size alone, so a pass that adds, drops or reorders leaves leaves the
/// values of the others as they were.
pub fn random_values(program: &Draft, sizes: &Sizes, seed: u64) -> Values {
    let parameters = program.parameters.iter().map(|p| (&p.name, p.value, None));
    let inputs = program.inputs.iter().map(|i| (&i.name, i.value, i.bound));
    let random = |(name, leaf, bound): (&String, Value, Option<usize>)| {
        let mut state = named_seed(name, seed);
        let mut data = Data::zeros(program.ty(leaf).clone(), sizes);
        for x in &mut data.x {
            x.re = match (data.ty.is_float(), bound.unwrap_or(2)) {
                (true, _) => bell(&mut state),
                (false, bound) => (splitmix64(&mut state) % bound as u64) as f64,
            };
        }
        (name.clone(), data)
    };
    parameters.chain(inputs).map(random).collect()
}

/// Sets the direction of the derivative: `du` of the named floats, or of all floats where no name is given, to
/// pseudo-random numbers. Those of others stay.
///
/// # Panics
/// If a named value is missing or is not a float.
pub fn seed_tangents(values: &mut Values, names: &[String], seed: u64) {
    for name in names {
        let data = values.get(name).unwrap_or_else(|| panic!("no value is given for `{name}`"));
        assert!(data.ty.is_float(), "`{name}` is an integer: it has no tangent");
    }
    for (name, data) in values {
        if data.ty.is_float() && (names.is_empty() || names.contains(name)) {
            // Another stream than that of the value itself, even for the same seed.
            let mut state = named_seed(name, !seed);
            data.x.iter_mut().for_each(|x| x.du = bell(&mut state));
        }
    }
}

/// FNV-1a of the name, mixed with the seed.
fn named_seed(name: &str, seed: u64) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    hash ^ splitmix64(&mut seed.clone())
}

/// Steele, Lea & Flood (2014).
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Half the sum of three uniform numbers in ±1: bell-shaped, mean 0, variance ¼.
fn bell(state: &mut u64) -> f64 {
    let mut uniform = || (splitmix64(state) >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
    0.5 * (uniform() + uniform() + uniform())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::op::{Binary, Unary};
    use crate::ir::program::{Input, Parameter, Update};
    use crate::ir::scan::{Carry, Port};
    use crate::ir::types::{Axis, DType};
    use crate::ir::{Init, Shape};

    const TIME: Extent = Extent::Time(Axis(0));

    fn port(value: Value) -> Port {
        Port { name: String::new(), value }
    }

    fn input(p: &mut Draft, name: &str, ty: Type) -> Value {
        let value = p.graph.leaf(Op::Input(name.into()), ty);
        p.inputs.push(Input { name: name.into(), value, bound: None });
        value
    }

    fn given(p: &Draft, name: &str, x: &[f64]) -> (String, Data) {
        let ty = p.ty(p.input(name).expect("an input of the test").value).clone();
        (name.into(), Data { ty, x: x.iter().map(|&x| Dual::new(x)).collect() })
    }

    fn re(data: &Data) -> Vec<f64> {
        data.x.iter().map(|x| x.re).collect()
    }

    /// h ← a·h + x, which yields h, totals (step-wise) the old h and gives the last h, both ways through time.
    #[test]
    fn a_scan_runs_either_way() {
        for reverse in [false, true] {
            let mut p = Draft::new("decay");
            let a = input(&mut p, "a", Type::float(Extent::Shared, ()));
            let x = input(&mut p, "x", Type::float(TIME, ()));
            let h0 = input(&mut p, "h0", Type::float(Extent::Batch, ()));
            let mut scan = Scan::new("decay", Axis(0), reverse);
            let ca = scan.body.leaf(Op::Capture(0), Type::float(Extent::Shared, ()));
            let ex = scan.body.leaf(Op::Each(0), Type::float(Extent::Batch, ()));
            let h = scan.body.leaf(Op::Carry(0), Type::float(Extent::Batch, ()));
            let kept = scan.body.binary(Binary::Mul, ca, h);
            let next = scan.body.binary(Binary::Add, kept, ex);
            scan.captures.push(port(ca));
            scan.each.push(port(ex));
            scan.carries.push(Carry { name: "h".into(), value: h, next });
            scan.yields.push(port(next));
            scan.sums.push(port(h));
            let node = p.graph.add(Op::Scan(Box::new(scan)), &[a, x, h0]);
            for (name, op) in [("all", Op::Yield(0)), ("last", Op::Final(0)), ("sum", Op::Total(0))] {
                let v = p.graph.scan_result(node, op);
                p.outputs.push((name.into(), v));
            }
            let mut values = Values::from([
                given(&p, "a", &[2.0]),
                given(&p, "x", &[1.0, 10.0, 2.0, 20.0, 3.0, 30.0]),
                given(&p, "h0", &[1.0, 0.0]),
            ]);
            values.get_mut("a").expect("given").x[0].du = 1.0;
            let out = interpret(&p, &values, &Sizes::new(3, 2)).outputs;
            if reverse {
                assert_eq!(re(&out["all"]), [25.0, 170.0, 12.0, 80.0, 5.0, 30.0]);
                assert_eq!(re(&out["last"]), [25.0, 170.0]);
                assert_eq!(re(&out["sum"]), [1.0 + 5.0 + 12.0, 0.0 + 30.0 + 80.0]);
                // h₁ = a·h₀ + 3, h₂ = a·h₁ + 2, h₃ = a·h₂ + 1: ḣ₃ = h₂ + a(h₁ + a·h₀)
                assert_eq!(out["last"].x[0].du, 12.0 + 2.0 * (5.0 + 2.0));
            } else {
                assert_eq!(re(&out["all"]), [3.0, 10.0, 8.0, 40.0, 19.0, 110.0]);
                assert_eq!(re(&out["last"]), [19.0, 110.0]);
                assert_eq!(re(&out["sum"]), [1.0 + 3.0 + 8.0, 0.0 + 10.0 + 40.0]);
                assert_eq!(out["last"].x[0].du, 8.0 + 2.0 * (3.0 + 2.0));
            }
        }
    }

    /// (a, b) ← (b, a + b): a carry whose next value is another carry.
    #[test]
    fn carries_step_at_once() {
        let mut p = Draft::new("fibonacci");
        let ty = Type::float(Extent::Shared, ());
        let (a0, b0) = (p.graph.scalar(0.0), p.graph.scalar(1.0));
        let mut scan = Scan::new("fibonacci", Axis(0), false);
        let a = scan.body.leaf(Op::Carry(0), ty.clone());
        let b = scan.body.leaf(Op::Carry(1), ty);
        let sum = scan.body.binary(Binary::Add, a, b);
        scan.carries.push(Carry { name: "a".into(), value: a, next: b });
        scan.carries.push(Carry { name: "b".into(), value: b, next: sum });
        let node = p.graph.add(Op::Scan(Box::new(scan)), &[a0, b0]);
        let last = [p.graph.scan_result(node, Op::Final(0)), p.graph.scan_result(node, Op::Final(1))];
        let out = evaluate(&p, &Values::new(), &Sizes::new(10, 1), &last);
        assert_eq!((out[0].x[0].re, out[1].x[0].re), (55.0, 89.0));
    }

    /// A body's sums over features start anew at every step.
    #[test]
    fn slots_of_a_body_are_fresh_at_every_step() {
        let mut p = Draft::new("sums");
        let x = input(&mut p, "x", Type::float(TIME, 2));
        let mut scan = Scan::new("sums", Axis(0), false);
        let ex = scan.body.leaf(Op::Each(0), Type::float(Extent::Batch, 2));
        let features = scan.body.add(Op::Sum(Shape(vec![1])), &[ex]);
        let rows = scan.body.add(Op::SumRows(Extent::Shared), &[features]);
        scan.each.push(port(ex));
        scan.yields.push(port(features));
        scan.sums.push(port(rows));
        let node = p.graph.add(Op::Scan(Box::new(scan)), &[x]);
        let wanted = [p.graph.scan_result(node, Op::Yield(0)), p.graph.scan_result(node, Op::Total(0))];
        let values = Values::from([given(&p, "x", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])]);
        let out = evaluate(&p, &values, &Sizes::new(2, 2), &wanted);
        assert_eq!(re(&out[0]), [3.0, 7.0, 11.0, 15.0]);
        assert_eq!(re(&out[1]), [36.0]);
    }

    #[test]
    fn a_program_gives_outputs_objective_and_updates() {
        let mut p = Draft::new("step");
        let w = p.graph.leaf(Op::Parameter("w".into()), Type::float(Extent::Shared, 2));
        p.parameters.push(Parameter { name: "w".into(), value: w, init: Init::Constant(0.0), trained: true });
        let unused = input(&mut p, "unused", Type::float(TIME, 2));
        p.graph.unary(Unary::Exp, unused);
        let rows = p.graph.leaf(Op::RowCount(TIME), Type::float(Extent::Shared, ()));
        let scaled = p.graph.binary(Binary::Mul, w, rows);
        let sum = p.graph.add(Op::Sum(Shape(vec![1])), &[scaled]);
        let loss = p.graph.add(Op::Reshape(Shape::scalar()), &[sum]);
        p.outputs.push(("scaled".into(), scaled));
        p.objective = Some(loss);
        p.updates.push(Update { target: w, value: scaled });
        let ty = Type::float(Extent::Shared, 2);
        let x = vec![Dual { re: 1.0, du: 0.5 }, Dual { re: -3.0, du: 0.0 }];
        let out = interpret(&p, &Values::from([("w".into(), Data { ty, x })]), &Sizes::new(5, 2));
        assert_eq!(re(&out.outputs["scaled"]), [10.0, -30.0]);
        assert_eq!(out.objective, Some(Dual { re: -20.0, du: 5.0 }));
        assert_eq!(out.updates, [("w".to_string(), out.outputs["scaled"].clone())]);
    }

    #[test]
    #[should_panic(expected = "no value is given for `x`")]
    fn a_missing_value_is_named() {
        let mut p = Draft::new("p");
        let x = input(&mut p, "x", Type::float(Extent::Batch, 2));
        evaluate(&p, &Values::new(), &Sizes::new(1, 1), &[x]);
    }

    #[test]
    fn random_values_follow_name_and_seed() {
        let mut p = Draft::new("p");
        let ty = Type::float(Extent::Batch, 500);
        input(&mut p, "x", ty.clone());
        let one = random_values(&p, &Sizes::new(1, 2), 7);
        input(&mut p, "a", ty);
        let label = p.graph.leaf(Op::Input("label".into()), Type::int(Extent::Batch, 100));
        p.inputs.push(Input { name: "label".into(), value: label, bound: Some(5) });
        let mut two = random_values(&p, &Sizes::new(1, 2), 7);
        assert_eq!(one["x"], two["x"]);
        assert_ne!(two["a"].x, two["x"].x);
        assert_ne!(random_values(&p, &Sizes::new(1, 2), 8)["x"], two["x"]);
        assert_eq!(two["label"].ty.dtype, DType::I32);
        let labels: std::collections::BTreeSet<i64> = two["label"].x.iter().map(|x| x.re as i64).collect();
        assert_eq!(labels, (0..5).collect());
        let variance = two["x"].x.iter().map(|x| x.re * x.re).sum::<f64>() / 1000.0;
        assert!((0.2..0.3).contains(&variance), "{variance}");

        seed_tangents(&mut two, &["x".to_string()], 7);
        assert!(two["x"].x.iter().all(|x| x.du != 0.0 && x.du != x.re));
        assert!(two["a"].x.iter().all(|x| x.du == 0.0));
        seed_tangents(&mut two, &[], 7);
        assert!(two["a"].x.iter().all(|x| x.du != 0.0));
        assert!(two["label"].x.iter().all(|x| x.du == 0.0));
    }
}
