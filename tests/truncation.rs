//! Truncated back-propagation is what a program does that is written out with `stop_gradient` at the same places.
//!
//! Each model is recorded twice: plainly, which is truncated; and by hand, with states from a table, a gradient that
//! stops where a flag of the step says so, and a loss that is weighed by step. Both are trained side by side through
//! generated code of 64 bits, and their weights must agree after every update to 1e-10.

mod check;

use std::collections::BTreeMap;

use check::sets::{on, settings, turn_of};
use check::{F32, F64, close};
use ndarray::{Array2, Array3, ArrayD, Axis as Along, Slice, arr0};
use retrograd::prelude::*;
use retrograd::runtime::error::RunError;
use retrograd::runtime::optimizer::{Clip, RATE, STEP, training_program};
use retrograd::runtime::session::Session;
use retrograd::runtime::train::TrainerBuilder;
use retrograd::runtime::windows::{Truncation, Windows};

const BATCH: usize = 3;
const UNITS: usize = 4;
const STEPS: usize = 11;
/// One that 32 bits hold.
const RATE_OF_SGD: f64 = 0.25;

// ---- models ---------------------------------------------------------------------------------------------------

/// How states are recorded.
struct States<'r> {
    /// `None`: as users do.
    by_hand: Option<ByHand<'r>>,
}

#[derive(Clone, Copy)]
struct ByHand<'r> {
    /// Rows of the tables that states start from.
    sample: Expr<'r>,
    begins: Expr<'r>,
    stops: Expr<'r>,
}

impl<'r> States<'r> {
    /// What a loop's state is made with: where it starts from.
    fn start(&self, p: &Recorder<'r>, name: &str, initial: Expr<'r>) -> Start<'r> {
        let table = |by: ByHand<'r>| {
            let table = p.parameter(&format!("from_{name}"), [BATCH, UNITS], Init::Constant(0.0));
            (by, table.lookup(by.sample))
        };
        Start { initial, by_hand: self.by_hand.map(table) }
    }
}

#[derive(Clone, Copy)]
struct Start<'r> {
    initial: Expr<'r>,
    by_hand: Option<(ByHand<'r>, Expr<'r>)>,
}

impl<'r> Start<'r> {
    /// The state, which is given its next value, and what the step sees of it.
    fn state(self, s: &Step<'r>, name: &str) -> (Expr<'r>, Expr<'r>) {
        let Some((by, from)) = self.by_hand else {
            let state = s.state_from(name, self.initial);
            return (state, state);
        };
        let state = s.state_from(name, from);
        let seen = select(s.at(by.stops), state.stop_gradient(), state);
        (state, select(s.at(by.begins), self.initial, seen))
    }
}

/// Outputs of what states are behind each step, for the program by hand.
fn show<'r>(p: &Recorder<'r>, states: &States<'r>, names: &[&str], runs: &[Run<'r>]) {
    if states.by_hand.is_some() {
        names.iter().zip(runs).for_each(|(name, run)| p.output(&format!("all_{name}"), run.all()));
    }
}

/// Two scans, LSTM and GRU; the LSTM's h starts from a trained value.
fn two_scans<'r>(p: &Recorder<'r>, states: &States<'r>) -> Expr<'r> {
    let (x, y) = (p.sequence("x", 2), p.sequence("y", 2));
    let zero = p.full(UNITS, 0.0);
    let (h0, c0) =
        (states.start(p, "first_h", p.parameter("h0", UNITS, Init::Normal(0.5))), states.start(p, "first_c", zero));
    let first = p.scan("first", |s| {
        let ((h, h_seen), (c, c_seen)) = (h0.state(s, "h"), c0.state(s, "c"));
        let [i, f, o, g] = s.affine("gates", concat([h_seen, s.at(x)]), 4 * UNITS).split();
        let c1 = s.next(c, f.sigmoid() * c_seen + i.sigmoid() * g.tanh());
        [s.next(h, o.sigmoid() * c1.tanh()), c1]
    });
    show(p, states, &["first_h", "first_c"], &first);
    let start = states.start(p, "second_h", zero);
    let second = p.scan("second", |s| {
        let ((h, seen), x) = (start.state(s, "h"), s.at(first[0].all()));
        let [r, z] = s.affine("gates", concat([seen, x]), 2 * UNITS).sigmoid().split();
        let n = s.affine("candidate", concat([r * seen, x]), UNITS).tanh();
        [s.next(h, z * seen + (1.0 - z) * n)]
    });
    show(p, states, &["second_h"], &second);
    let out = p.affine("out", second[0].all() + first[0].all(), 2);
    if states.by_hand.is_none() {
        p.output("out", out);
    }
    out.mse(y)
}

/// Two layers in one step.
fn two_layers<'r>(p: &Recorder<'r>, states: &States<'r>) -> Expr<'r> {
    let (x, y) = (p.sequence("x", 2), p.sequence("y", 2));
    let zero = p.full(UNITS, 0.0);
    let [a0, b0] = ["both_a", "both_b"].map(|name| states.start(p, name, zero));
    let runs = p.scan("both", |s| {
        let ((a, a_seen), (b, b_seen)) = (a0.state(s, "a"), b0.state(s, "b"));
        let a1 = s.next(a, (s.linear("aa", a_seen, UNITS) + s.affine("ax", s.at(x), UNITS)).tanh());
        let b1 = s.next(b, (s.linear("bb", b_seen, UNITS) + s.affine("ba", a1, UNITS)).tanh());
        [a1, b1]
    });
    show(p, states, &["both_a", "both_b"], &runs);
    p.affine("out", runs[1].all(), 2).mse(y)
}

type Model = for<'r> fn(&Recorder<'r>, &States<'r>) -> Expr<'r>;
const MODELS: [(Model, &[&str]); 2] =
    [(two_scans, &["first_h", "first_c", "second_h"]), (two_layers, &["both_a", "both_b"])];

fn plain(model: Model) -> Program {
    let body = |p: &Recorder<'_>| p.minimize(model(p, &States { by_hand: None }));
    Program::record("plain", body).expect("no mistakes")
}

fn by_hand(model: Model) -> Program {
    let program = Program::record("by_hand", |p| {
        let (begins, stops) = (p.sequence("begins", ()), p.sequence("stops", ()));
        let by_hand = Some(ByHand { sample: p.labels("sample"), begins, stops });
        let loss = model(p, &States { by_hand });
        p.minimize(loss.masked_mean(p.sequence("weight", ())));
    });
    program.expect("no mistakes").backward().expect("an objective")
}

/// x and y of all steps.
fn data(steps: usize) -> [Array3<f32>; 2] {
    let at = |a: f32| Array3::from_shape_fn((steps, BATCH, 2), |(t, b, i)| (a * (7 * t + 3 * b + i) as f32).sin());
    [at(1.3), at(0.7)]
}

fn cut(a: &Array3<f32>, from: usize, to: usize) -> ndarray::ArrayView3<'_, f32> {
    a.slice_axis(Along(0), Slice::from(from..to))
}

// ---- the program by hand --------------------------------------------------------------------------------------

/// Trains by hand: keeps all that was seen, and knows where each update's steps are among it.
struct Hand {
    session: Session<f64>,
    names: &'static [&'static str],
    x: [Array3<f32>; 2],
    begins: Array2<f32>,
    /// Steps that were seen, and the one before which the states stand.
    seen: usize,
    at: usize,
    states: BTreeMap<&'static str, ArrayD<f64>>,
}

impl Hand {
    /// One update after these many more steps, with another after those behind them: its loss.
    fn update(&mut self, [steps, then]: [usize; 2], Truncation { k1, k2 }: Truncation) -> f64 {
        let end = self.seen + steps;
        // The steps with a loss, and those that a gradient runs over.
        let losses = steps.min(k2);
        let from = if k2 > k1 { self.seen - self.seen.min(k2 - steps) } else { self.seen };
        assert_eq!(from, self.at, "the states stand where the run begins");
        let row =
            |is: &dyn Fn(usize) -> bool| Array2::from_shape_fn((end - from, BATCH), |(t, _)| f32::from(is(from + t)));
        let stops = row(&|t| k2 < k1 && t == end - losses);
        let weight = row(&|t| t >= end - losses);
        let begins = self.begins.slice_axis(Along(0), Slice::from(from..end));
        for (name, state) in &self.states {
            self.session.set_parameter(&format!("from_{name}"), state.view()).expect("a parameter");
        }
        let feed = Feed::new().f32("x", cut(&self.x[0], from, end)).f32("y", cut(&self.x[1], from, end));
        let feed = feed.f32("begins", begins).f32("stops", stops.view()).f32("weight", weight.view());
        self.session.run(&feed.i32_slice("sample", &[BATCH], &[0, 1, 2])).expect("inputs that fit");
        // The next run begins here.
        let next = if k2 > k1 { end - end.min(k2 - then) } else { end };
        for name in self.names.iter().filter(|_| next > from) {
            let all = self.session.output(&format!("all_{name}")).expect("an output");
            self.states.insert(name, all.index_axis(Along(0), next - from - 1).to_owned());
        }
        (self.seen, self.at) = (end, next);
        let names: Vec<String> = self.session.parameter_names().map(str::to_string).collect();
        for name in names.iter().filter(|name| !name.starts_with("from_")) {
            let gradient = self.session.output(&format!("d.{name}")).expect("an output");
            let new = self.session.parameter(name).expect("a parameter") - gradient * RATE_OF_SGD;
            self.session.set_parameter(name, new.view()).expect("a parameter");
        }
        self.session.scalar("objective").expect("an objective")
    }
}

/// Trains both ways over calls of these lengths; samples begin anew before some of them.
fn side_by_side(model: Model, names: &'static [&'static str], truncation: Truncation) {
    let calls: [(usize, &[usize]); 3] = [(7, &[]), (STEPS, &[1]), (4, &[0, 2])];
    let steps = calls.iter().map(|(n, _)| n).sum();
    let mut begins = Array2::zeros((steps, BATCH));
    begins.row_mut(0).fill(1.0);

    let mut windows = Windows::new(&plain(model), Some(truncation)).expect("it can be truncated");
    let joint = windows.program().backward().expect("an objective");
    let training = training_program(&joint, &Sgd::new(RATE_OF_SGD), Clip::default()).expect("settings with a meaning");
    let mut session = Session::<f64>::carrying(&training, windows.states(), settings()).expect("code for this machine");
    session.initialise(5).expect("initialisers that fit");
    let mut hand = Hand {
        session: Session::new(&by_hand(model), settings()).expect("code for this machine"),
        names,
        x: data(steps),
        begins,
        seen: 0,
        at: 0,
        states: BTreeMap::new(),
    };
    for name in session.parameter_names() {
        hand.session.set_parameter(name, session.parameter(name).expect("its own").view()).expect("the same shape");
    }

    let (rate, number, x) = (arr0(RATE_OF_SGD as f32), arr0(1.0), data(steps));
    let more = Feed::new().f32(RATE, rate.view()).f32(STEP, number.view());
    let mut from = 0;
    for (n, anew) in calls {
        windows.reset_samples(anew);
        anew.iter().for_each(|&b| hand.begins[[from, b]] = 1.0);
        let feed = Feed::new().f32("x", cut(&x[0], from, from + n)).f32("y", cut(&x[1], from, from + n));
        let mut left = n;
        for window in windows.cut(&feed).expect("inputs that fit") {
            windows.run(&mut session, &window, &more).expect("inputs that fit");
            let steps = left.min(truncation.k1);
            left -= steps;
            let then = if left > 0 { left.min(truncation.k1) } else { truncation.k1 };
            let loss = hand.update([steps, then], truncation);
            let at = format!("{truncation:?}, after {} steps", hand.seen);
            close(&format!("{at}: loss"), &[session.scalar("objective").unwrap()], &[loss], 0.0, F64).unwrap();
            for name in session.parameter_names() {
                let numbers = |a: ArrayD<f64>| a.iter().copied().collect::<Vec<_>>();
                let (given, expected) = (session.parameter(name).unwrap(), hand.session.parameter(name).unwrap());
                close(&format!("{at}: {name}"), &numbers(given), &numbers(expected), 0.0, F64).unwrap();
            }
        }
        assert_eq!(left, 0, "all steps have been in a window");
        from += n;
    }
}

/// k2 below, at and above k1; above by less than a window, by one, by more, and by more than there is.
#[test]
fn as_written_out_by_hand() {
    for (k1, k2) in [(3, 3), (4, 2), (3, 1), (1, 1), (4, 6), (3, 6), (2, 7), (1, 4), (3, 100)] {
        for (model, names) in MODELS {
            let truncation = Truncation { k1, k2 };
            on(turn_of(&format!("{truncation:?} {names:?}")), || side_by_side(model, names, truncation));
        }
    }
}

// ---- the whole sequence ---------------------------------------------------------------------------------------

fn builder(program: &Program) -> TrainerBuilder<'_> {
    program.trainer(Adam::new(0.01)).clip_norm(1.0).seed(5)
}

/// All parameters' bits.
fn bits(trainer: &Trainer) -> BTreeMap<String, Vec<u32>> {
    let bits = |name: &str| trainer.parameter(name).expect("its own").iter().map(|x| x.to_bits()).collect();
    trainer.session().parameter_names().map(|name| (name.to_string(), bits(name))).collect()
}

/// Back over at least all steps is full back-propagation, whatever kind of lead the window would have: bit for bit
/// where there is none. With a lead the program is another one, in which a product may start from another term.
#[test]
fn back_over_all_steps_is_full_back_propagation() {
    let [x, y] = data(STEPS);
    let feed = Feed::new().f32("x", x.view()).f32("y", y.view());
    for (model, _) in MODELS {
        let program = plain(model);
        let mut full = builder(&program).compile().unwrap();
        let kinds = [(STEPS, STEPS), (STEPS, STEPS + 7), (STEPS + 5, STEPS + 9), (STEPS + 5, STEPS)];
        let mut others = kinds.map(|(k1, k2)| builder(&program).truncate(k1, k2).compile().unwrap());
        for _ in 0..3 {
            let report = full.step(&feed).unwrap();
            for (trainer, (k1, k2)) in others.iter_mut().zip(kinds) {
                let at = format!("k1 {k1}, k2 {k2}");
                let own = trainer.sequence(&feed).unwrap();
                if k1 == k2 {
                    assert_eq!(own, [report], "{at}");
                    assert_eq!(bits(trainer), bits(&full), "{at}");
                } else {
                    close(&at, &[own[0].loss, own[0].gradient_norm], &[report.loss, report.gradient_norm], 0.0, F32)
                        .unwrap();
                    for name in full.session().parameter_names() {
                        let numbers =
                            |trainer: &Trainer| trainer.parameter(name).unwrap().iter().map(|&x| x.into()).collect();
                        let (own, full): (Vec<f64>, Vec<f64>) = (numbers(trainer), numbers(&full));
                        close(&format!("{at}: {name}"), &own, &full, 0.0, F32).unwrap();
                    }
                }
                trainer.reset_state();
            }
        }
    }
}

/// With weights that stay, the gradients of windows that see all that was before add up to that of the whole.
#[test]
fn gradients_of_windows_add_up() {
    let [x, y] = data(STEPS);
    let feed = Feed::new().f32("x", x.view()).f32("y", y.view());
    for (model, _) in MODELS {
        let program = plain(model).with_outputs(|_| false);
        let mut whole = Session::<f64>::new(&program.backward().unwrap(), 1).unwrap();
        whole.initialise(5).unwrap();
        whole.run(&feed).unwrap();
        let mut windows = Windows::new(&program, Some(Truncation { k1: 3, k2: STEPS })).unwrap();
        let joint = windows.program().backward().unwrap();
        let mut session = Session::<f64>::carrying(&joint, windows.states(), 1).unwrap();
        session.initialise(5).unwrap();
        let mut sums: BTreeMap<String, ArrayD<f64>> = BTreeMap::new();
        for (window, steps) in windows.cut(&feed).unwrap().iter().zip([3.0, 3.0, 3.0, 2.0]) {
            windows.run(&mut session, window, &Feed::new()).unwrap();
            for (name, _) in &joint.outputs {
                // The loss is a mean over the steps of the window.
                let part = session.output(name).unwrap() * steps / STEPS as f64;
                let sum = sums.entry(name.clone()).or_insert_with(|| ArrayD::zeros(part.shape()));
                *sum += &part;
            }
        }
        for (name, sum) in sums {
            let numbers = |a: ArrayD<f64>| a.iter().copied().collect::<Vec<_>>();
            close(&name, &numbers(sum), &numbers(whole.output(&name).unwrap()), 0.0, F64).unwrap();
        }
    }
}

// ---- from call to call ----------------------------------------------------------------------------------------

/// A checkpoint between two calls, with samples that are about to begin anew: the same bits as without.
#[test]
fn training_that_stops_goes_on_with_the_same_bits() {
    let program = plain(two_scans);
    let file = std::env::temp_dir().join(format!("retrograd-truncation-{}", std::process::id()));
    let [x, y] = data(2 * STEPS);
    let call = |from, to| Feed::new().f32("x", cut(&x, from, to)).f32("y", cut(&y, from, to));
    for (k1, k2) in [(3, 3), (4, 2), (2, 5), (4, 5)] {
        let trainer = || builder(&program).truncate(k1, k2).compile().unwrap();
        let (mut going, mut resumed) = (trainer(), trainer());
        going.sequence(&call(0, STEPS)).unwrap();
        going.reset_samples(&[2]).unwrap();
        going.save(&file).unwrap();
        resumed.load(&file).unwrap();
        let rest = call(STEPS, 2 * STEPS);
        assert_eq!(resumed.sequence(&rest).unwrap(), going.sequence(&rest).unwrap(), "k1 {k1}, k2 {k2}");
        assert_eq!(bits(&resumed), bits(&going), "k1 {k1}, k2 {k2}");
        let mut other = builder(&program).truncate(k1, k2 + 1).compile().unwrap();
        let expected = format!(
            "the checkpoint's truncation is k1 = {k1}, k2 = {k2}; this training has k1 = {k1}, k2 = {}",
            k2 + 1
        );
        assert_eq!(other.load(&file).unwrap_err().to_string(), expected);
    }
    std::fs::remove_file(&file).unwrap();
}

/// Calls are cut where windows end, or not: what is computed is the same.
#[test]
fn one_call_or_several() {
    let program = plain(two_layers);
    let [x, y] = data(12);
    let call = |from, to| Feed::new().f32("x", cut(&x, from, to)).f32("y", cut(&y, from, to));
    for (k1, k2) in [(3, 3), (3, 2), (3, 5)] {
        let mut at_once = builder(&program).truncate(k1, k2).compile().unwrap();
        let mut in_calls = builder(&program).truncate(k1, k2).compile().unwrap();
        let reports = at_once.sequence(&call(0, 12)).unwrap();
        let mut others = in_calls.sequence(&call(0, 6)).unwrap();
        others.push(in_calls.step(&call(6, 9)).unwrap());
        others.extend(in_calls.sequence(&call(9, 12)).unwrap());
        assert_eq!(others, reports);
        assert_eq!(bits(&in_calls), bits(&at_once));
    }
}

/// After training a stream says, step by step, what evaluation says of the whole.
#[test]
fn streams_after_training() {
    let program = plain(two_scans);
    let [x, y] = data(STEPS);
    let feed = Feed::new().f32("x", x.view()).f32("y", y.view());
    let mut trainer = builder(&program).truncate(2, 5).compile().unwrap();
    trainer.sequence(&feed).unwrap();
    trainer.evaluate(&feed).unwrap();
    let whole = trainer.evaluated("out").unwrap();
    let mut stream = trainer.stream(BATCH).unwrap();
    let mut out = [0.0; 2 * BATCH];
    for t in 0..STEPS {
        stream.set_f32("x", x.index_axis(Along(0), t).as_slice().unwrap()).unwrap();
        stream.advance().unwrap();
        stream.get_f32("out", &mut out).unwrap();
        let expected: Vec<f32> = whole.index_axis(Along(0), t).iter().copied().collect();
        assert_eq!(out[..], expected[..], "step {t}");
    }
}

/// A sample that is reset has the gradient and the states that it has alone in a new training.
#[test]
fn samples_begin_anew() {
    let program = plain(two_layers);
    let [x, y] = data(8);
    let one = |from, to, b: usize| {
        let rows = |a: &Array3<f32>| a.slice(ndarray::s![from..to, b..b + 1, ..]).to_owned();
        [rows(&x), rows(&y)]
    };
    for (k1, k2) in [(4, 4), (4, 2), (4, 7)] {
        // Alone, and with a rate of 0: the loss of a window depends on its states only.
        let trainer = || program.trainer(Sgd::new(0.0)).seed(5).truncate(k1, k2).compile().unwrap();
        let losses = |resets: [&[usize]; 2], b: &[usize]| {
            let mut trainer = trainer();
            let pieces = [(0, 4), (4, 8)].map(|(from, to)| {
                let rows = |a: &Array3<f32>| a.slice_axis(Along(0), Slice::from(from..to)).select(Along(1), b);
                [rows(&x), rows(&y)]
            });
            let mut report = None;
            for ([x, y], resets) in pieces.iter().zip(resets) {
                trainer.reset_samples(resets).unwrap();
                report = Some(trainer.step(&Feed::new().f32("x", x.view()).f32("y", y.view())).unwrap());
            }
            report.expect("two steps")
        };
        let [x, y] = one(4, 8, 1);
        let anew = trainer().step(&Feed::new().f32("x", x.view()).f32("y", y.view())).unwrap();
        assert_eq!(losses([&[], &[0]], &[1]), anew, "reset");
        assert_ne!(losses([&[], &[]], &[1]).loss, anew.loss, "going on");
        let mean = |other: f64| 0.5 * (anew.loss + other);
        let (mixed, other) = (losses([&[], &[1]], &[0, 1]).loss, losses([&[], &[]], &[0]).loss);
        assert!((mixed - mean(other)).abs() < 1e-6, "one goes on, one begins: {mixed}, {}", mean(other));
    }
}

// ---- mistakes -------------------------------------------------------------------------------------------------

fn refused(program: &Program, k1: usize, k2: usize) -> String {
    builder(program).truncate(k1, k2).compile().err().expect("it is refused").to_string()
}

#[test]
fn settings_without_a_meaning() {
    let program = plain(two_layers);
    let needed = "at least 1 is needed";
    assert_eq!(refused(&program, 0, 3), format!("k1, the steps from update to update, is 0; {needed}"));
    assert_eq!(refused(&program, 3, 0), format!("k2, the steps back, is 0; {needed}"));
}

#[test]
fn feeds_that_do_not_fit() {
    let program = plain(two_layers);
    let [x, y] = data(STEPS);
    for (k1, k2) in [(3, 3), (3, 2), (3, 5)] {
        let mut trainer = builder(&program).truncate(k1, k2).compile().unwrap();
        let feed = Feed::new().f32("x", x.view()).f32("y", y.view());
        let expected =
            "the window is 11 steps long; it has at most k1 = 3; a sequence of any length is cut into such windows";
        assert_eq!(trainer.step(&feed).unwrap_err().to_string(), expected);
        assert_eq!(trainer.sequence(&feed).unwrap().len(), 4);
        let fewer = |a: &Array3<f32>| a.slice_axis(Along(1), Slice::from(..2)).to_owned();
        let (x2, y2) = (fewer(&x), fewer(&y));
        let feed = Feed::new().f32("x", x2.view()).f32("y", y2.view());
        let e = trainer.sequence(&feed).unwrap_err();
        assert!(matches!(e, RunError::BatchChanged { given: 2, carried: 3 }), "{e}");
        let feed = Feed::new().f32("x", x.view()).f32("y", cut(&y, 0, 5));
        let e = trainer.sequence(&feed).unwrap_err();
        assert!(matches!(e, RunError::SizesDiffer { .. }), "{e}");
        let e = trainer.reset_samples(&[1, 3]).unwrap_err().to_string();
        let expected = "a sample that is to begin anew is 3; the last step had a batch of 3: allowed are 0 to 2";
        assert_eq!(e, expected);
        // None of this has changed anything: it goes on.
        let mut other = builder(&program).truncate(k1, k2).compile().unwrap();
        let feed = Feed::new().f32("x", x.view()).f32("y", y.view());
        other.sequence(&feed).unwrap();
        assert_eq!(other.sequence(&feed).unwrap(), trainer.sequence(&feed).unwrap());
    }
}

#[test]
fn programs_that_are_no_sequence_of_steps() {
    let record = |body: &dyn Fn(&Recorder<'_>)| Program::record("p", |p| body(p)).expect("no mistakes");
    let both = record(&|p| {
        let x = p.sequence("x", 2);
        let back = p.scan_reverse("back", |s| retrograd::cells::rnn(s, s.at(x), 2));
        p.minimize(back.all().square().mean_features());
    });
    let text = refused(&both, 2, 2);
    assert!(text.contains("loop `back` (tests/truncation.rs:"), "{text}");
    assert!(text.contains("runs from the last step to the first"), "{text}");
    let summary = record(&|p| {
        let x = p.sequence("x", 2);
        let mean = x.mean_time();
        let run = p.scan("rnn", |s| retrograd::cells::rnn(s, s.at(x) + mean, 2));
        p.minimize(run.all().square().mean_features());
    });
    let text = refused(&summary, 2, 3);
    assert!(text.contains("loop `rnn` (tests/truncation.rs:"), "{text}");
    assert!(text.contains("does not separate into steps"), "{text}");
    let axes = record(&|p| {
        let (x, y) = (p.axis("source").sequence("x", 2), p.axis("target").sequence("y", 2));
        let source = p.scan("source", |s| retrograd::cells::rnn(s, s.at(x), 2));
        let target = p.scan("target", |s| retrograd::cells::rnn(s, s.at(y) + source.last(), 2));
        p.minimize(target.all().square().mean_features());
    });
    assert!(refused(&axes, 2, 2).contains("has 2 time axes (source, target)"), "{}", refused(&axes, 2, 2));
    let stateless = record(&|p| p.minimize(p.sequence("x", 2).square().mean_features()));
    assert!(refused(&stateless, 2, 2).contains("there is nothing to truncate"), "{}", refused(&stateless, 2, 2));
    let nothing = record(&|p| p.output("x", p.sequence("x", 2)));
    assert!(refused(&nothing, 2, 2).contains("no objective"), "{}", refused(&nothing, 2, 2));
    // A loss on the last step is that of each window's end.
    let last = record(&|p| {
        let x = p.sequence("x", 2);
        p.minimize(p.scan("rnn", |s| retrograd::cells::rnn(s, s.at(x), 2)).last().square().mean_features());
    });
    let x = data(4)[0].clone();
    let feed = Feed::new().f32("x", x.view());
    let mut trainer = builder(&last).truncate(2, 3).compile().unwrap();
    assert_eq!(trainer.sequence(&feed).unwrap().len(), 2);
}
