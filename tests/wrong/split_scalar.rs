//! A scalar has no parts.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let [a, b] = p.input("x", ()).split();
    p.output("y", a + b);
}
