//! Sequence to sequence: an encoder reads "123+48", a decoder that starts from its last state writes "171".
//!
//! ```sh
//! cargo run --release --example addition
//! cargo run --release --example addition -- --no-reverse --no-attention --seconds 600
//! ```
//!
//! The two run over time axes of their own. The decoder looks back at what the encoder held at each character
//! (attention), and reads what was written last: in training the true digit, otherwise its own.

pub mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use common::course::{Course, Lesson};
use common::study::{Matrix, draw_matrices};
use common::sums::{CHARACTERS, Spelling, Sums};
use common::{Result, positive, within};
use ndarray::Axis;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use retrograd::cells;
use retrograd::prelude::*;
use retrograd::runtime::session::Session;
use serde_json::json;

/// Learns to add from examples, and adds what it has not seen.
#[derive(Parser)]
#[command(name = "addition")]
pub struct Options {
    #[command(flatten)]
    course: Course,
    /// Digits of each number, at most
    #[arg(long, default_value_t = 3, value_parser = within(6))]
    digits: usize,
    /// Reads and writes numbers as they stand, highest digit first, which is harder to learn
    #[arg(long)]
    no_reverse: bool,
    /// The decoder has nothing but the encoder's last state
    #[arg(long)]
    no_attention: bool,
    #[arg(long, default_value_t = 96, value_parser = within(1024))]
    units: usize,
    #[arg(long, default_value_t = 128, value_parser = within(4096))]
    batch: usize,
    /// The highest learning rate
    #[arg(long, default_value_t = 6e-3, value_parser = positive)]
    rate: f64,
    /// Where to draw the attention's weights
    #[arg(long, value_name = "FILE.svg", default_value = "target/addition.svg")]
    picture: PathBuf,
}

impl Options {
    fn spelling(&self) -> Spelling {
        Spelling { digits: self.digits, reversed: !self.no_reverse }
    }
}

/// Both nets. When `taught`, the decoder reads the true digits; otherwise what it has written itself.
fn model(o: &Options, taught: bool) -> Result<Program, RecordErrors> {
    let (units, length) = (o.units, 2 * o.digits + 1);
    Program::record("addition", |p| {
        let (source, target) = (p.axis("source"), p.axis("target"));
        let (read, said) = (source.labels("read"), target.labels("said")); // i32[T, B], i32[T1, B]
        let first = p.labels("first");
        let table = p.parameter("characters", [CHARACTERS.len(), 16], Init::Normal(1.0));
        let encoder = source.scan("encoder", |s| {
            let h = cells::gru(s, table.lookup(s.at(read)), units);
            // All that was held so far, the latest in the last row.
            let notes = s.state("notes", [length, units]);
            s.next(notes, concat_axis(0, [notes.slice_axis(0, 1..), h.reshape([1, units])]));
            h
        });
        let notes = encoder.state("notes");
        let keys = p.linear("keys", notes, units);
        let (logits, weights, written) = target.scan("decoder", |s| {
            let (h, last) = (s.state_from("h", encoder.last()), s.state_from("last", first));
            let looks = (keys.matmul(s.linear("query", h, units)) * (units as f32).powf(-0.5)).softmax();
            let seen = if o.no_attention { encoder.last() } else { looks.matmul(notes) };
            let x = concat([table.lookup(last), seen]);
            let [r, z] = s.affine("gates", concat([h, x]), 2 * units).sigmoid().split();
            let n = s.affine("candidate", concat([r * h, x]), units).tanh();
            let h = s.next(h, z * h + (1.0 - z) * n);
            let logits = s.affine("readout", concat([h, seen]), CHARACTERS.len());
            let written = logits.argmax();
            s.next(last, if taught { s.at(said) } else { written });
            (logits, looks, written)
        });
        p.output("written", written.all());
        p.output("weights", weights.all());
        p.minimize(logits.all().cross_entropy(said));
    })
}

fn main() -> ExitCode {
    common::main(run)
}

/// The whole job, until `stop` is raised at most. Results go to `out`.
pub fn run(o: &Options, stop: &AtomicBool, out: &mut dyn Write) -> Result<()> {
    common::make_directory_of(&o.picture)?;
    let (program, spelling) = (model(o, true)?, o.spelling());
    let trainer = program.trainer(Adam::new(o.rate)).clip_norm(1.0).seed(o.course.seed);
    let mut trainer = trainer.threads(o.course.threads()).compile()?;
    // The same net, but reading what it has written.
    let mut writer = Session::<f32>::new(&model(o, false)?, o.course.threads())?;
    let mut random = ChaCha8Rng::seed_from_u64(o.course.seed);
    let new = Sums::random(spelling, &mut random, 5000, true, 1.0);
    let exact = |trainer: &Trainer, writer: &mut Session<f32>| -> Result<f64> {
        for name in program.parameters.iter().map(|p| &p.name) {
            writer.set_parameter(name, trainer.parameter(name).ok_or("both have it")?.view())?;
        }
        writer.run(&new.feed())?;
        let written = writer.output_i32("written").ok_or("it writes")?;
        let right = (0..new.texts.len()).filter(|&b| written.index_axis(Axis(1), b) == new.said.column(b).into_dyn());
        Ok(right.count() as f64 / new.texts.len() as f64)
    };
    let lesson = Lesson { batch: o.batch, rate: o.rate, feed: Sums::feed };
    let batch = |part| Sums::random(spelling, &mut random, o.batch, false, part);
    let seen = o.course.train(&lesson, &mut trainer, &o.course.clock(6000, 1.0, stop), batch, |trainer| {
        Ok(format!("{:.2} % of unseen sums exact", 100.0 * exact(trainer, &mut writer)?))
    })?;

    let exact = exact(&trainer, &mut writer)?;
    let (written, weights) = (writer.output_i32("written"), writer.output("weights"));
    let (written, weights) = (written.ok_or("it writes")?, weights.ok_or("it looks")?);
    let mut matrices = Vec::new();
    for (b, [sum, answer]) in new.texts.iter().enumerate().take(8) {
        let given: Vec<i32> = written.index_axis(Axis(1), b).iter().copied().collect();
        let text = spelling.text(&given);
        writeln!(out, "{sum} = {text} {}", if text == *answer { "" } else { "(wrong)" })?;
        let name = |c: &i32| char::from(CHARACTERS[*c as usize]).to_string();
        let values = weights.index_axis(Axis(1), b).outer_iter().map(|row| row.iter().copied().collect()).collect();
        let (rows, columns) = (given.iter().map(name).collect(), new.read.column(b).iter().map(name).collect());
        matrices.push(Matrix { title: format!("{sum} ={answer}"), rows, columns, values });
    }
    writeln!(out, "{:.2} % of {} sums that were never trained on are exact", 100.0 * exact, new.texts.len())?;
    if !o.no_attention {
        draw_matrices(&o.picture, &matrices[..4])?;
        let picture = o.picture.display();
        writeln!(out, "where each digit written (rows) looked at the sum (columns): {picture}")?;
    }
    o.course.report(out, json!({ "exact": exact, "sums": new.texts.len() }), &seen)
}
