//! Nothing has no shape. The mistake is where nothing was joined, not where it is used.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let parts: Vec<Expr> = Vec::new();
    let joined = concat(parts);
    p.output("y", joined.tanh() + p.input("x", 3));
}
