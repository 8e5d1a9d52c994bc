//! A sequence begins at a step, so whoever says where has a number for each.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.axis("time").reset_where(p.input("begins", ()));
}
