//! Cells whose states can be nudged, for measuring how far back a gradient reaches: the derivative by a state is that
//! by a *nudge*, an input that is added to it and is 0.

use ndarray::{Array1, Array2, ArrayViewD};
use retrograd::compiler::differentiate::gradient;
use retrograd::prelude::*;
use retrograd::runtime::session::Session;

use super::Result;

/// A recurrent net of one layer.
#[derive(Clone, Copy, PartialEq)]
pub enum Net {
    /// The recurrent weight is orthogonal times this: all of its singular values are this.
    Vanilla(f64),
    /// Biases as they suit a memory of this many steps: σ(bias of the forget gate) = 1 − 1/t, for t up to this.
    Lstm(f64),
    /// Blends with a candidate.
    Gru,
}

impl Net {
    /// For tables and diagrams.
    pub fn name(self) -> String {
        match self {
            Net::Vanilla(gain) => format!("vanilla, σ = {gain}"),
            Net::Lstm(memory) => format!("LSTM for {memory} steps"),
            Net::Gru => "GRU".to_string(),
        }
    }

    /// Features of all its states together.
    pub fn states(self, units: usize) -> usize {
        if matches!(self, Net::Lstm(_)) { 2 * units } else { units }
    }

    /// One step. The nudge is of all states together.
    pub fn step<'r>(self, s: &Step<'r>, x: Expr<'r>, units: usize, nudge: Option<Expr<'r>>) -> Expr<'r> {
        let nudged = |value: Expr<'r>, part: usize| match nudge {
            Some(nudge) => value + nudge.slice(part * units..(part + 1) * units),
            None => value,
        };
        let h = s.state("h", units);
        match self {
            Net::Vanilla(gain) => {
                let w = s.parameter("w", [units, units], Init::Orthogonal(gain));
                s.next(h, nudged((h.dot(w) + s.affine("x", x, units)).tanh(), 0))
            }
            Net::Lstm(memory) => {
                // Tallec & Ollivier (2018), "Can recurrent neural networks warp time?"
                let (c, far) = (s.state("c", units), memory.ln());
                let (open, shut) = (Init::Uniform(far / 8.0, far), Init::Uniform(-far, -far / 8.0));
                let bias = Init::Pieces(vec![shut, open, Init::Constant(0.0), Init::Constant(0.0)]);
                let [i, f, o, g] = s.affine_with("gates", concat([h, x]), 4 * units, Init::Glorot, bias).split();
                let c1 = f.sigmoid() * c + i.sigmoid() * g.tanh();
                s.next(c, nudged(c1, 1));
                s.next(h, nudged(o.sigmoid() * c1.tanh(), 0))
            }
            Net::Gru => {
                let [r, z] = s.affine("gates", concat([h, x]), 2 * units).sigmoid().split();
                let n = s.affine("candidate", concat([r * h, x]), units).tanh();
                s.next(h, nudged(z * h + (1.0 - z) * n, 0))
            }
        }
    }
}

/// Norms of the derivative of a program's objective by one of its input sequences, `[step][sample]`, in 64 bits; and the
/// session that took it.
pub fn norms_by(program: &Program, input: &str, seed: u64, feed: &Feed) -> Result<(Vec<Vec<f64>>, Session<f64>)> {
    let mut joint = program.to_draft();
    let (objective, input) = (program.objective, program.input(input).map(|i| i.value));
    let (objective, input) = objective.zip(input).ok_or("the program has both")?;
    let derivative = gradient(&mut joint.graph, objective, &[input])?[0];
    joint.outputs.push(("derivative".to_string(), derivative));
    let mut session = Session::<f64>::new(&joint.finish()?, 1)?;
    session.initialise(seed)?;
    session.run(feed)?;
    let derivative = session.output("derivative").ok_or("the program has it")?;
    let norm = |row: ArrayViewD<f64>| row.iter().map(|x| x * x).sum::<f64>().sqrt();
    Ok((derivative.outer_iter().map(|step| step.outer_iter().map(norm).collect()).collect(), session))
}

/// Of a matrix, by power iteration on WᵀW.
pub fn largest_singular_value(w: &Array2<f64>) -> f64 {
    let mut v = Array1::from_elem(w.ncols(), 1.0);
    for _ in 0..200 {
        let u = w.t().dot(&w.dot(&v));
        v = &u / u.dot(&u).sqrt();
    }
    let u = w.dot(&v);
    u.dot(&u).sqrt()
}
