//! Cells: one step each, as plain functions of a [`Step`](crate::prelude::Step), this step's input and the number of
//! units; each gives the new h.
//!
//! They use the public interface only. To make another, copy one. [σ is the sigmoid, ⊙ the product of features,
//! `[h; x]` concatenation; W are weights, b biases.]
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

mod gru;
mod lstm;
mod rnn;

pub use gru::{gru, mgu, min_gru};
pub use lstm::{layer_norm_lstm, lstm, peephole_lstm};
pub use rnn::{rnn, rnn_split};
