//! Both are found by name at run time.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.input("x", 3);
    p.output("y", x * p.parameter("x", 3, Init::Constant(1.0)));
}
