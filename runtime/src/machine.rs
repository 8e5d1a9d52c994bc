//! What this machine gives, measured: how fast it reads. (How fast it multiplies and adds, its kernels say:
//! [`Kernels::peak`](crate::gemm::Kernels::peak).)
//!
//! A bound from below on the time of a phase counts each byte once, at the rate of whatever may hold all of them. That is
//! a cache where they are few; copying is slower than reading, and copies that pass by the caches are slower still on
//! some machines, so the rate is that of reading.

use std::time::Instant;

use crate::gemm::Kernels;

/// Bytes that are read again and again: of a first-, second- and third-level cache, and of none.
const SIZES: [usize; 4] = [16 << 10, 128 << 10, 4 << 20, 64 << 20];
/// Tries of each, of which the best counts.
const TRIES: usize = 10;

/// Bytes a second that one core reads, for some numbers of bytes from few to many; never more for more bytes. It takes
/// about a tenth of a second, and 64 MiB meanwhile.
///
/// ```
/// let rates = retrograd_runtime::machine::read_rates();
/// assert!(rates.iter().all(|&(bytes, rate)| bytes > 0 && rate > 1e6));
/// assert!(rates.is_sorted_by(|few, many| few.0 < many.0 && few.1 >= many.1));
/// ```
pub fn read_rates() -> Vec<(usize, f64)> {
    let kernels = Kernels::<f32>::detect();
    let all = vec![1.0f32; SIZES[SIZES.len() - 1] / size_of::<f32>()];
    let mut rates = SIZES.map(|bytes| {
        let turns = (SIZES[2] / bytes).max(1);
        let once = |_| {
            let begun = Instant::now();
            (0..turns).for_each(|_| kernels.read(&all[..bytes / size_of::<f32>()]));
            (turns * bytes) as f64 / begun.elapsed().as_secs_f64()
        };
        (bytes, (0..TRIES).map(once).fold(0.0, f64::max))
    });
    // Noise must not make a larger one faster: a bound takes the rate of the next smaller size.
    for i in (1..rates.len()).rev() {
        rates[i - 1].1 = rates[i - 1].1.max(rates[i].1);
    }
    rates.to_vec()
}
