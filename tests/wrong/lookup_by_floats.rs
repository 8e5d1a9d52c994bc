//! A float is no index.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.embedding("words", p.input("word", ()), 100, 8));
}
