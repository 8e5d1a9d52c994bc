//! A value of one scan's step in another's.

use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    let mut first = None;
    p.scan("one", |s| first = Some(s.at(x)));
    p.scan("two", |s| {
        let h = s.state("h", 3);
        s.next(h, h + first.expect("set in the other step"));
    });
}
