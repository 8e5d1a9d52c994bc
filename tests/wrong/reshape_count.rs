//! Features do not appear from nowhere.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.input("x", [2, 3]).reshape([2, 4]));
}
