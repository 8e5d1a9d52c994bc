//! Numpy's broadcast would hide this one.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let y = p.affine("readout", p.input("x", 4), 3);
    p.minimize(y.mse(p.input("target", 1)));
}
