//! What a user of the compiler can do wrong, as typed errors.
//!
//! An expression cannot return a `Result`: formulas would no longer read as formulas. So a recording notes each
//! mistake where it happens, goes on with a poisoned value that is silent from then on, and gives all of them at
//! the end as [`RecordErrors`]: one for each faulty expression, with the file and line of the user who wrote it.

use std::fmt;
use std::panic::Location;

use crate::ir::bounds::OutOfRange;
use crate::ir::{Axis, Shape, Type, TypeError};

/// Has errors write the text for their user where they are written with `{:?}`: `fn main() -> Result<(), E>` prints an
/// error that way.
#[doc(hidden)]
#[macro_export]
macro_rules! debug_is_display {
    ($($error:ty),* $(,)?) => {
        $(impl ::std::fmt::Debug for $error {
            fn fmt(&self, f: &mut ::std::fmt::Formatter) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(self, f)
            }
        })*
    };
}

debug_is_display!(RecordErrors, RecordError, RecordErrorKind, CodegenError);

/// All mistakes of one recording, in the order of the source; never empty.
#[derive(Clone, PartialEq, thiserror::Error)]
pub struct RecordErrors(Vec<RecordError>);

impl RecordErrors {
    /// Sorts by place. There must be at least one.
    pub(crate) fn new(mut errors: Vec<RecordError>) -> RecordErrors {
        assert!(!errors.is_empty(), "a recording without mistakes is a program");
        errors.sort_by_key(|e| (e.location.file(), e.location.line(), e.location.column()));
        errors.dedup();
        RecordErrors(errors)
    }

    /// The mistakes, in the order of the source.
    pub fn iter(&self) -> std::slice::Iter<'_, RecordError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a RecordErrors {
    type Item = &'a RecordError;
    type IntoIter = std::slice::Iter<'a, RecordError>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One mistake a line.
impl fmt::Display for RecordErrors {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

/// A mistake in a recorded program, and where it was written.
#[derive(Clone, PartialEq, thiserror::Error)]
#[error("{}:{}: {kind}", location.file(), location.line())]
pub struct RecordError {
    /// What is wrong.
    pub kind: RecordErrorKind,
    /// The user's expression.
    pub location: &'static Location<'static>,
}

/// What can be wrong in a recorded program. Each text says what was given and what is allowed.
#[derive(Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordErrorKind {
    /// An op does not fit its operands.
    #[error(transparent)]
    Type(#[from] TypeError),

    /// A name that texts and files could not carry.
    #[error(
        "{name:?} is not a name: a name has the letters a to z and A to Z, digits and `_`, and starts with no digit"
    )]
    BadName {
        /// As given.
        name: String,
    },
    /// A parameter and an input of the same name, or two outputs of it.
    #[error("`{name}` is already {taken} ({first}) and cannot be {role} too; choose another name")]
    NameTaken {
        /// `an input`, `a parameter`, `an output`.
        role: &'static str,
        /// Full name.
        name: String,
        /// What has it.
        taken: &'static str,
        /// Where it got it.
        first: Place,
    },
    /// A name that nothing has.
    #[error("nothing is named `{name}`; {known}")]
    UnknownName {
        /// As given.
        name: String,
        /// Names there are.
        known: String,
    },
    /// A parameter asked for again in another form.
    #[error(
        "parameter `{name}` was made as {first} ({place}) and is asked for again as {again}; the same name is the same weight, with the same shape and initialiser"
    )]
    ParameterChanged {
        /// Full name.
        name: String,
        /// Shape and initialiser at first.
        first: String,
        /// Shape and initialiser now.
        again: String,
        /// Where it was made.
        place: Place,
    },
    /// An input asked for again with another type.
    #[error("input `{name}` was declared as {first} ({place}) and is declared again as {again}")]
    InputChanged {
        /// Name.
        name: String,
        /// Type at first.
        first: Type,
        /// Type now.
        again: Type,
        /// Where it was declared.
        place: Place,
    },

    /// A dimension of 0.
    #[error("{shape} has a dimension of 0; every dimension is at least 1")]
    EmptyShape {
        /// As given.
        shape: Shape,
    },
    /// More features in a row than can be addressed.
    #[error("{shape} has too many features; a row has at most {limit}")]
    HugeShape {
        /// As given.
        shape: Shape,
        /// Most that is allowed.
        limit: usize,
    },
    /// A loop that takes no step.
    #[error("a scan of at most 0 steps; at least 1 is needed")]
    NoSteps,
    /// A list of more values than the loop over it takes.
    #[error("the list that `{scan}` reads has {steps} values, and its step has room for {most} at most")]
    ListTooLong {
        /// Name of the loop.
        scan: String,
        /// Values of the list.
        steps: usize,
        /// The most.
        most: usize,
    },
    /// More dimensions than loops are nested.
    #[error("{shape} has {} dimensions; a row has at most {}", shape.rank(), Shape::MAX_RANK)]
    DeepShape {
        /// As given.
        shape: Shape,
    },
    /// An initialiser that has no values, or does not fit its shape.
    #[error("{init} cannot start a parameter of shape {shape}: {rule}")]
    BadInit {
        /// As given.
        init: String,
        /// Shape of the parameter.
        shape: Shape,
        /// What is asked for.
        rule: String,
    },
    /// `split` into parts that do not make up the whole.
    #[error("the last dimension of {given} cannot be split into {parts}; {rule}")]
    BadSplit {
        /// The value's type.
        given: Type,
        /// What was asked.
        parts: String,
        /// What is allowed.
        rule: String,
    },
    /// A range of nothing, or not within the axis.
    #[error(
        "`{op}` {start}..{end} of axis {axis} of {given}: a range must be within 0..{n} and have at least one element"
    )]
    BadRange {
        /// The method.
        op: &'static str,
        /// First.
        start: usize,
        /// One behind the last.
        end: usize,
        /// Along this axis.
        axis: usize,
        /// The value's type.
        given: Type,
        /// Size of the axis.
        n: usize,
    },
    /// An axis that the value does not have.
    #[error("`{op}` along axis {axis} of {given}, which has {}", axes(*rank))]
    BadAxis {
        /// The method.
        op: &'static str,
        /// As given.
        axis: usize,
        /// The value's type.
        given: Type,
        /// How many it has.
        rank: usize,
    },
    /// Nothing to join.
    #[error("`{op}` of no values; it takes at least one")]
    NothingToJoin {
        /// `concat` or `stack`.
        op: &'static str,
    },
    /// Broadcasting that numpy's rule does not allow.
    #[error("{given} does not broadcast to {shape}: seen from the right, each dimension must be equal or 1")]
    BadBroadcast {
        /// The value's type.
        given: Type,
        /// As asked.
        shape: Shape,
    },
    /// An index made inside the program that can be outside of the table it reaches.
    #[error(transparent)]
    IndexOutOfRange(#[from] OutOfRange),

    /// A value of a scan's body used elsewhere.
    #[error(
        "this value belongs to a step of scan `{scan}` and is used outside of it; return it from the step and use `run.all()` or `run.last()`"
    )]
    OutsideItsScan {
        /// Name of the scan.
        scan: String,
    },
    /// A whole sequence used within a step.
    #[error("{given} is a whole sequence, used within a step of scan `{scan}`; {}", hint_of_sequence(*is_other))]
    SequenceInStep {
        /// Its type.
        given: Type,
        /// Name of the scan.
        scan: String,
        /// Whether its steps are those of another axis than the scan's.
        is_other: bool,
    },
    /// An integer that a scan with lengths would have to hold or give out past a sample's end.
    #[error(
        "{what} is {given}: in a scan with lengths, states and outputs must be floats, which are 0 past a sample's end; \
         return the floats that the integer is computed from, and compute it after the scan"
    )]
    IntegerPastEnd {
        /// The state or output.
        what: String,
        /// Its type.
        given: Type,
    },
    /// `s.at` of something that is no sequence.
    #[error("`at` reads a sequence at this step, and {given} is none; {hint}")]
    NotASequence {
        /// Type of what was given.
        given: Type,
        /// What to do instead.
        hint: &'static str,
    },
    /// A value of another recording.
    #[error("this value belongs to another program, `{program}`; each program records its own")]
    ForeignValue {
        /// Name of the program that the value belongs to.
        program: String,
    },
    /// A position that is no value of the program.
    #[error(
        "value {index} is not one of the {len} of program `{program}`, or is a scan, which has results but is none"
    )]
    NoSuchValue {
        /// As given.
        index: usize,
        /// Name.
        program: String,
        /// How many there are.
        len: usize,
    },
    /// A scan within a scan.
    #[error(
        "scan `{inner}` is within a step of scan `{outer}`; scans stand one behind another, or layers go into one step"
    )]
    NestedScan {
        /// The scan that was begun.
        inner: String,
        /// The one it is in.
        outer: String,
    },
    /// Sequences of two time axes in one scan.
    #[error(
        "scan `{scan}` runs over time axis {runs}, and this sequence is {given}; a scan reads sequences of one axis"
    )]
    AxisMismatch {
        /// Name of the scan.
        scan: String,
        /// The scan's axis.
        runs: &'static str,
        /// Type of the sequence.
        given: Type,
    },
    /// More time axes than there can be.
    #[error("`{name}` would be time axis number {}; a program has at most {}", Axis::MAX + 1, Axis::MAX)]
    TooManyAxes {
        /// Name of the axis.
        name: String,
    },

    /// The same state name twice in a scan.
    #[error("scan `{scan}` already has a state `{name}` ({first}); layers in one step need their own `s.scope(..)`")]
    StateTwice {
        /// Name of the scan.
        scan: String,
        /// Name of the state.
        name: String,
        /// Where it was made.
        first: Place,
    },
    /// A state that no step changes.
    #[error("state `{name}` of scan `{scan}` is never given its next value; say `s.next({name}, ..)` once in the step")]
    NoNext {
        /// Name of the scan.
        scan: String,
        /// Name of the state.
        name: String,
    },
    /// A second next value.
    #[error("state `{name}` already has its next value ({first}); it takes one a step")]
    NextTwice {
        /// Name of the state.
        name: String,
        /// Where the first was given.
        first: Place,
    },
    /// A next value of another type than the state.
    #[error("state `{name}` is {state}, and its next value is {given}; both must be of one type")]
    NextType {
        /// Name of the state.
        name: String,
        /// Type of the state.
        state: Type,
        /// Type of the next value.
        given: Type,
    },
    /// `next` of something that is no state.
    #[error("the first argument of `next` must be what `s.state(..)` gave; this is {given}")]
    NotAState {
        /// Type of what was given.
        given: Type,
    },
    /// A scan whose axis does not follow from anything.
    #[error(
        "scan `{scan}` reads no sequence, so it must be said what it runs over with `p.axis(..).scan(..)`; {known}"
    )]
    WhichAxis {
        /// Name of the scan.
        scan: String,
        /// Names of the axes.
        known: String,
    },
    /// A state that starts from a value of the step.
    #[error("the initial value of state `{name}` is computed within the step; compute it before the scan")]
    InitialInStep {
        /// Name of the state.
        name: String,
    },
    /// A state that is told twice where to start.
    #[error("state `{name}` is told again where to start; it was told first at {first}")]
    StartTwice {
        /// Name of the state.
        name: String,
        /// Where it was told first.
        first: Place,
    },
    /// A start of another type than the state.
    #[error("state `{name}` is {state}, and what it is to start from is {given}; both must be of one type")]
    StartType {
        /// Name of the state.
        name: String,
        /// Type of the state.
        state: Type,
        /// Type of the start.
        given: Type,
    },
    /// A state that starts from a whole sequence.
    #[error("state `{name}` cannot start from {given}: an initial value is one row for each sample, or one for all")]
    BadInitial {
        /// Name of the state.
        name: String,
        /// Type of what was given.
        given: Type,
    },

    /// Labels that do not go with what they label.
    #[error("labels for {given} must be {wanted}, and these are {labels}")]
    BadLabels {
        /// Type of the logits.
        given: Type,
        /// What the labels should be.
        wanted: Type,
        /// What they are.
        labels: Type,
    },
    /// A target or mask that does not go with its values.
    #[error("`{op}` of {given} takes {wanted}, and this is {other}")]
    BadTarget {
        /// The method.
        op: &'static str,
        /// Type of the values.
        given: Type,
        /// What is allowed.
        wanted: &'static str,
        /// Type of the target.
        other: Type,
    },
    /// A reduction over rows of a value that has one.
    #[error("`{op}` of {given}: {rule}")]
    BadExtent {
        /// The method.
        op: &'static str,
        /// Type of the value.
        given: Type,
        /// What is allowed.
        rule: &'static str,
    },
    /// An objective that is no number a row.
    #[error(
        "{given} cannot be minimised: an objective is one float for the program, or one for each row, of which the mean is taken"
    )]
    BadObjective {
        /// Its type.
        given: Type,
    },
    /// A second objective.
    #[error("the program already has an objective ({first}); add the two up")]
    ObjectiveTwice {
        /// Where the first was set.
        first: Place,
    },
    /// An update of something that is not stored.
    #[error("only a parameter or an input can be updated, and this is neither")]
    BadUpdateTarget,
    /// A second update.
    #[error("`{name}` already has an update; it takes one a run")]
    UpdateTwice {
        /// Name of the parameter or input.
        name: String,
    },
    /// An update of another type than its target.
    #[error("`{name}` is {target}, and its update is {given}; both must be of one type")]
    UpdateType {
        /// Name of the parameter or input.
        name: String,
        /// Type of the target.
        target: Type,
        /// Type of the new value.
        given: Type,
    },
}

fn axes(rank: usize) -> String {
    match rank {
        0 => "no axis of features: it is a scalar".to_string(),
        1 => "one axis of features, 0".to_string(),
        n => format!("axes 0 to {} of features", n - 1),
    }
}

fn hint_of_sequence(is_other: bool) -> &'static str {
    match is_other {
        false => "read this step's rows with `s.at(..)`",
        true => {
            "its steps are those of another time axis: a step can use its last row (`last()`), a mean over its steps, or what a \
             state of the loop that made it has kept, as `cells::remembered` does"
        }
    }
}

/// Where something was first written, for an error about the second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub Option<&'static Location<'static>>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            Some(l) => write!(f, "{}:{}", l.file(), l.line()),
            None => write!(f, "made by the compiler"),
        }
    }
}

/// Code could not be generated.
#[derive(thiserror::Error)]
pub enum CodegenError {
    /// Cranelift does not know this machine.
    #[error("code cannot be generated for this machine: {0}")]
    Machine(String),
    /// No memory for code, or none that the system lets be executed: it forbids that to some processes, and allows each
    /// a limited number of memory maps.
    #[error("no memory for generated code: {0}")]
    Memory(String),
    /// A product of so many elements at a time.
    #[error("a matrix product would take {elements} elements of a row together; at most {limit} are possible")]
    TooLarge {
        /// Elements of the rows, or between them.
        elements: usize,
        /// Most that are allowed.
        limit: u32,
    },
    /// Cranelift refused a function.
    #[error("code generation failed: {0}")]
    Module(String),
    /// The plan would read or write what is not its own: a fault of this compiler, whatever the program.
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
}
