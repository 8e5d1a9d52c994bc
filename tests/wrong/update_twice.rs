//! One new value.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let w = p.parameter("w", 3, Init::Constant(1.0));
    p.update(w, w * 0.5);
    p.update(w, w * 0.25);
}
