//! Three gates of ten features.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let [r, z, n] = p.affine("gates", p.input("x", 4), 10).split();
    p.output("y", r * z + n);
}
