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
        let noting = time.scan("noting", |s| cells::remembered(s, s.at(both), 3));
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
