//! Time as motion of nodes: out of loops, and loops written out.
//!
//! [`hoist`] moves what is not on the recurrence out of the loops, on any program, derived or not, and [`rotate`] a
//! product at the end of a step to the start of the next: they change where work is done. [`unroll`] writes the loops
//! over an axis out for a fixed number of steps: how it is written. [`carry_state`] makes the states of loops inputs and
//! updates, so that a long sequence can be run window by window: what a program stores. [`divide`] takes a program apart
//! at a time axis, so that what is before it is computed once and the rest step by step. [`infer`] leaves out what only
//! training needs, and [`restrict`] outputs that are not wanted. None of them changes what is computed. [`obstacles`] says
//! what of a program cannot run step by step. [`truncate()`] carries states for training, with gradients that run back over
//! a number of steps of their own,
//! and so changes what the objective depends on.

mod carry_state;
mod cut;
mod divide;
mod hoist;
mod infer;
mod rotate;
mod stepwise;
pub mod truncate;
mod unroll;

pub use carry_state::{CarriedState, carry_state};
pub use divide::{DivideError, Divided, divide};
pub use hoist::hoist;
pub use infer::{infer, restrict};
pub use rotate::rotate;
pub use stepwise::{Obstacle, obstacles};
pub use truncate::{Lead, TruncateError, Truncated, truncate};
pub use unroll::{UnrollError, unroll};
