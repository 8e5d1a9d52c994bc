//! Memory whose size follows from what a user says, and which can be refused.
//!
//! A program that asks for more than a machine has is wrong, and is told so; it is not ended. So everything whose size
//! grows with samples, steps or rows is asked for here or in an [`Arena`](crate::arena::Arena), before anything is
//! changed, and what is refused becomes [`RunError::Memory`].
//!
//! A system may promise more than it has and end the process that comes to use it. What alone exceeds the memory of
//! the machine, swap included, or that of the control group which a container is given, is therefore refused whatever
//! the system would promise.

use std::fs::read_to_string;
use std::sync::OnceLock;

use retrograd_compiler::ir::Sizes;
use retrograd_compiler::ir::sizes::{MAX_BYTES, plus, times};

use crate::error::RunError;

/// Bytes that are asked of the system without looking at how much there is.
const SMALL: usize = 1 << 30;

/// Memory that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Bytes; [`TOO_LARGE`](retrograd_compiler::ir::sizes::TOO_LARGE) if they are more than can be counted.
    pub asked: usize,
    /// Why.
    pub reason: String,
}

impl Refused {
    /// The error of a run of these sizes.
    pub fn at(self, sizes: &Sizes) -> RunError {
        RunError::Memory { asked: self.asked, sizes: sizes.clone(), reason: self.reason }
    }
}

/// Whether so many bytes can be had at all.
pub(crate) fn check(asked: usize) -> Result<(), Refused> {
    if asked > MAX_BYTES {
        let reason = "that is more than can be addressed".to_string();
        return Err(Refused { asked, reason });
    }
    match machine() {
        Some(most) if asked > SMALL && asked > most => {
            let reason = format!("this machine lets a process have {most} bytes");
            Err(Refused { asked, reason })
        }
        _ => Ok(()),
    }
}

/// Room for `n` more elements.
pub(crate) fn reserve<T>(values: &mut Vec<T>, n: usize) -> Result<(), Refused> {
    let asked = times(n, size_of::<T>());
    check(asked)?;
    values.try_reserve_exact(n).map_err(|e| Refused { asked, reason: e.to_string() })
}

/// A vector of `n` times the same.
pub(crate) fn filled<T: Clone>(value: T, n: usize) -> Result<Vec<T>, Refused> {
    let mut values = Vec::new();
    reserve(&mut values, n)?;
    values.resize(n, value);
    Ok(values)
}

/// Bytes that processes of this machine, or of this container, can have; `None` where nothing says so.
fn machine() -> Option<usize> {
    static MOST: OnceLock<Option<usize>> = OnceLock::new();
    *MOST.get_or_init(|| {
        let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        let group = group.iter().filter_map(|file| read_to_string(file).ok()?.trim().parse().ok()).min();
        most(&read_to_string("/proc/meminfo").ok()?, group)
    })
}

/// The same, of the text of `/proc/meminfo` and the limit of a control group. Its swap is not counted apart.
fn most(meminfo: &str, group: Option<usize>) -> Option<usize> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(times(line.split_whitespace().next()?.parse().ok()?, 1024))
    };
    let memory: usize = bytes("MemTotal")?;
    Some(plus(memory.min(group.unwrap_or(memory)), bytes("SwapTotal").unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use retrograd_compiler::ir::sizes::TOO_LARGE;

    #[test]
    fn the_machine_or_the_group_is_the_limit() {
        let text = "MemTotal:       1000 kB\nMemFree:  10 kB\nSwapTotal:       24 kB\n";
        assert_eq!(most(text, None), Some(1024 * 1024));
        assert_eq!(most(text, Some(1000)), Some(1000 + 24 * 1024));
        assert_eq!(most(text, Some(usize::MAX)), Some(1024 * 1024));
        assert_eq!(most("", None), None);
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        for n in [1 << 45, 1 << 58, 1 << 61, 1 << 63, usize::MAX] {
            let refused = filled(0u64, n).expect_err("no machine has so much");
            assert_eq!(refused.asked, times(n, 8));
        }
        assert_eq!(filled(0u64, usize::MAX).expect_err("too much").asked, TOO_LARGE);
        assert_eq!(filled(3u8, 4), Ok(vec![3; 4]));
    }
}
