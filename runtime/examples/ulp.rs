//! Measures the vector maths: the largest error over all 2³² f32 inputs, and the
//! time an element takes in the first-level cache.
//!
//! ```text
//! cargo run --release -p retrograd-runtime --example ulp -- [FUNCTION…] [--threads N] [--isa NAME] [--fast]
//! ```
//!
//! Prints a markdown table, and exits with 1 if a function breaks its bound. The
//! truth is the f64 version, whose error is of the order of 1e-8 of a unit in the
//! last place of f32. `--fast` takes every 257th input only.
//!
//! `pow` has 2⁶⁴ inputs, of which two grids are taken: every 2^32/8192nd bit pattern
//! for both operands, which visits the special cases and mostly over- and
//! underflows; and 2^20 positive x against 128 exponents each, y = t/log2 x rounded
//! to f32, for t evenly over [−150, 128.5], where the results are finite.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use retrograd_runtime::vmath::{BinaryFunction, Function, Table, ulp_error};

const CHUNK: usize = 4096;

/// The largest error so far and where it was.
#[derive(Clone, Copy, Default)]
struct Worst {
    error: f64,
    at: [f32; 2],
    count: u64,
}

impl Worst {
    fn see(&mut self, error: f64, x: f32, z: f32) {
        if error > self.error {
            self.error = error;
            self.at = [x, z];
        }
    }

    fn merge(self, other: Worst) -> Worst {
        let count = self.count + other.count;
        Worst { count, ..if other.error > self.error { other } else { self } }
    }
}

/// Runs `work` on `threads` threads, each taking numbers below `jobs` till there are none.
fn share(threads: usize, jobs: u64, work: impl Fn(u64) -> Worst + Sync) -> Worst {
    let next = AtomicU64::new(0);
    let run = || {
        let mut worst = Worst::default();
        loop {
            let job = next.fetch_add(1, Ordering::Relaxed);
            if job >= jobs {
                return worst;
            }
            worst = worst.merge(work(job));
        }
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        handles.into_iter().map(|h| h.join().expect("a worker panicked")).fold(Worst::default(), Worst::merge)
    })
}

fn sweep_unary(table: &Table<f32>, f: Function, threads: usize, step: u64) -> Worst {
    let (fast, exact) = (table.unary(f), Table::<f64>::detect().unary(f));
    let inputs = (1u64 << 32).div_ceil(step);
    share(threads, inputs.div_ceil(CHUNK as u64), |job| {
        let (mut x, mut y) = ([0f32; CHUNK], [0f32; CHUNK]);
        let (mut x64, mut y64) = ([0f64; CHUNK], [0f64; CHUNK]);
        for j in 0..CHUNK {
            // The last chunk runs over the end: it wraps to inputs seen before.
            x[j] = f32::from_bits(((job * CHUNK as u64 + j as u64) * step) as u32);
            x64[j] = f64::from(x[j]);
        }
        // SAFETY: all arrays are CHUNK long, and `table` is one this machine supports.
        unsafe {
            fast(x.as_ptr(), y.as_mut_ptr(), CHUNK);
            exact(x64.as_ptr(), y64.as_mut_ptr(), CHUNK);
        }
        let mut worst = Worst { count: CHUNK as u64, ..Worst::default() };
        for j in 0..CHUNK {
            worst.see(ulp_error(y[j], y64[j]), x[j], 0.0);
        }
        worst
    })
}

fn sweep_pow(table: &Table<f32>, threads: usize, coarse: bool) -> Worst {
    let fast = table.binary(BinaryFunction::Pow);
    let compare = |x: &[f32], z: &[f32]| {
        let mut y = vec![0f32; x.len()];
        // SAFETY: the three are of one length, and this machine supports `table`.
        unsafe { fast(x.as_ptr(), z.as_ptr(), y.as_mut_ptr(), x.len()) };
        let mut worst = Worst { count: x.len() as u64, ..Worst::default() };
        for j in 0..x.len() {
            worst.see(ulp_error(y[j], f64::from(x[j]).powf(f64::from(z[j]))), x[j], z[j]);
        }
        worst
    };
    let side = if coarse { 1024u32 } else { 8192 };
    let stride = (1u64 << 32) as f64 / f64::from(side);
    let square = share(threads, u64::from(side), |job| {
        let x = f32::from_bits((job as f64 * stride) as u32);
        let z: Vec<f32> = (0..side).map(|j| f32::from_bits((f64::from(j) * stride) as u32)).collect();
        compare(&vec![x; z.len()], &z)
    });
    let bases = if coarse { 1u64 << 14 } else { 1 << 20 };
    let curve = share(threads, bases, |job| {
        // From the least subnormal to the greatest finite number.
        let x = f32::from_bits((1 + job * 0x7f7f_fffe / (bases - 1)) as u32);
        let z: Vec<f32> =
            (0..128).map(|j| ((-150.0 + 278.5 * f64::from(j) / 127.0) / f64::from(x).log2()) as f32).collect();
        compare(&[x; 128], &z)
    });
    square.merge(curve)
}

/// Nanoseconds that `steps` steps of six dependent one-cycle instructions take.
fn chain(steps: u64) -> f64 {
    let start = Instant::now();
    let mut x = black_box(88_172_645_463_325_252u64);
    for _ in 0..steps {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    black_box(x);
    start.elapsed().as_secs_f64() * 1e9
}

/// The shortest of many timings of `f` on 512 elements, in nanoseconds an element
/// and in cycles. The clock wanders, so it is taken beside every timing, from a
/// chain of instructions of known latency; it is known on x86-64 only.
fn time(mut f: impl FnMut()) -> (f64, Option<f64>) {
    const CALLS: u32 = 100;
    const STEPS: u64 = 5000;
    let (mut ns, mut cycle) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..500 {
        cycle = cycle.min(chain(STEPS) / (6 * STEPS) as f64);
        let start = Instant::now();
        for _ in 0..CALLS {
            f();
        }
        ns = ns.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS) / 512.0);
    }
    (ns, cfg!(target_arch = "x86_64").then_some(ns / cycle))
}

/// 512 elements aligned as compiled graphs align theirs, to cache lines.
#[repr(align(64))]
struct Tile([f32; 512]);

/// Inputs evenly over −6 to 6, or 0.01 to 12 where the logarithm is taken.
fn samples(positive: bool) -> Tile {
    Tile(std::array::from_fn(|i| {
        let t = 12.0 * (i as f32 * 0.618_034).fract();
        if positive { t + 0.01 } else { t - 6.0 }
    }))
}

fn usage(why: &str) -> ExitCode {
    eprintln!("{why}\nusage: ulp [FUNCTION…] [--threads N] [--isa NAME] [--fast]");
    ExitCode::from(2)
}

fn main() -> ExitCode {
    let mut names = Vec::new();
    let mut threads = 1;
    let mut step = 1;
    let mut table = Table::<f32>::detect();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--threads" => match args.next().and_then(|n| n.parse().ok()) {
                Some(n) if n > 0 => threads = n,
                _ => return usage("--threads wants a positive number"),
            },
            "--isa" => {
                let name = args.next().unwrap_or_default();
                match Table::<f32>::all_supported().into_iter().find(|t| t.instruction_set.name() == name) {
                    Some(t) => table = t,
                    None => return usage("this machine does not support that instruction set"),
                }
            }
            "--fast" => step = 257,
            _ => names.push(arg),
        }
    }
    let known =
        |n: &String| Function::ALL.iter().any(|f| f.name() == n) || BinaryFunction::ALL.iter().any(|f| f.name() == n);
    if let Some(n) = names.iter().find(|n| !known(n)) {
        return usage(&format!("no function is called {n}"));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);

    println!("Instruction set: {}\n", table.instruction_set);
    println!("| function | max ULP | bound | worst input | inputs | ns/element | cycles/element |");
    println!("|---|---:|---:|---|---:|---:|---:|");
    let mut broken = false;
    let mut row = |name: &str, worst: Worst, bound: f64, at: String, (ns, cycles): (f64, Option<f64>)| {
        let cycles = cycles.map_or("?".to_string(), |c| format!("{c:.2}"));
        println!("| {name} | {:.3} | {bound} | {at} | {} | {ns:.2} | {cycles} |", worst.error, worst.count);
        broken |= worst.error > bound;
    };
    for f in Function::ALL {
        if wanted(f.name()) {
            let worst = sweep_unary(table, f, threads, step);
            let x = samples(matches!(f, Function::Ln | Function::Log1p));
            let mut y = Tile([0.0; 512]);
            let run = table.unary(f);
            // SAFETY: x and y are of one length, and this machine supports `table`.
            let times = time(|| unsafe { run(black_box(x.0.as_ptr()), y.0.as_mut_ptr(), 512) });
            row(f.name(), worst, f.bound(), format!("{:e}", worst.at[0]), times);
        }
    }
    for f in BinaryFunction::ALL {
        if wanted(f.name()) {
            let worst = sweep_pow(table, threads, step > 1);
            let (x, z) = (samples(true), samples(false));
            let mut y = Tile([0.0; 512]);
            let run = table.binary(f);
            // SAFETY: the three are of one length, and this machine supports `table`.
            let times = time(|| unsafe { run(black_box(x.0.as_ptr()), z.0.as_ptr(), y.0.as_mut_ptr(), 512) });
            let at = format!("{:e}, {:e}", worst.at[0], worst.at[1]);
            row(f.name(), worst, f.bound(), at, times);
        }
    }
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
