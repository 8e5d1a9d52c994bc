//! Seventeen dimensions, given and made.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.input("x", vec![1; 17]);
    let y = p.input("y", vec![1; 16]);
    p.output("z", stack([y, y]));
    p.output("same", y.reshape(vec![1; 17]));
}
