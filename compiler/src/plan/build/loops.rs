//! Loops: homes of states and of what is kept of every step, and the stages of a step.

use std::collections::HashMap;

use super::{Builder, Home, HomeRows, Pace, Scope, domain, stage};
use crate::ir::op::Op;
use crate::ir::types::{Axis, DType, Extent};
use crate::ir::{Scan, Value};
use crate::plan::group::{Class, Grouping, group};
use crate::plan::{Keep, Loop, Rows, Stage, State, Unit, Work};

impl Builder {
    pub(super) fn scan(&mut self, outer: &mut Scope, v: Value, units: &mut Vec<Unit>) -> Loop {
        let Op::Scan(scan) = outer.groups.graph.op(v).clone() else { unreachable!("a scan group") };
        let operands = outer.groups.graph.operands(v).to_vec();
        let mut scan: Scan = *scan;
        // A sum over steps is a state that adds.
        let carried = scan.carries.len();
        for (i, sum) in std::mem::take(&mut scan.sums).into_iter().enumerate() {
            let ty = scan.body.ty(sum.value).clone();
            let leaf = scan.body.leaf(Op::Carry(carried + i), ty);
            let next = scan.body.add(Op::Binary(crate::ir::Binary::Add), &[leaf, sum.value]);
            scan.carries.push(crate::ir::Carry { name: sum.name, value: leaf, next });
        }
        let results: Vec<(Value, Op)> =
            outer.groups.graph.users(v).into_iter().map(|r| (r, outer.groups.graph.op(r).clone())).collect();

        let mut stages = Vec::new();
        let mut homes = HashMap::new();
        let mut given = HashMap::new();
        let (captures, each, initials) = {
            let (c, e, i) = scan.split_operands(&operands);
            (c.to_vec(), e.to_vec(), i.to_vec())
        };
        for (port, &value) in scan.captures.iter().zip(&captures) {
            let view = outer.groups.view(value).clone();
            let home = self.home_of(outer, view.base, &mut stages);
            homes.insert(port.value, Home { offset: home.offset + view.offset, ..home });
            let shape = &outer.ty(value).shape;
            if !view.is_dense(shape) && outer.groups.constant(value).is_none() {
                given.insert(port.value, view.strides);
            }
        }
        for (port, &value) in scan.each.iter().zip(&each) {
            let view = outer.groups.view(value).clone();
            let home = self.home_of(outer, view.base, &mut stages);
            homes.insert(port.value, Home { offset: home.offset + view.offset, ..home });
        }
        let wanted = scan.roots();
        let groups = group(&scan.body, &wanted, &given, self.target.pad());
        let yield_homes = self.states(&scan, &groups, outer, &initials, &mut homes, &mut stages);
        units.extend(stages.into_iter().map(Unit::Stage));

        let mut inner = Scope { groups, homes, inside: true };
        // The homes of yields and next values are those of the values that are computed; others are copied below.
        let mut late: Vec<(Value, Home, String)> = Vec::new();
        for (i, port) in scan.yields.iter().enumerate() {
            self.claim(&mut inner, port.value, yield_homes[i].0, &port.name, &mut late);
        }
        let mut turn: Vec<(Home, Home, usize, Extent, String)> = Vec::new();
        for (i, carry) in scan.carries.iter().enumerate() {
            let (now, mut next) = (inner.homes[&carry.value], yield_homes[scan.yields.len() + i].0);
            if now.buffer != next.buffer && self.replaces(&inner, &scan, i) {
                next = now;
            }
            self.claim(&mut inner, carry.next, next, &carry.name, &mut late);
            if now.buffer != next.buffer {
                let ty = scan.body.ty(carry.value);
                turn.push((next, now, ty.shape.len(), ty.extent, carry.name.clone()));
            }
        }
        let mut body = Vec::new();
        self.region(&mut inner, &mut body);
        let mut stages: Vec<Stage> = body
            .into_iter()
            .map(|u| match u {
                Unit::Stage(s) => s,
                Unit::Loop(_) | Unit::Sweep(_) => unreachable!("scans do not nest"),
            })
            .collect();
        for (value, home, name) in late {
            self.copy_view(&mut inner, value, home, &name, &mut stages);
        }
        for (from, to, len, extent, name) in turn {
            let pace = Pace { stepwise: true };
            let work = Work::Copy {
                from: from.span(pace, 0, len),
                into: to.span(pace, 0, len),
                dims: vec![len],
                strides: vec![1],
                into_strides: vec![1],
            };
            stages.push(stage(&name, domain(extent, true), work));
        }
        // What the outside sees of it.
        for (r, op) in results {
            let home = match op {
                Op::Yield(i) => yield_homes[i].0,
                Op::Final(i) => yield_homes[scan.yields.len() + i].1,
                Op::Total(i) => yield_homes[scan.yields.len() + carried + i].1,
                other => panic!("`{}` is not a result of a scan", other.name()),
            };
            outer.homes.insert(r, home);
        }
        let states = yield_homes[scan.yields.len()..].iter().map(|&(_, last)| self.state(scan.axis, last)).collect();
        Loop { name: scan.name, axis: scan.axis, reverse: scan.reverse, states, stages }
    }

    /// A state of a loop by where its last value is: a history begins at its other end.
    fn state(&self, axis: Axis, last: Home) -> State {
        let first = match (self.buffers[last.buffer.0].rows, last.rows) {
            (Rows::History(_), HomeRows::Block(_)) => HomeRows::FromEnd(axis, 0),
            (Rows::History(_), _) => HomeRows::Block(0),
            (_, rows) => rows,
        };
        let pace = Pace { stepwise: false };
        State { axis, begin: Home { rows: first, ..last }.access(pace), end: last.access(pace), checkpoints: None }
    }

    /// Whether a state's next value can be written over the present one: nothing reads that any more by then, or does
    /// so element by element on the way to the next value.
    fn replaces(&self, inner: &Scope, scan: &Scan, i: usize) -> bool {
        let (groups, graph) = (&inner.groups, inner.groups.graph);
        let (now, next) = (scan.carries[i].value, scan.carries[i].next);
        let Some(own) = groups.group_of[next.index()] else { return false };
        let n = graph.ty(now).shape.len();
        let roots = scan.roots();
        let is_last = roots.iter().filter(|&&v| v == next).count() == 1
            && roots.iter().all(|&v| groups.view(v).base != now)
            && groups.class[next.index()] == Class::Pointwise
            && !inner.homes.contains_key(&next);
        let leads_there = graph.reachable([next]);
        let is_read = |&(reader, operand): &(Value, usize)| {
            let operand = graph.operands(reader)[operand];
            let shape = &graph.ty(operand).shape;
            let flat = groups.view(operand).is_dense(shape) && shape.len() == n;
            let on_the_way = flat && groups.class[reader.index()] == Class::Pointwise && leads_there[reader.index()];
            groups.group_of[reader.index()].is_some_and(|at| at < own || (at == own && on_the_way))
        };
        is_last
            && self.is_flat(inner, own, &groups.groups[own]) == Some(n)
            && groups.readers[now.index()].iter().all(is_read)
    }

    /// Memory of states and yields. For each yield, then each carry: where the body writes it, and where the outside
    /// finds it (a sequence; a last value). Also homes of the carries' leaves, and the stages that set them first.
    fn states(
        &mut self,
        scan: &Scan,
        groups: &Grouping,
        outer: &mut Scope,
        initials: &[Value],
        homes: &mut HashMap<Value, Home>,
        stages: &mut Vec<Stage>,
    ) -> Vec<(Home, Home)> {
        let axis = scan.axis;
        let mut yields: Vec<Option<Home>> = vec![None; scan.yields.len()];
        let mut carries = Vec::new();
        for (i, carry) in scan.carries.iter().enumerate() {
            let ty = scan.body.ty(carry.value).clone();
            let name = format!("{}.{}", scan.name, carry.name);
            let history = ty.extent == Extent::Batch
                && scan.yields.iter().any(|y| y.value == carry.value || y.value == carry.next);
            let (first, now, next, last) = if history {
                let buffer = self.buffer(&name, Rows::History(axis), ty.shape.len(), Keep::Run);
                self.buffers[buffer.0].integer = ty.dtype == DType::I32;
                let at = |rows| Home { buffer, rows, offset: 0 };
                let (begin, end) = (at(HomeRows::Block(0)), at(HomeRows::FromEnd(axis, 0)));
                let (early, late) = (at(HomeRows::Steps(0)), at(HomeRows::Steps(1)));
                if scan.reverse { (end, late, early, begin) } else { (begin, early, late, end) }
            } else {
                let now = self.home(&name, &ty, Keep::Run);
                let next = self.home(&format!("{name}.next"), &ty, Keep::Run);
                (now, now, next, now)
            };
            if history {
                for (y, port) in yields.iter_mut().zip(&scan.yields) {
                    if port.value == carry.value {
                        *y = Some(now);
                    } else if port.value == carry.next && y.is_none() {
                        *y = Some(next);
                    }
                }
            }
            homes.insert(carry.value, now);
            match initials.get(i) {
                Some(&initial) => self.copy_view(outer, initial, first, &name, stages),
                None => {
                    let into = first.span(Pace { stepwise: false }, 0, ty.shape.len());
                    stages.push(stage(&name, domain(ty.extent, false), Work::Fill { into, value: 0.0 }));
                }
            }
            carries.push((next, last));
        }
        // A part of a concat whose every step is kept is found there.
        for (i, port) in scan.yields.iter().enumerate().filter(|(i, _)| yields[*i].is_none()).collect::<Vec<_>>() {
            let mut whole = scan.yields.iter().zip(&yields).filter_map(|(whole, home)| Some((whole.value, (*home)?)));
            yields[i] = whole.find_map(|(concat, home)| {
                let before = groups.place_in(port.value, concat, self.target.pad())?;
                Some(Home { offset: home.offset + before, ..home })
            });
        }
        let mut out: Vec<(Home, Home)> = Vec::new();
        for (i, port) in scan.yields.iter().enumerate() {
            let same = || (0..i).find(|&j| scan.yields[j].value == port.value).map(|j| out[j].0);
            let home = match yields[i].or_else(same) {
                Some(home) => home,
                None => self.home(&format!("{}.{}", scan.name, port.name), &scan.yield_type(i), Keep::Run),
            };
            out.push((home, home));
        }
        out.extend(carries);
        out
    }

    /// Lets a body value be computed right where it has to be, or has it copied there at the end of the step.
    fn claim(&mut self, inner: &mut Scope, v: Value, home: Home, name: &str, late: &mut Vec<(Value, Home, String)>) {
        if let Some(own) = inner.homes.get(&v) {
            if (own.buffer, own.rows, own.offset) != (home.buffer, home.rows, home.offset) {
                late.push((v, home, name.to_string()));
            }
            return;
        }
        let computed = !matches!(inner.groups.class[v.index()], Class::Given | Class::View | Class::Scan);
        if computed {
            inner.homes.insert(v, home);
        } else {
            late.push((v, home, name.to_string()));
        }
    }
}
