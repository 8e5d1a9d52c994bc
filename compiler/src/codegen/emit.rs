//! CLIF for one kernel.
//!
//! Memory operands are addressed as `base + row·stride + feature`, where strides are constants of the plan and bases,
//! those of the step, come with the call. Rows are padded to whole vectors of the widest kind, so flat
//! loops round up and have no tails: what they compute on padding is never read by anything that counts. Loops over
//! several dimensions keep to their exact length, with a scalar tail.
//!
//! All loads and stores carry the same flags and no alias region: mixing tagged with untagged accesses is miscompiled
//! by the Cranelift in use.
//!
//! Here is what all kernels share: addresses, loops, calls of routines, and one position of a loop. The two forms of
//! kernels are in [`tiles`] and [`rows`], what becomes instructions in [`arithmetic`].

mod arithmetic;
mod rows;
mod tiles;

use std::pin::Pin;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, BlockArg, Endianness, Function, InstBuilder, MemFlagsData, SigRef, Signature, Type, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use super::levels::{Levels, Manner, in_register, schedule};
use super::products::{TileProducts, products};
use super::{Features, KernelTable, Precision};
use crate::error::CodegenError;
use crate::ir::op::Binary;
use crate::plan::{Kernel, KernelNode, KernelOp, Read, Source};
use rows::{ROWS_BYTES, ROWS_TOGETHER};
use tiles::TILE_AREA;

/// Writes a kernel's body; returns the bytes of scratch it needs, and the table of products that its code refers to.
///
/// # Errors
/// If its rows have more elements than the table can count.
pub fn kernel(
    func: &mut Function,
    context: &mut FunctionBuilderContext,
    config: TargetFrontendConfig,
    kernel: &Kernel,
    precision: Precision,
    table: &KernelTable,
    Features { fma, folds_loads }: Features,
) -> Result<(usize, Pin<Box<TileProducts>>), CodegenError> {
    let mut b = FunctionBuilder::new(func, context);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let p = b.block_params(entry).to_vec();
    let size = precision.size();
    let panel = table.panel;
    let levels = match &kernel.tile {
        Some(_) => schedule(kernel, |_| TILE_AREA * panel * size),
        // One vector more than the features: loops of several dimensions may end with a whole vector.
        None => schedule(kernel, |n| (n + 16 / size).next_multiple_of(64 / size) * size),
    };
    let together = match kernel.tile {
        Some(_) => 1,
        None => (ROWS_BYTES / levels.size.max(1)).clamp(1, ROWS_TOGETHER),
    };
    let unary = b.func.import_signature(signature(config.default_call_conv, 3));
    let products_signature = b.func.import_signature(signature(config.default_call_conv, 7));
    let products = kernel.tile.as_ref().map(|tile| products(kernel, tile, &levels, size)).transpose()?;
    let products = Box::pin(products.unwrap_or_default());
    let binary = b.func.import_signature(signature(config.default_call_conv, 4));
    let lane = match precision {
        Precision::F32 => types::F32,
        Precision::F64 => types::F64,
    };
    let lanes = 16 / size;
    let mut e = Emit {
        vector: lane.by(lanes as u32).expect("128 bits"),
        lane,
        lanes,
        size: size as i64,
        kernel,
        levels: &levels,
        table,
        fma,
        folds_loads,
        scratch: p[1],
        bases: p[0],
        held: Vec::new(),
        products: &products,
        unary,
        binary,
        products_signature,
        b,
    };
    match &kernel.tile {
        Some(tile) => e.tile(tile, p[2], p[3], p[4], p[5]),
        None => e.rows(p[2], p[3], together),
    }
    e.b.ins().return_(&[]);
    e.b.seal_all_blocks();
    e.b.finalize(config);
    Ok((levels.size * together, products))
}

fn signature(convention: CallConv, arguments: usize) -> Signature {
    let mut s = Signature::new(convention);
    s.params = vec![AbiParam::new(types::I64); arguments];
    s
}

/// Every access is to memory that the plan proved to be there.
fn flags() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little).with_notrap()
}

struct Emit<'a, 'f> {
    b: FunctionBuilder<'f>,
    kernel: &'a Kernel,
    levels: &'a Levels,
    table: &'a KernelTable,
    fma: bool,
    folds_loads: bool,
    lane: Type,
    vector: Type,
    lanes: usize,
    size: i64,
    scratch: Value,
    /// For each access, the address of row 0 at this step. They wait in memory, and what is made of them goes from turn to
    /// turn of a loop: Cranelift computes what has a constant as an operand again in each block that uses it, and what
    /// depends on that too, inside the innermost loops.
    bases: Value,
    /// What is the same at all positions of the present loop, in all lanes: a source, its feature, and the vector.
    held: Vec<(Source, usize, Value)>,
    products: &'a TileProducts,
    unary: SigRef,
    binary: SigRef,
    products_signature: SigRef,
}

/// Where a loop stands: how to find the memory of features.
#[derive(Clone)]
struct Place {
    /// For each access, the address of feature 0 of this row.
    rows: Vec<Option<Value>>,
    /// Byte offset of the present feature from a flat operand's first one, as a value.
    flat: Value,
    /// Byte offset within scratch of a flat value.
    scratch: Value,
    /// Constant bytes to add to both.
    extra: i64,
    /// Byte offset of each of the outer loop's indices times the size of an element; empty in flat loops.
    outer: Vec<Value>,
    /// Whether a vector or one element is computed.
    wide: bool,
}

/// What a position of a loop has in registers.
struct Done {
    /// Values of nodes.
    nodes: Vec<Option<Value>>,
    /// Elements of accesses at this very position, by access and first feature: what is replaced here as well is read as it
    /// was before.
    loads: Vec<((usize, usize), Value)>,
    /// And elements of scratch, by its byte.
    scratch: Vec<(usize, Value)>,
}

impl Emit<'_, '_> {
    /// An address and so many bytes from there, as a load or a store takes them: its own offset has 32 bits, so that one
    /// beyond is added. A position may add some bytes more, those of its vectors.
    fn reach(&mut self, address: Value, bytes: i64) -> (Value, i32) {
        match i32::try_from(bytes) {
            Ok(offset) => (address, offset),
            Err(_) => (self.plus(address, bytes), 0),
        }
    }

    /// Byte `n` elements on.
    fn bytes(&self, n: usize) -> i64 {
        n as i64 * self.size
    }

    fn load_at(&mut self, ty: Type, address: Value, bytes: i64) -> Value {
        let (address, offset) = self.reach(address, bytes);
        self.b.ins().load(ty, flags(), address, offset)
    }

    fn store_to(&mut self, value: Value, address: Value, bytes: i64) {
        let (address, offset) = self.reach(address, bytes);
        self.b.ins().store(flags(), value, address, offset);
    }

    fn load_i64(&mut self, p: Value, offset: i64) -> Value {
        self.load_at(types::I64, p, offset)
    }

    fn int(&mut self, n: i64) -> Value {
        self.b.ins().iconst(types::I64, n)
    }

    fn times(&mut self, v: Value, n: i64) -> Value {
        match n {
            1 => v,
            n if n > 0 && (n as u64).is_power_of_two() => self.b.ins().ishl_imm_u(v, i64::from(n.trailing_zeros())),
            n => {
                let n = self.int(n);
                self.b.ins().imul(v, n)
            }
        }
    }

    fn plus(&mut self, v: Value, n: i64) -> Value {
        if n == 0 { v } else { self.b.ins().iadd_imm_s(v, n) }
    }

    fn min(&mut self, x: Value, y: Value) -> Value {
        let less = self.b.ins().icmp(IntCC::UnsignedLessThan, x, y);
        self.b.ins().select(less, x, y)
    }

    /// `for i in (from..to).step_by(step)`, with values carried from turn to turn. There is one turn at least.
    fn repeat(
        &mut self,
        bounds: [Value; 3],
        carried: &[Value],
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        self.repeat_from(bounds, carried, false, body)
    }

    /// [`repeat`](Self::repeat), with no turn where `from` is not less than `to`.
    fn repeat_if_any(&mut self, bounds: [Value; 3], body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>) {
        self.repeat_from(bounds, &[], true, body);
    }

    fn repeat_from(
        &mut self,
        [from, to, step]: [Value; 3],
        carried: &[Value],
        may_be_none: bool,
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        // Asked at the end of each turn: one jump a turn.
        let inside = self.b.create_block();
        let exit = self.b.create_block();
        let i = self.b.append_block_param(inside, types::I64);
        let [present, last] = [inside, exit].map(|block| {
            let types = carried.iter().map(|&c| self.b.func.dfg.value_type(c)).collect::<Vec<_>>();
            types.into_iter().map(|ty| self.b.append_block_param(block, ty)).collect::<Vec<_>>()
        });
        let turn = |e: &mut Self, i: Value, carried: &[Value], may_end: bool| {
            let carried: Vec<BlockArg> = carried.iter().map(|&c| BlockArg::Value(c)).collect();
            let again = [&[BlockArg::Value(i)], &carried[..]].concat();
            if may_end {
                let more = e.b.ins().icmp(IntCC::UnsignedLessThan, i, to);
                e.b.ins().brif(more, inside, &again, exit, &carried);
            } else {
                e.b.ins().jump(inside, &again);
            }
        };
        turn(self, from, carried, may_be_none);
        self.b.switch_to_block(inside);
        let next = body(self, i, &present);
        let i = self.b.ins().iadd(i, step);
        turn(self, i, &next, true);
        self.b.switch_to_block(exit);
        last
    }

    /// [`repeat`](Self::repeat) with bounds that are known: no loop where there is one turn.
    fn turns(
        &mut self,
        [from, to, step]: [usize; 3],
        carried: &[Value],
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        assert!(from < to, "a turn at least");
        let bounds = [from, to, step].map(|n| self.int(n as i64));
        if to <= from + step { body(self, bounds[0], carried) } else { self.repeat(bounds, carried, body) }
    }

    fn stride(&self, access: usize) -> i64 {
        let (a, stride) = self.kernel.strides[access];
        if a.at == crate::plan::At::Shared { 0 } else { stride as i64 * self.size }
    }

    /// Address of row 0 of an access at this step.
    fn base(&mut self, access: usize) -> Value {
        self.load_i64(self.bases, access as i64 * 8)
    }

    /// Address of feature 0 of a row of an access.
    fn row(&mut self, access: usize, row: Value) -> Value {
        let base = self.base(access);
        match self.stride(access) {
            0 => base,
            stride => {
                let offset = self.times(row, stride);
                self.b.ins().iadd(base, offset)
            }
        }
    }

    fn kernel_reads(&self) -> usize {
        // Writes are numbered behind the reads in `strides`.
        self.kernel.reads
    }

    /// Accesses that loops for these sinks touch, and calls of these routines.
    fn accesses(&self, sinks: &[usize], calls: &[usize], stores: &[(usize, usize, usize)]) -> Vec<usize> {
        let nodes = &self.kernel.nodes;
        let computed = self.involved(sinks).into_iter().filter(|&i| self.levels.manner[i] != Manner::Call);
        let reads = computed.chain(calls.iter().copied()).flat_map(|i| &nodes[i].reads);
        let mut used: Vec<usize> = reads
            .filter_map(|read| match read.source {
                Source::Memory(a) => Some(a),
                _ => None,
            })
            .collect();
        let stored = sinks.iter().flat_map(|&i| &nodes[i].stores).map(|&(write, _)| write);
        used.extend(stored.chain(stores.iter().map(|&(_, write, _)| write)).map(|write| self.kernel_reads() + write));
        used.sort_unstable();
        used.dedup();
        used
    }

    /// Nodes that a loop for these sinks computes in registers, sinks included.
    fn involved(&self, sinks: &[usize]) -> Vec<usize> {
        let mut seen = vec![false; self.kernel.nodes.len()];
        let mut stack = sinks.to_vec();
        while let Some(i) = stack.pop() {
            if std::mem::replace(&mut seen[i], true) || self.levels.manner[i] == Manner::Call {
                continue;
            }
            let node = &self.kernel.nodes[i];
            for read in &node.reads {
                if let Source::Node(s) = read.source
                    && self.is_in_register(i, read, s)
                {
                    stack.push(s);
                }
            }
        }
        (0..seen.len()).filter(|&i| seen[i]).collect()
    }

    fn is_in_register(&self, node: usize, read: &Read, source: usize) -> bool {
        self.levels.manner[source] == Manner::Inline
            && self.levels.level[source] == self.levels.level[node]
            && in_register(&self.kernel.nodes[node], read, &self.kernel.nodes[source])
    }

    /// What a level's loops must bring about: stores, scratch, reductions.
    fn sinks(&self, level: usize) -> Vec<usize> {
        (0..self.kernel.nodes.len())
            .filter(|&i| {
                let node = &self.kernel.nodes[i];
                match self.levels.manner[i] {
                    Manner::Inline => {
                        self.levels.level[i] == level && (!node.stores.is_empty() || self.levels.scratch[i].is_some())
                    }
                    // What a routine made is stored by the loops of the level where it is ready.
                    Manner::Call => self.levels.ready[i] == level && !node.stores.is_empty(),
                    Manner::Reduce => {
                        self.levels.level[i] == level || (self.levels.ready[i] == level && !node.stores.is_empty())
                    }
                }
            })
            .filter(|&i| self.kernel.tile.is_some() || !self.is_late_reduce(i, level))
            .collect()
    }

    /// A reduction's result is stored right behind its loop.
    fn is_late_reduce(&self, i: usize, level: usize) -> bool {
        self.levels.manner[i] == Manner::Reduce && self.levels.level[i] != level
    }

    /// The routines of a level.
    fn calls(&self, level: usize) -> Vec<usize> {
        let is_due = |&i: &usize| self.levels.manner[i] == Manner::Call && self.levels.level[i] == level;
        (0..self.kernel.nodes.len()).filter(is_due).collect()
    }

    /// One routine. Operands that do not lie in scratch feature by feature have been copied there by the planner.
    fn call(&mut self, i: usize, features: Value, rows: Option<&[Option<Value>]>) {
        let node = &self.kernel.nodes[i];
        let own = self.levels.scratch[i].expect("calls have scratch");
        let mut arguments = Vec::new();
        for read in &node.reads {
            let address = match read.source {
                Source::Node(s) => {
                    let offset = self.levels.scratch[s].expect("operands of calls wait in scratch") as i64;
                    self.plus(self.scratch, offset + read.offset as i64 * self.size)
                }
                Source::Product(p) => self.plus(self.scratch, self.levels.products[p] as i64),
                Source::Memory(a) => {
                    let row = rows.and_then(|rows| rows[a]).expect("tiles copy operands of calls from memory");
                    self.plus(row, read.offset as i64 * self.size)
                }
                Source::Constant(_) => unreachable!("constants are copied for calls"),
            };
            arguments.push(address);
        }
        arguments.push(self.plus(self.scratch, own as i64));
        arguments.push(features);
        let (signature, address) = match node.op {
            KernelOp::Unary(u) => {
                let found = self.table.unary.iter().find(|(own, _)| *own == u);
                (self.unary, found.expect("the table has every routine").1)
            }
            _ => (self.binary, self.table.pow),
        };
        let callee = self.int(address as i64);
        self.b.ins().call_indirect(signature, callee, &arguments);
    }

    /// Computes the sinks at one position. `sums` are reductions in registers and their present values; `scalars`
    /// remembers what is the same at all positions.
    fn position(
        &mut self,
        sinks: &[usize],
        place: &Place,
        scalars: &mut Vec<((usize, usize), Value)>,
        mut sums: Option<&mut (Vec<usize>, Vec<Value>)>,
    ) {
        let mut done = Done { nodes: vec![None; self.kernel.nodes.len()], loads: Vec::new(), scratch: Vec::new() };
        for &i in sinks {
            if self.levels.manner[i] == Manner::Reduce {
                let node = &self.kernel.nodes[i];
                let x = self.read(i, &node.reads[0], place, &mut done, scalars);
                let op = node.op;
                if let Some(state) = sums.as_deref_mut()
                    && let Some(at) = state.0.iter().position(|&r| r == i)
                {
                    state.1[at] = self.combine(op, state.1[at], x);
                    continue;
                }
                // Into the elements of this loop.
                let base = self.element(i, place);
                let address = self.b.ins().iadd(base, place.flat);
                let offset = self.levels.scratch[i].expect("reductions have scratch") as i64 + place.extra;
                let old = self.load(address, offset, false, place.wide);
                let new = self.combine(op, old, x);
                self.store_to(new, address, offset);
                for &(write, first) in &self.kernel.nodes[i].stores {
                    let row = place.rows[self.kernel_reads() + write].expect("accessed");
                    let into = self.b.ins().isub(address, self.scratch);
                    let row = self.b.ins().iadd(row, into);
                    self.store_to(new, row, self.bytes(first) + place.extra);
                }
                continue;
            }
            let value = if self.levels.manner[i] == Manner::Call {
                self.scratch_load_node(i, place, &mut done)
            } else {
                self.value(i, place, &mut done, scalars)
            };
            if self.levels.manner[i] == Manner::Inline
                && let Some(offset) = self.levels.scratch[i]
            {
                let at = self.dense(i, place.scratch, place);
                let address = self.b.ins().iadd(self.scratch, at);
                self.store_to(value, address, offset as i64 + place.extra);
            }
            for (write, offset) in self.kernel.nodes[i].stores.clone() {
                let write = self.kernel_reads() + write;
                let at = self.dense(i, place.flat, place);
                let row = place.rows[write].expect("accessed");
                let address = self.b.ins().iadd(row, at);
                self.store_to(value, address, self.bytes(offset) + place.extra);
            }
        }
    }

    /// Byte offset of the present feature in a node's own dense layout.
    fn dense(&mut self, i: usize, flat: Value, place: &Place) -> Value {
        if place.outer.is_empty() {
            return flat;
        }
        let dims = self.kernel.nodes[i].dims.clone();
        let mut stride: i64 = dims.iter().product::<usize>() as i64;
        let mut at = flat;
        for (d, &index) in place.outer.iter().enumerate() {
            stride /= dims[d] as i64;
            let offset = self.times(index, stride);
            at = self.b.ins().iadd(at, offset);
        }
        at
    }

    fn scratch_load(&mut self, offset: usize, place: &Place) -> Value {
        let address = self.b.ins().iadd(self.scratch, place.scratch);
        self.load(address, offset as i64 + place.extra, false, place.wide)
    }

    /// As that, once for a position. What is computed there goes elsewhere: it is read at another level.
    fn scratch_load_once(&mut self, offset: usize, place: &Place, done: &mut Done) -> Value {
        if let Some(&(_, v)) = done.scratch.iter().find(|(own, _)| *own == offset) {
            return v;
        }
        let v = self.scratch_load(offset, place);
        done.scratch.push((offset, v));
        v
    }

    fn scratch_load_node(&mut self, i: usize, place: &Place, done: &mut Done) -> Value {
        let offset = self.levels.scratch[i].expect("it waits in scratch");
        if place.outer.is_empty() {
            return self.scratch_load_once(offset, place, done);
        }
        let at = self.dense(i, place.scratch, place);
        let place = Place { scratch: at, outer: Vec::new(), ..place.clone() };
        self.scratch_load(offset, &place)
    }

    fn store_at(&mut self, value: Value, access: usize, offset: usize, place: &Place) {
        let row = place.rows[access].expect("accessed");
        let address = self.b.ins().iadd(row, place.flat);
        self.store_to(value, address, self.bytes(offset) + place.extra);
    }

    fn value(&mut self, i: usize, place: &Place, done: &mut Done, scalars: &mut Vec<((usize, usize), Value)>) -> Value {
        if let Some(v) = done.nodes[i] {
            return v;
        }
        let node: &KernelNode = &self.kernel.nodes[i];
        let v = match node.op {
            KernelOp::Binary(op @ (Binary::Add | Binary::Sub)) if self.fma => {
                match self.fused(i, op, place, done, scalars) {
                    Some(v) => v,
                    None => self.plain(i, place, done, scalars),
                }
            }
            _ => self.plain(i, place, done, scalars),
        };
        done.nodes[i] = Some(v);
        v
    }

    fn plain(&mut self, i: usize, place: &Place, done: &mut Done, scalars: &mut Vec<((usize, usize), Value)>) -> Value {
        let node: &KernelNode = &self.kernel.nodes[i];
        let operands: Vec<Value> = node.reads.iter().map(|r| self.read(i, r, place, done, scalars)).collect();
        self.pointwise(node.op, &operands, place.wide)
    }

    /// x·y ± z in one instruction, where the product is for this node only.
    fn fused(
        &mut self,
        i: usize,
        op: Binary,
        place: &Place,
        done: &mut Done,
        scalars: &mut Vec<((usize, usize), Value)>,
    ) -> Option<Value> {
        let kernel = self.kernel;
        let node = &kernel.nodes[i];
        let single = |read: &Read| match read.source {
            Source::Node(s)
                if kernel.nodes[s].op == KernelOp::Binary(Binary::Mul)
                    && kernel.nodes[s].stores.is_empty()
                    && self.levels.scratch[s].is_none()
                    && self.is_in_register(i, read, s)
                    && kernel.nodes.iter().flat_map(|n| &n.reads).filter(|r| r.source == Source::Node(s)).count()
                        == 1 =>
            {
                Some(s)
            }
            _ => None,
        };
        let (product, other, left) = match (single(&node.reads[0]), single(&node.reads[1])) {
            (Some(p), _) => (p, 1, true),
            (None, Some(p)) => (p, 0, false),
            _ => return None,
        };
        let factors = &kernel.nodes[product].reads;
        let mut x = self.read(product, &factors[0], place, done, scalars);
        let y = self.read(product, &factors[1], place, done, scalars);
        let mut z = self.read(i, &node.reads[other], place, done, scalars);
        if op == Binary::Sub {
            // xy − z, or z − xy.
            if left { z = self.b.ins().fneg(z) } else { x = self.b.ins().fneg(x) }
        }
        Some(self.b.ins().fma(x, y, z))
    }

    /// An operand at this position.
    fn read(
        &mut self,
        node: usize,
        read: &Read,
        place: &Place,
        done: &mut Done,
        scalars: &mut Vec<((usize, usize), Value)>,
    ) -> Value {
        if place.wide
            && read.is_scalar()
            && let Some(&(_, _, v)) =
                self.held.iter().find(|(s, offset, _)| (*s, *offset) == (read.source, read.offset))
        {
            return v;
        }
        match read.source {
            Source::Constant(c) => self.constant(c, place.wide),
            Source::Product(p) => self.scratch_load_once(self.levels.products[p], place, done),
            Source::Node(s) if self.is_in_register(node, read, s) => self.value(s, place, done, scalars),
            Source::Node(s) => {
                let offset = self.levels.scratch[s].expect("what is read later waits in scratch");
                if self.kernel.tile.is_some() {
                    return self.scratch_load_once(offset, place, done);
                }
                let (at, splat) = self.viewed(read, &self.kernel.nodes[node].dims, place);
                if place.outer.is_empty() && at == place.scratch && !splat && read.offset == 0 {
                    return self.scratch_load_once(offset, place, done);
                }
                let address = self.b.ins().iadd(self.scratch, at);
                let extra = if splat { 0 } else { place.extra };
                self.load(address, offset as i64 + self.bytes(read.offset) + extra, splat, place.wide)
            }
            Source::Memory(a) => {
                let row = place.rows[a].expect("accessed");
                if read.is_scalar() {
                    let key = (a, read.offset);
                    if let Some((_, v)) = scalars.iter().find(|(k, _)| *k == key)
                        && self.kernel.tile.is_some()
                    {
                        return *v;
                    }
                    let v = self.load(row, self.bytes(read.offset), true, place.wide);
                    scalars.push((key, v));
                    return v;
                }
                let (at, splat) = self.viewed(read, &self.kernel.nodes[node].dims, place);
                let key = (a, read.offset);
                let is_here = at == place.flat && !splat;
                if let Some((_, v)) = done.loads.iter().find(|(k, _)| *k == key)
                    && is_here
                {
                    return *v;
                }
                let address = self.b.ins().iadd(row, at);
                let extra = if splat { 0 } else { place.extra };
                let v = self.load(address, self.bytes(read.offset) + extra, splat, place.wide);
                if is_here {
                    done.loads.push((key, v));
                }
                v
            }
        }
    }

    /// Byte offset of a read at the loop's indices, and whether one element is meant for all lanes.
    fn viewed(&mut self, read: &Read, dims: &[usize], place: &Place) -> (Value, bool) {
        if place.outer.is_empty() {
            if read.is_flat(dims) && !read.is_scalar() {
                return (place.flat, false);
            }
            if read.is_scalar() {
                return (self.int(0), true);
            }
            // A flat loop over one real dimension of a view with a stride.
            if read.is_flat(dims) {
                return (place.flat, false);
            }
        }
        let last = read.strides.last().copied().unwrap_or(0);
        let mut at = if last == 0 { self.int(0) } else { self.times(place.flat, last as i64) };
        for (d, &index) in place.outer.iter().enumerate() {
            if read.strides[d] != 0 {
                let offset = self.times(index, read.strides[d] as i64);
                at = self.b.ins().iadd(at, offset);
            }
        }
        (at, last == 0)
    }

    fn load(&mut self, address: Value, bytes: i64, splat: bool, wide: bool) -> Value {
        if !wide {
            return self.load_at(self.lane, address, bytes);
        }
        if splat {
            let x = self.load_at(self.lane, address, bytes);
            return self.b.ins().splat(self.vector, x);
        }
        if self.folds_loads {
            return self.load_at(self.vector, address, bytes);
        }
        // As integers, which no instruction on floats takes from memory: see `folds_loads`.
        let x = self.load_at(types::I64X2, address, bytes);
        self.b.ins().bitcast(self.vector, MemFlagsData::new().with_endianness(Endianness::Little), x)
    }
}
