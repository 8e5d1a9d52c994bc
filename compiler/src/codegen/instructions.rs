//! Which instructions code may use.
//!
//! A compiled program is of one [`InstructionSet`] throughout: the routines of the runtime whose addresses are in its
//! [`KernelTable`](super::KernelTable), and the code around them, for which Cranelift is told here what it may use. So a
//! program compiled for `portable` has the bits that it has on a machine without AVX, wherever it runs.

use std::fmt;
use std::str::FromStr;

use cranelift_codegen::isa::{self, OwnedTargetIsa, TargetIsa};
use cranelift_codegen::settings::Configurable;
use target_lexicon::{Architecture, Triple};

use crate::error::CodegenError;

/// A set of instructions that programs can be compiled for.
///
/// Results have the same bits on any number of threads, but not on any set: those with fused multiply-add round once
/// where `portable` rounds twice.
///
/// ```
/// use retrograd_compiler::codegen::InstructionSet;
///
/// assert_eq!("avx2".parse(), Ok(InstructionSet::Avx2));
/// let best = InstructionSet::best();
/// assert!(best.is_available() && InstructionSet::available().next() == Some(best));
/// assert!(InstructionSet::Portable.is_available());
/// println!("this machine has {}", InstructionSet::available().map(|set| set.to_string()).collect::<Vec<_>>().join(", "));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum InstructionSet {
    /// What every machine of this architecture has: SSE2 on x86-64. Multiply and add are never fused, so that results
    /// have the same bits on every machine, but for what the system's own mathematics library does in 64 bits.
    Portable,
    /// AVX2 with FMA, on x86-64: vectors of 256 bits.
    Avx2,
    /// AVX-512 (F, BW, DQ and VL), on x86-64: vectors of 512 bits.
    Avx512,
    /// NEON, on AArch64: vectors of 128 bits, fused.
    Neon,
}

impl InstructionSet {
    /// All there are, the fastest first.
    pub const ALL: [InstructionSet; 4] =
        [InstructionSet::Avx512, InstructionSet::Avx2, InstructionSet::Neon, InstructionSet::Portable];

    /// Those that this machine has, the fastest first and [`Portable`](InstructionSet::Portable) last.
    pub fn available() -> impl Iterator<Item = InstructionSet> {
        InstructionSet::ALL.into_iter().filter(|set| set.is_available())
    }

    /// The fastest that this machine has.
    pub fn best() -> InstructionSet {
        InstructionSet::available().next().expect("every machine has the portable set")
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        match self {
            InstructionSet::Portable => true,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => {
                InstructionSet::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            _ => false,
        }
    }

    /// The word for it: `portable`, `avx2`, `avx512`, `neon`.
    pub const fn name(self) -> &'static str {
        match self {
            InstructionSet::Portable => "portable",
            InstructionSet::Avx2 => "avx2",
            InstructionSet::Avx512 => "avx512",
            InstructionSet::Neon => "neon",
        }
    }

    /// What Cranelift compiles for.
    pub(super) fn isa(self) -> Result<OwnedTargetIsa, CodegenError> {
        let failed = |e: &dyn fmt::Display| CodegenError::Machine(e.to_string());
        let mut builder = match self {
            InstructionSet::Portable => isa::lookup(Triple::host()).map_err(|e| failed(&e))?,
            _ => cranelift_native::builder().map_err(|e| failed(&e))?,
        };
        if self == InstructionSet::Avx2 {
            // What this machine has, as far as a machine without AVX-512 may have it, too.
            let settings: Vec<_> = builder.iter().map(|setting| setting.name).collect();
            for name in settings.into_iter().filter(|name| name.starts_with("has_avx512")) {
                builder.set(name, "false").map_err(|e| failed(&e))?;
            }
        }
        builder.finish(super::flags()?).map_err(|e| failed(&e))
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that is no instruction set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not an instruction set; the instruction sets are `portable`, `avx2`, `avx512` and `neon`")]
pub struct UnknownInstructionSet {
    /// The word.
    pub given: String,
}

impl FromStr for InstructionSet {
    type Err = UnknownInstructionSet;

    /// Its [name](InstructionSet::name), in small or capital letters.
    fn from_str(word: &str) -> Result<InstructionSet, UnknownInstructionSet> {
        let set = InstructionSet::ALL.into_iter().find(|set| set.name().eq_ignore_ascii_case(word.trim()));
        set.ok_or_else(|| UnknownInstructionSet { given: word.to_string() })
    }
}

/// What code is written for, beyond what Cranelift is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    /// Whether multiply and add are fused: where that is one instruction (else it would be a call for each lane), and the
    /// set is not portable, whose bits are the same everywhere.
    pub fma: bool,
    /// Whether an instruction may take a vector from memory. Without AVX it may from aligned addresses only, and ours are
    /// not. Cranelift knows that, but forgets it in the comparison of two vectors (0.135.8; wasmtime#10408 was the same
    /// fault of other instructions): `cmppd` with an operand in unaligned memory is a general protection fault.
    pub folds_loads: bool,
}

impl Features {
    pub fn of(set: InstructionSet, isa: &dyn TargetIsa) -> Features {
        match isa.triple().architecture {
            Architecture::X86_64 => {
                let on = |name: &str| isa.isa_flags().iter().any(|f| f.name == name && f.as_bool() == Some(true));
                Features { fma: on("has_avx") && on("has_fma"), folds_loads: on("has_avx") }
            }
            _ => Features { fma: set != InstructionSet::Portable, folds_loads: true },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for set in InstructionSet::ALL {
            assert_eq!(set.to_string().parse(), Ok(set));
            assert_eq!(set.to_string().to_uppercase().parse(), Ok(set));
        }
        let error = InstructionSet::from_str("avx3").expect_err("there is none");
        assert_eq!(
            error.to_string(),
            "`avx3` is not an instruction set; the instruction sets are `portable`, `avx2`, `avx512` and `neon`"
        );
    }

    /// What Cranelift may use is what the set says and no more.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn flags_are_those_of_the_set() {
        for set in InstructionSet::available() {
            let isa = set.isa().expect("this machine can be compiled for");
            let on: Vec<&str> = isa.isa_flags().iter().filter(|f| f.as_bool() == Some(true)).map(|f| f.name).collect();
            assert_eq!(on.iter().any(|name| name.starts_with("has_avx512")), set == InstructionSet::Avx512, "{on:?}");
            let is_wide = set != InstructionSet::Portable;
            assert_eq!(Features::of(set, &*isa), Features { fma: is_wide, folds_loads: is_wide });
            if set == InstructionSet::Portable {
                assert!(!on.iter().any(|name| name.starts_with("has_")), "{on:?}");
            }
        }
    }
}
