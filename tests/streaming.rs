//! A program is the same function in pieces: one step at a time as a stream, and window by window with carried state,
//! it gives the bits that it gives of the whole sequence. So do windows with a checkpoint between them.
//!
//! Every program of the corpus with one time axis is taken, and of its outputs those that need no later step. Where a
//! state starts from what has to be computed first, that is done in 64 bits in pieces, and bits are those of rounding.

mod check;
mod corpus;

use std::collections::BTreeMap;

use check::sets::{in_turn, settings};
use check::{Found, sizes};
use ndarray::{ArrayD, Axis as Dim, Slice};
use retrograd::cells;
use retrograd::compiler::interpret::Values;
use retrograd::compiler::ir::{Axis, DType, Extent, Graph, Op, Program, Sizes, Value};
use retrograd::compiler::time;
use retrograd::prelude::*;
use retrograd::runtime::error::RunError;
use retrograd::runtime::session::Session;
use retrograd::runtime::train::Stream;

const STEPS: usize = 5;
const BATCH: usize = 3;
const WINDOWS: [(usize, usize); 3] = [(0, 2), (2, 3), (3, STEPS)];

/// Whether a value at step t needs nothing of later steps, nor of how many there are.
fn is_causal(graph: &Graph, v: Value) -> bool {
    let needed = graph.reachable([v]);
    graph.values().filter(|v| needed[v.index()]).all(|v| match graph.op(v) {
        Op::Last
        | Op::PlaceLast(_)
        | Op::Within(_)
        | Op::Final(_)
        | Op::Total(_)
        | Op::SumRows(_)
        | Op::RowCount(_) => false,
        Op::DotTn | Op::ScatterAdd(_) => false,
        Op::Scan(scan) => !scan.reverse,
        _ => true,
    })
}

/// The outputs to compare: a row per step, and causal.
fn comparable(program: &Program) -> Vec<(String, bool)> {
    let rows = |v| matches!(program.ty(v).extent, Extent::Time(Axis(0))) && is_causal(&program.graph, v);
    let outputs = program.outputs.iter().filter(|(_, v)| rows(*v));
    outputs.map(|(name, v)| (name.clone(), program.ty(*v).dtype == DType::I32)).collect()
}

/// Numbers of an array; the bits are what is compared.
type Rows = BTreeMap<String, ArrayD<f64>>;

fn outputs(session: &Session<f32>, names: &[(String, bool)]) -> Rows {
    let rows = names.iter().map(|(name, integer)| match integer {
        true => (name.clone(), session.output_i32(name).expect("an output").mapv(f64::from)),
        false => (name.clone(), session.output(name).expect("an output").mapv(f64::from)),
    });
    rows.collect()
}

/// Inputs as arrays, those with a time axis for steps `from..to`.
struct Inputs {
    floats: Vec<(String, bool, ArrayD<f32>)>,
    integers: Vec<(String, bool, ArrayD<i32>)>,
}

impl Inputs {
    fn new(program: &Program, values: &Values, sizes: &Sizes) -> Inputs {
        let (mut floats, mut integers) = (Vec::new(), Vec::new());
        for input in &program.inputs {
            let (data, ty) = (&values[&input.name], program.ty(input.value));
            let rows = match ty.extent {
                Extent::Shared => vec![],
                Extent::Batch => vec![sizes.batch],
                Extent::Time(axis) => vec![sizes.steps(axis), sizes.batch],
            };
            let shape = [rows, ty.shape.0.clone()].concat();
            let timed = matches!(ty.extent, Extent::Time(_));
            let x = data.x.iter().map(|x| x.re);
            match ty.dtype {
                DType::F32 => {
                    let x = x.map(|x| x as f32).collect();
                    floats.push((input.name.clone(), timed, ArrayD::from_shape_vec(shape, x).expect("its shape")));
                }
                DType::I32 => {
                    let x = x.map(|x| x as i32).collect();
                    integers.push((input.name.clone(), timed, ArrayD::from_shape_vec(shape, x).expect("its shape")));
                }
            }
        }
        Inputs { floats, integers }
    }

    fn window(&self, from: usize, to: usize) -> Feed<'_> {
        let cut = |timed: bool| if timed { Slice::from(from..to) } else { Slice::from(..) };
        let mut feed = Feed::new().batch(BATCH).steps("T", to - from);
        for (name, timed, a) in &self.floats {
            feed = feed.f32(name, if a.ndim() == 0 { a.view() } else { a.slice_axis(Dim(0), cut(*timed)) });
        }
        for (name, timed, a) in &self.integers {
            feed = feed.i32(name, if a.ndim() == 0 { a.view() } else { a.slice_axis(Dim(0), cut(*timed)) });
        }
        feed
    }

    /// One step's rows into a stream. What only the objective reads is not there to be set.
    fn set(&self, stream: &mut Stream, t: usize) -> Result<(), RunError> {
        let there: Vec<String> = stream.session().program().inputs.iter().map(|i| i.name.clone()).collect();
        for (name, timed, a) in self.floats.iter().filter(|(name, ..)| there.contains(name)) {
            let rows = if *timed { a.index_axis(Dim(0), t) } else { a.view() };
            stream.set_f32(name, rows.as_standard_layout().as_slice().expect("dense"))?;
        }
        for (name, timed, a) in self.integers.iter().filter(|(name, ..)| there.contains(name)) {
            let rows = if *timed { a.index_axis(Dim(0), t) } else { a.view() };
            stream.set_i32(name, rows.as_standard_layout().as_slice().expect("dense"))?;
        }
        Ok(())
    }
}

/// Whether all states start from what is there: a number, a parameter, an input.
fn starts_plainly(program: &Program) -> bool {
    let (carried, states) = time::carry_state(program);
    let is_moved = |op: &Op| matches!(op, Op::Expand(_) | Op::Broadcast(_) | Op::Reshape(_) | Op::Slice { .. });
    let is_leaf = |op: &Op| matches!(op, Op::Constant(_) | Op::Parameter(_) | Op::Input(_) | Op::Argmax);
    let plain = |v: Value| {
        let needed = carried.graph.reachable([v]);
        let mut needed = carried.graph.values().filter(|v| needed[v.index()]).map(|v| carried.graph.op(v));
        needed.all(|op| is_moved(op) || is_leaf(op))
    };
    states.iter().all(|state| plain(state.initial))
}

/// Compares the rows of steps `from..` with those of the whole run.
fn same(what: &str, from: usize, given: &Rows, whole: &Rows, exactly: bool) -> Found {
    for (name, given) in given {
        let steps = given.shape()[0];
        let expected = whole[name].slice_axis(Dim(0), Slice::from(from..from + steps));
        let largest = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        let agrees =
            |g: f64, e: f64| if exactly { g.to_bits() == e.to_bits() } else { (g - e).abs() <= 1e-5 * largest };
        let differs = |(g, e): (&f64, &f64)| !agrees(*g, *e);
        if given.shape() != expected.shape() || given.iter().zip(&expected).any(differs) {
            return Err(format!("{what}: {name}, step {from}: {given} instead of {expected}"));
        }
    }
    Ok(())
}

fn check(program: &Program) -> Found {
    in_turn(&program.name, || check_in_pieces(program))
}

fn check_in_pieces(program: &Program) -> Found {
    let names = comparable(program);
    if names.is_empty() || program.time_axes() != [Axis(0)] {
        return Ok(());
    }
    let failed = |e: RunError| e.to_string();
    let sizes = sizes(STEPS, BATCH);
    let mut values = check::values(program, &sizes, 3);
    // A masked mean over a window in which every row is masked is not a number.
    for (_, data) in values.iter_mut().filter(|(name, _)| name.contains("mask")) {
        let rows = WINDOWS.iter().flat_map(|(from, _)| from * BATCH..(from + 1) * BATCH);
        rows.for_each(|row| data.x[row].re = 1.0);
    }
    let inputs = Inputs::new(program, &values, &sizes);
    let mut session = Session::<f32>::new(program, settings()).map_err(failed)?;
    session.initialise(5).map_err(failed)?;
    session.run(&inputs.window(0, STEPS)).map_err(failed)?;
    let whole = outputs(&session, &names);
    let exactly = starts_plainly(program);

    let mut stream = program.stream_with(BATCH, 5, settings()).map_err(failed)?;
    for (round, threads) in [("streamed", 1), ("streamed after a reset", 1), ("streamed on two threads", 2)] {
        stream.set_threads(threads).expect("the system has so many");
        for t in 0..STEPS {
            inputs.set(&mut stream, t).map_err(failed)?;
            stream.advance().map_err(failed)?;
            same(round, t, &outputs(stream.session(), &names), &whole, exactly)?;
        }
        stream.reset();
    }
    let backwards = |op: &Op| matches!(op, Op::Scan(scan) if scan.reverse);
    if program.objective.is_none() || program.graph.values().any(|v| backwards(program.graph.op(v))) {
        return Ok(());
    }

    // With a rate of 0 the parameters stay, and a step of training has the loss of evaluation.
    let set = check::sets::turn_of(&program.name);
    let trainer = || {
        let builder = program.trainer(Sgd::new(0.0)).seed(5).carry_state(true).instruction_set(set);
        builder.compile().map_err(failed)
    };
    let file = std::env::temp_dir().join(format!("retrograd-streaming-{}-{}", program.name, std::process::id()));
    let (mut going, mut resumed) = (trainer()?, trainer()?);
    for (from, to) in WINDOWS {
        let window = inputs.window(from, to);
        let loss = going.evaluate(&window).map_err(failed)?;
        let evaluated = names.iter().filter(|(_, integer)| !integer);
        let rows = evaluated.map(|(name, _)| (name.clone(), going.evaluated(name).expect("an output").mapv(f64::from)));
        same("in windows", from, &rows.collect(), &whole, exactly)?;
        let trained = going.step(&window).map_err(failed)?.loss;
        if from > 0 {
            resumed.load(&file).map_err(failed)?;
        }
        let after = resumed.step(&window).map_err(failed)?.loss;
        resumed.save(&file).map_err(failed)?;
        if trained != after {
            return Err(format!("loss of {from}..{to}: {trained} in one go, {after} resumed"));
        }
        if (trained - loss).abs() > 1e-5 * loss.abs().max(1.0) {
            return Err(format!("loss of {from}..{to}: {trained} in training, {loss} in evaluation"));
        }
    }
    std::fs::remove_file(&file).map_err(|e| e.to_string())
}

/// A net that is large enough for threads to share each step of one sample.
#[test]
fn a_large_net_on_threads() {
    let program = Program::record("large", |p| {
        let x = p.sequence("x", 48);
        let run = p.scan("cell", |s| cells::lstm(s, s.at(x), 272));
        p.output("y", run.all());
    });
    let mut stream = program.expect("it records").stream(1, 7).expect("it compiles");
    let mut take = |threads| {
        stream.set_threads(threads).expect("the system has so many");
        stream.reset();
        let mut rows = Vec::new();
        for t in 0..4 {
            let x: Vec<f32> = (0..48).map(|i| ((t * 48 + i) as f32).sin()).collect();
            stream.set_f32("x", &x).expect("its size");
            stream.advance().expect("all is set");
            let mut y = [0.0; 272];
            stream.get_f32("y", &mut y).expect("its size");
            rows.extend(y.map(f32::to_bits));
        }
        rows
    };
    let one = take(1);
    assert!(one.iter().any(|&bits| bits != one[0]), "there is something to compare");
    for threads in [2, 3, 1, 5] {
        assert_eq!(take(threads), one, "{threads} threads");
    }
}

fn check_all(programs: Vec<Program>) {
    let taken = programs.iter().filter(|p| !comparable(p).is_empty()).count();
    assert!(taken > 0, "there is something to check");
    let failures = programs.iter().filter_map(|p| check(p).err().map(|e| format!("`{}`: {e}", p.name)));
    let failures: Vec<String> = failures.collect();
    assert!(failures.is_empty(), "{} programs fail:\n\n{}\n", failures.len(), failures.join("\n\n"));
}

#[test]
fn cells() {
    check_all(corpus::cells::programs());
}

#[test]
fn models() {
    check_all(corpus::models::programs());
}

#[test]
fn shapes() {
    check_all(corpus::shapes::programs());
}

#[test]
fn loops() {
    check_all(corpus::loops::programs());
}
