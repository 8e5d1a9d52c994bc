//! No size is too large to be asked for: whatever takes one gives an answer or a typed error, and goes on afterwards at
//! the sizes before. Nothing here may end the process.

#![forbid(unsafe_code)]

use std::fmt::Debug;

use ndarray::{Array1, arr0, arr1, arr2, arr3};
use retrograd::compiler::ir::sizes::TOO_LARGE;
use retrograd::compiler::time::UnrollError;
use retrograd::prelude::*;
use retrograd::runtime::error::{DecodeError, RunError};
use retrograd::runtime::session::Session;

/// Sizes that no machine has room for, where each takes a few bytes.
const HUGE: [usize; 9] = [1 << 40, 1 << 47, (1 << 58) - 1, 1 << 58, 1 << 60, 1 << 61, 1 << 62, 1 << 63, usize::MAX];

fn record(body: impl for<'r> FnOnce(&Recorder<'r>)) -> Program {
    Program::record("sizes", body).unwrap_or_else(|e| panic!("{e}"))
}

/// Four outputs of a line, and their mean square.
fn line() -> Program {
    record(|p| {
        let y = p.affine("a", p.input("x", 1), 4);
        p.output("o", y);
        p.minimize(y.square().mean());
    })
}

/// The sum of a sequence so far, for each sample.
fn running_sum() -> Program {
    record(|p| {
        let x = p.sequence("x", 1);
        let run = p.scan("sum", |s| {
            let h = s.state("h", 1);
            s.next(h, h + s.affine("w", s.at(x), 1))
        });
        p.output("sum", run.all());
        p.minimize(run.all().square().mean());
    })
}

/// That there is no memory, for so many samples or steps.
fn no_memory<T>(result: Result<T, RunError>, batch: usize, steps: usize) {
    match result {
        Err(e @ RunError::Memory { .. }) => {
            let text = e.to_string();
            let RunError::Memory { asked, sizes, reason } = e else { unreachable!("just matched") };
            assert_eq!((sizes.batch, sizes.steps[0]), (batch, steps));
            assert!(asked >= batch.saturating_mul(steps), "{asked} for {batch} × {steps}");
            assert!(text.contains(&reason) && text.contains("Fewer samples need less"), "{text}");
        }
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("{batch} × {steps} has been run"),
    }
}

#[test]
fn a_batch_that_no_machine_has_is_refused_and_training_goes_on() {
    let mut trainer = line().trainer(Sgd::new(0.0)).compile().expect("no mistakes");
    let (one, zero) = (arr2(&[[1.0f32], [3.0]]), arr0(0.0f32));
    let small = Feed::new().f32("x", one.view());
    let before = trainer.step(&small).expect("two samples").loss;
    for n in HUGE.into_iter().filter(|&n| n <= 1 << 60) {
        let feed = Feed::new().f32("x", zero.broadcast((n, 1)).expect("no stride"));
        no_memory(trainer.step(&feed), n, 1);
        no_memory(trainer.evaluate(&feed), n, 1);
        assert_eq!(trainer.step(&small).expect("two samples").loss, before);
    }
    assert_eq!(trainer.evaluate(&small).expect("two samples"), before);
}

#[test]
fn sizes_that_a_feed_says_are_refused() {
    let program = record(|p| {
        let w = p.parameter("w", 3, Init::Constant(2.0));
        let run = p.axis("time").scan("powers", |s| {
            let h = s.state("h", 3);
            s.next(h, h + w)
        });
        p.output("all", run.all());
    });
    let mut session = Session::<f32>::new(&program, 1).expect("no mistakes");
    session.initialise(0).expect("a constant");
    for n in HUGE {
        for (batch, steps) in [(n, 1), (1, n), (n, n), (3, n)] {
            no_memory(session.run(&Feed::new().batch(batch).steps("time", steps)), batch, steps);
        }
        session.run(&Feed::new().batch(1).steps("time", 2)).expect("two steps");
        assert_eq!(session.output("all").expect("an output"), arr3(&[[[2.0; 3]], [[4.0; 3]]]).into_dyn());
    }
}

#[test]
fn streams_of_more_samples_than_there_is_memory_for_are_refused() {
    let program = running_sum();
    let trainer = program.trainer(Sgd::new(0.1)).compile().expect("no mistakes");
    for n in HUGE {
        no_memory(program.stream(n, 0), n, 1);
        no_memory(trainer.stream(n), n, 1);
    }
}

#[test]
fn a_stream_takes_arrays_of_its_own_batch_only() {
    let program = record(|p| p.output("y", p.sequence("x", 3) * p.embedding("word", p.labels("word"), 4, 3)));
    let mut stream = program.stream(2, 0).expect("a stream");
    let (one, word) = (arr0(0.5f32), arr0(1i32));
    for n in HUGE {
        let (Some(x), Some(words)) = (one.broadcast((n, 3)), word.broadcast(n)) else { continue };
        let error = stream.step(&Feed::new().f32("x", x)).err().expect("too many").to_string();
        assert_eq!(error, format!("the batch of a stream's input `x` is {n}; this stream has 2 samples"));
        assert!(stream.step(&Feed::new().i32("word", words)).is_err());
    }
    // What is refused sets nothing, the arrays before it neither.
    let (x, words) = (one.broadcast((2, 3)).expect("a view"), word.broadcast(3).expect("a view"));
    assert!(stream.step(&Feed::new().f32("x", x).i32("word", words)).is_err());
    let error = stream.step(&Feed::new().i32("word", word.broadcast(2).expect("a view"))).err().expect("no x");
    assert!(matches!(error, RunError::MissingInput { .. }), "{error}");
    stream.step(&Feed::new().f32("x", x)).expect("both are set");
}

#[test]
fn windows_of_any_length_are_run_or_refused() {
    let zero = arr0(0.0f32);
    let small = arr3(&[[[1.0f32]], [[2.0]], [[3.0]]]);
    let max = usize::MAX;
    for (k1, k2) in [(1, 1), (1, 3), (4, 2), (2, max), (max, 1), (max - 1, max), (max, max), (1 << 61, 1 << 62)] {
        let mut trainer = running_sum().trainer(Sgd::new(0.1)).truncate(k1, k2).compile().expect("no mistakes");
        for n in [1 << 40, 1 << 60] {
            for shape in [(1, n, 1), (n, 1, 1)] {
                let feed = Feed::new().f32("x", zero.broadcast(shape).expect("no stride"));
                if k1 >= shape.0 {
                    assert!(matches!(trainer.step(&feed), Err(RunError::Memory { .. })), "{k1}, {k2} of {shape:?}");
                }
                if shape.0 / k1 > 1 << 30 || k1 > shape.0 {
                    assert!(matches!(trainer.sequence(&feed), Err(RunError::Memory { .. })), "{k1}, {k2} of {shape:?}");
                }
            }
        }
        let reports = trainer.sequence(&Feed::new().f32("x", small.view())).expect("three steps");
        assert_eq!(reports.len(), 3usize.div_ceil(k1), "{k1}, {k2}");
    }
}

#[test]
fn labels_that_a_broadcast_repeats_are_looked_at_once() {
    let program = record(|p| {
        let words = p.embedding("words", p.labels("word"), 5, 2);
        p.output("o", words);
    });
    let mut session = Session::<f32>::new(&program, 1).expect("no mistakes");
    for n in [1 << 40, 1 << 58, 1 << 60] {
        let (good, bad) = (arr0(4), arr0(5));
        no_memory(session.run(&Feed::new().i32("word", good.broadcast(n).expect("no stride"))), n, 1);
        let outside = session.run(&Feed::new().i32("word", bad.broadcast(n).expect("no stride")));
        assert!(matches!(outside, Err(RunError::OutOfRange { value: 5, bound: 5, .. })));
    }
}

#[test]
fn beams_of_any_width_are_searched_or_refused() {
    let program = record(|p| {
        let before = p.labels_sequence("before");
        let words = p.embedding("words", before, 5, 4);
        let run = p.scan("rnn", |s| {
            let h = s.state("h", 4);
            s.next(h, (s.linear("h", h, 4) + s.at(words)).tanh())
        });
        p.output("logits", p.affine("readout", run.all(), 5));
    });
    let mut decoder = program.decoder("time", 1).expect("no mistakes");
    let search = Search { symbol: "before", logits: "logits", start: 0, end: 1, limit: 3, length_penalty: 0.0 };
    let one = Feed::new().batch(1);
    let before = beam_search(&mut decoder, &one, &search, 3).expect("a beam of three");
    assert_eq!(before[0].len(), 3);
    let refused = |result: Result<Vec<Vec<Hypothesis>>, DecodeError>| match result {
        Err(DecodeError::Run(RunError::Memory { sizes, .. })) => sizes.batch,
        other => panic!("{other:?}"),
    };
    for n in HUGE.into_iter().chain([1 << 57]) {
        assert_eq!(refused(beam_search(&mut decoder, &one, &search, n)), n);
        assert_eq!(refused(beam_search(&mut decoder, &Feed::new().batch(n), &search, 1)), n);
        assert_eq!(refused(beam_search(&mut decoder, &Feed::new().batch(2), &search, n)), n.saturating_mul(2));
        assert!(matches!(greedy(&mut decoder, &Feed::new().batch(n), &search), Err(DecodeError::Run(_))));
        assert!(matches!(decoder.begin(&Feed::new().batch(n), n), Err(RunError::Memory { .. })));
        assert_eq!(beam_search(&mut decoder, &one, &search, 3).expect("a beam of three"), before);
    }
}

/// What a plan says of sizes stops at what can be counted, and never wraps around to less.
#[test]
fn a_plan_never_says_less_than_it_is() {
    let joint = running_sum().backward().expect("an objective");
    let max = usize::MAX;
    let policies = [0, 1, 2, 1 << 20, 1 << 61, max].map(Checkpointing::Fit).into_iter();
    let policies = policies
        .chain([1, 3, 1 << 61, max].into_iter().flat_map(|k| [Checkpointing::Every(k), Checkpointing::Keep(k)]));
    let plans = policies.chain([Checkpointing::Sqrt]).map(|policy| joint.checkpointed_plan(policy));
    for plan in plans.chain([joint.plan()]) {
        for n in HUGE {
            for sizes in [Sizes::new(n, 1), Sizes::new(1, n), Sizes::new(n, n), Sizes::new(n, 7)] {
                let rows = sizes.batch.saturating_mul(sizes.steps[0]);
                let (memory, flops) = (plan.memory(&sizes), plan.flops(&sizes));
                // Inputs have a row of a whole pad for each sample and step.
                assert!(memory >= rows.saturating_mul(64), "{memory} at {sizes:?}, {:?}", plan.checkpointing);
                assert!(flops >= rows, "{flops} at {sizes:?}");
                let cost = plan.cost(&sizes);
                assert!(cost.iter().any(|phase| phase.bytes >= rows));
                assert!(plan.stages().all(|(stage, _)| plan.effort(stage, &sizes) > 0));
            }
        }
        assert_eq!(plan.memory(&Sizes::new(1 << 60, 1 << 60)), TOO_LARGE);
    }
}

#[test]
fn a_limit_refuses_what_cannot_be_counted() {
    let zero = arr0(0.0f32);
    for limit in [1 << 20, 1 << 40, usize::MAX] {
        let policy = Checkpointing::Fit(limit);
        let mut trainer = running_sum().trainer(Sgd::new(0.1)).checkpointing(policy).compile().expect("no mistakes");
        for (steps, batch) in [(1 << 40, 1), (1 << 60, 1), (1, 1 << 60), (1 << 30, 1 << 30)] {
            let feed = Feed::new().f32("x", zero.broadcast((steps, batch, 1)).expect("no stride"));
            match trainer.step(&feed) {
                Err(RunError::MemoryLimit { limit: said, least, .. }) => assert!(said == limit && least > limit),
                Err(RunError::Memory { .. }) => assert!(limit > 1 << 20),
                other => panic!("{other:?}"),
            }
        }
        let small = arr3(&[[[1.0f32]], [[2.0]]]);
        trainer.step(&Feed::new().f32("x", small.view())).expect("two steps");
    }
}

#[test]
fn steps_are_written_out_up_to_a_limit() {
    for n in HUGE {
        let refused = running_sum().unroll(n).expect_err("no graph is so large");
        assert!(matches!(refused, UnrollError::TooManySteps { steps, .. } if steps == n));
        assert!(refused.to_string().contains("a loop takes any number of steps"), "{refused}");
    }
    assert_eq!(running_sum().unroll(5).expect("five steps").inputs.len(), 5);
}

fn recorded<T: Debug>(body: impl for<'r> FnOnce(&Recorder<'r>) -> T) -> Option<String> {
    Program::record("large", |p| {
        body(p);
    })
    .err()
    .map(|e| e.to_string())
}

#[test]
fn rows_have_a_limit_wherever_they_are_made() {
    let limit = format!("a row has at most {}", Shape::MAX_LEN);
    for n in HUGE.into_iter().chain([(1 << 28) + 1, 1 << 31, 1 << 32, 1 << 33]) {
        let texts = [
            recorded(|p| p.output("o", p.input("x", n))),
            recorded(|p| p.output("o", p.sequence("x", [2, n]))),
            recorded(|p| p.output("o", p.parameter("w", [n, n], Init::Constant(0.0)))),
            recorded(|p| p.output("o", p.affine("a", p.input("x", 3), n))),
            recorded(|p| p.output("o", p.labels("l").one_hot(n))),
            recorded(|p| p.output("o", p.input("x", ()).broadcast([2, n]))),
            recorded(|p| p.output("o", p.embedding("e", p.labels("l"), n, 3))),
        ];
        for (i, text) in texts.into_iter().enumerate() {
            let text = text.unwrap_or_else(|| panic!("{i} of {n} has been recorded"));
            assert!(text.contains(&limit), "{i} of {n}: {text}");
        }
    }
}

/// What a row of the largest size holds at its end is reached in both widths: in 64 bits that is beyond 2³¹ bytes.
///
/// It takes 5 GiB and so runs where it is asked for:
///
/// ```sh
/// LARGEST_ROW=1 cargo test --test sizes the_end_of_the_largest_row
/// ```
#[test]
fn the_end_of_the_largest_row_is_reached() {
    if std::env::var_os("LARGEST_ROW").is_none() {
        return;
    }
    let n = Shape::MAX_LEN;
    let program = record(|p| {
        let x = p.input("x", n);
        p.output("end", x.slice_axis(0, n - 5..n) * 2.0);
    });
    let mut x = Array1::<f32>::zeros(n);
    for i in 0..5 {
        x[n - 5 + i] = i as f32 + 1.0;
    }
    let x = x.into_shape_with_order((1, n)).expect("one row");
    let feed = Feed::new().f32("x", x.view());
    let mut session = Session::<f64>::new(&program, 1).expect("no mistakes");
    session.run(&feed).expect("there is memory for one row");
    assert_eq!(session.output("end").expect("an output").into_flat(), arr1(&[2.0, 4.0, 6.0, 8.0, 10.0]));
    drop(session);
    let mut session = Session::<f32>::new(&program, 1).expect("no mistakes");
    session.run(&feed).expect("there is memory for one row");
    assert_eq!(session.output("end").expect("an output").into_flat(), arr1(&[2.0, 4.0, 6.0, 8.0, 10.0]));
}
