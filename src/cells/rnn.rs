//! The vanilla recurrent net, in two spellings that are the same function and compile to the same plan.

use crate::prelude::*;

/// h' = tanh(\[h; x\]·W + b). Elman (1990), "Finding structure in time".
///
/// Parameters: `cell.w` `[units + inputs, units]`, `cell.b`. State: `h`.
#[track_caller]
pub fn rnn<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let h = s.state("h", units);
    s.next(h, s.affine("cell", concat([h, x]), units).tanh())
}

/// h' = tanh(h·W_hh + x·W_hx + b): [`rnn`] with its weight in two parts.
///
/// Parameters: `hh.w` `[units, units]`, `hx.w` `[inputs, units]`, `hx.b`. State: `h`.
#[track_caller]
pub fn rnn_split<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let h = s.state("h", units);
    s.next(h, (s.linear("hh", h, units) + s.affine("hx", x, units)).tanh())
}
