//! Truncated back-propagation: a program that is trained window by window, with its states carried forward.
//!
//! In the terms of Williams & Peng (1990, "An efficient gradient-based algorithm for on-line training of recurrent
//! network trajectories"; there BPTT(h; h′) with h = k2 and h′ = k1): there is an update every k1 steps, and its
//! gradient runs back over the last k2 steps. What that takes of a program is decided by which steps come *before* the
//! window that has a loss, the **lead**:
//!
//! | | lead | window | gradient |
//! |---|---|---|---|
//! | k2 = k1 | [none](Lead::None) | the k1 new steps | back to the window's start |
//! | k2 < k1 | the first k1 − k2 new steps, [forward only](Lead::Forward) | the last k2 | back to the window's start |
//! | k2 > k1 | the k2 − k1 steps before, [gone through again](Lead::Again) | the k1 new ones | through the lead to its start |
//!
//! Before: a recorded program, whose loops start anew in each run. After: the lead has a time axis of its own, and each
//! loop is two loops on the same weights, the second of which starts where the first ends. The objective is that of
//! the window: what it reduces over time, it reduces over the window's steps. Derivatives are taken of the result, so
//! that "no further back" is a property of the graph: a state that is carried is an input, and what a forward lead
//! leaves goes through `stop_gradient`.
//!
//! **The state that is carried** is an input with an update, `state.<scan>.<state>`: the state at the lead's start, or at
//! the window's if there is no lead. It is always the one that was computed in the run that passed it, with the
//! weights of that run. A lead that is gone through again starts from it and computes its steps with the present
//! weights, so each gradient is the exact one of a function of the present weights: the loss of the window after k2
//! steps from a constant state.
//!
//! **Where a sequence begins** the state is the loop's initial value, *in the graph*: its gradient goes on into a
//! trained initial state, and not into what was before. Without a lead or with a forward one that can only be at the
//! start of all ([`FRESH`], one flag a sample). In a lead that is gone through again beginnings wander from the window
//! into the lead, so there each step has a flag ([`RESET`]), of the window and of the lead, and another ([`KEEP`]) says
//! behind which step the state is taken that the next run starts from.
//!
//! An axis has at least one step. Where a forward lead should have none (a last window of at most k2 steps), it has one
//! that does not count: [`EMPTY`]. Where the other kind should (at the start of all), a flag at the window's first step
//! cuts it off.

use std::cell::RefCell;

use crate::error::Place;
use crate::ir::{Axis, Carry, Extent, Graph, Input, Op, Program, Scan, Type, Update, Value, bounds};
use crate::simplify::rebuild::{Body, Numbered, Results, Rewrite, Used, copy_face, walk, with_graph};

/// Input, `f32[B]`: not 0 where a sample's states start from their initial values instead of the carried ones.
pub const FRESH: &str = "window.fresh";
/// Input, `f32`: not 0 if a forward lead's one step does not count.
pub const EMPTY: &str = "window.empty";
/// Input, `f32[T, B]`: not 0 where a sample's sequence begins. Only with a lead that is gone through again.
pub const RESET: &str = "window.reset";
/// Input, `f32[T, B]`: not 0 at the step whose states the next run starts from. Only with a lead that is gone through
/// again; with no such step it starts from where this one did.
pub const KEEP: &str = "window.keep";

/// The name that an input on the truncated axis has on that of the lead.
pub fn lead_name(input: &str) -> String {
    format!("lead.{input}")
}

/// Which steps come before the window. See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// None.
    None,
    /// New steps, through which no gradient runs.
    Forward,
    /// Steps of former windows, through which gradients run.
    Again,
}

/// Why a program cannot be truncated.
#[derive(Clone, PartialEq, thiserror::Error)]
pub enum TruncateError {
    /// No time axis, or several.
    #[error(
        "program `{program}` has {} time axes ({}); truncated back-propagation is along the only one", axes.len(),
        if axes.is_empty() { "no sequence".to_string() } else { axes.join(", ") }
    )]
    Axes {
        /// Name of the program.
        program: String,
        /// Names of its axes.
        axes: Vec<String>,
    },
    /// Nothing to carry.
    #[error("program `{program}` has no loop with a state that its objective depends on: there is nothing to truncate")]
    NoState {
        /// Name of the program.
        program: String,
    },
    /// A loop that runs backwards.
    #[error(
        "loop `{scan}` ({place}) runs from the last step to the first: in a window it would start at the window's end, \
         not at the sequence's. Train on whole sequences"
    )]
    Backwards {
        /// Name of the loop.
        scan: String,
        /// Where it was recorded.
        place: Place,
    },
    /// Samples of different lengths.
    #[error(
        "samples have lengths of their own ({place}), which are those of a whole run: truncation does not cut them into \
         windows. `carry_state(true)` takes windows that you cut, each with the lengths that are left in it"
    )]
    Lengths {
        /// Where they were recorded.
        place: Place,
    },
    /// Loops that keep so many steps and no more.
    #[error(
        "a sequence has at most {most} steps ({place}), which are those of a whole run: truncation does not cut them into \
         windows. Train on whole sequences"
    )]
    Limited {
        /// The most.
        most: usize,
        /// Where that was recorded.
        place: Place,
    },
    /// A step that reads something computed of all steps.
    #[error(
        "the steps of loop `{scan}` ({place}) depend on a value that is computed of all steps of the sequence (a sum \
         over them, their number, the last one, another loop's end): the objective does not separate into steps. \
         `carry_state(true)` takes it window by window, with windows that you cut"
    )]
    NotSeparable {
        /// Name of the loop.
        scan: String,
        /// Where it was recorded.
        place: Place,
    },
    /// A sequence that the program replaces.
    #[error("sequence `{input}` has an update: a stored sequence cannot be cut into windows")]
    StoredSequence {
        /// Name of the input.
        input: String,
    },
}

crate::debug_is_display!(TruncateError);

/// A program made for windows.
#[derive(Clone, Debug)]
pub struct Truncated {
    /// The program; its objective is that of the window.
    pub program: Program,
    /// What comes before the window.
    pub lead: Lead,
    /// The axis of the lead, if there is one. Each input on the truncated axis has another on this one, called as
    /// [`lead_name`] says.
    pub lead_axis: Option<Axis>,
    /// Inputs with an update that hold the states between runs: `state.<scan>.<state>`.
    pub states: Vec<String>,
}

/// The only time axis of a program whose loops all run forwards, from step to step.
///
/// # Errors
/// What stands in the way of cutting its sequences into windows such that each step computes what it does in one run.
pub fn separable(program: &Program) -> Result<Axis, TruncateError> {
    let name = || program.name.clone();
    let &[axis] = &program.time_axes()[..] else {
        let axes = program.time_axes().into_iter();
        let axes = axes.map(|a| program.axes.get(usize::from(a.0)).cloned().unwrap_or(a.letter().to_string()));
        return Err(TruncateError::Axes { program: name(), axes: axes.collect() });
    };
    for input in program.inputs.iter().filter(|i| program.ty(i.value).extent == Extent::Time(axis)) {
        if program.updates.iter().any(|u| u.target == input.value) {
            return Err(TruncateError::StoredSequence { input: input.name.clone() });
        }
    }
    if let Some(l) = program.limits.iter().find(|l| l.axis == axis) {
        return Err(TruncateError::Limited { most: l.steps, place: l.place });
    }
    let graph = &program.graph;
    let needed = graph.reachable(program.roots());
    let of_all = of_all_steps(graph);
    let mut states = 0;
    for v in graph.values().filter(|v| needed[v.index()]) {
        if let Op::Within(_) = graph.op(v) {
            return Err(TruncateError::Lengths { place: Place(graph.node(v).location) });
        }
        let Op::Scan(scan) = graph.op(v) else { continue };
        let (scan, place) = (&**scan, Place(graph.node(v).location));
        if scan.reverse {
            return Err(TruncateError::Backwards { scan: scan.name.clone(), place });
        }
        if graph.operands(v).iter().any(|o| of_all[o.index()]) {
            return Err(TruncateError::NotSeparable { scan: scan.name.clone(), place });
        }
        states += scan.carries.len();
    }
    if states == 0 {
        return Err(TruncateError::NoState { program: name() });
    }
    Ok(axis)
}

/// Which values depend on how many steps there are, or on other steps than those that a loop has behind it.
fn of_all_steps(graph: &Graph) -> Vec<bool> {
    let timed = |v: Value| matches!(graph.ty(v).extent, Extent::Time(_));
    let mut of_all = vec![false; graph.len()];
    for v in graph.values() {
        let operands = graph.operands(v);
        let own = match graph.op(v) {
            Op::RowCount(extent) => matches!(extent, Extent::Time(_)),
            Op::Final(_) | Op::Total(_) | Op::PlaceLast(_) | Op::Within(_) => true,
            Op::Scan(_) | Op::Yield(_) => false,
            _ => !timed(v) && operands.iter().any(|&o| timed(o)),
        };
        of_all[v.index()] = own || operands.iter().any(|o| of_all[o.index()]);
    }
    of_all
}

/// Makes a program for windows of it.
///
/// Without a lead it takes any program: loops that run backwards start anew in each window, and what is computed of all
/// steps is computed of the window's.
///
/// ```
/// use retrograd_compiler::{ir::Program, record::concat, time::{Lead, truncate}};
/// let program = Program::record("rnn", |p| {
///     let x = p.sequence("x", 3);
///     let run = p.scan("rnn", |s| {
///         let h = s.state("h", 2);
///         s.next(h, s.affine("cell", concat([h, s.at(x)]), 2).tanh())
///     });
///     p.minimize(run.all().square().mean_features());
/// })?;
/// let two = truncate(&program, Lead::Forward)?;
/// let names: Vec<&str> = two.program.inputs.iter().map(|i| i.name.as_str()).collect();
/// assert_eq!(names, ["x", "state.rnn.h", "window.fresh", "window.empty", "lead.x"]);
/// assert_eq!(two.program.parameters.len(), 2); // both loops have the same weights
/// # assert_eq!(two.program.verify(), Ok(()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// With a lead, those of [`separable`].
pub fn truncate(program: &Program, lead: Lead) -> Result<Truncated, TruncateError> {
    let axis = match lead {
        Lead::None => None,
        _ => Some(separable(program)?),
    };
    let old = &program.graph;
    let needed = old.reachable(program.roots());
    let is_loop = |v: &Value| needed[v.index()] && matches!(old.op(*v), Op::Scan(scan) if !scan.reverse);
    let loops: Vec<Value> = old.values().filter(is_loop).collect();

    // Inputs come before everything that is computed.
    let mut g = Numbered::default();
    let mut seeds = vec![None; old.len()];
    copy_face(program, &mut g, &mut seeds);
    let mut inputs = Inputs { taken: program.inputs.iter().map(|i| i.name.clone()).collect(), made: Vec::new() };
    inputs.taken.extend(program.parameters.iter().map(|p| p.name.clone()));
    let mut carried: Vec<Vec<Value>> = Vec::new();
    for &v in &loops {
        let Op::Scan(scan) = old.op(v) else { unreachable!("a loop") };
        let state = |c: &Carry| {
            let ty = scan.body.ty(c.value).clone();
            inputs.add(&mut g, &format!("state.{}.{}", scan.name, c.name), ty, None)
        };
        carried.push(scan.carries.iter().map(state).collect());
    }
    let states: Vec<Input> = inputs.made.clone();
    let mut axes = program.axes.clone();
    let flag = |extent| Type::float(extent, ());
    let mut fresh = None;
    if lead != Lead::Again {
        fresh = Some(inputs.add(&mut g, FRESH, flag(Extent::Batch), None));
    }
    let mut before = None;
    if let Some(axis) = axis {
        axes.resize_with(axes.len().max(usize::from(axis.0) + 1), || axis.letter().to_string());
        if axes.len() == usize::from(Axis::MAX) {
            return Err(TruncateError::Axes { program: program.name.clone(), axes });
        }
        let own = Axis(axes.len() as u8);
        axes.push(format!("{}.lead", axes[usize::from(axis.0)]));
        let mut flags = [None, None];
        let empty = match lead {
            Lead::Forward => Some(inputs.add(&mut g, EMPTY, flag(Extent::Shared), None)),
            _ => {
                flags = [axis, own].map(|axis| {
                    let names = [RESET, KEEP].map(|name| if axis == own { lead_name(name) } else { name.to_string() });
                    let [reset, keep] = names.map(|n| inputs.add(&mut g, &n, flag(Extent::Time(axis)), None));
                    Some(Flags { reset, keep })
                });
                None
            }
        };
        let mut led = vec![None; old.len()];
        for input in program.inputs.iter().filter(|i| program.ty(i.value).extent == Extent::Time(axis)) {
            let ty = program.ty(input.value).at(Extent::Time(own));
            led[input.value.index()] = Some(inputs.add(&mut g, &lead_name(&input.name), ty, input.bound));
        }
        let [of_window, of_lead] = flags;
        before = Some(LeadOf { axis, own, empty, of_window, of_lead, led });
    }

    let mut pass = Pass { carried, fresh, before, ends: Vec::new(), next: RefCell::default() };
    pass.record_lead(old, &loops, &seeds, &mut g);
    let map = walk(&pass, old, &program.roots(), None, seeds, &mut g);
    let last = pass.next.into_inner().states;
    let mut new = with_graph(program, g.finish(), &map);
    new.axes = axes;
    new.updates.extend(states.iter().zip(&last).map(|(state, &value)| Update { target: state.value, value }));
    new.inputs.extend(inputs.made);
    // What holds an index has the bound of what it indexes. A recording has none that could be too large.
    bounds::derive(&mut new);
    let states = states.into_iter().map(|s| s.name).collect();
    Ok(Truncated { program: new.by_pass(), lead, lead_axis: pass.before.map(|b| b.own), states })
}

/// Inputs that are being declared.
struct Inputs {
    taken: Vec<String>,
    made: Vec<Input>,
}

impl Inputs {
    /// Adds one, with a number behind its name if that is taken: two loops may have one name.
    fn add(&mut self, g: &mut Numbered, plain: &str, ty: Type, bound: Option<usize>) -> Value {
        let numbered = || (2..).map(|i| format!("{plain}.{i}")).find(|n| !self.taken.contains(n));
        let name = match self.taken.iter().any(|n| n == plain) {
            true => numbered().expect("numbers do not end"),
            false => plain.to_string(),
        };
        self.taken.push(name.clone());
        let value = g.leaf(Op::Input(name.clone()), ty);
        self.made.push(Input { name, value, bound });
        value
    }
}

/// The flags of each step of an axis.
#[derive(Clone, Copy)]
struct Flags {
    reset: Value,
    keep: Value,
}

/// What the lead is recorded with.
struct LeadOf {
    /// The axis of the program, and that of its lead.
    axis: Axis,
    own: Axis,
    empty: Option<Value>,
    of_window: Option<Flags>,
    of_lead: Option<Flags>,
    /// By the old graph's values: what they are in the lead, where they have a row for each step.
    led: Vec<Option<Value>>,
}

/// What a loop of the lead leaves.
struct End {
    states: Vec<Value>,
    kept: Vec<Value>,
}

/// What the next run starts from.
#[derive(Default)]
struct Next {
    /// Loops that have been visited,
    loops: usize,
    /// and for each of their states its value.
    states: Vec<Value>,
}

struct Pass {
    /// The inputs that hold the states of each loop.
    carried: Vec<Vec<Value>>,
    fresh: Option<Value>,
    before: Option<LeadOf>,
    /// For each loop, what its lead leaves.
    ends: Vec<End>,
    next: RefCell<Next>,
}

impl Pass {
    /// The states that a run starts from, for loops that have no flags of their own.
    fn start(&self, g: &mut Numbered, i: usize, initial: &[Value]) -> Vec<Value> {
        let Some(fresh) = self.fresh else { return self.carried[i].clone() };
        let states = initial.iter().zip(&self.carried[i]);
        states.map(|(&initial, &carried)| g.add(Op::Select, &[fresh, initial, carried])).collect()
    }

    /// Records the loops over the lead, and all that their steps read.
    fn record_lead(&mut self, old: &Graph, loops: &[Value], seeds: &[Option<Value>], g: &mut Numbered) {
        let Some(before) = &self.before else { return };
        let (time, own) = (Extent::Time(before.axis), Extent::Time(before.own));
        let needed = old.reachable(loops.iter().flat_map(|&v| old.operands(v).iter().copied()));
        let wanted = |v: &Value| needed[v.index()] || loops.contains(v);
        let mut led = before.led.clone();
        // Values without a row for each step are the same in the lead and in the window.
        let mut map: Vec<Option<Value>> = seeds.to_vec();
        let mut yields: Vec<Option<Vec<Option<Value>>>> = (0..old.len()).map(|_| None).collect();
        let mut ends = Vec::new();
        for v in old.values().filter(wanted) {
            let node = old.node(v);
            let on_axis = node.ty.extent == time;
            let done = if on_axis { led[v.index()] } else { map[v.index()] };
            if done.is_some() {
                continue;
            }
            let new = |o: &Value| led[o.index()].or(map[o.index()]).expect("operands come before their users");
            let operands = || node.operands.iter().map(new).collect::<Vec<Value>>();
            let value = match &node.op {
                Op::Scan(scan) => {
                    let operands = operands();
                    let initial = &operands[operands.len() - scan.carries.len()..];
                    let start = self.start(g, ends.len(), initial);
                    let asked = |i: usize| {
                        old.users(v).iter().any(|u| needed[u.index()] && matches!(old.op(*u), Op::Yield(n) if *n == i))
                    };
                    let used = Used {
                        yields: (0..scan.yields.len()).map(asked).collect(),
                        finals: vec![true; scan.carries.len()],
                        totals: vec![false; scan.sums.len()],
                    };
                    let flags = before.of_lead.map(|flags| (flags, self.carried[ends.len()].as_slice()));
                    let name = lead_name(&scan.name);
                    let over = Scan::new(name, before.own, false);
                    let (results, kept) = place(g, &over, scan, &operands, &start, &used, flags);
                    yields[v.index()] = Some(results.yields);
                    let states = results.finals.into_iter().map(|f| f.expect("all are used")).collect();
                    ends.push(End { states, kept });
                    continue;
                }
                Op::Yield(i) => {
                    yields[node.operands[0].index()].as_ref().and_then(|y| y[*i]).expect("it was asked for")
                }
                Op::Constant(x) => g.constant(*x, if on_axis { node.ty.at(own) } else { node.ty.clone() }),
                Op::Expand(to) if *to == time => g.add(Op::Expand(own), &operands()),
                op => g.add(op.clone(), &operands()),
            };
            *(if on_axis { &mut led[v.index()] } else { &mut map[v.index()] }) = Some(value);
        }
        self.ends = ends;
    }
}

/// A loop like another on these operands, over the axis and under the name of `over`, which starts from `start`. With
/// flags, states are reset by them to the initial values among the operands, and those that are to be kept are given
/// too; `flags` has what these are where no step is flagged.
fn place(
    g: &mut Numbered,
    over: &Scan,
    scan: &Scan,
    operands: &[Value],
    start: &[Value],
    used: &Used,
    flags: Option<(Flags, &[Value])>,
) -> (Results, Vec<Value>) {
    let first = operands.len() - scan.carries.len();
    let initial = &operands[first..];
    let mut body = Body::like(over);
    let mut seeds = body.copy_ports(scan, &[&operands[..first], start].concat());
    let flag = Type::float(Extent::Batch, ());
    if let Some((Flags { reset, .. }, _)) = flags {
        let reset = body.each("reset", reset, &flag);
        for (carry, &initial) in scan.carries.iter().zip(initial) {
            let ty = scan.body.ty(carry.value).clone();
            let initial = match *g.op(initial) {
                Op::Constant(x) => body.g.constant(x, ty),
                _ => body.capture(&format!("{}.initial", carry.name), initial, &ty),
            };
            let state = seeds[carry.value.index()].expect("ports are copied");
            seeds[carry.value.index()] = Some(body.g.add(Op::Select, &[reset, initial, state]));
        }
    }
    let map = walk(&Same, &scan.body, &scan.roots(), Some(scan), seeds, &mut body.g);
    let new = |v: Value| map[v.index()].expect("a walk maps all roots");
    let count = scan.carries.len();
    if let Some((Flags { keep, .. }, kept)) = flags {
        let keep = body.each("keep", keep, &flag);
        for (i, (carry, &kept)) in scan.carries.iter().zip(kept).enumerate() {
            let state = body.carry(&format!("{}.kept", carry.name), kept, scan.body.ty(carry.value));
            let next = body.g.add(Op::Select, &[keep, new(carry.next), state]);
            body.next(count + i, next);
        }
    }
    let (node, results) = body.give_results(scan, &map, used, g);
    let kept = flags.map_or(0, |_| count);
    (results, (0..kept).map(|i| g.result(node, Op::Final(count + i))).collect())
}

/// A walk that changes nothing.
struct Same;

impl Rewrite for Same {
    type Facts = ();
    fn facts(&self, _: &Graph, _: &[Value], _: Option<&Scan>) {}
}

impl Rewrite for Pass {
    type Facts = ();
    fn facts(&self, _: &Graph, _: &[Value], _: Option<&Scan>) {}

    fn scan(&self, g: &mut Numbered, scan: &Scan, operands: &[Value], used: &Used) -> Results {
        if scan.reverse {
            let initial = &operands[operands.len() - scan.carries.len()..];
            return place(g, scan, scan, operands, initial, used, None).0;
        }
        let mut next = self.next.borrow_mut();
        let (i, before) = (next.loops, self.before.as_ref());
        let initial = &operands[operands.len() - scan.carries.len()..];
        let (mut start, mut flags) = (Vec::new(), None);
        match before.map(|before| (before, &self.ends[i])) {
            None => start = self.start(g, i, initial),
            Some((LeadOf { empty: Some(empty), .. }, end)) => {
                for (new, &led) in self.start(g, i, initial).into_iter().zip(&end.states) {
                    // An integer has no gradient to stop.
                    let led = if g.is_float(led) { g.add(Op::StopGradient, &[led]) } else { led };
                    start.push(g.add(Op::Select, &[*empty, new, led]));
                }
            }
            Some((before, end)) => {
                start.clone_from(&end.states);
                flags = before.of_window.map(|flags| (flags, end.kept.as_slice()));
            }
        }
        let all =
            Used { finals: vec![true; scan.carries.len()], yields: used.yields.clone(), totals: used.totals.clone() };
        let (results, kept) = place(g, scan, scan, operands, &start, &all, flags);
        next.loops += 1;
        match flags {
            Some(_) => next.states.extend(kept),
            None => next.states.extend(results.finals.iter().map(|f| f.expect("all are used"))),
        }
        results
    }
}
