//! The passes on graphs: each keeps what a program computes, and gives it the structure it promises.

use retrograd_compiler::interpret::{interpret, random_values};
use retrograd_compiler::ir::Program;
use retrograd_compiler::ir::types::Sizes;
use retrograd_compiler::{simplify, time};

#[path = "passes/programs.rs"]
mod programs;

fn parse(text: &str) -> Program {
    Program::parse(text.trim_start()).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

#[test]
fn show() {
    let name = std::env::var("P").unwrap_or_default();
    let p = match &name[..] {
        "joined" => parse(programs::RNN_JOINED),
        "split" => parse(programs::RNN_SPLIT),
        "lstm" => parse(programs::LSTM),
        "gru" => parse(programs::GRU),
        _ => parse(programs::MIXED),
    };
    let s = simplify::simplify(&p);
    s.verify().unwrap();
    println!("{s}");
    let j = if s.objective.is_some() { s.backward().unwrap() } else { s };
    println!("{j}");
    let j = simplify::simplify(&j);
    j.verify().unwrap();
    println!("{j}");
    let h = time::hoist(&j);
    h.verify().unwrap();
    println!("{h}");
    let sizes = Sizes::new(3, 2);
    let v = random_values(&p, &sizes, 1);
    let a = interpret(&j, &v, &sizes);
    let b = interpret(&h, &v, &sizes);
    for (k, x) in &a.outputs {
        let d = x.x.iter().zip(&b.outputs[k].x).map(|(a, b)| (a.re - b.re).abs()).fold(0., f64::max);
        println!("{k} {d}");
    }
}
