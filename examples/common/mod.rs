//! What the examples share: how they show where they are, and what they leave behind.
//!
//! Progress and messages go to stderr; stdout is for results.
#![allow(dead_code, reason = "each example uses a part of it")]

pub mod course;
pub mod digits;
pub mod nudged;
pub mod picture;
pub mod scenes;
pub mod study;
pub mod sums;
pub mod text;

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use plotters::prelude::*;

/// Whatever went wrong, with a text for the user.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What may go wrong.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// A flag that Ctrl-C raises. Who does not want to wait presses it again.
pub fn ctrl_c() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    Ok(flag)
}

/// The whole of an example's `main`: options, Ctrl-C, and what went wrong on stderr, if anything did. Results go to
/// stdout.
pub fn main<O: Parser>(run: impl FnOnce(&O, &AtomicBool, &mut dyn Write) -> Result<()>) -> ExitCode {
    let options = O::parse();
    match ctrl_c().and_then(|stop| run(&options, &stop, &mut std::io::stdout())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// For options: a number from 1 to `most`.
pub fn within(most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most)
}

/// For options: a number of at least 0.
pub fn not_negative(given: &str) -> Result<f64, String> {
    let number = given.parse().map_err(|_| "a number is needed")?;
    if f64::is_finite(number) && number >= 0.0 { Ok(number) } else { Err("a number of at least 0 is needed".into()) }
}

/// For options: a number above 0.
pub fn positive(given: &str) -> Result<f64, String> {
    not_negative(given)?;
    given.parse().ok().filter(|&x| x > 0.0).ok_or("a number above 0 is needed".into())
}

/// How far a run is: a bar on a terminal; elsewhere only the lines that are told.
pub struct Progress {
    bar: ProgressBar,
    /// When it started, and how far the run was then.
    from: Cell<Option<(Instant, f64)>>,
}

impl Progress {
    const LENGTH: f64 = 10_000.0;

    /// A run of which nothing has been seen yet.
    pub fn start() -> Progress {
        let style = ProgressStyle::with_template("{wide_bar:.cyan/blue} {percent:>3}%  {msg}");
        let bar = ProgressBar::new(Progress::LENGTH as u64).with_style(style.expect("a valid template"));
        Progress { bar, from: Cell::new(None) }
    }

    /// The part of the run that is behind, 0 to 1, and what there is to say of it.
    pub fn show(&self, part: f64, message: &str) {
        let (started, first) = self.from.get().unwrap_or((Instant::now(), part));
        self.from.set(Some((started, first)));
        let left = started.elapsed().as_secs_f64() * (1.0 - part) / (part - first);
        let left = Duration::try_from_secs_f64(left.round()).map(|left| format!(", {:#} left", HumanDuration(left)));
        self.bar.set_position((Progress::LENGTH * part) as u64);
        self.bar.set_message(format!("{message}{}", left.unwrap_or_default()));
    }

    /// A line that stays.
    pub fn tell(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Makes the directory of a file that is to be written, before there is something to lose.
pub fn make_directory_of(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new(""));
    Ok(fs::create_dir_all(directory).map_err(|e| format!("cannot make the directory {}: {e}", directory.display()))?)
}

/// One of several by logits: each with probability softmax(logits / temperature), of which `uniform` in 0..1 picks one;
/// at temperature 0 the likeliest.
pub fn choose(logits: &[f32], temperature: f64, uniform: f64) -> usize {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("something to choose from");
    let weight = |i: usize| (f64::from(logits[i] - logits[best]) / temperature).exp();
    if temperature == 0.0 {
        return best;
    }
    let mut rest = uniform * (0..logits.len()).map(weight).sum::<f64>();
    for i in 0..logits.len() {
        rest -= weight(i);
        if rest < 0.0 {
            return i;
        }
    }
    best
}

/// A number for an axis.
fn short(x: f64) -> String {
    match x.abs() {
        size if size >= 1e6 => format!("{}M", x / 1e6),
        size if size >= 1e4 => format!("{}k", x / 1e3),
        _ => x.to_string(),
    }
}

/// About a thousand of the points: more are not to be seen.
fn thinned(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    let every = points.len() / 1000 + 1;
    points
        .iter()
        .copied()
        .enumerate()
        .filter(move |(i, _)| (points.len() - 1 - i).is_multiple_of(every))
        .map(|(_, p)| p)
}

/// One line of a diagram.
pub struct Line<'a> {
    /// What it shows.
    pub name: &'a str,
    /// Its points, in the order of x.
    pub points: &'a [(f64, f64)],
}

/// Draws lines over common axes into an SVG file.
pub fn draw(path: &Path, title: &str, [x_name, y_name]: [&str; 2], lines: &[Line]) -> Result<()> {
    let cannot = |e: &dyn std::fmt::Display| format!("cannot draw {}: {e}", path.display());
    let points = || lines.iter().flat_map(|l| l.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let least = |at: fn(&(f64, f64)) -> f64| points().map(at).fold(f64::INFINITY, f64::min);
    let most = |at: fn(&(f64, f64)) -> f64| points().map(at).fold(f64::NEG_INFINITY, f64::max);
    if points().next().is_none() {
        return Ok(());
    }
    // Room above and below, also for a line that is flat or a single point.
    let (x, y) = ((least(|p| p.0), most(|p| p.0)), (least(|p| p.1), most(|p| p.1)));
    let (width, height) = ((x.1 - x.0).max(1e-9), (y.1 - y.0).max(1e-9));

    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, 500)).into_drawing_area();
        root.fill(&WHITE).map_err(|e| cannot(&e))?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d(x.0..x.0 + width, y.0 - 0.05 * height..y.0 + 1.05 * height)
            .map_err(|e| cannot(&e))?;
        chart
            .configure_mesh()
            .x_label_formatter(&|&x| short(x))
            .x_desc(x_name)
            .y_desc(y_name)
            .draw()
            .map_err(|e| cannot(&e))?;
        for (i, line) in lines.iter().enumerate() {
            let style = Palette99::pick(i).stroke_width(2);
            chart
                .draw_series(LineSeries::new(thinned(line.points), style))
                .map_err(|e| cannot(&e))?
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
        let labels = &mut chart.configure_series_labels();
        labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw().map_err(|e| cannot(&e))?;
        root.present().map_err(|e| cannot(&e))?;
    }
    Ok(fs::write(path, svg).map_err(|e| cannot(&e))?)
}
