//! How a scan is recorded: opened, filled, closed into a node, and asked for its results.

use super::Site;
use super::declare::{DEFAULT_AXIS, join_name, list_names};
use super::expr::{Expr, Value as Local};
use super::recording::{Recording, State};
use crate::error::{Place, RecordErrorKind as Kind};
use crate::ir::scan::Port;
use crate::ir::{Axis, Carry, Extent, Graph, Limit, Op, Scan, Type, Value};

/// What a scan runs over.
#[derive(Clone, Copy, Default)]
pub(super) struct Over {
    /// `None`: that of the first sequence it reads.
    pub axis: Option<Axis>,
    pub reverse: bool,
    /// A sequence on the axis: 1 at the steps that are a sample's own, 0 past its end.
    pub mask: Option<Value>,
    /// A sequence on the axis: not 0 where a sample's states begin anew.
    pub reset: Option<Value>,
}

/// A scan's body while it is recorded.
pub(super) struct Body {
    pub frame: usize,
    pub graph: Graph,
    /// Known from the start, or from the first sequence that is read.
    axis: Option<Axis>,
    reverse: bool,
    /// Where samples end: 1 at steps that are a sample's own, 0 past its end.
    mask: Option<Value>,
    /// Where states begin anew: not 0 at the first step of a sequence.
    reset: Option<Value>,
    /// What a loop that is written out reads at each step, in the program's graph.
    list: Option<Vec<Value>>,
    /// The most steps it takes, and where that was said.
    limit: Option<(usize, Site)>,
    /// How many of the scopes are around the scan; states are named by the rest.
    depth: usize,
    pub captures: Vec<(Value, Port)>,
    each: Vec<(Value, Port)>,
    states: Vec<StateOf>,
    starts: Vec<Start>,
}

/// Where a state is to start, whatever the one who made it says.
struct Start {
    name: String,
    site: Site,
    initial: Value,
}

impl Body {
    /// The axis whose steps it takes, if that is known by now.
    pub fn axis(&self) -> Option<Axis> {
        self.axis
    }

    /// A leaf that reads a value of the program's graph, one of its own whether or not another reads it.
    fn capture(&mut self, value: Value, ty: Type, name: String) -> Value {
        let leaf = self.graph.leaf(Op::Capture(self.captures.len()), ty);
        self.captures.push((value, Port { name, value: leaf }));
        leaf
    }
}

struct StateOf {
    name: String,
    made: Site,
    leaf: Value,
    /// What the step sees of it: the leaf, or the initial value where the state begins anew.
    seen: Value,
    initial: Value,
    /// The initial value in the body, where states begin anew.
    again: Option<Value>,
    next: Option<(Value, Site)>,
}

/// A scan as its [`Run`](super::Run)s know it.
pub(super) struct Recorded {
    pub name: String,
    /// Its node; `None` until the body is closed.
    node: Option<Value>,
    /// The mask of its body.
    mask: Option<Value>,
    outputs: Vec<Output>,
}

/// A value that a step gave out.
struct Output {
    value: Value,
    site: Site,
    /// The state that has it as its next value.
    state: Option<usize>,
    /// Zero for a state that remembers it, where [`Recording::last`] may need one.
    zero: Option<Value>,
    all: Option<Value>,
    last: Option<Value>,
}

impl Recording {
    /// Opens a body. The number of the scan, or `None` within another scan: then nothing is recorded until the recording
    /// is [`restored`](Recording::restored).
    pub fn open(&self, site: Site, name: &str, over: Over) -> Option<usize> {
        self.with(|state| {
            state.check_name(site, name);
            state.scopes.push(name.to_string());
            if let Some(body) = &state.body {
                let outer = state.scans[body.frame - 1].name.clone();
                state.fail(site, Kind::NestedScan { inner: name.to_string(), outer });
                state.silent += 1;
                return None;
            }
            state.scans.push(Recorded { name: name.to_string(), node: None, mask: None, outputs: Vec::new() });
            state.body = Some(Body {
                frame: state.scans.len(),
                graph: Graph::new(),
                axis: over.axis,
                reverse: over.reverse,
                mask: None,
                reset: None,
                list: None,
                limit: None,
                depth: state.scopes.len(),
                captures: Vec::new(),
                each: Vec::new(),
                states: Vec::new(),
                starts: Vec::new(),
            });
            if let Some(leaf) = over.mask.and_then(|mask| state.at(site, mask)) {
                let body = state.body.as_mut().expect("just opened");
                body.each[0].1.name = "mask".to_string();
                body.mask = Some(leaf.value);
            }
            if let Some(leaf) = over.reset.and_then(|reset| state.at(site, reset)) {
                state.body.as_mut().expect("just opened").reset = Some(leaf.value);
            }
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
            outputs.push(Output { value, site, state: None, zero: None, all: None, last: None });
            Some(outputs.len() - 1)
        })
    }

    /// Adds the node of the scan that [`open`](Recording::open) began, if it began one.
    pub fn close(&self, site: Site, scan: Option<usize>) {
        if scan.is_some() {
            self.with(|state| state.close(site));
        }
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

impl State {
    /// This step's rows of a sequence.
    pub fn at(&mut self, site: Site, v: Value) -> Option<Local> {
        if self.silent > 0 {
            return None;
        }
        let ty = self.program.ty(v).clone();
        if self.body.as_ref().is_some_and(|body| body.list.is_some()) {
            let hint =
                "this loop is written out over a list of values and has no time axis: join the list's to read more";
            self.fail(site, Kind::NotASequence { given: ty, hint });
            return None;
        }
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
        let name = self.name_in_body(name);
        let initial = self.initial(site, &name, initial)?;
        let body = self.body.as_mut().expect("a step is of an open body");
        let ty = self.program.graph.ty(initial).clone();
        if let Some(first) = body.states.iter().find(|s| s.name == name) {
            let first = Place(Some(first.made));
            let scan = self.scans[body.frame - 1].name.clone();
            self.fail(site, Kind::StateTwice { scan, name, first });
            return None;
        }
        body.graph.location = Some(site);
        let leaf = body.graph.leaf(Op::Carry(body.states.len()), ty.at(Extent::Batch));
        let (frame, reset, reverse) = (body.frame, body.reset, body.reverse);
        // A leaf for this alone: `start` may say later that the state starts elsewhere.
        let again = reset.map(|_| match *self.program.graph.op(initial) {
            Op::Constant(x) => body.graph.constant(x, ty),
            _ => body.capture(initial, ty, "v".to_string()),
        });
        let seen = match (reset, again) {
            // A loop that runs backwards begins anew behind the step that is the first of a sequence.
            (Some(reset), Some(again)) if !reverse => body.graph.add(Op::Select, &[reset, again, leaf]),
            _ => leaf,
        };
        body.states.push(StateOf { name, made: site, leaf, seen, initial, again, next: None });
        Some(Local { frame, value: seen })
    }

    /// A name within the scopes of the open body.
    fn name_in_body(&self, name: &str) -> String {
        let depth = self.body.as_ref().expect("a step is of an open body").depth;
        join_name(&self.scopes[depth..], name)
    }

    /// A value of the program's graph as one to start from: a row for each sample.
    fn initial(&mut self, site: Site, name: &str, value: Value) -> Option<Value> {
        let given = self.program.ty(value).clone();
        if let Extent::Time(_) = given.extent {
            self.fail(site, Kind::BadInitial { name: name.to_string(), given });
            return None;
        }
        self.program.graph.location = Some(site);
        Some(match given.extent {
            Extent::Shared => self.program.graph.add(Op::Expand(Extent::Batch), &[value]),
            _ => value,
        })
    }

    /// Notes where a state starts that the step makes, before this or after.
    pub fn start(&mut self, site: Site, name: &str, initial: Value) {
        if self.silent > 0 {
            return;
        }
        let name = self.name_in_body(name);
        let Some(initial) = self.initial(site, &name, initial) else { return };
        let body = self.body.as_mut().expect("a step is of an open body");
        if let Some(first) = body.starts.iter().find(|s| s.name == name) {
            let first = Place(Some(first.site));
            return self.fail(site, Kind::StartTwice { name, first });
        }
        body.starts.push(Start { name, site, initial });
    }

    /// Has the states of a body that is complete start where they are to start.
    fn start_states(&mut self, body: &mut Body) {
        for Start { name, site, initial } in std::mem::take(&mut body.starts) {
            let Some(i) = body.states.iter().position(|s| s.name == name) else {
                let known = list_names("states", body.states.iter().map(|s| s.name.as_str()));
                self.fail(site, Kind::UnknownName { name, known });
                continue;
            };
            let (state, given) = (body.graph.ty(body.states[i].leaf).clone(), self.program.ty(initial).clone());
            if state != given {
                self.fail(site, Kind::StartType { name, state, given });
                continue;
            }
            body.states[i].initial = initial;
            // Where the state begins anew, it begins there, too.
            let Some(again) = body.states[i].again else { continue };
            match *body.graph.op(again) {
                Op::Capture(port) => body.captures[port].0 = initial,
                _ => {
                    *body.graph.op_mut(again) = Op::Capture(body.captures.len());
                    body.captures.push((initial, Port { name: "v".to_string(), value: again }));
                }
            }
        }
    }

    /// Gives a state its next value, which is returned, one row for each sample.
    pub fn next(&mut self, site: Site, state: Value, value: Option<Value>) -> Option<Local> {
        if self.silent > 0 {
            return None;
        }
        let body = self.body.as_mut().expect("a step is of an open body");
        let ty = body.graph.ty(state).clone();
        let Some(i) = body.states.iter().position(|s| s.seen == state) else {
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

    /// Has the open body take at most so many steps; the least counts.
    pub fn limit(&mut self, site: Site, steps: usize) {
        if steps == 0 {
            return self.fail(site, Kind::NoSteps);
        }
        if let (0, Some(body)) = (self.silent, &mut self.body)
            && body.limit.is_none_or(|(most, _)| steps < most)
        {
            body.limit = Some((steps, site));
        }
    }

    /// Makes the open body read a list, one value a step; the leaf that reads it.
    pub fn read_list(&mut self, site: Site, list: Vec<Value>) -> Option<Local> {
        if self.silent > 0 {
            return None;
        }
        let ty = list.first().map(|&v| self.program.ty(v).clone())?;
        let body = self.body.as_mut()?;
        body.graph.location = Some(site);
        let leaf = body.graph.leaf(Op::Each(0), ty);
        body.list = Some(list);
        Some(Local { frame: body.frame, value: leaf })
    }

    /// Writes the open body out into the program's graph, once for each value of its list: the outputs, and the
    /// states after the last step.
    pub fn write_out(&mut self, output: Option<Value>) -> (Vec<Value>, Vec<(String, Value)>) {
        if self.silent > 0 {
            return Default::default();
        }
        let mut body = self.body.take().expect("closed once");
        self.start_states(&mut body);
        let scan = self.scans[body.frame - 1].name.clone();
        for state in body.states.iter().filter(|s| s.next.is_none()) {
            self.fail(state.made, Kind::NoNext { scan: scan.clone(), name: state.name.clone() });
        }
        let (Some(list), Some(output)) = (body.list, output) else { return Default::default() };
        if let Some((most, site)) = body.limit.filter(|(most, _)| *most < list.len()) {
            self.fail(site, Kind::ListTooLong { scan: scan.clone(), steps: list.len(), most });
        }
        let next: Vec<Value> = body.states.iter().map(|s| s.next.map_or(s.leaf, |(v, _)| v)).collect();
        let needed = body.graph.reachable(next.iter().copied().chain([output]));
        let mut states: Vec<Value> = body.states.iter().map(|s| s.initial).collect();
        let mut outputs = Vec::new();
        // What a step computes of nothing that changes is computed once.
        let mut map: Vec<Option<Value>> = vec![None; body.graph.len()];
        let mut changes = vec![false; body.graph.len()];
        for x in list {
            for v in body.graph.values().filter(|v| needed[v.index()]) {
                let node = body.graph.node(v);
                changes[v.index()] =
                    matches!(node.op, Op::Each(_) | Op::Carry(_)) || node.operands.iter().any(|o| changes[o.index()]);
                if map[v.index()].is_some() && !changes[v.index()] {
                    continue;
                }
                let graph = &mut self.program.graph;
                graph.location = node.location;
                let operands: Vec<Value> = node.operands.iter().filter_map(|o| map[o.index()]).collect();
                map[v.index()] = Some(match node.op {
                    Op::Each(_) => x,
                    Op::Carry(i) => states[i],
                    Op::Capture(i) => body.captures[i].0,
                    Op::Constant(c) => graph.constant(c, node.ty.clone()),
                    ref op => graph.add(op.clone(), &operands),
                });
            }
            let at = |v: Value| map[v.index()].expect("all that is needed has been copied");
            outputs.push(at(output));
            states = next.iter().map(|&v| at(v)).collect();
        }
        let names = body.states.into_iter().map(|s| s.name);
        (outputs, names.zip(states).collect())
    }

    /// Makes the open body a scan node of the program.
    fn close(&mut self, site: Site) {
        let mut body = self.body.take().expect("closed once");
        self.start_states(&mut body);
        let recorded = body.frame - 1;
        let name = self.scans[recorded].name.clone();
        if body.axis.is_none() && self.program.axes.is_empty() {
            self.axis(site, DEFAULT_AXIS);
        } else if body.axis.is_none() && self.program.axes.len() > 1 {
            let known = list_names("time axes", self.program.axes.iter().map(String::as_str));
            return self.fail(site, Kind::WhichAxis { scan: name, known });
        }
        let axis = body.axis.unwrap_or(Axis(0));
        // Where states begin anew within a run, its number of steps says nothing.
        if let (Some((steps, site)), None) = (body.limit, body.reset) {
            self.program.limits.push(Limit { axis, steps, place: Place(Some(site)) });
        }
        for state in body.states.iter().filter(|s| s.next.is_none()) {
            self.fail(state.made, Kind::NoNext { scan: name.clone(), name: state.name.clone() });
        }
        let mut operands: Vec<Value> = Vec::new();
        operands.extend(body.captures.iter().chain(&body.each).map(|(v, _)| v));
        operands.extend(body.states.iter().map(|s| s.initial));
        // A state without its next value stays as it is: the error is noted, and the rest can be checked.
        let states = std::mem::take(&mut body.states);
        let again: Vec<Option<Value>> = states.iter().map(|s| s.again.filter(|_| body.reverse)).collect();
        let carry = |s: StateOf| Carry { name: s.name, value: s.leaf, next: s.next.map_or(s.leaf, |(v, _)| v) };
        let mut carries: Vec<Carry> = states.into_iter().map(carry).collect();
        let graph = &mut self.program.graph;
        graph.location = Some(site);
        for output in &mut self.scans[recorded].outputs {
            let state = carries.iter().position(|c| c.next == output.value);
            // What the next step reads is another value where it may begin anew.
            output.state = state.filter(|&i| again[i].is_none());
            if output.state.is_none() && (body.reverse || body.mask.is_some()) {
                output.zero = Some(graph.constant(0.0, body.graph.ty(output.value).clone()));
            }
        }
        if let Some(reset) = body.reset {
            for (carry, again) in carries.iter_mut().zip(again) {
                let Some(again) = again else { continue };
                body.graph.location = Some(site);
                carry.next = body.graph.add(Op::Select, &[reset, again, carry.next]);
            }
        }
        let mut integers = Vec::new();
        if let Some(mask) = body.mask {
            self.scans[recorded].mask = Some(mask);
            for carry in carries.iter_mut().filter(|c| c.next != c.value) {
                if body.graph.is_float(carry.next) {
                    carry.next = held(&mut body.graph, site, mask, carry.next, carry.value);
                } else {
                    integers.push((format!("state `{}`", carry.name), body.graph.ty(carry.value).clone()));
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
        for (what, given) in integers {
            self.fail(site, Kind::IntegerPastEnd { what, given });
        }
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
        let (node, mask) = (self.scans[scan].node?, self.scans[scan].mask);
        let Output { value, state, site: given_out, all, .. } = self.scans[scan].outputs[output];
        if all.is_some() {
            return all;
        }
        let s = self.scan(node);
        let name = state.map_or_else(|| "y".to_string(), |i| s.carries[i].name.clone());
        let value = match mask {
            None => value,
            Some(mask) if s.body.is_float(value) => {
                s.body.location = Some(given_out);
                let zero = s.body.scalar(0.0);
                s.body.add(Op::Select, &[mask, value, zero])
            }
            Some(_) => {
                let given = s.body.ty(value).clone();
                self.fail(site, Kind::IntegerPastEnd { what: "output".to_string(), given });
                return None;
            }
        };
        s.yields.push(Port { name, value });
        let position = s.yields.len() - 1;
        let all = self.result(site, node, Op::Yield(position));
        self.scans[scan].outputs[output].all = Some(all);
        Some(all)
    }

    /// The last value of the state that has the output as its next value; else the last row block of its sequence.
    /// In reverse the last step is step 0, and with lengths each sample has its own, neither of which `last` gives: a
    /// state is added that remembers the output.
    fn last(&mut self, site: Site, scan: usize, output: usize) -> Option<Value> {
        let (node, mask) = (self.scans[scan].node?, self.scans[scan].mask);
        let Output { value, mut state, zero, last, .. } = self.scans[scan].outputs[output];
        if last.is_some() {
            return last;
        }
        let s = self.scan(node);
        if let (None, Some(zero)) = (state, zero) {
            let ty = s.body.ty(value).clone();
            s.body.location = Some(site);
            let leaf = s.body.leaf(Op::Carry(s.carries.len()), ty.clone());
            let next = match mask {
                None => value,
                Some(mask) if ty.is_float() => held(&mut s.body, site, mask, value, leaf),
                Some(_) => {
                    self.fail(site, Kind::IntegerPastEnd { what: "output".to_string(), given: ty });
                    return None;
                }
            };
            s.carries.push(Carry { name: "y".to_string(), value: leaf, next });
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
}

/// A state's next value: past a sample's end, the state as it is.
fn held(body: &mut Graph, site: Site, mask: Value, next: Value, state: Value) -> Value {
    body.location = Some(site);
    body.add(Op::Select, &[mask, next, state])
}
