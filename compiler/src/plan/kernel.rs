//! What a kernel computes, as code generation needs it: a short list of nodes over one row's features.

use std::hash::{Hash, Hasher};

use super::{Access, At, Buffer, BufferId};
use crate::ir::op::{Binary, Unary};

/// Where a node reads a value. Numbers are the same if their bits are: 0 and −0 are two.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// Another node of the kernel.
    Node(usize),
    /// A row in memory: a read of the stage, by position.
    Memory(usize),
    /// The result of a product.
    Product(usize),
    /// A number.
    Constant(f64),
}

impl Source {
    /// What says which it is.
    fn key(self) -> (u8, u64) {
        match self {
            Source::Node(i) => (0, i as u64),
            Source::Memory(i) => (1, i as u64),
            Source::Product(i) => (2, i as u64),
            Source::Constant(x) => (3, x.to_bits()),
        }
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Source {}

impl Hash for Source {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// A value seen through a view: feature (i₀, i₁, ..) of the node's loop is at `offset + Σ iₖ·strides[k]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Read {
    /// The value.
    pub source: Source,
    /// First element.
    pub offset: usize,
    /// A stride for each dimension of the node's loop.
    pub strides: Vec<usize>,
}

impl Read {
    /// Whether the same element is read everywhere.
    pub fn is_scalar(&self) -> bool {
        self.strides.iter().all(|&s| s == 0)
    }

    /// Whether elements are read in their order, one behind another.
    pub fn is_flat(&self, dims: &[usize]) -> bool {
        let mut stride = 1;
        for (&n, &s) in dims.iter().zip(&self.strides).rev() {
            if n != 1 && s != stride {
                return false;
            }
            stride *= n;
        }
        true
    }
}

/// What a node computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KernelOp {
    /// The value itself: a copy through a view.
    Copy,
    /// Pointwise.
    Unary(Unary),
    /// Pointwise.
    Binary(Binary),
    /// Pointwise.
    Select,
    /// Sum over the dimensions that `keep` drops.
    Sum,
    /// Maximum over them.
    Max,
}

impl KernelOp {
    /// Whether it is a vector routine of the runtime rather than a few instructions.
    pub fn is_routine(self) -> bool {
        match self {
            KernelOp::Unary(u) => matches!(
                u,
                Unary::Exp
                    | Unary::Expm1
                    | Unary::Ln
                    | Unary::Log1p
                    | Unary::Tanh
                    | Unary::Sigmoid
                    | Unary::Silu
                    | Unary::Softplus
                    | Unary::Erf
                    | Unary::NormalCdf
                    | Unary::Gelu
                    | Unary::Sin
                    | Unary::Cos
            ),
            KernelOp::Binary(b) => b == Binary::Pow,
            _ => false,
        }
    }
}

/// One value of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KernelNode {
    /// What it computes.
    pub op: KernelOp,
    /// Its operands.
    pub reads: Vec<Read>,
    /// Its loop: the shape of the result, or of the operand where it reduces.
    pub dims: Vec<usize>,
    /// Where it reduces: the result's stride of each dimension, 0 along those that are summed.
    pub into: Option<Vec<usize>>,
    /// Elements of the result.
    pub len: usize,
    /// Where it is stored: positions among the stage's writes, with the first element.
    pub stores: Vec<(usize, usize)>,
}

/// One product of a tile: rows times packed panels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// Inner dimension, in pieces: (read, first element, length).
    pub segments: Vec<(usize, usize, usize)>,
    /// Packed panels.
    pub packed: BufferId,
    /// Position of the packed buffer among the stage's reads.
    pub read: usize,
    /// Inner dimension.
    pub k: usize,
    /// What its sums start from instead of zeros.
    pub start: Option<Start>,
}

/// What the sums of a product start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    /// A row in memory: (read, first element).
    Memory(usize, usize),
    /// A product before it, which nothing else sees.
    Product(usize),
}

impl Product {
    /// The row in memory that its sums start from: (read, first element).
    pub fn start_in_memory(&self) -> Option<(usize, usize)> {
        match self.start {
            Some(Start::Memory(read, offset)) => Some((read, offset)),
            _ => None,
        }
    }
}

/// The flat form of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Features.
    pub n: usize,
    /// Products, each n columns wide.
    pub products: Vec<Product>,
    /// Where products are stored as they are: (product, position among the writes, first element).
    pub stores: Vec<(usize, usize, usize)>,
}

impl Kernel {
    /// What a kernel is called that writes this: the names of its results.
    pub(super) fn name(writes: &[Access], buffers: &[Buffer]) -> String {
        let mut names: Vec<&str> = Vec::new();
        for name in writes.iter().map(|access| buffers[access.buffer.0].name.as_str()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(" ")
    }

    /// All that its code depends on: kernels of one shape can share their code. It does not depend on which
    /// buffers they work on, nor on which step or block of rows, but on whether it moves with the steps. Nor does it
    /// depend on how many features a tile without products has: the caller says which panels.
    pub fn shape(&self) -> Kernel {
        let mut shape = self.clone();
        for product in shape.tile.iter_mut().flat_map(|tile| &mut tile.products) {
            product.packed = BufferId(0);
        }
        for (access, stride) in &mut shape.strides {
            access.buffer = BufferId(0);
            if access.at == At::Shared {
                *stride = 0;
            }
            access.at = match access.at {
                At::Shared => At::Shared,
                At::Step(_) => At::Step(0),
                At::Row(_) | At::FromEnd(..) => At::Row(0),
            };
        }
        if let Some(tile) = shape.tile.as_mut().filter(|tile| tile.products.is_empty() && tile.n > 1) {
            const ANY: usize = 2;
            for node in &mut shape.nodes {
                assert!(node.dims == [tile.n] && node.len == tile.n, "all nodes of a tile have its features");
                (node.dims, node.len) = (vec![ANY], ANY);
            }
            tile.n = ANY;
        }
        shape
    }
}

impl Tile {
    /// Where a product can be left at once: its one store, when no node reads it.
    pub fn only_store(&self, product: usize, nodes: &[KernelNode]) -> Option<(usize, usize)> {
        let mut stores = self.stores.iter().filter(|&&(p, _, _)| p == product);
        let (Some(&(_, write, offset)), None) = (stores.next(), stores.next()) else { return None };
        let is_read = nodes.iter().flat_map(|node| &node.reads).any(|r| r.source == Source::Product(product));
        (!is_read).then_some((write, offset))
    }

    /// Lets products start from what is added to them: `x + a·U + b·W` is one sum, which begins with x, and needs no pass
    /// of its own. The additions leave `nodes`.
    pub fn start_products(&mut self, nodes: &mut Vec<KernelNode>) {
        let mut i = 0;
        while i < nodes.len() {
            match self.starts(nodes, i) {
                Some((first, start, last)) => {
                    self.products[first].start = Some(start);
                    self.replace(nodes, i, last);
                    // Another addition to the same sum may have come into reach.
                    i = 0;
                }
                None => i += 1,
            }
        }
    }

    /// If a node adds something to a sum of products that nothing else sees: the first product of that sum, what it can
    /// start from, and the product that holds the sum in the end.
    fn starts(&self, nodes: &[KernelNode], i: usize) -> Option<(usize, Start, usize)> {
        let node = &nodes[i];
        if node.op != KernelOp::Binary(Binary::Add) {
            return None;
        }
        let own = |read: &Read| match read.source {
            Source::Product(p) => {
                let readers = nodes.iter().flat_map(|node| &node.reads).filter(|r| r.source == Source::Product(p));
                let is_stored = self.stores.iter().any(|&(product, _, _)| product == p);
                (readers.count() == 1 && !is_stored).then_some(p)
            }
            _ => None,
        };
        match (own(&node.reads[0]), own(&node.reads[1])) {
            (Some(a), Some(b)) => {
                // Products are computed in their order.
                let (a, b) = (a.min(b), a.max(b));
                let first = self.first(b);
                (first > a).then_some((first, Start::Product(a), b))
            }
            (Some(p), None) | (None, Some(p)) => {
                let other = &node.reads[usize::from(node.reads[0].source == Source::Product(p))];
                let Source::Memory(memory) = other.source else { return None };
                let flat = other.is_flat(&node.dims) && !other.is_scalar();
                flat.then_some((self.first(p), Start::Memory(memory, other.offset), p))
            }
            (None, None) => None,
        }
        .filter(|&(first, ..)| self.products[first].start.is_none())
    }

    /// The first product of the sum that a product holds.
    fn first(&self, mut p: usize) -> usize {
        while let Some(Start::Product(before)) = self.products[p].start {
            p = before;
        }
        p
    }

    /// Puts a product in a node's place.
    fn replace(&mut self, nodes: &mut Vec<KernelNode>, i: usize, product: usize) {
        let node = nodes.remove(i);
        self.stores.extend(node.stores.iter().map(|&(write, offset)| (product, write, offset)));
        for read in nodes.iter_mut().flat_map(|node| &mut node.reads) {
            match read.source {
                Source::Node(n) if n == i => read.source = Source::Product(product),
                Source::Node(n) if n > i => read.source = Source::Node(n - 1),
                _ => {}
            }
        }
    }
}

/// A kernel. With a tile all nodes are pointwise over its n features; without, rows are taken one at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The flat form.
    pub tile: Option<Tile>,
    /// Values, operands first.
    pub nodes: Vec<KernelNode>,
    /// How many of the stage's accesses are reads.
    pub reads: usize,
    /// For each access of the stage, reads then writes: elements from row to row.
    pub strides: Vec<(Access, usize)>,
}

#[cfg(test)]
mod tests {
    use super::Source;

    /// Kernels that share code because 0 and −0 are equal would give one for the other.
    #[test]
    fn constants_are_their_bits() {
        assert_ne!(Source::Constant(0.0), Source::Constant(-0.0));
        assert_eq!(Source::Constant(f64::NAN), Source::Constant(f64::NAN));
        assert_ne!(Source::Memory(1), Source::Product(1));
    }
}
