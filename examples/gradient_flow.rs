//! How far back a gradient reaches: its norm against distance in time, for vanilla nets with several largest singular
//! values, for the LSTM and the GRU; what clipping does to it; and a task that only a net can learn whose gradient
//! lasts: adding two numbers that were marked somewhere in a long sequence.
//!
//! ```sh
//! cargo run --release --example gradient_flow
//! ```
//!
//! The derivative by a state is that by a *nudge*, an input that is added to it and is 0.

pub mod common;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use common::{Progress, Result, study, within};
use ndarray::{Array2, Array3, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retrograd::compiler::differentiate::gradient;
use retrograd::prelude::*;
use retrograd::runtime::feed::Feed;
use retrograd::runtime::optimizer::{Adam, Sgd};
use retrograd::runtime::session::Session;
use retrograd::runtime::train::Training;

#[derive(Clone, Copy, PartialEq)]
enum Net {
    /// The recurrent weight is orthogonal times this: all of its singular values are this.
    Vanilla(f64),
    /// Biases as they suit a memory of this many steps: σ(bias of the forget gate) = 1 − 1/t, for t up to this.
    Lstm(f64),
    Gru,
}

impl Net {
    fn name(self) -> String {
        match self {
            Net::Vanilla(gain) => format!("vanilla, σ = {gain}"),
            Net::Lstm(memory) => format!("LSTM for {memory} steps"),
            Net::Gru => "GRU".to_string(),
        }
    }

    /// One step. The nudge is of all states together.
    fn step<'r>(self, s: &Step<'r>, x: Expr<'r>, units: usize, nudge: Option<Expr<'r>>) -> Expr<'r> {
        let nudged = |value: Expr<'r>, part: usize| match nudge {
            Some(nudge) => value + nudge.slice(part * units..(part + 1) * units),
            None => value,
        };
        let h = s.state("h", units);
        match self {
            Net::Vanilla(gain) => {
                let w = s.parameter("w", [units, units], Init::Orthogonal(gain));
                s.next(h, nudged((h.dot(w) + s.affine("x", x, units)).tanh(), 0))
            }
            Net::Lstm(memory) => {
                // Tallec & Ollivier (2018), "Can recurrent neural networks warp time?"
                let (c, far) = (s.state("c", units), memory.ln());
                let (open, shut) = (Init::Uniform(far / 8.0, far), Init::Uniform(-far, -far / 8.0));
                let bias = Init::Pieces(vec![shut, open, Init::Constant(0.0), Init::Constant(0.0)]);
                let [i, f, o, g] = s.affine_with("gates", concat([h, x]), 4 * units, Init::Glorot, bias).split();
                let c1 = f.sigmoid() * c + i.sigmoid() * g.tanh();
                s.next(c, nudged(c1, 1));
                s.next(h, nudged(o.sigmoid() * c1.tanh(), 0))
            }
            Net::Gru => {
                let [r, z] = s.affine("gates", concat([h, x]), 2 * units).sigmoid().split();
                let n = s.affine("candidate", concat([r * h, x]), units).tanh();
                s.next(h, nudged(z * h + (1.0 - z) * n, 0))
            }
        }
    }
}

/// Shows how gradients vanish, explode and last, and what that means for learning.
#[derive(Parser)]
#[command(name = "gradient_flow")]
pub struct Options {
    #[command(flatten)]
    common: study::Options,
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
    study::main(run)
}

fn run(o: &Options, stop: &AtomicBool) -> Result<()> {
    common::make_directory_of(&o.pictures.join("file"))?;
    let vanilla = [0.5, 0.9, 1.0, 1.1, 2.0].map(Net::Vanilla);
    let nets: Vec<Net> = vanilla.into_iter().chain([Net::Lstm(4.0), Net::Lstm(200.0), Net::Gru]).collect();
    let flows = nets.iter().map(|&net| Flow::of(net, o)).collect::<Result<Vec<_>>>()?;
    println!(
        "{:22} {:>10} {:>10} {:>12} {:>12} {:>12}",
        "", "|dL/dh|", "per step", "bound kept", "|dL/dW|", "clipped step"
    );
    for (net, f) in nets.iter().zip(&flows) {
        let per_step = (f.norms[o.distance] / f.norms[0]).powf(1.0 / o.distance as f64);
        let kept = f.bound_kept.map_or("", |kept| if kept { "yes" } else { "NO" });
        let [step, clipped] = f.steps;
        println!(
            "{:22} {:10.1e} {per_step:10.3} {kept:>12} {step:12.2e} {clipped:12.2e}",
            net.name(),
            f.norms[o.distance]
        );
    }
    let points = |f: &Flow| f.norms.iter().enumerate().map(|(d, n)| (d as f64, n.log10())).collect();
    let lines = nets.iter().zip(&flows).map(|(n, f)| (n.name(), points(f))).collect();
    study::draw_lines(&o.pictures, "flow", ["steps back", "log10 of the gradient's norm"], &lines)?;

    let (lstm, vanilla) = (Net::Lstm(o.length as f64), Net::Vanilla(1.0));
    let curves = [adds(lstm, o, 0.65, stop)?, adds(vanilla, o, 0.3, stop)?];
    let end = |curve: &[(f64, f64)]| curve.last().map_or(f64::NAN, |p| p.1);
    let [of_lstm, of_vanilla] = [end(&curves[0]), end(&curves[1])];
    println!(
        "adding two of {} numbers: squared error {of_lstm:.4} by the LSTM, {of_vanilla:.4} by the vanilla net; always to say 1 has 0.1667",
        o.length
    );
    let lines = [lstm.name(), vanilla.name()].into_iter().zip(curves).collect();
    study::draw_lines(&o.pictures, "adding", ["training steps", "squared error"], &lines)?;
    println!("pictures are in {}", o.pictures.display());
    let result = nets.iter().zip(&flows).map(|(net, f)| {
        let kept = f.bound_kept;
        serde_json::json!({ "net": net.name(), "norm": f.norms[o.distance], "bound_kept": kept, "gradient": f.steps[0], "clipped": f.steps[1] })
    });
    o.common.finish(&serde_json::json!({
        "flow": result.collect::<Vec<_>>(), "lstm_error": of_lstm, "vanilla_error": of_vanilla,
        "bounds_kept": flows.iter().all(|f| f.bound_kept != Some(false)), "solved": of_lstm < 0.01 && of_vanilla > 0.1,
    }));
    Ok(())
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
        const BATCH: usize = 16;
        let states = if matches!(net, Net::Lstm(_)) { 2 * o.units } else { o.units };
        let mut program = Program::record("flow", |p| {
            let (x, nudge, along) = (p.sequence("x", 4), p.sequence("nudge", states), p.input("along", o.units));
            let run = p.scan("net", |s| net.step(s, s.at(x), o.units, Some(s.at(nudge))));
            p.minimize(run.last().inner(along).sum_rows());
        })?;
        let mut random = ChaCha8Rng::seed_from_u64(o.common.seed);
        let mut bell = || (0..12).map(|_| random.random_range(-0.5f32..0.5)).sum::<f32>();
        let x = Array3::from_shape_simple_fn((o.distance + 1, BATCH, 4), || 0.1 * bell());
        let along = Array2::from_shape_simple_fn((BATCH, o.units), &mut bell);
        let nudge = Array3::zeros((o.distance + 1, BATCH, states));
        let feed = Feed::new().f32("x", x.view()).f32("nudge", nudge.view()).f32("along", along.view());
        let mut trainer = program.trainer(Sgd::new(1.0)).clip_norm(1.0).seed(o.common.seed).compile()?;
        let before: Vec<_> = program.parameters.iter().map(|p| trainer.parameter(&p.name)).collect();
        let first = trainer.step(&feed)?.gradient_norm;
        let moved = program.parameters.iter().zip(before).filter_map(|(p, b)| Some(trainer.parameter(&p.name)? - b?));
        let step = moved.flatten().map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();

        let (objective, nudges) = (program.objective, program.input("nudge").map(|i| i.value));
        let (objective, nudges) = objective.zip(nudges).ok_or("the program has both")?;
        let by_nudge = gradient(&mut program.graph, objective, &[nudges])[0];
        program.outputs.push(("flow".to_string(), by_nudge));
        let mut session = Session::<f64>::new(&program, 1)?;
        session.initialise(o.common.seed)?;
        session.run(&feed)?;
        let flow = session.output("flow").ok_or("the program has it")?;
        // [distance][sample]
        let norm = |row: ndarray::ArrayViewD<f64>| row.iter().map(|x| x * x).sum::<f64>().sqrt();
        let norms: Vec<Vec<f64>> =
            flow.axis_iter(Axis(0)).rev().map(|step| step.axis_iter(Axis(0)).map(norm).collect()).collect();
        let bound_kept = session.parameter("net.w").map(|w| {
            let sigma = largest_singular_value(&w.into_dimensionality().expect("a matrix"));
            // A little room for rounding, of σ too.
            let bound = |d: usize, b: usize| (sigma * (1.0 + 1e-6)).powi(d as i32) * norms[0][b] * (1.0 + 1e-6);
            norms.iter().enumerate().all(|(d, row)| row.iter().enumerate().all(|(b, &n)| n <= bound(d, b)))
        });
        let norms = norms.iter().map(|row| row.iter().sum::<f64>() / BATCH as f64).collect();
        Ok(Flow { norms, bound_kept, steps: [first, step] })
    }
}

/// By power iteration on WᵀW.
fn largest_singular_value(w: &Array2<f64>) -> f64 {
    let mut v = ndarray::Array1::from_elem(w.ncols(), 1.0);
    for _ in 0..200 {
        let u = w.t().dot(&w.dot(&v));
        v = &u / u.dot(&u).sqrt();
    }
    let u = w.dot(&v);
    u.dot(&u).sqrt()
}

/// Training on the sum of two numbers among many, one marked in each half: (steps, squared error on new sequences).
/// Hochreiter & Schmidhuber (1997).
fn adds(net: Net, o: &Options, part: f64, stop: &AtomicBool) -> Result<Vec<(f64, f64)>> {
    let program = Program::record("adding", |p| {
        let (x, sum) = (p.sequence("x", 2), p.input("sum", 1));
        let run = p.scan("net", |s| net.step(s, s.at(x), o.units, None));
        p.minimize(p.affine("readout", run.last(), 1).mse(sum));
    })?;
    let trainer = program.trainer(Adam::new(if matches!(net, Net::Lstm(_)) { 1e-2 } else { 1e-3 })).clip_norm(1.0);
    let mut trainer = trainer.seed(o.common.seed).threads(o.common.threads()).compile()?;
    let mut random = ChaCha8Rng::seed_from_u64(o.common.seed);
    let length = o.length as usize;
    let mut task = |batch: usize| {
        let mut x =
            Array3::from_shape_fn((length, batch, 2), |(_, _, i)| if i == 0 { random.random::<f32>() } else { 0.0 });
        let sum = Array2::from_shape_fn((batch, 1), |(b, _)| {
            let marks = [0..length / 2, length / 2..length].map(|half| random.random_range(half));
            marks.iter().for_each(|&t| x[[t, b, 1]] = 1.0);
            marks.iter().map(|&t| x[[t, b, 0]]).sum()
        });
        (x, sum)
    };
    let (clock, progress, mut curve) = (o.common.clock(part, stop), Progress::start(), Vec::new());
    let new = task(256);
    loop {
        let over = clock.part() >= 1.0;
        if over || trainer.steps() % 25 == 0 {
            let error = trainer.evaluate(&Feed::new().f32("x", new.0.view()).f32("sum", new.1.view()))?;
            curve.push((trainer.steps() as f64, error));
            progress.show(clock.part(), &format!("{}: squared error {error:.4}", net.name()));
            // Well below what counts as solved.
            if over || error < 0.001 {
                return Ok(curve);
            }
        }
        let (x, sum) = task(32);
        trainer.step(&Feed::new().f32("x", x.view()).f32("sum", sum.view()))?;
    }
}
