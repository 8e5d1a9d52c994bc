//! A float is no index.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.input("x", ()).one_hot(4));
}
