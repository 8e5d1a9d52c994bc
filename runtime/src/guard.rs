//! For tests: memory that ends, or begins, at a page without access.
//!
//! What generated code and the routines read and write is meant to be within the slots of a plan, their slack included. Past
//! a slot there usually lies another, so that whoever goes too far goes unnoticed. Within [`with`] each region of an arena has
//! pages of its own, and a page without access right behind it, or right before: to touch it is a segmentation fault.

use std::cell::Cell;

/// Which side of each region is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The page behind its last byte.
    Behind,
    /// The page before its first byte.
    Before,
}

thread_local! {
    static PRESENT: Cell<Option<Guard>> = const { Cell::new(None) };
}

/// Runs something in which all arenas that this thread makes are guarded; they stay so.
pub fn with<T>(guard: Guard, run: impl FnOnce() -> T) -> T {
    struct Restore(Option<Guard>);
    impl Drop for Restore {
        fn drop(&mut self) {
            PRESENT.set(self.0);
        }
    }
    let _restore = Restore(PRESENT.replace(Some(guard)));
    run()
}

/// The guard of arenas that are made now.
pub(crate) fn present() -> Option<Guard> {
    PRESENT.get()
}
