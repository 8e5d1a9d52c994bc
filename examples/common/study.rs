//! What examples have in common that look into cells: the library's cells by name, the machine's speed, diagrams.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use clap::ValueEnum;
use ndarray::ArrayD;
use rand::{Rng, RngExt};
use retrograd::cells;
use retrograd::compiler::ir::{Extent, Input};
use retrograd::compiler::plan::{Machine, Phase};
use retrograd::prelude::*;
use retrograd::runtime::gemm::Kernels;
use retrograd::runtime::machine::read_rates;
use retrograd::runtime::session::Session;
use retrograd::runtime::stages::KernelText;
use serde_json::{Value, json};

use super::course::Clock;
use super::{Line, Progress, Result};

/// A cell: one step, given its input and the number of units.
pub type CellFn = for<'r> fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>;

/// The library's cells, as an option.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Cell {
    Rnn,
    RnnSplit,
    RnnUvw,
    ConditionedRnn,
    IndRnn,
    Lstm,
    PeepholeLstm,
    LayerNormLstm,
    /// As many features as units, from twice as many units
    ProjectedLstm,
    MinLstm,
    Gru,
    GruResetAfter,
    Mgu,
    MinGru,
    /// An LSTM that looks at 9 places of each sample
    DotAttention,
    /// A GRU that looks at 9 places of each sample
    AdditiveAttention,
}

impl Cell {
    /// What it is told about each sample, if it is: the input's name, and its shape.
    pub fn told(self, units: usize) -> Option<(&'static str, Vec<usize>)> {
        match self {
            Cell::ConditionedRnn => Some(("about", vec![units])),
            Cell::DotAttention | Cell::AdditiveAttention => Some(("places", vec![9, units])),
            _ => None,
        }
    }

    /// Its step, given what it is [told](Cell::told): so many features, which take part in its state.
    pub fn step<'r>(self, s: &Step<'r>, x: Expr<'r>, told: Option<Expr<'r>>, units: usize) -> Expr<'r> {
        let told = || told.expect("the cell is given what it is told");
        match self {
            Cell::Rnn => cells::rnn(s, x, units),
            Cell::RnnSplit => cells::rnn_split(s, x, units),
            // The logits of its readout, so that all of its weights learn.
            Cell::RnnUvw => cells::rnn_uvw(s, x, units, units).1,
            Cell::ConditionedRnn => cells::conditioned_rnn(s, x, told(), units),
            Cell::IndRnn => cells::ind_rnn(s, x, units),
            Cell::Lstm => cells::lstm(s, x, units),
            Cell::PeepholeLstm => cells::peephole_lstm(s, x, units),
            Cell::LayerNormLstm => cells::layer_norm_lstm(s, x, units),
            Cell::ProjectedLstm => cells::projected_lstm(s, x, 2 * units, units),
            Cell::MinLstm => cells::min_lstm(s, x, units),
            Cell::Gru => cells::gru(s, x, units),
            Cell::GruResetAfter => cells::gru_reset_after(s, x, units),
            Cell::Mgu => cells::mgu(s, x, units),
            Cell::MinGru => cells::min_gru(s, x, units),
            Cell::DotAttention => cells::dot_attention_decoder(s, x, told(), units).0,
            Cell::AdditiveAttention => cells::additive_attention_decoder(s, x, told(), units).0,
        }
    }
}

/// How fast a program runs.
pub struct Speed {
    /// Seconds of a run: the median, and the best.
    pub seconds: [f64; 2],
    /// The most that the machine gave meanwhile: multiply-adds in registers on so many threads, and as many times what one reads.
    pub machine: Machine,
    /// GFLOP/s of each run.
    pub runs: Vec<(f64, f64)>,
}

/// Runs a program of so many flops on the inputs that are there, with weights as after an update, until the clock is at
/// its end. Peak and program take turns, so that whatever else the machine does slows both.
pub fn measure(session: &mut Session<f32>, flops: f64, threads: usize, clock: &Clock) -> Speed {
    let (progress, mut times, mut runs) = (Progress::start(), Vec::new(), Vec::new());
    let set = session.compiled().instruction_set;
    let kernels = Kernels::<f32>::of(set).expect("the program is compiled for it");
    let mut peak = kernels.peak();
    while clock.part(times.len()) < 1.0 || times.is_empty() {
        peak = peak.max(kernels.peak_now());
        session.touch_parameters();
        let begun = Instant::now();
        session.advance();
        let seconds = begun.elapsed().as_secs_f64();
        times.push(seconds);
        runs.push((times.len() as f64, flops / seconds / 1e9));
        progress.show(clock.part(times.len()), &format!("{:.1} GFLOP/s", flops / seconds / 1e9));
    }
    times.sort_by(f64::total_cmp);
    let each = threads as f64;
    let rates = read_rates().into_iter().map(|(bytes, rate)| (bytes, each * rate)).collect();
    let machine = Machine { flops_per_second: each * peak, bytes_per_second: rates };
    Speed { seconds: [times[times.len() / 2], times[0]], machine, runs }
}

/// A table of phases with the time below which a machine cannot do each, and what keeps it from less. Gives the seconds
/// of all of them, and the same as JSON.
pub fn show_cost(phases: &[Phase], machine: &Machine, out: &mut dyn Write) -> Result<(f64, Vec<Value>)> {
    let (mut least, mut rows) = (0.0, Vec::new());
    writeln!(out, "{:>20} {:>14} {:>12} {:>10}  bound by", "phase", "flops", "bytes moved", "ms, least")?;
    for phase in phases {
        let (seconds, bound) = phase.bound(machine);
        let (Phase { name, flops, bytes, .. }, ms, bound) = (phase, 1e3 * seconds, format!("{bound:?}").to_lowercase());
        writeln!(out, "{name:>20} {flops:>14} {bytes:>12} {ms:>10.4}  {bound}")?;
        rows.push(json!({ "phase": name, "flops": flops, "bytes": bytes, "least_ms": ms, "bound": bound }));
        least += seconds;
    }
    Ok((least, rows))
}

/// Writes a text, in a directory that is made if need be.
pub fn write(path: &Path, text: &str) -> Result<()> {
    super::make_directory_of(path)?;
    Ok(fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?)
}

/// A file of CLIF and one of machine code for each kernel, numbered in the order in which they run.
pub fn write_kernels(directory: &Path, kernels: &[KernelText]) -> Result<()> {
    for (i, kernel) in kernels.iter().enumerate() {
        let plain = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' };
        // File systems limit names, and a kernel may have many results.
        let name: String = kernel.name.chars().map(plain).take(60).collect();
        let file = directory.join(format!("{:02}_{name}", i + 1));
        write(&file.with_added_extension("clif"), &kernel.clif)?;
        write(&file.with_added_extension("asm"), &kernel.disassembly)?;
    }
    Ok(())
}

/// A value from −1 to 1 for each element of each input: all of them are floats.
pub fn inputs(program: &Program, sizes: &Sizes, random: &mut impl Rng) -> Vec<(String, ArrayD<f32>)> {
    let value = |input: &Input| {
        let ty = program.ty(input.value);
        let mut shape = match ty.extent {
            Extent::Shared => vec![],
            Extent::Batch => vec![sizes.batch],
            Extent::Time(axis) => vec![sizes.steps(axis), sizes.batch],
        };
        shape.extend(&ty.shape.0);
        (input.name.clone(), ArrayD::from_shape_simple_fn(shape, || random.random_range(-1.0..1.0)))
    };
    program.inputs.iter().map(value).collect()
}

/// Lines by name.
pub type Lines = Vec<(String, Vec<(f64, f64)>)>;

/// Draws lines over common axes as `name.svg` in a directory.
pub fn draw_lines(directory: &Path, name: &str, axes: [&str; 2], lines: &Lines) -> Result<()> {
    let lines: Vec<Line> = lines.iter().map(|(name, points)| Line { name, points }).collect();
    super::draw(&directory.join(format!("{name}.svg")), name, axes, &lines)
}

/// A matrix of numbers as squares in an SVG file: row after row, the darker the larger, each row and column with its
/// name. Several, with a title each, stand beside one another.
pub fn draw_matrices(path: &Path, matrices: &[Matrix]) -> Result<()> {
    const SIDE: usize = 34;
    let high = matrices.iter().map(|m| m.rows.len()).max().unwrap_or(0) * SIDE + 90;
    let mut body = String::new();
    let mut left = 10;
    let text = |body: &mut String, x: usize, y: usize, text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(body, r#"<text x="{x}" y="{y}" text-anchor="middle">{text}</text>"#);
    };
    for m in matrices {
        let wide = (m.columns.len() + 1) * SIDE;
        text(&mut body, left + wide / 2, 22, &m.title);
        for (c, name) in m.columns.iter().enumerate() {
            text(&mut body, left + (c + 1) * SIDE + SIDE / 2, 56, name);
        }
        for (r, name) in m.rows.iter().enumerate() {
            let y = 64 + r * SIDE;
            text(&mut body, left + SIDE / 2, y + SIDE / 2 + 6, name);
            for (c, &x) in m.values[r].iter().enumerate() {
                let shade = 255 - (255.0 * x.clamp(0.0, 1.0)) as u8;
                let x = left + (c + 1) * SIDE;
                let fill = format!(r##"fill="rgb({shade},{shade},255)" stroke="#ccc""##);
                let _ = writeln!(body, r#"<rect x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" {fill}/>"#);
            }
        }
        left += wide + SIDE;
    }
    let open = r#"<svg xmlns="http://www.w3.org/2000/svg" font-family="monospace" font-size="18""#;
    let svg = format!(
        "{open} width=\"{left}\" height=\"{high}\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    );
    Ok(fs::write(path, svg).map_err(|e| format!("cannot draw {}: {e}", path.display()))?)
}

/// A matrix to be drawn.
pub struct Matrix {
    /// What stands above.
    pub title: String,
    /// Names of rows.
    pub rows: Vec<String>,
    /// Names of columns.
    pub columns: Vec<String>,
    /// Numbers from 0 to 1, row by row.
    pub values: Vec<Vec<f32>>,
}
