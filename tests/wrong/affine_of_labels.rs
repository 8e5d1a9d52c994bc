//! Indices multiplied instead of looked up.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let word = p.labels_sequence("word");
    p.output("y", p.affine("readout", word, 5));
}
