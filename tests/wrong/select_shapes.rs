//! Branches that do not meet.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (x, y) = (p.input("x", 3), p.input("y", 2));
    p.output("z", select(x.gt(0.0), x, y));
}
