//! Names handwritten digits, reading them row by row.
//!
//! ```sh
//! cargo run --release --example digits
//! cargo run --release --example digits -- --mnist directory/of/the/four/files
//! ```
//!
//! An image is a sequence of its rows; an LSTM reads them from top to bottom, and from its state after the last row
//! comes the name of the digit. The default data are the 8×8 digits that come with the examples.

pub mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use common::course::{Course, Lesson};
use common::digits::{Batch, Digits, KINDS, Source};
use common::{Result, picture, within};
use ndarray::ArrayView1;
use retrograd::cells;
use retrograd::prelude::*;
use serde_json::json;

/// The model: many to one.
pub fn model(pixels: usize, units: usize) -> Result<Program, RecordErrors> {
    Program::record("digits", |p| {
        let rows = p.sequence("rows", pixels); // f32[T, B, pixels]
        let label = p.labels("label"); // i32[B]
        let run = p.scan("lstm", |s| cells::lstm(s, s.at(rows), units));
        let logits = p.affine("readout", run.last(), KINDS);
        p.output("logits", logits);
        p.minimize(logits.cross_entropy(label));
    })
}

/// Trains a net to name handwritten digits, row by row.
#[derive(Parser)]
#[command(name = "digits", allow_negative_numbers = true)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// Units of the LSTM
    #[arg(long, default_value_t = 128, value_parser = within(4096))]
    units: usize,
    #[command(flatten)]
    course: Course,
    /// Where to draw what was taken for what
    #[arg(long, value_name = "FILE.svg", default_value = "target/digits.svg")]
    picture: PathBuf,
}

fn main() -> ExitCode {
    common::main(run)
}

/// The whole job, until `stop` is raised at most. Results go to `out`.
pub fn run(o: &Options, stop: &AtomicBool, out: &mut dyn Write) -> Result<()> {
    common::make_directory_of(&o.picture)?;
    let [learnt, held_out] = o.source.read()?;
    let mut trainer = trainer(&learnt, o.units, &o.course)?;
    let clock = o.course.clock(o.source.steps(&learnt, LESSON.batch, 120, 10), 1.0, stop);
    let batches = learnt.batches(LESSON.batch, 1, o.course.seed);
    let seen = o.course.train(&LESSON, &mut trainer, &clock, batches, |trainer| {
        Ok(format!("{:.2} % of held-out digits right", 100.0 * name(trainer, &held_out)?.1))
    })?;

    let (names, accuracy) = name(&mut trainer, &held_out)?;
    let result = format!("{:.2} % of {} held-out digits named right", 100.0 * accuracy, held_out.count());
    picture::confusion(&o.picture, &result, &held_out, &names)?;
    writeln!(out, "{result} after {} steps; what was taken for what is in {}", seen.steps, o.picture.display())?;
    o.course.report(out, json!({ "accuracy": accuracy, "held_out": held_out.count() }), &seen)
}

/// The model, ready to learn these digits.
pub fn trainer(digits: &Digits, units: usize, course: &Course) -> Result<Trainer> {
    let program = model(digits.size[1], units)?;
    let trainer = program.trainer(AdamW::new(1e-3)).clip_norm(1.0).seed(course.seed).threads(course.threads());
    Ok(trainer.compile()?)
}

/// How it learns them.
pub const LESSON: Lesson<Batch> = Lesson { batch: 64, rate: 4e-3, feed: Batch::feed };

/// What the net takes each of these digits for, and the part of them that it is right about.
pub fn name(trainer: &mut Trainer, digits: &Digits) -> Result<(Vec<u8>, f64)> {
    let numbers: Vec<usize> = (0..digits.count()).collect();
    let mut names = Vec::new();
    for some in numbers.chunks(500) {
        trainer.evaluate(&digits.batch(some).feed())?;
        let logits = trainer.evaluated("logits").expect("the model's output");
        let best = |row: ArrayView1<f32>| (0..KINDS).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("ten kinds");
        names.extend(logits.rows().into_iter().map(|row| best(row) as u8));
    }
    let right = digits.labels.iter().zip(&names).filter(|(is, name)| is == name).count();
    Ok((names, right as f64 / digits.count() as f64))
}
