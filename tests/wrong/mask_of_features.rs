//! A mask is one number a row.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let loss = p.sequence("x", 3).mse(p.sequence("target", 3));
    p.minimize(loss.masked_mean(p.sequence("mask", 3)));
}
