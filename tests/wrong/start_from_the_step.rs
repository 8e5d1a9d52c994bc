//! A start that is computed in the step.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    p.scan("rnn", |s| {
        s.start("h", s.at(x));
        retrograd::cells::rnn(s, s.at(x), 3)
    });
}
