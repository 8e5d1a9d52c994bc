//! They are floats already.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.input("x", 3).to_float());
}
