//! Arithmetic on sizes: rows, elements, bytes, operations.
//!
//! Sizes come from users, and a product of two of them may not fit a `usize`. Every formula in them is written with
//! [`times`] and [`plus`], which stop at [`TOO_LARGE`] instead of wrapping around. So whoever compares a size with a
//! limit refuses what cannot be counted, too: no limit is as large as that. Memory for values is refused above
//! [`MAX_BYTES`], which is below `TOO_LARGE`; what has been allocated can therefore be computed with plainly, and
//! generated code, which counts rows in 64 bits, reaches nothing that its own arithmetic could miss.
//!
//! Features of one row are limited already where a program is recorded or read, by [`Shape::MAX_LEN`]; elements of a row
//! with its padding, and of a packed matrix, fit any `usize`.

use super::types::{Axis, Extent, Shape};

/// More than can be counted: what [`times`] and [`plus`] give where the true result does not fit.
pub const TOO_LARGE: usize = usize::MAX;

/// Most bytes of memory for values: offsets between any two of them fit an `isize`.
pub const MAX_BYTES: usize = isize::MAX as usize;

/// The product of two sizes, or [`TOO_LARGE`].
///
/// ```
/// use retrograd_compiler::ir::sizes::{TOO_LARGE, times};
/// assert_eq!(times(1 << 20, 1 << 20), 1 << 40);
/// assert_eq!(times(1 << 40, 1 << 40), TOO_LARGE);
/// assert_eq!(times(TOO_LARGE, 0), 0);
/// ```
pub fn times(a: usize, b: usize) -> usize {
    a.saturating_mul(b)
}

/// The sum of two sizes, or [`TOO_LARGE`].
pub fn plus(a: usize, b: usize) -> usize {
    a.saturating_add(b)
}

/// The sum of many sizes, or [`TOO_LARGE`].
///
/// ```
/// use retrograd_compiler::ir::sizes::{TOO_LARGE, total};
/// assert_eq!(total([1, 2, 3]), 6);
/// assert_eq!(total([1, TOO_LARGE - 1, 1]), TOO_LARGE);
/// ```
pub fn total(sizes: impl IntoIterator<Item = usize>) -> usize {
    sizes.into_iter().fold(0, plus)
}

impl Shape {
    /// Most features of a row. Integers count them in 32 bits, and a row of them with its padding has less than 2³²
    /// elements, which is what tables of products hold.
    pub const MAX_LEN: usize = 1 << 28;

    /// Most dimensions of a row: loops over them are nested.
    pub const MAX_RANK: usize = 16;

    /// Number of features, if a row can have so many: at most [`MAX_LEN`](Shape::MAX_LEN).
    ///
    /// ```
    /// use retrograd_compiler::ir::Shape;
    /// assert_eq!(Shape::from([3, 4]).checked_len(), Some(12));
    /// assert_eq!(Shape::from([1 << 20, 1 << 20]).checked_len(), None);
    /// assert_eq!(Shape::from([usize::MAX, 2]).checked_len(), None);
    /// ```
    pub fn checked_len(&self) -> Option<usize> {
        self.0.iter().try_fold(1usize, |n, &d| n.checked_mul(d).filter(|&n| n <= Shape::MAX_LEN))
    }
}

/// Sizes of the extents in one run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// Samples, at least 1.
    pub batch: usize,
    /// Steps of each time axis, at least 1 each.
    pub steps: Vec<usize>,
}

impl Sizes {
    /// The sizes of a program with one time axis.
    pub fn new(steps: usize, batch: usize) -> Sizes {
        Sizes { batch, steps: vec![steps] }
    }

    /// Steps of one axis.
    pub fn steps(&self, axis: Axis) -> usize {
        self.steps.get(usize::from(axis.0)).copied().unwrap_or(1)
    }

    /// Rows of an extent; [`TOO_LARGE`] if they are more than can be counted.
    ///
    /// ```
    /// use retrograd_compiler::ir::{Axis, Extent, Sizes, sizes::TOO_LARGE};
    /// assert_eq!(Sizes::new(5, 4).rows(Extent::Time(Axis(0))), 20);
    /// assert_eq!(Sizes::new(1 << 40, 1 << 40).rows(Extent::Time(Axis(0))), TOO_LARGE);
    /// ```
    pub fn rows(&self, extent: Extent) -> usize {
        match extent {
            Extent::Shared => 1,
            Extent::Batch => self.batch,
            Extent::Time(axis) => times(self.batch, self.steps(axis)),
        }
    }
}
