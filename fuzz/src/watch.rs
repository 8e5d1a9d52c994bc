//! Watches workers: starts them, reads where they are, ends those that hang, and tells of the case that ended one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one case may take: none takes a hundredth of it on an idle machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Kilobytes that a worker may map: what asks for more is refused, as it is on a full machine.
const MEMORY: u64 = 6 << 20;
/// Findings after which a target is not gone on with.
const MOST: usize = 50;

/// What was done of a target.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Cases.
    pub cases: u64,
    /// Sums of the workers' counts.
    pub counts: BTreeMap<String, u64>,
    /// Findings by case.
    pub findings: BTreeMap<u64, String>,
    /// Time.
    pub seconds: f64,
}

struct Worker {
    child: Child,
    progress: PathBuf,
    first: u64,
    at: u64,
    since: Instant,
}

/// Runs cases of a target from `first` on, so many or for so long, in `jobs` processes. `tell` is called now and then.
///
/// # Errors
/// If no process can be started.
pub fn watch(
    target: &str,
    first: u64,
    most: u64,
    time: Duration,
    jobs: u64,
    mut tell: impl FnMut(&Done),
) -> io::Result<Done> {
    let started = Instant::now();
    let end = first.saturating_add(most);
    let findings = Arc::new(Mutex::new(BTreeMap::new()));
    let start = |first: u64, number: u64| -> io::Result<Worker> {
        let progress = std::env::temp_dir().join(format!("retrograd-fuzz-{target}-{}-{number}", std::process::id()));
        fs::write(&progress, format!("{first} 0 "))?;
        let left = time.saturating_sub(started.elapsed()).as_millis();
        let program = std::env::current_exe()?;
        let limit = format!("ulimit -v {MEMORY} 2>/dev/null; ulimit -c 0; exec \"$0\" \"$@\"");
        let mut child = Command::new("sh")
            .args(["-c", &limit])
            .arg(program)
            .args(["worker", target, &first.to_string(), &jobs.to_string(), &end.to_string(), &left.to_string()])
            .arg(&progress)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let findings = Arc::clone(&findings);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut parts = line.splitn(3, ' ');
                if let (Some("finding"), Some(Ok(case)), Some(text)) =
                    (parts.next(), parts.next().map(str::parse), parts.next())
                {
                    findings.lock().unwrap_or_else(PoisonError::into_inner).insert(case, text.replace("\\n", "\n"));
                }
            }
        });
        Ok(Worker { child, progress, first, at: first, since: Instant::now() })
    };
    let mut workers: Vec<Option<Worker>> =
        (0..jobs).map(|j| start(first + j, j).map(Some)).collect::<io::Result<_>>()?;
    // What workers that have ended have done.
    let mut ended = Done::default();
    let mut told = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let mut now = ended.clone();
        for (j, slot) in workers.iter_mut().enumerate() {
            let Some(worker) = slot else { continue };
            let status = worker.child.try_wait()?;
            let (at, done, counts) = read(&worker.progress);
            if at != worker.at {
                (worker.at, worker.since) = (at, Instant::now());
            }
            add(&mut now, done, &counts);
            let hangs = status.is_none() && worker.since.elapsed() > LIMIT;
            if hangs {
                worker.child.kill()?;
                worker.child.wait()?;
            }
            let Some(end_of) =
                status.map(|s| (s.success(), s.to_string())).or(hangs.then(|| (false, format!("hangs for {LIMIT:?}"))))
            else {
                continue;
            };
            add(&mut ended, done, &counts);
            let _ = fs::remove_file(&worker.progress);
            let behind = worker.at.max(worker.first).saturating_add(jobs);
            *slot = None;
            if !end_of.0 {
                let found = findings.lock().map(|mut f| {
                    f.insert(behind - jobs, format!("its process ended: {}", end_of.1));
                    f.len()
                });
                if behind < end && started.elapsed() < time && found.is_ok_and(|n| n < MOST) {
                    *slot = Some(start(behind, j as u64)?);
                }
            }
        }
        let is_over = workers.iter().all(Option::is_none);
        if is_over || told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            if is_over {
                // The threads that read have seen the end of what their workers printed.
                std::thread::sleep(Duration::from_millis(100));
                now = ended.clone();
            }
            now.findings = findings.lock().unwrap_or_else(PoisonError::into_inner).clone();
            now.seconds = started.elapsed().as_secs_f64();
            tell(&now);
            if is_over {
                return Ok(now);
            }
        }
        if findings.lock().is_ok_and(|f| f.len() > MOST) {
            for worker in workers.iter_mut().flatten() {
                let _ = worker.child.kill();
            }
        }
    }
}

fn add(done: &mut Done, cases: u64, counts: &BTreeMap<String, u64>) {
    done.cases += cases;
    for (name, n) in counts {
        *done.counts.entry(name.clone()).or_default() += n;
    }
}

fn read(progress: &PathBuf) -> (u64, u64, BTreeMap<String, u64>) {
    let text = File::open(progress).and_then(io::read_to_string).unwrap_or_default();
    let mut parts = text.trim_end().splitn(3, ' ');
    let mut number = || parts.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let (at, done) = (number(), number());
    let counts = parts.next().unwrap_or_default().split(',').filter_map(|part| {
        let (name, n) = part.split_once('=')?;
        Some((name.to_string(), n.parse().ok()?))
    });
    (at, done, counts.collect())
}
