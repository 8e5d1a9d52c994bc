//! Shows every stage of a library cell on its way to machine code, what a training step costs by the plan, and how
//! fast it then is.
//!
//! ```sh
//! cargo run --release --example inspect
//! cargo run --release --example inspect -- --cell gru --units 8 --inputs 4 --show kernels
//! ```

pub mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use common::{Line, Progress, Result, study, within};
use ndarray::Array3;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retrograd::prelude::*;
use retrograd::runtime::feed::Feed;
use retrograd::runtime::session::Session;
use retrograd::runtime::stages::stages;

/// Shows all stages of a cell, from the recording to machine code, and measures it.
#[derive(Parser)]
#[command(name = "inspect")]
pub struct Options {
    #[command(flatten)]
    common: study::Options,
    #[arg(long, value_enum, default_value_t = study::Cell::Lstm)]
    cell: study::Cell,
    /// Features of each step
    #[arg(long, default_value_t = 64, value_parser = within(4096))]
    inputs: usize,
    #[arg(long, default_value_t = 128, value_parser = within(4096))]
    units: usize,
    #[arg(long, default_value_t = 50, value_parser = within(4096))]
    steps: usize,
    #[arg(long, default_value_t = 64, value_parser = within(4096))]
    batch: usize,
    /// Which stages to print
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Stage::All])]
    show: Vec<Stage>,
    /// Where to put each graph as a drawing for Graphviz, and as SVG where `dot` is installed
    #[arg(long, value_name = "DIRECTORY", default_value = "target/inspect")]
    drawings: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Stage {
    All,
    Recorded,
    Joint,
    Hoisted,
    Plan,
    Kernels,
    None,
}

fn program(o: &Options) -> Result<Program, RecordErrors> {
    let cell = o.cell.step();
    Program::record(format!("{:?}", o.cell).to_lowercase(), |p| {
        let (x, y) = (p.sequence("x", o.inputs), p.sequence("y", o.units));
        let run = p.scan("cell", |s| cell(s, s.at(x), o.units));
        p.minimize(run.all().mse(y));
    })
}

fn main() -> ExitCode {
    study::main(run)
}

fn run(o: &Options, stop: &AtomicBool) -> Result<()> {
    common::make_directory_of(&o.drawings.join("file"))?;
    let stages = stages::<f32>(&program(o)?)?;
    for (name, text) in stages.texts() {
        let wanted = |s: &Stage| *s == Stage::All || s.to_possible_value().is_some_and(|v| v.get_name() == name);
        if o.show.iter().any(wanted) {
            // A pager may have been left early.
            writeln!(std::io::stdout(), "======== {name}\n{text}\n")?;
        }
    }
    let joint = stages.joint.as_ref().ok_or("a program that is trained has an objective")?;
    for (name, program) in [("recorded", &stages.recorded), ("joint", joint), ("hoisted", &stages.hoisted)] {
        let file = o.drawings.join(format!("{name}.dot"));
        std::fs::write(&file, program.to_dot()).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
        // Whoever has no Graphviz has the text.
        let _ = Command::new("dot").arg("-Tsvg").arg(&file).arg("-o").arg(file.with_extension("svg")).status();
    }
    for (name, time) in stages.times() {
        println!("{name:>14}: {:8.2} ms", 1e3 * time.as_secs_f64());
    }
    let plan = &stages.compiled.plan;
    let code: usize = stages.kernels.iter().map(|k| k.code_size).sum();
    println!("{:>14}: {} of {code} bytes", "kernels", stages.kernels.len());
    let sizes = Sizes::new(o.steps, o.batch);
    let (flops, memory) = (plan.flops(&sizes), plan.memory(&sizes));
    println!("predicted for {} steps of {} samples: {flops} flops of products, {memory} bytes", o.steps, o.batch);

    let mut session = Session::<f32>::new(joint, o.common.threads())?;
    session.initialise(o.common.seed)?;
    let mut random = ChaCha8Rng::seed_from_u64(o.common.seed);
    let mut fill = |n| Array3::from_shape_simple_fn((o.steps, o.batch, n), || random.random_range(-1.0f32..1.0));
    let (x, y) = (fill(o.inputs), fill(o.units));
    session.run(&Feed::new().f32("x", x.view()).f32("y", y.view()))?;
    let held = session.memory();
    // Peak and program by turns, so that whatever else the machine does slows both.
    let (clock, progress) = (o.common.clock(0.1, stop), Progress::start());
    let (mut times, mut shares, mut peak) = (Vec::new(), Vec::new(), 0.0f64);
    while clock.part() < 1.0 || times.is_empty() {
        let now = study::peak_of_one_core() * o.common.threads() as f64;
        session.touch_parameters();
        let begun = Instant::now();
        session.advance();
        times.push(begun.elapsed().as_secs_f64());
        let speed = flops as f64 / times[times.len() - 1];
        peak = peak.max(now);
        shares.push((times.len() as f64, speed / 1e9));
        progress.show(clock.part(), &format!("{:.1} GFLOP/s", speed / 1e9));
    }
    drop(progress);
    times.sort_by(f64::total_cmp);
    let (median, best) = (times[times.len() / 2], times[0]);
    let (speed, share) = (flops as f64 / median, flops as f64 / best / peak);
    println!("measured: {:.3} ms a step ({:.1} GFLOP/s), at best {:.3} ms", 1e3 * median, speed / 1e9, 1e3 * best);
    println!("the best is {:.0} % of the peak of {:.1} GFLOP/s; {held} bytes are held", 100.0 * share, peak / 1e9);
    let picture = o.drawings.join("speed.svg");
    let line = [Line { name: &joint.name, points: &shares }];
    common::draw(&picture, "Speed of each run", ["run", "GFLOP/s"], &line)?;
    println!("graphs and speed are drawn in {}", o.drawings.display());
    let times: serde_json::Map<String, serde_json::Value> =
        stages.times().iter().map(|(name, t)| (name.to_string(), (1e3 * t.as_secs_f64()).into())).collect();
    o.common.finish(&serde_json::json!({
        "cell": joint.name, "flops": flops, "memory": memory, "memory_held": held, "ms": 1e3 * median,
        "best_ms": 1e3 * best, "gflops": speed / 1e9, "share_of_peak": share, "kernels": stages.kernels.len(),
        "code_bytes": code, "compile_ms": times,
    }));
    Ok(())
}
