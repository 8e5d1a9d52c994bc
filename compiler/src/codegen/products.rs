//! The products of a tile kernel, as data.
//!
//! Products are computed by a routine of the runtime. All that it must know and that is the same at every call, strides
//! and lengths, which access is which operand, what to fetch meanwhile, stands in a table that is made once with the
//! code; the code passes the table's address and says only which block of rows and panels it is at. Written out as
//! instructions, the same would be half of a cell's code, and of the time to compile it.
//!
//! An access is named by its position among those of its stage, distances are in elements, and places in scratch in bytes.

use super::emit::tiles::FAR;
use super::levels::Levels;
use crate::plan::{At, Kernel, Source, Start, Tile};

/// All products of a kernel, in the order in which they are computed.
#[derive(Debug, Default)]
pub struct TileProducts {
    /// Each.
    pub products: Vec<TileProduct>,
}

/// One product: rows of A, in segments of K, times packed panels.
#[derive(Clone, Debug)]
pub struct TileProduct {
    /// What A is put together from.
    pub segments: Vec<RowSegment>,
    /// The access with the packed panels.
    pub packed: usize,
    /// Length of all segments.
    pub k: usize,
    /// What its sums start from instead of zeros.
    pub start: Option<Place>,
    /// Where its sums are left.
    pub into: Place,
    /// Whether the kernel's weights are so large that they come from far away.
    pub far: bool,
    /// Rows to fetch meanwhile, at the block's features.
    pub hints: Vec<RowPart>,
}

/// A run of features of the rows of an access.
#[derive(Clone, Copy, Debug)]
pub struct RowSegment {
    /// Where it begins.
    pub at: RowPart,
    /// Its length.
    pub k: usize,
}

/// Features of the rows of an access, from one on.
#[derive(Clone, Copy, Debug)]
pub struct RowPart {
    /// Which access.
    pub access: usize,
    /// First feature.
    pub offset: usize,
    /// From row to row.
    pub stride: usize,
}

/// Where the sums of a block are.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// In rows in memory, at the block's features.
    Rows(RowPart),
    /// In scratch, panel after panel, from this byte on.
    Scratch(usize),
}

/// The type of the routine that computes them: the table, the kernel's accesses and scratch, first panel, panels, first
/// row, rows.
pub type ProductsFn = unsafe extern "C" fn(*const TileProducts, *const *mut u8, *mut u8, usize, usize, usize, usize);

/// The table of a tile; element size in bytes.
pub(super) fn products(kernel: &Kernel, tile: &Tile, levels: &Levels, size: usize) -> TileProducts {
    let part = |access: usize, offset: usize| {
        let (at, stride) = kernel.strides[access];
        RowPart { access, offset, stride: if at.at == At::Shared { 0 } else { stride } }
    };
    let written = |(write, offset): (usize, usize)| part(kernel.reads + write, offset);
    let bytes: usize = tile.products.iter().map(|product| product.k * tile.n * size).sum();
    let pointwise = rows_of_pointwise_work(kernel, tile);
    let products = tile.products.iter().enumerate().map(|(i, product)| {
        let direct = tile.only_store(i, &kernel.nodes).map(written);
        // Each product asks for its part of what the pointwise work needs, for what the next one starts from, and for where
        // it leaves its own result.
        let own = pointwise.iter().skip(i).step_by(tile.products.len());
        let next = tile.products.get(i + 1).and_then(|next| next.start_in_memory());
        let next = next.filter(|&(read, _)| kernel.strides[read].0.at != At::Shared);
        let hints = own.chain(&next).map(|&(access, offset)| part(access, offset)).chain(direct);
        TileProduct {
            segments: product
                .segments
                .iter()
                .map(|&(read, offset, k)| RowSegment { at: part(read, offset), k })
                .collect(),
            packed: product.read,
            k: product.k,
            start: product.start.map(|start| match start {
                Start::Memory(read, offset) => Place::Rows(part(read, offset)),
                Start::Product(before) => Place::Scratch(levels.products[before]),
            }),
            into: direct.map_or(Place::Scratch(levels.products[i]), Place::Rows),
            far: bytes > FAR,
            hints: hints.collect(),
        }
    });
    TileProducts { products: products.collect() }
}

/// Rows that the pointwise work behind the products reads or writes: (access, first element).
fn rows_of_pointwise_work(kernel: &Kernel, tile: &Tile) -> Vec<(usize, usize)> {
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
