//! How close the products come to the machine's multiply-add peak.
//!
//! The peak is measured in the same process, with a loop that never leaves the registers, right
//! before every product, so that a machine whose clock or load changes is still compared with
//! itself. Pin it to one core for numbers that mean something.

use retrograd_runtime::gemm::*;

/// A stopwatch that counts the time this thread ran, so that neighbours count as little as possible.
struct Stopwatch(f64);

impl Stopwatch {
    fn start() -> Self {
        Self(Self::now())
    }
    fn seconds(&self) -> f64 {
        Self::now() - self.0
    }
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    fn now() -> f64 {
        #[repr(C)]
        struct Timespec {
            seconds: i64,
            nanoseconds: i64,
        }
        unsafe extern "C" {
            fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
        }
        const THREAD_CPUTIME: i32 = 3;
        let mut time = Timespec { seconds: 0, nanoseconds: 0 };
        // SAFETY: the C library's declaration on 64-bit Linux; it fills in the struct.
        unsafe { clock_gettime(THREAD_CPUTIME, &mut time) };
        time.seconds as f64 + time.nanoseconds as f64 * 1e-9
    }
    #[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
    fn now() -> f64 {
        use std::time::Instant;
        static ORIGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        ORIGIN.elapsed().as_secs_f64()
    }
}

/// Seconds of the best of many runs of `work`, and the peak in flops around that time.
fn best<E: Real>(flops: f64, mut work: impl FnMut()) -> f64 {
    let repeat = (4e6 / flops).ceil().max(1.0) as usize;
    let mut ratio: f64 = 0.0;
    let mut top: f64 = 0.0;
    let trials = if flops > 1e9 { 20 } else { 60 };
    for _ in 0..trials {
        top = top.max(E::peak());
        let start = Stopwatch::start();
        for _ in 0..repeat {
            work();
        }
        let rate = flops * repeat as f64 / start.seconds();
        ratio = ratio.max(rate);
    }
    ratio / top * 100.0
}

trait Real: Element {
    /// Flops per second of independent multiply-adds in registers.
    fn peak() -> f64;
    fn of(value: f64) -> Self;
}

macro_rules! real {
    ($element:ty, $loop:ident, $set:ident, $fma:ident, $lanes:literal) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn $loop(rounds: usize) -> f64 {
            use std::arch::x86_64::*;
            let (a, b) = ($set(std::hint::black_box(0.5)), $set(std::hint::black_box(0.25)));
            let mut sums = [$set(0.0); 12];
            let start = Stopwatch::start();
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = $fma(*sum, a, b);
                }
            }
            let time = start.seconds();
            std::hint::black_box(sums);
            rounds as f64 * 12.0 * $lanes * 2.0 / time
        }
        impl Real for $element {
            fn peak() -> f64 {
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the features are there.
                    return unsafe { $loop(50_000) };
                }
                f64::NAN
            }
            fn of(value: f64) -> Self {
                value as $element
            }
        }
    };
}
real!(f32, peak_f32, _mm256_set1_ps, _mm256_fmadd_ps, 8.0);
real!(f64, peak_f64, _mm256_set1_pd, _mm256_fmadd_pd, 4.0);

fn fill<E: Real>(len: usize) -> Vec<E> {
    (0..len).map(|i| E::of(((i * 7919) % 1000) as f64 / 1000.0 - 0.5)).collect()
}

/// Bytes of a cache line, and so more than enough elements to spare for [`aligned`].
const LINE: usize = 64;

/// What begins on a cache line, as all buffers of a plan do: a row of a panel in two lines is fetched only half in advance.
fn aligned<E>(all: &[E]) -> &[E] {
    &all[all.as_ptr().align_offset(LINE)..]
}

fn product<E: Real>(kernels: &Kernels<E>, m: usize, k: usize, n: usize, transposed: bool) -> f64 {
    let panels = n.div_ceil(kernels.nr);
    let a: Vec<E> = fill(m * k);
    let b: Vec<E> = fill(panels * k * kernels.nr + LINE);
    let mut c: Vec<E> = fill(m * panels * kernels.nr + LINE);
    let (am, ak) = if transposed { (1, m) } else { (k, 1) };
    let segment = Segment { a: a.as_ptr(), am, ak, k };
    let call = GemmCall {
        segments: &segment,
        segment_count: 1,
        b: aligned(&b).as_ptr(),
        b_panel: k * kernels.nr,
        b_k: kernels.nr,
        c: {
            let skip = c.as_ptr().align_offset(LINE);
            c[skip..].as_mut_ptr()
        },
        c_row: panels * kernels.nr,
        c_panel: kernels.nr,
        m,
        panels,
        ..GemmCall::bare()
    };
    // SAFETY: the matrices above; the kernels are supported.
    best::<E>(2.0 * (m * k * n) as f64, || unsafe { (kernels.gemm)(&call) })
}

fn gradient<E: Real>(kernels: &Kernels<E>, ki: usize, n: usize, rows: usize) -> f64 {
    // As a plan lays rows out: never a multiple of 1024 bytes apart.
    let (lda, ldb) = (ki + 16, n + 16);
    let (a, b): (Vec<E>, Vec<E>) = (fill(rows * lda + LINE), fill(rows * ldb + LINE));
    let (a, b) = (aligned(&a), aligned(&b));
    let mut c: Vec<E> = fill(ki * n);
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
        ldc: n,
        sums: std::ptr::null_mut(),
        carry: Carry::none(),
    };
    let mut scratch = Vec::new();
    let units = job.units(kernels);
    // SAFETY: the matrices above; the kernels are supported.
    best::<E>(2.0 * (ki * n * rows) as f64, || unsafe {
        reduce_product(kernels, &job, 0..units, &mut scratch);
    })
}

/// Microseconds to read so many bytes again and again, and nothing else: what a product with one row cannot beat. At best
/// and in the median of 100 times: what fits the first-level cache shares nothing with other cores, so that how far these
/// are apart says how much another thread takes of this one.
fn reading(bytes: usize) -> [f64; 2] {
    let data = vec![0.5f32; bytes / size_of::<f32>()];
    let once = || {
        let start = Stopwatch::start();
        (0..100).for_each(|_| Kernels::<f32>::detect().read(std::hint::black_box(&data)));
        start.seconds() * 1e4
    };
    let mut times: Vec<f64> = (0..100).map(|_| once()).collect();
    times.sort_by(f64::total_cmp);
    [times[0], times[50]]
}

/// Gigabytes read per second.
fn sums<E: Real>(kernels: &Kernels<E>, n: usize, rows: usize) -> f64 {
    let b: Vec<E> = fill(rows * n);
    let mut c: Vec<E> = fill(n);
    let job =
        ReduceRows { b: b.as_ptr(), ldb: n as isize, times: None, n, rows, c: c.as_mut_ptr(), carry: Carry::none() };
    let (mut rate, mut scratch): (f64, Vec<f64>) = (0.0, Vec::new());
    for _ in 0..50 {
        let start = Stopwatch::start();
        // SAFETY: the matrices above; the kernels are supported.
        unsafe { reduce_rows(kernels, &job, 0..n, &mut scratch) };
        rate = rate.max(size_of_val(&b[..]) as f64 / start.seconds() / 1e9);
    }
    rate
}

/// Gigabytes packed per second.
fn packing<E: Real>(nr: usize, k: usize, n: usize, transposed: bool) -> f64 {
    let src: Vec<E> = fill(k * n);
    let (k_stride, n_stride) = if transposed { (1, k) } else { (n, 1) };
    let matrix = PackB { src: &src, k_stride, n_stride, k, n };
    let panels = matrix.panels(nr);
    let mut dst: Vec<E> = fill(panels * nr * k);
    let mut rate: f64 = 0.0;
    for _ in 0..50 {
        let start = Stopwatch::start();
        pack_b(&matrix, nr, &mut dst, k * nr, 0, 0..panels);
        rate = rate.max(size_of_val(&src[..]) as f64 / start.seconds() / 1e9);
    }
    rate
}

fn report<E: Real>(element: &str, all: bool) {
    let sets = Kernels::<E>::all_supported().take(if all { usize::MAX } else { 1 });
    for kernels in sets {
        println!("{element} {} nr={} peak {:.1} Gflop/s", kernels.instruction_set, kernels.nr, E::peak() / 1e9);
        for (m, k, n) in [
            (1, 64, 256),
            (1, 128, 256),
            (1, 256, 1024),
            (1, 512, 1024),
            (2, 64, 256),
            (3, 64, 256),
            (4, 64, 256),
            (5, 64, 256),
            (6, 64, 256),
            (7, 64, 256),
            (8, 64, 256),
            (12, 64, 256),
            (96, 64, 16),
            (16, 128, 512),
            (32, 256, 1024),
            (64, 512, 2048),
            (1600, 256, 1024),
        ] {
            println!(
                "  {m:5} x {k:4} x {n:4}: {:5.1} %, A transposed {:5.1} %",
                product(kernels, m, k, n, false),
                product(kernels, m, k, n, true),
            );
        }
        for (ki, n, rows) in [
            (256, 1024, 256),
            (256, 1024, 800),
            (256, 1024, 3200),
            (512, 2048, 3200),
            (64, 256, 1024),
            (28, 512, 1792),
            (32, 128, 25600),
            (1, 512, 1792),
            (10, 512, 1792),
        ] {
            println!("  gradient {ki:4} x {n:4}, {rows:5} rows: {:5.1} %", gradient(kernels, ki, n, rows));
        }
        println!("  row sums {:.1} GB/s", sums(kernels, 1024, 800));
        for (k, n) in [(64, 256), (256, 1024), (1024, 4096)] {
            println!(
                "  packing {k:4} x {n:4}: {:.1} GB/s, transposed {:.1} GB/s",
                packing::<E>(kernels.nr, k, n, false),
                packing::<E>(kernels.nr, k, n, true),
            );
        }
    }
}

fn main() {
    for bytes in [16 << 10, 128 << 10, 2 << 20] {
        let [best, median] = reading(bytes);
        println!("reading {:4} KiB: {best:.2} µs, {median:.2} in the median", bytes >> 10);
    }
    let all = std::env::args().any(|argument| argument == "--all");
    report::<f32>("f32", all);
    report::<f64>("f64", all);
}
