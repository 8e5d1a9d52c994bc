//! Two layers that were meant to be different share a name.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let h = p.affine("layer", p.input("x", 4), 8);
    p.output("y", p.affine("layer", h, 3));
}
