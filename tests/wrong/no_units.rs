//! A layer of nothing.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.affine("readout", p.input("x", 3), 0));
}
