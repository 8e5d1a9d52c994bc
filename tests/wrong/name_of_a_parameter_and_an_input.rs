//! The other way about.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let w = p.parameter("w", 3, Init::Constant(1.0));
    p.output("y", w * p.input("w", 3));
}
