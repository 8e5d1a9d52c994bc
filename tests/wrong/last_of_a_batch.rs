//! Only a sequence has a last step.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.output("y", p.input("x", 3).last());
}
