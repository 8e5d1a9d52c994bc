//! Feeds of all kinds: an answer or a typed error, whatever the names, types, shapes, sizes, strides and values are.

use ndarray::{ArrayD, ArrayViewD, IxDyn, Slice};
use retrograd::prelude::*;
use retrograd::runtime::session::Session;

use crate::{Counts, Random, Target};

/// See the module's text.
pub struct Feeds {
    trainers: Vec<Trainer>,
    streams: Vec<Stream>,
    sessions: Vec<Session<f64>>,
}

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
    p.update(mean, mean * 0.9 + x.mean().mean_rows() * 0.1);
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
        ];
        let trainers = [
            programs[0].trainer(Adam::new(0.01)).compile(),
            programs[1].trainer(Sgd::new(0.01)).threads(2).compile(),
            programs[2].trainer(Adam::new(0.01)).compile(),
            programs[0].trainer(Adam::new(0.01)).carry_state(true).compile(),
        ];
        Feeds {
            trainers: trainers.map(|t| t.expect("code for this machine")).into(),
            streams: [&programs[0], &programs[2]].iter().filter_map(|p| p.stream(2, 1).ok()).collect(),
            sessions: programs.iter().filter_map(|p| Session::new(p, 1).ok()).collect(),
        }
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

fn given(rng: &mut Random, [t, t1, b]: [usize; 3]) -> Given {
    let name = rng.of(&["x", "x", "label", "label", "length", "scale", "mean", "X", "optimizer.rate", "", "net.h"]);
    let good = match name {
        "x" => rng.of(&[vec![t, b, 2], vec![t, b, 2, 2], vec![b, 3]]),
        "label" => rng.of(&[vec![t, b], vec![t1, b], vec![b]]),
        "length" => vec![b],
        _ => vec![],
    };
    let shape = match rng.below(8) {
        0 => (0..rng.below(5)).map(|_| rng.below(4)).collect(),
        1 => good.iter().rev().copied().collect(),
        _ => good.clone(),
    };
    let special = rng.of(&[f32::NAN, f32::INFINITY, 3e38, -3e38, 1e-42, 0.0]);
    let integer = rng.of(&[-1, -100, i32::MIN, i32::MAX, 4, 3, 1 << 24]);
    let mut count = rng.below(100);
    let is_special = rng.once_in(3);
    let floats = ArrayD::from_shape_fn(IxDyn(&shape), |_| {
        count += 1;
        if is_special && count.is_multiple_of(5) { special } else { (count % 11) as f32 * 0.1 - 0.5 }
    });
    let integers = ArrayD::from_shape_fn(IxDyn(&shape), |_| {
        count += 1;
        if is_special && count.is_multiple_of(3) { integer } else { (count % 3) as i32 }
    });
    let repeated = rng.once_in(12).then(|| {
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
        is_float: name != "label" && name != "length" || rng.once_in(10),
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

impl Target for Feeds {
    fn run(&mut self, case: u64, counts: &mut Counts) -> Result<(), String> {
        let mut rng = Random::new(case, 0);
        let sizes = [1 + rng.below(5), 1 + rng.below(4), 1 + rng.below(4)];
        let mut all: Vec<Given> = Vec::new();
        for _ in 0..rng.of(&[1, 2, 3, 3, 4, 5, 6]) {
            let one = given(&mut rng, sizes);
            // Mostly each name once.
            if rng.once_in(20) || all.iter().all(|g| g.name != one.name) {
                all.push(one);
            }
        }
        let (one, zero) = (ArrayD::from_elem(IxDyn(&[]), 0.5f32), ArrayD::from_elem(IxDyn(&[]), 1i32));
        let mut feed = Feed::new();
        for g in &all {
            feed = match g.is_float {
                true if rng.once_in(12) => feed.f32_slice(g.name, &g.shape, &[0.5; 3]),
                true => feed.f32(g.name, view(g, &g.floats, &one)),
                false => feed.i32(g.name, view(g, &g.integers, &zero)),
            };
        }
        let huge = [0, 1, 2, 3, 1 << 31, 1 << 58, 1 << 61, usize::MAX];
        if rng.once_in(8) {
            feed = feed.batch(rng.of(&huge));
        }
        if rng.once_in(8) {
            feed = feed.steps(rng.of(&["time", "other", "T", "", "length"]), rng.of(&huge));
        }
        let is_taken = match rng.below(4) {
            0 => {
                let i = rng.below(self.trainers.len());
                self.trainers[i].evaluate(&feed).is_ok()
            }
            1 if !self.streams.is_empty() => {
                let i = rng.below(self.streams.len());
                self.streams[i].step(&feed).is_ok()
            }
            2 if !self.sessions.is_empty() => {
                let i = rng.below(self.sessions.len());
                self.sessions[i].run(&feed).is_ok()
            }
            _ => {
                let i = rng.below(self.trainers.len());
                self.trainers[i].step(&feed).is_ok()
            }
        };
        *counts.entry(if is_taken { "answered" } else { "refused" }).or_default() += 1;
        Ok(())
    }

    fn show(&mut self, case: u64) -> String {
        let mut rng = Random::new(case, 0);
        let sizes = [1 + rng.below(5), 1 + rng.below(4), 1 + rng.below(4)];
        let all: Vec<String> = (0..rng.of(&[1, 2, 3, 3, 4, 5, 6]))
            .map(|_| {
                let g = given(&mut rng, sizes);
                format!("{}: float {}, shape {:?}, repeated to {:?}", g.name, g.is_float, g.shape, g.repeated)
            })
            .collect();
        all.join("\n")
    }
}
