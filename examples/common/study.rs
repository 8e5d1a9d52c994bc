//! What examples have in common that look into cells: the library's cells by name, the machine's peak, diagrams.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Instant;

use clap::ValueEnum;
use retrograd::cells;
use retrograd::prelude::*;
use retrograd::runtime::gemm::Kernels;
use retrograd::runtime::session::Session;

use super::course::Clock;
use super::{Line, Progress, Result};

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

/// Multiply-adds a second, times two, of products in the first cache on so many threads at once: within a few percent
/// of what registers allow.
pub fn peak(threads: usize) -> f64 {
    let kernels = Kernels::<f32>::detect();
    let (m, k, n, turns) = (48, 64, 4 * kernels.nr, 20);
    let one = || {
        let (a, b, mut c) = (vec![0.5; m * k], vec![0.25; k * n], vec![0.0; m * n]);
        let begun = Instant::now();
        (0..turns).for_each(|_| kernels.product(&a, &b, &mut c, m, k, n));
        (2 * m * k * n * turns) as f64 / begun.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
        one() + others.into_iter().map(|other| other.join().expect("products do not panic")).sum::<f64>()
    })
}

/// How fast a program runs.
pub struct Speed {
    /// Seconds of a run: the median, and the best.
    pub seconds: [f64; 2],
    /// The highest peak that was seen meanwhile.
    pub peak: f64,
    /// GFLOP/s of each run.
    pub runs: Vec<(f64, f64)>,
}

/// Runs a program of so many flops on the inputs that are there, with weights as after an update, until the clock is at
/// its end. Peak and program take turns, so that whatever else the machine does slows both.
pub fn measure(session: &mut Session<f32>, flops: f64, threads: usize, clock: &Clock) -> Speed {
    let (progress, mut times, mut runs, mut highest) = (Progress::start(), Vec::new(), Vec::new(), 0.0f64);
    while clock.part(times.len()) < 1.0 || times.is_empty() {
        highest = highest.max(peak(threads));
        session.touch_parameters();
        let begun = Instant::now();
        session.advance();
        let seconds = begun.elapsed().as_secs_f64();
        times.push(seconds);
        runs.push((times.len() as f64, flops / seconds / 1e9));
        progress.show(clock.part(times.len()), &format!("{:.1} GFLOP/s", flops / seconds / 1e9));
    }
    times.sort_by(f64::total_cmp);
    Speed { seconds: [times[times.len() / 2], times[0]], peak: highest, runs }
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
