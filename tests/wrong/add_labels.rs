//! Arithmetic on integers.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let label = p.labels("label");
    p.output("y", label + 1.0);
}
