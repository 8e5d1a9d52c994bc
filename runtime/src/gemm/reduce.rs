//! Sums over the rows of tall matrices: the gradients of weights and biases.
//!
//! The gradient of a weight matrix used in every step of every sequence is one product `Aᵀ·B` whose
//! inner dimension is all rows (steps × batch) there are. It is long and both operands lie the
//! wrong way round for the micro-kernels, so it is taken in *chunks* of rows: both operands of a
//! chunk are packed and the product is added to C, which is small.
//!
//! # What it costs beside the multiply-adds
//!
//! Best shares of the register peak of many runs, with nothing else in the process, when each was changed, before and
//! after (what it is now, `gemm_peak` prints):
//!
//! * B is packed by the first tile of each panel, in passing, and its rows are asked for by all tiles of the panel
//!   before, a few lines each: asking for all of them at once filled the queue of misses (256 × 1024: 81 to 86 %).
//! * C is summed in scratch, panel by panel: its own rows are often a multiple of 4096 bytes apart, where they share sets
//!   of the cache, and where loads wait for stores to what looks like the same address (76 to 82 %).
//! * A is packed by the tiles of the first panel, in passing, which ask for its rows some tiles ahead: they are often read
//!   downwards, which the hardware foresees less well (256 × 256: 78 to 84 % by asking two rows ahead while packing all of
//!   a chunk; then 512 × 512 in 0.96 of the time by packing in passing). Tiles are a line further apart than they are long,
//!   so as not to share a few sets of the cache.
//!
//! # Sums of the rows of B
//!
//! The gradient of the bias beside a weight sums the rows of the same B. It is one row more of C, whose row of A is all
//! ones, in the block with the last rows: most often that row finds room in a tile that is not full. Taken for itself the
//! sum reads B once more, from further away: gradients of weights and biases together take 2 to 4 % longer then.
//!
//! # How sums are taken
//!
//! By the row's number, counted from the row that is summed first: blocks of 64 rows each from zero, the blocks within
//! [`NARROW_ROWS`] rows one after another ([`super::tile`]), and those sums in 64 bits. A sum of millions of rows is as exact as one of
//! two thousand. [`reduce_rows`], which reads more than it computes, adds all in 64 bits.
//!
//! Whoever has the rows in several pieces sums them piece after piece, and [`Carry`] takes along what a piece leaves
//! behind: so the bits are those of one sum over all of them.
//!
//! # Units
//!
//! Threads share the work by *unit*, a block of rows of C by one panel of columns, numbered block
//! after block. A unit goes through all chunks in order, and each element of C is summed by the numbers of the rows alone;
//! so the result has the same bits however the units are
//! shared out. A thread packs what its units need: units with the same block of rows share that
//! block's packing of A, which is why a range of units, not a set, is what a thread is given.
//!
//! # Which row comes first
//!
//! Strides from row to row may be negative: then the pointers are to the last row in memory, which is
//! summed first.

use super::pack::GROUP;
use super::tile::{Aside, BLOCK, TILE_ROWS, k_chunk};
use super::vector::{LINE, RowSums, prefetch_near};
use super::{Element, GemmCall, Kernels, Segment};
use std::ops::Range;

/// Bytes of a packed chunk of A: about half of a second-level cache.
const A_BYTES: usize = 272 << 10;
/// Units wanted even when C has few columns, so that there is something to share.
const MIN_UNITS: usize = 16;
/// Rows of C a block keeps at least when it is cut only to make more units.
const MIN_BLOCK: usize = 48;
/// Rows of C up to which packing B costs more than it saves: one or two tiles.
const UNPACKED_ROWS: usize = 2 * TILE_ROWS;
/// Chunks from which on C is summed in scratch and copied at the end.
const STAGED_CHUNKS: usize = 3;
/// Panels of C that are summed together, at most: enough for packing A anew to cost nothing (with half as many a product of
/// 512 by 2048 takes 2 % longer), and few enough for what is staged to be small beside C.
const MOST_PANELS: usize = 64;
/// Rows by which packing A asks for its rows in advance: the hardware foresees them less well downwards than upwards.
const PACK_AHEAD: usize = 2;
/// Rows whose sum is taken in the elements' own width: a multiple of every chunk. Then it goes to 64 bits, which costs a
/// pass over C and its totals; most training steps have no more rows.
const NARROW_ROWS: usize = 2048;

/// What a sum that is taken in several calls keeps from one to the next. Between calls, C holds the sum of the block of
/// `NARROW_ROWS` rows that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Carry<E> {
    /// Rows that the calls before this one have summed.
    pub done: usize,
    /// Whether C has the result after this call.
    pub ends: bool,
    /// 64-bit sums of the blocks that are complete, in an order of [`reduce_product`]'s own:
    /// [`ReduceProduct::carried_len`] of them. Null where one call does it all.
    pub totals: *mut f64,
    /// In the same order, the sum of the block of 64 rows that has begun. May be null where `done` is always a multiple
    /// of that.
    pub begun: *mut E,
}

impl<E> Carry<E> {
    /// Of a sum that is taken in one call.
    pub const fn none() -> Carry<E> {
        Carry { done: 0, ends: true, totals: std::ptr::null_mut(), begun: std::ptr::null_mut() }
    }
}

/// `C = Aᵀ·B`: `c[i*ldc + j] = Σ_r a[r*lda + i] · b[r*ldb + j]` for `i < ki`, `j < n`, over the rows of this call and of
/// those before it, in the order of r.
#[derive(Clone, Copy, Debug)]
pub struct ReduceProduct<E> {
    pub a: *const E,
    pub lda: isize,
    pub ki: usize,
    pub b: *const E,
    pub ldb: isize,
    pub n: usize,
    pub rows: usize,
    /// How many rows lie one behind another without a gap: strides are from the first of so many to that of the next.
    pub pairs: usize,
    pub c: *mut E,
    pub ldc: usize,
    /// Where the sums of the columns of B go, `sums[j] = Σ_r b[r*ldb + j]`, or null.
    pub sums: *mut E,
    /// What it goes on from.
    pub carry: Carry<E>,
}

// SAFETY: the pointers are used only by `reduce_product`, whose contract covers concurrent use.
unsafe impl<E: Sync> Sync for ReduceProduct<E> {}
// SAFETY: as above; the value owns nothing.
unsafe impl<E: Sync> Send for ReduceProduct<E> {}

impl<E: Element> ReduceProduct<E> {
    /// Rows of C in a block: a multiple of the tile, whatever the number of threads.
    fn block_rows(&self, kernels: &Kernels<E>) -> usize {
        let fitting = A_BYTES / (k_chunk::<E>(kernels.nr) * size_of::<E>());
        let panels = self.n.div_ceil(kernels.nr).max(1);
        let for_sharing = MIN_UNITS.div_ceil(panels).min(self.ki / MIN_BLOCK);
        let blocks = self.ki.div_ceil(fitting).max(for_sharing).max(1);
        self.ki.div_ceil(blocks).next_multiple_of(TILE_ROWS).max(TILE_ROWS)
    }

    /// Units of work this product can be shared out in; the whole product is `0..units`.
    pub fn units(&self, kernels: &Kernels<E>) -> usize {
        self.ki.div_ceil(self.block_rows(kernels)).saturating_mul(self.n.div_ceil(kernels.nr))
    }

    /// Elements of scratch that [`reduce_product`] will grow its buffer to.
    pub fn scratch_len(&self, kernels: &Kernels<E>) -> usize {
        let chunk = k_chunk::<E>(kernels.nr);
        // A row more for the sums.
        let block = self.block_rows(kernels) + 1;
        let panels = self.n.div_ceil(kernels.nr);
        let staged = (panels - self.first_staged(kernels, &(0..panels))).min(MOST_PANELS);
        // The packed A, one packed panel of B, the panels of C that are staged, their totals, and room to align.
        let wide = if self.is_carried() || !self.has_totals() { 0 } else { size_of::<f64>() / size_of::<E>() };
        let staged = staged * block * kernels.nr * (1 + wide);
        block.div_ceil(TILE_ROWS) * tile_len::<E>(chunk) + chunk * kernels.nr + staged + 4 * LINE
    }

    /// Elements of what it carries along: whole panels of C, and a row more for the sums.
    pub fn carried_len(&self, kernels: &Kernels<E>) -> usize {
        (self.ki + usize::from(!self.sums.is_null())) * self.n.next_multiple_of(kernels.nr)
    }

    /// Whether there is memory for what several calls sum.
    fn is_carried(&self) -> bool {
        !self.carry.totals.is_null()
    }

    /// Whether a block of [`NARROW_ROWS`] rows is complete by the end of this call, and is not all there is.
    fn has_totals(&self) -> bool {
        let behind = self.carry.done + self.rows;
        behind > NARROW_ROWS || behind == NARROW_ROWS && !self.carry.ends
    }

    /// Row `r` of a matrix, whose rows are so wide and `ld` from the first of some pairs to that of the next.
    fn row(&self, first: *const E, r: usize, width: usize, ld: isize) -> *const E {
        match self.pairs {
            1 => row(first, r, ld),
            pairs => row(first, r / pairs, ld).wrapping_add(r % pairs * width),
        }
    }

    /// The first of some panels of C that is summed in scratch, as are those behind it: of all panels, when C is read and
    /// written again for many chunks, because its rows may lie a multiple of a page apart, share sets of the cache and
    /// look like each other's addresses, when sums have a row among its own, or what is carried along is laid out like it;
    /// else of the last one, if it reaches past C.
    fn first_staged(&self, kernels: &Kernels<E>, panels: &Range<usize>) -> usize {
        let chunks = self.rows.div_ceil(k_chunk::<E>(kernels.nr));
        let is_staged = chunks >= STAGED_CHUNKS || !self.sums.is_null() || self.is_carried();
        if is_staged { panels.start } else { panels.end.min(self.n / kernels.nr) }
    }
}

/// Computes the given units of a weight-gradient product.
///
/// `scratch` is grown on the first call (to [`ReduceProduct::scratch_len`]) and only used after
/// that; its contents mean nothing between calls.
///
/// # Safety
/// A and B must be readable and C and the sums writable as [`ReduceProduct`] describes, overlapping nothing else.
/// Other threads may compute other units of the same product at the same time; nothing else may
/// write to A, B or C.
pub unsafe fn reduce_product<E: Element>(
    kernels: &Kernels<E>,
    job: &ReduceProduct<E>,
    part: Range<usize>,
    scratch: &mut Vec<E>,
) {
    let panels = job.n.div_ceil(kernels.nr);
    let block_rows = job.block_rows(kernels);
    assert!(part.end <= job.units(kernels), "units {part:?} of {}", job.units(kernels));
    let wanted = job.scratch_len(kernels);
    if scratch.len() < wanted {
        scratch.resize(wanted, E::default());
    }
    let mut unit = part.start;
    while unit < part.end {
        let (block, panel) = (unit / panels, unit % panels);
        let end = panels.min(panel + MOST_PANELS.min(part.end - unit));
        let rows = block * block_rows..job.ki.min((block + 1) * block_rows);
        // SAFETY: the caller's promise; the rows and panels lie inside C.
        unsafe { reduce_block(kernels, job, rows, panel..end, scratch) };
        unit += end - panel;
    }
}

/// Computes one block of rows of C, by some panels.
///
/// # Safety
/// As [`reduce_product`].
unsafe fn reduce_block<E: Element>(
    kernels: &Kernels<E>,
    job: &ReduceProduct<E>,
    rows: Range<usize>,
    panels: Range<usize>,
    scratch: &mut [E],
) {
    let nr = kernels.nr;
    let chunk_rows = k_chunk::<E>(nr);
    let a_tile = tile_len::<E>(chunk_rows);
    let has_sums = !job.sums.is_null() && rows.end == job.ki;
    let all_rows = rows.len() + usize::from(has_sums);
    let (packed_a, scratch) = aligned(scratch, all_rows.div_ceil(TILE_ROWS) * a_tile);
    let (packed_b, scratch) = aligned(scratch, chunk_rows * nr);
    let panel_len = all_rows * nr;
    let first_staged = job.first_staged(kernels, &panels);
    let staged_len = (panels.end - first_staged) * panel_len;
    let (staged, scratch) = aligned(scratch, staged_len);
    let (wide, _) = aligned(
        scratch,
        if job.is_carried() || !job.has_totals() { 0 } else { staged_len * size_of::<f64>() / size_of::<E>() },
    );
    let Carry { done, ends, .. } = job.carry;
    let behind = done + job.rows;
    let is_even = done.is_multiple_of(BLOCK) && (ends || behind.is_multiple_of(BLOCK));
    assert!(is_even || !job.carry.begun.is_null(), "a block that goes on in another call is carried");
    assert!(job.is_carried() || done == 0 && ends, "what several calls sum is carried");
    // What lies beside C is laid out like what is staged: block after block of rows, panel after panel, row after row.
    let beside = rows.start * job.n.next_multiple_of(nr) + panels.start * panel_len;
    let totals = match job.is_carried() {
        true => job.carry.totals.wrapping_add(beside),
        false => wide.as_mut_ptr().cast(),
    };
    let begun = job.carry.begun.wrapping_add(beside);
    assert!(totals.is_aligned(), "64 bits need a place that is aligned");

    // SAFETY: rows of C, in a panel's columns, and behind them the sums.
    let c_row = |panel: usize, row: usize| unsafe {
        if row < rows.len() { job.c.add((rows.start + row) * job.ldc + panel * nr) } else { job.sums.add(panel * nr) }
    };
    let width_of = |panel: usize| nr.min(job.n - panel * nr);
    let staged_row = |staged: &mut [E], panel: usize, row: usize| {
        staged[(panel - first_staged) * panel_len + row * nr..][..nr].as_mut_ptr()
    };
    if !done.is_multiple_of(NARROW_ROWS) {
        side_by_side(first_staged..panels.end, all_rows, |panel, row| {
            // SAFETY: so many elements remain in this row of C, and a panel's row has room for them.
            unsafe { copy(c_row(panel, row), staged_row(staged, panel, row), width_of(panel)) }
        });
    }

    let has_totals = job.has_totals();
    // With the row of ones, the last tile is always packed beforehand, behind its other rows.
    let tail = if has_sums { rows.len() % TILE_ROWS } else { 0 };
    let tail_tile = (rows.len() - tail) / TILE_ROWS * a_tile;
    if has_sums {
        packed_a[tail_tile..][..TILE_ROWS * chunk_rows]
            .chunks_exact_mut(TILE_ROWS)
            .for_each(|step| step[tail] = E::ONE);
    }
    let mut start = 0;
    loop {
        let at = done + start;
        let steps = (chunk_rows - at % chunk_rows).min(job.rows - start);
        let is_last = start + steps == job.rows;
        let a = |r: usize| job.row(job.a, start + r, job.ki, job.lda).wrapping_add(rows.start);
        // Otherwise the first panel packs A in passing.
        let beforehand = rows.len() <= UNPACKED_ROWS || width_of(panels.start) < nr || job.pairs > 1;
        if beforehand {
            // SAFETY: the chunk's rows of A, from the block's first column on, are readable.
            unsafe { pack_tiles(a, rows.len(), steps, a_tile, packed_a) };
        } else if has_sums {
            let tail_of = |r: usize| a(r).wrapping_add(rows.len() - tail);
            // SAFETY: as above, from the first column of the last tile on.
            unsafe { pack_tiles(tail_of, tail, steps, a_tile, &mut packed_a[tail_tile..]) };
        }
        let segment = Segment { a: packed_a.as_mut_ptr().cast_const(), am: 1, ak: TILE_ROWS, k: steps };
        let mut panel = panels.start;
        while panel < panels.end {
            let source_of = |r: usize, panel: usize| job.row(job.b, r, job.n, job.ldb).wrapping_add(panel * nr);
            // What tiles cannot pack in passing.
            let is_odd = width_of(panel) < nr || job.pairs > 1;
            let packs = is_odd || rows.len() > UNPACKED_ROWS;
            let group = if packs { 1 } else { panels.end.min(job.n / nr) - panel };
            let source = source_of(start, panel);
            if is_odd {
                // SAFETY: the chunk's rows of B are readable in the panel's columns.
                unsafe { pack_panel(|r| source_of(start + r, panel), width_of(panel), steps, nr, packed_b) };
            }
            let (b, b_k) = if packs { (packed_b.as_mut_ptr().cast_const(), nr) } else { (source, steps_of(job.ldb)) };
            let (c, c_row, c_panel) = if panel >= first_staged {
                (staged[(panel - first_staged) * panel_len..].as_mut_ptr(), nr, panel_len)
            } else {
                (c_row(panel, 0), job.ldc, nr)
            };
            let call = GemmCall {
                segments: &segment,
                segment_count: 1,
                b,
                b_panel: nr,
                b_k,
                c,
                c_row,
                c_panel,
                m: all_rows,
                panels: group,
                // Until its first 64 rows are complete, C holds nothing of a block.
                start: if at % NARROW_ROWS < BLOCK { std::ptr::null() } else { c },
                start_row: c_row,
                start_panel: c_panel,
                ..GemmCall::bare()
            };
            let place = (panel - panels.start) * panel_len;
            let block_ends = (at + steps).is_multiple_of(NARROW_ROWS) || is_last && ends;
            let goes_on = is_last && !ends && !behind.is_multiple_of(BLOCK);
            let begun_at = begun.wrapping_add(place);
            let packs_a = panel == panels.start && !beforehand;
            panel += group;
            // The rows of B that will be packed next. They lie far apart, so waiting for them then
            // would cost more than the packing itself.
            let hint =
                if panel < panels.end { source_of(start, panel) } else { source_of(start + steps, panels.start) };
            let aside = Aside {
                a_tile,
                a_source: if packs_a { a(0) } else { std::ptr::null() },
                a_source_k: steps_of(job.lda),
                packs_tail: !has_sums,
                b_source: if packs && !is_odd { source } else { std::ptr::null() },
                b_source_k: steps_of(job.ldb),
                hint,
                hint_k: steps_of(job.ldb),
                open: BLOCK - at % BLOCK,
                begun: if at.is_multiple_of(BLOCK) { std::ptr::null() } else { begun_at.cast_const() },
                unfinished: if goes_on { begun_at } else { std::ptr::null_mut() },
            };
            // SAFETY: A and B are the packed chunk (or whole panels of B itself), C is the scratch
            // copy or whole panels of C.
            unsafe { (kernels.tiled)(&call, &aside) };
            if has_totals && block_ends {
                let len = group * panel_len;
                // SAFETY: the panels' totals, which are as many as there are elements staged.
                unsafe {
                    let totals = totals.wrapping_add(place);
                    if at < NARROW_ROWS {
                        totals.write_bytes(0, len);
                    }
                    let none = std::ptr::null();
                    (kernels.row_sums)(&RowSums { a: none, lda: 0, b: c, ldb: 0, totals, panels: len / nr, rows: 1 });
                }
            }
        }
        start += steps;
        if start == job.rows {
            break;
        }
    }

    side_by_side(first_staged..panels.end, all_rows, |panel, row| {
        let (into, width) = (c_row(panel, row), width_of(panel));
        // SAFETY: as above.
        unsafe {
            if ends && has_totals {
                let total = totals.add((panel - panels.start) * panel_len + row * nr);
                (0..width).for_each(|j| *into.add(j) = E::nearest(*total.add(j)));
            } else {
                copy(staged_row(staged, panel, row), into, width);
            }
        }
    });
}

/// Visits rows of panels: some panels' parts of a row one behind the other, where they are one run in the whole matrix.
fn side_by_side(panels: Range<usize>, rows: usize, mut visit: impl FnMut(usize, usize)) {
    for first in panels.clone().step_by(GROUP) {
        for row in 0..rows {
            (first..panels.end.min(first + GROUP)).for_each(|panel| visit(panel, row));
        }
    }
}

/// Copies part of a row: all usual widths without a call.
///
/// # Safety
/// As [`copy_nonoverlapping`](std::ptr::copy_nonoverlapping).
#[inline(always)]
unsafe fn copy<E: Copy>(from: *const E, to: *mut E, width: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match width {
            4 => to.cast::<[E; 4]>().write(from.cast::<[E; 4]>().read()),
            8 => to.cast::<[E; 8]>().write(from.cast::<[E; 8]>().read()),
            16 => to.cast::<[E; 16]>().write(from.cast::<[E; 16]>().read()),
            32 => to.cast::<[E; 32]>().write(from.cast::<[E; 32]>().read()),
            _ => std::ptr::copy_nonoverlapping(from, to, width),
        }
    }
}

/// Elements from one packed tile of A to the next: a line more than it holds, since all tiles are written in turn, and
/// would share a few sets of the first-level cache otherwise.
const fn tile_len<E>(steps: usize) -> usize {
    TILE_ROWS * steps + LINE / size_of::<E>()
}

/// The address of row `r`, which need not be there.
fn row<E>(first: *const E, r: usize, ld: isize) -> *const E {
    first.wrapping_offset(r as isize * ld)
}

/// A stride as the kernels take it: they move by it with wrapping arithmetic only, one row at a time, so a negative
/// one may be its two's complement.
fn steps_of(ld: isize) -> usize {
    ld as usize
}

/// Cuts `len` elements that start on a cache line off the front of `scratch`.
fn aligned<E>(scratch: &mut [E], len: usize) -> (&mut [E], &mut [E]) {
    // `align_offset` may decline; then the block is merely slower.
    let skip = scratch.as_ptr().align_offset(LINE).min(LINE);
    scratch[skip..].split_at_mut(len)
}

/// Packs `steps` rows of `width` columns into tiles: tile `t` holds columns `6t .. 6t+6` of all
/// rows, six to a row, and begins at `t·tile_len`. Columns past `width` are left as they were; no kernel reads them.
///
/// # Safety
/// `width` elements are readable from each of the rows `a(0)` to `a(steps - 1)` on.
unsafe fn pack_tiles<E: Element>(
    a: impl Fn(usize) -> *const E,
    width: usize,
    steps: usize,
    tile_len: usize,
    packed: &mut [E],
) {
    for r in 0..steps {
        // SAFETY: the caller's promise.
        let row = unsafe { std::slice::from_raw_parts(a(r), width) };
        let ahead = a(r + PACK_AHEAD);
        (0..width).step_by(LINE / size_of::<E>()).for_each(|j| prefetch_near(ahead.wrapping_add(j)));
        let (whole, rest) = row.as_chunks::<TILE_ROWS>();
        let mut to = r * TILE_ROWS;
        for six in whole {
            packed[to..to + TILE_ROWS].copy_from_slice(six);
            to += tile_len;
        }
        if !rest.is_empty() {
            packed[to..to + rest.len()].copy_from_slice(rest);
        }
    }
}

/// Packs `steps` rows of `width` columns into one panel of `nr`, filling it up with zeros.
///
/// # Safety
/// `width` elements are readable from each of the rows `b(0)` to `b(steps - 1)` on.
unsafe fn pack_panel<E: Element>(
    b: impl Fn(usize) -> *const E,
    width: usize,
    steps: usize,
    nr: usize,
    packed: &mut [E],
) {
    // A full panel of a usual width, with a length the compiler knows.
    unsafe fn full<E: Element, const NR: usize>(b: impl Fn(usize) -> *const E, rows: &mut [[E; NR]]) {
        for (r, packed) in rows.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *packed = unsafe { b(r).cast::<[E; NR]>().read() };
        }
    }
    let packed = &mut packed[..steps * nr];
    // SAFETY: the caller's promise.
    unsafe {
        match (nr, width == nr) {
            (4, true) => full(b, packed.as_chunks_mut::<4>().0),
            (8, true) => full(b, packed.as_chunks_mut::<8>().0),
            (16, true) => full(b, packed.as_chunks_mut::<16>().0),
            (32, true) => full(b, packed.as_chunks_mut::<32>().0),
            _ => {
                for (r, packed) in packed.chunks_exact_mut(nr).enumerate() {
                    let from = std::slice::from_raw_parts(b(r), width);
                    packed[..width].copy_from_slice(from);
                    packed[width..].fill(E::default());
                }
            }
        }
    }
}

/// `c[j] = Σ_r b[r*ldb + j]` for `j < n`, over the rows of this call and of those before it, in the order of r and in 64
/// bits; each element times one of another matrix, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct ReduceRows<E> {
    pub b: *const E,
    pub ldb: isize,
    /// What to multiply by, and its stride.
    pub times: Option<(*const E, isize)>,
    pub n: usize,
    pub rows: usize,
    pub c: *mut E,
    /// What it goes on from; what has begun is not used.
    pub carry: Carry<E>,
}

// SAFETY: the pointers are used only by `reduce_rows`, whose contract covers concurrent use.
unsafe impl<E: Sync> Sync for ReduceRows<E> {}
// SAFETY: as above; the value owns nothing.
unsafe impl<E: Sync> Send for ReduceRows<E> {}

impl<E: Element> ReduceRows<E> {
    /// Panels of columns; the last may not be whole.
    pub fn panels(&self, kernels: &Kernels<E>) -> usize {
        self.n.div_ceil(kernels.nr)
    }

    /// The columns of some panels.
    pub fn columns(&self, kernels: &Kernels<E>, panels: Range<usize>) -> Range<usize> {
        self.n.min(panels.start * kernels.nr)..self.n.min(panels.end * kernels.nr)
    }
}

/// Sums the given columns. Each is one sum in the order of the rows, so the bits do not depend on
/// how the columns are shared out.
///
/// With products of 64-bit elements there are two roundings in the columns that fill no panel, and one in the others where
/// the machine fuses: so columns are shared out by [`ReduceRows::columns`].
///
/// `scratch` is grown to the number of columns where nothing is carried.
///
/// # Safety
/// B and what it is multiplied by must be readable and C writable as [`ReduceRows`] describes, without overlap. Other threads may
/// sum other columns at the same time; nothing else may write to B or C.
pub unsafe fn reduce_rows<E: Element>(
    kernels: &Kernels<E>,
    job: &ReduceRows<E>,
    columns: Range<usize>,
    scratch: &mut Vec<f64>,
) {
    assert!(columns.start <= columns.end && columns.end <= job.n, "columns {columns:?} of {}", job.n);
    let totals = match job.carry.totals.is_null() {
        false => job.carry.totals.wrapping_add(columns.start),
        true => {
            scratch.resize(scratch.len().max(columns.len()), 0.0);
            scratch.as_mut_ptr()
        }
    };
    // SAFETY: the totals are those of these columns, and nobody else's.
    let totals = unsafe { std::slice::from_raw_parts_mut(totals, columns.len()) };
    if job.carry.done == 0 {
        totals.fill(0.0);
    }
    let panels = columns.len() / kernels.nr;
    let (times, lda) = job.times.unwrap_or((std::ptr::null(), 0));
    if panels > 0 {
        let sums = RowSums {
            a: if times.is_null() { times } else { times.wrapping_add(columns.start) },
            lda,
            b: job.b.wrapping_add(columns.start),
            ldb: job.ldb,
            totals: totals.as_mut_ptr(),
            panels,
            rows: job.rows,
        };
        // SAFETY: whole panels inside the columns, over rows that exist.
        unsafe { (kernels.row_sums)(&sums) };
    }
    let first = panels * kernels.nr;
    for (j, total) in (columns.start + first..columns.end).zip(&mut totals[first..]) {
        for r in 0..job.rows {
            // SAFETY: column `j` of B, and of what it is multiplied by.
            unsafe {
                let factor = if times.is_null() { 1.0 } else { (*row(times, r, lda).add(j)).wide() };
                *total += (*row(job.b, r, job.ldb).add(j)).wide() * factor;
            }
        }
    }
    if job.carry.ends {
        for (j, &total) in columns.zip(&*totals) {
            // SAFETY: column `j` of C.
            unsafe { *job.c.add(j) = E::nearest(total) };
        }
    }
}
