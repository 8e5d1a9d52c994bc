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
//! # Units
//!
//! Threads share the work by *unit*, a block of rows of C by one panel of columns, numbered block
//! after block. A unit goes through all chunks in order, and each element of C is a single sum in
//! the order of the rows (see [`super`]); so the result has the same bits however the units are
//! shared out. A thread packs what its units need: units with the same block of rows share that
//! block's packing of A, which is why a range of units, not a set, is what a thread is given.
//!
//! # Which row comes first
//!
//! Strides from row to row may be negative: then the pointers are to the last row in memory, which is
//! summed first. Whoever has the rows in several pieces sums them piece after piece, accumulating,
//! and the bits are those of one sum over all of them.

use super::pack::GROUP;
use super::tile::{Aside, TILE_ROWS, k_chunk};
use super::vector::{LINE, RowProducts, prefetch_near};
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
/// Rows that [`reduce_rows`] adds at a time: few enough for their pages to stay mapped.
const SUM_ROWS: usize = 32;

/// `C (+)= Aᵀ·B`: `c[i*ldc + j] (+)= Σ_r a[r*lda + i] · b[r*ldb + j]` for `i < ki`, `j < n`,
/// `r < rows`, in the order of r.
#[derive(Clone, Copy, Debug)]
pub struct ReduceProduct<E> {
    pub a: *const E,
    pub lda: isize,
    pub ki: usize,
    pub b: *const E,
    pub ldb: isize,
    pub n: usize,
    pub rows: usize,
    pub c: *mut E,
    pub ldc: usize,
    /// Where the sums of the columns of B go, `sums[j] (+)= Σ_r b[r*ldb + j]`, or null.
    pub sums: *mut E,
    /// Whether to add to what C and the sums hold.
    pub accumulate: bool,
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
        // The packed A, one packed panel of B, the panels of C that are staged, and room to align.
        block.div_ceil(TILE_ROWS) * tile_len::<E>(chunk) + chunk * kernels.nr + staged * block * kernels.nr + 3 * LINE
    }

    /// The first of some panels of C that is summed in scratch, as are those behind it: of all panels, when C is read and
    /// written again for many chunks, because its rows may lie a multiple of a page apart, share sets of the cache and
    /// look like each other's addresses, or when sums have a row among its own; else of the last one, if it reaches past C.
    fn first_staged(&self, kernels: &Kernels<E>, panels: &Range<usize>) -> usize {
        let chunks = self.rows.div_ceil(k_chunk::<E>(kernels.nr));
        if chunks >= STAGED_CHUNKS || !self.sums.is_null() { panels.start } else { panels.end.min(self.n / kernels.nr) }
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
    let (staged, _) = aligned(scratch, (panels.end - first_staged) * panel_len);

    // SAFETY: rows of C, in a panel's columns, and behind them the sums.
    let c_row = |panel: usize, row: usize| unsafe {
        if row < rows.len() { job.c.add((rows.start + row) * job.ldc + panel * nr) } else { job.sums.add(panel * nr) }
    };
    let width_of = |panel: usize| nr.min(job.n - panel * nr);
    let staged_row = |staged: &mut [E], panel: usize, row: usize| {
        staged[(panel - first_staged) * panel_len + row * nr..][..nr].as_mut_ptr()
    };
    if job.accumulate {
        side_by_side(first_staged..panels.end, all_rows, |panel, row| {
            // SAFETY: so many elements remain in this row of C, and a panel's row has room for them.
            unsafe { copy(c_row(panel, row), staged_row(staged, panel, row), width_of(panel)) }
        });
    }

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
        let steps = chunk_rows.min(job.rows - start);
        let a = row(job.a, start, job.lda).wrapping_add(rows.start);
        // Otherwise the first panel packs A in passing.
        let beforehand = rows.len() <= UNPACKED_ROWS || width_of(panels.start) < nr;
        if beforehand {
            // SAFETY: the chunk's rows of A, from the block's first column on, are readable.
            unsafe { pack_tiles(a, job.lda, rows.len(), steps, a_tile, packed_a) };
        } else if has_sums {
            // SAFETY: as above, from the first column of the last tile on.
            unsafe {
                pack_tiles(a.wrapping_add(rows.len() - tail), job.lda, tail, steps, a_tile, &mut packed_a[tail_tile..])
            };
        }
        let segment = Segment { a: packed_a.as_mut_ptr().cast_const(), am: 1, ak: TILE_ROWS, k: steps };
        let mut panel = panels.start;
        while panel < panels.end {
            let source_of = |start: usize, panel: usize| row(job.b, start, job.ldb).wrapping_add(panel * nr);
            let is_ragged = width_of(panel) < nr;
            let packs = is_ragged || rows.len() > UNPACKED_ROWS;
            let group = if packs { 1 } else { panels.end.min(job.n / nr) - panel };
            let source = source_of(start, panel);
            if is_ragged {
                // SAFETY: the chunk's rows of B are readable in the panel's columns.
                unsafe { pack_panel(source, job.ldb, width_of(panel), steps, nr, packed_b) };
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
                start: if job.accumulate || start > 0 { c } else { std::ptr::null() },
                start_row: c_row,
                start_panel: c_panel,
                ..GemmCall::bare()
            };
            let packs_a = panel == panels.start && !beforehand;
            panel += group;
            // The rows of B that will be packed next. They lie far apart, so waiting for them then
            // would cost more than the packing itself.
            let hint =
                if panel < panels.end { source_of(start, panel) } else { source_of(start + steps, panels.start) };
            let aside = Aside {
                a_tile,
                a_source: if packs_a { a } else { std::ptr::null() },
                a_source_k: steps_of(job.lda),
                packs_tail: !has_sums,
                b_source: if packs && !is_ragged { source } else { std::ptr::null() },
                b_source_k: steps_of(job.ldb),
                hint,
                hint_k: steps_of(job.ldb),
            };
            // SAFETY: A and B are the packed chunk (or whole panels of B itself), C is the scratch
            // copy or whole panels of C.
            unsafe { (kernels.tiled)(&call, &aside) };
        }
        start += steps;
        if start == job.rows {
            break;
        }
    }

    side_by_side(first_staged..panels.end, all_rows, |panel, row| {
        // SAFETY: as above.
        unsafe { copy(staged_row(staged, panel, row), c_row(panel, row), width_of(panel)) }
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
/// `a[r*lda + i]` is readable for `r < steps`, `i < width`.
unsafe fn pack_tiles<E: Element>(
    a: *const E,
    lda: isize,
    width: usize,
    steps: usize,
    tile_len: usize,
    packed: &mut [E],
) {
    for r in 0..steps {
        // SAFETY: the caller's promise.
        let row = unsafe { std::slice::from_raw_parts(row(a, r, lda), width) };
        let ahead = self::row(a, r + PACK_AHEAD, lda);
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
/// `b[r*ldb + j]` is readable for `r < steps`, `j < width`.
unsafe fn pack_panel<E: Element>(b: *const E, ldb: isize, width: usize, steps: usize, nr: usize, packed: &mut [E]) {
    // A full panel of a usual width, with a length the compiler knows.
    unsafe fn full<E: Element, const NR: usize>(b: *const E, ldb: isize, rows: &mut [[E; NR]]) {
        for (r, packed) in rows.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *packed = unsafe { row(b, r, ldb).cast::<[E; NR]>().read() };
        }
    }
    let packed = &mut packed[..steps * nr];
    // SAFETY: the caller's promise.
    unsafe {
        match (nr, width == nr) {
            (4, true) => full(b, ldb, packed.as_chunks_mut::<4>().0),
            (8, true) => full(b, ldb, packed.as_chunks_mut::<8>().0),
            (16, true) => full(b, ldb, packed.as_chunks_mut::<16>().0),
            (32, true) => full(b, ldb, packed.as_chunks_mut::<32>().0),
            _ => {
                for (r, packed) in packed.chunks_exact_mut(nr).enumerate() {
                    let from = std::slice::from_raw_parts(row(b, r, ldb), width);
                    packed[..width].copy_from_slice(from);
                    packed[width..].fill(E::default());
                }
            }
        }
    }
}

/// `c[j] (+)= Σ_r b[r*ldb + j]` for `j < n`, `r < rows`, in the order of r; each element times one of another matrix, if
/// there is one.
#[derive(Clone, Copy, Debug)]
pub struct ReduceRows<E> {
    pub b: *const E,
    pub ldb: isize,
    /// What to multiply by, and its stride.
    pub times: Option<(*const E, isize)>,
    pub n: usize,
    pub rows: usize,
    pub c: *mut E,
    /// Whether to add to what C holds.
    pub accumulate: bool,
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
/// This is the product of a row of ones with B: multiplying by one is exact, so a fused
/// multiply-add is an addition, and the columns that fill no panel can simply be added. With products there are two
/// roundings in those columns, and one in the others: then columns are shared out by [`ReduceRows::columns`].
///
/// # Safety
/// B and what it is multiplied by must be readable and C writable as [`ReduceRows`] describes, without overlap. Other threads may
/// sum other columns at the same time; nothing else may write to B or C.
pub unsafe fn reduce_rows<E: Element>(kernels: &Kernels<E>, job: &ReduceRows<E>, columns: Range<usize>) {
    assert!(columns.start <= columns.end && columns.end <= job.n, "columns {columns:?} of {}", job.n);
    let panels = columns.len() / kernels.nr;
    let tail = columns.start + panels * kernels.nr..columns.end;
    if let Some((a, lda)) = job.times {
        for start in (0..job.rows.max(1)).step_by(SUM_ROWS) {
            let products = RowProducts {
                a: row(a, start, lda).wrapping_add(columns.start),
                lda,
                b: row(job.b, start, job.ldb).wrapping_add(columns.start),
                ldb: job.ldb,
                c: job.c.wrapping_add(columns.start),
                panels,
                rows: SUM_ROWS.min(job.rows - start),
                accumulate: job.accumulate || start > 0,
            };
            // SAFETY: whole panels inside the columns, over rows that exist.
            unsafe { (kernels.row_products)(&products) };
        }
        for j in tail {
            // SAFETY: column `j` of B, what it is multiplied by, and C.
            unsafe {
                let c = job.c.add(j);
                let terms = (0..job.rows).map(|r| (*row(a, r, lda).add(j)).times(*row(job.b, r, job.ldb).add(j)));
                *c = terms.fold(if job.accumulate { *c } else { E::default() }, E::plus);
            }
        }
        return;
    }
    let one = E::ONE;
    let mut start = 0;
    loop {
        let steps = SUM_ROWS.min(job.rows - start);
        let segment = Segment { a: &one, am: 0, ak: 0, k: steps };
        let c = job.c.wrapping_add(columns.start);
        let call = GemmCall {
            segments: &segment,
            segment_count: 1,
            b: row(job.b, start, job.ldb).wrapping_add(columns.start),
            b_panel: kernels.nr,
            b_k: steps_of(job.ldb),
            c,
            c_row: 0,
            c_panel: kernels.nr,
            m: 1,
            panels,
            start: if job.accumulate || start > 0 { c } else { std::ptr::null() },
            start_row: 0,
            start_panel: kernels.nr,
            ..GemmCall::bare()
        };
        // SAFETY: whole panels inside the columns, over rows that exist.
        unsafe { (kernels.gemm)(&call) };
        start += steps;
        if start == job.rows {
            break;
        }
    }
    for j in tail {
        // SAFETY: column `j` of B and C.
        unsafe {
            let c = job.c.add(j);
            let mut sum = if job.accumulate { *c } else { E::default() };
            for r in 0..job.rows {
                sum = sum.plus(*row(job.b, r, job.ldb).add(j));
            }
            *c = sum;
        }
    }
}
