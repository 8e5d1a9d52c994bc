//! Two results of one name.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.input("x", 3);
    p.output("y", x.sin());
    p.output("y", x.cos());
}
