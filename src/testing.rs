//! Help for tests of cells and programs of one's own: what the library's own are tested with.
//!
//! - [`check_gradients`]: derivatives by generated code in 64 bits, element by element, against the interpreter's dual
//!   numbers, which owe nothing to the rules that derived the code.
//! - [`check_engines`] and [`assert_engines_agree`]: every way to run a program gives what the interpreter gives.
//! - [`run`]: one run of generated code on given values, to compare with formulas in plain Rust.
//! - Programs, joint programs and plans print as stable text, for snapshots.
//!
//! ```
//! use retrograd::prelude::*;
//! use retrograd::testing::{assert_engines_agree, check_gradients};
//!
//! let program = Program::record("leaky", |p| {
//!     let x = p.sequence("x", 3);
//!     let run = p.scan("leaky", |s| {
//!         let h = s.state("h", 4);
//!         s.next(h, 0.9 * h + 0.1 * s.affine("in", s.at(x), 4).tanh())
//!     });
//!     p.minimize(run.last().square().mean());
//! })?;
//! let sizes = Sizes::new(5, 2); // T, B
//! assert_engines_agree(&program, &sizes);
//! let checked = check_gradients(&program, &sizes)?;
//! assert_eq!((checked.elements, checked.of), (16, 16));
//! assert!(checked.worst.error() < 1e-12);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **How close is close.** The [error](Element::error) of a number g whose truth is t is |g − t| / (|t| + s/100), with
//! s = max |t| over its array: relative to the element itself, down to elements that are small because terms of the
//! size of the largest cancel, and carry their rounding. In 64 bits it must be below 10⁻¹⁰. In 32 bits, the
//! difference must be below s/10,000, or explained by the program itself: see [`rounding_of_f32`]. Equal bits means equal
//! bits.

use std::collections::BTreeMap;
use std::fmt;

use ndarray::ArrayD;
use retrograd_compiler::differentiate::DifferentiateError;
use retrograd_compiler::interpret::{self, Outcome, Values, interpret};
use retrograd_compiler::ir::dual::Dual;
use retrograd_compiler::ir::op::Data;
use retrograd_compiler::ir::{Axis, DType, Extent, Input, Op, Program, Sizes, Type};
use retrograd_compiler::pipeline;
use retrograd_compiler::plan::Checkpointing;
use retrograd_runtime::error::RunError;
use retrograd_runtime::feed::Feed;
use retrograd_runtime::float::Float;
use retrograd_runtime::session::{Session, Sharing};
use retrograd_runtime::settings::{InstructionSet, Settings};

/// All that a run gives, by name: outputs, the objective as `objective` (`the objective`, if an output has that name), and the new value of a parameter that the
/// program updates as `new <parameter>`. Integers are whole numbers.
pub type Numbers = BTreeMap<String, Vec<f64>>;

/// Limit of [`Element::error`] for numbers of 64 bits.
pub const LIMIT: f64 = 1e-10;
/// Difference of numbers of 32 bits that needs no explanation, relative to the largest of their array.
pub const SMALL_F32: f64 = 1e-4;
/// How many times the difference that [`rounding_of_f32`] explains is allowed: code may take another order, and rounds
/// within sums and functions, too.
pub const LIMIT_F32: f64 = 32.0;
/// Which elements of a parameter are differentiated by duals: all up to this many, else as many, evenly spread.
pub const ELEMENTS: usize = 200;

/// One number beside its truth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Element {
    /// The array it is of: an output, or a parameter's gradient.
    pub name: String,
    /// Which one it is, row-major.
    pub index: usize,
    /// What generated code gives.
    pub given: f64,
    /// What the interpreter gives.
    pub expected: f64,
    /// The largest absolute value of the expected array.
    pub largest: f64,
}

impl Element {
    /// |given − expected| / (|expected| + largest/100); 0 for two that are NaN or the same infinity, and infinite where
    /// one alone is.
    pub fn error(&self) -> f64 {
        if same(self.given, self.expected) {
            return 0.0;
        }
        let difference = (self.given - self.expected).abs();
        let error = difference / (self.expected.abs() + self.largest / 100.0);
        match (difference == 0.0, error.is_nan()) {
            (true, _) => 0.0,
            (_, true) => f64::INFINITY,
            _ => error,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Element { name, index, given, expected, largest } = self;
        write!(f, "{name}[{index}] is {given:e} instead of {expected:e} (error {:.1e}", self.error())?;
        write!(f, ", where the largest element is {largest:e})")
    }
}

/// What a check found.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TestError {
    /// There is no gradient to check.
    #[error(transparent)]
    Differentiate(#[from] DifferentiateError),
    /// The program cannot be compiled or run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The truth itself is not finite at the values of the check, so that it would check nothing.
    #[error("program `{program}`: {name} is not finite at these values, so nothing can be checked against it")]
    NotFinite {
        /// Name of the program.
        program: String,
        /// The output, or the parameter whose derivative it is.
        name: String,
    },
    /// A gradient is wrong.
    #[error("program `{program}`: of the gradient, {worst}; errors must be below {LIMIT:e}")]
    Gradient {
        /// Name of the program.
        program: String,
        /// The element with the largest error.
        worst: Element,
    },
    /// A way to run the program gives other numbers.
    #[error("program `{program}`, {engine}: {worst}")]
    Disagreement {
        /// Name of the program.
        program: String,
        /// Which way.
        engine: String,
        /// The element with the largest error, or the first with other bits.
        worst: Element,
    },
    /// The program's text is not read back as the same program.
    #[error("program `{program}` prints as a text that is not read back: {reason}")]
    Text {
        /// Name of the program.
        program: String,
        /// Why not.
        reason: String,
    },
}

retrograd_compiler::debug_is_display!(TestError);

/// What [`check_gradients`] looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Elements of gradients that were compared.
    pub elements: usize,
    /// Elements that there are.
    pub of: usize,
    /// The one with the largest error.
    pub worst: Element,
}

/// Checks the gradient of every parameter, as generated code computes it in 64 bits, at random values: each element
/// against the dual part of the *undifferentiated* program's objective with that element's direction. Up to
/// [`ELEMENTS`] elements of each parameter are looked at, so sizes should be small.
///
/// # Errors
/// The worst element, if its error is not below [`LIMIT`]; a program without an objective; values at which the
/// derivative is not finite.
pub fn check_gradients(program: &Program, sizes: &Sizes) -> Result<Checked, TestError> {
    check_gradients_at(program, &values(program, sizes, 11), sizes)
}

/// [`check_gradients`] at values of the caller's, rounded to 32 bits: where random ones will not do, change some of
/// those that [`values`] gives.
///
/// # Errors
/// As there.
///
/// # Panics
/// If a value is missing or has another type or size than its parameter or input.
pub fn check_gradients_at(program: &Program, values: &Values, sizes: &Sizes) -> Result<Checked, TestError> {
    let values = &rounded(values);
    let joint = program.backward()?;
    let gradients = run(&mut Session::<f64>::new(&joint, 1)?, values, sizes)?;
    let mut checked = Checked { elements: 0, of: 0, worst: Element::default() };
    for parameter in &program.parameters {
        let (name, output) = (&parameter.name, format!("d.{}", parameter.name));
        let gradient = &gradients[&output];
        let indices: Vec<usize> = (0..gradient.len()).step_by(gradient.len().div_ceil(ELEMENTS)).collect();
        let along = |&i: &usize| {
            let mut values = values.clone();
            values.get_mut(name).expect("run has checked it").x[i].du = 1.0;
            interpret(program, &values, sizes).objective.expect("backward has checked it").du
        };
        let expected: Vec<f64> = indices.iter().map(along).collect();
        let given: Vec<f64> = indices.iter().map(|&i| gradient[i]).collect();
        if !expected.iter().all(|x| x.is_finite()) {
            return Err(TestError::NotFinite { program: program.name.clone(), name: output });
        }
        let mut worst = worst(&output, &given, &expected);
        worst.index = indices[worst.index];
        checked.elements += given.len();
        checked.of += gradient.len();
        if checked.worst.name.is_empty() || worst.error() > checked.worst.error() {
            checked.worst = worst;
        }
    }
    match checked.worst.error() < LIMIT {
        true => Ok(checked),
        false => Err(TestError::Gradient { program: program.name.clone(), worst: checked.worst }),
    }
}

/// Panics where [`check_engines`] finds something.
///
/// # Panics
/// If engines disagree.
#[track_caller]
pub fn assert_engines_agree(program: &Program, sizes: &Sizes) {
    if let Err(e) = check_engines(program, sizes) {
        panic!("{e}");
    }
}

/// Runs the program, and its joint program if it has an objective, in every way at random values: the interpreter is
/// the truth; the interpreter on the program that is planned, generated code in 64 bits and in 32 must agree with it on
/// every instruction set that the machine has, and with two threads, or with checkpoints, they must give the same bits as
/// without. The program's text must be read back as itself.
///
/// # Errors
/// The first disagreement; a result that is not finite, against which nothing can be checked.
pub fn check_engines(program: &Program, sizes: &Sizes) -> Result<(), TestError> {
    check_all(program, &values(program, sizes, 7), sizes, false)
}

/// [`check_engines`] at values of the caller's. Results need not be finite there: NaN agrees with NaN, and each infinity
/// with itself. What 32 bits cannot hold is infinite in them, and so no agreement.
///
/// # Errors
/// The first disagreement.
///
/// # Panics
/// If a value is missing or has another type or size than its parameter or input.
pub fn check_engines_at(program: &Program, values: &Values, sizes: &Sizes) -> Result<(), TestError> {
    check_all(program, &rounded(values), sizes, true)
}

fn check_all(program: &Program, values: &Values, sizes: &Sizes, infinite: bool) -> Result<(), TestError> {
    check_one(program, values, sizes, infinite)?;
    match program.objective {
        Some(_) => check_one(&program.backward()?, values, sizes, infinite),
        None => Ok(()),
    }
}

fn check_one(program: &Program, values: &Values, sizes: &Sizes, infinite: bool) -> Result<(), TestError> {
    let name = || program.name.clone();
    let text = program.to_string();
    let read = Program::parse(&text).map_err(|e| TestError::Text { program: name(), reason: e.to_string() })?;
    if read.to_string() != text {
        return Err(TestError::Text { program: name(), reason: format!("it is read as\n{read}\ninstead of\n{text}") });
    }
    let truth = numbers(&interpret(program, values, sizes));
    let is_infinite = |(_, x): &(&String, &Vec<f64>)| x.iter().any(|x| !x.is_finite());
    if let Some((output, _)) = truth.iter().find(is_infinite).filter(|_| !infinite) {
        return Err(TestError::NotFinite { program: name(), name: output.clone() });
    }
    let differs = |engine: &str, worst| Err(TestError::Disagreement { program: name(), engine: engine.into(), worst });
    let close = |engine: &str, given: &Numbers, wrong: &mut dyn FnMut(&Element) -> bool| {
        let all = given.iter().map(|(name, g)| worst(name, g, &truth[name]));
        all.into_iter().find(wrong).map_or(Ok(()), |worst| differs(engine, worst))
    };
    let same_bits = |engine: &str, given: &Numbers, expected: &Numbers| {
        let other = |(name, e): (&String, &Vec<f64>)| {
            let index = given[name].iter().zip(e).position(|(&g, &e)| !same(g, e))?;
            let largest = largest(e);
            Some(Element { name: name.clone(), index, given: given[name][index], expected: e[index], largest })
        };
        expected.iter().find_map(other).map_or(Ok(()), |element| differs(engine, element))
    };
    let exact = &mut |e: &Element| e.error() >= LIMIT;
    let lowered = pipeline::lower(program);
    close("what is planned, interpreted", &numbers(&interpret(&lowered, values, sizes)), exact)?;
    for set in InstructionSet::available() {
        let settings = Settings::new().instruction_set(set);
        let name = |engine: &str| format!("{engine}, {set}");
        let one = run(&mut Session::<f64>::new(program, settings)?, values, sizes)?;
        close(&name("generated code in 64 bits"), &one, exact)?;
        for (engine, sharing) in
            [("64 bits, two threads", Sharing::Rows), ("64 bits, two threads, by features", Sharing::Features)]
        {
            let mut session = Session::<f64>::new(program, settings.threads(2))?;
            session.share(sharing);
            same_bits(&name(engine), &run(&mut session, values, sizes)?, &one)?;
        }
        let mut checkpointed = Session::<f64>::new(program, settings.checkpointing(Checkpointing::Every(2)))?;
        same_bits(&name("64 bits, every other state kept"), &run(&mut checkpointed, values, sizes)?, &one)?;
        let one = run(&mut Session::<f32>::new(program, settings)?, values, sizes)?;
        // What the program makes of rounding is asked for only where there is something to explain.
        let mut rounding = None;
        close(&name("generated code in 32 bits"), &one, &mut |e| {
            let difference = (e.given - e.expected).abs();
            if same(e.given, e.expected) || difference <= SMALL_F32 * e.largest {
                return false;
            }
            let rounding = rounding.get_or_insert_with(|| rounding_of_f32(program, values, sizes));
            difference.is_nan() || difference > LIMIT_F32 * rounding[&e.name] + SMALL_F32 * e.largest
        })?;
        let mut session = Session::<f32>::new(program, settings.threads(2))?;
        session.share(Sharing::Features);
        same_bits(&name("32 bits, two threads"), &run(&mut session, values, sizes)?, &one)?;
    }
    Ok(())
}

/// For each result of a run, by how much rounding to 32 bits moves it: the most of a few runs of the interpreter, in 64 bits,
/// in which each op rounds at random as 32 bits do. It knows nothing of how code computes, but what the program cancels,
/// divides by next to nothing or repeats a thousand times: a program that magnifies rounding is allowed what it
/// magnifies, and another is not.
pub fn rounding_of_f32(program: &Program, values: &Values, sizes: &Sizes) -> BTreeMap<String, f64> {
    let exact = numbers(&interpret(program, values, sizes));
    let mut most: BTreeMap<String, f64> = exact.keys().map(|name| (name.clone(), 0.0)).collect();
    for seed in 0..4 {
        let rounded = numbers(&interpret::interpret_rounded(program, values, sizes, f64::from(f32::EPSILON), seed));
        for (name, x) in &rounded {
            let moved = x.iter().zip(&exact[name]).map(|(a, b)| (a - b).abs()).filter(|x| x.is_finite());
            let most = most.get_mut(name).expect("both have the same results");
            *most = moved.fold(*most, f64::max);
        }
    }
    most
}

/// The largest of those that are finite.
fn largest(x: &[f64]) -> f64 {
    x.iter().filter(|x| x.is_finite()).fold(0.0, |m: f64, x| m.max(x.abs()))
}

/// Whether two numbers have the same bits, or are both NaN.
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// The element with the largest error. Both arrays are of one output.
fn worst(name: &str, given: &[f64], expected: &[f64]) -> Element {
    assert_eq!(given.len(), expected.len(), "engines give outputs of one shape");
    let largest = largest(expected);
    let element = |index| Element { name: name.into(), index, given: given[index], expected: expected[index], largest };
    let all = (0..given.len()).map(element);
    all.max_by(|a, b| a.error().total_cmp(&b.error())).expect("shapes have no dimension of 0")
}

/// Random values for all parameters and inputs: floats around 0 with standard deviation ½, integers below the input's
/// bound. Each is one that 32 bits hold. They depend on the seed and each
/// one's name and size alone. Inputs that an update replaces are 0, as they are in a session that has not been run.
pub fn values(program: &Program, sizes: &Sizes, seed: u64) -> Values {
    let mut values = rounded(&interpret::random_values(program, sizes, seed));
    for input in program.inputs.iter().filter(|i| is_stored(program, i)) {
        values.get_mut(&input.name).expect("every input has a value").x.fill(Dual::default());
    }
    values
}

/// Values that 32 bits hold, so that every engine is given the same: runs are fed no others.
fn rounded(values: &Values) -> Values {
    let mut values = values.clone();
    values.values_mut().flat_map(|data| &mut data.x).for_each(|x| x.re = f64::from(x.re as f32));
    values
}

/// Whether it belongs to the session rather than to what a run is given.
fn is_stored(program: &Program, input: &Input) -> bool {
    program.updates.iter().any(|u| u.target == input.value)
}

/// What an interpreted run gave; new values of inputs too, which runs of generated code keep for themselves.
pub fn numbers(outcome: &Outcome) -> Numbers {
    let re = |data: &Data| data.x.iter().map(|x| x.re).collect::<Vec<_>>();
    let mut all: Numbers = outcome.outputs.iter().map(|(name, data)| (name.clone(), re(data))).collect();
    all.extend(outcome.objective.map(|x| (objective_name(&all), vec![x.re])));
    all.extend(outcome.updates.iter().map(|(name, data)| (format!("new {name}"), re(data))));
    all
}

/// Runs generated code on values as [`values`] gives them.
///
/// # Errors
/// Whatever is wrong with the values of inputs.
///
/// # Panics
/// If a value is missing.
pub fn run<E: Float>(session: &mut Session<E>, values: &Values, sizes: &Sizes) -> Result<Numbers, RunError> {
    let program = session.program().clone();
    for p in &program.parameters {
        let data = &values[&p.name];
        let x = data.x.iter().map(|x| E::from_f64(x.re)).collect();
        let array = ArrayD::from_shape_vec(data.ty.shape.0.clone(), x).expect("a value of its type");
        session.set_parameter(&p.name, array.view())?;
    }
    let given = program.inputs.iter().filter(|i| !is_stored(&program, i)).map(|i| {
        let data = &values[&i.name];
        let floats: Vec<f32> = data.x.iter().map(|x| x.re as f32).collect();
        let integers: Vec<i32> = data.x.iter().map(|x| x.re as i32).collect();
        (i.name.as_str(), data.ty.dtype, full_shape(&data.ty, sizes), floats, integers)
    });
    let arrays: Vec<_> = given.collect();
    let mut feed = Feed::new().batch(sizes.batch);
    for axis in (0..program.axes.len() as u8).map(Axis) {
        feed = feed.steps(axis.letter(), sizes.steps(axis));
    }
    for (name, dtype, shape, floats, integers) in &arrays {
        feed = match dtype {
            DType::F32 => feed.f32_slice(name, shape, floats),
            DType::I32 => feed.i32_slice(name, shape, integers),
        };
    }
    session.run(&feed)?;
    Ok(results(session))
}

/// What a session's last run gave, as [`run`] gives it.
pub fn results<E: Float>(session: &Session<E>) -> Numbers {
    let program = session.program();
    let floats = |x: ArrayD<E>| x.iter().map(|&x| x.into()).collect::<Vec<f64>>();
    let mut all = Numbers::new();
    for (name, v) in &program.outputs {
        let x = match program.ty(*v).is_float() {
            true => floats(session.output(name).expect("one of its outputs")),
            false => session.output_i32(name).expect("one of its outputs").iter().map(|&x| f64::from(x)).collect(),
        };
        all.insert(name.clone(), x);
    }
    all.extend(session.objective().map(|x| (objective_name(&all), vec![x])));
    for update in &program.updates {
        if let Op::Parameter(name) = program.graph.op(update.target) {
            all.insert(format!("new {name}"), floats(session.parameter(name).expect("one of its parameters")));
        }
    }
    all
}

/// What the objective is called beside these outputs.
fn objective_name(outputs: &Numbers) -> String {
    let name = if outputs.contains_key("objective") { "the objective" } else { "objective" };
    name.to_string()
}

fn full_shape(ty: &Type, sizes: &Sizes) -> Vec<usize> {
    let rows = match ty.extent {
        Extent::Shared => vec![],
        Extent::Batch => vec![sizes.batch],
        Extent::Time(axis) => vec![sizes.steps(axis), sizes.batch],
    };
    [rows, ty.shape.0.clone()].concat()
}
