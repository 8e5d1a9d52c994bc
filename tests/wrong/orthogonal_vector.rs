//! One row is orthogonal to nothing.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.parameter("b", 3, Init::Orthogonal(1.0));
}
