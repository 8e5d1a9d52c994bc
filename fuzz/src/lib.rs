//! Hunters: random programs, texts, checkpoints and feeds, each run until something breaks.
//!
//! Every case has a number, from which all of it follows, so that a finding is told by its number and run again with
//! `case`, which can shorten it, too ([`reduce`]). A case ends in one of three ways: as it should, with an answer or a typed error; with a **finding**, an
//! answer that is wrong or a panic; or with the end of its process, by a signal, an abort or a time limit. So cases are
//! run by workers in processes of their own ([`worker`]), thousands in one, which write the number of the case that they
//! are at into a file; who watches them ([`watch`]) reads there which case it was, and starts a worker anew behind it.
//!
//! | target | a case |
//! |---|---|
//! | [`programs`] | a text made of ops that fit, over all rows of the op table and loops, is read, verified, differentiated, compiled and run against the interpreter |
//! | [`texts`] | a text of a snapshot or of a random program with changed tokens is read, and compiled and run if it is a program |
//! | [`checkpoints`] | a file with changed bytes, or with other values behind a checksum that fits, is loaded, and training goes on |
//! | [`feeds`] | arrays of other names, types, shapes, strides and values are given to trainers, streams and sessions |

pub mod checkpoints;
pub mod feeds;
pub mod generate;
pub mod programs;
pub mod reduce;
pub mod texts;
pub mod watch;
pub mod worker;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a case adds to, by name: how many were read, compiled, refused and so on.
pub type Counts = std::collections::BTreeMap<&'static str, u64>;

/// One kind of case.
pub trait Target {
    /// Runs the case of this number.
    ///
    /// # Errors
    /// What is wrong.
    fn run(&mut self, case: u64, counts: &mut Counts) -> Result<(), String>;

    /// What the case of this number is made of, to be looked at.
    fn show(&mut self, case: u64) -> String;

    /// As [`run`](Target::run), with another text in the place of the one that the case is made of. For targets whose
    /// cases are texts: others find nothing.
    ///
    /// # Errors
    /// What is wrong.
    fn run_text(&mut self, _text: &str, _case: u64, _counts: &mut Counts) -> Result<(), String> {
        Ok(())
    }

    /// What must have happened by the end of so many cases.
    ///
    /// # Errors
    /// What has not.
    fn covered(&self, _counts: &Counts, _cases: u64) -> Result<(), String> {
        Ok(())
    }
}

/// Names of the targets.
pub const TARGETS: [&str; 4] = ["programs", "texts", "checkpoints", "feeds"];

/// A target by its name.
pub fn target(name: &str) -> Option<Box<dyn Target>> {
    Some(match name {
        "programs" => Box::new(programs::Programs),
        "texts" => Box::new(texts::Texts::new()),
        "checkpoints" => Box::new(checkpoints::Checkpoints::new()),
        "feeds" => Box::new(feeds::Feeds::new()),
        _ => return None,
    })
}

/// Random numbers of one case.
pub struct Random(ChaCha8Rng);

impl Random {
    /// Those of this case, for this purpose.
    pub fn new(case: u64, purpose: u64) -> Random {
        let mut rng = ChaCha8Rng::seed_from_u64(case);
        rng.set_stream(purpose);
        Random(rng)
    }

    /// A number from 0 to n − 1.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    /// True once in n times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of a list.
    pub fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }
}
