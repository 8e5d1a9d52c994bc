//! There is one row.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.minimize(p.parameter("w", (), Init::Constant(1.0)).mean_rows());
}
