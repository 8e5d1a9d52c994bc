//! A scan is a node, but no value.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    p.scan("rnn", |s| s.at(x).tanh()).all();
    let of = Program::record("of", |q| {
        let x = q.sequence("x", 3);
        q.output("y", q.scan("rnn", |s| s.at(x).tanh()).all());
    });
    let of = of.expect("no mistakes in it");
    let scan = of.graph.operands(of.output("y").expect("recorded"))[0];
    p.output("y", p.from_value(scan));
}
