//! Every mistake that a recording can have, and the text that it gets: a file with the mistake, a snapshot with the
//! text, side by side in `tests/wrong`.

use std::collections::BTreeSet;
use std::path::Path;

use retrograd::prelude::*;

mod wrong;

/// Nothing panics, every mistake is found, and its text names file and line, what was given and what is allowed.
#[test]
fn texts() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("wrong");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, body) in wrong::PROGRAMS {
            let errors = Program::record(*name, body).expect_err(name);
            for error in &errors {
                let file = Path::new(error.location.file()).file_stem();
                assert_eq!(file, Some(name.as_ref()), "the place is the user's: {error}");
            }
            insta::assert_snapshot!(*name, errors);
        }
    });
}

/// A file that the list forgets would test nothing.
#[test]
fn every_file_is_a_program() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let files: BTreeSet<String> = std::fs::read_dir(directory)
        .expect("the corpus is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| path.file_stem().expect("a file").to_string_lossy().into_owned())
        .filter(|name| name != "mod")
        .collect();
    let listed: BTreeSet<String> = wrong::PROGRAMS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(files, listed);
}

/// A value of another program is told by the program in which it is used, on whichever side it stands.
#[test]
fn values_of_another_program() {
    let mut errors = None;
    let outer = Program::record("outer", |p| {
        let x = p.input("x", 3);
        errors = Program::record("inner", |q| {
            q.output("y", q.input("y", 3) + x);
            q.minimize(q.affine("a", x, 1).mean());
            q.scan("s", |s| s.next(s.state("h", 3), x));
        })
        .err();
    });
    assert!(outer.is_ok(), "nothing is wrong with the outer one");
    let errors = errors.expect("three values are not of the inner one");
    assert_eq!(errors.iter().count(), 3, "{errors}");
    assert_eq!(errors.to_string().matches("another program, `outer`").count(), 3, "{errors}");
}

type Method = (&'static str, for<'r> fn(Expr<'r>, Expr<'r>) -> Expr<'r>);

/// One method of each kind of argument, and all that look at shapes.
const METHODS: &[Method] = &[
    ("add", |x, y| x + y),
    ("number", |x, _| 1.0 - x),
    ("neg", |x, _| -x),
    ("tanh", |x, _| x.tanh()),
    ("clamp", |x, y| x.clamp(y, 1.0)),
    ("select", |x, y| select(x, y, 0.0)),
    ("stop_gradient", |x, _| x.stop_gradient()),
    ("to_float", |x, _| x.to_float()),
    ("leaky_relu", |x, _| x.leaky_relu(0.1)),
    ("gelu", |x, _| x.gelu()),
    ("softmax", |x, _| x.softmax()),
    ("log_softmax", |x, _| x.log_softmax()),
    ("sample", |x, y| x.sample(y)),
    ("layer_norm", |x, y| x.layer_norm(y, y, 1e-5)),
    ("rms_norm", |x, y| x.rms_norm(y, 1e-5)),
    ("dot", |x, y| x.dot(y)),
    ("matmul", |x, y| x.matmul(y)),
    ("outer", |x, y| x.outer(y)),
    ("inner", |x, y| x.inner(y)),
    ("sum", |x, _| x.sum()),
    ("min", |x, _| x.min()),
    ("mean", |x, _| x.mean()),
    ("sum_axis", |x, _| x.sum_axis(1)),
    ("mean_axis", |x, _| x.mean_axis(usize::MAX)),
    ("mean_features", |x, _| x.mean_features()),
    ("argmax", |x, _| x.argmax()),
    ("split", |x, _| x.split::<3>()[2]),
    ("split into none", |x, _| x.split::<0>().first().copied().unwrap_or(x)),
    ("split_at", |x, _| x.split_at([usize::MAX, 2])[1]),
    ("slice", |x, _| x.slice(1..=usize::MAX)),
    #[expect(clippy::reversed_empty_ranges, reason = "that is the mistake")]
    ("slice backwards", |x, _| x.slice(3..1)),
    ("slice_axis", |x, _| x.slice_axis(1, 1..)),
    ("reshape", |x, _| x.reshape([usize::MAX, usize::MAX])),
    ("transpose", |x, _| x.transpose()),
    ("permute", |x, _| x.permute([7, 0])),
    ("broadcast", |x, _| x.broadcast([4, 2, 3])),
    ("broadcast to much", |x, _| x.broadcast([usize::MAX, usize::MAX, 2, 3])),
    ("lookup", |x, y| x.lookup(y)),
    ("one_hot", |x, _| x.one_hot(usize::MAX)),
    ("one_hot of none", |x, _| x.one_hot(0)),
    ("concat", |x, y| concat([x, y])),
    ("concat_axis", |x, y| concat_axis(usize::MAX, [x, y])),
    ("stack", |x, y| stack([x, y])),
    ("last", |x, _| x.last()),
    ("mean_rows", |x, _| x.mean_rows()),
    ("sum_time", |x, _| x.sum_time()),
    ("masked_mean", |x, y| x.masked_mean(y)),
    ("masked_mean_time", |x, y| x.masked_mean_time(y)),
    ("cross_entropy", |x, y| x.cross_entropy(y)),
    ("accuracy", |x, y| x.accuracy(y)),
    ("mse", |x, y| x.mse(y)),
    ("binary_cross_entropy", |x, y| x.binary_cross_entropy(y)),
];

const RANKS: &[&[usize]] = &[&[], &[3], &[2, 3], &[3, 3], &[2, 3, 4]];
const EXTENTS: [Extent; 4] = [Extent::Shared, Extent::Batch, Extent::Time(Axis(0)), Extent::Time(Axis(1))];
const OPERANDS: usize = 3 + RANKS.len() * EXTENTS.len() * 2;

/// A value of each rank, type and extent, and some that are none.
fn operand<'r>(p: &Recorder<'r>, foreign: Expr<'r>, i: usize) -> Expr<'r> {
    match i.checked_sub(3) {
        Some(i) => {
            let dtype = if i % 2 == 0 { DType::F32 } else { DType::I32 };
            let (extent, shape) = (EXTENTS[i / 2 % EXTENTS.len()], RANKS[i / 2 / EXTENTS.len()]);
            p.declare(&format!("x{i}"), Type { dtype, extent, shape: shape.into() })
        }
        None if i == 0 => foreign,
        None if i == 1 => concat([]),
        None => p.input("not a name", 3),
    }
}

/// Every method on all pairs of values, outside and within a step: nothing panics, each mistake has its place in
/// this file, a poisoned result goes with a mistake, and where there is none the program verifies.
#[test]
fn no_operand_makes_a_method_panic() {
    let (mut right, mut wrong) = (0, 0);
    for (name, method) in METHODS {
        for case in 0..2 * OPERANDS * OPERANDS {
            let (in_step, x, y) = (case % 2 == 1, case / 2 % OPERANDS, case / 2 / OPERANDS);
            let mut poisoned = false;
            let mut result = None;
            let _ = Program::record("outer", |o| {
                let foreign = o.input("foreign", 3);
                result = Some(Program::record(*name, |p| {
                    let run = |poisoned: &mut bool| {
                        let value = method(operand(p, foreign, x), operand(p, foreign, y));
                        *poisoned = value.ty().is_none();
                        value
                    };
                    let time = p.axis("time");
                    let value =
                        if in_step { time.scan("s", |_| run(&mut poisoned)).last() } else { run(&mut poisoned) };
                    p.output("y", value);
                }));
            });
            match result.expect("recorded") {
                Ok(program) => {
                    assert!(!poisoned, "{name} of {x} and {y}: a value is missing, and nothing is said of it");
                    assert_eq!(program.verify(), Ok(()), "{name} of {x} and {y}");
                    right += 1;
                }
                Err(errors) => {
                    for error in &errors {
                        assert_eq!(error.location.file(), file!(), "{name} of {x} and {y}: {error}");
                    }
                    wrong += 1;
                }
            }
        }
    }
    assert!(right > 10_000 && wrong > 10_000, "{right} right and {wrong} wrong programs test little");
}
