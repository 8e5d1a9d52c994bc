//! A position in a larger program.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let larger = Program::record("larger", |q| q.output("y", q.input("x", 3).softmax()));
    let larger = larger.expect("no mistakes in it");
    p.output("y", p.from_value(larger.output("y").expect("recorded")));
}
