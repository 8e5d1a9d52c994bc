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
//! A run allocates nothing. A panic in a member is caught, the run is finished, and the panic goes
//! on in the caller; the team remains usable.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a waiting thread spins before it parks.
const PATIENCE: Duration = Duration::from_micros(15);
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
    /// The first panic of a worker in this round.
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
}

impl Team {
    /// A team of `n` members: the caller of [`Team::run`] and `n - 1` threads (zero counts as one).
    ///
    /// # Panics
    /// If the system refuses a thread.
    pub fn new(n: usize) -> Self {
        let shared = Arc::new(Shared {
            round: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
        });
        let workers = (1..n)
            .map(|member| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("retrograd-{member}"))
                    .spawn(move || serve(&shared, member))
                    .expect("the system starts a thread")
            })
            .collect();
        Self { shared, workers }
    }

    /// Number of members, the caller included.
    pub fn size(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work(0)` here and `work(1)`, …, `work(size - 1)` on the team's threads; returns when all
    /// are done.
    ///
    /// # Panics
    /// With the panic of a member, once all have finished.
    pub fn run(&mut self, work: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return work(0);
        }
        let shared = &*self.shared;
        // The lifetime of the borrow goes; this function does not return before its last use.
        let work_ptr = std::ptr::from_ref(work);
        // SAFETY: only the lifetime changes, see above.
        let work_ptr = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync)>(work_ptr)
        };
        // SAFETY: `&mut self` and `pending == 0`: no worker reads the job now.
        unsafe { *shared.job.get() = Some(Job { work: work_ptr, caller: thread::current() }) };
        shared.pending.store(self.workers.len(), Ordering::Relaxed);
        self.start_round();

        let mine = catch_unwind(AssertUnwindSafe(|| work(0)));
        wait_until(|| shared.pending.load(Ordering::Acquire) == 0);

        let theirs = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Err(panic) = mine {
            resume_unwind(panic);
        }
        if let Some(panic) = theirs {
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

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.start_round();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its work, so it ends well; and a destructor has nobody
            // to tell if it did not.
            let _ = worker.join();
        }
    }
}

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
/// let mut team = Team::new(3);
/// let (meeting, written) = (Meeting::new(team.size()), AtomicUsize::new(0));
/// team.run(&|_| {
///     meeting.attend(|meet| {
///         written.fetch_add(1, Ordering::Relaxed);
///         meet();
///         assert_eq!(written.load(Ordering::Relaxed), 3);
///     });
/// });
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
    /// With the panic of the work; and in `meet` if another member's work has panicked.
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
        assert!(!self.broken.load(Ordering::SeqCst), "another member of the team has panicked");
    }

    fn wake_all(&self) {
        // Not between a sleeper's last look and its sleep.
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.wake.notify_all();
    }
}

/// A worker's life.
fn serve(shared: &Shared, member: usize) {
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
            let mut first = shared.panic.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(panic);
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
            let mut team = Team::new(n);
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
        let mut team = Team::new(3);
        let caller = thread::current().id();
        team.run(&|member| assert_eq!(member == 0, thread::current().id() == caller));
    }

    #[test]
    fn parked_workers_wake() {
        let mut team = Team::new(2);
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
        let mut team = Team::new(3);
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
            let mut team = Team::new(n);
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
            let mut team = Team::new(n);
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
            outcome.expect_err("the panic arrives");
            team.run(&|_| {});
        }
    }

    #[test]
    fn zero_members_means_one() {
        let mut team = Team::new(0);
        let ran = AtomicUsize::new(0);
        team.run(&|member| {
            assert_eq!(member, 0);
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 1);
    }
}
