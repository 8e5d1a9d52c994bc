//! Products of two small matrices, as attention has in each row: everything in cache, either operand transposed, no shape
//! too odd.
//!
//! Two cases, by where the inner dimension lies:
//!
//! * It is contiguous in both operands (`A·Bᵀ`, or one of them a vector): each element is a dot product, [`dots`].
//! * Else one operand has its outer dimension contiguous and can be B of the micro-kernel as it is, panel by panel of its
//!   rows; if that is the left one, or both and the left is longer, the product is `Cᵀ = Bᵀ·Aᵀ`, and C is written turned.
//!   Columns that fill no panel are packed.
//!
//! A dot product has its terms in several chains, so results may differ in their last bits from instruction set to
//! instruction set. They do not depend on anything but the two matrices.

use retrograd_compiler::ir::sizes::{plus, times};

use super::vector::Vector;
use super::{Element, GemmCall, Kernels, PackB, Segment, check_matrix, pack_b};

/// A product `C = A·B` of dense matrices: A is `m × k`, or stored transposed, B is `k × n`, or stored transposed.
#[derive(Clone, Copy, Debug)]
pub struct SmallProduct {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// A is stored as `k × m`.
    pub a_is_transposed: bool,
    /// B is stored as `n × k`.
    pub b_is_transposed: bool,
}

/// A dense matrix: element (i, j) is at `i·row + j·column`.
#[derive(Clone, Copy)]
struct View<'a, E> {
    data: &'a [E],
    row: usize,
    column: usize,
}

impl<'a, E> View<'a, E> {
    fn new(data: &'a [E], rows: usize, columns: usize, is_transposed: bool) -> View<'a, E> {
        check_matrix(data, rows, columns);
        if is_transposed { View { data, row: 1, column: rows } } else { View { data, row: columns, column: 1 } }
    }

    fn turned(self) -> View<'a, E> {
        View { row: self.column, column: self.row, ..self }
    }
}

impl SmallProduct {
    /// Elements of scratch that [`compute`](SmallProduct::compute) grows its buffer to at most.
    pub fn scratch_len<E: Element>(&self, kernels: &Kernels<E>) -> usize {
        let panels = |rows, columns| panel_scratch(kernels.nr, rows, self.k, columns);
        panels(self.m, self.n).max(panels(self.n, self.m))
    }

    /// Computes the product into `c`, row-major. `scratch` is grown when it is too small.
    ///
    /// ```
    /// use retrograd_runtime::gemm::{Kernels, SmallProduct};
    /// let product = SmallProduct { m: 2, k: 3, n: 1, a_is_transposed: false, b_is_transposed: false };
    /// let mut c = [0.0f32; 2];
    /// product.compute(Kernels::detect(), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[1.0, 0.0, -1.0], &mut c, &mut Vec::new());
    /// assert_eq!(c, [-2.0, -2.0]);
    /// ```
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn compute<E: Element>(&self, kernels: &Kernels<E>, a: &[E], b: &[E], c: &mut [E], scratch: &mut Vec<E>) {
        let &SmallProduct { m, k, n, a_is_transposed, b_is_transposed } = self;
        check_matrix(c, m, n);
        let a = View::new(a, m, k, a_is_transposed);
        let b = View::new(b, k, n, b_is_transposed);
        if m == 0 || n == 0 {
            return;
        }
        // From here on each of the sizes is at most that of a slice.
        if a.column == 1 && b.row == 1 {
            let call = DotsCall {
                a: a.data.as_ptr(),
                lda: a.row,
                b: b.data.as_ptr(),
                ldb: b.column,
                k,
                c: c.as_mut_ptr(),
                m,
                n,
            };
            // SAFETY: A has m rows and B n columns of k elements one behind another; C has m·n elements.
            unsafe { (kernels.dots)(&call) };
        } else if a.row == 1 && (b.column != 1 || m > n) {
            // Cᵀ = Bᵀ·Aᵀ, whose right factor Aᵀ is stored row by row.
            by_panels(kernels, [n, k, m], b.turned(), a.turned(), c, true, scratch);
        } else {
            by_panels(kernels, [m, k, n], a, b, c, false, scratch);
        }
    }
}

/// Elements of scratch for a product by panels: one packed, and all of C.
fn panel_scratch(nr: usize, m: usize, k: usize, n: usize) -> usize {
    plus(times(k, nr), times(times(n.div_ceil(nr), m), nr))
}

/// `C = A·B` by the micro-kernel, where the rows of B are contiguous. C is written row-major, or with `turns_c` its
/// transpose is.
fn by_panels<E: Element>(
    kernels: &Kernels<E>,
    [m, k, n]: [usize; 3],
    a: View<'_, E>,
    b: View<'_, E>,
    c: &mut [E],
    turns_c: bool,
    scratch: &mut Vec<E>,
) {
    let nr = kernels.nr;
    let (panels, whole) = (n.div_ceil(nr), n / nr);
    let wanted = panel_scratch(nr, m, k, n);
    if scratch.len() < wanted {
        scratch.resize(wanted, E::default());
    }
    let (packed, rest) = scratch.split_at_mut(k * nr);
    let sums = &mut rest[..panels * m * nr];
    let segment = Segment { a: a.data.as_ptr(), am: a.row, ak: a.column, k };
    // A matrix of one row is its own transpose, as it is stored.
    let in_place = (!turns_c || m == 1) && whole == panels;
    let mut multiply = |b: *const E, (first, panels): (usize, usize)| {
        let (c, c_row, c_panel) = match in_place {
            true => (c.as_mut_ptr().wrapping_add(first * nr), n, nr),
            false => (sums.as_mut_ptr().wrapping_add(first * m * nr), nr, m * nr),
        };
        let call = GemmCall {
            segments: &segment,
            segment_count: 1,
            b,
            b_panel: nr,
            b_k: if first < whole { n } else { nr },
            c,
            c_row,
            c_panel,
            m,
            panels,
            ..GemmCall::bare()
        };
        // SAFETY: A has m rows of k elements at these strides; B is whole panels of its rows, or the packed panel; C is whole
        // panels of rows of n elements, or of the scratch.
        unsafe { (kernels.gemm)(&call) };
    };
    if whole > 0 {
        multiply(b.data.as_ptr(), (0, whole));
    }
    if whole < panels {
        let matrix = PackB { src: b.data, k_stride: n, n_stride: 1, k, n };
        pack_b(&matrix, nr, packed, k * nr, 0, whole..panels);
        multiply(packed.as_ptr(), (whole, 1));
    }
    if in_place {
        return;
    }
    for (panel, sums) in sums.chunks_exact(m * nr).enumerate() {
        let width = nr.min(n - panel * nr);
        for (i, row) in sums.chunks_exact(nr).enumerate() {
            if turns_c {
                row[..width].iter().enumerate().for_each(|(j, &x)| c[(panel * nr + j) * m + i] = x);
            } else {
                c[i * n + panel * nr..][..width].copy_from_slice(&row[..width]);
            }
        }
    }
}

/// `c[i*n + j] = Σ_k a[i*lda + k] · b[j*ldb + k]` for `i < m`, `j < n`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct DotsCall<E> {
    a: *const E,
    lda: usize,
    b: *const E,
    ldb: usize,
    k: usize,
    c: *mut E,
    m: usize,
    n: usize,
}

/// Computes a [`DotsCall`].
///
/// # Safety
/// The machine has `T`'s instructions; A and B are readable and C writable as described.
#[inline(always)]
pub(super) unsafe fn dots<T: Vector>(call: &DotsCall<T::Element>)
where
    T::Element: Element,
{
    // The side with more vectors has several at a time: one element of the other goes with all of them.
    // SAFETY: the caller's promise, which is of both sides.
    unsafe {
        if call.n >= call.m {
            lines::<T>(call, (call.a, call.lda, call.m, call.n), (call.b, call.ldb, call.n, 1));
        } else {
            lines::<T>(call, (call.b, call.ldb, call.n, 1), (call.a, call.lda, call.m, call.n));
        }
    }
}

/// All dots of `x` lines with `y` lines, each side as its first element, the elements from line to line, how many there are,
/// and the elements of C from one to the next.
///
/// # Safety
/// As [`dots`].
#[inline(always)]
unsafe fn lines<T: Vector>(
    call: &DotsCall<T::Element>,
    (x, x_line, x_lines, x_c): (*const T::Element, usize, usize, usize),
    (y, y_line, y_lines, y_c): (*const T::Element, usize, usize, usize),
) where
    T::Element: Element,
{
    /// Lines of y at a time, each in two chains.
    const TOGETHER: usize = 4;
    // SAFETY: lines and elements are those that the call says there are.
    unsafe {
        for i in 0..x_lines {
            let x = x.add(i * x_line);
            let mut j = 0;
            while j < y_lines {
                let together = TOGETHER.min(y_lines - j);
                let c = call.c.add(i * x_c + j * y_c);
                let y = y.add(j * y_line);
                match together {
                    TOGETHER => some::<T, TOGETHER>(call.k, x, (y, y_line), (c, y_c)),
                    _ => (0..together)
                        .for_each(|l| some::<T, 1>(call.k, x, (y.add(l * y_line), y_line), (c.add(l * y_c), y_c))),
                }
                j += together;
            }
        }
    }
}

/// The dots of one line with `N` others. A dot's chains and their sum do not depend on N.
///
/// # Safety
/// As [`dots`].
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "lines index sums and addresses at once")]
unsafe fn some<T: Vector, const N: usize>(
    k: usize,
    x: *const T::Element,
    (y, y_line): (*const T::Element, usize),
    (c, c_line): (*mut T::Element, usize),
) where
    T::Element: Element,
{
    const CHAINS: usize = 2;
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[T::splat(T::Element::default()); CHAINS]; N];
        let block = CHAINS * T::LANES;
        let whole = k / block * block;
        for at in (0..whole).step_by(block) {
            for chain in 0..CHAINS {
                let at = at + chain * T::LANES;
                let x = T::load(x.add(at));
                for line in 0..N {
                    sums[line][chain] = sums[line][chain].fma(x, T::load(y.add(line * y_line + at)));
                }
            }
        }
        for line in 0..N {
            let mut lanes = [T::Element::default(); MOST_LANES];
            let mut total = T::Element::default();
            for chain in sums[line] {
                chain.store(lanes.as_mut_ptr());
                total = lanes[..T::LANES].iter().fold(total, |total, &x| total.plus(x));
            }
            for at in whole..k {
                total = total.plus((*x.add(at)).times(*y.add(line * y_line + at)));
            }
            *c.add(line * c_line) = total;
        }
    }
}

/// Lanes of the widest vector.
const MOST_LANES: usize = 16;
