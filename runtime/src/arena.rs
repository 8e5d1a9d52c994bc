//! Memory for the values of a plan: one region for each slot.
//!
//! A region is zeroed, and a program that never touches it does not pay for it. It starts on a cache line. Large ones
//! have pages of their own, and so would all start at the same place of a page: a tile goes through many slots at once,
//! at the same row and features of each, and all of them would fall into the same few sets of the first-level cache. So
//! neighbours start apart, and ask for large pages. Together: 1 % of an LSTM's training step at 256 units, 6 % of one
//! with 32 units and 256 samples, measured pairwise in one process on an EPYC (Zen 3).

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::NonNull;

use memmap2::MmapMut;
use retrograd_compiler::plan::ARENA_SLACK;

/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes of a page, over which starts are spread.
const PAGE: usize = 4096;
/// Lines from the start of one region to that of the next: without a divisor in common with the 63 that there are.
const SPREAD: usize = 5;
/// Bytes from which a region has pages of its own: those of a large page.
const OWN_PAGES: usize = 2 << 20;

/// What a region is made of; held to be freed with it.
enum Source {
    Heap { _words: Vec<u64> },
    Pages { _map: MmapMut },
}

/// Memory of a slot.
pub struct Region {
    _source: Source,
    start: NonNull<u8>,
    bytes: usize,
}

impl Region {
    /// Zeroed memory of `bytes` bytes and the slack that plans count on. `number` is that of the region among those
    /// that are used together.
    pub fn new(bytes: usize, number: usize) -> Region {
        let bytes = bytes + ARENA_SLACK;
        let (source, start, spread) = if bytes < OWN_PAGES {
            let (source, start) = Region::heap(bytes + LINE);
            (source, start, 0)
        } else {
            let (source, start) = Region::pages(bytes + PAGE);
            (source, start, number * SPREAD * LINE % (PAGE - LINE))
        };
        // To the next line and on by whole lines: less than a page in all, which the room has.
        let first = start.as_ptr().wrapping_add(start.align_offset(LINE)).wrapping_add(spread);
        let start = NonNull::new(first).expect("inside of an allocation");
        Region { _source: source, start, bytes }
    }

    fn heap(room: usize) -> (Source, NonNull<u8>) {
        let mut words = vec![0u64; room.div_ceil(8)];
        let start = NonNull::new(words.as_mut_ptr().cast()).expect("vectors are somewhere");
        (Source::Heap { _words: words }, start)
    }

    fn pages(room: usize) -> (Source, NonNull<u8>) {
        let failed = |_| handle_alloc_error(Layout::array::<u8>(room).expect("a slot fits the address space"));
        let mut map = MmapMut::map_anon(room).unwrap_or_else(failed);
        // A wish; without it the region is merely slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let start = NonNull::new(map.as_mut_ptr()).expect("maps are somewhere");
        (Source::Pages { _map: map }, start)
    }

    /// Its first byte.
    pub fn address(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Bytes, slack included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_zero_aligned_and_apart() {
        for bytes in [0, 100, 5000, OWN_PAGES, OWN_PAGES + 12345] {
            let regions: Vec<Region> = (0..70).map(|number| Region::new(bytes, number)).collect();
            let mut places: Vec<usize> = Vec::new();
            for region in &regions {
                assert_eq!(region.address() as usize % LINE, 0);
                assert_eq!(region.bytes(), bytes + ARENA_SLACK);
                // SAFETY: as many bytes as the region has, which nobody else knows of.
                let own = unsafe { std::slice::from_raw_parts_mut(region.address(), region.bytes()) };
                assert!(own.iter().all(|&b| b == 0));
                own.fill(1);
                places.push(region.address() as usize % PAGE);
            }
            if bytes >= OWN_PAGES {
                places.truncate(PAGE / LINE - 1);
                places.sort_unstable();
                places.dedup();
                assert_eq!(places.len(), PAGE / LINE - 1, "each starts at another line of its page");
            }
        }
    }
}
