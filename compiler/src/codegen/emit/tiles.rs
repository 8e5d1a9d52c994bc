//! Tile kernels: blocks of rows and panels, whose products leave their sums in scratch, where pointwise work goes on.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

use super::{Emit, Place};
use crate::plan::{At, Source, Start, Tile};

/// Rows of a tile: a multiple of the micro-kernel's.
pub(super) const TILE_ROWS: usize = 24;
/// Bytes of weights above which they are fetched ahead: those of a step then come from a cache that is shared, or from
/// memory, in each step.
const FAR: i64 = 4 << 20;
/// Panels times rows of a tile: what keeps a tile of a few values in the first cache.
pub(super) const TILE_AREA: usize = 48;

impl Emit<'_, '_> {
    pub(super) fn tile(&mut self, tile: &Tile, row0: Value, row1: Value, panel0: Value, panel1: Value) {
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
}
