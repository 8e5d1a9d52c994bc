//! A sequence fed window by window to a program that was made for it by [`time::truncate()`].
//!
//! [`Windows`] knows what each run of such a program is given, in all three cases of k1 (steps from update to update)
//! and k2 (steps that a gradient runs back); see [`time::truncate()`] for what the cases are. Whoever trains gives windows
//! of at most k1 steps, and never sees the lead: its steps are taken from the window's beginning, or held over from the
//! windows before. Of a window of w steps, with n steps of the sequence seen before it:
//!
//! | | steps with a loss | gradients run over | and start at a state computed |
//! |---|---|---|---|
//! | k2 = k1 | the w | the w | in the run before |
//! | k2 < k1 | the last min(k2, w) | the same | in this run |
//! | k2 > k1 | the w | the last min(k2 − w, n) of before, and the w | in the last run that had a step before them |
//!
//! How far to hold over is decided in the run before, so a window of less than k1 steps gets that many of before only if
//! it was foreseen, as it is where [`Windows::cut`] cuts one off; else k2 − k1 like the others.
//! So at the start of a sequence a gradient runs back to its beginning, and into a trained initial state; a last window
//! that is shorter than k1 has its update like any other. The loss is the program's objective of the steps that have
//! one, as if they were all there is: a mean is over them, and `last` is the window's last.
//!
//! What is held over, beside the states that the session has: with k2 > k1 the last k2 − k1 steps of each sequence and
//! where in them a sample began; and the samples that begin anew in the next window.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayD, ArrayViewD, Axis as Along, Slice, arr0, concatenate, s};
use retrograd_compiler::ir::sizes::times;
use retrograd_compiler::ir::{Axis, Extent, Program};
use retrograd_compiler::time::truncate::{EMPTY, FRESH, KEEP, RESET, lead_name, separable};
use retrograd_compiler::time::{self, Lead, TruncateError, Truncated};

use crate::checkpoint::Checkpoint;
use crate::error::RunError;
use crate::feed::{self, Feed, View};
use crate::float::Float;
use crate::memory;
use crate::session::Session;
use crate::tensor::{Item, Tensor};

/// How many steps there are from update to update, and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// Steps of a window.
    pub k1: usize,
    /// Steps over which a gradient runs back.
    pub k2: usize,
}

impl Truncation {
    fn lead(self) -> Lead {
        match self.k2.cmp(&self.k1) {
            std::cmp::Ordering::Less => Lead::Forward,
            std::cmp::Ordering::Equal => Lead::None,
            std::cmp::Ordering::Greater => Lead::Again,
        }
    }
}

/// What is given to one update.
#[derive(Clone, Debug)]
pub struct Window<'f> {
    /// Its steps of each sequence, and all else.
    pub feed: Feed<'f>,
    /// How many steps the window behind it will have, as far as is known.
    pub then: usize,
}

/// What is fed to a truncated program from run to run. See the module's text.
///
/// [`Trainer`](crate::train::Trainer) has one of its own; by itself it drives a [`Session`] of any width of floats.
///
/// ```
/// use ndarray::Array3;
/// use retrograd_compiler::ir::Program;
/// use retrograd_runtime::{feed::Feed, session::Session, windows::{Truncation, Windows}};
///
/// let program = Program::record("sum", |p| {
///     let x = p.sequence("x", 1);
///     let run = p.scan("sum", |s| {
///         let h = s.state("h", 1);
///         s.next(h, h + s.affine("in", s.at(x), 1))
///     });
///     p.minimize(run.last().sum());
/// })?;
/// let mut windows = Windows::new(&program, Some(Truncation { k1: 2, k2: 3 }))?;
/// let joint = windows.program().backward()?;
/// let mut session = Session::<f64>::carrying(&joint, windows.states(), 1)?;
/// let x = Array3::ones((6, 1, 1));
/// let feed = Feed::new().f32("x", x.view());
/// let mut slopes = Vec::new();
/// for window in windows.cut(&feed)? {
///     windows.run(&mut session, &window, &Feed::new())?;
///     slopes.push(session.scalar("d.sum.in.w").unwrap());
/// }
/// assert_eq!(slopes, [2.0, 3.0, 3.0]); // steps that the gradient sees
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Windows {
    recorded: Program,
    truncated: Truncated,
    /// `None`: a run's window is all it is given.
    truncation: Option<Truncation>,
    axis: Axis,
    /// Inputs of the lead by inputs of the program.
    leads: Vec<String>,
    lead_reset: String,
    lead_keep: String,
    position: Position,
}

/// Where in its sequences a training is, beside the states.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position {
    /// Steps of former windows for each input of the program that is a sequence, if the lead goes through them again;
    /// none before the first window.
    held: Vec<Option<Tensor>>,
    /// Where in these steps samples began: `[steps, B]`.
    began: Array2<f32>,
    /// Samples that begin anew in the next window.
    resets: Vec<usize>,
}

impl Windows {
    /// Windows of a recorded program: those that a truncation says, or, without one, windows of any length with gradients
    /// over each. The program's outputs are left out.
    ///
    /// # Errors
    /// A k1 or k2 of 0; what [`separable`] says of the program, if there is a truncation.
    pub fn new(program: &Program, truncation: Option<Truncation>) -> Result<Windows, RunError> {
        Windows::with_outputs(&program.with_outputs(|_| false), truncation)
    }

    /// As [`new`](Windows::new), with the program's outputs, which are those of the window.
    ///
    /// # Errors
    /// As there.
    pub fn with_outputs(program: &Program, truncation: Option<Truncation>) -> Result<Windows, RunError> {
        let recorded = program.clone();
        let failed = |e: TruncateError| RunError::Compile { program: program.name.clone(), reason: Box::new(e) };
        let mut axis = Axis::default();
        if let Some(Truncation { k1, k2 }) = truncation {
            for (setting, k) in [("k1, the steps from update to update,", k1), ("k2, the steps back,", k2)] {
                if k == 0 {
                    let (setting, given) = (setting.to_string(), k.to_string());
                    return Err(RunError::Setting { setting, given, allowed: "at least 1 is needed".to_string() });
                }
            }
            axis = separable(&recorded).map_err(failed)?;
        }
        let lead = truncation.map_or(Lead::None, Truncation::lead);
        let truncated = time::truncate(&recorded, lead).map_err(failed)?;
        Ok(Windows {
            leads: recorded.inputs.iter().map(|i| lead_name(&i.name)).collect(),
            recorded,
            truncated,
            truncation,
            axis,
            lead_reset: lead_name(RESET),
            lead_keep: lead_name(KEEP),
            position: Position::default(),
        })
    }

    /// The program that is to be differentiated and compiled.
    pub fn program(&self) -> &Program {
        &self.truncated.program
    }

    /// Its inputs that a session carries from run to run.
    pub fn states(&self) -> Vec<String> {
        self.truncated.states.clone()
    }

    /// As given.
    pub fn truncation(&self) -> Option<Truncation> {
        self.truncation
    }

    /// These samples begin anew in the next window. No gradient runs back across that.
    pub fn reset_samples(&mut self, samples: &[usize]) {
        self.position.resets.extend(samples);
    }

    /// The windows of a feed of any length: each of k1 steps, but for the last, which has what is left. Inputs that are
    /// no sequences are given to each.
    ///
    /// # Errors
    /// Whatever is wrong with the feed.
    pub fn cut<'f>(&self, feed: &'f Feed) -> Result<Vec<Window<'f>>, RunError> {
        let sizes = feed::resolve(&self.recorded, feed)?.sizes;
        let steps = sizes.steps(self.axis);
        let Some(Truncation { k1, .. }) = self.truncation else { return Ok(vec![self.whole(feed)]) };
        let window = |from: usize| {
            let to = steps.min(from.saturating_add(k1));
            // What comes behind the last one is not known: a whole window.
            let then = if to < steps { k1.min(steps - to) } else { k1 };
            Window { feed: feed.window(&self.recorded, self.axis, from..to), then }
        };
        let mut windows = Vec::new();
        memory::reserve(&mut windows, steps.div_ceil(k1)).map_err(|e| e.at(&sizes))?;
        windows.extend((0..steps).step_by(k1).map(window));
        Ok(windows)
    }

    /// A feed that is one window, with another of k1 steps behind it.
    pub fn whole<'f>(&self, feed: &'f Feed) -> Window<'f> {
        Window { feed: feed.reborrow(), then: self.truncation.map_or(1, |t| t.k1) }
    }

    /// Runs a session of the program, or of one that was made from it, on the next window. `more` is what that one has
    /// in addition.
    ///
    /// # Errors
    /// Whatever is wrong with the feed; more than k1 steps; a batch of another size than that of the window before.
    pub fn run<E: Float>(&mut self, session: &mut Session<E>, window: &Window, more: &Feed) -> Result<(), RunError> {
        self.position = self.advance(session, window, more)?;
        Ok(())
    }

    /// As [`run`](Windows::run), but where the sequences are then is given, not noted: a step that is refused leaves it.
    pub(crate) fn advance<E: Float>(
        &mut self,
        session: &mut Session<E>,
        window: &Window,
        more: &Feed,
    ) -> Result<Position, RunError> {
        let Window { feed, then } = window;
        let resolved = feed::resolve(&self.recorded, feed)?;
        let (batch, steps) = (resolved.sizes.batch, resolved.sizes.steps(self.axis));
        match session.going() {
            // Samples that are to begin anew do so in any case.
            None => self.position = Position::default(),
            Some(carried) if carried != batch => return Err(RunError::BatchChanged { given: batch, carried }),
            Some(_) => {}
        }
        if let Some(Truncation { k1, .. }) = self.truncation.filter(|t| steps > t.k1) {
            return Err(RunError::Setting {
                setting: "the window".to_string(),
                given: format!("{steps} steps long"),
                allowed: format!("it has at most k1 = {k1}; a sequence of any length is cut into such windows"),
            });
        }
        // What is said of each row here is small beside the row itself, of at least a pad of each value: where there is no
        // memory for the one there is none for the other.
        memory::check(times(times(batch, steps), ROW)).map_err(|e| e.at(&resolved.sizes))?;
        let begins = Array1::from_shape_fn(batch, |b| {
            f32::from(u8::from(session.going().is_none() || self.position.resets.contains(&b)))
        });
        let views = resolved.views;
        match self.truncated.lead {
            Lead::None => session.run(&feed.reborrow().f32(FRESH, begins.view()).and(more))?,
            Lead::Forward => self.run_forward(session, &views, steps, &begins, more)?,
            Lead::Again => return self.run_again(session, &views, [steps, *then], &begins, more),
        }
        Ok(Position::default())
    }

    /// What is given to the window and to its lead, of which each has these steps of these sequences.
    fn feed<'f>(&'f self, views: &[Option<&'f View<'_>>], window: &Range<usize>, lead: &LeadSteps<'f>) -> Feed<'f> {
        let mut feed = Feed::new();
        for (i, (input, view)) in self.recorded.inputs.iter().zip(views).enumerate() {
            let &Some(view) = view else { continue };
            if self.recorded.ty(input.value).extent != Extent::Time(self.axis) {
                feed = feed.view(&input.name, view.reborrow());
                continue;
            }
            let of_lead = match lead {
                LeadSteps::Of(steps) => view.rows(steps.clone()),
                LeadSteps::Held(held) => view_of(held[i].as_ref().expect("held like the others")),
            };
            feed = feed.view(&input.name, view.rows(window.clone())).view(&self.leads[i], of_lead);
        }
        feed
    }

    /// The first steps without a gradient, the last k2 with.
    fn run_forward<E: Float>(
        &self,
        session: &mut Session<E>,
        views: &[Option<&View>],
        steps: usize,
        begins: &Array1<f32>,
        more: &Feed,
    ) -> Result<(), RunError> {
        let k2 = self.truncation.expect("it has a lead").k2;
        // A lead of no steps is one that does not count.
        let (lead, window, empty) = match steps.saturating_sub(k2) {
            0 => (0..1, 0..steps, 1.0),
            lead => (0..lead, lead..steps, 0.0),
        };
        let empty = arr0(empty);
        let sizes = self.sizes(begins.len(), window.len(), lead.len());
        let lead = LeadSteps::Of(lead);
        let feed = self.feed(views, &window, &lead).f32(FRESH, begins.view()).f32(EMPTY, empty.view());
        session.run(&feed.and(&sizes).and(more))
    }

    /// All of the window, behind steps that were seen before.
    fn run_again<E: Float>(
        &self,
        session: &mut Session<E>,
        views: &[Option<&View>],
        [steps, then]: [usize; 2],
        begins: &Array1<f32>,
        more: &Feed,
    ) -> Result<Position, RunError> {
        let Truncation { k1, k2 } = self.truncation.expect("it has a lead");
        let (batch, held) = (begins.len(), self.position.began.nrows());
        let seen = held + steps;
        let leaving = seen - seen.min(k2 - then.clamp(1, k1));
        let mut reset = Array2::zeros((steps, batch));
        reset.row_mut(0).assign(begins);
        // Before the first window stands one step that is cut off: the window begins anew with all samples.
        let lead = held.max(1);
        let lead_reset = if held > 0 { self.position.began.clone() } else { Array2::ones((1, batch)) };
        let (mut keep, mut lead_keep) = (Array2::zeros((steps, batch)), Array2::zeros((lead, batch)));
        match leaving {
            0 => {}
            n if n <= held => lead_keep.row_mut(n - 1).fill(1.0),
            n => keep.row_mut(n - held - 1).fill(1.0),
        }
        {
            let of_lead = if held > 0 { LeadSteps::Held(&self.position.held) } else { LeadSteps::Of(0..1) };
            let sizes = self.sizes(batch, steps, lead);
            let feed = self.feed(views, &(0..steps), &of_lead).f32(RESET, reset.view()).f32(KEEP, keep.view());
            let feed = feed.f32(&self.lead_reset, lead_reset.view()).f32(&self.lead_keep, lead_keep.view());
            session.run(&feed.and(&sizes).and(more))?;
        }
        let mut position = Position { held: vec![None; self.recorded.inputs.len()], ..Position::default() };
        for (i, (input, view)) in self.recorded.inputs.iter().zip(views).enumerate() {
            if self.recorded.ty(input.value).extent == Extent::Time(self.axis) {
                let old = self.position.held.get(i).and_then(Option::as_ref);
                position.held[i] = Some(match view.expect("a sequence is given") {
                    View::F32(a) => behind(old, a, leaving),
                    View::I32(a) => behind(old, a, leaving),
                });
            }
        }
        let began = concatenate(Along(0), &[self.position.began.view(), reset.view()]);
        // Before the first window there are no samples yet either.
        let began = if held > 0 { began.expect("of one batch") } else { reset };
        position.began = began.slice(s![leaving.., ..]).to_owned();
        Ok(position)
    }

    /// A feed that says how large all is, for programs none of whose inputs tells.
    fn sizes(&self, batch: usize, window: usize, lead: usize) -> Feed<'_> {
        let axes = &self.truncated.program.axes;
        let name = |axis: Axis| axes[usize::from(axis.0)].as_str();
        let own = self.truncated.lead_axis.expect("it has a lead");
        Feed::new().batch(batch).steps(name(self.axis), window).steps(name(own), lead)
    }

    /// Writes the position into a checkpoint, beside the states that a session has.
    pub(crate) fn save(&self, checkpoint: &mut Checkpoint) {
        let Position { held, began, resets } = &self.position;
        checkpoint.note(NOTE, self.text());
        checkpoint.note(RESETS, resets.iter().map(usize::to_string).collect::<Vec<_>>().join(" "));
        checkpoint.note(HELD, began.nrows());
        if began.nrows() > 0 {
            checkpoint.insert(format!("{HELD}.{RESET}"), began.clone().into_dyn());
        }
        for (input, held) in self.recorded.inputs.iter().zip(held) {
            if let Some(held) = held {
                checkpoint.insert_tensor(format!("{HELD}.{}", input.name), held.clone());
            }
        }
    }

    /// Takes a position out of a checkpoint, for a batch of this size, without going there.
    pub(crate) fn load(&self, checkpoint: &mut Checkpoint, batch: usize) -> Result<Position, RunError> {
        let given = checkpoint.get_note(NOTE).unwrap_or(WHOLE).to_string();
        if given != self.text() {
            return Err(RunError::Setting {
                setting: "the checkpoint's truncation".to_string(),
                given,
                allowed: format!("this training has {}", self.text()),
            });
        }
        let mut position = Position::default();
        let resets: String = checkpoint.take_note(RESETS)?;
        let samples = resets.split_whitespace().map(|b| b.parse().ok().filter(|&b| b < batch)).collect::<Option<_>>();
        position.resets = samples.ok_or_else(|| {
            let allowed = format!("samples of a batch of {batch} are needed, which are 0 to {}", batch - 1);
            checkpoint.refuse_note(RESETS, resets.clone(), allowed)
        })?;
        // The steps before the window that a lead goes through again.
        let most = match self.truncation.filter(|_| self.truncated.lead == Lead::Again) {
            Some(Truncation { k2, .. }) => k2 - 1,
            None => 0,
        };
        let steps: usize = checkpoint.take_note_if(HELD, HELD_ALLOWED, |&steps| steps <= most)?;
        if steps == 0 {
            return Ok(position);
        }
        let name = format!("{HELD}.{RESET}");
        let began = checkpoint.take::<f32>(&name, &[steps, batch])?;
        if let Some(&flag) = began.iter().find(|&&flag| flag != 0.0 && flag != 1.0) {
            return Err(checkpoint.refuse_tensor(&name, f64::from(flag), "0 or 1 is needed").into());
        }
        position.began = began.into_dimensionality().expect("two dimensions were asked for");
        for input in &self.recorded.inputs {
            let ty = self.recorded.ty(input.value);
            position.held.push(None);
            if ty.extent == Extent::Time(self.axis) {
                let element = if ty.is_float() { f32::NAME } else { i32::NAME };
                let shape = [&[steps, batch], &ty.shape.0[..]].concat();
                let name = format!("{HELD}.{}", input.name);
                let held = checkpoint.take_tensor(&name, element, &shape)?;
                if let Some(values) = i32::of(&held) {
                    feed::check_integers(&self.recorded, input, &values.view(), None)?;
                }
                *position.held.last_mut().expect("just pushed") = Some(held);
            }
        }
        Ok(position)
    }

    /// Goes on from a position.
    pub(crate) fn resume(&mut self, position: Position) {
        self.position = position;
    }

    fn text(&self) -> String {
        self.truncation.map_or(WHOLE.to_string(), |Truncation { k1, k2 }| format!("k1 = {k1}, k2 = {k2}"))
    }
}

/// Bytes of a row in memory, at least.
const ROW: usize = 64;

/// Keys in checkpoints.
const NOTE: &str = "truncation";
const RESETS: &str = "resets";
const HELD: &str = "held";
const HELD_ALLOWED: &str = "fewer steps are needed than gradients run back over";
/// The text of no truncation.
const WHOLE: &str = "none: windows as they are given";

/// Where the steps of a lead are from.
enum LeadSteps<'f> {
    /// Of what is given.
    Of(Range<usize>),
    /// Of before.
    Held(&'f [Option<Tensor>]),
}

fn view_of(held: &Tensor) -> View<'_> {
    match (f32::of(held), i32::of(held)) {
        (Some(a), _) => View::F32(a.view()),
        (_, Some(a)) => View::I32(a.view()),
        _ => unreachable!("views are of one of these"),
    }
}

/// Old steps and new ones behind them, without the first.
fn behind<T: Item + 'static>(old: Option<&Tensor>, new: &ArrayViewD<T>, first: usize) -> Tensor {
    let old = old.map(|old| T::of(old).expect("an input keeps its element type").view());
    let all: ArrayD<T> = concatenate(Along(0), &[old.as_slice(), &[new.view()]].concat()).expect("of one shape");
    T::wrap(all.slice_axis_move(Along(0), Slice::from(first..)).as_standard_layout().into_owned())
}
