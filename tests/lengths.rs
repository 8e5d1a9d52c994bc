//! Samples of different lengths in one batch: each is computed as if it were alone.
//!
//! Alone means a batch of one with as many steps as the sample has. Outputs and states must then have the same bits, in
//! whatever is in the padding; the gradient, which sums over rows, must agree to 1e-12.

mod check;
mod corpus;

use std::collections::BTreeMap;

use check::{Jit, Numbers, truth};
use corpus::{energy, record};
use retrograd::cells;
use retrograd::compiler::interpret::Values;
use retrograd::compiler::ir::Sizes;
use retrograd::compiler::ir::dual::Dual;
use retrograd::compiler::ir::op::Data;
use retrograd::prelude::*;
use retrograd::runtime::error::RunError;
use retrograd::runtime::session::Session;

/// Both directions, outputs that are states and outputs that are none, and a scan behind a scan.
fn program(ragged: bool) -> Program {
    record("both_ways", |p| {
        let time = if ragged { p.lengths("lengths") } else { p.axis("time") };
        let (x, y) = (time.sequence("x", 3), time.sequence("y", 5));
        let forth = time.scan("forth", |s| {
            let h = cells::lstm(s, s.at(x), 5);
            (h, h.square() + s.at(x).sum())
        });
        let back = time.scan_reverse("back", |s| {
            let h = cells::gru(s, s.at(x), 5);
            (h, h.square() - s.at(x).sum())
        });
        let both = forth.0.all() * back.0.all() + forth.1.all() - back.1.all();
        let above = time.scan_reverse("above", |s| cells::rnn(s, s.at(both), 5));
        for (name, run) in [("forth", forth.0), ("back", back.0), ("forth_other", forth.1), ("back_other", back.1)] {
            p.output(name, run.all());
            p.output(&format!("{name}_last"), run.last());
        }
        p.output("above", above.all());
        let wrapped = cells::bidirectional(p, time, "wrapped", both, 3, &cells::gru_reset_after);
        p.output("wrapped", wrapped.all());
        p.output("wrapped_ends", wrapped.last());
        p.output("c", forth.0.state("c"));
        let noting = time.scan("noting", |s| cells::remembered_last(s, s.at(both), 3));
        p.output("remembered", noting.state("remembered"));
        p.output("remembers", noting.state("remembers"));
        let loss = above.all().mse(y);
        p.output("mean", loss.mean_over(time));
        let ends = forth.1.last() * back.1.last() + above.last() * forth.0.state("c");
        p.minimize(loss.sum_over(time) + (energy(ends) + energy(wrapped.last())).sum_rows());
    })
}

const LENGTHS: [usize; 6] = [5, 1, 3, 4, 2, 5];
const STEPS: usize = 5;

fn given(program: &Program, padding: f64) -> (Sizes, Values) {
    let sizes = Sizes::new(STEPS, LENGTHS.len());
    let mut values = check::values(program, &sizes, 3);
    for (name, data) in &mut values {
        if name == "lengths" {
            data.x = LENGTHS.iter().map(|&n| Dual::new(n as f64)).collect();
        } else if matches!(data.ty.extent, Extent::Time(_)) {
            let width = data.ty.shape.len();
            for (row, x) in data.x.chunks_mut(width).enumerate() {
                if row / LENGTHS.len() >= LENGTHS[row % LENGTHS.len()] {
                    x.fill(Dual::new(padding));
                }
            }
        }
    }
    (sizes, values)
}

/// A sample's own steps.
fn own(data: &Data, sizes: &Sizes, b: usize) -> Data {
    let width = data.ty.shape.len();
    let rows = data.x.chunks(width).enumerate();
    let x = rows.filter(|(r, _)| match data.ty.extent {
        Extent::Shared => true,
        _ => r % sizes.batch == b && r / sizes.batch < LENGTHS[b],
    });
    Data { ty: data.ty.clone(), x: x.flat_map(|(_, row)| row.to_vec()).collect() }
}

/// Sample `b`'s rows of a batch result: those of its own steps, and those past its end.
fn rows(program: &Program, numbers: &Numbers, name: &str, b: usize) -> (Vec<f64>, Vec<f64>) {
    let ty = program.ty(program.output(name).expect("an output"));
    let rows = numbers[name].chunks(ty.shape.len()).enumerate().filter(|(r, _)| r % LENGTHS.len() == b);
    let (own, past): (Vec<_>, Vec<_>) = rows.partition(|(r, _)| r / LENGTHS.len() < LENGTHS[b]);
    let flat = |rows: Vec<(usize, &[f64])>| rows.into_iter().flat_map(|(_, row)| row.to_vec()).collect();
    (flat(own), flat(past))
}

type Engine<'a> = &'a mut dyn FnMut(&Values, &Sizes) -> Numbers;

fn check_against_alone(ragged: &Program, run: Engine, run_alone: Engine) {
    for padding in [0.0, 7.5] {
        let (sizes, values) = given(ragged, padding);
        let together = run(&values, &sizes);
        let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (b, &length) in LENGTHS.iter().enumerate() {
            let one = Sizes::new(length, 1);
            let values: Values = values.iter().map(|(name, data)| (name.clone(), own(data, &sizes, b))).collect();
            let single = run_alone(&values, &one);
            for (name, v) in &ragged.outputs {
                let ty = ragged.ty(*v);
                if ty.extent == Extent::Shared {
                    let sum = sums.entry(name.clone()).or_insert_with(|| vec![0.0; ty.shape.len()]);
                    // A sample's mean over its own steps counts as often as there are steps.
                    let weight = if name == "mean" { length as f64 } else { 1.0 };
                    sum.iter_mut().zip(&single[name]).for_each(|(s, x)| *s += weight * x);
                    continue;
                }
                let (own, past) = rows(ragged, &together, name, b);
                let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&own), bits(&single[name]), "{name} of sample {b}, padding {padding}");
                assert!(past.iter().all(|&x| x == 0.0), "{name} of sample {b} is 0 past its end, not {past:?}");
            }
        }
        assert!(sums.len() > 8, "gradients are among the outputs");
        let steps: usize = LENGTHS.iter().sum();
        for (name, sum) in sums {
            let scale = sum.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            let weight = if name == "mean" { steps as f64 } else { 1.0 };
            for (given, sum) in together[&name].iter().zip(&sum) {
                assert!((given * weight - sum).abs() <= 1e-12 * scale, "{name}: {} against {sum}", given * weight);
            }
        }
    }
}

#[test]
fn interpreted() {
    let [ragged, alone] = [true, false].map(|r| program(r).backward().expect("an objective"));
    check_against_alone(&ragged, &mut |v, s| truth(&ragged, v, s), &mut |v, s| truth(&alone, v, s));
}

#[test]
fn through_generated_code() {
    let [ragged, alone] = [true, false].map(|r| program(r).backward().expect("an objective"));
    let run_on_each = check::sets::on_each(|_| {
        for threads in [1, 2] {
            let mut many = Jit::<f64>::new(&ragged, threads)?;
            let mut one = Jit::<f64>::new(&alone, 1)?;
            let run = &mut |v: &Values, s: &Sizes| many.run(v, s).unwrap();
            check_against_alone(&ragged, run, &mut |v, s| one.run(v, s).unwrap());
        }
        Ok(())
    });
    run_on_each.unwrap();
}

/// A length of 0 leaves the state as it started; one below 0 or beyond the steps of a run is an error.
#[test]
fn lengths_are_from_0_to_the_steps() {
    let program = program(true);
    let sizes = Sizes::new(3, 3);
    let mut values = check::values(&program, &sizes, 3);
    let mut jit = Jit::<f64>::new(&program, 1).unwrap();
    let mut run = |lengths: [f64; 3]| {
        values.get_mut("lengths").expect("an input").x = lengths.map(Dual::new).to_vec();
        jit.run(&values, &sizes)
    };
    let given = run([2.0, 3.0, 0.0]).unwrap();
    assert_eq!(given["c"][10..], [0.0; 5]);
    assert_eq!(given["back_other_last"][10..], [0.0; 5]);
    for wrong in [-5, -1, 4, i32::MAX] {
        let error = run([3.0, f64::from(wrong), 0.0]).unwrap_err();
        let text = "running: input `lengths` says that sample 1 has";
        assert_eq!(error, format!("{text} {wrong} steps; allowed are 0 to 3, the steps of the run"));
    }
}

// ---- the most steps -----------------------------------------------------------------------------------------------

/// A sum over what a source of at most four steps remembers.
fn noting(with_lengths: bool) -> Program {
    record("noting", |p| {
        let source = p.axis("source");
        let source = if with_lengths { source.lengths("lengths") } else { source };
        let x = source.sequence("x", 2);
        let run = source.scan("noting", |s| {
            let sum = s.state("sum", 2);
            cells::remembered(s, s.next(sum, sum + s.at(x)), 4)
        });
        p.output("sum", run.state("remembered").sum_axis(0));
        p.minimize(p.affine("out", run.all(), 1).square().mean());
    })
}

fn too_many(result: Result<(), RunError>, steps: usize) {
    let text = result.expect_err("more steps than places").to_string();
    assert!(text.starts_with(&format!("{steps} steps of axis `source`; a scan over it takes at most 4 (")), "{text}");
    assert!(text.contains("tests/lengths.rs:"), "the place is the user's: {text}");
}

#[test]
fn a_source_longer_than_its_places_is_refused() {
    let program = noting(false);
    assert!(program.to_string().contains("axis T = source <= 4\n"), "{program}");
    let read = Program::parse(&program.to_string()).expect("its own text");
    assert_eq!(read.to_string(), program.to_string());
    let joint = program.backward().expect("an objective");
    let x = ndarray::Array3::<f32>::ones((6, 2, 2));
    let steps = |n: usize| Feed::new().f32("x", x.slice(ndarray::s![..n, .., ..]));
    for program in [&program, &joint] {
        let mut session = Session::<f32>::new(program, 1).expect("code");
        session.run(&steps(4)).expect("as many as there are places");
        assert_eq!(session.output("sum").expect("an output")[[0, 0, 0]], 10.0);
        too_many(session.run(&steps(5)), 5);
        // Nothing has changed.
        assert_eq!(session.output("sum").expect("an output")[[0, 0, 0]], 10.0);
    }
    let mut trainer = program.trainer(Sgd::new(0.1)).compile().expect("code");
    too_many(trainer.step(&steps(6)).map(|_| ()), 6);
    too_many(trainer.evaluate(&steps(6)).map(|_| ()), 6);
    trainer.step(&steps(4)).expect("as many as there are places");
    let error = program.unroll(5).expect_err("too many").to_string();
    assert!(error.starts_with("5 steps of a program that takes at most 4 ("), "{error}");
    assert!(program.unroll(4).is_ok());
    let error = program.trainer(Sgd::new(0.1)).truncate(2, 2).compile().err().expect("no windows").to_string();
    assert!(error.contains("at most 4 steps"), "{error}");
}

/// Padding needs no place.
#[test]
fn the_longest_sample_counts() {
    let program = noting(true);
    let mut session = Session::<f32>::new(&program, 1).expect("code");
    let x = ndarray::Array3::<f32>::ones((6, 2, 2));
    let feed = || Feed::new().f32("x", x.view());
    session.run(&feed().i32_slice("lengths", &[2], &[4, 1])).expect("four steps");
    assert_eq!(session.output("sum").expect("an output")[[1, 0, 0]], 1.0);
    too_many(session.run(&feed().i32_slice("lengths", &[2], &[1, 5])), 5);
}

/// States that are carried have seen the steps before, after a checkpoint, too.
#[test]
fn steps_of_carried_states_add_up() {
    let program = noting(false);
    let mut stream = program.stream(1, 0).expect("a stream");
    stream.set_f32("x", &[1.0, 1.0]).expect("an input");
    for _ in 0..2 {
        (0..4).for_each(|_| stream.advance().expect("a place"));
        too_many(stream.advance(), 5);
        stream.reset();
    }
    let x = ndarray::Array3::<f32>::ones((3, 2, 2));
    let feed = Feed::new().f32("x", x.view());
    let compile = || program.trainer(Sgd::new(0.1)).carry_state(true).compile().expect("code");
    let file = std::env::temp_dir().join(format!("retrograd-limits-{}", std::process::id()));
    let mut trainer = compile();
    trainer.step(&feed).expect("three places");
    // A step that is refused has changed nothing: there is still one place.
    let nan = ndarray::Array3::<f32>::from_elem((1, 2, 2), f32::NAN);
    assert!(trainer.step(&Feed::new().f32("x", nan.view())).is_err());
    trainer.save(&file).expect("a file");
    too_many(trainer.step(&feed).map(|_| ()), 6);
    let mut again = compile();
    again.load(&file).expect("its own file");
    too_many(again.step(&feed).map(|_| ()), 6);
    again.reset_state();
    again.step(&feed).expect("three places");
    std::fs::remove_file(&file).expect("it is there");
}
