//! Time as motion of nodes: out of loops, and loops written out.
//!
//! [`hoist`] moves what is not on the recurrence out of the loops, on any program, derived or not. [`unroll`] writes
//! the loops over an axis out for a fixed number of steps. [`carry_state`] makes the states of loops inputs and
//! updates, so that a long sequence can be run window by window. [`divide`] takes a program apart at a time axis, so that
//! what is before it is computed once and the rest step by step. The first changes where work is done, the second
//! how it is written, the third what a program stores, the fourth in how many programs it is; none changes what is
//! computed.

mod carry_state;
mod cut;
mod divide;
mod hoist;
mod unroll;

pub use carry_state::{CarriedState, carry_state};
pub use divide::{DivideError, Divided, divide};
pub use hoist::hoist;
pub use unroll::{UnrollError, unroll};
