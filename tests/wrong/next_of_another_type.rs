//! The joined input and state where the state was meant.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 2);
    p.scan("rnn", |s| {
        let h = s.state("h", 3);
        s.next(h, concat([h, s.at(x)]).tanh());
    });
}
