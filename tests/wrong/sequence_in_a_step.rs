//! The whole sequence where this step's rows were meant.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    let run = p.scan("rnn", |s| {
        let h = s.state("h", 3);
        s.next(h, (h + x).tanh())
    });
    p.output("y", run.all());
}
