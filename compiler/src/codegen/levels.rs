//! When each node of a kernel is computed, and where its value waits.
//!
//! Nodes are computed in loops over features. A loop can hold any number of pointwise nodes in registers, but a call
//! of vector maths or a reduction needs all of its operand and gives all of its result: it is a barrier. So nodes
//! have **levels**. Level L runs its loops (one for each loop shape), then its calls; a call's result is there from
//! level L + 1 on. A value that is read at a later level, or by a call, or through a view, waits in **scratch**; what can
//! be had from memory at any time is computed at the level that reads it first, and need not wait.

use crate::plan::{Access, At, Kernel, KernelNode, KernelOp, Read, Source, Start};

/// How a node comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// In a loop, in registers.
    Inline,
    /// By a vector routine behind the loops of its level.
    Call,
    /// Along a loop.
    Reduce,
}

/// The schedule of a kernel.
#[derive(Debug)]
pub struct Levels {
    pub manner: Vec<Manner>,
    /// Level at which a node's loop or call runs.
    pub level: Vec<usize>,
    /// First level at which its value can be read from scratch.
    pub ready: Vec<usize>,
    /// Byte offset of its scratch, if it has one.
    pub scratch: Vec<Option<usize>>,
    /// Number of levels.
    pub count: usize,
    /// Bytes of all scratch.
    pub size: usize,
    /// For each product its scratch.
    pub products: Vec<usize>,
}

/// Whether a node can take this operand from a register of the same loop.
pub fn in_register(node: &KernelNode, read: &Read, source: &KernelNode) -> bool {
    source.into.is_none()
        && read.offset == 0
        && source.dims == node.dims
        && (read.is_flat(&node.dims) || source.len == 1 && node.dims.iter().product::<usize>() == 1)
}

/// Schedules a kernel. `slot` gives the bytes of scratch of a value of so many features.
pub fn schedule(kernel: &Kernel, slot: impl Fn(usize) -> usize) -> Levels {
    let nodes = &kernel.nodes;
    let n = nodes.len();
    let mut this = Levels {
        manner: Vec::with_capacity(n),
        level: vec![0; n],
        ready: vec![0; n],
        scratch: vec![None; n],
        count: 1,
        size: 0,
        products: Vec::new(),
    };
    let mut waits = vec![false; n];
    for (i, node) in nodes.iter().enumerate() {
        let manner = if matches!(node.op, KernelOp::Sum | KernelOp::Max) {
            Manner::Reduce
        } else if node.op.is_routine() {
            Manner::Call
        } else {
            Manner::Inline
        };
        this.manner.push(manner);
        let mut level = 0;
        for read in &node.reads {
            let Source::Node(s) = read.source else { continue };
            let register = this.takes_register(nodes, i, read, s);
            // A call runs behind the loops of its own level.
            let same_level = this.manner[s] == Manner::Inline && (register || manner == Manner::Call);
            level = level.max(if this.manner[s] != Manner::Inline || same_level {
                this.ready[s]
            } else {
                this.level[s] + 1
            });
        }
        this.level[i] = level;
        this.ready[i] = if manner == Manner::Inline { level } else { level + 1 };
        this.count = this.count.max(this.ready[i] + 1);
    }
    this.put_off(kernel);
    for (i, node) in nodes.iter().enumerate() {
        for read in &node.reads {
            let Source::Node(s) = read.source else { continue };
            waits[s] |= !(this.takes_register(nodes, i, read, s) && this.level[s] == this.level[i]);
        }
    }
    let mut at = 0;
    let mut take = |features: usize| {
        let offset = at;
        at += slot(features);
        offset
    };
    let tile = kernel.tile.as_ref();
    for product in tile.iter().flat_map(|tile| &tile.products) {
        // A sum that goes on stays where it is.
        let place = match product.start {
            Some(Start::Product(before)) => this.products[before],
            _ => take(tile.expect("it has products").n),
        };
        this.products.push(place);
    }
    let mut readers = vec![0; n];
    let mut product_readers = vec![0; this.products.len()];
    for read in nodes.iter().flat_map(|node| &node.reads) {
        match read.source {
            Source::Node(s) => readers[s] += 1,
            Source::Product(p) => product_readers[p] += 1,
            _ => {}
        }
    }
    for &(p, _, _) in tile.map_or(&[][..], |t| &t.stores) {
        product_readers[p] += 1;
    }
    for (i, node) in nodes.iter().enumerate() {
        if !waits[i] && this.manner[i] == Manner::Inline {
            continue;
        }
        // A call whose operand nobody else reads works in place.
        let own = if this.manner[i] == Manner::Call && matches!(node.op, KernelOp::Unary(_)) {
            let read = &node.reads[0];
            let whole = read.offset == 0 && read.is_flat(&node.dims);
            match read.source {
                Source::Node(s)
                    if whole && readers[s] == 1 && nodes[s].stores.is_empty() && nodes[s].len == node.len =>
                {
                    this.scratch[s]
                }
                Source::Product(p) if product_readers[p] == 1 => Some(this.products[p]),
                _ => None,
            }
        } else {
            None
        };
        this.scratch[i] = Some(own.unwrap_or_else(|| take(node.len)));
    }
    this.size = at;
    this
}

impl Levels {
    /// Whether node i can take operand s from a register, if they are of one level.
    fn takes_register(&self, nodes: &[KernelNode], i: usize, read: &Read, s: usize) -> bool {
        self.manner[s] == Manner::Inline && self.manner[i] != Manner::Call && in_register(&nodes[i], read, &nodes[s])
    }

    /// Moves what depends on memory alone to the first level that reads it; but not what is overwritten by then.
    fn put_off(&mut self, kernel: &Kernel) {
        let nodes = &kernel.nodes;
        let n = nodes.len();
        let (read, written) = kernel.strides.split_at(kernel.reads);
        let stays = |access: &Access| {
            written.iter().all(|(w, _)| {
                let apart = matches!((w.at, access.at), (At::Step(a), At::Step(b)) if a != b);
                w.buffer != access.buffer || apart
            })
        };
        let mut at_any_time = vec![false; n];
        // The first level that reads each, and whether all of its readers there take it from a register.
        let mut first: Vec<Option<(usize, bool)>> = vec![None; n];
        for (i, node) in nodes.iter().enumerate() {
            at_any_time[i] = self.manner[i] == Manner::Inline
                && node.reads.iter().all(|r| match r.source {
                    Source::Node(s) => at_any_time[s] && self.takes_register(nodes, i, r, s),
                    Source::Product(_) => false,
                    Source::Memory(m) => stays(&read[m].0),
                    Source::Constant(_) => true,
                });
        }
        for (i, node) in nodes.iter().enumerate().rev() {
            if let Some((level, true)) = first[i]
                && at_any_time[i]
            {
                self.level[i] = level;
                self.ready[i] = level;
            }
            for read in &node.reads {
                let Source::Node(s) = read.source else { continue };
                let (level, register) = (self.level[i], self.takes_register(nodes, i, read, s));
                first[s] = Some(match first[s] {
                    Some((earlier, all)) if earlier < level => (earlier, all),
                    Some((later, _)) if later > level => (level, register),
                    Some((same, all)) => (same, all && register),
                    None => (level, register),
                });
            }
        }
    }
}
