//! What is the same at every step needs no `at`.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let about = p.input("about", 3);
    let run = p.scan("rnn", |s| {
        let h = s.state("h", 3);
        s.next(h, h + s.at(about))
    });
    p.output("y", run.all());
}
