//! Matrix products: the micro-kernels, with which the tiles of generated code begin, packing, and the weight-gradient
//! product.
//!
//! # Terms
//!
//! * **C = A·B**: A is `m × K`, B is `K × n`, C is `m × n`.
//! * A **panel** is a group of [`Kernels::nr`] neighbouring columns of B and C. B is *packed* when
//!   each panel lies on its own, row after row of `nr` elements; [`pack_b`] does that, filling the
//!   columns past the end with zeros.
//! * A **segment** is a run of the K dimension whose part of A lives in one place. A recurrent cell
//!   multiplies `[x, h]` by one packed weight matrix without ever storing `[x, h]`: two segments.
//! * The **weight gradient** `Aᵀ·B` sums over the rows of two tall matrices: [`reduce_product`]. A
//!   bias gradient is the sum of the rows of one: [`reduce_rows`].
//! * A **small product** is of two matrices that each row has for itself: [`SmallProduct`].
//!
//! # Invariants
//!
//! * Each element of C is summed in an order that depends on k alone: blocks of k from zero, each added to what the sum starts
//!   from, or to the blocks before (`tile`). How many rows or panels are computed together, and on which threads, never
//!   changes a bit. (Different instruction sets may differ: with fused multiply-add there is one
//!   rounding per step, without there are two.)
//! * All strides are in elements, not bytes. No pointer needs more than its element's alignment.
//! * A micro-kernel reads and writes whole panels; matrices with a ragged last panel must be padded,
//!   except in [`reduce_product`] and [`reduce_rows`], which write exactly the matrix they were given.
//!
//! # Choosing the instruction set
//!
//! The kernels are generic over the vector type; each instruction set has one thin entry point
//! that turns its features on and has everything inlined into it. [`Kernels::of`] an [`InstructionSet`] hands
//! them out, if the machine has it.

mod pack;
mod products;
mod reduce;
mod small;
mod tile;
mod vector;

#[cfg(test)]
mod tests;

use std::time::Instant;

use retrograd_compiler::codegen::{InstructionSet, ProductsFn, TileProducts};

pub use pack::{PackB, pack_b};
use products::Block;
pub use reduce::{Carry, ReduceProduct, ReduceRows, reduce_product, reduce_rows};
pub use small::SmallProduct;

/// A run of the K dimension of A: `A(m, k) = a[m*am + k*ak]` for `k` in `0..self.k`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Segment<E> {
    pub a: *const E,
    pub am: usize,
    pub ak: usize,
    pub k: usize,
}

/// One product `C (+)= A·B`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GemmCall<E> {
    /// The segments of A; the K dimension is their concatenation.
    pub segments: *const Segment<E>,
    pub segment_count: usize,
    /// `B(p, k, j) = b[p*b_panel + k*b_k + j]`, `j` in `0..nr`; `k` counts through all segments.
    pub b: *const E,
    pub b_panel: usize,
    pub b_k: usize,
    /// `C(p, m, j) = c[p*c_panel + m*c_row + j]`, `j` in `0..nr`.
    pub c: *mut E,
    pub c_row: usize,
    pub c_panel: usize,
    /// Rows of A and C.
    pub m: usize,
    /// Panels of B and C.
    pub panels: usize,
    /// What the sums start from: `S(p, m, j) = start[p*start_panel + m*start_row + j]`, so that `C = S + A·B`; null for
    /// zeros. It may be C itself.
    pub start: *const E,
    pub start_row: usize,
    pub start_panel: usize,
    /// Where B is so large that it comes from far away: what the next call's B begins with. Then each panel is asked for
    /// while the one before it is used. Else null.
    pub next: *const E,
    /// Memory laid out like C that will be wanted when this product is done.
    pub hints: *const Hint<E>,
    pub hint_count: usize,
}

impl<E> GemmCall<E> {
    /// A call of nothing: what a product leaves out, that starts from zeros and fetches nothing meanwhile.
    pub const fn bare() -> Self {
        let none = std::ptr::null();
        GemmCall {
            segments: std::ptr::null(),
            segment_count: 0,
            b: none,
            b_panel: 0,
            b_k: 0,
            c: std::ptr::null_mut(),
            c_row: 0,
            c_panel: 0,
            m: 0,
            panels: 0,
            start: none,
            start_row: 0,
            start_panel: 0,
            next: none,
            hints: std::ptr::null(),
            hint_count: 0,
        }
    }
}

/// Memory that whoever asked for a product will read or write next, element for element of C: row m of panel p is at
/// `base + m·row + p·nr` elements. Its cache lines are asked for while the product is computed, which hides their
/// way from memory behind arithmetic. Rows that lie far apart are not foreseen by the hardware.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Hint<E> {
    pub base: *const E,
    pub row: usize,
}

/// Computes one [`GemmCall`].
///
/// # Safety
/// The call and all it points to must be valid: A and B readable, C writable and overlapping
/// neither, for all rows, panels and steps of k that the call names. Nothing else may write to them
/// meanwhile. The machine must have the instruction set of the [`Kernels`] the function is from.
pub type GemmFn<E> = unsafe extern "C" fn(*const GemmCall<E>);

/// Computes one [`GemmCall`] whose A is stored in tiles of [`tile::TILE_ROWS`] rows, and meanwhile packs B and
/// fetches what will be needed next, as [`tile::drive`] says.
///
/// # Safety
/// As [`GemmFn`] and [`tile::drive`]; the hint need not be valid.
type TiledFn<E> = unsafe extern "C" fn(*const GemmCall<E>, *const tile::Aside<E>);

/// The kernels of one instruction set for one element type.
#[derive(Debug)]
pub struct Kernels<E: 'static> {
    /// The instructions that they use.
    pub instruction_set: InstructionSet,
    /// Columns of a panel.
    pub nr: usize,
    /// The product.
    pub gemm: GemmFn<E>,
    /// The products of a tile kernel, for generated code.
    pub products: ProductsFn,
    /// The product with A stored in tiles, for [`reduce_product`].
    tiled: TiledFn<E>,
    /// Dot products, for [`SmallProduct`].
    dots: unsafe extern "C" fn(*const small::DotsCall<E>),
    /// Sums over rows, for [`reduce_rows`].
    row_sums: unsafe extern "C" fn(*const vector::RowSums<E>),
    /// Multiply-adds on registers, in rounds of [`PEAK_SUMS`] vectors; gives something of the sums.
    rounds: unsafe extern "C" fn(usize) -> E,
    /// Reads blocks of [`READ_SUMS`] vectors; gives something that depends on all of them.
    read: unsafe extern "C" fn(*const E, usize) -> E,
    /// Elements of a vector.
    lanes: usize,
}

/// Independent sums of the loop that [`Kernels::read`] is.
const READ_SUMS: usize = 8;
/// Independent sums of the loop that [`Kernels::peak`] measures: more than latency × pipes of any machine so far.
const PEAK_SUMS: usize = 12;

impl<E: Element> Kernels<E> {
    /// The fastest kernels this machine can run.
    pub fn detect() -> &'static Self {
        Self::of(InstructionSet::best()).expect("it is available")
    }

    /// The kernels of an instruction set; `None` if this machine does not have it.
    pub fn of(set: InstructionSet) -> Option<&'static Self> {
        E::kernels().iter().find(|kernels| kernels.instruction_set == set && set.is_available())
    }

    /// All kernels this machine can run, the fastest first, the portable ones last.
    pub fn all_supported() -> impl Iterator<Item = &'static Self> {
        InstructionSet::available().filter_map(Self::of)
    }
}

/// The element types there are kernels for: `f32` and `f64`.
pub trait Element: Copy + Default + PartialEq + Send + Sync + sealed::Sealed + 'static {
    /// One.
    const ONE: Self;
    #[doc(hidden)]
    fn kernels() -> &'static [Kernels<Self>];
    /// The nearest.
    fn nearest(x: f64) -> Self;
    /// The same number in 64 bits.
    fn wide(self) -> f64;
    /// The sum, rounded once.
    fn plus(self, other: Self) -> Self;
    /// The product, rounded once.
    fn times(self, other: Self) -> Self;
    /// The transpose of a block.
    #[doc(hidden)]
    fn turned(block: [[Self; 4]; 4]) -> [[Self; 4]; 4];
}

/// Panics if a slice is too short for a matrix, also for one of more elements than can be counted.
fn check_matrix<E>(data: &[E], rows: usize, columns: usize) {
    let fits = rows.checked_mul(columns).is_some_and(|wanted| wanted <= data.len());
    assert!(fits, "{} elements of a {rows} × {columns} matrix", data.len());
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// Writes the entry points of one instruction set and its table entry.
macro_rules! kernels {
    ($set:ident, $element:ty, $vector:ty, $vectors:literal $(, $features:literal)?) => {{
        /// # Safety
        /// See [`GemmFn`].
        $(#[target_feature(enable = $features)])?
        unsafe extern "C" fn gemm(call: *const GemmCall<$element>) {
            // SAFETY: the caller's promise; the features are enabled here.
            unsafe { tile::drive::<$vector, false, $vectors>(&*call, &tile::Aside::nothing()) }
        }
        /// # Safety
        /// See [`products::compute`].
        unsafe extern "C" fn products(
            table: *const TileProducts,
            bases: *const *mut u8,
            scratch: *mut u8,
            first_panel: usize,
            panels: usize,
            first_row: usize,
            rows: usize,
        ) {
            const NR: usize = $vectors * <$vector as vector::Vector>::LANES;
            let block = Block { bases, scratch, first_panel, panels, first_row, rows };
            // SAFETY: the caller's promise; the micro-kernel is of this instruction set.
            unsafe { products::compute::<$element>(&*table, &block, NR, gemm) }
        }
        /// # Safety
        /// See [`TiledFn`].
        $(#[target_feature(enable = $features)])?
        unsafe extern "C" fn tiled(call: *const GemmCall<$element>, aside: *const tile::Aside<$element>) {
            // SAFETY: the caller's promise; the features are enabled here.
            unsafe { tile::drive::<$vector, true, $vectors>(&*call, &*aside) }
        }
        /// # Safety
        /// See [`small::dots`].
        $(#[target_feature(enable = $features)])?
        unsafe extern "C" fn dots(call: *const small::DotsCall<$element>) {
            // SAFETY: the caller's promise; the features are enabled here.
            unsafe { small::dots::<$vector>(&*call) }
        }
        /// # Safety
        /// See [`vector::row_sums`].
        $(#[target_feature(enable = $features)])?
        unsafe extern "C" fn row_sums(job: *const vector::RowSums<$element>) {
            // SAFETY: the caller's promise; the features are enabled here.
            unsafe { vector::row_sums::<$vector, $vectors>(&*job) }
        }
        /// # Safety
        /// The machine has the instruction set.
        $(#[target_feature(enable = $features)])?
        unsafe extern "C" fn rounds(n: usize) -> $element {
            // SAFETY: the features are enabled here.
            unsafe { vector::rounds::<$vector, PEAK_SUMS>(n) }
        }
        /// # Safety
        /// See [`vector::read`].
        $(#[target_feature(enable = $features)])?
        unsafe extern "C" fn read(from: *const $element, n: usize) -> $element {
            // SAFETY: the caller's promise; the features are enabled here.
            unsafe { vector::read::<$vector, READ_SUMS>(from, n) }
        }
        Kernels {
            instruction_set: InstructionSet::$set,
            nr: $vectors * <$vector as vector::Vector>::LANES,
            gemm,
            products,
            tiled,
            dots,
            row_sums,
            rounds,
            read,
            lanes: <$vector as vector::Vector>::LANES,
        }
    }};
}

/// Implements [`Element`] with its table of kernels.
macro_rules! element {
    ($element:ty, $m512:ident, $m256:ident, $neon:ident, $turned:path) => {
        impl Element for $element {
            const ONE: Self = 1.0;
            fn kernels() -> &'static [Kernels<Self>] {
                #[cfg(target_arch = "aarch64")]
                use std::arch::aarch64::$neon;
                #[cfg(target_arch = "x86_64")]
                use std::arch::x86_64::{$m256, $m512};
                static TABLE: &[Kernels<$element>] = &[
                    #[cfg(target_arch = "x86_64")]
                    kernels!(Avx512, $element, $m512, 2, "avx512f"),
                    #[cfg(target_arch = "x86_64")]
                    kernels!(Avx2, $element, $m256, 2, "avx2,fma"),
                    // 32 registers of 128 bits: 6 × 4 accumulators leave room for a row of B.
                    #[cfg(target_arch = "aarch64")]
                    kernels!(Neon, $element, $neon, 4, "neon"),
                    kernels!(Portable, $element, vector::Portable<$element, { 16 / size_of::<$element>() }>, 2),
                ];
                TABLE
            }
            #[inline(always)]
            fn nearest(x: f64) -> Self {
                x as $element
            }
            #[inline(always)]
            fn wide(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn times(self, other: Self) -> Self {
                self * other
            }
            #[inline(always)]
            fn turned(block: [[Self; 4]; 4]) -> [[Self; 4]; 4] {
                $turned(block)
            }
        }
    };
}

element!(f32, __m512, __m256, float32x4_t, vector::turned_f32);
element!(f64, __m512d, __m256d, float64x2_t, vector::turned);

impl<E: Element> Kernels<E> {
    /// Multiply-adds a second of one core, two flops each, on registers alone: what no product can exceed. The best
    /// of some tries, of about 20 ms in all: a machine that has other work to do gives less.
    ///
    /// ```
    /// use retrograd_runtime::gemm::Kernels;
    /// assert!(Kernels::<f32>::detect().peak() > 1e8);
    /// ```
    pub fn peak(&self) -> f64 {
        (0..500).map(|_| self.peak_now()).fold(0.0, f64::max)
    }

    /// One try of [`peak`](Kernels::peak), of some 40 µs: what the machine gives at this moment.
    pub fn peak_now(&self) -> f64 {
        let rounds = 20_000;
        let started = Instant::now();
        // SAFETY: kernels are handed out for machines that can run them.
        std::hint::black_box(unsafe { (self.rounds)(rounds) });
        (2 * PEAK_SUMS * self.lanes * rounds) as f64 / started.elapsed().as_secs_f64()
    }

    /// Reads elements once and does nothing with them, a few at the end left out: what no use of them can beat.
    ///
    /// ```
    /// use retrograd_runtime::gemm::Kernels;
    /// Kernels::<f32>::detect().read(&[1.0; 1000]);
    /// ```
    pub fn read(&self, all: &[E]) {
        let blocks = all.len() / (READ_SUMS * self.lanes);
        // SAFETY: kernels are handed out for machines that can run them; the slice has so many blocks.
        std::hint::black_box(unsafe { (self.read)(all.as_ptr(), blocks) });
    }

    /// `C = A·B` on one thread: A row-major `[m, k]`, B packed in panels of [`nr`](Kernels::nr) columns, C in panels of
    /// `[m, nr]` like it. `n` is a multiple of `nr`.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn product(&self, a: &[E], b: &[E], c: &mut [E], m: usize, k: usize, n: usize) {
        assert!(n.is_multiple_of(self.nr), "{n} columns in panels of {}", self.nr);
        check_matrix(a, m, k);
        check_matrix(b, k, n);
        check_matrix(c, m, n);
        if m == 0 || n == 0 {
            return;
        }
        let segment = Segment { a: a.as_ptr(), am: k, ak: 1, k };
        let call = GemmCall {
            segments: &segment,
            segment_count: 1,
            b: b.as_ptr(),
            b_panel: k * self.nr,
            b_k: self.nr,
            c: c.as_mut_ptr(),
            c_row: self.nr,
            c_panel: m * self.nr,
            m,
            panels: n / self.nr,
            ..GemmCall::bare()
        };
        // SAFETY: the slices cover what the call names, and C is borrowed alone.
        unsafe { (self.gemm)(&call) };
    }
}
