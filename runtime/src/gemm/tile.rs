//! The micro-kernel and the loops around it.
//!
//! A *tile* is a block of C of `M` rows and `P` panels that stays in registers while k runs: `M·P`
//! times `V` vectors, where a panel is `V` vectors wide. A multiply-add takes about four cycles and
//! two can start in each, so at least eight accumulators must be live; [`TILE_ROWS`] rows of one
//! panel make twelve (with two vectors to a panel), and fewer rows take more panels at once to stay
//! there.
//!
//! # The invariant
//!
//! Every element of C is summed in an order that depends on k alone, whatever the tile it sits in. Products of a *block* of
//! steps of k are added in one register, from zero, and their sum is added to what C starts from, or holds by then. So the
//! tile's shape and the number of rows that are computed together cannot be seen in the bits of a result. A block is a
//! chunk of k, of [`k_chunk`] steps; or [`BLOCK`] steps of a sum over thousands of rows (A stored in tiles, [`Aside`]), of
//! which the length of a chunk cannot be seen, either.
//!
//! # Why blocks
//!
//! Each addition rounds in proportion to what has been summed by then. A sum that starts from a large term, a bias or another
//! product, would round at that term's size each time: so what a product starts from is added last. One long sum of n random
//! terms is off by √(n/2) times the rounding of its result, and blocks keep n small. Additions have execution units of
//! their own on most machines, and those between blocks are not seen in the time.
//!
//! # The loops
//!
//! From outside to inside: blocks of rows (so that the A block stays in the second-level cache),
//! chunks of k (so that one panel's chunk of B stays in the first-level cache), panels, strips of equal tiles down the rows.
//! With a single tile of rows nothing of B is used twice, k is not cut, and strips go along the panels.
//!
//! A strip exists for what is between its tiles. 64 steps of k take 384 cycles, and what leads from one tile to the next is
//! not hidden behind them: 40 cycles when each tile worked out its addresses from its row and panel, 15 as additions to
//! a few addresses (96 × 64 times 64 × 16: 90 to 94 % of the peak; 32 × 256 times 256 × 1024, B from the third cache: 91.8
//! to 93.6 %). It shows more where another thread shares the core, which then decodes half as many instructions.

#![expect(clippy::needless_range_loop, reason = "rows, panels and vectors index several arrays and addresses at once")]

use std::ops::Range;

use super::vector::{LINE, Vector, prefetch, prefetch_near};
use super::{GemmCall, Segment};

/// Rows of the largest tile.
pub(super) const TILE_ROWS: usize = 6;

/// Steps of k whose products are summed from zero; divides every [`k_chunk`].
pub(super) const BLOCK: usize = retrograd_compiler::plan::SUM_BLOCK;

/// Steps of k to a round of the innermost loop, for tiles of so many rows. Three rows of two panels leave no register free
/// of 16, and a compiler that sees several steps reads ahead into one more: 93 % of the peak became 64.
const fn unroll(rows: usize) -> usize {
    if rows == 3 { 1 } else { 4 }
}

/// Elements by which a tile that packs A asks for its rows in advance: some tiles further on.
const A_AHEAD: usize = 4 * TILE_ROWS;

/// Bytes of one panel's k-chunk: half of a small first-level data cache.
const PANEL_BYTES: usize = 16 << 10;

/// Bytes of the block of A that is gone through once for every panel.
const A_BYTES: usize = 192 << 10;

/// Steps of k in a chunk, for panels `nr` elements wide.
pub(super) const fn k_chunk<E>(nr: usize) -> usize {
    PANEL_BYTES / (nr * size_of::<E>())
}

/// A place in the concatenated K dimension: a segment, and an offset within it.
struct Place<E> {
    segment: *const Segment<E>,
    offset: usize,
}

impl<E> Clone for Place<E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<E> Copy for Place<E> {}

impl<E> Place<E> {
    /// The place `steps` further on.
    ///
    /// # Safety
    /// At least `steps` remain from here to the end of the segments.
    #[inline(always)]
    unsafe fn advance(mut self, mut steps: usize) -> Self {
        while steps > 0 {
            // SAFETY: steps remain, so the segment exists.
            let rest = unsafe { (*self.segment).k } - self.offset;
            if steps < rest {
                self.offset += steps;
                break;
            }
            steps -= rest;
            // SAFETY: one past a segment that exists.
            self.segment = unsafe { self.segment.add(1) };
            self.offset = 0;
        }
        self
    }
}

/// What all tiles of one chunk of k share.
struct Chunk<'a, E> {
    call: &'a GemmCall<E>,
    start: Place<E>,
    steps: usize,
    /// Where the accumulators start from, and its distances from row to row and panel to panel; null for zeros.
    from: *const E,
    from_row: usize,
    from_panel: usize,
    /// The call's hints that are followed meanwhile: each chunk has its share.
    hints: Range<usize>,
}

/// Where the next tile reads and writes.
struct Corner<E> {
    /// Where its rows are in A: in rows or, where A is stored in tiles, in elements.
    a_row: usize,
    /// Its first elements of B and C, and of what it starts from: null where that is zeros.
    b: *const E,
    c: *mut E,
    from: *const E,
    /// First row and column.
    row: usize,
    column: usize,
    /// Rows of A that are not packed yet.
    a_source: *const E,
    /// Cache lines to fetch.
    hint: *const E,
}

/// Tiles of one shape, one behind the other: down the rows or, if they are of several panels, along these.
struct Strip<E> {
    tiles: usize,
    /// Where the tile behind the last one starts from, if it does not go on from there.
    after: *const E,
    /// How far cache lines to fetch are apart, and how many are the share of each tile.
    hint_k: usize,
    hint_lines: usize,
}

/// What a call whose A is stored in tiles does besides; see [`drive`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Aside<E> {
    /// Elements from a tile of A to the next.
    pub a_tile: usize,
    /// Where the columns of A are, step after step `a_source_k` elements apart, when its tiles are yet to be packed; or
    /// null.
    pub a_source: *const E,
    pub a_source_k: usize,
    /// Whether the last tile of A is among those to be packed.
    pub packs_tail: bool,
    /// Where the rows of the one panel of B are, `b_source_k` elements apart, when they are yet to be packed; or null.
    pub b_source: *const E,
    pub b_source_k: usize,
    /// Cache lines to fetch, `hint_k` elements apart, one for each step of k.
    pub hint: *const E,
    pub hint_k: usize,
    /// Steps that the first block still has: [`BLOCK`], or fewer where it has begun in a call before.
    pub open: usize,
    /// What that block has summed by then, laid out like C; or null.
    pub begun: *const E,
    /// Where the last block's sum goes, laid out like C, if it goes on in a call to come; or null.
    pub unfinished: *mut E,
}

impl<E> Aside<E> {
    /// Nothing besides.
    pub const fn nothing() -> Self {
        let none = std::ptr::null();
        Self {
            a_tile: 0,
            a_source: none,
            a_source_k: 0,
            packs_tail: true,
            b_source: none,
            b_source_k: 0,
            hint: none,
            hint_k: 0,
            open: BLOCK,
            begun: none,
            unfinished: std::ptr::null_mut(),
        }
    }
}

/// The registers of a tile.
type Sums<T, const V: usize, const M: usize, const P: usize> = [[[T; V]; P]; M];

/// A tile that lies in memory: its first element, and the distances from row to row and from panel to panel.
#[derive(Clone, Copy)]
struct Laid<Pointer> {
    at: Pointer,
    row: usize,
    panel: usize,
}

/// Leaves a block's sums, added to what is there: null for zeros.
///
/// # Safety
/// The machine has `T`'s instructions; both tiles are in memory.
#[inline(always)]
unsafe fn leave<T: Vector, const V: usize, const M: usize, const P: usize>(
    mut sums: Sums<T, V, M, P>,
    to: Laid<*const T::Element>,
    into: Laid<*mut T::Element>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if !to.at.is_null() {
            for m in 0..M {
                for p in 0..P {
                    for v in 0..V {
                        let other = T::load(to.at.add(p * to.panel + m * to.row + v * T::LANES));
                        sums[m][p][v] = other.plus(sums[m][p][v]);
                    }
                }
            }
        }
        for m in 0..M {
            for p in 0..P {
                for v in 0..V {
                    sums[m][p][v].store(into.at.add(p * into.panel + m * into.row + v * T::LANES));
                }
            }
        }
    }
}

/// Reads a tile.
///
/// # Safety
/// As [`leave`].
#[inline(always)]
unsafe fn taken<T: Vector, const V: usize, const M: usize, const P: usize>(
    from: Laid<*mut T::Element>,
) -> Sums<T, V, M, P> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[[T::splat(T::Element::default()); V]; P]; M];
        for m in 0..M {
            for p in 0..P {
                for v in 0..V {
                    sums[m][p][v] = T::load(from.at.add(p * from.panel + m * from.row + v * T::LANES));
                }
            }
        }
        sums
    }
}

/// One step of k: `sum += a ⊗ b`.
///
/// # Safety
/// The machine has `T`'s instructions; `M` elements of A, `am` apart, and a row of each panel of B are readable.
#[inline(always)]
unsafe fn step<T: Vector, const V: usize, const M: usize, const P: usize>(
    sum: &mut [[[T; V]; P]; M],
    a: *const T::Element,
    am: usize,
    b: *const T::Element,
    b_panel: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        // The side with fewer vectors is held, the other passes through one register.
        if M > P * V {
            let mut held = [[T::splat(T::Element::default()); V]; P];
            for p in 0..P {
                for v in 0..V {
                    held[p][v] = T::load(b.add(p * b_panel + v * T::LANES));
                }
            }
            for m in 0..M {
                let passing = T::splat(*a.add(m * am));
                for p in 0..P {
                    for v in 0..V {
                        sum[m][p][v] = sum[m][p][v].fma(passing, held[p][v]);
                    }
                }
            }
        } else {
            let mut held = [T::splat(T::Element::default()); M];
            for m in 0..M {
                held[m] = T::splat(*a.add(m * am));
            }
            for p in 0..P {
                for v in 0..V {
                    let passing = T::load(b.add(p * b_panel + v * T::LANES));
                    for m in 0..M {
                        sum[m][p][v] = sum[m][p][v].fma(held[m], passing);
                    }
                }
            }
        }
    }
}

/// A round of steps of k: A's first element with its distances from row to row and along k, and B's from panel to panel.
///
/// # Safety
/// As [`step`], for [`unroll`] steps.
#[inline(always)]
unsafe fn round<T: Vector, const V: usize, const M: usize, const P: usize>(
    sum: &mut [[[T; V]; P]; M],
    (a, am, ak): (*const T::Element, usize, usize),
    (b, b_panel, b_k): (*const T::Element, usize, usize),
) {
    for u in 0..unroll(M) {
        // SAFETY: the caller's promise.
        unsafe { step::<T, V, M, P>(sum, a.wrapping_add(u * ak), am, b.wrapping_add(u * b_k), b_panel) };
    }
}

/// Computes tiles of one shape over one chunk, and moves the corner on to the one behind them. `TILED` says how A is
/// stored; see [`drive`]. With `PACKS_A` or `PACKS_B`, the rows of A or B are read from their sources and left packed
/// where they are read from otherwise.
///
/// # Safety
/// The machine has `T`'s instructions; the strip's tiles of `M` rows and `P` panels lie inside the call's
/// matrices, and `chunk.steps` steps remain at `chunk.start`.
#[inline(always)]
unsafe fn run<
    T: Vector,
    const TILED: bool,
    const PACKS_A: bool,
    const PACKS_B: bool,
    const V: usize,
    const M: usize,
    const P: usize,
>(
    chunk: &Chunk<'_, T::Element>,
    aside: &Aside<T::Element>,
    strip: &Strip<T::Element>,
    corner: &mut Corner<T::Element>,
) {
    let call = chunk.call;
    // Copies, because for all the compiler knows the sums are stored over what they are copies of.
    let (b_panel, b_k, c_row, c_panel) = (call.b_panel, call.b_k, call.c_row, call.c_panel);
    let (mut from, from_row, from_panel) = (corner.from, chunk.from_row, chunk.from_panel);
    let (mut c, mut b_first, mut a_first, mut hint) = (corner.c, corner.b, corner.a_row, corner.hint);
    let (a_source_k, b_source_k) = (aside.a_source_k, aside.b_source_k);
    // SAFETY: every pointer below is the corner moved by the strip's tiles and fewer than `M` rows, `P`
    // panels and `chunk.steps` steps of k, which the caller has promised to be inside A, B and C. Pointers are
    // moved with wrapping arithmetic where the last step of a loop takes them past the end.
    unsafe {
        for tile in 1..=strip.tiles {
            let mut start = Laid { at: from, row: from_row, panel: from_panel };
            let here = Laid { at: c, row: c_row, panel: c_panel };
            if !from.is_null() {
                // The rows that the next tile begins with. They may be far apart, so the hardware does not foresee them,
                // and by the end of this tile they are here.
                let from_on = if P > 1 { P * from_panel } else { M * from_row };
                from = from.wrapping_add(from_on);
                if tile == strip.tiles && !strip.after.is_null() {
                    from = strip.after;
                }
                for m in 0..M {
                    prefetch_near(from.wrapping_add(m * from_row));
                }
            }
            // One row is in the cache already, or comes in one run.
            if M > 1 {
                for i in chunk.hints.clone() {
                    let hint = &*call.hints.add(i);
                    let at = hint.base.wrapping_add(corner.row * hint.row + corner.column);
                    for m in 0..M {
                        for line in (0..P * V * T::LANES).step_by(LINE / size_of::<T::Element>()) {
                            prefetch_near(at.wrapping_add(m * hint.row + line));
                        }
                    }
                }
            }
            // The block that goes on from call to call, where there is one, is laid out like C.
            let beside = |at: *mut T::Element| Laid { at: at.wrapping_add(c.offset_from(call.c) as usize), ..here };
            let (mut a_source, mut b_source, mut b) = (corner.a_source, aside.b_source, b_first);
            let Place { mut segment, mut offset } = chunk.start;
            let mut a_tile =
                if TILED { (*segment).a.wrapping_add(a_first + offset * TILE_ROWS) } else { std::ptr::null() };
            let mut left = chunk.steps;
            let mut lines = strip.hint_lines;
            // Steps until the block's sum is left; each chunk is a block, too.
            let whole = if TILED { BLOCK } else { k_chunk::<T::Element>(V * T::LANES) };
            let mut block = if TILED { aside.open } else { whole };
            let mut begins = TILED && !aside.begun.is_null();
            loop {
                let mut sum = [[[T::splat(T::Element::default()); V]; P]; M];
                if begins {
                    sum = taken(beside(aside.begun.cast_mut()));
                    begins = false;
                }
                let mut of_block = block.min(left);
                let is_open = of_block < block;
                left -= of_block;
                block = whole;
                while of_block > 0 {
                    let (mut a, am, ak, steps);
                    if TILED {
                        // One segment is all.
                        (a, am, ak, steps) = (a_tile, 1, TILE_ROWS, of_block);
                        a_tile = a_tile.wrapping_add(steps * TILE_ROWS);
                    } else {
                        let Segment { a: first, am: own_am, ak: own_ak, k } = *segment;
                        (am, ak, steps) = (own_am, own_ak, of_block.min(k - offset));
                        a = first.wrapping_add(a_first * am + offset * ak);
                        offset += steps;
                        if offset == k {
                            (segment, offset) = (segment.wrapping_add(1), 0);
                        }
                    }
                    of_block -= steps;
                    if PACKS_A || PACKS_B {
                        for _ in 0..steps {
                            if lines > 0 {
                                prefetch(hint);
                                hint = hint.wrapping_add(strip.hint_k);
                                lines -= 1;
                            }
                            let (a_row, b_row) =
                                (if PACKS_A { a_source } else { a }, if PACKS_B { b_source } else { b });
                            step::<T, V, M, P>(&mut sum, a_row, am, b_row, b_panel);
                            // Behind the step, so that what it has loaded is what is stored.
                            if PACKS_B {
                                for v in 0..V {
                                    let at = v * T::LANES;
                                    T::load(b_source.add(at)).store(b.cast_mut().add(at));
                                }
                            }
                            if PACKS_A {
                                // The tiles behind this one go on along the same rows.
                                prefetch(a_source.wrapping_add(A_AHEAD));
                                a.cast_mut().cast::<[T::Element; M]>().write(a_source.cast::<[T::Element; M]>().read());
                            }
                            a_source = a_source.wrapping_add(a_source_k);
                            b_source = b_source.wrapping_add(b_source_k);
                            (a, b) = (a.wrapping_add(ak), b.wrapping_add(b_k));
                        }
                    } else if b_k == V * T::LANES && (TILED || ak == 1) {
                        // Strides that the compiler knows, and several steps at a time: what is not a multiply-add, the
                        // machine has to look past to see the loads that come.
                        let (ak, b_k) = (if TILED { TILE_ROWS } else { 1 }, V * T::LANES);
                        let unroll = unroll(M);
                        let rounds = steps / unroll;
                        let fetching = lines.min(rounds);
                        lines -= fetching;
                        // Two loops, so that the one that does nothing but multiply asks nothing else.
                        for _ in 0..fetching {
                            prefetch(hint);
                            hint = hint.wrapping_add(strip.hint_k);
                            round::<T, V, M, P>(&mut sum, (a, am, ak), (b, b_panel, b_k));
                            (a, b) = (a.wrapping_add(unroll * ak), b.wrapping_add(unroll * b_k));
                        }
                        for _ in fetching..rounds {
                            round::<T, V, M, P>(&mut sum, (a, am, ak), (b, b_panel, b_k));
                            (a, b) = (a.wrapping_add(unroll * ak), b.wrapping_add(unroll * b_k));
                        }
                        for _ in 0..steps % unroll {
                            step::<T, V, M, P>(&mut sum, a, am, b, b_panel);
                            (a, b) = (a.wrapping_add(ak), b.wrapping_add(b_k));
                        }
                    } else {
                        for _ in 0..steps {
                            step::<T, V, M, P>(&mut sum, a, am, b, b_panel);
                            (a, b) = (a.wrapping_add(ak), b.wrapping_add(b_k));
                        }
                    }
                }
                let goes_on = TILED && is_open && !aside.unfinished.is_null();
                if goes_on {
                    let nothing = Laid { at: std::ptr::null(), row: 0, panel: 0 };
                    leave(sum, nothing, beside(aside.unfinished));
                } else {
                    leave(sum, start, here);
                }
                if left == 0 {
                    break;
                }
                start = Laid { at: here.at.cast_const(), row: c_row, panel: c_panel };
            }
            if P > 1 {
                (b_first, c) = (b_first.wrapping_add(P * b_panel), c.wrapping_add(P * c_panel));
                corner.column += P * V * T::LANES;
            } else {
                c = c.wrapping_add(M * c_row);
                a_first += if TILED { aside.a_tile } else { M };
                corner.row += M;
                corner.a_source = corner.a_source.wrapping_add(M);
            }
        }
    }
    (corner.from, corner.c, corner.b, corner.a_row, corner.hint) = (from, c, b_first, a_first, hint);
}

/// Panels taken at once by a tile of `rows` rows.
#[inline(always)]
fn panels_at_once(rows: usize) -> usize {
    match rows {
        1 => 6,
        2 => 3,
        3 => 2,
        _ => 1,
    }
}

/// Runs a whole call.
///
/// With `TILED`, A is stored in tiles: rows `6i .. 6i+6` begin at `a + i·a_tile` and `am`, `ak` hold
/// within them. If there are sources, all tiles read A from there, and the first one B's rows, and pack them in passing,
/// so that packing costs two stores among a dozen multiply-adds. Meanwhile they fetch the cache lines of the hint.
/// Otherwise A is strided throughout and `aside` is not used.
///
/// # Safety
/// The machine has `T`'s instructions, and the call describes memory as [`GemmCall`] demands. With a source, the call
/// has one panel, at least [`TILE_ROWS`] rows and at most a chunk of k; the sources are readable, A and B writable.
#[inline(always)]
pub(super) unsafe fn drive<T: Vector, const TILED: bool, const V: usize>(
    call: &GemmCall<T::Element>,
    aside: &Aside<T::Element>,
) {
    let nr = V * T::LANES;
    let mut total = 0;
    for s in 0..call.segment_count {
        // SAFETY: the call has that many segments.
        total += unsafe { (*call.segments.add(s)).k };
    }
    let few = call.m <= TILE_ROWS;
    let chunk_steps = if few { total } else { k_chunk::<T::Element>(nr) };
    let block_rows = match chunk_steps.clamp(1, total.max(1)) * size_of::<T::Element>() {
        // No time for divisions where there is one block.
        bytes if TILED || few || call.m * bytes <= A_BYTES => call.m,
        bytes => (A_BYTES / bytes / TILE_ROWS).max(2) * TILE_ROWS,
    };
    // Few rows are one tile, which takes several panels at once.
    let at_once = panels_at_once(call.m);
    let line = LINE / size_of::<T::Element>();
    let has_a_source = TILED && !aside.a_source.is_null();

    let mut block = 0;
    while block < call.m {
        // A block of less than a tile would read all of B for little: the last one takes it along.
        let block_end = if call.m - block <= block_rows + TILE_ROWS { call.m } else { block + block_rows };
        let mut chunk = Chunk {
            call,
            start: Place { segment: call.segments, offset: 0 },
            steps: 0,
            from: call.start,
            from_row: call.start_row,
            from_panel: call.start_panel,
            hints: 0..0,
        };
        let mut k = 0;
        loop {
            chunk.steps = chunk_steps.min(total - k);
            let share = |k: usize| match k {
                0 => 0,
                k if k == total => call.hint_count,
                k => call.hint_count * k / total,
            };
            chunk.hints = share(k)..share(k + chunk.steps);
            // Lines that are fetched meanwhile for each row, so that each tile has its share.
            let row_lines = if TILED {
                chunk.steps.div_ceil(block_end - block)
            } else if !call.next.is_null() && !few {
                (chunk.steps * nr / line).div_ceil(block_end - block)
            } else {
                0
            };
            let from = |panel: usize| match chunk.from.is_null() {
                true => chunk.from,
                false => chunk.from.wrapping_add(panel * chunk.from_panel + block * chunk.from_row),
            };
            let mut panel = 0;
            while panel < call.panels {
                // What the caller has named; or, of weights that are far away, the chunk that comes next: the next
                // panel's, the first panel's further on along k, or that with which the next call begins.
                let (hint, hint_k) = if TILED {
                    (aside.hint, aside.hint_k)
                } else if row_lines > 0 {
                    let b = |panel: usize, k: usize| call.b.wrapping_add(panel * call.b_panel + k * call.b_k);
                    let next = match panel + 1 {
                        behind if behind < call.panels => b(behind, k),
                        _ if k + chunk.steps < total => b(0, k + chunk.steps),
                        _ => call.next,
                    };
                    (next, line)
                } else {
                    (call.b, 0)
                };
                let mut corner = Corner {
                    a_row: if TILED { 0 } else { block },
                    b: call.b.wrapping_add(panel * call.b_panel + k * call.b_k),
                    c: call.c.wrapping_add(panel * call.c_panel + block * call.c_row),
                    from: from(panel),
                    row: block,
                    column: panel * nr,
                    a_source: aside.a_source,
                    hint,
                };
                let mut packs_b = TILED && !aside.b_source.is_null();
                let panels = at_once.min(call.panels - panel);
                let mut left = block_end - block;
                while left > 0 {
                    let (rows, tiles) = match left {
                        // The first tile alone packs B.
                        _ if packs_b => (TILE_ROWS, 1),
                        // All rows, along the panels.
                        _ if panels > 1 => (left, (call.panels - panel) / panels),
                        ..=TILE_ROWS => (left, 1),
                        _ if TILED => (TILE_ROWS, (left - usize::from(has_a_source && !aside.packs_tail)) / TILE_ROWS),
                        // The last two share, so that neither becomes too small to fill the pipeline.
                        7 => (4, 1),
                        8 => (4, 2),
                        9 => (5, 1),
                        10 => (5, 2),
                        _ => (TILE_ROWS, left / TILE_ROWS - usize::from(!matches!(left % TILE_ROWS, 0 | 5))),
                    };
                    let packs_a = has_a_source && (aside.packs_tail || left > TILE_ROWS);
                    left = if panels > 1 { 0 } else { left - rows * tiles };
                    let strip = Strip {
                        tiles,
                        after: if left == 0 && panels == 1 { from(panel + 1) } else { std::ptr::null() },
                        hint_k,
                        hint_lines: row_lines * rows,
                    };
                    macro_rules! shapes {
                        ($(($m:literal, $p:literal))*) => {
                            match (rows, panels) {
                                (TILE_ROWS, 1) if packs_a && packs_b => {
                                    run::<T, TILED, TILED, TILED, V, TILE_ROWS, 1>(&chunk, aside, &strip, &mut corner)
                                }
                                (TILE_ROWS, 1) if packs_b => {
                                    run::<T, TILED, false, TILED, V, TILE_ROWS, 1>(&chunk, aside, &strip, &mut corner)
                                }
                                $(($m, 1) if packs_a => run::<T, TILED, TILED, false, V, $m, 1>(&chunk, aside, &strip, &mut corner),)*
                                $(($m, $p) => run::<T, TILED, false, false, V, $m, $p>(&chunk, aside, &strip, &mut corner),)*
                                _ => unreachable!("no tile of {rows} rows and {panels} panels"),
                            }
                        };
                    }
                    // SAFETY: rows, panels and steps are all cut to what the call has left.
                    unsafe {
                        shapes! {
                            (6, 1) (5, 1) (4, 1) (3, 2) (3, 1) (2, 3) (2, 2) (2, 1)
                            (1, 6) (1, 5) (1, 4) (1, 3) (1, 2) (1, 1)
                        }
                    }
                    packs_b = false;
                    panel += if panels > 1 { panels * tiles } else { usize::from(left == 0) };
                }
            }
            k += chunk.steps;
            if k == total {
                break;
            }
            // SAFETY: the steps just done were there to be done.
            chunk.start = unsafe { chunk.start.advance(chunk.steps) };
            (chunk.from, chunk.from_row, chunk.from_panel) = (call.c, call.c_row, call.c_panel);
        }
        block = block_end;
    }
}
