//! From graph to plan: homes for values, stages for groups.
//!
//! Before: a hoisted program. After: every value that is read outside the kernel that makes it has a home, every
//! group is a stage, and stages stand in an order in which each finds its operands.
//!
//! Here are homes, regions and kernels. Loops, and stages that are no kernels, have rooms of their own.

mod alone;
mod loops;

use std::collections::{HashMap, HashSet};

use super::group::{Class, Group, Grouping, Kind, View, group, row_major};
use super::kernel::{Kernel, KernelNode, KernelOp, Product, Read, Source, Tile};
use super::{
    Access, At, Buffer, BufferId, Checkpointing, Domain, Keep, Loop, Matrix, Plan, Port, Rows, Span, Stage, Target,
    Unit, Work, memory, sums, sweep,
};
use crate::ir::op::Op;
use crate::ir::types::{Axis, DType, Extent, Type};
use crate::ir::{Graph, Program, Value};

/// Plans a hoisted program for a machine, with or without checkpoints.
pub fn plan(program: &Program, target: Target, checkpointing: Option<Checkpointing>) -> Plan {
    let mut builder = Builder { target, ..Builder::default() };
    let mut plan = builder.program(program);
    plan.checkpointing = checkpointing;
    sweep::gather(&mut plan);
    sums::carry(&mut plan);
    memory::assign(&mut plan);
    plan
}

/// Axes whose first loop runs from the last step to the first. A loop that reads nothing but its states, which counts
/// steps, does not say which way a program goes.
fn turned(units: &[Unit]) -> Vec<Axis> {
    let reads = |l: &Loop| {
        let written: HashSet<BufferId> = l.stages.iter().flat_map(|s| &s.writes).map(|a| a.buffer).collect();
        l.stages.iter().flat_map(|s| &s.reads).any(|a| !written.contains(&a.buffer))
    };
    let mut first: Vec<&Loop> = Vec::new();
    for unit in units {
        let Unit::Loop(l) = unit else { continue };
        match first.iter_mut().find(|f| f.axis == l.axis) {
            Some(f) if !reads(f) && reads(l) => *f = l,
            Some(_) => {}
            None => first.push(l),
        }
    }
    first.into_iter().filter(|l| l.reverse).map(|l| l.axis).collect()
}

/// Which rows of a buffer a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HomeRows {
    Shared,
    /// A block of B rows: by number, or counted from the end of an axis.
    Block(usize),
    FromEnd(Axis, usize),
    /// One block per step, shifted.
    Steps(usize),
}

/// Where a value is.
#[derive(Clone, Copy, Debug)]
struct Home {
    buffer: BufferId,
    rows: HomeRows,
    offset: usize,
}

/// How a stage meets rows: whether steps are taken one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    stepwise: bool,
}

impl Home {
    fn access(self, pace: Pace) -> Access {
        let at = match self.rows {
            HomeRows::Shared => At::Shared,
            HomeRows::Block(b) => At::Row(b),
            HomeRows::FromEnd(axis, back) => At::FromEnd(axis, back),
            HomeRows::Steps(shift) if pace.stepwise => At::Step(shift),
            HomeRows::Steps(shift) => At::Row(shift),
        };
        Access { buffer: self.buffer, at }
    }

    fn span(self, pace: Pace, offset: usize, len: usize) -> Span {
        Span { access: self.access(pace), offset: self.offset + offset, len }
    }
}

#[derive(Default)]
struct Builder {
    target: Target,
    buffers: Vec<Buffer>,
    row_counts: Vec<(BufferId, Extent)>,
    /// Packed matrices by what is packed.
    packs: HashMap<(Matrix, usize, usize), BufferId>,
    /// Stages that must run before the loop that is being planned.
    before_loop: Vec<Stage>,
    /// Buffers that hold parameters.
    parameters: HashSet<BufferId>,
}

impl Default for Target {
    fn default() -> Target {
        Target { panel: 16, float_size: 4 }
    }
}

/// One graph on its way.
struct Scope<'g> {
    groups: Grouping<'g>,
    homes: HashMap<Value, Home>,
    /// Inside a loop.
    inside: bool,
}

impl Scope<'_> {
    fn graph(&self) -> &Graph {
        self.groups.graph
    }

    fn ty(&self, v: Value) -> &Type {
        self.groups.graph.ty(v)
    }
}

impl Builder {
    fn program(&mut self, program: &Program) -> Plan {
        let g = &program.graph;
        let mut homes = HashMap::new();
        let mut parameters = Vec::new();
        let mut inputs = Vec::new();
        for p in &program.parameters {
            let home = self.home(&p.name, g.ty(p.value), Keep::Always);
            self.parameters.insert(home.buffer);
            homes.insert(p.value, home);
            parameters.push(port(&p.name, home, g.ty(p.value)));
        }
        for i in &program.inputs {
            let home = self.home(&i.name, g.ty(i.value), Keep::Always);
            homes.insert(i.value, home);
            inputs.push(port(&i.name, home, g.ty(i.value)));
        }
        let wanted = program.roots();
        let groups = group(g, &wanted, &HashMap::new(), self.target.pad());
        let mut scope = Scope { groups, homes, inside: false };
        self.update_in_place(program, &mut scope);
        let mut units = Vec::new();
        self.region(&mut scope, &mut units);

        // What an update will replace behind the run is not what it was any more when outputs are read.
        let replaced: HashSet<BufferId> = program.updates.iter().map(|u| scope.homes[&u.target].buffer).collect();
        let mut outputs = Vec::new();
        let is_replaced = |buffer| replaced.contains(&buffer);
        for (name, v) in &program.outputs {
            outputs.push(self.output(&mut scope, &mut units, name, *v, is_replaced));
        }
        let objective = program.objective.map(|v| self.output(&mut scope, &mut units, "objective", v, is_replaced));
        let mut updates = Vec::new();
        let by_buffer = |list: &[Port]| -> HashMap<BufferId, usize> {
            list.iter().enumerate().map(|(i, port)| (port.spans[0].access.buffer, i)).collect()
        };
        let (parameter_of, input_of) = (by_buffer(&parameters), by_buffer(&inputs));
        for u in &program.updates {
            // What is updated in place, or with itself, is there already.
            let own = scope.homes[&u.target].buffer;
            let of_others = |buffer| buffer != own && replaced.contains(&buffer);
            let value = self.output(&mut scope, &mut units, "update", u.value, of_others);
            let (index, parameter) = match parameter_of.get(&own) {
                Some(&i) => (i, true),
                None => (input_of[&own], false),
            };
            let own = if parameter { &parameters[index] } else { &inputs[index] };
            if own.spans != value.spans {
                updates.push((value, index, parameter));
            }
        }
        sums::take_products(&mut units, &mut self.buffers);
        sums::join_products(&mut units, &self.buffers);
        Plan {
            name: program.name.clone(),
            target: self.target,
            turned: turned(&units),
            checkpointing: None,
            units,
            buffers: std::mem::take(&mut self.buffers),
            slots: Vec::new(),
            parameters,
            inputs,
            outputs,
            objective,
            updates,
            row_counts: std::mem::take(&mut self.row_counts),
        }
    }

    /// A value that is read when the run is over, and what is in some buffers has been replaced.
    fn output(
        &mut self,
        scope: &mut Scope,
        units: &mut Vec<Unit>,
        name: &str,
        v: Value,
        is_replaced: impl Fn(BufferId) -> bool,
    ) -> Port {
        let ty = scope.ty(v).clone();
        let view = scope.groups.view(v).clone();
        let dense = view.is_dense(&ty.shape);
        let known = scope.homes.get(&view.base).copied();
        let same_extent = scope.ty(view.base).extent == ty.extent;
        if let (Some(home), true, true) = (known, dense, same_extent)
            && !is_replaced(home.buffer)
        {
            self.keep(home.buffer, Keep::Output);
            return port(name, Home { offset: home.offset + view.offset, ..home }, &ty);
        }
        // A constant, a view or a value of before: copied into memory of its own.
        let home = self.home(name, &ty, Keep::Output);
        let mut stages = Vec::new();
        self.copy_view(scope, v, home, name, &mut stages);
        units.extend(stages.into_iter().map(Unit::Stage));
        port(name, home, &ty)
    }

    fn keep(&mut self, buffer: BufferId, keep: Keep) {
        let own = &mut self.buffers[buffer.0].keep;
        if *own == Keep::Run {
            *own = keep;
        }
    }

    /// Memory for a value of its own.
    fn home(&mut self, name: &str, ty: &Type, keep: Keep) -> Home {
        let rows = match ty.extent {
            Extent::Shared => HomeRows::Shared,
            Extent::Batch => HomeRows::Block(0),
            Extent::Time(_) => HomeRows::Steps(0),
        };
        let buffer = self.buffer(name, Rows::of(ty.extent), ty.shape.len(), keep);
        self.buffers[buffer.0].integer = ty.dtype == DType::I32;
        Home { buffer, rows, offset: 0 }
    }

    fn buffer(&mut self, name: &str, rows: Rows, len: usize, keep: Keep) -> BufferId {
        let stride = if rows == Rows::One { self.target.padded(len) } else { self.target.stride(len) };
        self.buffers.push(Buffer { name: name.to_string(), rows, stride, integer: false, keep, slot: usize::MAX });
        BufferId(self.buffers.len() - 1)
    }

    /// Gives updated values the memory of what they update, where nothing reads the old value any more by then.
    fn update_in_place(&mut self, program: &Program, scope: &mut Scope) {
        let wanted: HashSet<Value> = program.outputs.iter().map(|(_, v)| *v).chain(program.objective).collect();
        let groups = &scope.groups;
        // Bases of what is read when the run is over, and how many updates there are to each value.
        let updated = program.updates.iter().map(|u| u.value);
        let seen: HashSet<Value> = wanted.iter().copied().chain(updated.clone()).map(|v| groups.view(v).base).collect();
        let mut times: HashMap<Value, usize> = HashMap::new();
        updated.for_each(|v| *times.entry(v).or_default() += 1);
        for u in &program.updates {
            let groups = &scope.groups;
            let base = groups.view(u.value).base;
            let simple = base == u.value && groups.class[base.index()] == Class::Pointwise;
            let Some(own) = groups.group_of[base.index()] else { continue };
            let once = times[&u.value] == 1;
            let n = groups.graph.ty(base).shape.len();
            // Within its own kernel what reads the old value must be on the way to the new one: anything else may come later.
            let leads_there = groups.needed_within_group(base);
            let outlived = groups.readers[u.target.index()].iter().all(|&(reader, i)| {
                let at = groups.group_of[reader.index()];
                let operand = groups.graph.operands(reader)[i];
                let flat = groups.view(operand).is_dense(&groups.graph.ty(operand).shape)
                    && groups.graph.ty(operand).shape.len() == n
                    && groups.class[reader.index()] == Class::Pointwise;
                at.is_some_and(|at| at < own || (at == own && flat && leads_there.contains(&reader)))
            });
            let is_flat = groups.groups[own]
                .members
                .iter()
                .all(|&m| groups.class[m.index()] == Class::Pointwise && groups.graph.ty(m).shape.len() == n);
            // A product reads a packed copy of a matrix, and that of the old value may be there already.
            let packed = groups.readers[base.index()]
                .iter()
                .any(|&(reader, _)| groups.class[reader.index()] != Class::Pointwise);
            let kept = seen.contains(&u.target) || wanted.contains(&u.value);
            if simple && once && outlived && is_flat && !packed && !kept {
                let home = scope.homes[&u.target];
                scope.homes.insert(base, home);
            }
        }
    }

    // ---- regions ------------------------------------------------------------------------------------------

    /// Plans all groups of a scope.
    fn region(&mut self, scope: &mut Scope, units: &mut Vec<Unit>) {
        self.settle(scope);
        for i in 0..scope.groups.groups.len() {
            let group = scope.groups.groups[i].clone();
            if group.members.is_empty() {
                continue;
            }
            match group.kind {
                Kind::Scan => {
                    let v = group.members[0];
                    let l = self.scan(scope, v, units);
                    let before = std::mem::take(&mut self.before_loop);
                    units.extend(before.into_iter().map(Unit::Stage));
                    units.push(Unit::Loop(l));
                }
                Kind::Alone => {
                    let mut stages = Vec::new();
                    self.alone(scope, group.members[0], &mut stages);
                    units.extend(stages.into_iter().map(Unit::Stage));
                }
                Kind::Tile { .. } | Kind::Row { .. } => {
                    let mut stages = Vec::new();
                    self.kernel(scope, i, &group, &mut stages);
                    units.extend(stages.into_iter().map(Unit::Stage));
                }
            }
        }
    }

    /// Homes for all values of a scope that need one and have none yet.
    fn settle(&mut self, scope: &mut Scope) {
        let graph = scope.groups.graph;
        // A concat whose parts keep to whole pads is written by its parts' own kernels.
        for v in graph.values().rev() {
            let live = scope.groups.live[v.index()];
            if !live || scope.groups.class[v.index()] != Class::Alone {
                continue;
            }
            let home = match scope.homes.get(&v) {
                Some(home) => *home,
                None => {
                    let home = self.home(graph.op(v).name(), graph.ty(v), Keep::Run);
                    scope.homes.insert(v, home);
                    home
                }
            };
            if matches!(graph.op(v), Op::Concat(0)) {
                let mut offset = home.offset;
                for (i, &part) in graph.operands(v).iter().enumerate() {
                    let in_place = scope.groups.is_written_in_place(v, (i, offset - home.offset), self.target.pad());
                    if in_place && !scope.homes.contains_key(&part) {
                        scope.homes.insert(part, Home { offset, ..home });
                    }
                    offset += graph.ty(part).shape.len();
                }
            }
        }
        for v in graph.values() {
            let made = matches!(scope.groups.class[v.index()], Class::Pointwise | Class::Reduce | Class::Product);
            if scope.groups.live[v.index()] && made && !scope.homes.contains_key(&v) && scope.groups.needs_memory(v) {
                let home = self.home(graph.op(v).name(), graph.ty(v), Keep::Run);
                scope.homes.insert(v, home);
            }
            match graph.op(v) {
                Op::RowCount(extent) if scope.groups.live[v.index()] && !scope.homes.contains_key(&v) => {
                    let home = self.home("rows", graph.ty(v), Keep::Always);
                    self.row_counts.push((home.buffer, *extent));
                    scope.homes.insert(v, home);
                }
                _ => {}
            }
        }
    }

    /// The home of a base value; constants get memory now.
    fn home_of(&mut self, scope: &mut Scope, base: Value, stages: &mut Vec<Stage>) -> Home {
        if let Some(home) = scope.homes.get(&base) {
            return *home;
        }
        match scope.graph().op(base).clone() {
            Op::Last => {
                let operand = scope.graph().operands(base)[0];
                let Extent::Time(axis) = scope.ty(operand).extent else { unreachable!("verified") };
                let view = scope.groups.view(operand).clone();
                let inner = self.home_of(scope, view.base, stages);
                let rows = match inner.rows {
                    HomeRows::Steps(shift) => HomeRows::FromEnd(axis, 1 - shift),
                    other => other,
                };
                let home = Home { rows, offset: inner.offset + view.offset, ..inner };
                scope.homes.insert(base, home);
                home
            }
            Op::Constant(value) => {
                // Of whatever extent it is, one row serves all rows, and all steps of a loop.
                let ty = scope.ty(base).at(Extent::Shared);
                let home = self.home("constant", &ty, Keep::Run);
                let into = home.span(Pace { stepwise: false }, 0, ty.shape.len());
                let fill = stage("constant", Domain::Shared, Work::Fill { into, value });
                if scope.inside {
                    self.before_loop.push(fill)
                } else {
                    stages.push(fill)
                }
                scope.homes.insert(base, home);
                home
            }
            op => panic!("`{}` has no home", op.name()),
        }
    }

    /// A value whose features lie one behind another, as a span for a stage of the given pace.
    fn span(&mut self, scope: &mut Scope, v: Value, pace: Pace, stages: &mut Vec<Stage>) -> Span {
        let view = scope.groups.view(v).clone();
        let shape = scope.ty(v).shape.clone();
        let home = self.home_of(scope, view.base, stages);
        assert!(
            view.is_dense(&shape) || scope.groups.constant(v).is_some(),
            "grouping makes views solid where features must lie in a row"
        );
        home.span(pace, view.offset, shape.len())
    }

    /// As [`span`](Builder::span), for readers that take a concat part by part. Parts of a vector that lie one behind
    /// another are one.
    fn spans(&mut self, scope: &mut Scope, v: Value, pace: Pace, stages: &mut Vec<Stage>) -> Vec<Span> {
        let is_vector = scope.ty(v).shape.0.len() <= 1;
        let mut spans: Vec<Span> = Vec::new();
        for part in scope.groups.parts(v) {
            let span = self.span(scope, part, pace, stages);
            match spans.last_mut() {
                Some(last) if is_vector && last.access == span.access && last.offset + last.len == span.offset => {
                    last.len += span.len;
                }
                _ => spans.push(span),
            }
        }
        spans
    }

    /// Whether some operand has a row per sample only while the stage has a row per step.
    fn pace(&self, scope: &Scope, extent: Extent, operands: impl Iterator<Item = Value>) -> (Domain, Pace) {
        if scope.inside {
            return (domain(extent, true), Pace { stepwise: true });
        }
        if let Extent::Time(axis) = extent {
            for v in operands.flat_map(|v| scope.groups.parts(v)) {
                let base = scope.groups.view(v).base;
                if scope.ty(base).extent == Extent::Batch && scope.groups.constant(v).is_none() {
                    return (Domain::EachStep(axis), Pace { stepwise: true });
                }
            }
        }
        (domain(extent, false), Pace { stepwise: false })
    }

    // ---- kernels ------------------------------------------------------------------------------------------

    fn kernel(&mut self, scope: &mut Scope, index: usize, group: &Group, stages: &mut Vec<Stage>) {
        let graph = scope.groups.graph;
        let operands: Vec<Value> = group.members.iter().flat_map(|&m| graph.operands(m).iter().copied()).collect();
        let outside: Vec<Value> = operands
            .iter()
            .copied()
            .filter(|&o| scope.groups.group_of[scope.groups.view(o).base.index()] != Some(index))
            .collect();
        let (domain, pace) = self.pace(scope, group.extent, outside.iter().copied());
        let flat = self.is_flat(scope, index, group);
        let mut reads: Vec<Access> = Vec::new();
        let mut writes: Vec<Access> = Vec::new();
        let mut nodes: Vec<KernelNode> = Vec::new();
        let mut products: Vec<Product> = Vec::new();
        let mut product_stores = Vec::new();
        // Where a member is in the kernel: a node, or the first of a product's pieces.
        let mut place: HashMap<Value, Source> = HashMap::new();

        for &m in &group.members {
            let n = graph.ty(m).shape.len();
            if scope.groups.class[m.index()] == Class::Product {
                let unit = scope.groups.unit[m.index()];
                place.insert(m, Source::Product(products.len()));
                let x = graph.operands(m)[0];
                let mut segments = Vec::new();
                for span in self.spans(scope, x, pace, stages) {
                    segments.push((position(&mut reads, span.access), span.offset, span.len));
                }
                for piece in 0..n / unit {
                    let (packed, k) = self.pack(scope, m, piece * unit, unit, stages);
                    let packed_read = position(&mut reads, Access { buffer: packed, at: At::Shared });
                    if let Some(home) = scope.homes.get(&m) {
                        let write = position(&mut writes, home.access(pace));
                        product_stores.push((products.len(), write, home.offset + piece * unit));
                    }
                    products.push(Product { segments: segments.clone(), packed, read: packed_read, k, start: None });
                }
                continue;
            }
            let reduces = scope.groups.class[m.index()] == Class::Reduce;
            let dims = if flat.is_some() {
                vec![n]
            } else if reduces {
                graph.ty(graph.operands(m)[0]).shape.0.clone()
            } else {
                graph.ty(m).shape.0.clone()
            };
            let mut node_reads = Vec::new();
            for &o in graph.operands(m) {
                node_reads.push(self.read(scope, o, &dims, index, pace, &place, &mut reads, stages));
            }
            let op = kernel_op(graph.op(m));
            if op.is_routine() {
                for read in &mut node_reads {
                    if !routine_reads(read, &dims, flat.is_some(), &nodes) {
                        // A routine reads its operand from scratch, feature by feature.
                        let reads = vec![std::mem::replace(
                            read,
                            Read { source: Source::Node(nodes.len()), offset: 0, strides: row_major(&dims) },
                        )];
                        let len = dims.iter().product();
                        nodes.push(KernelNode {
                            op: KernelOp::Copy,
                            reads,
                            dims: dims.clone(),
                            into: None,
                            len,
                            stores: Vec::new(),
                        });
                    }
                }
            }
            let into = reduces.then(|| {
                let shape = &graph.ty(m).shape.0;
                let strides = row_major(shape);
                shape.iter().zip(&dims).zip(strides).map(|((s, d), stride)| if s == d { stride } else { 0 }).collect()
            });
            let mut stores = Vec::new();
            if let Some(home) = scope.homes.get(&m) {
                stores.push((position(&mut writes, home.access(pace)), home.offset));
            }
            place.insert(m, Source::Node(nodes.len()));
            nodes.push(KernelNode { op, reads: node_reads, dims, into, len: n, stores });
        }
        let tile = flat.map(|n| {
            let mut tile = Tile { n, products, stores: product_stores };
            tile.start_products(&mut nodes);
            tile
        });
        let strides = reads.iter().chain(&writes).map(|a| (*a, self.buffers[a.buffer.0].stride)).collect();
        let name = Kernel::name(&writes, &self.buffers);
        let work = Work::Kernel(Kernel { tile, nodes, reads: reads.len(), strides });
        stages.push(Stage { name, domain, work, reads, writes, constant: false });
    }

    /// The features of the flat form, where a group has it.
    fn is_flat(&self, scope: &Scope, index: usize, group: &Group) -> Option<usize> {
        let n = match group.kind {
            Kind::Tile { n } => return Some(n),
            Kind::Row { n } => n,
            _ => return None,
        };
        let graph = scope.groups.graph;
        let ok = group.members.iter().all(|&m| {
            scope.groups.class[m.index()] == Class::Pointwise
                && graph.ty(m).shape.len() == n
                && graph.operands(m).iter().all(|&o| {
                    let (view, shape) = (scope.groups.view(o), &graph.ty(o).shape);
                    let inside = scope.groups.group_of[view.base.index()] == Some(index);
                    let flat = view.is_dense(shape) && shape.len() == n;
                    let whole = flat && view.offset == 0 && graph.ty(view.base).shape.len() == n;
                    let scalar = view.strides.iter().all(|&s| s == 0);
                    scope.groups.constant(o).is_some() || if inside { whole } else { flat || scalar }
                })
        });
        ok.then_some(n)
    }

    /// A node's operand as a read over the node's loop.
    #[expect(clippy::too_many_arguments, reason = "one call; the parts of a kernel in the making")]
    fn read(
        &mut self,
        scope: &mut Scope,
        operand: Value,
        dims: &[usize],
        group: usize,
        pace: Pace,
        place: &HashMap<Value, Source>,
        reads: &mut Vec<Access>,
        stages: &mut Vec<Stage>,
    ) -> Read {
        let shape = scope.ty(operand).shape.clone();
        let view = scope.groups.view(operand).clone();
        if let Some(c) = scope.groups.constant(operand) {
            return Read { source: Source::Constant(c), offset: 0, strides: vec![0; dims.len()] };
        }
        let strides = if shape.0 == dims {
            view.strides.clone()
        } else if (shape.len() == 1 && dims.iter().product::<usize>() != 1) || view.strides.iter().all(|&s| s == 0) {
            vec![0; dims.len()]
        } else {
            assert!(view.is_dense(&shape) && shape.len() == dims.iter().product::<usize>(), "a flat loop reads flat");
            row_major(dims)
        };
        if scope.groups.group_of[view.base.index()] == Some(group) {
            let source = match place[&view.base] {
                Source::Product(first) => {
                    let unit = scope.groups.unit[view.base.index()];
                    return Read { source: Source::Product(first + view.offset / unit), offset: 0, strides };
                }
                source => source,
            };
            return Read { source, offset: view.offset, strides };
        }
        let home = self.home_of(scope, view.base, stages);
        let memory = position(reads, home.access(pace));
        Read { source: Source::Memory(memory), offset: home.offset + view.offset, strides }
    }

    /// The packed panels of a product's columns.
    fn pack(
        &mut self,
        scope: &mut Scope,
        product: Value,
        first: usize,
        n: usize,
        stages: &mut Vec<Stage>,
    ) -> (BufferId, usize) {
        let graph = scope.groups.graph;
        let w = graph.operands(product)[1];
        let view: View = scope.groups.view(w).clone();
        let dims = graph.ty(w).shape.0.clone();
        let mut own = Vec::new();
        let home = self.home_of(scope, view.base, &mut own);
        stages.append(&mut own);
        let strides = if scope.groups.constant(w).is_some() { row_major(&dims) } else { view.strides };
        let (k, k_stride, n_stride) = match graph.op(product) {
            Op::DotNt => (dims[1], strides[1], strides[0]),
            _ => (dims[0], strides[0], strides[1]),
        };
        let offset = home.offset + view.offset + first * n_stride;
        let from = Matrix { buffer: home.buffer, offset, k_stride, n_stride };
        let key = (from, k, n);
        if let Some(&packed) = self.packs.get(&key) {
            return (packed, k);
        }
        let panels = n.div_ceil(self.target.panel);
        let constant = self.parameters.contains(&home.buffer);
        let keep = if constant { Keep::Always } else { Keep::Run };
        let name = format!("{}.packed", self.buffers[home.buffer.0].name);
        let into = self.buffer(&name, Rows::One, panels * self.target.panel * k, keep);
        let work = Work::Pack { from, k, n, into, k_total: k, k_offset: 0 };
        let mut pack = stage(&name, Domain::Shared, work);
        pack.constant = constant;
        // A matrix that is made inside the loop changes with every step.
        let local = scope.inside && scope.groups.group_of[view.base.index()].is_some();
        if scope.inside && !local && !scope.homes[&view.base].is_carried(graph, view.base) {
            self.before_loop.push(pack);
            self.packs.insert(key, into);
        } else {
            stages.push(pack);
            if !scope.inside {
                self.packs.insert(key, into);
            }
        }
        (into, k)
    }
}

impl Home {
    /// Whether a value is a state, which changes with every step.
    fn is_carried(self, graph: &Graph, v: Value) -> bool {
        matches!(graph.op(v), Op::Carry(_))
    }
}

fn kernel_op(op: &Op) -> KernelOp {
    match op {
        Op::Unary(u) => KernelOp::Unary(*u),
        Op::Binary(b) => KernelOp::Binary(*b),
        Op::Select => KernelOp::Select,
        Op::Sum(_) => KernelOp::Sum,
        Op::Max(_) => KernelOp::Max,
        other => panic!("`{}` does not belong in a kernel", other.name()),
    }
}

/// Whether a vector routine can read an operand where it is.
fn routine_reads(read: &Read, dims: &[usize], tile: bool, nodes: &[KernelNode]) -> bool {
    let flat = read.is_flat(dims);
    match read.source {
        Source::Node(s) => flat && read.offset == 0 && nodes[s].len == dims.iter().product::<usize>(),
        Source::Product(_) => true,
        Source::Memory(_) => flat && !tile,
        Source::Constant(_) => false,
    }
}

fn domain(extent: Extent, inside: bool) -> Domain {
    match extent {
        Extent::Shared => Domain::Shared,
        Extent::Batch => Domain::Batch,
        Extent::Time(axis) => {
            assert!(!inside, "a body has no time extent");
            Domain::Time(axis)
        }
    }
}

/// A stage that is not a kernel: what it reads and writes follows from its work.
fn stage(name: &str, domain: Domain, work: Work) -> Stage {
    let shared = |buffer: BufferId| Access { buffer, at: At::Shared };
    let (reads, writes) = match &work {
        Work::Kernel(_) => unreachable!("kernels list their own"),
        Work::Pack { from, into, .. } => (vec![shared(from.buffer)], vec![shared(*into)]),
        Work::ReduceProduct { a, b, into, .. } => (vec![a.access, b.access], vec![shared(*into)]),
        Work::ReduceRows { from, into, .. }
        | Work::Argmax { from, into, .. }
        | Work::ToFloat { from, into }
        | Work::Copy { from, into, .. }
        | Work::PlaceLast { from, into, .. }
        | Work::Within { from, into, .. } => (vec![from.access], vec![into.access]),
        Work::MatrixRows { from, into, packed, .. } => (vec![from.access, shared(*packed)], vec![into.access]),
        Work::MatMul { a, b, into, .. } => (vec![a.access, b.access], vec![into.access]),
        Work::Gather { table, index, into, .. } => (vec![table.access, index.access], vec![into.access]),
        Work::Scatter { index, from, into, .. } => (vec![index.access, from.access], vec![into.access]),
        Work::Choose { mask, yes, no, into } => (vec![mask.access, yes.access, no.access], vec![into.access]),
        Work::OneHot { index, into, .. } => (vec![index.access], vec![into.access]),
        Work::Fill { into, .. } => (vec![], vec![into.access]),
    };
    Stage { name: name.to_string(), domain, work, reads, writes, constant: false }
}

/// The position of an item in a list that has it once.
fn position(list: &mut Vec<Access>, access: Access) -> usize {
    list.iter().position(|a| *a == access).unwrap_or_else(|| {
        list.push(access);
        list.len() - 1
    })
}

fn port(name: &str, home: Home, ty: &Type) -> Port {
    let span = home.span(Pace { stepwise: false }, 0, ty.shape.len());
    Port {
        name: name.to_string(),
        spans: vec![span],
        extent: ty.extent,
        shape: ty.shape.0.clone(),
        integer: ty.dtype == DType::I32,
    }
}
