//! Two layers in one step, and no scopes: told at the second layer, not in the library.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    let run = p.scan("net", |s| {
        let h = retrograd::cells::gru(s, s.at(x), 3);
        retrograd::cells::gru(s, h, 3)
    });
    p.output("y", run.all());
}
