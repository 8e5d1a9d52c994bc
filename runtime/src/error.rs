//! What can go wrong between a compiled program and its user.
//!
//! A [`RunError`] is always the user's: it says what was given, what is allowed, and where. Our own mistakes are
//! assertions and never take this form. Checkpoints have their own [`CheckpointError`], which names the file, and so
//! has writing with a decoder, [`DecodeError`].

use std::path::PathBuf;

use retrograd_compiler::error::Place;
use retrograd_compiler::ir::sizes::TOO_LARGE;
use retrograd_compiler::ir::{Axis, DType, Extent, Sizes, Type};
use retrograd_compiler::time::{DivideError, Obstacle};

/// Why a program could not be made ready, run, or continued.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The feed names an input that the program does not have.
    #[error("the program has no input `{given}`{}; its inputs are {}", did_you_mean(nearest), list(declared))]
    UnknownInput {
        /// The name in the feed.
        given: String,
        /// The declared name that is most like it.
        nearest: Option<String>,
        /// All names of inputs.
        declared: Vec<String>,
    },
    /// An input of the program is not in the feed.
    #[error("input `{input}` is missing: the program takes {expected}")]
    MissingInput {
        /// Its name.
        input: String,
        /// Its type.
        expected: Type,
    },
    /// The feed has the same name twice.
    #[error("input `{input}` is given twice; each is given once in a run")]
    GivenTwice {
        /// The name.
        input: String,
    },
    /// A slice that does not fill the shape that was said of it.
    #[error("input `{input}` has {length} values, but its shape {shape:?} asks for {}", product(shape))]
    WrongLength {
        /// Name of the input.
        input: String,
        /// The shape in the feed.
        shape: Vec<usize>,
        /// Number of values in the feed.
        length: usize,
    },
    /// Floats for integers or the reverse.
    #[error("input `{input}` has elements of {given}; the program takes {expected}")]
    WrongDType {
        /// Name of the input.
        input: String,
        /// Element type in the feed.
        given: DType,
        /// Type of the input.
        expected: Type,
    },
    /// Too few or too many dimensions.
    #[error(
        "input `{input}` has {}: {given:?}; the program takes {expected}, which has {}",
        dimensions(given.len()),
        dimensions(rank(expected))
    )]
    WrongRank {
        /// Name of the input.
        input: String,
        /// Shape in the feed.
        given: Vec<usize>,
        /// Type of the input.
        expected: Type,
    },
    /// The dimensions behind time and batch are not those of the program.
    #[error("input `{input}` has shape {given:?}; the program takes {expected}")]
    WrongFeatures {
        /// Name of the input.
        input: String,
        /// Shape in the feed.
        given: Vec<usize>,
        /// Type of the input.
        expected: Type,
    },
    /// An input without samples or without steps.
    #[error("{by} says {} = 0; at least 1 is needed", letter(extent))]
    EmptyExtent {
        /// Batch or a time axis.
        extent: Extent,
        /// The input, or the call of the feed, that says so.
        by: String,
    },
    /// Two inputs of one run have different sizes of the batch or of a time axis.
    #[error(
        "{second} says {letter} = {second_size}, but {first} says {letter} = {first_size}: all inputs of a run agree",
        letter = letter(extent)
    )]
    SizesDiffer {
        /// Batch or a time axis.
        extent: Extent,
        /// The input, or the call of the feed, that was looked at first.
        first: String,
        /// What it says.
        first_size: usize,
        /// The one that differs.
        second: String,
        /// What it says.
        second_size: usize,
    },
    /// No input has the batch or a time axis that the program computes with.
    #[error(
        "no input says how large {letter} is; say it with `Feed::{}`",
        if *extent == Extent::Batch { "batch" } else { "steps" },
        letter = letter(extent)
    )]
    UnknownSize {
        /// Batch or a time axis.
        extent: Extent,
    },
    /// A size is given for an axis that the program does not have.
    #[error("the program has no time axis `{given}`; its axes are {}", list(declared))]
    UnknownAxis {
        /// The name in the feed.
        given: String,
        /// All names of axes.
        declared: Vec<String>,
    },
    /// A label or index beyond what it indexes.
    #[error("input `{input}` has {value} at {position:?}; allowed are 0 to {}", bound.saturating_sub(1))]
    OutOfRange {
        /// Name of the input.
        input: String,
        /// Index into the input, all dimensions.
        position: Vec<usize>,
        /// The value there.
        value: i32,
        /// One more than the largest value allowed.
        bound: usize,
    },
    /// An output that is asked for by a name that none has.
    #[error("there is no output `{given}`{}; outputs are {}", did_you_mean(nearest), list(declared))]
    UnknownOutput {
        /// The name.
        given: String,
        /// The name of an output that is most like it.
        nearest: Option<String>,
        /// Names of all outputs.
        declared: Vec<String>,
    },
    /// A parameter that is asked for by a name that none has, or a pattern that no name fits.
    #[error("there is no parameter `{given}`{}; parameters are {}", did_you_mean(nearest), list(declared))]
    UnknownParameter {
        /// The name or pattern.
        given: String,
        /// The name of a parameter that is most like it.
        nearest: Option<String>,
        /// Names of all parameters.
        declared: Vec<String>,
    },
    /// An output that is read before anything has been computed.
    #[error("output `{output}` has no value yet: no step has been run since the stream began or was reset")]
    NotComputed {
        /// Its name.
        output: String,
    },
    /// An output that was computed without an input that it needs.
    #[error(
        "output `{output}` needs input `{input}`, {expected}, which was not set for each step since the stream began"
    )]
    OutputNeedsInput {
        /// The output.
        output: String,
        /// The input.
        input: String,
        /// Type of the input.
        expected: Type,
    },
    /// An output read as elements of another type.
    #[error("output `{output}` is {given}, and was to be read as {asked}; {} reads it", reader(given.dtype))]
    OutputDType {
        /// Its name.
        output: String,
        /// Its type.
        given: Type,
        /// Element type that was asked for.
        asked: DType,
    },
    /// A slice that is too large or too small for an output.
    #[error("output `{output}` has shape {shape:?}, {} values; the slice has room for {length}", product(shape))]
    OutputLength {
        /// Its name.
        output: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Length of the slice.
        length: usize,
    },
    /// Something that a stream cannot compute, because it takes a step at a time.
    #[error("`{output}` cannot be computed step by step: {reason}")]
    NotStepwise {
        /// Name of the output, or of the stored input.
        output: String,
        /// What stands in the way.
        reason: Obstacle,
    },
    /// A label that is neither below what it indexes nor the number that stands for no label.
    #[error(
        "input `{input}` has {value} at {position:?}; allowed are 0 to {}, and {ignored} for no label",
        bound.saturating_sub(1)
    )]
    NoLabel {
        /// Name of the input.
        input: String,
        /// Index into the input, all dimensions.
        position: Vec<usize>,
        /// The value there.
        value: i32,
        /// One more than the largest label.
        bound: usize,
        /// What stands for none.
        ignored: i32,
    },
    /// A sample cannot have so many steps.
    #[error(
        "input `{input}` says that sample {sample} has {value} steps; allowed are 0 to {steps}, the steps of the run"
    )]
    Length {
        /// Name of the input.
        input: String,
        /// The sample.
        sample: usize,
        /// Its length.
        value: i32,
        /// Steps of the run.
        steps: usize,
    },
    /// A state is carried from a run with another number of samples.
    #[error("the feed has B = {given}, but the state carried from the last run has B = {carried}; reset it first")]
    BatchChanged {
        /// Samples in the feed.
        given: usize,
        /// Samples in the state.
        carried: usize,
    },
    /// The values of a run do not fit the memory that checkpointing was given.
    #[error(
        "values at T, B = {:?}, {} need at least {least} bytes, however many states are kept; {limit} are allowed. Fewer \
         samples need less, and so do fewer steps",
        sizes.steps, sizes.batch
    )]
    MemoryLimit {
        /// Bytes allowed.
        limit: usize,
        /// Bytes that are needed with the segments that need least.
        least: usize,
        /// Sizes of the run.
        sizes: Sizes,
    },
    /// There is no memory for the values of a run. The session is as it was before, and runs of the sizes before go on.
    #[error(
        "values at T, B = {:?}, {} need {} of memory: {reason}. Fewer samples need less, and so do fewer steps",
        sizes.steps, sizes.batch, bytes(*asked)
    )]
    Memory {
        /// Bytes asked for; [`TOO_LARGE`] if they are more than can be counted.
        asked: usize,
        /// Sizes of the run; those of the last one, where a thread's own memory is asked for.
        sizes: Sizes,
        /// What there is, or what the system said.
        reason: String,
    },
    /// An initialiser that cannot fill its parameter.
    #[error("parameter `{parameter}` cannot be initialised: {rule}")]
    Initialiser {
        /// Name of the parameter.
        parameter: String,
        /// What is asked for, with the numbers of this case.
        rule: String,
    },
    /// Training has diverged, or an input was not finite; the step changed nothing.
    #[error("the loss is {loss} at step {step}: lower the rate, clip the gradient, or look for non-finite inputs")]
    NonFiniteLoss {
        /// The step, counted from 1.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// More steps than a loop over the axis has room for.
    #[error("{steps} steps of axis `{axis}`; a scan over it takes at most {most} ({place})")]
    TooManySteps {
        /// Name of the axis.
        axis: String,
        /// Steps, those that carried states have seen before included.
        steps: usize,
        /// The most.
        most: usize,
        /// Where that was recorded.
        place: Place,
    },
    /// A setting of training that has no meaning.
    #[error("{setting} is {given}; {allowed}")]
    Setting {
        /// What is set.
        setting: String,
        /// Its value.
        given: String,
        /// What is allowed.
        allowed: String,
    },
    /// More threads than a team may have.
    #[error("{asked} threads are asked for; at most {most} are allowed")]
    TooManyThreads {
        /// Threads asked for.
        asked: usize,
        /// Most that are allowed.
        most: usize,
    },
    /// The system refuses to start a thread.
    #[error("{asked} threads are asked for, of which the system gives {had}: {reason}")]
    ThreadRefused {
        /// Threads asked for, the caller's own among them.
        asked: usize,
        /// Threads that there could be.
        had: usize,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The gradient is not a number or too large for one; the step changed nothing.
    #[error("the norm of the gradient is {norm} at step {step}: lower the rate, or look for non-finite inputs")]
    NonFiniteGradient {
        /// The step, counted from 1.
        step: u64,
        /// The norm of all gradients together.
        norm: f64,
    },
    /// The program could not be compiled.
    #[error("program `{program}` could not be compiled: {reason}")]
    Compile {
        /// Name of the program.
        program: String,
        /// Why.
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Saving or loading.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

retrograd_compiler::debug_is_display!(RunError);

/// Why nothing could be [written](crate::decode) with a program.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The program has no part along the axis that runs step by step.
    #[error(transparent)]
    Divide(#[from] DivideError),
    /// Whatever is wrong with inputs, settings or the compile.
    #[error(transparent)]
    Run(#[from] RunError),
    /// There is no input for the symbol before.
    #[error(
        "`{given}` is no input that has one integer at each step of the axis, for the symbol before; such inputs are {}",
        list(known)
    )]
    NoSymbols {
        /// The name that was given.
        given: String,
        /// Names of inputs that would do.
        known: Vec<String>,
    },
    /// There is no output that scores symbols.
    #[error(
        "`{given}` is no output that has one float for each symbol at each step of the axis; such outputs are {}",
        list(known)
    )]
    NoLogits {
        /// The name that was given.
        given: String,
        /// Names of outputs that would do.
        known: Vec<String>,
    },
    /// More symbols can be written than read.
    #[error(
        "output `{output}` scores {classes} symbols, but input `{input}` takes those below {bound}: what is written is read"
    )]
    Unreadable {
        /// The output.
        output: String,
        /// How many symbols it scores.
        classes: usize,
        /// The input.
        input: String,
        /// One more than the largest symbol it takes.
        bound: usize,
    },
    /// The logits of a step are not numbers.
    #[error("at step {step} of sample {sample} the logits make no distribution: some are infinite or not numbers")]
    NoDistribution {
        /// The sample, counted from 0.
        sample: usize,
        /// The step, counted from 0.
        step: usize,
    },
}

retrograd_compiler::debug_is_display!(DecodeError);

/// Why a checkpoint could not be written or read. A failed save leaves the file that was there before (or the new one,
/// whole, where only the flush of its directory failed).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The system refused.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// A checkpoint is to be saved to or loaded from a directory, a device, a pipe or a socket.
    #[error("{} is {found}; a checkpoint is a regular file", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The file was saved by a program of another name.
    #[error(
        "{} is of program `{found}`, and this is program `{expected}`; if it only has a new name, `Trainer::load_renamed` \
         takes the old one",
        path.display()
    )]
    OtherProgram {
        /// The file.
        path: PathBuf,
        /// Name of the program that it was saved by.
        found: String,
        /// Name of the program that is to go on from it.
        expected: String,
    },
    /// The file is something else, or damaged in its structure.
    #[error("{} is not a checkpoint: {reason}", path.display())]
    NotACheckpoint {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The file was written by a later version.
    #[error("{} has format {found}; this version reads format {supported}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says of itself.
        found: String,
        /// What can be read.
        supported: &'static str,
    },
    /// The contents are not those that were written.
    #[error("{} is damaged: its contents do not match their checksum", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A tensor that is needed is not there.
    #[error("{} has no tensor `{name}`", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// Tensors that nobody took: the checkpoint is of another program.
    #[error("{} has tensors that the program does not have: {}", path.display(), list(left))]
    UnknownTensors {
        /// The file.
        path: PathBuf,
        /// Names of the tensors.
        left: Vec<String>,
    },
    /// A tensor of another shape.
    #[error("{}: tensor `{name}` has shape {found:?}; the program takes {expected:?}", path.display())]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that is needed.
        expected: Vec<usize>,
    },
    /// A tensor of another element type.
    #[error("{}: tensor `{name}` is of {found}; the program takes {expected}", path.display())]
    WrongDType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Element type in the file.
        found: &'static str,
        /// Element type that is needed.
        expected: &'static str,
    },
    /// A note that is needed is missing or does not parse.
    #[error(
        "{}: note `{key}` {}; a value of type {expected} is needed",
        path.display(),
        found.as_ref().map_or("is missing".to_string(), |f| format!("is `{f}`"))
    )]
    Note {
        /// The file.
        path: PathBuf,
        /// Its key.
        key: String,
        /// Its text, where there is one.
        found: Option<String>,
        /// Type of the value.
        expected: &'static str,
    },
    /// A note has a value that cannot be: damaged by hand, since saving writes no such.
    #[error("{}: note `{key}` is `{found}`; {allowed}", path.display())]
    NoteValue {
        /// The file.
        path: PathBuf,
        /// Its key.
        key: String,
        /// Its text.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// A tensor has a value that cannot be.
    #[error("{}: tensor `{name}` holds {found}; {allowed}", path.display())]
    TensorValue {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The value.
        found: f64,
        /// What is allowed.
        allowed: &'static str,
    },
}

retrograd_compiler::debug_is_display!(CheckpointError);

/// `B`, `T`, `T1` ...
fn letter(extent: &Extent) -> &'static str {
    match extent {
        Extent::Shared => "the shared extent",
        Extent::Batch => "B",
        Extent::Time(axis) => Axis::letter(*axis),
    }
}

/// Dimensions of an input of this type in a feed.
pub(crate) fn rank(ty: &Type) -> usize {
    outer(ty.extent) + ty.shape.rank()
}

/// Dimensions in front of the features.
pub(crate) fn outer(extent: Extent) -> usize {
    match extent {
        Extent::Shared => 0,
        Extent::Batch => 1,
        Extent::Time(_) => 2,
    }
}

fn reader(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "`get_f32`",
        DType::I32 => "`get_i32`",
    }
}

fn dimensions(n: usize) -> String {
    format!("{n} dimension{}", if n == 1 { "" } else { "s" })
}

fn bytes(n: usize) -> String {
    if n == TOO_LARGE { "more bytes than can be counted".to_string() } else { format!("{n} bytes") }
}

fn product(shape: &[usize]) -> String {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).map_or("more than can be counted".into(), |n| n.to_string())
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or(String::new(), |n| format!(" (did you mean `{n}`?)"))
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_string();
    }
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// The candidate most like `name`, if one is near enough to be a slip of the fingers: a third of its letters.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    candidates.into_iter().map(|c| (edits(name, c), c)).filter(|(d, _)| *d <= limit).min().map(|(_, c)| c)
}

/// Damerau–Levenshtein distance with adjacent transpositions ("optimal string alignment").
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // d[i][j]: edits from the first i of a to the first j of b.
    let mut d = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            d[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = d[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let best = replaced.min(d[i - 1][j] + 1).min(d[i][j - 1] + 1);
                if swapped { best.min(d[i - 2][j - 2] + 1) } else { best }
            };
        }
    }
    d[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_edits() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("rows", "rows"), 0);
        assert_eq!(edits("rows", "rosw"), 1);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        assert_eq!(nearest("lables", ["rows", "labels", "label"]), Some("labels"));
        assert_eq!(nearest("x", ["y"]), Some("y"));
        assert_eq!(nearest("mask", ["rows", "labels"]), None);
    }

    #[test]
    fn texts_say_what_was_given_and_what_is_allowed() {
        let text = |e: RunError| e.to_string();
        assert_eq!(
            text(RunError::UnknownInput {
                given: "row".into(),
                nearest: Some("rows".into()),
                declared: vec!["rows".into(), "label".into()]
            }),
            "the program has no input `row` (did you mean `rows`?); its inputs are `rows`, `label`"
        );
        assert_eq!(
            text(RunError::WrongRank {
                input: "rows".into(),
                given: vec![7],
                expected: Type::float(Extent::Time(Axis(0)), 28)
            }),
            "input `rows` has 1 dimension: [7]; the program takes f32[T, B, 28], which has 3 dimensions"
        );
        assert_eq!(
            text(RunError::OutOfRange { input: "label".into(), position: vec![3, 1], value: 12, bound: 10 }),
            "input `label` has 12 at [3, 1]; allowed are 0 to 9"
        );
        assert_eq!(
            text(RunError::UnknownSize { extent: Extent::Time(Axis(1)) }),
            "no input says how large T1 is; say it with `Feed::steps`"
        );
    }
}
