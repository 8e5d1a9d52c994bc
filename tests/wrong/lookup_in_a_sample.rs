//! A table is one for all samples.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let table = p.input("table", [100, 8]);
    p.output("y", table.lookup(p.labels("word")));
}
