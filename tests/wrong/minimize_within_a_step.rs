//! A loss of each step is returned, and minimised outside.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (x, label) = (p.sequence("x", 3), p.labels_sequence("label"));
    p.scan("rnn", |s| p.minimize(s.at(x).cross_entropy(s.at(label))));
}
