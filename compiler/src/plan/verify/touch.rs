//! What the work of a stage touches: which elements of which rows, and how far vectors reach.

use crate::plan::{Access, At, BufferId, Matrix, Plan, Span, Stage, Work};

use super::rows::Count;
use super::{Wrong, ensure, kernel};

/// Elements that a stage reads or writes.
#[derive(Clone, Debug)]
pub struct Touch {
    /// The rows.
    pub access: Access,
    /// First element.
    pub first: usize,
    /// The one behind the last.
    pub end: usize,
    /// The one behind the last that vectors touch.
    pub reach: usize,
    /// Whether it is written.
    pub writes: bool,
    /// How many rows it means, if not those of the stage.
    pub count: Option<Count>,
    /// When a kernel touches it: the steps of a chain, which grow along it; `None` where elements are not met one by one.
    pub when: Option<When>,
}

/// When a kernel reads or writes an element, among what else it does with that very element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// A product's sums start from it: the number of the product.
    Start(usize),
    /// A product leaves it: its number.
    Product(usize),
    /// A node reads it.
    Node(usize),
    /// A node leaves it, which depends on these nodes.
    Result(Vec<bool>),
}

impl Touch {
    /// Whether this, which is written, replaces just what the other reads, after it has been read.
    pub fn replaces(&self, other: &Touch) -> bool {
        let same = self.access == other.access && (self.first, self.end) == (other.first, other.end);
        let later = match (&self.when, &other.when) {
            (Some(When::Result(_)), Some(When::Start(_))) => true,
            (Some(When::Product(own)), Some(When::Start(read))) => read <= own,
            (Some(When::Result(needs)), Some(When::Node(node))) => needs[*node],
            _ => false,
        };
        !other.writes && same && later
    }
}

/// Collects what is touched.
struct Touches<'p> {
    plan: &'p Plan,
    all: Vec<Touch>,
}

impl Touches<'_> {
    fn add(&mut self, access: Access, first: usize, len: usize, integer: bool, writes: bool) -> Wrong {
        let buffer = self.plan.buffer(access.buffer)?;
        ensure!(buffer.integer == integer, "`{}` has elements of another type", buffer.name);
        let end = first.checked_add(len).ok_or("elements past all memory")?;
        self.all.push(Touch { access, first, end, reach: end, writes, count: None, when: None });
        Ok(())
    }

    fn reads(&mut self, span: &Span, integer: bool) -> Wrong {
        self.add(span.access, span.offset, span.len, integer, false)
    }

    fn writes(&mut self, span: &Span, integer: bool) -> Wrong {
        self.add(span.access, span.offset, span.len, integer, true)
    }

    /// The last touch means this many rows.
    fn of(&mut self, count: Count) {
        self.all.last_mut().expect("just added").count = Some(count);
    }

    fn shared(&mut self, buffer: BufferId, first: usize, len: usize, writes: bool) -> Wrong {
        self.add(Access { buffer, at: At::Shared }, first, len, false, writes)?;
        self.of(Count::One);
        Ok(())
    }
}

/// Elements from the first to the last of a loop with strides, both included.
pub fn extent(dims: &[usize], strides: &[usize]) -> Option<usize> {
    if dims.len() != strides.len() || dims.contains(&0) {
        return None;
    }
    let last = dims.iter().zip(strides).try_fold(0usize, |sum, (n, s)| sum.checked_add((n - 1).checked_mul(*s)?));
    last?.checked_add(1)
}

/// What a stage touches; whether the numbers of its work fit each other.
pub fn of(plan: &Plan, stage: &Stage) -> Wrong<Vec<Touch>> {
    const FLOAT: bool = false;
    const INTEGER: bool = true;
    let panel = plan.target.panel;
    let mut t = Touches { plan, all: Vec::new() };
    let product = |factors: &[usize]| {
        let product = factors.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        product.ok_or_else(|| "more elements than there is memory".to_string())
    };
    match &stage.work {
        Work::Kernel(kernel) => return kernel::touches(plan, stage, kernel),
        Work::Pack { from, k, n, into, k_total, k_offset } => {
            let Matrix { buffer, offset, k_stride, n_stride } = *from;
            let len = extent(&[*k, *n], &[k_stride, n_stride]).ok_or("a matrix without elements")?;
            t.shared(buffer, offset, len, false)?;
            ensure!(k_offset.checked_add(*k).is_some_and(|end| end <= *k_total), "rows {k_offset} on of {k_total}");
            // It fills its rows of each panel; others have been, or will be, packed there, too.
            t.shared(*into, 0, product(&[n.div_ceil(panel), panel, *k_total])?, true)?;
            ensure!(stage.domain == crate::plan::Domain::Shared, "packing is done once");
        }
        Work::ReduceProduct { a, b, pairs, into, offset, stride, sums, .. } => {
            ensure!(*pairs > 0 && a.len % pairs == 0 && b.len % pairs == 0, "{pairs} pairs of a row");
            t.reads(a, FLOAT)?;
            t.reads(b, FLOAT)?;
            let (rows, columns) = (a.len / pairs, b.len / pairs);
            ensure!(columns <= *stride, "rows of {columns} elements that are {stride} apart");
            let len = extent(&[rows, columns], &[*stride, 1]).ok_or("a product without elements")?;
            t.shared(*into, *offset, len, true)?;
            if let Some(sums) = sums {
                ensure!(*pairs == 1 && sums.len == b.len, "sums of {} for {} columns", sums.len, b.len);
                t.writes(sums, FLOAT)?;
                t.of(Count::One);
            }
        }
        Work::ReduceRows { from, times, into, .. } => {
            let lens = times.iter().map(|times| times.len).chain([into.len]);
            ensure!(lens.into_iter().all(|len| len == from.len), "sums of {} of {}", into.len, from.len);
            t.reads(from, FLOAT)?;
            if let Some(times) = times {
                t.reads(times, FLOAT)?;
            }
            t.writes(into, FLOAT)?;
            t.of(if into.access.at == At::Shared { Count::One } else { Count::Samples });
        }
        Work::MatrixRows { from, into, m, k, n, packed } => {
            ensure!(product(&[*m, *k])? == from.len && product(&[*m, *n])? == into.len, "{m} × {k} times {k} × {n}");
            t.reads(from, FLOAT)?;
            t.shared(*packed, 0, product(&[n.div_ceil(panel), panel, *k])?, false)?;
            t.writes(into, FLOAT)?;
        }
        Work::MatMul { a, b, into, mkn: [m, k, n], .. } => {
            let lens = [product(&[*m, *k])?, product(&[*k, *n])?, product(&[*m, *n])?];
            ensure!(lens == [a.len, b.len, into.len], "{m} × {k} times {k} × {n}");
            t.reads(a, FLOAT)?;
            t.reads(b, FLOAT)?;
            t.writes(into, FLOAT)?;
        }
        Work::Gather { table, index, into, width } => {
            ensure!(*width > 0 && table.len % width == 0, "a table of {} in rows of {width}", table.len);
            ensure!(product(&[index.len, *width])? == into.len, "{} rows of {width}", index.len);
            t.reads(table, FLOAT)?;
            t.of(Count::One);
            t.reads(index, INTEGER)?;
            t.writes(into, FLOAT)?;
        }
        Work::Scatter { index, from, into, width, .. } => {
            ensure!(*width > 0 && into.len % width == 0, "a table of {} in rows of {width}", into.len);
            ensure!(product(&[index.len, *width])? == from.len, "{} rows of {width}", index.len);
            t.reads(index, INTEGER)?;
            t.reads(from, FLOAT)?;
            t.writes(into, FLOAT)?;
            t.of(Count::One);
        }
        Work::OneHot { index, into, n } => {
            ensure!(product(&[index.len, *n])? == into.len, "{} of {n} classes", index.len);
            t.reads(index, INTEGER)?;
            t.writes(into, FLOAT)?;
        }
        Work::Argmax { from, into, n } => {
            ensure!(product(&[into.len, *n])? == from.len, "{} of {n} scores", into.len);
            t.reads(from, FLOAT)?;
            t.writes(into, INTEGER)?;
        }
        Work::ToFloat { from, into } => {
            ensure!(from.len == into.len, "{} of {}", into.len, from.len);
            t.reads(from, INTEGER)?;
            t.writes(into, FLOAT)?;
        }
        Work::Choose { mask, yes, no, into } => {
            ensure!(yes.len == into.len && no.len == into.len, "{} of {} and {}", into.len, yes.len, no.len);
            ensure!(mask.len == 1 || mask.len == into.len, "{} flags for {}", mask.len, into.len);
            t.reads(mask, FLOAT)?;
            t.reads(yes, INTEGER)?;
            t.reads(no, INTEGER)?;
            t.writes(into, INTEGER)?;
        }
        Work::Copy { from, into, dims, strides, into_strides } => {
            let [of, to] = [strides, into_strides].map(|strides| extent(dims, strides));
            let (of, to) = (of.ok_or("a copy of nothing")?, to.ok_or("a copy of nothing")?);
            let integer = plan.buffer(into.access.buffer)?.integer;
            t.add(from.access, from.offset, of, integer, false)?;
            t.add(into.access, into.offset, to, integer, true)?;
        }
        Work::Fill { into, .. } => {
            let integer = plan.buffer(into.access.buffer)?.integer;
            t.writes(into, integer)?;
        }
        Work::PlaceLast { from, into, axis } => {
            ensure!(stage.domain == crate::plan::Domain::Time(*axis), "the last of another axis");
            ensure!(from.len == into.len, "{} of {}", into.len, from.len);
            t.reads(from, FLOAT)?;
            t.of(Count::Samples);
            t.writes(into, FLOAT)?;
        }
        Work::Within { from, into } => {
            ensure!(matches!(stage.domain, crate::plan::Domain::Time(_)), "lengths are of a sequence");
            ensure!((from.len, into.len) == (1, 1), "{} lengths for {}", from.len, into.len);
            t.reads(from, INTEGER)?;
            t.of(Count::Samples);
            t.writes(into, FLOAT)?;
        }
    }
    Ok(t.all)
}
