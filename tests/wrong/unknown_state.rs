//! A state by a wrong name.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    let run = p.scan("net", |s| s.scope("layer1", |s| retrograd::cells::lstm(s, s.at(x), 3)));
    p.output("c", run.state("c"));
}
