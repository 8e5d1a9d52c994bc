//! `%1` and `1` mean other things in texts.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    for (i, layer) in ["1", "2"].into_iter().enumerate() {
        p.scope(layer, |p| p.parameter("w", i + 1, Init::Constant(0.0)));
    }
}
