//! Time of a training step of library cells: forward over the whole sequence, backward from a given gradient of
//! every output, and the gradients of all weights, none of the input. Or, with `--mode infer`, of the forward pass alone;
//! with `--mode stream`, of one step at a time, its input copied in and its output out.
//!
//! With `--shape many-to-one` the gradient is given of the last step's output only: over a long sequence the adjoint decays
//! to nothing. `--values` says what is computed with: `normal` numbers; `silence`, an input at the first step, a gradient of
//! the last one's output, and zeros between them, so that states and adjoints decay; or `tiny` numbers, most of whose
//! products are subnormal. A step should take the same time for all of them.
//!
//! `cargo bench --bench step_time -- [--json] [--threads N] [--instruction-set SET] [--seconds S] [--mode M] [--shape S]
//! [--values V] CELL,B,T,I,H ...` prints a line a
//! size: median and minimum in milliseconds, multiply-adds a second, and their share of the machine's peak, measured in
//! the same process, between runs, by a loop of nothing but fused multiply-adds on registers; then the time of each phase, and in brackets
//! the time below which this machine cannot do it, by its peak and by how fast it reads so many bytes. Bounds are for one
//! thread. In training, weights are packed anew in each step, as after an update.

use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use ndarray::{Array3, Axis};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use retrograd::prelude::*;
use retrograd::runtime::feed::Feed;
use retrograd::runtime::gemm::Kernels;
use retrograd::runtime::machine::read_rates;
use retrograd::runtime::session::{Session, Sharing};
use retrograd::{cells, compiler::ir::Sizes, compiler::plan::Machine};

#[derive(Clone, Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Threads of the team.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// portable, avx2, avx512 or neon; the fastest that the machine has if it is not said.
    #[arg(long)]
    instruction_set: Option<InstructionSet>,
    /// How they share the work; streams always choose for themselves.
    #[arg(long, value_enum, default_value_t = Share::Auto)]
    share: Share,
    /// Time for each size.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// What is measured.
    #[arg(long, value_enum, default_value_t = Mode::Train)]
    mode: Mode,
    /// At which steps the output's gradient is given.
    #[arg(long, value_enum, default_value_t = Shape::ManyToMany)]
    shape: Shape,
    /// What is computed with.
    #[arg(long, value_enum, default_value_t = Values::Normal)]
    values: Values,
    /// Print the plan.
    #[arg(long)]
    plan: bool,
    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
    /// CELL,B,T,I,H with CELL one of RNN, GRU, LSTM, LSTM2 (two layers), PEEPHOLE, LNLSTM, MGU, MINGRU.
    sizes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Forward, backward, gradients of the weights.
    Train,
    /// Forward over the whole sequence.
    Infer,
    /// One step at a time.
    Stream,
}

impl Options {
    fn settings(&self) -> Settings {
        let settings = Settings::new().threads(self.threads);
        self.instruction_set.into_iter().fold(settings, Settings::instruction_set)
    }

    fn set(&self) -> InstructionSet {
        self.settings().chosen_instruction_set().expect("it was asked for at the start")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// At all steps.
    ManyToMany,
    /// At the last step.
    ManyToOne,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Values {
    /// Between −1 and 1.
    Normal,
    /// The same at one step, and zero at all others.
    Silence,
    /// Between −1e-37 and 1e-37.
    Tiny,
}

/// See [`Sharing`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Share {
    Auto,
    Rows,
    Features,
}

impl From<Share> for Sharing {
    fn from(share: Share) -> Sharing {
        match share {
            Share::Auto => Sharing::Auto,
            Share::Rows => Sharing::Rows,
            Share::Features => Sharing::Features,
        }
    }
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
            "LSTM" | "LSTM2" | "PEEPHOLE" | "LNLSTM" => 4,
            _ => return None,
        };
        (b.min(t).min(i).min(h) > 0).then_some(Size { cell, gates, b, t, i, h })
    }

    /// Multiply-adds of the mathematics, two flops each: of a whole training step, of all forward steps, of one.
    fn flops(&self, mode: Mode) -> f64 {
        let (b, h, gates) = (self.b as f64, self.h as f64, self.gates as f64);
        let t = if mode == Mode::Stream { 1.0 } else { self.t as f64 };
        let layer = |inputs: f64, is_first: bool| {
            let recurrent = if self.cell == "MINGRU" { 0.0 } else { h };
            let forward = 2.0 * b * t * (inputs + recurrent) * gates * h;
            // Backward: the adjoint of the state, that of the input except at the bottom, and the weights' gradients.
            let below = if is_first { 0.0 } else { inputs };
            let backward = forward + 2.0 * b * t * (recurrent + below) * gates * h;
            if mode == Mode::Train { forward + backward } else { forward }
        };
        let first = layer(self.i as f64, true);
        if self.cell == "LSTM2" { first + layer(h, false) } else { first }
    }

    fn program(&self, mode: Mode, shape: Shape) -> Program {
        let recorded = Program::record(&self.cell, |p| {
            let x = p.sequence("x", self.i);
            let run = p.scan("cell", |s| {
                let x = s.at(x);
                match &self.cell[..] {
                    "RNN" => cells::rnn(s, x, self.h),
                    "GRU" => cells::gru(s, x, self.h),
                    "LSTM" => cells::lstm(s, x, self.h),
                    "LSTM2" => cells::stacked(s, x, &[(&cells::lstm, self.h), (&cells::lstm, self.h)]),
                    "PEEPHOLE" => cells::peephole_lstm(s, x, self.h),
                    "LNLSTM" => cells::layer_norm_lstm(s, x, self.h),
                    "MGU" => cells::mgu(s, x, self.h),
                    _ => cells::min_gru(s, x, self.h),
                }
            });
            match shape {
                Shape::ManyToMany => p.output("y", run.all()),
                Shape::ManyToOne => p.output("y", run.last()),
            }
            match shape {
                _ if mode != Mode::Train => {}
                Shape::ManyToMany => p.minimize((run.all() * p.sequence("dy", self.h)).sum().sum_rows()),
                Shape::ManyToOne => p.minimize((run.last() * p.input("dy", self.h)).sum().sum_rows()),
            }
        });
        let recorded = recorded.expect("library cells record");
        if mode != Mode::Train {
            return recorded;
        }
        // The objective's value is nobody's business here, as with the peers.
        recorded.backward().expect("it has an objective").without_objective()
    }

    /// Values of so many features; of a silent sequence all but those of the step `loud` are zero.
    fn values(&self, values: Values, features: usize, loud: usize) -> Array3<f32> {
        let mut rng = SmallRng::seed_from_u64(1);
        Array3::from_shape_fn((self.t, self.b, features), |(t, _, _)| match (rng.random_range(-1.0f32..1.0), values) {
            (x, Values::Normal) => x,
            (x, Values::Silence) => {
                if t == loud {
                    x
                } else {
                    0.0
                }
            }
            (x, Values::Tiny) => 1e-37 * x,
        })
    }
}

/// Times of the same work again and again, sorted, for a while, five at least; and the median of the machine's peak
/// between them, so that both are of the same moments.
fn repeat(seconds: f64, set: InstructionSet, mut work: impl FnMut() -> Duration) -> (Vec<Duration>, f64) {
    let kernels = Kernels::<f32>::of(set).expect("programs are compiled for it");
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let (mut times, mut peaks) = (Vec::new(), Vec::new());
    while Instant::now() < end || times.len() < 5 {
        times.push(work());
        peaks.push(kernels.peak_now());
    }
    times.sort();
    peaks.sort_by(f64::total_cmp);
    (times, peaks[peaks.len() / 2])
}

fn main() {
    let options = Options::parse();
    if let Err(e) = options.settings().chosen_instruction_set() {
        eprintln!("{e}");
        std::process::exit(2);
    }
    if !options.json {
        println!("instruction set: {}", options.set());
    }
    let rates = read_rates();
    // What the process loads for its first compile and its first run is not the work's, as with the peers.
    let first = Size::parse("LSTM,2,2,8,8").expect("a size");
    whole_sequences(&Options { seconds: 0.0, mode: Mode::Train, plan: false, ..options.clone() }, &first, &rates);
    for text in &options.sizes {
        let Some(size) = Size::parse(text) else {
            eprintln!("`{text}` is not CELL,B,T,I,H");
            std::process::exit(2);
        };
        measure(&options, &size, &rates);
    }
}

/// Bytes of memory that this process has (`VmRSS`) or had at most (`VmHWM`), where the system says so.
fn resident(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(what));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Lets `VmHWM` begin anew; what the process has by now.
fn forget_peak() -> u64 {
    // Where that cannot be asked for, the peak is that of all sizes so far.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    resident("VmRSS")
}

/// What was found of one size.
struct Found {
    times: Vec<Duration>,
    peak: f64,
    compile: Duration,
    memory: usize,
    /// Name, measured milliseconds, and the milliseconds below which this machine cannot do it.
    phases: Vec<(String, f64, f64)>,
}

fn whole_sequences(options: &Options, size: &Size, rates: &[(usize, f64)]) -> Found {
    let started = Instant::now();
    let program = size.program(options.mode, options.shape);
    let mut session = Session::<f32>::new(&program, options.settings()).expect("it compiles here");
    let compile = started.elapsed();
    session.share(options.share.into());
    if options.plan {
        println!("{}", session.compiled().plan);
    }
    session.initialise(1).expect("initialisers fit");
    let last = size.t - 1;
    let (x, dy) = (size.values(options.values, size.i, 0), size.values(options.values, size.h, last));
    let feed = Feed::new().f32("x", x.view());
    let feed = match options.shape {
        _ if options.mode != Mode::Train => feed,
        Shape::ManyToMany => feed.f32("dy", dy.view()),
        Shape::ManyToOne => feed.f32("dy", dy.index_axis(Axis(0), last)),
    };
    session.run(&feed).expect("inputs fit");
    let mut run = || {
        if options.mode == Mode::Train {
            session.touch_parameters();
        }
        let started = Instant::now();
        session.advance();
        started.elapsed()
    };
    let (times, peak) = repeat(options.seconds, options.set(), &mut run);
    let turns = times.len().min(20);
    session.measure();
    for _ in 0..turns {
        if options.mode == Mode::Train {
            session.touch_parameters();
        }
        session.advance();
    }
    let sizes = Sizes::new(size.t, size.b);
    let plan = &session.compiled().plan;
    let machine = Machine { flops_per_second: peak, bytes_per_second: rates.to_vec() };
    let phases = session.phases().into_iter().zip(plan.cost(&sizes)).map(|((name, measured), cost)| {
        assert_eq!(name, cost.name, "phases are those of the plan");
        (name, measured.as_secs_f64() * 1e3 / turns as f64, cost.bound(&machine).0 * 1e3)
    });
    let (phases, memory) = (phases.collect(), plan.memory(&sizes));
    Found { times, peak, compile, memory, phases }
}

/// One step at a time: the time of each, from that of a few hundred together.
fn steps(options: &Options, size: &Size) -> Found {
    let started = Instant::now();
    let program = size.program(options.mode, Shape::ManyToMany);
    let mut stream = program.stream_with(size.b, 1, options.settings()).expect("it compiles here");
    let compile = started.elapsed();
    if options.plan {
        println!("{}", stream.session().compiled().plan);
    }
    let x = size.values(options.values, size.i, 0);
    let x = x.as_slice().expect("dense");
    let mut y = vec![0.0; size.b * size.h];
    let (turns, mut t) = (500, 0);
    let (times, peak) = repeat(options.seconds, options.set(), || {
        let started = Instant::now();
        for _ in 0..turns {
            // The input begins again when it is over; silence lasts.
            let row = if options.values == Values::Silence { t.min(size.t - 1) } else { t % size.t };
            t += 1;
            let row = row * size.b * size.i;
            stream.set_f32("x", &x[row..row + size.b * size.i]).expect("its size");
            stream.advance().expect("all inputs are set");
            stream.get_f32("y", &mut y).expect("its size");
        }
        started.elapsed() / turns as u32
    });
    let memory = stream.session().memory();
    Found { times, peak, compile, memory, phases: Vec::new() }
}

/// What a choice is called on the command line.
fn name_of(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map_or(String::new(), |value| value.get_name().to_string())
}

fn measure(options: &Options, size: &Size, rates: &[(usize, f64)]) {
    let before = forget_peak();
    let found = match options.mode {
        Mode::Stream => steps(options, size),
        _ => whole_sequences(options, size, rates),
    };
    let grown = resident("VmHWM").saturating_sub(before);
    let peak = found.peak;
    let times = &found.times;
    let (median, min) = (times[times.len() / 2].as_secs_f64(), times[0].as_secs_f64());
    let gflops = size.flops(options.mode) / median / 1e9;
    let compile_ms = found.compile.as_secs_f64() * 1e3;
    if options.json {
        let by_name = |at: fn(&(String, f64, f64)) -> f64| {
            found.phases.iter().map(|phase| (phase.0.clone(), at(phase).into())).collect::<serde_json::Map<_, _>>()
        };
        let line = serde_json::json!({
            "who": "retrograd", "mode": format!("{:?}", options.mode).to_lowercase(),
            "shape": name_of(options.shape), "values": name_of(options.values),
            "cell": size.cell, "B": size.b, "T": size.t, "I": size.i, "H": size.h,
            "threads": options.threads, "instruction_set": options.set().name(), "ms": median * 1e3, "min_ms": min * 1e3, "gflops": gflops,
            "peak_gflops": peak / 1e9, "share_of_peak": gflops * 1e9 / peak,
            "compile_ms": compile_ms, "memory": found.memory, "grown": grown,
            "phases": by_name(|phase| phase.1), "bounds": by_name(|phase| phase.2),
        });
        println!("{line}");
        return;
    }
    println!(
        "{:8} {:4},{:4},{:4},{:4}  {:9.4} ms  min {:9.4}  {:6.1} GFLOP/s  {:4.0} % of peak  compiled in {compile_ms:.1} ms",
        size.cell,
        size.b,
        size.t,
        size.i,
        size.h,
        median * 1e3,
        min * 1e3,
        gflops,
        gflops * 1e11 / peak,
    );
    let phases: Vec<String> =
        found.phases.iter().map(|(name, ms, bound)| format!("{name} {ms:.3} (≥ {bound:.3})")).collect();
    if !phases.is_empty() {
        println!("         {}", phases.join(", "));
    }
}
