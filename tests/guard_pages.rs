//! Nothing is touched outside of its memory: programs run in slots that end at a page without access, and in slots that
//! begin at one.
//!
//! A sample that is drawn with fixed seeds takes about a minute; `GUARDED=n cargo test --release --test guard_pages` runs n
//! programs of each kind, and `GUARDED_FROM=m` begins with the m-th. Programs are those of the corpus, random ones, and the
//! library's cells with 1 to 40 features and units, all with their gradients; at 1 to 40 steps and samples, in 32 and 64
//! bits, with and without checkpoints, on 1 to 3 threads by rows and by features, on every instruction set.
//!
//! Whoever touches such a page is ended by the system. So programs run in a process of their own, which says first what it
//! will do; and what it said last is what failed.

mod check;
mod corpus;

use std::process::Command;

use check::sets::{on, sets, settings};
use corpus::random;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use retrograd::compiler::ir::Sizes;
use retrograd::prelude::*;
use retrograd::runtime::float::Float;
use retrograd::runtime::guard::{Guard, with};
use retrograd::runtime::session::{Session, Sharing};
use retrograd::testing::run;

/// What the process of its own is told: which programs.
const CHILD: &str = "RETROGRAD_GUARDED_CHILD";
/// Programs of each kind in the sample.
const SAMPLE: u64 = 40;
/// Features, units, steps and samples, at most.
const MOST: usize = 40;

/// What is run.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Corpus,
    Random,
    Cells,
}

impl Kind {
    /// The n-th program of this kind.
    fn program(self, n: u64, lot: &mut SmallRng) -> Program {
        match self {
            Kind::Random => random::program(n),
            Kind::Cells => {
                let (name, cell) = corpus::cells::CELLS[n as usize % corpus::cells::CELLS.len()];
                let (inputs, units) = (lot.random_range(1..=MOST), lot.random_range(1..=MOST));
                corpus::cells::program(name, cell, inputs, units)
            }
            Kind::Corpus => {
                let families = [
                    corpus::models::programs,
                    corpus::ops::programs,
                    corpus::ops::along_features,
                    corpus::shapes::programs,
                    corpus::loops::programs,
                    corpus::table::on_sequences,
                    corpus::table::in_loops,
                ];
                let mut family = families[n as usize % families.len()]();
                let one = n as usize / families.len() * 7 % family.len();
                family.swap_remove(one)
            }
        }
    }
}

fn one<E: Float>(program: &Program, lot: &mut SmallRng) {
    let sizes: Vec<Sizes> = (0..2)
        .map(|_| {
            let mut steps = || lot.random_range(1..=MOST);
            Sizes { steps: vec![steps(), steps(), steps(), steps()], batch: steps() }
        })
        .collect();
    let threads = lot.random_range(1..=3);
    let sharing = [Sharing::Rows, Sharing::Features][lot.random_range(0..2)];
    let policy = match lot.random_range(0..4) {
        0 => Some(Checkpointing::Every(lot.random_range(1..6))),
        1 => Some(Checkpointing::Keep(lot.random_range(1..6))),
        2 => Some(Checkpointing::Sqrt),
        _ => None,
    };
    for set in sets() {
        for guard in [Guard::Behind, Guard::Before] {
            println!(
                "{} in {} bits, {set}, T, B {:?}, {threads} threads, {sharing:?}, {policy:?}, {guard:?}",
                program.name,
                8 * size_of::<E>(),
                sizes.iter().map(|s| (s.steps[0], s.batch)).collect::<Vec<_>>(),
            );
            let settings = on(set, settings).threads(threads);
            let settings = policy.into_iter().fold(settings, Settings::checkpointing);
            with(guard, || {
                let mut session = Session::<E>::new(program, settings).expect("it compiles");
                session.share(sharing);
                for sizes in &sizes {
                    let values = check::values(program, sizes, 7);
                    run(&mut session, &values, sizes).expect("it runs");
                }
            });
        }
    }
}

#[test]
fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (kind, range) = told.split_once(' ').expect("a kind and a range");
    let kind = [Kind::Corpus, Kind::Random, Kind::Cells][kind.parse::<usize>().expect("a kind")];
    let (from, to) = range.split_once(' ').expect("a range");
    for n in from.parse::<u64>().expect("a number")..to.parse().expect("a number") {
        let mut lot = SmallRng::seed_from_u64(n);
        let program = kind.program(n, &mut lot);
        println!("{kind:?} {n}");
        one::<f32>(&program, &mut lot);
        if let Ok(joint) = program.backward() {
            one::<f32>(&joint, &mut lot);
            one::<f64>(&joint, &mut lot);
        }
    }
    println!("nothing outside");
}

fn check_kind(kind: Kind) {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let from = number("GUARDED_FROM").unwrap_or(0);
    let to = from + number("GUARDED").unwrap_or(SAMPLE);
    let me = std::env::current_exe().expect("a test is a program");
    let mut command = Command::new(me);
    command.args(["--exact", "child", "--nocapture"]).env(CHILD, format!("{} {from} {to}", kind as usize));
    let output = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().rev().take(8).collect::<Vec<_>>();
    let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("nothing outside"),
        "{}, behind this:\n{last}\n{why}",
        output.status
    );
    println!("{kind:?}: {} runs, nothing outside", text.lines().filter(|line| line.contains(" bits, ")).count());
}

#[test]
fn corpus_programs() {
    check_kind(Kind::Corpus);
}

#[test]
fn random_programs() {
    check_kind(Kind::Random);
}

#[test]
fn cells_of_any_width() {
    check_kind(Kind::Cells);
}
