//! A program for every op of the table, with what its type rule allows: the op inside a loop, on operands that
//! depend on parameters and on a state that depends on the op's result; and the op behind the loop, on sequences.

use retrograd::compiler::ir::scan::{Carry, Port};
use retrograd::compiler::ir::{Binary, Draft, Graph, Input, Norm, Op, Parameter, Scan, Unary, Value};
use retrograd::prelude::*;

/// What numbers an operand has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Draw {
    /// A parameter, positive or not, times a factor from ½ to 1½.
    Float,
    /// The same, but positive.
    Positive,
    /// An input of 0 and 1.
    Mask,
    /// An input of integers below this.
    Below(usize),
}
use Draw::{Below, Float, Mask, Positive};

struct Sample {
    op: Op,
    operands: Vec<(Draw, Shape)>,
}

fn sample<const N: usize>(op: Op, operands: [(Draw, &[usize]); N]) -> Sample {
    Sample { op, operands: operands.map(|(draw, shape)| (draw, shape.into())).to_vec() }
}

const SCALAR: &[usize] = &[];
const ROW: &[usize] = &[3];
const MATRIX: &[usize] = &[2, 3];

fn unary(op: Unary, draw: Draw) -> Vec<Sample> {
    [SCALAR, ROW].map(|shape| sample(Op::Unary(op), [(draw, shape)])).into()
}

fn binary(op: Binary, first: Draw, second: Draw) -> Vec<Sample> {
    [(ROW, ROW), (SCALAR, ROW)].map(|(a, b)| sample(Op::Binary(op), [(first, a), (second, b)])).into()
}

/// One pattern for each op, with its samples; `[]` for leaves and scans, which every program here has. The match has
/// no wildcard: an op without a line does not compile.
macro_rules! table {
    ($($pattern:pat => $samples:expr,)*) => {
        /// What makes the list complete.
        pub fn is_in_table(op: &Op) {
            match op {
                $($pattern => (),)*
            }
        }

        fn table() -> Vec<Sample> {
            let mut all: Vec<Sample> = Vec::new();
            $({
                let samples: Vec<Sample> = Vec::from($samples);
                assert!(samples.iter().all(|s| matches!(s.op, $pattern)), "a sample stands on another op's line");
                all.extend(samples);
            })*
            all
        }
    };
}

table! {
    Op::Parameter(_) => [],
    Op::Input(_) => [],
    Op::Constant(_) => [],
    Op::Training => [],
    Op::RowCount(_) => [],
    Op::Capture(_) => [],
    Op::Each(_) => [],
    Op::Carry(_) => [],
    Op::Scan(_) => [],
    Op::Yield(_) => [],
    Op::Final(_) => [],
    Op::Total(_) => [],

    Op::Unary(Unary::Neg) => unary(Unary::Neg, Float),
    Op::Unary(Unary::Abs) => unary(Unary::Abs, Float),
    Op::Unary(Unary::Sign) => unary(Unary::Sign, Float),
    Op::Unary(Unary::Sqrt) => unary(Unary::Sqrt, Positive),
    Op::Unary(Unary::Exp) => unary(Unary::Exp, Float),
    Op::Unary(Unary::Expm1) => unary(Unary::Expm1, Float),
    Op::Unary(Unary::Ln) => unary(Unary::Ln, Positive),
    Op::Unary(Unary::Log1p) => unary(Unary::Log1p, Positive),
    Op::Unary(Unary::Tanh) => unary(Unary::Tanh, Float),
    Op::Unary(Unary::Sigmoid) => unary(Unary::Sigmoid, Float),
    Op::Unary(Unary::Silu) => unary(Unary::Silu, Float),
    Op::Unary(Unary::Softplus) => unary(Unary::Softplus, Float),
    Op::Unary(Unary::Relu) => unary(Unary::Relu, Float),
    Op::Unary(Unary::Erf) => unary(Unary::Erf, Float),
    Op::Unary(Unary::NormalCdf) => unary(Unary::NormalCdf, Float),
    Op::Unary(Unary::Gelu) => unary(Unary::Gelu, Float),
    Op::Unary(Unary::Sin) => unary(Unary::Sin, Float),
    Op::Unary(Unary::Cos) => unary(Unary::Cos, Float),
    Op::Unary(Unary::Powi(_)) => {
        let powers = [(0, Float), (1, Float), (2, Float), (3, Float), (7, Float), (-1, Positive), (-2, Positive)];
        powers.map(|(n, draw)| sample(Op::Unary(Unary::Powi(n)), [(draw, ROW)]))
    },

    Op::Binary(Binary::Add) => binary(Binary::Add, Float, Float),
    Op::Binary(Binary::Sub) => binary(Binary::Sub, Float, Float),
    Op::Binary(Binary::Mul) => binary(Binary::Mul, Float, Float),
    Op::Binary(Binary::Div) => binary(Binary::Div, Float, Positive),
    Op::Binary(Binary::Pow) => binary(Binary::Pow, Positive, Float),
    Op::Binary(Binary::Min) => binary(Binary::Min, Float, Float),
    Op::Binary(Binary::Max) => binary(Binary::Max, Float, Float),
    Op::Binary(Binary::Gt) => binary(Binary::Gt, Float, Float),
    Op::Binary(Binary::Ge) => binary(Binary::Ge, Float, Float),
    Op::Binary(Binary::Lt) => binary(Binary::Lt, Float, Float),
    Op::Binary(Binary::Le) => binary(Binary::Le, Float, Float),
    Op::Binary(Binary::Eq) => binary(Binary::Eq, Float, Float),
    Op::Binary(Binary::Ne) => binary(Binary::Ne, Float, Float),
    Op::Select => [
        sample(Op::Select, [(Mask, ROW), (Float, ROW), (Float, ROW)]),
        sample(Op::Select, [(Mask, SCALAR), (Float, ROW), (Float, SCALAR)]),
        sample(Op::Select, [(Mask, ROW), (Float, SCALAR), (Float, ROW)]),
        sample(Op::Select, [(Mask, SCALAR), (Below(9), ROW), (Below(9), ROW)]),
    ],
    Op::StopGradient => [sample(Op::StopGradient, [(Float, ROW)])],
    Op::ToFloat => [sample(Op::ToFloat, [(Below(9), ROW)])],

    Op::Dot => [sample(Op::Dot, [(Float, ROW), (Float, &[3, 4])]), sample(Op::Dot, [(Float, MATRIX), (Float, &[3, 2])])],
    Op::DotNt => [
        sample(Op::DotNt, [(Float, ROW), (Float, &[4, 3])]),
        sample(Op::DotNt, [(Float, MATRIX), (Float, &[2, 3])]),
    ],
    Op::DotTn => [sample(Op::DotTn, [(Float, ROW), (Float, &[4])]), sample(Op::DotTn, [(Float, MATRIX), (Float, &[2, 2])])],
    Op::MatMul { .. } => {
        let shapes = |t: bool, m: usize, n: usize| Shape(if t { vec![n, m] } else { vec![m, n] });
        [(false, false), (false, true), (true, false), (true, true)].map(|(ta, tb)| Sample {
            op: Op::MatMul { ta, tb },
            operands: vec![(Float, shapes(ta, 2, 3)), (Float, shapes(tb, 3, 2))],
        })
    },

    Op::Sum(_) => [
        sample(Op::Sum([1].into()), [(Float, ROW)]),
        sample(Op::Sum([2, 1].into()), [(Float, MATRIX)]),
        sample(Op::Sum([1, 3, 1].into()), [(Float, &[2, 3, 2])]),
    ],
    Op::Max(_) => [
        sample(Op::Max([1].into()), [(Float, ROW)]),
        sample(Op::Max([1, 3].into()), [(Float, MATRIX)]),
        sample(Op::Max([1, 3, 1].into()), [(Float, &[2, 3, 2])]),
    ],
    Op::Norm(_) => [
        sample(Op::Norm(Norm { centred: true, epsilon: 1e-5 }), [(Float, &[5])]),
        sample(Op::Norm(Norm { centred: true, epsilon: 0.5 }), [(Float, MATRIX)]),
        sample(Op::Norm(Norm { centred: false, epsilon: 1e-5 }), [(Float, &[5])]),
        sample(Op::Norm(Norm { centred: false, epsilon: 0.5 }), [(Float, MATRIX)]),
    ],
    Op::Divisor(_) => [
        sample(Op::Divisor(Norm { centred: true, epsilon: 1e-5 }), [(Float, &[5])]),
        sample(Op::Divisor(Norm { centred: false, epsilon: 0.5 }), [(Float, MATRIX)]),
    ],
    Op::Broadcast(_) => [
        sample(Op::Broadcast(MATRIX.into()), [(Float, &[1, 3])]),
        sample(Op::Broadcast([2, 3, 2].into()), [(Float, &[1, 3, 1])]),
    ],

    Op::Reshape(_) => [sample(Op::Reshape([3, 2].into()), [(Float, MATRIX)])],
    Op::Transpose(_) => [
        sample(Op::Transpose(vec![1, 0]), [(Float, MATRIX)]),
        sample(Op::Transpose(vec![1, 2, 0]), [(Float, &[2, 3, 2])]),
    ],
    Op::Slice { .. } => [
        sample(Op::Slice { axis: 0, start: 1, len: 1 }, [(Float, ROW)]),
        sample(Op::Slice { axis: 1, start: 1, len: 2 }, [(Float, MATRIX)]),
    ],
    Op::Pad { .. } => [
        sample(Op::Pad { axis: 0, before: 1, after: 2 }, [(Float, ROW)]),
        sample(Op::Pad { axis: 1, before: 0, after: 1 }, [(Float, MATRIX)]),
    ],
    Op::Concat(_) => [
        sample(Op::Concat(0), [(Float, ROW), (Float, &[2])]),
        sample(Op::Concat(1), [(Float, MATRIX), (Float, &[2, 1]), (Float, &[2, 2])]),
    ],

    Op::Gather => [
        sample(Op::Gather, [(Float, &[4, 3]), (Below(4), SCALAR)]),
        sample(Op::Gather, [(Float, &[4, 2]), (Below(4), &[3])]),
    ],
    Op::ScatterAdd(_) => [
        sample(Op::ScatterAdd(4), [(Below(4), SCALAR), (Float, ROW)]),
        sample(Op::ScatterAdd(4), [(Below(4), &[2]), (Float, MATRIX)]),
    ],
    Op::OneHot(_) => [sample(Op::OneHot(4), [(Below(4), SCALAR)]), sample(Op::OneHot(4), [(Below(4), ROW)])],
    Op::Argmax => [sample(Op::Argmax, [(Float, ROW)])],

    Op::SumRows(_) => [sample(Op::SumRows(Extent::Shared), [(Float, ROW)]), sample(Op::SumRows(Extent::Batch), [(Float, ROW)])],
    Op::Expand(_) => [
        sample(Op::Expand(Extent::Batch), [(Float, ROW)]),
        sample(Op::Expand(Extent::Time(Axis(0))), [(Float, ROW)]),
    ],
    Op::Last => [sample(Op::Last, [(Float, ROW)])],
    Op::PlaceLast(_) => [sample(Op::PlaceLast(Axis(0)), [(Float, ROW)])],
    Op::Within(_) => [sample(Op::Within(Axis(0)), [(Below(9), SCALAR)])],
}

const TIME: Extent = Extent::Time(Axis(0));

/// The choices of extents that the op's type rule allows.
fn choices(s: &Sample, extents: &[Extent]) -> Vec<Vec<Extent>> {
    let n = s.operands.len() as u32;
    let choice = |c: usize| (0..n).map(|i| extents[c / extents.len().pow(i) % extents.len()]).collect::<Vec<_>>();
    let fits = |choice: &Vec<Extent>| {
        let types: Vec<Type> = s.operands.iter().zip(choice).map(|((d, shape), &e)| ty(*d, e, shape)).collect();
        // A loop's body has no sequences.
        let result = s.op.infer(&types.iter().collect::<Vec<_>>());
        result.is_ok_and(|t| extents.contains(&TIME) || !matches!(t.extent, Extent::Time(_)))
    };
    (0..extents.len().pow(n)).map(choice).filter(fits).collect()
}

fn ty(draw: Draw, extent: Extent, shape: &Shape) -> Type {
    let dtype = if matches!(draw, Below(_)) { DType::I32 } else { DType::F32 };
    Type { dtype, extent, shape: shape.clone() }
}

/// A program that is being put together.
struct Builder {
    p: Draft,
}

impl Builder {
    fn input(&mut self, name: &str, ty: Type, bound: Option<usize>) -> Value {
        let value = self.p.graph.leaf(Op::Input(name.into()), ty);
        self.p.inputs.push(Input { name: name.into(), value, bound });
        value
    }

    /// The leaves of operand i: its number is the first, times 1 + ¼·the second if there are two.
    fn leaves(&mut self, i: usize, draw: Draw, extent: Extent, shape: &Shape) -> Vec<Value> {
        match draw {
            Below(n) => vec![self.input(&format!("i{i}"), ty(draw, extent, shape), Some(n))],
            Mask => vec![self.input(&format!("mask{i}"), ty(draw, extent, shape), None)],
            Float | Positive => {
                let name = if draw == Positive { format!("positive{i}") } else { format!("w{i}") };
                let w = self.p.graph.leaf(Op::Parameter(name.clone()), Type::float(Extent::Shared, shape.clone()));
                self.p.parameters.push(Parameter { name, value: w, init: Init::Glorot, trained: true });
                match extent {
                    Extent::Shared => vec![w],
                    _ => vec![w, self.input(&format!("x{i}"), ty(draw, extent, shape), None)],
                }
            }
        }
    }

    fn finish(mut self, value: Value) -> Draft {
        let loss = score(&mut self.p.graph, value);
        self.p.objective = Some(mean(&mut self.p.graph, loss));
        self.p
    }
}

/// w·(1 + ¼·x)
fn scaled(g: &mut Graph, w: Value, x: Value) -> Value {
    let (quarter, one) = (g.scalar(0.25), g.scalar(1.0));
    let x = g.binary(Binary::Mul, x, quarter);
    let x = g.binary(Binary::Add, x, one);
    g.binary(Binary::Mul, w, x)
}

/// One number a row of a value, to which features contribute differently: Σ sin((i + 1)·xᵢ / n).
fn score(g: &mut Graph, v: Value) -> Value {
    let v = if g.is_float(v) { v } else { g.add(Op::ToFloat, &[v]) };
    let n = g.ty(v).shape.len();
    let mut sum = g.scalar(0.0);
    let flat = g.add(Op::Reshape([n].into()), &[v]);
    for i in 0..n {
        let x = g.add(Op::Slice { axis: 0, start: i, len: 1 }, &[flat]);
        let x = g.add(Op::Reshape(Shape::scalar()), &[x]);
        let weight = g.scalar((i + 1) as f64 / n as f64);
        let x = g.binary(Binary::Mul, x, weight);
        let x = g.unary(Unary::Sin, x);
        sum = g.binary(Binary::Add, sum, x);
    }
    sum
}

/// The mean over rows.
fn mean(g: &mut Graph, v: Value) -> Value {
    let extent = g.ty(v).extent;
    if extent == Extent::Shared {
        return v;
    }
    let (sum, count) = (g.add(Op::SumRows(Extent::Shared), &[v]), g.add(Op::RowCount(extent), &[]));
    g.binary(Binary::Div, sum, count)
}

/// The op behind a loop: y = f(operands), where those that are sequences depend on a state.
fn outside(s: &Sample, extents: &[Extent], name: &str) -> Program {
    let mut b = Builder { p: Draft::new(name) };
    b.p.axes.push("time".into());
    // Something to know the sizes by.
    b.input("x", Type::float(TIME, ()), None);
    let mut operands = Vec::new();
    let mut rest = b.p.graph.scalar(0.0);
    for (i, ((draw, shape), &extent)) in s.operands.iter().zip(extents).enumerate() {
        let v = match b.leaves(i, *draw, extent, shape)[..] {
            [w, x] => scaled(&mut b.p.graph, w, x),
            [v] => v,
            _ => unreachable!("one or two leaves"),
        };
        if *draw == Float {
            let loss = score(&mut b.p.graph, v);
            let loss = mean(&mut b.p.graph, loss);
            let loss = b.p.graph.unary(Unary::Exp, loss);
            rest = b.p.graph.binary(Binary::Add, rest, loss);
        }
        operands.push(v);
    }
    let y = b.p.graph.add(s.op.clone(), &operands);
    b.p.outputs.push(("y".into(), y));
    let mut p = b.finish(y);
    let both = p.graph.binary(Binary::Add, p.objective.expect("set"), rest);
    p.objective = Some(both);
    p.finish().expect("well formed")
}

/// The op in a loop: h' = tanh(½h + score(f(operands))), where each operand that has rows is multiplied by 1 + ¼h.
fn inside(s: &Sample, extents: &[Extent], name: &str) -> Program {
    let mut b = Builder { p: Draft::new(name) };
    b.p.axes.push("time".into());
    b.input("x", Type::float(TIME, ()), None);
    let mut scan = Scan::new("loop", Axis(0), false);
    let (mut captures, mut each) = (Vec::new(), Vec::new());
    let mut parts = Vec::new();
    for (i, ((draw, shape), &extent)) in s.operands.iter().zip(extents).enumerate() {
        let extent = if extent == Extent::Batch { TIME } else { extent };
        let leaves = b.leaves(i, *draw, extent, shape).into_iter().map(|v| {
            let ty = b.p.ty(v).clone();
            let port = |value| Port { name: format!("p{}", captures.len() + each.len()), value };
            if ty.extent == TIME {
                let value = scan.body.leaf(Op::Each(each.len()), ty.at(Extent::Batch));
                scan.each.push(port(value));
                each.push(v);
                value
            } else {
                let value = scan.body.leaf(Op::Capture(captures.len()), ty);
                scan.captures.push(port(value));
                captures.push(v);
                value
            }
        });
        parts.push(leaves.collect::<Vec<_>>());
    }
    let h = scan.body.leaf(Op::Carry(0), Type::float(Extent::Batch, ()));
    let g = &mut scan.body;
    let operands: Vec<Value> = parts
        .iter()
        .map(|leaves| match leaves[..] {
            [w, x] => {
                let v = scaled(g, w, x);
                scaled(g, v, h)
            }
            [v] => v,
            _ => unreachable!("one or two leaves"),
        })
        .collect();
    let y = g.add(s.op.clone(), &operands);
    let (value, half) = (score(g, y), g.scalar(0.5));
    let kept = g.binary(Binary::Mul, h, half);
    let sum = g.binary(Binary::Add, kept, value);
    // So that there is a gradient where none passes through the op.
    let mut sum = sum;
    for (&v, (draw, _)) in operands.iter().zip(&s.operands) {
        if *draw == Float {
            let part = score(g, v);
            let part = g.unary(Unary::Cos, part);
            sum = g.binary(Binary::Add, sum, part);
        }
    }
    let next = g.unary(Unary::Sin, sum);
    scan.carries.push(Carry { name: "h".into(), value: h, next });
    scan.yields.push(Port { name: "y".into(), value: next });
    let h0 = b.p.graph.constant(0.0, Type::float(Extent::Batch, ()));
    let operands = [captures, each, vec![h0]].concat();
    let node = b.p.graph.add(Op::Scan(Box::new(scan)), &operands);
    let y = b.p.graph.scan_result(node, Op::Yield(0));
    b.p.outputs.push(("y".into(), y));
    b.finish(y).finish().expect("well formed")
}

/// Every op, outside of loops, on every choice of extents it allows.
pub fn on_sequences() -> Vec<Program> {
    programs(&[Extent::Shared, Extent::Batch, TIME], "", outside)
}

/// Every op, in a loop, on every choice of extents it allows there.
pub fn in_loops() -> Vec<Program> {
    programs(&[Extent::Shared, Extent::Batch], "in_loop_", inside)
}

fn programs(extents: &[Extent], place: &str, program: fn(&Sample, &[Extent], &str) -> Program) -> Vec<Program> {
    let mut all = Vec::new();
    for s in table() {
        is_in_table(&s.op);
        for (k, extents) in choices(&s, extents).iter().enumerate() {
            all.push(program(&s, extents, &format!("{}_{place}{k}", s.op.name().replace('.', "_"))));
        }
    }
    all
}
