//! All states of an encoder, used within the step of a decoder.

use retrograd::cells;
use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (source, target) = (p.axis("source"), p.axis("target"));
    let (x, y) = (source.sequence("x", 3), target.sequence("y", 3));
    let encoder = source.scan("encoder", |s| cells::rnn(s, s.at(x), 4));
    let decoder = target.scan("decoder", |s| {
        let h = cells::rnn(s, s.at(y), 4);
        h.inner(encoder.all())
    });
    p.output("scores", decoder.all());
}
