//! What a value is: dtype × extent × feature shape.
//!
//! The batch and time axes are never part of a shape. They are *extents*: how many rows a value has. A `Shared`
//! value has one row (a weight), a `Batch` value one row per sample, a `Time` value one row per step and sample.
//! A row is the flat, row-major array of a value's features. Joining two values widens to the wider extent, so the
//! broadcast of a weight over batch and time is implicit, and the sum over rows in its adjoint follows from types.

use std::fmt;

pub use super::sizes::Sizes;

/// The element type of a value.
///
/// `F32` is the program's float: a compile for gradient checks runs the same program in 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// The program's floating-point type.
    F32,
    /// Labels and indices.
    I32,
}

/// A time axis of a program: sequences on the same axis have the same length.
///
/// Most programs have one, printed `T`; an encoder and a decoder of different lengths have two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Axis(pub u8);

/// How many rows a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Extent {
    /// One row for the whole program.
    Shared,
    /// One row per sample.
    Batch,
    /// One row per step and sample, step-major.
    Time(Axis),
}

impl Extent {
    /// The wider of two extents; `None` for two different time axes, which have no common rows.
    pub fn join(self, other: Extent) -> Option<Extent> {
        match (self, other) {
            (Extent::Time(a), Extent::Time(b)) if a != b => None,
            _ => Some(self.max(other)),
        }
    }

    /// The letters that stand before the features in a printed type: `""`, `"B"`, `"T, B"`.
    pub fn letters(self) -> &'static str {
        match self {
            Extent::Shared => "",
            Extent::Batch => "B",
            Extent::Time(Axis(0)) => "T, B",
            Extent::Time(Axis(1)) => "T1, B",
            Extent::Time(Axis(2)) => "T2, B",
            Extent::Time(Axis(_)) => "T3, B",
        }
    }
}

impl Axis {
    /// How many time axes one program can have.
    pub const MAX: u8 = 4;

    /// The axis as printed in types: `T`, `T1`, `T2`, `T3`.
    pub fn letter(self) -> &'static str {
        ["T", "T1", "T2", "T3"][usize::from(self.0.min(3))]
    }
}

/// The features of one row, row-major. The empty shape is a scalar.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Shape(pub Vec<usize>);

impl Shape {
    /// A scalar.
    pub fn scalar() -> Shape {
        Shape(Vec::new())
    }

    /// Number of features.
    pub fn len(&self) -> usize {
        self.0.iter().product()
    }

    /// Never true: every dimension is at least 1.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The last dimension; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// All dimensions but the last.
    pub fn leading(&self) -> &[usize] {
        self.0.split_last().map_or(&[], |(_, leading)| leading)
    }

    /// The shape with its last dimension replaced.
    pub fn with_last(&self, n: usize) -> Shape {
        let mut dims = self.leading().to_vec();
        dims.push(n);
        Shape(dims)
    }

    /// The shape with one dimension replaced.
    pub fn with(&self, axis: usize, n: usize) -> Shape {
        let mut dims = self.0.clone();
        dims[axis] = n;
        Shape(dims)
    }
}

impl From<usize> for Shape {
    fn from(n: usize) -> Shape {
        Shape(vec![n])
    }
}
impl From<()> for Shape {
    fn from((): ()) -> Shape {
        Shape::scalar()
    }
}
impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Shape {
        Shape(dims.to_vec())
    }
}
impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Shape {
        Shape(dims.to_vec())
    }
}
impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Shape {
        Shape(dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "[")?;
        for (i, n) in self.0.iter().enumerate() {
            write!(f, "{}{n}", if i > 0 { ", " } else { "" })?;
        }
        write!(f, "]")
    }
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Rows.
    pub extent: Extent,
    /// Features of a row.
    pub shape: Shape,
}

impl Type {
    /// A float value.
    pub fn float(extent: Extent, shape: impl Into<Shape>) -> Type {
        Type { dtype: DType::F32, extent, shape: shape.into() }
    }

    /// An integer value.
    pub fn int(extent: Extent, shape: impl Into<Shape>) -> Type {
        Type { dtype: DType::I32, extent, shape: shape.into() }
    }

    /// The same type with another shape.
    pub fn reshaped(&self, shape: impl Into<Shape>) -> Type {
        Type { dtype: self.dtype, extent: self.extent, shape: shape.into() }
    }

    /// The same type with another extent.
    pub fn at(&self, extent: Extent) -> Type {
        Type { dtype: self.dtype, extent, shape: self.shape.clone() }
    }

    /// Whether derivatives can run through it.
    pub fn is_float(&self) -> bool {
        self.dtype == DType::F32
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::I32 => "i32",
        })
    }
}

/// `f32[28, 128]`, `f32[B, 128]`, `i32[T, B]`, and `f32` for a shared scalar.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let letters = self.extent.letters();
        write!(f, "{}", self.dtype)?;
        if letters.is_empty() && self.shape.rank() == 0 {
            return Ok(());
        }
        write!(f, "[{letters}")?;
        for (i, n) in self.shape.0.iter().enumerate() {
            write!(f, "{}{n}", if i > 0 || !letters.is_empty() { ", " } else { "" })?;
        }
        write!(f, "]")
    }
}
