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
//!
//! println!("{}", digits.backward()?); // the text that snapshot tests keep
//! let mut trainer = digits.trainer(Adam::new(3e-3)).clip_norm(5.0).compile()?;
//! # let (rows, label) = (vec![0.5; 28 * 2 * 28], [3, 8]);
//! # let batch = Feed::new().f32_slice("rows", &[28, 2, 28], &rows).i32_slice("label", &[2], &label);
//! let report = trainer.step(&batch)?; // loss, gradient norm
//! # assert!(report.loss.is_finite() && report.gradient_norm > 0.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to start
//!
//! - [`prelude`]: what a program that uses all this imports;
//! - [`Recorder`](prelude::Recorder) and [`Step`](prelude::Step): a program, and one step of a loop, while they are
//!   recorded; [`Expr`](prelude::Expr): their values, with the operators and all functions of them;
//! - [`Training`](prelude::Training): from a recorded program to a [`Trainer`](prelude::Trainer), or to a
//!   [`Stream`](prelude::Stream) that runs it one step at a time;
//! - [`cells`]: the library's cells, written with the public interface only; to make another, copy one;
//! - [`testing`]: help for tests of cells of one's own;
//! - [`compiler`] turns programs into code, [`runtime`] runs it: for whoever wants a stage by itself, such as
//!   derivatives ([`compiler::differentiate`]), a program as text, or a compiled program without training
//!   ([`runtime::session`]).
//!
//! Two things differ from plain Rust arithmetic: a run gives the same bits on any number of threads, and subnormal numbers
//! count as zero ([`runtime`], *subnormal numbers*), so that a step takes the same time whatever its values.
//!
//! Not here: convolutions, several devices, graphs whose shapes depend on data. The only loop is that over time.

pub use retrograd_compiler as compiler;
pub use retrograd_runtime as runtime;

pub mod cells;
pub mod norms;
pub mod prelude;
pub mod testing;

/// The README's code is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So is that of the page on tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/testing-your-cell.md")]
struct TestingYourCell;
