//! Nothing says how many steps it has.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (x, target) = (p.axis("source").sequence("x", 3), p.axis("target").sequence("target", 4));
    let encoded = p.scan("encoder", |s| retrograd::cells::rnn(s, s.at(x), 4));
    let run = p.scan("decoder", |s| {
        let h = s.state_from("h", encoded.last());
        s.next(h, h.tanh())
    });
    p.minimize(run.all().mse(target));
}
