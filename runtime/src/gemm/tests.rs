//! The products against plain loops, on every instruction set this machine has.

use super::*;
use std::fmt::Debug;
use std::ops::Range;

/// What the tests need of an element beyond the kernels.
trait Real: Element + Debug {
    fn of(value: f64) -> Self;
    fn bits(self) -> u64;
    const EPSILON: f64;
}
impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
    fn bits(self) -> u64 {
        self.to_bits().into()
    }
    const EPSILON: f64 = f32::EPSILON as f64;
}
impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn bits(self) -> u64 {
        self.to_bits()
    }
    const EPSILON: f64 = f64::EPSILON;
}

/// Numbers in -1..1 that do not repeat soon.
fn noise<E: Real>(len: usize, seed: u64) -> Vec<E> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            E::of((state >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
        })
        .collect()
}

fn bits<E: Real>(values: &[E]) -> Vec<u64> {
    values.iter().map(|value| value.bits()).collect()
}

/// A product with A in several segments, of either orientation.
struct Product<E> {
    m: usize,
    panels: usize,
    ks: Vec<usize>,
    transposed: bool,
    a: Vec<Vec<E>>,
    b: Vec<E>,
    c: Vec<E>,
}

const PAD: usize = 3;

impl<E: Real> Product<E> {
    fn new(kernels: &Kernels<E>, m: usize, panels: usize, ks: &[usize], transposed: bool) -> Self {
        let k: usize = ks.iter().sum();
        let a = ks.iter().enumerate().map(|(s, k)| noise((m + PAD) * (k + PAD), s as u64 + 7)).collect();
        let width = panels * kernels.nr + PAD;
        Self { m, panels, ks: ks.to_vec(), transposed, a, b: noise(panels * k * kernels.nr, 3), c: noise(m * width, 5) }
    }

    fn strides(&self, s: usize) -> (usize, usize) {
        if self.transposed { (1, self.m + PAD) } else { (self.ks[s] + PAD, 1) }
    }

    /// The product's rows `rows` and panels `panels`; the rest of C as it was.
    fn run(&self, kernels: &Kernels<E>, accumulate: bool, rows: Range<usize>, panels: Range<usize>) -> Vec<E> {
        self.run_hinted(kernels, accumulate, rows, panels, 0)
    }

    /// As [`run`](Product::run), with some hints: each is as large as C.
    fn run_hinted(
        &self,
        kernels: &Kernels<E>,
        accumulate: bool,
        rows: Range<usize>,
        panels: Range<usize>,
        hints: usize,
    ) -> Vec<E> {
        let mut c = self.c.clone();
        self.run_into(kernels, (accumulate, None), rows, panels, hints, &mut c);
        c
    }

    /// Into a given C, from C itself or from what is laid out panel after panel.
    fn run_into(
        &self,
        kernels: &Kernels<E>,
        (accumulate, start): (bool, Option<&[E]>),
        rows: Range<usize>,
        panels: Range<usize>,
        hints: usize,
        c: &mut [E],
    ) {
        let hints = vec![Hint { base: self.c.as_ptr(), row: self.width(kernels) }; hints];
        let k: usize = self.ks.iter().sum();
        let segments: Vec<Segment<E>> = (0..self.ks.len())
            .map(|s| {
                let (am, ak) = self.strides(s);
                Segment { a: self.a[s][rows.start * am..].as_ptr(), am, ak, k: self.ks[s] }
            })
            .collect();
        let width = self.width(kernels);
        let c_corner = c[rows.start * width + panels.start * kernels.nr..].as_mut_ptr();
        let call = GemmCall {
            segments: segments.as_ptr(),
            segment_count: segments.len(),
            b: self.b[panels.start * k * kernels.nr..].as_ptr(),
            b_panel: k * kernels.nr,
            b_k: kernels.nr,
            c: c_corner,
            c_row: width,
            c_panel: kernels.nr,
            m: rows.len(),
            panels: panels.len(),
            start: match start {
                Some(start) => start.as_ptr(),
                None if accumulate => c_corner,
                None => std::ptr::null(),
            },
            start_row: if start.is_some() { kernels.nr } else { width },
            start_panel: if start.is_some() { rows.len() * kernels.nr } else { kernels.nr },
            next: if self.m.is_multiple_of(2) { std::ptr::null() } else { self.b.as_ptr() },
            hints: hints.as_ptr(),
            hint_count: hints.len(),
        };
        // SAFETY: all of the matrices above, and the kernels are supported.
        unsafe { (kernels.gemm)(&call) };
    }

    fn width(&self, kernels: &Kernels<E>) -> usize {
        self.panels * kernels.nr + PAD
    }

    fn check(&self, kernels: &Kernels<E>, accumulate: bool) -> Vec<E> {
        let got = self.run(kernels, accumulate, 0..self.m, 0..self.panels);
        let k_all: usize = self.ks.iter().sum();
        let width = self.width(kernels);
        for m in 0..self.m {
            for j in 0..width {
                let old = self.c[m * width + j].wide();
                let value = got[m * width + j].wide();
                if j >= self.panels * kernels.nr {
                    assert_eq!(old, value, "padding of C");
                    continue;
                }
                let mut sum = if accumulate { old } else { 0.0 };
                let mut first = 0;
                for (s, &k) in self.ks.iter().enumerate() {
                    let (am, ak) = self.strides(s);
                    for step in 0..k {
                        let at = (j / kernels.nr * k_all + first + step) * kernels.nr + j % kernels.nr;
                        sum += self.a[s][m * am + step * ak].wide() * self.b[at].wide();
                    }
                    first += k;
                }
                let bound = E::EPSILON * (k_all as f64 + 2.0);
                assert!(
                    (sum - value).abs() <= bound,
                    "{} m={} panels={} ks={:?}: C({m},{j}) is {value}, should be {sum}",
                    kernels.instruction_set,
                    self.m,
                    self.panels,
                    self.ks,
                );
            }
        }
        got
    }
}

fn products<E: Real>() {
    for kernels in Kernels::<E>::all_supported() {
        for m in (0..=20).chain([203]) {
            for panels in [0, 1, 2, 3, 5, 6, 8] {
                if m > 20 && panels > 2 {
                    continue;
                }
                for ks in [&[][..], &[0], &[1], &[13], &[5, 0, 9], &[0, 3], &[300, 1, 290]] {
                    if ks.len() == 3 && ks[0] == 300 && panels > 3 {
                        continue;
                    }
                    for transposed in [false, true] {
                        let product = Product::new(kernels, m, panels, ks, transposed);
                        product.check(kernels, false);
                        product.check(kernels, true);
                    }
                }
            }
        }
    }
}

#[test]
fn products_f32() {
    products::<f32>();
}

#[test]
fn products_f64() {
    products::<f64>();
}

/// Sums that start elsewhere are those that start from C, for every shape of tile and across chunks of k.
fn starts<E: Real>() {
    for kernels in Kernels::<E>::all_supported() {
        let nr = kernels.nr;
        for (m, panels, ks) in [(1, 7, &[9][..]), (2, 4, &[5, 300]), (3, 3, &[8]), (11, 2, &[17]), (23, 3, &[700, 30])]
        {
            let product = Product::new(kernels, m, panels, ks, false);
            let width = product.width(kernels);
            let start: Vec<E> =
                (0..panels * m * nr).map(|at| product.c[at / nr % m * width + at / (m * nr) * nr + at % nr]).collect();
            let mut got = vec![E::default(); product.c.len()];
            product.run_into(kernels, (false, Some(&start)), 0..m, 0..panels, 0, &mut got);
            let expected = product.run(kernels, true, 0..m, 0..panels);
            for row in (0..m).map(|m| m * width..m * width + panels * nr) {
                assert_eq!(
                    bits(&expected[row.clone()]),
                    bits(&got[row]),
                    "{} {m} {panels} {ks:?}",
                    kernels.instruction_set
                );
            }
        }
    }
}

#[test]
fn starts_f32() {
    starts::<f32>();
}

#[test]
fn starts_f64() {
    starts::<f64>();
}

/// The bits of a row do not depend on the rows and panels it is computed with.
fn rows_alone<E: Real>() {
    for kernels in Kernels::<E>::all_supported() {
        for ks in [&[37, 20][..], &[400, 333]] {
            let product = Product::new(kernels, 23, 7, ks, false);
            let width = product.width(kernels);
            for accumulate in [false, true] {
                let whole = product.run(kernels, accumulate, 0..23, 0..7);
                for count in 1..=12 {
                    for start in 0..=23 - count {
                        let panels = start % 7..7.min(start % 7 + count);
                        let some = product.run(kernels, accumulate, start..start + count, panels.clone());
                        for m in start..start + count {
                            let row = m * width + panels.start * kernels.nr..m * width + panels.end * kernels.nr;
                            assert_eq!(bits(&whole[row.clone()]), bits(&some[row]), "{}", kernels.instruction_set);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn rows_alone_f32() {
    rows_alone::<f32>();
}

#[test]
fn rows_alone_f64() {
    rows_alone::<f64>();
}

/// Both orientations of A and every cut into segments give the same bits.
#[test]
fn hints_are_invisible() {
    for kernels in Kernels::<f32>::all_supported() {
        for (m, panels, k) in [(1, 3, 70), (7, 2, 9), (31, 3, 900)] {
            let product = Product::new(kernels, m, panels, &[k], false);
            let plain = product.run(kernels, false, 0..m, 0..panels);
            for hints in [1, 3, 11] {
                assert!(
                    product.run_hinted(kernels, false, 0..m, 0..panels, hints) == plain,
                    "{} {m} {k}",
                    kernels.instruction_set
                );
            }
        }
    }
}

#[test]
fn segments_are_invisible() {
    for kernels in Kernels::<f32>::all_supported() {
        let (m, k, panels) = (11, 600, 2);
        let one = Product::new(kernels, m, panels, &[k], false);
        let whole = one.run(kernels, false, 0..m, 0..panels);
        let lda = k + PAD;
        for cut in [0, 1, 255, 256, 257, 599, 600] {
            let ks = [cut, k - cut];
            let a = [one.a[0].clone(), one.a[0].clone()];
            let width = one.width(kernels);
            let mut c = one.c.clone();
            let segments = [
                Segment { a: a[0].as_ptr(), am: lda, ak: 1, k: ks[0] },
                Segment { a: a[1][cut..].as_ptr(), am: lda, ak: 1, k: ks[1] },
            ];
            let call = GemmCall {
                segments: segments.as_ptr(),
                segment_count: 2,
                b: one.b.as_ptr(),
                b_panel: k * kernels.nr,
                b_k: kernels.nr,
                c: c.as_mut_ptr(),
                c_row: width,
                c_panel: kernels.nr,
                m,
                panels,
                ..GemmCall::bare()
            };
            // SAFETY: all of the matrices above, and the kernels are supported.
            unsafe { (kernels.gemm)(&call) };
            assert_eq!(bits(&whole), bits(&c), "{} cut at {cut}", kernels.instruction_set);
        }
    }
}

#[test]
fn panel_widths_are_usable() {
    assert!(Kernels::<f32>::all_supported().all(|kernels| kernels.nr % 8 == 0));
    assert!(Kernels::<f64>::all_supported().all(|kernels| kernels.nr % 4 == 0));
    assert_eq!(
        Kernels::<f32>::all_supported().last().map(|kernels| kernels.instruction_set),
        Some(InstructionSet::Portable)
    );
}

#[test]
fn packing() {
    for nr in [4, 8, 16, 24, 32] {
        for (k, n) in [(1, 1), (8, 32), (9, 33), (20, 70), (7, 5), (0, 3), (0, 40), (64, 96), (6, 300)] {
            for (k_stride, n_stride) in [(n + 2, 1), (1, k + 2), (2, 2 * k + 1)] {
                let reach = if k * n == 0 { 0 } else { (k - 1) * k_stride + (n - 1) * n_stride + 1 };
                let src: Vec<f32> = noise(reach, 9);
                let matrix = PackB { src: &src, k_stride, n_stride, k, n };
                let panels = matrix.panels(nr);
                let (before, after) = (2, 1);
                let dst_panel = (before + k + after) * nr;
                let untouched = 77.0;
                let mut dst = vec![untouched; panels * dst_panel];
                // Two calls, as two threads would.
                let middle = panels / 2;
                let (left, right) = dst.split_at_mut(middle * dst_panel);
                pack_b(&matrix, nr, left, dst_panel, before, 0..middle);
                pack_b(&matrix, nr, right, dst_panel, before, middle..panels);
                for p in 0..panels {
                    for row in 0..before + k + after {
                        for j in 0..nr {
                            let column = p * nr + j;
                            let expected = if row < before || row >= before + k {
                                untouched
                            } else if column < n {
                                src[(row - before) * k_stride + column * n_stride]
                            } else {
                                0.0
                            };
                            assert_eq!(dst[p * dst_panel + row * nr + j], expected);
                        }
                    }
                }
            }
        }
    }
}

fn reduce_shape<E: Real>(ki: usize, n: usize, rows: usize) {
    let plain = reduce_shape_with::<E>(ki, n, rows, false);
    assert!(plain == reduce_shape_with::<E>(ki, n, rows, true), "sums beside C change nothing of it");
}

/// The bits of C by all instruction sets.
fn reduce_shape_with<E: Real>(ki: usize, n: usize, rows: usize, with_sums: bool) -> Vec<Vec<u64>> {
    let (lda, ldb, ldc) = (ki + 5, n + 3, n + 2);
    // Exactly as long as the matrices reach, so that a tool that watches memory sees any excess.
    let reach = |rows: usize, ld: usize, width: usize| {
        if rows == 0 { 0 } else { (rows - 1) * ld + width }
    };
    let a: Vec<E> = noise(reach(rows, lda, ki), 1);
    let b: Vec<E> = noise(reach(rows, ldb, n), 2);
    let old: Vec<E> = noise(ki * ldc, 3);
    let mut all = Vec::new();
    for kernels in Kernels::<E>::all_supported() {
        let mut scratch = Vec::new();
        let mut run = |cuts: &[usize]| {
            let (mut c, mut sums) = (old.clone(), vec![E::of(9.0); n]);
            let job = ReduceProduct {
                a: a.as_ptr(),
                lda: lda as isize,
                ki,
                b: b.as_ptr(),
                ldb: ldb as isize,
                n,
                rows,
                pairs: 1,
                c: c.as_mut_ptr(),
                ldc,
                sums: if with_sums { sums.as_mut_ptr() } else { std::ptr::null_mut() },
                carry: Carry::none(),
            };
            let units = job.units(kernels);
            let mut edges: Vec<usize> = cuts.iter().map(|cut| cut * units / 100).collect();
            edges.push(units);
            let mut start = 0;
            for end in edges {
                // SAFETY: all of the matrices above; supported kernels.
                unsafe { reduce_product(kernels, &job, start..end, &mut scratch) };
                start = end;
            }
            assert_eq!(scratch.len(), job.scratch_len(kernels));
            if with_sums {
                for (j, sum) in sums.iter().enumerate() {
                    let terms = (0..rows).map(|r| b[r * ldb + j].wide());
                    let (expected, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                    assert!((sum.wide() - expected).abs() <= E::EPSILON * 40.0 * size, "sums of B's rows");
                }
            }
            (c, sums)
        };
        let (whole, sums) = run(&[]);
        for i in 0..ki {
            for j in 0..ldc {
                let (was, value) = (old[i * ldc + j], whole[i * ldc + j]);
                if j >= n {
                    assert_eq!(was, value, "outside C");
                    continue;
                }
                let (mut sum, mut size) = (0.0, 0.0);
                for r in 0..rows {
                    let term = a[r * lda + i].wide() * b[r * ldb + j].wide();
                    (sum, size) = (sum + term, size + term.abs());
                }
                // Blocks of 64 rows, and 32 of these, whatever the number of rows.
                let bound = E::EPSILON * size * (rows.min(96) as f64 + 2.0) / 2.0;
                assert!(
                    (sum - value.wide()).abs() <= bound,
                    "{} {ki}×{n}×{rows}: C({i},{j}) is {value:?}, should be {sum}",
                    kernels.instruction_set,
                );
            }
        }
        for cuts in [&[50][..], &[33, 66], &[10, 20, 30, 40, 50, 60, 70, 80, 90]] {
            let (cut, cut_sums) = run(cuts);
            assert_eq!(bits(&whole), bits(&cut), "{} {ki}×{n}×{rows} cut at {cuts:?}", kernels.instruction_set);
            assert_eq!(bits(&sums), bits(&cut_sums));
        }
        all.push(bits(&whole));
    }
    all
}

#[test]
fn weight_gradients() {
    for (ki, n, rows) in [
        (1, 1, 1),
        (1, 1, 0),
        (5, 40, 0),
        (3, 7, 20),
        (6, 16, 256),
        (13, 33, 257),
        (28, 64, 600),
        (150, 9, 70),
        (300, 17, 40),
        (12, 48, 513),
        (2, 130, 1100),
        (45, 70, 1000),
        (45, 70, 2048),
        (45, 70, 2049),
        (3, 5, 40_000),
        (700, 20, 800),
        // More panels than are staged together, the last of them ragged.
        (7, 1101, 800),
        (7, 1101, 2100),
    ] {
        reduce_shape::<f32>(ki, n, rows);
        reduce_shape::<f64>(ki, n, rows);
    }
}

/// The blocks of a gradient may be computed by threads at once.
#[test]
fn weight_gradients_on_a_team() {
    let (ki, n, rows) = (100, 70, 2500);
    let (a, b): (Vec<f32>, Vec<f32>) = (noise(rows * ki, 1), noise(rows * n, 2));
    let kernels = Kernels::<f32>::all_supported().next().expect("some kernels");
    let result = |members: usize| {
        let mut c = vec![0.0f32; ki * n];
        let job = ReduceProduct {
            a: a.as_ptr(),
            lda: ki as isize,
            ki,
            b: b.as_ptr(),
            ldb: n as isize,
            n,
            rows,
            pairs: 1,
            c: c.as_mut_ptr(),
            ldc: n,
            sums: std::ptr::null_mut(),
            carry: Carry::none(),
        };
        let units = job.units(kernels);
        crate::team::Team::new(members).unwrap().run(&|member| {
            let part = member * units / members..(member + 1) * units / members;
            // SAFETY: all of the matrices above; members compute different units.
            unsafe { reduce_product(kernels, &job, part, &mut Vec::new()) };
        });
        c
    };
    let alone = result(1);
    assert_eq!(bits(&alone), bits(&result(2)));
    assert_eq!(bits(&alone), bits(&result(3)));
}

fn row_sums<E: Real>() {
    for (n, rows) in [(1, 1), (1, 0), (50, 0), (7, 100), (16, 31), (97, 65), (200, 1000)] {
        let ldb = n + 3;
        let b: Vec<E> = noise(rows * ldb, 4);
        let old: Vec<E> = noise(n + 1, 6);
        // One order for all: every instruction set gives the same bits here.
        let mut expected = old.clone();
        for j in 0..n {
            expected[j] = E::of((0..rows).fold(0.0, |sum, r| sum + b[r * ldb + j].wide()));
        }
        for kernels in Kernels::<E>::all_supported() {
            for cut in [0, 1, n / 3, n / 2, n] {
                let mut c = old.clone();
                let (ldb, carry) = (ldb as isize, Carry::none());
                let job = ReduceRows { b: b.as_ptr(), ldb, times: None, n, rows, c: c.as_mut_ptr(), carry };
                let mut scratch = Vec::new();
                // SAFETY: all of the matrices above; supported kernels.
                unsafe {
                    reduce_rows(kernels, &job, 0..cut, &mut scratch);
                    reduce_rows(kernels, &job, cut..n, &mut scratch);
                }
                assert_eq!(bits(&expected), bits(&c), "{} {n}×{rows} cut at {cut}", kernels.instruction_set);
            }
        }
    }
}

#[test]
fn row_sums_have_one_order() {
    row_sums::<f32>();
    row_sums::<f64>();
}

/// Ten million times 0.1, in pieces: 32 bits hold the mean, which a running sum of 32 bits misses by a tenth.
#[test]
fn a_mean_of_ten_million_rows() {
    const ROWS: usize = 10_000_000;
    let b = vec![0.1f32; ROWS];
    for kernels in Kernels::<f32>::all_supported() {
        let (mut totals, mut c) = ([0.0f64], [0.0f32]);
        for (done, rows) in [(0, 1), (1, 4_999_999), (5_000_000, 5_000_000)] {
            let (ends, begun) = (done + rows == ROWS, std::ptr::null_mut());
            let carry = Carry { done, ends, totals: totals.as_mut_ptr(), begun };
            let (b, c) = (b[done..].as_ptr(), c.as_mut_ptr());
            let job = ReduceRows { b, ldb: 1, times: None, n: 1, rows, c, carry };
            // SAFETY: rows that are there; supported kernels.
            unsafe { reduce_rows(kernels, &job, 0..1, &mut Vec::new()) };
        }
        assert!((f64::from(c[0]) / ROWS as f64 / 0.1 - 1.0).abs() < 1e-7, "{}", c[0]);
    }
}

/// The weight gradient of ones and 0.1 over five million rows.
#[test]
fn a_product_of_five_million_rows() {
    const ROWS: usize = 5_000_000;
    let (a, b) = (vec![1.0f32; ROWS], vec![0.1f32; ROWS]);
    for kernels in Kernels::<f32>::all_supported() {
        let (mut c, mut sums) = ([0.0f32], [0.0f32]);
        let job = ReduceProduct {
            a: a.as_ptr(),
            lda: 1,
            ki: 1,
            b: b.as_ptr(),
            ldb: 1,
            n: 1,
            rows: ROWS,
            pairs: 1,
            c: c.as_mut_ptr(),
            ldc: 1,
            sums: sums.as_mut_ptr(),
            carry: Carry::none(),
        };
        // SAFETY: the matrices above; supported kernels.
        unsafe { reduce_product(kernels, &job, 0..job.units(kernels), &mut Vec::new()) };
        for sum in [c[0], sums[0]] {
            let error = f64::from(sum) / (ROWS as f64 * f64::from(0.1f32)) - 1.0;
            assert!(error.abs() < 1e-6, "{}: {error:e}", kernels.instruction_set);
        }
    }
}

/// Sums of products: right, and the same bits for every number of members and from pieces of rows.
fn row_products<E: Real>() {
    for (n, rows) in [(1, 1), (1, 0), (7, 100), (16, 31), (97, 65), (200, 1000)] {
        let (lda, ldb) = (n as isize + 5, n as isize + 3);
        let (a, b): (Vec<E>, Vec<E>) = (noise((rows + 1) * (n + 5), 2), noise((rows + 1) * (n + 3), 4));
        for kernels in Kernels::<E>::all_supported() {
            let run = |members: usize, piece: usize| {
                let (mut c, mut totals) = (vec![E::of(7.0); n], vec![7.0; n]);
                for done in (0..rows.max(1)).step_by(piece) {
                    let (some, times) = (piece.min(rows - done), a[done * (n + 5)..].as_ptr());
                    let b = b[done * (n + 3)..].as_ptr();
                    let (c, times) = (c.as_mut_ptr(), Some((times, lda)));
                    let (totals, begun) = (totals.as_mut_ptr(), std::ptr::null_mut());
                    let carry = Carry { done, ends: done + some == rows, totals, begun };
                    let job = ReduceRows { b, ldb, times, n, rows: some, c, carry };
                    for member in 0..members {
                        let panels = job.panels(kernels);
                        let columns = job.columns(kernels, panels * member / members..panels * (member + 1) / members);
                        // SAFETY: all of the matrices above; supported kernels.
                        unsafe { reduce_rows(kernels, &job, columns, &mut Vec::new()) };
                    }
                }
                c
            };
            let whole = run(1, rows.max(1));
            for (j, &sum) in whole.iter().enumerate() {
                let terms = (0..rows).map(|r| a[r * (n + 5) + j].wide() * b[r * (n + 3) + j].wide());
                let (expected, size) = terms.fold((0.0, 0.0), |(sum, size), x: f64| (sum + x, size + x.abs()));
                let allowed = size * E::EPSILON * 40.0;
                assert!((sum.wide() - expected).abs() <= allowed, "{} {n}×{rows} [{j}]", kernels.instruction_set);
            }
            for (members, piece) in [(2, rows.max(1)), (5, rows.max(1)), (1, 33), (3, 7)] {
                let (given, set) = (run(members, piece), kernels.instruction_set);
                assert_eq!(bits(&whole), bits(&given), "{set} {n}×{rows} {members} {piece}");
            }
        }
    }
}

#[test]
fn row_products_have_one_order() {
    row_products::<f32>();
    row_products::<f64>();
}

/// From the last row to the first, in pieces of any length: the bits of one sum over the rows turned round.
fn pieces_from_the_end<E: Real>(ki: usize, n: usize, rows: usize) {
    let (a, b): (Vec<E>, Vec<E>) = (noise(rows * ki, 1), noise(rows * n, 2));
    let turned = |x: &[E], width: usize| x.chunks(width).rev().flatten().copied().collect::<Vec<E>>();
    let (back_a, back_b) = (turned(&a, ki), turned(&b, n));
    for kernels in Kernels::<E>::all_supported() {
        let (mut c, mut sums, mut beside) = (vec![E::default(); ki * n], vec![E::default(); n], vec![E::default(); n]);
        let carried_len = (ki + 1) * n.next_multiple_of(kernels.nr);
        let (mut totals, mut begun) = (vec![7.0f64; carried_len], vec![E::of(7.0); carried_len]);
        let mut row_totals = vec![7.0f64; n];
        let mut sum = |a: *const E, b: *const E, sign: isize, done: usize, count: usize| {
            let (lda, ldb) = (sign * ki as isize, sign * n as isize);
            let carry = Carry {
                done,
                ends: done + count == rows,
                totals: if count == rows { std::ptr::null_mut() } else { totals.as_mut_ptr() },
                begun: begun.as_mut_ptr(),
            };
            let product = ReduceProduct {
                a,
                lda,
                ki,
                b,
                ldb,
                n,
                rows: count,
                pairs: 1,
                c: c.as_mut_ptr(),
                ldc: n,
                sums: beside.as_mut_ptr(),
                carry,
            };
            let carry = Carry { totals: row_totals.as_mut_ptr(), ..carry };
            let of_rows = ReduceRows { b, ldb, times: None, n, rows: count, c: sums.as_mut_ptr(), carry };
            assert_eq!(product.carried_len(kernels), carried_len);
            // As two members would, who share each piece in another place.
            let units = product.units(kernels);
            let cut = done % (units + 1);
            // SAFETY: all of the matrices above, from whichever end; supported kernels.
            unsafe {
                reduce_product(kernels, &product, 0..cut, &mut Vec::new());
                reduce_product(kernels, &product, cut..units, &mut Vec::new());
                reduce_rows(kernels, &of_rows, 0..n, &mut Vec::new());
            }
            (bits(&c), bits(&sums), bits(&beside))
        };
        let expected = sum(back_a.as_ptr(), back_b.as_ptr(), 1, 0, rows);
        for piece in [1, 7, 32, 100, 640, rows] {
            let mut given = None;
            let mut end = rows;
            while end > 0 {
                // The last piece may be a short one, as a segment may.
                let len = piece.min(end);
                let (last_a, last_b) = (&a[(end - 1) * ki..], &b[(end - 1) * n..]);
                given = Some(sum(last_a.as_ptr(), last_b.as_ptr(), -1, rows - end, len));
                end -= len;
            }
            let set = kernels.instruction_set;
            assert_eq!(given.as_ref(), Some(&expected), "{set} {ki}×{n}×{rows} in pieces of {piece}");
        }
    }
}

#[test]
fn sums_in_pieces_from_the_end() {
    for (ki, n, rows) in
        [(3, 7, 20), (13, 33, 257), (28, 64, 600), (2, 40, 300), (150, 70, 300), (5, 9, 2500), (3, 5, 2048)]
    {
        pieces_from_the_end::<f32>(ki, n, rows);
        pieces_from_the_end::<f64>(ki, n, rows);
    }
}

/// Rows of several pairs are as many rows of one, from either end.
#[test]
fn rows_of_pairs() {
    for (ki, n, rows, pairs) in [(3, 7, 20, 5), (40, 33, 257, 3), (14, 64, 70, 40), (2, 40, 1, 2500)] {
        let all = rows * pairs;
        let (a, b): (Vec<f32>, Vec<f32>) = (noise(all * ki, 1), noise(all * n, 2));
        // Each row of pairs with something behind it.
        let apart = |x: &[f32], width: usize| -> Vec<f32> {
            x.chunks(pairs * width).flat_map(|row| row.iter().copied().chain([f32::NAN; 3])).collect()
        };
        // The pairs of the last row first, each row's in their order.
        let turned = |x: &[f32], width: usize| x.chunks(pairs * width).rev().flatten().copied().collect::<Vec<f32>>();
        for kernels in Kernels::<f32>::all_supported() {
            let sum = |(a, lda): (&[f32], isize), (b, ldb): (&[f32], isize), pairs: usize| {
                let mut c = vec![0.0f32; ki * n];
                let last = |x: &[f32], ld: isize| match ld < 0 {
                    true => x[(rows as isize - 1) as usize * ld.unsigned_abs()..].as_ptr(),
                    false => x.as_ptr(),
                };
                let job = ReduceProduct {
                    a: last(a, lda),
                    lda,
                    ki,
                    b: last(b, ldb),
                    ldb,
                    n,
                    rows: all,
                    pairs,
                    c: c.as_mut_ptr(),
                    ldc: n,
                    sums: std::ptr::null_mut(),
                    carry: Carry::none(),
                };
                // SAFETY: matrices of so many rows; supported kernels.
                unsafe { reduce_product(kernels, &job, 0..job.units(kernels), &mut Vec::new()) };
                bits(&c)
            };
            let (apart_a, apart_b) = (apart(&a, ki), apart(&b, n));
            let [lda, ldb] = [ki, n].map(|width| (pairs * width + 3) as isize);
            let one = sum((&a, ki as isize), (&b, n as isize), 1);
            assert_eq!(one, sum((&apart_a, lda), (&apart_b, ldb), pairs), "{} {ki}×{n}", kernels.instruction_set);
            let back = sum((&turned(&a, ki), ki as isize), (&turned(&b, n), n as isize), 1);
            assert_eq!(back, sum((&apart_a, -lda), (&apart_b, -ldb), pairs), "{} {ki}×{n}", kernels.instruction_set);
        }
    }
}

/// A table of two products, the second of which starts from the first and has more segments than one call takes, against
/// one product of all that is joined; the same bits in rows in memory and in scratch, whatever block it is.
fn tables<E: Real>() {
    use retrograd_compiler::codegen::{Place, RowPart, TileProduct, TileProducts};
    let (rows, parts, k_part, panels) = (7, 11, 3, 9);
    for kernels in Kernels::<E>::all_supported() {
        let (k, nr) = (k_part * parts, kernels.nr);
        let n = panels * nr;
        let (mut a, b) = (noise::<E>(rows * k, 3), noise::<E>(k * n, 4));
        let mut joined = vec![E::default(); rows * n];
        kernels.product(&a, &b, &mut joined, rows, k, n);
        // The first product has one part of each row, the second the others; each has its own packed panels.
        let pack = |ks: Range<usize>| -> Vec<E> {
            (0..panels).flat_map(|p| b[(p * k + ks.start) * nr..(p * k + ks.end) * nr].to_vec()).collect()
        };
        let (mut front, mut rest) = (pack(0..k_part), pack(k_part..k));
        let part = |i: usize| RowPart { access: 0, offset: (i * k_part) as u32, stride: k as u32, len: k_part as u32 };
        let in_c = RowPart { access: 3, offset: 0, stride: n as u32, len: 0 };
        let in_rows = Place::Rows(in_c);
        let mut first: Option<Vec<E>> = None;
        for (into, block_rows, block_panels) in [
            (in_rows, 0..rows, 0..panels),
            (in_rows, 2..5, 1..8),
            (in_rows, 2..5, 0..panels),
            (Place::Scratch(0), 3..4, 2..panels),
            (Place::Scratch(0), 0..rows, 2..panels),
        ] {
            let product = |packed, segments, start| {
                let k = segments * k_part as u32;
                // Fetching ahead, or not, changes nothing.
                TileProduct { segments, hints: 40, packed, k, start, into, far: block_rows.len() == rows }
            };
            let mut table = TileProducts {
                products: vec![product(1, 1, None), product(2, parts as u32 - 1, Some(into))],
                parts: Vec::new(),
            };
            for of_product in [0..1, 1..parts] {
                table.parts.extend(of_product.map(part));
                table.parts.extend([in_c; 40]);
            }
            let (mut c, mut scratch) = (vec![E::default(); rows * n], vec![E::default(); rows * n]);
            let bases = [&mut a, &mut front, &mut rest, &mut c].map(|rows| rows.as_mut_ptr().cast::<u8>());
            let (m, count) = (block_rows.len(), block_panels.len());
            // SAFETY: the accesses are the four matrices, with the strides and panels of the table.
            unsafe {
                (kernels.products)(
                    &table,
                    bases.as_ptr(),
                    scratch.as_mut_ptr().cast(),
                    block_panels.start,
                    count,
                    block_rows.start,
                    m,
                );
            }
            // The first block is all of it.
            let first = first.get_or_insert_with(|| c.clone());
            for r in 0..rows {
                for (p, j) in (0..panels).flat_map(|p| (0..nr).map(move |j| (p, j))) {
                    let inside = block_rows.contains(&r) && block_panels.contains(&p);
                    let joined = if inside { joined[p * rows * nr + r * nr + j].wide() } else { 0.0 };
                    let expected = if inside { first[r * n + p * nr + j] } else { E::default() };
                    let got = match into {
                        Place::Rows(_) => c[r * n + p * nr + j],
                        Place::Scratch(_) if inside => {
                            scratch[((p - block_panels.start) * m + r - block_rows.start) * nr + j]
                        }
                        Place::Scratch(_) => E::default(),
                    };
                    assert!((got.wide() - joined).abs() <= E::EPSILON * k as f64, "{got:?} for {joined}");
                    assert_eq!(
                        got.bits(),
                        expected.bits(),
                        "{}: row {r}, panel {p}, column {j}",
                        kernels.instruction_set
                    );
                }
            }
        }
    }
}

#[test]
fn tables_of_products() {
    tables::<f32>();
    tables::<f64>();
}

fn small_products<E: Real>() {
    let sizes = [
        (1, 1, 1),
        (9, 128, 1),
        (1, 9, 128),
        (1, 128, 9),
        (128, 9, 1),
        (5, 7, 33),
        (8, 64, 16),
        (3, 100, 4),
        (4, 0, 3),
    ];
    for (m, k, n) in sizes {
        let (a, b): (Vec<E>, Vec<E>) = (noise(m * k, 1), noise(k * n, 2));
        for (a_is_transposed, b_is_transposed) in [(false, false), (false, true), (true, false), (true, true)] {
            let product = SmallProduct { m, k, n, a_is_transposed, b_is_transposed };
            for kernels in Kernels::<E>::all_supported() {
                let mut c = vec![E::of(7.0); m * n + 1];
                product.compute(kernels, &a, &b, &mut c, &mut Vec::new());
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let left = |l: usize| a[if a_is_transposed { l * m + i } else { i * k + l }].wide();
                    let right = |l: usize| b[if b_is_transposed { j * k + l } else { l * n + j }].wide();
                    let (sum, given): (f64, f64) = ((0..k).map(|l| left(l) * right(l)).sum(), c[i * n + j].wide());
                    let bound = E::EPSILON * (k as f64 + 2.0);
                    assert!(
                        (sum - given).abs() <= bound,
                        "{}: {product:?} ({i}, {j}): {given}, not {sum}",
                        kernels.instruction_set
                    );
                }
                assert_eq!(c[m * n].wide(), 7.0, "outside C");
            }
        }
    }
}

#[test]
fn products_of_small_matrices() {
    small_products::<f32>();
    small_products::<f64>();
}

/// Sizes whose product wraps around to what the slices have.
#[test]
fn sizes_that_wrap_are_refused() {
    let kernels = Kernels::<f32>::detect();
    let (a, b) = (vec![1.0f32; 64], vec![1.0f32; 64]);
    let huge = [1 << 31, 1 << 32, 1 << 60, 1 << 63, usize::MAX];
    let panics = |run: &mut dyn FnMut()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err();
    for n in huge {
        for sizes in [[n, n, n], [n, 1, n], [1, n, n], [n, n, 1], [n, 1, 1], [1, n, 1], [1, 1, n]] {
            let [m, k, n] = sizes;
            let mut c = [0.0; 64];
            let columns = n.checked_next_multiple_of(kernels.nr).unwrap_or(n);
            assert!(panics(&mut || kernels.product(&a, &b, &mut c, m, k, columns)), "{sizes:?}");
            for (a_is_transposed, b_is_transposed) in [(false, false), (false, true), (true, false), (true, true)] {
                let product = SmallProduct { m, k, n, a_is_transposed, b_is_transposed };
                assert!(panics(&mut || product.compute(kernels, &a, &b, &mut c, &mut Vec::new())), "{product:?}");
            }
            assert_eq!(c, [0.0; 64]);
        }
        // A matrix of nothing is nothing, however long its other side.
        let product = SmallProduct { m: 0, k: n, n: 0, a_is_transposed: false, b_is_transposed: true };
        product.compute(kernels, &a, &b, &mut [], &mut Vec::new());
        kernels.product(&a, &b, &mut [], 0, n, 0);
    }
}
