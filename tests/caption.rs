//! The example that captions scenes: a short run of it. What it learns from is tested in `examples_data.rs`.

use std::fs;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use serde_json::Value;

#[path = "../examples/caption.rs"]
#[allow(dead_code, reason = "its main")]
mod caption;

use caption::common::scenes::WORDS;

#[test]
fn scenes_are_captioned() {
    let dir = std::env::temp_dir().join(format!("retrograd-caption-{}", std::process::id()));
    let picture = dir.join("made/caption.svg");
    let run = |threads| -> Value {
        let small = ["--units", "16", "--features", "8", "--steps", "60", "--threads", threads, "--json"];
        let both = ["caption", "--way", "inject,attention", "--picture", picture.to_str().unwrap()];
        let options = [&both[..], &small[..]].concat();
        let mut out = Vec::new();
        caption::run(&caption::Options::try_parse_from(options).unwrap(), &AtomicBool::new(false), &mut out).unwrap();
        serde_json::from_str(String::from_utf8(out).unwrap().lines().last().unwrap()).unwrap()
    };
    let (one, two) = (run("1"), run("2"));
    for way in ["inject", "attention"] {
        let [a, b] = [&one[way], &two[way]];
        assert_eq!((&a["steps"], &a["loss"], &a["exact"]), (&60.into(), &b["loss"], &b["exact"]), "with any threads");
        let loss = a["loss"].as_f64().unwrap();
        assert!(loss < 0.95 * (WORDS.len() as f64).ln(), "{way} learns: the running mean of the loss is {loss}");
    }
    let svg = fs::read_to_string(&picture).unwrap();
    for text in ["right: ", "Inject: ", "Attention: "] {
        assert_eq!(svg.matches(text).count(), 8, "{text}");
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn mistakes_have_clear_texts() {
    for (option, value) in [("--way", "guess"), ("--features", "0"), ("--steps", "0"), ("--seconds", "-1")] {
        let text = caption::Options::try_parse_from(["caption", option, value]).err().unwrap().to_string();
        assert!(text.contains(option) && text.contains(value), "{text}");
    }
}
