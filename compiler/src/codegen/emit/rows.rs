//! Row kernels: some rows together, level after level, each level in loops over one row's features, sums among them.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{InstBuilder, Value};

use super::{Emit, Place, flags};
use crate::codegen::levels::Manner;
use crate::plan::{KernelOp, Source};

/// Vectors that a sum along features is taken in, side by side.
const CHAINS: usize = 4;
/// Nodes of a loop without sums up to which it takes as many vectors a turn.
const FEW_NODES: usize = 6;
/// Most rows that a row kernel takes together, and bytes of scratch that they may have: half of a small first cache.
pub(super) const ROWS_TOGETHER: usize = 8;
pub(super) const ROWS_BYTES: usize = 16 << 10;

/// The form of a loop over features.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Form {
    /// All that it touches lies feature behind feature, so that one loop goes through all dimensions.
    flat: bool,
    /// It takes whole vectors.
    vectors: bool,
}

impl Emit<'_, '_> {
    /// Some rows together, level after level: what follows within a row waits for what was before it, while rows know
    /// nothing of each other. Each has scratch of its own.
    pub(super) fn rows(&mut self, row0: Value, row1: Value, together: usize) {
        let (one, block, all) = (self.int(1), self.int(together as i64), self.scratch);
        self.repeat_if_any([row0, row1, block], |e, first, _| {
            let end = e.b.ins().iadd(first, block);
            let end = e.min(end, row1);
            for level in 0..e.levels.count {
                let (sinks, calls) = (e.sinks(level), e.calls(level));
                let used = e.accesses(&sinks, &calls, &[]);
                // Scratch and the rows go from turn to turn: see `bases`.
                let starts: Vec<Value> = used.iter().map(|&a| e.row(a, first)).collect();
                e.repeat([first, end, one], &[&[all], &starts[..]].concat(), |e, _, now| {
                    e.scratch = now[0];
                    let mut rows = vec![None; e.kernel.strides.len()];
                    used.iter().zip(&now[1..]).for_each(|(&a, &row)| rows[a] = Some(row));
                    e.row_level(sinks, &calls, &rows);
                    let own = e.levels.size as i64;
                    let steps = std::iter::once(own).chain(used.iter().map(|&a| e.stride(a))).collect::<Vec<_>>();
                    now.iter().zip(steps).map(|(&row, step)| e.plus(row, step)).collect()
                });
            }
            e.scratch = all;
            Vec::new()
        });
    }

    /// One level of one row.
    fn row_level(&mut self, mut sinks: Vec<usize>, calls: &[usize], rows: &[Option<Value>]) {
        // Loops of one form share a loop; reductions belong to the loop over their operand. The form of a loop, and so
        // the order of a sum, is that of each of its nodes alone, whatever else the kernel computes.
        while let Some(&head) = sinks.first() {
            let dims = self.kernel.nodes[head].dims.clone();
            let form = self.form(head, &dims);
            let (same, rest): (Vec<usize>, Vec<usize>) =
                sinks.iter().partition(|&&s| self.kernel.nodes[s].dims == dims && self.form(s, &dims) == form);
            sinks = rest;
            self.row_loop(&same, &dims, form, rows);
        }
        for &i in calls {
            let features = self.int(self.kernel.nodes[i].len.next_multiple_of(64 / self.size as usize) as i64);
            self.call(i, features, Some(rows));
        }
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
        self.hold_scalars(sinks, rows);
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

    /// Reads what is the same at all positions of a loop for these sinks before it begins.
    fn hold_scalars(&mut self, sinks: &[usize], rows: &[Option<Value>]) {
        self.held.clear();
        let kernel = self.kernel;
        for i in self.involved(sinks) {
            if self.levels.manner[i] == Manner::Call {
                continue;
            }
            for read in kernel.nodes[i].reads.iter().filter(|read| read.is_scalar()) {
                let address = match read.source {
                    Source::Memory(a) => rows[a].expect("accessed"),
                    Source::Node(s) if !self.is_in_register(i, read, s) => {
                        let offset = self.levels.scratch[s].expect("what is read later waits in scratch");
                        self.plus(self.scratch, offset as i64)
                    }
                    _ => continue,
                };
                let is_here = |held: &(Source, usize, Value)| (held.0, held.1) == (read.source, read.offset);
                if !self.held.iter().any(is_here) {
                    let v = self.load(address, self.bytes(read.offset), true, true);
                    self.held.push((read.source, read.offset, v));
                }
            }
        }
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
                let size = self.size as usize;
                self.turns([0, n * size, size], &[], |e, i, _| {
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
        // Without sums, several vectors a turn are fewer turns.
        let together = if along.is_empty() && self.involved(sinks).len() > FEW_NODES { 1 } else { CHAINS };
        let chains = vectors.clamp(1, together);
        let whole = vectors / chains * chains;
        for (from, to, chains) in [(0, whole, chains), (whole, vectors, 1)] {
            if from == to {
                continue;
            }
            let starts: Vec<Value> =
                (0..chains).flat_map(|_| along.iter().copied()).map(|r| self.start(r, true)).collect();
            let mut sums = self.turns([from, to, chains].map(|n| n * 16), &starts, |e, at, sums| {
                let mut all = Vec::new();
                for chain in 0..chains {
                    let sums = &sums[chain * along.len()..][..along.len()];
                    let extra = chain as i64 * 16;
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
            let bounds = [wide, n, 1].map(|n| n * self.size as usize);
            let sums = self.turns(bounds, &starts, |e, at, sums| {
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
        let bytes = (node.len * self.size as usize).next_multiple_of(16);
        let base = self.plus(self.scratch, offset);
        self.turns([0, bytes, 16], &[], |e, at, _| {
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
        let offset = self.levels.scratch[r].expect("reductions have scratch") as i64;
        let (to, offset) = self.reach(address, offset);
        let old = self.b.ins().load(self.lane, flags(), to, offset);
        let new = self.combine(op, old, total);
        self.b.ins().store(flags(), new, to, offset);
        for &(write, first) in &self.kernel.nodes[r].stores {
            // Later turns overwrite it with more: the last one is complete.
            let row = place.rows[self.kernel_reads() + write].expect("accessed");
            let into = self.b.ins().isub(address, self.scratch);
            let row = self.b.ins().iadd(row, into);
            self.store_to(new, row, self.bytes(first));
        }
    }

    /// Scratch address of a reduction's element for the outer indices.
    pub(super) fn element(&mut self, r: usize, place: &Place) -> Value {
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

    pub(super) fn combine(&mut self, op: KernelOp, x: Value, y: Value) -> Value {
        match op {
            KernelOp::Max => {
                let wide = self.b.func.dfg.value_type(x).is_vector();
                let chosen = self.choose(FloatCC::LessThan, x, y, y, x, wide);
                self.nan_of(y, chosen, wide)
            }
            _ => self.b.ins().fadd(x, y),
        }
    }
}
