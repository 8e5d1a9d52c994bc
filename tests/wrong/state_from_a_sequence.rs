//! A state starts from one row for each sample.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    p.scan("rnn", |s| {
        let h = s.state_from("h", x);
        s.next(h, h + s.at(x));
    });
}
