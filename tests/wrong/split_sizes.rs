//! Sizes that leave something over.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let [a, b] = p.input("x", 10).split_at([4, 5]);
    p.output("y", a.sum() + b.sum());
}
