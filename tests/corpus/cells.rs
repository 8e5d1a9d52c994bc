//! Every cell of the library, at widths that fill no panel, one, and more than one.

use retrograd::cells;
use retrograd::prelude::*;

use super::{energy, record};

/// A cell as a function.
pub type Cell = for<'r> fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>;

/// All cells of the library.
pub const CELLS: [(&str, Cell); 8] = [
    ("rnn", cells::rnn),
    ("rnn_split", cells::rnn_split),
    ("lstm", cells::lstm),
    ("peephole_lstm", cells::peephole_lstm),
    ("layer_norm_lstm", cells::layer_norm_lstm),
    ("gru", cells::gru),
    ("mgu", cells::mgu),
    ("min_gru", cells::min_gru),
];

/// A cell whose every step has a part in the objective.
pub fn program(name: &str, cell: Cell, inputs: usize, units: usize) -> Program {
    record(&format!("{name}_{units}"), |p| {
        let x = p.sequence("x", inputs);
        let run = p.scan("cell", |s| cell(s, s.at(x), units));
        p.output("h", run.all());
        p.output("last", run.last());
        p.minimize(energy(run.all()));
    })
}

/// All cells at three widths.
pub fn programs() -> Vec<Program> {
    let widths = [(3, 5), (7, 16), (17, 33)];
    CELLS.iter().flat_map(|(name, cell)| widths.map(|(inputs, units)| program(name, *cell, inputs, units))).collect()
}
