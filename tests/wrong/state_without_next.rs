//! A state that no step changes.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    let run = p.scan("rnn", |s| {
        let h = s.state("h", 3);
        (h + s.at(x)).tanh()
    });
    p.output("y", run.all());
}
