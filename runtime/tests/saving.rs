//! Saving that is interrupted: at every moment the file is the old checkpoint or the new one, whole.
//!
//! A child process saves two checkpoints in turn. It is killed at random moments (`SAVE_KILLS=2000` for more of them
//! than usual), and each system call of a save is made to fail in turn, by `strace`. Where there is no `strace`, or it
//! may not trace, the second says so and checks nothing; `.ci/run` installs it.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ndarray::ArrayD;
use retrograd_runtime::checkpoint::Checkpoint;

/// Variables by which a child knows what to do: the directory, and how many saves.
const DIR: &str = "RETROGRAD_TEST_SAVE_DIR";
const SAVES: &str = "RETROGRAD_TEST_SAVES";
/// Files that are asked for before and after the saves, so that they are seen among system calls.
const BEGIN: &str = "/retrograd-saves-begin";
const END: &str = "/retrograd-saves-end";
/// Exit code of a child whose save gave an error.
const REFUSED: i32 = 3;

/// Two checkpoints of different lengths.
fn checkpoint(which: usize) -> Checkpoint {
    let mut c = Checkpoint::new();
    let shape = vec![100 + which * 57, 199];
    c.insert("w", ArrayD::from_shape_fn(shape, |at| (at[0] * 31 + at[1] * 7 + which) as f32));
    c.note("which", which);
    c
}

/// Which one a file holds: it must be one of them, bit for bit.
#[track_caller]
fn held(file: &Path) -> usize {
    let mut c = Checkpoint::load(file).unwrap_or_else(|e| panic!("{e}"));
    let which: usize = c.get_note("which").and_then(|w| w.parse().ok()).expect("its number");
    let mut expected = checkpoint(which);
    let w: ArrayD<f32> = c.take("w", &[100 + which * 57, 199]).expect("its tensor");
    assert_eq!(w, expected.take::<f32>("w", &[100 + which * 57, 199]).expect("its tensor"));
    which
}

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("retrograd-saving-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory for the test");
        Dir(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    /// What is there beside the file.
    fn others(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).expect("the directory").map(|e| e.expect("an entry").file_name());
        names.filter_map(|n| n.into_string().ok()).filter(|n| n != "model.safetensors").collect()
    }

    /// Arguments and variables of a child that saves: first the other one than is there, then in turn.
    fn child(&self, command: &mut Command, saves: usize) {
        command.env(DIR, &self.0).env(SAVES, saves.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The tests, or the child of one. There is no harness, so that the child saves on its only thread: `strace` counts the
/// calls of each thread, and with another one would fail its calls, too.
fn main() {
    if std::env::var(DIR).is_ok() {
        return child();
    }
    let tests: [(&str, fn()); 2] = [
        ("a_saver_that_is_killed_leaves_the_old_file_or_the_new_one", killed),
        ("whichever_system_call_fails_the_file_is_the_old_one_or_the_new_one", refused),
    ];
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for (name, test) in tests {
        if filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str())) {
            println!("test {name} ..");
            test();
        }
    }
}

/// Saves in turn.
fn child() {
    let [dir, saves] = [DIR, SAVES].map(|name| std::env::var(name).expect("the parent sets it"));
    let file = PathBuf::from(dir).join("model.safetensors");
    let both = [checkpoint(0), checkpoint(1)];
    let first = 1 - held(&file);
    // Neither exists: what counts is that they are looked for.
    let _ = fs::metadata(BEGIN);
    for n in 0..saves.parse::<usize>().expect("a number") {
        if both[(first + n) % 2].save(&file).is_err() {
            std::process::exit(REFUSED);
        }
    }
    let _ = fs::metadata(END);
}

fn killed() {
    let kills = std::env::var("SAVE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let dir = Dir::new("kills");
    checkpoint(0).save(dir.file()).expect("a first save");
    let (mut left, mut found, mut state) = (0, [0; 2], 0x9e37_79b9_7f4a_7c15_u64);
    for n in 0..kills {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        dir.child(&mut command, 1 << 40);
        let mut saver = command.spawn().expect("a child");
        // A xorshift: the moments need no better numbers.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        std::thread::sleep(Duration::from_micros(2_000 + state % 30_000));
        saver.kill().expect("the child saves for ever");
        let status = saver.wait().expect("the child has ended");
        assert_eq!(status.code(), None, "kill {n}: it ended by itself: {status}");
        found[held(&dir.file())] += 1;
        let others = dir.others();
        assert!(others.len() <= 1, "kill {n}: {others:?}");
        left += others.len();
        // The next save removes it, whichever process it is in.
        let which = n % 2;
        checkpoint(which).save(dir.file()).expect("a save");
        assert_eq!((held(&dir.file()), dir.others()), (which, vec![]));
    }
    println!("{kills} kills, {left} temporary files left and removed; the file was {found:?} times each of the two");
    assert!(left > 0 && found.iter().all(|&n| n > 0), "some moments were within saves: {left}, {found:?} of {kills}");
}

/// System calls between the two marks, in order: the name of each, and how many of that name the thread had made by then.
fn calls(log: &str) -> Vec<(String, usize)> {
    let (mut counts, mut calls, mut saver) = (BTreeMap::<(&str, &str), usize>::new(), Vec::new(), None);
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = rest.trim_start().split_once('(') else { continue };
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        let count = counts.entry((thread, name)).or_default();
        *count += 1;
        if arguments.contains(BEGIN) {
            saver = Some(thread);
        } else if arguments.contains(END) {
            break;
        } else if saver == Some(thread) {
            calls.push((name.to_string(), *count));
        }
    }
    calls
}

fn refused() {
    let dir = Dir::new("calls");
    let log = dir.0.with_extension("log");
    checkpoint(0).save(dir.file()).expect("a first save");
    let traced = |inject: Option<String>| {
        let mut command = Command::new("strace");
        command.arg("-f").arg("-o").arg(&log);
        if let Some(inject) = inject {
            command.args(["-e", &inject]);
        }
        command.arg(std::env::current_exe().expect("this test"));
        dir.child(&mut command, 1);
        command.status()
    };
    let status = traced(None);
    if !status.as_ref().is_ok_and(|s| s.success()) || held(&dir.file()) != 1 {
        println!("skipped: strace is not there or may not trace ({status:?})");
        return;
    }
    let calls = calls(&fs::read_to_string(&log).expect("the log of strace"));
    for needed in ["openat", "write", "fsync", "rename", "flock"] {
        assert!(calls.iter().any(|(name, _)| name.starts_with(needed)), "{needed} is among {calls:?}");
    }
    let (mut runs, mut errors) = (0, 0);
    for (name, count) in &calls {
        // Memory and random numbers, which the allocator and the standard library take: they abort without.
        if ["brk", "mmap", "munmap", "mremap", "madvise", "mprotect", "getrandom"].contains(&name.as_str()) {
            continue;
        }
        for error in ["EIO", "ENOSPC", "EINTR", "EACCES", "ENOENT"] {
            let old = held(&dir.file());
            let status = traced(Some(format!("inject={name}:error={error}:when={count}"))).expect("strace runs");
            let what = format!("{name} number {count} fails with {error}: {status}");
            runs += 1;
            let now = held(&dir.file());
            match status.code() {
                Some(0) => assert_ne!(now, old, "{what}: it says that it has saved"),
                // A typed error: the old file, or the new one if only its directory could not be flushed.
                Some(REFUSED) => errors += 1,
                // A panic or a signal.
                _ => panic!("{what}"),
            }
            let others = dir.others();
            assert!(others.is_empty(), "{what}: {others:?}");
        }
    }
    let _ = fs::remove_file(&log);
    println!(
        "{} system calls of a save, {runs} failures, of which {errors} were refused and the others did not matter",
        calls.len()
    );
    assert!(errors > runs / 4, "{errors} of {runs} were refused");
}
