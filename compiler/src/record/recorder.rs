//! [`Recorder`]: a program while it is recorded.

use std::ops::Deref;
use std::panic::Location;

use super::declare::{DEFAULT_AXIS, join_name, list_names};
use super::expr::{Expr, Value};
use super::recording::Recording;
use super::scans::Over;
use super::scope::Scope;
use super::step::{self, Step, StepResult, Unrolled};
use crate::error::{Place, RecordErrorKind as Kind};
use crate::ir::{self, Axis, Extent, Op, Shape, Type, Update};

/// A program while it is recorded: its inputs, scans, outputs and objective. Parameters and layers without state are
/// methods of [`Scope`], to which it dereferences.
pub struct Recorder<'r> {
    scope: Scope<'r>,
}

impl<'r> Deref for Recorder<'r> {
    type Target = Scope<'r>;
    fn deref(&self) -> &Scope<'r> {
        &self.scope
    }
}

/// Inputs: what each run is given, by name.
///
/// Sequences are on the time axis named `time` unless [another](Recorder::axis) is asked for. Declaring an input again
/// with the same type gives the same value.
impl<'r> Recorder<'r> {
    pub(super) fn new(recording: &'r Recording) -> Recorder<'r> {
        Recorder { scope: Scope { recording } }
    }

    /// An input of any type.
    #[track_caller]
    pub fn declare(&self, name: &str, ty: Type) -> Expr<'r> {
        let site = Location::caller();
        self.recording.make(|state| {
            if let Extent::Time(Axis(n)) = ty.extent {
                // A type names an axis by number: those up to it are in use.
                while state.program.axes.len() <= usize::from(n) {
                    let axes = &state.program.axes;
                    let names = (axes.len()..).map(|i| match i {
                        0 => DEFAULT_AXIS.to_string(),
                        i => format!("{DEFAULT_AXIS}{i}"),
                    });
                    let name = names.into_iter().find(|name| !axes.contains(name)).expect("numbers do not end");
                    state.axis(site, &name)?;
                }
            }
            state.input(site, name, ty)
        })
    }

    /// Floats at each step of each sample: `f32[T, B, ..]`.
    #[track_caller]
    pub fn sequence(&self, name: &str, shape: impl Into<Shape>) -> Expr<'r> {
        self.axis(DEFAULT_AXIS).sequence(name, shape)
    }

    /// An integer at each step of each sample: `i32[T, B]`. Characters of a text, labels of steps.
    #[track_caller]
    pub fn labels_sequence(&self, name: &str) -> Expr<'r> {
        self.axis(DEFAULT_AXIS).labels(name)
    }

    /// Floats of each sample: `f32[B, ..]`.
    #[track_caller]
    pub fn input(&self, name: &str, shape: impl Into<Shape>) -> Expr<'r> {
        self.declare(name, Type::float(Extent::Batch, shape))
    }

    /// An integer of each sample: `i32[B]`.
    #[track_caller]
    pub fn labels(&self, name: &str) -> Expr<'r> {
        self.declare(name, Type::int(Extent::Batch, ()))
    }

    /// Floats for the whole run: `f32[..]`.
    #[track_caller]
    pub fn shared(&self, name: &str, shape: impl Into<Shape>) -> Expr<'r> {
        self.declare(name, Type::float(Extent::Shared, shape))
    }

    /// A time axis by name, for programs whose sequences differ in length: an encoder's and a decoder's. Asking again
    /// for a name gives the same axis.
    ///
    /// ```
    /// # use retrograd_compiler::ir::Program;
    /// # Program::record("doc", |p| {
    /// let (source, target) = (p.axis("source"), p.axis("target"));
    /// let (x, y) = (source.sequence("x", 8), target.sequence("y", 8)); // f32[T, B, 8], f32[T1, B, 8]
    /// # p.output("x", x); p.output("y", y);
    /// # })?;
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    #[track_caller]
    pub fn axis(&self, name: &str) -> TimeAxis<'r> {
        let site = Location::caller();
        let axis = self.recording.with(|state| state.axis(site, name));
        TimeAxis { recording: self.recording, axis, mask: None, reset: None }
    }

    /// The time axis named `time`, on which sequences are unless another is asked for, with samples that end where an
    /// input `i32[B]` of this name says: [`TimeAxis::lengths`] of it.
    #[track_caller]
    pub fn lengths(&self, name: &str) -> TimeAxis<'r> {
        self.axis(DEFAULT_AXIS).lengths(name)
    }
}

/// A time axis of a program.
#[derive(Clone, Copy)]
pub struct TimeAxis<'r> {
    recording: &'r Recording,
    /// `None` where it was a mistake.
    axis: Option<Axis>,
    /// Where samples end, if not all at the last step.
    mask: Option<Expr<'r>>,
    /// Where states begin anew, if at other steps than the first.
    reset: Option<Expr<'r>>,
}

impl<'r> TimeAxis<'r> {
    /// Floats at each step of this axis and each sample.
    #[track_caller]
    pub fn sequence(self, name: &str, shape: impl Into<Shape>) -> Expr<'r> {
        let (site, shape) = (Location::caller(), shape.into());
        self.recording.make(|state| state.input(site, name, Type::float(Extent::Time(self.axis?), shape)))
    }

    /// An integer at each step of this axis and each sample.
    #[track_caller]
    pub fn labels(self, name: &str) -> Expr<'r> {
        let site = Location::caller();
        self.recording.make(|state| state.input(site, name, Type::int(Extent::Time(self.axis?), ())))
    }

    /// A scan over this axis. Needed where the step reads no sequence and the program has several axes, as for a
    /// decoder that feeds on its own output.
    #[track_caller]
    pub fn scan<R: StepResult<'r>>(self, name: &str, step: impl FnOnce(&Step<'r>) -> R) -> R::Runs {
        step::scan(self.recording, Location::caller(), name, self.over(false), step)
    }

    /// A scan over this axis from the last step to the first.
    #[track_caller]
    pub fn scan_reverse<R: StepResult<'r>>(self, name: &str, step: impl FnOnce(&Step<'r>) -> R) -> R::Runs {
        step::scan(self.recording, Location::caller(), name, self.over(true), step)
    }

    /// This axis with samples of different lengths. The input `i32[B]` of this name says how many of a run's steps are
    /// each sample's own, counted from the first; the rest is padding. A run refuses lengths below 0 or above its steps.
    ///
    /// Scans over the result run as if each sample were alone: outputs past its end are 0, its last step is its own,
    /// and a scan in reverse begins there. Past the end a state stays as it is and no derivative arises, so padding has
    /// no influence, whatever it holds: floats may be NaN or ∞ there, labels any number.
    ///
    /// ```
    /// # use retrograd_compiler::ir::Program;
    /// # Program::record("doc", |p| {
    /// let time = p.lengths("lengths");
    /// let (x, y) = (time.sequence("x", 8), time.sequence("y", 4));
    /// let run = time.scan("sum", |s| {
    ///     let h = s.state("h", 4);
    ///     s.next(h, (h + s.affine("x", s.at(x), 4)).tanh())
    /// });
    /// p.output("end", run.last()); // the state at each sample's own last step
    /// p.minimize(run.all().mse(y).mean_over(time)); // the mean over all steps but padding
    /// # })?;
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    ///
    /// A run is what one call computes. Where states are carried from run to run, lengths are still of the run: a
    /// sample of which none is left has 0. A stream's steps are runs of one step: 1 goes on, 0 waits.
    #[track_caller]
    pub fn lengths(self, name: &str) -> TimeAxis<'r> {
        let site = Location::caller();
        let Some(axis) = self.axis else { return self };
        let length = self.recording.make(|state| {
            let length = state.input(site, name, Type::int(Extent::Batch, ()))?;
            let Op::Input(name) = state.program.graph.op(length.value).clone() else { unreachable!("an input") };
            if !state.program.lengths.contains(&(name.clone(), axis)) {
                state.program.lengths.push((name, axis));
            }
            Some(length)
        });
        let own = self.recording.apply(site, Op::Within(axis), &[length.into()]);
        TimeAxis { mask: Some(own), ..self }
    }

    /// This axis with sequences that stand one behind another: `begins: f32[T, B]` is not 0 at the first step of each.
    ///
    /// There, all states of a scan over the result start from their initial values again, each sample for itself, and no
    /// derivative runs back across. A scan in reverse starts again behind such a step, so that nothing comes from the
    /// sequence that follows. The initial values are those of the run; what a scan gives as a state after its last step
    /// is, in reverse, one that has begun anew if step 0 is a first one.
    ///
    /// ```
    /// # use retrograd_compiler::ir::Program;
    /// # Program::record("doc", |p| {
    /// let word = p.labels_sequence("word");
    /// let previous = p.labels_sequence("previous");
    /// let begins = previous.to_float().eq(0.0); // behind each full stop
    /// let time = p.axis("time").reset_where(begins);
    /// let run = time.scan("count", |s| {
    ///     let n = s.state("n", ()); // words of the sentence so far
    ///     s.next(n, n + s.at(word).to_float().ne(0.0))
    /// });
    /// p.output("n", run.all());
    /// # })?;
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    #[track_caller]
    pub fn reset_where(self, begins: Expr<'r>) -> TimeAxis<'r> {
        let site = Location::caller();
        let Some((begins, ty)) = self.recording.floats(site, "reset_where", begins) else { return self };
        // Of an axis that is a mistake nothing more is to be said.
        let Some(axis) = self.axis else { return self };
        if ty != Type::float(Extent::Time(axis), ()) {
            let rule = "it takes one float for each step of this axis and each sample";
            self.recording.fail(site, Kind::BadExtent { op: "reset_where", given: ty, rule });
            return self;
        }
        TimeAxis { reset: Some(begins), ..self }
    }

    /// 1 at the steps that are a sample's own, 0 past its end: `f32[T, B]`.
    #[track_caller]
    pub fn mask(self) -> Expr<'r> {
        let site = Location::caller();
        self.mask.unwrap_or_else(|| {
            let one = self.recording.make(|state| {
                state.program.graph.location = Some(site);
                Some(Value { frame: 0, value: state.program.graph.scalar(1.0) })
            });
            one.apply(site, Op::Expand(Extent::Time(self.number())), &[])
        })
    }

    pub(super) fn own_steps(self) -> Option<Expr<'r>> {
        self.mask
    }

    fn over(self, reverse: bool) -> Over {
        let mask = self.mask.and_then(Expr::value).map(|at| at.value);
        let reset = self.reset.and_then(Expr::value).map(|at| at.value);
        Over { axis: Some(self.number()), reverse, mask, reset }
    }

    /// Its number, which types carry.
    pub fn number(self) -> Axis {
        self.axis.unwrap_or_default()
    }
}

/// Scans, results and updates.
impl<'r> Recorder<'r> {
    /// [`Scope::scope`], with all of a program's methods within.
    #[track_caller]
    pub fn scope<R>(&self, name: &str, part: impl FnOnce(&Self) -> R) -> R {
        self.recording.scoped(Location::caller(), name, || part(self))
    }

    /// A loop over time: records one step. The name is a scope for the step's parameters: `lstm.gates.w`. It runs
    /// over the time axis of the sequences that the step reads, or over the program's only one if it reads none.
    #[track_caller]
    pub fn scan<R: StepResult<'r>>(&self, name: &str, step: impl FnOnce(&Step<'r>) -> R) -> R::Runs {
        step::scan(self.recording, Location::caller(), name, Over::default(), step)
    }

    /// A loop over time from the last step to the first.
    #[track_caller]
    pub fn scan_reverse<R: StepResult<'r>>(&self, name: &str, step: impl FnOnce(&Step<'r>) -> R) -> R::Runs {
        step::scan(self.recording, Location::caller(), name, Over { reverse: true, ..Over::default() }, step)
    }

    /// A loop written out over a list of values of the batch, one step for each of them: the outputs are a list too,
    /// and nothing in the program has a time axis. The step is recorded once and copied, so all copies share its
    /// weights; they are called as those of a [`scan`](Recorder::scan) of this name.
    ///
    /// ```
    /// # use retrograd_compiler::{ir::{Program, Shape}, record::{Expr, concat}};
    /// let program = Program::record("three_steps", |p| {
    ///     let inputs = ["a", "b", "c"].map(|name| p.input(name, 5)); // three of f32[B, 5]
    ///     let run = p.static_rnn("rnn", &inputs, |s, x| {
    ///         let h = s.state("h", 4);
    ///         s.next(h, s.affine("cell", concat([h, x]), 4).tanh())
    ///     });
    ///     assert_eq!(run.all().len(), 3); // of f32[B, 4]
    ///     p.output("last", run.state("h"));
    /// })?;
    /// assert_eq!(program.parameters.len(), 2);
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    #[track_caller]
    pub fn static_rnn(
        &self,
        name: &str,
        inputs: &[Expr<'r>],
        step: impl FnOnce(&Step<'r>, Expr<'r>) -> Expr<'r>,
    ) -> Unrolled<'r> {
        step::unrolled(self.recording, Location::caller(), name, inputs, step)
    }

    /// A named result of each run. Like parameters and inputs, it is named within the present scopes: `head.logits`.
    #[track_caller]
    pub fn output(&self, name: &str, value: Expr<'r>) {
        let site = Location::caller();
        let value = self.recording.outer(site, value);
        self.recording.with(|state| {
            if !state.check_name(site, name) {
                return;
            }
            let name = join_name(&state.scopes, name);
            if let Some(first) = state.program.output(&name) {
                let first = Place(state.program.graph.node(first).location);
                let (role, taken) = ("another output", "an output");
                return state.fail(site, Kind::NameTaken { role, name, taken, first });
            }
            if let Some(value) = value {
                state.program.outputs.push((name, value));
            }
        });
    }

    /// What training minimises: one number for the program, or one for each row, of which the mean over all rows is
    /// taken (over samples, and over steps for a sequence).
    #[track_caller]
    pub fn minimize(&self, loss: Expr<'r>) {
        let site = Location::caller();
        let Some(value) = self.recording.outer(site, loss) else { return };
        let ty = self.recording.with(|state| state.program.ty(value).clone());
        if !ty.is_float() || ty.shape.rank() != 0 {
            self.recording.fail(site, Kind::BadObjective { given: ty });
            return;
        }
        self.recording.with(|state| {
            if let Some(first) = state.program.objective {
                let first = Place(state.program.graph.node(first).location);
                return state.fail(site, Kind::ObjectiveTwice { first });
            }
            let graph = &mut state.program.graph;
            graph.location = Some(site);
            let mut value = value;
            if ty.extent != Extent::Shared {
                let sum = graph.add(Op::SumRows(Extent::Shared), &[value]);
                let count = graph.add(Op::RowCount(ty.extent), &[]);
                value = graph.binary(ir::Binary::Div, sum, count);
            }
            state.program.objective = Some(value);
        });
    }

    /// A parameter, an input or an output by its full name, in this order.
    #[track_caller]
    pub fn value(&self, name: &str) -> Expr<'r> {
        let site = Location::caller();
        self.recording.make(|state| {
            let program = &state.program;
            let found = program.parameter(name).map(|p| p.value);
            let found = found.or_else(|| program.input(name).map(|i| i.value)).or_else(|| program.output(name));
            if found.is_none() {
                let parameters = program.parameters.iter().map(|p| p.name.as_str());
                let inputs = program.inputs.iter().map(|i| i.name.as_str());
                let outputs = program.outputs.iter().map(|(n, _)| n.as_str());
                let known = list_names("names", parameters.chain(inputs).chain(outputs));
                state.fail(site, Kind::UnknownName { name: name.to_string(), known });
            }
            found.map(|value| Value { frame: 0, value })
        })
    }

    /// A value of the program's graph, as passes know it: a gradient, the objective.
    #[track_caller]
    pub fn from_value(&self, value: ir::Value) -> Expr<'r> {
        let site = Location::caller();
        self.recording.make(|state| {
            let graph = &state.program.graph;
            if value.index() < graph.len() && !matches!(graph.op(value), Op::Scan(_)) {
                return Some(Value { frame: 0, value });
            }
            let (program, len) = (state.program.name.clone(), graph.len());
            state.fail(site, Kind::NoSuchValue { index: value.index(), program, len });
            None
        })
    }

    /// After each run, the target (a parameter or an input) holds the new value: what optimisers do to weights, and
    /// how a state is carried from one window of a long sequence to the next.
    ///
    /// ```
    /// # use retrograd_compiler::ir::Program;
    /// # Program::record("doc", |p| {
    /// let (x, h) = (p.sequence("x", 4), p.input("h", 4));
    /// let run = p.scan("sum", |s| {
    ///     let sum = s.state_from("sum", h);
    ///     s.next(sum, sum + s.at(x))
    /// });
    /// p.update(h, run.last());
    /// # })?;
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    #[track_caller]
    pub fn update(&self, target: Expr<'r>, value: Expr<'r>) {
        let site = Location::caller();
        let (target, value) = (self.recording.outer(site, target), self.recording.outer(site, value));
        let (Some(target), Some(value)) = (target, value) else { return };
        self.recording.with(|state| {
            let (Op::Parameter(name) | Op::Input(name)) = state.program.graph.op(target).clone() else {
                return state.fail(site, Kind::BadUpdateTarget);
            };
            if state.program.updates.iter().any(|u| u.target == target) {
                return state.fail(site, Kind::UpdateTwice { name });
            }
            let graph = &mut state.program.graph;
            let (wanted, given) = (graph.ty(target).clone(), graph.ty(value).clone());
            let fits = given.dtype == wanted.dtype && given.shape == wanted.shape;
            let wider = given.extent != wanted.extent && given.extent.join(wanted.extent) == Some(wanted.extent);
            let mut value = value;
            if fits && wider {
                graph.location = Some(site);
                value = graph.add(Op::Expand(wanted.extent), &[value]);
            } else if given != wanted {
                return state.fail(site, Kind::UpdateType { name, target: wanted, given });
            }
            state.program.updates.push(Update { target, value });
        });
    }
}
