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

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use common::study::{Matrix, draw_matrices};
use common::{Progress, Result, positive, study, within};
use ndarray::{Array1, Array2, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retrograd::cells;
use retrograd::prelude::*;
use retrograd::runtime::feed::Feed;
use retrograd::runtime::optimizer::Adam;
use retrograd::runtime::schedule::Schedule;
use retrograd::runtime::session::Session;
use retrograd::runtime::train::Training;

/// What is read and written, by number. The blank fills up, and starts what is written.
const CHARACTERS: &[u8; 12] = b"0123456789+ ";
const BLANK: i32 = 11;

/// Learns to add from examples, and adds what it has not seen.
#[derive(Parser)]
#[command(name = "addition")]
pub struct Options {
    #[command(flatten)]
    common: study::Options,
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
    /// The numbers of a text's characters, in the order of reading and writing.
    fn numbers(&self, text: &str) -> Vec<i32> {
        let known = text.bytes().filter_map(|c| CHARACTERS.iter().position(|&k| k == c));
        let numbers = known.map(|i| i as i32);
        if self.no_reverse { numbers.collect() } else { numbers.rev().collect() }
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

/// Sums as the program reads them.
struct Sums {
    texts: Vec<[String; 2]>,
    read: Array2<i32>,
    said: Array2<i32>,
    first: Array1<i32>,
}

impl Sums {
    /// Random sums; one pair in ten is held out. A number is, with probability `long`, any of up to the most digits,
    /// so that it most likely has that many; else all lengths are as likely, and short sums are learnt first.
    fn random(o: &Options, random: &mut ChaCha8Rng, batch: usize, held_out: bool, long: f64) -> Sums {
        let (mut texts, wide, most) = (Vec::new(), o.digits, o.digits as u32);
        while texts.len() < batch {
            let [a, b] = [0; 2].map(|_: i32| {
                let digits = if random.random_bool(long) { most } else { random.random_range(1..=most) };
                let limit = 10_u64.pow(digits);
                random.random_range(0..limit)
            });
            // The same pair the other way round is the same.
            let pair = a.min(b) * 10_u64.pow(most) + a.max(b);
            if (pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(10) == held_out {
                texts.push([format!("{a:>wide$}+{b:>wide$}"), format!("{:>1$}", a + b, wide + 1)]);
            }
        }
        let [read, said] = [0, 1].map(|i| {
            let rows: Vec<Vec<i32>> = texts.iter().map(|t| o.numbers(&t[i])).collect();
            Array2::from_shape_fn((rows[0].len(), batch), |(t, b)| rows[b][t])
        });
        Sums { texts, read, said, first: Array1::from_elem(batch, BLANK) }
    }

    fn feed(&self) -> Feed<'_> {
        Feed::new().i32("read", self.read.view()).i32("said", self.said.view()).i32("first", self.first.view())
    }
}

fn main() -> ExitCode {
    study::main(run)
}

fn run(o: &Options, stop: &AtomicBool) -> Result<()> {
    common::make_directory_of(&o.picture)?;
    let program = model(o, true)?;
    let trainer = program.trainer(Adam::new(o.rate)).clip_norm(1.0).seed(o.common.seed);
    let mut trainer = trainer.threads(o.common.threads()).compile()?;
    // The same net, but reading what it has written.
    let mut writer = Session::<f32>::new(&model(o, false)?, o.common.threads())?;
    let mut random = ChaCha8Rng::seed_from_u64(o.common.seed);
    let new = Sums::random(o, &mut random, 5000, true, 1.0);
    let schedule = Schedule::cosine_to(98_000, 0.02).warm_up(2_000);
    let (clock, progress, mut check) = (o.common.clock(1.0, stop), Progress::start(), 0.1);
    let exact = loop {
        let part = clock.part();
        if part >= check || part >= 1.0 {
            check = part + 0.1;
            for name in program.parameters.iter().map(|p| &p.name) {
                writer.set_parameter(name, trainer.parameter(name).ok_or("both have it")?.view())?;
            }
            writer.run(&new.feed())?;
            let written = writer.output_i32("written").ok_or("it writes")?;
            let right =
                (0..new.texts.len()).filter(|&b| written.index_axis(Axis(1), b) == new.said.column(b).into_dyn());
            let exact = right.count() as f64 / new.texts.len() as f64;
            progress.tell(&format!("{:6} steps: {:.2} % of unseen sums exact", trainer.steps(), 100.0 * exact));
            if part >= 1.0 {
                break exact;
            }
        }
        trainer.set_rate(o.rate * schedule.factor((part * 1e5) as u64))?;
        let loss = trainer.step(&Sums::random(o, &mut random, o.batch, false, part).feed())?.loss;
        progress.show(part, &format!("loss {loss:.4}"));
    };
    drop(progress);

    let (written, weights) =
        (writer.output_i32("written").ok_or("it writes")?, writer.output("weights").ok_or("it looks")?);
    let text = |characters: Vec<i32>| -> String {
        let text = characters.into_iter().map(|c| char::from(CHARACTERS[c as usize]));
        if o.no_reverse { text.collect() } else { text.rev().collect() }
    };
    let mut matrices = Vec::new();
    for (b, [sum, answer]) in new.texts.iter().enumerate().take(8) {
        let given: Vec<i32> = written.index_axis(Axis(1), b).iter().copied().collect();
        println!("{sum} = {} {}", text(given.clone()), if text(given.clone()) == *answer { "" } else { "(wrong)" });
        let name = |c: &i32| char::from(CHARACTERS[*c as usize]).to_string();
        let looks = weights.index_axis(Axis(1), b);
        let values = looks.axis_iter(Axis(0)).map(|row| row.iter().copied().collect()).collect();
        let (rows, columns) = (given.iter().map(name).collect(), new.read.column(b).iter().map(name).collect());
        matrices.push(Matrix { title: format!("{sum} ={answer}"), rows, columns, values });
    }
    println!("{:.2} % of {} sums that were never trained on are exact", 100.0 * exact, new.texts.len());
    if !o.no_attention {
        draw_matrices(&o.picture, &matrices[..4])?;
        println!("where each digit written (rows) looked at the sum (columns): {}", o.picture.display());
    }
    o.common.finish(&serde_json::json!({ "exact": exact, "sums": new.texts.len(), "steps": trainer.steps(), "seconds": clock.seconds() }));
    Ok(())
}
