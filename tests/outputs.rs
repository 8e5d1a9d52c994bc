//! Which outputs there are, which inputs they ask for, and how they are read: in training, evaluation and streams.

use ndarray::{Array2, Array3, array};
use retrograd::cells;
use retrograd::prelude::*;
use retrograd::runtime::error::RunError;

/// A running sum of what a step reads.
fn sum<'r>(s: &Step<'r>, x: Expr<'r>) -> Expr<'r> {
    let h = s.state("h", 1);
    s.next(h, h + x)
}

fn record(name: &str, body: impl FnOnce(&Recorder<'_>)) -> Program {
    Program::record(name, body).expect("no mistakes")
}

fn text<T>(result: Result<T, impl std::fmt::Display>) -> String {
    result.map(|_| ()).map_err(|e| e.to_string()).expect_err("refused")
}

/// Runs a stream over one sample's steps and reads an output after each.
fn streamed(stream: &mut Stream, output: &str, x: &[f32]) -> Vec<f32> {
    let mut one = |&x: &f32| {
        stream.set_f32("x", &[x]).expect("its size");
        stream.advance().expect("all is set");
        let mut y = [f32::NAN];
        stream.get_f32(output, &mut y).expect("its size");
        y[0]
    };
    x.iter().map(&mut one).collect()
}

#[test]
fn a_stream_gives_what_the_program_gives_or_nothing() {
    // Inputs 1, 2, 3: from the end the sums are 6, 5, 3, and no step by step gives them.
    let back = record("back", |p| {
        let x = p.sequence("x", 1);
        p.output("y", p.scan_reverse("back", |s| sum(s, s.at(x))).all());
    });
    let refused = text(back.stream(1, 0));
    assert!(refused.starts_with("`y` cannot be computed step by step: loop `back` (tests/outputs.rs:"), "{refused}");
    assert!(refused.contains("from the last step to the first"), "{refused}");
    // One that reads no sequence counts down from an end that is not known, too, whatever it is called.
    let down = record("down", |p| {
        p.sequence("x", 1);
        p.output("y", p.axis("time").scan_reverse("down", |s| sum(s, s.full(1, 1.0))).all());
    });
    assert!(text(down.stream(1, 0)).contains("loop `down` ("));
    let both = record("both", |p| {
        let x = p.sequence("x", 1);
        let there = p.scan("there", |s| sum(s, s.at(x)));
        let back = p.scan_reverse("back", |s| sum(s, s.at(x)));
        p.output("there", there.all());
        p.output("both", there.all() + back.all());
        p.output("total", there.all().sum_time());
        p.minimize((there.all() + back.all()).square().mean_features());
    });
    let mut stream = both.stream(1, 0).expect("one output can be");
    assert_eq!(streamed(&mut stream, "there", &[1.0, 2.0, 3.0]), [1.0, 3.0, 6.0]);
    assert!(text(stream.get_f32("both", &mut [0.0])).contains("`both` cannot be computed step by step: loop `back` ("));
    let total = text(stream.get_f32("total", &mut [0.0]));
    assert!(total.contains("a sum over the steps of a sequence (tests/outputs.rs:"), "{total}");
    let carried = text(both.trainer(Sgd::new(0.1)).carry_state(true).compile());
    assert!(carried.contains("loop `back` (tests/outputs.rs:"), "{carried}");
    let mut trainer = both.trainer(Sgd::new(0.1)).compile().expect("whole sequences");
    assert!(text(trainer.stream_of(&["both"], 1)).contains("loop `back` ("));
    let x = Array3::from_shape_vec((3, 1, 1), vec![1.0, 2.0, 3.0]).expect("three steps");
    let whole = trainer.predict(&["both"], &Feed::new().f32("x", x.view())).expect("a whole run").output("both");
    assert_eq!(whole.expect("an output").into_raw_vec_and_offset().0, [7.0, 8.0, 9.0]);

    // What another loop has at its end is not there at its first step.
    let after = record("after", |p| {
        let x = p.sequence("x", 1);
        let first = p.scan("first", |s| sum(s, s.at(x)));
        let second = p.scan("second", |s| sum(s, s.at(x) + first.last()));
        p.output("y", second.all());
    });
    assert!(text(after.stream(1, 0)).contains("loop `second` (tests/outputs.rs:"));
    let mean = record("mean", |p| p.output("y", p.sequence("x", 1).mean_time()));
    assert!(text(mean.stream(1, 0)).contains("which a step at a time does not give"));
    // A state after the last step is that of the steps so far.
    let last = record("last", |p| {
        let x = p.sequence("x", 1);
        p.output("y", p.scan("there", |s| sum(s, s.at(x))).last());
    });
    let mut stream = last.stream(1, 0).expect("a running sum");
    assert_eq!(streamed(&mut stream, "y", &[1.0, 2.0, 3.0]), [1.0, 3.0, 6.0]);
    // So does the library's net in both directions say no.
    let net = record("net", |p| {
        let x = p.sequence("x", 2);
        p.output("y", cells::bidirectional(p, p.axis("time"), "net", x, 3, &cells::gru).all());
    });
    assert!(text(net.stream(1, 0)).contains("from the last step to the first"));
}

#[test]
fn targets_are_not_asked_for() {
    let program = record("scored", |p| {
        let time = p.lengths("lengths");
        let (x, target) = (time.sequence("x", 1), time.sequence("target", 1));
        let y = time.scan("sum", |s| sum(s, s.at(x))).all();
        let errors = time.scan("errors", |s| sum(s, (s.at(y) - s.at(target)).square()));
        p.output("errors", errors.all());
        p.output("y", y);
        p.minimize(y.mse(target).mean_over(time));
    });
    let mut stream = program.stream(1, 0).expect("it runs forwards");
    assert_eq!(text(stream.advance()), "input `x` is missing: the program takes f32[T, B, 1]");
    assert_eq!(streamed(&mut stream, "y", &[1.0, 2.0]), [1.0, 3.0]);
    let withheld = "output `errors` needs input `target`, f32[T, B, 1], which was not set for each step since the stream \
                    began";
    assert_eq!(text(stream.get_f32("errors", &mut [0.0])), withheld);
    assert!(stream.session().output("errors").is_none() && stream.session().output("y").is_some());
    // From the middle on it is no help: the sum lacks the steps before.
    stream.set_f32("target", &[1.0]).expect("its size");
    stream.set_f32("x", &[0.0]).expect("its size");
    stream.advance().expect("all is set");
    assert_eq!(text(stream.get_f32("errors", &mut [0.0])), withheld);
    stream.reset();
    assert_eq!(streamed(&mut stream, "errors", &[1.0, 2.0]), [0.0, 4.0]);
    // Lengths are still heeded where they are set.
    stream.reset();
    stream.set_i32("lengths", &[0]).expect("its size");
    assert_eq!(streamed(&mut stream, "y", &[1.0, 2.0]), [0.0, 0.0]);

    let mut stream = program.only(&["y"]).expect("an output").stream(1, 0).expect("it runs forwards");
    assert!(
        text(stream.set_f32("target", &[1.0]))
            .starts_with("the program has no input `target`; its inputs are `lengths`")
    );
    let mut trainer = program.trainer(Sgd::new(0.0)).compile().expect("an objective");
    let x = array![[[1.0]], [[2.0]]];
    let feed = Feed::new().f32("x", x.view()).i32_slice("lengths", &[1], &[2]);
    let y = trainer.predict(&["y"], &feed).expect("no target").output("y").expect("an output");
    assert_eq!(y.into_raw_vec_and_offset().0, [1.0, 3.0]);
    assert_eq!(
        text(trainer.predict(&["x"], &feed)),
        "there is no output `x` (did you mean `y`?); outputs are `errors`, `y`"
    );
    assert!(text(trainer.evaluate(&feed)).starts_with("input `target` is missing"));
    let whole = feed.clone().f32("target", x.view());
    trainer.predict(&["y"], &whole).expect("the feed of a step does for a prediction");
    trainer.step(&whole).expect("it fits");
    trainer.evaluate(&whole).expect("it fits");
}

#[test]
fn nothing_is_read_before_it_is_computed() {
    let program = record("kinds", |p| {
        let x = p.sequence("x", 3);
        p.output("which", x.argmax());
        p.output("twice", 2.0 * x);
    });
    let mut stream = program.stream(2, 0).expect("it runs forwards");
    let early = "output `twice` has no value yet: no step has been run since the stream began or was reset";
    assert_eq!(text(stream.get_f32("twice", &mut [0.0; 6])), early);
    assert!(stream.session().output("twice").is_none());
    stream.set_f32("x", &[1.0, 3.0, 2.0, 0.0, 0.0, 4.0]).expect("its size");
    stream.advance().expect("all is set");
    let (mut twice, mut which) = ([0.0; 6], [9; 2]);
    stream.get_f32("twice", &mut twice).expect("its size");
    stream.get_i32("which", &mut which).expect("its size");
    assert_eq!((twice, which), ([2.0, 6.0, 4.0, 0.0, 0.0, 8.0], [1, 2]));
    assert_eq!(
        text(stream.get_f32("twice", &mut [0.0; 2])),
        "output `twice` has shape [1, 2, 3], 6 values; the slice has room for 2"
    );
    assert_eq!(
        text(stream.get_f32("which", &mut [0.0; 2])),
        "output `which` is i32[T, B], and was to be read as f32; `get_i32` reads it"
    );
    assert_eq!(
        text(stream.get_f32("twise", &mut [0.0; 6])),
        "there is no output `twise` (did you mean `twice`?); outputs are `which`, `twice`"
    );
    stream.reset();
    assert_eq!(text(stream.get_f32("twice", &mut [0.0; 6])), early);
}

#[test]
fn outputs_of_a_step_of_training() {
    let program = record("classes", |p| {
        let logits = p.affine("logits", p.sequence("x", 2), 3);
        p.output("logits", logits);
        p.output("class", logits.argmax());
        p.minimize(logits.cross_entropy(p.labels_sequence("label")));
    });
    let (x, label) =
        (Array3::from_shape_fn((4, 2, 2), |(t, b, i)| (t * 3 + b * 5 + i) as f32 % 4.0 - 1.5), Array2::zeros((4, 2)));
    let feed = Feed::new().f32("x", x.view()).i32("label", label.view());
    let mut trainer =
        program.trainer(Sgd::new(0.5)).outputs(&["class", "logits"]).seed(3).compile().expect("an objective");
    assert!(trainer.output("logits").is_none() && trainer.evaluated_i32("class").is_none());
    trainer.evaluate(&feed).expect("it fits");
    let before = (trainer.evaluated("logits"), trainer.evaluated_i32("class"));
    trainer.step(&feed).expect("it fits");
    assert_eq!((trainer.output("logits"), trainer.output_i32("class")), before);
    assert!(before.0.is_some() && before.1.is_some());
    trainer.evaluate(&feed).expect("it fits");
    assert_ne!(trainer.evaluated("logits"), before.0);
    assert_eq!(
        text(program.trainer(Sgd::new(0.5)).outputs(&["clas"]).compile()),
        "there is no output `clas` (did you mean `class`?); outputs are `logits`, `class`"
    );
}

#[test]
fn what_is_frozen_stays() {
    let program = record("frozen", |p| {
        let x = p.sequence("x", 2);
        let below = p.scan("below", |s| cells::lstm(s, s.at(x), 3));
        let still = p.affine("still", below.all(), 3).stop_gradient();
        p.minimize(p.affine("above", still + below.all(), 1).square().mean_features());
    });
    let x = Array3::from_shape_fn((4, 2, 2), |(t, b, i)| (t * 3 + b * 5 + i) as f32 / 7.0);
    let feed = Feed::new().f32("x", x.view());
    let moved = |trainer: &mut Trainer| -> Vec<String> {
        let names: Vec<String> = trainer.program().parameters.iter().map(|p| p.name.clone()).collect();
        let before: Vec<_> = names.iter().map(|n| trainer.parameter(n)).collect();
        for _ in 0..3 {
            trainer.step(&feed).expect("it fits");
        }
        let moved = names.into_iter().zip(before).filter(|(n, b)| trainer.parameter(n) != *b);
        moved.map(|(name, _)| name).collect()
    };
    let optimizer = || AdamW::new(0.1).weight_decay(0.5);
    let mut all = program.trainer(optimizer()).compile().expect("an objective");
    // No decay shrinks what no gradient reaches.
    assert_eq!(moved(&mut all), ["below.gates.w", "below.gates.b", "above.w", "above.b"]);
    let file = std::env::temp_dir().join(format!("retrograd-frozen-{}", std::process::id()));
    all.save(&file).expect("a file");
    let mut frozen = program.trainer(optimizer()).freeze("below.*").compile().expect("an objective");
    assert_eq!(moved(&mut frozen), ["above.w", "above.b"]);
    // What was trained goes on, frozen in part.
    frozen.load(&file).expect("of the same program");
    std::fs::remove_file(&file).expect("it is there");
    assert_eq!(frozen.parameter("below.gates.w"), all.parameter("below.gates.w"));
    assert_eq!(moved(&mut frozen), ["above.w", "above.b"]);
    let unknown = text(program.trainer(optimizer()).freeze("above").compile());
    assert!(unknown.starts_with("there is no parameter `above`"), "{unknown}");
}

#[test]
fn a_main_that_fails_prints_the_text() {
    let errors = Program::record("wrong", |p| p.output("y", p.input("x", 2) + p.input("z", 3))).expect_err("a mistake");
    assert_eq!(format!("{errors:?}"), errors.to_string());
    let error = RunError::NonFiniteLoss { step: 1, loss: f64::NAN };
    assert_eq!(format!("{error:?}"), error.to_string());
}

/// Steps are counted from 1, as `Trainer::steps` counts those that were taken.
#[test]
fn the_first_step_is_step_1() {
    let program = record("root", |p| p.minimize(p.affine("a", p.input("x", 1), 1).sqrt().mean()));
    let mut trainer = program.trainer(Sgd::new(0.1)).compile().expect("an objective");
    let error = trainer.step(&Feed::new().f32("x", array![[f32::NAN]].view())).expect_err("not a number");
    assert!(matches!(error, RunError::NonFiniteLoss { step: 1, .. }), "{error}");
}

#[test]
fn outputs_are_named_within_their_scope() {
    let program = record("scoped", |p| {
        let x = p.input("x", 2);
        for head in ["one", "two"] {
            p.scope(head, |p| p.output("y", p.affine("a", x, 1)));
        }
    });
    let names: Vec<&str> = program.outputs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["one.y", "two.y"]);
}

/// What the optimiser is given beside a feed is neither listed nor taken.
#[test]
fn only_inputs_of_the_program_are_asked_for() {
    let program = Program::record("line", |p| p.minimize(p.affine("line", p.input("x", 1), 1).square().mean()));
    let program = program.expect("no mistakes");
    let mut trainer = program.trainer(Adam::new(0.1)).compile().expect("code");
    let x = ndarray::arr2(&[[1.0f32]]);
    for name in ["y", "optimizer.rate", "optimizer.step"] {
        let feed = Feed::new().f32("x", x.view()).f32(name, x.view());
        let error = trainer.step(&feed).map(|_| ()).expect_err("no such input").to_string();
        assert!(error.contains(&format!("has no input `{name}`")), "{error}");
        assert!(error.ends_with("its inputs are `x`"), "{error}");
    }
}
