//! Shapes that numpy would not broadcast either.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (a, b) = (p.input("a", 3), p.input("b", [4, 1, 2]));
    p.output("y", a + b);
}
