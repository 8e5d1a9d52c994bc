//! CLIF for one kernel.
//!
//! Memory operands are addressed as `base + t·step + row·stride + feature`, where strides are constants of the plan
//! and `base`, `step` come from the stage's accesses. Rows are padded to whole vectors of the widest kind, so flat
//! loops round up and have no tails: what they compute on padding is never read by anything that counts. Loops over
//! several dimensions keep to their exact length, with a scalar tail.
//!
//! All loads and stores carry the same flags and no alias region: mixing tagged with untagged accesses is miscompiled
//! by the Cranelift in use.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{
    AbiParam, BlockArg, Endianness, Function, InstBuilder, MemFlagsData, SigRef, Signature, StackSlot, StackSlotData,
    StackSlotKind, Type, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use super::levels::{Levels, Manner, in_register, schedule};
use super::{KernelTable, Precision};
use crate::ir::op::{Binary, Unary};
use crate::plan::{At, Kernel, KernelNode, KernelOp, Read, Source, Start, Tile};

/// Rows of a tile: a multiple of the micro-kernel's.
const TILE_ROWS: usize = 24;
/// Vectors that a sum along features is taken in, side by side.
const CHAINS: usize = 4;
/// Bytes of weights above which they are fetched ahead: those of a step then come from a cache that is shared, or from
/// memory, in each step.
const FAR: i64 = 4 << 20;
/// Most rows that a row kernel takes together, and bytes of scratch that they may have: half of a small first cache.
const ROWS_TOGETHER: usize = 8;
const ROWS_BYTES: usize = 16 << 10;
/// Panels times rows of a tile: what keeps a tile of a few values in the first cache.
const TILE_AREA: usize = 48;

/// Writes a kernel's body; returns the bytes of scratch it needs.
pub fn kernel(
    func: &mut Function,
    context: &mut FunctionBuilderContext,
    config: TargetFrontendConfig,
    kernel: &Kernel,
    precision: Precision,
    table: &KernelTable,
    fma: bool,
) -> usize {
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
    let gemm = b.func.import_signature(signature(config.default_call_conv, 1));
    let binary = b.func.import_signature(signature(config.default_call_conv, 4));
    let lane = match precision {
        Precision::F32 => types::F32,
        Precision::F64 => types::F64,
    };
    let lanes = 16 / size;
    let bases_bytes = (kernel.strides.len() * 8).max(8) as u32;
    let bases = b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bases_bytes, 3));
    let mut e = Emit {
        vector: lane.by(lanes as u32).expect("128 bits"),
        lane,
        lanes,
        size: size as i64,
        kernel,
        levels: &levels,
        table,
        fma,
        scratch: p[1],
        bases,
        unary,
        binary,
        gemm,
        b,
    };
    for (i, (access, _)) in kernel.strides.iter().enumerate() {
        let mut base = e.load_i64(p[0], (i * 16) as i32);
        if matches!(access.at, At::Step(_)) {
            let step = e.load_i64(p[0], (i * 16 + 8) as i32);
            let moved = e.b.ins().imul(step, p[2]);
            base = e.b.ins().iadd(base, moved);
        }
        e.b.ins().stack_store(types::I64, base, bases, (i * 8) as i32);
    }
    match &kernel.tile {
        Some(tile) => e.tile(tile, p[3], p[4], p[5], p[6]),
        None => e.rows(p[3], p[4], together),
    }
    e.b.ins().return_(&[]);
    e.b.seal_all_blocks();
    e.b.finalize(config);
    levels.size * together
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
    lane: Type,
    vector: Type,
    lanes: usize,
    size: i64,
    scratch: Value,
    /// For each access, the address of row 0 at this step. They wait in memory: as values they would be computed again
    /// wherever they are used, inside the innermost loops too, since Cranelift moves what is pure to its uses.
    bases: StackSlot,
    unary: SigRef,
    binary: SigRef,
    gemm: SigRef,
}

/// The form of a loop over features.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Form {
    /// All that it touches lies feature behind feature, so that one loop goes through all dimensions.
    flat: bool,
    /// It takes whole vectors.
    vectors: bool,
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
    extra: i32,
    /// Byte offset of each of the outer loop's indices times the size of an element; empty in flat loops.
    outer: Vec<Value>,
    /// Whether a vector or one element is computed.
    wide: bool,
}

impl Emit<'_, '_> {
    fn load_i64(&mut self, p: Value, offset: i32) -> Value {
        self.b.ins().load(types::I64, flags(), p, offset)
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

    /// `for i in (from..to).step_by(step)`, with values carried from turn to turn.
    fn repeat(
        &mut self,
        from: Value,
        to: Value,
        step: Value,
        carried: &[Value],
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let head = self.b.create_block();
        let inside = self.b.create_block();
        let exit = self.b.create_block();
        let i = self.b.append_block_param(head, types::I64);
        let heads: Vec<Value> = carried
            .iter()
            .map(|&c| {
                let ty = self.b.func.dfg.value_type(c);
                self.b.append_block_param(head, ty)
            })
            .collect();
        let enter: Vec<BlockArg> = std::iter::once(from).chain(carried.iter().copied()).map(BlockArg::Value).collect();
        self.b.ins().jump(head, &enter);
        self.b.switch_to_block(head);
        let more = self.b.ins().icmp(IntCC::UnsignedLessThan, i, to);
        self.b.ins().brif(more, inside, &[], exit, &[]);
        self.b.switch_to_block(inside);
        let next = body(self, i, &heads);
        let i = self.b.ins().iadd(i, step);
        let again: Vec<BlockArg> = std::iter::once(i).chain(next).map(BlockArg::Value).collect();
        self.b.ins().jump(head, &again);
        self.b.switch_to_block(exit);
        heads
    }

    fn stride(&self, access: usize) -> i64 {
        let (a, stride) = self.kernel.strides[access];
        if a.at == crate::plan::At::Shared { 0 } else { stride as i64 * self.size }
    }

    /// Address of row 0 of an access at this step.
    fn base(&mut self, access: usize) -> Value {
        self.b.ins().stack_load(types::I64, types::I64, self.bases, (access * 8) as i32)
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

    // ---- tiles --------------------------------------------------------------------------------------------

    fn tile(&mut self, tile: &Tile, row0: Value, row1: Value, panel0: Value, panel1: Value) {
        let rows = self.b.ins().isub(row1, row0);
        let most = self.int(TILE_ROWS as i64);
        let widest = self.min(rows, most);
        let area = self.int(TILE_AREA as i64);
        // No rows at all: the loops below do not run, but the division must not trap.
        let one = self.int(1);
        let zero = self.int(0);
        let none = self.b.ins().icmp(IntCC::Equal, widest, zero);
        let divisor = self.b.ins().select(none, one, widest);
        let block = self.b.ins().udiv(area, divisor);
        self.repeat(panel0, panel1, block, &[], |e, first, _| {
            let left = e.b.ins().isub(panel1, first);
            let panels = e.min(left, block);
            e.repeat(row0, row1, most, &[], |e, row, _| {
                let left = e.b.ins().isub(row1, row);
                let m = e.min(left, most);
                e.block(tile, first, panels, row, m);
                Vec::new()
            });
            Vec::new()
        });
    }

    /// One block of rows and panels: products, then level after level.
    fn block(&mut self, tile: &Tile, first: Value, panels: Value, row: Value, m: Value) {
        let panel_bytes = self.table.panel as i64 * self.size;
        for i in 0..tile.products.len() {
            self.product(tile, i, first, panels, row, m);
        }
        let all_rows = self.b.ins().imul(m, panels);
        let features = self.times(all_rows, self.table.panel as i64);
        let rows_bytes = self.times(m, panel_bytes);
        for level in 0..self.levels.count {
            let sinks = self.sinks(level);
            let mut stores = if level == 0 { tile.stores.clone() } else { Vec::new() };
            stores.retain(|&(product, _, _)| tile.only_store(product, &self.kernel.nodes).is_none());
            if !sinks.is_empty() || !stores.is_empty() {
                let (zero, one) = (self.int(0), self.int(1));
                self.repeat(zero, panels, one, &[], |e, p, _| {
                    let at = e.b.ins().iadd(first, p);
                    let column = e.times(at, panel_bytes);
                    let tile_panel = e.b.ins().imul(p, rows_bytes);
                    let (zero, one) = (e.int(0), e.int(1));
                    e.repeat(zero, m, one, &[], |e, r, _| {
                        let own = e.times(r, panel_bytes);
                        let scratch = e.b.ins().iadd(tile_panel, own);
                        let r = e.b.ins().iadd(row, r);
                        e.panel_row(&sinks, &stores, r, column, scratch);
                        Vec::new()
                    });
                    Vec::new()
                });
            }
            self.calls(level, features);
        }
    }

    /// The vectors of one panel of one row.
    fn panel_row(
        &mut self,
        sinks: &[usize],
        stores: &[(usize, usize, usize)],
        row: Value,
        column: Value,
        scratch: Value,
    ) {
        let mut place = Place {
            rows: vec![None; self.kernel.strides.len()],
            flat: column,
            scratch,
            extra: 0,
            outer: Vec::new(),
            wide: true,
        };
        let used = self.accesses(sinks, stores);
        for a in used {
            let address = self.row(a, row);
            place.rows[a] = Some(address);
        }
        // Scalars of the row and of the program are the same for all vectors.
        let mut scalars = Vec::new();
        let vectors = self.table.panel / self.lanes;
        for v in 0..vectors {
            place.extra = (v * self.lanes) as i32 * self.size as i32;
            self.position(sinks, &place, &mut scalars, None);
            for &(product, write, offset) in stores {
                let value = self.scratch_load(self.levels.products[product], &place);
                let write = self.kernel_reads() + write;
                self.store_at(value, write, offset, &place);
            }
        }
    }

    fn kernel_reads(&self) -> usize {
        // Writes are numbered behind the reads in `strides`.
        self.kernel.reads
    }

    /// Accesses that computing these sinks touches.
    fn accesses(&self, sinks: &[usize], stores: &[(usize, usize, usize)]) -> Vec<usize> {
        let mut used = Vec::new();
        let mut seen = vec![false; self.kernel.nodes.len()];
        let mut stack: Vec<usize> = sinks.to_vec();
        while let Some(i) = stack.pop() {
            if std::mem::replace(&mut seen[i], true) {
                continue;
            }
            let node = &self.kernel.nodes[i];
            used.extend(node.stores.iter().map(|(w, _)| self.kernel_reads() + w));
            for read in &node.reads {
                match read.source {
                    Source::Memory(a) => used.push(a),
                    Source::Node(s) => stack.push(s),
                    _ => {}
                }
            }
        }
        used.extend(stores.iter().map(|(_, w, _)| self.kernel_reads() + w));
        used.sort_unstable();
        used.dedup();
        used
    }

    fn product(&mut self, tile: &Tile, i: usize, first: Value, panels: Value, row: Value, m: Value) {
        let product = &tile.products[i];
        let panel = self.table.panel as i64;
        let segments = self.slot(product.segments.len() * 32);
        let call = self.slot(16 * 8);
        let weights: i64 = tile.products.iter().map(|p| (p.k * tile.n) as i64 * self.size).sum();
        let direct = tile.only_store(i, &self.kernel.nodes);
        // Each product asks for its part of what the pointwise work needs, for what the next one starts from, and for
        // where it leaves its own result.
        let mut hinted: Vec<(usize, usize)> =
            self.hints(tile).into_iter().skip(i).step_by(tile.products.len()).collect();
        let next = tile.products.get(i + 1).and_then(|next| next.start_in_memory());
        hinted.extend(next.filter(|&(read, _)| self.kernel.strides[read].0.at != At::Shared));
        hinted.extend(direct.map(|(write, offset)| (self.kernel.reads + write, offset)));
        let hints = self.slot(hinted.len() * 16);
        for (h, &(access, offset)) in hinted.iter().enumerate() {
            let base = self.row(access, row);
            let base = self.plus(base, offset as i64 * self.size);
            let column = self.times(first, panel * self.size);
            let base = self.b.ins().iadd(base, column);
            let stride = self.int(self.stride(access) / self.size);
            self.b.ins().stack_store(types::I64, base, hints, (h * 16) as i32);
            self.b.ins().stack_store(types::I64, stride, hints, (h * 16 + 8) as i32);
        }
        for (s, &(read, offset, k)) in product.segments.iter().enumerate() {
            let a = self.row(read, row);
            let a = self.plus(a, offset as i64 * self.size);
            let (am, ak, k) = (self.int(self.stride(read) / self.size), self.int(1), self.int(k as i64));
            for (field, value) in [a, am, ak, k].into_iter().enumerate() {
                self.b.ins().stack_store(types::I64, value, segments, (s * 32 + field * 8) as i32);
            }
        }
        let pointer = self.b.ins().stack_addr(types::I64, segments, 0);
        let count = self.int(product.segments.len() as i64);
        let b_panel = product.k as i64 * panel;
        let offset = self.times(first, b_panel * self.size);
        let packed = {
            let base = self.base(product.read);
            self.b.ins().iadd(base, offset)
        };
        let column = self.times(first, panel * self.size);
        let (start, start_row, start_panel) = match product.start {
            Some(Start::Memory(read, offset)) => {
                let start = self.row(read, row);
                let start = self.plus(start, offset as i64 * self.size);
                (self.b.ins().iadd(start, column), self.int(self.stride(read) / self.size), self.int(panel))
            }
            Some(Start::Product(before)) => {
                let start = self.plus(self.scratch, self.levels.products[before] as i64);
                (start, self.int(panel), self.times(m, panel))
            }
            None => (self.int(0), self.int(0), self.int(0)),
        };
        let (c, c_row, c_panel) = match direct {
            Some((write, offset)) => {
                let write = self.kernel.reads + write;
                let c = self.row(write, row);
                let c = self.plus(c, offset as i64 * self.size);
                (self.b.ins().iadd(c, column), self.int(self.stride(write) / self.size), self.int(panel))
            }
            None => {
                let c = self.plus(self.scratch, self.levels.products[i] as i64);
                (c, self.int(panel), self.times(m, panel))
            }
        };
        let fields = [
            pointer,
            count,
            packed,
            self.int(b_panel),
            self.int(panel),
            c,
            c_row,
            c_panel,
            m,
            panels,
            start,
            start_row,
            start_panel,
            self.int(i64::from(weights > FAR)),
            self.b.ins().stack_addr(types::I64, hints, 0),
            self.int(hinted.len() as i64),
        ];
        for (field, value) in fields.into_iter().enumerate() {
            self.b.ins().stack_store(types::I64, value, call, (field * 8) as i32);
        }
        let argument = self.b.ins().stack_addr(types::I64, call, 0);
        let callee = self.int(self.table.gemm as i64);
        self.b.ins().call_indirect(self.gemm, callee, &[argument]);
    }

    /// Rows that the pointwise work behind the products reads or writes: (access, first element).
    fn hints(&self, tile: &Tile) -> Vec<(usize, usize)> {
        let kernel = self.kernel;
        let mut all: Vec<(usize, usize)> = Vec::new();
        for node in &kernel.nodes {
            all.extend(node.reads.iter().filter_map(|read| match read.source {
                Source::Memory(a) if read.is_flat(&node.dims) && !read.is_scalar() => Some((a, read.offset)),
                _ => None,
            }));
            all.extend(node.stores.iter().map(|&(w, offset)| (kernel.reads + w, offset)));
        }
        let stores = tile.stores.iter().filter(|&&(product, _, _)| tile.only_store(product, &kernel.nodes).is_none());
        all.extend(stores.map(|&(_, w, offset)| (kernel.reads + w, offset)));
        // One row for all is in the cache.
        all.retain(|&(a, _)| kernel.strides[a].0.at != At::Shared);
        all.sort_unstable();
        all.dedup();
        all
    }

    fn slot(&mut self, bytes: usize) -> cranelift_codegen::ir::StackSlot {
        self.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes as u32, 3))
    }

    // ---- rows ---------------------------------------------------------------------------------------------

    /// Some rows together, level after level: what follows within a row waits for what was before it, while rows know
    /// nothing of each other. Each has scratch of its own.
    fn rows(&mut self, row0: Value, row1: Value, together: usize) {
        let (one, block, all) = (self.int(1), self.int(together as i64), self.scratch);
        let own = self.levels.size as i64;
        self.repeat(row0, row1, block, &[], |e, first, _| {
            let end = e.b.ins().iadd(first, block);
            let end = e.min(end, row1);
            for level in 0..e.levels.count {
                e.repeat(first, end, one, &[], |e, row, _| {
                    let place = e.b.ins().isub(row, first);
                    let place = e.times(place, own);
                    e.scratch = e.b.ins().iadd(all, place);
                    e.row_level(level, row);
                    Vec::new()
                });
            }
            Vec::new()
        });
    }

    /// One level of one row.
    fn row_level(&mut self, level: usize, row: Value) {
        let rows: Vec<Option<Value>> = (0..self.kernel.strides.len()).map(|a| Some(self.row(a, row))).collect();
        // Loops of one form share a loop; reductions belong to the loop over their operand. The form of a loop, and so
        // the order of a sum, is that of each of its nodes alone, whatever else the kernel computes.
        let mut sinks = self.sinks(level);
        while let Some(&head) = sinks.first() {
            let dims = self.kernel.nodes[head].dims.clone();
            let form = self.form(head, &dims);
            let (same, rest): (Vec<usize>, Vec<usize>) =
                sinks.iter().partition(|&&s| self.kernel.nodes[s].dims == dims && self.form(s, &dims) == form);
            sinks = rest;
            self.row_loop(&same, &dims, form, &rows);
        }
        self.row_calls(level, &rows);
    }

    /// The form of loop that a node wants.
    fn form(&self, sink: usize, dims: &[usize]) -> Form {
        let nodes = &self.kernel.nodes;
        let involved = self.involved(&[sink]);
        let flat = involved.iter().all(|&i| {
            let reads = nodes[i].reads.iter().all(|r| r.is_scalar() || r.is_flat(dims));
            let into = nodes[i].into.as_ref().is_none_or(|into| into.iter().all(|&s| s == 0) || nodes[i].len == 1);
            reads && into
        });
        let unit = |s: Option<&usize>| s.is_none_or(|&s| s <= 1);
        let dense = involved.iter().all(|&i| {
            let into = nodes[i].into.as_ref().is_none_or(|into| unit(into.last()));
            into && nodes[i].reads.iter().all(|r| unit(r.strides.last()))
        });
        Form { flat, vectors: flat || dense }
    }

    /// One loop nest over `dims` for all these nodes, which want this form.
    fn row_loop(&mut self, sinks: &[usize], dims: &[usize], form: Form, rows: &[Option<Value>]) {
        let reduces: Vec<usize> = sinks.iter().copied().filter(|&s| self.levels.manner[s] == Manner::Reduce).collect();
        for &r in &reduces {
            self.identity(r);
        }
        let n: usize = dims.iter().product();
        let zero = self.int(0);
        let wide = form.vectors;
        let place = Place { rows: rows.to_vec(), flat: zero, scratch: zero, extra: 0, outer: Vec::new(), wide };
        if form.flat {
            let len = if reduces.is_empty() { n.next_multiple_of(self.lanes) } else { n };
            self.inner(sinks, &reduces, len, place, None);
            return;
        }
        // Outer indices in bytes, the last dimension inside.
        let (&last, outer) = dims.split_last().expect("a scalar loop is flat");
        self.outer(sinks, &reduces, outer, last, place, Vec::new());
    }

    fn outer(
        &mut self,
        sinks: &[usize],
        reduces: &[usize],
        dims: &[usize],
        last: usize,
        place: Place,
        indices: Vec<Value>,
    ) {
        match dims.split_first() {
            None => {
                let place = Place { outer: indices, ..place };
                self.inner(sinks, reduces, last, place, Some(last));
            }
            Some((&n, rest)) => {
                let (zero, step) = (self.int(0), self.int(self.size));
                let end = self.int(n as i64 * self.size);
                self.repeat(zero, end, step, &[], |e, i, _| {
                    let mut indices = indices.clone();
                    indices.push(i);
                    e.outer(sinks, reduces, rest, last, place.clone(), indices);
                    Vec::new()
                });
            }
        }
    }

    /// The innermost loop: vectors where the place is wide, then a scalar tail. `nested` is the last dimension where there are outer ones.
    fn inner(&mut self, sinks: &[usize], reduces: &[usize], n: usize, place: Place, nested: Option<usize>) {
        let wide = if place.wide { n / self.lanes * self.lanes } else { 0 };
        // Sums in registers: vectors for each reduction along this loop.
        let along: Vec<usize> = reduces.iter().copied().filter(|&r| self.sums_along(r, nested.is_some())).collect();
        // A sum is a chain, each link of which waits for the one before: several chains keep the adders busy.
        let vectors = wide / self.lanes;
        let chains = if along.is_empty() { 1 } else { vectors.clamp(1, CHAINS) };
        let whole = vectors / chains * chains;
        for (from, to, chains) in [(0, whole, chains), (whole, vectors, 1)] {
            if from == to {
                continue;
            }
            let starts: Vec<Value> =
                (0..chains).flat_map(|_| along.iter().copied()).map(|r| self.start(r, true)).collect();
            let [from, to, step] = [from, to, chains].map(|n| self.int(n as i64 * 16));
            let mut sums = self.repeat(from, to, step, &starts, |e, at, sums| {
                let mut all = Vec::new();
                for chain in 0..chains {
                    let sums = &sums[chain * along.len()..][..along.len()];
                    let extra = chain as i32 * 16;
                    let place = Place { flat: at, scratch: at, extra, wide: true, ..place.clone() };
                    let mut state = (along.clone(), sums.to_vec());
                    e.position(sinks, &place, &mut Vec::new(), Some(&mut state));
                    all.extend(state.1);
                }
                all
            });
            while sums.len() > along.len() {
                let last = sums.split_off(sums.len() - along.len());
                let before = sums.len() - along.len();
                for (i, (&r, sum)) in along.iter().zip(last).enumerate() {
                    sums[before + i] = self.combine(self.kernel.nodes[r].op, sums[before + i], sum);
                }
            }
            for (&r, sum) in along.iter().zip(sums) {
                self.fold(r, sum, true, &place);
            }
        }
        if wide < n {
            let starts: Vec<Value> = along.iter().map(|&r| self.start(r, false)).collect();
            let (from, end) = (self.int(wide as i64 * self.size), self.int(n as i64 * self.size));
            let step = self.int(self.size);
            let sums = self.repeat(from, end, step, &starts, |e, at, sums| {
                let place = Place { flat: at, scratch: at, wide: false, ..place.clone() };
                let mut state = (along.clone(), sums.to_vec());
                let mut scalars = Vec::new();
                e.position(sinks, &place, &mut scalars, Some(&mut state));
                state.1
            });
            for (&r, sum) in along.iter().zip(sums) {
                self.fold(r, sum, false, &place);
            }
        }
    }

    /// Whether a reduction sums along the innermost loop rather than into elements of it.
    fn sums_along(&self, r: usize, nested: bool) -> bool {
        let node = &self.kernel.nodes[r];
        let into = node.into.as_ref().expect("a reduction");
        !nested || into.last().is_none_or(|&s| s == 0) || node.len == 1
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

    fn zero_of(&self, op: KernelOp) -> f64 {
        if op == KernelOp::Max { f64::NEG_INFINITY } else { 0.0 }
    }

    fn start(&mut self, r: usize, wide: bool) -> Value {
        let zero = self.zero_of(self.kernel.nodes[r].op);
        self.constant(zero, wide)
    }

    /// Fills a reduction's scratch with what changes nothing.
    fn identity(&mut self, r: usize) {
        let node = &self.kernel.nodes[r];
        let offset = self.levels.scratch[r].expect("reductions have scratch") as i64;
        let value = self.start(r, true);
        let bytes = (node.len as i64 * self.size + 15) / 16 * 16;
        let base = self.plus(self.scratch, offset);
        let (zero, end, step) = (self.int(0), self.int(bytes), self.int(16));
        self.repeat(zero, end, step, &[], |e, at, _| {
            let address = e.b.ins().iadd(base, at);
            e.b.ins().store(flags(), value, address, 0);
            Vec::new()
        });
    }

    /// Adds what a loop has summed to the reduction's element.
    fn fold(&mut self, r: usize, sum: Value, wide: bool, place: &Place) {
        let op = self.kernel.nodes[r].op;
        let mut total = sum;
        if wide {
            total = self.b.ins().extractlane(sum, 0);
            for lane in 1..self.lanes {
                let other = self.b.ins().extractlane(sum, lane as u8);
                total = self.combine(op, total, other);
            }
        }
        let address = self.element(r, place);
        let offset = self.levels.scratch[r].expect("reductions have scratch") as i32;
        let old = self.b.ins().load(self.lane, flags(), address, offset);
        let new = self.combine(op, old, total);
        self.b.ins().store(flags(), new, address, offset);
        for &(write, first) in &self.kernel.nodes[r].stores {
            // Later turns overwrite it with more: the last one is complete.
            let row = place.rows[self.kernel_reads() + write].expect("accessed");
            let into = self.b.ins().isub(address, self.scratch);
            let row = self.b.ins().iadd(row, into);
            self.b.ins().store(flags(), new, row, (first as i64 * self.size) as i32);
        }
    }

    /// Scratch address of a reduction's element for the outer indices.
    fn element(&mut self, r: usize, place: &Place) -> Value {
        let into = self.kernel.nodes[r].into.clone().expect("a reduction");
        let mut address = self.scratch;
        for (i, &index) in place.outer.iter().enumerate() {
            if into[i] != 0 {
                let offset = self.times(index, into[i] as i64);
                address = self.b.ins().iadd(address, offset);
            }
        }
        address
    }

    fn combine(&mut self, op: KernelOp, x: Value, y: Value) -> Value {
        match op {
            KernelOp::Max => {
                let wide = self.b.func.dfg.value_type(x).is_vector();
                self.choose(FloatCC::LessThan, x, y, y, x, wide)
            }
            _ => self.b.ins().fadd(x, y),
        }
    }

    // ---- calls --------------------------------------------------------------------------------------------

    /// The routines of a level, over a tile's features.
    fn calls(&mut self, level: usize, features: Value) {
        for i in 0..self.kernel.nodes.len() {
            if self.levels.manner[i] == Manner::Call && self.levels.level[i] == level {
                self.call(i, features, None);
            }
        }
    }

    fn row_calls(&mut self, level: usize, rows: &[Option<Value>]) {
        for i in 0..self.kernel.nodes.len() {
            if self.levels.manner[i] == Manner::Call && self.levels.level[i] == level {
                let n = self.kernel.nodes[i].len.next_multiple_of(64 / self.size as usize);
                let features = self.int(n as i64);
                self.call(i, features, Some(rows));
            }
        }
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

    // ---- one position of a loop ---------------------------------------------------------------------------

    /// Computes the sinks at one position. `sums` are reductions in registers and their present values; `scalars`
    /// remembers what is the same at all positions.
    fn position(
        &mut self,
        sinks: &[usize],
        place: &Place,
        scalars: &mut Vec<((usize, usize), Value)>,
        mut sums: Option<&mut (Vec<usize>, Vec<Value>)>,
    ) {
        let mut done: Vec<Option<Value>> = vec![None; self.kernel.nodes.len()];
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
                let offset = self.levels.scratch[i].expect("reductions have scratch") as i32 + place.extra;
                let ty = if place.wide { self.vector } else { self.lane };
                let old = self.b.ins().load(ty, flags(), address, offset);
                let new = self.combine(op, old, x);
                self.b.ins().store(flags(), new, address, offset);
                for &(write, first) in &self.kernel.nodes[i].stores {
                    let row = place.rows[self.kernel_reads() + write].expect("accessed");
                    let into = self.b.ins().isub(address, self.scratch);
                    let row = self.b.ins().iadd(row, into);
                    self.b.ins().store(flags(), new, row, (first as i64 * self.size) as i32 + place.extra);
                }
                continue;
            }
            let value = if self.levels.manner[i] == Manner::Call {
                self.scratch_load_node(i, place)
            } else {
                self.value(i, place, &mut done, scalars)
            };
            if self.levels.manner[i] == Manner::Inline
                && let Some(offset) = self.levels.scratch[i]
            {
                let at = self.dense(i, place.scratch, place);
                let address = self.b.ins().iadd(self.scratch, at);
                self.b.ins().store(flags(), value, address, offset as i32 + place.extra);
            }
            for (write, offset) in self.kernel.nodes[i].stores.clone() {
                let write = self.kernel_reads() + write;
                let at = self.dense(i, place.flat, place);
                let row = place.rows[write].expect("accessed");
                let address = self.b.ins().iadd(row, at);
                self.b.ins().store(flags(), value, address, (offset as i64 * self.size) as i32 + place.extra);
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
        let ty = if place.wide { self.vector } else { self.lane };
        let address = self.b.ins().iadd(self.scratch, place.scratch);
        self.b.ins().load(ty, flags(), address, offset as i32 + place.extra)
    }

    fn scratch_load_node(&mut self, i: usize, place: &Place) -> Value {
        let offset = self.levels.scratch[i].expect("it waits in scratch");
        let at = self.dense(i, place.scratch, place);
        let place = Place { scratch: at, outer: Vec::new(), ..place.clone() };
        self.scratch_load(offset, &place)
    }

    fn store_at(&mut self, value: Value, access: usize, offset: usize, place: &Place) {
        let row = place.rows[access].expect("accessed");
        let address = self.b.ins().iadd(row, place.flat);
        self.b.ins().store(flags(), value, address, (offset as i64 * self.size) as i32 + place.extra);
    }

    fn value(
        &mut self,
        i: usize,
        place: &Place,
        done: &mut Vec<Option<Value>>,
        scalars: &mut Vec<((usize, usize), Value)>,
    ) -> Value {
        if let Some(v) = done[i] {
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
        done[i] = Some(v);
        v
    }

    fn plain(
        &mut self,
        i: usize,
        place: &Place,
        done: &mut Vec<Option<Value>>,
        scalars: &mut Vec<((usize, usize), Value)>,
    ) -> Value {
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
        done: &mut Vec<Option<Value>>,
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
        done: &mut Vec<Option<Value>>,
        scalars: &mut Vec<((usize, usize), Value)>,
    ) -> Value {
        let size = self.size;
        let bytes = |n: usize| (n as i64 * size) as i32;
        match read.source {
            Source::Constant(c) => self.constant(c, place.wide),
            Source::Product(p) => self.scratch_load(self.levels.products[p], place),
            Source::Node(s) if self.is_in_register(node, read, s) => self.value(s, place, done, scalars),
            Source::Node(s) => {
                let offset = self.levels.scratch[s].expect("what is read later waits in scratch");
                if self.kernel.tile.is_some() {
                    return self.scratch_load(offset, place);
                }
                let (at, splat) = self.viewed(read, &self.kernel.nodes[node].dims, place);
                let address = self.b.ins().iadd(self.scratch, at);
                let extra = if splat { 0 } else { place.extra };
                self.load(address, offset as i32 + bytes(read.offset) + extra, splat, place.wide)
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
                    let v = self.load(row, bytes(read.offset), true, place.wide);
                    scalars.push((key, v));
                    return v;
                }
                let (at, splat) = self.viewed(read, &self.kernel.nodes[node].dims, place);
                let address = self.b.ins().iadd(row, at);
                let extra = if splat { 0 } else { place.extra };
                self.load(address, bytes(read.offset) + extra, splat, place.wide)
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

    fn load(&mut self, address: Value, offset: i32, splat: bool, wide: bool) -> Value {
        if !wide {
            return self.b.ins().load(self.lane, flags(), address, offset);
        }
        if splat {
            let x = self.b.ins().load(self.lane, flags(), address, offset);
            return self.b.ins().splat(self.vector, x);
        }
        self.b.ins().load(self.vector, flags(), address, offset)
    }

    // ---- arithmetic ---------------------------------------------------------------------------------------

    fn constant(&mut self, c: f64, wide: bool) -> Value {
        let x = if self.lane == types::F32 { self.b.ins().f32const(c as f32) } else { self.b.ins().f64const(c) };
        if wide { self.b.ins().splat(self.vector, x) } else { x }
    }

    /// `if x cc y { then } else { other }`, lane by lane.
    fn choose(&mut self, cc: FloatCC, x: Value, y: Value, then: Value, other: Value, wide: bool) -> Value {
        let mask = self.b.ins().fcmp(cc, x, y);
        if !wide {
            return self.b.ins().select(mask, then, other);
        }
        let mask = self.b.ins().bitcast(self.vector, MemFlagsData::new().with_endianness(Endianness::Little), mask);
        self.b.ins().bitselect(mask, then, other)
    }

    fn pointwise(&mut self, op: KernelOp, x: &[Value], wide: bool) -> Value {
        match op {
            KernelOp::Copy => x[0],
            KernelOp::Select => {
                let zero = self.constant(0.0, wide);
                self.choose(FloatCC::Equal, x[0], zero, x[2], x[1], wide)
            }
            KernelOp::Unary(u) => self.pointwise_unary(u, x[0], wide),
            KernelOp::Binary(op) => {
                let (x, y) = (x[0], x[1]);
                match op {
                    Binary::Add => self.b.ins().fadd(x, y),
                    Binary::Sub => self.b.ins().fsub(x, y),
                    Binary::Mul => self.b.ins().fmul(x, y),
                    Binary::Div => self.b.ins().fdiv(x, y),
                    Binary::Min => self.choose(FloatCC::LessThan, y, x, y, x, wide),
                    Binary::Max => self.choose(FloatCC::LessThan, x, y, y, x, wide),
                    Binary::Gt => self.flag(FloatCC::LessThan, y, x, wide),
                    Binary::Ge => self.flag(FloatCC::LessThanOrEqual, y, x, wide),
                    Binary::Lt => self.flag(FloatCC::LessThan, x, y, wide),
                    Binary::Le => self.flag(FloatCC::LessThanOrEqual, x, y, wide),
                    Binary::Eq => self.flag(FloatCC::Equal, x, y, wide),
                    Binary::Ne => {
                        let (zero, one) = (self.constant(0.0, wide), self.constant(1.0, wide));
                        self.choose(FloatCC::Equal, x, y, zero, one, wide)
                    }
                    Binary::Pow => unreachable!("a routine"),
                }
            }
            KernelOp::Sum | KernelOp::Max => unreachable!("reductions are combined"),
        }
    }

    fn flag(&mut self, cc: FloatCC, x: Value, y: Value, wide: bool) -> Value {
        let (zero, one) = (self.constant(0.0, wide), self.constant(1.0, wide));
        self.choose(cc, x, y, one, zero, wide)
    }

    fn pointwise_unary(&mut self, op: Unary, x: Value, wide: bool) -> Value {
        match op {
            Unary::Neg => self.b.ins().fneg(x),
            Unary::Abs => self.b.ins().fabs(x),
            Unary::Sqrt => self.b.ins().sqrt(x),
            Unary::Relu => {
                let zero = self.constant(0.0, wide);
                self.choose(FloatCC::LessThan, x, zero, zero, x, wide)
            }
            Unary::Sign => {
                // ±0 and NaN stay themselves.
                let zero = self.constant(0.0, wide);
                let (one, minus) = (self.constant(1.0, wide), self.constant(-1.0, wide));
                let negative = self.choose(FloatCC::LessThan, x, zero, minus, x, wide);
                self.choose(FloatCC::LessThan, zero, x, one, negative, wide)
            }
            Unary::Powi(n) => {
                let mut left = n.unsigned_abs();
                let (mut power, mut result) = (x, None);
                while left > 0 {
                    if left & 1 == 1 {
                        result = Some(match result {
                            None => power,
                            Some(r) => self.b.ins().fmul(r, power),
                        });
                    }
                    left >>= 1;
                    if left > 0 {
                        power = self.b.ins().fmul(power, power);
                    }
                }
                let one = self.constant(1.0, wide);
                let result = result.unwrap_or(one);
                if n < 0 { self.b.ins().fdiv(one, result) } else { result }
            }
            _ => unreachable!("a routine"),
        }
    }
}
