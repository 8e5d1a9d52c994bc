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

use clap::{Parser, ValueEnum};
use common::course::Course;
use common::{Line, Result, study, within};
use ndarray::Array3;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retrograd::prelude::*;
use retrograd::runtime::session::Session;
use retrograd::runtime::stages::stages;

/// Shows all stages of a cell, from the recording to machine code, and measures it.
#[derive(Parser)]
#[command(name = "inspect")]
pub struct Options {
    #[command(flatten)]
    course: Course,
    #[arg(long, value_enum, default_value_t = study::Cell::Lstm)]
    cell: study::Cell,
    /// Features of each step
    #[arg(long, default_value_t = 64, value_parser = within(4096))]
    inputs: usize,
    #[arg(long, default_value_t = 128, value_parser = within(4096))]
    units: usize,
    /// Steps of each sequence
    #[arg(long, default_value_t = 50, value_parser = within(4096))]
    length: usize,
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
    common::main(run)
}

/// The whole job, until `stop` is raised at most. Results go to `out`.
fn run(o: &Options, stop: &AtomicBool, out: &mut dyn Write) -> Result<()> {
    common::make_directory_of(&o.drawings.join("file"))?;
    let stages = stages::<f32>(&program(o)?)?;
    for (name, text) in stages.texts() {
        let wanted = |s: &Stage| *s == Stage::All || s.to_possible_value().is_some_and(|v| v.get_name() == name);
        if o.show.iter().any(wanted) {
            // A pager may have been left early.
            writeln!(out, "======== {name}\n{text}\n")?;
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
        writeln!(out, "{name:>14}: {:8.2} ms", 1e3 * time.as_secs_f64())?;
    }
    let plan = &stages.compiled.plan;
    let code: usize = stages.kernels.iter().map(|k| k.code_size).sum();
    writeln!(out, "{:>14}: {} of {code} bytes", "kernels", stages.kernels.len())?;
    let sizes = Sizes::new(o.length, o.batch);
    let (flops, memory) = (plan.flops(&sizes), plan.memory(&sizes));
    writeln!(
        out,
        "predicted for {} steps of {} samples: {flops} flops of products, {memory} bytes",
        o.length, o.batch
    )?;

    // One thread, so that the share of peak is that of a core, unless the user wants more.
    let threads = o.course.threads.unwrap_or(1);
    let mut session = Session::<f32>::new(joint, threads)?;
    session.initialise(o.course.seed)?;
    let mut random = ChaCha8Rng::seed_from_u64(o.course.seed);
    let mut fill = |n| Array3::from_shape_simple_fn((o.length, o.batch, n), || random.random_range(-1.0f32..1.0));
    let (x, y) = (fill(o.inputs), fill(o.units));
    session.run(&Feed::new().f32("x", x.view()).f32("y", y.view()))?;
    let held = session.memory();
    let speed = study::measure(&mut session, flops as f64, threads, &o.course.clock_of_seconds(5.0, stop));
    let [[ms, gflops], [best_ms, best_gflops]] = speed.seconds.map(|s| [1e3 * s, flops as f64 / s / 1e9]);
    let peak = speed.peak / 1e9;
    writeln!(out, "measured: {ms:.3} ms a step ({gflops:.1} GFLOP/s), at best {best_ms:.3} ms")?;
    let share = best_gflops / peak;
    writeln!(out, "the best is {:.0} % of the peak of {threads} thread(s), {peak:.1} GFLOP/s", 100.0 * share)?;
    writeln!(out, "{held} bytes are held")?;
    let line = [Line { name: &joint.name, points: &speed.runs }];
    common::draw(&o.drawings.join("speed.svg"), "Speed of each run", ["run", "GFLOP/s"], &line)?;
    writeln!(out, "graphs and speed are drawn in {}", o.drawings.display())?;
    let times: serde_json::Map<String, serde_json::Value> =
        stages.times().iter().map(|(name, t)| (name.to_string(), (1e3 * t.as_secs_f64()).into())).collect();
    let result = serde_json::json!({
        "cell": joint.name, "flops": flops, "memory": memory, "memory_held": held, "ms": ms,
        "best_ms": best_ms, "gflops": gflops, "share_of_peak": share, "threads": threads, "kernels": stages.kernels.len(),
        "code_bytes": code, "compile_ms": times,
    });
    o.course.finish(out, &result)
}
