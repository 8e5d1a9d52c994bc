//! A course of training: the options that every example has, how long it takes, and the loop over steps.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Args;
use retrograd::runtime::feed::Feed;
use retrograd::runtime::schedule::Schedule;
use retrograd::runtime::train::Trainer;
use serde_json::Value;

use super::{Progress, Result, positive, within};

/// Options that every training has.
#[derive(Args, Clone, Debug)]
pub struct Course {
    /// Seed of the initial weights and of all that is drawn by lot
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Steps of training, or runs to measure [default: as many as suit the example, if there is no --seconds]
    #[arg(long, value_name = "N", value_parser = within(1_000_000_000))]
    pub steps: Option<usize>,
    /// Time for that; what is learnt then depends on how fast the machine is
    #[arg(long, value_name = "N", value_parser = positive)]
    pub seconds: Option<f64>,
    /// Threads; results have the same bits whatever their number [default: one for each core]
    #[arg(long, value_parser = within(1024))]
    pub threads: Option<usize>,
    /// Ends stdout with one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// How something is learnt.
pub struct Lesson<B> {
    /// Samples of one step.
    pub batch: usize,
    /// The highest rate: after a short rise to it, it falls along a cosine.
    pub rate: f64,
    /// How the program is fed.
    pub feed: fn(&B) -> Feed<'_>,
}

/// What training saw on its way.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Steps taken.
    pub steps: usize,
    /// The running mean of the objective, over steps.
    pub loss: Vec<(f64, f64)>,
    /// Seconds of it all.
    pub seconds: f64,
    /// Samples learnt in a second.
    pub speed: f64,
    /// How long compiling took.
    pub compile_ms: f64,
}

/// How much of a training is behind.
pub struct Clock<'s> {
    started: Instant,
    steps: Option<usize>,
    seconds: Option<f64>,
    stop: &'s AtomicBool,
}

impl Clock<'_> {
    /// The part that is behind after so many steps, 0 to 1. Ctrl-C ends it.
    pub fn part(&self, steps: usize) -> f64 {
        if self.stop.load(Ordering::Relaxed) {
            return 1.0;
        }
        let parts = [self.steps.map(|all| steps as f64 / all as f64), self.seconds.map(|all| self.seconds() / all)];
        parts.into_iter().flatten().fold(0.0, f64::max).min(1.0)
    }

    /// Seconds that are behind.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

impl Course {
    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or(std::thread::available_parallelism().map_or(1, |n| n.get()))
    }

    /// A clock that runs for so many steps, unless the user says how long. Of a time that is given it runs for a share.
    pub fn clock<'s>(&self, steps: usize, share: f64, stop: &'s AtomicBool) -> Clock<'s> {
        let steps = self.steps.or(self.seconds.is_none().then_some(steps));
        Clock { started: Instant::now(), steps, seconds: self.seconds.map(|all| share * all), stop }
    }

    /// A clock that runs for so many seconds, unless the user says how long.
    pub fn clock_of_seconds<'s>(&self, seconds: f64, stop: &'s AtomicBool) -> Clock<'s> {
        let seconds = self.seconds.or(self.steps.is_none().then_some(seconds));
        Clock { started: Instant::now(), steps: self.steps, seconds, stop }
    }

    /// Ends stdout with one line of JSON, if that is wanted: what is given, which is an object, and what training saw.
    pub fn report(&self, out: &mut dyn Write, mut result: Value, seen: &Seen) -> Result<()> {
        seen.note(&mut result);
        self.finish(out, &result)
    }

    /// Ends stdout with one line of JSON, if that is wanted.
    pub fn finish(&self, out: &mut dyn Write, result: &Value) -> Result<()> {
        if self.json {
            writeln!(out, "{result}")?;
        }
        Ok(())
    }

    /// Trains on one batch after another until the clock is at its end. A batch is given the part of the training that
    /// is behind. About ten times on the way `look` says what there is to say of it.
    pub fn train<B>(
        &self,
        lesson: &Lesson<B>,
        trainer: &mut Trainer,
        clock: &Clock,
        mut batch: impl FnMut(f64) -> B,
        mut look: impl FnMut(&mut Trainer) -> Result<String>,
    ) -> Result<Seen> {
        // The rate follows the part of the training that is behind, in thousandths of a percent.
        let schedule = Schedule::cosine_to(97_000, 0.01).warm_up(3_000);
        let (progress, mut busy, mut mean, mut next_look) = (Progress::start(), 0.0, None, 0.1);
        let mut seen = Seen { compile_ms: 1e3 * trainer.compile_time().as_secs_f64(), ..Seen::default() };
        progress.tell(&format!("compiled in {:.0} ms; learns with {} threads", seen.compile_ms, self.threads()));
        loop {
            seen.seconds = clock.seconds();
            let part = clock.part(seen.steps);
            if part >= 1.0 {
                return Ok(seen);
            }
            if let Some(mean) = mean.filter(|_| part >= next_look) {
                next_look = part + 0.1;
                progress.tell(&format!("{:6} steps: loss {mean:.4}, {}", seen.steps, look(trainer)?));
            }
            let given = batch(part);
            let begun = Instant::now();
            trainer.set_rate(lesson.rate * schedule.factor((part * 1e5) as u64))?;
            let loss = trainer.step(&(lesson.feed)(&given))?.loss;
            busy += begun.elapsed().as_secs_f64();

            seen.steps += 1;
            let mean = *mean.insert(mean.map_or(loss, |m| 0.98 * m + 0.02 * loss));
            seen.speed = (seen.steps * lesson.batch) as f64 / busy;
            seen.loss.push((seen.steps as f64, mean));
            progress.show(part, &format!("loss {mean:.4}, {:.1}k samples/s", seen.speed / 1e3));
        }
    }
}

impl Seen {
    /// Adds it to an object.
    pub fn note(&self, result: &mut Value) {
        result["loss"] = self.loss.last().map(|p| p.1).into();
        result["steps"] = self.steps.into();
        result["seconds"] = self.seconds.into();
        result["samples_per_second"] = self.speed.into();
        result["compile_ms"] = self.compile_ms.into();
    }
}
