//! A course of training: how long it takes, and the loop over epochs.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use retrograd::runtime::feed::Feed;
use retrograd::runtime::schedule::Schedule;
use retrograd::runtime::train::Trainer;
use serde_json::Value;

use super::digits::{Batch, Digits};
use super::{Progress, Result, positive, within};

/// Options that every training has.
#[derive(Args, Clone, Debug)]
pub struct Course {
    /// Seed of the initial weights and of all that is drawn by lot
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How often all of the data is learnt [default: as often as suits the data, if there is no --seconds]
    #[arg(long, value_name = "N", value_parser = within(1_000_000))]
    pub epochs: Option<usize>,
    /// Time for the training; what is learnt then depends on how fast the machine is
    #[arg(long, value_name = "N", value_parser = positive)]
    pub seconds: Option<f64>,
    /// Threads; results have the same bits whatever their number [default: one for each core]
    #[arg(long, value_parser = within(1024))]
    threads: Option<usize>,
    /// Ends stdout with one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// What is learnt, and how.
pub struct Lesson<'a> {
    /// The examples.
    pub data: &'a Digits,
    /// How often all of them are learnt, unless the user says how long.
    pub epochs: usize,
    /// How many at once.
    pub batch: usize,
    /// By how many pixels at most they are moved about.
    pub moved: i32,
    /// The highest rate: after a short rise to it, it falls along a cosine.
    pub rate: f64,
    /// How the program is fed.
    pub feed: fn(&Batch) -> Feed<'_>,
}

/// What training saw on its way.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Epochs, with those begun.
    pub epochs: f64,
    /// The running mean of the objective, over epochs.
    pub loss: Vec<(f64, f64)>,
    /// Seconds of it all.
    pub seconds: f64,
    /// Digits learnt in a second.
    pub speed: f64,
    /// How long compiling took.
    pub compile_ms: f64,
}

impl Course {
    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or(std::thread::available_parallelism().map_or(1, |n| n.get()))
    }

    /// Ends stdout with one line of JSON, if that is wanted: what is given, which is an object, and what training saw.
    pub fn report(&self, out: &mut dyn Write, mut result: Value, seen: &Seen) -> Result<()> {
        if self.json {
            result["loss"] = seen.loss.last().map(|p| p.1).into();
            result["epochs"] = seen.epochs.into();
            result["seconds"] = seen.seconds.into();
            result["digits_per_second"] = seen.speed.into();
            result["compile_ms"] = seen.compile_ms.into();
            writeln!(out, "{result}")?;
        }
        Ok(())
    }

    /// Trains until the epochs or the time are over, or `stop` is raised. About ten times on the way `look` says what
    /// there is to say of it.
    pub fn train(
        &self,
        lesson: &Lesson,
        trainer: &mut Trainer,
        stop: &AtomicBool,
        mut look: impl FnMut(&mut Trainer) -> Result<String>,
    ) -> Result<Seen> {
        // The rate follows the part of the training that is behind, in thousandths of a percent.
        let schedule = Schedule::cosine_to(97_000, 0.01).warm_up(3_000);
        let epochs = self.epochs.or(self.seconds.is_none().then_some(lesson.epochs));
        let (batch, count) = (lesson.batch.min(lesson.data.count()), lesson.data.count());
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let (progress, started) = (Progress::start(), Instant::now());
        let (mut busy, mut mean, mut order, mut next_look) = (0.0, None, Vec::new(), 0.1);
        let mut seen = Seen { compile_ms: 1e3 * trainer.compile_time().as_secs_f64(), ..Seen::default() };
        progress.tell(&format!("compiled in {:.0} ms; learns with {} threads", seen.compile_ms, self.threads()));
        for step in 0.. {
            seen.epochs = (step * batch) as f64 / count as f64;
            seen.seconds = started.elapsed().as_secs_f64();
            let parts = [epochs.map(|all| seen.epochs / all as f64), self.seconds.map(|all| seen.seconds / all)];
            let part = parts.into_iter().flatten().fold(0.0, f64::max);
            if part >= 1.0 || stop.load(Ordering::Relaxed) {
                break;
            }
            if let Some(mean) = mean.filter(|_| part >= next_look) {
                next_look = part + 0.1;
                progress.tell(&format!("epoch {:6.1}: loss {mean:.4}, {}", seen.epochs, look(trainer)?));
            }
            // Epochs run into one another, so that every batch is full.
            if order.len() < batch {
                order.splice(..0, lesson.data.shuffled(&mut random));
            }
            let chosen = order.split_off(order.len() - batch);
            let images = lesson.data.moved_batch(&chosen, lesson.moved, &mut random);
            let begun = Instant::now();
            trainer.set_rate(lesson.rate * schedule.factor((part * 1e5) as u64))?;
            let loss = trainer.step(&(lesson.feed)(&images))?.loss;
            busy += begun.elapsed().as_secs_f64();

            let mean = *mean.insert(mean.map_or(loss, |m| 0.98 * m + 0.02 * loss));
            seen.speed = ((step + 1) * batch) as f64 / busy;
            seen.loss.push((seen.epochs, mean));
            progress.show(part, &format!("loss {mean:.4}, {:.1}k digits/s", seen.speed / 1e3));
        }
        Ok(seen)
    }
}
