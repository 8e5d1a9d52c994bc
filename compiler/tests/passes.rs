//! The passes on graphs: each keeps what a program computes, and gives it the structure it promises.

use retrograd_compiler::interpret::{Outcome, Values, interpret, random_values, seed_tangents};
use retrograd_compiler::ir::op::Data;
use retrograd_compiler::ir::types::{Axis, Sizes};
use retrograd_compiler::ir::{Extent, Op, Program, Scan};
use retrograd_compiler::simplify::{
    algebra, distribute_slices, gather_sums, invariant, ports, simplify, split_products, write_out,
};
use retrograd_compiler::time::{DivideError, UnrollError, carry_state, divide, hoist, rotate, unroll};

#[path = "passes/edges.rs"]
mod edges;
#[path = "passes/programs.rs"]
mod programs;
#[path = "passes/random.rs"]
mod random;
#[path = "passes/rules.rs"]
mod rules;

use programs::{GRU, LSTM, MIXED, RNN_JOINED, RNN_SPLIT};

type Pass = (&'static str, fn(&Program) -> Program);

const PASSES: [Pass; 10] = [
    ("ports", ports),
    ("algebra", algebra),
    ("split_products", split_products),
    ("gather_sums", gather_sums),
    ("distribute_slices", distribute_slices),
    ("invariant", invariant),
    ("write_out", write_out),
    ("simplify", simplify),
    ("hoist", hoist),
    ("rotate", rotate),
];

fn parse(text: &str) -> Program {
    Program::parse(text.trim_start()).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The cells, and their joint forward and backward programs, plain and simplified before.
fn corpus() -> Vec<Program> {
    let recorded: Vec<Program> = [RNN_JOINED, RNN_SPLIT, LSTM, GRU, MIXED].into_iter().map(parse).collect();
    let derived = recorded.iter().filter(|p| p.objective.is_some());
    let backward = |p: &Program| p.backward().expect("a scalar objective");
    let joint: Vec<Program> = derived.flat_map(|p| [backward(p), backward(&simplify(p))]).collect();
    [recorded, joint].concat()
}

fn sizes() -> Vec<Sizes> {
    [(1, 1), (1, 3), (2, 1), (3, 2), (6, 4)].into_iter().map(|(t, b)| Sizes::new(t, b)).collect()
}

fn checked(name: &str, program: Program) -> Program {
    program.verify().unwrap_or_else(|e| panic!("after {name}: {e}\n{program}"));
    program
}

/// Equal up to the rounding of reordered sums, derivatives included.
fn assert_close(what: &str, given: &Data, expected: &Data, bound: f64) {
    assert_eq!(given.ty, expected.ty, "{what}");
    for part in [|x: &retrograd_compiler::ir::dual::Dual| x.re, |x: &retrograd_compiler::ir::dual::Dual| x.du] {
        let scale = expected.x.iter().map(|x| part(x).abs()).fold(0.0, f64::max);
        for (a, b) in given.x.iter().zip(&expected.x) {
            let (a, b) = (part(a), part(b));
            assert!((a - b).abs() <= bound * (scale + 1.0), "{what}: {a} instead of {b}");
        }
    }
}

fn assert_same(what: &str, given: &Outcome, expected: &Outcome, bound: f64) {
    assert_eq!(given.outputs.keys().collect::<Vec<_>>(), expected.outputs.keys().collect::<Vec<_>>(), "{what}");
    for (name, data) in &expected.outputs {
        assert_close(&format!("{what}: {name}"), &given.outputs[name], data, bound);
    }
    assert_eq!(given.objective.is_some(), expected.objective.is_some());
    if let (Some(a), Some(b)) = (given.objective, expected.objective) {
        assert!((a.re - b.re).abs() <= bound * b.re.abs(), "{what}: objective {} instead of {}", a.re, b.re);
    }
    assert_eq!(given.updates.len(), expected.updates.len());
    for ((name, a), (_, b)) in given.updates.iter().zip(&expected.updates) {
        assert_close(&format!("{what}: update of {name}"), a, b, bound);
    }
}

fn values(program: &Program, sizes: &Sizes, seed: u64) -> Values {
    let mut values = random_values(program, sizes, seed);
    seed_tangents(&mut values, &[], seed);
    values
}

#[test]
fn every_pass_keeps_what_a_program_computes() {
    for program in corpus() {
        for (name, pass) in PASSES {
            let new = checked(name, pass(&program));
            assert_eq!(new.parameters.len(), program.parameters.len());
            assert_eq!(new.inputs.len(), program.inputs.len());
            for (seed, sizes) in sizes().iter().enumerate() {
                let values = values(&program, sizes, seed as u64);
                let expected = interpret(&program, &values, sizes);
                let given = interpret(&new, &values, sizes);
                assert_same(&format!("{name} of {} at {sizes:?}", program.name), &given, &expected, 1e-12);
            }
        }
    }
}

/// How many random programs a test looks at: more if asked.
fn random_programs(count: u64) -> u64 {
    std::env::var("RANDOM_PROGRAMS").ok().and_then(|n| n.parse().ok()).unwrap_or(count)
}

/// Random programs reach the corners that cells do not: zeros, pads, views of views, sums of steps.
#[test]
fn every_pass_keeps_what_random_programs_compute() {
    for seed in 0..random_programs(150) {
        let program = checked("recording", random::Random(seed).program());
        for (name, pass) in PASSES {
            let new = std::panic::catch_unwind(|| checked(name, pass(&program)))
                .unwrap_or_else(|_| panic!("{name} fails on random program {seed}:\n{program}"));
            for sizes in [Sizes::new(1, 2), Sizes::new(3, 1), Sizes::new(4, 3)] {
                let mut values = random_values(&program, &sizes, seed);
                values.get_mut("m").expect("the mask").x.iter_mut().for_each(|x| x.re = f64::from(x.re > 0.0));
                let expected = interpret(&program, &values, &sizes);
                let given = interpret(&new, &values, &sizes);
                assert_same(
                    &format!("{name} of random program {seed} at {sizes:?}\n{program}\n{new}"),
                    &given,
                    &expected,
                    1e-9,
                );
            }
        }
    }
}

#[test]
fn simplify_finds_nothing_to_do_twice() {
    let random = (0..random_programs(60)).map(|seed| random::Random(seed).program());
    for program in corpus().into_iter().chain(random) {
        let once = simplify(&program);
        assert_eq!(simplify(&once).to_string(), once.to_string());
        let hoisted = hoist(&once);
        assert_eq!(simplify(&hoisted).to_string(), hoisted.to_string());
        assert_eq!(hoist(&hoisted).to_string(), hoisted.to_string());
    }
}

fn scans(program: &Program) -> Vec<&Scan> {
    let graph = &program.graph;
    let scan = |v| match graph.op(v) {
        Op::Scan(scan) => Some(&**scan),
        _ => None,
    };
    graph.values().filter_map(scan).collect()
}

/// Names of the ops in a body, leaves aside.
fn ops(scan: &Scan) -> Vec<&'static str> {
    let nodes = scan.body.values().map(|v| scan.body.op(v));
    nodes.filter(|op| !op.is_leaf()).map(Op::name).collect()
}

fn count(scan: &Scan, names: &[&str]) -> usize {
    ops(scan).iter().filter(|op| names.contains(op)).count()
}

fn hoisted_joint(text: &str) -> Program {
    hoist(&simplify(&parse(text)).backward().expect("a scalar objective"))
}

#[test]
fn only_the_recurrence_of_a_vanilla_rnn_stays_in_its_loops() {
    for text in [RNN_JOINED, RNN_SPLIT] {
        let program = hoisted_joint(text);
        let [forward, backward] = scans(&program)[..] else { panic!("two loops: {program}") };
        assert_eq!(ops(forward), ["dot", "add", "tanh"]);
        assert_eq!(ops(backward), ["mul", "sub", "add", "mul", "dot.nt"]);
        assert_eq!((forward.each.len(), forward.captures.len()), (1, 1));
        assert_eq!((backward.yields.len(), backward.sums.len()), (1, 0));
    }
}

#[test]
fn gates_are_one_product_and_their_gradients_one_sequence() {
    let program = hoisted_joint(LSTM);
    let [forward, backward] = scans(&program)[..] else { panic!("two loops: {program}") };
    assert_eq!(count(forward, &["dot"]), 1);
    assert_eq!((forward.each.len(), forward.captures.len()), (1, 1));
    assert_eq!(count(backward, &["dot.nt", "dot.tn", "dot"]), 1);
    assert_eq!(count(backward, &["pad"]), 0);
    assert_eq!((backward.yields.len(), backward.sums.len()), (1, 0));
    // The readout of the last step reads the last state, and nothing writes all of them for it.
    assert!(!forward.yields.iter().any(|y| y.value == forward.carries[0].next));

    let program = hoisted_joint(GRU);
    let [forward, backward] = scans(&program)[..] else { panic!("two loops: {program}") };
    assert_eq!(count(forward, &["dot"]), 2);
    assert_eq!(count(forward, &["gather"]), 0);
    assert_eq!(count(backward, &["dot.nt"]), 2);
    assert_eq!(count(backward, &["dot.tn", "scatter_add", "pad", "sum_rows"]), 0);
}

#[test]
fn both_spellings_of_a_cell_have_the_same_loops() {
    let loops = |text| {
        let program = hoisted_joint(text);
        let bodies = scans(&program).into_iter().map(|s| {
            let node = |v| (s.body.op(v).name(), s.body.operands(v).to_vec(), s.body.ty(v).clone());
            (s.body.values().map(node).collect::<Vec<_>>(), s.roots(), s.reverse)
        });
        bodies.collect::<Vec<_>>()
    };
    assert_eq!(loops(RNN_JOINED), loops(RNN_SPLIT));
}

#[test]
fn a_sum_of_products_over_rows_that_no_row_has_stays() {
    let program = hoist(&parse(MIXED));
    let [scan] = scans(&program)[..] else { panic!("one loop: {program}") };
    // The square of a step's sum cannot be had from the sum over all steps; everything else that sums could leave.
    assert_eq!((scan.sums.len(), count(scan, &["dot.tn", "sum_rows"])), (1, 1));
    assert_eq!(count(scan, &["dot"]), 0);
    assert!(scan.captures.iter().all(|c| c.name != "g"));
}

#[test]
fn a_loop_without_a_state_disappears() {
    let program = hoist(&parse(
        "
program gates {
  axis T = time
  sequence x: f32[T, B, 3]
  parameter w: f32[3, 4] = glorot
  scan gates reverse {
    shared w: f32[3, 4] = w
    each x: f32[B, 3] = x
    carry unused: f32[B, 4] = 0
    carry same: f32[B, 4] = 1
    %0: f32[B, 4] = dot x, w
    %1: f32[B, 4] = sigmoid %0
    %2: f32[B, 4] = mul %1, same
    %3: f32[B, 4] = add unused, %2
    %4: f32[3, 4] = dot.tn x, %2
    yield y = %2
    sum d = %4
    next unused = %3
    next same = same
  }
  %0: f32[T, B, 4] = yield y of gates
  %1: f32[3, 4] = total d of gates
  output y = %0
  output d = %1
}",
    ));
    let expected = "
program gates {
  axis T = time
  sequence x: f32[T, B, 3]
  parameter w: f32[3, 4] = glorot
  %0: f32[T, B, 4] = dot x, w
  %1: f32[T, B, 4] = sigmoid %0
  %2: f32[3, 4] = dot.tn x, %1
  output y = %1
  output d = %2
}
";
    assert_eq!(program.to_string(), expected.trim_start());
}

/// Values of a program for the unrolled one.
fn by_step(program: &Program, values: &Values, sizes: &Sizes) -> Values {
    let mut steps = Values::new();
    for (name, data) in values {
        let time = program.input(name).is_some_and(|i| matches!(program.ty(i.value).extent, Extent::Time(_)));
        if !time {
            steps.insert(name.clone(), data.clone());
            continue;
        }
        let size = data.x.len() / sizes.steps[0];
        for (t, x) in data.x.chunks(size).enumerate() {
            steps.insert(format!("{name}.{t}"), Data { ty: data.ty.at(Extent::Batch), x: x.to_vec() });
        }
    }
    steps
}

#[test]
fn a_loop_written_out_computes_the_same() {
    let random = (0..random_programs(40)).map(|seed| random::Random(seed).program());
    for program in corpus().into_iter().chain(random) {
        for (seed, sizes) in sizes().iter().enumerate() {
            let steps = sizes.steps[0];
            let flat = checked("unroll", unroll(&program, Axis(0), steps).expect("it can be unrolled"));
            assert!(scans(&flat).is_empty() && flat.time_axes().is_empty());
            let values = values(&program, sizes, seed as u64);
            let expected = interpret(&program, &values, sizes);
            let given = interpret(&flat, &by_step(&program, &values, sizes), sizes);
            for (name, data) in &expected.outputs {
                if let Some(given) = given.outputs.get(name) {
                    assert_close(name, given, data, 1e-9);
                    continue;
                }
                let size = data.x.len() / steps;
                for (t, x) in data.x.chunks(size).enumerate() {
                    let name = format!("{name}.{t}");
                    let step = Data { ty: data.ty.at(Extent::Batch), x: x.to_vec() };
                    assert_close(&name, &given.outputs[&name], &step, 1e-9);
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_written_out_is_an_error() {
    let program = parse(RNN_JOINED);
    assert_eq!(unroll(&program, Axis(0), 0).unwrap_err(), UnrollError::NoSteps);
    let taken = parse(&RNN_JOINED.replace("target", "x.1"));
    let error = unroll(&taken, Axis(0), 2).unwrap_err().to_string();
    assert_eq!(error, "the steps of `x` are to be called `x.0` and so on, but `x.1` is there already");
}

/// Two windows one after the other are one run over both.
#[test]
fn a_state_that_is_carried_over_makes_windows_one_run() {
    for text in [RNN_JOINED, LSTM, GRU] {
        let program = parse(text);
        let (windows, states) = carry_state(&program);
        let windows = checked("carry_state", windows);
        let expected: &[&str] = match &program.name[..] {
            "lstm" => &["state.lstm.h", "state.lstm.c"],
            "gru" => &["state.gru.h"],
            _ => &["state.rnn.h"],
        };
        assert_eq!(states.iter().map(|s| &s.input[..]).collect::<Vec<_>>(), expected);
        assert_eq!(windows.updates.len(), states.len());

        let (whole, half) = (Sizes::new(6, 2), Sizes::new(3, 2));
        let values = random_values(&program, &whole, 7);
        let expected = interpret(&program, &values, &whole);
        let mut carried = retrograd_compiler::interpret::evaluate(
            &windows,
            &random_with(&windows, &values, &half, 0),
            &half,
            &states.iter().map(|s| s.initial).collect::<Vec<_>>(),
        );
        let mut y = Vec::new();
        for window in 0..2 {
            let mut values = random_with(&windows, &values, &half, window);
            for (state, data) in states.iter().zip(&carried) {
                values.insert(state.input.clone(), data.clone());
            }
            let outcome = interpret(&hoist(&windows), &values, &half);
            assert_same("hoist", &outcome, &interpret(&windows, &values, &half), 1e-12);
            carried = outcome.updates.into_iter().map(|(_, data)| data).collect();
            y.push(outcome.outputs["y"].clone());
        }
        let last = if y[0].ty.extent == Extent::Batch { y[1].x.clone() } else { [&y[0].x[..], &y[1].x].concat() };
        assert_close("y", &Data { ty: expected.outputs["y"].ty.clone(), x: last }, &expected.outputs["y"], 1e-12);
    }
}

/// The values of a window of half the steps.
fn random_with(windows: &Program, values: &Values, sizes: &Sizes, window: usize) -> Values {
    let mut given = random_values(windows, sizes, 0);
    for (name, data) in values {
        let x = match data.ty.extent {
            Extent::Time(_) => data.x[window * data.x.len() / 2..][..data.x.len() / 2].to_vec(),
            _ => data.x.clone(),
        };
        given.insert(name.clone(), Data { ty: data.ty.clone(), x });
    }
    given
}

/// A program of these statements, as text.
fn with_head(statements: &str) -> String {
    const HEAD: &str = "program p {
  axis T = time
  sequence s: f32[T, B, 4]
  batch x: f32[B, 4]
  batch y: f32[B, 4]
  batch z: f32[B, 2]
  shared k: f32
  parameter w: f32[6, 3] = glorot
  parameter v: f32[3, 6] = glorot
";
    let lines = statements.trim().lines().map(|l| format!("  {}\n", l.trim())).collect::<String>();
    format!("{HEAD}{lines}}}\n")
}

/// Statements before and after simplification, on the same values.
fn check(statements: &str, expected: &str) {
    assert_eq!(simplify(&parse(&with_head(statements))).to_string(), with_head(expected));
}

#[test]
fn constants_fold_and_cancel() {
    check(
        "%0: f32 = mul 2, 3
         %1: f32[B, 4] = mul x, %0
         %2: f32[B, 4] = mul 0.5, %1
         output o = %2",
        "%0: f32[B, 4] = mul x, 3
         output o = %0",
    );
    check(
        "%0: f32[B, 4] = constant 0
         %1: f32[B, 4] = add x, %0
         %2: f32[B, 4] = sub %0, %1
         %3: f32[B, 4] = mul %2, -1
         %4: f32[B, 4] = div %3, 1
         %5: f32[B, 4] = powi %4 n=1
         output o = %5",
        "output o = x",
    );
    check(
        "%0: f32[B, 4] = neg x
         %1: f32[B, 4] = mul %0, y
         %2: f32[B, 4] = add y, %1
         %3: f32[B, 4] = select 1, %2, x
         output o = %3",
        "%0: f32[B, 4] = mul x, y
         %1: f32[B, 4] = sub y, %0
         output o = %1",
    );
    check(
        "%0: f32[B, 4] = constant 0
         %1: f32[B, 4] = mul x, %0
         %2: f32[B, 2] = slice %1 1..3
         output o = %2",
        // Of an infinite x this is not a number, so it is computed.
        "%0: f32[B, 2] = slice x 1..3
         %1: f32[B, 2] = mul %0, 0
         output o = %1",
    );
}

#[test]
fn what_is_repeated_is_computed_once() {
    check(
        "%0: f32[1] = reshape k
         %1: f32[4] = broadcast %0
         %2: f32[B, 4] = expand %1
         %3: f32[B, 4] = mul %2, x
         output o = %3",
        "%0: f32[B, 4] = mul x, k
         output o = %0",
    );
    check(
        "%0: f32[T, B, 4] = expand x
         %1: f32[T, B, 4] = tanh %0
         %2: f32[B, 4] = last %1
         output o = %2",
        "%0: f32[B, 4] = tanh x
         output o = %0",
    );
}

#[test]
fn views_merge() {
    check(
        "%0: f32[B, 3] = slice x 1..4
         %1: f32[B, 2] = slice %0 1..3
         %2: f32[B, 1] = slice x 1..2
         %3: f32[B, 3] = concat %2, %1
         %4: f32[B, 1] = slice x 0..1
         %5: f32[B, 4] = concat %4, %3
         output o = %5",
        "output o = x",
    );
    check(
        "%0: f32[B, 2, 2] = reshape x
         %1: f32[B, 2, 2] = transpose %0 perm=[1, 0]
         %2: f32[B, 2, 2] = transpose %1 perm=[1, 0]
         %3: f32[B, 4] = reshape %2
         %4: f32[B, 6] = concat %3, z
         %5: f32[B, 4] = slice %4 2..6
         output o = %5",
        "%0: f32[B, 2] = slice x 2..4
         %1: f32[B, 4] = concat %0, z
         output o = %1",
    );
}

#[test]
fn the_adjoint_of_a_split_is_a_concatenation() {
    check(
        "%0: f32[B, 8] = pad x before=0 after=4
         %1: f32[B, 8] = pad z before=6 after=0
         %2: f32[B, 8] = pad z before=4 after=2
         %3: f32[B, 8] = add %0, %1
         %4: f32[B, 8] = add %3, %2
         output o = %4",
        "%0: f32[B, 8] = concat x, z, z
         output o = %0",
    );
    // What nothing covers is zero.
    check(
        "%0: f32[B, 8] = pad x before=0 after=4
         %1: f32[B, 8] = pad z before=6 after=0
         %2: f32[B, 8] = add %0, %1
         %3: f32[B, 8] = pad y before=0 after=4
         %4: f32[B, 8] = add %2, %3
         output o = %4",
        "%0: f32[B, 4] = add x, y
         %1: f32[2] = constant 0
         %2: f32[B, 8] = concat %0, %1, z
         output o = %2",
    );
}

#[test]
fn products_of_concatenations_are_split() {
    check(
        "%0: f32[B, 6] = concat x, z
         %1: f32[B, 3] = dot %0, w
         output o = %1",
        "%0: f32[4, 3] = slice w 0..4
         %1: f32[B, 3] = dot x, %0
         %2: f32[2, 3] = slice w 4..6
         %3: f32[B, 3] = dot z, %2
         %4: f32[B, 3] = add %1, %3
         output o = %4",
    );
    check(
        "%0: f32[B, 6] = concat x, z
         %1: f32[6, 4] = dot.tn %0, y
         output o = %1",
        "%0: f32[4, 4] = dot.tn x, y
         %1: f32[2, 4] = dot.tn z, y
         %2: f32[6, 4] = concat %0, %1
         output o = %2",
    );
    // Sums over the rows of a sequence count the part that has fewer as often.
    check(
        "%0: f32[T, B, 6] = concat s, z
         %1: f32[6, 4] = dot.tn %0, y
         output o = %1",
        "%0: f32[B, 4] = sum_rows s
         %1: f32[4, 4] = dot.tn %0, y
         %2: f32 = row_count [T, B]
         %3: f32 = row_count [B]
         %4: f32 = div %2, %3
         %5: f32[B, 2] = mul z, %4
         %6: f32[2, 4] = dot.tn %5, y
         %7: f32[6, 4] = concat %1, %6
         output o = %7",
    );
    // The weight's rows are cut instead of the result.
    check(
        "%0: f32[B, 3] = slice x 0..3
         %1: f32[B, 6] = dot.nt %0, w
         %2: f32[B, 2] = slice %1 4..6
         output o = %2",
        "%0: f32[B, 3] = slice x 0..3
         %1: f32[2, 3] = slice w 4..6
         %2: f32[B, 2] = dot.nt %0, %1
         output o = %2",
    );
}

#[test]
fn products_over_rows_multiply_the_fewer() {
    check(
        "%0: f32[4, 4] = dot.tn s, s
         %1: f32[4, 4] = dot.tn y, s
         %2: f32[T, B, 2] = expand z
         %3: f32[4, 2] = dot.tn s, %2
         output o = %0
         output p = %1
         output q = %3",
        "%0: f32[4, 4] = dot.tn s, s
         %1: f32[B, 4] = sum_rows s
         %2: f32[4, 4] = dot.tn y, %1
         %3: f32[4, 2] = dot.tn %1, z
         output o = %0
         output p = %2
         output q = %3",
    );
}

#[test]
fn slices_go_through_pointwise_values() {
    check(
        "%0: f32[B, 3] = slice x 0..3
         %1: f32[B, 6] = dot %0, v
         %2: f32[B, 6] = sigmoid %1
         %3: f32[B, 4] = slice %2 0..4
         %4: f32[B, 2] = slice %2 4..6
         output o = %3
         output g = %4",
        "%0: f32[B, 3] = slice x 0..3
         %1: f32[B, 6] = dot %0, v
         %2: f32[B, 4] = slice %1 0..4
         %3: f32[B, 4] = sigmoid %2
         %4: f32[B, 2] = slice %1 4..6
         %5: f32[B, 2] = sigmoid %4
         output o = %3
         output g = %5",
    );
    // Not where the whole is needed, nor where slices overlap.
    let whole = "%0: f32[B, 4] = tanh x
         %1: f32[B, 3] = slice %0 0..3
         %2: f32[B, 3] = slice %0 1..4
         output o = %1
         output g = %2";
    check(whole, whole);
}

/// An encoder, a decoder that goes on from it and looks at what it kept, and results of each and of both.
fn encoder_and_decoder() -> Program {
    let program = Program::record("both", |p| {
        let (source, target) = (p.axis("source"), p.axis("target"));
        let (x, y) = (source.sequence("x", 3), target.sequence("y", 3));
        let (image, scale) = (p.input("image", 4), p.shared("scale", 4));
        let encoder = source.scan_reverse("encoder", |s| {
            let h = s.state("h", 4);
            s.next(h, (s.linear("h", h, 4) + s.affine("x", s.at(x), 4)).tanh())
        });
        let summary = encoder.all().mean_time();
        let decoder = target.scan("decoder", |s| {
            let h = s.state_from("h", encoder.last());
            s.next(h, (s.linear("h", h, 4) + s.affine("y", s.at(y), 4) + summary * image * scale).tanh())
        });
        let back = source.scan("back", |s| {
            let h = s.state_from("h", decoder.last());
            s.next(h, h * 0.5 + s.at(encoder.all()))
        });
        p.output("summary", summary);
        p.output("decoded", decoder.all());
        p.output("mean", decoder.all().mean_time());
        p.output("steps", target.mask());
        p.output("back", back.all());
        p.minimize(decoder.all().square().mean_features());
    });
    program.expect("no mistakes")
}

#[test]
fn a_divided_program_computes_what_the_whole_does() {
    let whole = encoder_and_decoder();
    let parts = divide(&whole, Axis(1)).expect("the decoder runs forwards");
    let names = |p: &Program| p.outputs.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
    // What is read behind the axis: the encoder's mean and its last state; the output "back" is behind both axes.
    assert_eq!(names(&parts.before), ["summary", "kept.0", "kept.1"]);
    assert_eq!(names(&parts.along), ["decoded", "mean", "steps"]);
    let inputs = |p: &Program| p.inputs.iter().map(|i| i.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (inputs(&parts.before), inputs(&parts.along)),
        (vec!["x".into()], { ["y", "image", "scale", "kept.0", "kept.1"].map(String::from).to_vec() })
    );
    for part in [&parts.before, &parts.along] {
        checked("divide", part.clone());
        assert_eq!(part.parameters.len(), whole.parameters.len(), "both have all parameters, in order");
    }
    assert_eq!((parts.before.time_axes(), parts.along.time_axes()), (vec![Axis(0)], vec![Axis(1)]));
    for batch in [1, 3] {
        let sizes = Sizes { batch, steps: vec![4, 2] };
        let mut values = random_values(&whole, &sizes, 5);
        let expected = interpret(&whole, &values, &sizes).outputs;
        let before = interpret(&parts.before, &values, &sizes).outputs;
        values.extend(parts.kept.iter().map(|name| (name.clone(), before[name].clone())));
        let along = interpret(&parts.along, &values, &sizes).outputs;
        for (name, given) in before.iter().chain(&along).filter(|(name, _)| !parts.kept.contains(name)) {
            assert_close(name, given, &expected[name], 0.0);
        }
    }
}

#[test]
fn what_cannot_be_divided_says_why() {
    let whole = encoder_and_decoder();
    let backwards = divide(&whole, Axis(0)).expect_err("the encoder runs backwards");
    let backwards = backwards.to_string();
    assert!(backwards.starts_with("loop `encoder` (compiler/tests/passes.rs:"), "{backwards}");
    assert!(
        backwards.ends_with(") runs along the time axis `source` from its last step to the first, not step by step"),
        "{backwards}"
    );
    let updated = whole.extend(|p| p.update(p.value("scale"), p.value("scale") * 0.5)).expect("no mistakes");
    assert_eq!(divide(&updated, Axis(1)).unwrap_err(), DivideError::Updates { target: "scale".to_string() });
}

/// A body is as deep as it is long here, and a sum over steps can be reached in 2⁶⁰ ways: passes neither go down as far by
/// recursion, which the stack of a thread would not bear, nor go each way.
#[test]
fn a_body_may_be_deep() {
    let (deep, ways) = (20_000, 60);
    let mut text = String::from(
        "program deep {\n  axis T = time\n  sequence x: f32[T, B]\n  scan s {\n    each x: f32[B] = x\n    carry h: f32[B] = 0\n    \
         %0: f32[B] = mul h, 0.5\n",
    );
    for i in 1..=deep {
        let op = if i % 3 == 0 { "sub" } else { "add" };
        text += &format!("    %{i}: f32[B] = {op} %{}, x\n", i - 1);
    }
    text +=
        &format!("    %{}: f32[B] = mul %{deep}, 0.0001\n    %{}: f32 = sum_rows %{}\n", deep + 1, deep + 2, deep + 1);
    for i in deep + 3..deep + 3 + ways {
        text += &format!("    %{i}: f32 = add %{0}, %{0}\n", i - 1);
    }
    let (next, last) = (deep + 1, deep + 2 + ways);
    text += &format!(
        "    sum n = %{last}\n    next h = %{next}\n  }}\n  %0: f32[B] = final h of s\n  %1: f32 = total n of s\n"
    );
    text += "  output h = %0\n  output n = %1\n}\n";
    let program = parse(&text);
    for sizes in [Sizes::new(1, 1), Sizes::new(4, 2)] {
        let values = values(&program, &sizes, 3);
        let expected = interpret(&program, &values, &sizes);
        for (name, pass) in PASSES {
            assert_same(name, &interpret(&checked(name, pass(&program)), &values, &sizes), &expected, 1e-9);
        }
    }
}
