//! Names are used in texts and files.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.input("the x", 3));
    p.output("", p.input("x", 3));
}
