//! Scenes: one or two handwritten digits on a sheet of paper, and what there is to say of them.
//!
//! Digits are named from left to right, or from top to bottom where one stands below the other: "a seven above and left
//! of a three" says where the seven is, seen from the three. A digit alone has its place on the sheet: "an eight alone at
//! the bottom left". What is neither clearly apart nor clearly level does not occur, so each scene has one right caption.

use std::cmp::Ordering;
use std::ops::RangeInclusive;

use ndarray::{Array1, Array2, Array4, ArrayD, Axis, s};
use rand::{Rng, RngExt};
use retrograd::runtime::feed::Feed;

use super::digits::Digits;
use super::picture::Captioned;

/// Height and width of the paper.
pub const SIDE: usize = 26;
/// Places where a digit can be, in each direction: windows of 10 pixels, 4 apart, a digit in the middle of each.
pub const GRID: usize = 5;
/// What captions are made of. The first of them stands before a caption, and behind it.
pub const WORDS: [&str; 26] = [
    ".", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "a", "an", "above", "below",
    "left", "right", "and", "of", "alone", "at", "in", "the", "top", "bottom", "middle",
];
/// Words of the longest caption, with its end.
pub const LONGEST: usize = 9;

/// Height and width of a digit.
const DIGIT: usize = 8;

/// A digit on the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// Which of the digits that scenes are made of.
    pub which: usize,
    /// What it shows.
    pub kind: u8,
    /// The row and the column where it begins.
    pub corner: [usize; 2],
}

/// Which scenes there are.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Digits of a scene, at most.
    pub digits: usize,
    /// By how many pixels each is moved from the middle of a place, at most.
    pub moved: usize,
}

impl Kind {
    /// All there is.
    pub const ANY: Kind = Kind { digits: 2, moved: 1 };

    /// What is to be learnt after a part of the training: first one digit, then two, then any that is not in the middle
    /// of its place.
    pub fn to_learn(part: f64) -> Kind {
        Kind { digits: if part < 0.08 { 1 } else { 2 }, moved: usize::from(part > 0.15) }
    }
}

/// A scene by lot, and its caption.
fn scene(digits: &Digits, kind: Kind, random: &mut impl Rng) -> (Vec<Placed>, String) {
    let count = random.random_range(1..=kind.digits);
    loop {
        let placed = (0..count).map(|_| {
            let which = random.random_range(0..digits.count());
            let mut at = || 4 * random.random_range(0..GRID) + 1 - kind.moved + random.random_range(0..=2 * kind.moved);
            Placed { which, kind: digits.labels[which], corner: [at(), at()] }
        });
        let placed: Vec<Placed> = placed.collect();
        if let Some(caption) = caption(&placed) {
            return (placed, caption);
        }
    }
}

/// What there is to say of one or two digits; `None` if that is not clear.
pub fn caption(placed: &[Placed]) -> Option<String> {
    let name = |p: &Placed| format!("{} {}", if p.kind == 8 { "an" } else { "a" }, WORDS[1 + usize::from(p.kind)]);
    let said =
        |words: [&str; 2], between| words.into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join(between);
    match placed {
        [alone] => {
            let zone = |at: usize, names: [&'static str; 3]| match at {
                0..5 => Some(names[0]),
                8..11 => Some(names[1]),
                14.. => Some(names[2]),
                _ => None,
            };
            let zones = [zone(alone.corner[0], ["top", "", "bottom"])?, zone(alone.corner[1], ["left", "", "right"])?];
            let place = if zones == [""; 2] { "in the middle".into() } else { format!("at the {}", said(zones, " ")) };
            Some(format!("{} alone {place}", name(alone)))
        }
        [a, b] => {
            // Where a is, seen from b.
            let seen = |axis: usize| match a.corner[axis].abs_diff(b.corner[axis]) {
                0..4 => Some(Ordering::Equal),
                4..DIGIT => None,
                _ => Some(a.corner[axis].cmp(&b.corner[axis])),
            };
            let relation = match (seen(0)?, seen(1)?) {
                (Ordering::Equal, Ordering::Equal) => return None,
                (Ordering::Greater, Ordering::Equal) | (_, Ordering::Greater) => return caption(&[*b, *a]),
                (Ordering::Less, Ordering::Equal) => "above",
                (Ordering::Less, Ordering::Less) => "above and left of",
                (Ordering::Equal, Ordering::Less) => "left of",
                (Ordering::Greater, Ordering::Less) => "below and left of",
            };
            Some(format!("{} {relation} {}", name(a), name(b)))
        }
        _ => None,
    }
}

/// The numbers of a caption's words.
pub fn numbers(caption: &str) -> Vec<i32> {
    let number = |word| WORDS.iter().position(|w| *w == word).expect("a known word") as i32;
    caption.split(' ').map(number).collect()
}

/// The words of numbers, up to the end.
pub fn text(numbers: impl Iterator<Item = i32>) -> String {
    numbers.take_while(|&n| n != 0).map(|n| WORDS[n as usize]).collect::<Vec<_>>().join(" ")
}

/// Scenes as a program reads them.
pub struct Scenes {
    /// What is on the paper.
    pub placed: Vec<Vec<Placed>>,
    /// What is right to say.
    pub captions: Vec<String>,
    /// Sample, row, column, and one shade: 0 for paper to 1 for black.
    pub images: Array4<f32>,
    /// The word before and the one to say, `[step, sample]` each.
    pub words: [Array2<i32>; 2],
    /// Words of each caption, with its end.
    pub lengths: Array1<i32>,
}

impl Scenes {
    /// So many by lot, of these digits.
    pub fn random(digits: &Digits, count: usize, kind: Kind, random: &mut impl Rng) -> Scenes {
        assert_eq!(digits.size, [DIGIT; 2], "digits of the size that scenes have room for");
        let (placed, captions): (Vec<_>, Vec<_>) = (0..count).map(|_| scene(digits, kind, random)).unzip();
        let mut images = Array4::zeros((count, SIDE, SIDE, 1));
        for (b, p) in placed.iter().enumerate().flat_map(|(b, placed)| placed.iter().map(move |p| (b, p))) {
            for (at, &pixel) in digits.image(p.which).iter().enumerate() {
                let (y, x) = (p.corner[0] + at / DIGIT, p.corner[1] + at % DIGIT);
                images[[b, y, x, 0]] = f32::from(pixel) / f32::from(digits.ink);
            }
        }
        let said: Vec<Vec<i32>> = captions.iter().map(|caption: &String| numbers(caption)).collect();
        let lengths = Array1::from_iter(said.iter().map(|words| words.len() as i32 + 1));
        let steps = lengths.iter().fold(1, |most, &n| most.max(n as usize));
        // The end is word 0, as is what stands before the first.
        let word = |t: usize, b: usize| said[b].get(t).copied().unwrap_or(0);
        let next = Array2::from_shape_fn((steps, count), |(t, b)| word(t, b));
        let before = Array2::from_shape_fn((steps, count), |(t, b)| if t == 0 { 0 } else { word(t - 1, b) });
        Scenes { placed, captions, images, words: [before, next], lengths }
    }

    /// For a program with the inputs `image`, `word`, `next` and `length`.
    pub fn feed(&self) -> Feed<'_> {
        let [before, next] = &self.words;
        let feed = Feed::new().f32("image", self.images.view()).i32("length", self.lengths.view());
        feed.i32("word", before.view()).i32("next", next.view())
    }

    /// The part of scenes with so many digits of which exactly the right thing was said.
    pub fn exact(&self, said: &[String], digits: RangeInclusive<usize>) -> f64 {
        let asked: Vec<usize> = (0..said.len()).filter(|&b| digits.contains(&self.placed[b].len())).collect();
        asked.iter().filter(|&&b| said[b] == self.captions[b]).count() as f64 / asked.len() as f64
    }

    /// The first of them for a sheet, without what was said.
    pub fn sheet(&self, count: usize) -> Vec<Captioned> {
        let picture = |b: usize| Captioned {
            pixels: self.images.index_axis(Axis(0), b).iter().copied().collect(),
            right: self.captions[b].clone(),
            said: Vec::new(),
            looks: Vec::new(),
        };
        (0..count).map(picture).collect()
    }
}

/// Adds to a sheet what was said, and where each step looked, if it did: `[1, sample, place]`.
pub fn add(sheet: &mut [Captioned], who: &str, said: &[String], looks: &[ArrayD<f32>]) {
    for (b, picture) in sheet.iter_mut().enumerate() {
        picture.said.push((who.to_string(), said[b].clone()));
        picture.looks = looks.iter().map(|step| step.slice(s![0, b, ..]).to_vec()).collect();
    }
}
