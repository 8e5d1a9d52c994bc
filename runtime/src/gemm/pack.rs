//! Packing B into panels.
//!
//! The packed form of a `k × n` matrix is `⌈n/nr⌉` panels; a panel is `k` rows of `nr` neighbouring
//! columns, one after the other, so that a micro-kernel walks it from front to back. Columns past
//! `n` are zero. Several matrices may be packed behind each other along k into the same panels, which
//! is what the `dst_panel` and `dst_k` arguments are for.

use super::Element;
use std::ops::Range;

/// Whole panels that are written side by side when rows of the source are contiguous. One after the other, each would read
/// a line of every page of the source: 1024 × 4096 of `f32`, from memory, 4.0 GB/s; by eights 10.8, by sixteens 8.9.
pub(super) const GROUP: usize = 8;

/// A matrix to be packed: `B(k, n) = src[k*k_stride + n*n_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct PackB<'a, E> {
    pub src: &'a [E],
    pub k_stride: usize,
    pub n_stride: usize,
    pub k: usize,
    pub n: usize,
}

impl<E> PackB<'_, E> {
    /// Panels of `nr` columns this matrix packs to.
    pub fn panels(&self, nr: usize) -> usize {
        self.n.div_ceil(nr)
    }
}

/// Packs the given panels of a matrix.
///
/// `dst` begins with the first of `panels`, so threads packing different panels can be given
/// disjoint pieces of one buffer; panels are `dst_panel` elements apart and this matrix's rows start
/// at row `dst_k` of each. Nothing outside rows `dst_k .. dst_k + k` is written.
///
/// # Panics
/// If `src` or `dst` is too short, or `panels` reaches past the matrix.
pub fn pack_b<E: Element>(
    matrix: &PackB<'_, E>,
    nr: usize,
    dst: &mut [E],
    dst_panel: usize,
    dst_k: usize,
    panels: Range<usize>,
) {
    assert!(panels.end <= matrix.panels(nr), "panels {panels:?} of {}", matrix.panels(nr));
    if matrix.k == 0 || panels.is_empty() {
        return;
    }
    let end = (panels.len() - 1) * dst_panel + (dst_k + matrix.k) * nr;
    assert!(dst.len() >= end, "{end} elements are packed into {}", dst.len());
    let mut packed = Packed { dst, panel: dst_panel, k: dst_k, first: panels.start };
    let whole = panels.start..panels.end.min(matrix.n / nr).max(panels.start);
    let rest = match nr {
        4 => whole_panels::<E, 4>(matrix, whole, &mut packed),
        8 => whole_panels::<E, 8>(matrix, whole, &mut packed),
        16 => whole_panels::<E, 16>(matrix, whole, &mut packed),
        32 => whole_panels::<E, 32>(matrix, whole, &mut packed),
        _ => whole.start,
    };
    for panel in rest..panels.end {
        one_by_one(matrix, panel, nr, &mut packed);
    }
}

/// Where panels go.
struct Packed<'a, E> {
    dst: &'a mut [E],
    /// From panel to panel.
    panel: usize,
    /// The row that is the matrix's first one.
    k: usize,
    /// The panel that `dst` begins with.
    first: usize,
}

impl<E> Packed<'_, E> {
    /// Rows of a panel from the matrix's row `k` on.
    fn rows(&mut self, panel: usize, nr: usize, k: usize) -> &mut [E] {
        &mut self.dst[(panel - self.first) * self.panel + (self.k + k) * nr..]
    }
}

/// Packs panels that are not cut off at the side, if one of the strides is 1; gives the first that is not packed.
fn whole_panels<E: Element, const NR: usize>(
    matrix: &PackB<'_, E>,
    panels: Range<usize>,
    packed: &mut Packed<'_, E>,
) -> usize {
    if matrix.n_stride == 1 {
        for first in panels.clone().step_by(GROUP) {
            let last = panels.end.min(first + GROUP);
            for k in 0..matrix.k {
                let source = &matrix.src[k * matrix.k_stride..][first * NR..last * NR];
                let stride = packed.panel.max(1);
                for (row, to) in source.as_chunks::<NR>().0.iter().zip(packed.rows(first, NR, k).chunks_mut(stride)) {
                    to[..NR].copy_from_slice(row);
                }
            }
        }
    } else if matrix.k_stride == 1 {
        panels.clone().for_each(|panel| turn_columns::<E, NR>(matrix, panel, packed));
    } else {
        return panels.start;
    }
    panels.end
}

/// Columns of the source are contiguous: turns blocks of them, so that four whole rows of the panel are written at a time.
fn turn_columns<E: Element, const NR: usize>(matrix: &PackB<'_, E>, panel: usize, packed: &mut Packed<'_, E>) {
    let column = |j: usize| &matrix.src[(panel * NR + j) * matrix.n_stride..][..matrix.k];
    let columns: [&[E]; NR] = std::array::from_fn(column);
    let dst = &mut packed.rows(panel, NR, 0)[..matrix.k * NR];
    let (rows, _) = dst.as_chunks_mut::<NR>();
    let (fours, rest) = rows.as_chunks_mut::<4>();
    for (i, four) in fours.iter_mut().enumerate() {
        for j in (0..NR).step_by(4) {
            let part = |c: usize| *columns[j + c][4 * i..].first_chunk().expect("four steps of k are left");
            for (row, part) in four.iter_mut().zip(E::turned(std::array::from_fn(part))) {
                row[j..j + 4].copy_from_slice(&part);
            }
        }
    }
    let done = 4 * fours.len();
    for (k, row) in (done..).zip(rest) {
        *row = columns.map(|column| column[k]);
    }
}

/// Any panel, element by element: the one that is cut off at the side, mostly.
fn one_by_one<E: Element>(matrix: &PackB<'_, E>, panel: usize, nr: usize, packed: &mut Packed<'_, E>) {
    let first = panel * nr;
    let columns = nr.min(matrix.n - first);
    let rows = &mut packed.rows(panel, nr, 0)[..matrix.k * nr];
    for (k, row) in rows.chunks_exact_mut(nr).enumerate() {
        for (j, slot) in row[..columns].iter_mut().enumerate() {
            *slot = matrix.src[k * matrix.k_stride + (first + j) * matrix.n_stride];
        }
        row[columns..].fill(E::default());
    }
}
