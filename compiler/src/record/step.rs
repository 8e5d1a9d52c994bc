//! [`Step`]: one step of a scan while it is recorded, and [`Run`]: the scan afterwards.

use std::ops::Deref;
use std::panic::Location;

use super::Site;
use super::declare::list_names;
use super::expr::{Expr, Value};
use super::recording::Recording;
use super::scans::Over;
use super::scope::Scope;
use crate::error::RecordErrorKind as Kind;
use crate::ir::{self, Extent, Shape, Type};

/// One step of a scan while it is recorded.
///
/// States are carried from step to step: [`state`](Step::state) is the value before the step, and each must be given
/// the value after it, once, with [`next`](Step::next). Sequences are read at this step with [`at`](Step::at); other
/// values from outside are used as they are. Everything in a step has a row for each sample.
///
/// ```
/// # use retrograd_compiler::ir::Program;
/// # Program::record("doc", |p| {
/// let x = p.sequence("x", 16);
/// // A leaky integrator, and where its state goes.
/// let rate = p.affine("rate", p.input("about", 3), 16).sigmoid();
/// let (all, energy) = p.scan("leak", |s| {
///     let h = s.state("h", 16);
///     let h1 = s.next(h, rate * h + (1.0 - rate) * s.at(x));
///     (h1, h1.inner(h1))
/// });
/// p.output("trace", energy.all()); // f32[T, B]
/// p.output("state", all.last()); // f32[B, 16]
/// # })?;
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
pub struct Step<'r> {
    scope: Scope<'r>,
}

impl<'r> Deref for Step<'r> {
    type Target = Scope<'r>;
    fn deref(&self) -> &Scope<'r> {
        &self.scope
    }
}

impl<'r> Step<'r> {
    pub(super) fn new(recording: &'r Recording) -> Step<'r> {
        Step { scope: Scope { recording } }
    }

    /// [`Scope::scope`], also for the names of states: `run.state("layer1.h")`.
    #[track_caller]
    pub fn scope<R>(&self, name: &str, part: impl FnOnce(&Self) -> R) -> R {
        self.recording.scoped(Location::caller(), name, || part(self))
    }

    /// A sequence's rows at this step: `[T, B, ..] → [B, ..]`.
    #[track_caller]
    pub fn at(&self, sequence: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        // A value of this step is no sequence either, and better told so than that it is used outside of a step.
        if let Some(given) = sequence.ty()
            && sequence.value().is_some_and(|at| at.frame != 0)
        {
            let hint = "it is already a value of this step: use it as it is";
            return self.recording.fail(site, Kind::NotASequence { given, hint });
        }
        let Some(value) = self.recording.outer(site, sequence) else { return sequence.poisoned() };
        self.recording.make(|state| state.at(site, value))
    }

    /// Says that this scan takes at most so many steps: its states have no room for more. A run with more is refused, and
    /// told where this was said. Where samples have lengths, the longest counts; where states are carried from run to run,
    /// as in a stream, the steps since their start do. Where states begin anew within a run
    /// ([`TimeAxis::reset_where`](super::TimeAxis::reset_where)), nothing is refused.
    ///
    /// ```
    /// # use retrograd_compiler::ir::Program;
    /// let program = Program::record("doc", |p| {
    ///     let x = p.sequence("x", 4);
    ///     let run = p.scan("sum", |s| {
    ///         s.at_most(20);
    ///         let h = s.state("h", 4);
    ///         s.next(h, h + s.at(x))
    ///     });
    ///     p.output("sum", run.last());
    /// })?;
    /// assert!(program.to_string().contains("axis T = time <= 20"));
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    #[track_caller]
    pub fn at_most(&self, steps: usize) {
        let site = Location::caller();
        self.recording.with(|state| state.limit(site, steps));
    }

    /// A state that starts at 0, as it is before the step.
    #[track_caller]
    pub fn state(&self, name: &str, shape: impl Into<Shape>) -> Expr<'r> {
        let (site, shape) = (Location::caller(), shape.into());
        self.recording.make(|state| {
            if !state.check_shape(site, &shape) {
                return None;
            }
            state.program.graph.location = Some(site);
            let zero = state.program.graph.constant(0.0, Type::float(Extent::Batch, shape));
            state.state(site, name, zero)
        })
    }

    /// A state that starts as a value from outside the scan: a parameter (the same start for all samples), an input,
    /// the last state of another scan. Its shape and element type are that value's.
    #[track_caller]
    pub fn state_from(&self, name: &str, initial: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        if initial.value().is_some_and(|at| at.frame != 0) && initial.ty().is_some() {
            return self.recording.fail(site, Kind::InitialInStep { name: name.to_string() });
        }
        let initial = self.recording.outer(site, initial);
        self.recording.make(|state| state.state(site, name, initial?))
    }

    /// Has a state start as a value from outside the scan, whatever the one who made it says: a cell that is a function
    /// makes its own states, which start at 0. The state is called by its name within the present scope, `"h"` or
    /// `"layer1.h"`, and may be made before this or after. What it can start from is what
    /// [`state_from`](Step::state_from) takes, of the state's shape.
    ///
    /// ```
    /// # use retrograd_compiler::{ir::Program, record::{Expr, Step, concat}};
    /// fn rnn<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    ///     let h = s.state("h", units);
    ///     s.next(h, s.affine("cell", concat([h, x]), units).tanh())
    /// }
    /// # Program::record("doc", |p| {
    /// let (source, target) = (p.axis("source"), p.axis("target"));
    /// let (x, y) = (source.sequence("x", 4), target.sequence("y", 3));
    /// let encoder = source.scan("encoder", |s| rnn(s, s.at(x), 16));
    /// let decoder = target.scan("decoder", |s| {
    ///     s.start("h", encoder.state("h"));
    ///     rnn(s, s.at(y), 16)
    /// });
    /// # p.output("y", decoder.all());
    /// # })?;
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    #[track_caller]
    pub fn start(&self, name: &str, initial: Expr<'r>) {
        let site = Location::caller();
        if initial.value().is_some_and(|at| at.frame != 0) && initial.ty().is_some() {
            self.recording.fail(site, Kind::InitialInStep { name: name.to_string() });
            return;
        }
        if let Some(initial) = self.recording.outer(site, initial) {
            self.recording.with(|state| state.start(site, name, initial));
        }
    }

    /// Gives a state its value after the step, once, and returns that value.
    #[track_caller]
    pub fn next(&self, state: Expr<'r>, value: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        let value = self.recording.local(site, value.into());
        let Some(state) = self.recording.local(site, state.into()) else {
            return self.recording.make(|state| {
                let frame = state.frame();
                value.map(|value| Value { frame, value })
            });
        };
        self.recording.make(|recorded| recorded.next(site, state, value))
    }
}

/// What a step may return, and what its scan then gives: an [`Expr`] gives a [`Run`]; `()` gives [`States`]; tuples,
/// arrays and vectors give the same of theirs.
pub trait StepResult<'r> {
    /// What the scan gives.
    type Runs;
    /// Replaces each expression by its run.
    fn runs(self, give_out: &mut dyn FnMut(Option<Expr<'r>>) -> Run<'r>) -> Self::Runs;
}

impl<'r> StepResult<'r> for Expr<'r> {
    type Runs = Run<'r>;
    fn runs(self, give_out: &mut dyn FnMut(Option<Expr<'r>>) -> Run<'r>) -> Run<'r> {
        give_out(Some(self))
    }
}
impl<'r> StepResult<'r> for () {
    type Runs = States<'r>;
    fn runs(self, give_out: &mut dyn FnMut(Option<Expr<'r>>) -> Run<'r>) -> States<'r> {
        States { run: give_out(None) }
    }
}
impl<'r, R: StepResult<'r>, const N: usize> StepResult<'r> for [R; N] {
    type Runs = [R::Runs; N];
    fn runs(self, give_out: &mut dyn FnMut(Option<Expr<'r>>) -> Run<'r>) -> Self::Runs {
        self.map(|r| r.runs(give_out))
    }
}
impl<'r, R: StepResult<'r>> StepResult<'r> for Vec<R> {
    type Runs = Vec<R::Runs>;
    fn runs(self, give_out: &mut dyn FnMut(Option<Expr<'r>>) -> Run<'r>) -> Self::Runs {
        self.into_iter().map(|r| r.runs(give_out)).collect()
    }
}
macro_rules! tuples {
    ($(($($r:ident $i:tt),*);)*) => { $(
        impl<'r, $($r: StepResult<'r>),*> StepResult<'r> for ($($r,)*) {
            type Runs = ($($r::Runs,)*);
            fn runs(self, give_out: &mut dyn FnMut(Option<Expr<'r>>) -> Run<'r>) -> Self::Runs {
                ($(self.$i.runs(give_out),)*)
            }
        }
    )* };
}
tuples! {
    (A 0, B 1);
    (A 0, B 1, C 2);
    (A 0, B 1, C 2, D 3);
}

/// A recorded scan, seen from one of the values that its step returned.
#[derive(Clone, Copy)]
pub struct Run<'r> {
    recording: &'r Recording,
    /// `None` where the scan was a mistake.
    scan: Option<usize>,
    /// `None` where the returned value was one, or where there was none.
    output: Option<usize>,
}

impl<'r> Run<'r> {
    /// The value at every step: `[T, B, ..]`; 0 past a sample's end, in a scan with [lengths](super::TimeAxis::lengths).
    #[track_caller]
    pub fn all(self) -> Expr<'r> {
        self.output(Location::caller(), Recording::all)
    }

    /// The value at the last step that ran: `[B, ..]`. That is step T − 1, or step 0 of a scan in reverse; with
    /// [lengths](super::TimeAxis::lengths), each sample's own last step instead of T − 1.
    #[track_caller]
    pub fn last(self) -> Expr<'r> {
        self.output(Location::caller(), Recording::last)
    }

    /// A state after the last step, by its name: `"h"`, or `"layer1.h"` if it was made within a scope of the step.
    #[track_caller]
    pub fn state(self, name: &str) -> Expr<'r> {
        let site = Location::caller();
        match self.scan {
            Some(scan) => self.recording.final_state(site, scan, name),
            None => self.recording.make(|_| None),
        }
    }

    fn output(self, site: Site, result: impl FnOnce(&'r Recording, Site, usize, usize) -> Expr<'r>) -> Expr<'r> {
        match (self.scan, self.output) {
            (Some(scan), Some(output)) => result(self.recording, site, scan, output),
            _ => self.recording.make(|_| None),
        }
    }
}

/// A recorded scan whose step returned nothing: its states remain.
#[derive(Clone, Copy)]
pub struct States<'r> {
    run: Run<'r>,
}

impl<'r> States<'r> {
    /// A state after the last step, by its name. See [`Run::state`].
    #[track_caller]
    pub fn state(self, name: &str) -> Expr<'r> {
        self.run.state(name)
    }
}

/// A loop written out over a list, one copy of the step for each of its values: see
/// [`static_rnn`](super::Recorder::static_rnn).
#[derive(Clone)]
pub struct Unrolled<'r> {
    recording: &'r Recording,
    outputs: Vec<Expr<'r>>,
    /// `None` where the loop was a mistake.
    states: Option<Vec<(String, Expr<'r>)>>,
}

impl<'r> Unrolled<'r> {
    /// The value at every step.
    pub fn all(&self) -> &[Expr<'r>] {
        &self.outputs
    }

    /// The value at the last step.
    pub fn last(&self) -> Expr<'r> {
        self.outputs.last().copied().unwrap_or_else(|| self.recording.make(|_| None))
    }

    /// A state after the last step, by its name. See [`Run::state`].
    #[track_caller]
    pub fn state(&self, name: &str) -> Expr<'r> {
        let site = Location::caller();
        let Some(states) = &self.states else { return self.recording.make(|_| None) };
        match states.iter().find(|(n, _)| n == name) {
            Some((_, state)) => *state,
            None => {
                let known = list_names("states", states.iter().map(|(n, _)| n.as_str()));
                self.recording.fail(site, Kind::UnknownName { name: name.to_string(), known })
            }
        }
    }
}

/// Records a loop written out over a list.
pub(super) fn unrolled<'r>(
    recording: &'r Recording,
    site: Site,
    name: &str,
    inputs: &[Expr<'r>],
    step: impl FnOnce(&Step<'r>, Expr<'r>) -> Expr<'r>,
) -> Unrolled<'r> {
    let poisoned = || Unrolled { recording, outputs: vec![recording.make(|_| None); inputs.len()], states: None };
    if inputs.is_empty() {
        recording.fail(site, Kind::NothingToJoin { op: "static_rnn" });
        return poisoned();
    }
    let list: Vec<Option<ir::Value>> = inputs.iter().map(|&x| recording.outer(site, x)).collect();
    let list: Option<Vec<ir::Value>> = list.into_iter().collect();
    let list = list.and_then(|list| {
        let types: Vec<Type> = recording.with(|s| list.iter().map(|&v| s.program.ty(v).clone()).collect());
        let alike = types.iter().all(|t| t.at(Extent::Batch) == types[0].at(Extent::Batch));
        if !alike || types.iter().any(|t| matches!(t.extent, Extent::Time(_))) {
            let rule = "it takes a list of values of one shape, one row a sample each and none a sequence".to_string();
            recording.fail(site, ir::TypeError { op: "static_rnn".to_string(), given: types, rule });
            return None;
        }
        Some(list)
    });
    let list = list.and_then(|list| {
        // Within a step the program's graph is not the one that is recorded: opening says so.
        let wide = |v| recording.with(|s| if s.body.is_none() { s.widen(site, v, Extent::Batch) } else { Some(v) });
        list.into_iter().map(wide).collect::<Option<Vec<_>>>()
    });
    let _restored = recording.restored();
    recording.open(site, name, Over::default());
    let x = recording.make(|state| state.read_list(site, list?));
    let y = step(&Step::new(recording), x);
    let y = recording.local(site, y.into());
    let (outputs, states) = recording.with(|state| {
        let y = y.and_then(|y| state.widen(site, y, Extent::Batch));
        state.write_out(y)
    });
    if outputs.is_empty() {
        return poisoned();
    }
    let outer = |value| recording.make(|_| Some(Value { frame: 0, value }));
    let states = states.into_iter().map(|(name, value)| (name, outer(value))).collect();
    Unrolled { recording, outputs: outputs.into_iter().map(outer).collect(), states: Some(states) }
}

/// Records a scan.
pub(super) fn scan<'r, R: StepResult<'r>>(
    recording: &'r Recording,
    site: Site,
    name: &str,
    over: Over,
    step: impl FnOnce(&Step<'r>) -> R,
) -> R::Runs {
    let _restored = recording.restored();
    let scan = recording.open(site, name, over);
    let result = step(&Step::new(recording));
    let runs = result.runs(&mut |e| {
        let output = e.and_then(|e| recording.give_out(site, e));
        Run { recording, scan, output }
    });
    recording.close(site, scan);
    runs
}
