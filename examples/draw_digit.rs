//! Draws handwritten digits: told which one, it writes row after row, each from the rows above.
//!
//! ```sh
//! cargo run --release --example draw_digit
//! cargo run --release --example draw_digit -- --mnist directory/of/the/four/files --seconds 300
//! ```
//!
//! What comes below a row is not one row but a choice: the next stroke may go on here or there, and the mean of both is
//! a blur. So at each step the net gives some rows and how likely each is: a mixture density (Bishop 1994), as
//! Graves (2013), "Generating sequences with recurrent neural networks", draws handwriting. To learn, each row is
//! predicted from the true ones above it; to draw, one of the rows is chosen by lot and fed back.
//!
//! The judge of the drawings is the net of the example `digits`, trained before on the same real digits.

#[path = "digits.rs"]
#[allow(dead_code, reason = "its main")]
pub mod digits;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use digits::common::course::{Course, Lesson};
use digits::common::digits::{Batch, Digits, KINDS, Source};
use digits::common::{self, Result, not_negative, picture, within};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retrograd::cells;
use retrograd::prelude::*;
use serde_json::json;

/// Deviation of a pixel from its place in the row that was chosen.
const DEVIATION: f32 = 0.2;

/// The model: one to many. `before` is the row above, which says where the drawing is; `rows` what is to come.
fn model(pixels: usize, units: usize, choices: usize) -> Result<Program, RecordErrors> {
    Program::record("draw_digit", |p| {
        let label = p.labels("label"); // i32[B]
        let (before, rows) = (p.sequence("before", pixels), p.sequence("rows", pixels)); // f32[T, B, pixels]
        let kind = p.embedding("kind", label, KINDS, 32); // the same at every step
        let h = p.scan("lstm", |s| cells::lstm(s, concat([s.at(before), kind]), units)).all();
        let choice = p.affine("choice", h, choices).log_softmax();
        let drawn = p.affine("drawn", h, choices * pixels).reshape([choices, pixels]).sigmoid();
        p.output("choice", choice);
        p.output("drawn", drawn);
        // −ln Σ exp(choice) N(rows | drawn, DEVIATION), but for a constant; the largest term is taken out of the sum.
        let fit = choice - (drawn - rows).square().sum() / (2.0 * DEVIATION * DEVIATION);
        let most = fit.max().stop_gradient();
        p.minimize(-most - (fit - most).exp().sum().ln());
    })
}

/// Trains a net to name handwritten digits, then another to draw them, row by row; the first judges the second.
#[derive(Parser)]
#[command(name = "draw_digit", allow_negative_numbers = true)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// Units of the LSTM
    #[arg(long, default_value_t = 128, value_parser = within(4096))]
    units: usize,
    /// Rows to choose from at each step
    #[arg(long, default_value_t = 16, value_parser = within(256))]
    choices: usize,
    /// How daring the choices are; at 0 it is always the likeliest row
    #[arg(long, default_value_t = 1.0, value_parser = not_negative)]
    temperature: f64,
    /// Drawings of each kind
    #[arg(long, default_value_t = 100, value_parser = within(10_000))]
    drawings: usize,
    #[command(flatten)]
    course: Course,
    /// Where to put the sheet of drawings
    #[arg(long, value_name = "FILE.svg", default_value = "target/draw_digit.svg")]
    picture: PathBuf,
}

fn main() -> ExitCode {
    common::main(run)
}

/// The whole job, until `stop` is raised at most. Results go to `out`.
pub fn run(o: &Options, stop: &AtomicBool, out: &mut dyn Write) -> Result<()> {
    common::make_directory_of(&o.picture)?;
    let [learnt, held_out] = o.source.read()?;
    let mut judge = digits::trainer(&learnt, o.units, &o.course)?;
    let (lesson, percent) = (digits::LESSON, |part: f64| format!("{:.1} %", 100.0 * part));
    let clock = o.course.clock(o.source.steps(&learnt, lesson.batch, 60, 3), 0.3, stop);
    o.course.train(&lesson, &mut judge, &clock, learnt.batches(lesson.batch, 1, o.course.seed), |judge| {
        Ok(format!("{} of held-out digits named right", percent(digits::name(judge, &held_out)?.1)))
    })?;
    if stop.load(Ordering::Relaxed) {
        return Err("stopped before there was anything to draw with".into());
    }

    let program = model(learnt.size[1], o.units, o.choices)?;
    let trainer = program.trainer(AdamW::new(1e-3)).clip_norm(1.0).seed(o.course.seed);
    let mut trainer = trainer.threads(o.course.threads()).compile()?;
    let feed = Batch::feed_with_rows_before;
    let lesson = Lesson { batch: 64, rate: 3e-3, feed };
    let clock = o.course.clock(o.source.steps(&learnt, lesson.batch, 120, 10), 0.7, stop);
    let some = held_out.batch(&(0..held_out.count().min(1000)).collect::<Vec<_>>());
    let seen =
        o.course.train(&lesson, &mut trainer, &clock, learnt.batches(lesson.batch, 0, o.course.seed), |trainer| {
            Ok(format!("{:.4} on held-out digits to draw", trainer.evaluate(&feed(&some))?))
        })?;

    let drawings = draw(&trainer, &learnt, o)?;
    let (accuracy, real) = (digits::name(&mut judge, &drawings)?.1, digits::name(&mut judge, &held_out)?.1);
    let variety = drawings.deviation() / held_out.deviation();
    picture::sheet(&o.picture, "Real digits, and drawings", &held_out, &drawings, 10)?;
    let (right, all) = (percent(accuracy), drawings.count());
    writeln!(out, "{right} of {all} drawings are taken for what they are; of real digits {}", percent(real))?;
    writeln!(out, "they vary {} as much as real ones; a sheet is in {}", percent(variety), o.picture.display())?;
    let loss = trainer.evaluate(&feed(&some))?;
    let judged = json!({ "accuracy": accuracy, "real_accuracy": real, "variety": variety, "held_out_loss": loss });
    o.course.report(out, judged, &seen)
}

/// Draws some of each kind, all at once: each row that is chosen is the next step's input.
fn draw(trainer: &Trainer, like: &Digits, o: &Options) -> Result<Digits> {
    let ([height, width], count) = (like.size, KINDS * o.drawings);
    let labels: Vec<u8> = (0..count).map(|i| (i % KINDS) as u8).collect();
    let mut random = ChaCha8Rng::seed_from_u64(o.course.seed);
    let mut stream = trainer.stream(count)?;
    stream.set_i32("label", &labels.iter().map(|&label| label.into()).collect::<Vec<_>>())?;
    let (mut choice, mut drawn) = (vec![0.0; count * o.choices], vec![0.0; count * o.choices * width]);
    let (mut row, mut pixels) = (vec![0.0; count * width], vec![0; count * height * width]);
    for y in 0..height {
        stream.set_f32("before", &row)?;
        stream.advance()?;
        stream.get_f32("choice", &mut choice)?;
        stream.get_f32("drawn", &mut drawn)?;
        for i in 0..count {
            let logits = &choice[i * o.choices..][..o.choices];
            let chosen = common::choose(logits, o.temperature, random.random());
            let new = &drawn[(i * o.choices + chosen) * width..][..width];
            row[i * width..][..width].copy_from_slice(new);
            for (pixel, &value) in pixels[(i * height + y) * width..].iter_mut().zip(new) {
                *pixel = (value * f32::from(like.ink)).round() as u8;
            }
        }
    }
    Ok(Digits { size: like.size, pixels, ink: like.ink, labels })
}
