//! A name within another scope than the state's.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let (x, image) = (p.sequence("x", 2), p.input("image", 3));
    p.scan("rnn", |s| {
        s.start("h", image);
        s.scope("layer1", |s| retrograd::cells::lstm(s, s.at(x), 3))
    });
}
