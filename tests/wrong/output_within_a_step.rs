//! Outputs are the program's; a step returns its values.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    p.scan("rnn", |s| p.output("y", s.at(x).tanh()));
}
