//! Dots are made by scopes.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.parameter("encoder.w", 3, Init::Constant(0.0));
}
