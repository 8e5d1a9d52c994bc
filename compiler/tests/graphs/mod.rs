//! Programs for the tests of derivatives, built by hand on graphs and scans.

use retrograd_compiler::ir::scan::{Carry, Port};
use retrograd_compiler::ir::{
    Axis, Binary, Draft, Extent, Graph, Init, Input, Op, Parameter, Program, Scan, Shape, Type, Unary, Value,
};

pub const TIME: Extent = Extent::Time(Axis(0));
pub const OTHER: Extent = Extent::Time(Axis(1));
use Extent::{Batch, Shared};

/// Every program, by name. All have an objective.
pub fn corpus() -> Vec<(&'static str, Program)> {
    vec![
        ("rnn, last", rnn(Loss::Last)),
        ("rnn, every step", rnn(Loss::Every)),
        ("rnn, total", rnn(Loss::Total)),
        ("rnn, mixed", rnn(Loss::Mixed)),
        ("lstm", lstm()),
        ("gru", gru()),
        ("shared states", shared_states()),
        ("encoder and decoder", encoder_decoder()),
        ("feedback by argmax", feedback()),
        ("attention", attention()),
        ("state corner cases", corners()),
        ("pointwise", pointwise()),
        ("rows", rows()),
        ("sum of two", sum_of_two(false)),
    ]
}

/// The program of a draft, with names for the axes.
fn finish(mut p: Draft) -> Program {
    p.axes = vec!["time".into(), "other".into()];
    p.finish().expect("a program without mistakes")
}

pub fn param(p: &mut Draft, name: &str, shape: impl Into<Shape>) -> Value {
    let value = p.graph.leaf(Op::Parameter(name.into()), Type::float(Shared, shape));
    p.parameters.push(Parameter { name: name.into(), value, init: Init::Normal(0.5), trained: true });
    value
}

pub fn input(p: &mut Draft, name: &str, ty: Type) -> Value {
    let bound = (!ty.is_float()).then_some(4);
    let value = p.graph.leaf(Op::Input(name.into()), ty);
    p.inputs.push(Input { name: name.into(), value, bound });
    value
}

/// A scan in the making, with its operands.
pub struct Loop {
    pub scan: Scan,
    captures: Vec<Value>,
    each: Vec<Value>,
    initial: Vec<Value>,
}

impl Loop {
    pub fn new(name: &str, axis: u8, reverse: bool) -> Loop {
        let scan = Scan::new(name, Axis(axis), reverse);
        Loop { scan, captures: Vec::new(), each: Vec::new(), initial: Vec::new() }
    }
    pub fn capture(&mut self, g: &Graph, name: &str, outside: Value) -> Value {
        let value = self.scan.body.leaf(Op::Capture(self.captures.len()), g.ty(outside).clone());
        self.captures.push(outside);
        self.scan.captures.push(Port { name: name.into(), value });
        value
    }
    pub fn each(&mut self, g: &Graph, name: &str, outside: Value) -> Value {
        let value = self.scan.body.leaf(Op::Each(self.each.len()), g.ty(outside).at(Batch));
        self.each.push(outside);
        self.scan.each.push(Port { name: name.into(), value });
        value
    }
    pub fn carry(&mut self, g: &Graph, name: &str, initial: Value) -> Value {
        let value = self.scan.body.leaf(Op::Carry(self.initial.len()), g.ty(initial).clone());
        self.initial.push(initial);
        self.scan.carries.push(Carry { name: name.into(), value, next: value });
        value
    }
    pub fn next(&mut self, state: Value, next: Value) {
        self.scan.carries.iter_mut().find(|c| c.value == state).expect("a state").next = next;
    }
    pub fn yields(&mut self, name: &str, value: Value) {
        self.scan.yields.push(Port { name: name.into(), value });
    }
    pub fn sum(&mut self, name: &str, value: Value) {
        self.scan.sums.push(Port { name: name.into(), value });
    }
    pub fn b(&mut self) -> &mut Graph {
        &mut self.scan.body
    }
    pub fn finish(self, g: &mut Graph) -> Value {
        g.add(Op::Scan(Box::new(self.scan)), &[self.captures, self.each, self.initial].concat())
    }
}

fn add(g: &mut Graph, a: Value, b: Value) -> Value {
    g.binary(Binary::Add, a, b)
}
fn sub(g: &mut Graph, a: Value, b: Value) -> Value {
    g.binary(Binary::Sub, a, b)
}
fn mul(g: &mut Graph, a: Value, b: Value) -> Value {
    g.binary(Binary::Mul, a, b)
}
fn dot(g: &mut Graph, a: Value, b: Value) -> Value {
    g.add(Op::Dot, &[a, b])
}
fn zeros(g: &mut Graph, n: usize) -> Value {
    g.constant(0.0, Type::float(Batch, n))
}
fn slice(g: &mut Graph, v: Value, start: usize, len: usize) -> Value {
    g.add(Op::Slice { axis: g.ty(v).shape.rank() - 1, start, len }, &[v])
}

/// The sum of all features of all rows.
pub fn total(g: &mut Graph, v: Value) -> Value {
    g.sum_to(v, &Type::float(Shared, ()))
}

/// Σ sin(v): a loss with a curvature.
fn loss(g: &mut Graph, v: Value) -> Value {
    let sine = g.unary(Unary::Sin, v);
    total(g, sine)
}

/// Softmax of the last dimension, with its maximum taken off.
fn softmax(g: &mut Graph, v: Value) -> Value {
    let (large, small) = (g.ty(v).shape.clone(), g.ty(v).shape.with_last(1));
    let max = g.add(Op::Max(small.clone()), &[v]);
    let max = g.add(Op::Broadcast(large.clone()), &[max]);
    let less = sub(g, v, max);
    let e = g.unary(Unary::Exp, less);
    let sum = g.add(Op::Sum(small), &[e]);
    let sum = g.add(Op::Broadcast(large), &[sum]);
    g.binary(Binary::Div, e, sum)
}

/// Where the loss is taken.
#[derive(Clone, Copy, PartialEq)]
pub enum Loss {
    Last,
    Every,
    Total,
    Mixed,
}

/// h = tanh(x·W_x + h·W_h + b), its loss at the last step, at every step, in the scan, or all three.
pub fn rnn(at: Loss) -> Program {
    let mut p = Draft::new("rnn");
    let x = input(&mut p, "x", Type::float(TIME, 2));
    let (w_x, w_h, b) = (param(&mut p, "w_x", [2, 3]), param(&mut p, "w_h", [3, 3]), param(&mut p, "b", 3));
    let g = &mut p.graph;
    let h0 = zeros(g, 3);
    let mut l = Loop::new("rnn", 0, false);
    let (x, h) = (l.each(g, "x", x), l.carry(g, "h", h0));
    let (w_x, w_h, b) = (l.capture(g, "w_x", w_x), l.capture(g, "w_h", w_h), l.capture(g, "b", b));
    let body = l.b();
    let (from_x, from_h) = (dot(body, x, w_x), dot(body, h, w_h));
    let sum = add(body, from_x, from_h);
    let sum = add(body, sum, b);
    let h1 = body.unary(Unary::Tanh, sum);
    let step_loss = loss(body, h1);
    l.next(h, h1);
    l.yields("out", h1);
    l.sum("loss", step_loss);
    let run = l.finish(g);
    let last = g.scan_result(run, Op::Final(0));
    let mut parts = Vec::new();
    if matches!(at, Loss::Last | Loss::Mixed) {
        let squared = mul(g, last, last);
        parts.push(total(g, squared));
    }
    if matches!(at, Loss::Every | Loss::Mixed) {
        let all = g.scan_result(run, Op::Yield(0));
        let e = g.unary(Unary::Exp, all);
        parts.push(total(g, e));
    }
    if matches!(at, Loss::Total | Loss::Mixed) {
        parts.push(g.scan_result(run, Op::Total(0)));
    }
    p.objective = parts.into_iter().reduce(|a, b| add(g, a, b));
    p.outputs.push(("h".into(), last));
    finish(p)
}

/// Gates on [h; x], every output in the loss.
pub fn lstm() -> Program {
    let (n, units) = (2, 3);
    let mut p = Draft::new("lstm");
    let x = input(&mut p, "x", Type::float(TIME, n));
    let (w, b) = (param(&mut p, "w", [units + n, 4 * units]), param(&mut p, "b", 4 * units));
    let g = &mut p.graph;
    let (h0, c0) = (zeros(g, units), zeros(g, units));
    let mut l = Loop::new("lstm", 0, false);
    let (w, b) = (l.capture(g, "w", w), l.capture(g, "b", b));
    let (x, h, c) = (l.each(g, "x", x), l.carry(g, "h", h0), l.carry(g, "c", c0));
    let body = l.b();
    let hx = body.add(Op::Concat(0), &[h, x]);
    let gates = dot(body, hx, w);
    let gates = add(body, gates, b);
    let gate = |body: &mut Graph, i, f| {
        let z = slice(body, gates, i * units, units);
        body.unary(f, z)
    };
    let (i, f, o) = (gate(body, 0, Unary::Sigmoid), gate(body, 1, Unary::Sigmoid), gate(body, 2, Unary::Sigmoid));
    let candidate = gate(body, 3, Unary::Tanh);
    let (kept, new) = (mul(body, f, c), mul(body, i, candidate));
    let c1 = add(body, kept, new);
    let squashed = body.unary(Unary::Tanh, c1);
    let h1 = mul(body, o, squashed);
    l.next(h, h1);
    l.next(c, c1);
    l.yields("out", h1);
    let run = l.finish(g);
    let all = g.scan_result(run, Op::Yield(0));
    let objective = loss(g, all);
    p.outputs.push(("h".into(), all));
    p.objective = Some(objective);
    finish(p)
}

/// Initial state from a parameter, a batch value captured, the reset gate before the product; run in reverse.
fn gru() -> Program {
    let mut p = Draft::new("gru");
    let x = input(&mut p, "x", Type::float(TIME, 3));
    let context = input(&mut p, "context", Type::float(Batch, 2));
    let (w, u, v) = (param(&mut p, "w", [3, 9]), param(&mut p, "u", [3, 6]), param(&mut p, "v", [3, 3]));
    let (h0, c) = (param(&mut p, "h0", 3), param(&mut p, "c", [2, 3]));
    let g = &mut p.graph;
    let context = dot(g, context, c);
    let h0 = g.add(Op::Expand(Batch), &[h0]);
    let mut l = Loop::new("gru", 0, true);
    let (x, h) = (l.each(g, "x", x), l.carry(g, "h", h0));
    let context = l.capture(g, "context", context);
    let (w, u, v) = (l.capture(g, "w", w), l.capture(g, "u", u), l.capture(g, "v", v));
    let body = l.b();
    let (from_x, from_h) = (dot(body, x, w), dot(body, h, u));
    let gate = |body: &mut Graph, start| {
        let (a, b) = (slice(body, from_x, start, 3), slice(body, from_h, start, 3));
        let sum = add(body, a, b);
        body.unary(Unary::Sigmoid, sum)
    };
    let (z, r) = (gate(body, 0), gate(body, 3));
    let reset = mul(body, r, h);
    let from_reset = dot(body, reset, v);
    let rest = slice(body, from_x, 6, 3);
    let sum = add(body, from_reset, rest);
    let sum = add(body, sum, context);
    let candidate = body.unary(Unary::Tanh, sum);
    let change = sub(body, h, candidate);
    let kept = mul(body, z, change);
    let h1 = add(body, candidate, kept);
    l.next(h, h1);
    l.yields("out", h1);
    let run = l.finish(g);
    let (all, last) = (g.scan_result(run, Op::Yield(0)), g.scan_result(run, Op::Final(0)));
    let at_end = g.add(Op::Last, &[all]);
    let product = mul(g, last, at_end);
    let (a, b) = (loss(g, product), loss(g, all));
    p.objective = Some(add(g, a, b));
    p.outputs.push(("h".into(), last));
    finish(p)
}

/// States without a batch: a vector, a matrix that rows are multiplied with, and an index found in the vector.
fn shared_states() -> Program {
    let mut p = Draft::new("shared");
    let x = input(&mut p, "x", Type::float(TIME, 3));
    let (s0, a, m0) = (param(&mut p, "s0", 3), param(&mut p, "a", 3), param(&mut p, "m0", [3, 2]));
    let (table, h0) = (param(&mut p, "table", [3, 2]), param(&mut p, "h0", 2));
    let g = &mut p.graph;
    let h0 = g.add(Op::Expand(Batch), &[h0]);
    let mut l = Loop::new("shared", 0, false);
    let (a, table) = (l.capture(g, "a", a), l.capture(g, "table", table));
    let x = l.each(g, "x", x);
    let (s, m, h) = (l.carry(g, "s", s0), l.carry(g, "m", m0), l.carry(g, "h", h0));
    let body = l.b();
    let moved = mul(body, s, a);
    let s1 = body.unary(Unary::Sin, moved);
    let chosen = body.add(Op::Argmax, &[s1]);
    let row = body.add(Op::Gather, &[table, chosen]);
    let m1 = body.unary(Unary::Tanh, m);
    let factors = row_as_matrix(body, row);
    let m1 = mul(body, m1, factors);
    let xs = mul(body, x, s1);
    let product = dot(body, xs, m);
    let sum = add(body, product, h);
    let sum = add(body, sum, row);
    let h1 = body.unary(Unary::Tanh, sum);
    // The state moves by the mean of the batch too.
    let spill = body.add(Op::SumRows(Shared), &[xs]);
    let s2 = add(body, s1, spill);
    let s2 = body.unary(Unary::Tanh, s2);
    let shared_loss = loss(body, s2);
    l.next(s, s2);
    l.next(m, m1);
    l.next(h, h1);
    l.sum("loss", shared_loss);
    l.yields("out", h1);
    let run = l.finish(g);
    let (s, m) = (g.scan_result(run, Op::Final(0)), g.scan_result(run, Op::Final(1)));
    let (all, part) = (g.scan_result(run, Op::Yield(0)), g.scan_result(run, Op::Total(0)));
    let parts = [loss(g, s), loss(g, m), loss(g, all), part];
    p.objective = parts.into_iter().reduce(|a, b| add(g, a, b));
    p.outputs.extend([("s".into(), s), ("m".into(), m)]);
    finish(p)
}

fn row_as_matrix(g: &mut Graph, row: Value) -> Value {
    let row = g.add(Op::Reshape(Shape(vec![1, 2])), &[row]);
    g.add(Op::Broadcast(Shape(vec![3, 2])), &[row])
}

/// Two time axes: an encoder's last state starts a decoder, whose every step sees the encoder's sum.
fn encoder_decoder() -> Program {
    let mut p = Draft::new("translate");
    let (x, y) = (input(&mut p, "x", Type::float(TIME, 2)), input(&mut p, "y", Type::float(OTHER, 3)));
    let (e, d) = (param(&mut p, "e", [5, 3]), param(&mut p, "d", [6, 3]));
    let g = &mut p.graph;
    let h0 = zeros(g, 3);
    let cell = |g: &mut Graph, l: &mut Loop, x: Value, w: Value, h0: Value, c: Option<Value>| {
        let (x, w, h) = (l.each(g, "x", x), l.capture(g, "w", w), l.carry(g, "h", h0));
        let c = c.map(|c| l.capture(g, "c", c));
        let body = l.b();
        let hx = body.add(Op::Concat(0), &[h, x]);
        let mut z = dot(body, hx, w);
        if let Some(c) = c {
            z = add(body, z, c);
        }
        let h1 = body.unary(Unary::Softplus, z);
        let h1 = body.unary(Unary::Sin, h1);
        l.next(h, h1);
        l.yields("out", h1);
    };
    let mut encoder = Loop::new("encoder", 0, false);
    cell(g, &mut encoder, x, e, h0, None);
    let encoder = encoder.finish(g);
    let (last, all) = (g.scan_result(encoder, Op::Final(0)), g.scan_result(encoder, Op::Yield(0)));
    let squares = mul(g, all, all);
    let context = g.add(Op::SumRows(Batch), &[squares]);
    let mut decoder = Loop::new("decoder", 1, false);
    cell(g, &mut decoder, y, d, last, Some(context));
    let decoder = decoder.finish(g);
    let decoded = g.scan_result(decoder, Op::Yield(0));
    let objective = loss(g, decoded);
    p.objective = Some(objective);
    p.outputs.extend([("decoded".into(), decoded), ("context".into(), context)]);
    finish(p)
}

/// Embeddings of given indices, and of the index that the step before chose: integers are a state and saved.
fn feedback() -> Program {
    let mut p = Draft::new("feedback");
    let tokens = input(&mut p, "tokens", Type::int(TIME, ()));
    let first = input(&mut p, "first", Type::int(Batch, ()));
    let (table, w) = (param(&mut p, "table", [4, 3]), param(&mut p, "w", [6, 4]));
    let g = &mut p.graph;
    let embedded = g.add(Op::Gather, &[table, tokens]);
    let mut l = Loop::new("feedback", 0, false);
    let (table, w) = (l.capture(g, "table", table), l.capture(g, "w", w));
    let (x, chosen) = (l.each(g, "x", embedded), l.carry(g, "chosen", first));
    let body = l.b();
    let again = body.add(Op::Gather, &[table, chosen]);
    let both = body.add(Op::Concat(0), &[again, x]);
    let logits = dot(body, both, w);
    let weights = softmax(body, logits);
    let next = body.add(Op::Argmax, &[weights]);
    let seen = body.add(Op::OneHot(4), &[next]);
    let picked = mul(body, seen, weights);
    let (at_next, raw) = (body.add(Op::Gather, &[table, next]), body.add(Op::ToFloat, &[next]));
    let scaled = mul(body, at_next, raw);
    l.next(chosen, next);
    l.yields("weights", weights);
    l.yields("picked", picked);
    l.yields("scaled", scaled);
    let run = l.finish(g);
    let results: Vec<Value> = (0..3).map(|i| g.scan_result(run, Op::Yield(i))).collect();
    // A scatter of what comes out, by the given indices.
    let counts = g.add(Op::ScatterAdd(4), &[tokens, results[1]]);
    let parts = [loss(g, results[0]), loss(g, results[1]), loss(g, results[2]), loss(g, counts)];
    p.objective = parts.into_iter().reduce(|a, b| add(g, a, b));
    let last = g.scan_result(run, Op::Final(0));
    p.outputs.extend([("chosen".into(), last), ("weights".into(), results[0])]);
    finish(p)
}

/// A state asks a memory of the sample for what it is like: small products, transposes, softmax, layer norm.
fn attention() -> Program {
    let mut p = Draft::new("attention");
    let memory = input(&mut p, "memory", Type::float(Batch, [2, 3]));
    let x = input(&mut p, "x", Type::float(TIME, 3));
    let (k, q) = (param(&mut p, "k", [3, 3]), param(&mut p, "q", [3, 3]));
    let g = &mut p.graph;
    let h0 = zeros(g, 3);
    let mut l = Loop::new("attention", 0, false);
    let (memory, k, q) = (l.capture(g, "memory", memory), l.capture(g, "k", k), l.capture(g, "q", q));
    let (x, h) = (l.each(g, "x", x), l.carry(g, "h", h0));
    let body = l.b();
    // The keys do not depend on the step; they are computed in it all the same.
    let keys = dot(body, memory, k);
    let keys = body.unary(Unary::Tanh, keys);
    let ask = add(body, h, x);
    let ask = dot(body, ask, q);
    let ask = body.add(Op::Reshape(Shape(vec![1, 3])), &[ask]);
    let scores = body.add(Op::MatMul { ta: false, tb: true }, &[ask, keys]);
    let weights = softmax(body, scores);
    let turned = body.add(Op::Transpose(vec![1, 0]), &[weights]);
    let read = body.add(Op::MatMul { ta: true, tb: false }, &[turned, keys]);
    let read = body.add(Op::Reshape(Shape(vec![3])), &[read]);
    // Root mean square norm.
    let squares = body.unary(Unary::Powi(2), read);
    let sum = body.add(Op::Sum(Shape(vec![1])), &[squares]);
    let one = body.scalar(0.1);
    let sum = add(body, sum, one);
    let root = body.unary(Unary::Sqrt, sum);
    let root = body.add(Op::Broadcast(Shape(vec![3])), &[root]);
    let h1 = body.binary(Binary::Div, read, root);
    let strongest = body.add(Op::Max(Shape(vec![1])), &[h1]);
    l.next(h, h1);
    l.yields("out", h1);
    l.yields("strongest", strongest);
    let run = l.finish(g);
    let (all, strongest) = (g.scan_result(run, Op::Yield(0)), g.scan_result(run, Op::Yield(1)));
    let (a, b) = (loss(g, all), loss(g, strongest));
    p.objective = Some(add(g, a, b));
    p.outputs.push(("strongest".into(), strongest));
    finish(p)
}

/// Delay lines, a state that becomes a constant, one that only its initial value moves, one that nothing reads but
/// the outside, one that swaps with another, yields of a state and of a sequence, results taken twice.
fn corners() -> Program {
    let mut p = Draft::new("corners");
    let x = input(&mut p, "x", Type::float(TIME, 2));
    let (a, b, stopped) = (param(&mut p, "a", 2), param(&mut p, "b", 2), param(&mut p, "stopped", 2));
    let g = &mut p.graph;
    let (a_rows, b_rows) = (g.add(Op::Expand(Batch), &[a]), g.add(Op::Expand(Batch), &[b]));
    let zero = zeros(g, 2);
    let scaled = mul(g, x, b);
    let mut l = Loop::new("corners", 0, false);
    let (w, x) = (l.capture(g, "w", a), l.each(g, "x", scaled));
    let stopped = l.capture(g, "stopped", stopped);
    let first = l.carry(g, "first", zero);
    let second = l.carry(g, "second", a_rows);
    let third = l.carry(g, "third", b_rows);
    let reset = l.carry(g, "reset", a_rows);
    let kept = l.carry(g, "kept", b_rows);
    let written = l.carry(g, "written", zero);
    let (left, right) = (l.carry(g, "left", a_rows), l.carry(g, "right", zero));
    let body = l.b();
    let product = mul(body, x, w);
    let (p1, p2) = (mul(body, third, reset), mul(body, kept, left));
    let sum = add(body, p1, p2);
    let cube = body.unary(Unary::Powi(3), sum);
    let stopped = body.add(Op::StopGradient, &[stopped]);
    let cube = add(body, cube, stopped);
    let constant = body.constant(0.5, Type::float(Batch, 2));
    l.next(first, product);
    l.next(second, first);
    l.next(third, second);
    l.next(reset, constant);
    l.next(kept, kept);
    l.next(written, cube);
    l.next(left, right);
    l.next(right, left);
    l.yields("cube", cube);
    l.yields("cube_again", cube);
    l.yields("left_now", left);
    l.yields("x_now", x);
    l.sum("kept_sum", kept);
    let run = l.finish(g);
    let results: Vec<Value> = (0..4).map(|i| g.scan_result(run, Op::Yield(i))).collect();
    let again = g.scan_result(run, Op::Yield(0));
    let finals: Vec<Value> = (0..8).map(|i| g.scan_result(run, Op::Final(i))).collect();
    let kept_sum = g.scan_result(run, Op::Total(0));
    let crossed = mul(g, again, results[1]);
    let mut parts = vec![loss(g, crossed), loss(g, kept_sum)];
    for v in results.into_iter().chain(finals.iter().copied()) {
        parts.push(loss(g, v));
    }
    p.objective = parts.into_iter().reduce(|a, b| add(g, a, b));
    for (i, v) in finals.into_iter().enumerate() {
        p.outputs.push((format!("final{i}"), v));
    }
    finish(p)
}

/// Every differentiable function of one or two values, in a step and outside of it.
fn pointwise() -> Program {
    let mut p = Draft::new("pointwise");
    let x = input(&mut p, "x", Type::float(TIME, 3));
    let (w, s) = (param(&mut p, "w", 3), param(&mut p, "s", ()));
    let g = &mut p.graph;
    let outside = functions(g, w, s);
    let h0 = zeros(g, 3);
    let mut l = Loop::new("pointwise", 0, false);
    let (x, h) = (l.each(g, "x", x), l.carry(g, "h", h0));
    let (w, s) = (l.capture(g, "w", w), l.capture(g, "s", s));
    let body = l.b();
    let z = mul(body, h, s);
    let z = add(body, z, x);
    let z = add(body, z, w);
    let step = functions(body, z, s);
    let h1 = body.unary(Unary::Tanh, step);
    l.next(h, h1);
    l.yields("out", h1);
    let run = l.finish(g);
    let all = g.scan_result(run, Op::Yield(0));
    let parts = [loss(g, all), loss(g, outside)];
    p.objective = parts.into_iter().reduce(|a, b| add(g, a, b));
    finish(p)
}

fn functions(g: &mut Graph, x: Value, s: Value) -> Value {
    let one = g.scalar(1.0);
    let squared = mul(g, x, x);
    let positive = add(g, squared, one);
    let mut terms = Vec::new();
    for f in [
        Unary::Neg,
        Unary::Abs,
        Unary::Expm1,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Silu,
        Unary::Softplus,
        Unary::Relu,
        Unary::Erf,
        Unary::NormalCdf,
        Unary::Gelu,
        Unary::Sin,
        Unary::Cos,
        Unary::Powi(3),
        Unary::Powi(1),
    ] {
        terms.push(g.unary(f, x));
    }
    for f in [Unary::Sqrt, Unary::Ln, Unary::Log1p, Unary::Powi(-2)] {
        terms.push(g.unary(f, positive));
    }
    let shrunk = g.unary(Unary::Neg, positive);
    terms.push(g.unary(Unary::Exp, shrunk));
    terms.push(g.binary(Binary::Div, x, positive));
    terms.push(g.binary(Binary::Div, s, positive));
    terms.push(g.binary(Binary::Pow, positive, s));
    terms.push(g.binary(Binary::Min, x, s));
    terms.push(g.binary(Binary::Max, s, x));
    terms.push(g.binary(Binary::Sub, s, x));
    let mask = g.binary(Binary::Gt, x, s);
    let cubed = g.unary(Unary::Powi(3), x);
    terms.push(g.add(Op::Select, &[mask, cubed, s]));
    terms.push(g.add(Op::Select, &[x, s, cubed]));
    terms.into_iter().reduce(|a, b| add(g, a, b)).expect("some")
}

/// Without a scan: products over all rows, sums over extents, pad and stack, the last step and back.
fn rows() -> Program {
    let mut p = Draft::new("rows");
    let x = input(&mut p, "x", Type::float(TIME, 3));
    let (w, v) = (param(&mut p, "w", [3, 2]), param(&mut p, "v", [2, 2]));
    let g = &mut p.graph;
    let y = dot(g, x, w);
    let y = g.unary(Unary::Tanh, y);
    let gram = g.add(Op::DotTn, &[y, y]);
    let back = g.add(Op::DotNt, &[y, v]);
    let last = g.add(Op::Last, &[back]);
    let placed = g.add(Op::PlaceLast(Axis(0)), &[last]);
    let padded = g.add(Op::Pad { axis: 0, before: 1, after: 0 }, &[placed]);
    let wide = g.add(Op::Expand(Batch), &[gram]);
    let square = g.add(Op::MatMul { ta: true, tb: true }, &[wide, v]);
    let (a, b, c, d) = (loss(g, padded), loss(g, square), loss(g, back), loss(g, gram));
    let count = g.add(Op::RowCount(TIME), &[]);
    let mean = g.binary(Binary::Div, c, count);
    p.objective = [a, b, mean, d].into_iter().reduce(|a, b| add(g, a, b));
    p.outputs.extend([("gram".into(), gram), ("placed".into(), placed)]);
    finish(p)
}

/// y = w · (sin h₁ + sin h₂); with `both`, y = w · (sin h₁ + sin h₂) + w · sin h₁ + w · sin h₂.
pub fn sum_of_two(both: bool) -> Program {
    let mut p = Draft::new("two");
    let (x, w) = (input(&mut p, "x", Type::float(TIME, [2, 3])), param(&mut p, "w", 3));
    let g = &mut p.graph;
    let mut l = Loop::new("two", 0, false);
    let (x, w) = (l.each(g, "x", x), l.capture(g, "w", w));
    let body = l.b();
    let row = |body: &mut Graph, start| {
        let row = body.add(Op::Slice { axis: 0, start, len: 1 }, &[x]);
        let row = body.add(Op::Reshape(Shape(vec![3])), &[row]);
        body.unary(Unary::Sin, row)
    };
    let (a, b) = (row(body, 0), row(body, 1));
    let sum = add(body, a, b);
    let mut y = mul(body, sum, w);
    for v in [a, b].into_iter().filter(|_| both) {
        let part = mul(body, v, w);
        y = add(body, y, part);
    }
    l.yields("y", y);
    let run = l.finish(g);
    let all = g.scan_result(run, Op::Yield(0));
    let objective = loss(g, all);
    p.objective = Some(objective);
    finish(p)
}
