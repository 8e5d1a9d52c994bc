//! What a run is given: named arrays, borrowed, checked against the program's types before a kernel sees them.
//!
//! A [`Feed`] is made anew for each run and holds views only. [`resolve`] matches it with the inputs of a program:
//! after it, every view has the dtype, rank and features that its input declares, all agree on the batch and on the
//! length of each time axis (at least 1), and every integer is within the bound of what it indexes. Nothing behind it
//! checks again.
//!
//! The shape of an array is the extent, then the features: `[T, B, features..]` for a sequence,
//! `[B, features..]` for a value per sample, `[features..]` for a shared one. Views may have any strides.
//!
//! Inputs that an update replaces (carried states, moments of an optimiser) belong to the session, not to the feed.

use std::fmt;
use std::ops::Range;

use ndarray::{ArrayView, ArrayViewD, Axis as Along, Dimension, IxDyn, Slice};
use retrograd_compiler::ir::{Axis, DType, Extent, Ignored, Input, Program, Sizes, Type};

use crate::error::{RunError, nearest, outer, rank};
use crate::memory;

/// A borrowed array of one of the element types.
#[derive(Clone, Debug)]
pub enum View<'a> {
    /// Floats.
    F32(ArrayViewD<'a, f32>),
    /// Labels and indices.
    I32(ArrayViewD<'a, i32>),
}

impl View<'_> {
    /// The same for a shorter time.
    pub(crate) fn reborrow(&self) -> View<'_> {
        match self {
            View::F32(a) => View::F32(a.view()),
            View::I32(a) => View::I32(a.view()),
        }
    }

    /// Some of the blocks of its first dimension.
    pub(crate) fn rows(&self, rows: Range<usize>) -> View<'_> {
        let rows = Slice::from(rows);
        match self {
            View::F32(a) => View::F32(a.slice_axis(Along(0), rows)),
            View::I32(a) => View::I32(a.slice_axis(Along(0), rows)),
        }
    }

    /// Extent and features.
    pub fn shape(&self) -> &[usize] {
        match self {
            View::F32(a) => a.shape(),
            View::I32(a) => a.shape(),
        }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            View::F32(_) => DType::F32,
            View::I32(_) => DType::I32,
        }
    }
}

/// Named arrays for one run.
///
/// ```
/// use retrograd_runtime::feed::Feed;
/// let rows = ndarray::Array3::<f32>::zeros((50, 8, 28));
/// let label = [3, 1, 4, 1, 5, 9, 2, 6];
/// let feed = Feed::new().f32("rows", rows.view()).i32_slice("label", &[8], &label);
/// # let _ = feed;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Feed<'a> {
    arrays: Vec<(&'a str, Result<View<'a>, BadSlice<'a>>)>,
    batch: Option<usize>,
    steps: Vec<(&'a str, usize)>,
}

/// A slice whose length is not that of its shape, kept until the feed is resolved.
#[derive(Clone, Copy, Debug)]
struct BadSlice<'a> {
    shape: &'a [usize],
    length: usize,
}

fn shaped<'a, A>(shape: &'a [usize], values: &'a [A]) -> Result<ArrayViewD<'a, A>, BadSlice<'a>> {
    ArrayView::from_shape(IxDyn(shape), values)
        .ok()
        // ndarray takes a slice that is longer than its shape asks for.
        .filter(|view| view.len() == values.len())
        .ok_or(BadSlice { shape, length: values.len() })
}

impl<'a> Feed<'a> {
    /// Nothing yet.
    pub fn new() -> Feed<'a> {
        Feed::default()
    }

    /// Gives an input of floats.
    #[must_use]
    pub fn f32<D: Dimension>(self, name: &'a str, values: ArrayView<'a, f32, D>) -> Feed<'a> {
        self.with(name, Ok(View::F32(values.into_dyn())))
    }

    /// Gives an input of integers.
    #[must_use]
    pub fn i32<D: Dimension>(self, name: &'a str, values: ArrayView<'a, i32, D>) -> Feed<'a> {
        self.with(name, Ok(View::I32(values.into_dyn())))
    }

    /// Gives an input of floats as a row-major slice.
    #[must_use]
    pub fn f32_slice(self, name: &'a str, shape: &'a [usize], values: &'a [f32]) -> Feed<'a> {
        self.with(name, shaped(shape, values).map(View::F32))
    }

    /// Gives an input of integers as a row-major slice.
    #[must_use]
    pub fn i32_slice(self, name: &'a str, shape: &'a [usize], values: &'a [i32]) -> Feed<'a> {
        self.with(name, shaped(shape, values).map(View::I32))
    }

    /// Says how many samples there are, for a program none of whose inputs tells.
    #[must_use]
    pub fn batch(mut self, samples: usize) -> Feed<'a> {
        self.batch = Some(samples);
        self
    }

    /// Says how long a time axis is, for a program none of whose inputs tells. The axis goes by the name that it has
    /// in the program or in printed types (`T`, `T1` ..).
    #[must_use]
    pub fn steps(mut self, axis: &'a str, steps: usize) -> Feed<'a> {
        self.steps.push((axis, steps));
        self
    }

    /// All arrays with their names.
    pub(crate) fn arrays(&self) -> Result<impl Iterator<Item = (&'a str, &View<'a>)>, RunError> {
        for (name, array) in &self.arrays {
            if let Err(bad) = array {
                let (input, shape) = (name.to_string(), bad.shape.to_vec());
                return Err(RunError::WrongLength { input, shape, length: bad.length });
            }
        }
        Ok(self.arrays.iter().filter_map(|(name, array)| Some((*name, array.as_ref().ok()?))))
    }

    /// Whether a program has an input of each of its names.
    pub(crate) fn check_names(&self, program: &Program) -> Result<(), RunError> {
        self.arrays.iter().try_for_each(|(name, _)| position(program, name).map(|_| ()))
    }

    /// The same views for a shorter time, so that others can join them.
    pub(crate) fn reborrow(&self) -> Feed<'_> {
        let arrays =
            self.arrays.iter().map(|(name, array)| (*name, array.as_ref().map(View::reborrow).map_err(|bad| *bad)));
        Feed { arrays: arrays.collect(), batch: self.batch, steps: self.steps.clone() }
    }

    /// The same for some of the steps of an axis: a feed that fits the program is cut along it.
    pub(crate) fn window(&self, program: &Program, on: Axis, steps: Range<usize>) -> Feed<'_> {
        let mut feed = self.reborrow();
        let timed = |name: &str| program.input(name).is_some_and(|i| program.ty(i.value).extent == Extent::Time(on));
        for ((name, array), own) in self.arrays.iter().zip(&mut feed.arrays) {
            if let (true, Ok(view)) = (timed(name), array) {
                own.1 = Ok(view.rows(steps.clone()));
            }
        }
        for (name, n) in &mut feed.steps {
            if axis(program, name).is_ok_and(|a| a == on) {
                *n = steps.len();
            }
        }
        feed
    }

    /// Both together.
    pub(crate) fn and(mut self, other: &'a Feed) -> Feed<'a> {
        let other = other.reborrow();
        self.arrays.extend(other.arrays);
        self.steps.extend(other.steps);
        self.batch = self.batch.or(other.batch);
        self
    }

    /// Gives an input that was looked at before.
    pub(crate) fn view(self, name: &'a str, view: View<'a>) -> Feed<'a> {
        self.with(name, Ok(view))
    }

    /// The same without the arrays whose names are not to be kept.
    pub(crate) fn only(&self, keep: impl Fn(&str) -> bool) -> Feed<'_> {
        let mut feed = self.reborrow();
        feed.arrays.retain(|(name, _)| keep(name));
        feed
    }

    /// The number of samples, where the feed itself says it.
    pub(crate) fn samples(&self) -> Option<usize> {
        self.batch
    }

    fn with(mut self, name: &'a str, array: Result<View<'a>, BadSlice<'a>>) -> Feed<'a> {
        self.arrays.push((name, array));
        self
    }
}

/// A feed that fits a program.
#[derive(Clone, Debug)]
pub struct Resolved<'f, 'a> {
    /// Sizes that all inputs agree on.
    pub sizes: Sizes,
    /// One for each input of the program in its order; `None` for those that the session holds.
    pub views: Vec<Option<&'f View<'a>>>,
    /// Where samples end.
    pub(crate) ends: Ends,
}

/// Whether runs are given this input; the others are stored values that updates replace.
pub fn is_given(program: &Program, input: &Input) -> bool {
    program.updates.iter().all(|u| u.target != input.value)
}

/// The input of a name that a feed may give.
///
/// # Errors
/// There is none.
pub(crate) fn position(program: &Program, name: &str) -> Result<usize, RunError> {
    let own = |i: &&Input| is_given(program, i);
    program.inputs.iter().position(|i| i.name == name && own(&i)).ok_or_else(|| {
        let declared: Vec<String> = program.inputs.iter().filter(own).map(|i| i.name.clone()).collect();
        let nearest = nearest(name, declared.iter().map(String::as_str)).map(str::to_string);
        RunError::UnknownInput { given: name.to_string(), nearest, declared }
    })
}

/// Matches a feed with the inputs of a program. See the module's text for what holds of the result.
///
/// # Errors
/// The first input that does not fit, in the order of the feed, then in that of the program.
pub fn resolve<'f, 'a>(program: &Program, feed: &'f Feed<'a>) -> Result<Resolved<'f, 'a>, RunError> {
    let mut views = vec![None; program.inputs.len()];
    for (name, array) in &feed.arrays {
        let index = position(program, name)?;
        let view = array.as_ref().map_err(|bad| RunError::WrongLength {
            input: name.to_string(),
            shape: bad.shape.to_vec(),
            length: bad.length,
        })?;
        if views[index].replace(view).is_some() {
            return Err(RunError::GivenTwice { input: name.to_string() });
        }
        check_type(name, view, program.ty(program.inputs[index].value))?;
    }
    for (input, view) in program.inputs.iter().zip(&views) {
        if view.is_none() && is_given(program, input) {
            let expected = program.ty(input.value).clone();
            return Err(RunError::MissingInput { input: input.name.clone(), expected });
        }
    }
    let sizes = sizes(program, feed, &views)?;
    let ends = Ends::of(program, &views, &sizes)?;
    for (input, view) in program.inputs.iter().zip(&views) {
        if let Some(View::I32(values)) = view {
            check_integers(program, input, values, Some(&ends))?;
        }
    }
    Ok(Resolved { sizes, views, ends })
}

/// Where samples end on each axis, if an input says so: the latest end, if several do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends([Option<Vec<usize>>; Axis::MAX as usize]);

impl Ends {
    /// What the lengths among these views say, each of which must be from 0 to the steps of its axis.
    fn of(program: &Program, views: &[Option<&View>], sizes: &Sizes) -> Result<Ends, RunError> {
        let mut ends = Ends::default();
        for (name, axis) in &program.lengths {
            let Some(i) = program.inputs.iter().position(|i| i.name == *name) else { continue };
            let Some(View::I32(lengths)) = views[i] else { continue };
            check_lengths(name, told_once(lengths, 0).iter().copied(), sizes.steps(*axis))?;
            let slot = &mut ends.0[usize::from(axis.0)];
            let own = match slot {
                Some(own) => own,
                None => slot.insert(memory::filled(0, lengths.len()).map_err(|e| e.at(sizes))?),
            };
            own.iter_mut().zip(lengths).for_each(|(own, &length)| *own = (*own).max(length as usize));
        }
        Ok(ends)
    }

    /// Whether a row of an input is a sample's own: an input of one row a step and sample, or another.
    pub(crate) fn counts(&self, extent: Extent, position: &[usize]) -> bool {
        match extent {
            Extent::Time(axis) => {
                let ends = self.0.get(usize::from(axis.0)).and_then(Option::as_ref);
                ends.is_none_or(|ends| position[0] < ends[position[1]])
            }
            _ => true,
        }
    }

    /// The latest end on an axis; `None` if all samples have all steps.
    pub(crate) fn latest(&self, axis: Axis) -> Option<usize> {
        self.0.get(usize::from(axis.0))?.as_ref().map(|ends| ends.iter().copied().max().unwrap_or(0))
    }

    /// Whether there are ends on the axis of an extent.
    pub(crate) fn are_on(&self, extent: Extent) -> bool {
        matches!(extent, Extent::Time(axis) if self.0.get(usize::from(axis.0)).is_some_and(Option::is_some))
    }
}

/// Lengths of samples are from 0 to the steps there are.
pub(crate) fn check_lengths(name: &str, lengths: impl Iterator<Item = i32>, steps: usize) -> Result<(), RunError> {
    for (sample, value) in lengths.enumerate() {
        if usize::try_from(value).map_or(true, |value| value > steps) {
            return Err(RunError::Length { input: name.to_string(), sample, value, steps });
        }
    }
    Ok(())
}

/// Checks all that is asked of an input's integers, wherever they come from: its bound, and, where a number stands for no
/// index, that the others are some. Past samples' ends nothing is asked.
pub(crate) fn check_integers(
    program: &Program,
    input: &Input,
    values: &ArrayViewD<i32>,
    ends: Option<&Ends>,
) -> Result<(), RunError> {
    let extent = program.ty(input.value).extent;
    let ends = ends.filter(|ends| ends.are_on(extent));
    let name = || input.name.clone();
    if let Some(bound) = input.bound {
        let outside = |v: i32| usize::try_from(v).map_or(true, |v| v >= bound);
        if let Some((position, value)) = first_wrong(values, extent, ends, outside) {
            return Err(RunError::OutOfRange { input: name(), position, value, bound });
        }
    }
    for ignored in program.ignored.iter().filter(|i| i.value == input.value) {
        let Ignored { rows: bound, number, .. } = *ignored;
        let outside = |v: i32| v != number && usize::try_from(v).map_or(true, |v| v >= bound);
        if let Some((position, value)) = first_wrong(values, extent, ends, outside) {
            return Err(RunError::NoLabel { input: name(), position, value, bound, ignored: number });
        }
    }
    Ok(())
}

/// The first value in row-major order that is wrong and not past its sample's end, and where it is.
fn first_wrong(
    values: &ArrayViewD<i32>,
    extent: Extent,
    ends: Option<&Ends>,
    wrong: impl Fn(i32) -> bool,
) -> Option<(Vec<usize>, i32)> {
    let once = told_once(values, 0);
    let any_wrong = match once.as_slice_memory_order() {
        Some(values) => values.iter().any(|&v| wrong(v)),
        None => once.iter().any(|&v| wrong(v)),
    };
    if !any_wrong {
        return None;
    }
    // Samples differ in where they end. Steps that are one repeated do not differ but in being past it: the first of them
    // counts if any does.
    let apart = match ends {
        Some(_) => {
            let mut apart = told_once(values, 2);
            if apart.strides()[0] == 0 {
                apart.slice_axis_inplace(Along(0), Slice::from(..1));
            }
            apart
        }
        None => once,
    };
    let counts = |at: &IxDyn| ends.is_none_or(|ends| ends.counts(extent, &[at[0], at[1]]));
    let found = apart.indexed_iter().find(|(at, v)| wrong(**v) && counts(at));
    found.map(|(at, &value)| (at.as_array_view().to_vec(), value))
}

/// What a view repeats, once, from this dimension on: a broadcast may be said to be longer than anything that is there.
fn told_once<'v>(values: &'v ArrayViewD<i32>, from: usize) -> ArrayViewD<'v, i32> {
    let mut values = values.view();
    for axis in from..values.ndim() {
        if values.strides()[axis] == 0 && values.shape()[axis] > 1 {
            values.slice_axis_inplace(Along(axis), Slice::from(..1));
        }
    }
    values
}

pub(crate) fn check_type(name: &str, view: &View, ty: &Type) -> Result<(), RunError> {
    let (input, given, expected) = (|| name.to_string(), || view.shape().to_vec(), || ty.clone());
    if view.dtype() != ty.dtype {
        return Err(RunError::WrongDType { input: input(), given: view.dtype(), expected: expected() });
    }
    if view.shape().len() != rank(ty) {
        return Err(RunError::WrongRank { input: input(), given: given(), expected: expected() });
    }
    if view.shape()[outer(ty.extent)..] != ty.shape.0 {
        return Err(RunError::WrongFeatures { input: input(), given: given(), expected: expected() });
    }
    Ok(())
}

/// Who said how large an extent is.
#[derive(Clone, Copy)]
enum By<'s> {
    Input(&'s str),
    Batch,
    Steps(&'s str),
}

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            By::Input(name) => write!(f, "input `{name}`"),
            By::Batch => write!(f, "`Feed::batch`"),
            By::Steps(axis) => write!(f, "`Feed::steps` of `{axis}`"),
        }
    }
}

/// What has been said so far: first the batch, then the time axes by number.
#[derive(Default)]
struct Said<'s>([Option<(By<'s>, usize)>; 1 + Axis::MAX as usize]);

impl<'s> Said<'s> {
    fn add(&mut self, extent: Extent, by: By<'s>, size: usize) -> Result<(), RunError> {
        if size == 0 {
            return Err(RunError::EmptyExtent { extent, by: by.to_string() });
        }
        let (first, first_size) = *self.0[slot(extent)].get_or_insert((by, size));
        if first_size != size {
            let (first, second) = (first.to_string(), by.to_string());
            return Err(RunError::SizesDiffer { extent, first, first_size, second, second_size: size });
        }
        Ok(())
    }

    fn get(&self, extent: Extent) -> Option<usize> {
        self.0[slot(extent)].map(|(_, size)| size)
    }
}

fn slot(extent: Extent) -> usize {
    match extent {
        Extent::Time(axis) => 1 + usize::from(axis.0),
        _ => 0,
    }
}

/// The sizes that the inputs and the feed itself say; each that the program computes with is said by someone.
fn sizes(program: &Program, feed: &Feed, views: &[Option<&View>]) -> Result<Sizes, RunError> {
    let mut said = Said::default();
    for (input, view) in program.inputs.iter().zip(views) {
        let Some(view) = view else { continue };
        let (by, extent) = (By::Input(&input.name), program.ty(input.value).extent);
        if let Extent::Time(_) = extent {
            said.add(extent, by, view.shape()[0])?;
        }
        if extent != Extent::Shared {
            said.add(Extent::Batch, by, view.shape()[outer(extent) - 1])?;
        }
    }
    if let Some(samples) = feed.batch {
        said.add(Extent::Batch, By::Batch, samples)?;
    }
    for &(name, steps) in &feed.steps {
        let axis = axis(program, name)?;
        said.add(Extent::Time(axis), By::Steps(name), steps)?;
    }
    let axes = program.axes.len().max(1) as u8;
    let extents = std::iter::once(Extent::Batch).chain((0..axes).map(|a| Extent::Time(Axis(a))));
    for extent in extents.filter(|&e| said.get(e).is_none()) {
        // Only now is it worth to walk the graph: does anything have this extent?
        if program.graph.values().any(|v| program.ty(v).extent.join(extent) == Some(program.ty(v).extent)) {
            return Err(RunError::UnknownSize { extent });
        }
    }
    Ok(Sizes {
        batch: said.get(Extent::Batch).unwrap_or(1),
        steps: (0..axes).map(|a| said.get(Extent::Time(Axis(a))).unwrap_or(1)).collect(),
    })
}

/// A time axis by its name in the program or by its letter in texts.
pub(crate) fn axis(program: &Program, name: &str) -> Result<Axis, RunError> {
    let axes = (0..program.axes.len() as u8).map(Axis);
    let mut named = axes.filter(|a| program.axes[usize::from(a.0)] == name || a.letter() == name);
    named.next().ok_or_else(|| RunError::UnknownAxis { given: name.to_string(), declared: program.axes.clone() })
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, Array0, Array2, Array3, arr0, s};
    use retrograd_compiler::ir::{Draft, Op, Update};

    use super::*;

    /// Inputs `rows: f32[T, B, 3]`, `label: i32[T, B]` below 10, `scale: f32[2]`, and one more for each addition.
    fn program(more: &[(&str, Type)]) -> Program {
        draft(more).finish().unwrap()
    }

    fn draft(more: &[(&str, Type)]) -> Draft {
        let mut p = Draft::new("test");
        p.axes.push("time".to_string());
        let time = Extent::Time(Axis(0));
        let fixed =
            [("rows", Type::float(time, 3)), ("label", Type::int(time, ())), ("scale", Type::float(Extent::Shared, 2))];
        for (name, ty) in fixed.iter().chain(more) {
            let value = p.graph.leaf(Op::Input(name.to_string()), ty.clone());
            let bound = (ty.dtype == DType::I32).then_some(10);
            p.inputs.push(Input { name: name.to_string(), value, bound });
        }
        p
    }

    fn check(feed: &Feed, expected: &str) {
        let more = [("start", Type::float(Extent::Batch, [2, 2]))];
        let e = resolve(&program(&more), feed).expect_err("the feed is wrong");
        assert_eq!(e.to_string(), expected);
    }

    const SCALE: [f32; 2] = [1.0, 2.0];

    #[test]
    fn views_come_in_the_order_of_the_program() {
        let p = program(&[("start", Type::float(Extent::Batch, [2, 2]))]);
        let (rows, label, start) = (Array3::zeros((5, 4, 3)), Array2::from_elem((5, 4), 9), Array3::zeros((4, 2, 2)));
        let feed = Feed::new()
            .f32("start", start.view().into_dyn())
            .i32("label", label.view())
            .f32_slice("scale", &[2], &SCALE)
            .f32("rows", rows.view());
        let resolved = resolve(&p, &feed).unwrap();
        assert_eq!(resolved.sizes, Sizes::new(5, 4));
        let shapes: Vec<&[usize]> = resolved.views.iter().map(|v| v.unwrap().shape()).collect();
        assert_eq!(shapes, [&[5, 4, 3][..], &[5, 4], &[2], &[4, 2, 2]]);
    }

    #[test]
    fn each_mistake_has_its_text() {
        let (rows, start) = (Array3::<f32>::zeros((5, 4, 3)), Array3::<f32>::zeros((4, 2, 2)));
        let label = Array2::<i32>::zeros((5, 4));
        let all = || {
            let feed = Feed::new().f32("rows", rows.view()).i32("label", label.view());
            feed.f32_slice("scale", &[2], &SCALE).f32("start", start.view())
        };
        let without = |name: &str| {
            let mut feed = all();
            feed.arrays.retain(|(n, _)| *n != name);
            feed
        };
        check(
            &all().f32_slice("row", &[2], &SCALE),
            "the program has no input `row` (did you mean `rows`?); its inputs are `rows`, `label`, `scale`, `start`",
        );
        check(&without("scale"), "input `scale` is missing: the program takes f32[2]");
        check(&all().f32_slice("scale", &[2], &SCALE), "input `scale` is given twice; each is given once in a run");
        check(
            &without("scale").f32_slice("scale", &[2], &[1.0, 2.0, 3.0]),
            "input `scale` has 3 values, but its shape [2] asks for 2",
        );
        check(
            &without("scale").f32_slice("scale", &[usize::MAX, 2], &SCALE),
            &format!("input `scale` has 2 values, but its shape [{}, 2] asks for more than can be counted", usize::MAX),
        );
        check(
            &without("scale").i32_slice("scale", &[2], &[1, 2]),
            "input `scale` has elements of i32; the program takes f32[2]",
        );
        check(
            &without("rows").f32("rows", rows.slice(s![0, .., ..])),
            "input `rows` has 2 dimensions: [4, 3]; the program takes f32[T, B, 3], which has 3 dimensions",
        );
        check(
            &without("rows").f32("rows", rows.slice(s![.., .., 1..])),
            "input `rows` has shape [5, 4, 2]; the program takes f32[T, B, 3]",
        );
        check(
            &without("label").i32("label", label.slice(s![2.., ..])),
            "input `label` says T = 3, but input `rows` says T = 5: all inputs of a run agree",
        );
        check(
            &without("start").f32("start", start.slice(s![1.., .., ..])),
            "input `start` says B = 3, but input `rows` says B = 4: all inputs of a run agree",
        );
        check(&all().batch(2), "`Feed::batch` says B = 2, but input `rows` says B = 4: all inputs of a run agree");
        check(
            &all().steps("time", 2),
            "`Feed::steps` of `time` says T = 2, but input `rows` says T = 5: all inputs of a run agree",
        );
        check(&all().steps("tome", 5), "the program has no time axis `tome`; its axes are `time`");
        check(
            &without("rows").f32("rows", rows.slice(s![..0, .., ..])),
            "input `rows` says T = 0; at least 1 is needed",
        );
    }

    #[test]
    fn integers_outside_their_bound_are_found_where_they_are() {
        let (rows, start) = (Array3::<f32>::zeros((5, 4, 3)), Array3::<f32>::zeros((4, 2, 2)));
        let mut label = Array2::<i32>::zeros((4, 5));
        let check_label = |label: &Array2<i32>, expected: &str| {
            // Transposed: the views need not be row-major.
            let feed = Feed::new().f32("rows", rows.view()).i32("label", label.t());
            check(&feed.f32_slice("scale", &[2], &SCALE).f32("start", start.view()), expected);
        };
        label[[1, 3]] = 10;
        check_label(&label, "input `label` has 10 at [3, 1]; allowed are 0 to 9");
        label[[1, 3]] = -1;
        check_label(&label, "input `label` has -1 at [3, 1]; allowed are 0 to 9");
        // Every second column of a wider array: no slice at all.
        let mut wide = Array2::<i32>::zeros((5, 8));
        wide[[4, 6]] = i32::MAX;
        wide[[4, 7]] = -5;
        let feed = Feed::new().f32("rows", rows.view()).i32("label", wide.slice(s![.., ..;2]));
        check(
            &feed.f32_slice("scale", &[2], &SCALE).f32("start", start.view()),
            "input `label` has 2147483647 at [4, 3]; allowed are 0 to 9",
        );
    }

    #[test]
    fn what_updates_replace_is_not_given() {
        let mut p = draft(&[("state", Type::float(Extent::Batch, 2))]);
        p.updates.push(Update { target: p.inputs[3].value, value: p.inputs[3].value });
        let p = p.finish().unwrap();
        let (rows, label) = (Array::zeros((1, 1, 3)), Array2::zeros((1, 1)));
        let feed = Feed::new().f32("rows", rows.view()).i32("label", label.view()).f32_slice("scale", &[2], &SCALE);
        assert!(resolve(&p, &feed).unwrap().views[3].is_none());
        let feed = feed.f32_slice("state", &[1, 2], &SCALE);
        assert_eq!(
            resolve(&p, &feed).unwrap_err().to_string(),
            "the program has no input `state`; its inputs are `rows`, `label`, `scale`"
        );
    }

    #[test]
    fn integers_that_a_broadcast_repeats_are_looked_at_once() {
        let program = Program::record("tag", |p| {
            let time = p.lengths("length");
            let (x, label) = (time.sequence("x", 2), time.labels("label"));
            p.minimize(p.affine("out", x, 3).cross_entropy(label).mean_over(time));
        })
        .expect("a program");
        let (huge, good, bad) = (1usize << 58, arr0(1i32), arr0(7i32));
        let x = arr0(0.5f32);
        let told = |length: &[i32], steps: usize, samples: usize, label: &Array0<i32>| {
            let feed = Feed::new().f32("x", x.broadcast((steps, samples, 2)).expect("a view"));
            let label = label.broadcast((steps, samples)).expect("a view");
            let shape = [length.len()];
            let feed = match length.len() == samples {
                true => feed.i32_slice("length", &shape, length),
                false => feed.i32("length", good.broadcast(samples).expect("a view")),
            };
            resolve(&program, &feed.i32("label", label)).map(|_| ()).map_err(|e| e.to_string())
        };
        assert_eq!(told(&[1, 0], huge, 2, &good), Ok(()));
        // Of a sample that has no steps, no label counts.
        assert_eq!(told(&[0, 0], huge, 2, &bad), Ok(()));
        let error = told(&[0, 1], huge, 2, &bad).unwrap_err();
        assert!(error.contains("[0, 1]") && error.contains('7'), "{error}");
        let error = told(&[], 1, huge, &good).unwrap_err();
        assert!(error.contains("bytes"), "{error}");
    }

    #[test]
    fn sizes_that_no_input_tells_are_asked_for() {
        let mut p = Draft::new("generate");
        p.axes = vec!["time".to_string(), "out".to_string()];
        p.graph.constant(1.0, Type::float(Extent::Time(Axis(1)), 2));
        let p = p.finish().unwrap();
        let text = |feed: Feed| resolve(&p, &feed).unwrap_err().to_string();
        assert_eq!(text(Feed::new()), "no input says how large B is; say it with `Feed::batch`");
        assert_eq!(text(Feed::new().batch(3)), "no input says how large T1 is; say it with `Feed::steps`");
        assert_eq!(text(Feed::new().batch(0)), "`Feed::batch` says B = 0; at least 1 is needed");
        for name in ["out", "T1"] {
            let sizes = resolve(&p, &Feed::new().batch(3).steps(name, 7)).unwrap().sizes;
            assert_eq!(sizes, Sizes { batch: 3, steps: vec![1, 7] });
        }
    }
}
