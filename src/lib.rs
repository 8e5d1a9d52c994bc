//! Retrograd: a symbolic autodiff compiler for recurrent graphs.
//!
//! Record one step of a cell with ordinary Rust operators; get back the backward graph, the loop over time, and
//! machine code.
//!
//! ```
//! use retrograd::prelude::*;
//!
//! /// A cell is a plain function. Layers, residuals, attention: call it from another function.
//! fn lstm<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
//!     let (h, c) = (s.state("h", units), s.state("c", units));
//!     let [i, f, o, g] = s.affine("gates", concat([h, x]), 4 * units).split();
//!     let c1 = s.next(c, f.sigmoid() * c + i.sigmoid() * g.tanh());
//!     s.next(h, o.sigmoid() * c1.tanh())
//! }
//!
//! let digits = Program::record("digits", |p| {
//!     let rows = p.sequence("rows", 28); // f32[T, B, 28]
//!     let label = p.labels("label"); // i32[B]
//!     let run = p.scan("lstm", |s| lstm(s, s.at(rows), 128));
//!     let logits = p.affine("readout", run.last(), 10); // run.all() for many to many
//!     p.output("logits", logits);
//!     p.minimize(logits.cross_entropy(label));
//! })?;
//! assert_eq!(digits.input("label").unwrap().bound, Some(10));
//! # Ok::<(), RecordErrors>(())
//! ```
//!
//! [`compiler`] turns programs into code and [`runtime`] runs it; [`cells`] has the library's cells, written with
//! the public interface only; [`prelude`] is what a program that uses all this imports; [`testing`] is help for tests of
//! cells of one's own.

pub use retrograd_compiler as compiler;
pub use retrograd_runtime as runtime;

pub mod cells;
pub mod prelude;
pub mod testing;

#[cfg(doctest)]
#[doc = include_str!("../docs/testing-your-cell.md")]
struct TestingYourCell;
