//! The character model: its text, its training through the library, and the example as a whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use clap::Parser;
use retrograd::cells;
use retrograd::prelude::*;
use retrograd::runtime::optimizer::Adam;
use retrograd::runtime::train::{Trainer, Training};

#[path = "../examples/char_rnn.rs"]
#[allow(dead_code, reason = "its main")]
mod char_rnn;

use char_rnn::common::text::{self, Corpus, UNKNOWN, Vocabulary, Windows};
use char_rnn::options::Options;

/// A directory of one test, removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("retrograd-char-rnn-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A text with something to learn in it.
fn verses() -> String {
    (0..400).map(|i| format!("let x{} = {} + {};\n", i % 7, i % 10, i * i % 10)).collect()
}

// ---- Text -----------------------------------------------------------------------------------------------------

#[test]
fn a_vocabulary_goes_there_and_back() {
    let all = "fn main() { λ → ∂ }\n".repeat(9);
    let v = Vocabulary::of(&all);
    assert_eq!(v.size(), 1 + "\n (){}aimnfλ→∂".chars().count());
    let back: String = v.numbers(&all).iter().map(|&i| v.character(i as usize)).collect();
    assert_eq!(back, all);
    assert_eq!(Vocabulary::parse(&v.characters()), Some(v.clone()));
    assert_eq!((v.number('Z'), v.number(UNKNOWN), v.character(0)), (0, 0, UNKNOWN));
    for other in ["", "abc", "\u{FFFD}ba", "\u{FFFD}aa"] {
        assert_eq!(Vocabulary::parse(other), None, "{other:?}");
    }
}

#[test]
fn rare_characters_are_unknown() {
    let text = format!("{}é{}{UNKNOWN}", "a".repeat(150_000), "bb");
    assert_eq!(Vocabulary::of(&text).characters(), format!("{UNKNOWN}ab"));
    assert_eq!(Vocabulary::of("é").characters(), format!("{UNKNOWN}é"));
}

#[test]
fn the_last_tenth_of_each_text_is_held_out() {
    let texts = ["aaaaaaaaaä".repeat(2), "bbbbbbbbbb".to_string(), "ç".to_string()];
    let corpus = Corpus::new(&texts, None);
    let text = |numbers: &[i32]| numbers.iter().map(|&i| corpus.vocabulary.character(i as usize)).collect::<String>();
    assert_eq!(text(&corpus.train), "aaaaaaaaaäaaaaaaaabbbbbbbbb");
    assert_eq!(text(&corpus.held_out), format!("aäb{UNKNOWN}"));
}

#[test]
fn each_row_goes_on_where_it_stopped() {
    let numbers: Vec<i32> = (0..23).collect();
    let mut windows = Windows::new(&numbers, [4, 3]);
    let mut rows = vec![Vec::new(); 3];
    for n in 0..12 {
        let [text, next] = windows.read(n);
        assert_eq!((text.len(), next.len()), (12, 12));
        for (i, (&x, &y)) in text.iter().zip(next).enumerate() {
            assert_eq!(y, (x + 1) % 23);
            rows[i % 3].push(x);
        }
    }
    for (row, start) in rows.iter().zip([0, 7, 15]) {
        assert_eq!(*row, (0..48).map(|i| (start + i) % 23).collect::<Vec<_>>());
    }
    assert_eq!(windows.count(), 1);
    assert_eq!(Windows::at_most(&numbers, [4, 64]).shape, [4, 5]);
    assert_eq!(Windows::at_most(&numbers[..2], [64, 64]).shape, [1, 1]);
}

#[test]
fn choices_follow_the_temperature() {
    let logits = [9.0, 1.0, 3.0, 2.0];
    let share = |temperature: f64, i| {
        (0..1000).filter(|k| text::choose(&logits, temperature, f64::from(*k) / 1000.0) == i).count()
    };
    assert_eq!([0, 1, 2, 3].map(|i| share(0.0, i)), [0, 0, 1000, 0]);
    // softmax of 1, 3, 2, without the unknown character
    assert_eq!([0, 1, 2, 3].map(|i| share(1.0, i).div_ceil(10)), [0, 10, 67, 25]);
    assert!(share(0.05, 2) > 990);
    assert!(share(100.0, 1) > 320);
    assert_eq!(text::choose(&logits, 1.0, 1.0), 2, "also where rounding leaves nothing");
}

#[test]
fn the_projects_own_sources_are_found_in_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = text::rust_sources(root).unwrap();
    for file in ["src/lib.rs", "compiler/src/lib.rs", "runtime/src/train.rs", "examples/char_rnn.rs"] {
        assert!(sources.contains(&root.join(file)), "{file}");
    }
    assert!(sources.is_sorted() && sources.iter().all(|s| !s.starts_with(root.join("target"))));
    let dir = Dir::new("sources");
    assert!(text::rust_sources(&dir.0).unwrap_err().to_string().starts_with("there are no Rust sources in "));
}

// ---- Training through the library -----------------------------------------------------------------------------

type CellFn = for<'r> fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>;
const CELLS: [(&str, CellFn); 3] = [("rnn", cells::rnn), ("lstm", cells::lstm), ("gru", cells::gru)];

fn model(cell: CellFn, characters: usize) -> Program {
    Program::record("characters", |p| {
        let (text, next) = (p.labels_sequence("text"), p.labels_sequence("next"));
        let x = p.embedding("embedding", text, characters, 9);
        let below = p.scan("below", |s| cell(s, s.at(x), 20)).all();
        let above = p.scan("above", |s| cell(s, s.at(below), 13)).all();
        let logits = p.affine("readout", above, characters);
        p.output("logits", logits);
        p.minimize(logits.cross_entropy(next));
    })
    .unwrap()
}

/// Trains for some windows, and gives all losses.
fn train(trainer: &mut Trainer, text: &[i32], windows: u64) -> Vec<f64> {
    let mut windows_of = Windows::new(text, [11, 6]);
    (0..windows).map(|_| trainer.step(&windows_of.feed(trainer.steps())).unwrap().loss).collect()
}

fn bits(trainer: &Trainer) -> Vec<u32> {
    let names = trainer.program().parameters.iter().map(|p| &p.name);
    names.flat_map(|name| trainer.parameter(name).unwrap()).map(f32::to_bits).collect()
}

#[test]
fn training_that_stops_and_goes_on_has_the_same_bits() {
    let dir = Dir::new("resume");
    let text = verses();
    let vocabulary = Vocabulary::of(&text);
    let numbers = vocabulary.numbers(&text);
    for (name, cell) in CELLS {
        let program = model(cell, vocabulary.size());
        let trainer = |seed, threads| {
            let asked = program.trainer(Adam::new(0.02)).clip_norm(1.0).carry_state(true);
            asked.seed(seed).threads(threads).compile().unwrap()
        };
        let mut whole = trainer(1, 1);
        let losses = train(&mut whole, &numbers, 60);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(mean(&losses[50..]) < 0.6 * mean(&losses[..5]), "{name} learns: {losses:?}");

        // Stops, is saved, and goes on in a trainer of other weights and threads.
        let mut first = trainer(1, 2);
        let mut parts = train(&mut first, &numbers, 23);
        first.save(dir.path(name)).unwrap();
        for threads in [1, 2, 3] {
            let mut second = trainer(99, threads);
            train(&mut second, &numbers, 2);
            second.load(dir.path(name)).unwrap();
            assert_eq!(second.steps(), 23);
            parts.truncate(23);
            parts.extend(train(&mut second, &numbers, 37));
            assert_eq!(parts, losses, "{name}, {threads} threads");
            assert_eq!(bits(&second), bits(&whole), "{name}, {threads} threads");
        }

        // The carried state matters: without it the way is another.
        let mut forgetful = trainer(1, 1);
        forgetful.load(dir.path(name)).unwrap();
        forgetful.reset_state();
        assert_ne!(train(&mut forgetful, &numbers, 1)[0], losses[23], "{name}");
    }
}

#[test]
fn a_stream_says_what_the_batch_says() {
    let text = verses();
    let vocabulary = Vocabulary::of(&text);
    let numbers = vocabulary.numbers(&text);
    for (name, cell) in CELLS {
        let program = model(cell, vocabulary.size());
        let mut trainer = program.trainer(Adam::new(0.02)).carry_state(true).seed(5).compile().unwrap();
        train(&mut trainer, &numbers, 5);

        let mut windows = Windows::new(&numbers, [10, 4]);
        let mut one = trainer.stream(1).unwrap();
        let mut all = trainer.stream(4).unwrap();
        for n in 0..3 {
            trainer.evaluate(&windows.feed(n)).unwrap();
            let [text, _] = windows.read(n);
            let batch = trainer.evaluated("logits").unwrap();
            let size = vocabulary.size();
            let (mut single, mut rows) = (vec![0.0; size], vec![0.0; 4 * size]);
            for (t, (row, expected)) in text.chunks(4).zip(batch.outer_iter()).enumerate() {
                let expected: Vec<f32> = expected.iter().copied().collect();
                one.set_i32("text", &row[..1]).unwrap();
                one.advance().unwrap();
                one.get_f32("logits", &mut single).unwrap();
                assert_eq!(single, expected[..size], "{name}, window {n}, step {t}");
                all.set_i32("text", row).unwrap();
                all.advance().unwrap();
                all.get_f32("logits", &mut rows).unwrap();
                assert_eq!(rows, expected, "{name}, window {n}, step {t}");
            }
        }
    }
}

// ---- The example as a whole -----------------------------------------------------------------------------------

/// Runs the example with a small model; gives what it writes.
fn example(dir: &Dir, more: &[&str], stop: bool) -> Result<String, String> {
    let curve = dir.path("made/curve.svg");
    let mut small = vec!["char_rnn", "--units", "24", "--batch", "4", "--window", "16", "--threads", "2"];
    if !more.contains(&"--curve") {
        small.extend(["--curve", &curve]);
    }
    let options = Options::try_parse_from(small.iter().chain(more)).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    match char_rnn::run(&options, &AtomicBool::new(stop), &mut out) {
        Ok(()) => Ok(String::from_utf8(out).unwrap()),
        Err(e) => Err(e.to_string().replace(dir.0.to_str().unwrap(), "DIR")),
    }
}

fn json(out: &str) -> serde_json::Value {
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

#[test]
fn the_example_learns_and_goes_on() {
    let dir = Dir::new("whole");
    let (text, saved) = (dir.file("verses", verses()), dir.path("model"));
    for cell in ["rnn", "lstm", "gru"] {
        let run = |steps: &str, more: &[&str]| {
            let mut arguments = vec!["--text", &text, "--cell", cell, "--steps", steps, "--json", "--layers", "2"];
            arguments.extend(more);
            json(&example(&dir, &arguments, false).unwrap())
        };
        let whole = run("300", &[]);
        assert!(whole["validation_bits_per_char"].as_f64().unwrap() < 2.2, "{cell}: {whole}");
        assert!(whole["bits_per_char"].as_f64().unwrap() < 2.5, "{cell}: {whole}");
        assert!(whole["chars_per_second"].as_f64().unwrap() > 0.0);
        assert!(whole["compile_ms"].as_f64().unwrap() > 0.0);
        assert_eq!(whole["steps"], 300);
        let curve = fs::read_to_string(dir.path("made/curve.svg")).unwrap();
        assert!(curve.starts_with("<svg") && curve.contains("bits per character") && curve.contains("polyline"));

        // Steps that were done are not done again.
        run("20", &["--checkpoint", &saved]);
        let on = run("30", &["--checkpoint", &saved, "--resume"]);
        assert_eq!(on["steps"], 30);
        let no_more = run("30", &["--checkpoint", &saved, "--resume"]);
        assert_eq!(no_more["steps"], 30);
        assert_eq!(no_more["validation_bits_per_char"], on["validation_bits_per_char"]);
        assert!(no_more["bits_per_char"].is_null());
        let anew = run("10", &["--checkpoint", &saved]);
        assert_eq!(anew["steps"], 10, "without --resume it starts anew");
    }
}

#[test]
fn the_example_stops_when_it_is_told_to() {
    let dir = Dir::new("stop");
    let (text, saved) = (dir.file("verses", verses()), dir.path("model"));
    let out = example(&dir, &["--text", &text, "--checkpoint", &saved, "--sample", "50"], true).unwrap();
    assert!(Path::new(&saved).exists());
    assert_eq!(out.trim_matches('\n').chars().count(), 50);
    assert!(out.trim_start().starts_with("///"));
    let start = std::time::Instant::now();
    let on = example(&dir, &["--text", &text, "--checkpoint", &saved, "--resume", "--seconds", "0.5", "--json"], false);
    assert!(json(&on.unwrap())["steps"].as_u64().unwrap() > 0);
    assert!(start.elapsed().as_secs() < 30);
}

#[test]
fn mistakes_have_clear_texts() {
    let dir = Dir::new("mistakes");
    let text = dir.file("verses", verses());
    let wrong = |arguments: &[&str]| example(&dir, arguments, true).unwrap_err();
    let of = |name: &str, contents: &[u8]| wrong(&["--text", &dir.file(name, contents)]);
    assert_eq!(of("empty", b""), "DIR/empty is empty");
    assert_eq!(of("bytes", b"ab\xff\xfecd"), "DIR/bytes is not UTF-8: invalid utf-8 sequence of 1 bytes from index 2");
    assert_eq!(
        of("tiny", b"fn main() {}"),
        "the text has 12 characters; for --batch 4 and --window 16 it takes 82: \
         give a longer text, or a smaller batch or window"
    );
    assert!(wrong(&["--text", &dir.path("absent")]).starts_with("cannot read DIR/absent: "));
    assert!(wrong(&["--text", dir.0.to_str().unwrap()]).starts_with("cannot read DIR: "));

    let saved = dir.path("model");
    example(&dir, &["--text", &text, "--checkpoint", &saved], true).unwrap();
    let resume = |more: &[&str]| wrong(&[&["--text", &text, "--checkpoint", &saved, "--resume"], more].concat());
    assert_eq!(
        resume(&["--cell", "gru"]),
        "DIR/model is of lstm × 1 with 24 units; asked for is gru × 1 with 24 units"
    );
    assert_eq!(
        resume(&["--layers", "2"]),
        "DIR/model is of lstm × 1 with 24 units; asked for is lstm × 2 with 24 units"
    );
    assert!(resume(&["--optimizer", "sgd"]).contains("the checkpoint's optimiser is adam"));
    let other = wrong(&["--text", &text, "--checkpoint", &text, "--resume"]);
    assert!(other.starts_with("DIR/verses is not a checkpoint: "), "{other}");
    let below_a_file = format!("{text}/file");
    for option in ["--curve", "--checkpoint"] {
        let nowhere = wrong(&["--text", &text, option, &below_a_file]);
        assert!(nowhere.starts_with("cannot make the directory DIR/verses: "), "{nowhere}");
    }
    let a_directory = wrong(&["--text", &text, "--checkpoint", dir.0.to_str().unwrap()]);
    assert_eq!(a_directory, "DIR is a directory; a checkpoint is a regular file");

    for (option, value) in [
        ("--cell", "transformer"),
        ("--layers", "0"),
        ("--units", "-3"),
        ("--batch", "0"),
        ("--window", "1.5"),
        ("--optimizer", "lion"),
        ("--rate", "0"),
        ("--rate", "nan"),
        ("--clip", "inf"),
        ("--seconds", "-1"),
        ("--steps", "0"),
        ("--threads", "0"),
        ("--temperature", "-0.1"),
        ("--sample", "many"),
    ] {
        let text = Options::try_parse_from(["char_rnn", option, value]).err().expect(option).to_string();
        assert!(text.contains(option) && text.contains(value), "{text}");
    }
    let alone = Options::try_parse_from(["char_rnn", "--resume"]).err().unwrap().to_string();
    assert!(alone.contains("--checkpoint"), "{alone}");
}
