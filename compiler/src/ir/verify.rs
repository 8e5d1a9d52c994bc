//! What holds of every program between passes, checked in full.
//!
//! Of a graph: operands come before their users and petgraph's edges say the same as the operand lists; a row has at
//! least one feature and at most [`Shape::MAX_LEN`], in at most [`Shape::MAX_RANK`] dimensions; a node has the type that
//! its op's rule gives; an integer constant is a whole number of 32 bits. Of a scan: see [`scan`](super::scan). Of a
//! program: names are distinct, leaves and declarations belong together one to one, every time axis in use is
//! declared, the objective is a shared float scalar, and an update keeps the type of what it replaces.
//!
//! A [`Draft`] that keeps all rules becomes a [`Program`](super::Program). Nothing that runs a program looks at them
//! again: a rule that is missing here is memory that compiled code reaches and has not. The whole takes time linear in
//! the graph.
//!
//! A broken rule is a mistake in a text, or a fault of the pass that made the program. The error quotes the line of
//! the program as it is printed, and says which value it is about, so that the [parser](super::parse) can name the
//! place in its text.

use std::collections::HashSet;

use super::bounds::OutOfRange;
use super::graph::{Graph, Value};
use super::op::Op;
use super::ops::leaves::is_result;
use super::print::{Names, name};
use super::program::Draft;
use super::scan::Scan;
use super::types::{Axis, DType, Extent, Shape, Type};

/// A value of a program or of a body in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The scan whose body it is in.
    pub scan: Option<Value>,
    /// The value.
    pub value: Value,
}

/// Why a draft is not a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// The rule that is broken, with the line of the program's text where it is.
    pub message: String,
    /// The value that breaks it, where it is one.
    pub at: Option<At>,
}

impl From<OutOfRange> for Invalid {
    fn from(e: OutOfRange) -> Invalid {
        Invalid { message: e.to_string(), at: Some(e.at) }
    }
}

/// Of a rule that is about no single value.
impl From<String> for Invalid {
    fn from(message: String) -> Invalid {
        Invalid { message, at: None }
    }
}

impl Draft {
    /// Checks every invariant: [`verify`].
    ///
    /// # Errors
    /// The first broken rule.
    pub fn verify(&self) -> Result<(), String> {
        verify(self)
    }
}

/// Checks every invariant of a program, its graph, and its scans.
///
/// # Errors
/// The first broken rule, with the line of the program's text where it is broken.
///
/// ```
/// use retrograd_compiler::ir::{Draft, Op, Type, Extent, Unary};
/// let mut p = Draft::new("wrong");
/// let one = p.graph.scalar(1.0);
/// let v = p.graph.unary(Unary::Exp, one);
/// p.outputs.push(("e".into(), v));
/// assert_eq!(p.verify(), Ok(()));
/// *p.graph.op_mut(v) = Op::Argmax;
/// let error = p.verify().unwrap_err();
/// assert_eq!(error, "in `%0: f32 = argmax 1`: `argmax` cannot take f32: it takes floats of at least one dimension");
/// ```
pub fn verify(program: &Draft) -> Result<(), String> {
    check(program).map_err(|e| e.message)
}

/// [`verify`], with the value that breaks the rule.
pub(crate) fn check(program: &Draft) -> Result<(), Invalid> {
    let graph = &program.graph;
    check_edges(graph)?;
    let declared = program.parameters.iter().map(|p| p.value).chain(program.inputs.iter().map(|i| i.value));
    let targets = program.updates.iter().map(|u| u.target);
    check_range(graph, declared.clone().chain(targets).chain(program.roots()))?;

    let line = |v: Value| format!("in `{}`", Names::of_program(program).statement(v));
    let at = |value: Value, message: String| Invalid { message, at: Some(At { scan: None, value }) };
    check_names(program)?;
    for p in &program.parameters {
        if !matches!(graph.op(p.value), Op::Parameter(n) if *n == p.name) {
            return Err(format!("parameter {} is declared at another leaf, {}", name(&p.name), line(p.value)).into());
        }
        if !graph.is_float(p.value) || graph.ty(p.value).extent != Extent::Shared {
            let message = format!("parameter {}: {} is not shared floats", name(&p.name), graph.ty(p.value));
            return Err(at(p.value, message));
        }
    }
    for i in &program.inputs {
        if !matches!(graph.op(i.value), Op::Input(n) if *n == i.name) {
            return Err(format!("input {} is declared at another leaf, {}", name(&i.name), line(i.value)).into());
        }
        if i.bound == Some(0) || (i.bound.is_some() && graph.ty(i.value).dtype != DType::I32) {
            let message = format!("input {}: only integers have a bound, of at least 1", name(&i.name));
            return Err(at(i.value, message));
        }
    }
    for (input, axis) in &program.lengths {
        // One that nothing needs may be gone.
        let Some(i) = program.inputs.iter().find(|i| i.name == *input) else { continue };
        if *graph.ty(i.value) != Type::int(Extent::Batch, ()) || usize::from(axis.0) >= program.axes.len() {
            let message = format!("input {}: lengths are i32[B], of an axis that is declared", name(input));
            return Err(at(i.value, message));
        }
    }
    for limit in &program.limits {
        if limit.steps == 0 || usize::from(limit.axis.0) >= program.axes.len() {
            return Err("a limit of steps is at least 1, of an axis that is declared".to_string().into());
        }
    }
    let declared: HashSet<Value> = declared.collect();
    for v in graph.values() {
        let leaf = match graph.op(v) {
            Op::Parameter(_) | Op::Input(_) => declared.contains(&v),
            Op::Capture(_) | Op::Each(_) | Op::Carry(_) => false,
            _ => true,
        };
        if !leaf {
            return Err(at(v, format!("{}: the leaf is not declared in the program's head", line(v))));
        }
        check_node(graph, v, program.axes.len()).map_err(|e| at(v, format!("{}: {e}", line(v))))?;
        if let Op::Scan(scan) = graph.op(v) {
            check_scan(graph, v, scan, program.axes.len()).map_err(|e| {
                let value = e.at.unwrap_or(At { scan: None, value: v });
                Invalid { message: format!("{}: {}", line(v), e.message), at: Some(value) }
            })?;
        }
    }
    Ok(check_roots(program)?)
}

/// petgraph's edges against the operand lists, and the order of operands and users.
fn check_edges(graph: &Graph) -> Result<(), String> {
    let mut listed = Vec::new();
    for v in graph.values() {
        for (i, &operand) in graph.operands(v).iter().enumerate() {
            if operand >= v {
                let (operand, v, op) = (operand.index(), v.index(), graph.op(v).name());
                return Err(format!(
                    "operand {i} of node {v} (`{op}`) is node {operand}, which does not come before it"
                ));
            }
            listed.push((operand, v, i as u32));
        }
    }
    let mut edges: Vec<(Value, Value, u32)> = graph.edges().collect();
    listed.sort();
    edges.sort();
    if listed == edges {
        return Ok(());
    }
    let different = listed.iter().zip(&edges).find(|(l, e)| l != e).map(|(l, _)| l);
    let (_, v, i) = different.or(listed.last()).or(edges.last()).expect("one of them has more");
    Err(format!("the edges of the graph differ from its operand lists near operand {i} of node {}", v.index()))
}

fn check_range(graph: &Graph, values: impl Iterator<Item = Value>) -> Result<(), String> {
    for v in values {
        if v.index() >= graph.len() {
            return Err(format!("value {} belongs to another graph: this one has {} nodes", v.index(), graph.len()));
        }
    }
    Ok(())
}

/// Parameters and inputs are called by name and share their names; outputs have names of their own.
fn check_names(program: &Draft) -> Result<(), String> {
    fn distinct<'n>(names: impl Iterator<Item = &'n String>, of: &str) -> Result<(), String> {
        let mut seen = HashSet::new();
        match names.into_iter().find(|n| !seen.insert(n.as_str())) {
            Some(twice) => Err(format!("two {of} have the name {}", name(twice))),
            None => Ok(()),
        }
    }
    let declared = program.parameters.iter().map(|p| &p.name).chain(program.inputs.iter().map(|i| &i.name));
    distinct(declared, "parameters or inputs")?;
    distinct(program.outputs.iter().map(|(n, _)| n), "outputs")?;
    distinct(program.axes.iter(), "axes")?;
    if program.axes.len() > usize::from(Axis::MAX) {
        return Err(format!("{} time axes, where {} are allowed", program.axes.len(), Axis::MAX));
    }
    Ok(())
}

/// An axis that the program declares, of which there are so many.
fn check_axis(axis: Axis, axes: usize) -> Result<(), String> {
    if axis.0 >= Axis::MAX {
        return Err(format!("time axis {} is not one of the {}", axis.0, Axis::MAX));
    }
    if usize::from(axis.0) >= axes {
        return Err(format!("the program has no time axis {0}; declare it with `axis {0} = ..`", axis.letter()));
    }
    Ok(())
}

fn check_shape(shape: &Shape) -> Result<(), String> {
    if shape.0.contains(&0) {
        return Err("every dimension is at least 1".to_string());
    }
    if shape.rank() > Shape::MAX_RANK {
        return Err(format!("{} dimensions, where a row has at most {}", shape.rank(), Shape::MAX_RANK));
    }
    shape
        .checked_len()
        .map(|_| ())
        .ok_or_else(|| format!("{shape} has too many features; a row has at most {}", Shape::MAX_LEN))
}

/// A node against the rule of its op, in a program with so many time axes.
fn check_node(graph: &Graph, v: Value, axes: usize) -> Result<(), String> {
    let (op, operands, ty) = (graph.op(v), graph.operands(v), graph.ty(v));
    check_shape(&ty.shape)?;
    let counted = if let Op::RowCount(extent) = *op { extent } else { Extent::Shared };
    for extent in [ty.extent, counted] {
        if let Extent::Time(axis) = extent {
            check_axis(axis, axes)?;
        }
    }
    if let (Op::Constant(x), DType::I32) = (op, ty.dtype)
        && f64::from(*x as i32) != *x
    {
        return Err(format!("an integer constant is a whole number of 32 bits, not {x}"));
    }
    if op.is_leaf() && !operands.is_empty() {
        return Err("a leaf has no operands".to_string());
    }
    if !is_result(op) && operands.iter().any(|&o| matches!(graph.op(o), Op::Scan(_))) {
        return Err("only `yield`, `final` and `total` can read a scan".to_string());
    }
    let expected = match op {
        Op::Parameter(_) | Op::Input(_) | Op::Constant(_) | Op::Capture(_) | Op::Each(_) | Op::Carry(_) => {
            return Ok(());
        }
        Op::Yield(_) | Op::Final(_) | Op::Total(_) => result_type(graph, op, operands)?,
        _ => {
            let types: Vec<&Type> = operands.iter().map(|&o| graph.ty(o)).collect();
            op.infer(&types).map_err(|e| e.to_string())?
        }
    };
    if *ty != expected {
        return Err(format!("the type must be {expected}"));
    }
    Ok(())
}

fn result_type(graph: &Graph, op: &Op, operands: &[Value]) -> Result<Type, String> {
    let scan = match operands {
        [v] => graph.op(*v),
        _ => return Err("it reads one scan".to_string()),
    };
    let Op::Scan(scan) = scan else { return Err("it reads a scan, nothing else".to_string()) };
    let (i, ports) = match *op {
        Op::Yield(i) => (i, scan.yields.len()),
        Op::Final(i) => (i, scan.carries.len()),
        Op::Total(i) => (i, scan.sums.len()),
        _ => unreachable!("asked of results only"),
    };
    if i >= ports {
        return Err(format!("the scan has {ports} of these, and {i} is not among them"));
    }
    // Ports are in range: scans are checked before their results, which come behind them.
    Ok(match op {
        Op::Yield(_) => scan.yield_type(i),
        Op::Final(_) => scan.final_type(i),
        _ => scan.total_type(i),
    })
}

/// A scan: its body as a graph, then each port against the outside.
fn check_scan(graph: &Graph, scan_node: Value, scan: &Scan, axes: usize) -> Result<(), Invalid> {
    let body = &scan.body;
    check_edges(body)?;
    let leaves = scan.captures.iter().chain(&scan.each).map(|p| p.value).chain(scan.carries.iter().map(|c| c.value));
    check_range(body, leaves.chain(scan.roots()))?;
    check_axis(scan.axis, axes)?;
    for v in body.values() {
        let rule = match *body.op(v) {
            Op::Scan(_) => Some("a scan cannot stand within a scan"),
            Op::Parameter(_) | Op::Input(_) => Some("a body reads values from outside through its ports"),
            Op::Capture(i) if scan.captures.get(i).is_none_or(|p| p.value != v) => Some("no capture has this leaf"),
            Op::Each(i) if scan.each.get(i).is_none_or(|p| p.value != v) => Some("no sequence has this leaf"),
            Op::Carry(i) if scan.carries.get(i).is_none_or(|c| c.value != v) => Some("no carry has this leaf"),
            _ if matches!(body.ty(v).extent, Extent::Time(_)) => Some("a body sees one step and has no time extent"),
            _ => None,
        };
        let checked = rule.map_or_else(|| check_node(body, v, axes), |rule| Err(rule.to_string()));
        checked.map_err(|e| Invalid {
            message: format!("in `{}`: {e}", Names::of_body(scan).statement(v)),
            at: Some(At { scan: Some(scan_node), value: v }),
        })?;
    }
    Ok(check_ports(graph, scan_node, scan)?)
}

/// Each port of a scan against the outside.
fn check_ports(graph: &Graph, v: Value, scan: &Scan) -> Result<(), String> {
    let body = &scan.body;
    let at = |v: Value| format!("in `{}`", Names::of_body(scan).statement(v));

    let given = graph.operands(v).len();
    let ports = scan.captures.len() + scan.each.len() + scan.carries.len();
    if given != ports {
        return Err(format!("{given} operands for {ports} captures, sequences and initial values"));
    }
    let (captures, each, initial) = scan.split_operands(graph.operands(v));
    for (i, (port, &operand)) in scan.captures.iter().zip(captures).enumerate() {
        let (inner, outer) = (body.ty(port.value), graph.ty(operand));
        if !matches!(body.op(port.value), Op::Capture(j) if *j == i) {
            return Err(format!("capture {} is read {}, not by its own leaf", name(&port.name), at(port.value)));
        }
        if inner != outer || matches!(outer.extent, Extent::Time(_)) {
            return Err(format!(
                "capture {}: {inner} is given {outer}; both must be the same, without time",
                name(&port.name)
            ));
        }
    }
    for (i, (port, &operand)) in scan.each.iter().zip(each).enumerate() {
        let (inner, outer) = (body.ty(port.value), graph.ty(operand));
        if !matches!(body.op(port.value), Op::Each(j) if *j == i) {
            return Err(format!("sequence {} is read {}, not by its own leaf", name(&port.name), at(port.value)));
        }
        let expected = inner.at(Extent::Time(scan.axis));
        if inner.extent != Extent::Batch || *outer != expected {
            return Err(format!("sequence {}: {inner} is given {outer} instead of {expected}", name(&port.name)));
        }
    }
    for (i, (carry, &operand)) in scan.carries.iter().zip(initial).enumerate() {
        let ty = body.ty(carry.value);
        if !matches!(body.op(carry.value), Op::Carry(j) if *j == i) {
            return Err(format!("carry {} is read {}, not by its own leaf", name(&carry.name), at(carry.value)));
        }
        for (what, given) in [("starts from", graph.ty(operand)), ("becomes", body.ty(carry.next))] {
            if given != ty {
                return Err(format!("carry {}: {ty} {what} {given}; it keeps its type", name(&carry.name)));
            }
        }
    }
    for port in &scan.yields {
        let ty = body.ty(port.value);
        if ty.extent != Extent::Batch {
            return Err(format!("yield {}: {ty} has no row for each sample", name(&port.name)));
        }
    }
    for port in &scan.sums {
        let ty = body.ty(port.value);
        if !ty.is_float() {
            return Err(format!("sum {}: {ty} cannot be added up; only floats are", name(&port.name)));
        }
    }
    Ok(())
}

fn check_roots(program: &Draft) -> Result<(), String> {
    let graph = &program.graph;
    if program.roots().iter().any(|&v| matches!(graph.op(v), Op::Scan(_))) {
        return Err("an output, objective or update takes a scan itself instead of one of its results".to_string());
    }
    if let Some(v) = program.objective
        && *graph.ty(v) != Type::float(Extent::Shared, ())
    {
        return Err(format!("the objective must be a shared float scalar, not {}", graph.ty(v)));
    }
    let mut targets = HashSet::new();
    for update in &program.updates {
        // Only for who is to read it: numbering all values takes as long as all else here.
        let label = || Names::of_program(program).label(update.target);
        if !matches!(graph.op(update.target), Op::Parameter(_) | Op::Input(_)) {
            return Err(format!("update {}: only parameters and inputs are stored", label()));
        }
        let (old, new) = (graph.ty(update.target), graph.ty(update.value));
        if old != new {
            return Err(format!("update {}: {old} cannot become {new}", label()));
        }
        if !targets.insert(update.target) {
            return Err(format!("update {}: it is replaced twice", label()));
        }
    }
    Ok(())
}
