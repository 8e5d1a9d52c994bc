//! What a recorded program computes, against the same formula written out in plain Rust.

use retrograd::compiler::interpret::{Values, interpret, random_values};
use retrograd::compiler::ir::Sizes;
use retrograd::compiler::ir::op::Data;
use retrograd::prelude::*;

mod cells;
mod functions;
mod recordings;

const SIZES: (usize, usize) = (3, 2); // T, B

fn record(body: impl for<'r> FnOnce(&Recorder<'r>)) -> Program {
    let program = Program::record("test", body).unwrap_or_else(|e| panic!("{e}"));
    program.verify().unwrap_or_else(|e| panic!("{e}\n{program}"));
    let text = program.to_string();
    assert_eq!(Program::parse(&text).expect("what is printed parses").to_string(), text);
    program
}

/// Values of the inputs and of output `y`, row by row.
struct Ran {
    values: Values,
    y: Vec<Vec<f64>>,
    objective: Option<f64>,
}

fn run(body: impl for<'r> FnOnce(&Recorder<'r>)) -> Ran {
    let program = record(body);
    let sizes = Sizes::new(SIZES.0, SIZES.1);
    let values = random_values(&program, &sizes, 7);
    let outcome = interpret(&program, &values, &sizes);
    let y = outcome.outputs.get("y").map(rows).unwrap_or_default();
    Ran { values, y, objective: outcome.objective.map(|d| d.re) }
}

fn rows(data: &Data) -> Vec<Vec<f64>> {
    data.x.chunks(data.ty.shape.len()).map(|row| row.iter().map(|d| d.re).collect()).collect()
}

impl Ran {
    fn rows(&self, name: &str) -> Vec<Vec<f64>> {
        rows(&self.values[name])
    }

    #[track_caller]
    fn check(&self, expected: Vec<Vec<f64>>) {
        close(&self.y, &expected);
    }
}

#[track_caller]
fn close(given: &[Vec<f64>], expected: &[Vec<f64>]) {
    assert_eq!(given.len(), expected.len(), "rows");
    for (r, (a, b)) in given.iter().zip(expected).enumerate() {
        assert_eq!(a.len(), b.len(), "features of row {r}");
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "row {r}, feature {i}: {a} is not {b}");
        }
    }
}

fn each(x: &[f64], f: impl Fn(f64) -> f64) -> Vec<f64> {
    x.iter().map(|&x| f(x)).collect()
}

/// A function of each feature, on one input of 5 features that has also 0 and large values of both signs.
#[track_caller]
fn pointwise(record: impl for<'r> Fn(Expr<'r>) -> Expr<'r>, expected: impl Fn(f64) -> f64) {
    let program = self::record(|p| p.output("y", record(p.input("x", 5))));
    let sizes = Sizes::new(1, 2);
    let mut values = random_values(&program, &sizes, 3);
    let x = &mut values.get_mut("x").expect("declared").x;
    (x[0].re, x[1].re, x[2].re) = (0.0, 30.0, -30.0);
    let y = &interpret(&program, &values, &sizes).outputs["y"];
    close(&rows(y), &rows(&values["x"]).iter().map(|r| each(r, &expected)).collect::<Vec<_>>());
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let sum: f64 = x.iter().map(|x| x.exp()).sum();
    each(x, |x| x.exp() / sum)
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// x·W for W `[k, n]`, row-major.
fn product(x: &[f64], w: &[f64], n: usize) -> Vec<f64> {
    (0..n).map(|j| x.iter().enumerate().map(|(i, x)| x * w[i * n + j]).sum()).collect()
}

fn zip(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}
