//! The hunters' command; `retrograd-fuzz` without arguments says how to call it.

use std::fs::OpenOptions;
use std::process::ExitCode;
use std::time::Duration;

use retrograd_fuzz::watch::{Done, watch};
use retrograd_fuzz::worker::{Work, guarded, quiet, work};
use retrograd_fuzz::{Counts, TARGETS, target};

const HELP: &str = "\
retrograd-fuzz programs|texts|checkpoints|feeds [--seconds N] [--count N] [--seed N] [--jobs N]
    Runs cases of one kind, for so long or so many (whichever comes first; 30 seconds if neither is given).
retrograd-fuzz programs|texts|checkpoints|feeds --case N
    Runs one case in this process, and prints what it is made of.
retrograd-fuzz soak [--programs N] [--texts N] [--checkpoints N] [--feeds N] [--seconds N] [--seed N] [--jobs N]
    Runs all kinds in turn, for so many cases each, or for so long each, and prints its counts.
Exits with 1 where something was found.";

struct Options {
    numbers: Vec<(String, u64)>,
}

impl Options {
    fn get(&self, name: &str) -> Option<u64> {
        self.numbers.iter().find(|(n, _)| n == name).map(|(_, x)| *x)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing was found.
fn run(arguments: &[String]) -> Result<bool, String> {
    let Some((command, rest)) = arguments.split_first() else { return Err("say what to run".to_string()) };
    if command == "worker" {
        return worker(rest).map(|()| true);
    }
    let mut options = Options { numbers: Vec::new() };
    for pair in rest.chunks(2) {
        let [name, value] = pair else { return Err(format!("`{}` needs a number", pair[0])) };
        let value = value.parse().map_err(|_| format!("`{name} {value}` is no number"))?;
        options.numbers.push((name.trim_start_matches("--").to_string(), value));
    }
    let kinds: Vec<&str> = match command.as_str() {
        "soak" => TARGETS.to_vec(),
        name => vec![*TARGETS.iter().find(|t| **t == name).ok_or(format!("there is no `{name}`"))?],
    };
    if let Some(case) = options.get("case") {
        return one(kinds[0], case);
    }
    let jobs = options.get("jobs").unwrap_or(std::thread::available_parallelism().map_or(1, |n| n.get() as u64));
    // Seeds are far apart, so that no two have a case in common.
    let first = options.get("seed").unwrap_or(1) << 32;
    let mut sound = true;
    for kind in kinds {
        let count = options.get(kind).or(options.get("count"));
        if command == "soak" && count.is_none() && options.get("seconds").is_none() {
            return Err("say how many cases of each kind, or for how many seconds".to_string());
        }
        let seconds = options.get("seconds").unwrap_or(if count.is_some() { u64::MAX >> 20 } else { 30 });
        let time = Duration::from_secs(seconds);
        let done = watch(kind, first, count.unwrap_or(1 << 31), time, jobs.max(1), |done| tell(kind, done))
            .map_err(|e| e.to_string())?;
        for (case, text) in &done.findings {
            println!("FINDING {kind} --case {case}: {text}");
        }
        sound &= done.findings.is_empty();
        let mut counts = Counts::new();
        for (name, n) in &done.counts {
            counts.insert(String::leak(name.clone()), *n);
        }
        if let Err(missing) = target(kind).expect("one of its names").covered(&counts, done.cases) {
            println!("NOT COVERED {kind}: {missing}");
            sound = false;
        }
    }
    Ok(sound)
}

fn tell(kind: &str, done: &Done) {
    let counts: Vec<String> = done
        .counts
        .iter()
        .filter(|(name, _)| !name.starts_with("op."))
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    let ops = done.counts.keys().filter(|name| name.starts_with("op.")).count();
    let ops = if ops > 0 { format!(", {ops} ops") } else { String::new() };
    let per_second = done.cases as f64 / done.seconds.max(1e-3);
    println!(
        "{kind}: {} cases in {:.0} s ({per_second:.0} a second): {}{ops}; {} findings",
        done.cases,
        done.seconds,
        counts.join(", "),
        done.findings.len()
    );
}

fn one(kind: &str, case: u64) -> Result<bool, String> {
    let mut target = target(kind).expect("one of its names");
    println!("{}", target.show(case));
    quiet();
    let found = guarded(&mut *target, case, &mut Counts::new());
    println!("{}", found.as_ref().err().map_or("nothing is found", String::as_str));
    Ok(found.is_ok())
}

/// What [`watch`] starts: the target, the first case, the step, the end, milliseconds, and the file of its progress.
fn worker(arguments: &[String]) -> Result<(), String> {
    let [kind, first, step, end, milliseconds, progress] = arguments else {
        return Err("workers are started by this program".to_string());
    };
    let number = |text: &String| text.parse::<u64>().map_err(|e| e.to_string());
    let cases = Work {
        first: number(first)?,
        step: number(step)?,
        end: number(end)?,
        time: Duration::from_millis(number(milliseconds)?),
    };
    let mut file = OpenOptions::new().write(true).open(progress).map_err(|e| e.to_string())?;
    let mut target = target(kind).ok_or("no such target")?;
    work(&mut *target, cases, &mut file).map_err(|e| e.to_string())
}
