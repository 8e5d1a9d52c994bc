//! Derivatives: linearise, then transpose.
//!
//! **Forward mode** is [`jvp`]: it walks the graph once and gives each value that depends on a seed its *tangent*, by
//! the row of its op. The tangents are a linear program: every node of it is linear in the tangents it reads, with
//! values of the primal graph as coefficients.
//!
//! **Reverse mode** is [`vjp`]: the linear program of fresh symbolic tangents is transposed, node by node from its end.
//! Each linear op knows its transpose, so cotangents run from the results to the seeds; the linear program itself is
//! dropped. [`gradient`] is the case of one shared scalar.
//!
//! A **scan** is linearised into two: the primal scan, which also writes the sequences that the derivative reads
//! ([`residuals`] decides which), and a scan of tangents in the same direction. The transpose of that one is a scan in
//! the opposite direction, in which captures and sums, sequences read and written, initial and final values have
//! changed places.
//!
//! Both modes append nodes and leave the numbering of what was there; scans that are there may gain yields, behind
//! those they have. The result is ordinary graph, so second order is doing it again. The type of a tangent and of a
//! cotangent is the type of its value: extents included, which is where the sum of a weight's gradient over batch and
//! time comes from. Work and size are linear in the graph, and the order of additions is fixed by the order of nodes.

mod build;
mod linearise;
mod places;
pub mod residuals;
mod transpose;

use std::collections::BTreeMap;
use std::panic::Location;

use crate::error::Place;
use crate::ir::types::{Extent, Type};
use crate::ir::{Draft, Graph, Input, Op, Program, Value};

pub use linearise::jvp;
use places::{Arrived, Cotangent, Places};

/// Why a program has no derivative program.
#[derive(Clone, PartialEq, thiserror::Error)]
pub enum DifferentiateError {
    /// Nothing was said to be minimised.
    #[error("program `{program}` has no objective to differentiate; give it one with `minimize`")]
    NoObjective {
        /// Name of the program.
        program: String,
    },
    /// The objective is not a single number.
    #[error("the objective of program `{program}` is {given}; it must be one number, f32: sum or average it first")]
    Objective {
        /// Name of the program.
        program: String,
        /// Type of its objective.
        given: Type,
        /// Where it was made.
        location: Option<&'static Location<'static>>,
    },
    /// A value whose gradient is asked for is not a single number.
    #[error("{given} ({place}) has no gradient: only one number, f32, has one; sum or average it first")]
    NotANumber {
        /// Its type.
        given: Type,
        /// Where it was made.
        place: Place,
    },
    /// A derivative by something that is not floats.
    #[error("there is no derivative by {given} ({place}): derivatives are taken by floats")]
    NotFloats {
        /// Its type.
        given: Type,
        /// Where it was made.
        place: Place,
    },
    /// A cotangent of another type than its value.
    #[error("a value of {value} ({place}) is given a cotangent of {given}; both must be floats of one type")]
    Cotangent {
        /// Type of the value.
        value: Type,
        /// Where it was made.
        place: Place,
        /// Type of the cotangent.
        given: Type,
    },
    /// A value of another graph.
    #[error("value {index} is not one of this graph, which has {len}")]
    NoSuchValue {
        /// As given.
        index: usize,
        /// How many there are.
        len: usize,
    },
    /// A name that the derivative program needs is in use.
    #[error("program `{program}` has the name `{name}` already, which its derivative would take; rename it")]
    NameTaken {
        /// Name of the program.
        program: String,
        /// The name.
        name: String,
    },
}

crate::debug_is_display!(DifferentiateError);

/// Cotangents of `wrt` for given cotangents of other values: (value, its cotangent) → one for each of `wrt`, of its
/// type, zeros where no derivative arrives.
///
/// A value of `wrt` that another one depends on has the derivative along all paths.
///
/// # Errors
/// A value that is not of this graph, a cotangent of another type than its value, and a derivative by integers.
pub fn vjp(graph: &mut Graph, cotangents: &[(Value, Value)], wrt: &[Value]) -> Result<Vec<Value>, DifferentiateError> {
    let given = cotangents.iter().flat_map(|&(v, ct)| [v, ct]).chain(wrt.iter().copied());
    for v in given {
        in_graph(graph, v)?;
    }
    for &(v, ct) in cotangents {
        if !graph.is_float(v) || graph.ty(v) != graph.ty(ct) {
            let (value, place) = described(graph, v);
            return Err(DifferentiateError::Cotangent { value, place, given: graph.ty(ct).clone() });
        }
    }
    if let Some(&v) = wrt.iter().find(|&&v| !graph.is_float(v)) {
        let (given, place) = described(graph, v);
        return Err(DifferentiateError::NotFloats { given, place });
    }
    Ok(cotangents_of(graph, cotangents, wrt))
}

/// [`vjp`] of what has been checked.
fn cotangents_of(graph: &mut Graph, cotangents: &[(Value, Value)], wrt: &[Value]) -> Vec<Value> {
    // The linear program lives in a scratch copy; only what its transpose needs comes back.
    let mut work = graph.clone();
    let primal = work.len();
    let mut leaves = BTreeMap::new();
    for &v in wrt {
        let ty = work.ty(v).clone();
        leaves.entry(v).or_insert_with(|| work.leaf(Op::Input("tangent".to_string()), ty));
    }
    let seeds: Vec<(Value, Value)> = leaves.iter().map(|(&v, &leaf)| (v, leaf)).collect();
    let wanted: Vec<Value> = cotangents.iter().map(|&(v, _)| v).collect();
    let tangents = jvp(&mut work, &seeds, &wanted);

    let mut linear = vec![false; work.len()];
    for leaf in leaves.values() {
        linear[leaf.index()] = true;
    }
    for v in work.values().skip(primal) {
        linear[v.index()] |= work.operands(v).iter().any(|o| linear[o.index()]);
    }
    let mut arrived = vec![Arrived::default(); work.len()];
    for (tangent, &(v, ct)) in tangents.into_iter().zip(cotangents) {
        debug_assert_eq!(work.ty(v), work.ty(ct), "a cotangent has the type of its value");
        if let Some(t) = tangent {
            arrived[t.index()].add(&mut work, Cotangent::new(ct));
        }
    }
    let mut places = Places::default();
    transpose::transpose(&mut work, &linear, &mut arrived, &mut places, None);

    for v in graph.values().filter(|&v| matches!(work.op(v), Op::Scan(_))) {
        *graph.op_mut(v) = work.op(v).clone();
    }
    let sum = |v: &Value| {
        let ct = places.sum(&mut work, &arrived[leaves[v].index()])?;
        Some(places.settle(&mut work, ct))
    };
    let arrived: Vec<Option<Value>> = wrt.iter().map(sum).collect();
    let mut map: Vec<Option<Value>> = work.values().map(|v| (v.index() < primal).then_some(v)).collect();
    build::copy_into(graph, &work, &mut map, arrived.iter().copied().flatten());
    let zeros = |graph: &mut Graph, v: Value| graph.constant(0.0, graph.ty(v).clone());
    arrived
        .into_iter()
        .zip(wrt)
        .map(|(ct, &v)| ct.map_or_else(|| zeros(graph, v), |ct| map[ct.index()].expect("copied just now")))
        .collect()
}

/// The derivative of a shared scalar with respect to each of `wrt`, of its type, zeros where there is no path.
///
/// ```
/// use retrograd_compiler::differentiate::gradient;
/// use retrograd_compiler::ir::Program;
///
/// let program = Program::record("norm", |p| {
///     let x = p.input("x", 3);
///     p.output("squares", x.square());
///     p.output("norm", x.square().sum().mean_rows());
/// })?;
/// let [x, squares, norm] = [program.input("x").map(|x| x.value), program.output("squares"), program.output("norm")];
/// let (x, squares, norm) = (x.unwrap(), squares.unwrap(), norm.unwrap());
/// let mut draft = program.into_draft();
/// assert_eq!(gradient(&mut draft.graph, norm, &[x])?.len(), 1);
/// let error = gradient(&mut draft.graph, squares, &[x]).unwrap_err().to_string();
/// assert!(error.starts_with("f32[B, 3] (") && error.contains("has no gradient: only one number"), "{error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// An objective that is not one number, and what [`vjp`] says of `wrt`.
pub fn gradient(graph: &mut Graph, objective: Value, wrt: &[Value]) -> Result<Vec<Value>, DifferentiateError> {
    in_graph(graph, objective)?;
    if *graph.ty(objective) != scalar() {
        let (given, place) = described(graph, objective);
        return Err(DifferentiateError::NotANumber { given, place });
    }
    let one = graph.scalar(1.0);
    vjp(graph, &[(objective, one)], wrt)
}

/// A value's type, and where it was made, for an error.
fn described(graph: &Graph, v: Value) -> (Type, Place) {
    (graph.ty(v).clone(), Place(graph.node(v).location))
}

/// Whether a value is one of the graph.
fn in_graph(graph: &Graph, v: Value) -> Result<(), DifferentiateError> {
    let (index, len) = (v.index(), graph.len());
    if index < len { Ok(()) } else { Err(DifferentiateError::NoSuchValue { index, len }) }
}

impl Program {
    /// The joint program: all of this one, and its objective's derivative with respect to each trained parameter `p` as
    /// the output `d.p`.
    ///
    /// ```
    /// use retrograd_compiler::interpret::{interpret, random_values};
    /// use retrograd_compiler::ir::{Program, Sizes};
    ///
    /// let square = Program::parse(
    ///     "program square {
    ///       parameter w: f32 = normal(1)
    ///       %0: f32 = mul w, w
    ///       objective %0
    ///     }",
    /// )?;
    /// let joint = square.backward()?;
    /// let sizes = Sizes::new(1, 1);
    /// let values = random_values(&joint, &sizes, 0);
    /// let gradient = &interpret(&joint, &values, &sizes).outputs["d.w"];
    /// assert_eq!(gradient.x[0].re, 2.0 * values["w"].x[0].re);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// There is no objective or it is not one number, or an output has such a name already.
    pub fn backward(&self) -> Result<Program, DifferentiateError> {
        let program = || self.name.clone();
        let objective = self.objective.ok_or_else(|| DifferentiateError::NoObjective { program: program() })?;
        if *self.ty(objective) != scalar() {
            let node = self.graph.node(objective);
            let (given, location) = (node.ty.clone(), node.location);
            return Err(DifferentiateError::Objective { program: program(), given, location });
        }
        let mut joint = self.to_draft();
        let wrt: Vec<Value> = self.trained().map(|(_, v)| v).collect();
        let gradients = gradient(&mut joint.graph, objective, &wrt)?;
        for ((name, _), ct) in self.trained().zip(gradients) {
            joint.add_output(format!("d.{name}"), ct)?;
        }
        Ok(joint.by_pass())
    }

    /// The program of forward mode: all of this one, an input `dot.p` for the tangent of each trained parameter `p`,
    /// and the tangents along them of each float output `o` and of the objective as outputs `dot.o` and
    /// `dot.objective`.
    ///
    /// # Errors
    /// An input or output has such a name already.
    pub fn jvp(&self) -> Result<Program, DifferentiateError> {
        let mut joint = self.to_draft();
        let mut seeds = Vec::new();
        for (name, v) in self.trained() {
            let name = format!("dot.{name}");
            if self.input(&name).is_some() {
                return Err(DifferentiateError::NameTaken { program: self.name.clone(), name });
            }
            let value = joint.graph.leaf(Op::Input(name.clone()), self.ty(v).clone());
            joint.inputs.push(Input { name, value, bound: None });
            seeds.push((v, value));
        }
        let outputs = self.outputs.iter().filter(|(_, v)| self.graph.is_float(*v));
        let objective = self.objective.map(|v| ("objective".to_string(), v));
        let wanted: Vec<(String, Value)> = outputs.cloned().chain(objective).collect();
        let values: Vec<Value> = wanted.iter().map(|(_, v)| *v).collect();
        let tangents = jvp(&mut joint.graph, &seeds, &values);
        for ((name, v), tangent) in wanted.into_iter().zip(tangents) {
            let tangent = tangent.unwrap_or_else(|| joint.graph.constant(0.0, self.ty(v).clone()));
            joint.add_output(format!("dot.{name}"), tangent)?;
        }
        Ok(joint.by_pass())
    }

    /// The parameters with which derivatives are taken.
    fn trained(&self) -> impl Iterator<Item = (&str, Value)> {
        let trained = self.parameters.iter().filter(|p| p.trained && self.graph.is_float(p.value));
        trained.map(|p| (p.name.as_str(), p.value))
    }
}

impl Draft {
    fn add_output(&mut self, name: String, value: Value) -> Result<(), DifferentiateError> {
        if self.output(&name).is_some() {
            return Err(DifferentiateError::NameTaken { program: self.name.clone(), name });
        }
        self.outputs.push((name, value));
        Ok(())
    }
}

fn scalar() -> Type {
    Type::float(Extent::Shared, ())
}
