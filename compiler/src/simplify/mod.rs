//! Rewrites that keep the meaning of a program and make it plainer.
//!
//! Each is a function from a program to a program and works on the top graph and on the bodies of scans alike.
//! None changes names, parameters, inputs, outputs or types; results agree up to the rounding of reordered sums.
//!
//! | pass | what it does |
//! |---|---|
//! | [`algebra`] | folds constants, cancels, merges chains of views, turns sums of pads into concatenations |
//! | [`split_products`] | `[a; b]·W = a·W_a + b·W_b`, and the like for the adjoints of products |
//! | [`gather_sums`] | in a loop, sums first what is known before the loop runs |
//! | [`distribute_slices`] | takes the slice of a pointwise value of the slices of its operands |
//! | [`invariant`] | computes before a loop what no step changes |
//! | [`ports`] | drops and merges what a scan reads, carries and gives in vain |
//!
//! `mode` chooses between training and everything else, before derivatives are taken.
//! [`write_out`] is done once, when derivatives have been taken: it drops what only matters to them, and writes norms and small
//! products within a row out.
//!
//! All rest on one walk over a graph (`rebuild`) that makes a new one, in which no node occurs twice (value
//! numbering) and nothing is kept that no root needs. [`simplify`] runs them until nothing changes.

mod algebra;
mod body;
mod classes;
mod constants;
mod invariant;
mod matmul;
mod mode;
mod pads;
mod ports;
pub(crate) mod rebuild;
mod slices;
mod split;
mod sums;
mod views;
mod write_out;

pub use algebra::algebra;
pub(crate) use classes::{Class, classes, is_rowwise};
pub use invariant::invariant;
pub use ports::ports;
pub use slices::distribute_slices;
pub use split::split_products;
pub use sums::gather_sums;
pub use write_out::write_out;

use crate::ir::Program;
use rebuild::fingerprint;

/// More rounds than any program has needed; each removes at least one layer, so this bounds time, not results.
const ROUNDS: usize = 12;

/// Runs all rewrites of this module until none finds anything to do.
///
/// A second call changes nothing.
///
/// ```
/// use retrograd_compiler::{ir::Program, simplify::simplify};
/// let program = Program::parse("\
/// program gate {
///   batch h: f32[B, 2]
///   batch x: f32[B, 1]
///   parameter w: f32[3, 4] = glorot
///   %0: f32[B, 3] = concat h, x
///   %1: f32[B, 4] = dot %0, w
///   %2: f32[B, 4] = mul %1, 1
///   output z = %2
/// }
/// ")?;
/// assert_eq!(simplify(&program).to_string(), "\
/// program gate {
///   batch h: f32[B, 2]
///   batch x: f32[B, 1]
///   parameter w: f32[3, 4] = glorot
///   %0: f32[2, 4] = slice w 0..2
///   %1: f32[B, 4] = dot h, %0
///   %2: f32[1, 4] = slice w 2..3
///   %3: f32[B, 4] = dot x, %2
///   %4: f32[B, 4] = add %1, %3
///   output z = %4
/// }
/// ");
/// # Ok::<(), retrograd_compiler::ir::parse::ParseError>(())
/// ```
pub fn simplify(program: &Program) -> Program {
    let passes = [algebra, split_products, gather_sums, distribute_slices, invariant, ports];
    let mut program = ports(program);
    let mut before = fingerprint(&program);
    // How many passes in a row have found nothing; and where the last round ended: two passes may each have their own
    // way to write a sum.
    let (mut idle, mut of_round) = (0, before);
    for i in 0..ROUNDS * passes.len() {
        let pass = i % passes.len();
        program = passes[pass](&program);
        let after = fingerprint(&program);
        idle = if after == before { idle + 1 } else { 0 };
        before = after;
        let ends_round = pass + 1 == passes.len();
        if idle == passes.len() || ends_round && after == of_round {
            break;
        }
        of_round = if ends_round { after } else { of_round };
    }
    program
}
