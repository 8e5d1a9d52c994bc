//! The state behind a recording: the program so far, the scan body being recorded if any, and the mistakes.
//!
//! Frame 0 is the program's graph; frame k is the body of the k-th scan. Invariants: at most one body is open; a
//! node is only ever added with operands of its own frame; a capture or a sequence has one leaf in a body however
//! often it is used; what is added to the program's graph while a body is open comes before the scan's node, so
//! it may be an operand of it.

use std::cell::RefCell;
use std::collections::HashMap;

use super::Site;
use super::expr::{Expr, Operand, Typed, Value as Local};
use super::scans::{Body, Recorded};
use crate::error::{RecordError, RecordErrorKind as Kind, RecordErrors};
use crate::ir::bounds;
use crate::ir::scan::Port;
use crate::ir::{Draft, Extent, Graph, Op, Program, Shape, Type, TypeError, Value};

pub struct Recording {
    state: RefCell<State>,
}

pub(super) struct State {
    pub program: Draft,
    /// Names around what is being made, outermost first.
    pub scopes: Vec<String>,
    /// The scan being recorded.
    pub body: Option<Body>,
    /// Scans recorded or begun; frame k is `scans[k - 1]`.
    pub scans: Vec<Recorded>,
    /// How many faulty constructs we are in whose contents are not recorded.
    pub silent: usize,
    pub declared: Declared,
    errors: Vec<RecordError>,
}

/// Where parameters and inputs are in a program's lists, by name.
#[derive(Default)]
pub(super) struct Declared {
    pub parameters: HashMap<String, usize>,
    pub inputs: HashMap<String, usize>,
}

impl Declared {
    fn of(program: &Draft) -> Declared {
        let parameters = program.parameters.iter().enumerate().map(|(i, p)| (p.name.clone(), i));
        let inputs = program.inputs.iter().enumerate().map(|(i, input)| (input.name.clone(), i));
        Declared { parameters: parameters.collect(), inputs: inputs.collect() }
    }
}
impl Recording {
    pub fn new(program: Draft) -> Recording {
        let state = State {
            declared: Declared::of(&program),
            program,
            scopes: Vec::new(),
            body: None,
            scans: Vec::new(),
            silent: 0,
            errors: Vec::new(),
        };
        Recording { state: RefCell::new(state) }
    }

    /// The program with the bounds of its integer inputs, or the mistakes.
    /// `site` stands for what came from a text and has no place of its own.
    pub fn finish(self, site: Site) -> Result<Program, RecordErrors> {
        let mut state = self.state.into_inner();
        assert!(state.body.is_none(), "a scan's body is closed where it was opened");
        for mistake in bounds::derive(&mut state.program) {
            state.fail(mistake.location.unwrap_or(site), mistake);
        }
        if !state.errors.is_empty() {
            return Err(RecordErrors::new(state.errors));
        }
        match state.program.finish() {
            Ok(program) => Ok(program),
            Err(e) => panic!("a recording without mistakes is well formed: {e}"),
        }
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

    /// [`local`](Recording::local) of an expression, with its type.
    pub fn typed<'r>(&'r self, site: Site, e: Expr<'r>) -> Option<Typed<'r>> {
        let value = self.local(site, e.into())?;
        let (ty, local) = self.with(|state| (state.graph().ty(value).clone(), state.here(value)));
        Some((Expr::new(self, Some(local)), ty))
    }

    /// [`typed`](Recording::typed) for what only works on floats, named for the error.
    pub fn floats<'r>(&'r self, site: Site, op: &str, e: Expr<'r>) -> Option<Typed<'r>> {
        let (x, ty) = self.typed(site, e)?;
        if ty.is_float() {
            return Some((x, ty));
        }
        let rule = "it works on floats; turn integers into floats with to_float, or look them up".to_string();
        self.fail(site, TypeError { op: op.to_string(), given: vec![ty], rule });
        None
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

    /// What is recorded, where errors call the op by the method that the user has called.
    pub fn called<R>(&self, method: &str, recorded: impl FnOnce() -> R) -> R {
        let before = self.with(|state| state.errors.len());
        let result = recorded();
        self.with(|state| {
            for error in state.errors.iter_mut().skip(before) {
                if let Kind::Type(e) = &mut error.kind {
                    e.op = method.to_string();
                }
            }
        });
        result
    }

    /// All operands in the frame being recorded.
    pub fn locals(&self, site: Site, operands: &[Operand<'_>]) -> Option<Vec<Value>> {
        let values: Vec<Option<Value>> = operands.iter().map(|&o| self.local(site, o)).collect();
        values.into_iter().collect()
    }

    /// Runs a part of the recording under one more name.
    pub fn scoped<R>(&self, site: Site, name: &str, part: impl FnOnce() -> R) -> R {
        let _restored = self.restored();
        self.with(|state| {
            state.check_name(site, name);
            state.scopes.push(name.to_string());
        });
        part()
    }

    /// Has the recording be in the same scopes, and the same body, when the result is dropped: also if a panic comes out
    /// of a scope or of a step, and its user catches it and goes on.
    pub fn restored(&self) -> Restored<'_> {
        self.with(|state| Restored {
            recording: self,
            scopes: state.scopes.len(),
            silent: state.silent,
            body: state.body.as_ref().map(|body| body.frame),
        })
    }
}

/// See [`Recording::restored`].
pub(super) struct Restored<'r> {
    recording: &'r Recording,
    scopes: usize,
    silent: usize,
    body: Option<usize>,
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        self.recording.with(|state| {
            state.scopes.truncate(self.scopes);
            state.silent = self.silent;
            // A body that was opened and not closed: its scan comes to nothing.
            if state.body.as_ref().is_some_and(|body| Some(body.frame) != self.body) {
                state.body = None;
            }
        });
    }
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

    pub fn here(&self, value: Value) -> Local {
        Local { frame: self.frame(), value }
    }

    /// Adds to the graph being recorded.
    pub fn add(&mut self, site: Site, op: Op, operands: &[Value]) -> Option<Local> {
        if self.silent > 0 {
            return None;
        }
        let graph = self.graph();
        graph.location = Some(site);
        let v = match graph.try_add(op, operands) {
            Err(e) => {
                self.fail(site, e);
                return None;
            }
            Ok(v) => v,
        };
        let ty = graph.ty(v).clone();
        if let (Extent::Time(_), Some(body)) = (ty.extent, &self.body) {
            // Rows for all steps, made within one.
            self.fail(site, self.sequence_in_step(body, ty));
            return None;
        }
        self.check_shape(site, &ty.shape).then(|| self.here(v))
    }

    fn sequence_in_step(&self, body: &Body, given: Type) -> Kind {
        let is_other = body.axis().is_some_and(|axis| given.extent != Extent::Time(axis));
        Kind::SequenceInStep { given, scan: self.scans[body.frame - 1].name.clone(), is_other }
    }

    /// The flag of training, in the graph being recorded.
    pub fn training(&mut self, site: Site) -> Option<Local> {
        self.add(site, Op::Training, &[])
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
    pub fn local(&mut self, site: Site, at: Local) -> Option<Value> {
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
        if let (Extent::Time(_), Some(body)) = (ty.extent, &self.body) {
            self.fail(site, self.sequence_in_step(body, ty));
            return None;
        }
        let number = match self.program.graph.op(at.value) {
            Op::Constant(x) => Some(*x),
            _ => None,
        };
        let name = self.name_of(at.value, "v");
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
    pub fn name_of(&self, v: Value, otherwise: &str) -> String {
        match self.program.graph.op(v) {
            Op::Parameter(name) | Op::Input(name) => name.clone(),
            _ => otherwise.to_string(),
        }
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
}
