//! A persistent team of threads for short pieces of work.
//!
//! A recurrent net is computed in thousands of small steps, each of which may be worth sharing but
//! not worth starting threads for. A [`Team`] starts them once. [`Team::run`] hands every member the
//! same function and its number, the calling thread being member 0, and returns when all are done.
//!
//! # How the members meet
//!
//! * The caller writes the *job* (a borrowed function), sets `pending` to the number of workers and
//!   then increments `round`: a worker that sees the new round sees the job.
//! * A worker that finished decrements `pending`: a caller that sees zero sees all the workers did,
//!   and only then may the borrow of the function end.
//! * Whoever waits spins for some microseconds and then parks. Spinning makes back-to-back runs cheap;
//!   parking soon keeps a team from stealing time from the very thread it waits for when the
//!   machine has other work. The waker unparks without asking whether it is needed: that is a
//!   system call only if the other has parked.
//!
//! Within a run, members that need what others have done meet at a [`Meeting`]. There, too, whoever waits spins and then
//! sleeps; who comes last asks whether somebody does, since a meeting is behind each step of a loop.
//!
//! All members, the caller too, compute in the mode of a run: subnormal numbers count as zero (`flush`).
//!
//! A run allocates nothing.
//!
//! # What can go wrong
//!
//! * The system refuses a thread: [`Team::new`] is an error, and the threads it had started have ended.
//! * A member panics: the panic is caught, the others finish, and it goes on in the caller. If several do, one goes on, and
//!   the payloads of the others are dropped; a payload that panics when it is dropped is forgotten. The team remains
//!   usable.
//! * The process forks: the child has the team's memory and none of its threads. A team knows the process that started
//!   it, and starts its threads again in another ([`Team::revive`]).

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};
use std::{mem, process};

use crate::error::RunError;
use crate::flush::{self, Flushing};

/// How long a waiting thread spins before it parks.
const PATIENCE: Duration = Duration::from_micros(15);
/// Most members of a team. More than this a machine has no use for; and far beyond it a system runs out of what a thread
/// needs in ways that end the process.
pub const MOST_MEMBERS: usize = 1024;
/// Looks at the awaited value between two looks at the clock.
const LOOKS: usize = 64;

/// What the workers of one round do, and whom the last of them wakes.
struct Job {
    work: *const (dyn Fn(usize) + Sync),
    caller: Thread,
}

struct Shared {
    /// Counts runs; a change is the signal to start.
    round: AtomicUsize,
    /// Workers that have not finished this round.
    pending: AtomicUsize,
    /// Tells the workers, at the next round, to end.
    closing: AtomicBool,
    /// Written by the caller between rounds, read by workers during one.
    job: UnsafeCell<Option<Job>>,
    /// The payload of a panic of this round.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is the only part that is not already `Sync`. It is written only by the holder of
// `&mut Team` while `pending` is zero, when no worker looks at it, and read by workers only between
// the round's start and their decrement of `pending`; `round` and `pending` order the two. The
// function it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointed-to function is never owned.
unsafe impl Send for Shared {}

/// A fixed number of threads that run one function together.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// The process that has the threads.
    process: u32,
}

impl Team {
    /// A team of `n` members: the caller of [`Team::run`] and `n - 1` threads (zero counts as one).
    ///
    /// ```
    /// use retrograd_runtime::team::Team;
    /// assert_eq!(Team::new(2)?.size(), 2);
    /// let refused = Team::new(20_000).unwrap_err();
    /// assert_eq!(refused.to_string(), "20000 threads are asked for; at most 1024 are allowed");
    /// # Ok::<(), retrograd_runtime::error::RunError>(())
    /// ```
    ///
    /// # Errors
    /// More than [`MOST_MEMBERS`], or as many as the system does not give.
    pub fn new(n: usize) -> Result<Self, RunError> {
        if n > MOST_MEMBERS {
            return Err(RunError::TooManyThreads { asked: n, most: MOST_MEMBERS });
        }
        let (team, refused) = Team::of_at_most(n);
        match refused {
            None => Ok(team),
            Some(reason) => Err(RunError::ThreadRefused { asked: n, had: team.size(), reason }),
        }
    }

    /// A team of the caller alone.
    pub fn alone() -> Self {
        Team::of_at_most(1).0
    }

    /// A team of `n` members, or of as many as the system gives, and why it gives no more.
    fn of_at_most(n: usize) -> (Self, Option<std::io::Error>) {
        let shared = Arc::new(Shared {
            round: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
        });
        let mut team = Self { shared, workers: Vec::new(), process: process::id() };
        for member in 1..n {
            let shared = Arc::clone(&team.shared);
            let thread = thread::Builder::new().name(format!("retrograd-{member}"));
            match thread.spawn(move || serve(&shared, member)) {
                Ok(worker) => team.workers.push(worker),
                Err(reason) => return (team, Some(reason)),
            }
        }
        (team, None)
    }

    /// Number of members, the caller included.
    pub fn size(&self) -> usize {
        self.workers.len() + 1
    }

    /// Starts the threads again if this process was forked from the one that has them. [`run`](Team::run) does so by
    /// itself. If the system gives fewer than there were, the team is that much smaller.
    pub fn revive(&mut self) {
        // Whoever is alone need not ask the system who it is.
        if !self.workers.is_empty() && self.process != process::id() {
            *self = Team::of_at_most(self.size()).0;
        }
    }

    /// Runs `work(0)` here and `work(1)`, …, `work(size - 1)` on the team's threads; returns when all
    /// are done.
    ///
    /// # Panics
    /// With the panic of a member, once all have finished.
    pub fn run(&mut self, work: &(dyn Fn(usize) + Sync)) {
        self.revive();
        self.run_here(work);
    }

    /// As [`run`](Team::run), where this process is known to have the threads.
    pub(crate) fn run_here(&mut self, work: &(dyn Fn(usize) + Sync)) {
        let _flushing = Flushing::begin();
        if self.workers.is_empty() {
            return work(0);
        }
        let shared = &*self.shared;
        // The lifetime of the borrow goes; this function does not return before its last use.
        let work_ptr = std::ptr::from_ref(work);
        // SAFETY: only the lifetime changes, see above.
        let work_ptr =
            unsafe { mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync)>(work_ptr) };
        // SAFETY: `&mut self` and `pending == 0`: no worker reads the job now.
        unsafe { *shared.job.get() = Some(Job { work: work_ptr, caller: thread::current() }) };
        shared.pending.store(self.workers.len(), Ordering::Relaxed);
        self.start_round();

        let mine = catch_unwind(AssertUnwindSafe(|| work(0)));
        wait_until(|| shared.pending.load(Ordering::Acquire) == 0);

        if let Err(panic) = mine {
            shared.keep(panic);
        }
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn start_round(&self) {
        self.shared.round.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
    }
}

impl Shared {
    /// Keeps the payload of a member's panic for the caller, unless there is one already; but the panic of whoever waited
    /// in vain for another tells nothing.
    fn keep(&self, panic: Box<dyn Any + Send>) {
        let mut kept = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
        let tells_more = kept.as_ref().is_none_or(|kept| kept.is::<Abandoned>());
        let other = if tells_more { kept.replace(panic) } else { Some(panic) };
        drop(kept);
        if let Some(other) = other
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(other)))
        {
            // Whoever panics when it is dropped may do so again.
            mem::forget(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if self.process != process::id() {
            // The threads are another process's: here there is nobody to end, nor to wait for.
            mem::forget(mem::take(&mut self.workers));
            return;
        }
        self.shared.closing.store(true, Ordering::Relaxed);
        self.start_round();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its work, so it ends well; and a destructor has nobody
            // to tell if it did not.
            let _ = worker.join();
        }
    }
}

/// What a member panics with whose mates have panicked, so that it would wait for ever.
struct Abandoned;

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("size", &self.size()).finish()
    }
}

/// Where all members of a team wait for each other, again and again.
///
/// ```
/// use retrograd_runtime::team::{Meeting, Team};
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// let mut team = Team::new(3)?;
/// let (meeting, written) = (Meeting::new(team.size()), AtomicUsize::new(0));
/// team.run(&|_| {
///     meeting.attend(|meet| {
///         written.fetch_add(1, Ordering::Relaxed);
///         meet();
///         assert_eq!(written.load(Ordering::Relaxed), 3);
///     });
/// });
/// # Ok::<(), retrograd_runtime::error::RunError>(())
/// ```
#[derive(Debug)]
pub struct Meeting {
    members: usize,
    /// Members that have come to the present meeting.
    arrived: AtomicUsize,
    /// Counts meetings; a change is the signal to go on.
    round: AtomicUsize,
    /// A member has panicked: nobody need wait for it.
    broken: AtomicBool,
    /// Members that no longer spin.
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Meeting {
    /// For so many members, each of which attends once.
    pub fn new(members: usize) -> Meeting {
        Meeting {
            members,
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    /// Does a member's work. It is given a function that returns when all members have called it: what each of them did
    /// before is then seen by all. All call it equally often.
    ///
    /// # Panics
    /// With the panic of the work; and in `meet`, without a message, if another member's work has panicked.
    pub fn attend(&self, work: impl FnOnce(&dyn Fn())) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&|| self.meet()))) {
            self.broken.store(true, Ordering::SeqCst);
            self.wake_all();
            resume_unwind(panic);
        }
    }

    fn meet(&self) {
        let round = self.round.load(Ordering::Relaxed);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.members {
            self.arrived.store(0, Ordering::Relaxed);
            // Who counts itself among the sleepers and still sees the old round is seen here: both orders are total.
            self.round.store(round.wrapping_add(1), Ordering::SeqCst);
            if self.sleepers.load(Ordering::SeqCst) > 0 {
                self.wake_all();
            }
            return;
        }
        let is_over = || self.round.load(Ordering::SeqCst) != round || self.broken.load(Ordering::SeqCst);
        if !spin_until(is_over) {
            let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while !is_over() {
                guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
        if self.broken.load(Ordering::SeqCst) {
            // Not `panic!`: the member that panicked has said why.
            resume_unwind(Box::new(Abandoned));
        }
    }

    fn wake_all(&self) {
        // Not between a sleeper's last look and its sleep.
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.wake.notify_all();
    }
}

/// A worker's life.
fn serve(shared: &Shared, member: usize) {
    flush::for_this_thread();
    let mut seen = 0;
    loop {
        wait_until(|| shared.round.load(Ordering::Acquire) != seen);
        seen = seen.wrapping_add(1);
        if shared.closing.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: a round has started and this worker has not yet decremented `pending`, so the job
        // is written, is not being changed, and its function is still borrowed.
        let (work, caller) = unsafe {
            let job = (*shared.job.get()).as_ref().expect("a round has a job");
            (&*job.work, job.caller.clone())
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(member))) {
            shared.keep(panic);
        }
        // After this the caller may return: nothing of the job is touched any more but the clone.
        if shared.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            caller.unpark();
        }
    }
}

/// Spins until `ready`, at most for [`PATIENCE`], and then parks until it is. Whoever makes it ready
/// must unpark this thread afterwards.
fn wait_until(ready: impl Fn() -> bool) {
    if !spin_until(&ready) {
        while !ready() {
            thread::park();
        }
    }
}

/// Spins until `ready`, at most for [`PATIENCE`]; whether it is.
fn spin_until(ready: impl Fn() -> bool) -> bool {
    if ready() {
        return true;
    }
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        for _ in 0..LOOKS {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_runs_once() {
        for n in [1, 2, 3, 5] {
            let mut team = Team::new(n).unwrap();
            assert_eq!(team.size(), n);
            let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            for round in 1..=2000 {
                team.run(&|member| {
                    counts[member].fetch_add(1, Ordering::Relaxed);
                });
                for count in &counts {
                    assert_eq!(count.load(Ordering::Relaxed), round);
                }
            }
        }
    }

    #[test]
    fn the_caller_is_member_zero() {
        let mut team = Team::new(3).unwrap();
        let caller = thread::current().id();
        team.run(&|member| assert_eq!(member == 0, thread::current().id() == caller));
    }

    #[test]
    fn parked_workers_wake() {
        let mut team = Team::new(2).unwrap();
        let sum = AtomicUsize::new(0);
        for _ in 0..5 {
            thread::sleep(PATIENCE * 40);
            team.run(&|member| {
                // Whoever finishes first has to park, too.
                if member == 1 {
                    thread::sleep(PATIENCE * 40);
                }
                sum.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), 10);
    }

    #[test]
    fn panics_reach_the_caller_and_the_team_survives() {
        let mut team = Team::new(3).unwrap();
        for culprit in 0..3 {
            let finished = AtomicUsize::new(0);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                team.run(&|member| {
                    if member == culprit {
                        // Unlike `panic!`, this prints nothing.
                        resume_unwind(Box::new("stop"));
                    }
                    finished.fetch_add(1, Ordering::Relaxed);
                });
            }));
            let panic = outcome.expect_err("the panic arrives");
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"stop"));
            assert_eq!(finished.into_inner(), 2);
            team.run(&|_| {});
        }
    }

    #[test]
    fn all_meet_again_and_again() {
        for n in 1..=4 {
            let mut team = Team::new(n).unwrap();
            let (meeting, count) = (Meeting::new(n), AtomicUsize::new(0));
            team.run(&|member| {
                meeting.attend(|meet| {
                    for round in 0..500 {
                        if round % 100 == 0 && member == round / 100 {
                            // The others have to sleep.
                            thread::sleep(PATIENCE * 40);
                        }
                        count.fetch_add(1, Ordering::Relaxed);
                        meet();
                        assert_eq!(count.load(Ordering::Relaxed), (round + 1) * n);
                        meet();
                    }
                });
            });
        }
    }

    #[test]
    fn nobody_waits_for_a_member_that_panicked() {
        for (n, culprit) in [(2, 0), (2, 1), (3, 1)] {
            let mut team = Team::new(n).unwrap();
            let meeting = Meeting::new(n);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                team.run(&|member| {
                    meeting.attend(|meet| {
                        if member == culprit {
                            thread::sleep(PATIENCE * 40);
                            resume_unwind(Box::new("stop"));
                        }
                        meet();
                    });
                });
            }));
            // That of the member, not of those that waited for it.
            assert!(outcome.expect_err("the panic arrives").is::<&str>());
            team.run(&|_| {});
        }
    }

    /// A payload that panics when it is dropped, with a payload that does so again.
    struct Bomb(usize);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                resume_unwind(Box::new(Bomb(self.0 - 1)));
            }
        }
    }

    #[test]
    fn payloads_that_panic_when_they_are_dropped_stop_nobody() {
        for n in 1..=4 {
            let mut team = Team::new(n).unwrap();
            for meets in [false, true] {
                let meeting = Meeting::new(n);
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    team.run(&|_| {
                        let work = || resume_unwind(Box::new(Bomb(3)));
                        if meets { meeting.attend(|_| work()) } else { work() }
                    });
                }));
                let payload = outcome.expect_err("one arrives");
                assert!(payload.is::<Bomb>());
                mem::forget(payload);
                let ran = AtomicUsize::new(0);
                team.run(&|_| {
                    ran.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(ran.into_inner(), n);
            }
        }
    }

    #[test]
    fn a_run_whose_caller_panics_waits_for_the_others() {
        let mut team = Team::new(3).unwrap();
        let finished = AtomicUsize::new(0);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            team.run(&|member| {
                if member == 0 {
                    resume_unwind(Box::new("stop"));
                }
                thread::sleep(PATIENCE * 400);
                // A panic that is caught within, and a team within, are nobody else's.
                let inner = catch_unwind(AssertUnwindSafe(|| {
                    Team::new(2).unwrap().run(&|_| resume_unwind(Box::new(1)));
                }));
                assert!(inner.is_err());
                finished.fetch_add(1, Ordering::Relaxed);
            });
        }));
        assert!(outcome.expect_err("the panic arrives").is::<&str>());
        assert_eq!(finished.into_inner(), 2);
    }

    #[test]
    fn more_members_than_are_allowed_are_an_error() {
        for n in [MOST_MEMBERS + 1, 20_000, usize::MAX] {
            assert!(matches!(Team::new(n), Err(RunError::TooManyThreads { asked, .. }) if asked == n));
        }
    }

    /// A child process has a team of its own; what it finds there is its exit code.
    #[cfg(unix)]
    fn in_a_child(work: impl FnOnce() -> bool) {
        // SAFETY: the child works on its own copy of memory and ends without returning; glibc's and macOS's allocators
        // are usable in it.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let good = catch_unwind(AssertUnwindSafe(work)).is_ok_and(|good| good);
            // SAFETY: it ends this process, which has nothing to clean up.
            unsafe { libc::_exit(if good { 0 } else { 1 }) };
        }
        assert!(child > 0, "a process can be forked");
        let (started, mut status) = (Instant::now(), 0);
        // SAFETY: the child is this process's, and `status` is a local variable.
        while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
            if started.elapsed() > Duration::from_secs(60) {
                // SAFETY: it has not been waited for, so its number is still its own.
                unsafe { libc::kill(child, libc::SIGKILL) };
                panic!("the child hangs");
            }
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(status, 0, "what the child finds");
    }

    #[test]
    #[cfg(unix)]
    fn a_team_goes_on_in_a_forked_child() {
        let mut team = Team::new(3).unwrap();
        let all_run = |team: &mut Team| {
            let ran = AtomicUsize::new(0);
            team.run(&|member| {
                ran.fetch_add(1 << (8 * member), Ordering::Relaxed);
            });
            team.size() == 3 && ran.into_inner() == 0x01_01_01
        };
        assert!(all_run(&mut team));
        in_a_child(|| {
            // And a child of the child, which may have used it or not.
            let is_good = all_run(&mut team) && all_run(&mut team);
            in_a_child(|| all_run(&mut team));
            is_good
        });
        // One that is never used there ends there, too.
        let unused = Team::new(2).unwrap();
        in_a_child(move || {
            drop(unused);
            true
        });
        assert!(all_run(&mut team));
    }

    #[test]
    #[cfg(unix)]
    fn a_session_goes_on_in_a_forked_child() {
        use ndarray::Array2;
        use retrograd_compiler::ir::Program;

        use crate::feed::Feed;
        use crate::session::{Session, Sharing};

        let program = Program::record("sine", |p| p.output("y", p.input("x", 40).sin())).unwrap();
        let x = Array2::from_shape_fn((50, 40), |(i, j)| (i * j) as f32);
        let feed = Feed::new().f32("x", x.view());
        for sharing in [Sharing::Rows, Sharing::Features] {
            let mut session = Session::<f32>::new(&program, 3).unwrap();
            session.share(sharing);
            session.run(&feed).unwrap();
            let expected = session.output("y");
            in_a_child(|| {
                session.run(&feed).unwrap();
                session.output("y") == expected
            });
        }
    }

    #[test]
    fn all_members_flush_and_the_callers_register_is_put_back() {
        for n in 1..=3 {
            let mut team = Team::new(n).unwrap();
            // No member, then each of them, panics.
            for culprit in (0..n).map(Some).chain([None]) {
                let outcome = flush::tests::with_an_odd_register(|| {
                    team.run(&|member| {
                        assert!(flush::tests::is_flushing(), "member {member}");
                        if Some(member) == culprit {
                            resume_unwind(Box::new("stop"));
                        }
                    });
                });
                let stopped = outcome.is_err_and(|panic| panic.is::<&str>());
                assert_eq!(stopped, culprit.is_some(), "{n} members");
            }
        }
    }

    #[test]
    fn zero_members_means_one() {
        let mut team = Team::new(0).unwrap();
        let ran = AtomicUsize::new(0);
        team.run(&|member| {
            assert_eq!(member, 0);
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 1);
    }
}
