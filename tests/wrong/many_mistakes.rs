//! All of them are told, in order, and what comes of a mistake is silent.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 28);
    let run = p.scan("lstm", |s| {
        let (h, c) = (s.state("h", 16), s.state("c", 16));
        let [i, f, o] = s.affine("gates", concat([h, s.at(x)]), 64).split();
        let c1 = s.next(c, f.sigmoid() * c + i.sigmoid());
        s.next(h, o.sigmoid() * c1.tanh()) + x
    });
    let logits = p.affine("readout", run.last(), 10).softmax().ln() * 2.0;
    p.output("logits", logits);
    p.output("logits", p.input("y", 3));
    p.minimize(p.input("y", 3));
}
