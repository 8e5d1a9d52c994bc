//! The state behind a recording: the program so far, the scan body being recorded if any, and the mistakes.
//!
//! Frame 0 is the program's graph; frame k is the body of the k-th scan. Invariants: at most one body is open; a
//! node is only ever added with operands of its own frame; a capture or a sequence has one leaf in a body however
//! often it is used; what is added to the program's graph while a body is open comes before the scan's node, so
//! it may be an operand of it.

use std::cell::RefCell;

use super::Site;
use super::bounds;
use super::expr::{Expr, Operand, Value as Local};
use crate::error::{Place, RecordError, RecordErrorKind as Kind, RecordErrors};
use crate::ir::scan::Port;
use crate::ir::{Axis, Carry, Extent, Graph, Init, Input, Op, Parameter, Program, Scan, Shape, Type, Value};

/// Most features of a row: what 32-bit offsets of f32 can address with room to spare.
const MAX_FEATURES: usize = 1 << 28;

pub struct Recording {
    state: RefCell<State>,
}

pub(super) struct State {
    pub program: Program,
    /// Names around what is being made, outermost first.
    pub scopes: Vec<String>,
    /// The scan being recorded.
    pub body: Option<Body>,
    /// Scans recorded or begun; frame k is `scans[k - 1]`.
    pub scans: Vec<Recorded>,
    /// How many faulty constructs we are in whose contents are not recorded.
    pub silent: usize,
    errors: Vec<RecordError>,
}

/// A scan's body while it is recorded.
pub(super) struct Body {
    frame: usize,
    graph: Graph,
    /// Known from the start, or from the first sequence that is read.
    axis: Option<Axis>,
    reverse: bool,
    /// How many of the scopes are around the scan; states are named by the rest.
    depth: usize,
    captures: Vec<(Value, Port)>,
    each: Vec<(Value, Port)>,
    states: Vec<StateOf>,
}

struct StateOf {
    name: String,
    made: Site,
    leaf: Value,
    initial: Value,
    next: Option<(Value, Site)>,
}

/// A scan as its [`Run`](super::Run)s know it.
pub(super) struct Recorded {
    pub name: String,
    /// Its node; `None` until the body is closed.
    node: Option<Value>,
    outputs: Vec<Output>,
}

/// A value that a step gave out.
struct Output {
    value: Value,
    /// Zero for a state that remembers it, where [`Recording::last`] may need one.
    zero: Option<Value>,
    all: Option<Value>,
    last: Option<Value>,
}

impl Recording {
    pub fn new(program: Program) -> Recording {
        let state = State { program, scopes: Vec::new(), body: None, scans: Vec::new(), silent: 0, errors: Vec::new() };
        Recording { state: RefCell::new(state) }
    }

    /// The program with the bounds of its integer inputs, or the mistakes.
    pub fn finish(self) -> Result<Program, RecordErrors> {
        let mut state = self.state.into_inner();
        assert!(state.body.is_none(), "a scan's body is closed where it was opened");
        for (site, kind) in bounds::derive(&mut state.program) {
            state.fail(site, kind);
        }
        if state.errors.is_empty() { Ok(state.program) } else { Err(RecordErrors::new(state.errors)) }
    }

    /// Works on the state, and makes the result a value of this recording, poisoned where there is none.
    pub fn make(&self, work: impl FnOnce(&mut State) -> Option<Local>) -> Expr<'_> {
        let value = work(&mut self.state.borrow_mut());
        Expr::new(self, value)
    }

    /// Works on the state.
    pub fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.borrow_mut())
    }

    /// Notes a mistake and gives the poisoned value that comes of it.
    pub fn fail(&self, site: Site, kind: impl Into<Kind>) -> Expr<'_> {
        self.with(|state| state.fail(site, kind));
        Expr::new(self, None)
    }

    /// A value in the frame being recorded, captured if it comes from outside. `None` if it is poisoned or this is
    /// a mistake, which is noted.
    pub fn local(&self, site: Site, operand: Operand<'_>) -> Option<Value> {
        let e = match operand {
            Operand::Number(x) => return self.with(|state| state.number(site, x)),
            Operand::Expr(e) => e,
        };
        let at = self.own(site, e)?;
        self.with(|state| state.local(site, at))
    }

    /// A value of the program's graph; not one of a step.
    pub fn outer(&self, site: Site, e: Expr<'_>) -> Option<Value> {
        let at = self.own(site, e)?;
        self.with(|state| {
            if at.frame == 0 {
                return Some(at.value);
            }
            let scan = state.scans[at.frame - 1].name.clone();
            state.fail(site, Kind::OutsideItsScan { scan });
            None
        })
    }

    /// A value of this recording.
    fn own(&self, site: Site, e: Expr<'_>) -> Option<Local> {
        match e.home() {
            Ok(home) if std::ptr::eq(home, self) => e.value(),
            Ok(home) => {
                // A poisoned foreigner has been reported at home, but is no less foreign.
                let program = home.with(|state| state.program.name.clone());
                self.fail(site, Kind::ForeignValue { program });
                None
            }
            Err((made, op)) => {
                self.fail(made, Kind::NothingToJoin { op });
                None
            }
        }
    }

    /// Adds an op to the frame being recorded.
    pub fn apply(&self, site: Site, op: Op, operands: &[Operand<'_>]) -> Expr<'_> {
        let Some(values) = self.locals(site, operands) else { return Expr::new(self, None) };
        self.make(|state| state.add(site, op, &values))
    }

    /// Adds a pointwise op; operands of different shapes meet by numpy's rule.
    pub fn pointwise(&self, site: Site, op: Op, operands: &[Operand<'_>]) -> Expr<'_> {
        let Some(mut values) = self.locals(site, operands) else { return Expr::new(self, None) };
        self.make(|state| {
            let mut shape = Some(Shape::scalar());
            for &v in &values {
                let t = state.graph().ty(v);
                shape = shape.and_then(|s| common_shape(&s, &t.shape)).filter(|_| t.is_float());
            }
            // Where there is no common shape, the op's own rule says so.
            if let Some(shape) = shape {
                for v in &mut values {
                    if state.graph().ty(*v).shape.rank() > 0 {
                        *v = state.broadcast(site, *v, &shape)?;
                    }
                }
            }
            state.add(site, op, &values)
        })
    }

    /// All operands in the frame being recorded.
    pub fn locals(&self, site: Site, operands: &[Operand<'_>]) -> Option<Vec<Value>> {
        let values: Vec<Option<Value>> = operands.iter().map(|&o| self.local(site, o)).collect();
        values.into_iter().collect()
    }

    /// Runs a part of the recording under one more name.
    pub fn scoped<R>(&self, site: Site, name: &str, part: impl FnOnce() -> R) -> R {
        self.with(|state| {
            state.check_name(site, name);
            state.scopes.push(name.to_string());
        });
        let result = part();
        self.with(|state| state.scopes.pop());
        result
    }

    // ---- scans ---------------------------------------------------------------------------------------------

    /// Opens a body. The number of the scan, or `None` within another scan: then nothing is recorded until
    /// [`close`](Recording::close).
    pub fn open(&self, site: Site, name: &str, axis: Option<Axis>, reverse: bool) -> Option<usize> {
        self.with(|state| {
            state.check_name(site, name);
            state.scopes.push(name.to_string());
            if let Some(body) = &state.body {
                let outer = state.scans[body.frame - 1].name.clone();
                state.fail(site, Kind::NestedScan { inner: name.to_string(), outer });
                state.silent += 1;
                return None;
            }
            state.scans.push(Recorded { name: name.to_string(), node: None, outputs: Vec::new() });
            state.body = Some(Body {
                frame: state.scans.len(),
                graph: Graph::new(),
                axis,
                reverse,
                depth: state.scopes.len(),
                captures: Vec::new(),
                each: Vec::new(),
                states: Vec::new(),
            });
            Some(state.scans.len() - 1)
        })
    }

    /// Notes a value that the open step gives out, one row for each sample; its position.
    pub fn give_out(&self, site: Site, e: Expr<'_>) -> Option<usize> {
        let value = self.local(site, e.into())?;
        self.with(|state| {
            let value = state.widen(site, value, Extent::Batch)?;
            let frame = state.body.as_ref()?.frame;
            let outputs = &mut state.scans[frame - 1].outputs;
            outputs.push(Output { value, zero: None, all: None, last: None });
            Some(outputs.len() - 1)
        })
    }

    /// Ends what [`open`](Recording::open) began, and adds the scan's node.
    pub fn close(&self, site: Site, scan: Option<usize>) {
        self.with(|state| {
            state.scopes.pop();
            match scan {
                None => state.silent -= 1,
                Some(_) => state.close(site),
            }
        });
    }

    /// The sequence of an output.
    pub fn all(&self, site: Site, scan: usize, output: usize) -> Expr<'_> {
        self.make(|state| {
            let value = state.all(site, scan, output)?;
            Some(Local { frame: 0, value })
        })
    }

    /// An output at the last step that ran.
    pub fn last(&self, site: Site, scan: usize, output: usize) -> Expr<'_> {
        self.make(|state| {
            let value = state.last(site, scan, output)?;
            Some(Local { frame: 0, value })
        })
    }

    /// The last value of a state.
    pub fn final_state(&self, site: Site, scan: usize, name: &str) -> Expr<'_> {
        self.make(|state| {
            let node = state.scans[scan].node?;
            let carries = &state.scan(node).carries;
            let Some(i) = carries.iter().position(|c| c.name == name) else {
                let known = list_names("states", carries.iter().map(|c| c.name.as_str()));
                state.fail(site, Kind::UnknownName { name: name.to_string(), known });
                return None;
            };
            let value = state.result(site, node, Op::Final(i));
            Some(Local { frame: 0, value })
        })
    }
}

/// `parameters are `a`, `b``, for an error about a name that is none of them.
pub(super) fn list_names<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|n| format!("`{n}`")).collect();
    if names.is_empty() { format!("there are no {what}") } else { format!("{what} are {}", names.join(", ")) }
}

/// Numpy's rule: seen from the right, dimensions are equal or one of them is 1.
fn common_shape(a: &Shape, b: &Shape) -> Option<Shape> {
    let (long, short) = if a.rank() >= b.rank() { (a, b) } else { (b, a) };
    let mut shape = long.clone();
    let lead = long.rank() - short.rank();
    for (d, &n) in shape.0[lead..].iter_mut().zip(&short.0) {
        match (*d, n) {
            (x, y) if x == y => {}
            (1, y) => *d = y,
            (_, 1) => {}
            _ => return None,
        }
    }
    Some(shape)
}

impl State {
    pub fn fail(&mut self, site: Site, kind: impl Into<Kind>) {
        if self.silent == 0 {
            self.errors.push(RecordError { kind: kind.into(), location: site });
        }
    }

    /// The graph being recorded.
    pub fn graph(&mut self) -> &mut Graph {
        match &mut self.body {
            Some(body) => &mut body.graph,
            None => &mut self.program.graph,
        }
    }

    pub fn frame(&self) -> usize {
        self.body.as_ref().map_or(0, |b| b.frame)
    }

    fn here(&self, value: Value) -> Local {
        Local { frame: self.frame(), value }
    }

    /// Adds to the graph being recorded.
    pub fn add(&mut self, site: Site, op: Op, operands: &[Value]) -> Option<Local> {
        if self.silent > 0 {
            return None;
        }
        let graph = self.graph();
        graph.location = Some(site);
        match graph.try_add(op, operands) {
            Err(e) => {
                self.fail(site, e);
                None
            }
            Ok(v) => {
                let shape = graph.ty(v).shape.clone();
                self.check_shape(site, &shape).then(|| self.here(v))
            }
        }
    }

    fn number(&mut self, site: Site, x: f64) -> Option<Value> {
        if self.silent > 0 {
            return None;
        }
        let graph = self.graph();
        graph.location = Some(site);
        Some(graph.scalar(x))
    }

    /// A value of this recording in the frame being recorded.
    fn local(&mut self, site: Site, at: Local) -> Option<Value> {
        if self.silent > 0 {
            return None;
        }
        if at.frame == self.frame() {
            return Some(at.value);
        }
        if at.frame != 0 {
            let scan = self.scans[at.frame - 1].name.clone();
            self.fail(site, Kind::OutsideItsScan { scan });
            return None;
        }
        let ty = self.program.ty(at.value).clone();
        if let Extent::Time(_) = ty.extent {
            let scan = self.scans[self.frame() - 1].name.clone();
            self.fail(site, Kind::SequenceInStep { given: ty, scan });
            return None;
        }
        let number = match self.program.graph.op(at.value) {
            Op::Constant(x) => Some(*x),
            _ => None,
        };
        let name = self.name_of(at.value, "x");
        let body = self.body.as_mut().expect("frames other than 0 are of a body");
        if let Some((_, port)) = body.captures.iter().find(|(v, _)| *v == at.value) {
            return Some(port.value);
        }
        body.graph.location = Some(site);
        if let Some(x) = number {
            return Some(body.graph.constant(x, ty));
        }
        let leaf = body.graph.leaf(Op::Capture(body.captures.len()), ty);
        body.captures.push((at.value, Port { name, value: leaf }));
        Some(leaf)
    }

    /// What texts call a value of the program: its name, or a stand-in.
    fn name_of(&self, v: Value, otherwise: &str) -> String {
        match self.program.graph.op(v) {
            Op::Parameter(name) | Op::Input(name) => name.clone(),
            _ => otherwise.to_string(),
        }
    }

    /// This step's rows of a sequence.
    pub fn at(&mut self, site: Site, v: Value) -> Option<Local> {
        if self.silent > 0 {
            return None;
        }
        let ty = self.program.ty(v).clone();
        let Extent::Time(axis) = ty.extent else {
            let hint = "it is the same at every step: use it as it is";
            self.fail(site, Kind::NotASequence { given: ty, hint });
            return None;
        };
        let name = self.name_of(v, "x");
        let body = self.body.as_mut().expect("a step is of an open body");
        let runs = *body.axis.get_or_insert(axis);
        if runs != axis {
            let scan = self.scans[body.frame - 1].name.clone();
            self.fail(site, Kind::AxisMismatch { scan, runs: runs.letter(), given: ty });
            return None;
        }
        if let Some((_, port)) = body.each.iter().find(|(seq, _)| *seq == v) {
            return Some(Local { frame: body.frame, value: port.value });
        }
        body.graph.location = Some(site);
        let leaf = body.graph.leaf(Op::Each(body.each.len()), ty.at(Extent::Batch));
        body.each.push((v, Port { name, value: leaf }));
        Some(Local { frame: body.frame, value: leaf })
    }

    /// A state that starts as a value of the program's graph.
    pub fn state(&mut self, site: Site, name: &str, initial: Value) -> Option<Local> {
        if self.silent > 0 || !self.check_name(site, name) {
            return None;
        }
        let depth = self.body.as_ref().expect("a step is of an open body").depth;
        let name = join_name(&self.scopes[depth..], name);
        let ty = self.program.ty(initial).clone();
        if let Extent::Time(_) = ty.extent {
            self.fail(site, Kind::BadInitial { name, given: ty });
            return None;
        }
        self.program.graph.location = Some(site);
        let initial = match ty.extent {
            Extent::Shared => self.program.graph.add(Op::Expand(Extent::Batch), &[initial]),
            _ => initial,
        };
        let body = self.body.as_mut().expect("a step is of an open body");
        if let Some(first) = body.states.iter().find(|s| s.name == name) {
            let first = Place(Some(first.made));
            let scan = self.scans[body.frame - 1].name.clone();
            self.fail(site, Kind::StateTwice { scan, name, first });
            return None;
        }
        body.graph.location = Some(site);
        let leaf = body.graph.leaf(Op::Carry(body.states.len()), ty.at(Extent::Batch));
        body.states.push(StateOf { name, made: site, leaf, initial, next: None });
        Some(Local { frame: body.frame, value: leaf })
    }

    /// Gives a state its next value, which is returned, one row for each sample.
    pub fn next(&mut self, site: Site, state: Value, value: Option<Value>) -> Option<Local> {
        if self.silent > 0 {
            return None;
        }
        let body = self.body.as_mut().expect("a step is of an open body");
        let ty = body.graph.ty(state).clone();
        let Some(i) = body.states.iter().position(|s| s.leaf == state) else {
            self.fail(site, Kind::NotAState { given: ty });
            return None;
        };
        let StateOf { name, next, .. } = &body.states[i];
        if let Some((_, first)) = next {
            let kind = Kind::NextTwice { name: name.clone(), first: Place(Some(first)) };
            self.fail(site, kind);
            return None;
        }
        let name = name.clone();
        // A mistaken next value counts as given: it is one mistake, not two.
        body.states[i].next = Some((state, site));
        let value = self.widen(site, value?, Extent::Batch)?;
        let body = self.body.as_mut().expect("a step is of an open body");
        let given = body.graph.ty(value).clone();
        if given != ty {
            self.fail(site, Kind::NextType { name, state: ty, given });
            return None;
        }
        body.states[i].next = Some((value, site));
        Some(self.here(value))
    }

    /// Repeats rows to an extent at least as wide, in the graph being recorded.
    pub fn widen(&mut self, site: Site, v: Value, extent: Extent) -> Option<Value> {
        if self.graph().ty(v).extent >= extent {
            return Some(v);
        }
        Some(self.add(site, Op::Expand(extent), &[v])?.value)
    }

    /// Repeats features to a shape that the value's broadcasts to by numpy's rule.
    pub fn broadcast(&mut self, site: Site, v: Value, shape: &Shape) -> Option<Value> {
        let mut v = v;
        let own = self.graph().ty(v).shape.clone();
        if own.rank() < shape.rank() {
            let mut dims = vec![1; shape.rank() - own.rank()];
            dims.extend(&own.0);
            v = self.add(site, Op::Reshape(Shape(dims)), &[v])?.value;
        }
        if self.graph().ty(v).shape != *shape {
            v = self.add(site, Op::Broadcast(shape.clone()), &[v])?.value;
        }
        Some(v)
    }

    /// Makes the open body a scan node of the program.
    fn close(&mut self, site: Site) {
        let axis = match self.body.as_ref().and_then(|b| b.axis) {
            Some(axis) => axis,
            None => self.axis(site, "time"),
        };
        let body = self.body.take().expect("closed once");
        let recorded = body.frame - 1;
        let name = self.scans[recorded].name.clone();
        for state in body.states.iter().filter(|s| s.next.is_none()) {
            self.fail(state.made, Kind::NoNext { scan: name.clone(), name: state.name.clone() });
        }
        let mut operands: Vec<Value> = Vec::new();
        operands.extend(body.captures.iter().chain(&body.each).map(|(v, _)| v));
        operands.extend(body.states.iter().map(|s| s.initial));
        // A state without its next value stays as it is: the error is noted, and the rest can be checked.
        let carries: Vec<Carry> = body
            .states
            .into_iter()
            .map(|s| Carry { name: s.name, value: s.leaf, next: s.next.map_or(s.leaf, |(v, _)| v) })
            .collect();
        let graph = &mut self.program.graph;
        graph.location = Some(site);
        if body.reverse {
            for output in &mut self.scans[recorded].outputs {
                if carries.iter().all(|c| c.next != output.value) {
                    output.zero = Some(graph.constant(0.0, body.graph.ty(output.value).clone()));
                }
            }
        }
        let mut scan = Scan::new(name, axis, body.reverse);
        scan.body = body.graph;
        scan.captures = body.captures.into_iter().map(|(_, port)| port).collect();
        scan.each = body.each.into_iter().map(|(_, port)| port).collect();
        scan.carries = carries;
        let node = graph.add(Op::Scan(Box::new(scan)), &operands);
        self.scans[recorded].node = Some(node);
    }

    fn scan(&mut self, node: Value) -> &mut Scan {
        match self.program.graph.op_mut(node) {
            Op::Scan(scan) => scan,
            _ => unreachable!("recorded as a scan"),
        }
    }

    fn result(&mut self, site: Site, node: Value, result: Op) -> Value {
        self.program.graph.location = Some(site);
        self.program.graph.scan_result(node, result)
    }

    /// A yield is added to the scan when it is first asked for, so that what nobody reads is not written.
    fn all(&mut self, site: Site, scan: usize, output: usize) -> Option<Value> {
        let node = self.scans[scan].node?;
        let Output { value, all, .. } = self.scans[scan].outputs[output];
        if all.is_some() {
            return all;
        }
        let s = self.scan(node);
        let state = s.carries.iter().find(|c| c.next == value).map(|c| c.name.clone());
        let name = state.unwrap_or_else(|| "y".to_string());
        s.yields.push(Port { name, value });
        let position = s.yields.len() - 1;
        let all = self.result(site, node, Op::Yield(position));
        self.scans[scan].outputs[output].all = Some(all);
        Some(all)
    }

    /// The last value of the state that has the output as its next value; else the last row block of its sequence.
    /// In reverse the last step is step 0, which `last` does not give: a state is added that remembers the output.
    fn last(&mut self, site: Site, scan: usize, output: usize) -> Option<Value> {
        let node = self.scans[scan].node?;
        let Output { value, zero, last, .. } = self.scans[scan].outputs[output];
        if last.is_some() {
            return last;
        }
        let s = self.scan(node);
        let mut state = s.carries.iter().position(|c| c.next == value);
        if let (None, Some(zero)) = (state, zero) {
            let ty = s.body.ty(value).clone();
            s.body.location = Some(site);
            let leaf = s.body.leaf(Op::Carry(s.carries.len()), ty);
            s.carries.push(Carry { name: "y".to_string(), value: leaf, next: value });
            state = Some(s.carries.len() - 1);
            self.program.graph.extend_operands(node, &[zero]);
        }
        let last = match state {
            Some(i) => self.result(site, node, Op::Final(i)),
            None => {
                let all = self.all(site, scan, output)?;
                self.program.graph.location = Some(site);
                self.program.graph.add(Op::Last, &[all])
            }
        };
        self.scans[scan].outputs[output].last = Some(last);
        Some(last)
    }

    // ---- what has a name -----------------------------------------------------------------------------------

    /// Whether a name may be used in texts and files; notes if not.
    pub fn check_name(&mut self, site: Site, name: &str) -> bool {
        let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let good = letters && name.starts_with(|c: char| !c.is_ascii_digit());
        if !good {
            self.fail(site, Kind::BadName { name: name.to_string() });
        }
        good
    }

    /// Whether a row can have this shape; notes if not.
    pub fn check_shape(&mut self, site: Site, shape: &Shape) -> bool {
        let len = shape.0.iter().try_fold(1usize, |n, &d| n.checked_mul(d).filter(|&n| n <= MAX_FEATURES));
        match len {
            _ if shape.0.contains(&0) => self.fail(site, Kind::EmptyShape { shape: shape.clone() }),
            None => self.fail(site, Kind::HugeShape { shape: shape.clone(), limit: MAX_FEATURES }),
            Some(_) => return true,
        }
        false
    }

    /// The time axis of a name.
    pub fn axis(&mut self, site: Site, name: &str) -> Axis {
        if let Some(i) = self.program.axes.iter().position(|a| a == name) {
            return Axis(i as u8);
        }
        if self.program.axes.len() >= usize::from(Axis::MAX) {
            self.fail(site, Kind::TooManyAxes { name: name.to_string() });
            return Axis(0);
        }
        self.program.axes.push(name.to_string());
        Axis(self.program.axes.len() as u8 - 1)
    }

    /// The parameter of a name within the current scopes.
    pub fn parameter(&mut self, site: Site, name: &str, shape: Shape, init: Init) -> Option<Local> {
        if !self.check_name(site, name) || !self.check_shape(site, &shape) || !self.check_init(site, &shape, &init) {
            return None;
        }
        let name = join_name(&self.scopes, name);
        if let Some(known) = self.program.parameter(&name).cloned() {
            let node = self.program.graph.node(known.value);
            if node.ty.shape != shape || known.init != init {
                let first = format!("{} {:?}", node.ty.shape, known.init);
                let (place, again) = (Place(node.location), format!("{shape} {init:?}"));
                self.fail(site, Kind::ParameterChanged { name, first, again, place });
                return None;
            }
            return Some(Local { frame: 0, value: known.value });
        }
        if let Some(input) = self.program.input(&name) {
            let first = Place(self.program.graph.node(input.value).location);
            self.fail(site, Kind::NameTaken { role: "parameter", name, taken: "an input", first });
            return None;
        }
        self.program.graph.location = Some(site);
        let ty = Type::float(Extent::Shared, shape);
        let value = self.program.graph.leaf(Op::Parameter(name.clone()), ty);
        self.program.parameters.push(Parameter { name, value, init });
        Some(Local { frame: 0, value })
    }

    fn check_init(&mut self, site: Site, shape: &Shape, init: &Init) -> bool {
        let rule = init_rule(shape, init);
        if let Some(rule) = rule {
            self.fail(site, Kind::BadInit { init: format!("{init:?}"), shape: shape.clone(), rule });
            return false;
        }
        true
    }

    /// The input of a name.
    pub fn input(&mut self, site: Site, name: &str, ty: Type) -> Option<Local> {
        if !self.check_name(site, name) || !self.check_shape(site, &ty.shape) {
            return None;
        }
        let name = join_name(&self.scopes, name);
        if let Some(known) = self.program.input(&name) {
            let node = self.program.graph.node(known.value);
            if node.ty != ty {
                let kind = Kind::InputChanged { name, first: node.ty.clone(), again: ty, place: Place(node.location) };
                self.fail(site, kind);
                return None;
            }
            return Some(Local { frame: 0, value: known.value });
        }
        if let Some(parameter) = self.program.parameter(&name) {
            let first = Place(self.program.graph.node(parameter.value).location);
            self.fail(site, Kind::NameTaken { role: "input", name, taken: "a parameter", first });
            return None;
        }
        self.program.graph.location = Some(site);
        let value = self.program.graph.leaf(Op::Input(name.clone()), ty);
        self.program.inputs.push(Input { name, value, bound: None });
        Some(Local { frame: 0, value })
    }
}

fn join_name(scopes: &[String], name: &str) -> String {
    scopes.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".")
}

/// The rule that an initialiser breaks, if any.
fn init_rule(shape: &Shape, init: &Init) -> Option<String> {
    match init {
        Init::Constant(x) if !x.is_finite() => Some("the value must be finite".to_string()),
        Init::Uniform(low, high) if !(low.is_finite() && high.is_finite() && low < high) => {
            Some("both ends must be finite, the low one below the high one".to_string())
        }
        Init::Normal(deviation) if !(deviation.is_finite() && *deviation >= 0.0) => {
            Some("the standard deviation must be finite and not negative".to_string())
        }
        Init::Orthogonal(gain) if !gain.is_finite() => Some("the gain must be finite".to_string()),
        Init::Orthogonal(_) if shape.rank() < 2 => Some("an orthogonal matrix has at least two dimensions".to_string()),
        Init::Pieces(pieces) => {
            let n = shape.last();
            if pieces.is_empty() || shape.rank() == 0 || n % pieces.len() != 0 {
                return Some(format!("the last dimension must divide into {} equal pieces", pieces.len()));
            }
            let piece = shape.with_last(n / pieces.len());
            pieces.iter().find_map(|init| init_rule(&piece, init))
        }
        _ => None,
    }
}
