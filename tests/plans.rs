//! Every plan of the corpus is sound, for each width of panels and of floats, with checkpoints and without; and a plan that
//! is broken is found to be.

mod corpus;

use corpus::random;
use retrograd::compiler::pipeline;
use retrograd::compiler::plan::{self, Checkpointing, Plan, Target};
use retrograd::prelude::*;

/// Panels of the instruction sets that there are, with both widths of floats.
const TARGETS: [Target; 5] = [
    Target { panel: 8, float_size: 4 },
    Target { panel: 16, float_size: 4 },
    Target { panel: 32, float_size: 4 },
    Target { panel: 4, float_size: 8 },
    Target { panel: 16, float_size: 8 },
];

const POLICIES: [Option<Checkpointing>; 4] =
    [None, Some(Checkpointing::Every(2)), Some(Checkpointing::Sqrt), Some(Checkpointing::Keep(3))];

fn corpus() -> Vec<Program> {
    let families = [
        corpus::cells::programs(),
        corpus::models::programs(),
        corpus::ops::programs(),
        corpus::ops::along_features(),
        corpus::shapes::programs(),
        corpus::loops::programs(),
        corpus::table::on_sequences(),
        corpus::table::in_loops(),
    ];
    let all = families.concat();
    let joint: Vec<Program> = all.iter().filter_map(|program| program.backward().ok()).collect();
    [all, joint].concat()
}

/// All plans of a program.
fn plans(program: &Program) -> impl Iterator<Item = Plan> {
    let lowered = pipeline::lower(program);
    let all = TARGETS.into_iter().flat_map(|target| POLICIES.map(|policy| (target, policy)));
    all.map(move |(target, policy)| plan::plan(&lowered, target, policy))
}

fn check_all(programs: impl IntoIterator<Item = Program>) {
    let mut failures = Vec::new();
    for program in programs {
        let found = plans(&program).find_map(|plan| Some((plan.verify().err()?, plan)));
        if let Some((e, plan)) = found {
            failures.push(format!("{e}\n{:?} {:?}\n{plan}", plan.target, plan.checkpointing));
        }
    }
    assert!(failures.is_empty(), "{} programs fail:\n\n{}\n", failures.len(), failures.join("\n\n"));
}

#[test]
fn plans_of_the_corpus_are_sound() {
    check_all(corpus());
}

#[test]
fn plans_of_random_programs_are_sound() {
    let joint = |seed| random::program(seed).backward().expect("an objective");
    check_all((0..60).flat_map(|seed| [random::program(seed), joint(seed)]));
}
