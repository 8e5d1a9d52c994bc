//! Tile kernels: blocks of rows and panels, whose products leave their sums in scratch, where pointwise work goes on.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};

use super::{Emit, Place};
use crate::plan::Tile;

/// Rows of a tile: a multiple of the micro-kernel's.
pub(super) const TILE_ROWS: usize = 48;
/// Panels times rows of a tile: 6 KiB of each value in f32, so that a few are near when the pointwise work comes to them. A
/// loop takes 0.5 to 2.5 % longer with half as many rows; with more of either nothing changes.
pub(super) const TILE_AREA: usize = 96;

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
        self.repeat_if_any([panel0, panel1, block], |e, first, _| {
            let left = e.b.ins().isub(panel1, first);
            let panels = e.min(left, block);
            e.repeat_if_any([row0, row1, most], |e, row, _| {
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
        if !tile.products.is_empty() {
            let callee = self.int(self.table.products as i64);
            let products = self.int(std::ptr::from_ref(self.products) as i64);
            let arguments = [products, self.bases, self.scratch, first, panels, row, m];
            self.b.ins().call_indirect(self.products_signature, callee, &arguments);
        }
        let all_rows = self.b.ins().imul(m, panels);
        let features = self.times(all_rows, self.table.panel as i64);
        for level in 0..self.levels.count {
            let sinks = self.sinks(level);
            let mut stores = if level == 0 { tile.stores.clone() } else { Vec::new() };
            stores.retain(|&(product, _, _)| tile.only_store(product, &self.kernel.nodes).is_none());
            if !sinks.is_empty() || !stores.is_empty() {
                self.panel_rows(&sinks, &stores, [first, panels], [row, m]);
            }
            for i in self.calls(level) {
                self.call(i, features, None);
            }
        }
    }

    /// Loops of one level over so many panels from a first one on, and over so many rows.
    ///
    /// Where they are goes from turn to turn: see `bases`.
    fn panel_rows(
        &mut self,
        sinks: &[usize],
        stores: &[(usize, usize, usize)],
        [first, panels]: [Value; 2],
        [row, m]: [Value; 2],
    ) {
        let used = self.accesses(sinks, &[], stores);
        let panel_bytes = self.table.panel as i64 * self.size;
        let (zero, one, scratch) = (self.int(0), self.int(1), self.scratch);
        let column = self.times(first, panel_bytes);
        // Panels lie one behind another in scratch, each with all rows: it goes on where the last one ended.
        self.repeat([zero, panels, one], &[column, scratch], |e, _, now| {
            let column = now[0];
            let starts: Vec<Value> = used.iter().map(|&a| e.row(a, row)).collect();
            let end = e.repeat([zero, m, one], &[&[now[1]], &starts[..]].concat(), |e, _, now| {
                e.scratch = now[0];
                let mut rows = vec![None; e.kernel.strides.len()];
                used.iter().zip(&now[1..]).for_each(|(&a, &row)| rows[a] = Some(row));
                e.panel_row(sinks, stores, rows, column);
                let steps = std::iter::once(panel_bytes).chain(used.iter().map(|&a| e.stride(a))).collect::<Vec<_>>();
                now.iter().zip(steps).map(|(&row, step)| e.plus(row, step)).collect()
            });
            vec![e.plus(column, panel_bytes), end[0]]
        });
        self.scratch = scratch;
    }

    /// The vectors of one panel of one row.
    fn panel_row(
        &mut self,
        sinks: &[usize],
        stores: &[(usize, usize, usize)],
        rows: Vec<Option<Value>>,
        column: Value,
    ) {
        let zero = self.int(0);
        let mut place = Place { rows, flat: column, scratch: zero, extra: 0, outer: Vec::new(), wide: true };
        // Scalars of the row and of the program are the same for all vectors.
        let mut scalars = Vec::new();
        let vectors = self.table.panel / self.lanes;
        for v in 0..vectors {
            place.extra = self.bytes(v * self.lanes);
            self.position(sinks, &place, &mut scalars, None);
            for &(product, write, offset) in stores {
                let value = self.scratch_load(self.levels.products[product], &place);
                let write = self.kernel_reads() + write;
                self.store_at(value, write, offset, &place);
            }
        }
    }
}
