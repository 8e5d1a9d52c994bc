//! Memory for time: with checkpoints a program computes the same bits, holds what its plan says, and that is less.
//!
//! `tests/engines.rs` runs the corpus with a checkpoint at every other step; here are other lengths of segments, more
//! threads, programs whose loops lie otherwise, and what there is to say around them.

mod check;
mod corpus;

use check::sets::in_turn;
use check::{Found, Jit, memory, same_bits, sizes, values};
use corpus::{energy, record};
use retrograd::cells;
use retrograd::compiler::ir::{Axis, Sizes};
use retrograd::compiler::plan::{Plan, Unit};
use retrograd::prelude::*;
use retrograd::runtime::error::RunError;
use retrograd::runtime::session::{Session, Sharing};

/// Segments of k steps at T < k, T = k, T = k + 1 and more, a last one that is shorter, and T = B = 1.
const SIZES: [(usize, usize); 6] = [(1, 1), (2, 3), (3, 26), (4, 2), (5, 7), (9, 2)];

/// With checkpoints at every step, every third, and as √T says, and in segments without, on one thread and on two, shared by rows and
/// by features: the bits of a run in one segment, which is what a program without checkpoints is at such sizes.
fn check(program: &Program) -> Found {
    let policies = [
        (Checkpointing::Every(1), 1),
        (Checkpointing::Every(3), 2),
        (Checkpointing::Sqrt, 1),
        (Checkpointing::Keep(1), 2),
        (Checkpointing::Keep(2), 1),
        (Checkpointing::Keep(3), 1),
    ];
    let mut whole = Jit::<f64>::new(program, 1)?;
    let mut jits = policies.map(|(policy, threads)| (policy, Jit::<f64>::checkpointed(program, threads, policy)));
    let (mut small, mut small_3) =
        (Jit::<f32>::new(program, 1)?, Jit::<f32>::checkpointed(program, 2, Checkpointing::Every(3))?);
    for (steps, batch) in SIZES {
        let at = |e: String| format!("T, B = {steps}, {batch}: {e}");
        let sizes = sizes(steps, batch);
        let values = values(program, &sizes, 7);
        let expected = whole.run(&values, &sizes).map_err(at)?;
        for (policy, jit) in &mut jits {
            let at = |e: String| at(format!("{policy:?}: {e}"));
            let jit = jit.as_mut().map_err(|e| e.clone())?;
            // Of threads, where there are two.
            jit.session.share(if *policy == Checkpointing::Keep(1) { Sharing::Features } else { Sharing::Rows });
            same_bits("f64", &jit.run(&values, &sizes)?, &expected).map_err(at)?;
            memory(jit).map_err(at)?;
            same_bits("f64, once more", &jit.run(&values, &sizes)?, &expected).map_err(at)?;
        }
        let expected = small.run(&values, &sizes).map_err(at)?;
        small_3.session.share(Sharing::Features);
        same_bits("f32", &small_3.run(&values, &sizes)?, &expected).map_err(at)?;
    }
    Ok(())
}

/// Those with an objective, differentiated.
fn check_all(programs: Vec<Program>) {
    let failure = |p: &Program| {
        let run = || in_turn(&p.name, || check(&p.backward().map_err(|e| e.to_string())?));
        let result = std::panic::catch_unwind(run).unwrap_or_else(|_| Err("panics, see above".to_string()));
        result.err().map(|e| format!("`{}`: {e}", p.name))
    };
    let failures: Vec<String> = programs.iter().filter(|p| p.objective.is_some()).filter_map(failure).collect();
    assert!(failures.is_empty(), "{} programs fail:\n\n{}\n", failures.len(), failures.join("\n\n"));
}

#[test]
fn models() {
    check_all(corpus::models::programs());
}

#[test]
fn loops() {
    check_all(corpus::loops::programs());
}

// ---- loops that lie otherwise ---------------------------------------------------------------------------------

/// The program's loops with the states that have checkpoints, and the loops that are held whole.
fn kept(plan: &Plan) -> (Vec<String>, Vec<String>) {
    fn of(plan: &Plan, units: &[Unit], swept: bool, kept: &mut Vec<String>, whole: &mut Vec<String>) {
        for unit in units {
            match unit {
                Unit::Stage(_) => {}
                Unit::Loop(l) if swept => {
                    let buffers = l.states.iter().filter_map(|state| state.checkpoints);
                    kept.extend(buffers.map(|buffer| plan.buffers[buffer.0].name.clone()));
                }
                Unit::Loop(l) => whole.push(l.name.clone()),
                Unit::Sweep(sweep) => {
                    of(plan, &sweep.forth, true, kept, whole);
                    of(plan, &sweep.between, false, kept, whole);
                    of(plan, &sweep.back, true, kept, whole);
                }
            }
        }
    }
    let (mut kept, mut whole) = (Vec::new(), Vec::new());
    of(plan, &plan.units, false, &mut kept, &mut whole);
    (kept, whole)
}

fn check_kept(program: &Program, expected_kept: &[&str], expected_whole: &[&str]) {
    let (kept, whole) = kept(&program.checkpointed_plan(Checkpointing::Sqrt));
    assert_eq!(kept, expected_kept, "{}: states with checkpoints", program.name);
    assert_eq!(whole, expected_whole, "{}: loops without", program.name);
    if let Err(e) = check(program) {
        panic!("`{}`: {e}", program.name);
    }
}

fn joint(name: &str, body: impl for<'r> FnOnce(&Recorder<'r>)) -> Program {
    record(name, body).backward().expect("an objective")
}

/// The way forth begins at the last step, sums run from the first.
#[test]
fn from_the_last_step_to_the_first() {
    let program = joint("reversed", |p| {
        let (x, y) = (p.sequence("x", 3), p.sequence("y", 2));
        let run = p.scan_reverse("back", |s| cells::lstm(s, s.at(x), 5));
        p.minimize(p.affine("readout", run.all(), 2).mse(y) + energy(run.last()).mean_rows());
    });
    check_kept(&program, &["back.h.kept", "back.c.kept"], &[]);
}

/// The reader's sweep has the writer's between its two ways.
#[test]
fn one_loop_behind_another_on_one_axis() {
    let program = joint("reader_and_writer", |p| {
        let (x, y) = (p.sequence("x", 3), p.sequence("y", 2));
        let read = p.scan("reader", |s| cells::gru(s, s.at(x), 5)).last();
        let run = p.scan("writer", |s| {
            let h = s.state_from("h", read);
            s.next(h, (s.linear("h", h, 5) + s.affine("y", s.at(y), 5) + read).tanh())
        });
        p.minimize(p.affine("readout", run.all(), 2).mse(y));
    });
    check_kept(&program, &["reader.h.kept", "writer.h.kept"], &[]);
}

/// What the reader says last is no state of its loop: its last row is read between the two ways, once, or by stages that
/// have a sweep of their own.
#[test]
fn the_last_of_a_sequence_between_the_ways() {
    for each_step in [false, true] {
        let program = joint("last_of_no_state", |p| {
            let (x, y) = (p.sequence("x", 3), p.sequence("y", 2));
            let read = p.scan("reader", |s| cells::gru(s, s.at(x), 5) * s.at(x).sum()).last();
            let run = p.scan("writer", |s| {
                let h = s.state_from("h", read);
                let z = s.linear("h", h, 5) + s.affine("y", s.at(y), 5);
                s.next(h, if each_step { z * read } else { z }.tanh())
            });
            p.minimize(p.affine("readout", run.all(), 2).mse(y));
        });
        check_kept(&program, &["reader.h.kept", "writer.h.kept"], &[]);
    }
}

/// Of two layers that read both ways, the last layer's loops stay whole where they need the other way's.
#[test]
fn both_ways_in_layers() {
    let program = joint("both_ways_in_layers", |p| {
        let x = p.sequence("x", 3);
        let mut below = x;
        for layer in ["low", "high"] {
            let forth = p.scan(&format!("{layer}.forth").replace('.', "_"), |s| cells::rnn(s, s.at(below), 3)).all();
            let back = p.scan_reverse(&format!("{layer}_back"), |s| cells::rnn(s, s.at(below), 3)).all();
            below = concat([forth, back]);
        }
        p.minimize(energy(below).mean_rows());
    });
    if let Err(e) = check(&program) {
        panic!("{e}");
    }
    let (kept, _) = kept(&program.checkpointed_plan(Checkpointing::Sqrt));
    assert!(!kept.is_empty(), "some loop has checkpoints");
}

/// The loss needs the mean over all steps before any gradient.
#[test]
fn a_mean_over_time_between_the_loops() {
    let program = joint("around_the_mean", |p| {
        let x = p.sequence("x", 3);
        let h = p.scan("rnn", |s| cells::lstm(s, s.at(x), 5)).all();
        let mean = h.mean_time();
        p.minimize((h - mean).square().mean_features().mean_rows());
    });
    // h is whole, since the mean reads all of it; the gates are not.
    check_kept(&program, &["rnn.c.kept"], &[]);
}

#[test]
fn lengths() {
    let program = joint("lengths", |p| {
        let time = p.lengths("lengths");
        let (x, y) = (time.sequence("x", 3), time.sequence("y", 5));
        let run = time.scan("lstm", |s| cells::lstm(s, s.at(x), 5));
        p.minimize(run.all().mse(y).mean_over(time) + energy(run.last()).mean_rows());
    });
    check_kept(&program, &["lstm.h.kept", "lstm.c.kept"], &[]);
}

/// A gradient of a gradient: loops forth, back, forth and back.
#[test]
fn second_order() {
    let first = joint("rnn", |p| {
        let x = p.sequence("x", 3);
        p.minimize(energy(p.scan("rnn", |s| cells::rnn(s, s.at(x), 5)).all()).mean_rows());
    });
    let first = first.without_objective();
    let twice = first.extend(|p| p.minimize(energy(p.value("d.rnn.cell.w"))));
    let twice = twice.expect("no mistakes").with_outputs(|_| false);
    let twice = twice.backward().expect("an objective");
    if let Err(e) = check(&twice) {
        panic!("{e}");
    }
}

// ---- training, memory, what is refused --------------------------------------------------------------------------

fn tagger(units: usize, tells: bool) -> Program {
    record("tagger", |p| {
        let (x, tag) = (p.sequence("x", 8), p.labels_sequence("tag"));
        let h = p.scan("lstm", |s| cells::lstm(s, s.at(x), units)).all();
        let logits = p.affine("readout", h, 4);
        if tells {
            p.output("logits", logits);
        }
        p.minimize(logits.cross_entropy(tag));
    })
}

/// Windows that carry their states on, on two threads: reports, parameters, evaluation and stream as without.
#[test]
fn training_in_windows() {
    let program = tagger(16, true);
    let trainer = |policy: Option<Checkpointing>| {
        let builder = program.trainer(Adam::new(1e-2)).clip_norm(1.0).seed(3).threads(2).carry_state(true);
        let builder = policy.into_iter().fold(builder, |builder, policy| builder.checkpointing(policy));
        builder.compile().expect("code for this machine")
    };
    let mut whole = trainer(None);
    let policies = [Checkpointing::Every(1), Checkpointing::Every(4), Checkpointing::Sqrt, Checkpointing::Keep(2)];
    let mut others = policies.map(|p| trainer(Some(p)));
    for (window, steps) in [9, 9, 4, 1, 12].into_iter().enumerate() {
        let x: Vec<f32> = (0..steps * 5 * 8).map(|i| ((i + 31 * window) as f32 * 0.7).sin()).collect();
        let tag: Vec<i32> = (0..steps * 5).map(|i| (i * i % 4) as i32).collect();
        let (of_x, of_tag) = ([steps, 5, 8], [steps, 5]);
        let feed = Feed::new().f32_slice("x", &of_x, &x).i32_slice("tag", &of_tag, &tag);
        let expected = whole.step(&feed).expect("finite numbers");
        let loss = whole.evaluate(&feed).expect("finite numbers");
        for other in &mut others {
            assert_eq!(other.step(&feed).expect("finite numbers"), expected, "window {window}");
            assert_eq!(other.evaluate(&feed).expect("finite numbers"), loss, "window {window}");
            for name in ["lstm.gates.w", "lstm.gates.b", "readout.w"] {
                assert_eq!(other.parameter(name), whole.parameter(name), "window {window}: {name}");
            }
        }
    }
    let says = |trainer: &Trainer| {
        let mut stream = trainer.stream(1).expect("code for this machine");
        let mut logits = [0.0; 4];
        for x in [0.5, -0.5] {
            stream.set_f32("x", &[x; 8]).expect("an input");
            stream.advance().expect("all inputs are set");
        }
        stream.get_f32("logits", &mut logits).expect("an output");
        logits
    };
    for other in &others {
        assert_eq!(says(other), says(&whole));
    }
}

#[test]
fn memory_and_work_are_formulas() {
    let (units, batch) = (128, 32);
    let program = tagger(units, false).backward().expect("an objective");
    let whole = program.plan();
    for steps in [1usize, 100, 1000] {
        let sizes = Sizes::new(steps, batch);
        for policy in [Checkpointing::Every(1), Checkpointing::Every(50), Checkpointing::Sqrt] {
            let plan = program.checkpointed_plan(policy);
            let k = plan.segments(&sizes).steps(Axis(0));
            // Again: the product of the input, before the loop, and that of the state, in it.
            let again = 2 * (steps - k) * batch * 4 * units * (8 + units);
            assert_eq!(plan.flops(&sizes), whole.flops(&sizes) + again, "{policy:?}, T = {steps}");
        }
    }
    let sizes = Sizes::new(1000, batch);
    let of = |policy| program.checkpointed_plan(policy).memory(&sizes);
    let (all, few) = (of(Checkpointing::Keep(1000)), of(Checkpointing::Sqrt));
    assert!(8 * few < all, "{few} bytes of {all}");
    // What is fed in is held whole: 8 numbers and a label a row, padded to 64 bytes each.
    let fed = 2 * 64 * 1000 * batch;
    assert!(14 * (few - fed) < all - fed, "{few} bytes of {all}, {fed} of them fed in");
}

/// Without a wish, short sequences are one segment and long ones several, with the same bits and in less memory.
#[test]
fn segments_that_suit_a_cache() {
    let program = tagger(16, false).backward().expect("an objective");
    let (mut own, mut one) = (Jit::<f32>::new(&program, 2).expect("code"), None);
    for (steps, several) in [(3, false), (200, true)] {
        let sizes = sizes(steps, 64);
        let plan = own.session.compiled().plan.clone();
        assert_eq!(plan.segments(&sizes).count(Axis(0)) > 1, several, "T = {steps}");
        let one = one.insert(Jit::<f32>::checkpointed(&program, 1, Checkpointing::Keep(steps)).expect("code"));
        let values = values(&program, &sizes, 7);
        let expected = one.run(&values, &sizes).expect("it runs");
        assert_eq!(same_bits("f32", &own.run(&values, &sizes).expect("it runs"), &expected), Ok(()));
        let (own, one) = (own.session.memory(), one.session.memory());
        assert!(if several { own < one / 4 * 3 } else { own == one }, "{own} and {one} bytes at T = {steps}");
    }
}

/// Of all segments that fit, the longest; a limit that nothing fits is an error that says the least.
#[test]
fn fitting_a_limit() {
    let program = tagger(16, false).backward().expect("an objective");
    let sizes = sizes(40, 3);
    let of =
        |k: usize| Session::<f32>::new(&program, Settings::new().checkpointing(Checkpointing::Every(k))).expect("code");
    let needs: Vec<usize> = (1..=40).map(|k| of(k).compiled().plan.memory(&sizes)).collect();
    let (least, most) = (*needs.iter().min().expect("40"), *needs.iter().max().expect("40"));
    let values = values(&program, &sizes, 7);
    let expected = Jit::<f32>::new(&program, 1).and_then(|mut jit| jit.run(&values, &sizes)).expect("it runs");
    for limit in [least, least + 1, (least + most) / 2, most, 10 * most] {
        let mut jit = Jit::<f32>::checkpointed(&program, 1, Checkpointing::Fit(limit)).expect("code");
        let given = jit.run(&values, &sizes).expect("it fits");
        assert_eq!(same_bits("f32", &given, &expected), Ok(()));
        let k = jit.session.compiled().plan.segments(&sizes).steps(Axis(0));
        assert_eq!(Some(k), (1..=40).rev().find(|k| needs[k - 1] <= limit), "in {limit} bytes");
        assert_eq!(jit.session.memory(), needs[k - 1]);
    }
    let mut jit = Jit::<f32>::checkpointed(&program, 1, Checkpointing::Fit(least - 1)).expect("code");
    let error = retrograd::testing::run(&mut jit.session, &values, &sizes).expect_err("it does not fit");
    assert!(matches!(error, RunError::MemoryLimit { limit, least: l, .. } if limit == least - 1 && l == least));
    let numbers = |text: String| text.replace(&least.to_string(), "LEAST").replace(&(least - 1).to_string(), "LIMIT");
    insta::assert_snapshot!(numbers(error.to_string()), @"values at T, B = [40], 3 need at least LEAST bytes, however many states are kept; LIMIT are allowed. Fewer samples need less, and so do fewer steps");
}

#[test]
fn segments_of_no_steps_are_refused() {
    let program = tagger(4, false).backward().expect("an objective");
    for policy in [Checkpointing::Every(0), Checkpointing::Keep(0)] {
        let error = Session::<f32>::new(&program, Settings::new().checkpointing(policy)).err().expect("no steps");
        insta::allow_duplicates!(
            insta::assert_snapshot!(error, @"the number of steps of a segment is 0; at least 1 is needed")
        );
    }
}
