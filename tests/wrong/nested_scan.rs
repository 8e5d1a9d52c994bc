//! A loop within a step. Its contents are not looked at, however wrong.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let run = p.scan("outer", |s| {
        let h = s.state("h", 3);
        let inner = p.scan("inner", |i| i.state("k", 0) + i.at(h));
        s.next(h, h + inner.last())
    });
    p.output("y", run.all());
}
