//! A step takes the same time whatever its values.
//!
//! Work whose values decay, each on ordinary numbers and on such as decay to nothing, in turn: a training step with its loss
//! at the last of a thousand steps, an optimiser's update of embedding rows that no batch uses, a step of a stream that
//! is fed silence. `cargo bench --bench values -- [--seconds S] [NAME ..]` prints both times and their ratio, and ends with
//! an error if a ratio is above 1.1.

use std::time::{Duration, Instant};

use clap::Parser;
use ndarray::{Array2, Array3};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use retrograd::cells;
use retrograd::prelude::*;

#[derive(Parser)]
struct Options {
    /// Time for each row.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Rows, if not all.
    #[arg(value_parser = ROWS.map(|(name, _)| name))]
    rows: Vec<String>,
    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A piece of work; made with whether its values decay.
type Row = fn(bool) -> Box<dyn FnMut()>;

const ROWS: [(&str, Row); 5] = [
    ("lstm, loss at the last step", |decays| many_to_one(cells::lstm, decays)),
    ("gru, loss at the last step", |decays| many_to_one(cells::gru, decays)),
    ("adam, unused embedding rows", unused_rows),
    ("stream of a filter", filter),
    ("stream of an lstm", lstm_stream),
];

type Cell = for<'r> fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>;

/// Training at T = 1000, B = 16. The loss is of the last step's output; or, so that adjoints do not decay, of all.
fn many_to_one(cell: Cell, decays: bool) -> Box<dyn FnMut()> {
    let program = Program::record("net", |p| {
        let x = p.sequence("x", 16);
        let run = p.scan("cell", |s| cell(s, s.at(x), 128));
        // Either way there is a gradient of every step's output; of all but the last it is a zero.
        let weighted = run.all() * p.sequence("weight", 1);
        p.minimize(p.affine("readout", weighted, 4).square().mean_features().mean_rows());
    })
    .expect("library cells record");
    let mut trainer = program.trainer(Sgd::new(1e-6)).compile().expect("it compiles here");
    let mut rng = SmallRng::seed_from_u64(1);
    let x = Array3::from_shape_simple_fn((1000, 16, 16), || rng.random_range(-1.0f32..1.0));
    let weight = Array3::from_shape_fn((1000, 16, 1), |(t, _, _)| if decays && t < 999 { 0.0 } else { 1.0f32 });
    Box::new(move || {
        trainer.step(&Feed::new().f32("x", x.view()).f32("weight", weight.view())).expect("its sizes");
    })
}

/// 20,000 rows of 64, of which a batch uses 32. With moments that halve, those of the others are subnormal after 126 steps,
/// if there is anything to halve.
fn unused_rows(decays: bool) -> Box<dyn FnMut()> {
    let program = Program::record("rows", |p| {
        let words = p.embedding("words", p.labels("word"), 20_000, 64);
        p.minimize(words.square().mean_features().mean_rows());
    })
    .expect("no mistakes");
    let (first, second) = if decays { (0.9, 0.9) } else { (1.0 - 1e-7, 1.0 - 1e-7) };
    let mut trainer = program.trainer(Adam::new(1e-3).betas(first, second)).compile().expect("it compiles here");
    let mut step = move |from: i32, by: i32| {
        let words: Vec<i32> = (0..32).map(|i| from + i * by).collect();
        trainer.step(&Feed::new().i32_slice("word", &[32], &words)).expect("its size");
    };
    for from in 0..625 {
        step(from * 32, 1);
    }
    // From the moments of the first rows to those of the last, all are subnormal some of this time.
    Box::new(move || step(0, 1))
}

/// `y' = 0.9 y + 0.1 x`, 256 of them.
fn filter(decays: bool) -> Box<dyn FnMut()> {
    let program = Program::record("filter", |p| {
        let x = p.sequence("x", 256);
        let run = p.scan("filter", |s| {
            let y = s.state("y", 256);
            s.next(y, 0.9 * y + 0.1 * s.at(x))
        });
        p.output("y", run.all());
    });
    stream(program.expect("no mistakes"), 256, decays)
}

fn lstm_stream(decays: bool) -> Box<dyn FnMut()> {
    let program = Program::record("lstm", |p| {
        let x = p.sequence("x", 64);
        p.output("y", p.scan("lstm", |s| cells::lstm(s, s.at(x), 64)).all());
    });
    stream(program.expect("library cells record"), 64, decays)
}

/// A hundred steps of a stream, after noise; with more noise, or silence.
fn stream(program: Program, inputs: usize, decays: bool) -> Box<dyn FnMut()> {
    let mut stream = program.stream(1, 1).expect("it compiles here");
    let mut rng = SmallRng::seed_from_u64(1);
    let noise = Array2::from_shape_simple_fn((100, inputs), || rng.random_range(-1.0f32..1.0));
    let silence = Array2::zeros((100, inputs));
    let mut run = move |x: &Array2<f32>| {
        for x in x.rows() {
            stream.set_f32("x", x.as_slice().expect("dense")).expect("its size");
            stream.advance().expect("all is set");
        }
    };
    run(&noise);
    Box::new(move || run(if decays { &silence } else { &noise }))
}

fn main() {
    let options = Options::parse();
    let mut worst = 0.0f64;
    for (name, row) in ROWS.iter().filter(|(name, _)| options.rows.is_empty() || options.rows.iter().any(|r| r == name))
    {
        let mut works = [row(false), row(true)];
        let mut times = [Vec::new(), Vec::new()];
        // What decays takes a while to get there.
        let warm_up = Instant::now();
        for i in 0.. {
            works.iter_mut().for_each(|work| work());
            if i >= 10 && warm_up.elapsed().as_secs_f64() > options.seconds / 2.0 {
                break;
            }
        }
        let started = Instant::now();
        while started.elapsed().as_secs_f64() < options.seconds || times[0].len() < 5 {
            for (work, times) in works.iter_mut().zip(&mut times) {
                let started = Instant::now();
                work();
                times.push(started.elapsed());
            }
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1e3
        };
        let [normal, decaying] = times.each_mut().map(median);
        worst = worst.max(decaying / normal);
        println!(
            "{name:30} {normal:9.4} ms of ordinary numbers, {decaying:9.4} ms of decaying ones: {:.2}",
            decaying / normal
        );
    }
    if worst > 1.1 {
        eprintln!("values make a step {worst:.2} times as long");
        std::process::exit(1);
    }
}
