//! An axis that is not there.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.input("x", [2, 3]).sum_axis(2));
}
