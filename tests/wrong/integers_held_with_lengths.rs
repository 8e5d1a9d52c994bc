//! An integer given out by a scan with lengths.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let time = p.lengths("lengths");
    let x = time.sequence("x", 3);
    let run = time.scan("largest", |s| s.at(x).argmax());
    p.output("which", run.all());
}
