//! Writing: symbol after symbol from the program that was trained, each the next step's input.
//!
//! A program that learns to write reads, at each step, the symbol before and gives logits of the next one (teacher
//! forcing). The same recording writes: a [`Decoder`] is the part of it that runs along the axis of what is written. What
//! is before that axis (an encoder and its last states, the keys of an attention) is another part, computed once for each
//! sample; see [`time::divide`]. Then [`greedy`] takes the likeliest symbol at each step, and [`beam_search`] keeps the
//! likeliest few beginnings of each sample, all of them rows of one [`Stream`].
//!
//! ```
//! use ndarray::Array3;
//! use retrograd_compiler::ir::Program;
//! use retrograd_compiler::record::{Expr, Step, concat};
//! use retrograd_runtime::decode::{Search, beam_search, greedy};
//! use retrograd_runtime::feed::Feed;
//! use retrograd_runtime::train::Training;
//!
//! fn rnn<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
//!     let h = s.state("h", units);
//!     s.next(h, s.affine("cell", concat([h, x]), units).tanh())
//! }
//!
//! let translate = Program::record("translate", |p| {
//!     let (source, target) = (p.axis("source"), p.axis("target"));
//!     let (x, before, next) = (source.sequence("x", 4), target.labels("before"), target.labels("next"));
//!     let encoder = source.scan("encoder", |s| rnn(s, s.at(x), 16));
//!     let words = p.embedding("words", before, 9, 8);
//!     let decoder = target.scan("decoder", |s| {
//!         s.start("h", encoder.last());
//!         rnn(s, s.at(words), 16)
//!     });
//!     let logits = p.affine("readout", decoder.all(), 9);
//!     p.output("logits", logits);
//!     p.minimize(logits.cross_entropy(next));
//! })?;
//! let mut decoder = translate.decoder("target", 1)?; // or trainer.decoder("target")?
//! let x = Array3::from_shape_fn((5, 2, 4), |(t, b, i)| (t + b + i) as f32 / 9.0); // 5 steps of 2 samples
//! let feed = Feed::new().f32("x", x.view());
//! let search = Search { symbol: "before", logits: "logits", start: 0, end: 1, limit: 20, length_penalty: 0.6 };
//! let written = greedy(&mut decoder, &feed, &search)?;
//! let better = beam_search(&mut decoder, &feed, &search, 4)?;
//! assert_eq!((written.len(), better.len()), (2, 2)); // one for each sample
//! println!("{:?} with probability {}", better[0][0].symbols, better[0][0].log_probability.exp());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use ndarray::ArrayViewD;
use retrograd_compiler::ir::sizes::times;
use retrograd_compiler::ir::{Axis, DType, Extent, Input, Program, Type};
use retrograd_compiler::time;

use crate::error::{DecodeError, RunError, nearest, outer};
use crate::feed::{self, Feed, View};
use crate::flush::Flushing;
use crate::memory::{self, Refused};
use crate::session::Session;
use crate::settings::Settings;
use crate::stream::Stream;

/// The part of a program that runs along one time axis, one step at a time, and what it goes on from.
///
/// Of [`Training::decoder`](crate::train::Training::decoder) and [`Trainer::decoder`](crate::train::Trainer::decoder).
/// Outputs that need no more than what is before the axis are not among those of its stream.
pub struct Decoder {
    /// What is before the axis, if anything is computed there.
    before: Option<Session<f32>>,
    stream: Stream,
    /// What goes from the first to the second.
    kept: Vec<String>,
    axis: Axis,
}

impl Decoder {
    pub(crate) fn new(program: &Program, axis: &str, settings: Settings) -> Result<Decoder, DecodeError> {
        let axis = feed::axis(program, axis)?;
        let mut parts = time::divide(&program.outside_training(), axis)?;
        // Of what is before the axis only what is kept is read.
        parts.before = time::restrict(&parts.before, |name| parts.kept.iter().any(|kept| kept == name));
        let before = match parts.kept.is_empty() {
            true => None,
            false => Some(Session::new(&parts.before, settings.one_step())?),
        };
        Ok(Decoder { before, stream: Stream::new(&parts.along, 1, settings)?, kept: parts.kept, axis })
    }

    pub(crate) fn initialise(&mut self, seed: u64) -> Result<(), RunError> {
        self.stream.initialise(seed)?;
        self.before.as_mut().map_or(Ok(()), |before| before.initialise(seed))
    }

    pub(crate) fn take_parameters(&mut self, other: &Session<f32>) {
        self.stream.take_parameters(other);
        if let Some(before) = &mut self.before {
            before.take_parameters(other);
        }
    }

    /// Computes what is before the axis, and stands before the first step with `copies` rows for each sample, one behind
    /// another. The number of samples.
    ///
    /// The feed has the inputs of that part, as in training. It may have those of the steps too, `[B, features..]` without
    /// the time axis: they are the same at every step. Others are set on the [stream](Decoder::stream) before each step.
    ///
    /// ```
    /// # use retrograd_compiler::ir::Program;
    /// # use retrograd_runtime::{feed::Feed, train::Training};
    /// let draw = Program::record("draw", |p| {
    ///     let (image, before) = (p.input("image", 4), p.labels_sequence("before"));
    ///     let (start, strokes) = (p.affine("start", image, 8).tanh(), p.embedding("strokes", before, 5, 8));
    ///     let run = p.scan("rnn", |s| {
    ///         let h = s.state_from("h", start);
    ///         s.next(h, (s.linear("h", h, 8) + s.at(strokes)).tanh())
    ///     });
    ///     p.output("logits", p.affine("readout", run.all(), 5));
    /// })?;
    /// let mut decoder = draw.decoder("time", 1)?;
    /// // Two drawings of one image, each to be drawn by lot.
    /// let image = [0.1, 0.2, 0.3, 0.4];
    /// assert_eq!(decoder.begin(&Feed::new().f32_slice("image", &[1, 4], &image), 2)?, 1);
    /// let (mut last, mut logits) = ([0, 0], [0.0; 2 * 5]);
    /// for _ in 0..3 {
    ///     decoder.stream().set_i32("before", &last)?;
    ///     decoder.stream().advance()?;
    ///     decoder.stream().get_f32("logits", &mut logits)?;
    ///     last = [3, 4]; // what the lot says
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Whatever is wrong with the feed, `copies` that are 0, and rows that there is no memory for.
    pub fn begin(&mut self, feed: &Feed, copies: usize) -> Result<usize, RunError> {
        at_least_one("the number of copies of a sample", copies)?;
        let samples = self.samples(feed)?;
        // More rows than can be counted are more than there is memory for.
        self.stream.bind(times(samples, copies))?;
        if let Some(before) = &mut self.before {
            let program = before.program();
            let own = feed.only(|name| program.input(name).is_some()).batch(samples);
            before.run(&own)?;
        }
        for (name, view) in feed.arrays()? {
            let program = self.stream.session().program();
            let Some(input) = given(program, name) else { continue };
            let shared = program.ty(input.value).extent == Extent::Shared;
            let copies = if shared { 1 } else { copies };
            match view {
                View::F32(a) => self.stream.set_f32(name, &rows(a, copies))?,
                View::I32(a) => self.stream.set_i32(name, &rows(a, copies))?,
            }
        }
        for name in &self.kept {
            let before = self.before.as_ref().expect("what is kept has been computed");
            let shared = before.program().output(name).map(|v| before.program().ty(v).extent) == Some(Extent::Shared);
            let copies = if shared { 1 } else { copies };
            match before.output(name) {
                Some(a) => self.stream.set_f32(name, &rows(&a.view(), copies))?,
                None => {
                    let a = before.output_i32(name).expect("an output is of floats or of integers");
                    self.stream.set_i32(name, &rows(&a.view(), copies))?;
                }
            }
        }
        Ok(samples)
    }

    /// The steps.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// How many samples a feed has, all of whose names are known.
    fn samples(&self, feed: &Feed) -> Result<usize, RunError> {
        let along = self.stream.session().program();
        let before = self.before.as_ref().map(|b| b.program());
        let mut said: Option<(String, usize)> = feed.samples().map(|n| ("`Feed::batch`".to_string(), n));
        for (name, view) in feed.arrays()? {
            let ty = match (given(along, name), before.and_then(|p| Some(p.ty(p.input(name)?.value)))) {
                (_, Some(ty)) => ty.clone(),
                (Some(input), None) => {
                    let ty = along.ty(input.value);
                    let ty = if ty.extent == Extent::Shared { ty.clone() } else { ty.at(Extent::Batch) };
                    feed::check_type(name, view, &ty)?;
                    ty
                }
                (None, None) => {
                    let more = before.into_iter().flat_map(|p| &p.inputs).map(|i| i.name.clone());
                    let own = along.inputs.iter().map(|i| i.name.clone()).filter(|n| given(along, n).is_some());
                    let own = own.filter(|name| !self.kept.contains(name));
                    let mut declared: Vec<String> = more.chain(own).collect();
                    declared.sort();
                    declared.dedup();
                    let nearest = nearest(name, declared.iter().map(String::as_str)).map(str::to_string);
                    return Err(RunError::UnknownInput { given: name.to_string(), nearest, declared });
                }
            };
            // What has too few dimensions is told so where it is taken.
            let size = outer(ty.extent).checked_sub(1).and_then(|batch| view.shape().get(batch));
            let Some(&size) = size else { continue };
            let (first, first_size) = said.get_or_insert((format!("input `{name}`"), size));
            if *first_size != size {
                let (first, first_size, second) = (first.clone(), *first_size, format!("input `{name}`"));
                return Err(RunError::SizesDiffer {
                    extent: Extent::Batch,
                    first,
                    first_size,
                    second,
                    second_size: size,
                });
            }
        }
        match said {
            None => Err(RunError::UnknownSize { extent: Extent::Batch }),
            Some((by, 0)) => Err(RunError::EmptyExtent { extent: Extent::Batch, by }),
            Some((_, samples)) => Ok(samples),
        }
    }
}

/// An input of this name that is not a state.
fn given<'p>(program: &'p Program, name: &str) -> Option<&'p Input> {
    program.input(name).filter(|i| feed::is_given(program, i))
}

/// The rows of an array, each as often as there are copies.
fn rows<T: Copy>(array: &ArrayViewD<T>, copies: usize) -> Vec<T> {
    let width = array.shape().iter().skip(1).product::<usize>();
    let values: Vec<T> = array.iter().copied().collect();
    if copies == 1 { values } else { values.chunks(width).flat_map(|row| row.repeat(copies)).collect() }
}

fn at_least_one(setting: &str, given: usize) -> Result<(), RunError> {
    if given > 0 {
        return Ok(());
    }
    let (setting, given, allowed) = (setting.to_string(), "0".to_string(), "at least 1 is needed".to_string());
    Err(RunError::Setting { setting, given, allowed })
}

/// What is searched for, and by which names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search<'a> {
    /// The input that has the symbol before, `i32[T, B]` along the axis.
    pub symbol: &'a str,
    /// The output that scores the next symbol, `f32[T, B, symbols]`: logits or log-probabilities.
    pub logits: &'a str,
    /// The symbol before the first one.
    pub start: i32,
    /// The symbol behind the last one.
    pub end: i32,
    /// Most steps; a symbol is written at each, the last of which is `end` if there is one.
    pub limit: usize,
    /// α of Wu et al. (2016), "Google's neural machine translation system": hypotheses of n steps are compared by
    /// ln P / ((5 + n) / 6)^α. At 0 by their probability, which favours short ones; they use 0.6 to 0.7.
    pub length_penalty: f64,
}

/// Something that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// Its symbols, without `start` and `end`.
    pub symbols: Vec<i32>,
    /// ln P of all of it, given the sample.
    pub log_probability: f64,
    /// By which it was compared: the log-probability, made comparable over lengths.
    pub score: f64,
    /// Whether `end` was written, or the limit cut it off.
    pub ended: bool,
}

impl Search<'_> {
    /// Number of symbols.
    fn check(&self, decoder: &Decoder) -> Result<usize, DecodeError> {
        let program = decoder.stream.session().program();
        let time = Extent::Time(decoder.axis);
        let is_symbol = |i: &&Input| {
            let ty = program.ty(i.value);
            ty.dtype == DType::I32 && ty.extent == time && ty.shape.rank() == 0
        };
        let Some(symbol) = program.inputs.iter().filter(is_symbol).find(|i| i.name == self.symbol) else {
            let known = program.inputs.iter().filter(is_symbol).map(|i| i.name.clone()).collect();
            return Err(DecodeError::NoSymbols { given: self.symbol.to_string(), known });
        };
        let are_logits = |(_, ty): &(&String, &Type)| ty.is_float() && ty.extent == time && ty.shape.rank() == 1;
        let outputs = || program.outputs.iter().map(|(name, v)| (name, program.ty(*v))).filter(are_logits);
        let Some((_, ty)) = outputs().find(|(name, _)| *name == self.logits) else {
            let known = outputs().map(|(name, _)| name.clone()).collect();
            return Err(DecodeError::NoLogits { given: self.logits.to_string(), known });
        };
        let classes = ty.shape.last();
        if let Some(bound) = symbol.bound.filter(|&bound| bound < classes) {
            return Err(DecodeError::Unreadable {
                output: self.logits.to_string(),
                classes,
                input: self.symbol.to_string(),
                bound,
            });
        }
        let setting = |setting: &str, given: String, allowed: String| {
            Err(RunError::Setting { setting: setting.to_string(), given, allowed }.into())
        };
        if usize::try_from(self.end).map_or(true, |end| end >= classes) {
            let allowed = format!("`{}` scores symbols from 0 to {}", self.logits, classes - 1);
            return setting("the end symbol", self.end.to_string(), allowed);
        }
        at_least_one("the limit of steps", self.limit)?;
        if !(self.length_penalty.is_finite() && self.length_penalty >= 0.0) {
            let allowed = "a finite number of at least 0 is needed".to_string();
            return setting("the length penalty", self.length_penalty.to_string(), allowed);
        }
        Ok(classes)
    }

    fn hypothesis(&self, symbols: Vec<i32>, log_probability: f64, ended: bool) -> Hypothesis {
        let steps = symbols.len() + usize::from(ended);
        let score = log_probability / ((5.0 + steps as f64) / 6.0).powf(self.length_penalty);
        Hypothesis { symbols, log_probability, score, ended }
    }
}

/// At each step the likeliest symbol, until `end`: one hypothesis for each sample of the feed.
///
/// # Errors
/// Names or settings that do not fit the program, whatever is wrong with the feed, and logits that are no distribution.
pub fn greedy(decoder: &mut Decoder, feed: &Feed, search: &Search) -> Result<Vec<Hypothesis>, DecodeError> {
    let _flushing = Flushing::begin();
    let classes = search.check(decoder)?;
    let samples = decoder.begin(feed, 1)?;
    let refused = |e: Refused| e.at(decoder.stream.session().sizes());
    let mut logits = memory::filled(0.0, times(samples, classes)).map_err(refused)?;
    let mut last = memory::filled(search.start, samples).map_err(refused)?;
    let mut written = vec![(Vec::new(), 0.0); samples];
    let mut ended = vec![false; samples];
    for step in 0..search.limit {
        decoder.step(search, &last, &mut logits)?;
        for sample in 0..samples {
            if ended[sample] {
                continue;
            }
            let x = &logits[sample * classes..][..classes];
            let normaliser = normaliser(x).ok_or(DecodeError::NoDistribution { sample, step })?;
            // The first of those that are equally likely.
            let best = (1..classes).fold(0, |best, i| if x[i] > x[best] { i } else { best });
            last[sample] = best as i32;
            ended[sample] = last[sample] == search.end;
            let (symbols, log_probability) = &mut written[sample];
            *log_probability = *log_probability + f64::from(x[best]) - normaliser;
            if !ended[sample] {
                symbols.push(last[sample]);
            }
        }
        if ended.iter().all(|&ended| ended) {
            break;
        }
    }
    let written = written.into_iter().zip(ended);
    Ok(written.map(|((symbols, log_probability), ended)| search.hypothesis(symbols, log_probability, ended)).collect())
}

/// Keeps, at each step, the `width` likeliest beginnings of each sample, until each has ended or the limit is reached: for
/// each sample of the feed up to `width` hypotheses, best score first.
///
/// A beginning that has ended keeps its place, so fewer are left to go on, as in Sutskever et al. (2014), "Sequence to
/// sequence learning with neural networks". At width 1 this is [`greedy`]; with a width of at least the number of all
/// sequences nothing is ever dropped, and the search is exhaustive.
///
/// # Errors
/// As for [`greedy`]; a width of 0, or one of so many rows that there is no memory for them.
pub fn beam_search(
    decoder: &mut Decoder,
    feed: &Feed,
    search: &Search,
    width: usize,
) -> Result<Vec<Vec<Hypothesis>>, DecodeError> {
    let _flushing = Flushing::begin();
    let classes = search.check(decoder)?;
    at_least_one("the width of the beam", width)?;
    let samples = decoder.begin(feed, width)?;
    // So many rows the stream has.
    let rows = samples * width;
    let refused = |e: Refused| e.at(decoder.stream.session().sizes());
    let mut logits = memory::filled(0.0, times(rows, classes)).map_err(refused)?;
    let mut last = memory::filled(search.start, rows).map_err(refused)?;
    let mut from = memory::filled(0, rows).map_err(refused)?;
    from.iter_mut().enumerate().for_each(|(row, from)| *from = row);
    // Row `sample·width + i` goes on with beginning i of the sample. At first there is one, the empty beginning.
    let empty = Beginning { log_probability: 0.0, end: None };
    let mut live = vec![vec![empty]; samples];
    let mut done: Vec<Vec<Hypothesis>> = vec![Vec::new(); samples];
    let (mut written, mut candidates) = (Vec::new(), Vec::new());
    memory::reserve::<Candidate>(&mut candidates, times(width, classes)).map_err(refused)?;
    for step in 0..search.limit {
        decoder.step(search, &last, &mut logits)?;
        for sample in 0..samples {
            candidates.clear();
            for (i, beginning) in live[sample].iter().enumerate() {
                let x = &logits[(sample * width + i) * classes..][..classes];
                let normaliser = normaliser(x).ok_or(DecodeError::NoDistribution { sample, step })?;
                let added = x.iter().map(|&x| beginning.log_probability + f64::from(x) - normaliser);
                // What is impossible is no candidate.
                let possible = added.enumerate().filter(|(_, p)| *p > f64::NEG_INFINITY);
                candidates.extend(possible.map(|(symbol, p)| Candidate { log_probability: p, beginning: i, symbol }));
            }
            keep_likeliest(&mut candidates, width - done[sample].len());
            let before = std::mem::take(&mut live[sample]);
            for candidate in &candidates {
                let Candidate { log_probability, beginning, symbol } = *candidate;
                let (symbol, end) = (symbol as i32, before[beginning].end);
                if symbol == search.end {
                    done[sample].push(search.hypothesis(symbols(&written, end), log_probability, true));
                    continue;
                }
                let row = sample * width + live[sample].len();
                (from[row], last[row]) = (sample * width + beginning, symbol);
                written.push(Written { symbol, before: end });
                live[sample].push(Beginning { log_probability, end: Some(written.len() - 1) });
            }
            // Rows that nothing goes on in are computed too, and not looked at.
            for row in sample * width + live[sample].len()..(sample + 1) * width {
                (from[row], last[row]) = (row, search.start);
            }
        }
        if live.iter().all(Vec::is_empty) {
            break;
        }
        decoder.stream.reorder(&from)?;
    }
    for (done, live) in done.iter_mut().zip(&live) {
        done.extend(live.iter().map(|b| search.hypothesis(symbols(&written, b.end), b.log_probability, false)));
        // Stable: of equal scores the one found first comes first.
        done.sort_by(|a, b| b.score.total_cmp(&a.score));
    }
    Ok(done)
}

impl Decoder {
    fn step(&mut self, search: &Search, last: &[i32], logits: &mut [f32]) -> Result<(), RunError> {
        self.stream.set_i32(search.symbol, last)?;
        self.stream.advance()?;
        self.stream.get_f32(search.logits, logits)
    }
}

/// A beginning of a hypothesis: its probability, and its last symbol among all that were written.
#[derive(Clone, Copy)]
struct Beginning {
    log_probability: f64,
    end: Option<usize>,
}

/// A symbol, and the one before it among all that were written.
struct Written {
    symbol: i32,
    before: Option<usize>,
}

/// A beginning with one more symbol.
#[derive(Clone, Copy)]
struct Candidate {
    log_probability: f64,
    beginning: usize,
    symbol: usize,
}

/// The symbols of a beginning, first to last.
fn symbols(written: &[Written], end: Option<usize>) -> Vec<i32> {
    let back = std::iter::successors(end, |&i| written[i].before);
    let mut symbols: Vec<i32> = back.map(|i| written[i].symbol).collect();
    symbols.reverse();
    symbols
}

/// The likeliest `n`, likeliest first; of equals, those of the better beginning, then of the smaller symbol.
fn keep_likeliest(candidates: &mut Vec<Candidate>, n: usize) {
    let order = |a: &Candidate, b: &Candidate| {
        let ties = || (a.beginning, a.symbol).cmp(&(b.beginning, b.symbol));
        b.log_probability.total_cmp(&a.log_probability).then_with(ties)
    };
    if n > 0 && n < candidates.len() {
        candidates.select_nth_unstable_by(n - 1, order);
    }
    candidates.truncate(n);
    candidates.sort_by(order);
}

/// ln Σ exp(x), by which logits become log-probabilities. `None` if these are not numbers.
fn normaliser(x: &[f32]) -> Option<f64> {
    let most = x.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let sum: f64 = x.iter().map(|&x| (f64::from(x) - f64::from(most)).exp()).sum();
    Some(f64::from(most) + sum.ln()).filter(|n| n.is_finite())
}
