//! A weight starts one way.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let a = p.parameter("w", 3, Init::Normal(0.1));
    let b = p.parameter("w", 3, Init::Constant(0.0));
    p.output("y", a + b);
}
