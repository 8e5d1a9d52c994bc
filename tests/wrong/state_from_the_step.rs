//! What is written in the step happens at every step, and a state starts once.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (x, start) = (p.sequence("x", 3), p.input("start", 3));
    p.scan("rnn", |s| {
        let h = s.state_from("h", start.tanh());
        s.next(h, h + s.at(x));
    });
}
