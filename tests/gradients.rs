//! Derivatives through generated code, in 64 bits, of every op and of every library cell.
//!
//! First order: every element against the interpreter's dual numbers (1e-10) and against extrapolated central
//! differences (1e-7). Second order: the Hessian times a vector, both ways, against the dual part of the gradient
//! (1e-8). What these are relative to is said in `check::derivatives`.

mod check;
mod corpus;

use check::derivatives::{check_gradient, check_hessian};
use check::{Found, sizes};
use retrograd::prelude::Program;

/// What is checked of a program.
#[derive(Clone, Copy)]
struct What {
    differences: bool,
    second: bool,
}

fn check(program: &Program, steps: usize, batch: usize, what: What) -> Found {
    let sizes = sizes(steps, batch);
    let joint = program.backward().map_err(|e| e.to_string())?;
    check_gradient(program, &joint, &sizes, what.differences)?;
    if what.second { check_hessian(program, &sizes) } else { Ok(()) }
}

fn check_all(programs: Vec<Program>, (steps, batch): (usize, usize), what: fn(&Program) -> What) {
    let failure = |p: &Program| {
        let result = std::panic::catch_unwind(|| check(p, steps, batch, what(p)));
        let result = result.unwrap_or_else(|_| Err("panics, see above".to_string()));
        result.err().map(|e| format!("`{}`: {e}", p.name))
    };
    let failures: Vec<String> = programs.iter().filter_map(failure).collect();
    assert!(failures.is_empty(), "{} programs fail:\n\n{}\n", failures.len(), failures.join("\n\n"));
}

/// A derivative that is stopped is not the function's; differences across a kink are those of neither side.
fn smooth(p: &Program) -> bool {
    !["stop_gradient", "argmax", "straight_through"].iter().any(|name| p.name.starts_with(name))
}

#[test]
fn of_every_op_on_sequences() {
    check_all(corpus::table::on_sequences(), (3, 2), |p| What { differences: smooth(p), second: true });
}

#[test]
fn of_every_op_in_a_loop() {
    check_all(corpus::table::in_loops(), (3, 2), |p| What { differences: smooth(p), second: true });
}

#[test]
fn of_every_cell() {
    check_all(corpus::cells::all(3, 5), (4, 3), |_| What { differences: true, second: true });
}

#[test]
fn of_one_step_of_every_cell() {
    check_all(corpus::cells::all(2, 3), (1, 1), |_| What { differences: true, second: true });
}

#[test]
fn of_the_corpus() {
    let families = [
        corpus::models::programs(),
        corpus::ops::programs(),
        corpus::ops::along_features(),
        corpus::shapes::programs(),
        corpus::loops::programs(),
    ];
    let programs = families.concat().into_iter().filter(|p| p.objective.is_some());
    check_all(programs.collect(), (3, 2), |_| What { differences: false, second: false });
}
