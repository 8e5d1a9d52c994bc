//! More than any memory holds.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.affine("readout", p.input("x", 3), usize::MAX));
    let long = p.input("long", 1 << 20);
    p.output("z", long.outer(long));
}
