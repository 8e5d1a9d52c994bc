//! An axis named twice.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.input("x", [2, 3]).permute([1, 1]));
}
