//! A graph with a face: named parameters, inputs and outputs, and what to minimise.
//!
//! Two types say how much is known of it. A [`Draft`] is open: its fields can be set to anything. A [`Program`] has
//! been verified, once, and cannot be changed afterwards: whoever has one need not check it again, and nothing that
//! compiles or runs takes anything else.

use std::ops::Deref;

use super::bounds;
use super::graph::{Graph, Value};
use super::types::{Axis, Extent, Type};
use super::verify::{Invalid, check};
use crate::error::Place;

/// How a parameter starts. Fans are those of the whole matrix: `[fan_in, fan_out]` for a weight that is
/// multiplied from the right (`x · W`); for more dimensions the leading ones count as fan-in.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// The same value everywhere.
    Constant(f64),
    /// Uniform in `[low, high)`.
    Uniform(f64, f64),
    /// Normal with mean 0.
    Normal(f64),
    /// Glorot & Bengio (2010): uniform in ±√(6 / (fan_in + fan_out)).
    Glorot,
    /// He et al. (2015): normal with standard deviation √(2 / fan_in).
    He,
    /// Saxe et al. (2014): a random matrix with orthonormal rows or columns, times a gain.
    Orthogonal(f64),
    /// Equal pieces of the last dimension, each with its own initialiser: the gates of a cell.
    Pieces(Vec<Init>),
}

impl Init {
    /// Pieces within pieces, at most.
    pub const MAX_DEPTH: usize = 16;
}

/// A stored value that all runs of a program share: a weight, or a statistic that training keeps.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Full name, scopes joined by dots: `encoder.gates.w`.
    pub name: String,
    /// Its leaf in the graph.
    pub value: Value,
    /// How it starts.
    pub init: Init,
    /// Whether training changes it by its gradient. What is not trained has none: a weight that is frozen, or a
    /// statistic, which changes by an [`Update`] of its own.
    pub trained: bool,
}

/// A value that is given at each run.
#[derive(Clone, Debug)]
pub struct Input {
    /// Name by which runs give it.
    pub name: String,
    /// Its leaf in the graph.
    pub value: Value,
    /// For integers, one more than the largest value allowed: they index something of this size.
    pub bound: Option<usize>,
}

/// A stored value that a run replaces: a parameter, a moment of an optimiser, a state carried to the next window.
#[derive(Clone, Debug)]
pub struct Update {
    /// The leaf that holds the old value: a parameter or an input.
    pub target: Value,
    /// The new value, of the same type.
    pub value: Value,
}

/// A program in the making: anything may be changed, and nothing is known of it until [`finish`](Draft::finish) has
/// looked.
///
/// Passes of this crate, and tests that build graphs by hand, work on drafts. What compiles and runs takes a
/// [`Program`].
///
/// ```
/// use retrograd_compiler::ir::{Draft, Input, Op, Type, Extent, Unary};
/// let mut draft = Draft::new("by hand");
/// let x = draft.graph.leaf(Op::Input("x".into()), Type::float(Extent::Batch, 3));
/// draft.inputs.push(Input { name: "x".into(), value: x, bound: None });
/// let y = draft.graph.unary(Unary::Exp, x);
/// draft.outputs.push(("y".into(), y));
/// let program = draft.finish()?;
/// assert_eq!(program.ty(y), program.ty(x));
/// # Ok::<(), retrograd_compiler::ir::verify::Invalid>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Name for texts.
    pub name: String,
    /// Operations.
    pub graph: Graph,
    /// Trained values, in the order they were made.
    pub parameters: Vec<Parameter>,
    /// Given values, in the order they were made.
    pub inputs: Vec<Input>,
    /// Named results.
    pub outputs: Vec<(String, Value)>,
    /// The shared scalar that training minimises.
    pub objective: Option<Value>,
    /// Stored values that a run replaces, after all else.
    pub updates: Vec<Update>,
    /// Names of the time axes in use, by number.
    pub axes: Vec<String>,
    /// Inputs `i32[B]`, by name, that say how many steps of an axis are each sample's own. What labels on that axis are past
    /// a sample's end does not matter.
    pub lengths: Vec<(String, Axis)>,
    /// Axes of which a run has at most so many steps.
    pub limits: Vec<Limit>,
    /// Numbers of integer inputs that stand for no index: [`bounds`] finds them.
    pub ignored: Vec<Ignored>,
}

/// The most steps of an axis that the program takes: a loop over it keeps so many things, and not one more.
///
/// Where samples have lengths of their own on the axis, the longest counts, not the padding. States that are carried
/// from run to run carry the count of steps on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// The axis.
    pub axis: Axis,
    /// The most steps, at least 1.
    pub steps: usize,
    /// Where it was recorded; texts do not say.
    pub place: Place,
}

/// A number of an integer input that stands for no index, and is replaced before one is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The input's leaf.
    pub value: Value,
    /// All other numbers are from 0 to below this.
    pub rows: usize,
    /// The number.
    pub number: i32,
}

/// A well-formed program, before or after any pass on graphs.
///
/// What [`verify`](super::verify) asks for holds, and every integer input that reaches a table has its
/// [bound](super::bounds). It stays so: the fields of the [`Draft`] that it dereferences to can be read and not
/// changed. Recording, parsing, passes and [`Draft::finish`] make programs.
///
/// ```compile_fail
/// # use retrograd_compiler::ir::Program;
/// let mut program = Program::record("p", |p| p.output("x", p.input("x", 3)))?;
/// program.outputs.clear(); // refused: a program is read-only
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
#[derive(Clone, Debug)]
pub struct Program(Draft);

impl Deref for Program {
    type Target = Draft;
    fn deref(&self) -> &Draft {
        &self.0
    }
}

impl Program {
    /// A copy that can be changed.
    pub fn to_draft(&self) -> Draft {
        self.0.clone()
    }

    /// The program itself, to be changed.
    pub fn into_draft(self) -> Draft {
        self.0
    }

    /// The same program without the outputs whose names are not to be kept.
    ///
    /// ```
    /// use retrograd_compiler::ir::Program;
    /// let program = Program::record("two", |p| {
    ///     let x = p.input("x", 3);
    ///     p.output("sum", x.sum());
    ///     p.output("max", x.max());
    /// })?;
    /// let one = program.with_outputs(|name| name == "sum");
    /// assert_eq!(one.outputs.len(), 1);
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    #[must_use]
    pub fn with_outputs(&self, keep: impl Fn(&str) -> bool) -> Program {
        let mut draft = self.to_draft();
        draft.outputs.retain(|(name, _)| keep(name));
        Program(draft)
    }

    /// The same program with the parameters of these names not trained: they have no gradient.
    ///
    /// ```
    /// use retrograd_compiler::ir::Program;
    /// let program = Program::record("line", |p| p.minimize(p.affine("line", p.input("x", 1), 1).square().sum()))?;
    /// assert!(program.freeze(|name| name == "line.b").backward()?.output("d.line.b").is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn freeze(&self, names: impl Fn(&str) -> bool) -> Program {
        let mut draft = self.to_draft();
        for parameter in &mut draft.parameters {
            parameter.trained &= !names(&parameter.name);
        }
        Program(draft)
    }

    /// The same program with nothing to minimise.
    ///
    /// ```
    /// use retrograd_compiler::ir::Program;
    /// let program = Program::record("loss", |p| p.minimize(p.input("x", ()).square()))?;
    /// assert!(program.without_objective().objective.is_none());
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    #[must_use]
    pub fn without_objective(&self) -> Program {
        Program(Draft { objective: None, ..self.to_draft() })
    }
}

impl Draft {
    /// The program of a pass, which keeps the rules by construction.
    pub(crate) fn by_pass(self) -> Program {
        Program(self)
    }

    /// The program that this is.
    ///
    /// # Errors
    /// The first rule of [`verify`](super::verify) that is broken, or an integer that can exceed a table that it
    /// reaches.
    pub fn finish(mut self) -> Result<Program, Invalid> {
        check(&self)?;
        match bounds::derive(&mut self).into_iter().next() {
            Some(mistake) => Err(mistake.into()),
            None => Ok(Program(self)),
        }
    }
}

impl Draft {
    /// An empty draft.
    pub fn new(name: impl Into<String>) -> Draft {
        Draft { name: name.into(), ..Draft::default() }
    }

    /// All values that a run must compute.
    pub fn roots(&self) -> Vec<Value> {
        let outputs = self.outputs.iter().map(|(_, v)| *v);
        outputs.chain(self.objective).chain(self.updates.iter().map(|u| u.value)).collect()
    }

    /// A parameter by name.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.name == name)
    }

    /// An input by name.
    pub fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|i| i.name == name)
    }

    /// An output by name.
    pub fn output(&self, name: &str) -> Option<Value> {
        self.outputs.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }

    /// Type of a value of its graph.
    pub fn ty(&self, v: Value) -> &Type {
        self.graph.ty(v)
    }

    /// Time axes that some value has.
    pub fn time_axes(&self) -> Vec<Axis> {
        let mut axes: Vec<Axis> = self
            .graph
            .values()
            .filter_map(|v| match self.ty(v).extent {
                Extent::Time(axis) => Some(axis),
                _ => None,
            })
            .collect();
        axes.sort();
        axes.dedup();
        axes
    }
}
