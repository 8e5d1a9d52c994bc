//! What holds of every program between passes, checked in full.
//!
//! Of a graph: operands come before their users and petgraph's edges say the same as the operand lists; every
//! dimension is at least 1; a node has the type that its op's rule gives. Of a scan: see [`scan`](super::scan).
//! Of a program: names are distinct, leaves and declarations belong together one to one, the objective is a shared
//! float scalar, and an update keeps the type of what it replaces.
//!
//! A program that breaks a rule is a fault of the pass that made it, so errors are texts for whoever mends that
//! pass: they quote the line of the program as it is printed.

use std::collections::HashSet;

use super::graph::{Graph, Value};
use super::op::Op;
use super::ops::leaves::is_result;
use super::print::{Names, name};
use super::program::Program;
use super::scan::Scan;
use super::types::{Axis, DType, Extent, Type};

impl Program {
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
/// use retrograd_compiler::ir::{Op, Program, Type, Extent, Unary};
/// let mut p = Program::new("wrong");
/// let one = p.graph.scalar(1.0);
/// let v = p.graph.unary(Unary::Exp, one);
/// p.outputs.push(("e".into(), v));
/// assert_eq!(p.verify(), Ok(()));
/// *p.graph.op_mut(v) = Op::Argmax;
/// let error = p.verify().unwrap_err();
/// assert_eq!(error, "in `%0: f32 = argmax 1`: `argmax` cannot take f32: it takes floats of at least one dimension");
/// ```
pub fn verify(program: &Program) -> Result<(), String> {
    let graph = &program.graph;
    check_edges(graph)?;
    let declared = program.parameters.iter().map(|p| p.value).chain(program.inputs.iter().map(|i| i.value));
    let targets = program.updates.iter().map(|u| u.target);
    check_range(graph, declared.chain(targets).chain(program.roots()))?;

    let at = |v: Value| format!("in `{}`", Names::of_program(program).statement(v));
    check_names(program)?;
    for p in &program.parameters {
        if !matches!(graph.op(p.value), Op::Parameter(n) if *n == p.name) {
            return Err(format!("parameter {} is declared at another leaf, {}", name(&p.name), at(p.value)));
        }
        if !graph.is_float(p.value) || graph.ty(p.value).extent != Extent::Shared {
            return Err(format!("parameter {}: {} is not shared floats", name(&p.name), graph.ty(p.value)));
        }
    }
    for i in &program.inputs {
        if !matches!(graph.op(i.value), Op::Input(n) if *n == i.name) {
            return Err(format!("input {} is declared at another leaf, {}", name(&i.name), at(i.value)));
        }
        if i.bound == Some(0) || (i.bound.is_some() && graph.ty(i.value).dtype != DType::I32) {
            return Err(format!("input {}: only integers have a bound, of at least 1", name(&i.name)));
        }
    }
    for v in graph.values() {
        let leaf = match graph.op(v) {
            Op::Parameter(_) => program.parameters.iter().any(|p| p.value == v),
            Op::Input(_) => program.inputs.iter().any(|i| i.value == v),
            Op::Capture(_) | Op::Each(_) | Op::Carry(_) => false,
            _ => true,
        };
        if !leaf {
            return Err(format!("{}: the leaf is not declared in the program's head", at(v)));
        }
        check_node(graph, v).map_err(|e| format!("{}: {e}", at(v)))?;
        if let Op::Scan(scan) = graph.op(v) {
            check_scan(graph, v, scan).map_err(|e| format!("{}: {e}", at(v)))?;
        }
    }
    check_roots(program)
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
fn check_names(program: &Program) -> Result<(), String> {
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

/// A node against the rule of its op.
fn check_node(graph: &Graph, v: Value) -> Result<(), String> {
    let (op, operands, ty) = (graph.op(v), graph.operands(v), graph.ty(v));
    if ty.shape.is_empty() {
        return Err("every dimension is at least 1".to_string());
    }
    let counted = if let Op::RowCount(extent) = *op { extent } else { Extent::Shared };
    for extent in [ty.extent, counted] {
        if let Extent::Time(axis) = extent
            && axis.0 >= Axis::MAX
        {
            return Err(format!("time axis {} is not one of the {}", axis.0, Axis::MAX));
        }
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
fn check_scan(graph: &Graph, v: Value, scan: &Scan) -> Result<(), String> {
    let body = &scan.body;
    check_edges(body)?;
    let leaves = scan.captures.iter().chain(&scan.each).map(|p| p.value).chain(scan.carries.iter().map(|c| c.value));
    check_range(body, leaves.chain(scan.roots()))?;
    if scan.axis.0 >= Axis::MAX {
        return Err(format!("time axis {} is not one of the {}", scan.axis.0, Axis::MAX));
    }

    let at = |v: Value| format!("in `{}`", Names::of_body(scan).statement(v));
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
        if let Some(rule) = rule {
            return Err(format!("{}: {rule}", at(v)));
        }
        check_node(body, v).map_err(|e| format!("{}: {e}", at(v)))?;
    }

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
    Ok(())
}

fn check_roots(program: &Program) -> Result<(), String> {
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
