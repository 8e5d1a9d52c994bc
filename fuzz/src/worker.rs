//! A process that runs case after case, and writes down where it is.

use std::fs::File;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Counts, Target};

/// Which cases a worker runs.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The first case.
    pub first: u64,
    /// From one case to the next.
    pub step: u64,
    /// The case to stop before.
    pub end: u64,
    /// How long at most.
    pub time: Duration,
}

/// Where the last panic was, and what it said.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Runs cases; writes to `progress` the number of the present one, how many are done, and the counts. Findings are
/// printed, one a line: `finding <case> <text>`.
///
/// # Errors
/// If the file cannot be written.
pub fn work(target: &mut dyn Target, work: Work, progress: &mut File) -> io::Result<()> {
    quiet();
    let started = Instant::now();
    let (mut counts, mut done, mut case) = (Counts::new(), 0u64, work.first);
    while case < work.end && started.elapsed() < work.time {
        write(progress, case, done, &counts)?;
        if let Err(text) = guarded(|| target.run(case, &mut counts)) {
            println!("finding {case} {}", text.replace('\n', "\\n"));
            io::stdout().flush()?;
        }
        done += 1;
        case += work.step;
    }
    write(progress, u64::MAX, done, &counts)
}

/// Runs one case; a panic is a finding.
///
/// # Errors
/// What is wrong.
pub fn guarded(run: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(format!("panic {}", PANIC.lock().unwrap_or_else(PoisonError::into_inner))))
}

/// Keeps what panics say, instead of printing it.
pub fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
}

/// One line over the old one: shorter ones are filled with spaces.
fn write(progress: &mut File, case: u64, done: u64, counts: &Counts) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let counts: Vec<String> = counts.iter().map(|(name, n)| format!("{name}={n}")).collect();
    let line = format!("{case} {done} {}", counts.join(","));
    progress.write_all_at(format!("{line:<4000}").as_bytes(), 0)
}
