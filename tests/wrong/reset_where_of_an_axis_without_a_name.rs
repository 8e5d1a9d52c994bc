//! The axis is the mistake; what hangs on it is silent.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let begins = p.sequence("begins", 3);
    let x = p.sequence("x", 2);
    let run = p.axis("").reset_where(begins).scan("sum", |s| {
        let h = s.state("h", 2);
        s.next(h, h + s.at(x))
    });
    p.output("y", run.all());
}
