//! The checks bite: derivatives that are broken on purpose are found, by the same functions that pass the right ones.
//!
//! A joint program's text is changed in one line behind where its derivative begins, and read back. Whatever line is
//! changed, and in whichever of the ways below that apply to it, the check of gradients must fail.

mod check;
mod corpus;

use check::derivatives::check_gradient;
use check::{F32, F64, Found, Jit, agree, close, sizes, truth, values};
use retrograd::prelude::*;

/// What is broken, and how: a line of the text becomes another, if it is of this kind.
type Way = (&'static str, fn(&str) -> Option<String>);

/// Ways to break `name: type = op operands`.
const WAYS: [Way; 8] = [
    ("a product becomes a sum", |line| replaced(line, "= mul ", "= add ")),
    ("a sum becomes a difference", |line| replaced(line, "= add ", "= sub ")),
    ("an addend is dropped", |line| {
        let (head, operands) = line.split_once("= add ")?;
        Some(format!("{head}= add {}, 0", operands.split_once(", ")?.0))
    }),
    ("a factor is dropped", |line| {
        let (head, operands) = line.split_once("= mul ")?;
        Some(format!("{head}= mul {}, 1", operands.split_once(", ")?.0))
    }),
    ("1 − y² becomes 2 − y²", |line| replaced(line, "= sub 1, ", "= sub 2, ")),
    ("a quotient becomes a product", |line| replaced(line, "= div ", "= mul ")),
    ("a cosine becomes a sine", |line| replaced(line, "= cos ", "= sin ")),
    ("a sign is lost", |line| line.contains("= neg ").then(|| line.replace("= neg ", "= mul ") + ", 1")),
];

fn replaced(line: &str, from: &str, to: &str) -> Option<String> {
    line.contains(from).then(|| line.replace(from, to))
}

/// Breaks every line behind the first that differs from the program's own text, in every way.
fn mutants(program: &Program, joint: &Program) -> Vec<(String, Program)> {
    let text = joint.to_string();
    // The forward part of the joint program is the program with more yields, and stands first.
    let begin = text.lines().position(|l| l.trim_start().starts_with("scan d.")).expect("a backward scan");
    let lines: Vec<&str> = text.lines().collect();
    let mut mutants = Vec::new();
    for (i, line) in lines.iter().enumerate().skip(begin) {
        for (way, change) in WAYS {
            let Some(changed) = change(line) else { continue };
            let new = [&lines[..i], &[&changed], &lines[i + 1..]].concat().join("\n");
            let what = format!("{}: {way}: {} → {}", program.name, line.trim(), changed.trim());
            // What is of another type now is refused when it is read, and needs no other check.
            mutants.extend(Program::parse(&new).map(|mutant| (what, mutant)));
        }
    }
    mutants
}

fn programs() -> Vec<Program> {
    let attention =
        corpus::models::programs().into_iter().filter(|p| p.name == "attention" || p.name == "fast_weights");
    // At these values most units of the one with relu are shut, and any derivative of theirs is 0.
    corpus::cells::all(2, 3).into_iter().filter(|p| p.name != "ind_rnn_3").chain(attention).collect()
}

#[test]
fn a_broken_derivative_is_found() {
    let sizes = sizes(3, 2);
    let mut seen = vec![0; WAYS.len()];
    let mut missed = Vec::new();
    for program in programs() {
        let joint = program.backward().expect("an objective");
        check_gradient(&program, &joint, &sizes, true).expect("the right derivative passes");
        let mutants = mutants(&program, &joint);
        // Enough of each cell, spread over its derivative.
        for (what, mutant) in mutants.iter().step_by(mutants.len().div_ceil(24)) {
            if check_gradient(&program, mutant, &sizes, false).is_ok() {
                missed.push(what.clone());
            }
            for (n, (way, _)) in seen.iter_mut().zip(WAYS) {
                *n += usize::from(what.contains(way));
            }
        }
    }
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
    assert!(seen.iter().sum::<usize>() >= 100, "{seen:?}");
    assert!(seen[..5].iter().all(|&n| n > 0), "every way is tried: {seen:?}");
}

/// An engine that computes something else, be it by little, is found.
#[test]
fn a_wrong_engine_is_found() {
    let program = corpus::cells::program("lstm", retrograd::cells::lstm, 3, 5);
    let sizes = sizes(4, 3);
    let given = values(&program, &sizes, 7);
    let right = truth(&program, &given, &sizes);
    let broken = Program::parse(&program.to_string().replace("= sigmoid ", "= tanh ")).expect("it is well formed");
    let run = |program: &Program| -> Found<_> { Jit::<f64>::new(program, 1)?.run(&given, &sizes) };
    assert_eq!(agree("f64", &run(&program).expect("it runs"), &right, F64), Ok(()));
    assert!(agree("f64", &run(&broken).expect("it runs"), &right, F64).is_err());
    let mut off = right.clone();
    off.get_mut("h").expect("an output")[7] *= 1.0 + 1e-9;
    assert!(agree("f64", &off, &right, F64).is_err());
    off.get_mut("h").expect("an output")[7] = f64::NAN;
    assert!(agree("f64", &off, &right, F64).is_err());
    assert!(agree("f32", &off, &right, F32).is_err());
    assert!(close("one missing", &[1.0], &[1.0, 2.0], 0.0, F32).is_err());
}

/// A truth that is not a number checks nothing, and is refused as such.
#[test]
fn what_checks_nothing_is_no_success() {
    let program = corpus::record("root", |p| {
        let x = p.sequence("x", 5);
        p.output("y", (x - 10.0).ln());
    });
    let found = check::check(&program, &[sizes(2, 2)], check::FULL).expect_err("ln of negative numbers");
    assert!(found.contains("checks nothing"), "{found}");
}
