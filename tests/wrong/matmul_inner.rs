//! Inner dimensions differ.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (a, b) = (p.input("a", [2, 3]), p.input("b", [4, 2]));
    p.output("y", a.matmul(b));
}
