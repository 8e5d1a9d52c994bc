//! Results are not stored.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.input("x", 3);
    p.update(x.tanh(), x);
}
