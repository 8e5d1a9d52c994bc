//! Learns to write text, character by character, from the project's own sources or from a file.
//!
//! ```sh
//! cargo run --release --example char_rnn
//! cargo run --release --example char_rnn -- --text shakespeare.txt --cell gru --seconds 300 --checkpoint sh.safetensors
//! ```
//!
//! Training is by truncated back-propagation: the text is read window by window; states are carried from each window
//! to the next, gradients run back to the start of one. Ctrl-C ends it early with all that an end has: the checkpoint,
//! the validation, a sample, the curve.

pub mod common;
#[path = "char_rnn/options.rs"]
pub mod options;

use std::f64::consts::LN_2;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use common::text::{self, Corpus, Vocabulary, Windows};
use common::{Line, Progress, Result};
use options::{Cell, Options, Rule};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retrograd::cells;
use retrograd::prelude::*;
use retrograd::runtime::checkpoint::Checkpoint;

/// The model: each character's vector through layers of cells, and from the last one's output what comes next.
fn model(o: &Options, characters: usize) -> Result<Program, RecordErrors> {
    let cell = match o.cell {
        Cell::Rnn => cells::rnn,
        Cell::Lstm => cells::lstm,
        Cell::Gru => cells::gru,
    };
    Program::record("char_rnn", |p| {
        let (text, next) = (p.labels_sequence("text"), p.labels_sequence("next")); // i32[T, B]
        let mut x = p.embedding("embedding", text, characters, o.units.min(64));
        for layer in 1..=o.layers {
            x = p.scan(&format!("layer{layer}"), |s| cell(s, s.at(x), o.units)).all();
        }
        let logits = p.affine("readout", x, characters);
        p.output("logits", logits);
        p.minimize(logits.cross_entropy(next));
    })
}

fn main() -> ExitCode {
    common::main(run)
}

/// The whole job, until `stop` is raised at most. Results go to `out`.
pub fn run(o: &Options, stop: &AtomicBool, out: &mut dyn Write) -> Result<()> {
    for file in o.checkpoint.iter().chain([&o.curve]) {
        common::make_directory_of(file)?;
    }
    let resumed = o.checkpoint.as_ref().filter(|file| o.resume && file.exists());
    let vocabulary = resumed.map(|file| vocabulary_of(file, o)).transpose()?;
    if let (Some(file), false) = (o.checkpoint.as_ref().filter(|file| file.exists()), o.resume) {
        eprintln!("{} will be replaced; --resume would go on from it", file.display());
    }
    let files = match &o.text {
        Some(file) => vec![file.clone()],
        None => text::rust_sources(Path::new(env!("CARGO_MANIFEST_DIR")))?,
    };
    let corpus = Corpus::new(&files.iter().map(|file| text::read(file)).collect::<Result<Vec<_>>>()?, vocabulary);
    let (learnt, held_out) = (corpus.train.len(), corpus.held_out.len());
    if learnt <= o.batch * o.window || held_out < 2 {
        let (batch, window, need) = (o.batch, o.window, (o.batch * o.window + 1).max(9) * 10 / 9 + 10);
        let text = format!("the text has {} characters; for --batch {batch} and --window {window}", learnt + held_out);
        return Err(format!("{text} it takes {need}: give a longer text, or a smaller batch or window").into());
    }

    let started = Instant::now();
    let program = model(o, corpus.vocabulary.size())?;
    let rate = o.rate.unwrap_or(o.optimizer.usual_rate());
    let trainer = match o.optimizer {
        Rule::Sgd => program.trainer(Sgd::new(rate).momentum(0.9)),
        Rule::Rmsprop => program.trainer(RmsProp::new(rate)),
        Rule::Adam => program.trainer(Adam::new(rate)),
        Rule::Adamw => program.trainer(AdamW::new(rate)),
    };
    let threads = o.threads.unwrap_or(std::thread::available_parallelism().map_or(1, |n| n.get()));
    let mut trainer = trainer.clip_norm(o.clip).seed(o.seed).threads(threads).carry_state(true).compile()?;
    let compile_ms = 1e3 * started.elapsed().as_secs_f64();
    eprintln!("{}: compiled in {compile_ms:.0} ms for {threads} threads", o.model());
    let size = corpus.vocabulary.size();
    eprintln!("a text of {learnt} characters, {size} different ones; {held_out} more are held out");
    let mut before = 0.0;
    if let Some(file) = resumed {
        let notes = trainer.load_with(file, &["seconds"])?;
        before = notes[0].as_ref().and_then(|n| n.parse().ok()).ok_or("the checkpoint does not say how old it is")?;
        eprintln!("goes on from {} after {} steps and {before:.0} s", file.display(), trainer.steps());
    }

    let mut seen = fit(&mut trainer, &corpus, o, rate, before, stop)?;
    let validation = validate(&mut trainer, &corpus, o, 250_000)?;
    // All points of the curve are of the same text, the last one too.
    let last = validate(&mut trainer, &corpus, o, ON_THE_WAY)?;
    seen.validation.extend(seen.training.last().map(|p| (p.0, last)));
    let lines = [
        Line { name: "training (running mean)", points: &seen.training },
        Line { name: "validation", points: &seen.validation },
    ];
    common::draw(&o.curve, &o.model(), ["characters seen", "bits per character"], &lines)?;
    let sample = write_text(&trainer, &corpus.vocabulary, o)?;
    let (loss, steps) = (seen.training.last().map(|p| p.1), trainer.steps());
    let learnt = loss.map(|bits| {
        format!("{bits:.3} bits per character at {:.0} a second (curve in {}), ", seen.speed, o.curve.display())
    });
    eprintln!("{steps} steps: {}{validation:.3} on held-out text", learnt.unwrap_or_default());
    if o.json {
        eprintln!("\n{sample}\n");
        let result = serde_json::json!({
            "bits_per_char": loss,
            "validation_bits_per_char": validation,
            "chars_per_second": seen.speed,
            "compile_ms": compile_ms,
            "steps": steps,
        });
        writeln!(out, "{result}")?;
    } else {
        writeln!(out, "\n{sample}")?;
    }
    Ok(())
}

/// What training saw on its way: bits per character over the number of characters.
#[derive(Default)]
struct Seen {
    training: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
    speed: f64,
}

/// Trains until the steps or the time are over. The checkpoint has `before` seconds of it behind.
fn fit(trainer: &mut Trainer, corpus: &Corpus, o: &Options, rate: f64, before: f64, stop: &AtomicBool) -> Result<Seen> {
    // The rate follows the part of the training that is behind, in thousandths of a percent.
    let schedule = Schedule::cosine_to(98_000, 0.02).warm_up(2_000);
    let mut windows = Windows::new(&corpus.train, [o.window, o.batch]);
    let characters = |steps: u64| steps as f64 * (o.window * o.batch) as f64;
    let (progress, started, first) = (Progress::start(), Instant::now(), trainer.steps());
    let (mut seen, mut busy, mut mean, mut check) = (Seen::default(), 0.0, None, None);
    loop {
        let seconds = before + started.elapsed().as_secs_f64();
        let part = o.part(trainer.steps(), seconds);
        let over = part >= 1.0 || stop.load(Ordering::Relaxed);
        if over || part >= *check.get_or_insert(part + 0.05) {
            check = Some(part + 0.05);
            if let Some(file) = &o.checkpoint {
                let [model, known] = [("model", o.model()), ("vocabulary", corpus.vocabulary.characters())];
                trainer.save_with(file, &[model, known, ("seconds", seconds.to_string())])?;
            }
            if over {
                return Ok(seen);
            }
            let (loss, steps) = (validate(trainer, corpus, o, ON_THE_WAY)?, trainer.steps());
            seen.validation.push((characters(steps), loss));
            let mean = mean.unwrap_or(f64::NAN);
            progress.tell(&format!("{steps:6} steps: {mean:.3} bits per character, {loss:.3} held out"));
        }
        let begun = Instant::now();
        if trainer.steps().is_multiple_of(32) {
            trainer.reset_state(); // so that it learns to start from nothing, as a sample does
        }
        trainer.set_rate(rate * schedule.factor((part * 1e5) as u64))?;
        let loss = trainer.step(&windows.feed(trainer.steps()))?.loss / LN_2;
        busy += begun.elapsed().as_secs_f64();

        let mean = *mean.insert(mean.map_or(loss, |m| 0.98 * m + 0.02 * loss));
        seen.speed = characters(trainer.steps() - first) / busy;
        seen.training.push((characters(trainer.steps()), mean));
        progress.show(part, &format!("{mean:.3} bits/char, {:.1}k chars/s", seen.speed / 1e3));
    }
}

/// Characters of held-out text for each point of the curve.
const ON_THE_WAY: usize = 16_000;

/// Bits per character of held-out text, of about `most` characters of it.
fn validate(trainer: &mut Trainer, corpus: &Corpus, o: &Options, most: usize) -> Result<f64> {
    let mut windows = Windows::at_most(&corpus.held_out, [o.window, 64]);
    let count = windows.count().min(most / windows.characters()).max(1);
    trainer.reset_evaluation();
    let losses = (0..count).map(|n| trainer.evaluate(&windows.feed(n as u64)));
    Ok(losses.sum::<Result<f64, _>>()? / count as f64 / LN_2)
}

/// Lets the model write: each character that is chosen is its next input.
fn write_text(trainer: &Trainer, vocabulary: &Vocabulary, o: &Options) -> Result<String> {
    let mut stream = trainer.stream(1)?;
    let mut random = ChaCha8Rng::seed_from_u64(o.seed);
    let mut logits = vec![0.0; vocabulary.size()];
    let mut written = String::new();
    let mut prompt = o.prompt.chars();
    let mut c = prompt.next().unwrap_or('\n');
    for _ in 0..o.sample {
        written.push(c);
        stream.set_i32("text", &[vocabulary.number(c)])?;
        stream.advance()?;
        stream.get_f32("logits", &mut logits)?;
        let chosen = || vocabulary.character(text::choose(&logits, o.temperature, random.random()));
        c = prompt.next().unwrap_or_else(chosen);
    }
    Ok(written)
}

/// The vocabulary of a checkpoint of this model.
fn vocabulary_of(file: &Path, o: &Options) -> Result<Vocabulary> {
    let checkpoint = Checkpoint::load(file)?;
    let note = |key| checkpoint.get_note(key);
    match (note("user.model"), note("user.vocabulary").and_then(Vocabulary::parse)) {
        (Some(model), Some(vocabulary)) if model == o.model() => Ok(vocabulary),
        (Some(model), Some(_)) => Err(format!("{} is of {model}; asked for is {}", file.display(), o.model()).into()),
        _ => Err(format!("{} is not a checkpoint of this program", file.display()).into()),
    }
}
