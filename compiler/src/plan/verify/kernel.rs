//! What kernels do inside: operands come before what reads them, views stay within their values, and each form of kernel
//! has what its form allows. And what they touch in memory, vectors included.

use crate::plan::{Kernel, KernelNode, KernelOp, Plan, Read, Source, Stage, Start, Tile};

use super::rows::Count;
use super::touch::{Touch, When, extent};
use super::{Wrong, ensure};

/// What a kernel touches; whether it is well formed.
pub fn touches(plan: &Plan, stage: &Stage, kernel: &Kernel) -> Wrong<Vec<Touch>> {
    let listed = stage.reads.iter().chain(&stage.writes);
    ensure!(
        kernel.reads == stage.reads.len() && kernel.strides.iter().map(|(access, _)| access).eq(listed.clone()),
        "the accesses of its kernel are not its own"
    );
    for (access, stride) in &kernel.strides {
        let buffer = plan.buffer(access.buffer)?;
        ensure!(
            buffer.stride == *stride,
            "rows of `{}` are {} elements apart, not {stride}",
            buffer.name,
            buffer.stride
        );
        ensure!(!buffer.integer, "`{}` has integers", buffer.name);
    }
    let inside = Inside { plan, stage, kernel };
    let mut all = Vec::new();
    if let Some(tile) = &kernel.tile {
        inside.products(tile, &mut all)?;
    }
    // Nodes that are read or replaced in place are few: what each depends on is asked for those alone.
    for (i, node) in kernel.nodes.iter().enumerate() {
        inside.node(i, node, &mut all).map_err(|e| format!("node {i}: {e}"))?;
    }
    Ok(all)
}

struct Inside<'a> {
    plan: &'a Plan,
    stage: &'a Stage,
    kernel: &'a Kernel,
}

impl Inside<'_> {
    /// Elements to which vectors round up a flat loop.
    fn lanes(&self) -> usize {
        if self.kernel.tile.is_some() { self.plan.target.panel } else { 16 / self.plan.target.float_size }
    }

    fn touch(
        &self,
        access: usize,
        first: usize,
        len: usize,
        reach: usize,
        writes: bool,
        when: Option<When>,
    ) -> Wrong<Touch> {
        let list = if writes { &self.stage.writes } else { &self.stage.reads };
        let access = *list.get(access).ok_or_else(|| format!("there is no access {access}"))?;
        let (end, reach) = (first.checked_add(len), first.checked_add(reach.max(len)));
        let (Some(end), Some(reach)) = (end, reach) else { return Err("elements past all memory".to_string()) };
        Ok(Touch { access, first, end, reach, writes, count: None, when })
    }

    fn products(&self, tile: &Tile, all: &mut Vec<Touch>) -> Wrong {
        let panel = self.plan.target.panel;
        ensure!(tile.n > 0, "a tile without features");
        let padded = tile.n.next_multiple_of(panel);
        for (i, product) in tile.products.iter().enumerate() {
            let mut k = 0;
            for &(read, first, len) in &product.segments {
                all.push(self.touch(read, first, len, len, false, None)?);
                k += len;
            }
            ensure!(k == product.k && k > 0, "product {i} has segments of {k} and panels of {}", product.k);
            let len = padded.checked_mul(k).ok_or("a matrix past all memory")?;
            let packed = self.touch(product.read, 0, len, len, false, None)?;
            ensure!(packed.access.buffer == product.packed, "product {i} has the panels of another matrix");
            all.push(Touch { count: Some(Count::One), ..packed });
            match product.start {
                None => {}
                Some(Start::Memory(read, first)) => {
                    all.push(self.touch(read, first, tile.n, padded, false, Some(When::Start(i)))?);
                }
                Some(Start::Product(before)) => {
                    ensure!(before < i, "product {i} starts from product {before}, which is not before it");
                    let stored = tile.stores.iter().any(|&(product, _, _)| product == before);
                    let started = tile.products.iter().filter(|p| p.start == Some(Start::Product(before))).count();
                    let reads = self.kernel.nodes.iter().flat_map(|node| &node.reads);
                    let is_read = reads.into_iter().any(|read| read.source == Source::Product(before));
                    ensure!(!stored && started == 1 && !is_read, "product {before} goes on, and is wanted as it is");
                }
            }
        }
        for &(product, write, first) in &tile.stores {
            ensure!(product < tile.products.len(), "there is no product {product}");
            all.push(self.touch(write, first, tile.n, padded, true, Some(When::Product(product)))?);
        }
        Ok(())
    }

    fn node(&self, i: usize, node: &KernelNode, all: &mut Vec<Touch>) -> Wrong {
        let tile = self.kernel.tile.as_ref();
        let reduces = matches!(node.op, KernelOp::Sum | KernelOp::Max);
        let arity = match node.op {
            KernelOp::Copy | KernelOp::Unary(_) | KernelOp::Sum | KernelOp::Max => 1,
            KernelOp::Binary(_) => 2,
            KernelOp::Select => 3,
        };
        ensure!(node.reads.len() == arity, "{} operands for {:?}", node.reads.len(), node.op);
        let of_loop = node.dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).unwrap_or(0);
        ensure!(of_loop > 0 && node.len > 0, "a loop over {:?}", node.dims);
        match &node.into {
            None => ensure!(!reduces && node.len == of_loop, "{} elements of a loop over {:?}", node.len, node.dims),
            Some(into) => {
                let fits = extent(&node.dims, into).is_some_and(|extent| extent <= node.len);
                ensure!(reduces && fits, "{} elements of a reduction of {:?} by {into:?}", node.len, node.dims);
            }
        }
        if let Some(tile) = tile {
            let is_flat = node.dims == [tile.n] && node.into.is_none();
            ensure!(is_flat, "a loop over {:?} in a tile of {}", node.dims, tile.n);
        }
        for read in &node.reads {
            self.read(i, node, read, all)?;
        }
        for &(write, first) in &node.stores {
            let reach = if reduces { node.len } else { node.len.next_multiple_of(self.lanes()) };
            let access = self.stage.writes.get(write).ok_or_else(|| format!("there is no result {write}"))?;
            let in_place = self.stage.reads.contains(access);
            let when = in_place.then(|| When::Result(self.needs(i)));
            all.push(self.touch(write, first, node.len, reach, true, when)?);
        }
        Ok(())
    }

    fn read(&self, i: usize, node: &KernelNode, read: &Read, all: &mut Vec<Touch>) -> Wrong {
        let len = extent(&node.dims, &read.strides).ok_or_else(|| format!("a view by {:?}", read.strides))?;
        let flat = read.is_flat(&node.dims);
        let routine = node.op.is_routine();
        let tile = self.kernel.tile.as_ref();
        ensure!(tile.is_none() || flat || read.is_scalar(), "a view by {:?} in a tile", read.strides);
        match read.source {
            Source::Constant(_) => ensure!(!routine, "a routine of a number"),
            Source::Product(p) => {
                let products = tile.map_or(0, |tile| tile.products.len());
                ensure!(p < products, "there is no product {p}");
                let whole = flat && read.offset == 0 && (!read.is_scalar() || node.len == 1);
                ensure!(whole, "product {p} is read by a view");
            }
            Source::Node(s) => {
                ensure!(s < i, "it reads node {s}, which is not before it");
                let end = read.offset.checked_add(len);
                let of = self.kernel.nodes[s].len;
                ensure!(
                    end.is_some_and(|end| end <= of),
                    "elements {} on, {len}, of the {of} of node {s}",
                    read.offset
                );
                let whole = read.offset == 0 && of == node.len;
                ensure!(tile.is_none() || whole, "a part of node {s} in a tile");
                ensure!(!routine || flat && whole, "a routine of a view");
            }
            Source::Memory(access) => {
                ensure!(!routine || flat && tile.is_none(), "a routine that reads memory");
                let reach = match () {
                    () if routine => len.next_multiple_of(64 / self.plan.target.float_size),
                    () if flat && (!read.is_scalar() || tile.is_some() && node.len > 1) => {
                        len.next_multiple_of(self.lanes())
                    }
                    () => len,
                };
                let by_element = flat && len == node.len && node.into.is_none();
                all.push(self.touch(access, read.offset, len, reach, false, by_element.then_some(When::Node(i)))?);
            }
        }
        Ok(())
    }

    /// The nodes that a node depends on, itself included.
    fn needs(&self, i: usize) -> Vec<bool> {
        let mut needs = vec![false; self.kernel.nodes.len()];
        let mut open = vec![i];
        while let Some(i) = open.pop() {
            if std::mem::replace(&mut needs[i], true) {
                continue;
            }
            open.extend(self.kernel.nodes[i].reads.iter().filter_map(|read| match read.source {
                Source::Node(s) if s < i => Some(s),
                _ => None,
            }));
        }
        needs
    }
}
