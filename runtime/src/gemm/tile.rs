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
//! Every element of C has one accumulator, which takes its products in the order of k, whatever
//! the tile it sits in, behind whatever it starts from. Cutting k into chunks keeps this: the
//! accumulator goes to C and is read back unchanged. So neither the tile shape, nor the chunk length,
//! nor the number of rows computed together can be seen in the bits of a result.
//!
//! # The loops
//!
//! From outside to inside: blocks of rows (so that the A block stays in the second-level cache),
//! chunks of k (so that one panel's chunk of B stays in the first-level cache), panels, tiles of
//! rows. With a single tile of rows nothing of B is used twice and k is not cut.

#![expect(clippy::needless_range_loop, reason = "rows, panels and vectors index several arrays and addresses at once")]

use std::ops::Range;

use super::vector::{LINE, Vector, prefetch, prefetch_near};
use super::{GemmCall, Segment};

/// Rows of the largest tile.
pub(super) const TILE_ROWS: usize = 6;

/// Steps of k to a round of the innermost loop.
const UNROLL: usize = 4;

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

/// Where one tile reads and writes: the offset of its rows in A (in elements, the same in every
/// segment once multiplied out by the caller), and its first elements of B and C.
struct Corner<E> {
    a_row: usize,
    b: *const E,
    c: *mut E,
    /// First elements that it starts from, and that the tile behind it does; null where that is zeros.
    from: *const E,
    next_from: *const E,
    /// First row and panel.
    row: usize,
    panel: usize,
    /// Rows of A and B that are not packed yet, and how far they are apart.
    a_source: *const E,
    a_source_k: usize,
    b_source: *const E,
    b_source_k: usize,
    /// Cache lines to fetch, and how far they are apart.
    hint: *const E,
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
    /// Where the rows of the one panel of B are, `b_source_k` elements apart, when they are yet to be packed; or null.
    pub b_source: *const E,
    pub b_source_k: usize,
    /// Cache lines to fetch, `hint_k` elements apart, one for each step of k.
    pub hint: *const E,
    pub hint_k: usize,
}

impl<E> Aside<E> {
    /// Nothing besides.
    pub const fn nothing() -> Self {
        let none = std::ptr::null();
        Self { a_tile: 0, a_source: none, a_source_k: 0, b_source: none, b_source_k: 0, hint: none, hint_k: 0 }
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

/// Computes one tile over one chunk. `TILED` says how `a_row` is meant; see [`drive`]. With `PACKS_A` or `PACKS_B`, the
/// rows of A or B are read from their sources and left packed where they are read from otherwise.
///
/// # Safety
/// The machine has `T`'s instructions; `M` rows and `P` panels from `corner` lie inside the call's
/// matrices, and `chunk.steps` steps remain at `chunk.start`.
#[inline(always)]
unsafe fn tile<
    T: Vector,
    const TILED: bool,
    const PACKS_A: bool,
    const PACKS_B: bool,
    const V: usize,
    const M: usize,
    const P: usize,
>(
    chunk: &Chunk<'_, T::Element>,
    corner: &Corner<T::Element>,
) {
    let call = chunk.call;
    let (b_panel, b_k) = (call.b_panel, call.b_k);
    let mut b = corner.b;
    let (mut a_source, mut b_source, mut hint) = (corner.a_source, corner.b_source, corner.hint);
    let mut left = chunk.steps;
    let mut place = chunk.start;
    // SAFETY: every pointer below is `corner` moved by fewer than `M` rows, `P` panels and
    // `chunk.steps` steps of k, which the caller has promised to be inside A, B and C. Pointers are
    // moved with wrapping arithmetic where the last step of a loop takes them past the end.
    unsafe {
        let mut sum = [[[T::splat(T::Element::default()); V]; P]; M];
        if !corner.from.is_null() {
            for m in 0..M {
                for p in 0..P {
                    for v in 0..V {
                        let at = p * chunk.from_panel + m * chunk.from_row + v * T::LANES;
                        sum[m][p][v] = T::load(corner.from.add(at));
                    }
                }
            }
            // The rows that the next tile begins with. They may be far apart, so the hardware does not foresee them,
            // and by the end of this tile they are here.
            for m in 0..M {
                prefetch_near(corner.next_from.wrapping_add(m * chunk.from_row));
            }
        }
        // One row is in the cache already, or comes in one run.
        for i in if M > 1 { chunk.hints.clone() } else { 0..0 } {
            let hint = &*call.hints.add(i);
            let at = hint.base.wrapping_add(corner.row * hint.row + corner.panel * V * T::LANES);
            for m in 0..M {
                for line in (0..P * V * T::LANES).step_by(LINE / size_of::<T::Element>()) {
                    prefetch_near(at.wrapping_add(m * hint.row + line));
                }
            }
        }
        while left > 0 {
            let segment = &*place.segment;
            let steps = left.min(segment.k - place.offset);
            let (am, ak) = if TILED { (1, TILE_ROWS) } else { (segment.am, segment.ak) };
            let row = if TILED { corner.a_row } else { corner.a_row * am };
            let mut a = segment.a.wrapping_add(row + place.offset * ak);
            if PACKS_A || PACKS_B {
                for i in 0..steps {
                    if i < corner.hint_lines {
                        prefetch(hint);
                        hint = hint.wrapping_add(corner.hint_k);
                    }
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
                    let (a_row, b_row) = (if PACKS_A { a_source } else { a }, if PACKS_B { b_source } else { b });
                    step::<T, V, M, P>(&mut sum, a_row, am, b_row, b_panel);
                    a_source = a_source.wrapping_add(corner.a_source_k);
                    b_source = b_source.wrapping_add(corner.b_source_k);
                    (a, b) = (a.wrapping_add(ak), b.wrapping_add(b_k));
                }
            } else if b_k == V * T::LANES && (TILED || ak == 1) {
                // Strides that the compiler knows, and several steps at a time: what is not a multiply-add, the
                // machine has to look past to see the loads that come.
                let (ak, b_k) = (if TILED { TILE_ROWS } else { 1 }, V * T::LANES);
                for i in 0..steps / UNROLL {
                    if i < corner.hint_lines {
                        prefetch(hint);
                        hint = hint.wrapping_add(corner.hint_k);
                    }
                    for u in 0..UNROLL {
                        step::<T, V, M, P>(&mut sum, a.wrapping_add(u * ak), am, b.wrapping_add(u * b_k), b_panel);
                    }
                    (a, b) = (a.wrapping_add(UNROLL * ak), b.wrapping_add(UNROLL * b_k));
                }
                for _ in 0..steps % UNROLL {
                    step::<T, V, M, P>(&mut sum, a, am, b, b_panel);
                    (a, b) = (a.wrapping_add(ak), b.wrapping_add(b_k));
                }
            } else {
                for _ in 0..steps {
                    step::<T, V, M, P>(&mut sum, a, am, b, b_panel);
                    (a, b) = (a.wrapping_add(ak), b.wrapping_add(b_k));
                }
            }
            left -= steps;
            place = Place { segment: place.segment.wrapping_add(1), offset: 0 };
        }
        for m in 0..M {
            for p in 0..P {
                for v in 0..V {
                    let at = p * call.c_panel + m * call.c_row + v * T::LANES;
                    sum[m][p][v].store(corner.c.add(at));
                }
            }
        }
    }
}

/// Rows of the next tile when `left` remain: as many as fit, except that the last two tiles share
/// so that neither becomes too small to fill the pipeline.
#[inline(always)]
fn next_tile(left: usize) -> usize {
    match left {
        0..=TILE_ROWS => left,
        7 | 8 => 4,
        9 | 10 => 5,
        _ => TILE_ROWS,
    }
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
    let chunk_steps = if call.m <= TILE_ROWS { total } else { k_chunk::<T::Element>(nr) };
    // One tile of rows is one block and one chunk; a step of a stream has few products of more, and no time for divisions.
    let block_rows = if TILED || call.m <= TILE_ROWS {
        call.m
    } else {
        let fitting = A_BYTES / (chunk_steps.clamp(1, total.max(1)) * size_of::<T::Element>());
        (fitting / TILE_ROWS).max(2) * TILE_ROWS
    };
    let at_once = panels_at_once(call.m);
    let line = LINE / size_of::<T::Element>();

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
            let mut panel = 0;
            while panel < call.panels {
                let panels = at_once.min(call.panels - panel);
                // What is fetched meanwhile, each tile its share: what the caller has named; or, of weights that are far
                // away, the chunk that comes next: the next panel's, the first panel's further on along k, or that
                // of the panel behind the call's last one, with which the next call begins.
                let (next_panel, next_k) = match panel + panels {
                    next if next < call.panels => (next, k),
                    _ if k + chunk.steps < total => (0, k + chunk.steps),
                    behind => (behind, 0),
                };
                let (hint, hint_k, all) = if TILED {
                    (aside.hint, aside.hint_k, chunk.steps)
                } else if call.far != 0 && call.m > TILE_ROWS {
                    let next = call.b.wrapping_add(next_panel * call.b_panel + next_k * call.b_k);
                    (next, line, chunk.steps * nr / line)
                } else {
                    (call.b, 0, 0)
                };
                let lines = |m: usize| if all == 0 { 0 } else { all * (m - block) / (block_end - block) };
                let mut m = block;
                while m < block_end {
                    let left = block_end - m;
                    let rows = if TILED { left.min(TILE_ROWS) } else { next_tile(left) };
                    let from = |m: usize, panel: usize| match chunk.from.is_null() {
                        true => std::ptr::null(),
                        false => chunk.from.wrapping_add(panel * chunk.from_panel + m * chunk.from_row),
                    };
                    let next_from =
                        if m + rows < block_end { from(m + rows, panel) } else { from(block, panel + panels) };
                    let corner = Corner {
                        from: from(m, panel),
                        next_from,
                        row: m,
                        panel,
                        a_row: if TILED { m / TILE_ROWS * aside.a_tile } else { m },
                        b: call.b.wrapping_add(panel * call.b_panel + k * call.b_k),
                        c: call.c.wrapping_add(panel * call.c_panel + m * call.c_row),
                        a_source: aside.a_source.wrapping_add(m),
                        a_source_k: aside.a_source_k,
                        b_source: aside.b_source,
                        b_source_k: aside.b_source_k,
                        hint: hint.wrapping_add(lines(m).wrapping_mul(hint_k)),
                        hint_k,
                        hint_lines: lines(m + rows) - lines(m),
                    };
                    let packs_a = TILED && !aside.a_source.is_null();
                    let packs_b = TILED && !aside.b_source.is_null() && m == 0;
                    macro_rules! shapes {
                        ($(($m:literal, $p:literal))*) => {
                            match (rows, panels) {
                                (TILE_ROWS, 1) if packs_a && packs_b => {
                                    tile::<T, TILED, TILED, TILED, V, TILE_ROWS, 1>(&chunk, &corner)
                                }
                                (TILE_ROWS, 1) if packs_b => {
                                    tile::<T, TILED, false, TILED, V, TILE_ROWS, 1>(&chunk, &corner)
                                }
                                $(($m, 1) if packs_a => tile::<T, TILED, TILED, false, V, $m, 1>(&chunk, &corner),)*
                                $(($m, $p) => tile::<T, TILED, false, false, V, $m, $p>(&chunk, &corner),)*
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
                    m += rows;
                }
                panel += panels;
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
