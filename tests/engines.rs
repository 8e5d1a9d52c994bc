//! Corpus × engines: every program, and its joint program, is computed alike by all of them.
//!
//! The engines are the interpreter (which is the truth), the hoisted program interpreted, machine code in 64 bits on
//! one thread and on more, and with checkpoints (which must agree bit by bit), machine code in 32 bits, and the program unrolled over its
//! steps, interpreted and as machine code, before it is differentiated or after. A sample alone must have the bits it has in a batch, and a run must not
//! depend on runs before it. See `check` for how close numbers must be.

mod check;
mod corpus;

use check::truncated::check_truncated;
use check::{FULL, all_sizes, check_all};

#[test]
fn cells() {
    check_all(corpus::cells::programs(), &all_sizes(), FULL);
}

#[test]
fn models() {
    check_all(corpus::models::programs(), &all_sizes(), FULL);
}

#[test]
fn functions() {
    check_all(corpus::ops::programs(), &all_sizes(), FULL);
}

#[test]
fn along_features() {
    check_all(corpus::ops::along_features(), &all_sizes(), FULL);
}

#[test]
fn shapes() {
    check_all(corpus::shapes::programs(), &all_sizes(), FULL);
}

#[test]
fn loops() {
    check_all(corpus::loops::programs(), &all_sizes(), FULL);
}

/// Every program that is a sequence of steps, with each kind of lead before its window.
#[test]
fn truncated() {
    // Widths are for kernels: here one will do.
    let cells = corpus::cells::CELLS.iter().map(|(name, cell)| corpus::cells::program(name, *cell, 3, 5));
    let all: Vec<_> = cells.chain(corpus::models::programs()).chain(corpus::loops::programs()).collect();
    let mut taken = 0;
    let failures: Vec<String> = all
        .iter()
        .filter_map(|p| match check_truncated(p) {
            Ok(is_taken) => {
                taken += usize::from(is_taken);
                None
            }
            Err(e) => Some(format!("`{}`: {e}", p.name)),
        })
        .collect();
    assert!(failures.is_empty(), "{} programs fail:\n\n{}\n", failures.len(), failures.join("\n\n"));
    assert!(taken > all.len() / 2, "{taken} of {} programs are sequences of steps", all.len());
}

/// The products of an LSTM's training step, counted by hand.
#[test]
fn flops_and_memory_are_formulas() {
    let (inputs, units, classes) = (28, 128, 10);
    let program = corpus::record("digits", |p| {
        let (rows, label) = (p.sequence("rows", inputs), p.labels("label"));
        let run = p.scan("lstm", |s| retrograd::cells::lstm(s, s.at(rows), units));
        p.minimize(p.affine("readout", run.last(), classes).cross_entropy(label));
    });
    let joint = program.backward().expect("an objective");
    let session = retrograd::runtime::session::Session::<f32>::new(&joint, 1).expect("code for this machine");
    let plan = &session.compiled().plan;
    for (t, b) in [(1, 1), (28, 64), (5, 3)] {
        let gates = 2 * t * b * 4 * units;
        let forward = gates * (inputs + units) + 2 * b * units * classes;
        let backward = gates * (inputs + units) + gates * units + 2 * (2 * b * units * classes);
        assert_eq!(plan.flops(&check::sizes(t, b)), forward + backward, "T {t}, B {b}");
    }
}
