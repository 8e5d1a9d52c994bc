//! A value of the step is no state.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    p.scan("rnn", |s| {
        let h = s.state("h", 3);
        let h1 = s.next(h, h + s.at(x));
        s.next(h1, h);
    });
}
