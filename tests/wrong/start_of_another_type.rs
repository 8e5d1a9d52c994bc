//! An encoder with other units than the decoder that is to go on from it.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 2);
    let encoder = p.scan("encoder", |s| retrograd::cells::lstm(s, s.at(x), 4));
    p.scan("decoder", |s| {
        s.start("h", encoder.state("h"));
        retrograd::cells::lstm(s, s.at(x), 3)
    });
}
