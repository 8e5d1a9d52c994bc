//! Probabilities of integers.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.declare("x", Type::int(Extent::Batch, 4)).softmax());
}
