//! The vanilla recurrent net, in three spellings that are the same function and compile to the same plan, and two
//! variations of it.

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

/// The net in the letters of many a lecture, with its readout: s is the memory, o what is said of it.
/// ```text
/// s' = tanh(x·U + s·W + b)
/// o  = softmax(s'·V + c)
/// ```
/// Goodfellow et al. (2016), *Deep learning*, equations 10.8–10.11 (s is their h); LeCun et al. (2015), "Deep learning",
/// figure 5.
///
/// Gives s' `[units]`, the logits s'·V + c `[outputs]`, which losses take, and o `[outputs]`. The recurrence is that of
/// [`rnn_split`], and compiles to the same plan.
///
/// Parameters: `U` `[inputs, units]`, `W` `[units, units]`, `V` `[units, outputs]`, `b`, `c`. State: `s`.
///
/// ```
/// use retrograd::{cells, prelude::*};
///
/// let words = Program::record("words", |p| {
///     let (x, next) = (p.sequence("x", 8), p.labels_sequence("next"));
///     let (_, logits, said) = p.scan("rnn", |s| cells::rnn_uvw(s, s.at(x), 16, 5));
///     p.output("said", said.all()); // f32[T, B, 5], probabilities
///     p.minimize(logits.all().cross_entropy(next));
/// })?;
/// assert_eq!(words.ty(words.parameter("rnn.V").unwrap().value).shape, [16, 5].into());
/// # Ok::<(), RecordErrors>(())
/// ```
#[track_caller]
pub fn rnn_uvw<'r>(s: &Step<'r>, x: Expr<'r>, units: usize, outputs: usize) -> (Expr<'r>, Expr<'r>, Expr<'r>) {
    let memory = s.state("s", units);
    let u = s.parameter("U", [x.units(), units], Init::Glorot);
    let w = s.parameter("W", [units, units], Init::Glorot);
    let v = s.parameter("V", [units, outputs], Init::Glorot);
    let [b, c] = [("b", units), ("c", outputs)].map(|(name, n)| s.parameter(name, n, Init::Constant(0.0)));
    let memory = s.next(memory, (memory.dot(w) + (x.dot(u) + b)).tanh());
    let logits = memory.dot(v) + c;
    (memory, logits, logits.softmax())
}

/// [`rnn_split`] that is told the same at every step, such as what is on an image:
/// h' = tanh(x·W_xh + h·W_hh + v·W_ih + b), with one v for a sample. Its product is made once, not in the loop.
///
/// The condition of Karpathy & Fei-Fei (2015), "Deep visual-semantic alignments for generating image descriptions", who
/// have it at the first step only.
///
/// `about` is v, any features of a sample. Parameters: `xh.w` `[inputs, units]`, `xh.b`, `hh.w` `[units, units]`, `ih.w`
/// `[features of v, units]`. State: `h`.
///
/// ```
/// use retrograd::{cells, prelude::*};
///
/// let captions = Program::record("captions", |p| {
///     let (word, next) = (p.labels_sequence("word"), p.labels_sequence("next"));
///     let image = p.input("image", 32); // f32[B, 32]
///     let words = p.embedding("words", word, 50, 16);
///     let run = p.scan("rnn", |s| cells::conditioned_rnn(s, s.at(words), image, 24));
///     p.minimize(p.affine("readout", run.all(), 50).cross_entropy(next));
/// })?;
/// assert_eq!(captions.ty(captions.parameter("rnn.ih.w").unwrap().value).shape, [32, 24].into());
/// # Ok::<(), RecordErrors>(())
/// ```
#[track_caller]
pub fn conditioned_rnn<'r>(s: &Step<'r>, x: Expr<'r>, about: Expr<'r>, units: usize) -> Expr<'r> {
    let h = s.state("h", units);
    let z = s.affine("xh", x, units) + s.linear("hh", h, units) + s.linear("ih", about, units);
    s.next(h, z.tanh())
}

/// Units that see each other in the layer above only: h' = max(x·W + u⊙h + b, 0).
///
/// Li et al. (2018), "Independently recurrent neural network (IndRNN)". There is no product in the loop, and the
/// gradient of a unit back through T steps is u to the power of T: |u| ≤ 2^(1/T) keeps it in bounds. u starts uniform
/// between 0 and 1.
///
/// Parameters: `x.w` `[inputs, units]`, `x.b`, `u` `[units]`. State: `h`.
#[track_caller]
pub fn ind_rnn<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let h = s.state("h", units);
    let u = s.parameter("u", units, Init::Uniform(0.0, 1.0));
    s.next(h, (s.affine("x", x, units) + u * h).relu())
}
