//! Steps of two axes have nothing to do with each other.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (x, y) = (p.axis("source").sequence("x", 3), p.axis("target").sequence("y", 3));
    p.output("z", x * y);
}
