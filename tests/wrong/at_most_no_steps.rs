//! A scan that takes no step.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    let run = p.scan("none", |s| {
        s.at_most(0);
        s.at(x)
    });
    p.output("y", run.all());
}
