//! A weight of another height than the input is wide.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.input("x", 10);
    let w = p.parameter("w", [12, 5], Init::Glorot);
    p.output("y", x.dot(w));
}
