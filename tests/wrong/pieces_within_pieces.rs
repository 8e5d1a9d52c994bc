//! Initialisers nested deeper than a text of them may be.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let nested = (0..20).fold(Init::He, |init, _| Init::Pieces(vec![init]));
    p.parameter("w", [2, 4], nested);
}
