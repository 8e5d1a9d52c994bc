//! Memory for the values of a plan: one region for each slot, all in one map.
//!
//! Regions are zeroed, and one that is never touched costs next to nothing. Each starts on a cache line. What a training
//! step goes through, a few features of each of many rows, lies all over its memory, so the map asks for large pages, and
//! small regions share them.
//!
//! Regions of several pages start at different places of a page: a tile goes through many of them at once, at the same
//! row and features of each, and all would fall into the same few sets of the first-level cache. That is 1 % of an LSTM's
//! training step at 256 units, 6 % of one with 32 units and 256 samples, measured pairwise in one process on an EPYC
//! (Zen 3).

use std::ptr::NonNull;

use memmap2::MmapMut;
use retrograd_compiler::ir::sizes::{plus, total};
use retrograd_compiler::plan::ARENA_SLACK;

use crate::guard::{self, Guard};
use crate::memory::{self, Refused};

/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes of a page, over which starts are spread.
const PAGE: usize = 4096;
/// Lines from the start of one region to that of the next: without a divisor in common with the 63 that there are.
const SPREAD: usize = 5;
/// Bytes from which a region's start is moved to its own place of a page: the room between is then next to nothing.
const SPREAD_FROM: usize = 16 * PAGE;
/// Bytes of a large page.
const LARGE: usize = 2 << 20;

/// A stretch of zeroed memory.
#[derive(Clone, Copy)]
struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

/// Regions that live and die together.
pub struct Arena {
    regions: Vec<Region>,
    /// Held to be freed with them.
    _map: Option<MmapMut>,
}

// SAFETY: regions point into the map, which the arena owns and which does not move when the arena does.
unsafe impl Send for Arena {}

impl Arena {
    /// A region of zeros for each of these sizes in bytes, with the slack that plans count on behind it.
    ///
    /// # Errors
    /// If they are more than can be counted, than the machine has, or than the system gives.
    pub fn new(sizes: impl IntoIterator<Item = usize>) -> Result<Arena, Refused> {
        let sizes: Vec<usize> = sizes.into_iter().map(|bytes| plus(bytes, ARENA_SLACK)).collect();
        let asked = total(sizes.iter().copied());
        // With what is left free between regions and around them: below this nothing overflows.
        memory::check(plus(asked, sizes.len() * 2 * PAGE + 2 * LARGE)).map_err(|e| Refused { asked, ..e })?;
        if let Some(guard) = guard::present() {
            return Arena::guarded(&sizes, guard).map_err(|reason| Refused { asked, reason });
        }
        let mut end = 0usize;
        let mut places = Vec::new();
        for (number, bytes) in sizes.into_iter().enumerate() {
            let start = end.next_multiple_of(LINE);
            let own = number * SPREAD * LINE % (PAGE - LINE);
            let apart = start + (own + PAGE - start % PAGE) % PAGE;
            let start = if bytes < SPREAD_FROM { start } else { apart };
            places.push((start, bytes));
            end = start + bytes;
        }
        if end == 0 {
            return Ok(Arena { regions: Vec::new(), _map: None });
        }
        // Three quarters of a large page or more at the end are worth a whole one.
        let large = (end + LARGE / 4) / LARGE * LARGE;
        let room = end.max(large) + LARGE;
        let mut map = MmapMut::map_anon(room).map_err(|e| Refused { asked, reason: e.to_string() })?;
        let before = map.as_ptr().align_offset(LARGE);
        // A wish; without it memory is merely slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, before, large);
        // What lies in front of the first and behind the last byte is never touched, and so costs addresses only.
        let first = map.as_mut_ptr().wrapping_add(before);
        let region = |(start, bytes)| {
            let start = NonNull::new(first.wrapping_add(start)).expect("inside of a map");
            Region { start, bytes }
        };
        Ok(Arena { regions: places.into_iter().map(region).collect(), _map: Some(map) })
    }

    /// Regions of these bytes, slack included, each on pages of its own between two without access: right behind its last
    /// byte, or right before its first. Or why the system gives none: it may have no more maps for this process.
    fn guarded(sizes: &[usize], guard: Guard) -> Result<Arena, String> {
        let room = PAGE + sizes.iter().map(|bytes| bytes.next_multiple_of(PAGE) + PAGE).sum::<usize>();
        let mut map = MmapMut::map_anon(room).map_err(|e| e.to_string())?;
        let first = map.as_mut_ptr();
        let close = |at: usize| {
            // SAFETY: a page of the map, which lies between regions.
            unsafe { region::protect(first.wrapping_add(at), PAGE, region::Protection::NONE) }
                .map_err(|e| e.to_string())
        };
        close(0)?;
        let mut start = PAGE;
        let mut regions = Vec::new();
        for &bytes in sizes {
            let end = start + bytes.next_multiple_of(PAGE);
            close(end)?;
            let own = if guard == Guard::Behind { end - bytes } else { start };
            let own = NonNull::new(first.wrapping_add(own)).expect("inside of a map");
            regions.push(Region { start: own, bytes });
            start = end + PAGE;
        }
        Ok(Arena { regions, _map: Some(map) })
    }

    /// How many regions there are.
    pub fn len(&self) -> usize {
        self.regions.len()
    }

    /// The first byte of a region.
    pub fn address(&self, region: usize) -> *mut u8 {
        self.regions[region].start.as_ptr()
    }

    /// Bytes of all regions, slack included.
    pub fn bytes(&self) -> usize {
        self.regions.iter().map(|region| region.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_zero_aligned_and_apart() {
        for bytes in [0, 100, 5000, SPREAD_FROM, LARGE + 12345] {
            let arena = Arena::new((0..70).map(|_| bytes)).expect("so much there is");
            assert_eq!((arena.len(), arena.bytes()), (70, 70 * (bytes + ARENA_SLACK)));
            let mut places: Vec<usize> = Vec::new();
            for region in 0..arena.len() {
                let start = arena.address(region);
                assert_eq!(start as usize % LINE, 0);
                // SAFETY: as many bytes as the region has, which nobody else knows of.
                let own = unsafe { std::slice::from_raw_parts_mut(start, bytes + ARENA_SLACK) };
                assert!(own.iter().all(|&b| b == 0));
                own.fill(1);
                places.push(start as usize % PAGE);
            }
            if bytes >= SPREAD_FROM {
                places.truncate(PAGE / LINE - 1);
                places.sort_unstable();
                places.dedup();
                assert_eq!(places.len(), PAGE / LINE - 1, "each starts at another line of its page");
            }
        }
    }

    /// A test's process of its own touches a byte of a guarded region; see below.
    #[test]
    fn trespasser() {
        let Ok(at) = std::env::var("RETROGRAD_TRESPASS") else { return };
        let (guard, at) = match at.split_once(' ') {
            Some(("behind", at)) => (Guard::Behind, at),
            Some((_, at)) => (Guard::Before, at),
            None => panic!("what is to be touched"),
        };
        let arena = guard::with(guard, || Arena::new([64, 5 * PAGE])).expect("a few pages");
        let at: isize = at.parse().expect("a byte");
        // SAFETY: none, where it is not in the region: that is the test.
        let byte = unsafe { arena.address(1).offset(at).read_volatile() };
        println!("read: {byte}");
    }

    #[test]
    fn what_lies_beside_a_guarded_region_cannot_be_touched() {
        let bytes = (5 * PAGE + ARENA_SLACK) as isize;
        let reads = |side: &str, at: isize| {
            let me = std::env::current_exe().expect("a test is a program");
            let mut child = std::process::Command::new(me);
            child.args(["--exact", "arena::tests::trespasser", "--nocapture"]);
            let output = child.env("RETROGRAD_TRESPASS", format!("{side} {at}")).output().expect("it starts");
            String::from_utf8_lossy(&output.stdout).contains("read: 0")
        };
        assert!(reads("behind", 0) && reads("behind", bytes - 1) && !reads("behind", bytes));
        assert!(reads("before", 0) && reads("before", bytes - 1) && !reads("before", -1));
    }

    #[test]
    fn what_no_machine_has_is_refused() {
        for bytes in [1 << 46, 1 << 58, 1 << 63, usize::MAX - ARENA_SLACK, usize::MAX] {
            let refused = |sizes: &[usize]| Arena::new(sizes.iter().copied()).err().expect("refused").asked;
            assert_eq!(refused(&[bytes]), plus(bytes, ARENA_SLACK));
            assert_eq!(refused(&[100, bytes]), plus(bytes, 100 + 2 * ARENA_SLACK));
        }
        assert!(Arena::new([1 << 63, 1 << 63]).is_err(), "a sum that wraps around to nothing");
    }

    #[test]
    fn no_regions_are_no_memory() {
        assert_eq!(Arena::new([]).expect("nothing is asked for").bytes(), 0);
    }
}
