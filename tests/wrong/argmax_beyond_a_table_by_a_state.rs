//! The same, one step later: the index goes through a state.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let first = p.labels("first");
    p.scan("generate", |s| {
        let word = s.state_from("word", first);
        let x = s.embedding("words", word, 10, 8);
        s.next(word, s.affine("readout", x, 12).argmax());
    });
}
