//! A loop over time as one node.
//!
//! The body is a graph of its own for one step. It reads **captures** (values from outside, the same at every
//! step), **each** (row block t of a sequence) and **carries** (the state before the step), and gives the carries'
//! next values, **yields** (row block t of a new sequence) and **sums** (a value added up over the steps).
//! The node's operands are the captures, the sequences, and the initial values of the carries, in this order;
//! its results are taken by [`Op::Yield`](super::Op), [`Op::Final`](super::Op) and [`Op::Total`](super::Op) nodes.
//!
//! The six are three pairs, and transposition swaps each pair: a capture's adjoint is a sum, a sequence's a yield,
//! an initial value's a final one. So the transpose of a linear scan is a scan that runs the other way.
//!
//! Types: a body has no time extent. A sequence `[T, B, ..]` is read as `[B, ..]`; a yield of `[B, ..]` makes
//! `[T, B, ..]`; a shared value cannot be yielded; a total has the type of the summed value; captures are shared
//! or batch values; a carry keeps its type.

use super::graph::{Graph, Value};
use super::types::{Axis, Extent, Type};

/// A state of a scan.
#[derive(Clone, Debug, PartialEq)]
pub struct Carry {
    /// Name for texts, such as `h`.
    pub name: String,
    /// Value before the step: an [`Op::Carry`](super::Op) leaf of the body.
    pub value: Value,
    /// Value after it.
    pub next: Value,
}

/// A named value of a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Name for texts.
    pub name: String,
    /// The leaf that reads it, or the value that is given out.
    pub value: Value,
}

/// A loop over one time axis. See the module's text.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Name for texts and for scopes of parameters.
    pub name: String,
    /// The time axis.
    pub axis: Axis,
    /// Whether it runs from the last step to the first.
    pub reverse: bool,
    /// One step.
    pub body: Graph,
    /// Values from outside, one [`Op::Capture`](super::Op) leaf each.
    pub captures: Vec<Port>,
    /// Sequences read, one [`Op::Each`](super::Op) leaf each.
    pub each: Vec<Port>,
    /// States.
    pub carries: Vec<Carry>,
    /// Sequences written.
    pub yields: Vec<Port>,
    /// Values added up over the steps.
    pub sums: Vec<Port>,
}

impl Scan {
    /// A scan with an empty body.
    pub fn new(name: impl Into<String>, axis: Axis, reverse: bool) -> Scan {
        Scan {
            name: name.into(),
            axis,
            reverse,
            body: Graph::new(),
            captures: Vec::new(),
            each: Vec::new(),
            carries: Vec::new(),
            yields: Vec::new(),
            sums: Vec::new(),
        }
    }

    /// The three parts of the node's operands: captures, sequences, initial values.
    pub fn split_operands<'a>(&self, operands: &'a [Value]) -> (&'a [Value], &'a [Value], &'a [Value]) {
        let (captures, rest) = operands.split_at(self.captures.len());
        let (each, initial) = rest.split_at(self.each.len());
        (captures, each, initial)
    }

    /// All body values that something outside or the next step reads.
    pub fn roots(&self) -> Vec<Value> {
        let ports = self.yields.iter().chain(&self.sums).map(|p| p.value);
        self.carries.iter().map(|c| c.next).chain(ports).collect()
    }

    /// Outside type of a yield.
    pub fn yield_type(&self, i: usize) -> Type {
        self.body.ty(self.yields[i].value).at(Extent::Time(self.axis))
    }

    /// Outside type of a carry's last value.
    pub fn final_type(&self, i: usize) -> Type {
        self.body.ty(self.carries[i].value).clone()
    }

    /// Outside type of a sum.
    pub fn total_type(&self, i: usize) -> Type {
        self.body.ty(self.sums[i].value).clone()
    }
}
