//! One more than there can be.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    for name in ["a", "b", "c", "d", "e"] {
        p.scope(name, |p| p.axis(name).sequence("x", 3));
    }
}
