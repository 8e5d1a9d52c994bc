//! The line is that of the expression, in whichever function it is.

use retrograd::prelude::*;

fn cell<'r>(s: &Step<'r>, x: Expr<'r>) -> Expr<'r> {
    let h = s.state("h", 4);
    s.next(h, (h + x).tanh())
}

pub fn record(p: &Recorder<'_>) {
    let x = p.sequence("x", 3);
    let run = p.scan("rnn", |s| cell(s, s.at(x)));
    p.output("y", run.all());
}
