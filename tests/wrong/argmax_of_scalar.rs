//! The largest of one.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.input("x", ()).argmax());
}
