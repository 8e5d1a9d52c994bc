//! Every cell of the library, at widths that fill no panel, one, and more than one.

use retrograd::cells;
use retrograd::prelude::*;

use super::{energy, record};

/// A cell as a function.
pub type Cell = for<'r> fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>;

/// A cell that is told the same about a sample at every step.
pub type Told = for<'r> fn(&Step<'r>, Expr<'r>, Expr<'r>, usize) -> Expr<'r>;

/// All cells of the library. What gives several values gives them side by side.
pub const CELLS: [(&str, Cell); 16] = [
    ("rnn", cells::rnn),
    ("rnn_split", cells::rnn_split),
    ("rnn_uvw", |s, x, units| {
        let (memory, logits, said) = cells::rnn_uvw(s, x, units, 3);
        concat([memory, logits, said])
    }),
    ("ind_rnn", cells::ind_rnn),
    ("lstm", cells::lstm),
    ("peephole_lstm", cells::peephole_lstm),
    ("layer_norm_lstm", cells::layer_norm_lstm),
    ("projected_lstm", |s, x, units| cells::projected_lstm(s, x, units, units / 2 + 1)),
    ("min_lstm", cells::min_lstm),
    ("gru", cells::gru),
    ("gru_reset_after", cells::gru_reset_after),
    ("mgu", cells::mgu),
    ("min_gru", cells::min_gru),
    ("residual", |s, x, units| cells::residual(s, x, units, &cells::gru_reset_after)),
    ("residual_around", |s, x, _| cells::residual(s, x, x.units(), &cells::rnn)),
    ("stacked", |s, x, units| {
        let residual: cells::Cell = &|s, x, units| cells::residual(s, x, units, &cells::rnn);
        cells::stacked(s, x, &[(&cells::min_gru, units), (residual, units), (&cells::lstm, 2)])
    }),
];

/// Those that are told something, and the shape of what they are told.
pub const TOLD: [(&str, Told, &[usize]); 3] = [
    ("conditioned_rnn", cells::conditioned_rnn, &[4]),
    ("dot_attention_decoder", |s, x, places, units| join(cells::dot_attention_decoder(s, x, places, units)), &[3, 4]),
    (
        "additive_attention_decoder",
        |s, x, places, units| join(cells::additive_attention_decoder(s, x, places, units)),
        &[3, 4],
    ),
];

fn join<'r>((h, context, weights): (Expr<'r>, Expr<'r>, Expr<'r>)) -> Expr<'r> {
    concat([h, context, weights])
}

/// A cell whose every step has a part in the objective.
pub fn program(name: &str, cell: Cell, inputs: usize, units: usize) -> Program {
    observed(name, inputs, units, |p, x| p.scan("cell", |s| cell(s, s.at(x), units)))
}

/// The same of a cell that is told something.
pub fn told(name: &str, cell: Told, shape: &[usize], inputs: usize, units: usize) -> Program {
    observed(name, inputs, units, |p, x| {
        let about = p.input("about", shape);
        p.scan("cell", |s| cell(s, s.at(x), about, units))
    })
}

fn observed(
    name: &str,
    inputs: usize,
    units: usize,
    scan: impl for<'r> FnOnce(&Recorder<'r>, Expr<'r>) -> Run<'r>,
) -> Program {
    record(&format!("{name}_{units}"), |p| {
        let x = p.sequence("x", inputs);
        let run = scan(p, x);
        p.output("h", run.all());
        p.output("last", run.last());
        p.minimize(energy(run.all()));
    })
}

/// All cells of so many inputs and units.
pub fn all(inputs: usize, units: usize) -> Vec<Program> {
    let plain = CELLS.iter().map(|(name, cell)| program(name, *cell, inputs, units));
    plain.chain(TOLD.iter().map(|(name, cell, shape)| told(name, *cell, shape, inputs, units))).collect()
}

/// All cells at three widths.
pub fn programs() -> Vec<Program> {
    [(3, 5), (7, 16), (17, 33)].into_iter().flat_map(|(inputs, units)| all(inputs, units)).collect()
}
