//! Time as motion of nodes: out of loops, and loops written out.
//!
//! [`hoist`] moves what is not on the recurrence out of the loops, on any program, derived or not. [`unroll`] writes
//! the loops over an axis out for a fixed number of steps. [`carry_state`] makes the states of loops inputs and
//! updates, so that a long sequence can be run window by window, and [`truncate()`] does it for training, with gradients
//! that run back over a number of steps of its own. The first changes where work is done, the second how it is written,
//! the third what a program stores; none changes what is computed. The last changes what the objective depends on.

mod carry_state;
mod cut;
mod hoist;
pub mod truncate;
mod unroll;

pub use carry_state::{CarriedState, carry_state};
pub use hoist::hoist;
pub use truncate::{Lead, TruncateError, Truncated, truncate};
pub use unroll::{UnrollError, unroll};
