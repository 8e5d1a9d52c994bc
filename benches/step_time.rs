//! Time of a training step of library cells: forward over the whole sequence, backward from a given gradient of
//! every output, and the gradients of all weights, none of the input.
//!
//! `cargo bench --bench step_time -- [--json] [--threads N] [--seconds S] CELL,B,T,I,H ...` prints a line a size:
//! median and minimum in milliseconds, multiply-adds a second, and their share of the machine's peak, measured in
//! the same process by a loop of nothing but fused multiply-adds on registers. Weights are packed anew in each step,
//! as after an update.

use std::time::{Duration, Instant};

use clap::Parser;
use ndarray::Array3;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use retrograd::prelude::*;
use retrograd::runtime::feed::Feed;
use retrograd::runtime::gemm::Kernels;
use retrograd::runtime::session::Session;
use retrograd::{cells, compiler::ir::Sizes};

#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Threads of the team.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Time for each size.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Print the plan.
    #[arg(long)]
    plan: bool,
    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
    /// CELL,B,T,I,H with CELL one of RNN, GRU, LSTM, PEEPHOLE, LNLSTM, MGU, MINGRU.
    sizes: Vec<String>,
}

struct Size {
    cell: String,
    gates: usize,
    b: usize,
    t: usize,
    i: usize,
    h: usize,
}

impl Size {
    fn parse(text: &str) -> Option<Size> {
        let (cell, numbers) = text.split_once(',')?;
        let numbers: Vec<usize> = numbers.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let &[b, t, i, h] = &numbers[..] else { return None };
        let cell = cell.to_uppercase();
        let gates = match &cell[..] {
            "RNN" => 1,
            "MGU" | "MINGRU" => 2,
            "GRU" => 3,
            "LSTM" | "PEEPHOLE" | "LNLSTM" => 4,
            _ => return None,
        };
        (b.min(t).min(i).min(h) > 0).then_some(Size { cell, gates, b, t, i, h })
    }

    /// Multiply-adds of the mathematics, two flops each.
    fn flops(&self) -> f64 {
        let (b, t, i, h, g) = (self.b as f64, self.t as f64, self.i as f64, self.h as f64, self.gates as f64);
        if self.cell == "MINGRU" {
            return 4.0 * b * t * i * g * h;
        }
        4.0 * b * t * (i + h) * g * h + 2.0 * b * t * h * g * h
    }

    fn program(&self) -> Program {
        let recorded = Program::record(&self.cell, |p| {
            let (x, dy) = (p.sequence("x", self.i), p.sequence("dy", self.h));
            let run = p.scan("cell", |s| {
                let x = s.at(x);
                match &self.cell[..] {
                    "RNN" => cells::rnn(s, x, self.h),
                    "GRU" => cells::gru(s, x, self.h),
                    "LSTM" => cells::lstm(s, x, self.h),
                    "PEEPHOLE" => cells::peephole_lstm(s, x, self.h),
                    "LNLSTM" => cells::layer_norm_lstm(s, x, self.h),
                    "MGU" => cells::mgu(s, x, self.h),
                    _ => cells::min_gru(s, x, self.h),
                }
            });
            p.output("y", run.all());
            p.minimize((run.all() * dy).sum().sum_rows());
        });
        let joint = recorded.expect("library cells record").backward().expect("it has an objective");
        // The objective's value is nobody's business here, as with the peers.
        Program { objective: None, ..joint }
    }
}

fn main() {
    let options = Options::parse();
    let peak = Kernels::<f32>::detect().peak();
    for text in &options.sizes {
        let Some(size) = Size::parse(text) else {
            eprintln!("`{text}` is not CELL,B,T,I,H");
            std::process::exit(2);
        };
        measure(&options, &size, peak);
    }
}

fn measure(options: &Options, size: &Size, peak: f64) {
    let started = Instant::now();
    let program = size.program();
    let mut session = Session::<f32>::new(&program, options.threads).expect("it compiles here");
    let compile = started.elapsed();
    if options.plan {
        println!("{}", session.compiled().plan);
    }
    session.initialise(1).expect("initialisers fit");
    let mut rng = SmallRng::seed_from_u64(1);
    let mut random = |n| Array3::from_shape_simple_fn((size.t, size.b, n), || rng.random_range(-1.0f32..1.0));
    let (x, dy) = (random(size.i), random(size.h));
    session.run(&Feed::new().f32("x", x.view()).f32("dy", dy.view())).expect("inputs fit");
    let mut times: Vec<Duration> = Vec::new();
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    while Instant::now() < end || times.len() < 5 {
        session.touch_parameters();
        let started = Instant::now();
        session.advance();
        times.push(started.elapsed());
    }
    times.sort();
    session.measure();
    for _ in 0..times.len().min(20) {
        session.touch_parameters();
        session.advance();
    }
    let turns = times.len().min(20) as f64;
    let phases: serde_json::Map<String, serde_json::Value> =
        session.phases().into_iter().map(|(n, t)| (n, (t.as_secs_f64() * 1e3 / turns).into())).collect();
    let (median, min) = (times[times.len() / 2].as_secs_f64(), times[0].as_secs_f64());
    let gflops = size.flops() / median / 1e9;
    let memory = session.compiled().plan.memory(&Sizes::new(size.t, size.b));
    if options.json {
        let line = serde_json::json!({
            "who": "retrograd", "cell": size.cell, "B": size.b, "T": size.t, "I": size.i, "H": size.h,
            "threads": options.threads, "ms": median * 1e3, "min_ms": min * 1e3, "gflops": gflops,
            "peak_gflops": peak / 1e9, "share_of_peak": gflops * 1e9 / peak,
            "compile_ms": compile.as_secs_f64() * 1e3, "memory": memory, "phases": phases,
        });
        println!("{line}");
    } else {
        println!(
            "{:8} {:4},{:4},{:4},{:4}  {:9.3} ms  min {:9.3}  {:6.1} GFLOP/s  {:4.0} % of peak  compiled in {:.1} ms",
            size.cell,
            size.b,
            size.t,
            size.i,
            size.h,
            median * 1e3,
            min * 1e3,
            gflops,
            gflops * 1e11 / peak,
            compile.as_secs_f64() * 1e3,
        );
        let phases: Vec<String> =
            phases.iter().map(|(n, t)| format!("{n} {:.3}", t.as_f64().unwrap_or_default())).collect();
        println!("         {}", phases.join(", "));
    }
}
