//! Feeds of all kinds: an answer or a typed error, whatever the names, types, shapes, sizes, strides and values are.

use ndarray::{ArrayD, ArrayViewD, IxDyn, Slice};
use retrograd::prelude::*;
use retrograd::runtime::session::Session;

use crate::{Counts, Random, Target};

/// See the module's text.
pub struct Feeds {
    receivers: Vec<(Receiver, &'static [Wanted])>,
}

/// What takes feeds.
enum Receiver {
    Trainer(Box<Trainer>),
    Stream(Box<Stream>),
    Session(Box<Session<f64>>),
}

/// An input of a program: its dimensions by letter (`t` and `u` steps, `b` samples), and whether it is of integers.
struct Wanted {
    name: &'static str,
    shape: &'static str,
    is_integer: bool,
}

const fn floats(name: &'static str, shape: &'static str) -> Wanted {
    Wanted { name, shape, is_integer: false }
}

const fn integers(name: &'static str, shape: &'static str) -> Wanted {
    Wanted { name, shape, is_integer: true }
}

const TAGGER: &[Wanted] = &[floats("x", "tb2"), integers("label", "tb"), integers("length", "b")];
const PAIR: &[Wanted] = &[floats("x", "tb22"), integers("label", "ub"), floats("scale", "")];
const PLAIN: &[Wanted] = &[floats("x", "b3"), integers("label", "b")];
const WINDOWS: &[Wanted] = &[floats("x", "tb2"), integers("label", "tb")];
/// Of streams, which take a step at a time.
const TAGGER_STEP: &[Wanted] = &[floats("x", "b2"), integers("length", "b")];
const PLAIN_STEP: &[Wanted] = &[floats("x", "b3")];

impl Default for Feeds {
    fn default() -> Feeds {
        Feeds::new()
    }
}

/// Lengths and labels.
fn tagger(p: &Recorder<'_>) {
    let time = p.lengths("length");
    let (x, label) = (time.sequence("x", 2), time.labels("label"));
    let run = time.scan("net", |s| {
        let h = s.state("h", 3);
        s.next(h, (s.linear("h", h, 3) + s.affine("x", s.at(x), 3)).tanh())
    });
    let logits = p.affine("out", run.all(), 4);
    p.output("logits", logits);
    p.minimize(logits.cross_entropy(label).mean_over(time));
}

/// Two axes, a shared value, a table and a statistic.
fn pair(p: &Recorder<'_>) {
    let (one, two) = (p.axis("time"), p.axis("other"));
    let (x, word, scale) = (one.sequence("x", [2, 2]), two.labels("label"), p.shared("scale", ()));
    let mean = p.shared("mean", ());
    p.update(mean, mean * 0.9 + x.reshape(4).mean().mean_rows() * 0.1);
    let first = one.scan("net", |s| {
        let h = s.state("h", 2);
        s.next(h, (h + s.at(x).reshape(4).slice(0..2) * scale).tanh())
    });
    let second = two.scan_reverse("back", |s| {
        let h = s.state_from("h", first.last());
        s.next(h, (h + s.embedding("word", s.at(word), 5, 2)).tanh())
    });
    p.output("y", second.all());
    p.minimize(second.last().square().mean());
}

/// A loss at each step, for windows of time.
fn windows(p: &Recorder<'_>) {
    let time = p.axis("time");
    let (x, label) = (time.sequence("x", 2), time.labels("label"));
    let run = time.scan("net", |s| {
        let h = s.state("h", 3);
        s.next(h, (s.linear("h", h, 3) + s.affine("x", s.at(x), 3)).tanh())
    });
    p.minimize(p.affine("out", run.all(), 4).cross_entropy(label).mean_rows());
}

/// A value per sample.
fn plain(p: &Recorder<'_>) {
    let (x, label) = (p.input("x", 3), p.labels("label"));
    let logits = p.affine("out", x, 3);
    p.output("y", logits.softmax());
    p.minimize(logits.cross_entropy(label).mean_rows());
}

impl Feeds {
    /// Compiles some programs.
    ///
    /// # Panics
    /// If that fails.
    pub fn new() -> Feeds {
        let programs = [
            Program::record("tagger", tagger).expect("a program"),
            Program::record("pair", pair).expect("a program"),
            Program::record("plain", plain).expect("a program"),
            Program::record("windows", windows).expect("a program"),
        ];
        let [tagger, pair, plain, windows] = &programs;
        let trainers = [
            (tagger.trainer(Adam::new(0.01)).compile(), TAGGER),
            (pair.trainer(Sgd::new(0.01)).threads(2).compile(), PAIR),
            (plain.trainer(Adam::new(0.01)).compile(), PLAIN),
            (tagger.trainer(Adam::new(0.01)).carry_state(true).compile(), TAGGER),
            (windows.trainer(Adam::new(0.01)).truncate(2, 3).compile(), WINDOWS),
        ];
        let mut receivers: Vec<(Receiver, &[Wanted])> = Vec::new();
        for (trainer, wanted) in trainers {
            receivers.push((Receiver::Trainer(Box::new(trainer.expect("code for this machine"))), wanted));
        }
        for (program, wanted) in [(tagger, TAGGER_STEP), (plain, PLAIN_STEP), (windows, PLAIN_STEP)] {
            receivers.push((Receiver::Stream(Box::new(program.stream(2, 1).expect("a stream"))), wanted));
        }
        for (program, wanted) in [(tagger, TAGGER), (pair, PAIR), (plain, PLAIN)] {
            receivers
                .push((Receiver::Session(Box::new(Session::new(program, 1).expect("code for this machine"))), wanted));
        }
        Feeds { receivers }
    }
}

/// Numbers that arrays are of, and how they lie.
struct Given {
    name: &'static str,
    is_float: bool,
    shape: Vec<usize>,
    floats: ArrayD<f32>,
    integers: ArrayD<i32>,
    /// Seen as this shape, by repetition.
    repeated: Option<Vec<usize>>,
    /// Seen backwards along the first dimension.
    is_reversed: bool,
}

/// An array for an input: two times in three as it is wanted, else changed in one way.
fn given(rng: &mut Random, wanted: &Wanted, [t, u, b]: [usize; 3]) -> Given {
    let good: Vec<usize> = wanted
        .shape
        .chars()
        .map(|c| match c {
            't' => t,
            'u' => u,
            'b' => b,
            digit => digit.to_digit(10).expect("a dimension") as usize,
        })
        .collect();
    let change = if rng.once_in(3) { 1 + rng.below(6) } else { 0 };
    let name = match change {
        1 => rng.of(&["x", "label", "length", "scale", "mean", "X", "optimizer.rate", "", "net.h"]),
        _ => wanted.name,
    };
    let shape = match change {
        2 => (0..rng.below(5)).map(|_| rng.below(4)).collect(),
        3 => good.iter().rev().copied().collect(),
        _ => good.clone(),
    };
    let special = rng.of(&[f32::NAN, f32::INFINITY, 3e38, -3e38, 1e-42, 0.0]);
    let integer = rng.of(&[-1, -100, i32::MIN, i32::MAX, 4, 3, 1 << 24]);
    let mut count = rng.below(100);
    let is_special = change == 4;
    let floats = ArrayD::from_shape_fn(IxDyn(&shape), |_| {
        count += 1;
        if is_special && count.is_multiple_of(5) { special } else { (count % 11) as f32 * 0.1 - 0.5 }
    });
    let integers = ArrayD::from_shape_fn(IxDyn(&shape), |_| {
        count += 1;
        if is_special && count.is_multiple_of(3) { integer } else { (count % t.min(3)) as i32 }
    });
    let repeated = (change == 5).then(|| {
        let huge = rng.of(&[1 << 16, 1 << 31, 1 << 40, 1 << 58, (1 << 60) + 1, usize::MAX >> 1]);
        let mut shape = good.clone();
        if !shape.is_empty() {
            let at = rng.below(shape.len());
            shape[at] = huge;
        }
        shape
    });
    Given {
        name,
        is_float: wanted.is_integer == (change == 6),
        shape,
        floats,
        integers,
        repeated,
        is_reversed: rng.once_in(4),
    }
}

fn view<'a, T: Clone>(given: &'a Given, array: &'a ArrayD<T>, one: &'a ArrayD<T>) -> ArrayViewD<'a, T> {
    if let Some(view) = given.repeated.as_ref().and_then(|shape| one.broadcast(IxDyn(shape))) {
        return view;
    }
    let mut view = array.view();
    if given.is_reversed && !given.shape.is_empty() {
        view.slice_axis_inplace(ndarray::Axis(0), Slice::new(0, None, -1));
    }
    view
}

/// Who is given what.
fn case(rng: &mut Random, receivers: &[(Receiver, &[Wanted])]) -> (usize, Vec<Given>) {
    let at = rng.below(receivers.len());
    let steps = [1 + rng.below(5), 1 + rng.below(4)];
    // A stream has two samples.
    let batch = if matches!(receivers[at].0, Receiver::Stream(_)) { 2 } else { 1 + rng.below(4) };
    let mut all: Vec<Given> = Vec::new();
    for wanted in receivers[at].1 {
        match rng.below(30) {
            0 => {}
            1 => all.extend([given(rng, wanted, [steps[0], steps[1], batch]), given(rng, wanted, [2, 2, 2])]),
            _ => all.push(given(rng, wanted, [steps[0], steps[1], batch])),
        }
    }
    (at, all)
}

impl Target for Feeds {
    fn run(&mut self, number: u64, counts: &mut Counts) -> Result<(), String> {
        let mut rng = Random::new(number, 0);
        let (at, all) = case(&mut rng, &self.receivers);
        let (one, zero) = (ArrayD::from_elem(IxDyn(&[]), 0.5f32), ArrayD::from_elem(IxDyn(&[]), 1i32));
        let mut feed = Feed::new();
        for g in &all {
            feed = match g.is_float {
                true if rng.once_in(30) => feed.f32_slice(g.name, &g.shape, &[0.5; 3]),
                true => feed.f32(g.name, view(g, &g.floats, &one)),
                false => feed.i32(g.name, view(g, &g.integers, &zero)),
            };
        }
        let huge = [0, 1, 2, 3, 1 << 31, 1 << 58, 1 << 61, usize::MAX];
        if rng.once_in(20) {
            feed = feed.batch(rng.of(&huge));
        }
        if rng.once_in(20) {
            feed = feed.steps(rng.of(&["time", "other", "T", "", "length"]), rng.of(&huge));
        }
        let (kind, is_taken) = match &mut self.receivers[at].0 {
            Receiver::Trainer(trainer) if rng.once_in(3) => ("evaluated", trainer.evaluate(&feed).is_ok()),
            Receiver::Trainer(trainer) => ("trained", trainer.step(&feed).is_ok()),
            Receiver::Stream(stream) => ("streamed", stream.step(&feed).is_ok()),
            Receiver::Session(session) => ("run", session.run(&feed).is_ok()),
        };
        *counts.entry(if is_taken { kind } else { "refused" }).or_default() += 1;
        Ok(())
    }

    fn show(&mut self, number: u64) -> String {
        let (at, all) = case(&mut Random::new(number, 0), &self.receivers);
        let kind = match self.receivers[at].0 {
            Receiver::Trainer(_) => "trainer",
            Receiver::Stream(_) => "stream",
            Receiver::Session(_) => "session",
        };
        let arrays = all.iter().map(|g| {
            let repeated = g.repeated.as_ref().map_or(String::new(), |shape| format!(", repeated to {shape:?}"));
            format!("  {}: float {}, shape {:?}{repeated}\n", g.name, g.is_float, g.shape)
        });
        format!("{kind} {at}\n{}", arrays.collect::<String>())
    }

    fn covered(&self, counts: &Counts, cases: u64) -> Result<(), String> {
        let taken: Vec<&str> = ["evaluated", "trained", "streamed", "run"]
            .into_iter()
            .filter(|k| counts.get(k).is_none_or(|&n| n < cases / 50))
            .collect();
        match cases < 2000 || taken.is_empty() {
            true => Ok(()),
            false => Err(format!("less than one in 50 of {cases} feeds was {}", taken.join(" or "))),
        }
    }
}
