//! The products of a tile kernel, as data.
//!
//! Products are computed by a routine of the runtime. All that it must know and that is the same at every call, strides
//! and lengths, which access is which operand, what to fetch meanwhile, stands in a table that is made once with the
//! code; the code passes the table's address and says only which block of rows and panels it is at. Written out as
//! instructions, the same would be half of a cell's code, and of the time to compile it.
//!
//! An access is named by its position among those of its stage, distances are in elements, and places in scratch in bytes.
//! The table is read at every call, between weights and rows that leave little of a first cache: it is small and in two
//! pieces.

use super::levels::Levels;
use crate::error::CodegenError;
use crate::plan::{At, Kernel, Source, Start, Tile};

/// Bytes of weights above which they are fetched ahead: those of a step then come from a cache that is shared, or from
/// memory, in each step. 4 MiB gain 2 % of a loop by it, 1 MiB lose as much as they gain: the hardware fetches those.
const FAR: usize = 2 << 20;

/// All products of a kernel, in the order in which they are computed.
#[derive(Debug, Default)]
pub struct TileProducts {
    /// Each.
    pub products: Vec<TileProduct>,
    /// For one product after another, the parts of A's rows that it multiplies, and behind them the rows to fetch
    /// meanwhile, at the block's features.
    pub parts: Vec<RowPart>,
}

/// One product: rows of A, in segments of K, times packed panels.
#[derive(Clone, Copy, Debug)]
pub struct TileProduct {
    /// How many parts A's rows have.
    pub segments: u32,
    /// How many rows are fetched.
    pub hints: u32,
    /// The access with the packed panels.
    pub packed: u32,
    /// Length of all segments.
    pub k: u32,
    /// What its sums start from instead of zeros.
    pub start: Option<Place>,
    /// Where its sums are left.
    pub into: Place,
    /// Whether the kernel's weights are so large that they come from far away.
    pub far: bool,
}

/// Features of the rows of an access, from one on.
#[derive(Clone, Copy, Debug)]
pub struct RowPart {
    /// Which access.
    pub access: u32,
    /// First feature.
    pub offset: u32,
    /// From row to row.
    pub stride: u32,
    /// How many, of a segment.
    pub len: u32,
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
///
/// # Errors
/// If rows that are multiplied together have more elements than 32 bits can count.
pub(super) fn products(
    kernel: &Kernel,
    tile: &Tile,
    levels: &Levels,
    size: usize,
) -> Result<TileProducts, CodegenError> {
    let number = |n: usize| u32::try_from(n).map_err(|_| CodegenError::TooLarge { elements: n, limit: u32::MAX });
    let part = |access: usize, offset: usize, len: usize| -> Result<RowPart, CodegenError> {
        let (at, stride) = kernel.strides[access];
        let stride = if at.at == At::Shared { 0 } else { stride };
        Ok(RowPart { access: number(access)?, offset: number(offset)?, stride: number(stride)?, len: number(len)? })
    };
    let bytes: usize = tile.products.iter().map(|product| product.k * tile.n * size).sum();
    let pointwise = rows_of_pointwise_work(kernel, tile);
    let mut table = TileProducts::default();
    for (i, product) in tile.products.iter().enumerate() {
        let direct = tile.only_store(i, &kernel.nodes).map(|(write, offset)| part(kernel.reads + write, offset, 0));
        let direct = direct.transpose()?;
        // Each product asks for its part of what the pointwise work needs, for what the next one starts from, and for where
        // it leaves its own result.
        let own = pointwise.iter().skip(i).step_by(tile.products.len());
        let next = tile.products.get(i + 1).and_then(|next| next.start_in_memory());
        let next = next.filter(|&(read, _)| kernel.strides[read].0.at != At::Shared);
        let before = table.parts.len();
        for &(read, offset, k) in &product.segments {
            table.parts.push(part(read, offset, k)?);
        }
        let segments = number(table.parts.len() - before)?;
        for &(access, offset) in own.chain(&next) {
            table.parts.push(part(access, offset, 0)?);
        }
        table.parts.extend(direct);
        let start = match product.start {
            None => None,
            Some(Start::Memory(read, offset)) => Some(Place::Rows(part(read, offset, 0)?)),
            Some(Start::Product(before)) => Some(Place::Scratch(levels.products[before])),
        };
        table.products.push(TileProduct {
            segments,
            hints: number(table.parts.len() - before)? - segments,
            packed: number(product.read)?,
            k: number(product.k)?,
            start,
            into: direct.map_or(Place::Scratch(levels.products[i]), Place::Rows),
            far: bytes > FAR,
        });
    }
    Ok(table)
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
