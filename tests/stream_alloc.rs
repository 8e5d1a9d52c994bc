//! A step of a stream, and a run on inputs that are there, ask the allocator for nothing; a step of training does so
//! for its feed only. Counted by a global allocator, hence a file, and one test, of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array2, Array3};
use retrograd::cells;
use retrograd::prelude::*;
use retrograd::runtime::error::RunError;
use retrograd::runtime::feed::{self, Feed};
use retrograd::runtime::optimizer::Adam;
use retrograd::runtime::session::{Session, Sharing};
use retrograd::runtime::train::Training;

/// The system's allocator, which counts what all threads ask of it.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system's allocator's, and the count is beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `run` allocates: the least of several times, because the harness has threads of its own.
fn allocations(mut run: impl FnMut()) -> usize {
    let times = (0..5).map(|_| {
        let before = COUNT.load(Ordering::Relaxed);
        run();
        COUNT.load(Ordering::Relaxed) - before
    });
    times.min().expect("five times")
}

const UNITS: usize = 64;
const WORDS: usize = 50;

fn model() -> Program {
    let program = Program::record("tagger", |p| {
        let (x, word, tag) = (p.sequence("x", UNITS), p.labels_sequence("word"), p.labels_sequence("tag"));
        let run = p.scan("lstm", |s| {
            let x = s.at(x) + s.embedding("embedding", s.at(word), WORDS, UNITS);
            cells::lstm(s, x, UNITS)
        });
        let logits = p.affine("readout", run.all(), WORDS);
        p.output("logits", logits);
        p.minimize(logits.cross_entropy(tag));
    });
    program.expect("a valid program")
}

/// Inputs for T steps of B samples.
struct Batch {
    x: Array3<f32>,
    word: Array2<i32>,
}

impl Batch {
    fn new(steps: usize, samples: usize) -> Batch {
        Batch {
            x: Array3::from_shape_fn((steps, samples, UNITS), |(t, b, i)| ((7 * t + 3 * b + i) as f32).sin()),
            word: Array2::from_shape_fn((steps, samples), |(t, b)| ((11 * t + b) % WORDS) as i32),
        }
    }

    fn feed(&self) -> Feed<'_> {
        Feed::new().f32("x", self.x.view()).i32("word", self.word.view()).i32("tag", self.word.view())
    }
}

#[test]
fn runs_do_not_allocate() {
    assert!(allocations(|| drop(std::hint::black_box(vec![0u8; 9]))) == 1, "the counter counts");
    let model = model();
    for batch in [1, 3] {
        stream(&model, batch);
    }
    let joint = model.backward().expect("an objective");
    for threads in [1, 2] {
        session(Session::<f32>::new(&joint, threads));
        session(Session::<f32>::new(&joint, Settings::from(threads).checkpointing(Checkpointing::Every(3))));
        for carry in [false, true] {
            trainer(&model, threads, carry);
        }
    }
}

fn stream(model: &Program, batch: usize) {
    let mut stream = model.stream(batch, 1).expect("code for this machine");
    let inputs = Batch::new(9, batch);
    let mut logits = vec![0.0; batch * WORDS];
    let backwards: Vec<usize> = (0..batch).rev().collect();
    let mut step = |t: usize| {
        let (x, word) = (inputs.x.outer_iter().nth(t).unwrap(), inputs.word.outer_iter().nth(t).unwrap());
        stream.set_f32("x", x.to_slice().expect("row-major")).expect("an input");
        stream.set_i32("word", word.to_slice().expect("row-major")).expect("an input");
        stream.advance().expect("all inputs are set");
        stream.get_f32("logits", &mut logits).expect("an output");
        stream.reorder(&backwards).expect("a row for each");
    };
    step(0);
    let count = allocations(|| (1..9).for_each(&mut step));
    assert_eq!(count, 0, "a stream of batch {batch}");
}

fn session(session: Result<Session<f32>, RunError>) {
    let mut session = session.expect("code for this machine");
    session.initialise(1).expect("initial values");
    let sharings = [Sharing::Auto, Sharing::Rows, Sharing::Features];
    for ((steps, samples), sharing) in [(1, 1), (20, 16)].into_iter().flat_map(|size| sharings.map(|s| (size, s))) {
        session.share(sharing);
        let inputs = Batch::new(steps, samples);
        let feed = inputs.feed();
        session.run(&feed).expect("the inputs fit");
        assert_eq!(allocations(|| session.advance()), 0, "T {steps}, B {samples}");
        let program = session.program().clone();
        let resolving = allocations(|| drop(feed::resolve(&program, &feed).expect("the inputs fit")));
        let running = allocations(|| session.run(&feed).expect("the inputs fit"));
        assert_eq!(running, resolving, "T {steps}, B {samples}");
    }
}

fn trainer(model: &Program, threads: usize, carry: bool) {
    let builder = model.trainer(Adam::new(1e-3)).clip_norm(1.0).seed(1).threads(threads).carry_state(carry);
    let mut trainer = builder.compile().expect("code for this machine");
    let mut before = None;
    for (steps, samples) in [(1, 1), (20, 16)] {
        trainer.reset_state();
        let inputs = Batch::new(steps, samples);
        let feed = inputs.feed();
        trainer.step(&feed).expect("finite numbers");
        let running = allocations(|| {
            trainer.step(&feed).expect("finite numbers");
        });
        // A step puts its feed together anew, with the rate and what windows need: lists of a few entries, as many
        // whatever the sizes.
        let place = format!("T {steps}, B {samples}, {threads} threads, carried: {carry}");
        assert!(running <= 20, "{running}: {place}");
        assert_eq!(*before.get_or_insert(running), running, "{place}");
    }
}
