//! A state told twice where to start.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (x, image) = (p.sequence("x", 2), p.input("image", 3));
    let half = image * 0.5;
    p.scan("rnn", |s| {
        s.start("h", image);
        s.start("h", half);
        retrograd::cells::rnn(s, s.at(x), 3)
    });
}
