//! Handwritten digits as training data: IDX files, the digits that come with the examples, and batches of rows.
//!
//! An IDX file is a head of big-endian 32-bit numbers, then bytes. The head says what the bytes are (0x08: one byte
//! each) and in how many dimensions, and the size of each: [60000, 28, 28] for MNIST's images, [60000] for its labels.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retrograd::runtime::feed::Feed;

use super::{Result, within};

/// Kinds of digits.
pub const KINDS: usize = 10;

/// Reads an IDX file of bytes, plain or gzipped, with so many dimensions: their sizes, and the bytes.
pub fn read_idx<const DIMENSIONS: usize>(name: &str, file: &[u8]) -> Result<([usize; DIMENSIONS], Vec<u8>)> {
    let mut bytes = Vec::new();
    if file.starts_with(&[0x1f, 0x8b]) {
        let unpacked = flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes);
        unpacked.map_err(|e| format!("{name} is not a whole gzip file: {e}"))?;
    } else {
        bytes.extend_from_slice(file);
    }
    let head = 4 + 4 * DIMENSIONS;
    let magic = [0, 0, 8, DIMENSIONS as u8];
    if bytes.len() < head || bytes[..4] != magic {
        let begins = &bytes[..bytes.len().min(4)];
        let wanted = format!("an IDX file of bytes in {DIMENSIONS} dimension(s) begins with {magic:02x?}");
        return Err(format!("{name} begins with {begins:02x?}; {wanted}").into());
    }
    let size = |d: usize| u32::from_be_bytes(bytes[4 + 4 * d..][..4].try_into().expect("four bytes")) as usize;
    let sizes = std::array::from_fn(size);
    let (expected, found) = (sizes.iter().try_fold(1_usize, |n, &s| n.checked_mul(s)), bytes.len() - head);
    if expected != Some(found) {
        return Err(format!("{name} says that it has {sizes:?} bytes; it has {found}").into());
    }
    Ok((sizes, bytes.split_off(head)))
}

/// Options of what is learnt.
#[derive(Args, Clone, Debug)]
pub struct Source {
    /// Directory of MNIST's four files (train-images-idx3-ubyte and so on), plain or gzipped; without it, the 1,797
    /// digits of 8×8 pixels that come with the examples
    #[arg(long, value_name = "DIRECTORY")]
    mnist: Option<PathBuf>,
    /// How often all of them are learnt [default: as often as suits them]
    #[arg(long, value_name = "N", value_parser = within(1_000_000), conflicts_with_all = ["steps", "seconds"])]
    epochs: Option<usize>,
}

impl Source {
    /// Digits to learn from, and others to see what was learnt.
    pub fn read(&self) -> Result<[Digits; 2]> {
        let [learnt, held_out] = if let Some(directory) = &self.mnist {
            [Digits::mnist(directory, "train")?, Digits::mnist(directory, "t10k")?]
        } else {
            Digits::small_in_two()?
        };
        if learnt.size != held_out.size {
            let text =
                format!("images to learn from are of {:?}, those to test with of {:?}", learnt.size, held_out.size);
            return Err(text.into());
        }
        let [height, width] = learnt.size;
        eprintln!("{} digits of {height}×{width} pixels, and {} held out", learnt.count(), held_out.count());
        Ok([learnt, held_out])
    }

    /// Steps of so many of these digits in which all of them are learnt as often as the user says, or else so often:
    /// MNIST's are more, and so less often.
    pub fn steps(&self, digits: &Digits, batch: usize, small: usize, mnist: usize) -> usize {
        let epochs = self.epochs.unwrap_or(if self.mnist.is_some() { mnist } else { small });
        (epochs * digits.count()).div_ceil(batch.min(digits.count()))
    }
}

/// Images of one size, each with the digit that it shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Digits {
    /// Height and width.
    pub size: [usize; 2],
    /// One image behind another, one row behind another: 0 is paper, `ink` is black.
    pub pixels: Vec<u8>,
    /// The largest value of a pixel.
    pub ink: u8,
    /// What they show, below [`KINDS`].
    pub labels: Vec<u8>,
}

impl Digits {
    /// Puts an IDX file of images and one of labels together, each with its name.
    pub fn new(images: (&str, &[u8]), labels: (&str, &[u8]), ink: u8) -> Result<Digits> {
        let ([count, height, width], pixels) = read_idx(images.0, images.1)?;
        let ([named], kinds) = read_idx(labels.0, labels.1)?;
        if count != named {
            return Err(format!("{} has {count} images, {} has {named} labels", images.0, labels.0).into());
        }
        if pixels.is_empty() {
            return Err(format!("{} is without images", images.0).into());
        }
        if let Some(label) = kinds.iter().find(|&&label| usize::from(label) >= KINDS) {
            return Err(format!("{} has the label {label}; a digit is at most 9", labels.0).into());
        }
        if let Some(pixel) = pixels.iter().find(|&&pixel| pixel > ink) {
            return Err(format!("{} has a pixel of {pixel}; black is {ink}", images.0).into());
        }
        Ok(Digits { size: [height, width], pixels, ink, labels: kinds })
    }

    /// The 1,797 digits of 8×8 pixels that come with the examples: see `examples/data/README.md`.
    pub fn small() -> Result<Digits> {
        let images = include_bytes!("../data/digits-images-idx3-ubyte.gz");
        let labels = include_bytes!("../data/digits-labels-idx1-ubyte.gz");
        Digits::new(("the images", images), ("the labels", labels), 16)
    }

    /// The same in two parts: those to learn from, and one in five, drawn by lot and always the same, to see what was
    /// learnt.
    pub fn small_in_two() -> Result<[Digits; 2]> {
        let all = Digits::small()?;
        let order = all.shuffled(&mut ChaCha8Rng::seed_from_u64(0));
        let (held_out, learnt) = order.split_at(all.count() / 5);
        Ok([all.only(learnt), all.only(held_out)])
    }

    /// MNIST's digits for training (`train`) or for testing (`t10k`) in a directory, plain or gzipped.
    pub fn mnist(directory: &Path, part: &str) -> Result<Digits> {
        let read = |what: &str| {
            let plain = directory.join(format!("{part}-{what}-ubyte"));
            let packed = PathBuf::from(format!("{}.gz", plain.display()));
            let file = if plain.exists() || !packed.exists() { plain } else { packed };
            let name = file.display().to_string();
            let bytes = fs::read(&file).map_err(|e| format!("cannot read {name} (nor {name}.gz): {e}"))?;
            Ok::<_, super::Failure>((name, bytes))
        };
        let (images, labels) = (read("images-idx3")?, read("labels-idx1")?);
        Digits::new((&images.0, &images.1), (&labels.0, &labels.1), 255)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.labels.len()
    }

    /// The pixels of one.
    pub fn image(&self, which: usize) -> &[u8] {
        let area = self.size[0] * self.size[1];
        &self.pixels[which * area..][..area]
    }

    /// How far pixels are from their mean over all digits of a kind: the root of the mean square, as a part of black.
    pub fn deviation(&self) -> f64 {
        let (mut squares, area) = (0.0, self.size[0] * self.size[1]);
        for kind in 0..KINDS {
            let of_kind: Vec<_> = (0..self.count()).filter(|&i| usize::from(self.labels[i]) == kind).collect();
            for at in 0..area {
                let pixels = || of_kind.iter().map(|&i| f64::from(self.image(i)[at]));
                let mean = pixels().sum::<f64>() / of_kind.len() as f64;
                squares += pixels().map(|pixel| (pixel - mean).powi(2)).sum::<f64>();
            }
        }
        (squares / self.pixels.len() as f64).sqrt() / f64::from(self.ink)
    }

    /// Their numbers in random order.
    pub fn shuffled(&self, random: &mut impl Rng) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.count()).collect();
        order.shuffle(random);
        order
    }

    /// Some of them.
    pub fn only(&self, which: &[usize]) -> Digits {
        let pixels = which.iter().flat_map(|&i| self.image(i)).copied().collect();
        Digits { pixels, labels: which.iter().map(|&i| self.labels[i]).collect(), ..*self }
    }

    /// Some of them as rows for a program, 0 for paper to 1 for black.
    pub fn batch(&self, which: &[usize]) -> Batch {
        self.shifted_batch(which, || [0, 0])
    }

    /// The same with each image moved by up to so many pixels down, up, right or left.
    pub fn moved_batch(&self, which: &[usize], most: i32, random: &mut impl Rng) -> Batch {
        self.shifted_batch(which, || [(); 2].map(|()| random.random_range(-most..=most)))
    }

    /// For training: batches of so many, each image moved by up to so many pixels. Epochs, each in an order of its own,
    /// run into one another, so that every batch is full.
    pub fn batches(&self, batch: usize, moved: i32, seed: u64) -> impl FnMut(f64) -> Batch + '_ {
        let (mut random, mut order) = (ChaCha8Rng::seed_from_u64(seed), Vec::new());
        let batch = batch.min(self.count());
        move |_| {
            if order.len() < batch {
                order.splice(..0, self.shuffled(&mut random));
            }
            let chosen = order.split_off(order.len() - batch);
            self.moved_batch(&chosen, moved, &mut random)
        }
    }

    fn shifted_batch(&self, which: &[usize], mut shift: impl FnMut() -> [i32; 2]) -> Batch {
        let ([height, width], samples) = (self.size, which.len());
        let mut rows = vec![0.0; height * samples * width];
        for (sample, &i) in which.iter().enumerate() {
            let [down, right] = shift();
            let inside = |at: usize, by: i32, end: usize| at.checked_add_signed(by as isize).filter(|&at| at < end);
            for (at, &pixel) in self.image(i).iter().enumerate() {
                if let (Some(y), Some(x)) = (inside(at / width, down, height), inside(at % width, right, width)) {
                    rows[(y * samples + sample) * width + x] = f32::from(pixel) / f32::from(self.ink);
                }
            }
        }
        let mut before = vec![0.0; samples * width];
        before.extend_from_slice(&rows[..rows.len() - samples * width]);
        let labels = which.iter().map(|&i| self.labels[i].into()).collect();
        Batch { shape: [height, samples, width], rows, before, labels }
    }
}

/// Images as sequences of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Rows of an image, images, pixels of a row.
    pub shape: [usize; 3],
    /// All rows, in this shape.
    pub rows: Vec<f32>,
    /// For each row the one above it; white above the first.
    pub before: Vec<f32>,
    /// For each image what it shows.
    pub labels: Vec<i32>,
}

impl Batch {
    /// For a program with the inputs `rows` and `label`.
    pub fn feed(&self) -> Feed<'_> {
        Feed::new().f32_slice("rows", &self.shape, &self.rows).i32_slice("label", &self.shape[1..2], &self.labels)
    }

    /// For a program with the input `before` as well.
    pub fn feed_with_rows_before(&self) -> Feed<'_> {
        self.feed().f32_slice("before", &self.shape, &self.before)
    }
}
