//! Random programs over all engines, with their gradients.
//!
//! Seeds are fixed, so a failure stays one; `RANDOM_CELLS=n` looks at more, and `RANDOM_SEED=n` at one.

mod check;
mod corpus;

use check::{Effort, Found, check_engines, sizes};
use corpus::random;
use retrograd::compiler::interpret::{interpret, seed_tangents};
use retrograd::compiler::ir::Sizes;
use retrograd::prelude::Program;

/// Two sizes a cell, from these.
const SIZES: [(usize, usize); 8] = [(1, 1), (2, 3), (3, 2), (5, 1), (1, 26), (2, 25), (4, 5), (7, 2)];

fn sizes_of(seed: u64) -> [Sizes; 2] {
    let n = SIZES.len() as u64;
    [seed % n, (seed / n + seed + 1) % n].map(|i| SIZES[i as usize]).map(|(t, b)| sizes(t, b))
}

fn check_cell(seed: u64) -> Found {
    let program = random::program(seed);
    let run = || -> Found {
        let sizes = sizes_of(seed);
        let joint = program.backward().map_err(|e| e.to_string())?;
        check_engines(&program, &sizes[..1], Effort { unroll: 0, alone: 1, threads: 1 })?;
        let unroll = if seed.is_multiple_of(4) { 3 } else { 0 };
        check_engines(&joint, &sizes, Effort { unroll, alone: 1, threads: 2 }).map_err(|e| format!("joint: {e}"))?;
        check_slope(&program, &joint, &sizes[0])
    };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    let result = result.unwrap_or_else(|_| Err("panics, see above".to_string()));
    result.map_err(|e| format!("random cell {seed}: {e}\n{program}"))
}

/// ⟨gradient, v⟩ is the dual part of the objective along v. That the joint program's gradients are the generated
/// code's has been checked by then.
fn check_slope(program: &Program, joint: &Program, sizes: &Sizes) -> Found {
    let mut values = check::values(program, sizes, 7);
    let names: Vec<String> = program.parameters.iter().map(|p| p.name.clone()).collect();
    seed_tangents(&mut values, &names, 3);
    let expected = interpret(program, &values, sizes).objective.expect("an objective").du;
    let gradients = interpret(joint, &values, sizes).outputs;
    let terms = names.iter().flat_map(|name| {
        let pairs = gradients[&format!("d.{name}")].x.iter().zip(&values[name].x);
        pairs.map(|(g, x)| g.re * x.du).collect::<Vec<_>>()
    });
    let (given, scale) = terms.fold((0.0, 0.0), |(sum, scale), x: f64| (sum + x, scale + x.abs()));
    if (given - expected).abs() <= 1e-10 * scale {
        return Ok(());
    }
    Err(format!("⟨gradient, v⟩ is {given:e} instead of {expected:e}, of terms of {scale:e}"))
}

fn check_part(part: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("RANDOM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("RANDOM_CELLS").unwrap_or(500)).filter(|seed| seed % 4 == part).collect(),
    };
    let failures: Vec<String> = seeds.iter().filter_map(|&seed| check_cell(seed).err()).collect();
    assert!(failures.is_empty(), "{} of {} fail:\n\n{}\n", failures.len(), seeds.len(), failures.join("\n\n"));
}

// In parts that run side by side.

#[test]
fn agree_1() {
    check_part(0);
}

#[test]
fn agree_2() {
    check_part(1);
}

#[test]
fn agree_3() {
    check_part(2);
}

#[test]
fn agree_4() {
    check_part(3);
}
