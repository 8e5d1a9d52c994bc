//! Ends of a range the wrong way round.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.parameter("w", 3, Init::Uniform(0.1, -0.1));
}
