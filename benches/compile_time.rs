//! From recording to ready to train, for each library cell at 512 units: median and least of several compiles.
//!
//! `cargo bench --bench compile_time -- [--units N] [--layers N] [--repeat N] [CELL ..]`. Nothing depends on how long
//! sequences are or how large batches: neither is known when compiling.
//!
//! `-- --growth [SHAPE ..]` compiles training of programs that have more and more of something, an LSTM over a list of 100 to
//! 1568 steps (`list`) to begin with, and prints how long each stage takes. Time grows with the number of nodes, not faster:
//! the time each is printed beside it.

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
    /// Larger and larger programs.
    #[arg(long)]
    growth: bool,
    /// Cells, or shapes of large programs, if not all.
    names: Vec<String>,
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

fn mean_square<'r>(x: Expr<'r>) -> Expr<'r> {
    x.square().mean_features().mean_rows()
}

/// What grows, of what size, and how a program with so much of it is recorded.
type Growing = (&'static str, [usize; 5], fn(&Recorder, usize));

const SHAPES: [Growing; 9] = [
    // An LSTM over a list of inputs, with a loss at the last step.
    ("list", [100, 200, 400, 784, 1568], |p, n| {
        let inputs: Vec<Expr> = (0..n).map(|t| p.input(&format!("x{t}"), 4)).collect();
        let run = p.static_rnn("cell", &inputs, |s, x| cells::lstm(s, x, 32));
        p.minimize(p.affine("readout", run.last(), 10).cross_entropy(p.labels("label")));
    }),
    // With a loss at every step.
    ("list_all", [100, 200, 400, 784, 1568], |p, n| {
        let inputs: Vec<Expr> = (0..n).map(|t| p.input(&format!("x{t}"), 4)).collect();
        let run = p.static_rnn("cell", &inputs, |s, x| cells::lstm(s, x, 32));
        let losses = run.all().iter().map(|&h| mean_square(h));
        p.minimize(losses.reduce(|a, b| a + b).expect("steps"));
    }),
    // An LSTM written out in plain Rust, on slices of one input.
    ("unrolled", [100, 200, 400, 800, 1600], |p, n| {
        let x = p.input("x", 4 * n);
        let w = p.parameter("w", [36, 128], Init::Glorot);
        let (mut h, mut c) = (p.input("h", 32), p.input("c", 32));
        for t in 0..n {
            let [i, f, o, g] = concat([x.slice(4 * t..4 * t + 4), h]).dot(w).split();
            c = f.sigmoid() * c + i.sigmoid() * g.tanh();
            h = o.sigmoid() * c.tanh();
        }
        p.minimize(mean_square(h));
    }),
    // Linear layers, each with parameters of its own.
    ("layers", [100, 200, 400, 800, 1600], |p, n| {
        let layer = |x, i: usize| p.scope(&format!("layer{i}"), |p| p.affine("dense", x, 16).tanh() + x);
        p.minimize(mean_square((0..n).fold(p.input("x", 16), layer)));
    }),
    // The same in a loop.
    ("deep_cell", [25, 50, 100, 200, 400], |p, n| {
        let x = p.sequence("x", 16);
        let run =
            p.scan("net", |s| (0..n).fold(s.at(x), |x, i| s.scope(&format!("layer{i}"), |s| cells::rnn(s, x, 16))));
        p.minimize(mean_square(run.all()));
    }),
    // Parameters of one length each of which scales a feature of its own.
    ("parameters", [250, 500, 1000, 2000, 4000], |p, n| {
        let x = p.input("x", 8);
        let term = |i: usize| (x * p.parameter(&format!("w{i}"), 8, Init::Constant(1.0))).tanh();
        p.minimize(mean_square((0..n).map(term).reduce(|a, b| a + b).expect("some")));
    }),
    // One pointwise function after another.
    ("chain", [2500, 5000, 10000, 20000, 40000], |p, n| {
        let w = p.parameter("w", 8, Init::Constant(1.0));
        p.minimize(mean_square((0..n).fold(p.input("x", 8) * w, |x, i| if i % 2 == 0 { x.sin() } else { x * w })));
    }),
    // Slices of a row, joined again.
    ("slices", [625, 1250, 2500, 5000, 10000], |p, n| {
        let x = p.affine("in", p.input("x", 4), n);
        let parts: Vec<Expr> = (0..n).map(|i| x.slice(i..i + 1).tanh()).collect();
        p.minimize(mean_square(concat(parts)));
    }),
    // Inputs, joined.
    ("wide", [625, 1250, 2500, 5000, 10000], |p, n| {
        let parts: Vec<Expr> = (0..n).map(|i| p.input(&format!("x{i}"), 4).tanh()).collect();
        p.minimize(mean_square(p.affine("dense", concat(parts), 3)));
    }),
];

/// Training of larger and larger programs.
fn growth(names: &[String]) {
    for (shape, sizes, record) in SHAPES.into_iter().filter(|(shape, ..)| is_wanted(names, shape)) {
        for n in sizes {
            let started = Instant::now();
            let program = Program::record(shape, |p| record(p, n)).expect("no mistakes");
            let recorded = started.elapsed().as_secs_f64() * 1e3;
            let trainer = program.trainer(Adam::new(1e-3)).compile().expect("it compiles here");
            let total = started.elapsed().as_secs_f64() * 1e3;
            let stages = trainer.compile_times().iter();
            let stages: Vec<String> = stages.map(|(what, t)| format!("{what} {:.1}", t.as_secs_f64() * 1e3)).collect();
            let each = total / n as f64;
            println!("{shape:10} {n:5} {total:8.1} ms, {each:.3} each   (record {recorded:.1}, {})", stages.join(", "));
        }
    }
}

fn is_wanted(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|own| own == name)
}

fn main() {
    let options = Options::parse();
    let known = CELLS.map(|(name, _)| name).into_iter().chain(SHAPES.map(|(name, ..)| name)).collect::<Vec<_>>();
    if let Some(unknown) = options.names.iter().find(|name| !known.contains(&name.as_str())) {
        eprintln!("`{unknown}` is none of {}", known.join(", "));
        std::process::exit(2);
    }
    if options.growth {
        return growth(&options.names);
    }
    for (name, cell) in CELLS.into_iter().filter(|(name, _)| is_wanted(&options.names, name)) {
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
