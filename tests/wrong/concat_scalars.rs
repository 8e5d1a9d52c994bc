//! Scalars have no axis to stand along: `stack` gives them one.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (a, b) = (p.input("a", ()), p.input("b", ()));
    p.output("y", concat([a, b]));
}
