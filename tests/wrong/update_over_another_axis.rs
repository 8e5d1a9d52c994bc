//! Two sequences, each with a length of its own: neither is a row for each step of the other.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (x, z) = (p.axis("source").sequence("x", 3), p.axis("target").sequence("z", 3));
    p.update(z, x);
    p.update(x, z);
}
