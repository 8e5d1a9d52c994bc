//! Shows every stage of a library cell on its way to machine code, what a training step costs by the plan, and how
//! fast it then is. All graphs and the plan are drawn, as DOT and as SVG, and each kernel is a file.
//!
//! ```sh
//! cargo run --release --example inspect
//! cargo run --release --example inspect -- --cell gru --units 8 --inputs 4 --show kernels
//! ```

pub mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::{Parser, ValueEnum};
use common::course::Course;
use common::{Line, Result, study, within};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use retrograd::prelude::*;
use retrograd::runtime::session::Session;
use retrograd::runtime::stages::stages_with;

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
    /// portable, avx2, avx512 or neon [default: the fastest that the machine has]
    #[arg(long, value_name = "SET")]
    instruction_set: Option<InstructionSet>,
    /// Which stages to print
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Stage::All])]
    show: Vec<Stage>,
    /// Where to put a directory for the cell, with its graphs and its plan as DOT and SVG, and its kernels as text
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

fn program(o: &Options, name: &str) -> Result<Program, RecordErrors> {
    Program::record(name, |p| {
        let (x, y) = (p.sequence("x", o.inputs), p.sequence("y", o.units));
        let told = o.cell.told(o.units).map(|(name, shape)| p.input(name, shape));
        let run = p.scan("cell", |s| o.cell.step(s, s.at(x), told, o.units));
        p.minimize(run.all().mse(y));
    })
}

fn main() -> ExitCode {
    common::main(run)
}

/// The whole job, until `stop` is raised at most. Results go to `out`.
fn run(o: &Options, stop: &AtomicBool, out: &mut dyn Write) -> Result<()> {
    let cell = o.cell.to_possible_value().ok_or("every cell is an option")?.get_name().replace('-', "_");
    let drawings = o.drawings.join(&cell);
    common::make_directory_of(&drawings.join("file"))?;
    let settings = o.instruction_set.into_iter().fold(Settings::new(), Settings::instruction_set);
    let stages = stages_with::<f32>(&program(o, &cell)?, settings)?;
    for (name, text) in stages.texts() {
        let wanted = |s: &Stage| *s == Stage::All || s.to_possible_value().is_some_and(|v| v.get_name() == name);
        if o.show.iter().any(wanted) {
            // A pager may have been left early.
            writeln!(out, "======== {name}\n{text}\n")?;
        }
    }
    let joint = stages.joint.as_ref().ok_or("a program that is trained has an objective")?;
    let plan = &stages.compiled.plan;
    for (name, program) in [("recorded", &stages.recorded), ("joint", joint), ("hoisted", &stages.hoisted)] {
        study::write(&drawings.join(format!("{name}.dot")), &program.to_dot())?;
        study::write(&drawings.join(format!("{name}.svg")), &program.to_svg())?;
    }
    study::write(&drawings.join("plan.dot"), &plan.to_dot())?;
    study::write(&drawings.join("plan.svg"), &plan.to_svg())?;
    study::write_kernels(&drawings.join("kernels"), &stages.kernels)?;
    for (name, time) in stages.times() {
        writeln!(out, "{name:>14}: {:8.2} ms", 1e3 * time.as_secs_f64())?;
    }
    let code: usize = stages.kernels.iter().map(|k| k.code_size).sum();
    writeln!(out, "{:>14}: {} of {code} bytes", "kernels", stages.kernels.len())?;
    let set = stages.compiled.instruction_set;
    writeln!(out, "{:>14}: {set}", "instructions")?;
    let sizes = Sizes::new(o.length, o.batch);
    let (flops, memory) = (plan.flops(&sizes), plan.memory(&sizes));

    // One thread, so that the share of peak is that of a core, unless the user wants more.
    let threads = o.course.threads.unwrap_or(1);
    let mut session = Session::<f32>::new(joint, settings.threads(threads))?;
    session.initialise(o.course.seed)?;
    let inputs = study::inputs(joint, &sizes, &mut ChaCha8Rng::seed_from_u64(o.course.seed));
    session.run(&inputs.iter().fold(Feed::new(), |feed, (name, values)| feed.f32(name, values.view())))?;
    let held = session.memory();
    let speed = study::measure(&mut session, flops as f64, threads, &o.course.clock_of_seconds(5.0, stop));
    let [[ms, gflops], [best_ms, best_gflops]] = speed.seconds.map(|s| [1e3 * s, flops as f64 / s / 1e9]);
    let peak = speed.machine.flops_per_second;
    writeln!(out, "predicted for {} steps of {} samples:", o.length, o.batch)?;
    let (least, phases) = study::show_cost(&plan.cost(&sizes), &speed.machine, out)?;
    let [predicted, share] = [least, speed.seconds[1]].map(|seconds| flops as f64 / seconds / peak);
    writeln!(out, "{flops} flops of products, {memory} bytes of memory; not in less than {:.3} ms,", 1e3 * least)?;
    let percent = 100.0 * predicted;
    writeln!(out, "{percent:.0} % of the peak of {threads} thread(s), which is {:.1} GFLOP/s", peak / 1e9)?;
    writeln!(out, "measured: {held} bytes of memory; {ms:.3} ms a step ({gflops:.1} GFLOP/s)")?;
    writeln!(out, "at best {best_ms:.3} ms ({best_gflops:.1} GFLOP/s), {:.0} % of the peak", 100.0 * share)?;
    let line = [Line { name: &joint.name, points: &speed.runs }];
    common::draw(&drawings.join("speed.svg"), "Speed of each run", ["run", "GFLOP/s"], &line)?;
    writeln!(out, "graphs, plan and speed are drawn in {}", drawings.display())?;
    let times: serde_json::Map<String, serde_json::Value> =
        stages.times().iter().map(|(name, t)| (name.to_string(), (1e3 * t.as_secs_f64()).into())).collect();
    let result = serde_json::json!({
        "cell": joint.name, "flops": flops, "memory": memory, "memory_held": held, "ms": ms,
        "best_ms": best_ms, "gflops": gflops, "share_of_peak": share,
        "predicted_share_of_peak": predicted, "phases": phases, "threads": threads, "kernels": stages.kernels.len(),
        "code_bytes": code, "compile_ms": times, "instruction_set": set.name(),
    });
    o.course.finish(out, &result)
}
