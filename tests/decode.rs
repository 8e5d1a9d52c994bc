//! Writing with a program that was recorded for training: greedily and by beam search, against the truth, which is every
//! sequence there is with its probability by the *training* program: whole sequences at once, read from the feed.

use ndarray::{Array2, Array3, ArrayD};
use retrograd::cells;
use retrograd::prelude::*;
use retrograd::runtime::error::DecodeError;
use retrograd::runtime::session::Session;

const SYMBOLS: usize = 4;
const START: i32 = 0;
const END: i32 = 1;
const LIMIT: usize = 4;

const SEARCH: Search<'_> =
    Search { symbol: "before", logits: "logits", start: START, end: END, limit: LIMIT, length_penalty: 0.0 };

fn record(name: &str, body: impl for<'r> FnOnce(&Recorder<'r>)) -> Program {
    Program::record(name, body).unwrap_or_else(|e| panic!("{e}"))
}

/// Reads out sharp probabilities, so that hypotheses differ.
fn read_out<'r>(p: &Recorder<'r>, h: Expr<'r>, next: Expr<'r>) {
    let logits = p.affine("readout", h, SYMBOLS) * 4.0;
    p.output("logits", logits);
    p.minimize(logits.cross_entropy(next));
}

/// A deep encoder in both directions, over samples of different lengths, starts a deep decoder.
fn translator() -> Program {
    translator_into(|p| p.axis("target"))
}

fn translator_into(target: impl for<'r> Fn(&Recorder<'r>) -> TimeAxis<'r>) -> Program {
    record("translator", |p| {
        let (source, target) = (p.axis("source").lengths("lengths"), target(p));
        let (x, before, next) = (source.sequence("x", 3), target.labels("before"), target.labels("next"));
        let encoder = cells::bidirectional(p, source, "encoder", x, 6, &cells::gru);
        let start = p.affine("start", encoder.last(), 8).tanh();
        let words = p.embedding("words", before, SYMBOLS, 5);
        let decoder = target.scan("decoder", |s| {
            s.start("layer1.h", start);
            cells::stacked(s, s.at(words), &[(&cells::lstm, 8), (&cells::gru_reset_after, 8)])
        });
        read_out(p, decoder.all(), next);
    })
}

/// A grid of places that the decoder looks at; its symbols are on the only axis.
fn captioner() -> Program {
    record("captioner", |p| {
        let (before, next) = (p.labels_sequence("before"), p.labels_sequence("next"));
        let grid = p.input("grid", [5, 3]);
        let words = p.embedding("words", before, SYMBOLS, 5);
        let (h, context, _) = p.scan("decoder", |s| cells::additive_attention_decoder(s, s.at(words), grid, 8));
        read_out(p, concat([h.all(), context.all()]), next);
    })
}

/// Inputs of some samples.
struct Given {
    x: Array3<f32>,
    lengths: Vec<i32>,
    grid: Array3<f32>,
}

impl Given {
    fn new(samples: usize, seed: usize) -> Given {
        let number = |a: usize, b: usize, c: usize| ((7 * a + 3 * b + c + 11 * seed) as f32 * 0.7).sin() * 2.0;
        Given {
            x: Array3::from_shape_fn((3, samples, 3), |(t, b, i)| number(b, t, i)),
            lengths: (0..samples).map(|b| 1 + (b % 3) as i32).collect(),
            grid: Array3::from_shape_fn((samples, 5, 3), |(b, l, i)| number(b, l, i)),
        }
    }

    /// One of the samples.
    fn sample(&self, b: usize) -> Given {
        Given {
            x: self.x.slice(ndarray::s![.., b..b + 1, ..]).to_owned(),
            lengths: vec![self.lengths[b]],
            grid: self.grid.slice(ndarray::s![b..b + 1, .., ..]).to_owned(),
        }
    }

    fn samples(&self) -> usize {
        self.lengths.len()
    }

    fn feed<'a>(&'a self, program: &Program, shape: &'a [usize; 1]) -> Feed<'a> {
        match program.name.as_str() {
            "captioner" => Feed::new().f32("grid", self.grid.view()),
            _ => Feed::new().f32("x", self.x.view()).i32_slice("lengths", shape, &self.lengths),
        }
    }
}

/// Symbols without the end, and whether it follows.
type Sequence = (Vec<i32>, bool);

/// Every sequence of at most the limit of steps.
fn all_sequences() -> Vec<Sequence> {
    let (mut all, mut open) = (Vec::new(), vec![Vec::new()]);
    for _ in 0..LIMIT {
        all.extend(open.iter().map(|s: &Vec<i32>| (s.clone(), true)));
        let longer = |s: &Vec<i32>| [0, 2, 3].map(|symbol| [&s[..], &[symbol]].concat());
        open = open.iter().flat_map(longer).collect();
    }
    all.extend(open.into_iter().map(|s| (s, false)));
    all
}

/// ln P of each sequence for each sample, by the whole program.
fn truth(program: &Program, given: &Given, parameters: impl Fn(&str) -> ArrayD<f32>) -> Vec<Vec<(Sequence, f64)>> {
    let mut session = Session::<f32>::new(&program.without_objective(), 1).expect("it compiles");
    for p in &program.parameters {
        session.set_parameter(&p.name, parameters(&p.name).view()).expect("a parameter");
    }
    let samples = given.samples();
    let mut all = vec![Vec::new(); samples];
    for (symbols, ended) in all_sequences() {
        let mut steps = symbols.clone();
        steps.extend(ended.then_some(END));
        let before = Array2::from_shape_fn((LIMIT, samples), |(t, _)| match t {
            0 => START,
            t => steps.get(t - 1).copied().unwrap_or(END),
        });
        let next = Array2::<i32>::zeros((LIMIT, samples));
        let shape = [samples];
        session
            .run(&given.feed(program, &shape).i32("before", before.view()).i32("next", next.view()))
            .expect("a feed");
        let logits = session.output("logits").expect("an output");
        for (b, all) in all.iter_mut().enumerate() {
            let steps = steps.iter().enumerate().map(|(t, &symbol)| {
                let row = (0..SYMBOLS).map(|i| f64::from(logits[[t, b, i]])).collect::<Vec<_>>();
                row[symbol as usize] - row.iter().map(|x| x.exp()).sum::<f64>().ln()
            });
            all.push(((symbols.clone(), ended), steps.sum()));
        }
    }
    all
}

fn score((symbols, ended): &Sequence, log_probability: f64, alpha: f64) -> f64 {
    let steps = symbols.len() + usize::from(*ended);
    log_probability / ((5 + steps) as f64 / 6.0).powf(alpha)
}

#[track_caller]
fn check(program: &Program, decoder: &mut Decoder, given: &Given, parameters: impl Fn(&str) -> ArrayD<f32>) -> bool {
    let (shape, count) = ([given.samples()], all_sequences().len());
    let feed = given.feed(program, &shape);
    let truth = truth(program, given, parameters);
    // Nothing is dropped: the search is exhaustive, whatever hypotheses are compared by.
    for alpha in [0.0, 0.7, 2.0] {
        let found = beam_search(decoder, &feed, &Search { length_penalty: alpha, ..SEARCH }, count).expect("it writes");
        for (found, all) in found.iter().zip(&truth) {
            let total: f64 = found.iter().map(|h| h.log_probability.exp()).sum();
            assert!((total - 1.0).abs() < 1e-5, "all there is has probability {total}");
            assert_eq!(found.len(), count);
            let mut all: Vec<_> = all.iter().map(|(s, p)| (s, *p, score(s, *p, alpha))).collect();
            all.sort_by(|a, b| b.2.total_cmp(&a.2));
            for (h, (_, _, best)) in found.iter().zip(&all) {
                let sequence = (h.symbols.clone(), h.ended);
                let (_, p, own) = all.iter().find(|(s, ..)| **s == sequence).expect("one of all");
                assert!((h.log_probability - p).abs() < 1e-4, "{sequence:?}: {} instead of {p}", h.log_probability);
                assert!((h.score - own).abs() < 1e-4, "{sequence:?}: {} instead of {own}", h.score);
                assert!((own - best).abs() < 1e-4, "{sequence:?} is in another's place: {own} and {best}");
            }
        }
    }
    // A beam of 1 is greedy; one of 3 gives each sample what it would be given alone, and its best is no worse.
    let written = greedy(decoder, &feed, &SEARCH).expect("it writes");
    let one = beam_search(decoder, &feed, &SEARCH, 1).expect("it writes");
    assert_eq!(one.concat(), written);
    let three = beam_search(decoder, &feed, &SEARCH, 3).expect("it writes");
    for (b, (three, all)) in three.iter().zip(&truth).enumerate() {
        let alone = given.sample(b);
        let alone = beam_search(decoder, &alone.feed(program, &[1]), &SEARCH, 3).expect("it writes");
        assert_eq!(alone, std::slice::from_ref(three), "sample {b}");
        for h in three {
            let (_, p) = all.iter().find(|(s, _)| *s == (h.symbols.clone(), h.ended)).expect("one of all");
            assert!((h.log_probability - p).abs() < 1e-4);
        }
    }
    let best = |b: usize| truth[b].iter().map(|(_, p)| *p).fold(f64::NEG_INFINITY, f64::max);
    (0..given.samples()).any(|b| written[b].log_probability < best(b) - 1e-3)
}

#[test]
fn searches_find_what_there_is() {
    for program in [translator(), captioner()] {
        let mut greedy_was_not_best = false;
        for seed in 0..4 {
            let axis = if program.name == "captioner" { "time" } else { "target" };
            let mut decoder = program.decoder(axis, seed).expect("it runs forwards");
            let mut session = Session::<f32>::new(&program, 1).expect("it compiles");
            session.initialise(seed).expect("initialisers fit");
            let given = Given::new(1 + seed as usize, seed as usize);
            greedy_was_not_best |= check(&program, &mut decoder, &given, |name| session.parameter(name).expect("one"));
        }
        assert!(greedy_was_not_best, "{}: a case in which a beam finds more", program.name);
    }
}

/// A program that learns from texts of different lengths writes as one that does not: at each step there is one to go.
#[test]
fn lengths_of_what_is_written_are_for_learning() {
    let (plain, ragged) = (translator(), translator_into(|p| p.axis("target").lengths("written")));
    let given = Given::new(3, 5);
    let feed = given.feed(&plain, &[3]);
    let write = |program: &Program, feed: &Feed| {
        let mut decoder = program.decoder("target", 2).expect("it runs forwards");
        beam_search(&mut decoder, feed, &SEARCH, 3).expect("it writes")
    };
    let expected = write(&plain, &feed);
    assert_eq!(write(&ragged, &feed.clone().i32_slice("written", &[3], &[1, 1, 1])), expected);
    // Who says nothing writes on.
    assert_eq!(write(&ragged, &feed), expected);
    // Without a step to go nothing is read and the states wait.
    assert_ne!(write(&ragged, &feed.i32_slice("written", &[3], &[0, 0, 0])), expected);
}

/// Learns to write what it has read, and writes it.
#[test]
fn a_trained_program_writes() {
    let program = record("copy", |p| {
        let (source, target) = (p.axis("source"), p.axis("target"));
        let (read, before, next) = (source.labels("read"), target.labels("before"), target.labels("next"));
        let table = p.parameter("table", [SYMBOLS, 8], Init::Normal(1.0));
        let encoder = source.scan("encoder", |s| cells::gru(s, table.lookup(s.at(read)), 32));
        let decoder = target.scan("decoder", |s| {
            s.start("h", encoder.last());
            cells::gru(s, table.lookup(s.at(before)), 32)
        });
        read_out(p, decoder.all(), next);
    });
    // All texts of three symbols 2 and 3.
    let text = |b: usize| (0..3).map(|t| 2 + (b >> t & 1) as i32).collect::<Vec<_>>();
    let read = Array2::from_shape_fn((3, 8), |(t, b)| text(b)[t]);
    let next = Array2::from_shape_fn((4, 8), |(t, b)| text(b).get(t).copied().unwrap_or(END));
    let before = Array2::from_shape_fn((4, 8), |(t, b)| if t == 0 { START } else { text(b)[t - 1] });
    let feed = Feed::new().i32("read", read.view());
    let lesson = feed.clone().i32("before", before.view()).i32("next", next.view());
    let mut trainer = program.trainer(Adam::new(0.01)).seed(1).compile().expect("it compiles");
    let search = Search { limit: 9, ..SEARCH };
    let right = |trainer: &Trainer| {
        let mut decoder = trainer.decoder("target").expect("it runs forwards");
        let written = greedy(&mut decoder, &feed, &search).expect("it writes");
        let best = beam_search(&mut decoder, &feed, &search, 3).expect("it writes");
        let right = |h: &Hypothesis, b: usize| h.ended && h.symbols == text(b);
        (0..8).map(|b| (right(&written[b], b), right(&best[b][0], b))).collect::<Vec<_>>()
    };
    assert!(right(&trainer).iter().any(|r| *r != (true, true)), "untrained it does not copy");
    for _ in 0..300 {
        trainer.step(&lesson).expect("a step");
    }
    assert_eq!(right(&trainer), [(true, true); 8]);
}

/// Inputs of the steps that are the same at each step; several scans along the axis; shared inputs.
#[test]
fn a_coin_that_is_always_heads() {
    let program = record("scheduled", |p| {
        let (before, next, coin) = (p.labels_sequence("before"), p.labels_sequence("next"), p.sequence("coin", ()));
        let scale = p.shared("scale", 8);
        let below = p.scan("below", |s| {
            let own = s.state("own", 5);
            let read = select(s.at(coin), s.embedding("words", s.at(before), SYMBOLS, 5), own);
            let h = cells::gru(s, read, 8) * scale;
            s.next(own, s.embedding("words", s.affine("guess", h, SYMBOLS).argmax(), SYMBOLS, 5));
            h
        });
        let above = p.scan("above", |s| cells::lstm(s, s.at(below.all()), 8));
        read_out(p, above.all(), next);
    });
    let mut decoder = program.decoder("time", 3).expect("it runs forwards");
    let scale = [1.5; 8];
    let write = |decoder: &mut Decoder, coins: [f32; 2]| {
        let feed = Feed::new().f32_slice("coin", &[2], &coins).f32_slice("scale", &[8], &scale);
        beam_search(decoder, &feed, &SEARCH, 2).expect("it writes")
    };
    let [heads, tails, both] = [[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]].map(|coins| write(&mut decoder, coins));
    assert_eq!(heads[0], heads[1]);
    assert_ne!(heads[0], tails[0]);
    assert_eq!(both, [heads[0].clone(), tails[0].clone()]);
}

#[test]
fn mistakes_are_told() {
    let program = translator();
    let axis = program.decoder("goal", 0).map(|_| ()).expect_err("another name");
    assert_eq!(axis.to_string(), "the program has no time axis `goal`; its axes are `source`, `target`");
    let reverse = record("reverse", |p| {
        let x = p.sequence("x", 3);
        p.output("h", p.scan_reverse("rnn", |s| cells::rnn(s, s.at(x), 4)).all());
    });
    let backwards = reverse.decoder("time", 0).map(|_| ()).expect_err("the last step comes first");
    assert!(matches!(backwards, DecodeError::Divide(_)), "{backwards}");
    let text = backwards.to_string();
    assert!(text.starts_with("loop `rnn` (tests/decode.rs:"), "{text}");
    assert!(
        text.ends_with(") runs along the time axis `time` from its last step to the first, not step by step"),
        "{text}"
    );

    let mut decoder = program.decoder("target", 0).expect("it runs forwards");
    let given = Given::new(2, 0);
    let feed = given.feed(&program, &[2]);
    let mut check = |feed: &Feed, search: Search, width: usize, expected: &str| {
        let e = beam_search(&mut decoder, feed, &search, width).expect_err(expected);
        assert_eq!(e.to_string(), expected);
    };
    check(&feed, SEARCH, 0, "the width of the beam is 0; at least 1 is needed");
    check(&feed, Search { limit: 0, ..SEARCH }, 1, "the limit of steps is 0; at least 1 is needed");
    check(&feed, Search { end: 4, ..SEARCH }, 1, "the end symbol is 4; `logits` scores symbols from 0 to 3");
    check(&feed, Search { start: 7, ..SEARCH }, 1, "input `before` has 7 at [0]; allowed are 0 to 3");
    check(
        &feed,
        Search { length_penalty: -1.0, ..SEARCH },
        1,
        "the length penalty is -1; a finite number of at least 0 is needed",
    );
    check(
        &feed,
        Search { symbol: "x", ..SEARCH },
        1,
        "`x` is no input that has one integer at each step of the axis, for the symbol before; such inputs are `before`",
    );
    check(
        &feed,
        Search { logits: "logit", ..SEARCH },
        1,
        "`logit` is no output that has one float for each symbol at each step of the axis; such outputs are `logits`",
    );
    check(
        &feed.clone().f32_slice("grid", &[1], &[0.0]),
        SEARCH,
        1,
        "the program has no input `grid`; its inputs are `before`, `lengths`, `x`",
    );
    check(
        &Feed::new().f32("x", given.x.view()).i32_slice("lengths", &[3], &[1, 2, 3]),
        SEARCH,
        1,
        "input `lengths` says B = 3, but input `x` says B = 2: all inputs of a run agree",
    );
    check(&Feed::new().f32("x", given.x.view()), SEARCH, 1, "input `lengths` is missing: the program takes i32[B]");
    check(&Feed::new(), SEARCH, 1, "no input says how large B is; say it with `Feed::batch`");
    let x = &given.x * f32::NAN;
    check(
        &Feed::new().f32("x", x.view()).i32_slice("lengths", &[2], &given.lengths),
        SEARCH,
        1,
        "at step 0 of sample 0 the logits make no distribution: some are infinite or not numbers",
    );
    assert!(greedy(&mut decoder, &feed, &SEARCH).is_ok(), "and it works again");
}

/// States by name: read, set, and put in another order.
#[test]
fn states_of_a_stream() {
    let program = record("sums", |p| {
        let (x, h0) = (p.sequence("x", 2), p.input("h0", 2));
        let run = p.scan("sum", |s| {
            let (sum, first) = (s.state("sum", 2), s.state_from("first", h0));
            s.next(first, first);
            s.next(sum, sum + s.at(x)) + first
        });
        p.output("y", run.all());
    });
    let mut stream = program.stream(3, 0).expect("it compiles");
    assert_eq!(stream.state_names().collect::<Vec<_>>(), ["sum.sum", "sum.first"]);
    assert_eq!(stream.state("sum.sum"), None);
    let missing = stream.set_state("sum.sum", &[0.0; 6]).expect_err("no input is set");
    assert!(missing.to_string().starts_with("input `x` is missing"), "{missing}");
    stream.set_f32("x", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("an input");
    stream.set_f32("h0", &[10.0, 10.0, 20.0, 20.0, 30.0, 30.0]).expect("an input");
    let y = |stream: &mut Stream| {
        stream.advance().expect("all is set");
        let mut y = [0.0; 6];
        stream.get_f32("y", &mut y).expect("an output");
        y
    };
    // What is not set starts as the program says.
    stream.set_state("sum.sum", &[100.0; 6]).expect("a state");
    assert_eq!(y(&mut stream), [111.0, 112.0, 123.0, 124.0, 135.0, 136.0]);
    stream.reorder(&[2, 0, 0]).expect("three rows");
    let sum = stream.state("sum.sum").expect("a state");
    assert_eq!(
        (sum.shape(), sum.iter().copied().collect::<Vec<_>>()),
        (&[3, 2][..], vec![105.0, 106.0, 101.0, 102.0, 101.0, 102.0])
    );
    assert_eq!(y(&mut stream), [136.0, 138.0, 114.0, 116.0, 116.0, 118.0]);
    stream.reset();
    assert_eq!(y(&mut stream), [11.0, 12.0, 23.0, 24.0, 35.0, 36.0]);

    let e = stream.reorder(&[0, 3, 1]).expect_err("no row 3").to_string();
    assert_eq!(e, "the new order of a stream's rows is [0, 3, 1]; 3 rows are needed, each from 0 to 2");
    assert!(stream.reorder(&[0, 1]).is_err());
    let e = stream.set_state("sum", &[0.0; 6]).expect_err("a scan").to_string();
    assert_eq!(e, "the state to set is `sum`; float states are among `sum.sum`, `sum.first`");
    let e = stream.set_state("sum.sum", &[0.0; 5]).expect_err("5").to_string();
    assert_eq!(e, "input `state.sum.sum` has 5 values, but its shape [3, 2] asks for 6");
}
