//! The hunters' command; `retrograd-fuzz --help` says how to call it.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use retrograd_fuzz::reduce::reduce;
use retrograd_fuzz::watch::{Done, watch};
use retrograd_fuzz::worker::{Work, guarded, quiet, work};
use retrograd_fuzz::{Counts, TARGETS, target};

/// Runs random cases until something breaks. Exits with 1 where something was found.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Random programs against the interpreter.
    Programs(Cases),
    /// Texts with changed tokens.
    Texts(Cases),
    /// Files with changed bytes, or with other values and a checksum that fits.
    Checkpoints(Cases),
    /// Arrays of other names, types, shapes and values.
    Feeds(Cases),
    /// All kinds in turn, so many cases of each, or each for so long; prints its counts.
    Soak(Soak),
    /// Runs one case in this process, and prints what it is made of.
    Case {
        kind: Kind,
        number: u64,
        /// Run this text instead of the case's own.
        #[arg(long)]
        text: Option<PathBuf>,
        /// Print the shortest text of the same finding.
        #[arg(long)]
        reduce: bool,
    },
    /// What the others start.
    #[command(hide = true)]
    Worker { kind: String, first: u64, step: u64, end: u64, milliseconds: u64, progress: PathBuf },
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Programs,
    Texts,
    Checkpoints,
    Feeds,
}

#[derive(Args)]
struct Cases {
    /// How long; 30 unless --count is given.
    #[arg(long)]
    seconds: Option<u64>,
    /// How many.
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    way: Way,
}

#[derive(Args)]
struct Soak {
    /// Random programs to run.
    #[arg(long)]
    programs: Option<u64>,
    /// Texts.
    #[arg(long)]
    texts: Option<u64>,
    /// Checkpoints.
    #[arg(long)]
    checkpoints: Option<u64>,
    /// Feeds.
    #[arg(long)]
    feeds: Option<u64>,
    /// How long for each kind, at most; a kind without a count is run for 60 seconds unless this says otherwise.
    #[arg(long)]
    seconds: Option<u64>,
    #[command(flatten)]
    way: Way,
}

#[derive(Args)]
struct Way {
    /// Cases follow from it.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Processes at once; one a core unless given.
    #[arg(long)]
    jobs: Option<u64>,
}

fn main() -> ExitCode {
    match run(Options::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing was found.
fn run(command: Command) -> Result<bool, String> {
    let of_kind = |kind: &str, cases: Cases| {
        let seconds = cases.seconds.or(cases.count.is_none().then_some(30));
        hunt(kind, cases.count, seconds, &cases.way)
    };
    match command {
        Command::Programs(cases) => of_kind("programs", cases),
        Command::Texts(cases) => of_kind("texts", cases),
        Command::Checkpoints(cases) => of_kind("checkpoints", cases),
        Command::Feeds(cases) => of_kind("feeds", cases),
        Command::Soak(soak) => {
            let counts = [soak.programs, soak.texts, soak.checkpoints, soak.feeds];
            let mut is_sound = true;
            for (kind, count) in TARGETS.into_iter().zip(counts) {
                is_sound &= hunt(kind, count, soak.seconds.or(count.is_none().then_some(60)), &soak.way)?;
            }
            Ok(is_sound)
        }
        Command::Case { kind, number, text, reduce } => {
            let kind = kind.to_possible_value().expect("none is hidden").get_name().to_string();
            one(&kind, number, text, reduce)
        }
        Command::Worker { kind, first, step, end, milliseconds, progress } => {
            let cases = Work { first, step, end, time: Duration::from_millis(milliseconds) };
            let mut file = OpenOptions::new().write(true).open(progress).map_err(|e| e.to_string())?;
            let mut target = target(&kind).ok_or("no such target")?;
            work(&mut *target, cases, &mut file).map(|()| true).map_err(|e| e.to_string())
        }
    }
}

/// Runs cases of a kind, so many or for so long, whichever comes first.
fn hunt(kind: &str, count: Option<u64>, seconds: Option<u64>, way: &Way) -> Result<bool, String> {
    let jobs = way.jobs.unwrap_or(std::thread::available_parallelism().map_or(1, |n| n.get() as u64)).max(1);
    // Seeds are far apart, so that no two have a case in common.
    let first = u64::from(way.seed) << 32;
    let time = Duration::from_secs(seconds.unwrap_or(u64::MAX >> 20));
    let mut told = BTreeSet::new();
    let tell = |done: &Done| {
        for (case, text) in done.findings.iter().filter(|(case, _)| told.insert(**case)) {
            println!("FINDING case {kind} {case}: {text}");
        }
        tell(kind, done);
    };
    let most = count.unwrap_or(1 << 31).min(1 << 31);
    let done = watch(kind, first, most, time, jobs, tell).map_err(|e| e.to_string())?;
    let counts = done.counts.iter().map(|(name, n)| (&*String::leak(name.clone()), *n)).collect();
    let covered = target(kind).expect("one of its names").covered(&counts, done.cases);
    if let Err(missing) = &covered {
        println!("NOT COVERED {kind}: {missing}");
    }
    Ok(done.findings.is_empty() && covered.is_ok())
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

fn one(kind: &str, case: u64, text: Option<PathBuf>, shorten: bool) -> Result<bool, String> {
    let mut target = target(kind).expect("one of its names");
    let given = text.map(std::fs::read_to_string).transpose().map_err(|e| e.to_string())?;
    let shown = given.clone().unwrap_or_else(|| target.show(case));
    quiet();
    let found = guarded(|| match &given {
        Some(text) => target.run_text(text, case, &mut Counts::new()),
        None => target.run(case, &mut Counts::new()),
    });
    match (&found, shorten) {
        (Err(_), true) => println!("{}", reduce(&mut *target, case, &shown)),
        _ => println!("{shown}"),
    }
    println!("{}", found.as_ref().err().map_or("nothing is found", String::as_str));
    Ok(found.is_ok())
}
