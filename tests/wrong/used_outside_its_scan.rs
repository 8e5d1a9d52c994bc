//! A value of one step, carried out of it by hand.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    let mut last = None;
    p.scan("rnn", |s| {
        let h = s.state("h", 3);
        last = Some(s.next(h, h + s.at(x)));
    });
    p.output("y", last.expect("set in the step") * 2.0);
}
