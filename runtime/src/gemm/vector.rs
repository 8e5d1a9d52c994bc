//! The few vector operations a micro-kernel is made of, once per instruction set.
//!
//! The kernels in [`tile`](super::tile) are written against [`Vector`] only. Every method is
//! `#[inline(always)]` and carries no `#[target_feature]` of its own: the features come from the
//! entry point everything is inlined into. That is also why every method is unsafe: outside such
//! an entry point the instruction may not exist on the machine.

/// A register full of elements.
///
/// Safety contract of all methods: the running machine has the instruction set the implementing
/// type stands for; `load` and `store` touch `LANES` elements at a pointer of any alignment.
pub(super) trait Vector: Copy {
    type Element: Copy + Default;
    const LANES: usize;
    unsafe fn load(from: *const Self::Element) -> Self;
    unsafe fn store(self, to: *mut Self::Element);
    unsafe fn splat(value: Self::Element) -> Self;
    /// `self + a * b`, rounded once where the hardware can.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    /// `self + other`
    unsafe fn plus(self, other: Self) -> Self;
    /// A register of 64-bit floats.
    type Wide: Vector<Element = f64>;
    /// How many of them hold this register's elements.
    const PARTS: usize;
    /// The elements of part `i`, exactly.
    unsafe fn part(self, i: usize) -> Self::Wide;
}

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Asks for the cache line at an address, which need not be valid, to come to the first-level cache.
#[inline(always)]
pub(super) fn prefetch_near<E>(_at: *const E) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, and it cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(_at.cast()) };
    }
}

/// As [`prefetch_near`], to the second-level cache.
#[inline(always)]
pub(super) fn prefetch<E>(_at: *const E) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, and it cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(_at.cast()) };
    }
}

/// The transpose of a block.
#[inline(always)]
pub(super) fn turned<E: Copy>(block: [[E; 4]; 4]) -> [[E; 4]; 4] {
    std::array::from_fn(|i| block.map(|row| row[i]))
}

/// The same for `f32`, in registers: compilers make sixteen loads and stores of it, which take four times as long.
#[inline(always)]
pub(super) fn turned_f32(block: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128, _mm_movehl_ps, _mm_movelh_ps, _mm_unpackhi_ps, _mm_unpacklo_ps};
        // SAFETY: four floats are a register's sixteen bytes, and every x86-64 has the instructions.
        unsafe {
            let [a, b, c, d] = block.map(|row| std::mem::transmute::<[f32; 4], __m128>(row));
            let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
            let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
            [
                _mm_movelh_ps(ab, cd),
                _mm_movehl_ps(cd, ab),
                _mm_movelh_ps(ab_high, cd_high),
                _mm_movehl_ps(cd_high, ab_high),
            ]
            .map(|row| std::mem::transmute::<__m128, [f32; 4]>(row))
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    turned(block)
}

/// `totals[j] += Σ_r b[r*ldb + j]` for the columns of whole panels and `r < rows`, in the order of r and in 64 bits; each
/// element times one of A, if that is not null.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct RowSums<E> {
    pub a: *const E,
    pub lda: isize,
    pub b: *const E,
    pub ldb: isize,
    pub totals: *mut f64,
    pub panels: usize,
    pub rows: usize,
}

/// Computes [`RowSums`].
///
/// # Safety
/// The machine has `T`'s instructions; A and B are readable and the totals writable as described, without overlap.
#[inline(always)]
pub(super) unsafe fn row_sums<T: Vector, const V: usize>(job: &RowSums<T::Element>) {
    /// Vectors whose totals are in registers at once: a few cache lines of a row.
    const HELD: usize = 4;
    /// Rows that are gone through before the next vectors: few enough for their pages to stay mapped.
    const ROWS: usize = 32;
    let vectors = job.panels * V;
    for first in (0..job.rows).step_by(ROWS) {
        let rows = first..job.rows.min(first + ROWS);
        let mut v = 0;
        while v < vectors {
            // SAFETY: so many vectors and rows are left.
            v += unsafe {
                match vectors - v {
                    HELD.. => columns_summed::<T, HELD>(job, rows.clone(), v * T::LANES),
                    _ => columns_summed::<T, 1>(job, rows.clone(), v * T::LANES),
                }
            };
        }
    }
}

/// The part of [`row_sums`] of some rows, and of `N` vectors from a column on. Returns `N`.
///
/// # Safety
/// As [`row_sums`].
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "vectors and their parts index totals and addresses at once")]
unsafe fn columns_summed<T: Vector, const N: usize>(
    job: &RowSums<T::Element>,
    rows: std::ops::Range<usize>,
    column: usize,
) -> usize {
    /// How many rows before they are used they are asked for.
    const AHEAD: isize = 12;
    /// Parts of a vector in 64 bits, at most.
    const PARTS: usize = 2;
    // SAFETY: the caller's promise, for all vectors and parts.
    unsafe {
        let mut sums = [[T::Wide::splat(0.0); PARTS]; N];
        let place = |v: usize, i: usize| job.totals.add(column + v * T::LANES + i * T::Wide::LANES);
        for v in 0..N {
            for i in 0..T::PARTS {
                sums[v][i] = T::Wide::load(place(v, i));
            }
        }
        for r in rows {
            let row = |first: *const T::Element, ld: isize| first.wrapping_offset(r as isize * ld).wrapping_add(column);
            let (a, b) = (row(job.a, job.lda), row(job.b, job.ldb));
            // Rows lie too far apart for the hardware to foresee them.
            for at in (0..N * T::LANES).step_by(LINE / size_of::<T::Element>()) {
                prefetch_near(b.wrapping_offset(AHEAD * job.ldb).wrapping_add(at));
                if !job.a.is_null() {
                    prefetch_near(a.wrapping_offset(AHEAD * job.lda).wrapping_add(at));
                }
            }
            for v in 0..N {
                let y = T::load(b.add(v * T::LANES));
                for i in 0..T::PARTS {
                    sums[v][i] = if job.a.is_null() {
                        sums[v][i].plus(y.part(i))
                    } else {
                        sums[v][i].fma(T::load(a.add(v * T::LANES)).part(i), y.part(i))
                    };
                }
            }
        }
        for v in 0..N {
            for i in 0..T::PARTS {
                sums[v][i].store(place(v, i));
            }
        }
    }
    N
}

/// `n` rounds of a multiply-add on each of `SUMS` registers; one element of their sum, so that nothing is left out.
///
/// # Safety
/// The machine has `T`'s instructions.
#[inline(always)]
pub(super) unsafe fn rounds<T: Vector, const SUMS: usize>(n: usize) -> T::Element {
    // SAFETY: the caller's promise; the store is to an array of a vector's length.
    unsafe {
        let zero = std::hint::black_box(T::Element::default());
        let (a, b) = (T::splat(zero), T::splat(zero));
        let mut sums = [T::splat(zero); SUMS];
        for _ in 0..n {
            for sum in &mut sums {
                *sum = sum.fma(a, b);
            }
        }
        kept(&sums)
    }
}

/// Reads `n` blocks of `SUMS` vectors each and adds them, times a zero that the compiler does not know of, to as many sums,
/// which takes no longer; an element of these.
///
/// # Safety
/// The machine has `T`'s instructions; so many vectors are readable.
#[inline(always)]
pub(super) unsafe fn read<T: Vector, const SUMS: usize>(from: *const T::Element, n: usize) -> T::Element {
    // SAFETY: the caller's promise; the stores are to an array with room for a vector behind each place.
    unsafe {
        let zero = T::splat(std::hint::black_box(T::Element::default()));
        let mut sums = [zero; SUMS];
        for block in 0..n {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = sum.fma(zero, T::load(from.add((block * SUMS + i) * T::LANES)));
            }
        }
        kept(&sums)
    }
}

/// One element of something that depends on all of these, so that none is left out.
///
/// # Safety
/// The machine has `T`'s instructions.
#[inline(always)]
unsafe fn kept<T: Vector>(sums: &[T]) -> T::Element {
    let mut kept = [T::Element::default(); 64];
    for (i, sum) in sums.iter().enumerate() {
        // SAFETY: the caller's promise; a vector has room behind each place.
        unsafe { sum.store(kept[i..].as_mut_ptr()) };
    }
    std::hint::black_box(kept)[0]
}

/// Implements [`Vector`] for a register type out of a few intrinsics.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! vector {
    ($register:ty, $element:ty, $lanes:literal, $load:ident, $store:ident, $splat:ident, $add:ident,
     |$sum:ident, $a:ident, $b:ident| $fma:expr, $wide:ty, |$x:ident| [$($part:expr),+]) => {
        impl Vector for $register {
            type Element = $element;
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn load(from: *const $element) -> Self {
                // SAFETY: the trait's contract: readable, and the instruction exists.
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $element) {
                // SAFETY: the trait's contract: writable, and the instruction exists.
                unsafe { $store(to, self) }
            }
            #[inline(always)]
            unsafe fn splat(value: $element) -> Self {
                // SAFETY: the trait's contract: the instruction exists.
                unsafe { $splat(value) }
            }
            #[inline(always)]
            unsafe fn fma(self, $a: Self, $b: Self) -> Self {
                let $sum = self;
                // SAFETY: the trait's contract: the instruction exists.
                unsafe { $fma }
            }
            #[inline(always)]
            unsafe fn plus(self, other: Self) -> Self {
                // SAFETY: the trait's contract: the instruction exists.
                unsafe { $add(self, other) }
            }
            type Wide = $wide;
            const PARTS: usize = $lanes / <$wide as Vector>::LANES;
            #[inline(always)]
            #[allow(unused_unsafe, reason = "64-bit registers are their own parts")]
            unsafe fn part(self, i: usize) -> $wide {
                let $x = self;
                // SAFETY: the trait's contract: the instructions exist. Of the parts that are not asked for nothing is left.
                unsafe { [$($part),+][i] }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;
    vector!(
        __m256,
        f32,
        8,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_add_ps,
        |sum, a, b| _mm256_fmadd_ps(a, b, sum),
        __m256d,
        |x| [_mm256_cvtps_pd(_mm256_castps256_ps128(x)), _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x))]
    );
    vector!(
        __m256d,
        f64,
        4,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_set1_pd,
        _mm256_add_pd,
        |sum, a, b| _mm256_fmadd_pd(a, b, sum),
        __m256d,
        |x| [x]
    );
    vector!(
        __m512,
        f32,
        16,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_add_ps,
        |sum, a, b| _mm512_fmadd_ps(a, b, sum),
        __m512d,
        |x| [
            _mm512_cvtps_pd(_mm512_castps512_ps256(x)),
            _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x))))
        ]
    );
    vector!(
        __m512d,
        f64,
        8,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_set1_pd,
        _mm512_add_pd,
        |sum, a, b| _mm512_fmadd_pd(a, b, sum),
        __m512d,
        |x| [x]
    );
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Vector;
    use std::arch::aarch64::*;
    vector!(
        float32x4_t,
        f32,
        4,
        vld1q_f32,
        vst1q_f32,
        vdupq_n_f32,
        vaddq_f32,
        |sum, a, b| vfmaq_f32(sum, a, b),
        float64x2_t,
        |x| [vcvt_f64_f32(vget_low_f32(x)), vcvt_high_f64_f32(x)]
    );
    vector!(
        float64x2_t,
        f64,
        2,
        vld1q_f64,
        vst1q_f64,
        vdupq_n_f64,
        vaddq_f64,
        |sum, a, b| vfmaq_f64(sum, a, b),
        float64x2_t,
        |x| [x]
    );
}

/// A vector on any machine: an array the compiler may put in a register. Multiplies and adds with
/// two roundings, because a fused operation without the instruction is a library call.
#[derive(Clone, Copy)]
pub(super) struct Portable<E, const N: usize>([E; N]);

impl<E, const N: usize> Vector for Portable<E, N>
where
    E: Copy + Default + Into<f64> + std::ops::Add<Output = E> + std::ops::Mul<Output = E>,
{
    type Element = E;
    const LANES: usize = N;
    #[inline(always)]
    unsafe fn load(from: *const E) -> Self {
        // SAFETY: the trait's contract: `N` elements are readable.
        Self(unsafe { from.cast::<[E; N]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut E) {
        // SAFETY: the trait's contract: `N` elements are writable.
        unsafe { to.cast::<[E; N]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn splat(value: E) -> Self {
        Self([value; N])
    }
    #[inline(always)]
    unsafe fn fma(mut self, a: Self, b: Self) -> Self {
        for lane in 0..N {
            self.0[lane] = self.0[lane] + a.0[lane] * b.0[lane];
        }
        self
    }
    #[inline(always)]
    unsafe fn plus(mut self, other: Self) -> Self {
        for lane in 0..N {
            self.0[lane] = self.0[lane] + other.0[lane];
        }
        self
    }
    type Wide = Portable<f64, N>;
    const PARTS: usize = 1;
    #[inline(always)]
    unsafe fn part(self, _: usize) -> Portable<f64, N> {
        Portable(self.0.map(Into::into))
    }
}
