//! What is not on the recurrence leaves the loop.
//!
//! Before: any program, derived or not. After, for each scan:
//!
//! - what no step changes is computed before it, once;
//! - products and all other work on sequences alone is done before it, for all steps at once (`x·W_x` becomes one
//!   product over T·B rows), and the loop reads the results as sequences;
//! - products and all other work that no state needs is done behind it, on the sequences that the loop writes;
//! - a sum over steps is a reduction behind it: `Σ_t aᵀ·b` is one `dot.tn` over all rows, and linear ops on such
//!   sums (pads, slices, concatenations …) follow it out;
//! - a scan without states is gone.
//!
//! What stays is the recurrence, and pointwise work and views wherever that moves fewer row elements between the
//! loop and memory: a product is worth a sequence of its own, `1 − h²` is not, if `h` is there to be read. That is
//! a minimum cut (`super::cut`), twice: between what is before the loop and in it, and between that and what is
//! behind it. What repeats a value over features is not stored: it is computed again behind the loop, from the value.
//!
//! All of it rests on one fact: an op that works row by row means the same on the rows of one step and on those of
//! all steps, whichever way the loop runs. What sums over the rows of one step has no such form, and stays unless it
//! is summed over the steps as well.

use std::collections::{HashMap, HashSet};

use super::cut::Cut;
use crate::ir::op::Tangent;
use crate::ir::{Binary, Extent, Graph, Op, Program, Scan, Type, Value};
use crate::simplify::rebuild::{Body, Numbered, Results, Rewrite, Used, fingerprint, rewrite, walk};
use crate::simplify::{Class, classes, is_rowwise, simplify};

/// What leaves one loop can free what another loop writes for it, so there is a second round or a third.
const ROUNDS: usize = 6;

/// Moves what is not on the recurrence out of all loops, and simplifies.
///
/// ```
/// use retrograd_compiler::{ir::Program, time::hoist};
/// let program = Program::parse("\
/// program sums {
///   axis T = time
///   sequence x: f32[T, B, 3]
///   parameter w: f32[3, 2] = glorot
///   scan sums {
///     shared w: f32[3, 2] = w
///     each x: f32[B, 3] = x
///     carry h: f32[B, 2] = 0
///     %0: f32[B, 2] = dot x, w
///     %1: f32[B, 2] = add h, %0
///     %2: f32[B, 2] = tanh %1
///     next h = %2
///   }
///   %0: f32[B, 2] = final h of sums
///   output h = %0
/// }
/// ")?;
/// assert!(hoist(&program).to_string().contains("\
///   %0: f32[T, B, 2] = dot x, w
///   scan sums {
///     each pre: f32[B, 2] = %0
///     carry h: f32[B, 2] = 0
///     %0: f32[B, 2] = add pre, h
///     %1: f32[B, 2] = tanh %0
///     next h = %1
///   }
/// "));
/// # Ok::<(), retrograd_compiler::ir::parse::ParseError>(())
/// ```
pub fn hoist(program: &Program) -> Program {
    let mut program = simplify(program);
    for _ in 0..ROUNDS {
        let before = fingerprint(&program);
        let moved = rewrite(&program, &Hoist);
        // Nothing to simplify, if nothing has moved.
        if fingerprint(&moved) == before {
            break;
        }
        program = simplify(&moved);
        if fingerprint(&program) == before {
            break;
        }
    }
    program
}

struct Hoist;

impl Rewrite for Hoist {
    type Facts = ();
    fn facts(&self, _: &Graph, _: &[Value], _: Option<&Scan>) {}

    fn scan(&self, g: &mut Numbered, scan: &Scan, operands: &[Value], used: &Used) -> Results {
        let division = Division::of(scan, used);
        Motion { g, scan, operands, division, outside: vec![None; scan.body.len()] }.run(used)
    }
}

/// Pointwise work and views are done where it saves traffic; all else leaves the loop if it can.
fn is_cheap(op: &Op) -> bool {
    let view = matches!(
        op,
        Op::Reshape(_) | Op::Transpose(_) | Op::Slice { .. } | Op::Pad { .. } | Op::Concat(_) | Op::Broadcast(_)
    );
    op.is_pointwise() || view
}

/// How a sum over steps is had outside of the loop.
enum Total {
    /// The same at every step: times the number of steps.
    Times,
    /// One value per row: a sum over rows.
    Rows,
    /// A sum over the rows of a step: the same op over the rows of all steps.
    Reduction,
    /// Linear in these operands together: the same op on their totals.
    Through(Vec<usize>),
    /// Not at all.
    Inside,
}

/// What is done where: before, in and behind a loop.
struct Division {
    classes: Vec<Class>,
    /// Computed in the loop, leaves included.
    inside: Vec<bool>,
    /// Sequences that the loop reads, computed before it.
    read: Vec<Value>,
    /// Values of the loop that something behind it needs.
    kept: Vec<Value>,
    /// Computed in the loop, and behind it once more: repetitions of what is kept.
    again: Vec<bool>,
    /// Needed as a value outside: for all steps, or once if no step changes it.
    outside: Vec<bool>,
}

impl Division {
    fn of(scan: &Scan, used: &Used) -> Division {
        let body = &scan.body;
        let n = body.len();
        let mut d = Division {
            classes: classes(scan),
            inside: vec![false; n],
            read: Vec::new(),
            kept: Vec::new(),
            again: vec![false; n],
            outside: vec![false; n],
        };
        let mut states: Vec<Value> = scan.carries.iter().map(|c| c.next).collect();
        let mut wanted: Vec<Value> = Vec::new();
        for (port, _) in scan.yields.iter().zip(&used.yields).filter(|(_, used)| **used) {
            wanted.push(port.value);
        }
        for (port, _) in scan.sums.iter().zip(&used.totals).filter(|(_, used)| **used) {
            match d.wanted_for_total(body, port.value) {
                Some(values) => wanted.extend(values),
                None => states.push(port.value),
            }
        }
        d.divide_behind(body, states, &wanted);
        d.divide_before(scan, &wanted);
        // What is needed outside, down to what the loop keeps.
        for &v in wanted.iter().chain(&d.read) {
            d.outside[v.index()] = true;
        }
        for v in body.values().rev() {
            if d.outside[v.index()] && !d.is_kept(v) {
                for o in body.operands(v) {
                    d.outside[o.index()] = true;
                }
            }
        }
        d.kept = body.values().filter(|&v| d.outside[v.index()] && d.is_kept(v)).collect();
        d
    }

    /// Whether a value that is needed behind the loop is what the loop writes.
    fn is_kept(&self, v: Value) -> bool {
        self.inside[v.index()] && self.class(v) == Class::Within && !self.again[v.index()]
    }

    fn class(&self, v: Value) -> Class {
        self.classes[v.index()]
    }

    /// One row for the whole of a step.
    fn is_sum_of_step(&self, body: &Graph, v: Value) -> bool {
        self.class(v) == Class::Within && body.ty(v).extent == Extent::Shared
    }

    /// Chooses which values that depend on states are computed in the loop. `states` must be; `wanted` are needed
    /// behind it.
    fn divide_behind(&mut self, body: &Graph, states: Vec<Value>, wanted: &[Value]) {
        let live = body.reachable(states.iter().chain(wanted).copied());
        let candidates: Vec<Value> =
            body.values().filter(|&v| live[v.index()] && self.class(v) == Class::Within).collect();
        let movable = |v: Value| {
            let node = body.node(v);
            let per_row = is_rowwise(&node.op) && node.ty.extent == Extent::Batch;
            per_row && !node.operands.iter().any(|&o| self.is_sum_of_step(body, o))
        };
        let fixed = candidates.iter().copied().filter(|&v| !movable(v));
        let stays = body.reachable(states.iter().copied().chain(fixed).collect::<Vec<_>>());

        let mut again = vec![false; body.len()];
        for &v in candidates.iter().filter(|&&v| stays[v.index()] && movable(v)) {
            again[v.index()] = matches!(body.op(v), Op::Broadcast(_));
        }

        let mut cut = Cut::new(body.len());
        for &v in &candidates {
            let op = body.op(v);
            // Twice the size, so that a tie can be broken: a slice is cut from what is stored whole, and a
            // concatenation is stored in place of its parts.
            let cost = 2 * body.ty(v).shape.len() as u64;
            // What repeats a value is had wherever that is.
            if again[v.index()] {
                cut.follows(v, body.operands(v)[0]);
            } else {
                cut.cost(v, cost + u64::from(matches!(op, Op::Slice { .. })));
            }
            if stays[v.index()] {
                cut.near(v);
            } else if !is_cheap(op) {
                cut.far(v);
            } else if matches!(op, Op::Concat(_)) {
                cut.cost_far(v, 1);
            }
            for &o in body.operands(v).iter().filter(|&&o| self.class(o) == Class::Within) {
                cut.uses(v, o);
            }
        }
        for &v in wanted.iter().filter(|&&v| self.class(v) == Class::Within) {
            cut.wanted(v);
        }
        let near = cut.solve(false, body.values());
        for v in candidates {
            self.inside[v.index()] = near[v.index()];
        }
        self.again = again;
        // Values that are not on the recurrence but are read there are on the list as what the loop needs.
        self.read = states.into_iter().filter(|&v| self.class(v) == Class::Before).collect();
    }

    /// Chooses which values that depend on sequences only are computed in the loop. `wanted` are needed behind it.
    fn divide_before(&mut self, scan: &Scan, wanted: &[Value]) {
        let body = &scan.body;
        let mut needed: Vec<Value> = std::mem::take(&mut self.read);
        for v in body.values().filter(|v| self.inside[v.index()]) {
            needed.extend(body.operands(v).iter().filter(|&&o| self.class(o) == Class::Before));
        }
        let live = body.reachable(needed.iter().copied());
        let candidates: Vec<Value> =
            body.values().filter(|&v| live[v.index()] && self.class(v) == Class::Before).collect();
        // A bias is where a product's sums start: with it, it is no more than without.
        let has_bias = |v: Value| {
            let is_bias = |&o: &Value| o != v && self.class(o) == Class::Invariant;
            let adds = |u: Value| matches!(body.op(u), Op::Binary(Binary::Add)) && body.operands(u).iter().any(is_bias);
            matches!(body.op(v), Op::Dot | Op::DotNt) && body.users(v).into_iter().any(adds)
        };
        let mut cut = Cut::new(body.len());
        for &v in &candidates {
            let op = body.op(v);
            let size = 2 * body.ty(v).shape.len() as u64;
            // A sequence that is there is read; a new one is written as well. What something behind the loop needs, such as
            // a gate that the derivative is written with, will be there in any case.
            let given = matches!(op, Op::Each(_));
            let there = given || wanted.contains(&v) && !has_bias(v);
            cut.cost(v, if there { size } else { 2 * size + u64::from(matches!(op, Op::Slice { .. })) });
            if given || !is_cheap(op) {
                cut.near(v);
            }
            for &o in body.operands(v).iter().filter(|&&o| self.class(o) == Class::Before) {
                cut.uses(v, o);
            }
        }
        needed.iter().for_each(|&v| cut.wanted(v));
        // Here the near side is outside, and the loop is far.
        let outside = cut.solve(true, body.values());
        let mut read = vec![false; body.len()];
        needed.iter().for_each(|v| read[v.index()] = true);
        for v in candidates.into_iter().rev() {
            if read[v.index()] && outside[v.index()] {
                self.read.push(v);
            } else if read[v.index()] {
                self.inside[v.index()] = true;
                body.operands(v).iter().for_each(|o| read[o.index()] = true);
            }
        }
        self.read.sort();
    }

    /// How a sum over steps of a value can be had.
    fn total(&self, body: &Graph, v: Value) -> Total {
        let (op, operands) = (body.op(v), body.operands(v));
        if self.class(v) == Class::Invariant {
            return Total::Times;
        }
        if body.ty(v).extent == Extent::Batch {
            return Total::Rows;
        }
        let changing: Vec<usize> =
            (0..operands.len()).filter(|&i| self.class(operands[i]) != Class::Invariant).collect();
        let per_row = changing.iter().all(|&i| body.ty(operands[i]).extent == Extent::Batch);
        if matches!(op, Op::DotTn | Op::ScatterAdd(_) | Op::SumRows(_)) && per_row {
            return Total::Reduction;
        }
        let floats: Vec<usize> = (0..operands.len()).filter(|&i| body.ty(operands[i]).is_float()).collect();
        let linear = match (op.row().tangent, op) {
            (Tangent::Linear, _) | (_, Op::Binary(Binary::Add | Binary::Sub)) => floats,
            (Tangent::Multilinear, _) if changing.len() == 1 => changing.clone(),
            (_, Op::Binary(Binary::Div)) => vec![0],
            _ => return Total::Inside,
        };
        if changing.iter().all(|i| linear.contains(i)) { Total::Through(linear) } else { Total::Inside }
    }

    /// Whether a sum over steps can be had outside of the loop.
    fn leaves(&self, body: &Graph, v: Value) -> bool {
        self.wanted_for_total(body, v).is_some()
    }

    /// Which values it needs there; `None` if it cannot be had there. Each value is looked at once, however many ways lead
    /// to it, and in a list rather than by recursion: a body may be as deep as it is long.
    fn wanted_for_total(&self, body: &Graph, v: Value) -> Option<Vec<Value>> {
        let (mut wanted, mut seen, mut open) = (Vec::new(), HashSet::new(), vec![v]);
        while let Some(v) = open.pop() {
            if !seen.insert(v) {
                continue;
            }
            let operands = body.operands(v);
            match self.total(body, v) {
                Total::Times | Total::Rows => wanted.push(v),
                Total::Reduction => wanted.extend(operands),
                Total::Through(linear) => {
                    let others = (0..operands.len()).filter(|i| !linear.contains(i));
                    wanted.extend(others.map(|i| operands[i]));
                    open.extend(linear.iter().rev().map(|&i| operands[i]));
                }
                Total::Inside => return None,
            }
        }
        Some(wanted)
    }
}

/// The motion of one scan's nodes.
struct Motion<'a> {
    g: &'a mut Numbered,
    scan: &'a Scan,
    /// What the scan reads outside.
    operands: &'a [Value],
    division: Division,
    /// Body values as they are outside of the loop: for all steps, or once if no step changes them.
    outside: Vec<Option<Value>>,
}

impl Motion<'_> {
    fn run(mut self, used: &Used) -> Results {
        let (scan, body) = (self.scan, &self.scan.body);
        self.move_out(|class| class != Class::Within);

        let mut new = Body::like(scan);
        let mut seeds = new.copy_ports(scan, self.operands);
        for &v in &self.division.read {
            if seeds[v.index()].is_none() {
                let sequence = self.outside_of(v);
                seeds[v.index()] = Some(new.each("pre", sequence, body.ty(v)));
            }
        }
        let mut roots: Vec<Value> = scan.carries.iter().map(|c| c.next).collect();
        let summed = |d: &Division| {
            let sums = scan.sums.iter().zip(&used.totals);
            sums.map(|(port, used)| *used && !d.leaves(body, port.value)).collect::<Vec<bool>>()
        };
        let summed = summed(&self.division);
        roots.extend(scan.sums.iter().zip(&summed).filter(|(_, s)| **s).map(|(port, _)| port.value));
        roots.extend(&self.division.kept);
        let map = walk(&Copy, body, &roots, Some(scan), seeds, &mut new.g);
        let at = |v: Value| map[v.index()].expect("a walk maps all roots");

        for (i, carry) in scan.carries.iter().enumerate() {
            new.next(i, at(carry.next));
        }
        let kept: Vec<(Value, usize)> =
            self.division.kept.iter().map(|&v| (v, new.yielded(&self.name(v), at(v)))).collect();
        let sums: Vec<Option<usize>> = scan
            .sums
            .iter()
            .zip(&summed)
            .map(|(port, summed)| summed.then(|| new.total(&port.name, at(port.value))))
            .collect();
        let runs = !kept.is_empty() || sums.iter().any(Option::is_some) || used.finals.contains(&true);
        let node = runs.then(|| new.place(self.g));
        let node = move || node.expect("a scan with results is placed");
        for (v, i) in kept {
            self.outside[v.index()] = Some(self.g.result(node(), Op::Yield(i)));
        }
        self.move_out(|class| class == Class::Within);

        let mut totals = HashMap::new();
        Results {
            yields: (0..scan.yields.len())
                .map(|i| {
                    used.yields[i].then(|| {
                        let v = self.outside_of(scan.yields[i].value);
                        let ty = scan.yield_type(i);
                        self.g.spread(v, &ty)
                    })
                })
                .collect(),
            finals: (0..scan.carries.len())
                .map(|i| used.finals[i].then(|| self.g.result(node(), Op::Final(i))))
                .collect(),
            totals: (0..scan.sums.len())
                .map(|i| {
                    used.totals[i].then(|| match sums[i] {
                        Some(i) => self.g.result(node(), Op::Total(i)),
                        None => self.total(scan.sums[i].value, &mut totals),
                    })
                })
                .collect(),
        }
    }

    fn outside_of(&self, v: Value) -> Value {
        self.outside[v.index()].expect("what is needed outside is there")
    }

    /// Computes outside what is needed there of some classes.
    fn move_out(&mut self, which: impl Fn(Class) -> bool) {
        let body = &self.scan.body;
        let (captures, each, _) = self.scan.split_operands(self.operands);
        for v in body.values() {
            let i = v.index();
            if !self.division.outside[i] || self.outside[i].is_some() || !which(self.division.class(v)) {
                continue;
            }
            let node = body.node(v);
            self.outside[i] = Some(match &node.op {
                Op::Capture(i) => captures[*i],
                Op::Each(i) => each[*i],
                Op::Constant(x) => self.g.constant(*x, node.ty.clone()),
                op => {
                    let operands: Vec<Value> = node.operands.iter().map(|&o| self.outside_of(o)).collect();
                    self.g.add(op.clone(), &operands)
                }
            });
        }
    }

    /// The sum over steps of a value.
    fn total(&mut self, v: Value, known: &mut HashMap<Value, Value>) -> Value {
        let body = &self.scan.body;
        let mut open = vec![v];
        while let Some(&v) = open.last() {
            // What it is linear in comes first, from left to right.
            let missing = match self.division.total(body, v) {
                _ if known.contains_key(&v) => None,
                Total::Through(linear) => {
                    linear.into_iter().map(|i| body.operands(v)[i]).find(|o| !known.contains_key(o))
                }
                _ => None,
            };
            match missing {
                Some(operand) => open.push(operand),
                None => {
                    open.pop();
                    if !known.contains_key(&v) {
                        let total = self.total_of(v, known);
                        known.insert(v, total);
                    }
                }
            }
        }
        known[&v]
    }

    /// The sum over steps of a value, where those of what it is linear in are known.
    fn total_of(&mut self, v: Value, known: &HashMap<Value, Value>) -> Value {
        let body = &self.scan.body;
        let (op, ty) = (body.op(v).clone(), body.ty(v).clone());
        let total = match self.division.total(body, v) {
            Total::Times => {
                let steps = self.g.rows_for_each(Extent::Time(self.scan.axis), Extent::Batch);
                let v = self.outside_of(v);
                self.g.add(Op::Binary(Binary::Mul), &[v, steps])
            }
            Total::Rows => {
                let v = self.outside_of(v);
                self.g.add(Op::SumRows(Extent::Batch), &[v])
            }
            Total::Reduction => {
                let operands: Vec<Value> = body.operands(v).iter().map(|&o| self.outside_of(o)).collect();
                self.g.add(op, &operands)
            }
            Total::Through(linear) => {
                let operands: Vec<Value> = body
                    .operands(v)
                    .iter()
                    .enumerate()
                    .map(|(i, &o)| if linear.contains(&i) { known[&o] } else { self.outside_of(o) })
                    .collect();
                self.g.add(op, &operands)
            }
            Total::Inside => unreachable!("asked of totals that leave"),
        };
        assert_eq!(*self.g.ty(total), Type { ..ty }, "a sum over steps has the type of its terms");
        total
    }

    /// What a kept value is called: as it was, or after the state it is.
    fn name(&self, v: Value) -> String {
        let named = self.scan.yields.iter().find(|p| p.value == v).map(|p| p.name.clone());
        let before = || self.scan.carries.iter().find(|c| c.value == v).map(|c| format!("{}_before", c.name));
        let after = || self.scan.carries.iter().find(|c| c.next == v).map(|c| c.name.clone());
        named.or_else(before).or_else(after).unwrap_or_else(|| "kept".to_string())
    }
}

/// A walk that changes nothing by itself.
struct Copy;

impl Rewrite for Copy {
    type Facts = ();
    fn facts(&self, _: &Graph, _: &[Value], _: Option<&Scan>) {}
}
