//! A dimension of 0.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.input("x", [2, 3]).reshape([6, 0]));
}
