//! A scalar has no last dimension to multiply along.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.input("x", ());
    p.output("y", p.affine("readout", x, 5));
}
