//! Packing B into panels.
//!
//! The packed form of a `k × n` matrix is `⌈n/nr⌉` panels; a panel is `k` rows of `nr` neighbouring
//! columns, one after the other, so that a micro-kernel walks it from front to back. Columns past
//! `n` are zero. Several matrices may be packed behind each other along k into the same panels, which
//! is what the `dst_panel` and `dst_k` arguments are for.

use super::Element;
use std::ops::Range;

/// Side of the square blocks in which a transposed source is turned: one cache line of `f64`.
const SIDE: usize = 8;

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
    for (slot, panel) in panels.enumerate() {
        let from = slot * dst_panel + dst_k * nr;
        let dst = &mut dst[from..from + matrix.k * nr];
        let first = panel * nr;
        let columns = nr.min(matrix.n - first);
        if matrix.n_stride == 1 {
            copy_rows(matrix, first, columns, nr, dst);
        } else if matrix.k_stride == 1 {
            turn_columns(matrix, first, columns, nr, dst);
        } else {
            gather(matrix, first, columns, nr, dst);
        }
    }
}

/// Rows of the source are contiguous: each row of the panel is a copy.
fn copy_rows<E: Element>(matrix: &PackB<'_, E>, first: usize, columns: usize, nr: usize, dst: &mut [E]) {
    // The full panels of the usual widths, with a length the compiler knows.
    fn fixed<E: Element, const NR: usize>(matrix: &PackB<'_, E>, first: usize, dst: &mut [E]) {
        for (k, row) in dst.as_chunks_mut::<NR>().0.iter_mut().enumerate() {
            let from = k * matrix.k_stride + first;
            row.copy_from_slice(&matrix.src[from..from + NR]);
        }
    }
    match (nr, columns == nr) {
        (4, true) => fixed::<E, 4>(matrix, first, dst),
        (8, true) => fixed::<E, 8>(matrix, first, dst),
        (16, true) => fixed::<E, 16>(matrix, first, dst),
        (32, true) => fixed::<E, 32>(matrix, first, dst),
        _ => {
            for (k, row) in dst.chunks_exact_mut(nr).enumerate() {
                let from = k * matrix.k_stride + first;
                row[..columns].copy_from_slice(&matrix.src[from..from + columns]);
                row[columns..].fill(E::default());
            }
        }
    }
}

/// Columns of the source are contiguous: turns it block by block, so that both sides are touched a
/// cache line at a time.
fn turn_columns<E: Element>(matrix: &PackB<'_, E>, first: usize, columns: usize, nr: usize, dst: &mut [E]) {
    let square_k = matrix.k / SIDE * SIDE;
    let square_n = columns / SIDE * SIDE;
    for k in (0..square_k).step_by(SIDE) {
        for j in (0..square_n).step_by(SIDE) {
            let mut block = [[E::default(); SIDE]; SIDE];
            for (column, line) in block.iter_mut().enumerate() {
                let from = (first + j + column) * matrix.n_stride + k;
                line.copy_from_slice(&matrix.src[from..from + SIDE]);
            }
            for (row, line) in dst[k * nr..].chunks_mut(nr).take(SIDE).enumerate() {
                line[j..j + SIDE].copy_from_slice(&block.map(|column| column[row]));
            }
        }
    }
    // What no whole block covers: the last steps of k, and the last columns of the earlier steps.
    for (k, row) in dst.chunks_exact_mut(nr).enumerate() {
        let done = if k < square_k { square_n } else { 0 };
        for (j, slot) in row.iter_mut().enumerate().take(columns).skip(done) {
            *slot = matrix.src[(first + j) * matrix.n_stride + k];
        }
        row[columns..].fill(E::default());
    }
}

/// Nothing is contiguous: element by element.
fn gather<E: Element>(matrix: &PackB<'_, E>, first: usize, columns: usize, nr: usize, dst: &mut [E]) {
    for (k, row) in dst.chunks_exact_mut(nr).enumerate() {
        for (j, slot) in row.iter_mut().enumerate() {
            *slot = if j < columns {
                matrix.src[k * matrix.k_stride + (first + j) * matrix.n_stride]
            } else {
                E::default()
            };
        }
    }
}
