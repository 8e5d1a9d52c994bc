//! A loop that is written out over more values than its step has places for.

use retrograd::cells;
use retrograd::prelude::*;

pub fn record(p: &Recorder<'_>) {
    let list: Vec<Expr> = ["a", "b", "c"].map(|name| p.input(name, 3)).into();
    let run = p.static_rnn("noting", &list, |s, x| cells::remembered(s, x, 2));
    p.output("y", run.all()[2]);
}
