//! A name that nothing has.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.parameter("w", 3, Init::Constant(1.0));
    p.output("y", p.value("v"));
}
