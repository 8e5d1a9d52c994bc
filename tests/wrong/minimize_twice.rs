//! One objective: their sum, if both are meant.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.input("x", 3);
    p.minimize(x.square().sum());
    p.minimize(x.abs().sum());
}
