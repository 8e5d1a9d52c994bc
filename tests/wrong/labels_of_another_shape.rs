//! One label a sample for logits of every step of every position.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let logits = p.sequence("logits", [5, 10]);
    p.minimize(logits.cross_entropy(p.labels_sequence("label")));
}
