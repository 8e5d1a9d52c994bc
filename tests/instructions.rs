//! Instructions of the kernels of a few training steps, counted for one particular machine. Clocks are noisy; this is
//! not: a change to the generated code shows here, in the review of whoever made it.
//!
//! A smaller number is not always a faster kernel, and the matrix micro-kernel and vector maths are not in it: they are
//! not generated. Read a difference beside `cargo bench --bench step_time`.
#![cfg(target_arch = "x86_64")]

use std::fmt::Write;

use retrograd::cells;
use retrograd::compiler::plan::{self, Unit, Work};
use retrograd::compiler::{codegen, pipeline};
use retrograd::prelude::*;

type Cell = for<'r> fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>;

/// A line for each kernel: where it runs, its instructions, and what it computes.
fn listing(cell: Cell) -> String {
    let recorded = Program::record("cell", |p| {
        let (x, dy) = (p.sequence("x", 64), p.sequence("dy", 64));
        let run = p.scan("cell", |s| cell(s, s.at(x), 64));
        p.minimize((run.all() * dy).sum().sum_rows());
    });
    let joint = recorded.expect("library cells record").backward().expect("it has an objective");
    let plan = plan::plan(&pipeline::lower(&joint), codegen::COUNTED, None);
    let mut counts = codegen::count_instructions(&plan).expect("code for x86-64").into_iter();
    let mut text = String::new();
    for (stage, l) in plan.units.iter().flat_map(Unit::stages) {
        let place = l.map_or("rows".to_string(), |l| format!("loop {}", l.name));
        if matches!(stage.work, Work::Kernel(_)) {
            let count = counts.next().expect("one for each kernel");
            writeln!(text, "{place:<12} {count:>5}  {}", stage.name).expect("a String takes all that is written");
        }
    }
    text
}

#[test]
fn of_training_steps() {
    let cells: [(&str, Cell); 5] = [
        ("rnn", cells::rnn),
        ("gru", cells::gru),
        ("lstm", cells::lstm),
        ("layer_norm_lstm", cells::layer_norm_lstm),
        ("min_gru", cells::min_gru),
    ];
    for (name, cell) in cells {
        insta::assert_snapshot!(name, listing(cell));
    }
}
