//! Kernels taken apart, so that no value waits for what only its neighbour needs.

use crate::plan::{Access, Buffer, Kernel, KernelNode, Read, Source, Stage, Start, Unit, Work};

/// A kernel outside of loops as several, where it holds values that have nothing to do with each other: the mean of a
/// loss must not make the adjoint of that mean, which is a constant, wait for the loss.
pub fn apart(unit: Unit, buffers: &[Buffer]) -> Vec<Unit> {
    let Unit::Stage(stage) = &unit else { return vec![unit] };
    let Work::Kernel(kernel) = &stage.work else { return vec![unit] };
    let has_products = kernel.tile.as_ref().is_some_and(|tile| !tile.products.is_empty());
    // The first node of what each node hangs together with, and all products as if they were the last.
    let products = kernel.nodes.len();
    let mut component: Vec<usize> = (0..products + usize::from(has_products)).collect();
    for (i, node) in kernel.nodes.iter().enumerate() {
        for read in &node.reads {
            let s = match read.source {
                Source::Node(s) => s,
                Source::Product(_) => products,
                Source::Memory(_) | Source::Constant(_) => continue,
            };
            let (a, b) = (component[i], component[s]);
            for c in &mut component {
                if *c == a || *c == b {
                    *c = a.min(b);
                }
            }
        }
    }
    // What is updated in place is read by its kernel first.
    for (w, access) in stage.writes.iter().enumerate() {
        let touches = |node: &KernelNode| {
            let reads = |r: &Read| matches!(r.source, Source::Memory(m) if stage.reads[m].buffer == access.buffer);
            node.stores.iter().any(|(write, _)| *write == w) || node.reads.iter().any(reads)
        };
        let starts = kernel.tile.iter().flat_map(|tile| &tile.products).filter_map(|product| product.start_in_memory());
        let is_start = starts.into_iter().any(|(read, _)| stage.reads[read].buffer == access.buffer);
        let touching = (0..products).filter(|&i| touches(&kernel.nodes[i])).chain(is_start.then_some(products));
        let together: Vec<usize> = touching.map(|i| component[i]).collect();
        let first = together.iter().copied().min();
        for c in component.iter_mut().filter(|c| together.contains(c)) {
            *c = first.expect("it is one of them");
        }
    }
    let mut firsts = component.clone();
    firsts.sort_unstable();
    firsts.dedup();
    if firsts.len() < 2 {
        return vec![unit];
    }
    let own = |first| part(stage, kernel, buffers, |i| component.get(i) == Some(&first));
    firsts.into_iter().map(|first| Unit::Stage(own(first))).collect()
}

/// Some nodes of a kernel as a stage of their own; behind the nodes, whether they have the products.
pub fn part(stage: &Stage, kernel: &Kernel, buffers: &[Buffer], own: impl Fn(usize) -> bool) -> Stage {
    fn position(list: &mut Vec<Access>, access: Access) -> usize {
        list.iter().position(|a| *a == access).unwrap_or_else(|| {
            list.push(access);
            list.len() - 1
        })
    }
    let (mut reads, mut writes, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
    let mut place = vec![0; kernel.nodes.len()];
    for (i, node) in kernel.nodes.iter().enumerate().filter(|(i, _)| own(*i)) {
        place[i] = nodes.len();
        let mut node = node.clone();
        for read in &mut node.reads {
            let source = match read.source {
                Source::Node(s) => Source::Node(place[s]),
                Source::Memory(m) => Source::Memory(position(&mut reads, stage.reads[m])),
                other => other,
            };
            *read = Read { source, ..read.clone() };
        }
        for (write, _) in &mut node.stores {
            *write = position(&mut writes, stage.writes[*write]);
        }
        nodes.push(node);
    }
    let mut tile = kernel.tile.clone();
    if let Some(tile) = &mut tile {
        if !own(kernel.nodes.len()) {
            tile.products.clear();
            tile.stores.clear();
        }
        for product in &mut tile.products {
            let places = product.segments.iter_mut().map(|(read, _, _)| read).chain([&mut product.read]);
            let start = product.start.iter_mut().filter_map(|start| match start {
                Start::Memory(read, _) => Some(read),
                Start::Product(_) => None,
            });
            places.chain(start).for_each(|read| *read = position(&mut reads, stage.reads[*read]));
        }
        tile.stores.iter_mut().for_each(|(_, write, _)| *write = position(&mut writes, stage.writes[*write]));
    }
    let stride = |access: &Access| kernel.strides.iter().find(|(a, _)| a == access).expect("its stage lists it").1;
    let strides = reads.iter().chain(&writes).map(|a| (*a, stride(a))).collect();
    let kernel = Kernel { tile, nodes, reads: reads.len(), strides };
    let name = Kernel::name(&writes, buffers);
    Stage { name, work: Work::Kernel(kernel), reads, writes, ..stage.clone() }
}
