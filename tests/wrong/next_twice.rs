//! A state has one next value.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    p.scan("rnn", |s| {
        let h = s.state("h", 3);
        s.next(h, h + s.at(x));
        s.next(h, h - s.at(x));
    });
}
