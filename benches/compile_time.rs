//! From recording to ready to train, for each library cell at 512 units: median and least of several compiles.
//!
//! `cargo bench --bench compile_time -- [--units N] [--layers N] [--repeat N] [CELL ..]`. Nothing depends on how long
//! sequences are or how large batches: neither is known when compiling.
//!
//! `-- --growth` compiles training of an LSTM over a list of 100 to 784 steps (`static_rnn`), and prints how long each stage
//! takes: time grows with the number of steps, not faster.

use std::time::Instant;

use clap::Parser;
use retrograd::cells;
use retrograd::prelude::*;
use retrograd::runtime::optimizer::Adam;
use retrograd::runtime::train::Training;

#[derive(Parser)]
struct Options {
    /// Units of each layer.
    #[arg(long, default_value_t = 512)]
    units: usize,
    /// Layers, each in a scope of its own.
    #[arg(long, default_value_t = 1)]
    layers: usize,
    /// Compiles of each cell.
    #[arg(long, default_value_t = 7)]
    repeat: usize,
    /// Programs that are written out step by step, of more and more steps.
    #[arg(long)]
    growth: bool,
    /// Cells, if not all.
    #[arg(value_parser = CELLS.map(|(name, _)| name))]
    cells: Vec<String>,
    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

type Cell = for<'r> fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>;

/// The library's cells of one recipe.
const CELLS: [(&str, Cell); 8] = [
    ("rnn", cells::rnn),
    ("rnn_split", cells::rnn_split),
    ("lstm", cells::lstm),
    ("gru", cells::gru),
    ("peephole_lstm", cells::peephole_lstm),
    ("layer_norm_lstm", cells::layer_norm_lstm),
    ("mgu", cells::mgu),
    ("min_gru", cells::min_gru),
];

/// Training of an LSTM of 32 units over lists of inputs.
fn growth() {
    for steps in [100, 200, 400, 784] {
        let started = Instant::now();
        let program = Program::record("static", |p| {
            let inputs: Vec<Expr> = (0..steps).map(|t| p.input(&format!("x{t}"), 4)).collect();
            let run = p.static_rnn("cell", &inputs, |s, x| cells::lstm(s, x, 32));
            p.minimize(p.affine("readout", run.last(), 10).cross_entropy(p.labels("label")));
        });
        let program = program.expect("library cells record");
        let recorded = started.elapsed().as_secs_f64() * 1e3;
        let trainer = program.trainer(Adam::new(1e-3)).compile().expect("it compiles here");
        let total = started.elapsed().as_secs_f64() * 1e3;
        let stages = trainer.compile_times().iter();
        let stages: Vec<String> = stages.map(|(what, t)| format!("{what} {:.1}", t.as_secs_f64() * 1e3)).collect();
        let each = total / f64::from(steps);
        println!("{steps:4} steps {total:8.1} ms, {each:.2} each   (record {recorded:.1}, {})", stages.join(", "));
    }
}

fn main() {
    let options = Options::parse();
    if options.growth {
        return growth();
    }
    let wanted = |name: &str| options.cells.is_empty() || options.cells.iter().any(|cell| cell == name);
    for (name, cell) in CELLS.into_iter().filter(|(name, _)| wanted(name)) {
        let mut times = Vec::new();
        let mut stages = String::new();
        for _ in 0..options.repeat.max(1) {
            let started = Instant::now();
            let program = Program::record(name, |p| {
                let (x, target) = (p.sequence("x", options.units), p.labels_sequence("target"));
                let run = p.scan("net", |s| {
                    (0..options.layers).fold(s.at(x), |below, layer| {
                        s.scope(&format!("layer{layer}"), |s| cell(s, below, options.units))
                    })
                });
                p.minimize(p.affine("readout", run.all(), 64).cross_entropy(target));
            });
            let program = program.expect("library cells record");
            let trainer = program.trainer(Adam::new(1e-3)).clip_norm(5.0).compile().expect("it compiles here");
            times.push(started.elapsed());
            let texts: Vec<String> = trainer
                .compile_times()
                .iter()
                .map(|(stage, t)| format!("{stage} {:.1}", t.as_secs_f64() * 1e3))
                .collect();
            stages = texts.join(", ");
        }
        times.sort();
        let [median, least] = [times[times.len() / 2], times[0]].map(|t| t.as_secs_f64() * 1e3);
        println!("{name:16} {median:7.1} ms, least {least:.1}   ({stages})");
    }
}
