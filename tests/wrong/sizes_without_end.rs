//! Sizes that no memory has, by every door.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let most = usize::MAX;
    p.input("x", [most, most]);
    let (y, i) = (p.input("y", 4), p.labels("i"));
    p.parameter("w", [most, 2], Init::Glorot);
    p.output("affine", p.affine("a", y, most));
    p.output("hot", i.one_hot(most));
    p.output("none", i.one_hot(0));
    p.output("words", p.embedding("words", i, most, most));
    p.output("broadcast", y.broadcast([most, 4]));
    p.output("reshape", y.reshape([most, most]));
    p.output("full", p.full([most, 2], 1.0));
    p.output("slice", y.slice(most..));
    p.output("slice_axis", y.slice_axis(most, 0..most));
    p.output("outer", p.full(1 << 20, 1.0).outer(p.full(1 << 20, 1.0)));
    p.output("sum", y.sum_axis(most));
    p.output("order", y.permute(vec![most]));
}
