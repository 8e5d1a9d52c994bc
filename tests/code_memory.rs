//! Memory for code: never writable and executable at once, and an error where the system gives none.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use retrograd::prelude::*;
use retrograd::runtime::error::RunError;
use retrograd::runtime::session::Session;

fn program(units: usize) -> Program {
    Program::record("code", |p| {
        let x = p.input("x", 3);
        p.output("y", (p.affine("a", x, units).tanh() * 2.0).softmax());
    })
    .unwrap_or_else(|e| panic!("{e}"))
}

/// Names the test that a process has been started for.
#[cfg(target_os = "linux")]
const CHILD: &str = "RETROGRAD_CODE_MEMORY";

/// Runs one of the tests below, which do nothing otherwise, in a process of its own.
#[cfg(target_os = "linux")]
fn in_a_child(test: &str) -> String {
    let own = std::env::current_exe().expect("a test is a program");
    let mut child = Command::new(own);
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, test);
    let child = child.output().expect("a program can be started");
    let text = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{text}");
    text
}

/// Whether this process has been started for this test.
#[cfg(target_os = "linux")]
fn is_child(test: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|name| name == test)
}

/// Maps of this process: permissions, and the rest of the line.
#[cfg(target_os = "linux")]
fn maps() -> Vec<(String, String)> {
    let text = std::fs::read_to_string("/proc/self/maps").expect("Linux says which maps there are");
    let split = |line: &str| {
        let mut words = line.split_whitespace();
        let permissions = words.nth(1).expect("a line has permissions").to_string();
        (permissions, words.skip(3).collect::<Vec<_>>().join(" "))
    };
    text.lines().map(split).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn code_is_never_writable_and_executable_at_once() {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut looked = 0;
            while !done.load(Ordering::Relaxed) || looked == 0 {
                for (permissions, name) in maps() {
                    assert!(!(permissions.contains('w') && permissions.contains('x')), "{permissions} {name}");
                }
                looked += 1;
            }
        });
        let sessions: Vec<_> =
            (1..20).map(|units| Session::<f32>::new(&program(units), 1).expect("no mistakes")).collect();
        let code = maps().into_iter().filter(|(permissions, name)| permissions == "r-xp" && name.is_empty()).count();
        assert!(code > 0, "code is in memory that can be executed and not written");
        done.store(true, Ordering::Relaxed);
        drop(sessions);
        watch.join().expect("no map was writable and executable");
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_system_without_executable_memory_gives_an_error() {
    let text = in_a_child("child_without_executable_memory");
    assert!(text.contains("refused: ") || text.contains("not supported"), "{text}");
}

/// Forbids its process to have code.
#[test]
#[cfg(target_os = "linux")]
fn child_without_executable_memory() {
    if !is_child("child_without_executable_memory") {
        return;
    }
    const PR_SET_MDWE: libc::c_int = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    let none: libc::c_ulong = 0;
    // SAFETY: it changes what this process may do with maps that it makes from now on, and touches no memory.
    if unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, none, none, none) } != 0 {
        println!("not supported by this kernel");
        return;
    }
    for _ in 0..3 {
        match Session::<f32>::new(&program(4), 1) {
            Err(e @ RunError::Compile { .. }) => {
                let text = e.to_string();
                assert!(text.contains("no memory for generated code"), "{text}");
                println!("refused: {text}");
            }
            Err(e) => panic!("{e}"),
            Ok(_) => panic!("code was made executable"),
        }
    }
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn a_system_without_maps_gives_an_error() {
    let text = in_a_child("child_without_maps");
    assert!(text.contains("refused: "), "{text}");
}

/// Has the allocator take so much from the system at once, in one piece, and keep it: what it gives from now on needs no maps.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_a_heap(bytes: usize) {
    let bytes = libc::c_int::try_from(bytes).expect("less than 2 GiB");
    let options =
        [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_MAX, 0), (libc::M_TRIM_THRESHOLD, bytes), (libc::M_TOP_PAD, bytes)];
    for (option, value) in options {
        // SAFETY: options of the allocator, which touch no memory.
        assert_eq!(unsafe { libc::mallopt(option, value) }, 1, "option {option}");
    }
    // More than its heap has room for at present.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(64 << 20)));
}

/// Uses up the maps of its process. What the allocator gives comes from a heap that it has already: without maps it would have
/// none, and that ends a process.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn child_without_maps() {
    if !is_child("child_without_maps") {
        return;
    }
    let most = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("Linux has a limit");
    let most: usize = most.trim().parse().expect("a number");
    if most > 1 << 18 {
        println!("refused: not tried, at {most} maps");
        return;
    }
    keep_a_heap(512 << 20);
    let program = program(4);
    let mut sessions = Vec::with_capacity(4096);
    sessions.push(Session::<f32>::new(&program, 1).expect("there are maps"));
    // Neighbours that differ are not joined.
    for i in 0..most.saturating_sub(maps().len() + 400) {
        let access = if i % 2 == 0 { libc::PROT_READ } else { libc::PROT_NONE };
        // SAFETY: a new map of this process's own, which nothing knows of.
        let map =
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        assert_ne!(map, libc::MAP_FAILED, "map {i} of {most}");
    }
    for _ in 0..2000 {
        match Session::<f32>::new(&program, 1) {
            Ok(session) => sessions.push(session),
            Err(e @ (RunError::Compile { .. } | RunError::Memory { .. })) => {
                println!("refused: {e}, after {} sessions", sessions.len());
                let x = ndarray::Array2::<f32>::zeros((1, 3));
                sessions[0].run(&Feed::new().f32("x", x.view())).expect("the first goes on");
                return;
            }
            Err(e) => panic!("{e}"),
        }
    }
    panic!("there was no end of maps");
}
