//! Sums over many rows: near to the truth in 32 bits, and with the bits of one sum however the rows are cut into pieces.

mod check;

use check::{same_bits, sizes, values};
use retrograd::compiler::plan::Checkpointing;
use retrograd::prelude::*;
use retrograd::runtime::float::Float;
use retrograd::runtime::session::{Session, Sharing};
use retrograd::testing::{Numbers, run};

fn record(name: &str, body: impl FnOnce(&retrograd::prelude::Recorder<'_>)) -> Program {
    Program::record(name, body).expect("a program").backward().expect("an objective")
}

/// Gives all parameters numbers that 32 bits hold.
fn set_parameters<E: Float>(session: &mut Session<E>) {
    let program = session.program().clone();
    for p in &program.parameters {
        let shape = program.ty(p.value).shape.0.clone();
        let n: usize = shape.iter().product();
        let x = (0..n).map(|i| E::from_f64(0.5 + (i * 5 % 8) as f64 / 16.0)).collect();
        let x = ndarray::ArrayD::from_shape_vec(shape, x).expect("of its shape");
        session.set_parameter(&p.name, x.view()).expect("it has this shape");
    }
}

/// A mean, a mean cross-entropy, and the gradients of weights, a bias, a gain and a table, over a quarter of a million rows.
/// Terms have one sign or nearly so: one running sum of 32 bits is off by a thousandth.
#[test]
fn sums_of_many_rows_are_exact() {
    let program = record("many rows", |p| {
        let (x, label) = (p.sequence("x", 3), p.labels_sequence("label"));
        let gain = p.parameter("gain", 3, Init::Constant(1.0));
        let seen = x * gain + p.embedding("table", label, 4, 3);
        let loss = p.affine("readout", seen, 4).cross_entropy(label);
        p.output("mean", x.mean_rows());
        p.output("loss", loss.mean_rows());
        p.minimize(loss.mean_rows() + (x * p.parameter("each", 3, Init::Constant(0.0))).sum().mean_rows());
    });
    let (steps, batch) = (512, 512);
    let x = ndarray::Array3::from_shape_fn((steps, batch, 3), |(t, b, i)| 0.1 + ((t + b * 7 + i) % 5) as f32 * 0.01);
    let label =
        ndarray::Array2::from_shape_fn((steps, batch), |(t, b)| i32::from((t * 31 + b) % 9 == 0) * (b % 4) as i32);
    let feed = Feed::new().f32("x", x.view()).i32("label", label.view());
    let mut exact = Session::<f64>::new(&program, 1).expect("it compiles");
    set_parameters(&mut exact);
    exact.run(&feed).expect("it runs");
    for set in InstructionSet::available() {
        let mut session = Session::<f32>::new(&program, Settings::new().instruction_set(set)).expect("it compiles");
        set_parameters(&mut session);
        session.run(&feed).expect("it runs");
        for (name, _) in &program.outputs {
            let truth = exact.output(name).expect("an output");
            let largest = truth.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
            for (given, truth) in session.output(name).expect("an output").iter().zip(&truth) {
                let off = (f64::from(*given) - truth).abs() / largest;
                assert!(off < 1e-6, "{set}, `{name}`: {given} for {truth}, {off:.1e} of the largest");
            }
        }
    }
}

/// Sums of all kinds over rows that segments, samples and blocks of rows cut at different places: more rows than a block
/// that is summed in 32 bits, in segments that end within blocks of 64.
#[test]
fn pieces_have_the_bits_of_one_sum() {
    let program = record("pieces", |p| {
        let (word, label) = (p.labels_sequence("word"), p.labels_sequence("label"));
        let words = p.embedding("words", word, 11, 6);
        let gain = p.parameter("gain", 6, Init::Constant(1.0));
        let run = p.scan("cell", |s| retrograd::cells::lstm(s, s.at(words) * gain, 7));
        let matrices = run.all().slice(..6).reshape([3, 2]).dot(p.parameter("each", [2, 5], Init::Constant(0.5)));
        let loss = p.affine("readout", run.all(), 11).cross_entropy(label);
        p.output("by_sample", loss.mean_time());
        p.minimize(loss.mean_time().sum_rows() + matrices.square().sum().sum().mean_rows());
    });
    for (steps, batch) in [(120, 19), (450, 5), (70, 32), (2100, 1)] {
        let sizes = sizes(steps, batch);
        let values = values(&program, &sizes, 5);
        let of = |settings: Settings, share: Option<Sharing>| -> Numbers {
            let mut session = Session::<f32>::new(&program, settings).expect("it compiles");
            share.into_iter().for_each(|share| session.share(share));
            run(&mut session, &values, &sizes).expect("it runs")
        };
        for set in InstructionSet::available() {
            let settings = Settings::new().instruction_set(set);
            let one = of(settings.checkpointing(Checkpointing::Keep(steps)), None);
            let some = [1, 3, 7, 16, 33, steps / 2];
            let policies = some.into_iter().flat_map(|k| [Checkpointing::Keep(k), Checkpointing::Every(k)]);
            for policy in policies {
                let what = format!("{set}, {steps} × {batch}, {policy:?}");
                let given = of(settings.checkpointing(policy), None);
                same_bits(&what, &given, &one).unwrap();
            }
            for share in [Sharing::Rows, Sharing::Features] {
                let given = of(settings.checkpointing(Checkpointing::Keep(7)).threads(2), Some(share));
                same_bits(&format!("{set}, {steps} × {batch}, {share:?}"), &given, &one).unwrap();
            }
        }
    }
}
