//! Each program records its own.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.input("x", 3);
    let inner = Program::record("inner", |q| q.output("y", x + q.input("z", 3)));
    p.output("x", x);
    if let Err(errors) = inner {
        assert_eq!(errors.iter().count(), 1, "{errors}");
    }
}
