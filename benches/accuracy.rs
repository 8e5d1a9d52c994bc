//! What cells compute in 32 and in 64 bits from the same numbers, for `benches/peers/accuracy.py` to hold PyTorch's against:
//!
//! ```sh
//! python benches/peers/accuracy.py
//! ```
//!
//! Writes a file for each cell, number of layers and number of units: a line of JSON with names and shapes, then all
//! arrays one behind another as 64-bit floats. Weights and inputs are numbers that 32 bits hold.

use std::io::Write;
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retrograd::prelude::*;
use retrograd::runtime::session::Session;
use retrograd::{cells, runtime::float::Float};

const STEPS: usize = 25;
const BATCH: usize = 8;
const UNITS: [usize; 12] = [1, 2, 3, 5, 8, 13, 21, 34, 50, 64, 100, 130];

type Cell = for<'r> fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>;
const CELLS: [(&str, Cell, &[&str]); 3] =
    [("rnn", cells::rnn, &["h"]), ("gru", cells::gru_reset_after, &["h"]), ("lstm", cells::lstm, &["h", "c"])];

fn program(cell: Cell, states: &[&str], layers: usize, units: usize) -> Program {
    Program::record("net", |p| {
        let mut y = p.sequence("x", units);
        for layer in 0..layers {
            let start = |state: &&str| p.parameter(&format!("{state}{layer}"), units, Init::Constant(0.0));
            let starts: Vec<_> = states.iter().map(start).collect();
            y = p
                .scan(&format!("l{layer}"), |s| {
                    states.iter().zip(&starts).for_each(|(state, start)| s.start(state, *start));
                    cell(s, s.at(y), units)
                })
                .all();
        }
        p.output("y", y);
        p.minimize((y * p.sequence("g", units)).sum().sum_rows());
    })
    .expect("a program")
    .backward()
    .expect("an objective")
}

fn random(rng: &mut impl Rng, shape: &[usize], scale: f32) -> ArrayD<f32> {
    ArrayD::from_shape_fn(shape, |_| (rng.random::<f32>() * 2.0 - 1.0) * scale)
}

type Arrays = Vec<(String, ArrayD<f64>)>;

fn results<E: Float>(program: &Program, given: &[(String, ArrayD<f32>)]) -> Arrays {
    let mut session = Session::<E>::new(program, 1).expect("it compiles");
    let mut feed = Feed::new();
    for (name, x) in given {
        match program.parameter(name) {
            Some(_) => {
                let x = x.mapv(|x| E::from_f64(f64::from(x)));
                session.set_parameter(name, x.view()).expect("of its shape");
            }
            None => feed = feed.f32(name, x.view()),
        }
    }
    session.run(&feed).expect("it runs");
    let outputs = program.outputs.iter();
    outputs.map(|(name, _)| (name.clone(), session.output(name).expect("an output").mapv(Into::into))).collect()
}

fn write(path: &Path, arrays: &Arrays) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let header: Vec<_> = arrays.iter().map(|(name, x)| serde_json::json!([name, x.shape()])).collect();
    writeln!(file, "{}", serde_json::Value::from(header))?;
    for x in arrays.iter().flat_map(|(_, x)| x) {
        file.write_all(&x.to_le_bytes())?;
    }
    file.flush()
}

fn main() -> std::io::Result<()> {
    let Some(into) = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).map(PathBuf::from) else {
        println!("accuracy: give a directory to write to; see benches/peers/accuracy.py");
        return Ok(());
    };
    std::fs::create_dir_all(&into)?;
    for (name, cell, states) in CELLS {
        for layers in 1..=3 {
            for (i, units) in UNITS.into_iter().enumerate() {
                let program = program(cell, states, layers, units);
                let mut rng = ChaCha8Rng::seed_from_u64((layers * 100 + i) as u64);
                // As PyTorch begins: uniform within 1/√units.
                let scale = 1.0 / (units as f32).sqrt();
                let mut given: Vec<(String, ArrayD<f32>)> = Vec::new();
                for p in &program.parameters {
                    given.push((p.name.clone(), random(&mut rng, &program.ty(p.value).shape.0, scale)));
                }
                for x in ["x", "g"] {
                    given.push((x.to_string(), random(&mut rng, &[STEPS, BATCH, units], 1.0)));
                }
                let mut all: Arrays = given.iter().map(|(n, x)| (format!("in {n}"), x.mapv(f64::from))).collect();
                let with = |what: &str, arrays: Arrays| {
                    arrays.into_iter().map(|(name, x)| (format!("{what} {name}"), x)).collect::<Vec<_>>()
                };
                all.extend(with("f32", results::<f32>(&program, &given)));
                all.extend(with("f64", results::<f64>(&program, &given)));
                write(&into.join(format!("{name}_{layers}_{units}")), &all)?;
            }
        }
    }
    Ok(())
}
