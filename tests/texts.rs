//! Texts that are nearly programs: parsed, verified, compiled and run; and what once failed of programs as a whole.
//!
//! Words of corpus programs are exchanged at random. What comes out is an error with a place, or a program; and what is
//! a program computes in machine code what the interpreter computes. `TEXTS=n` looks at more, `TEXT_SEED=n` at one.

mod corpus;

use std::panic::{AssertUnwindSafe, catch_unwind};

use retrograd::compiler::interpret::interpret;
use retrograd::compiler::ir::{Graph, Op};
use retrograd::prelude::*;
use retrograd::runtime::session::Session;
use retrograd::testing::{Element, numbers, run, values};

/// Most elements of all values of a program together.
const ELEMENTS: usize = 100_000;

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// Programs whose texts are changed: small ones of all kinds, recorded and derived.
fn texts() -> Vec<String> {
    let small = |p: &Program| p.to_string().lines().count() < 60;
    let recorded = [corpus::loops::programs(), corpus::shapes::programs(), corpus::models::programs()].concat();
    let joint: Vec<Program> = recorded.iter().filter_map(|p| p.backward().ok()).collect();
    let ops = corpus::table::on_sequences().into_iter().chain(corpus::table::in_loops()).step_by(7);
    recorded
        .iter()
        .chain(&joint)
        .filter(|p| small(p))
        .cloned()
        .chain(ops.filter(small))
        .map(|p| p.to_string())
        .collect()
}

/// What takes the place of a word: mostly a word of the same program.
fn changed(texts: &[String], random: &mut Random) -> String {
    const PIECES: &[&str] = &[
        "0",
        "1",
        "2",
        "3",
        "-1",
        "nan",
        "inf",
        "1e30",
        "T",
        "T1",
        "T3",
        "B",
        "f32",
        "i32",
        "constant",
        "row_count",
        "gather",
        "one_hot",
        "scatter_add",
        "argmax",
        "to_float",
        "select",
        "last",
        "place_last",
        "expand",
        "sum_rows",
        "concat",
        "slice",
        "objective",
        "update",
        "reverse",
    ];
    let text = &texts[random.below(texts.len())];
    let mut words: Vec<&str> = text.split_inclusive([' ', '\n', ',', ']', ':']).collect();
    for _ in 0..=random.below(3) {
        // Within a line or two a change is more likely to fit.
        let i = random.below(words.len());
        let j = (i + random.below(12)).min(words.len() - 1);
        match random.below(8) {
            0 => words[i] = PIECES[random.below(PIECES.len())],
            1 => drop(words.remove(i)),
            2 => words.swap(i, j),
            3 => words.insert(i, words[j]),
            4 => words[i] = words[j],
            // A whole line again, or elsewhere.
            5 | 6 => {
                let starts: Vec<usize> = (0..words.len()).filter(|&k| k == 0 || words[k - 1].ends_with('\n')).collect();
                let (from, to) = (random.below(starts.len()), random.below(starts.len()));
                let end = starts.get(from + 1).copied().unwrap_or(words.len());
                let line = words[starts[from]..end].to_vec();
                words.splice(starts[to]..starts[to], line);
            }
            _ => {
                let k = random.below(words.len());
                words[i] = words[k];
            }
        }
    }
    words.concat()
}

fn elements(graph: &Graph) -> usize {
    let of = |v| {
        let body = match graph.op(v) {
            Op::Scan(scan) => elements(&scan.body),
            _ => 0,
        };
        body.saturating_add(graph.ty(v).shape.len())
    };
    graph.values().fold(0, |sum: usize, v| sum.saturating_add(of(v)))
}

/// Whether a text is a program; an error if it then computes something else.
fn check(text: &str) -> Result<bool, String> {
    let Ok(program) = Program::parse(text) else { return Ok(false) };
    if elements(&program.graph) > ELEMENTS {
        return Ok(false);
    }
    let again = Program::parse(&program.to_string()).map_err(|e| format!("printed, it does not read back: {e}"))?;
    if again.to_string() != program.to_string() {
        return Err("it reads back as another program".to_string());
    }
    let steps = [3, 2, 4, 1][..program.axes.len()].to_vec();
    let sizes = retrograd::compiler::ir::Sizes { batch: 2, steps };
    let given = values(&program, &sizes, 7);
    let expected = numbers(&interpret(&program, &given, &sizes));
    let mut session = Session::<f64>::new(&program, 1).map_err(|e| e.to_string())?;
    let found = run(&mut session, &given, &sizes).map_err(|e| e.to_string())?;
    for (name, x) in &found {
        let y = &expected[name];
        let largest = y.iter().fold(0.0, |max: f64, y| max.max(y.abs()));
        // What overflows does so in one order of terms and not in another.
        if largest >= 1e30 || y.iter().any(|y| y.is_nan()) {
            continue;
        }
        for (index, (&given, &expected)) in x.iter().zip(y).enumerate() {
            let element = Element { name: name.clone(), index, given, expected, largest };
            if element.error() > 1e-6 {
                return Err(element.to_string());
            }
        }
    }
    // Other ways to run it may refuse it, in words.
    let streamed = program.stream(2, 0).map(|mut stream| drop(stream.advance()));
    let trained = program.trainer(Sgd::new(0.1)).compile().map(drop);
    drop((streamed, trained));
    Ok(true)
}

#[test]
fn what_is_nearly_a_program_is_an_error_or_runs_as_it_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let texts = texts();
    let seeds = match number("TEXT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TEXTS").unwrap_or(3000),
    };
    let (mut valid, mut failures) = (0, Vec::new());
    for seed in seeds.clone() {
        let text = changed(&texts, &mut Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)));
        let result = catch_unwind(AssertUnwindSafe(|| check(&text)));
        match result.unwrap_or_else(|_| Err("it panics, see above".to_string())) {
            Ok(is_program) => valid += usize::from(is_program),
            Err(e) => failures.push(format!("seed {seed}: {e}\n{text}")),
        }
    }
    println!("{valid} of {} were programs", seeds.clone().count());
    assert!(failures.is_empty(), "{} fail:\n\n{}\n", failures.len(), failures.join("\n\n"));
    assert!(seeds.count() < 1000 || valid > 100, "changes leave programs: {valid}");
}

/// The objective has a place of its own: an output may have its name.
#[test]
fn an_output_may_be_called_objective() {
    let program = Program::record("named", |p| {
        let x = p.input("x", 1);
        p.output("objective", x * 100.0);
        p.minimize(p.linear("w", x, 1).square().sum() + 3.0);
    })
    .expect("no mistakes");
    let zero = ndarray::arr2(&[[0.0], [0.0]]);
    let feed = Feed::new().f32("x", zero.view());
    let mut trainer = program.trainer(Sgd::new(0.1)).compile().expect("code for this machine");
    assert_eq!(trainer.step(&feed).expect("a step").loss, 3.0);
    assert_eq!(trainer.evaluate(&feed).expect("a run"), 3.0);
    assert_eq!(trainer.evaluated("objective").expect("an output"), zero.into_dyn());
    let mut session = Session::<f64>::new(&program, 1).expect("code for this machine");
    let two = ndarray::arr2(&[[2.0], [1.0]]);
    session.run(&Feed::new().f32("x", two.view())).expect("a run");
    assert_eq!(session.output("objective").expect("an output"), ndarray::arr2(&[[200.0], [100.0]]).into_dyn());
    assert_eq!(session.objective(), Some(3.0));
}

/// What an update replaces is there, though nothing but the objective reads it.
#[test]
fn a_stream_keeps_what_its_updates_replace() {
    let program = Program::record("counted", |p| {
        let x = p.sequence("x", ());
        let (seen, target) = (p.input("seen", ()), p.input("target", ()));
        let run = p.scan("sum", |s| {
            let h = s.state("h", ());
            s.next(h, h + s.at(x))
        });
        p.output("y", run.all());
        p.update(seen, run.last());
        p.minimize((run.last() - seen - target).square());
    })
    .expect("no mistakes");
    let mut stream = program.stream(1, 0).expect("code for this machine");
    let mut y = [0.0];
    for (x, sum) in [(1.0, 1.0), (2.0, 3.0), (3.0, 6.0)] {
        stream.set_f32("x", &[x]).expect("an input");
        stream.advance().expect("all inputs are set");
        stream.get_f32("y", &mut y).expect("an output");
        assert_eq!(y, [sum]);
    }
}

#[test]
fn a_session_carries_what_its_program_updates() {
    let program = Program::record("kept", |p| {
        let (x, kept) = (p.input("x", ()), p.input("kept", ()));
        p.update(kept, kept + x);
        p.output("y", kept);
    })
    .expect("no mistakes");
    assert!(Session::<f32>::carrying(&program, vec!["kept".into()], 1).is_ok());
    for name in ["x", "y", ""] {
        let error = Session::<f32>::carrying(&program, vec![name.into()], 1).err().expect(name).to_string();
        assert_eq!(error, format!("a state to carry is `{name}`; inputs that the program updates are `kept`"));
    }
}
