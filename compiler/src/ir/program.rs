//! A graph with a face: named parameters, inputs and outputs, and what to minimise.

use super::graph::{Graph, Value};
use super::types::{Axis, Extent, Type};

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

/// A trained value.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Full name, scopes joined by dots: `encoder.gates.w`.
    pub name: String,
    /// Its leaf in the graph.
    pub value: Value,
    /// How it starts.
    pub init: Init,
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

/// A recorded program, before or after any pass on graphs.
#[derive(Clone, Debug, Default)]
pub struct Program {
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
}

impl Program {
    /// An empty program.
    pub fn new(name: impl Into<String>) -> Program {
        Program { name: name.into(), ..Program::default() }
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
