//! Cells: one step each, as plain functions of a [`Step`], this step's input and the number of
//! units; each gives the new h.
//!
//! They use the public interface only. To make another, copy one. [σ is the sigmoid, ⊙ the product of features,
//! `[h; x]` concatenation; W are weights, b biases.]
//!
//! | family | cells |
//! |---|---|
//! | one state, no gates | [`rnn`], [`rnn_split`], [`rnn_uvw`], [`conditioned_rnn`], [`ind_rnn`] |
//! | a blend of old and new | [`gru`], [`gru_reset_after`], [`mgu`], [`min_gru`], [`min_lstm`] |
//! | a memory behind gates | [`lstm`], [`peephole_lstm`], [`layer_norm_lstm`], [`projected_lstm`] |
//! | looking at places | [`dot_attention_decoder`], [`additive_attention_decoder`]; [`dot_attention`], [`additive_attention`], [`remembered`], [`remembered_last`] |
//! | made of cells | [`stacked`], [`residual`], [`bidirectional`] |
//!
//! States start at 0; [`Step::start`] has them start elsewhere, as in a decoder that goes
//! on from an encoder.
//!
//! States and parameters are named within the step's scope, so layers of one kind need a scope each:
//!
//! ```
//! use retrograd::{cells, prelude::*};
//!
//! let two_layers = Program::record("two_layers", |p| {
//!     let x = p.sequence("x", 8);
//!     let run = p.scan("stack", |s| {
//!         let below = s.scope("below", |s| cells::gru(s, s.at(x), 16));
//!         s.scope("above", |s| cells::lstm(s, below, 16))
//!     });
//!     p.output("y", run.all());
//!     p.output("c", run.state("above.c"));
//! })?;
//! assert!(two_layers.parameter("stack.above.gates.w").is_some());
//! # Ok::<(), RecordErrors>(())
//! ```

mod attention;
mod compose;
mod gru;
mod lstm;
mod rnn;

pub use attention::{
    Places, additive_attention, additive_attention_decoder, dot_attention, dot_attention_decoder, remembered,
    remembered_last,
};
pub use compose::{Bidirectional, bidirectional, residual, stacked};
pub use gru::{gru, gru_reset_after, mgu, min_gru};
pub use lstm::{layer_norm_lstm, lstm, min_lstm, peephole_lstm, projected_lstm};
pub use rnn::{conditioned_rnn, ind_rnn, rnn, rnn_split, rnn_uvw};

use crate::prelude::{Expr, Step};

/// A cell, for those who take any: this step's input and the number of units to what the step gives. `&lstm` is one, and
/// so is a closure, `&|s, x, units| ..`, for a cell that needs to know more.
pub type Cell<'c, 'r> = &'c dyn Fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>;
