//! Along and across the features of a row: products, reductions, shapes, indices.

use std::ops::{Bound, RangeBounds};
use std::panic::Location;

use super::Site;
use super::expr::{Expr, Operand, Typed};
use crate::error::RecordErrorKind as Kind;
use crate::ir::{Binary, Extent, Op, Shape, Type, TypeError};

/// Products.
///
/// ```
/// # use retrograd_compiler::ir::{Init, Program, Shape};
/// # Program::record("doc", |p| {
/// let w = p.parameter("w", [4, 3], Init::Glorot);
/// let (x, a) = (p.input("x", 4), p.input("a", [5, 4]));
/// assert_eq!(x.dot(w).shape(), Shape::from(3)); // x · W, the same W for each sample
/// assert_eq!(a.matmul(x).shape(), Shape::from(5)); // each sample has its own matrix
/// assert_eq!(x.outer(x).shape(), Shape::from([4, 4]));
/// # })?;
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
impl<'r> Expr<'r> {
    /// x · W for every row: `[.., K] · [K, N] → [.., N]`. W is a weight: one for all rows.
    #[track_caller]
    pub fn dot(self, w: Expr<'r>) -> Expr<'r> {
        self.apply(Location::caller(), Op::Dot, &[w.into()])
    }

    /// A product within each row: `[M, K] · [K, N] → [M, N]`, `[M, K] · [K] → [M]`, `[K] · [K, N] → [N]`,
    /// `[K] · [K] → []`. Where a matrix is a weight, this is [`dot`](Expr::dot), so `w.matmul(x)` may be written
    /// where a paper has W x.
    #[track_caller]
    pub fn matmul(self, other: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        self.called("matmul", || self.product(other, site))
    }

    fn product(self, other: Expr<'r>, site: Site) -> Expr<'r> {
        let Some(((a, ta), (b, tb))) = self.both_here(other, site) else { return self.poisoned() };
        let product = |a: Expr<'r>, b: Expr<'r>| a.apply(site, Op::MatMul { ta: false, tb: false }, &[b.into()]);
        let reshaped = |x: Expr<'r>, shape: Vec<usize>| x.apply(site, Op::Reshape(Shape(shape)), &[]);
        let is_weight = |t: &Type| t.extent == Extent::Shared && t.shape.rank() == 2;
        let last = ta.shape.last();
        match (ta.shape.rank(), tb.shape.rank()) {
            (1 | 2, 2) if is_weight(&tb) => a.apply(site, Op::Dot, &[b.into()]),
            (2, 1) if is_weight(&ta) => b.apply(site, Op::DotNt, &[a.into()]),
            (1, 1) if ta.shape == tb.shape => {
                let dot = product(reshaped(a, vec![1, last]), reshaped(b, vec![last, 1]));
                reshaped(dot, vec![])
            }
            (1, 2) => {
                let row = product(reshaped(a, vec![1, last]), b);
                reshaped(row, vec![tb.shape.last()])
            }
            (2, 1) => {
                let column = product(a, reshaped(b, vec![tb.shape.last(), 1]));
                reshaped(column, vec![ta.shape.0[0]])
            }
            _ => product(a, b),
        }
    }

    /// a bᵀ within each row: `[M], [N] → [M, N]`; the features of a matrix count as one vector, row-major.
    #[track_caller]
    pub fn outer(self, other: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        self.called("outer", || {
            let column = self.reshaped_with(site, |n| vec![n.len(), 1]);
            let row = other.reshaped_with(site, |n| vec![1, n.len()]);
            column.apply(site, Op::MatMul { ta: false, tb: false }, &[row.into()])
        })
    }

    /// Σᵢ aᵢ bᵢ along the last axis, within each row: `[.., K], [.., K] → [..]`.
    #[track_caller]
    pub fn inner(self, other: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        self.called("inner", || self.binary(site, Binary::Mul, other).reduce_last(site, "inner", Op::Sum))
    }
}

/// Reductions. Without an axis they go along the last one and remove it; a scalar is its own sum. With an axis
/// they keep it as 1, so that the result meets the value it came from.
///
/// ```
/// # use retrograd_compiler::ir::{Program, Shape};
/// # Program::record("doc", |p| {
/// let x = p.input("x", [5, 4]);
/// assert_eq!(x.mean().shape(), Shape::from(5));
/// assert_eq!((x / x.sum_axis(0)).shape(), Shape::from([5, 4]));
/// # })?;
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
impl<'r> Expr<'r> {
    /// Sum along the last axis.
    #[track_caller]
    pub fn sum(self) -> Expr<'r> {
        self.reduce_last(Location::caller(), "sum", Op::Sum)
    }

    /// Sum along an axis, which stays as 1.
    #[track_caller]
    pub fn sum_axis(self, axis: usize) -> Expr<'r> {
        self.reduce(Location::caller(), "sum_axis", axis, Op::Sum)
    }

    /// Sum of all features of a row: a scalar.
    #[track_caller]
    pub fn sum_features(self) -> Expr<'r> {
        let site = Location::caller();
        let Some((x, ty)) = self.floats_here(site, "sum_features") else { return self.poisoned() };
        if ty.shape.rank() == 0 {
            return x;
        }
        let ones = Shape(vec![1; ty.shape.rank()]);
        x.apply(site, Op::Sum(ones), &[]).apply(site, Op::Reshape(Shape::scalar()), &[])
    }

    /// Mean along the last axis.
    #[track_caller]
    pub fn mean(self) -> Expr<'r> {
        let site = Location::caller();
        let n = self.here(site).map_or(1, |(_, ty)| ty.shape.last());
        self.reduce_last(site, "mean", Op::Sum).over(site, n)
    }

    /// Mean along an axis, which stays as 1.
    #[track_caller]
    pub fn mean_axis(self, axis: usize) -> Expr<'r> {
        let site = Location::caller();
        let n = self.here(site).and_then(|(_, ty)| ty.shape.0.get(axis).copied()).unwrap_or(1);
        self.reduce(site, "mean_axis", axis, Op::Sum).over(site, n)
    }

    /// Mean of all features of a row: a scalar.
    #[track_caller]
    pub fn mean_features(self) -> Expr<'r> {
        let site = Location::caller();
        let n = self.here(site).map_or(1, |(_, ty)| ty.shape.len());
        self.sum_features().over(site, n)
    }

    /// Maximum along the last axis; equal maxima share the derivative.
    #[track_caller]
    pub fn max(self) -> Expr<'r> {
        self.reduce_last(Location::caller(), "max", Op::Max)
    }

    /// Maximum along an axis, which stays as 1.
    #[track_caller]
    pub fn max_axis(self, axis: usize) -> Expr<'r> {
        self.reduce(Location::caller(), "max_axis", axis, Op::Max)
    }

    /// Minimum along the last axis; equal minima share the derivative.
    #[track_caller]
    pub fn min(self) -> Expr<'r> {
        -(-self).max()
    }

    /// Minimum along an axis, which stays as 1.
    #[track_caller]
    pub fn min_axis(self, axis: usize) -> Expr<'r> {
        -(-self).max_axis(axis)
    }

    /// Position of the first maximum along the last axis: `[.., N] → i32[..]`.
    #[track_caller]
    pub fn argmax(self) -> Expr<'r> {
        self.apply(Location::caller(), Op::Argmax, &[])
    }

    pub(super) fn over(self, site: Site, n: usize) -> Expr<'r> {
        if n == 1 { self } else { self.pointwise(site, Op::Binary(Binary::Div), &[Operand::Number(n as f64)]) }
    }

    fn reduce_last(self, site: Site, name: &'static str, op: fn(Shape) -> Op) -> Expr<'r> {
        let Some((x, ty)) = self.floats_here(site, name) else { return self.poisoned() };
        match ty.shape.rank() {
            0 => x,
            rank => {
                let kept = x.reduce(site, name, rank - 1, op);
                kept.apply(site, Op::Reshape(Shape::from(ty.shape.leading())), &[])
            }
        }
    }

    pub(super) fn reduce(self, site: Site, name: &'static str, axis: usize, op: fn(Shape) -> Op) -> Expr<'r> {
        let Some((x, ty)) = self.floats_here(site, name) else { return self.poisoned() };
        match self.checked_axis(site, name, axis, &ty) {
            true => x.apply(site, op(ty.shape.with(axis, 1)), &[]),
            false => self.poisoned(),
        }
    }

    fn checked_axis(self, site: Site, op: &'static str, axis: usize, ty: &Type) -> bool {
        let rank = ty.shape.rank();
        if axis >= rank {
            self.fail(site, Kind::BadAxis { op, axis, given: ty.clone(), rank });
        }
        axis < rank
    }
}

/// Shapes.
///
/// ```
/// # use retrograd_compiler::{ir::{Program, Shape}, record::{concat, stack}};
/// # Program::record("doc", |p| {
/// let (x, h) = (p.input("x", 3), p.input("h", 5));
/// let [a, b] = concat([x, h]).split(); // f32[B, 8] → two of f32[B, 4]
/// let [c, d] = concat([x, h]).split_at([3, 5]);
/// assert_eq!(stack([a, b]).transpose().shape(), Shape::from([4, 2]));
/// assert_eq!(d.slice(1..).shape(), Shape::from(4));
/// # let _ = c;
/// # })?;
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
impl<'r> Expr<'r> {
    /// Equal parts of the last axis: the gates of a cell. How many follows from the pattern that takes them.
    #[track_caller]
    pub fn split<const N: usize>(self) -> [Expr<'r>; N] {
        let site = Location::caller();
        let poison = [self.poisoned(); N];
        let Some((x, ty)) = self.here(site) else { return poison };
        let n = ty.shape.last();
        if ty.shape.rank() == 0 || N == 0 || n % N != 0 {
            let rule = format!("the number of parts must divide it ({n})");
            self.fail(site, Kind::BadSplit { given: ty, parts: format!("{N} equal parts"), rule });
            return poison;
        }
        x.parts(site, &ty, [n / N; N])
    }

    /// Parts of the last axis by their sizes, which must sum to it.
    #[track_caller]
    pub fn split_at<const N: usize>(self, sizes: [usize; N]) -> [Expr<'r>; N] {
        let site = Location::caller();
        let poison = [self.poisoned(); N];
        let Some((x, ty)) = self.here(site) else { return poison };
        let n = ty.shape.last();
        let sum = sizes.iter().try_fold(0usize, |sum, &s| sum.checked_add(s));
        if ty.shape.rank() == 0 || sizes.contains(&0) || sum != Some(n) {
            let rule = format!("sizes must be at least 1 and sum to it ({n})");
            self.fail(site, Kind::BadSplit { given: ty, parts: format!("parts of {sizes:?}"), rule });
            return poison;
        }
        x.parts(site, &ty, sizes)
    }

    fn parts<const N: usize>(self, site: Site, ty: &Type, sizes: [usize; N]) -> [Expr<'r>; N] {
        let axis = ty.shape.rank() - 1;
        let mut start = 0;
        sizes.map(|len| {
            start += len;
            self.apply(site, Op::Slice { axis, start: start - len, len }, &[])
        })
    }

    /// A range of the last axis.
    #[track_caller]
    pub fn slice(self, range: impl RangeBounds<usize>) -> Expr<'r> {
        let site = Location::caller();
        let Some((x, ty)) = self.here(site) else { return self.poisoned() };
        x.sliced(site, "slice", ty.shape.rank().saturating_sub(1), &ty, range)
    }

    /// A range of an axis.
    #[track_caller]
    pub fn slice_axis(self, axis: usize, range: impl RangeBounds<usize>) -> Expr<'r> {
        let site = Location::caller();
        let Some((x, ty)) = self.here(site) else { return self.poisoned() };
        x.sliced(site, "slice_axis", axis, &ty, range)
    }

    fn sliced(
        self,
        site: Site,
        name: &'static str,
        axis: usize,
        ty: &Type,
        range: impl RangeBounds<usize>,
    ) -> Expr<'r> {
        if !self.checked_axis(site, name, axis, ty) {
            return self.poisoned();
        }
        let n = ty.shape.0[axis];
        let start = match range.start_bound() {
            Bound::Included(&i) => i,
            Bound::Excluded(&i) => i.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&i) => i.saturating_add(1),
            Bound::Excluded(&i) => i,
            Bound::Unbounded => n,
        };
        if start >= end || end > n {
            return self.fail(site, Kind::BadRange { op: name, start, end, axis, given: ty.clone(), n });
        }
        self.apply(site, Op::Slice { axis, start, len: end - start }, &[])
    }

    /// The same features, row-major, in another shape.
    #[track_caller]
    pub fn reshape(self, shape: impl Into<Shape>) -> Expr<'r> {
        let site = Location::caller();
        let shape = shape.into();
        if let Ok(recording) = self.home()
            && !recording.with(|state| state.check_shape(site, &shape))
        {
            return self.poisoned();
        }
        self.apply(site, Op::Reshape(shape), &[])
    }

    /// The last two axes exchanged; a vector or scalar as it is.
    #[track_caller]
    pub fn transpose(self) -> Expr<'r> {
        let site = Location::caller();
        let Some((x, ty)) = self.here(site) else { return self.poisoned() };
        let rank = ty.shape.rank();
        if rank < 2 {
            return x;
        }
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(rank - 1, rank - 2);
        x.apply(site, Op::Transpose(order), &[])
    }

    /// Axes in another order: axis i of the result is axis `order[i]` of the value.
    #[track_caller]
    pub fn permute(self, order: impl Into<Vec<usize>>) -> Expr<'r> {
        let (site, op) = (Location::caller(), Op::Transpose(order.into()));
        self.called("permute", || self.apply(site, op, &[]))
    }

    /// Repeated to a shape, by numpy's rule: seen from the right, each dimension is equal or 1.
    #[track_caller]
    pub fn broadcast(self, shape: impl Into<Shape>) -> Expr<'r> {
        let (site, shape) = (Location::caller(), shape.into());
        let Some((x, ty)) = self.floats_here(site, "broadcast") else { return self.poisoned() };
        let lead = shape.rank().checked_sub(ty.shape.rank());
        let fits = lead.is_some_and(|lead| ty.shape.0.iter().zip(&shape.0[lead..]).all(|(&n, &to)| n == to || n == 1));
        if !fits {
            return self.fail(site, Kind::BadBroadcast { given: ty, shape });
        }
        let (Ok(recording), Some(at)) = (x.home(), x.value()) else { return self.poisoned() };
        recording.make(|state| {
            if !state.check_shape(site, &shape) {
                return None;
            }
            let value = state.broadcast(site, at.value, &shape)?;
            Some(super::expr::Value { value, ..at })
        })
    }

    fn reshaped_with(self, site: Site, shape: impl FnOnce(&Shape) -> Vec<usize>) -> Expr<'r> {
        let Some((x, ty)) = self.here(site) else { return self.poisoned() };
        x.apply(site, Op::Reshape(Shape(shape(&ty.shape))), &[])
    }
}

/// By index.
impl<'r> Expr<'r> {
    /// Rows of this table (a weight `[V, D..]`) at indices: `i32[s..] → [s.., D..]`. An input that is an index is
    /// checked at run time to be below V.
    #[track_caller]
    pub fn lookup(self, index: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        self.called("lookup", || self.apply(site, Op::Gather, &[index.into()]))
    }

    /// 1 at the index, 0 elsewhere: `i32[s..] → [s.., N]`.
    #[track_caller]
    pub fn one_hot(self, n: usize) -> Expr<'r> {
        self.apply(Location::caller(), Op::OneHot(n), &[])
    }
}

/// Values one behind another along the last axis: `[h; x]`.
#[track_caller]
pub fn concat<'r>(parts: impl AsRef<[Expr<'r>]>) -> Expr<'r> {
    join(Location::caller(), "concat", parts.as_ref(), |types| match types[0].shape.rank() {
        0 => Err("scalars have no axis to stand along; stack gives them one"),
        rank => Ok(rank - 1),
    })
}

/// Values one behind another along an axis.
#[track_caller]
pub fn concat_axis<'r>(axis: usize, parts: impl AsRef<[Expr<'r>]>) -> Expr<'r> {
    join(Location::caller(), "concat_axis", parts.as_ref(), |_| Ok(axis))
}

/// Values of one shape as a new first axis: n of `[D..]` → `[n, D..]`.
#[track_caller]
pub fn stack<'r>(parts: impl AsRef<[Expr<'r>]>) -> Expr<'r> {
    let site = Location::caller();
    let same = |types: &[Type]| match types.iter().all(|t| t.shape == types[0].shape) {
        true => Ok(0),
        false => Err("all must have the same shape"),
    };
    let rows: Vec<Expr<'r>> = match join_operands(site, "stack", parts.as_ref(), same) {
        Err(poisoned) => return poisoned,
        Ok((_, parts)) => parts.iter().map(|x| x.reshaped_with(site, |s| [&[1], &s.0[..]].concat())).collect(),
    };
    join(site, "stack", &rows, |_| Ok(0))
}

fn join<'r>(
    site: Site,
    name: &'static str,
    parts: &[Expr<'r>],
    axis: impl FnOnce(&[Type]) -> Result<usize, &'static str>,
) -> Expr<'r> {
    match join_operands(site, name, parts, axis) {
        Err(poisoned) => poisoned,
        Ok((axis, parts)) => {
            let rest: Vec<Operand<'r>> = parts[1..].iter().map(|&e| e.into()).collect();
            parts[0].apply(site, Op::Concat(axis), &rest)
        }
    }
}

/// What is joined, in the frame being recorded, and along which axis; the poisoned result if it cannot be.
fn join_operands<'r>(
    site: Site,
    name: &'static str,
    parts: &[Expr<'r>],
    axis: impl FnOnce(&[Type]) -> Result<usize, &'static str>,
) -> Result<(usize, Vec<Expr<'r>>), Expr<'r>> {
    let Some(&first) = parts.first() else { return Err(Expr::nowhere(site, name)) };
    // Of parts that were made of nothing themselves, one stands for all.
    let Some(recording) = parts.iter().find_map(|e| e.home().ok()) else { return Err(first) };
    let typed: Vec<Option<Typed<'r>>> = parts.iter().map(|&e| recording.typed(site, e)).collect();
    let poisoned = recording.make(|_| None);
    let typed: Option<Vec<Typed<'r>>> = typed.into_iter().collect();
    let (parts, types): (Vec<Expr<'r>>, Vec<Type>) = typed.ok_or(poisoned)?.into_iter().unzip();
    match axis(&types) {
        Ok(axis) => Ok((axis, parts)),
        Err(rule) => {
            Err(recording.fail(site, TypeError { op: name.to_string(), given: types, rule: rule.to_string() }))
        }
    }
}
