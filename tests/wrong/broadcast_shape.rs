//! Only a dimension of 1 repeats.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.input("x", [2, 3]).broadcast([4, 3]));
}
