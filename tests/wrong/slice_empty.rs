//! A range of nothing.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.input("x", 4).slice(4..));
}
