//! Every row of the op table against itself: a row states its derivative three times (the dual numbers of its
//! evaluation, its tangent rule, its transpose), and these must be one derivative.
//!
//! For every op, every mix of extents it broadcasts over and every subset of operands that have a tangent:
//! (a) the graph that the tangent rule emits gives the dual part, to 1e-12;
//! (b) where the op is linear in an operand, ⟨ct, L t⟩ = ⟨Lᵀ ct, t⟩, to 1e-12, and Lᵀ ct has the operand's type;
//! (c) the dual part is the central finite difference, to 1e-7.
//!
//! Relative errors are against the largest number of the value compared; there is no absolute tolerance.

use retrograd_compiler::interpret::{Values, evaluate};
use retrograd_compiler::ir::dual::Dual;
use retrograd_compiler::ir::op::{Data, Eval, Tangent};
use retrograd_compiler::ir::{Axis, Binary, DType, Draft, Extent, Norm, Op, Scan, Shape, Sizes, Type, Unary, Value};

const TIME: Extent = Extent::Time(Axis(0));
const EXTENTS: [Extent; 3] = [Extent::Shared, Extent::Batch, TIME];
const SIZES: (usize, usize) = (3, 2);

/// What numbers an operand has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Draw {
    /// ±[0.4, 1.6): no pole, no kink at 0.
    Away,
    /// [0.4, 1.6)
    Positive,
    /// −1, 0 and 1: meets every kink.
    Ties,
    /// 0 or 1, a step function of which has no finite difference.
    Mask,
    /// Integers below this.
    Below(usize),
}
use Draw::*;

/// An op on operands of some shapes. It is tried on operands of all extents.
#[derive(Clone, Debug)]
struct Sample {
    op: Op,
    operands: Vec<(Draw, Shape)>,
    /// How many of the 3ⁿ choices of extents the type rule must allow.
    fits: usize,
}

fn sample<const N: usize>(op: Op, fits: usize, operands: [(Draw, &[usize]); N]) -> Sample {
    Sample { op, operands: operands.map(|(draw, shape)| (draw, shape.into())).to_vec(), fits }
}

const MATRIX: &[usize] = &[2, 3];
const SCALAR: &[usize] = &[];

/// On scalars and on a matrix.
fn unary<const N: usize>(op: Unary, draws: [Draw; N]) -> Vec<Sample> {
    let both = |draw| [SCALAR, MATRIX].map(|shape| sample(Op::Unary(op), 3, [(draw, shape)]));
    draws.into_iter().flat_map(both).collect()
}

/// On all pairs of a scalar and a matrix.
fn binary<const N: usize>(op: Binary, draws: [(Draw, Draw); N]) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (x, y) in draws {
        for (a, b) in [(SCALAR, SCALAR), (SCALAR, MATRIX), (MATRIX, SCALAR), (MATRIX, MATRIX)] {
            samples.push(sample(Op::Binary(op), 9, [(x, a), (y, b)]));
        }
    }
    samples
}

fn select() -> Vec<Sample> {
    let mut samples = Vec::new();
    for i in 0..8 {
        let shape = |bit: usize| if i >> bit & 1 == 0 { SCALAR } else { MATRIX };
        samples.push(sample(Op::Select, 27, [(Mask, shape(0)), (Away, shape(1)), (Away, shape(2))]));
    }
    for mask in [SCALAR, MATRIX] {
        samples.push(sample(Op::Select, 27, [(Mask, mask), (Below(9), MATRIX), (Below(9), MATRIX)]));
    }
    samples
}

fn matmul() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (ta, a) in [(false, [2, 3]), (true, [3, 2])] {
        for (tb, b) in [(false, [3, 4]), (true, [4, 3])] {
            samples.push(sample(Op::MatMul { ta, tb }, 9, [(Away, &a), (Away, &b)]));
        }
    }
    samples
}

/// One pattern for each row of the table, with its samples; `[]` for leaves and scans, which have no operands of
/// their own or are differentiated as a whole. The match has no wildcard: an op without a line does not compile.
macro_rules! table {
    ($($pattern:pat => $samples:expr,)*) => {
        fn is_in_table(op: &Op) {
            match op {
                $($pattern => (),)*
            }
        }

        fn table() -> Vec<Sample> {
            let mut all: Vec<Sample> = Vec::new();
            $({
                let samples: Vec<Sample> = Vec::from($samples);
                for s in &samples {
                    assert!(matches!(s.op, $pattern), "the sample of {:?} stands on the line of another op", s.op);
                }
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

    Op::Unary(Unary::Neg) => unary(Unary::Neg, [Away, Ties]),
    Op::Unary(Unary::Abs) => unary(Unary::Abs, [Away, Ties]),
    Op::Unary(Unary::Sign) => unary(Unary::Sign, [Away, Ties]),
    Op::Unary(Unary::Sqrt) => unary(Unary::Sqrt, [Positive]),
    Op::Unary(Unary::Exp) => unary(Unary::Exp, [Away, Ties]),
    Op::Unary(Unary::Expm1) => unary(Unary::Expm1, [Away, Ties]),
    Op::Unary(Unary::Ln) => unary(Unary::Ln, [Positive]),
    Op::Unary(Unary::Log1p) => unary(Unary::Log1p, [Positive]),
    Op::Unary(Unary::Tanh) => unary(Unary::Tanh, [Away, Ties]),
    Op::Unary(Unary::Sigmoid) => unary(Unary::Sigmoid, [Away, Ties]),
    Op::Unary(Unary::Silu) => unary(Unary::Silu, [Away, Ties]),
    Op::Unary(Unary::Softplus) => unary(Unary::Softplus, [Away, Ties]),
    Op::Unary(Unary::Relu) => unary(Unary::Relu, [Away, Ties]),
    Op::Unary(Unary::Erf) => unary(Unary::Erf, [Away, Ties]),
    Op::Unary(Unary::NormalCdf) => unary(Unary::NormalCdf, [Away, Ties]),
    Op::Unary(Unary::Gelu) => unary(Unary::Gelu, [Away, Ties]),
    Op::Unary(Unary::Sin) => unary(Unary::Sin, [Away, Ties]),
    Op::Unary(Unary::Cos) => unary(Unary::Cos, [Away, Ties]),
    Op::Unary(Unary::Powi(_)) => [
        unary(Unary::Powi(0), [Away, Ties]),
        unary(Unary::Powi(1), [Away, Ties]),
        unary(Unary::Powi(2), [Away, Ties]),
        unary(Unary::Powi(5), [Away, Ties]),
        unary(Unary::Powi(-1), [Away]),
        unary(Unary::Powi(-3), [Away]),
    ]
    .concat(),

    Op::Binary(Binary::Add) => binary(Binary::Add, [(Away, Away)]),
    Op::Binary(Binary::Sub) => binary(Binary::Sub, [(Away, Away)]),
    Op::Binary(Binary::Mul) => binary(Binary::Mul, [(Away, Away), (Ties, Ties)]),
    Op::Binary(Binary::Div) => binary(Binary::Div, [(Away, Away), (Ties, Away)]),
    Op::Binary(Binary::Pow) => binary(Binary::Pow, [(Positive, Away)]),
    Op::Binary(Binary::Min) => binary(Binary::Min, [(Away, Away), (Ties, Ties)]),
    Op::Binary(Binary::Max) => binary(Binary::Max, [(Away, Away), (Ties, Ties)]),
    Op::Binary(Binary::Gt) => binary(Binary::Gt, [(Away, Away), (Ties, Ties)]),
    Op::Binary(Binary::Ge) => binary(Binary::Ge, [(Away, Away), (Ties, Ties)]),
    Op::Binary(Binary::Lt) => binary(Binary::Lt, [(Away, Away), (Ties, Ties)]),
    Op::Binary(Binary::Le) => binary(Binary::Le, [(Away, Away), (Ties, Ties)]),
    Op::Binary(Binary::Eq) => binary(Binary::Eq, [(Away, Away), (Ties, Ties)]),
    Op::Binary(Binary::Ne) => binary(Binary::Ne, [(Away, Away), (Ties, Ties)]),
    Op::Select => select(),
    Op::StopGradient => [sample(Op::StopGradient, 3, [(Away, MATRIX)])],
    Op::ToFloat => [sample(Op::ToFloat, 3, [(Below(9), MATRIX)])],

    Op::Dot => [
        sample(Op::Dot, 3, [(Away, &[3]), (Away, &[3, 4])]),
        sample(Op::Dot, 3, [(Away, &[2, 3]), (Away, &[3, 4])]),
    ],
    Op::DotNt => [
        sample(Op::DotNt, 3, [(Away, &[4]), (Away, &[3, 4])]),
        sample(Op::DotNt, 3, [(Away, &[2, 4]), (Away, &[3, 4])]),
    ],
    Op::DotTn => [
        sample(Op::DotTn, 9, [(Away, &[3]), (Away, &[4])]),
        sample(Op::DotTn, 9, [(Away, &[2, 3]), (Away, &[2, 4])]),
    ],
    Op::MatMul { .. } => matmul(),

    Op::Sum(_) => [
        sample(Op::Sum(SCALAR.into()), 3, [(Away, SCALAR)]),
        sample(Op::Sum([1, 3].into()), 3, [(Away, MATRIX)]),
        sample(Op::Sum([1, 3, 1].into()), 3, [(Away, &[2, 3, 4])]),
    ],
    Op::Max(_) => [
        sample(Op::Max([2, 1].into()), 3, [(Away, MATRIX)]),
        sample(Op::Max([1, 3, 1].into()), 3, [(Away, &[2, 3, 4])]),
        sample(Op::Max([1, 3, 1].into()), 3, [(Ties, &[2, 3, 4])]),
    ],
    Op::Norm(_) => [
        sample(Op::Norm(Norm { centred: true, epsilon: 1e-5 }), 3, [(Away, &[5])]),
        sample(Op::Norm(Norm { centred: true, epsilon: 0.5 }), 3, [(Away, MATRIX)]),
        sample(Op::Norm(Norm { centred: true, epsilon: 1e-5 }), 3, [(Away, &[1])]),
        sample(Op::Norm(Norm { centred: false, epsilon: 1e-5 }), 3, [(Away, &[5])]),
        sample(Op::Norm(Norm { centred: false, epsilon: 0.5 }), 3, [(Away, MATRIX)]),
    ],
    Op::Divisor(_) => [
        sample(Op::Divisor(Norm { centred: true, epsilon: 1e-5 }), 3, [(Away, &[5])]),
        sample(Op::Divisor(Norm { centred: true, epsilon: 0.5 }), 3, [(Away, MATRIX)]),
        sample(Op::Divisor(Norm { centred: false, epsilon: 1e-5 }), 3, [(Away, &[5])]),
        sample(Op::Divisor(Norm { centred: false, epsilon: 0.5 }), 3, [(Away, MATRIX)]),
    ],
    Op::Broadcast(_) => [
        sample(Op::Broadcast(MATRIX.into()), 3, [(Away, &[1, 3])]),
        sample(Op::Broadcast([2, 3, 4].into()), 3, [(Away, &[1, 3, 1])]),
    ],

    Op::Reshape(_) => [
        sample(Op::Reshape([3, 2].into()), 3, [(Away, MATRIX)]),
        sample(Op::Reshape(SCALAR.into()), 3, [(Away, &[1, 1])]),
    ],
    Op::Transpose(_) => [
        sample(Op::Transpose(vec![1, 0]), 3, [(Away, MATRIX)]),
        sample(Op::Transpose(vec![1, 2, 0]), 3, [(Away, &[2, 3, 4])]),
    ],
    Op::Slice { .. } => [
        sample(Op::Slice { axis: 0, start: 1, len: 2 }, 3, [(Away, &[4, 3])]),
        sample(Op::Slice { axis: 1, start: 2, len: 1 }, 3, [(Away, &[2, 3, 2])]),
    ],
    Op::Pad { .. } => [
        sample(Op::Pad { axis: 0, before: 1, after: 2 }, 3, [(Away, MATRIX)]),
        sample(Op::Pad { axis: 1, before: 0, after: 1 }, 3, [(Away, &[2, 3, 2])]),
    ],
    Op::Concat(_) => [
        sample(Op::Concat(0), 3, [(Away, &[2])]),
        sample(Op::Concat(1), 27, [(Away, &[2, 3]), (Away, &[2, 1]), (Away, &[2, 2])]),
        sample(Op::Concat(0), 9, [(Away, &[1, 3]), (Away, &[2, 3])]),
    ],

    Op::Gather => [
        sample(Op::Gather, 3, [(Away, &[4, 2, 3]), (Below(4), SCALAR)]),
        sample(Op::Gather, 3, [(Away, &[4]), (Below(4), &[5])]),
        sample(Op::Gather, 3, [(Away, &[4, 3]), (Below(4), MATRIX)]),
    ],
    Op::ScatterAdd(_) => [
        sample(Op::ScatterAdd(4), 9, [(Below(4), SCALAR), (Away, MATRIX)]),
        sample(Op::ScatterAdd(4), 9, [(Below(4), &[5]), (Away, &[5])]),
        sample(Op::ScatterAdd(4), 9, [(Below(4), MATRIX), (Away, &[2, 3, 2])]),
    ],
    Op::OneHot(_) => [
        sample(Op::OneHot(4), 3, [(Below(4), SCALAR)]),
        sample(Op::OneHot(4), 3, [(Below(4), MATRIX)]),
    ],
    Op::Argmax => [sample(Op::Argmax, 3, [(Away, &[4])]), sample(Op::Argmax, 3, [(Ties, MATRIX)])],

    Op::SumRows(_) => [
        sample(Op::SumRows(Extent::Shared), 2, [(Away, MATRIX)]),
        sample(Op::SumRows(Extent::Batch), 1, [(Away, MATRIX)]),
    ],
    Op::Expand(_) => [
        sample(Op::Expand(TIME), 2, [(Away, MATRIX)]),
        sample(Op::Expand(Extent::Batch), 1, [(Away, MATRIX)]),
    ],
    Op::Last => [sample(Op::Last, 1, [(Away, MATRIX)])],
    Op::PlaceLast(_) => [sample(Op::PlaceLast(Axis(0)), 1, [(Away, MATRIX)])],
    Op::Within(_) => [sample(Op::Within(Axis(0)), 1, [(Below(4), SCALAR)])],
}

/// A sample with its extents chosen: one node on inputs `x0`, `x1`, ..
struct Case {
    program: Draft,
    node: Value,
    operands: Vec<Value>,
    draws: Vec<Draw>,
    text: String,
}

impl Case {
    fn op(&self) -> &Op {
        self.program.graph.op(self.node)
    }

    fn float_operands(&self) -> Vec<usize> {
        (0..self.operands.len()).filter(|&i| self.program.graph.is_float(self.operands[i])).collect()
    }

    /// Operands in which the op is linear for given others.
    fn linear_operands(&self) -> Vec<usize> {
        match (self.op().row().tangent, self.op()) {
            (Tangent::Linear | Tangent::Multilinear, _) => self.float_operands(),
            (_, Op::Binary(Binary::Add | Binary::Sub)) => vec![0, 1],
            (_, Op::Binary(Binary::Div)) => vec![0],
            (_, Op::Select) => self.float_operands().into_iter().filter(|&i| i > 0).collect(),
            _ => vec![],
        }
    }

    /// A further input of a value's type.
    fn input(&mut self, name: String, like: Value) -> Value {
        let ty = self.program.ty(like).clone();
        self.program.graph.leaf(Op::Input(name), ty)
    }

    fn evaluate(&self, values: &Values, wanted: &[Value]) -> Vec<Data> {
        evaluate(&self.program, values, &sizes(), wanted)
    }

    /// Values of the operands.
    fn values(&self, random: &mut Random) -> Values {
        let draw = |(i, &v): (usize, &Value)| {
            let mut data = Data::zeros(self.program.ty(v).clone(), &sizes());
            data.x.iter_mut().for_each(|x| x.re = random.draw(self.draws[i]));
            (format!("x{i}"), data)
        };
        self.operands.iter().enumerate().map(draw).collect()
    }
}

fn sizes() -> Sizes {
    Sizes::new(SIZES.0, SIZES.1)
}

/// All samples on all extents that their type rules allow.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for Sample { op, operands, fits } in table() {
        let n = operands.len();
        let mut fitting = 0;
        for choice in 0..EXTENTS.len().pow(n as u32) {
            let extent = |i: usize| EXTENTS[choice / EXTENTS.len().pow(i as u32) % EXTENTS.len()];
            let types: Vec<Type> = (operands.iter().enumerate())
                .map(|(i, (draw, shape))| match draw {
                    Below(_) => Type::int(extent(i), shape.clone()),
                    _ => Type::float(extent(i), shape.clone()),
                })
                .collect();
            let mut program = Draft::new("case");
            let leaf = |(i, ty): (usize, &Type)| program.graph.leaf(Op::Input(format!("x{i}")), ty.clone());
            let values: Vec<Value> = types.iter().enumerate().map(leaf).collect();
            let Ok(node) = program.graph.try_add(op.clone(), &values) else { continue };
            fitting += 1;
            let list: Vec<String> = types.iter().map(Type::to_string).collect();
            let draws: Vec<Draw> = operands.iter().map(|(draw, _)| *draw).collect();
            let text = format!("{op:?} on {} drawn {draws:?}", list.join(", "));
            cases.push(Case { program, node, operands: values, draws, text });
        }
        assert_eq!(fitting, fits, "choices of extents that {op:?} allows on {operands:?}");
    }
    cases
}

/// Bits are those of Steele, Lea & Flood's splitmix64. Magnitudes are successive fractions of k·φ: any n of them in
/// a row are at least 1 / (√5·n) apart, so min, max and comparisons are never drawn within a step of their kink.
struct Random {
    state: u64,
    k: f64,
}

impl Random {
    fn new(seed: u64) -> Random {
        Random { state: seed, k: 0.0 }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn draw(&mut self, draw: Draw) -> f64 {
        let bits = self.next();
        self.k += 1.0;
        let magnitude = 0.4 + 1.2 * (self.k * 0.618_033_988_749_894_9).fract();
        match draw {
            Positive => magnitude,
            Away => magnitude * if bits & 1 == 0 { 1.0 } else { -1.0 },
            Ties => (bits % 3) as f64 - 1.0,
            Mask => (bits % 2) as f64,
            Below(n) => (bits % n as u64) as f64,
        }
    }

    fn fill(&mut self, ty: &Type) -> Data {
        let mut data = Data::zeros(ty.clone(), &sizes());
        data.x.iter_mut().for_each(|x| x.re = self.draw(Away));
        data
    }
}

fn set_tangent(data: &mut Data, tangent: &Data) {
    for (x, t) in data.x.iter_mut().zip(&tangent.x) {
        x.du = t.re;
    }
}

/// Largest difference relative to the largest number. A NaN is no agreement.
fn assert_close(a: &[f64], b: &[f64], tolerance: f64, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}: sizes");
    let scale = a.iter().chain(b).fold(0.0, |m: f64, x| m.max(x.abs()));
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= tolerance * scale, "{what}: {x} against {y} at {i}");
    }
}

fn re(data: &Data) -> Vec<f64> {
    data.x.iter().map(|x| x.re).collect()
}

fn du(data: &Data) -> Vec<f64> {
    data.x.iter().map(|x| x.du).collect()
}

fn subsets(of: &[usize]) -> Vec<Vec<usize>> {
    let chosen = |bits: usize| of.iter().enumerate().filter(|(k, _)| bits >> k & 1 == 1).map(|(_, &i)| i).collect();
    (1..1 << of.len()).map(chosen).collect()
}

/// The tangent of a node as its row says.
fn emit_tangent(case: &mut Case, tangents: &[Option<Value>]) -> Option<Value> {
    let (node, op) = (case.node, case.op().clone());
    let g = &mut case.program.graph;
    match op.row().tangent {
        Tangent::Zero => None,
        Tangent::Linear => {
            let mut operands = case.operands.clone();
            for (operand, tangent) in operands.iter_mut().zip(tangents) {
                *operand = match tangent {
                    Some(t) => *t,
                    None if g.is_float(*operand) => g.constant(0.0, g.ty(*operand).clone()),
                    None => *operand,
                };
            }
            Some(g.add(op, &operands))
        }
        Tangent::Multilinear => {
            let mut sum = None;
            for (i, tangent) in tangents.iter().enumerate() {
                let Some(tangent) = *tangent else { continue };
                let mut operands = case.operands.clone();
                operands[i] = tangent;
                let term = g.add(op.clone(), &operands);
                sum = Some(sum.map_or(term, |sum| g.binary(Binary::Add, sum, term)));
            }
            sum
        }
        Tangent::Rule(rule) => Some(rule(g, node, tangents)),
        Tangent::Scan => panic!("scans are differentiated as a whole"),
    }
}

#[test]
fn tangent_rules_give_the_dual_part() {
    let mut random = Random::new(1);
    for mut case in cases() {
        for subset in subsets(&case.float_operands()) {
            let mut values = case.values(&mut random);
            let mut tangents = vec![None; case.operands.len()];
            for &i in &subset {
                let direction = random.fill(case.program.ty(case.operands[i]));
                let x = values.get_mut(&format!("x{i}")).expect("an operand");
                set_tangent(x, &direction);
                values.insert(format!("t{i}"), direction);
                tangents[i] = Some(case.input(format!("t{i}"), case.operands[i]));
            }
            let what = format!("{} with tangents of {subset:?}", case.text);
            // An integer has none, whatever mask chose it.
            let is_float = case.program.graph.is_float(case.node);
            let tangent = if is_float { emit_tangent(&mut case, &tangents) } else { None };
            let value = &case.evaluate(&values, &[case.node])[0];
            assert!(value.x.iter().all(|x| x.re.is_finite()), "{what}: a value is not finite");
            let Some(tangent) = tangent else {
                assert!(value.x.iter().all(|x| x.du == 0.0), "{what}: a derivative passes");
                continue;
            };
            assert_eq!(case.program.ty(tangent), case.program.ty(case.node), "{what}: type of the tangent");
            let emitted = &case.evaluate(&values, &[tangent])[0];
            assert_close(&re(emitted), &du(value), 1e-12, &what);
        }
    }
}

#[test]
fn transposes_satisfy_the_dot_product_identity() {
    let mut random = Random::new(2);
    for mut case in cases() {
        let linear = case.linear_operands();
        let Some(transpose) = case.op().row().transpose else {
            assert!(linear.is_empty(), "{} is linear and has no transpose", case.text);
            continue;
        };
        let is_float = case.program.graph.is_float(case.node);
        assert!(!linear.is_empty() || !is_float, "{} has a transpose and no linear operand", case.text);
        for i in linear {
            let what = format!("{} transposed in {i}", case.text);
            let mut values = case.values(&mut random);
            // L t = f(.., t, ..) − f(.., 0, ..), which needs no derivative.
            let mut along = |case: &Case, random: &mut Random, zero: bool| {
                let x = values.get_mut(&format!("x{i}")).expect("an operand");
                *x = if zero { Data::zeros(x.ty.clone(), &sizes()) } else { random.fill(&x.ty) };
                let x = x.clone();
                (x, re(&case.evaluate(&values, &[case.node])[0]))
            };
            let (_, origin) = along(&case, &mut random, true);
            let (t, image) = along(&case, &mut random, false);
            let ct = random.fill(case.program.ty(case.node));
            let leaf = case.input("ct".into(), case.node);
            let back = transpose(&mut case.program.graph, case.node, i, leaf);
            assert_eq!(case.program.ty(back), case.program.ty(case.operands[i]), "{what}: type");
            values.insert("ct".into(), ct.clone());
            let back = &case.evaluate(&values, &[back])[0];

            let left: Vec<f64> = image.iter().zip(origin).zip(&ct.x).map(|((y, o), ct)| (y - o) * ct.re).collect();
            let right: Vec<f64> = back.x.iter().zip(&t.x).map(|(b, t)| b.re * t.re).collect();
            let (a, b): (f64, f64) = (left.iter().sum(), right.iter().sum());
            let scale: f64 = left.iter().map(|x| x.abs()).sum();
            assert!((a - b).abs() <= 1e-12 * scale, "{what}: {a} against {b}");
        }
    }
}

#[test]
fn dual_numbers_agree_with_finite_differences() {
    const STEP: f64 = 1e-5;
    let mut random = Random::new(3);
    for case in cases() {
        // At ties one side has the derivative; a derivative that is stopped is not the function's.
        if case.draws.contains(&Ties) || matches!(case.op(), Op::StopGradient) {
            continue;
        }
        let floats = case.float_operands();
        let moved: Vec<usize> = floats.into_iter().filter(|&i| case.draws[i] != Mask).collect();
        for subset in subsets(&moved) {
            let mut values = case.values(&mut random);
            for i in &subset {
                let x = values.get_mut(&format!("x{i}")).expect("an operand");
                let direction = random.fill(&x.ty);
                set_tangent(x, &direction);
            }
            let at = |h: f64| {
                let step = |x: &Dual| Dual::new(x.re + h * x.du);
                let moved = |d: &Data| Data { ty: d.ty.clone(), x: d.x.iter().map(step).collect() };
                let values = values.iter().map(|(name, d)| (name.clone(), moved(d))).collect();
                re(&case.evaluate(&values, &[case.node])[0])
            };
            let difference: Vec<f64> =
                at(STEP).iter().zip(at(-STEP)).map(|(more, less)| (more - less) / (2.0 * STEP)).collect();
            let value = &case.evaluate(&values, &[case.node])[0];
            assert_close(&difference, &du(value), 1e-7, &format!("{} moved in {subset:?}", case.text));
        }
    }
}

/// Reference values that no derivative would catch: a wrong function with its right derivative.
#[test]
fn functions_have_their_known_values() {
    let half_ln_3 = 0.5 * 3f64.ln();
    for (op, x, y) in [
        (Unary::Neg, 2.0, -2.0),
        (Unary::Abs, -2.0, 2.0),
        (Unary::Sign, -2.0, -1.0),
        (Unary::Sqrt, 9.0, 3.0),
        (Unary::Exp, 0.0, 1.0),
        (Unary::Expm1, 1e-20, 1e-20),
        (Unary::Ln, 1.0, 0.0),
        (Unary::Log1p, 1e-20, 1e-20),
        (Unary::Tanh, half_ln_3, 0.5),
        (Unary::Sigmoid, 3f64.ln(), 0.75),
        (Unary::Sigmoid, -1000.0, 0.0),
        (Unary::Silu, 3f64.ln(), 0.75 * 3f64.ln()),
        (Unary::Silu, 1000.0, 1000.0),
        (Unary::Silu, f64::NEG_INFINITY, 0.0),
        (Unary::Softplus, 0.0, 2f64.ln()),
        (Unary::Softplus, 1000.0, 1000.0),
        (Unary::Relu, -2.0, 0.0),
        (Unary::Relu, 2.0, 2.0),
        (Unary::Erf, 1.0, 0.842_700_792_949_714_9),
        (Unary::NormalCdf, 1.0, 0.841_344_746_068_542_9),
        (Unary::Gelu, 2.0, 1.954_499_736_103_641_6),
        (Unary::Gelu, 1000.0, 1000.0),
        (Unary::Gelu, f64::NEG_INFINITY, 0.0),
        (Unary::Sin, 0.0, 0.0),
        (Unary::Cos, 0.0, 1.0),
        (Unary::Powi(3), -2.0, -8.0),
        (Unary::Powi(-2), 2.0, 0.25),
        (Unary::Powi(0), 0.0, 1.0),
    ] {
        let Eval::Pointwise(f) = Op::Unary(op).row().eval else { panic!("{op:?} is pointwise") };
        let got = f(&Op::Unary(op), &[Dual::new(x)]).re;
        assert!((got - y).abs() <= 1e-15 * y.abs(), "{op:?}({x}) = {got}, not {y}");
    }
    for (op, y) in [
        (Binary::Add, [5.0, 4.0]),
        (Binary::Sub, [-1.0, 0.0]),
        (Binary::Mul, [6.0, 4.0]),
        (Binary::Div, [2.0 / 3.0, 1.0]),
        (Binary::Pow, [8.0, 4.0]),
        (Binary::Min, [2.0, 2.0]),
        (Binary::Max, [3.0, 2.0]),
        (Binary::Gt, [0.0, 0.0]),
        (Binary::Ge, [0.0, 1.0]),
        (Binary::Lt, [1.0, 0.0]),
        (Binary::Le, [1.0, 1.0]),
        (Binary::Eq, [0.0, 1.0]),
        (Binary::Ne, [1.0, 0.0]),
    ] {
        let Eval::Pointwise(f) = Op::Binary(op).row().eval else { panic!("{op:?} is pointwise") };
        let got = [3.0, 2.0].map(|second| f(&Op::Binary(op), &[Dual::new(2.0), Dual::new(second)]).re);
        assert_eq!(got, y, "{op:?} of 2 with 3 and with 2");
    }
}

#[test]
fn leaves_and_scans_are_the_interpreters() {
    let scan = Scan::new("s", Axis(0), false);
    let leaves = [
        Op::Parameter("p".into()),
        Op::Input("x".into()),
        Op::Constant(1.0),
        Op::RowCount(TIME),
        Op::Capture(0),
        Op::Each(0),
        Op::Carry(0),
    ];
    let scans = [Op::Scan(Box::new(scan)), Op::Yield(0), Op::Final(0), Op::Total(0)];
    for op in leaves.iter().chain(&scans) {
        assert!(matches!(op.row().eval, Eval::Interpreter), "{op:?}");
        assert!(op.row().transpose.is_none(), "{op:?}");
    }
    assert!(leaves.iter().all(|op| op.is_leaf() && matches!(op.row().tangent, Tangent::Zero)));
    assert!(scans.iter().all(|op| !op.is_leaf() && matches!(op.row().tangent, Tangent::Scan)));
}

/// Two time axes have no common rows: no op may join them, or sum the rows of one into those of the other.
#[test]
fn time_axes_do_not_mix() {
    let other = Extent::Time(Axis(1));
    for Sample { op, operands, .. } in table() {
        is_in_table(&op);
        for flipped in 1..(1usize << operands.len()) - 1 {
            let ty = |(i, (draw, shape)): (usize, &(Draw, Shape))| {
                let dtype = if matches!(draw, Below(_)) { DType::I32 } else { DType::F32 };
                Type { dtype, extent: if flipped >> i & 1 == 1 { other } else { TIME }, shape: shape.clone() }
            };
            let types: Vec<Type> = operands.iter().enumerate().map(ty).collect();
            assert!(op.infer(&types.iter().collect::<Vec<_>>()).is_err(), "{op:?} joins two time axes");
        }
    }
    for (from, to) in [(TIME, other), (other, TIME)] {
        let ty = Type::float(from, 2);
        assert!(Op::SumRows(to).infer(&[&ty]).is_err(), "{ty} summed to {to:?}");
        assert!(Op::Expand(to).infer(&[&ty]).is_err(), "{ty} expanded to {to:?}");
    }
}
