//! Read once is enough.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    let run = p.scan("rnn", |s| {
        let x = s.at(x);
        let h = s.state("h", 3);
        s.next(h, h + s.at(x))
    });
    p.output("y", run.all());
}
