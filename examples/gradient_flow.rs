//! How far back a gradient reaches: its norm against distance in time, for vanilla nets with several largest singular
//! values, for the LSTM and the GRU; what clipping does to it; and a task that only a net can learn whose gradient
//! lasts: adding two numbers that were marked somewhere in a long sequence.
//!
//! ```sh
//! cargo run --release --example gradient_flow
//! ```

pub mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use common::course::{Clock, Course, Lesson, Seen};
use common::nudged::{Net, largest_singular_value, norms_by};
use common::sums::Marked;
use common::{Result, study, within};
use ndarray::{Array2, Array3};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retrograd::prelude::*;
use serde_json::{Value, json};

/// Shows how gradients vanish, explode and last, and what that means for learning.
#[derive(Parser)]
#[command(name = "gradient_flow", allow_negative_numbers = true)]
pub struct Options {
    #[command(flatten)]
    course: Course,
    /// Units of each net
    #[arg(long, default_value_t = 32, value_parser = within(1024))]
    units: usize,
    /// How far to look back
    #[arg(long, default_value_t = 100, value_parser = within(1000))]
    distance: usize,
    /// Length of the sequences of the task
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=2000))]
    length: u64,
    /// Where to draw what was seen
    #[arg(long, value_name = "DIRECTORY", default_value = "target/gradient_flow")]
    pictures: PathBuf,
}

fn main() -> ExitCode {
    common::main(run)
}

/// The whole job, until `stop` is raised at most. Results go to `out`.
pub fn run(o: &Options, stop: &AtomicBool, out: &mut dyn Write) -> Result<()> {
    common::make_directory_of(&o.pictures.join("file"))?;
    let nets =
        [&[0.5, 0.9, 1.0, 1.1, 2.0].map(Net::Vanilla)[..], &[Net::Lstm(4.0), Net::Lstm(200.0), Net::Gru]].concat();
    let flows = nets.iter().map(|&net| Flow::of(net, o)).collect::<Result<Vec<_>>>()?;
    let head = ["|dL/dh|", "per step", "bound kept", "|dL/dW|", "clipped step"];
    writeln!(out, "{:22} {}", "", head.map(|name| format!("{name:>12}")).join(" "))?;
    for (net, f) in nets.iter().zip(&flows) {
        let (name, last, [step, clipped]) = (net.name(), f.norms[o.distance], f.steps);
        let per_step = (last / f.norms[0]).powf(1.0 / o.distance as f64);
        let kept = f.bound_kept.map_or("", |kept| if kept { "yes" } else { "NO" });
        writeln!(out, "{name:22} {last:12.1e} {per_step:12.3} {kept:>12} {step:12.2e} {clipped:12.2e}")?;
    }
    let points = |f: &Flow| (0..).map(f64::from).zip(f.norms.iter().map(|n| n.log10())).collect();
    let lines = nets.iter().zip(&flows).map(|(n, f)| (n.name(), points(f))).collect();
    study::draw_lines(&o.pictures, "flow", ["steps back", "log10 of the gradient's norm"], &lines)?;

    let (lstm, vanilla) = (Net::Lstm(o.length as f64), Net::Vanilla(1.0));
    let (of_lstm, by_lstm) = adds(lstm, o, 1e-2, &o.course.clock(2500, 0.65, stop))?;
    let (of_vanilla, by_vanilla) = adds(vanilla, o, 1e-3, &o.course.clock(2500, 0.3, stop))?;
    let errors = format!("squared error {of_lstm:.4} by the LSTM, {of_vanilla:.4} by the vanilla net");
    writeln!(out, "adding two of {} numbers: {errors}; always to say 1 has 0.1667", o.length)?;
    let lines = vec![(lstm.name(), by_lstm.loss.clone()), (vanilla.name(), by_vanilla.loss)];
    study::draw_lines(&o.pictures, "adding", ["training steps", "squared error"], &lines)?;
    writeln!(out, "pictures are in {}", o.pictures.display())?;
    let flow: Vec<Value> = nets.iter().zip(&flows).map(|(net, f)| f.result(*net, o.distance)).collect();
    let kept = flows.iter().all(|f| f.bound_kept != Some(false));
    let mut result = json!({ "flow": flow, "bounds_kept": kept, "lstm_error": of_lstm, "vanilla_error": of_vanilla });
    result["solved"] = (of_lstm < 0.01 && of_vanilla > 0.1).into();
    o.course.report(out, result, &by_lstm)
}

/// What becomes of a gradient.
struct Flow {
    /// Mean of its norm at each distance, over samples.
    norms: Vec<f64>,
    /// Of a vanilla net: whether |dL/dh_t| ≤ σ^(T−t)·|dL/dh_T| for every step and sample.
    bound_kept: Option<bool>,
    /// Norm of the gradient by all weights, and of the step that descent takes at rate 1 when it is clipped to 1.
    steps: [f64; 2],
}

impl Flow {
    fn of(net: Net, o: &Options) -> Result<Flow> {
        let (samples, states) = (16, net.states(o.units));
        let program = Program::record("flow", |p| {
            let (x, nudge, along) = (p.sequence("x", 4), p.sequence("nudge", states), p.input("along", o.units));
            let run = p.scan("net", |s| net.step(s, s.at(x), o.units, Some(s.at(nudge))));
            p.minimize(run.last().inner(along).sum_rows());
        })?;
        let mut random = ChaCha8Rng::seed_from_u64(o.course.seed);
        let mut bell = || (0..12).map(|_| random.random_range(-0.5f32..0.5)).sum::<f32>();
        let x = Array3::from_shape_simple_fn((o.distance + 1, samples, 4), || 0.1 * bell());
        let along = Array2::from_shape_simple_fn((samples, o.units), &mut bell);
        let nudge = Array3::zeros((o.distance + 1, samples, states));
        let feed = Feed::new().f32("x", x.view()).f32("nudge", nudge.view()).f32("along", along.view());
        let mut trainer = program.trainer(Sgd::new(1.0)).clip_norm(1.0).seed(o.course.seed).compile()?;
        let before: Vec<_> = program.parameters.iter().map(|p| trainer.parameter(&p.name)).collect();
        let first = trainer.step(&feed)?.gradient_norm;
        let moved = program.parameters.iter().zip(before).filter_map(|(p, b)| Some(trainer.parameter(&p.name)? - b?));
        let step = moved.flatten().map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();

        let (mut norms, session) = norms_by(&program, "nudge", o.course.seed, &feed)?;
        norms.reverse(); // [distance][sample]
        let bound_kept = session.parameter("net.w").map(|w| {
            let sigma = largest_singular_value(&w.into_dimensionality().expect("a matrix"));
            // A little room for rounding, of σ too.
            let bound = |d: usize, b: usize| (sigma * (1.0 + 1e-6)).powi(d as i32) * norms[0][b] * (1.0 + 1e-6);
            norms.iter().enumerate().all(|(d, row)| row.iter().enumerate().all(|(b, &n)| n <= bound(d, b)))
        });
        let norms = norms.iter().map(|row| row.iter().sum::<f64>() / samples as f64).collect();
        Ok(Flow { norms, bound_kept, steps: [first, step] })
    }

    fn result(&self, net: Net, distance: usize) -> Value {
        let (norm, [gradient, clipped]) = (self.norms[distance], self.steps);
        json!({ "net": net.name(), "norm": norm, "bound_kept": self.bound_kept, "gradient": gradient, "clipped": clipped })
    }
}

/// Learns to add the marked ones of many numbers: the squared error on new sequences in the end.
fn adds(net: Net, o: &Options, rate: f64, clock: &Clock) -> Result<(f64, Seen)> {
    let program = Program::record("adding", |p| {
        let (x, sum) = (p.sequence("x", 2), p.input("sum", 1));
        let run = p.scan("net", |s| net.step(s, s.at(x), o.units, None));
        p.minimize(p.affine("readout", run.last(), 1).mse(sum));
    })?;
    let trainer = program.trainer(Adam::new(rate)).clip_norm(1.0).seed(o.course.seed);
    let mut trainer = trainer.threads(o.course.threads()).compile()?;
    let mut random = ChaCha8Rng::seed_from_u64(o.course.seed);
    let new = Marked::random(o.length as usize, 256, &mut random);
    let lesson = Lesson { batch: 32, rate, feed: Marked::feed };
    let batch = |_| Marked::random(o.length as usize, lesson.batch, &mut random);
    let seen = o.course.train(&lesson, &mut trainer, clock, batch, |trainer| {
        Ok(format!("squared error {:.4} by the {}", trainer.evaluate(&new.feed())?, net.name()))
    })?;
    Ok((trainer.evaluate(&new.feed())?, seen))
}
