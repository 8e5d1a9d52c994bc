//! Declared twice, differently.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    p.output("y", x + p.input("x", 3));
}
