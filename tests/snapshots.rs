//! The texts of library cells at each stage: a diff shows what an edit did to the compiler's work.

use retrograd::cells;
use retrograd::compiler::ir::Sizes;
use retrograd::compiler::plan::{Checkpointing, Plan, Unit, Work};
use retrograd::prelude::*;

type Cell = for<'r> fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>;

/// A cell of 16 units over 8 inputs with a readout and a loss at every step.
fn many_to_many(name: &str, cell: Cell) -> Program {
    Program::record(name, |p| {
        let (x, target) = (p.sequence("x", 8), p.labels_sequence("target"));
        let run = p.scan("cell", |s| cell(s, s.at(x), 16));
        p.minimize(p.affine("readout", run.all(), 4).cross_entropy(target));
    })
    .expect("library cells record")
}

fn check(name: &str, cell: Cell) {
    let recorded = many_to_many(name, cell);
    let joint = recorded.backward().expect("it has an objective");
    for (stage, text) in [
        ("recorded", recorded.to_string()),
        ("joint", joint.to_string()),
        ("hoisted", joint.hoisted().to_string()),
        ("plan", joint.plan().to_string()),
    ] {
        insta::assert_snapshot!(format!("{name}.{stage}"), text);
    }
}

#[test]
fn stages_of_the_library_cells() {
    let cells: [(&str, Cell); 8] = [
        ("rnn", cells::rnn),
        ("rnn_split", cells::rnn_split),
        ("lstm", cells::lstm),
        ("gru", cells::gru),
        ("peephole_lstm", cells::peephole_lstm),
        ("layer_norm_lstm", cells::layer_norm_lstm),
        ("mgu", cells::mgu),
        ("min_gru", cells::min_gru),
    ];
    for (name, cell) in cells {
        check(name, cell);
    }
}

/// What is kept, and what runs again on the way back.
#[test]
fn plan_with_checkpoints() {
    let plan = many_to_many("lstm", cells::lstm).backward().expect("it has an objective");
    insta::assert_snapshot!("lstm.checkpointed", plan.checkpointed_plan(Checkpointing::Sqrt).to_string());
}

/// Matrix products of a plan: (before the loops, inside each loop, sums over rows outside, sums over rows inside).
fn products(plan: &Plan) -> (usize, Vec<usize>, usize, usize) {
    let count = |work: &Work| match work {
        Work::Kernel(k) => usize::from(k.tile.as_ref().is_some_and(|t| !t.products.is_empty())),
        _ => 0,
    };
    let sums = |work: &Work| usize::from(matches!(work, Work::ReduceProduct { .. } | Work::ReduceRows { .. }));
    let (mut before, mut inside, mut sums_outside, mut sums_inside) = (0, Vec::new(), 0, 0);
    for unit in &plan.units {
        match unit {
            Unit::Stage(stage) => {
                before += if inside.is_empty() { count(&stage.work) } else { 0 };
                sums_outside += sums(&stage.work);
            }
            Unit::Loop(l) => {
                inside.push(l.stages.iter().map(|s| count(&s.work)).sum());
                sums_inside += l.stages.iter().map(|s| sums(&s.work)).sum::<usize>();
            }
            Unit::Sweep(_) => unreachable!("there are sweeps with checkpoints only"),
        }
    }
    (before, inside, sums_outside, sums_inside)
}

/// One input product before the loop, one recurrent product stage inside (two for the GRU), and the same again
/// backwards; weight gradients after the loops.
#[test]
fn nothing_but_the_recurrence_stays_in_the_loop() {
    let cells: [(&str, Cell, usize); 4] =
        [("rnn", cells::rnn, 1), ("rnn_split", cells::rnn_split, 1), ("lstm", cells::lstm, 1), ("gru", cells::gru, 2)];
    for (name, cell, stages) in cells {
        let plan = many_to_many(name, cell).backward().expect("it has an objective").plan();
        let (before, inside, outside, sums_inside) = products(&plan);
        assert_eq!(before, 1, "{name}: products before the loop");
        assert_eq!(inside, [stages, stages], "{name}: product stages inside the loops");
        assert_eq!(sums_inside, 0, "{name}: sums over rows inside the loops");
        assert!(outside >= 5, "{name}: gradients of two weights, two biases and the readout come after the loops");
    }
}

/// `[h; x]·W` and `h·W_h + x·W_x` are the same work: all stages are equal but for the names of weights and biases.
#[test]
fn joined_and_split_spellings_have_the_same_plan() {
    let stages = |cell: Cell| {
        let plan = many_to_many("rnn", cell).plan();
        let text = plan.to_string();
        let mut text = text.split("  memory {").next().expect("stages come first").to_string();
        for (name, letter) in
            [("cell.hh", "W"), ("cell.hx", "W"), ("cell.cell", "W"), ("#1", ""), ("#2", ""), ("#3", "")]
        {
            text = text.replace(name, letter);
        }
        (text, plan.flops(&Sizes::new(7, 3)))
    };
    assert_eq!(stages(cells::rnn), stages(cells::rnn_split));
}
