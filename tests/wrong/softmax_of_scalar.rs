//! Probabilities of one thing.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.input("x", ()).softmax());
}
