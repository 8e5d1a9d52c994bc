//! Three gates' biases for four gates.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let biases = Init::Pieces(vec![Init::Constant(1.0), Init::Constant(0.0), Init::Constant(0.0)]);
    p.output("y", p.affine_with("gates", p.input("x", 3), 16, Init::Glorot, biases));
}
