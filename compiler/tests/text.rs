//! Programs as text: what is printed, that it is read back, and that no text makes the parser panic.

use retrograd_compiler::ir::program::{Init, Input, Parameter, Update};
use retrograd_compiler::ir::scan::{Carry, Port};
use retrograd_compiler::ir::{Axis, Binary, DType, Draft, Extent, Norm, Op, Program, Scan, Shape, Type, Unary, Value};

const T: Extent = Extent::Time(Axis(0));
const T1: Extent = Extent::Time(Axis(1));
const B: Extent = Extent::Batch;
const S: Extent = Extent::Shared;

fn float(extent: Extent, shape: impl Into<Shape>) -> Type {
    Type::float(extent, shape)
}

fn input(p: &mut Draft, name: &str, ty: Type) -> Value {
    let value = p.graph.leaf(Op::Input(name.into()), ty);
    p.inputs.push(Input { name: name.into(), value, bound: None });
    value
}

fn parameter(p: &mut Draft, name: &str, ty: Type, init: Init) -> Value {
    let value = p.graph.leaf(Op::Parameter(name.into()), ty);
    p.parameters.push(Parameter { name: name.into(), value, init, trained: true });
    value
}

fn output(p: &mut Draft, name: &str, v: Value) {
    p.outputs.push((name.into(), v));
}

/// The law: a valid program's text is read back as a program with the same text.
#[track_caller]
fn round_trip(p: &Draft) -> Program {
    let p = p.clone().finish().unwrap_or_else(|e| panic!("{e}\n{p}"));
    let text = p.to_string();
    let again = Program::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(again.to_string(), text);
    assert_eq!(again.verify(), Ok(()));
    again
}

/// Samples of every op with the types of operands, and a function that does not compile unless each op has an entry.
macro_rules! samples {
    ($($pattern:pat => [$(($op:expr, [$($ty:expr),*])),*]),* $(,)?) => {
        fn samples() -> Vec<(Op, Vec<Type>)> {
            let mut all = Vec::new();
            $($({
                let op = $op;
                assert!(matches!(op, $pattern), "a sample of {} stands at another op", op.name());
                all.push((op, vec![$($ty),*]));
            })*)*
            all
        }
        #[allow(dead_code, reason = "it is there to be checked for completeness")]
        fn every_op_has_an_entry(op: &Op) {
            match op { $($pattern => {})* }
        }
    };
}

fn unary(op: Unary) -> Op {
    Op::Unary(op)
}

fn binary(op: Binary) -> Op {
    Op::Binary(op)
}

samples! {
    // In `leaves_and_scans_round_trip`.
    Op::Parameter(_) | Op::Input(_) | Op::Capture(_) | Op::Each(_) | Op::Carry(_) => [],
    Op::Scan(_) | Op::Yield(_) | Op::Final(_) | Op::Total(_) => [],
    Op::Constant(_) => [],
    Op::Training => [(Op::Training, [])],
    Op::RowCount(_) => [(Op::RowCount(S), []), (Op::RowCount(B), []), (Op::RowCount(T), []), (Op::RowCount(T1), [])],
    Op::Unary(Unary::Neg) => [(unary(Unary::Neg), [float(B, 3)])],
    Op::Unary(Unary::Abs) => [(unary(Unary::Abs), [float(B, 3)])],
    Op::Unary(Unary::Sign) => [(unary(Unary::Sign), [float(B, 3)])],
    Op::Unary(Unary::Sqrt) => [(unary(Unary::Sqrt), [float(B, 3)])],
    Op::Unary(Unary::Exp) => [(unary(Unary::Exp), [float(B, 3)])],
    Op::Unary(Unary::Expm1) => [(unary(Unary::Expm1), [float(B, 3)])],
    Op::Unary(Unary::Ln) => [(unary(Unary::Ln), [float(B, 3)])],
    Op::Unary(Unary::Log1p) => [(unary(Unary::Log1p), [float(B, 3)])],
    Op::Unary(Unary::Tanh) => [(unary(Unary::Tanh), [float(T, [2, 3])])],
    Op::Unary(Unary::Sigmoid) => [(unary(Unary::Sigmoid), [float(B, 3)])],
    Op::Unary(Unary::Silu) => [(unary(Unary::Silu), [float(B, 3)])],
    Op::Unary(Unary::Softplus) => [(unary(Unary::Softplus), [float(B, 3)])],
    Op::Unary(Unary::Relu) => [(unary(Unary::Relu), [float(B, 3)])],
    Op::Unary(Unary::Erf) => [(unary(Unary::Erf), [float(B, 3)])],
    Op::Unary(Unary::NormalCdf) => [(unary(Unary::NormalCdf), [float(B, 3)])],
    Op::Unary(Unary::Gelu) => [(unary(Unary::Gelu), [float(B, 3)])],
    Op::Unary(Unary::Sin) => [(unary(Unary::Sin), [float(B, 3)])],
    Op::Unary(Unary::Cos) => [(unary(Unary::Cos), [float(B, 3)])],
    Op::Unary(Unary::Powi(_)) =>
        [(unary(Unary::Powi(-2)), [float(B, 3)]), (unary(Unary::Powi(i32::MIN)), [float(S, ())])],
    Op::Binary(Binary::Add) => [(binary(Binary::Add), [float(B, 3), float(T, 3)])],
    Op::Binary(Binary::Sub) => [(binary(Binary::Sub), [float(S, ()), float(T, 3)])],
    Op::Binary(Binary::Mul) => [(binary(Binary::Mul), [float(B, 3), float(S, 3)])],
    Op::Binary(Binary::Div) => [(binary(Binary::Div), [float(B, 3), float(S, 3)])],
    Op::Binary(Binary::Pow) => [(binary(Binary::Pow), [float(B, 3), float(S, 3)])],
    Op::Binary(Binary::Min) => [(binary(Binary::Min), [float(B, 3), float(S, 3)])],
    Op::Binary(Binary::Max) => [(binary(Binary::Max), [float(B, 3), float(S, 3)])],
    Op::Binary(Binary::Gt) => [(binary(Binary::Gt), [float(B, 3), float(S, 3)])],
    Op::Binary(Binary::Ge) => [(binary(Binary::Ge), [float(B, 3), float(S, 3)])],
    Op::Binary(Binary::Lt) => [(binary(Binary::Lt), [float(B, 3), float(S, 3)])],
    Op::Binary(Binary::Le) => [(binary(Binary::Le), [float(B, 3), float(S, 3)])],
    Op::Binary(Binary::Eq) => [(binary(Binary::Eq), [float(B, 3), float(S, 3)])],
    Op::Binary(Binary::Ne) => [(binary(Binary::Ne), [float(B, 3), float(S, 3)])],
    Op::Select => [(Op::Select, [float(T1, ()), float(B, 3), float(T1, 3)])],
    Op::StopGradient => [(Op::StopGradient, [float(B, 3)])],
    Op::ToFloat => [(Op::ToFloat, [Type::int(B, 3)])],
    Op::Dot => [(Op::Dot, [float(T, [2, 3]), float(S, [3, 4])])],
    Op::DotNt => [(Op::DotNt, [float(B, 4), float(S, [3, 4])])],
    Op::DotTn => [(Op::DotTn, [float(T, 3), float(T, 4)])],
    Op::MatMul { .. } => [
        (Op::MatMul { ta: false, tb: false }, [float(B, [2, 3]), float(B, [3, 4])]),
        (Op::MatMul { ta: true, tb: false }, [float(B, [3, 2]), float(B, [3, 4])]),
        (Op::MatMul { ta: false, tb: true }, [float(B, [2, 3]), float(B, [4, 3])]),
        (Op::MatMul { ta: true, tb: true }, [float(B, [3, 2]), float(B, [4, 3])])
    ],
    Op::Sum(_) => [(Op::Sum([1, 3].into()), [float(B, [2, 3])]), (Op::Sum([1, 1].into()), [float(B, [2, 3])])],
    Op::Max(_) => [(Op::Max([2, 1].into()), [float(B, [2, 3])])],
    Op::Norm(_) => [
        (Op::Norm(Norm { centred: true, epsilon: 1e-5 }), [float(B, [2, 3])]),
        (Op::Norm(Norm { centred: false, epsilon: 1e-7 }), [float(T, 4)])
    ],
    Op::Divisor(_) => [
        (Op::Divisor(Norm { centred: true, epsilon: 0.0 }), [float(B, [2, 3])]),
        (Op::Divisor(Norm { centred: false, epsilon: 2.5 }), [float(T, 4)])
    ],
    Op::Broadcast(_) => [(Op::Broadcast([2, 3].into()), [float(B, [2, 1])])],
    Op::Reshape(_) => [(Op::Reshape(6.into()), [float(B, [2, 3])]), (Op::Reshape(().into()), [float(B, [1, 1])])],
    Op::Transpose(_) => [
        (Op::Transpose(vec![2, 0, 1]), [float(B, [2, 3, 4])]),
        (Op::Transpose(vec![]), [float(B, ())])
    ],
    Op::Slice { .. } => [
        (Op::Slice { axis: 0, start: 1, len: 2 }, [float(B, 4)]),
        (Op::Slice { axis: 1, start: 0, len: 1 }, [Type::int(B, [2, 3])])
    ],
    Op::Pad { .. } => [
        (Op::Pad { axis: 0, before: 1, after: 0 }, [float(B, 4)]),
        (Op::Pad { axis: 1, before: 2, after: 3 }, [float(B, [2, 3])])
    ],
    Op::Concat(_) => [
        (Op::Concat(0), [float(B, 4)]),
        (Op::Concat(1), [float(B, [2, 3]), float(S, [2, 1]), float(T, [2, 5])])
    ],
    Op::Gather => [(Op::Gather, [float(S, [7, 3]), Type::int(T, ())])],
    Op::ScatterAdd(_) => [(Op::ScatterAdd(7), [Type::int(T, 2), float(T, [2, 3])])],
    Op::OneHot(_) => [(Op::OneHot(7), [Type::int(T, [2, 3])])],
    Op::Argmax => [(Op::Argmax, [float(B, [2, 3])])],
    Op::SumRows(_) => [(Op::SumRows(S), [float(T1, 3)]), (Op::SumRows(B), [float(T, 3)])],
    Op::Expand(_) => [(Op::Expand(T1), [float(B, 3)]), (Op::Expand(B), [float(S, 3)])],
    Op::Last => [(Op::Last, [float(T1, 3)])],
    Op::PlaceLast(_) => [(Op::PlaceLast(Axis(3)), [float(B, 3)])],
    Op::Within(_) => [(Op::Within(Axis(3)), [Type::int(B, ())])],
}

/// A program of one op on inputs.
fn of_one(op: Op, types: Vec<Type>) -> Draft {
    let mut p = Draft::new("sample");
    p.axes = ["a", "b", "c", "d"].map(String::from).to_vec();
    let operands: Vec<Value> =
        types.into_iter().enumerate().map(|(i, ty)| input(&mut p, &format!("x{i}"), ty)).collect();
    let v = p.graph.add(op, &operands);
    output(&mut p, "y", v);
    p
}

#[test]
fn every_op_round_trips_with_its_attributes() {
    for (op, types) in samples() {
        let expected = format!("{op:?}");
        let p = of_one(op, types);
        let again = round_trip(&p);
        assert_eq!(format!("{:?}", again.graph.op(again.output("y").unwrap())), expected, "\n{p}");
    }
}

/// Six kinds of ports, both directions, two axes, all kinds of leaves, every initialiser, and awkward names.
fn everything() -> Draft {
    let mut p = Draft::new("every thing");
    p.axes = vec!["words".into(), "the answer".into()];
    let rows = input(&mut p, "rows", float(T, 3));
    let answer = input(&mut p, "answer", Type::int(T1, ()));
    p.inputs[1].bound = Some(7);
    let state = input(&mut p, "state", float(B, 3));
    let scale = input(&mut p, "scale\n\"β\"", float(S, ()));
    let pieces = vec![Init::Constant(-0.0), Init::Uniform(-1e-9, 0.1), Init::Pieces(vec![Init::He, Init::Glorot])];
    let w = parameter(&mut p, "cell.w", float(S, [3, 3]), Init::Orthogonal(1.5));
    let bias = parameter(&mut p, "inf", float(S, 3), Init::Pieces(pieces));
    let table = parameter(&mut p, "table", float(S, [7, 3]), Init::Normal(0.02));
    parameter(&mut p, "unused", float(S, 2), Init::Constant(f64::NEG_INFINITY));

    let mut s = Scan::new("cell", Axis(0), false);
    let b = &mut s.body;
    let wi = b.leaf(Op::Capture(0), float(S, [3, 3]));
    let ci = b.leaf(Op::Capture(1), float(B, 3));
    let ti = b.leaf(Op::Each(0), float(B, 3));
    let h = b.leaf(Op::Carry(0), float(B, 3));
    let n = b.leaf(Op::Carry(1), float(S, ()));
    let dead = b.unary(Unary::Exp, h);
    let product = b.add(Op::Dot, &[h, wi]);
    let sum = b.binary(Binary::Add, product, ti);
    let sum = b.binary(Binary::Mul, sum, ci);
    let next = b.unary(Unary::Tanh, sum);
    let one = b.scalar(1.0);
    let count = b.binary(Binary::Add, n, one);
    let grad = b.add(Op::DotTn, &[h, next]);
    b.unary(Unary::Neg, dead);
    let port = |name: &str, value| Port { name: name.into(), value };
    s.captures = vec![port("w", wi), port("x", ci)];
    s.each = vec![port("x", ti)];
    s.carries = vec![
        Carry { name: "x".into(), value: h, next },
        Carry { name: "number of steps".into(), value: n, next: count },
    ];
    s.yields = vec![port("out", next), port("out", ti)];
    s.sums = vec![port("dw", grad), port("steps", one)];
    let backward = Scan { reverse: true, ..s.clone() };

    let start = p.graph.constant(0.5, float(B, 3));
    let zero = p.graph.scalar(0.0);
    let scan = p.graph.add(Op::Scan(Box::new(s)), &[w, state, rows, start, zero]);
    let results = [Op::Yield(0), Op::Yield(1), Op::Final(0), Op::Final(1), Op::Total(0), Op::Total(1)];
    let results: Vec<Value> = results.into_iter().map(|op| p.graph.scan_result(scan, op)).collect();
    let seen = p.graph.constant(f64::NAN, float(B, 3));
    let again = p.graph.add(Op::Scan(Box::new(backward)), &[results[4], seen, results[0], seen, scale]);
    let back = p.graph.scan_result(again, Op::Final(0));
    let twice = p.graph.scan_result(again, Op::Final(0));

    let embedded = p.graph.add(Op::Gather, &[table, answer]);
    let mut decoder = Scan::new("decoder", Axis(1), true);
    let e = decoder.body.leaf(Op::Each(0), float(B, 3));
    decoder.each = vec![port("token", e)];
    decoder.yields = vec![port("token", e)];
    let decoder = p.graph.add(Op::Scan(Box::new(decoder)), &[embedded]);
    let tokens = p.graph.scan_result(decoder, Op::Yield(0));
    let words = p.graph.add(Op::RowCount(T1), &[]);
    let three = p.graph.constant(3.0, Type::int(S, ()));
    let three = p.graph.add(Op::ToFloat, &[three]);

    output(&mut p, "tokens", tokens);
    output(&mut p, "back", back);
    output(&mut p, "rows", twice);
    output(&mut p, "words", words);
    output(&mut p, "three", three);
    output(&mut p, "bias", bias);
    for (i, &v) in results.iter().enumerate() {
        output(&mut p, &format!("result {i}"), v);
    }
    for (name, c) in NUMBERS {
        let v = p.graph.scalar(c);
        output(&mut p, name, v);
    }
    p.objective = Some(results[3]);
    p.updates = vec![Update { target: state, value: results[2] }, Update { target: w, value: results[4] }];
    p
}

const NUMBERS: [(&str, f64); 5] =
    [("-0", -0.0), ("tiny", 5e-324), ("huge", f64::MAX), ("-inf", f64::NEG_INFINITY), ("third", 1.0 / 3.0)];

#[test]
fn leaves_and_scans_round_trip() {
    let p = everything();
    let again = round_trip(&p);
    assert_eq!(again.axes, p.axes);
    assert_eq!(again.inputs[1].bound, Some(7));
    for (p, q) in p.parameters.iter().zip(&again.parameters) {
        assert_eq!((&p.name, &p.init), (&q.name, &q.init));
    }
    for (p, q) in p.inputs.iter().zip(&again.inputs) {
        assert_eq!(p.name, q.name);
    }
    for (name, c) in NUMBERS {
        let Op::Constant(x) = *again.graph.op(again.output(name).unwrap()) else { panic!("{name} is a constant") };
        assert_eq!(x.to_bits(), c.to_bits());
    }
}

#[test]
fn everything_prints_as_it_is_to_be_read() {
    let expected = r#"program "every thing" {
  axis T = words
  axis T1 = "the answer"
  sequence rows: f32[T, B, 3]
  sequence answer: i32[T1, B] < 7
  batch state: f32[B, 3]
  shared "scale\n\"β\"": f32
  parameter cell.w: f32[3, 3] = orthogonal(1.5)
  parameter "inf": f32[3] = [-0, uniform(-1e-9, 0.1), [he, glorot]]
  parameter table: f32[7, 3] = normal(0.02)
  parameter unused: f32[2] = -inf
  scan cell {
    shared w: f32[3, 3] = cell.w
    batch x: f32[B, 3] = state
    each x.2: f32[B, 3] = rows
    carry x.3: f32[B, 3] = 0.5
    carry "number of steps": f32 = 0
    %0: f32[B, 3] = dot x.3, w
    %1: f32[B, 3] = add %0, x.2
    %2: f32[B, 3] = mul %1, x
    %3: f32[B, 3] = tanh %2
    %4: f32 = add "number of steps", 1
    %5: f32[3, 3] = dot.tn x.3, %3
    yield out = %3
    yield out.2 = x.2
    sum dw = %5
    sum steps = 1
    next x.3 = %3
    next "number of steps" = %4
  }
  %0: f32[T, B, 3] = yield out of cell
  %1: f32[T, B, 3] = yield out.2 of cell
  %2: f32[B, 3] = final x.3 of cell
  %3: f32 = final "number of steps" of cell
  %4: f32[3, 3] = total dw of cell
  %5: f32 = total steps of cell
  %6: f32[B, 3] = constant nan
  scan cell.2 reverse {
    shared w: f32[3, 3] = %4
    batch x: f32[B, 3] = %6
    each x.2: f32[B, 3] = %0
    carry x.3: f32[B, 3] = nan
    carry "number of steps": f32 = "scale\n\"β\""
    %0: f32[B, 3] = dot x.3, w
    %1: f32[B, 3] = add %0, x.2
    %2: f32[B, 3] = mul %1, x
    %3: f32[B, 3] = tanh %2
    %4: f32 = add "number of steps", 1
    %5: f32[3, 3] = dot.tn x.3, %3
    yield out = %3
    yield out.2 = x.2
    sum dw = %5
    sum steps = 1
    next x.3 = %3
    next "number of steps" = %4
  }
  %7: f32[B, 3] = final x.3 of cell.2
  %8: f32[B, 3] = final x.3 of cell.2
  %9: f32[T1, B, 3] = gather table, answer
  scan decoder reverse over T1 {
    each token: f32[B, 3] = %9
    yield token = token
  }
  %10: f32[T1, B, 3] = yield token of decoder
  %11: f32 = row_count [T1, B]
  %12: i32 = constant 3
  %13: f32 = to_float %12
  output tokens = %10
  output back = %7
  output rows = %8
  output words = %11
  output three = %13
  output bias = "inf"
  output "result 0" = %0
  output "result 1" = %1
  output "result 2" = %2
  output "result 3" = %3
  output "result 4" = %4
  output "result 5" = %5
  output "-0" = -0
  output tiny = 5e-324
  output huge = 1.7976931348623157e308
  output "-inf" = -inf
  output third = 0.3333333333333333
  objective %3
  update state = %2
  update cell.w = %4
}
"#;
    assert_eq!(everything().to_string(), expected);
}

/// The example at the head of the printer is what it says.
#[test]
fn the_documented_text_is_one() {
    let source = include_str!("../src/ir/print.rs");
    let lines = source.lines().skip_while(|l| *l != "//! ```text").skip(1).take_while(|l| *l != "//! ```");
    let text: String = lines.map(|l| format!("{}\n", l.strip_prefix("//! ").unwrap())).collect();
    assert_eq!(round_trip(&Program::parse(&text).unwrap()).to_string(), text);
}

#[test]
fn an_unrelated_node_does_not_renumber() {
    let build = |unrelated: bool| {
        let mut p = Draft::new("p");
        let x = input(&mut p, "x", float(B, 3));
        if unrelated {
            let dead = p.graph.unary(Unary::Sin, x);
            p.graph.unary(Unary::Cos, dead);
        }
        let y = p.graph.unary(Unary::Exp, x);
        output(&mut p, "y", y);
        p.to_string()
    };
    assert_eq!(build(true), build(false));
}

#[test]
fn comments_and_blank_lines_are_passed_over() {
    let p = everything().to_string();
    let commented = p.replace('\n', "   ; a \"comment\" {\n\n\t; another\n");
    assert_eq!(Program::parse(&commented).map(|q| q.to_string()), Ok(p));
    let dos = "program p { ; one\r\n  batch x: f32[B]\r\n  output y = x\r\n}";
    assert!(Program::parse(dos).is_ok());
}

/// Any text gives a program or an error with a place, and a program that comes out keeps the law.
fn survives(text: &str) -> bool {
    match Program::parse(text) {
        Ok(p) => {
            round_trip(&p);
            true
        }
        Err(e) => {
            assert!(e.line >= 1 && e.line <= text.lines().count() + 1, "{e}");
            assert!(e.column >= 1 && !e.message.is_empty(), "{e}");
            false
        }
    }
}

#[test]
fn no_truncated_text_panics() {
    let text = everything().to_string();
    let last = text.rfind('}').unwrap();
    for (end, _) in text.char_indices() {
        assert_eq!(survives(&text[..end]), end > last, "the program ends at its last brace, not at {end}");
    }
}

#[test]
fn no_changed_text_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let samples = samples().into_iter().map(|(op, types)| of_one(op, types).to_string());
    let texts: Vec<String> = std::iter::once(everything().to_string()).chain(samples).collect();
    let pieces = "%0 %99999999999999999999 0 1 -1 18446744073709551615 2147483647 1e400 nan .. { } [ ] ( ) : = , < \
                  \n \" \"\\u{d800}\" \"\\u{ \\ ; β T T1 B f32 i32 axis=9 scan next carry each yield of x x0 - 1e+ \
                  n=-2147483649 perm=[0,0] constant row_count scatter_add one_hot slice 3..2 output objective update \
                  [[[[[[[[[[[[[[[[[[[[[[1";
    let pieces: Vec<&str> = pieces.split(' ').collect();
    let (mut valid, mut faulty) = (0, 0);
    for round in 0..20_000 {
        let text = &texts[if round % 4 == 0 { 0 } else { below(texts.len()) }];
        let mut words: Vec<&str> = text.split_inclusive([' ', '\n', ',', ':', '[', ']']).collect();
        for _ in 0..=below(3) {
            let (i, j) = (below(words.len()), below(words.len()));
            match below(5) {
                0 => words[i] = pieces[below(pieces.len())],
                1 => words.insert(i, pieces[below(pieces.len())]),
                2 => drop(words.remove(i)),
                3 => words.swap(i, j),
                _ => words[i] = words[j],
            }
        }
        if survives(&words.concat()) { valid += 1 } else { faulty += 1 }
    }
    assert!(valid > 100 && faulty > 10_000, "the changes are neither all harmless nor all fatal: {valid}, {faulty}");
}

#[test]
fn errors_say_where_and_what() {
    let check = |body: &str, expected: &str| {
        let head = "program p {\n  sequence rows: f32[T, B, 3]\n  batch x: f32[B, 3]\n  batch i: i32[B]\n";
        let error = Program::parse(&format!("{head}{body}")).map(|p| p.to_string()).expect_err(body).to_string();
        assert_eq!(error, expected);
    };
    check("  %0: f32[B, 3] = exp y\n}", "line 5, column 23: no value `y` is defined above in this block");
    check("  %0: f32[B, 4] = exp x\n}", "line 5, column 7: the type is f32[B, 3], not f32[B, 4]");
    check("  %0: f32[B, 3] = expo x\n}", "line 5, column 19: there is no op `expo`");
    check(
        "  %0: f32[B, 3] = slice x 1..5\n}",
        "line 5, column 19: `slice` cannot take f32[B, 3]: 1..5 is not within the 3 of axis 0",
    );
    check("  %0: f32[B, 3] = exp x x\n}", "line 5, column 25: expected the end of the line, found `x`");
    check("  batch x: f32[B]\n}", "line 5, column 9: the name x is taken");
    check("  batch z: f32[3]\n}", "line 5, column 12: f32[3] is not the type of a `batch` but of a `shared`");
    check("  batch z: f32[B, 0]\n}", "line 5, column 19: expected a dimension of at least 1, found `0`");
    check("  batch z: f64[B]\n}", "line 5, column 12: expected a type (`f32` or `i32`), found `f64`");
    check("  objective x\n}", "line 5, column 13: the objective must be a shared float scalar, not f32[B, 3]");
    check("  update x = i\n}", "line 5, column 14: x of type f32[B, 3] cannot become i32[B]");
    check("  output y = x\n  output y = x\n}", "line 6, column 10: there is an output y already");
    check("  update w = x\n}", "line 5, column 10: no parameter or input w");
    check("  output y = x", "line 6, column 1: expected a line of a program, found the end of the text");
    check("  output y = \"x", "line 5, column 14: expected `\"` at the end of the name");
    check("  output y = €", "line 5, column 14: '€' begins no word");
    check(
        "  scan s {\n    each r: f32[B, 3] = x\n  }\n}",
        "line 6, column 25: expected a value of type f32[T, B, 3], found f32[B, 3]",
    );
    check("  scan s {\n    carry h: f32[B, 3] = 0\n  }\n}", "line 7, column 3: carry h has no `next`");
    check(
        "  scan s {\n    carry h: f32[B, 3] = 0\n    next h = x\n  }\n}",
        "line 7, column 14: no value `x` is defined above in this block",
    );
    check(
        "  scan s {\n    yield y = 1\n  }\n}",
        "line 6, column 15: f32 has no row for each sample and cannot be yielded",
    );
    check("  scan s {\n    scan t {\n    }\n  }\n}", "line 6, column 5: expected a line of a scan, found `scan`");
    check("  scan s {\n  }\n  %0: f32 = total t of s\n}", "line 7, column 19: scan s has no total t");
}

#[test]
fn a_drawing_shows_each_line_once_and_escapes_names() {
    let p = everything();
    let dot = p.to_dot();
    assert_eq!(dot, everything().to_dot());
    assert_eq!(dot, round_trip(&p).to_dot());
    for line in [
        r#"digraph "every thing" {"#,
        r#"  "rows" [label="rows: f32[T, B, 3]", shape=cds, style=filled, fillcolor=lightblue];"#,
        r#"  "\"scale\\n\\\"β\\\"\"" [label="\"scale\\n\\\"β\\\"\": f32", shape=cds, style=filled, fillcolor=lightblue];"#,
        r#"  "cell.w" [label="cell.w: f32[3, 3]", shape=ellipse, style=filled, fillcolor=lightyellow];"#,
        r#"  subgraph "cluster cell.2" {"#,
        r#"    label="scan cell.2 reverse"; style=rounded;"#,
        r#"    "cell/x.3" [label="x.3: f32[B, 3]", shape=box, peripheries=2];"#,
        r#"    "cell/%0" [label="dot x.3, w\n%0: f32[B, 3]"];"#,
        r#"    "cell/x.3" -> "cell/%0";"#,
        r#"    "cell/%3" -> "cell/x.3" [style=dashed, constraint=false];"#,
        r#"  "rows" -> "cell/x.2";"#,
        r#"  "cell/%5" -> "%4";"#,
        r#"  "output tokens" [label="output tokens = %10", shape=house, style=filled, fillcolor=lightgreen];"#,
        r#"  "%10" -> "output tokens";"#,
    ] {
        assert_eq!(dot.lines().filter(|l| *l == line).count(), 1, "{line}\n{dot}");
    }
    // Every box is drawn once, every edge joins boxes that are drawn, and quotes are closed.
    let boxes = dot.lines().filter(|l| l.contains(" [label="));
    let mut drawn: Vec<&str> = boxes.map(|l| l.split(" [").next().unwrap().trim()).collect();
    for edge in dot.lines().filter(|l| l.contains(" -> ")) {
        let (from, to) = edge.trim().trim_end_matches(';').split_once(" -> ").unwrap();
        let to = to.split(" [").next().unwrap();
        assert!(drawn.contains(&from) && drawn.contains(&to), "{edge}\n{dot}");
    }
    let count = drawn.len();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), count);
    for line in dot.lines() {
        assert_eq!(line.replace("\\\\", "").replace("\\\"", "").matches('"').count() % 2, 0, "{line}");
    }
}

#[test]
fn dtypes_print_as_they_are_read() {
    for dtype in [DType::F32, DType::I32] {
        let mut p = Draft::new("p");
        p.axes = ["a", "b", "c"].map(String::from).to_vec();
        let x = input(&mut p, "x", Type { dtype, extent: Extent::Time(Axis(2)), shape: [2, 1].into() });
        output(&mut p, "y", x);
        assert_eq!(*round_trip(&p).ty(x), *p.ty(x));
    }
}

/// A text of twice the length takes twice the time, in one line or in many: in a quadratic parser or printer these would
/// take minutes.
#[test]
fn long_texts_take_time_by_their_length() {
    let started = std::time::Instant::now();
    // One line of 4 MB.
    let operands = vec!["x"; 1_000_000].join(",  ");
    let line =
        format!("program p {{\n  batch x: f32[B, 1]\n  %0: f32[B, 1000000] = concat {operands}\n  output y = %0\n}}\n");
    assert_eq!(survived(&line).outputs.len(), 1);
    // Many ports of one name, all of them read.
    let mut p = Draft::new("ports");
    p.axes = vec!["time".into()];
    let x = input(&mut p, "x", float(T, ()));
    let mut scan = Scan::new("s", Axis(0), false);
    let e = scan.body.leaf(Op::Each(0), float(B, ()));
    scan.each = vec![Port { name: "x".into(), value: e }];
    let n = 20_000;
    scan.yields = vec![Port { name: "y".into(), value: e }; n];
    scan.sums = vec![Port { name: "y".into(), value: e }; n];
    let scan = p.graph.add(Op::Scan(Box::new(scan)), &[x]);
    for i in 0..n {
        for (name, op) in [("yield", Op::Yield(i)), ("total", Op::Total(i))] {
            let v = p.graph.scan_result(scan, op);
            output(&mut p, &format!("{name} {i}"), v);
        }
    }
    round_trip(&p);
    // Many inputs and parameters.
    let mut p = Draft::new("leaves");
    for i in 0..n {
        let x = input(&mut p, &format!("x{i}"), float(B, ()));
        output(&mut p, &format!("y{i}"), x);
        parameter(&mut p, &format!("w{i}"), float(S, ()), Init::He);
    }
    round_trip(&p);
    // Integers handed from state to state, the last of which is an index.
    let mut text = String::from("program chain {\n  axis T = time\n  scan s {\n");
    for i in 0..n {
        text += &format!("    carry c{i}: i32[B] = 1\n");
    }
    text += "    %0: f32[B, 3] = one_hot c0\n    yield y = %0\n";
    for i in 0..n {
        text += &format!("    next c{i} = c{}\n", (i + 1) % n);
    }
    text += "  }\n  %0: f32[T, B, 3] = yield y of s\n  output y = %0\n}\n";
    survived(&text);
    assert!(Program::parse(&text.replace("carry c19999: i32[B] = 1", "carry c19999: i32[B] = 3")).is_err());
    let time = started.elapsed();
    assert!(time.as_secs() < 60, "{time:?}");
}

fn survived(text: &str) -> Program {
    Program::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn sizes_and_depths_have_limits() {
    let of = |ty: &str| format!("program p {{\n  batch x: {ty}\n  output y = x\n}}\n");
    let refused = |text: String| Program::parse(&text).map(|p| p.to_string()).expect_err(&text).to_string();
    assert!(Program::parse(&of("f32[B, 268435456]")).is_ok());
    for ty in ["f32[B, 268435457]", "f32[B, 2147483647, 2147483647]", "f32[B, 65536, 65536]"] {
        assert!(refused(of(ty)).contains("a row has at most 268435456 features"), "{}", refused(of(ty)));
    }
    for ty in ["f32[B, 99999999999999999999]", "f32[B, -1]", "f32[B, 1.5]"] {
        assert!(refused(of(ty)).contains("expected a whole number from 0 to 2147483647"), "{}", refused(of(ty)));
    }
    let deep = format!("f32[B{}]", ", 1".repeat(17));
    assert_eq!(refused(of(&deep)), "line 2, column 67: a row has at most 16 dimensions");
    let pieces = format!("program p {{\n  parameter w: f32[2] = {}\n}}\n", "[".repeat(100_000));
    assert!(refused(pieces).contains("more than 16 levels of pieces"));
    // Results that are too large though operands are not.
    let square = "program p {\n  batch x: f32[B, 1048576, 1]\n  batch y: f32[B, 1, 1048576]\n  \
                  %0: f32[B, 1048576, 1048576] = matmul x, y\n  output z = %0\n}\n";
    assert!(refused(square.into()).contains("a row has at most"));
}

#[test]
fn only_declared_axes_are_in_use() {
    let of =
        |lines: &str| format!("program p {{\n  axis T = time\n  sequence x: f32[T, B]\n  batch b: f32[B]\n{lines}}}\n");
    let refused = |lines: &str| Program::parse(&of(lines)).map(|p| p.to_string()).expect_err(lines).to_string();
    let rule = "the program has no time axis T3; declare it with `axis T3 = ..`";
    for line in [
        "%0: f32 = row_count [T3, B]",
        "%0: f32[T3, B] = expand b",
        "%0: f32[T3, B] = place_last b",
        "%0: f32[T3, B] = constant 1",
    ] {
        let error = refused(&format!("  {line}\n  output y = %0\n"));
        assert_eq!(error, format!("line 5, column 3: in `{line}`: {rule}"));
    }
    let error = refused("  scan s over T3 {\n    batch b: f32[B] = b\n    carry h: f32[B] = 0\n    next h = b\n  }\n");
    assert_eq!(error, format!("line 5, column 8: in `scan #3 over T3`: {rule}"));
    let error = refused(
        "  scan s {\n    batch b: f32[B] = b\n    %0: f32 = row_count [T3, B]\n    %1: f32[B] = mul b, %0\n    yield y = %1\n  }\n",
    );
    assert!(error.starts_with("line 7, column 5: in ") && error.ends_with(rule), "{error}");
    let error = Program::parse("program p {\n  sequence x: f32[T, B]\n  output y = x\n}\n").unwrap_err().to_string();
    assert_eq!(
        error,
        "line 2, column 3: in `x: f32[T, B] = input x`: the program has no time axis T; declare it with `axis T = ..`"
    );
}

#[test]
fn integers_are_not_added_up() {
    let text = "program p {\n  axis T = time\n  sequence i: i32[T, B]\n  scan s {\n    each i: i32[B] = i\n    sum n = i\n  }\n  \
                %0: i32[B] = total n of s\n  output n = %0\n}\n";
    let error = Program::parse(text).unwrap_err().to_string();
    assert!(error.starts_with("line 4, column 8: ") && error.contains("cannot be added up"), "{error}");
    for line in
        ["pad i before=1 after=0", "place_last i", "sum i", "max_over i", "add i, i", "sum_rows i", "broadcast i"]
    {
        let text = format!("program p {{\n  axis T = time\n  batch i: i32[B, 1]\n  %0: i32[T, B, 2] = {line}\n}}\n");
        let error = Program::parse(&text).unwrap_err().to_string();
        assert!(error.contains("floats"), "{error}");
    }
}
