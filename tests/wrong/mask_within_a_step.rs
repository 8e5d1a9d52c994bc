//! The mask of an axis has a row for each step, so a step reads its row.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 2);
    let run = p.scan("sum", |s| {
        let h = s.state("h", 2);
        s.next(h, h + s.at(x) * p.axis("time").mask())
    });
    p.output("y", run.all());
}
