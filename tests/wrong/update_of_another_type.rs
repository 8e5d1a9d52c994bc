//! One gradient for each sample is not one for all.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let w = p.parameter("w", 3, Init::Constant(1.0));
    p.update(w, w - p.input("gradient", 3));
}
