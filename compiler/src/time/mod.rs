//! Time as motion of nodes: out of loops, and loops written out.
//!
//! [`hoist`] moves what is not on the recurrence out of the loops, on any program, derived or not, and [`rotate`] a
//! product at the end of a step to the start of the next. [`unroll`] writes the loops over an axis out for a fixed
//! number of steps. [`carry_state`] makes the states of loops inputs and updates, so that a long sequence can be run
//! window by window. The first two change where work is done, the third how it is written, the fourth what a program
//! stores; none changes what is computed.

mod carry_state;
mod cut;
mod hoist;
mod rotate;
mod unroll;

pub use carry_state::{CarriedState, carry_state};
pub use hoist::hoist;
pub use rotate::rotate;
pub use unroll::{UnrollError, unroll};
