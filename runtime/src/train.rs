//! Training and streaming: a recorded program with an optimiser, compiled once, fed batch after batch.
//!
//! One compiled program does a whole step: forward, backward, clipping and the optimiser's update. Evaluation and
//! streaming are compiled from the same recording without the backward part, when they are first asked for, and
//! take over the present parameters.
//!
//! With **carried state** each step's sequences continue those of the step before: the states of all forward loops start
//! where they ended, and gradients run back to the start of what the step is given. **Truncated back-propagation**
//! ([`truncate`](TrainerBuilder::truncate)) is that with a number of steps from update to update and another that
//! gradients run back over; [`windows`](crate::windows) says exactly which. A step's inputs may end and begin sequences
//! of single samples: [`reset_samples`](Trainer::reset_samples) between steps, and within them a loop that was recorded
//! with [`reset_where`](retrograd_compiler::record::TimeAxis::reset_where).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use ndarray::{ArrayD, ArrayViewD, arr0};
use retrograd_compiler::error::Place;
use retrograd_compiler::ir::{Axis, Extent, Op, Program, Sizes, Value};
use retrograd_compiler::plan::Checkpointing;
use retrograd_compiler::time::{self, TruncateError};

use crate::checkpoint::Checkpoint;
use crate::decode::Decoder;
use crate::error::{DecodeError, RunError, nearest};
use crate::feed::Feed;
use crate::flush::Flushing;
use crate::optimizer::{self, Clip, GRADIENT_NORM, Optimizer, RATE, STEP};
use crate::schedule::Schedule;
use crate::session::Session;
use crate::settings::{InstructionSet, Settings};
pub use crate::stream::Stream;
use crate::tensor::Item;
use crate::windows::{Truncation, Window, Windows};

/// What one step of training did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// The objective, before the step.
    pub loss: f64,
    /// Norm of all gradients together, before clipping.
    pub gradient_norm: f64,
}

/// Asks for training of a program; see [`Training::trainer`].
#[must_use = "compile it"]
pub struct TrainerBuilder<'a> {
    program: &'a Program,
    optimizer: Box<dyn Optimizer>,
    clip: Clip,
    schedule: Schedule,
    seed: u64,
    settings: Settings,
    carry: bool,
    truncation: Option<Truncation>,
    frozen: Vec<String>,
    outputs: Vec<String>,
}

/// What can be done with a recorded program, as methods of it.
pub trait Training {
    /// Training with an optimiser.
    ///
    /// ```
    /// use ndarray::{array, Array2};
    /// use retrograd_compiler::ir::Program;
    /// use retrograd_runtime::feed::Feed;
    /// use retrograd_runtime::optimizer::Adam;
    /// use retrograd_runtime::train::Training;
    ///
    /// let program = Program::record("line", |p| {
    ///     let (x, y) = (p.input("x", 1), p.input("y", 1));
    ///     p.minimize(p.affine("line", x, 1).mse(y));
    /// })?;
    /// let mut trainer = program.trainer(Adam::new(0.1)).clip_norm(5.0).seed(1).compile()?;
    /// let x: Array2<f32> = array![[0.0], [1.0], [2.0]];
    /// let y = &x * 2.0 + 1.0;
    /// let feed = Feed::new().f32("x", x.view()).f32("y", y.view());
    /// let before = trainer.step(&feed)?.loss;
    /// for _ in 0..300 {
    ///     trainer.step(&feed)?;
    /// }
    /// assert!(trainer.evaluate(&feed)? < 1e-3 * before);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn trainer(&self, optimizer: impl Optimizer + 'static) -> TrainerBuilder<'_>;

    /// The program with these outputs alone, and its objective. Inputs that only the others read are gone, so nobody asks
    /// for them.
    ///
    /// ```
    /// use retrograd_compiler::ir::Program;
    /// use retrograd_runtime::train::Training;
    ///
    /// let program = Program::record("two", |p| {
    ///     let (x, target) = (p.sequence("x", 3), p.sequence("target", 3));
    ///     let y = p.affine("y", x, 3);
    ///     p.output("y", y);
    ///     p.output("errors", y.mse(target));
    /// })?;
    /// assert!(program.only(&["y"])?.input("target").is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// An output that the program does not have.
    fn only(&self, outputs: &[&str]) -> Result<Program, RunError>;

    /// The program compiled for one step at a time, with parameters as their initialisers give them.
    ///
    /// # Errors
    /// If no output of the program can be computed step by step (see [`stream`](crate::stream)), or the program cannot be
    /// compiled for this machine; or if there is no memory for so many samples.
    fn stream(&self, batch: usize, seed: u64) -> Result<Stream, RunError> {
        self.stream_with(batch, seed, Settings::new())
    }

    /// As [`stream`](Training::stream), with settings. Of these, checkpointing has no meaning for single steps.
    ///
    /// # Errors
    /// As there, and for an instruction set that this machine does not have.
    fn stream_with(&self, batch: usize, seed: u64, settings: impl Into<Settings>) -> Result<Stream, RunError>;

    /// The part of the program that runs along a time axis, for writing symbol after symbol: see
    /// [`decode`](crate::decode). Parameters are as their initialisers give them.
    ///
    /// # Errors
    /// If there is no such axis, the program cannot run along it, or it cannot be compiled.
    fn decoder(&self, axis: &str, seed: u64) -> Result<Decoder, DecodeError> {
        self.decoder_with(axis, seed, Settings::new())
    }

    /// As [`decoder`](Training::decoder), with settings. Of these, checkpointing has no meaning for single steps.
    ///
    /// # Errors
    /// As there, and for an instruction set that this machine does not have.
    fn decoder_with(&self, axis: &str, seed: u64, settings: impl Into<Settings>) -> Result<Decoder, DecodeError>;
}

impl Training for Program {
    fn trainer(&self, optimizer: impl Optimizer + 'static) -> TrainerBuilder<'_> {
        TrainerBuilder {
            program: self,
            optimizer: Box::new(optimizer),
            clip: Clip::default(),
            schedule: Schedule::constant(),
            seed: 0,
            settings: Settings::new(),
            carry: false,
            truncation: None,
            frozen: Vec::new(),
            outputs: Vec::new(),
        }
    }

    fn only(&self, outputs: &[&str]) -> Result<Program, RunError> {
        let known: Vec<&str> = self.outputs.iter().map(|(name, _)| name.as_str()).collect();
        if let Some(&given) = outputs.iter().find(|name| !known.contains(name)) {
            return Err(RunError::UnknownOutput {
                given: given.to_string(),
                nearest: nearest(given, known.iter().copied()).map(str::to_string),
                declared: known.into_iter().map(str::to_string).collect(),
            });
        }
        Ok(time::restrict(self, |name| outputs.contains(&name)))
    }

    fn stream_with(&self, batch: usize, seed: u64, settings: impl Into<Settings>) -> Result<Stream, RunError> {
        let mut stream = Stream::new(self, batch, settings.into())?;
        stream.initialise(seed)?;
        Ok(stream)
    }

    fn decoder_with(&self, axis: &str, seed: u64, settings: impl Into<Settings>) -> Result<Decoder, DecodeError> {
        let mut decoder = Decoder::new(self, axis, settings.into())?;
        decoder.initialise(seed)?;
        Ok(decoder)
    }
}

impl TrainerBuilder<'_> {
    /// Limits the norm of all gradients together.
    pub fn clip_norm(mut self, limit: f64) -> Self {
        self.clip.norm = Some(limit);
        self
    }

    /// Limits the absolute value of each gradient's elements.
    pub fn clip_value(mut self, limit: f64) -> Self {
        self.clip.value = Some(limit);
        self
    }

    /// How the optimiser's rate changes from step to step. [`compile`](TrainerBuilder::compile) refuses one that is no
    /// [course of rates](Schedule::check).
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Seed of the parameters' initial values.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Number of threads. Results have the same bits whatever it is.
    pub fn threads(mut self, threads: usize) -> Self {
        self.settings = self.settings.threads(threads);
        self
    }

    /// Whether each step goes on from the states where the last one ended, with gradients over the step's sequences.
    pub fn carry_state(mut self, carry: bool) -> Self {
        self.carry = carry;
        self
    }

    /// Truncated back-propagation (Williams & Peng, 1990): an update every `k1` steps, with gradients back over the last
    /// `k2`; the state is carried forward for ever. With k2 < k1 the last k2 of the k1 steps have a loss; with
    /// k2 ≥ k1 all have, and with k2 > k1 the k2 − k1 steps before are gone through again, with the present weights.
    /// [`windows`](crate::windows) says it for beginnings and ends too.
    ///
    /// ```
    /// # use ndarray::Array3;
    /// # use retrograd_compiler::ir::Program;
    /// # use retrograd_runtime::{feed::Feed, optimizer::Sgd, train::Training};
    /// let program = Program::record("echo", |p| {
    ///     let (x, y) = (p.sequence("x", 1), p.sequence("y", 1));
    ///     let run = p.scan("rnn", |s| {
    ///         let h = s.state("h", 4);
    ///         s.next(h, (s.linear("h", h, 4) + s.affine("x", s.at(x), 4)).tanh())
    ///     });
    ///     p.minimize(p.affine("out", run.all(), 1).mse(y));
    /// })?;
    /// let mut trainer = program.trainer(Sgd::new(0.1)).truncate(4, 10).compile()?;
    /// let x = Array3::from_shape_fn((22, 2, 1), |(t, b, _)| ((t + b) % 3) as f32);
    /// let feed = Feed::new().f32("x", x.view()).f32("y", x.view());
    /// let reports = trainer.sequence(&feed)?; // 22 steps: five updates after 4 each, one after the last 2
    /// assert_eq!((reports.len(), trainer.steps()), (6, 6));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The program has one time axis, and its loops run forwards, from step to step;
    /// [`separable`](retrograd_compiler::time::truncate::separable) says what else is no sequence of steps.
    pub fn truncate(mut self, k1: usize, k2: usize) -> Self {
        self.truncation = Some(Truncation { k1, k2 });
        self
    }

    /// Keeps only some states of the loops and computes what the backward pass needs of the steps between again: memory
    /// for time, where sequences are long. Gradients have the same bits as without. Evaluation, which has memory of its own,
    /// is compiled alike; a stream has one step at a time and needs none of it.
    ///
    /// ```
    /// use retrograd_compiler::ir::{Program, Sizes};
    /// use retrograd_compiler::plan::Checkpointing;
    /// use retrograd_runtime::optimizer::Adam;
    /// use retrograd_runtime::train::Training;
    ///
    /// let program = Program::record("long", |p| {
    ///     let (x, y) = (p.sequence("x", 1), p.sequence("y", 1));
    ///     let run = p.scan("rnn", |s| {
    ///         let h = s.state("h", 32);
    ///         s.next(h, (s.linear("h", h, 32) + s.affine("x", s.at(x), 32)).tanh())
    ///     });
    ///     p.minimize(p.affine("readout", run.all(), 1).mse(y));
    /// })?;
    /// let limit = 8 << 20; // 8 MiB
    /// let trainer = program.trainer(Adam::new(1e-3)).checkpointing(Checkpointing::Fit(limit)).compile()?;
    /// let plan = &trainer.session().compiled().plan;
    /// assert!(plan.memory(&Sizes::new(1000, 16)) <= limit); // 16 sequences of 1000 steps
    /// assert!(plan.memory(&Sizes::new(1000, 256)) > limit); // are few enough, 256 are not: the run is refused
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn checkpointing(mut self, checkpointing: Checkpointing) -> Self {
        self.settings = self.settings.checkpointing(checkpointing);
        self
    }

    /// The instructions that training uses, and evaluation, streams and decoders of this trainer; the fastest that the
    /// machine has if it is not said here or by the environment variable `RETROGRAD_INSTRUCTION_SET`. Different sets may
    /// give different bits.
    ///
    /// ```
    /// use retrograd_compiler::ir::Program;
    /// use retrograd_runtime::optimizer::Sgd;
    /// use retrograd_runtime::settings::InstructionSet;
    /// use retrograd_runtime::train::Training;
    ///
    /// let program = Program::record("line", |p| {
    ///     p.minimize(p.affine("line", p.input("x", 1), 1).mse(p.input("y", 1)));
    /// })?;
    /// let trainer = program.trainer(Sgd::new(0.1)).instruction_set(InstructionSet::Portable).compile()?;
    /// assert_eq!(trainer.session().compiled().instruction_set, InstructionSet::Portable);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn instruction_set(mut self, set: InstructionSet) -> Self {
        self.settings = self.settings.instruction_set(set);
        self
    }

    /// Leaves parameters as they are whose name fits the pattern, in which `*` stands for any letters: `"encoder.*"`. No
    /// gradient of them is computed, their norm does not count for clipping, and the optimiser does not see them, so no
    /// decay shrinks them.
    ///
    /// A parameter that no gradient reaches, behind `stop_gradient` for instance, is left alone in any case.
    ///
    /// ```
    /// # use ndarray::array;
    /// # use retrograd_compiler::ir::Program;
    /// # use retrograd_runtime::{feed::Feed, optimizer::AdamW, train::Training};
    /// let program = Program::record("two", |p| {
    ///     let hidden = p.affine("below", p.input("x", 2), 3).tanh();
    ///     p.minimize(p.affine("above", hidden, 1).square().sum());
    /// })?;
    /// let mut trainer = program.trainer(AdamW::new(0.1)).freeze("below.*").compile()?;
    /// let [below, above] = ["below.w", "above.w"].map(|name| trainer.parameter(name));
    /// trainer.step(&Feed::new().f32("x", array![[1.0, -1.0]].view()))?;
    /// assert!(trainer.parameter("below.w") == below && trainer.parameter("above.w") != above);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn freeze(mut self, pattern: impl Into<String>) -> Self {
        self.frozen.push(pattern.into());
        self
    }

    /// Computes these outputs of the program in each step of training, where [`Trainer::output`] reads them: without it a
    /// step computes what the loss needs and no more.
    ///
    /// ```
    /// # use ndarray::array;
    /// # use retrograd_compiler::ir::Program;
    /// # use retrograd_runtime::{feed::Feed, optimizer::Sgd, train::Training};
    /// let program = Program::record("classes", |p| {
    ///     let logits = p.affine("logits", p.input("x", 2), 3);
    ///     p.output("class", logits.argmax());
    ///     p.minimize(logits.cross_entropy(p.labels("label")));
    /// })?;
    /// let mut trainer = program.trainer(Sgd::new(0.1)).outputs(&["class"]).compile()?;
    /// let (x, label) = (array![[1.0, -1.0], [0.5, 2.0]], array![2, 0]);
    /// trainer.step(&Feed::new().f32("x", x.view()).i32("label", label.view()))?;
    /// let classes = trainer.output_i32("class").unwrap();
    /// assert_eq!(classes.shape(), [2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn outputs(mut self, names: &[&str]) -> Self {
        self.outputs.extend(names.iter().map(|name| name.to_string()));
        self
    }

    /// The program that is trained: with the outputs that are wanted of a step, and without training what is frozen.
    fn trained(&self) -> Result<Program, RunError> {
        let outputs: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        let program = self.program.only(&outputs)?;
        let names = || program.parameters.iter().map(|p| p.name.as_str());
        if let Some(given) = self.frozen.iter().find(|pattern| !names().any(|name| fits(pattern, name))) {
            return Err(RunError::UnknownParameter {
                given: given.clone(),
                nearest: nearest(given, names()).map(str::to_string),
                declared: names().map(str::to_string).collect(),
            });
        }
        Ok(program.freeze(|name| self.frozen.iter().any(|pattern| fits(pattern, name))).in_training())
    }

    /// Differentiates, compiles and initialises.
    ///
    /// # Errors
    /// A program without an objective, or one that cannot be truncated, or its states not carried, where that is asked for;
    /// settings without a meaning; a machine that cannot be compiled for.
    pub fn compile(self) -> Result<Trainer, RunError> {
        let _flushing = Flushing::begin();
        let failed = |reason: Box<dyn std::error::Error + Send + Sync>| RunError::Compile {
            program: self.program.name.clone(),
            reason,
        };
        if self.settings.threads == 0 {
            return Err(RunError::Setting {
                setting: "threads".to_string(),
                given: "0".to_string(),
                allowed: "at least 1 is needed".to_string(),
            });
        }
        self.schedule.check()?;
        let started = Instant::now();
        let recorded = self.trained()?;
        if let (true, Some(objective)) = (self.carry, recorded.objective) {
            carries(&recorded, objective).map_err(|e| failed(Box::new(e)))?;
        }
        let windows = match self.carry || self.truncation.is_some() {
            // Without an objective nothing carries a state: let derivatives say what is missing.
            true if recorded.objective.is_some() => Some(Windows::with_outputs(&recorded, self.truncation)?),
            _ => None,
        };
        let program = windows.as_ref().map_or(&recorded, Windows::program);
        let joint = program.backward().map_err(|e| failed(Box::new(e)))?;
        let mut times = vec![("differentiate", started.elapsed())];
        let recording = Instant::now();
        let training = optimizer::training_program(&joint, &*self.optimizer, self.clip)?;
        let training =
            training.with_outputs(|name| name == GRADIENT_NORM || self.outputs.iter().any(|own| own == name));
        times.push(("record the optimiser", recording.elapsed()));
        let states = windows.as_ref().map_or(Vec::new(), Windows::states);
        let mut session = Session::carrying(&training, states, self.settings)?;
        times.extend(&session.compiled().times);
        let initialising = Instant::now();
        session.initialise(self.seed)?;
        times.push(("initialise", initialising.elapsed()));
        let compile_time = started.elapsed();
        Ok(Trainer {
            program: self.program.clone(),
            session,
            evaluation: None,
            prediction: None,
            rate: self.optimizer.rate(),
            optimizer: self.optimizer.name().to_string(),
            schedule: self.schedule,
            steps: 0,
            version: 0,
            windows,
            settings: self.settings,
            compile_time,
            times,
        })
    }
}

/// A rate that training may have, as [`RATE_ALLOWED`] says it.
fn is_rate(rate: f64) -> bool {
    (0.0..=f64::from(f32::MAX)).contains(&rate)
}

const RATE_ALLOWED: &str = "a number of at least 0 is needed that 32 bits hold";

/// A program in training.
pub struct Trainer {
    program: Program,
    session: Session<f32>,
    /// With the version of the parameters that it has.
    evaluation: Option<(Session<f32>, u64)>,
    /// The outputs, their session, and the version of the parameters that it has.
    prediction: Option<(Vec<String>, Session<f32>, u64)>,
    rate: f64,
    optimizer: String,
    schedule: Schedule,
    steps: u64,
    /// Changes whenever parameters do.
    version: u64,
    /// How states are carried from step to step, if they are.
    windows: Option<Windows>,
    settings: Settings,
    compile_time: Duration,
    times: Vec<(&'static str, Duration)>,
}

impl Trainer {
    /// One step of training on a batch, or on the next window of it if states are carried.
    ///
    /// # Errors
    /// Whatever is wrong with the inputs, or a loss or gradient that is not finite. The step is refused then: parameters,
    /// the optimiser's states, what the program itself [updates](retrograd_compiler::record::Recorder::update) and states
    /// that are carried are as they were before it, to the bit, and the next step goes on from there. With truncation, more
    /// than k1 steps.
    pub fn step(&mut self, feed: &Feed) -> Result<Report, RunError> {
        let feed = self.asked(feed, &self.session);
        let window = match &self.windows {
            Some(windows) => windows.whole(&feed),
            None => Window { feed: feed.reborrow(), then: 1 },
        };
        self.update(&window)
    }

    fn update(&mut self, window: &Window) -> Result<Report, RunError> {
        // The rate of a schedule is everybody's, too.
        let _flushing = Flushing::begin();
        let (rate, number) = (arr0(self.rate() as f32), arr0((self.steps + 1) as f32));
        let own = Feed::new().f32(RATE, rate.view()).f32(STEP, number.view());
        let (going, seen) = (self.session.going(), self.session.seen());
        let position = match &mut self.windows {
            Some(windows) => Some(windows.advance(&mut self.session, window, &own)?),
            None => {
                // What the optimiser is given beside it is not the user's to give.
                window.feed.check_names(&self.program)?;
                self.session.run(&window.feed.reborrow().and(&own))?;
                None
            }
        };
        let loss = self.session.objective().expect("a trained program has an objective");
        let gradient_norm = self.session.scalar(GRADIENT_NORM).expect("the optimiser gives it");
        let refused = if !loss.is_finite() {
            Some(RunError::NonFiniteLoss { step: self.steps + 1, loss })
        } else if !gradient_norm.is_finite() {
            Some(RunError::NonFiniteGradient { step: self.steps + 1, norm: gradient_norm })
        } else {
            None
        };
        if let Some(refused) = refused {
            self.session.take_back(seen);
            // The program has kept what is stored. States that this step was to begin with begin with the next.
            if going.is_none() {
                self.session.reset_state();
            }
            return Err(refused);
        }
        if let (Some(windows), Some(position)) = (&mut self.windows, position) {
            windows.resume(position);
        }
        self.steps += 1;
        self.version += 1;
        Ok(Report { loss, gradient_norm })
    }

    /// Trains on sequences of any length, with a step for every k1 steps of them and one for what is left; with one step
    /// for all if there is no [`truncation`](TrainerBuilder::truncate). The next call goes on where this one ends.
    ///
    /// # Errors
    /// Those of [`step`](Trainer::step). The steps before the one that failed are taken; [`steps`](Trainer::steps) has
    /// counted them.
    pub fn sequence(&mut self, feed: &Feed) -> Result<Vec<Report>, RunError> {
        match &self.windows {
            Some(windows) => {
                let feed = self.asked(feed, &self.session);
                windows.cut(&feed)?.iter().map(|window| self.update(window)).collect()
            }
            None => Ok(vec![self.step(feed)?]),
        }
    }

    /// The objective on a batch with the present parameters. States are carried from one evaluation to the next where
    /// training carries them.
    ///
    /// # Errors
    /// Whatever is wrong with the inputs.
    pub fn evaluate(&mut self, feed: &Feed) -> Result<f64, RunError> {
        let _flushing = Flushing::begin();
        self.evaluation()?;
        let (session, _) = self.evaluation.as_ref().expect("just made");
        let feed = self.asked(feed, session);
        let (session, _) = self.evaluation.as_mut().expect("just made");
        session.run(&feed)?;
        Ok(session.objective().expect("a trained program has an objective"))
    }

    /// A float output of the last evaluation; `None` if there is none of this name, or no evaluation has been run.
    pub fn evaluated(&self, name: &str) -> Option<ArrayD<f32>> {
        self.evaluation.as_ref()?.0.output(name)
    }

    /// An integer output of the last evaluation.
    pub fn evaluated_i32(&self, name: &str) -> Option<ArrayD<i32>> {
        self.evaluation.as_ref()?.0.output_i32(name)
    }

    /// A float output of the last step of training, one of those that [`TrainerBuilder::outputs`] asked for, as it was
    /// before the step's update. With truncation it has the steps of the window that the loss is of.
    pub fn output(&self, name: &str) -> Option<ArrayD<f32>> {
        self.session.output(name)
    }

    /// An integer output of the last step of training; see [`output`](Trainer::output).
    pub fn output_i32(&self, name: &str) -> Option<ArrayD<i32>> {
        self.session.output_i32(name)
    }

    /// Computes outputs with the present parameters, without the objective: only inputs that these outputs need are asked
    /// for, so no targets. States start anew. Read them with [`Session::output`] and [`Session::output_i32`].
    ///
    /// ```
    /// # use ndarray::array;
    /// # use retrograd_compiler::ir::Program;
    /// # use retrograd_runtime::{feed::Feed, optimizer::Sgd, train::Training};
    /// let program = Program::record("classes", |p| {
    ///     let logits = p.affine("logits", p.input("x", 2), 3);
    ///     p.output("class", logits.argmax());
    ///     p.minimize(logits.cross_entropy(p.labels("label")));
    /// })?;
    /// let mut trainer = program.trainer(Sgd::new(0.1)).compile()?;
    /// let x = array![[1.0, -1.0], [0.5, 2.0]];
    /// let classes = trainer.predict(&["class"], &Feed::new().f32("x", x.view()))?.output_i32("class").unwrap();
    /// assert_eq!(classes.shape(), [2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// What a feed has for other parts of the program is ignored, so it may be that of a step.
    ///
    /// # Errors
    /// An output that the program does not have, and whatever is wrong with the inputs. The program is compiled at the first
    /// call, and when other outputs are asked for than in the last one.
    pub fn predict(&mut self, outputs: &[&str], feed: &Feed) -> Result<&Session<f32>, RunError> {
        let known =
            self.prediction.take().filter(|(names, ..)| names.iter().map(String::as_str).eq(outputs.iter().copied()));
        let (names, mut session, at) = match known {
            Some(prediction) => prediction,
            None => {
                let program = self.program.without_objective().only(outputs)?.outside_training();
                let session = Session::with_carried(&program, Vec::new(), self.settings)?;
                (outputs.iter().map(|name| name.to_string()).collect(), session, u64::MAX)
            }
        };
        if at != self.version {
            self.share_parameters(&mut session);
        }
        let feed = self.asked(feed, &session);
        let ran = session.run(&feed);
        let (_, session, _) = self.prediction.insert((names, session, self.version));
        ran.map(|()| &*session)
    }

    fn evaluation(&mut self) -> Result<(), RunError> {
        let (mut session, at) = match self.evaluation.take() {
            Some(evaluation) => evaluation,
            None => {
                let program = self.program.outside_training();
                let (program, carried) = match self.windows {
                    Some(_) => time::carry_state(&program),
                    None => (program, Vec::new()),
                };
                (Session::with_carried(&program, carried, self.settings)?, u64::MAX)
            }
        };
        if at != self.version {
            self.share_parameters(&mut session);
        }
        self.evaluation = Some((session, self.version));
        Ok(())
    }

    /// A feed without the inputs that the recorded program has and this part of it does not read: one feed serves training,
    /// evaluation and prediction.
    fn asked<'f>(&self, feed: &'f Feed, session: &Session<f32>) -> Feed<'f> {
        let program = session.program();
        feed.only(|name| program.input(name).is_some() || self.program.input(name).is_none())
    }

    fn share_parameters(&self, session: &mut Session<f32>) {
        session.take_parameters(&self.session);
    }

    /// Training starts its next window from the initial states.
    pub fn reset_state(&mut self) {
        self.session.reset_state();
    }

    /// These samples begin anew in the next step of training: their states start from the initial values, and no
    /// gradient runs back across that. The others go on.
    ///
    /// # Errors
    /// A sample that the batch of the last step did not have. States that are not carried begin anew in any case.
    pub fn reset_samples(&mut self, samples: &[usize]) -> Result<(), RunError> {
        let (Some(windows), Some(batch)) = (&mut self.windows, self.session.going()) else { return Ok(()) };
        if let Some(sample) = samples.iter().find(|&&b| b >= batch) {
            return Err(RunError::Setting {
                setting: "a sample that is to begin anew".to_string(),
                given: sample.to_string(),
                allowed: format!("the last step had a batch of {batch}: allowed are 0 to {}", batch - 1),
            });
        }
        windows.reset_samples(samples);
        Ok(())
    }

    /// So does evaluation.
    pub fn reset_evaluation(&mut self) {
        if let Some((session, _)) = &mut self.evaluation {
            session.reset_state();
        }
    }

    /// The program one step at a time, with the present parameters. See [`stream`](crate::stream) for the outputs that it
    /// has and the inputs that it asks for; `trainer.program().only(..)` has fewer of both.
    ///
    /// # Errors
    /// If no output can be computed step by step, the program cannot be compiled, or there is no memory for so many
    /// samples.
    pub fn stream(&self, batch: usize) -> Result<Stream, RunError> {
        self.stream_of(&[], batch)
    }

    /// As [`stream`](Trainer::stream), of these outputs alone; of all, if none is named.
    ///
    /// # Errors
    /// As there, and an output that the program does not have.
    pub fn stream_of(&self, outputs: &[&str], batch: usize) -> Result<Stream, RunError> {
        let settings = self.settings.threads(1);
        let mut stream = match outputs {
            [] => Stream::new(&self.program, batch, settings)?,
            _ => Stream::new(&self.program.only(outputs)?, batch, settings)?,
        };
        self.share_parameters(&mut stream.session);
        Ok(stream)
    }

    /// The part of the program that runs along a time axis, for writing symbol after symbol with the present parameters:
    /// see [`decode`](crate::decode).
    ///
    /// # Errors
    /// If there is no such axis, the program cannot run along it, or it cannot be compiled.
    pub fn decoder(&self, axis: &str) -> Result<Decoder, DecodeError> {
        self.decoder_of(&[], axis)
    }

    /// As [`decoder`](Trainer::decoder), of these outputs alone; of all, if none is named.
    ///
    /// # Errors
    /// As there, and an output that the program does not have.
    pub fn decoder_of(&self, outputs: &[&str], axis: &str) -> Result<Decoder, DecodeError> {
        let settings = self.settings.threads(1);
        let mut decoder = match outputs {
            [] => Decoder::new(&self.program, axis, settings)?,
            _ => Decoder::new(&self.program.only(outputs)?, axis, settings)?,
        };
        decoder.take_parameters(&self.session);
        Ok(decoder)
    }

    /// The recorded program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The compiled program of one step, with its plan.
    pub fn session(&self) -> &Session<f32> {
        &self.session
    }

    /// A parameter's present value, or a statistic's.
    pub fn parameter(&self, name: &str) -> Option<ArrayD<f32>> {
        self.session.parameter(name)
    }

    /// Sets a parameter or a statistic.
    ///
    /// # Errors
    /// If there is none of this name, or it has another shape.
    pub fn set_parameter(&mut self, name: &str, values: ArrayViewD<f32>) -> Result<(), RunError> {
        self.session.set_parameter(name, values)?;
        self.version += 1;
        Ok(())
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The rate of the next step.
    pub fn rate(&self) -> f64 {
        self.schedule.rate(self.rate, self.steps)
    }

    /// Sets the rate that the schedule starts from.
    ///
    /// # Errors
    /// A rate that is below 0, or no number that 32 bits hold.
    pub fn set_rate(&mut self, rate: f64) -> Result<(), RunError> {
        if !is_rate(rate) {
            return Err(RunError::Setting {
                setting: "the rate".to_string(),
                given: rate.to_string(),
                allowed: RATE_ALLOWED.to_string(),
            });
        }
        self.rate = rate;
        Ok(())
    }

    /// From the recording to ready: derivatives, passes, code, initial values.
    pub fn compile_time(&self) -> Duration {
        self.compile_time
    }

    /// The stages of [`compile_time`](Trainer::compile_time).
    pub fn compile_times(&self) -> &[(&'static str, Duration)] {
        &self.times
    }

    /// Writes weights, the optimiser's state, carried states and position to a file. A crash leaves the old file or
    /// the new one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), RunError> {
        self.save_with(path, &[])
    }

    /// As [`save`](Trainer::save), with notes of the caller's own: where in the data it is, for instance.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_with(&self, path: impl AsRef<Path>, notes: &[(&str, String)]) -> Result<(), RunError> {
        let mut c = Checkpoint::new();
        for name in self.session.parameter_names() {
            c.insert(format!("parameter.{name}"), self.session.parameter(name).expect("its own name"));
        }
        for name in self.stored(self.session.going().is_some()) {
            c.insert_tensor(name.clone(), self.session.stored(&name));
        }
        c.note("program", &self.program.name);
        c.note("optimizer", &self.optimizer);
        c.note("steps", self.steps);
        c.note("rate", self.rate);
        c.note("batch", self.session.going().unwrap_or(0));
        for (axis, key) in self.limited() {
            c.note(key, self.session.seen()[axis]);
        }
        if let (Some(windows), Some(_)) = (&self.windows, self.session.going()) {
            windows.save(&mut c);
        }
        for (key, value) in notes {
            c.note(format!("user.{key}"), value);
        }
        Ok(c.save(path)?)
    }

    /// Goes on from a file that [`save`](Trainer::save) wrote: the next step gives the same bits as if training had
    /// not stopped. Returns the notes asked for, in order; `None` for one that is not there.
    ///
    /// # Errors
    /// A file that is damaged, or of another program or optimiser. Nothing is changed then.
    pub fn load_with(&mut self, path: impl AsRef<Path>, notes: &[&str]) -> Result<Vec<Option<String>>, RunError> {
        let name = self.program.name.clone();
        self.load_renamed(path, &name, notes)
    }

    /// As [`load_with`](Trainer::load_with), for a program that was named `saved_as` when the file was saved.
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// # use retrograd_compiler::ir::Program;
    /// # use retrograd_runtime::{optimizer::Sgd, train::{Trainer, Training}};
    /// # let file = std::env::temp_dir().join(format!("retrograd-renamed-{}", std::process::id()));
    /// let trainer = |name| -> Result<Trainer, Box<dyn std::error::Error>> {
    ///     let program = Program::record(name, |p| {
    ///         let (x, y) = (p.input("x", 1), p.input("y", 1));
    ///         p.minimize(p.affine("line", x, 1).mse(y));
    ///     })?;
    ///     Ok(program.trainer(Sgd::new(0.1)).compile()?)
    /// };
    /// trainer("line")?.save(&file)?;
    /// let mut renamed = trainer("straight")?;
    /// assert!(renamed.load(&file).unwrap_err().to_string().contains("is of program `line`"));
    /// renamed.load_renamed(&file, "line", &[])?;
    /// # std::fs::remove_file(&file)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load_renamed(
        &mut self,
        path: impl AsRef<Path>,
        saved_as: &str,
        notes: &[&str],
    ) -> Result<Vec<Option<String>>, RunError> {
        let mut c = Checkpoint::load(path)?;
        c.take_program(saved_as)?;
        let optimizer: String = c.take_note("optimizer")?;
        if optimizer != self.optimizer {
            return Err(RunError::Setting {
                setting: "the checkpoint's optimiser".to_string(),
                given: optimizer,
                allowed: format!("this training uses {}", self.optimizer),
            });
        }
        let steps: u64 = c.take_note_if("steps", "at most 2^53 is allowed", |&steps| steps <= 1 << 53)?;
        let rate: f64 = c.take_note_if("rate", RATE_ALLOWED, |&rate| is_rate(rate))?;
        let batch: usize = c.take_note("batch")?;
        let mut seen = [0; Axis::MAX as usize];
        for (axis, key) in self.limited() {
            seen[axis] = c.take_note(&key)?;
        }
        let mut parameters = Vec::new();
        for p in &self.program.parameters {
            let shape = &self.program.ty(p.value).shape.0;
            parameters.push((p.name.clone(), c.take::<f32>(&format!("parameter.{}", p.name), shape)?));
        }
        let mut stored = Vec::new();
        let mut carried = Vec::new();
        for name in self.stored(batch > 0) {
            let input = self.session.program().input(&name).expect("its own name");
            let ty = self.session.program().ty(input.value);
            let mut shape = ty.shape.0.clone();
            if ty.extent == Extent::Batch {
                shape.insert(0, batch);
            }
            let list = if self.session.is_carried(&name) { &mut carried } else { &mut stored };
            let tensor = c.take_tensor(&name, self.session.stored_element(&name), &shape)?;
            self.session.check_stored(&name, &tensor)?;
            let is_moment = name.starts_with("optimizer.");
            if is_moment && f32::of(&tensor).is_some_and(|values| values.iter().any(|x| x.is_nan())) {
                // A step that would give one is refused, so no training has it.
                return Err(c.refuse_tensor(&name, f64::NAN, "numbers are needed").into());
            }
            list.push((name.clone(), tensor));
        }
        let position = match &self.windows {
            Some(windows) if batch > 0 => Some(windows.load(&mut c, batch)?),
            _ => None,
        };
        let notes = notes.iter().map(|key| c.get_note(&format!("user.{key}")).map(str::to_string)).collect();
        // What is frozen here and was trained there has no optimiser any more.
        let frozen = |name: &str| -> bool {
            self.program.parameters.iter().any(|p| {
                let of = format!("optimizer.{}.", p.name);
                name.starts_with(&of) && !self.session.program().inputs.iter().any(|i| i.name.starts_with(&of))
            })
        };
        c.discard(frozen);
        c.finish()?;
        // What can still be refused comes first. A value of each sample has memory for as many as there were.
        let program = self.session.program();
        let of_samples =
            |name: &str| program.input(name).is_some_and(|input| program.ty(input.value).extent == Extent::Batch);
        // As a feed says it: a run of one step finds the values where they are.
        let axes = program.axes.len().max(1);
        let sized = carried.iter().chain(&stored).any(|(name, _)| of_samples(name));
        if batch > 0 && sized {
            let sizes = Sizes { batch, steps: vec![1; axes] };
            self.session.resume(&sizes, &carried, seen)?;
        } else {
            self.session.reset_state();
        }
        for (name, values) in parameters {
            self.session.set_parameter(&name, values.view())?;
        }
        for (name, values) in stored {
            self.session.set_stored(&name, &values);
        }
        if let (Some(windows), Some(position)) = (&mut self.windows, position) {
            windows.resume(position);
        }
        self.steps = steps;
        self.rate = rate;
        self.version += 1;
        self.evaluation = None;
        Ok(notes)
    }

    /// As [`load_with`](Trainer::load_with), without notes.
    ///
    /// # Errors
    /// As there.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<(), RunError> {
        self.load_with(path, &[]).map(|_| ())
    }

    /// Axes of which a run has at most so many steps, each with the note of the steps that states have seen.
    fn limited(&self) -> BTreeMap<usize, String> {
        let limits = self.program.limits.iter().map(|l| usize::from(l.axis.0));
        limits.map(|axis| (axis, format!("seen.{}", self.program.axes[axis]))).collect()
    }

    /// Inputs that outlive a run: states of the optimiser, and of loops if these are on their way.
    fn stored(&self, going: bool) -> Vec<String> {
        let program = self.session.program();
        program
            .updates
            .iter()
            .filter_map(|u| program.inputs.iter().find(|i| i.value == u.target))
            .map(|i| i.name.clone())
            .filter(|name| going || !self.session.is_carried(name))
            .collect()
    }
}

/// Whether the states of a program's loops can be carried from one run to the next.
fn carries(program: &Program, objective: Value) -> Result<(), TruncateError> {
    let needed = program.graph.reachable([objective]);
    for v in program.graph.values().filter(|v| needed[v.index()]) {
        if let Op::Scan(scan) = program.graph.op(v)
            && scan.reverse
        {
            let place = Place(program.graph.node(v).location);
            return Err(TruncateError::Backwards { scan: scan.name.clone(), place });
        }
    }
    Ok(())
}

/// Whether a name fits a pattern, in which `*` stands for any letters, none included.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().expect("a split has a first part");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("lstm.*", "lstm.gates.w", true),
            ("lstm.*", "lstm", false),
            ("*.w", "lstm.gates.w", true),
            ("*.w", "lstm.gates.b", false),
            ("lstm.*.w", "lstm.gates.w", true),
            ("lstm.*.w", "lstm.w", false),
            ("*a*b*", "xaxbx", true),
            ("*a*b*", "xbxa", false),
            ("lstm", "lstm", true),
            ("lstm", "lstm.w", false),
            ("*", "", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
