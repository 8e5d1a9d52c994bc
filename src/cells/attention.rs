//! Attention: each step looks at L places, of a grid or of a sequence, and takes a weighted mean of what is there.
//!
//! The places are a value of the sample, `[L, D]`: an image's features, or what an encoder has [remembered]. How much a
//! place counts is a softmax over scores; the two kinds differ in how a query and a key make a score. The decoders are
//! cells that look before or after they step, and give the state, the context and the weights.
//!
//! ```
//! use retrograd::{cells, prelude::*};
//!
//! // A captioner: word by word, each with a look at 49 places of an image.
//! let captions = Program::record("captions", |p| {
//!     let (word, next) = (p.labels_sequence("word"), p.labels_sequence("next"));
//!     let grid = p.input("grid", [49, 64]); // f32[B, 49, 64]
//!     let words = p.embedding("words", word, 50, 16);
//!     let start = p.affine("start", grid.mean_axis(0).reshape(64), 32).tanh();
//!     let (h, context, weights) = p.scan("decoder", |s| {
//!         s.start("h", start);
//!         cells::additive_attention_decoder(s, s.at(words), grid, 32)
//!     });
//!     let logits = p.affine("readout", concat([h.all(), context.all()]), 50);
//!     p.output("weights", weights.all()); // f32[T, B, 49]
//!     p.minimize(logits.cross_entropy(next));
//! })?;
//! # Ok::<(), RecordErrors>(())
//! ```

use super::{gru, lstm};
use crate::prelude::*;

/// What is looked at: L places with D features each, of each sample. An [`Expr`] `[L, D]` is places that are all there.
#[derive(Clone, Copy, Debug)]
pub struct Places<'r> {
    /// `[L, D]`
    pub features: Expr<'r>,
    /// Not 0 for places that are there, 0 for padding, which has no weight: `[L]`. `None`: all are there. What padding
    /// holds, NaN included, reaches neither the result nor a gradient. A sample must have one place at least; where none is,
    /// all have the same weight.
    pub mask: Option<Expr<'r>>,
}

impl<'r> From<Expr<'r>> for Places<'r> {
    fn from(features: Expr<'r>) -> Places<'r> {
        Places { features, mask: None }
    }
}

impl<'r> Places<'r> {
    /// What the step of a scan has [`remembered`].
    #[track_caller]
    pub fn of(run: Run<'r>) -> Places<'r> {
        Places { features: run.state("remembered"), mask: Some(run.state("remembers")) }
    }

    fn weights(self, scores: Expr<'r>) -> Expr<'r> {
        // The least of all numbers, of which exp makes 0 beside any score, and which is none of the infinities.
        self.mask.map_or(scores, |mask| select(mask, scores, f32::MIN)).softmax()
    }

    /// Rows of places, `[L, ..]`, 0 for padding: a weight of 0 times what padding holds need not be 0.
    fn there(self, rows: Expr<'r>) -> Expr<'r> {
        self.mask.map_or(rows, |mask| select(mask.reshape([mask.units(), 1]), rows, 0.0))
    }
}

/// Keeps what each step gives, for a decoder to look at: x of all steps, the latest in the last place. Gives x. Where samples
/// have [lengths](TimeAxis::lengths), their own steps are kept.
///
/// A run of more steps than there are places is [refused](Step::at_most); [`remembered_last`] forgets the oldest instead.
/// Every step copies all places, so this is for texts, not for thousands of steps.
///
/// States: `remembered` `[places, features of x]`, and `remembers` `[places]`, 1 for each place that is filled.
///
/// ```
/// use retrograd::{cells, prelude::*};
///
/// let translate = Program::record("translate", |p| {
///     let (source, target) = (p.axis("source").lengths("lengths"), p.axis("target"));
///     let (x, before, next) = (source.labels("x"), target.labels("before"), target.labels("next"));
///     let table = p.parameter("words", [50, 16], Init::Normal(0.1));
///     let encoder = source.scan("encoder", |s| {
///         let h = cells::gru(s, table.lookup(s.at(x)), 32);
///         cells::remembered(s, h, 20)
///     });
///     let (h, _, weights) = target.scan("decoder", |s| {
///         s.start("h", encoder.state("h"));
///         cells::additive_attention_decoder(s, table.lookup(s.at(before)), cells::Places::of(encoder), 32)
///     });
///     p.output("weights", weights.all()); // f32[T1, B, 20]
///     p.minimize(p.affine("readout", h.all(), 50).cross_entropy(next));
/// })?;
/// # Ok::<(), RecordErrors>(())
/// ```
#[track_caller]
pub fn remembered<'r>(s: &Step<'r>, x: Expr<'r>, places: usize) -> Expr<'r> {
    s.at_most(places);
    remembered_last(s, x, places)
}

/// As [`remembered`], for runs of any number of steps: x of the last `places` of them.
///
/// ```
/// use retrograd::{cells, prelude::*};
///
/// // A weighted mean of the last five steps of a sequence of any length.
/// let program = Program::record("recent", |p| {
///     let x = p.sequence("x", 8);
///     let run = p.scan("notes", |s| cells::remembered_last(s, s.at(x), 5));
///     let places = cells::Places::of(run);
///     let (context, _) = cells::dot_attention(run.last(), places.features, places);
///     p.output("context", context); // f32[B, 8]
/// })?;
/// # Ok::<(), RecordErrors>(())
/// ```
#[track_caller]
pub fn remembered_last<'r>(s: &Step<'r>, x: Expr<'r>, places: usize) -> Expr<'r> {
    let (kept, mask) = (s.state("remembered", [places, x.units()]), s.state("remembers", places));
    s.next(kept, concat_axis(0, [kept, x.reshape([1, x.units()])]).slice_axis(0, 1..));
    s.next(mask, concat([mask, s.full(1, 1.0)]).slice(1..));
    x
}

/// A look by inner products: weights = softmax(keys·query), context = Σᵢ weightsᵢ·valuesᵢ.
///
/// The score `dot` of Luong et al. (2015), "Effective approaches to attention-based neural machine translation". Query
/// `[K]`, keys `[L, K]`, values `[L, D]`; gives the context `[D]` and the weights `[L]`. For the scaled product of Vaswani
/// et al. (2017), divide the query by √K.
#[track_caller]
pub fn dot_attention<'r>(query: Expr<'r>, keys: Expr<'r>, values: impl Into<Places<'r>>) -> (Expr<'r>, Expr<'r>) {
    let values = values.into();
    let weights = values.weights(values.there(keys).matmul(query));
    (weights.matmul(values.there(values.features)), weights)
}

/// A look by a small net: weights = softmax(tanh(query·W + keys·U)·v), context = Σᵢ weightsᵢ·valuesᵢ.
///
/// Bahdanau et al. (2015), "Neural machine translation by jointly learning to align and translate". Query `[Q]`, keys
/// `[L, K]`, values `[L, D]`; gives the context `[D]` and the weights `[L]`. Where the keys are the same at each step,
/// keys·U is made once.
///
/// Parameters: `query.w` `[Q, units]`, `keys.w` `[K, units]`, `v` `[units]`.
#[track_caller]
pub fn additive_attention<'r>(
    s: &Scope<'r>,
    query: Expr<'r>,
    keys: Expr<'r>,
    values: impl Into<Places<'r>>,
    units: usize,
) -> (Expr<'r>, Expr<'r>) {
    let values = values.into();
    let v = s.parameter("v", units, Init::Normal((units as f64).powf(-0.5)));
    let compared = (s.linear("keys", values.there(keys), units) + s.linear("query", query, units)).tanh();
    let weights = values.weights(compared.inner(v));
    (weights.matmul(values.there(values.features)), weights)
}

/// An LSTM that steps, looks, and lets what it saw into the next step:
/// ```text
/// h' = LSTM([x; a], h)
/// context, weights = look at the places by h'·W_q
/// a' = tanh([context; h']·W_a + b_a)
/// ```
/// Luong et al. (2015): score `general`, of which `dot` is the case W_q = 1, and input feeding. Their h̃ is a.
///
/// `places` `[L, D]`. Gives a' `[units]`, which words are read out of, the context `[D]` and the weights `[L]`.
///
/// Parameters: those of [`lstm`](super::lstm) over x and a, `query.w` `[units, D]`, `attended.w` `[D + units, units]`,
/// `attended.b`. States: `h`, `c`, `attended`. They start at 0, or where [`Step::start`] says.
#[track_caller]
pub fn dot_attention_decoder<'r>(
    s: &Step<'r>,
    x: Expr<'r>,
    places: impl Into<Places<'r>>,
    units: usize,
) -> (Expr<'r>, Expr<'r>, Expr<'r>) {
    let places = places.into();
    let attended = s.state("attended", units);
    let h = lstm::lstm(s, concat([x, attended]), units);
    let query = s.linear("query", h, places.features.units());
    let (context, weights) = dot_attention(query, places.features, places);
    let attended = s.next(attended, s.affine("attended", concat([context, h]), units).tanh());
    (attended, context, weights)
}

/// A GRU that looks before it steps:
/// ```text
/// context, weights = look at the places by h
/// h' = GRU([x; context], h)
/// ```
/// Bahdanau et al. (2015), with the places' own features as annotations. Xu et al. (2015), "Show, attend and tell", is
/// this over the grid of an image.
///
/// `places` `[L, D]`. Gives h' `[units]`, the context `[D]` and the weights `[L]`.
///
/// Parameters: those of [`gru`](super::gru) over x and the context, and of [`additive_attention`] with as many units in
/// `look`. State: `h`, which starts at 0, or where [`Step::start`] says.
#[track_caller]
pub fn additive_attention_decoder<'r>(
    s: &Step<'r>,
    x: Expr<'r>,
    places: impl Into<Places<'r>>,
    units: usize,
) -> (Expr<'r>, Expr<'r>, Expr<'r>) {
    let places = places.into();
    let h = s.state("h", units);
    let (context, weights) = s.scope("look", |s| additive_attention(s, h, places.features, places, units));
    let h = s.next(h, gru::gated(s, h, concat([x, context]), units));
    (h, context, weights)
}
