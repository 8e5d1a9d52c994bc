//! Told by the program in which it is used.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let mut errors = None;
    Program::record("outer", |q| {
        let x = q.input("x", 3);
        errors = Program::record("inner", |r| r.output("y", r.input("z", 3) + x)).err();
    })
    .expect("the outer program is right");
    for error in &errors.expect("a value of another program") {
        assert!(error.to_string().contains("belongs to another program, `outer`"), "{error}");
    }
    p.output("y", p.input("x", 3) + p.value("outer"));
}
