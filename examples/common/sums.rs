//! Sums to learn from: of two written numbers, and of two numbers that are marked among many.

use ndarray::{Array1, Array2, Array3};
use rand::{Rng, RngExt};
use retrograd::runtime::feed::Feed;

/// What is read and written, by number. The blank fills up, and starts what is written.
pub const CHARACTERS: &[u8; 12] = b"0123456789+ ";
const BLANK: i32 = 11;

/// How sums are written.
#[derive(Clone, Copy, Debug)]
pub struct Spelling {
    /// Digits of each number, at most.
    pub digits: usize,
    /// Backwards, the lowest digit first.
    pub reversed: bool,
}

impl Spelling {
    /// The numbers of a text's characters, in the order of reading and writing.
    pub fn numbers(self, text: &str) -> Vec<i32> {
        let known = text.bytes().filter_map(|c| CHARACTERS.iter().position(|&k| k == c));
        let numbers = known.map(|i| i as i32);
        if self.reversed { numbers.rev().collect() } else { numbers.collect() }
    }

    /// The text of characters in the order of writing.
    pub fn text(self, numbers: &[i32]) -> String {
        let text = numbers.iter().map(|&c| char::from(CHARACTERS[c as usize]));
        if self.reversed { text.rev().collect() } else { text.collect() }
    }
}

/// Sums as a program reads them.
pub struct Sums {
    /// Question and answer: "123+ 48", " 171".
    pub texts: Vec<[String; 2]>,
    /// The numbers of the question's characters, `[step, sample]`.
    pub read: Array2<i32>,
    /// Those of the answer's.
    pub said: Array2<i32>,
    first: Array1<i32>,
}

impl Sums {
    /// Random sums; one pair in ten is held out. A number is, with probability `long`, any of up to the most digits,
    /// so that it most likely has that many; else all lengths are as likely, and short sums are learnt first.
    pub fn random(spelling: Spelling, random: &mut impl Rng, batch: usize, held_out: bool, long: f64) -> Sums {
        let (mut texts, wide, most) = (Vec::new(), spelling.digits, spelling.digits as u32);
        while texts.len() < batch {
            let [a, b] = [0; 2].map(|_: i32| {
                let digits = if random.random_bool(long) { most } else { random.random_range(1..=most) };
                let limit = 10_u64.pow(digits);
                random.random_range(0..limit)
            });
            // The same pair the other way round is the same.
            let pair = a.min(b) * 10_u64.pow(most) + a.max(b);
            if (pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(10) == held_out {
                texts.push([format!("{a:>wide$}+{b:>wide$}"), format!("{:>1$}", a + b, wide + 1)]);
            }
        }
        let [read, said] = [0, 1].map(|i| {
            let rows: Vec<Vec<i32>> = texts.iter().map(|t| spelling.numbers(&t[i])).collect();
            Array2::from_shape_fn((rows[0].len(), batch), |(t, b)| rows[b][t])
        });
        Sums { texts, read, said, first: Array1::from_elem(batch, BLANK) }
    }

    /// For a program with the inputs `read`, `said` and `first`.
    pub fn feed(&self) -> Feed<'_> {
        Feed::new().i32("read", self.read.view()).i32("said", self.said.view()).i32("first", self.first.view())
    }
}

/// Numbers from 0 to 1, of which one in each half of the sequence is marked, and the sum of those two: Hochreiter &
/// Schmidhuber (1997), "Long short-term memory".
pub struct Marked {
    /// Number and mark, `[step, sample, 2]`.
    pub numbers: Array3<f32>,
    /// `[sample, 1]`.
    pub sum: Array2<f32>,
}

impl Marked {
    /// So many sequences of a length from 2.
    pub fn random(length: usize, batch: usize, random: &mut impl Rng) -> Marked {
        let number = |(_, _, i): (usize, usize, usize)| if i == 0 { random.random() } else { 0.0 };
        let mut numbers = Array3::from_shape_fn((length, batch, 2), number);
        let sum = Array2::from_shape_fn((batch, 1), |(b, _)| {
            let marks = [0..length / 2, length / 2..length].map(|half| random.random_range(half));
            marks.iter().for_each(|&t| numbers[[t, b, 1]] = 1.0);
            marks.iter().map(|&t| numbers[[t, b, 0]]).sum()
        });
        Marked { numbers, sum }
    }

    /// For a program with the inputs `x` and `sum`.
    pub fn feed(&self) -> Feed<'_> {
        Feed::new().f32("x", self.numbers.view()).f32("sum", self.sum.view())
    }
}
