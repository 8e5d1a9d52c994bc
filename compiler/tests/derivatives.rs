//! Derivatives of whole graphs with scans, against the interpreter's dual numbers and finite differences.
//!
//! Each program of [`corpus`] goes through the same checks, at several numbers of steps and samples:
//! reverse mode gives every element's derivative (duals, 1e-10) and a directional one (finite differences, 1e-6);
//! forward mode gives the dual parts of objective and outputs (1e-10); and the Hessian times a vector is the dual part
//! of the gradient (1e-8), by reverse over reverse, forward over reverse, and reverse over forward.
//! Errors are relative to the largest number of the value compared.

mod graphs;

use graphs::{Loss, corpus, lstm, rnn};
use retrograd_compiler::differentiate::{DifferentiateError, gradient, jvp, vjp};
use retrograd_compiler::interpret::{Values, interpret, random_values, seed_tangents};
use retrograd_compiler::ir::{Binary, Extent, Graph, Op, Program, Sizes, Type, Unary};

const SIZES: [(usize, usize); 4] = [(1, 1), (2, 3), (4, 2), (3, 1)];

fn sizes((steps, batch): (usize, usize)) -> Sizes {
    // The second time axis has another length.
    Sizes { batch, steps: vec![steps, 1 + steps % 3] }
}

/// The program's invariants hold, ports have names of their own, and its text is read back as the same text.
fn check_form(program: &Program) {
    program.verify().expect("a pass keeps the invariants");
    for v in program.graph.values() {
        let Op::Scan(scan) = program.graph.op(v) else { continue };
        let ports = [&scan.captures, &scan.each, &scan.yields, &scan.sums].into_iter().flatten().map(|p| &p.name);
        let mut names: Vec<_> = ports.chain(scan.carries.iter().map(|c| &c.name)).collect();
        let ports = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), ports, "names of scan {} are distinct", scan.name);
    }
    let text = program.to_string();
    let again = Program::parse(&text).expect("a program's text is read back");
    assert_eq!(again.to_string(), text);
}

fn close(what: &str, given: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(given.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    for (i, (g, e)) in given.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= tolerance * scale, "{what}[{i}]: {g} instead of {e}, scale {scale}");
    }
}

fn names(p: &Program) -> Vec<String> {
    p.parameters.iter().map(|p| p.name.clone()).collect()
}

fn re(values: &Values, name: &str) -> Vec<f64> {
    values[name].x.iter().map(|x| x.re).collect()
}

fn du(values: &Values, name: &str) -> Vec<f64> {
    values[name].x.iter().map(|x| x.du).collect()
}

/// The direction of the parameters as inputs `dot.p` and `v.p`.
fn with_direction(p: &Program, values: &Values) -> Values {
    let mut given = values.clone();
    for name in names(p) {
        let mut direction = values[&name].clone();
        direction.x.iter_mut().for_each(|x| (x.re, x.du) = (x.du, 0.0));
        given.insert(format!("dot.{name}"), direction.clone());
        given.insert(format!("v.{name}"), direction);
        given.get_mut(&name).expect("a parameter").x.iter_mut().for_each(|x| x.du = 0.0);
    }
    given
}

fn check_gradient(name: &str, p: &Program, sizes: &Sizes) {
    let joint = p.backward().expect("an objective");
    check_form(&joint);
    let values = random_values(p, sizes, 7);
    let run = interpret(&joint, &values, sizes);
    for (output, data) in &interpret(p, &values, sizes).outputs {
        assert_eq!(run.outputs[output], *data, "{name}: output {output} is what it was");
    }
    let mut directional = 0.0;
    let mut direction = values.clone();
    seed_tangents(&mut direction, &names(p), 3);
    for parameter in names(p) {
        let given = re(&run.outputs, &format!("d.{parameter}"));
        let expected: Vec<f64> = (0..values[&parameter].x.len())
            .map(|i| {
                let mut values = values.clone();
                values.get_mut(&parameter).expect("a parameter").x[i].du = 1.0;
                interpret(p, &values, sizes).objective.expect("an objective").du
            })
            .collect();
        close(&format!("{name} {sizes:?}: d.{parameter}"), &given, &expected, 1e-10);
        directional += given.iter().zip(&direction[&parameter].x).map(|(g, x)| g * x.du).sum::<f64>();
    }
    // A difference sees what `stop_gradient` hides.
    direction.get_mut("stopped").into_iter().flat_map(|data| &mut data.x).for_each(|x| x.du = 0.0);
    let at = |h: f64| {
        let mut values = direction.clone();
        values.values_mut().flat_map(|data| &mut data.x).for_each(|x| (x.re, x.du) = (x.re + h * x.du, 0.0));
        interpret(p, &values, sizes).objective.expect("an objective").re
    };
    let h = 1e-4;
    let difference = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
    close(&format!("{name} {sizes:?}: finite difference"), &[directional], &[difference], 1e-6);
}

fn check_jvp(name: &str, p: &Program, sizes: &Sizes) {
    let joint = p.jvp().expect("names are free");
    check_form(&joint);
    let mut values = random_values(p, sizes, 7);
    seed_tangents(&mut values, &names(p), 3);
    let expected = interpret(p, &values, sizes);
    let run = interpret(&joint, &with_direction(p, &values), sizes);
    for (output, v) in &p.outputs {
        if p.ty(*v).is_float() {
            let given = re(&run.outputs, &format!("dot.{output}"));
            close(&format!("{name} {sizes:?}: dot.{output}"), &given, &du(&expected.outputs, output), 1e-10);
        }
    }
    let objective = expected.objective.expect("an objective").du;
    close(&format!("{name} {sizes:?}: dot.objective"), &re(&run.outputs, "dot.objective"), &[objective], 1e-10);
}

/// The program of ⟨gradient, v⟩ with the inputs `v.p`.
fn along(p: &Program) -> Program {
    let mut along = p.backward().expect("an objective").into_draft();
    let outputs = std::mem::take(&mut along.outputs);
    let mut parts = Vec::new();
    for parameter in &p.parameters {
        let name = format!("v.{}", parameter.name);
        let gradient = outputs.iter().find(|(n, _)| *n == format!("d.{}", parameter.name)).expect("reverse mode's").1;
        let v = graphs::input(&mut along, &name, p.ty(parameter.value).clone());
        let product = along.graph.binary(Binary::Mul, gradient, v);
        parts.push(graphs::total(&mut along.graph, product));
    }
    along.objective = parts.into_iter().reduce(|a, b| along.graph.binary(Binary::Add, a, b));
    along.finish().expect("well formed")
}

fn check_hessian(name: &str, p: &Program, sizes: &Sizes) {
    let joint = p.backward().expect("an objective");
    let mut values = random_values(p, sizes, 7);
    seed_tangents(&mut values, &names(p), 3);
    let expected = interpret(&joint, &values, sizes);
    let given = with_direction(p, &values);

    let reverse_reverse = along(p).backward().expect("an objective");
    let forward_reverse = joint.jvp().expect("names are free");
    let mut forward = p.jvp().expect("names are free").into_draft();
    forward.objective = forward.output("dot.objective");
    let reverse_forward = forward.finish().expect("one number").backward().expect("an objective");
    for (mode, program, prefix) in [
        ("reverse over reverse", reverse_reverse, "d."),
        ("forward over reverse", forward_reverse, "dot.d."),
        ("reverse over forward", reverse_forward, "d."),
    ] {
        check_form(&program);
        let run = interpret(&program, &given, sizes);
        for parameter in names(p) {
            let product = re(&run.outputs, &format!("{prefix}{parameter}"));
            let expected = du(&expected.outputs, &format!("d.{parameter}"));
            close(&format!("{name} {sizes:?}: {mode}, {parameter}"), &product, &expected, 1e-8);
        }
    }
}

#[test]
fn reverse_mode_agrees_with_dual_numbers_and_finite_differences() {
    for (name, p) in corpus() {
        check_form(&p);
        for s in SIZES {
            check_gradient(name, &p, &sizes(s));
        }
    }
}

#[test]
fn forward_mode_agrees_with_dual_numbers() {
    for (name, p) in corpus() {
        for s in SIZES {
            check_jvp(name, &p, &sizes(s));
        }
    }
}

#[test]
fn second_order_agrees_with_dual_numbers_of_the_gradient() {
    for (name, p) in corpus() {
        for s in SIZES {
            check_hessian(name, &p, &sizes(s));
        }
    }
}

/// The derivative of the Hessian's product, of which the vector is held.
#[test]
fn third_order_is_second_order_again() {
    for p in [rnn(Loss::Mixed), lstm()] {
        let hessian = along(&p).backward().expect("an objective");
        let third = hessian.jvp().expect("names are free");
        check_form(&third);
        let sizes = Sizes::new(3, 2);
        let mut values = random_values(&hessian, &sizes, 5);
        seed_tangents(&mut values, &names(&p), 9);
        let expected = interpret(&hessian, &values, &sizes);
        let mut given = with_direction(&p, &values);
        for name in names(&p) {
            let held = format!("v.{name}");
            given.insert(held.clone(), values[&held].clone());
        }
        let run = interpret(&third, &given, &sizes);
        for name in names(&p) {
            let expected = du(&expected.outputs, &format!("d.{name}"));
            close(&name, &re(&run.outputs, &format!("dot.d.{name}")), &expected, 1e-8);
        }
    }
}

#[test]
fn the_lstm_saves_its_gates_and_states_once() {
    let joint = lstm().backward().expect("an objective");
    let scans: Vec<_> = joint
        .graph
        .values()
        .filter_map(|v| match joint.graph.op(v) {
            Op::Scan(scan) => Some(scan),
            _ => None,
        })
        .collect();
    assert_eq!(scans.len(), 2, "forward and backward");
    let saved: Vec<&str> = scans[0].yields.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(saved, ["out", "h.before", "c.before", "sigmoid", "sigmoid.2", "sigmoid.3", "tanh", "tanh.2"]);
    assert!(scans[1].reverse && !scans[0].reverse);
    assert_eq!(scans[1].name, "d.lstm");
    // What the step computes again: the products, the transcendental functions never.
    let costly = |op: &Op| matches!(op, Op::Unary(Unary::Tanh | Unary::Sigmoid) | Op::Dot);
    assert!(!scans[1].body.values().any(|v| costly(scans[1].body.op(v))));
}

/// a + b of two costly values is one sequence if only the sum is needed, and none if both are there anyway.
#[test]
fn computing_again_never_saves_more_than_saving() {
    let yields = |both: bool| {
        let p = graphs::sum_of_two(both);
        let joint = p.backward().expect("an objective");
        let scan = joint.graph.values().find_map(|v| match joint.graph.op(v) {
            Op::Scan(scan) => Some(scan.yields.iter().map(|p| p.name.clone()).collect::<Vec<_>>()),
            _ => None,
        });
        scan.expect("a scan")
    };
    assert_eq!(yields(false), ["y", "add"]);
    assert_eq!(yields(true), ["y", "sin", "sin.2"]);
}

#[test]
fn the_joint_program_is_deterministic() {
    for (_, p) in corpus() {
        let text = |p: Program| format!("{:?}", p.graph.values().map(|v| p.graph.node(v)).collect::<Vec<_>>());
        assert_eq!(text(p.backward().expect("an objective")), text(p.backward().expect("an objective")));
    }
}

#[test]
fn what_was_there_keeps_its_place() {
    for (name, p) in corpus() {
        let joint = p.backward().expect("an objective");
        for v in p.graph.values() {
            assert_eq!(p.graph.ty(v), joint.graph.ty(v), "{name}");
            assert_eq!(p.graph.operands(v), joint.graph.operands(v), "{name}");
        }
    }
}

/// ⟨ct, J t⟩ = ⟨Jᵀ ct, t⟩ for several values at once, among them ones that depend on each other.
#[test]
fn vjp_is_the_transpose_of_jvp() {
    let p = lstm();
    let ends = [p.output("h").expect("an output"), p.objective.expect("an objective")];
    let starts: Vec<_> = p.parameters.iter().map(|p| p.value).chain([ends[0]]).collect();
    let mut q = p.to_draft();
    let leaf = |q: &mut retrograd_compiler::ir::Draft, name: String, like| {
        let value = q.graph.leaf(Op::Input(name.clone()), p.ty(like).clone());
        q.inputs.push(retrograd_compiler::ir::Input { name, value, bound: None });
        value
    };
    let cts: Vec<_> = ends.iter().enumerate().map(|(i, &v)| (v, leaf(&mut q, format!("ct{i}"), v))).collect();
    let ts: Vec<_> = starts.iter().enumerate().map(|(i, &v)| (v, leaf(&mut q, format!("t{i}"), v))).collect();
    let forward = jvp(&mut q.graph, &ts, &ends);
    let backward = vjp(&mut q.graph, &cts, &starts).expect("types fit");
    let mut pairs = |side: &str, pairs: Vec<_>| {
        let parts: Vec<_> = pairs
            .into_iter()
            .map(|(a, b)| {
                let product = q.graph.binary(Binary::Mul, a, b);
                graphs::total(&mut q.graph, product)
            })
            .collect();
        let sum = parts.into_iter().reduce(|a, b| q.graph.binary(Binary::Add, a, b)).expect("some");
        q.outputs.push((side.to_string(), sum));
    };
    pairs("left", cts.iter().zip(forward).map(|(&(_, ct), t)| (ct, t.expect("a tangent"))).collect());
    pairs("right", backward.into_iter().zip(&ts).map(|(ct, &(_, t))| (ct, t)).collect());
    let q = q.finish().expect("well formed");
    check_form(&q);
    for s in SIZES {
        let sizes = sizes(s);
        let run = interpret(&q, &random_values(&q, &sizes, 11), &sizes);
        close("left", &re(&run.outputs, "left"), &re(&run.outputs, "right"), 1e-12);
    }
}

#[test]
fn no_path_gives_none_forward_and_zeros_backward() {
    let mut g = Graph::new();
    let x = g.leaf(Op::Parameter("x".into()), Type::float(Extent::Shared, 3));
    let y = g.leaf(Op::Parameter("y".into()), Type::float(Extent::Shared, 3));
    let stopped = g.add(Op::StopGradient, &[x]);
    let product = g.binary(Binary::Mul, stopped, stopped);
    let objective = graphs::total(&mut g, product);
    let t = g.constant(1.0, g.ty(x).clone());
    assert_eq!(jvp(&mut g, &[(x, t)], &[objective, x]), [None, Some(t)]);
    let before = g.len();
    for ct in gradient(&mut g, objective, &[x, y, x]).expect("one number") {
        assert!(matches!(g.op(ct), Op::Constant(zero) if *zero == 0.0));
        assert_eq!(*g.ty(ct), Type::float(Extent::Shared, 3));
    }
    assert_eq!(g.len(), before + 4, "the one and the zeros");
}

#[test]
fn a_program_without_one_number_to_minimise_is_refused() {
    let p = rnn(Loss::Last);
    let taken = p.backward().expect("an objective").backward();
    assert_eq!(
        taken.expect_err("d.w_x is there").to_string(),
        "program `rnn` has the name `d.w_x` already, which its derivative would take; rename it"
    );
    let mut draft = p.to_draft();
    let (wide, x) = (p.output("h").expect("an output"), p.parameters[0].value);
    assert_eq!(
        gradient(&mut draft.graph, wide, &[x]).expect_err("no number").to_string(),
        "f32[B, 3] (made by the compiler) has no gradient: only one number, f32, has one; sum or average it first"
    );
    assert_eq!(
        p.without_objective().backward().expect_err("nothing").to_string(),
        "program `rnn` has no objective to differentiate; give it one with `minimize`"
    );
}

/// Where a choice excludes a row, no cotangent of it counts there, also one that is the same number in every row.
#[test]
fn a_constant_cotangent_counts_only_where_its_value_was_chosen() {
    let row = Type::float(Extent::Batch, ());
    for (chosen, expected) in [(0, 2.0), (1, 1.0)] {
        let mut draft = retrograd_compiler::ir::Draft { name: "chosen".to_string(), ..Default::default() };
        let g = &mut draft.graph;
        let mask = g.leaf(Op::Input("mask".into()), row.clone());
        let b = g.leaf(Op::Input("b".into()), Type::float(Extent::Shared, ()));
        let (wide, zero) = (g.add(Op::Expand(Extent::Batch), &[b]), g.scalar(0.0));
        let y = g.add(Op::Select, &if chosen == 0 { [mask, wide, zero] } else { [mask, zero, wide] });
        let ones = g.constant(1.0, row.clone());
        let d = vjp(g, &[(y, ones)], &[b]).expect("types fit");
        for (name, value) in [("mask", mask), ("b", b)] {
            draft.inputs.push(retrograd_compiler::ir::Input { name: name.into(), value, bound: None });
        }
        draft.outputs.push(("d".to_string(), d[0]));
        let program = draft.finish().expect("well formed");
        let sizes = Sizes::new(1, 3);
        let mut values = random_values(&program, &sizes, 5);
        for (x, on) in values.get_mut("mask").expect("the mask").x.iter_mut().zip([1.0, 0.0, 1.0]) {
            x.re = on;
        }
        assert_eq!(re(&interpret(&program, &values, &sizes).outputs, "d"), [expected]);
    }
}

#[test]
fn a_value_of_another_graph_is_refused() {
    let mut other = Graph::new();
    let (x, y) = (other.scalar(1.0), other.scalar(2.0));
    let mut g = Graph::new();
    let own = g.scalar(3.0);
    let ty = g.ty(own).clone();
    let there = g.leaf(Op::Parameter("p".into()), ty);
    assert_eq!((x, y), (own, there), "values are places in a graph");
    let beyond = other.scalar(4.0);
    for (cotangents, wrt) in [(vec![], vec![beyond]), (vec![(beyond, own)], vec![]), (vec![(own, beyond)], vec![])] {
        let error = vjp(&mut g, &cotangents, &wrt).expect_err("it has two values");
        assert!(matches!(error, DifferentiateError::NoSuchValue { index: 2, len: 2 }), "{error}");
    }
}

/// A loop over `x` with the parameter `p` and the state `h`, and the sum of all its states as the objective.
fn one_loop(body: &str, next: &str) -> Program {
    let body: String = body.trim().lines().map(|line| format!("    {}\n", line.trim())).collect();
    let text = format!(
        "program one {{
  axis T = time
  sequence x: f32[T, B, 3]
  parameter p: f32[3] = 1
  scan one {{
    shared p: f32[3] = p
    each x: f32[B, 3] = x
    carry h: f32[B, 3] = 0
{body}    yield y = {next}
    next h = {next}
  }}
  %0: f32[T, B, 3] = yield y of one
  %1: f32[3] = sum_rows %0
  %2: f32[1] = sum %1
  %3: f32 = reshape %2
  objective %3
}}
"
    );
    Program::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn loops(graph: &Graph) -> Vec<&retrograd_compiler::ir::Scan> {
    let scan = |v| match graph.op(v) {
        Op::Scan(scan) => Some(&**scan),
        _ => None,
    };
    graph.values().filter_map(scan).collect()
}

/// Nothing goes on from a state that is only read where the derivative stops: neither forward nor back.
#[test]
fn a_derivative_that_stops_at_every_step_carries_nothing() {
    let program = one_loop(
        "%0: f32[B, 3] = stop_gradient h
         %1: f32[B, 3] = mul %0, x
         %2: f32[B, 3] = mul %1, p
         %3: f32[B, 3] = tanh %2",
        "%3",
    );
    let carries = |graph: &Graph| loops(graph).iter().map(|scan| scan.carries.len()).collect::<Vec<_>>();
    assert_eq!(carries(&program.backward().expect("an objective").graph), [1, 0]);
    let mut draft = program.to_draft();
    let (p, end) = (program.parameters[0].value, program.objective.expect("an objective"));
    let t = draft.graph.constant(1.0, program.ty(p).clone());
    assert!(jvp(&mut draft.graph, &[(p, t)], &[end])[0].is_some());
    assert_eq!(carries(&draft.graph), [1, 0]);
}

/// Which sequences a loop writes so that its derivative can be had: a reason, the body, its next state, and their names.
#[test]
fn a_loop_saves_what_costs_more_to_compute_again() {
    let rows: [(&str, &str, &str, &[&str]); 3] = [
        (
            "what no step changes is computed again, also where it is costly",
            "%0: f32[3] = exp p
             %1: f32[B, 3] = mul h, %0
             %2: f32[B, 3] = add %1, x",
            "%2",
            &["y", "h.before"],
        ),
        (
            "a value that is used twice is saved for what comes of it, and counts once",
            "%0: f32[B, 3] = sin h
             %1: f32[B, 3] = stop_gradient %0
             %2: f32[B, 3] = mul %1, %1
             %3: f32[B, 3] = add %2, %1
             %4: f32[B, 3] = mul %3, p
             %5: f32[B, 3] = add %4, x",
            "%5",
            &["y", "sin"],
        ),
        (
            "what stands in a row that no product reads is as cheap as elsewhere",
            "%0: f32[B, 3] = mul h, x
             %1: f32[B, 6] = concat %0, x
             %2: f32[B, 6] = neg %1
             %3: f32[B, 3] = slice %2 0..3
             %4: f32[B, 3] = mul %0, p
             %5: f32[B, 3] = add %4, %3",
            "%5",
            &["y", "h.before"],
        ),
    ];
    for (why, body, next, expected) in rows {
        let joint = one_loop(body, next).backward().expect("an objective");
        let saved: Vec<&str> = loops(&joint.graph)[0].yields.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(saved, expected, "{why}");
    }
}

/// Whether a mask is given, and whether what it chooses is finite, is found by looking at what they come of; not at all the
/// ways to it, of which there are 2⁶⁰ here.
#[test]
fn what_is_chosen_may_be_reached_in_many_ways() {
    for (mask, row) in [("%60", "%0"), ("mask", "%60")] {
        let mut text = String::from(
            "program ways {
  batch mask: f32[B]
  batch x: i32[B, 3]
  parameter w: f32[3, 3] = glorot
  %0: f32[B, 3] = to_float x
",
        );
        let (mut last, ty) =
            if mask == "mask" { ("%0".to_string(), "f32[B, 3]") } else { ("mask".to_string(), "f32[B]") };
        for i in 1..=60 {
            text += &format!("  %{i}: {ty} = add {last}, {last}\n");
            last = format!("%{i}");
        }
        text += &format!(
            "  %61: f32[B, 3] = dot {row}, w
  %62: f32[B, 3] = select {mask}, %61, 0
  %63: f32[3] = sum_rows %62
  %64: f32[1] = sum %63
  %65: f32 = reshape %64
  objective %65
}}
"
        );
        let program = Program::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert!(program.backward().expect("an objective").output("d.w").is_some());
    }
}

/// A state that another mask holds may be no number where its product does not count, and no gradient sees it.
#[test]
fn a_state_is_finite_only_where_its_own_mask_holds_it() {
    let program = Program::parse(
        "program held {
  axis T = time
  sequence x: f32[T, B, 2]
  sequence counts: f32[T, B]
  sequence moves: f32[T, B]
  parameter w: f32[2, 2] = glorot
  scan held {
    shared w: f32[2, 2] = w
    each x: f32[B, 2] = x
    each counts: f32[B] = counts
    each moves: f32[B] = moves
    carry h: f32[B, 2] = 0
    %0: f32[B, 2] = dot h, w
    %1: f32[B, 2] = tanh %0
    %2: f32[B, 2] = select counts, %1, 0
    %3: f32[B, 2] = select moves, x, h
    yield y = %2
    next h = %3
  }
  %0: f32[T, B, 2] = yield y of held
  %1: f32[2] = sum_rows %0
  %2: f32[1] = sum %1
  %3: f32 = reshape %2
  objective %3
}
",
    );
    let joint = program.expect("well formed").backward().expect("an objective");
    let gradient = |unseen: f64| {
        let sizes = Sizes::new(3, 1);
        let mut values = random_values(&joint, &sizes, 3);
        let given: [(&str, &[f64]); 3] =
            [("x", &[0.5, -0.25, unseen, unseen, 1.0, 1.0]), ("counts", &[1.0, 1.0, 0.0]), ("moves", &[1.0, 1.0, 1.0])];
        for (name, x) in given {
            values.get_mut(name).expect("an input").x.iter_mut().zip(x).for_each(|(to, &x)| to.re = x);
        }
        re(&interpret(&joint, &values, &sizes).outputs, "d.w")
    };
    let expected = gradient(0.0);
    assert!(expected.iter().all(|x| *x != 0.0));
    assert_eq!(gradient(f64::NAN), expected);
}
