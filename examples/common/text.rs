//! Text as training data: files, a vocabulary of characters, and windows of numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use retrograd::runtime::feed::Feed;

use super::Result;

/// Stands for all characters that are not in the vocabulary.
pub const UNKNOWN: char = '\u{FFFD}';

/// Reads one file.
pub fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let text = String::from_utf8(bytes).map_err(|e| format!("{} is not UTF-8: {}", path.display(), e.utf8_error()))?;
    if text.is_empty() {
        return Err(format!("{} is empty", path.display()).into());
    }
    Ok(text)
}

/// The Rust sources below a directory, in the order of their paths. What is built and what is hidden is left out.
pub fn rust_sources(root: &Path) -> Result<Vec<PathBuf>> {
    let cannot = |e| format!("cannot list {}: {e}", root.display());
    let (mut found, mut directories) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let (path, name) = (entry.path(), entry.file_name());
            // Links are not followed: they may lead round.
            let kind = entry.file_type().map_err(cannot)?;
            if kind.is_dir() && name != "target" && !name.as_encoded_bytes().starts_with(b".") {
                directories.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        return Err(format!("there are no Rust sources in {}; give a text with --text", root.display()).into());
    }
    found.sort();
    Ok(found)
}

/// A text as numbers, in two parts.
pub struct Corpus {
    /// What the numbers mean.
    pub vocabulary: Vocabulary,
    /// What is learnt.
    pub train: Vec<i32>,
    /// What is not, to see what has been learnt.
    pub held_out: Vec<i32>,
}

impl Corpus {
    /// Of each text the first nine tenths for training, and the last held out. Without a vocabulary, that of what is
    /// learnt.
    pub fn new(texts: &[String], vocabulary: Option<Vocabulary>) -> Corpus {
        let (mut train, mut held_out) = (String::new(), String::new());
        for text in texts {
            let behind = text.chars().count() * 9 / 10;
            let cut = text.char_indices().nth(behind).map_or(text.len(), |(at, _)| at);
            train.push_str(&text[..cut]);
            held_out.push_str(&text[cut..]);
        }
        let vocabulary = vocabulary.unwrap_or_else(|| Vocabulary::of(&train));
        Corpus { train: vocabulary.numbers(&train), held_out: vocabulary.numbers(&held_out), vocabulary }
    }
}

/// The characters that a model knows, by number. Number 0 is [`UNKNOWN`].
#[derive(Clone, Debug, PartialEq)]
pub struct Vocabulary(Vec<char>);

impl Vocabulary {
    /// The characters of a text, in order. Those that make up less than one in a hundred thousand are left out: there
    /// is too little of them to learn from.
    pub fn of(text: &str) -> Vocabulary {
        let mut counts = BTreeMap::new();
        for c in text.chars() {
            *counts.entry(c).or_insert(0_usize) += 1;
        }
        let total: usize = counts.values().sum();
        counts.retain(|&c, &mut count| c != UNKNOWN && count * 100_000 >= total);
        Vocabulary(std::iter::once(UNKNOWN).chain(counts.into_keys()).collect())
    }

    /// Takes up what [`characters`](Vocabulary::characters) gave; `None` for any other text.
    pub fn parse(characters: &str) -> Option<Vocabulary> {
        let known = characters.strip_prefix(UNKNOWN)?;
        known.chars().is_sorted_by(|a, b| a < b).then(|| Vocabulary(characters.chars().collect()))
    }

    /// All characters in the order of their numbers.
    pub fn characters(&self) -> String {
        self.0.iter().collect()
    }

    /// How many there are, with the unknown one.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// A character's number.
    pub fn number(&self, c: char) -> i32 {
        self.0[1..].binary_search(&c).map_or(0, |i| i as i32 + 1)
    }

    /// A number's character.
    pub fn character(&self, number: usize) -> char {
        self.0[number]
    }

    /// The numbers of a text's characters.
    pub fn numbers(&self, text: &str) -> Vec<i32> {
        text.chars().map(|c| self.number(c)).collect()
    }
}

/// A text cut for truncated back-propagation. Each row of the batch reads the whole text round and round, each from a
/// start of its own, `steps` characters at a time: so a row goes on in each window where it stopped in the one before,
/// and a window is a function of its number alone.
pub struct Windows<'t> {
    text: &'t [i32],
    /// Time and batch.
    pub shape: [usize; 2],
    here: Vec<i32>,
    next: Vec<i32>,
}

impl<'t> Windows<'t> {
    /// Windows of `[steps, rows]` over a text that is longer than one.
    pub fn new(text: &'t [i32], shape: [usize; 2]) -> Windows<'t> {
        assert!((1..text.len()).contains(&(shape[0] * shape[1])), "a text too short for its windows");
        Windows { text, shape, here: Vec::new(), next: Vec::new() }
    }

    /// Windows of at most `[steps, rows]` over a text of any length from 2.
    pub fn at_most(text: &'t [i32], [steps, rows]: [usize; 2]) -> Windows<'t> {
        let steps = steps.min(text.len() - 1);
        Windows::new(text, [steps, rows.min((text.len() - 1) / steps)])
    }

    /// Characters of one window.
    pub fn characters(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// How many until the text is read once.
    pub fn count(&self) -> usize {
        self.text.len() / self.characters()
    }

    /// The characters of window `n`, and those that follow each, as `[steps, rows]`.
    pub fn read(&mut self, n: u64) -> [&[i32]; 2] {
        let ([steps, rows], len) = (self.shape, self.text.len());
        let first = (u128::from(n) * steps as u128 % len as u128) as usize;
        let at = |step: usize, row: usize| self.text[(row * len / rows + first + step) % len];
        for (into, ahead) in [(&mut self.here, 0), (&mut self.next, 1)] {
            into.clear();
            into.extend((0..steps).flat_map(|t| (0..rows).map(move |b| at(t + ahead, b))));
        }
        [&self.here, &self.next]
    }

    /// Window `n` for a program with the inputs `text` and `next`.
    pub fn feed(&mut self, n: u64) -> Feed<'_> {
        self.read(n);
        Feed::new().i32_slice("text", &self.shape, &self.here).i32_slice("next", &self.shape, &self.next)
    }
}

/// The number of the next character, by logits: as [`choose`](super::choose) says, but never the unknown one.
pub fn choose(logits: &[f32], temperature: f64, uniform: f64) -> usize {
    1 + super::choose(&logits[1..], temperature, uniform)
}
