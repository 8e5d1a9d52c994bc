//! An objective is a float.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    p.minimize(p.labels("label"));
}
