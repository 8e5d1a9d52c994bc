//! Kernels taken apart, so that no value waits for what only its neighbour needs.

use std::collections::HashMap;

use crate::plan::{Access, Buffer, BufferId, Kernel, Read, Source, Stage, Start, Unit, Work};

/// Which nodes hang together: of each one before it that it hangs together with, or itself.
struct Together {
    first: Vec<usize>,
}

impl Together {
    fn new(n: usize) -> Together {
        Together { first: (0..n).collect() }
    }

    /// The first that hangs together with this one.
    fn find(&mut self, mut i: usize) -> usize {
        while self.first[i] != i {
            self.first[i] = self.first[self.first[i]];
            i = self.first[i];
        }
        i
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.first[a.max(b)] = a.min(b);
    }
}

/// A kernel outside of loops as several, where it holds values that have nothing to do with each other: the mean of a
/// loss must not make the adjoint of that mean, which is a constant, wait for the loss.
pub fn apart(unit: Unit, buffers: &[Buffer]) -> Vec<Unit> {
    let Unit::Stage(stage) = &unit else { return vec![unit] };
    let Work::Kernel(kernel) = &stage.work else { return vec![unit] };
    let has_products = kernel.tile.as_ref().is_some_and(|tile| !tile.products.is_empty());
    // All products are as if they were the last node.
    let products = kernel.nodes.len();
    let mut together = Together::new(products + usize::from(has_products));
    // Nodes that read each of the stage's accesses, or write it.
    let (mut readers, mut writers) = (vec![Vec::new(); stage.reads.len()], vec![Vec::new(); stage.writes.len()]);
    for (i, node) in kernel.nodes.iter().enumerate() {
        for read in &node.reads {
            match read.source {
                Source::Node(s) => together.join(i, s),
                Source::Product(_) => together.join(i, products),
                Source::Memory(m) => readers[m].push(i),
                Source::Constant(_) => {}
            }
        }
        node.stores.iter().for_each(|&(write, _)| writers[write].push(i));
    }
    let starts = kernel.tile.iter().flat_map(|tile| &tile.products).filter_map(|product| product.start_in_memory());
    starts.for_each(|(read, _)| readers[read].push(products));
    // What is updated in place is read by its kernel first.
    let mut read_of: HashMap<BufferId, Vec<usize>> = HashMap::new();
    for (access, own) in stage.reads.iter().zip(readers) {
        read_of.entry(access.buffer).or_default().extend(own);
    }
    for (access, own) in stage.writes.iter().zip(&writers) {
        let touching: Vec<usize> =
            own.iter().chain(read_of.get(&access.buffer).into_iter().flatten()).copied().collect();
        touching.windows(2).for_each(|pair| together.join(pair[0], pair[1]));
    }
    let component: Vec<usize> = (0..together.first.len()).map(|i| together.find(i)).collect();
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
    let stride: HashMap<Access, usize> = kernel.strides.iter().copied().collect();
    let strides = reads.iter().chain(&writes).map(|a| (*a, stride[a])).collect();
    let kernel = Kernel { tile, nodes, reads: reads.len(), strides };
    let name = Kernel::name(&writes, buffers);
    Stage { name, work: Work::Kernel(kernel), reads, writes, ..stage.clone() }
}
