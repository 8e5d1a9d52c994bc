//! Rows of a matrix are of one length.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (a, b) = (p.input("a", 3), p.input("b", 4));
    p.output("y", stack([a, b]));
}
