//! A cell of one's own in ten lines, and all that one gets for it: its gradient as a graph, a plan, machine code,
//! checks, and speed.
//!
//! ```sh
//! cargo run --release --example custom_cell
//! ```
//!
//! To make another cell, change [`mine`]; its tests are in `tests/custom_cell.rs`.

pub mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::Parser;
use common::course::Course;
use common::{Line, Progress, Result, study, within};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retrograd::prelude::*;
use retrograd::runtime::session::Session;
use retrograd::{cells, testing};

/// One gate that blends, and a candidate in which what is read multiplies what is remembered:
/// z = σ([h; x]·W + b), n = tanh((x·A)⊙(h·U) + x·C + d), h' = z⊙h + (1 − z)⊙n.
pub fn mine<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let h = s.state("h", units);
    let z = s.affine("gate", concat([h, x]), units).sigmoid();
    let [a, c] = s.affine("x", x, 2 * units).split();
    let n = (a * s.linear("h", h, units) + c).tanh();
    s.next(h, z * h + (1.0 - z) * n)
}

/// How many steps ago the symbol was read that is to be said.
const DELAY: usize = 5;
const SYMBOLS: usize = 8;
/// Time and batch.
const SHAPE: [usize; 2] = [50, 32];

/// A net with this cell that says at each step which of the symbols it read [`DELAY`] steps ago.
pub fn study(name: &str, cell: study::CellFn, [symbols, inputs, units]: [usize; 3]) -> Result<Program, RecordErrors> {
    Program::record(name, |p| {
        let (read, said) = (p.labels_sequence("read"), p.labels_sequence("said")); // i32[T, B]
        let x = p.embedding("symbols", read, symbols, inputs);
        let run = p.scan(name, |s| cell(s, s.at(x), units));
        let logits = p.affine("readout", run.all(), symbols);
        p.output("right", logits.accuracy(said).mean_rows());
        p.minimize(logits.cross_entropy(said));
    })
}

/// Prints, checks, trains and measures a cell of one's own beside the library's LSTM.
#[derive(Parser)]
#[command(name = "custom_cell")]
pub struct Options {
    #[command(flatten)]
    course: Course,
    /// Units of each cell
    #[arg(long, default_value_t = 128, value_parser = within(4096))]
    units: usize,
    /// Where to draw the loss curves
    #[arg(long, value_name = "FILE.svg", default_value = "target/custom_cell.svg")]
    curve: PathBuf,
}

fn main() -> ExitCode {
    common::main(run)
}

/// A cell in training.
struct Run {
    trainer: Trainer,
    curve: Vec<(f64, f64)>,
    milliseconds: Vec<f64>,
}

/// The whole job, until `stop` is raised at most. Results go to `out`.
fn run(o: &Options, stop: &AtomicBool, out: &mut dyn Write) -> Result<()> {
    common::make_directory_of(&o.curve)?;
    // The texts are those of a small size: only their numbers depend on it.
    let small = study("mine", mine, [4, 2, 3])?;
    writeln!(out, "---- what was recorded\n{small}\n\n---- with its gradient\n{}", small.backward()?)?;
    writeln!(out, "\n---- the plan\n{}", Session::<f32>::new(&small.backward()?, 1)?.compiled().plan)?;
    writeln!(out, "\n---- its tests\n{}", include_str!("../tests/custom_cell.rs"))?;
    let sizes = Sizes::new(7, 3);
    testing::check_engines(&small, &sizes)?;
    let checked = testing::check_gradients(&small, &sizes)?;
    let (elements, of, worst) = (checked.elements, checked.of, &checked.worst);
    let checked = format!("{elements} of {of} elements, as generated code has them in 64 bits");
    writeln!(out, "gradients: {checked}, agree with dual numbers;")?;
    writeln!(out, "the worst one, {}[{}], has a relative error of {:.1e}", worst.name, worst.index, worst.error())?;

    let mut runs = Vec::new();
    for (name, cell) in [("mine", mine as study::CellFn), ("lstm", cells::lstm)] {
        let program = study(name, cell, [SYMBOLS, 32, o.units])?;
        let trainer = program.trainer(Adam::new(3e-3)).clip_norm(1.0).seed(o.course.seed).threads(o.course.threads());
        runs.push(Run { trainer: trainer.compile()?, curve: Vec::new(), milliseconds: Vec::new() });
    }
    let (clock, progress) = (o.course.clock(1200, 1.0, stop), Progress::start());
    let mut random = ChaCha8Rng::seed_from_u64(o.course.seed);
    let mut batch = || -> [Vec<i32>; 2] {
        let read: Vec<i32> = (0..SHAPE[0] * SHAPE[1]).map(|_| random.random_range(0..SYMBOLS as i32)).collect();
        // Before there is anything to say, symbol 0.
        let said = (0..read.len()).map(|i| i.checked_sub(DELAY * SHAPE[1]).map_or(0, |i| read[i])).collect();
        [read, said]
    };
    while clock.part(runs[1].curve.len()) < 1.0 || runs[1].curve.is_empty() {
        let [read, said] = batch();
        let feed = Feed::new().i32_slice("read", &SHAPE, &read).i32_slice("said", &SHAPE, &said);
        // Both on the same batch, by turns, so that whatever else the machine does slows both.
        for run in &mut runs {
            let begun = Instant::now();
            let loss = run.trainer.step(&feed)?.loss;
            run.milliseconds.push(1e3 * begun.elapsed().as_secs_f64());
            run.curve.push((run.trainer.steps() as f64, loss));
        }
        let [mine, lstm] = [0, 1].map(|i: usize| runs[i].curve.last().map_or(f64::NAN, |p| p.1));
        progress.show(clock.part(runs[1].curve.len()), &format!("loss {mine:.3}, LSTM {lstm:.3}"));
    }
    drop(progress);

    let [read, said] = batch();
    let feed = Feed::new().i32_slice("read", &SHAPE, &read).i32_slice("said", &SHAPE, &said);
    let mut result = serde_json::json!({ "gradient_error": worst.error(), "elements": elements });
    for run in &mut runs {
        run.trainer.evaluate(&feed)?;
        let right = run.trainer.evaluated("right").map_or(f64::NAN, |x| f64::from(x.sum()));
        run.milliseconds.sort_by(f64::total_cmp);
        let (name, median) = (run.trainer.program().name.clone(), run.milliseconds[run.milliseconds.len() / 2]);
        let (plan, steps) = (&run.trainer.session().compiled().plan, run.trainer.steps());
        let flops = plan.flops(&Sizes::new(SHAPE[0], SHAPE[1]));
        let speed = format!("{median:.2} ms a step, {:.1} GFLOP/s", flops as f64 / median / 1e6);
        writeln!(out, "{name}: {steps} steps, {:.1} % right; {speed}", 100.0 * right)?;
        result[&name] = serde_json::json!({ "right": right, "ms": median, "flops": flops, "steps": steps });
    }
    let [mine, lstm] = ["mine", "lstm"].map(|name| result[name]["ms"].as_f64().unwrap_or(f64::NAN));
    writeln!(out, "a step of mine takes {:.2} of the LSTM's time (curves in {})", mine / lstm, o.curve.display())?;
    result["time_ratio"] = (mine / lstm).into();
    let lines = [0, 1].map(|i| Line { name: ["mine", "LSTM"][i], points: &runs[i].curve });
    common::draw(&o.curve, &format!("Saying what was read {DELAY} steps ago"), ["steps", "loss"], &lines)?;
    o.course.finish(out, &result)
}
