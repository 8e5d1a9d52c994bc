//! The floating-point mode of a run: subnormal numbers count as zero.
//!
//! Numbers below 1.2e-38 in f32 (2.2e-308 in f64) are *subnormal*, and processors take up to 150 cycles for each
//! operation that meets one. Recurrent nets meet them by the million: an adjoint that decays over a thousand steps, the
//! moments of an embedding row that no batch uses, a filter that is fed silence. So arithmetic of a run *flushes*: a
//! subnormal operand counts as zero, and a result that would be subnormal is zero (of the same sign). A step then takes
//! the same time whatever its values.
//!
//! Moves are not arithmetic: a subnormal that is only copied, gathered or chosen keeps its bits. The reference
//! interpreter ([`retrograd_compiler::interpret`]) does not flush when it is called by itself.
//!
//! The mode is the whole control register (MXCSR on x86-64, FPCR on AArch64), not two bits of it: whoever calls may round
//! upwards, or have unmasked exceptions, and still gets the result that everybody gets. [`Flushing`] sets the register
//! and puts the caller's back when it is dropped, so also when something panics. Threads of a
//! [`Team`](crate::team::Team) set it once, for their lives ([`for_this_thread`]). On other architectures nothing is set,
//! and nothing is flushed.
//!
//! Before and after: outside of a run every thread of the user's has the register that the user gave it, sticky flags
//! included.

use std::marker::PhantomData;

/// While it lives, this thread computes in the mode of a run; then in the mode it had before.
pub(crate) struct Flushing {
    before: register::Word,
    /// The register is this thread's.
    _not_send: PhantomData<*const ()>,
}

impl Flushing {
    #[must_use]
    #[inline]
    pub(crate) fn begin() -> Flushing {
        let before = register::read();
        register::write(register::FLUSHING);
        Flushing { before, _not_send: PhantomData }
    }
}

impl Drop for Flushing {
    #[inline]
    fn drop(&mut self) {
        register::write(self.before);
    }
}

/// Lets this thread, which belongs to a team, compute in the mode of a run from now on. A new thread begins with the
/// register of the one that started it.
pub(crate) fn for_this_thread() {
    register::write(register::FLUSHING);
}

/// The compiler takes the default mode for granted where it folds or moves arithmetic of Rust code. What it folds is
/// then not flushed, and differs from what would have been computed by less than the smallest normal number; arithmetic that counts
/// is behind function pointers, or reads and writes memory, which nothing moves across these instructions.
#[cfg(target_arch = "x86_64")]
mod register {
    use std::arch::asm;

    pub type Word = u32;

    /// All exceptions masked, rounding to nearest, FTZ (bit 15: results) and DAZ (bit 6: operands).
    pub const FLUSHING: Word = 0x1f80 | 1 << 15 | 1 << 6;

    #[inline]
    pub fn read() -> Word {
        let mut word: Word = 0;
        // SAFETY: every x86-64 processor has the instruction; it writes four bytes to a local variable.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
        word
    }

    #[inline]
    pub fn write(word: Word) {
        // SAFETY: as above, it reads four bytes. The word is a constant without reserved bits or one that was read; it changes
        // nothing but how this thread computes.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod register {
    use std::arch::asm;

    pub type Word = u64;

    /// No exception traps, rounding to nearest, FZ (bit 24: operands and results, of scalars and vectors).
    pub const FLUSHING: Word = 1 << 24;

    #[inline]
    pub fn read() -> Word {
        let word: Word;
        // SAFETY: a user's program may read FPCR.
        unsafe { asm!("mrs {}, fpcr", out(reg) word, options(nostack, preserves_flags)) };
        word
    }

    #[inline]
    pub fn write(word: Word) {
        // SAFETY: it may write it, too; that changes nothing but how this thread computes.
        unsafe { asm!("msr fpcr, {}", in(reg) word, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod register {
    pub type Word = ();
    pub const FLUSHING: Word = ();
    pub fn read() -> Word {}
    pub fn write(_: Word) {}
}

/// What tests of other modules ask and set.
#[cfg(test)]
pub(crate) mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::Arc;

    use retrograd_compiler::ir::{Program, Sizes};

    use super::*;
    use crate::execute::{Executor, Sharing};
    use crate::session;
    use crate::settings::Settings;

    /// Whether this thread is in the mode of a run; always true where there is no such mode. Sticky flags do not count.
    pub(crate) fn is_flushing() -> bool {
        #[cfg(target_arch = "x86_64")]
        return register::read() & !0x3f == register::FLUSHING;
        #[cfg(not(target_arch = "x86_64"))]
        return register::read() == register::FLUSHING;
    }

    /// Does something with a register that is unlike both the default and the mode of a run, and checks that the same is
    /// there afterwards, panic or not. On x86-64: rounding towards zero, and the sticky flag of an overflow.
    pub(crate) fn with_an_odd_register<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
        #[cfg(target_arch = "x86_64")]
        let odd = 0x1f80 | 0b11 << 13 | 1 << 3;
        #[cfg(target_arch = "aarch64")]
        let odd = 0b11 << 22;
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let odd = ();
        let before = register::read();
        register::write(odd);
        let result = catch_unwind(AssertUnwindSafe(work));
        let after = register::read();
        register::write(before);
        assert_eq!(after, odd, "the caller's register");
        result
    }

    /// An executor of a table look-up that trusts its indices, bound to so many samples.
    fn one_hot(threads: usize, batch: usize) -> Executor<f32> {
        let program = Program::record("classes", |p| p.output("y", p.labels("label").one_hot(3))).unwrap();
        let compiled = session::compile::<f32>(&program, &Settings::new(), false).unwrap();
        let mut executor = Executor::new(Arc::new(compiled), threads).unwrap();
        executor.share(Sharing::Rows);
        executor.bind(&Sizes::new(1, batch)).expect("there is memory");
        executor
    }

    /// Label 1000 of 3 classes, which no input that is checked can hold, is a panic on the thread that takes the row.
    #[test]
    fn the_register_is_put_back_when_a_stage_panics() {
        for threads in 1..=3 {
            let mut executor = one_hot(threads, 6);
            let port = executor.compiled().plan.inputs[0].clone();
            for bad in [None, Some(0), Some(5)] {
                let mut row = 0;
                executor.write::<i32>(&port, |label| {
                    label[0] = if Some(row) == bad { 1000 } else { 1 };
                    row += 1;
                });
                let outcome = with_an_odd_register(|| executor.run());
                assert_eq!(outcome.is_err(), bad.is_some(), "{threads} threads, row {bad:?}");
            }
        }
    }

    fn half(x: f32) -> f32 {
        std::hint::black_box(std::hint::black_box(x) * 0.5)
    }

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn operands_and_results_are_flushed_while_it_lives() {
        let (least, subnormal) = (f32::MIN_POSITIVE, f32::from_bits(1 << 22));
        assert_eq!(half(least), subnormal);
        {
            let _flushing = Flushing::begin();
            assert_eq!(half(least).to_bits(), 0);
            assert_eq!((std::hint::black_box(subnormal) * 1e30).to_bits(), 0);
            assert_eq!(half(-least).to_bits(), 1 << 31);
            assert_eq!(half(2.0 * least), least);
        }
        assert_eq!(half(least), subnormal);
    }

    #[test]
    fn the_register_is_put_back_after_a_nested_use_and_after_a_panic() {
        with_an_odd_register(|| {
            let _outer = Flushing::begin();
            {
                let _inner = Flushing::begin();
                assert!(is_flushing());
            }
            assert!(is_flushing());
        })
        .unwrap();
        let outcome = with_an_odd_register(|| {
            let _flushing = Flushing::begin();
            resume_unwind(Box::new("stop"));
        });
        outcome.expect_err("the panic arrives");
    }
}
