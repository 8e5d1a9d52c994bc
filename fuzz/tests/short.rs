//! Some cases of each target, in this process; and what was found before, which stays mended.

use std::fs;
use std::path::Path;

use retrograd::compiler::ir::{Program, Sizes};
use retrograd::runtime::session::Session;
use retrograd::testing;
use retrograd_fuzz::{Counts, TARGETS, target};

#[test]
fn some_cases_of_each_target() {
    for name in TARGETS {
        let (mut target, mut counts) = (target(name).expect("one of its names"), Counts::new());
        for case in 0..60 {
            if let Err(e) = target.run(case, &mut counts) {
                panic!("{name} --case {case}: {e}\n{}", target.show(case));
            }
        }
        assert!(counts.values().sum::<u64>() >= 60, "{name}: {counts:?}");
    }
}

/// Texts that once broke something: each is refused, or compiled and run.
#[test]
fn what_was_found_before() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).expect("a text");
        let Ok(program) = Program::parse(&text) else { continue };
        let joint = program.objective.and_then(|_| program.backward().ok());
        for program in [Some(program), joint].into_iter().flatten() {
            let Ok(mut session) = Session::<f32>::new(&program, 2) else { continue };
            let sizes = Sizes { batch: 3, steps: vec![2, 3, 1, 1] };
            let _ = testing::run(&mut session, &testing::values(&program, &sizes, 1), &sizes);
        }
    }
}
