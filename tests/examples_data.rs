//! What examples learn from: handwritten digits, their files and their batches; scenes of digits and their captions;
//! sums. And the examples that learn from digits.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use flate2::Compression;
use flate2::write::GzEncoder;

#[path = "../examples/draw_digit.rs"]
#[allow(dead_code, reason = "its main")]
mod draw_digit;

use draw_digit::digits;
use draw_digit::digits::common::digits::{Digits, KINDS, read_idx};
use draw_digit::digits::common::picture;
use draw_digit::digits::common::scenes::{self, Kind, LONGEST, Placed, SIDE, Scenes, WORDS};
use draw_digit::digits::common::sums::{Marked, Spelling, Sums};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A directory of one test, removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("retrograd-digits-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }

    /// A text without this directory's name.
    fn relative(&self, text: impl ToString) -> String {
        text.to_string().replace(self.0.to_str().unwrap(), "DIR")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// An IDX file of bytes.
fn idx(sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, sizes.len() as u8];
    file.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
    file.extend(bytes);
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// Images of 3×2 pixels, each of them its own number, and labels that count to 9 again and again.
fn numbered(count: u8) -> [Vec<u8>; 2] {
    let pixels: Vec<u8> = (0..count).flat_map(|i| [i; 6]).collect();
    let labels: Vec<u8> = (0..count).map(|i| i % 10).collect();
    [idx(&[count.into(), 3, 2], &pixels), idx(&[count.into()], &labels)]
}

// ---- IDX ------------------------------------------------------------------------------------------------------

#[test]
fn idx_files_are_read_plain_and_gzipped() {
    let bytes: Vec<u8> = (0..24).collect();
    let plain = idx(&[4, 3, 2], &bytes);
    let twice = [gzip(&plain[..10]), gzip(&plain[10..])].concat();
    for file in [&plain, &gzip(&plain), &twice] {
        assert_eq!(read_idx("file", file).unwrap(), ([4, 3, 2], bytes.clone()));
    }
    assert_eq!(read_idx("file", &idx(&[0], &[])).unwrap(), ([0], vec![]));
}

#[test]
fn what_is_no_idx_file_is_told() {
    let text = |file: &[u8]| read_idx::<1>("F", file).unwrap_err().to_string();
    let good = idx(&[5], b"abcde");
    assert_eq!(text(&good[..12]), "F says that it has [5] bytes; it has 4");
    assert_eq!(text(&[&good[..], b"f"].concat()), "F says that it has [5] bytes; it has 6");
    let wanted = "an IDX file of bytes in 1 dimension(s) begins with [00, 00, 08, 01]";
    assert_eq!(text(b""), format!("F begins with []; {wanted}"));
    assert_eq!(text(b"<html>404</html>"), format!("F begins with [3c, 68, 74, 6d]; {wanted}"));
    assert_eq!(text(&good[..7]), format!("F begins with [00, 00, 08, 01]; {wanted}"));
    assert_eq!(text(&idx(&[1, 5], b"abcde")), format!("F begins with [00, 00, 08, 02]; {wanted}"));
    let floats = [&[0, 0, 0x0d, 1], &good[4..]].concat();
    assert_eq!(text(&floats), format!("F begins with [00, 00, 0d, 01]; {wanted}"));

    // Any cut of a gzip file, and damage to its head, its data, its sum or its length.
    let packed = gzip(&good);
    for end in 2..packed.len() {
        assert!(text(&packed[..end]).starts_with("F is not a whole gzip file: "), "cut at {end}");
    }
    for at in [0, 2, 12, packed.len() - 8, packed.len() - 5, packed.len() - 4, packed.len() - 1] {
        let mut damaged = packed.clone();
        damaged[at] ^= 0x10;
        assert!(read_idx::<1>("F", &damaged).is_err(), "damaged at {at}");
    }

    // Sizes whose product is more than there can be.
    let huge = idx(&[u32::MAX, u32::MAX, u32::MAX], b"abc");
    let text = read_idx::<3>("F", &huge).unwrap_err().to_string();
    assert_eq!(text, "F says that it has [4294967295, 4294967295, 4294967295] bytes; it has 3");
}

#[test]
fn images_and_labels_must_belong_together() {
    let [images, labels] = numbered(12);
    let new = |images: &[u8], labels: &[u8], ink| Digits::new(("I", images), ("L", labels), ink);
    let digits = new(&images, &labels, 255).unwrap();
    assert_eq!((digits.size, digits.count(), digits.image(11)), ([3, 2], 12, &[11; 6][..]));
    let text = |images: &[u8], labels: &[u8], ink| new(images, labels, ink).unwrap_err().to_string();
    assert_eq!(text(&images, &numbered(11)[1], 255), "I has 12 images, L has 11 labels");
    assert_eq!(text(&images, &labels, 10), "I has a pixel of 11; black is 10");
    assert_eq!(text(&images, &idx(&[12], &[10; 12]), 255), "L has the label 10; a digit is at most 9");
    assert_eq!(text(&idx(&[0, 3, 2], &[]), &idx(&[0], &[]), 255), "I is without images");
    let swapped = text(&labels, &images, 255);
    assert!(swapped.starts_with("I begins with [00, 00, 08, 01]; an IDX file of bytes in 3 dimension(s)"), "{swapped}");
}

// ---- Digits ---------------------------------------------------------------------------------------------------

#[test]
fn the_small_digits_are_whole() {
    let digits = Digits::small().unwrap();
    assert_eq!((digits.count(), digits.size, digits.ink), (1797, [8, 8], 16));
    assert_eq!(digits.pixels.len(), 1797 * 64);
    assert_eq!((digits.pixels.iter().min(), digits.pixels.iter().max()), (Some(&0), Some(&16)));
    // How many there are of each kind, as the data's own description has it.
    let of_kind = |kind| digits.labels.iter().filter(|&&label| label == kind).count();
    assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(of_kind), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    // The first one is a zero.
    assert_eq!(digits.labels[0], 0);
    assert_eq!(digits.image(0)[..16], [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0]);
    assert_eq!(digits.pixels.iter().map(|&pixel| u32::from(pixel)).sum::<u32>(), 561_718);
}

#[test]
fn batches_are_rows_from_top_to_bottom() {
    let pixels: Vec<u8> = (0..12).collect();
    let digits = Digits { size: [3, 2], pixels, ink: 10, labels: vec![7, 4] };
    let batch = digits.batch(&[1, 0, 1]);
    assert_eq!((batch.shape, &batch.labels[..]), ([3, 3, 2], &[4, 7, 4][..]));
    let tenths = |row: &[f32]| row.iter().map(|x| (x * 10.0).round() as i32).collect::<Vec<_>>();
    assert_eq!(tenths(&batch.rows), [6, 7, 0, 1, 6, 7, 8, 9, 2, 3, 8, 9, 10, 11, 4, 5, 10, 11]);
    assert_eq!(tenths(&batch.before), [0, 0, 0, 0, 0, 0, 6, 7, 0, 1, 6, 7, 8, 9, 2, 3, 8, 9]);

    // Moved by at most one pixel: what is left is where it was or beside it, and paper comes in from the edge.
    let dot = Digits { size: [3, 3], pixels: vec![0, 0, 0, 0, 1, 0, 0, 0, 0], ink: 1, labels: vec![1] };
    let mut seen = [0; 9];
    for seed in 0..200 {
        let moved = dot.moved_batch(&[0], 1, &mut ChaCha8Rng::seed_from_u64(seed)).rows;
        assert_eq!(moved.iter().sum::<f32>(), 1.0);
        seen[moved.iter().position(|&x| x == 1.0).unwrap()] += 1;
    }
    assert!(seen.iter().all(|&n| n > 5), "{seen:?}");
    let far = dot.moved_batch(&[0; 500], 3, &mut ChaCha8Rng::seed_from_u64(1)).rows;
    let left = far.iter().sum::<f32>();
    assert!((60.0..130.0).contains(&left), "9 of 49 places are on the paper: {left}");
}

#[test]
fn deviation_is_from_the_mean_of_a_kind() {
    let digits = Digits { size: [1, 2], pixels: vec![0, 5, 4, 5, 10, 0], ink: 10, labels: vec![3, 3, 8] };
    // The means are (2, 5) and (10, 0): two pixels of six are 2 off.
    assert!((digits.deviation() - (8.0_f64 / 6.0).sqrt() / 10.0).abs() < 1e-12);
}

#[test]
fn pictures_show_what_they_are_given() {
    let dir = Dir::new("pictures");
    let [images, labels] = numbered(20);
    let digits = Digits::new(("I", &images), ("L", &labels), 19).unwrap();
    let mut names = digits.labels.clone();
    names[13] = 5;
    let file = PathBuf::from(dir.path("confusion.svg"));
    picture::confusion(&file, "a <title>", &digits, &names).unwrap();
    let svg = fs::read_to_string(&file).unwrap();
    for text in ["a &lt;title&gt;", "mistakes: 1", "3 → 5", "was taken for"] {
        assert!(svg.contains(text), "{text} is not in {svg}");
    }
    assert!(!svg.contains("4 → "));
    let sheet = PathBuf::from(dir.path("sheet.svg"));
    picture::sheet(&sheet, "digits", &digits, &digits, 1).unwrap();
    // One of each kind above the line and one below; six pixels each but for those of image 0; paper and line.
    let rectangles = fs::read_to_string(&sheet).unwrap().matches("<rect").count();
    assert_eq!(rectangles, 2 * (KINDS + 9 * 6) + 2);
    let nowhere = picture::sheet(&dir.0, "digits", &digits, &digits, 1).unwrap_err();
    assert!(dir.relative(nowhere).starts_with("cannot draw DIR: "));
}

// ---- Scenes ---------------------------------------------------------------------------------------------------

/// A digit of a kind at a row and a column.
fn digit(kind: u8, row: usize, column: usize) -> Placed {
    Placed { which: 0, kind, corner: [row, column] }
}

#[test]
fn captions_say_where_digits_are() {
    let two = |a, b| scenes::caption(&[a, b]);
    for (a, b, caption) in [
        (digit(7, 1, 9), digit(3, 13, 9), "a seven above a three"),
        (digit(7, 1, 6), digit(3, 9, 9), "a seven above a three"),
        (digit(8, 9, 1), digit(8, 9, 17), "an eight left of an eight"),
        (digit(0, 3, 0), digit(1, 0, 8), "a zero left of a one"),
        (digit(2, 1, 1), digit(5, 17, 17), "a two above and left of a five"),
        (digit(4, 18, 0), digit(6, 0, 18), "a four below and left of a six"),
    ] {
        assert_eq!(two(a, b).as_deref(), Some(caption));
        assert_eq!(two(b, a).as_deref(), Some(caption), "in whichever order they are placed");
    }
    // Neither apart nor level, and one on the other.
    for (a, b) in [(digit(7, 1, 9), digit(3, 8, 9)), (digit(7, 1, 5), digit(3, 9, 9)), (digit(7, 9, 9), digit(3, 9, 9))]
    {
        assert_eq!(two(a, b), None);
    }
    let place = |row, column| scenes::caption(&[digit(9, row, column)]);
    let zones = [0, 9, 18].map(|row| [4, 8, 14].map(|column| place(row, column).unwrap()));
    let names = zones.as_flattened().iter().map(|text| text.strip_prefix("a nine alone ").unwrap());
    let expected = [
        "at the top left",
        "at the top",
        "at the top right",
        "at the left",
        "in the middle",
        "at the right",
        "at the bottom left",
        "at the bottom",
        "at the bottom right",
    ];
    assert_eq!(names.collect::<Vec<_>>(), expected);
    assert_eq!((place(5, 9), place(9, 13), scenes::caption(&[])), (None, None, None));
    assert_eq!(scenes::text(scenes::numbers("a one above a two").into_iter().chain([0, 5])), "a one above a two");
}

#[test]
fn scenes_show_what_their_captions_say() {
    let digits = Digits::small().unwrap();
    let random = |kind| Scenes::random(&digits, 500, kind, &mut ChaCha8Rng::seed_from_u64(4));
    let scenes = random(Kind::ANY);
    let mut unused = vec![true; WORDS.len()];
    for (b, placed) in scenes.placed.iter().enumerate() {
        assert_eq!(scenes::caption(placed).as_ref(), Some(&scenes.captions[b]));
        // Each digit stands whole where it was put, and all else is paper.
        let image = scenes.images.index_axis(ndarray::Axis(0), b);
        let mut ink = 0.0;
        for p in placed {
            assert_eq!(p.kind, digits.labels[p.which]);
            for (at, &pixel) in digits.image(p.which).iter().enumerate() {
                assert_eq!(image[[p.corner[0] + at / 8, p.corner[1] + at % 8, 0]], f32::from(pixel) / 16.0);
                ink += f32::from(pixel) / 16.0;
            }
        }
        assert_eq!(image.sum(), ink);
        // The word before, the word to say, and the end.
        let words = scenes::numbers(&scenes.captions[b]);
        let [before, next] = scenes.words.each_ref().map(|words| words.column(b).to_vec());
        assert_eq!((before[0], &before[1..=words.len()], &next[..words.len()]), (0, &words[..], &words[..]));
        assert!(next[words.len()..].iter().all(|&word| word == 0));
        assert_eq!(scenes.lengths[b] as usize, words.len() + 1);
        words.iter().for_each(|&word| unused[word as usize] = false);
    }
    assert_eq!(unused.iter().filter(|&&unused| unused).count(), 1, "all words but the end are used");
    assert_eq!((scenes.words[0].dim(), scenes.images.dim()), ((LONGEST, 500), (500, SIDE, SIDE, 1)));

    // What is learnt first: one digit, in the middle of a place.
    let first = random(Kind::to_learn(0.0));
    assert!(first.placed.iter().all(|placed| placed.len() == 1 && placed[0].corner.iter().all(|at| at % 4 == 1)));
    let said = [&scenes.captions[..250], &vec![String::new(); 250]].concat();
    let right = scenes.placed[..250].iter().filter(|placed| placed.len() == 2).count();
    let all = scenes.placed.iter().filter(|placed| placed.len() == 2).count();
    assert_eq!((scenes.exact(&said, 1..=2), scenes.exact(&said, 2..=2)), (0.5, right as f64 / all as f64));
}

#[test]
fn held_out_digits_are_never_trained_on() {
    let all = Digits::small().unwrap();
    let [learnt, held_out] = Digits::small_in_two().unwrap();
    assert_eq!((learnt.count(), held_out.count()), (1438, 359));
    let sorted = |parts: &[&Digits]| {
        let images = parts.iter().flat_map(|d| (0..d.count()).map(|i| (d.image(i).to_vec(), d.labels[i])));
        let mut images: Vec<_> = images.collect();
        images.sort();
        images
    };
    assert_eq!(sorted(&[&learnt, &held_out]), sorted(&[&all]));
    let (learnt, held_out) = (sorted(&[&learnt]), sorted(&[&held_out]));
    assert!(held_out.iter().all(|image| learnt.binary_search(image).is_err()));
}

// ---- Sums -----------------------------------------------------------------------------------------------------

#[test]
fn sums_are_right_and_held_out_ones_are_others() {
    let spelling = Spelling { digits: 2, reversed: true };
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let [learnt, new] = [false, true].map(|held_out| Sums::random(spelling, &mut random, 2000, held_out, 0.5));
    let pair = |text: &str| {
        let (a, b) = text.split_once('+').unwrap();
        let [a, b] = [a, b].map(|number| number.trim().parse::<u32>().unwrap());
        (a.min(b), a.max(b))
    };
    for sums in [&learnt, &new] {
        for (i, [sum, answer]) in sums.texts.iter().enumerate() {
            let (a, b) = pair(sum);
            assert_eq!((sum.len(), answer.trim().parse(), answer.len()), (5, Ok(a + b), 3));
            assert_eq!(spelling.text(&sums.read.column(i).to_vec()), *sum);
            assert_eq!(spelling.text(&sums.said.column(i).to_vec()), *answer);
        }
    }
    let known: std::collections::BTreeSet<_> = learnt.texts.iter().map(|t| pair(&t[0])).collect();
    assert!(known.len() > 500 && new.texts.iter().all(|t| !known.contains(&pair(&t[0]))));
    assert_eq!(spelling.numbers("12+ 3"), [3, 11, 10, 2, 1]);
    assert_eq!(Spelling { reversed: false, ..spelling }.numbers("12+ 3"), [1, 2, 10, 11, 3]);

    let marked = Marked::random(9, 50, &mut random);
    for (b, sample) in marked.numbers.axis_iter(ndarray::Axis(1)).enumerate() {
        let marks: Vec<usize> = (0..9).filter(|&t| sample[[t, 1]] == 1.0).collect();
        assert!(marks.len() == 2 && marks[0] < 4 && marks[1] >= 4, "{marks:?}");
        assert_eq!(marked.sum[[b, 0]], sample[[marks[0], 0]] + sample[[marks[1], 0]]);
    }
}

// ---- The examples ---------------------------------------------------------------------------------------------

fn name_digits(more: &[&str], stop: bool) -> Result<String, String> {
    let options = digits::Options::try_parse_from([&["digits"], more].concat());
    let mut out = Vec::new();
    let options = options.map_err(|e| e.to_string())?;
    digits::run(&options, &AtomicBool::new(stop), &mut out).map_err(|e| e.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

fn draw(more: &[&str], stop: bool) -> Result<String, String> {
    let options = draw_digit::Options::try_parse_from([&["draw_digit"], more].concat());
    let mut out = Vec::new();
    let options = options.map_err(|e| e.to_string())?;
    draw_digit::run(&options, &AtomicBool::new(stop), &mut out).map_err(|e| e.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

fn json(out: &str) -> serde_json::Value {
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

#[test]
fn digits_are_learnt() {
    let dir = Dir::new("learnt");
    let picture = dir.path("made/confusion.svg");
    let run = |threads| {
        let arguments =
            ["--units", "32", "--epochs", "40", "--json", "--seed", "5", "--threads", threads, "--picture", &picture];
        json(&name_digits(&arguments, false).unwrap())
    };
    let (one, two) = (run("1"), run("2"));
    assert!(one["accuracy"].as_f64().unwrap() > 0.9, "{one}");
    assert_eq!(one["held_out"], 359);
    assert_eq!(one["steps"], (40 * 1438_usize).div_ceil(64));
    assert!(one["samples_per_second"].as_f64().unwrap() > 0.0 && one["compile_ms"].as_f64().unwrap() > 0.0);
    assert_eq!((&one["loss"], &one["accuracy"]), (&two["loss"], &two["accuracy"]), "the same with any threads");
    assert!(fs::read_to_string(&picture).unwrap().contains("359 held-out digits named right"));
}

#[test]
fn digits_are_drawn() {
    let dir = Dir::new("drawn");
    let picture = dir.path("made/sheet.svg");
    let out = draw(
        &["--units", "48", "--epochs", "60", "--choices", "8", "--drawings", "30", "--json", "--picture", &picture],
        false,
    );
    let result = json(&out.unwrap());
    assert!(result["accuracy"].as_f64().unwrap() > 0.6, "{result}");
    assert!(result["real_accuracy"].as_f64().unwrap() > 0.9, "{result}");
    assert!((0.4..1.1).contains(&result["variety"].as_f64().unwrap()), "{result}");
    assert!(fs::read_to_string(&picture).unwrap().starts_with("<svg"));
    assert_eq!(draw(&["--picture", &picture], true).unwrap_err(), "stopped before there was anything to draw with");
}

#[test]
fn mnist_is_read_from_its_directory() {
    let dir = Dir::new("mnist");
    let picture = dir.path("confusion.svg");
    let run = |more: &[&str]| {
        let result = name_digits(
            &[&["--mnist", dir.0.to_str().unwrap(), "--picture", &picture, "--json"], more].concat(),
            false,
        );
        result.map(|out| json(&out)).map_err(|e| dir.relative(e))
    };
    let missing = run(&[]).unwrap_err();
    let file = "DIR/train-images-idx3-ubyte";
    assert!(missing.starts_with(&format!("cannot read {file} (nor {file}.gz): ")), "{missing}");

    // Plain images, gzipped labels.
    let [images, labels] = numbered(200);
    let [test_images, test_labels] = numbered(20);
    fs::write(dir.path("train-images-idx3-ubyte"), &images).unwrap();
    fs::write(dir.path("train-labels-idx1-ubyte.gz"), gzip(&labels)).unwrap();
    fs::write(dir.path("t10k-images-idx3-ubyte.gz"), gzip(&test_images)).unwrap();
    fs::write(dir.path("t10k-labels-idx1-ubyte"), &test_labels).unwrap();
    let result = run(&["--units", "8", "--epochs", "1"]).unwrap();
    assert_eq!(result["held_out"], 20);
    let start = std::time::Instant::now();
    assert!(run(&["--units", "8", "--seconds", "0.3"]).unwrap()["seconds"].as_f64().unwrap() >= 0.3);
    assert!(start.elapsed().as_secs() < 30);

    fs::write(dir.path("t10k-images-idx3-ubyte.gz"), gzip(&idx(&[20, 2, 3], &[0; 120]))).unwrap();
    assert_eq!(run(&[]).unwrap_err(), "images to learn from are of [3, 2], those to test with of [2, 3]");
    fs::write(dir.path("train-labels-idx1-ubyte.gz"), &gzip(&labels)[..30]).unwrap();
    let cut = run(&[]).unwrap_err();
    assert!(cut.starts_with("DIR/train-labels-idx1-ubyte.gz is not a whole gzip file: "), "{cut}");
}

#[test]
fn mistakes_have_clear_texts() {
    for (option, value) in [
        ("--units", "0"),
        ("--epochs", "0"),
        ("--epochs", "-1"),
        ("--steps", "0"),
        ("--seconds", "0"),
        ("--threads", "0"),
        ("--seed", "x"),
        ("--choices", "0"),
        ("--temperature", "-1"),
        ("--drawings", "0"),
    ] {
        let text = draw(&[option, value], true).unwrap_err();
        assert!(text.contains(option) && text.contains(value), "{text}");
    }
    let below_a_file = format!("{}/picture.svg", file!());
    for nowhere in [name_digits(&["--picture", &below_a_file], true), draw(&["--picture", &below_a_file], true)] {
        assert!(nowhere.unwrap_err().starts_with("cannot make the directory tests/examples_data.rs: "));
    }
}
