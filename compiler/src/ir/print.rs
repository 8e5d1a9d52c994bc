//! A program as text: flat, typed, one value a line, and the same text for the same program.
//!
//! ```text
//! program sums {
//!   axis T = time
//!   sequence rows: f32[T, B, 3]
//!   parameter w: f32[3] = glorot
//!   scan total reverse {
//!     shared w: f32[3] = w
//!     each x: f32[B, 3] = rows
//!     carry h: f32[B, 3] = 0
//!     %0: f32[B, 3] = mul x, w
//!     %1: f32[B, 3] = add h, %0
//!     yield all = %1
//!     next h = %1
//!   }
//!   %0: f32[T, B, 3] = yield all of total
//!   %1: f32[B, 3] = final h of total
//!   %2: f32[B, 1] = sum %1
//!   output all = %0
//!   output last = %2
//! }
//! ```
//!
//! What a text says, it says once, and [`parse`](super::parse) reads it back:
//!
//! * Inputs (`sequence`, `batch` or `shared`, after their extent) and parameters (`parameter`, or `untrained`) are
//!   declared at the head and called by name. A name that is not a plain word is quoted.
//! * Other values are numbered while printing, in the order of the graph and only if a root needs them, so dead nodes
//!   leave no trace. A body has numbers of its own: values come in through its head and nowhere else.
//! * Shared scalar constants stand where they are used, and so do constants that a state starts from: these have
//!   the state's type.
//! * Attributes that the type of the result shows (the shape of a `sum`, the extent of an `expand`) are not
//!   repeated; others stand behind the operands. An axis of 0 is left out.
//! * Equal names of scans, or of a scan's ports, are told apart by a number behind a dot. Names are for texts only,
//!   so the program that is read back computes the same.
//!
//! Printing has no precondition but that values belong to their graphs: a program that [`verify`](super::verify)
//! rejects has a text too, since its errors quote it.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::graph::{Graph, Value};
use super::op::{Op, Unary};
use super::ops::leaves::is_result;
use super::program::{Draft, Init, Program};
use super::scan::Scan;
use super::types::{Axis, Extent, Type};

/// What the values of one graph are called in its text.
pub(crate) struct Names<'a> {
    graph: &'a Graph,
    /// A declared name, a number such as `%3`, the text of a constant, or the name of a scan;
    /// nothing for a value that is not printed.
    labels: Vec<Option<String>>,
    /// Ports of the scans that have results.
    ports: HashMap<Value, Ports>,
}

/// The names of a scan's ports, made distinct.
pub(crate) struct Ports {
    /// Captures, sequences and carries, in the order of the node's operands: the names that the body reads.
    pub leaves: Vec<String>,
    pub yields: Vec<String>,
    pub sums: Vec<String>,
    /// Where in `leaves` the carries start.
    carries: usize,
}

/// Gives out names, each once.
#[derive(Default)]
struct Distinct {
    taken: HashSet<String>,
    /// The last number behind each name that was wanted again.
    counts: HashMap<String, usize>,
}

impl Distinct {
    /// The name itself if it is free, else the first free one of `name.2`, `name.3`, ..: distinct names stay as
    /// they are, so that a text read back prints the same.
    fn of(&mut self, wanted: &str) -> String {
        let mut given = wanted.to_string();
        while !self.taken.insert(given.clone()) {
            // All smaller numbers are taken.
            let count = self.counts.entry(wanted.to_string()).or_insert(1);
            *count += 1;
            given = format!("{wanted}.{count}");
        }
        name(&given)
    }
}

impl Ports {
    pub fn of(scan: &Scan) -> Ports {
        fn distinct<'n>(names: impl Iterator<Item = &'n String>) -> Vec<String> {
            let mut taken = Distinct::default();
            names.map(|name| taken.of(name)).collect()
        }
        let read = scan.captures.iter().chain(&scan.each).map(|p| &p.name);
        Ports {
            leaves: distinct(read.chain(scan.carries.iter().map(|c| &c.name))),
            yields: distinct(scan.yields.iter().map(|p| &p.name)),
            sums: distinct(scan.sums.iter().map(|p| &p.name)),
            carries: scan.captures.len() + scan.each.len(),
        }
    }

    pub fn carry(&self, i: usize) -> Option<&String> {
        self.leaves.get(self.carries + i)
    }
}

impl<'a> Names<'a> {
    pub fn of_program(program: &'a Draft) -> Names<'a> {
        let inputs = program.inputs.iter().map(|i| (i.value, name(&i.name)));
        let parameters = program.parameters.iter().map(|p| (p.value, name(&p.name)));
        Names::new(&program.graph, inputs.chain(parameters), program.roots())
    }

    pub fn of_body(scan: &'a Scan) -> Names<'a> {
        let values = scan.captures.iter().chain(&scan.each).map(|p| p.value);
        let values = values.chain(scan.carries.iter().map(|c| c.value));
        Names::new(&scan.body, values.zip(Ports::of(scan).leaves), scan.roots())
    }

    fn new(graph: &'a Graph, declared: impl Iterator<Item = (Value, String)>, roots: Vec<Value>) -> Names<'a> {
        let mut labels = vec![None; graph.len()];
        for (v, name) in declared {
            labels[v.index()] = Some(name);
        }
        let needed = graph.reachable(roots.iter().copied());
        // A constant that states alone start from needs no line.
        let mut lined = vec![false; graph.len()];
        roots.iter().for_each(|v| lined[v.index()] = true);
        for v in graph.values().filter(|v| needed[v.index()]) {
            for (i, operand) in graph.operands(v).iter().enumerate() {
                lined[operand.index()] |= !starts_inline(graph, v, i);
            }
        }
        let (mut scans, mut count) = (Distinct::default(), 0);
        for v in graph.values().filter(|v| needed[v.index()]) {
            let label = match graph.op(v) {
                Op::Scan(scan) => scans.of(&scan.name),
                Op::Constant(c) if is_scalar(graph.ty(v)) || !lined[v.index()] => number(*c),
                _ if labels[v.index()].is_some() => continue,
                _ => {
                    count += 1;
                    format!("%{}", count - 1)
                }
            };
            labels[v.index()] = Some(label);
        }
        let read = graph.values().filter(|&v| needed[v.index()] && is_result(graph.op(v)));
        let mut ports = HashMap::new();
        for &scan in read.filter_map(|v| graph.operands(v).first()) {
            if let Op::Scan(s) = graph.op(scan) {
                ports.entry(scan).or_insert_with(|| Ports::of(s));
            }
        }
        Names { graph, labels, ports }
    }

    pub fn graph(&self) -> &'a Graph {
        self.graph
    }

    pub fn ty(&self, v: Value) -> &'a Type {
        self.graph.ty(v)
    }

    /// What stands for a value where it is used.
    pub fn label(&self, v: Value) -> String {
        self.labels.get(v.index()).cloned().flatten().unwrap_or_else(|| format!("#{}", v.index()))
    }

    /// The values that have a line or a block of their own.
    pub fn statements(&self) -> impl Iterator<Item = Value> + '_ {
        self.graph.values().filter(|&v| {
            let label = self.labels[v.index()].as_ref();
            label.is_some_and(|l| l.starts_with('%') || matches!(self.graph.op(v), Op::Scan(_)))
        })
    }

    /// `%2: f32[B, 128] = sub 1, %1`
    pub fn statement(&self, v: Value) -> String {
        match self.graph.op(v) {
            Op::Scan(scan) => format!("scan {}{}", self.label(v), direction(scan)),
            _ => format!("{}: {} = {}", self.label(v), self.graph.ty(v), self.expression(v)),
        }
    }

    /// `sub 1, %1`
    pub fn expression(&self, v: Value) -> String {
        let op = self.graph.op(v);
        let operands: Vec<String> = self.graph.operands(v).iter().map(|&o| self.label(o)).collect();
        let mut text = op.name().to_string();
        if let Op::MatMul { ta, tb } = op {
            text += match (ta, tb) {
                (false, false) => "",
                (true, false) => ".tn",
                (false, true) => ".nt",
                (true, true) => ".tt",
            };
        }
        if let Op::Yield(i) | Op::Final(i) | Op::Total(i) = op {
            return format!("{text} {} of {}", self.port(v).unwrap_or(format!("#{i}")), operands.join(", "));
        }
        if !operands.is_empty() {
            text = format!("{text} {}", operands.join(", "));
        }
        text + &attributes(op)
    }

    /// The port that a result of a scan takes.
    fn port(&self, v: Value) -> Option<String> {
        let scan = *self.graph.operands(v).first()?;
        // A result that no root needs is only printed for an error.
        let of_dead;
        let ports = match (self.ports.get(&scan), self.graph.op(scan)) {
            (Some(ports), _) => ports,
            (None, Op::Scan(scan)) => {
                of_dead = Ports::of(scan);
                &of_dead
            }
            _ => return None,
        };
        match *self.graph.op(v) {
            Op::Yield(i) => ports.yields.get(i).cloned(),
            Op::Final(i) => ports.carry(i).cloned(),
            Op::Total(i) => ports.sums.get(i).cloned(),
            _ => None,
        }
    }

    /// What a state of a scan starts from, as written at the head of the scan.
    pub fn initial(&self, scan: Value, operand: usize) -> String {
        let v = self.graph.operands(scan)[operand];
        match self.graph.op(v) {
            Op::Constant(c) => number(*c),
            _ => self.label(v),
        }
    }
}

/// Whether operand `i` of a node is a constant that a state of a scan starts from.
pub(crate) fn starts_inline(graph: &Graph, node: Value, i: usize) -> bool {
    let Op::Scan(scan) = graph.op(node) else { return false };
    i >= scan.captures.len() + scan.each.len() && matches!(graph.op(graph.operands(node)[i]), Op::Constant(_))
}

/// Constants of this type stand where they are used.
fn is_scalar(ty: &Type) -> bool {
    *ty == Type::float(Extent::Shared, ())
}

/// What the result's type does not say. Every op is listed: a new one must decide.
fn attributes(op: &Op) -> String {
    let along = |axis: usize| if axis == 0 { String::new() } else { format!(" axis={axis}") };
    match op {
        Op::Parameter(text) | Op::Input(text) => format!(" {}", name(text)),
        Op::Constant(c) => format!(" {}", number(*c)),
        Op::RowCount(extent) => format!(" [{}]", extent.letters()),
        Op::Capture(i) | Op::Each(i) | Op::Carry(i) => format!(" #{i}"),
        Op::Unary(Unary::Powi(n)) => format!(" n={n}"),
        Op::Norm(norm) | Op::Divisor(norm) => format!(" epsilon={}", number(norm.epsilon)),
        Op::Transpose(perm) => format!(" perm={perm:?}"),
        Op::Slice { axis, start, len } => format!(" {start}..{}{}", start.saturating_add(*len), along(*axis)),
        Op::Pad { axis, before, after } => format!(" before={before} after={after}{}", along(*axis)),
        Op::Concat(axis) => along(*axis),
        // In the name, the type, or the words of the line.
        Op::Unary(_) | Op::Binary(_) | Op::Select | Op::StopGradient | Op::ToFloat | Op::Training => String::new(),
        Op::Dot | Op::DotNt | Op::DotTn | Op::MatMul { .. } => String::new(),
        Op::Sum(_) | Op::Max(_) | Op::Broadcast(_) | Op::Reshape(_) => String::new(),
        Op::Gather | Op::ScatterAdd(_) | Op::OneHot(_) | Op::Argmax => String::new(),
        Op::SumRows(_) | Op::Expand(_) | Op::Last | Op::PlaceLast(_) | Op::Within(_) => String::new(),
        Op::Scan(_) | Op::Yield(_) | Op::Final(_) | Op::Total(_) => String::new(),
    }
}

/// A name as it stands in a text: a plain word, or quoted.
pub(crate) fn name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    // `inf` and `nan` would read as numbers.
    if starts && name.chars().all(plain) && name != "inf" && name != "nan" {
        name.to_string()
    } else {
        format!("{name:?}")
    }
}

/// The shortest digits that read back as the same number.
pub(crate) fn number(x: f64) -> String {
    if x.is_nan() {
        "nan".to_string()
    } else if x == 0.0 || x.is_infinite() || (1e-5..1e16).contains(&x.abs()) {
        format!("{x}")
    } else {
        format!("{x:e}")
    }
}

/// The role of an input or a capture, by its extent.
pub(crate) fn role(extent: Extent) -> &'static str {
    match extent {
        Extent::Shared => "shared",
        Extent::Batch => "batch",
        Extent::Time(_) => "sequence",
    }
}

/// ` reverse over T1`: which way a scan runs, where it is not forwards over the first axis.
pub(crate) fn direction(scan: &Scan) -> String {
    let reverse = if scan.reverse { " reverse" } else { "" };
    let axis = if scan.axis == Axis(0) { String::new() } else { format!(" over {}", scan.axis.letter()) };
    format!("{reverse}{axis}")
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Init::Constant(x) => f.write_str(&number(*x)),
            Init::Uniform(low, high) => write!(f, "uniform({}, {})", number(*low), number(*high)),
            Init::Normal(deviation) => write!(f, "normal({})", number(*deviation)),
            Init::Glorot => f.write_str("glorot"),
            Init::He => f.write_str("he"),
            Init::Orthogonal(gain) => write!(f, "orthogonal({})", number(*gain)),
            Init::Pieces(pieces) => {
                let pieces: Vec<String> = pieces.iter().map(Init::to_string).collect();
                write!(f, "[{}]", pieces.join(", "))
            }
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        Draft::fmt(self, f)
    }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (graph, names) = (&self.graph, Names::of_program(self));
        writeln!(f, "program {} {{", name(&self.name))?;
        for (i, axis) in self.axes.iter().enumerate() {
            let own = Axis(i.try_into().unwrap_or(u8::MAX));
            write!(f, "  axis {} = {}", own.letter(), name(axis))?;
            if let Some(most) = self.limits.iter().filter(|l| l.axis == own).map(|l| l.steps).min() {
                write!(f, " <= {most}")?;
            }
            writeln!(f)?;
        }
        for input in &self.inputs {
            let ty = graph.ty(input.value);
            write!(f, "  {} {}: {ty}", role(ty.extent), name(&input.name))?;
            if let Some(bound) = input.bound {
                write!(f, " < {bound}")?;
            }
            if let Some((_, axis)) = self.lengths.iter().find(|(own, _)| *own == input.name) {
                write!(f, " lengths of {}", axis.letter())?;
            }
            writeln!(f)?;
        }
        for p in &self.parameters {
            let role = if p.trained { "parameter" } else { "untrained" };
            writeln!(f, "  {role} {}: {} = {}", name(&p.name), graph.ty(p.value), p.init)?;
        }
        for v in names.statements() {
            match graph.op(v) {
                Op::Scan(scan) => write_scan(f, &names, v, scan)?,
                _ => writeln!(f, "  {}", names.statement(v))?,
            }
        }
        for (output, v) in &self.outputs {
            writeln!(f, "  output {} = {}", name(output), names.label(*v))?;
        }
        if let Some(v) = self.objective {
            writeln!(f, "  objective {}", names.label(v))?;
        }
        for update in &self.updates {
            writeln!(f, "  update {} = {}", names.label(update.target), names.label(update.value))?;
        }
        writeln!(f, "}}")
    }
}

fn write_scan(f: &mut fmt::Formatter, outer: &Names, v: Value, scan: &Scan) -> fmt::Result {
    let (body, ports, names) = (&scan.body, Ports::of(scan), Names::of_body(scan));
    writeln!(f, "  {} {{", outer.statement(v))?;
    let operands = outer.graph.operands(v);
    let values = scan.captures.iter().map(|p| (p.value, None)).chain(scan.each.iter().map(|p| (p.value, Some("each"))));
    let values = values.chain(scan.carries.iter().map(|c| (c.value, Some("carry"))));
    for (i, (leaf, role_of_port)) in values.enumerate() {
        let ty = body.ty(leaf);
        let given = match (operands.get(i), role_of_port) {
            (None, _) => "?".to_string(),
            (Some(_), Some("carry")) => outer.initial(v, i),
            (Some(&operand), _) => outer.label(operand),
        };
        writeln!(f, "    {} {}: {ty} = {given}", role_of_port.unwrap_or(role(ty.extent)), ports.leaves[i])?;
    }
    for v in names.statements() {
        writeln!(f, "    {}", names.statement(v))?;
    }
    for (port, name) in scan.yields.iter().zip(&ports.yields) {
        writeln!(f, "    yield {name} = {}", names.label(port.value))?;
    }
    for (port, name) in scan.sums.iter().zip(&ports.sums) {
        writeln!(f, "    sum {name} = {}", names.label(port.value))?;
    }
    for (i, carry) in scan.carries.iter().enumerate() {
        writeln!(f, "    next {} = {}", ports.leaves[ports.carries + i], names.label(carry.next))?;
    }
    writeln!(f, "  }}")
}
