//! Sequences that differ in length.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (x, y) = (p.axis("source").sequence("x", 3), p.axis("target").sequence("y", 3));
    let run = p.scan("both", |s| s.at(x) + s.at(y));
    p.output("z", run.all());
}
