//! Two values of each sample, multiplied as if one were a weight.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (a, b) = (p.input("a", [3, 3]), p.input("b", [3, 3]));
    p.output("y", a.dot(b));
}
