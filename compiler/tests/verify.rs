//! Every rule of the verifier is broken once: a program that breaks it is refused, with the line where it does.

use retrograd_compiler::ir::program::{Init, Input, Parameter, Update};
use retrograd_compiler::ir::scan::{Carry, Port};
use retrograd_compiler::ir::{Axis, Binary, Draft, Extent, Graph, Op, Scan, Type, Unary, Value};

const T: Extent = Extent::Time(Axis(0));
const B: Extent = Extent::Batch;
const S: Extent = Extent::Shared;

/// The values of a small program around one scan.
struct Parts {
    p: Draft,
    rows: Value,
    state: Value,
    label: Value,
    w: Value,
    last: Value,
    all: Value,
}

/// The scan of the program: a sum of products, with each kind of port.
fn cell() -> Scan {
    let mut s = Scan::new("cell", Axis(0), false);
    let b = &mut s.body;
    let w = b.leaf(Op::Capture(0), Type::float(S, [3, 3]));
    let x = b.leaf(Op::Each(0), Type::float(B, 3));
    let h = b.leaf(Op::Carry(0), Type::float(B, 3));
    let product = b.add(Op::Dot, &[x, w]);
    let next = b.binary(Binary::Add, h, product);
    let square = b.add(Op::DotTn, &[x, x]);
    s.captures = vec![Port { name: "w".into(), value: w }];
    s.each = vec![Port { name: "x".into(), value: x }];
    s.carries = vec![Carry { name: "h".into(), value: h, next }];
    s.yields = vec![Port { name: "out".into(), value: next }];
    s.sums = vec![Port { name: "square".into(), value: square }];
    s
}

/// The program around a scan whose operands are chosen among (rows, state, w).
fn around(scan: Scan, operands: impl Fn(Value, Value, Value) -> Vec<Value>) -> Parts {
    let mut p = Draft::new("p");
    p.axes = vec!["time".into(), "other".into()];
    let input = |p: &mut Draft, name: &str, ty: Type| {
        let value = p.graph.leaf(Op::Input(name.into()), ty);
        p.inputs.push(Input { name: name.into(), value, bound: None });
        value
    };
    let rows = input(&mut p, "rows", Type::float(T, 3));
    let state = input(&mut p, "state", Type::float(B, 3));
    let label = input(&mut p, "label", Type::int(B, ()));
    let w = p.graph.leaf(Op::Parameter("w".into()), Type::float(S, [3, 3]));
    p.parameters.push(Parameter { name: "w".into(), value: w, init: Init::Glorot, trained: true });
    let scan = p.graph.add(Op::Scan(Box::new(scan)), &operands(rows, state, w));
    let (last, all) = (p.graph.scan_result(scan, Op::Final(0)), p.graph.scan_result(scan, Op::Yield(0)));
    p.outputs = vec![("last".into(), last), ("all".into(), all)];
    Parts { p, rows, state, label, w, last, all }
}

fn valid() -> Parts {
    around(cell(), |rows, state, w| vec![w, rows, state])
}

#[track_caller]
fn refused(p: &Draft, expected: &str) {
    assert_eq!(p.verify(), Err(expected.to_string()), "\n{p}");
}

/// Breaks the valid program.
#[track_caller]
fn breaks(edit: impl FnOnce(&mut Parts), expected: &str) {
    let mut parts = valid();
    edit(&mut parts);
    refused(&parts.p, expected);
}

/// Breaks the scan within the valid program.
#[track_caller]
fn breaks_scan(edit: impl FnOnce(&mut Scan), expected: &str) {
    let mut parts = valid();
    let scan = parts.p.graph.operands(parts.last)[0];
    let Op::Scan(s) = parts.p.graph.op_mut(scan) else { panic!("the scan of `around`") };
    edit(s);
    refused(&parts.p, expected);
}

#[test]
fn the_unbroken_program_is_valid() {
    assert_eq!(valid().p.verify(), Ok(()));
}

#[test]
fn types_follow_from_ops() {
    breaks(
        |x| {
            let v = x.p.graph.unary(Unary::Tanh, x.last);
            x.p.outputs.push(("v".into(), v));
            *x.p.graph.op_mut(v) = Op::Argmax;
        },
        "in `%2: f32[B, 3] = argmax %0`: the type must be i32[B]",
    );
    breaks(
        |x| {
            let v = x.p.graph.add(Op::Slice { axis: 0, start: 0, len: 2 }, &[x.last]);
            x.p.outputs.push(("v".into(), v));
            *x.p.graph.op_mut(v) = Op::Slice { axis: 0, start: 2, len: 2 };
        },
        "in `%2: f32[B, 2] = slice %0 2..4`: `slice` cannot take f32[B, 3]: 2..4 is not within the 3 of axis 0",
    );
    breaks(
        |x| {
            let v = x.p.graph.leaf(Op::RowCount(B), Type::float(S, 2));
            x.p.outputs.push(("v".into(), v));
        },
        "in `%2: f32[2] = row_count [B]`: the type must be f32",
    );
    breaks(
        |x| {
            let v = x.p.graph.constant(0.0, Type::float(B, [3, 0]));
            x.p.outputs.push(("v".into(), v));
        },
        "in `%2: f32[B, 3, 0] = constant 0`: every dimension is at least 1",
    );
    breaks(
        |x| {
            x.p.graph.constant(0.0, Type::float(Extent::Time(Axis(4)), 3));
        },
        "in `#7: f32[T3, B, 3] = constant 0`: time axis 4 is not one of the 4",
    );
    breaks(
        |x| {
            let v = x.p.graph.unary(Unary::Exp, x.last);
            *x.p.graph.op_mut(v) = Op::Constant(1.0);
        },
        "in `#7: f32[B, 3] = constant %0 1`: a leaf has no operands",
    );
}

#[test]
fn leaves_belong_to_declarations() {
    breaks(
        |x| {
            x.p.parameters.clear();
        },
        "in `%0: f32[3, 3] = parameter w`: the leaf is not declared in the program's head",
    );
    breaks(
        |x| {
            x.p.inputs.truncate(2);
        },
        "in `#2: i32[B] = input label`: the leaf is not declared in the program's head",
    );
    breaks(
        |x| {
            x.p.graph.leaf(Op::Carry(0), Type::float(B, 3));
        },
        "in `#7: f32[B, 3] = carry #0`: the leaf is not declared in the program's head",
    );
    breaks(
        |x| x.p.parameters[0].value = x.state,
        "parameter w is declared at another leaf, in `w: f32[B, 3] = input state`",
    );
    breaks(|x| x.p.inputs[0].value = x.w, "input rows is declared at another leaf, in `w: f32[3, 3] = parameter w`");
    breaks(|x| x.p.inputs[0].bound = Some(3), "input rows: only integers have a bound, of at least 1");
    breaks(|x| x.p.inputs[2].bound = Some(0), "input label: only integers have a bound, of at least 1");
    breaks(
        |x| {
            let value = x.p.graph.leaf(Op::Parameter("v".into()), Type::float(B, 3));
            x.p.parameters.push(Parameter { name: "v".into(), value, init: Init::He, trained: true });
        },
        "parameter v: f32[B, 3] is not shared floats",
    );
    breaks(
        |x| {
            let mut other = Graph::new();
            let far = (0..100).map(|_| other.scalar(0.0)).last().unwrap();
            x.p.objective = Some(far);
        },
        "value 99 belongs to another graph: this one has 7 nodes",
    );
}

#[test]
fn names_are_distinct() {
    breaks(
        |x| {
            let value = x.p.graph.leaf(Op::Input("w".into()), Type::float(B, 3));
            x.p.inputs.push(Input { name: "w".into(), value, bound: None });
        },
        "two parameters or inputs have the name w",
    );
    breaks(|x| x.p.outputs.push(("all".into(), x.last)), "two outputs have the name all");
    breaks(|x| x.p.axes = vec!["t".into(), "t".into()], "two axes have the name t");
    breaks(|x| x.p.axes = ["a", "b", "c", "d", "e"].map(String::from).to_vec(), "5 time axes, where 4 are allowed");
}

#[test]
fn roots_have_their_types() {
    breaks(|x| x.p.objective = Some(x.last), "the objective must be a shared float scalar, not f32[B, 3]");
    breaks(
        |x| x.p.outputs.push(("scan".into(), x.p.graph.operands(x.last)[0])),
        "an output, objective or update takes a scan itself instead of one of its results",
    );
    let update = |target, value| Update { target, value };
    breaks(|x| x.p.updates = vec![update(x.rows, x.last)], "update rows: f32[T, B, 3] cannot become f32[B, 3]");
    breaks(|x| x.p.updates = vec![update(x.all, x.all)], "update %1: only parameters and inputs are stored");
    breaks(|x| x.p.updates = vec![update(x.label, x.w)], "update label: i32[B] cannot become f32[3, 3]");
    breaks(
        |x| x.p.updates = vec![update(x.state, x.last), update(x.state, x.state)],
        "update state: it is replaced twice",
    );
    let mut x = valid();
    x.p.updates = vec![update(x.state, x.last), update(x.w, x.w)];
    assert_eq!(x.p.verify(), Ok(()));
}

#[test]
fn results_are_taken_from_scans() {
    breaks(
        |x| *x.p.graph.op_mut(x.all) = Op::Yield(1),
        "in `%1: f32[T, B, 3] = yield #1 of cell`: the scan has 1 of these, and 1 is not among them",
    );
    breaks(
        |x| *x.p.graph.op_mut(x.all) = Op::Total(0),
        "in `%1: f32[T, B, 3] = total square of cell`: the type must be f32[3, 3]",
    );
    breaks(
        |x| {
            let v = x.p.graph.unary(Unary::Exp, x.last);
            *x.p.graph.op_mut(v) = Op::Final(0);
        },
        "in `#7: f32[B, 3] = final #0 of %0`: it reads a scan, nothing else",
    );
    breaks(
        |x| {
            x.p.graph.leaf(Op::Final(0), Type::float(B, 3));
        },
        "in `#7: f32[B, 3] = final #0 of `: it reads one scan",
    );
    breaks(
        |x| {
            let scan = x.p.graph.operands(x.last)[0];
            x.p.graph.unary(Unary::Exp, scan);
        },
        "in `#7: f32 = exp cell`: only `yield`, `final` and `total` can read a scan",
    );
}

#[test]
fn a_body_is_a_graph_of_one_step() {
    let within = "in `scan cell`: ";
    breaks_scan(
        |s| {
            s.body.add(Op::Scan(Box::new(Scan::new("inner", Axis(0), false))), &[]);
        },
        &format!("{within}in `scan #6`: a scan cannot stand within a scan"),
    );
    breaks_scan(
        |s| {
            s.body.leaf(Op::Parameter("w".into()), Type::float(S, 3));
        },
        &format!("{within}in `#6: f32[3] = parameter w`: a body reads values from outside through its ports"),
    );
    breaks_scan(
        |s| {
            s.body.constant(0.0, Type::float(T, 3));
        },
        &format!("{within}in `#6: f32[T, B, 3] = constant 0`: a body sees one step and has no time extent"),
    );
    breaks_scan(
        |s| {
            let next = s.carries[0].next;
            *s.body.op_mut(next) = Op::Binary(Binary::Mul);
            let product = s.body.operands(next)[1];
            *s.body.op_mut(product) = Op::DotTn;
        },
        &format!(
            "{within}in `%0: f32[B, 3] = dot.tn x, w`: `dot.tn` cannot take f32[B, 3] and f32[3, 3]: \
             leading dimensions of [3] and [3, 3] differ"
        ),
    );
    for (op, port) in [(Op::Capture(0), "capture"), (Op::Each(0), "sequence"), (Op::Carry(7), "carry")] {
        let text = format!("{} #{}", op.name(), if port == "carry" { 7 } else { 0 });
        breaks_scan(
            |s| {
                s.body.leaf(op, Type::float(B, 3));
            },
            &format!("{within}in `#6: f32[B, 3] = {text}`: no {port} has this leaf"),
        );
    }
}

#[test]
fn ports_fit_the_outside() {
    let check = |scan: Scan, operands: fn(Value, Value, Value) -> Vec<Value>, expected: &str| {
        let over = ["", " over T1", "", "", " over T3"][usize::from(scan.axis.0)];
        refused(&around(scan, operands).p, &format!("in `scan cell{over}`: {expected}"));
    };
    check(cell(), |rows, _, w| vec![w, rows], "2 operands for 3 captures, sequences and initial values");
    check(
        cell(),
        |rows, state, _| vec![state, rows, state],
        "capture w: f32[3, 3] is given f32[B, 3]; both must be the same, without time",
    );
    check(
        cell(),
        |_, state, w| vec![w, state, state],
        "sequence x: f32[B, 3] is given f32[B, 3] instead of f32[T, B, 3]",
    );
    check(
        Scan { axis: Axis(1), ..cell() },
        |rows, state, w| vec![w, rows, state],
        "sequence x: f32[B, 3] is given f32[T, B, 3] instead of f32[T1, B, 3]",
    );
    check(cell(), |rows, _, w| vec![w, rows, w], "carry h: f32[B, 3] starts from f32[3, 3]; it keeps its type");
    let mut s = cell();
    s.carries[0].next = s.sums[0].value;
    check(s, |rows, state, w| vec![w, rows, state], "carry h: f32[B, 3] becomes f32[3, 3]; it keeps its type");
    let mut s = cell();
    s.yields[0].value = s.sums[0].value;
    check(s, |rows, state, w| vec![w, rows, state], "yield out: f32[3, 3] has no row for each sample");
    let mut s = cell();
    s.captures[0].value = s.sums[0].value;
    check(s, |rows, state, w| vec![w, rows, state], "in `%0: f32[3, 3] = capture #0`: no capture has this leaf");
    // A second port at the leaf of the first.
    let mut s = cell();
    s.each.push(Port { name: "y".into(), value: s.each[0].value });
    check(
        s,
        |rows, state, w| vec![w, rows, rows, state],
        "sequence y is read in `y: f32[B, 3] = each #0`, not by its own leaf",
    );
    let mut s = cell();
    s.axis = Axis(4);
    check(s, |rows, state, w| vec![w, rows, state], "time axis 4 is not one of the 4");
}
