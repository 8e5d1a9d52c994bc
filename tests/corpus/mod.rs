//! Programs that every engine runs. Data only: what is checked of them is in `check`.
//!
//! Families: library cells at several widths, whole models, every op, shapes of odd sizes, loops and their ports.
//! What once failed is kept here too, reduced, under a name that says what it is about.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod cells;
pub mod loops;
pub mod models;
pub mod ops;
pub mod random;
pub mod shapes;
pub mod table;

use retrograd::prelude::*;

/// Records a program of the corpus.
#[track_caller]
pub fn record(name: &str, body: impl for<'r> FnOnce(&Recorder<'r>)) -> Program {
    Program::record(name, body).unwrap_or_else(|e| panic!("`{name}` is recorded without mistakes: {e}"))
}

/// One number a row that no two features enter alike, as something to differentiate.
pub fn energy(x: Expr<'_>) -> Expr<'_> {
    (x.sin() * 0.7 + x * x).mean_features()
}
