//! The products of a tile kernel: from the table that came with its code to calls of the micro-kernel.
//!
//! Generated code says which block it is at; what its operands are, and how far apart their rows, is in the
//! [`TileProducts`] of its kernel. See there.

use std::mem::MaybeUninit;

use retrograd_compiler::codegen::{Place, RowPart, TileProduct, TileProducts};

use super::{GemmCall, GemmFn, Hint, Segment};

/// Segments of A that one call of the micro-kernel takes; a product of more goes on in the next call from its own sums.
const SEGMENTS: usize = 8;
/// Rows that are fetched ahead for each product, at most.
const HINTS: usize = 32;

/// A block of a tile kernel.
pub(super) struct Block {
    pub bases: *const *mut u8,
    pub scratch: *mut u8,
    pub first_panel: usize,
    pub panels: usize,
    pub first_row: usize,
    pub rows: usize,
}

impl Block {
    /// The first element of a part of the rows.
    ///
    /// # Safety
    /// The kernel has such an access.
    unsafe fn row<E>(&self, part: &RowPart) -> *mut E {
        // SAFETY: the caller's promise.
        let base = unsafe { *self.bases.add(part.access as usize) }.cast::<E>();
        base.wrapping_add(self.first_row * part.stride as usize + part.offset as usize)
    }
}

/// Computes all products of a table for a block; `nr` columns to a panel.
///
/// # Safety
/// The table is of the kernel whose accesses and scratch the block names, and its rows and panels are there, nowhere else
/// in use. The machine has the instruction set of `gemm`.
#[inline]
pub(super) unsafe fn compute<E: Copy>(table: &TileProducts, block: &Block, nr: usize, gemm: GemmFn<E>) {
    let column = block.first_panel * nr;
    let mut parts = &table.parts[..];
    for (i, product) in table.products.iter().enumerate() {
        let (segments, hinted);
        (segments, parts) = parts.split_at(product.segments as usize);
        (hinted, parts) = parts.split_at(product.hints as usize);
        // SAFETY: for all pointers: the caller's promise, and the plan's that operands have these rows.
        unsafe {
            let place = |place: &Place| match place {
                Place::Rows(part) => (block.row::<E>(part).wrapping_add(column), part.stride as usize, nr),
                Place::Scratch(offset) => (block.scratch.wrapping_add(*offset).cast(), nr, block.rows * nr),
            };
            let (c, c_row, c_panel) = place(&product.into);
            let (start, start_row, start_panel) = product.start.as_ref().map_or((std::ptr::null_mut(), 0, 0), place);
            let mut hints = [MaybeUninit::<Hint<E>>::uninit(); HINTS];
            for (hint, part) in hints.iter_mut().zip(hinted) {
                hint.write(Hint { base: block.row::<E>(part).wrapping_add(column), row: part.stride as usize });
            }
            let packed = |product: &TileProduct, panel: usize| {
                let first = (*block.bases.add(product.packed as usize)).cast::<E>();
                first.wrapping_add(panel * nr * product.k as usize).cast_const()
            };
            let k = product.k as usize;
            // Behind the last product the first one begins, at the next block.
            let next = match table.products.get(i + 1) {
                Some(next) => packed(next, block.first_panel),
                None => packed(&table.products[0], block.first_panel + block.panels),
            };
            let mut call = GemmCall {
                segments: std::ptr::null(),
                segment_count: 0,
                b: packed(product, block.first_panel),
                b_panel: k * nr,
                b_k: nr,
                c,
                c_row,
                c_panel,
                m: block.rows,
                panels: block.panels,
                start,
                start_row,
                start_panel,
                next: if product.far { next } else { std::ptr::null() },
                hints: hints.as_ptr().cast(),
                hint_count: hinted.len().min(HINTS),
            };
            for some in segments.chunks(SEGMENTS) {
                let mut segments = [MaybeUninit::<Segment<E>>::uninit(); SEGMENTS];
                let mut k = 0;
                for (segment, part) in segments.iter_mut().zip(some) {
                    let len = part.len as usize;
                    segment.write(Segment { a: block.row::<E>(part), am: part.stride as usize, ak: 1, k: len });
                    k += len;
                }
                (call.segments, call.segment_count) = (segments.as_ptr().cast(), some.len());
                gemm(&call);
                call.b = call.b.wrapping_add(k * nr);
                (call.start, call.start_row, call.start_panel) = (c, c_row, c_panel);
            }
        }
    }
}
