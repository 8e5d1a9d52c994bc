//! What examples have in common that run for a given time and end with a result.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::{Args, Parser, ValueEnum};
use retrograd::cells;
use retrograd::prelude::*;
use retrograd::runtime::gemm::Kernels;

use super::{Result, positive, within};

/// Options of all of them.
#[derive(Args, Clone)]
pub struct Options {
    /// Seed of initial weights and of data
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// About how long to train or measure, in all
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 50.0)]
    pub seconds: f64,
    /// Threads; results have the same bits whatever their number [default: one for each core]
    #[arg(long, value_parser = within(1024))]
    threads: Option<usize>,
    /// Ends stdout with one line of JSON
    #[arg(long)]
    json: bool,
}

impl Options {
    /// Threads to use.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
    }

    /// A clock that runs for a part of the time.
    pub fn clock<'s>(&self, part: f64, stop: &'s AtomicBool) -> Clock<'s> {
        Clock { started: Instant::now(), seconds: part * self.seconds, stop }
    }

    /// The last line, if it was asked for.
    pub fn finish(&self, result: &serde_json::Value) {
        if self.json {
            println!("{result}");
        }
    }
}

/// Time that passes, until Ctrl-C at most.
pub struct Clock<'s> {
    started: Instant,
    seconds: f64,
    stop: &'s AtomicBool,
}

impl Clock<'_> {
    /// The part that is behind, 0 to 1.
    pub fn part(&self) -> f64 {
        if self.stop.load(Ordering::Relaxed) {
            1.0
        } else {
            (self.started.elapsed().as_secs_f64() / self.seconds).min(1.0)
        }
    }

    /// Seconds that are behind.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

/// The whole of an example's `main`.
pub fn main<O: Parser>(run: impl FnOnce(&O, &AtomicBool) -> Result<()>) -> ExitCode {
    let options = O::parse();
    match super::ctrl_c().and_then(|stop| run(&options, &stop)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// A cell: one step, given its input and the number of units.
pub type CellFn = for<'r> fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>;

/// The library's cells, as an option.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Cell {
    Rnn,
    RnnSplit,
    Lstm,
    PeepholeLstm,
    LayerNormLstm,
    Gru,
    Mgu,
    MinGru,
}

impl Cell {
    /// Its step.
    pub fn step(self) -> CellFn {
        match self {
            Cell::Rnn => cells::rnn,
            Cell::RnnSplit => cells::rnn_split,
            Cell::Lstm => cells::lstm,
            Cell::PeepholeLstm => cells::peephole_lstm,
            Cell::LayerNormLstm => cells::layer_norm_lstm,
            Cell::Gru => cells::gru,
            Cell::Mgu => cells::mgu,
            Cell::MinGru => cells::min_gru,
        }
    }
}

/// Multiply-adds a second, times two, of products in the first cache: within a few percent of what registers allow.
pub fn peak_of_one_core() -> f64 {
    let kernels = Kernels::<f32>::detect();
    let (m, k, n, turns) = (48, 64, 4 * kernels.nr, 20);
    let (a, b, mut c) = (vec![0.5; m * k], vec![0.25; k * n], vec![0.0; m * n]);
    let begun = Instant::now();
    (0..turns).for_each(|_| kernels.product(&a, &b, &mut c, m, k, n));
    (2 * m * k * n * turns) as f64 / begun.elapsed().as_secs_f64()
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
