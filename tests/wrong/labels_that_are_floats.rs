//! One-hot targets where labels are asked for.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let logits = p.input("logits", 10);
    p.minimize(logits.cross_entropy(p.input("target", 10)));
}
