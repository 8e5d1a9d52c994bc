//! Which instruction sets tests run on: every one that the machine has, or the one that the environment forces.
//!
//! A check does the same on each set with [`on_each`], or takes turns with others by its name, [`in_turn`], where the full
//! product would take too long. Machine code that is made within is of that set: whoever compiles asks [`settings`].

use std::cell::Cell;

use retrograd::runtime::settings::{INSTRUCTION_SET_VARIABLE, InstructionSet, Settings};

use super::Found;

thread_local! {
    static PRESENT: Cell<Option<InstructionSet>> = const { Cell::new(None) };
}

/// The sets.
pub fn sets() -> Vec<InstructionSet> {
    match std::env::var_os(INSTRUCTION_SET_VARIABLE) {
        Some(word) if !word.is_empty() => {
            vec![Settings::new().chosen_instruction_set().unwrap_or_else(|e| panic!("{e}"))]
        }
        _ => InstructionSet::available().collect(),
    }
}

/// One of them, always the same for a name.
pub fn turn_of(name: &str) -> InstructionSet {
    let sets = sets();
    let sum = name.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    sets[sum % sets.len()]
}

/// How machine code is compiled here.
pub fn settings() -> Settings {
    PRESENT.get().into_iter().fold(Settings::new(), Settings::instruction_set)
}

/// Does something with machine code of a set.
pub fn on<T>(set: InstructionSet, run: impl FnOnce() -> T) -> T {
    struct Restore(Option<InstructionSet>);
    impl Drop for Restore {
        fn drop(&mut self) {
            PRESENT.set(self.0);
        }
    }
    let _restore = Restore(PRESENT.replace(Some(set)));
    run()
}

/// Checks something on each set; what is found says where.
pub fn on_each(mut check: impl FnMut(InstructionSet) -> Found) -> Found {
    sets().into_iter().try_for_each(|set| on(set, || check(set)).map_err(|e| format!("{set}: {e}")))
}

/// Checks something on the set whose turn it is.
pub fn in_turn(name: &str, check: impl FnOnce() -> Found) -> Found {
    let set = turn_of(name);
    on(set, check).map_err(|e| format!("{set}: {e}"))
}
