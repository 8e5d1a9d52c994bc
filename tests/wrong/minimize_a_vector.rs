//! An objective is one number.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.minimize(p.affine("readout", p.input("x", 4), 3));
}
