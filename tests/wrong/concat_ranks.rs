//! A vector behind a matrix.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (a, b) = (p.input("a", [2, 3]), p.input("b", 3));
    p.output("y", concat([a, b]));
}
