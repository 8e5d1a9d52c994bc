//! From graph to plan: homes for values, stages for groups.
//!
//! Before: a hoisted program. After: every value that is read outside the kernel that makes it has a home, every
//! group is a stage, and stages stand in an order in which each finds its operands.

use std::collections::HashMap;

use super::group::{Class, Group, Grouping, Kind, View, group, is_dense, row_major};
use super::kernel::{Kernel, KernelNode, KernelOp, Product, Read, Source, Tile};
use super::{
    Access, At, Buffer, BufferId, Checkpointing, Domain, Keep, Loop, Matrix, Plan, Port, Rows, Span, Stage, State,
    Target, Unit, Work, memory, sums, sweep,
};
use crate::ir::op::Op;
use crate::ir::types::{Axis, DType, Extent, Type};
use crate::ir::{Graph, Program, Scan, Value};

/// Plans a hoisted program for a machine, with or without checkpoints.
pub fn plan(program: &Program, target: Target, checkpointing: Option<Checkpointing>) -> Plan {
    let mut builder = Builder { target, ..Builder::default() };
    let mut plan = builder.program(program);
    plan.checkpointing = checkpointing;
    if checkpointing.is_some() {
        sweep::gather(&mut plan);
    }
    memory::assign(&mut plan);
    plan
}

/// Axes whose first loop runs from the last step to the first. A loop that reads nothing but its states, which counts
/// steps, does not say which way a program goes.
fn turned(units: &[Unit]) -> Vec<Axis> {
    let reads = |l: &Loop| {
        let written: Vec<BufferId> = l.stages.iter().flat_map(|s| &s.writes).map(|a| a.buffer).collect();
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
    parameters: Vec<BufferId>,
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
            self.parameters.push(home.buffer);
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

        let mut outputs = Vec::new();
        for (name, v) in
            program.outputs.iter().map(|(n, v)| (n.as_str(), *v)).chain(program.objective.map(|v| ("objective", v)))
        {
            outputs.push(self.output(&mut scope, &mut units, name, v));
        }
        let mut updates = Vec::new();
        for u in &program.updates {
            let value = self.output(&mut scope, &mut units, "update", u.value);
            let ports = |list: &[Port], v: Value| {
                let home = scope.homes[&v];
                list.iter().position(|p| p.spans[0].access.buffer == home.buffer)
            };
            let (index, parameter) = match ports(&parameters, u.target) {
                Some(i) => (i, true),
                None => (ports(&inputs, u.target).expect("updates target parameters or inputs"), false),
            };
            let own = if parameter { &parameters[index] } else { &inputs[index] };
            if own.spans != value.spans {
                updates.push((value, index, parameter));
            }
        }
        sums::take_products(&mut units, &mut self.buffers);
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
            updates,
            row_counts: std::mem::take(&mut self.row_counts),
        }
    }

    /// A value that is read when the run is over.
    fn output(&mut self, scope: &mut Scope, units: &mut Vec<Unit>, name: &str, v: Value) -> Port {
        let ty = scope.ty(v).clone();
        let view = scope.groups.view(v).clone();
        let dense = view.is_dense(&ty.shape);
        let known = scope.homes.get(&view.base).copied();
        let same_extent = scope.ty(view.base).extent == ty.extent;
        if let (Some(home), true, true) = (known, dense, same_extent) {
            self.keep(home.buffer, Keep::Output);
            return port(name, Home { offset: home.offset + view.offset, ..home }, &ty);
        }
        // A constant or a view: copied into memory of its own.
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
        let wanted: Vec<Value> = program.outputs.iter().map(|(_, v)| *v).chain(program.objective).collect();
        for u in &program.updates {
            let groups = &scope.groups;
            let base = groups.view(u.value).base;
            let simple = base == u.value && groups.class[base.index()] == Class::Pointwise;
            let Some(own) = groups.group_of[base.index()] else { continue };
            let once = program.updates.iter().filter(|o| o.value == u.value).count() == 1;
            let n = groups.graph.ty(base).shape.len();
            let outlived = groups.readers[u.target.index()].iter().all(|&(reader, i)| {
                let at = groups.group_of[reader.index()];
                let operand = groups.graph.operands(reader)[i];
                let flat = groups.view(operand).is_dense(&groups.graph.ty(operand).shape)
                    && groups.graph.ty(operand).shape.len() == n
                    && groups.class[reader.index()] == Class::Pointwise;
                at.is_some_and(|at| at < own || (at == own && flat))
            });
            let is_flat = groups.groups[own]
                .members
                .iter()
                .all(|&m| groups.class[m.index()] == Class::Pointwise && groups.graph.ty(m).shape.len() == n);
            let seen = wanted.iter().any(|&w| groups.view(w).base == u.target)
                || program.updates.iter().any(|o| groups.view(o.value).base == u.target);
            if simple && once && outlived && is_flat && !seen && !wanted.contains(&u.value) {
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
                    let in_place = scope.groups.is_written_in_place(v, i, self.target.pad());
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

    /// As [`span`](Builder::span), for readers that take a concat part by part.
    fn spans(&mut self, scope: &mut Scope, v: Value, pace: Pace, stages: &mut Vec<Stage>) -> Vec<Span> {
        let parts = scope.groups.parts(v);
        parts.into_iter().map(|part| self.span(scope, part, pace, stages)).collect()
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
        let name = group
            .members
            .iter()
            .filter_map(|m| scope.homes.get(m).map(|h| self.buffers[h.buffer.0].name.clone()))
            .fold(Vec::new(), |mut names: Vec<String>, name| {
                if !names.contains(&name) {
                    names.push(name);
                }
                names
            })
            .join(" ");
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

    // ---- loops --------------------------------------------------------------------------------------------

    fn scan(&mut self, outer: &mut Scope, v: Value, units: &mut Vec<Unit>) -> Loop {
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

    // ---- stages of one node -------------------------------------------------------------------------------

    /// Copies a value, seen through its view, to a home.
    fn copy_view(&mut self, scope: &mut Scope, v: Value, into: Home, name: &str, stages: &mut Vec<Stage>) {
        let ty = scope.ty(v).clone();
        let view = scope.groups.view(v).clone();
        let n = ty.shape.len();
        let (domain, pace) = self.pace(scope, ty.extent, std::iter::once(v));
        if let Some(value) = scope.groups.constant(v) {
            stages.push(stage(name, domain, Work::Fill { into: into.span(pace, 0, n), value }));
            return;
        }
        let home = self.home_of(scope, view.base, stages);
        let from = home.span(pace, view.offset, n);
        self.copy(scope, v, from, view.strides, into.span(pace, 0, n), row_major(&ty.shape.0), domain, name, stages);
    }

    #[expect(clippy::too_many_arguments, reason = "a copy has that many sides")]
    fn copy(
        &mut self,
        scope: &Scope,
        v: Value,
        from: Span,
        strides: Vec<usize>,
        into: Span,
        into_strides: Vec<usize>,
        domain: Domain,
        name: &str,
        stages: &mut Vec<Stage>,
    ) {
        let shape = &scope.ty(v).shape;
        let work = if is_dense(&shape.0, &strides) && is_dense(&shape.0, &into_strides) {
            let n = shape.len();
            Work::Copy { from, into, dims: vec![n], strides: vec![1], into_strides: vec![1] }
        } else {
            Work::Copy { from, into, dims: shape.0.clone(), strides, into_strides }
        };
        stages.push(stage(name, domain, work));
    }

    fn alone(&mut self, scope: &mut Scope, v: Value, stages: &mut Vec<Stage>) {
        let graph = scope.groups.graph;
        let op = graph.op(v).clone();
        let operands = graph.operands(v).to_vec();
        let ty = graph.ty(v).clone();
        let home = scope.homes[&v];
        let n = ty.shape.len();
        let name = self.buffers[home.buffer.0].name.clone();
        // Ops that sum over rows run over the rows of their operands.
        let extent = match op {
            Op::DotTn | Op::SumRows(_) | Op::ScatterAdd(_) => {
                operands.iter().map(|&o| graph.ty(o).extent).max().expect("they have operands")
            }
            _ => ty.extent,
        };
        let (domain, pace) = self.pace(scope, extent, operands.iter().copied());
        let into = home.span(pace, 0, n);
        let len = |v: Value| graph.ty(v).shape.clone();
        match op {
            Op::DotTn => {
                let stride = len(operands[1]).last();
                let left = self.spans(scope, operands[0], pace, stages);
                let right = self.spans(scope, operands[1], pace, stages);
                // A row holds one pair, or as many as the leading dimensions say.
                let pairs = len(operands[0]).len() / len(operands[0]).last();
                let mut row = 0;
                for &a in &left {
                    let mut column = 0;
                    for &b in &right {
                        let offset = home.offset + row * stride + column;
                        let work = Work::ReduceProduct { a, b, pairs, into: home.buffer, offset, stride };
                        stages.push(stage(&name, domain, work));
                        column += b.len / pairs;
                    }
                    row += a.len / pairs;
                }
            }
            Op::SumRows(_) => {
                let mut at = 0;
                for from in self.spans(scope, operands[0], pace, stages) {
                    let into = home.span(Pace { stepwise: false }, at, from.len);
                    at += from.len;
                    stages.push(stage(&name, domain, Work::ReduceRows { from, times: None, into }));
                }
            }
            Op::Dot | Op::DotNt => {
                let from = self.span(scope, operands[0], pace, stages);
                let (packed, k) = self.pack(scope, v, 0, ty.shape.last(), stages);
                let (m, n) = (ty.shape.len() / ty.shape.last(), ty.shape.last());
                stages.push(stage(&name, domain, Work::MatrixRows { from, into, m, k, n, packed }));
            }
            Op::MatMul { ta, tb } => {
                let a = self.span(scope, operands[0], pace, stages);
                let b = self.span(scope, operands[1], pace, stages);
                let k = a.len / ty.shape.0[0];
                let mkn = [ty.shape.0[0], k, ty.shape.0[1]];
                stages.push(stage(&name, domain, Work::MatMul { a, b, into, mkn, ta, tb }));
            }
            Op::Gather => {
                let table = self.span(scope, operands[0], pace, stages);
                let index = self.span(scope, operands[1], pace, stages);
                let width = n / index.len;
                stages.push(stage(&name, domain, Work::Gather { table, index, into, width }));
            }
            Op::ScatterAdd(_) => {
                let index = self.span(scope, operands[0], pace, stages);
                let from = self.span(scope, operands[1], pace, stages);
                let width = from.len / index.len;
                stages.push(stage(&name, domain, Work::Scatter { index, from, into, width }));
            }
            Op::OneHot(n) => {
                let index = self.span(scope, operands[0], pace, stages);
                stages.push(stage(&name, domain, Work::OneHot { index, into, n }));
            }
            Op::Argmax => {
                let from = self.span(scope, operands[0], pace, stages);
                let n = len(operands[0]).last();
                stages.push(stage(&name, domain, Work::Argmax { from, into, n }));
            }
            Op::ToFloat => {
                let from = self.span(scope, operands[0], pace, stages);
                stages.push(stage(&name, domain, Work::ToFloat { from, into }));
            }
            Op::Select => {
                let [mask, yes, no] = [0, 1, 2].map(|i| self.span(scope, operands[i], pace, stages));
                stages.push(stage(&name, domain, Work::Choose { mask, yes, no, into }));
            }
            Op::PlaceLast(axis) => {
                // Over all rows at once, though the operand has a row per sample only.
                let pace = Pace { stepwise: false };
                let (from, into) = (self.span(scope, operands[0], pace, stages), home.span(pace, 0, n));
                stages.push(stage(&name, Domain::Time(axis), Work::PlaceLast { from, into, axis }));
            }
            Op::Concat(axis) => {
                let strides = row_major(&ty.shape.0);
                let mut at = 0;
                for &part in &operands {
                    let start = at * strides[axis];
                    at += len(part).0[axis];
                    self.place_part(scope, part, home, start, &strides, ty.extent, &name, stages);
                }
            }
            Op::Pad { axis, before, .. } => {
                stages.push(stage(&name, domain, Work::Fill { into, value: 0.0 }));
                let strides = row_major(&ty.shape.0);
                let start = before * strides[axis];
                self.place_part(scope, operands[0], home, start, &strides, ty.extent, &name, stages);
            }
            // A view that no reader could follow.
            Op::Slice { .. }
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Broadcast(_)
            | Op::Expand(_)
            | Op::StopGradient => {
                let operand = operands[0];
                let view = scope.groups.view(operand).clone();
                if let Some(value) = scope.groups.constant(operand) {
                    stages.push(stage(&name, domain, Work::Fill { into, value }));
                    return;
                }
                let source = self.home_of(scope, view.base, stages);
                let shape = &graph.ty(operand).shape;
                let inner = View { base: view.base, offset: view.offset, strides: view.strides.clone() };
                let (offset, dims, strides, into_strides) =
                    match super::group::follow_one(&op, &inner, shape, &ty.shape) {
                        Some(seen) => (seen.offset, ty.shape.0.clone(), seen.strides, row_major(&ty.shape.0)),
                        // Only a reshape cannot be followed: its features keep their order.
                        None => (view.offset, shape.0.clone(), view.strides, row_major(&shape.0)),
                    };
                let from = source.span(pace, offset, n);
                stages.push(stage(&name, domain, Work::Copy { from, into, dims, strides, into_strides }));
            }
            other => panic!("`{}` has no stage", other.name()),
        }
    }

    /// Copies one part of a concat to its place, unless its kernel writes it there.
    #[expect(clippy::too_many_arguments, reason = "a part has that many sides")]
    fn place_part(
        &mut self,
        scope: &mut Scope,
        part: Value,
        home: Home,
        start: usize,
        strides: &[usize],
        extent: Extent,
        name: &str,
        stages: &mut Vec<Stage>,
    ) {
        let shape = scope.ty(part).shape.clone();
        let view = scope.groups.view(part).clone();
        let placed = scope.homes.get(&view.base).is_some_and(|own| {
            view.base == part && own.buffer == home.buffer && own.rows == home.rows && own.offset == home.offset + start
        });
        if placed {
            return;
        }
        let (domain, pace) = self.pace(scope, extent, std::iter::once(part));
        let into = home.span(pace, start, shape.len());
        if let Some(value) = scope.groups.constant(part) {
            if shape.rank() == 1 {
                stages.push(stage(name, domain, Work::Fill { into, value }));
                return;
            }
            let base = self.home_of(scope, view.base, stages);
            let from = base.span(pace, 0, shape.len());
            let work = Work::Copy {
                from,
                into,
                dims: shape.0.clone(),
                strides: vec![0; shape.rank()],
                into_strides: strides.to_vec(),
            };
            stages.push(stage(name, domain, work));
            return;
        }
        let base = self.home_of(scope, view.base, stages);
        let from = base.span(pace, view.offset, shape.len());
        self.copy(scope, part, from, view.strides, into, strides.to_vec(), domain, name, stages);
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
        | Work::PlaceLast { from, into, .. } => (vec![from.access], vec![into.access]),
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
