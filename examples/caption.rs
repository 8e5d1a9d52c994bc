//! Says what is in a picture: "a seven above and left of a three", for one or two handwritten digits on a sheet.
//!
//! ```sh
//! cargo run --release --example caption
//! cargo run --release --example caption -- --way inject,attention --seconds 300
//! ```
//!
//! A small convolutional net makes a grid of features of the picture, a recurrent net makes a sentence of them, and both
//! are trained together. There are two ways from one to the other. The features, *injected* as one vector, are the same
//! at every step: h' = tanh(W [h; word; v]), Karpathy & Fei-Fei (2015), "Deep visual-semantic alignments for generating
//! image descriptions". Or the state looks, with *attention*, at the places of the grid, and v is their mean as it
//! weighs them; from the new state come both the word and the next look: Xu et al. (2015), "Show, attend and tell".
//! The captions that count are the net's own words: the likeliest of each step is the next step's input.

pub mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::{Parser, ValueEnum};
use common::course::{Course, Lesson};
use common::digits::Digits;
use common::scenes::{self, GRID, Kind, LONGEST, SIDE, Scenes, WORDS};
use common::{Result, picture, within};
use ndarray::ArrayD;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use retrograd::prelude::*;
use serde_json::json;

/// Trains nets to caption pictures of handwritten digits, and tries them on digits that they never saw.
#[derive(Parser)]
#[command(name = "caption", allow_negative_numbers = true)]
pub struct Options {
    /// How features reach the words: several ways one after another
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Way::Attention])]
    way: Vec<Way>,
    /// Units of the recurrent net
    #[arg(long, default_value_t = 128, value_parser = within(4096))]
    units: usize,
    /// Features of each place
    #[arg(long, default_value_t = 64, value_parser = within(4096))]
    features: usize,
    #[command(flatten)]
    course: Course,
    /// Where to put the sheet of pictures and captions
    #[arg(long, value_name = "FILE.svg", default_value = "target/caption.svg")]
    picture: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Way {
    Inject,
    Attention,
}

/// All windows of 4×4 places, two apart, the features of a window one behind another: what a convolution multiplies.
/// `[H, W, C] → [H/2 − 1, W/2 − 1, 16 C]`, H and W even: 2×2 neighbours of blocks of 2×2.
fn windows(x: Expr<'_>) -> Expr<'_> {
    let [h, w, c] = x.shape().0[..] else { panic!("a picture has height, width and channels") };
    let blocks = x.reshape([h / 2, 2, w / 2, 2, c]).permute([0, 2, 1, 3, 4]).reshape([h / 2, w / 2, 4 * c]);
    let moved = |y, x| blocks.slice_axis(0, y..h / 2 - 1 + y).slice_axis(1, x..w / 2 - 1 + x);
    concat([moved(0, 0), moved(0, 1), moved(1, 0), moved(1, 1)])
}

/// The net that sees and the one that speaks.
fn model(o: &Options, way: Way) -> Result<Program, RecordErrors> {
    Program::record("caption", |p| {
        let edges = p.affine("edges", windows(p.input("image", [SIDE, SIDE, 1])), 16).relu(); // 12×12 places
        let seen = p.affine("strokes", windows(edges), o.features).relu(); // 5×5 places
        let places = GRID * GRID;
        let grid = seen.reshape([places, o.features]) + p.parameter("place", [places, o.features], Init::Normal(0.3));
        let time = p.lengths("length");
        let (word, next) = (time.labels("word"), time.labels("next")); // i32[T, B]
        let (logits, looks) = time.scan("net", |s| {
            let h = s.state("h", o.units);
            let (v, looks) = match way {
                Way::Inject => (s.affine("whole", grid.reshape(places * o.features), o.features).relu(), vec![]),
                Way::Attention => {
                    let meet = (s.linear("keys", grid, 32) + s.affine("query", h, 32)).tanh();
                    let looks = s.linear("score", meet, 1).reshape(places).softmax();
                    (looks.matmul(grid), vec![looks])
                }
            };
            let word = s.embedding("words", s.at(word), WORDS.len(), 32);
            let h = s.next(h, s.affine("cell", concat([h, word, v]), o.units).tanh());
            (s.affine("readout", h, WORDS.len()), looks)
        });
        looks.iter().for_each(|looks| p.output("looks", looks.all()));
        p.output("said", logits.all().argmax());
        p.minimize(logits.all().cross_entropy(next).mean_over(time));
    })
}

fn main() -> ExitCode {
    common::main(run)
}

/// The whole job, until `stop` is raised at most. Results go to `out`.
pub fn run(o: &Options, stop: &AtomicBool, out: &mut dyn Write) -> Result<()> {
    common::make_directory_of(&o.picture)?;
    let [learnt, held_out] = Digits::small_in_two()?;
    let new = Scenes::random(&held_out, 1000, Kind::ANY, &mut ChaCha8Rng::seed_from_u64(0));
    let (mut result, mut sheet) = (json!({}), new.sheet(8));
    let lesson = Lesson { batch: 32, rate: 2e-3, feed: Scenes::feed };
    for &way in &o.way {
        let program = model(o, way)?;
        let trainer = program.trainer(AdamW::new(lesson.rate)).clip_norm(1.0).seed(o.course.seed);
        let mut trainer = trainer.threads(o.course.threads()).compile()?;
        let mut random = ChaCha8Rng::seed_from_u64(o.course.seed);
        let batch = |part| Scenes::random(&learnt, lesson.batch, Kind::to_learn(part), &mut random);
        let steps = if way == Way::Attention { 6000 } else { 3000 };
        let clock = o.course.clock(steps, 1.0 / o.way.len() as f64, stop);
        let seen = o.course.train(&lesson, &mut trainer, &clock, batch, |trainer| {
            Ok(format!("{:.4} on held-out digits", trainer.evaluate(&new.feed())?))
        })?;

        let (said, looks) = say(&trainer, &new)?;
        let [exact, one, two] = [1..=2, 1..=1, 2..=2].map(|digits| new.exact(&said, digits));
        let parts = format!("{:.1} % of those of one digit, {:.1} % of two", 100.0 * one, 100.0 * two);
        writeln!(out, "{way:?}: {:.1} % of 1000 captions of held-out digits are exact: {parts}", 100.0 * exact)?;
        let mut way_result = json!({ "exact": exact, "exact_of_one": one, "exact_of_two": two });
        seen.note(&mut way_result);
        scenes::add(&mut sheet, &format!("{way:?}"), &said, &looks);
        result[format!("{way:?}").to_lowercase()] = way_result;
    }
    picture::captions(&o.picture, "Captions of held-out digits, and where the net looked", &sheet, 5.0 / SIDE as f64)?;
    writeln!(out, "pictures with their captions, and where the net looked at each word: {}", o.picture.display())?;
    o.course.finish(out, &result)
}

/// What the net says of scenes, the likeliest word of each step being the input of the next, and the weights of all
/// places at each step, if it looks at them: `[1, sample, place]`.
fn say(trainer: &Trainer, scenes: &Scenes) -> Result<(Vec<String>, Vec<ArrayD<f32>>)> {
    let count = scenes.captions.len();
    let mut stream = trainer.stream(count)?;
    stream.set_f32("image", scenes.images.as_slice().expect("standard layout"))?;
    stream.set_i32("length", &vec![1; count])?;
    let (mut words, mut looks) = (vec![vec![0; count]], Vec::new());
    for t in 0..LONGEST {
        stream.set_i32("word", &words[t])?;
        stream.advance()?;
        words.extend(stream.session().output_i32("said").map(|said| said.into_iter().collect()));
        looks.extend(stream.session().output("looks"));
    }
    Ok(((0..count).map(|b| scenes::text(words[1..].iter().map(|step| step[b]))).collect(), looks))
}
