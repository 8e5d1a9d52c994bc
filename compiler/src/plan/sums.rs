//! Sums over rows that multiply as they go.
//!
//! The gradient of a weight that scales features, a gain or a peephole, is a sum over rows of a product: `Σ δ·x`. As
//! stages these are a kernel that writes the products of all rows and a sum that reads them again. Where a product is
//! for the sum alone, and its factors are in memory, the sum takes the factors instead: a multiply-add for each
//! element, and nothing is written.
//!
//! The gradient of a bias sums the rows that the gradient of the weight beside it multiplies: one stage does both, and
//! reads them once.
//!
//! A sum that is taken piece after piece, segment by segment or step by step, goes on from what the piece before has left:
//! more than the result that it has by then, so that it is the sum over all rows at once, bit for bit. [`carry`] gives it the
//! memory.
//!
//! Before: a plan's units without sweeps. After: the same sums, of fewer stages; what held the products has one row.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::kernel::{KernelNode, KernelOp, Source};
use super::sweep::apart::part;
use super::{Access, At, Buffer, BufferId, Carried, Domain, Keep, Kernel, Plan, Rows, Span, Stage, Unit, Work};
use crate::ir::Binary;

/// Which units read and write each buffer, kept while units change: every question below is about one buffer, and is
/// answered without going through all units.
struct Index {
    /// By buffer, how many stages read it.
    readers: Vec<usize>,
    /// By buffer, the units that write it, with how many of their stages do.
    writers: Vec<BTreeMap<usize, usize>>,
    /// By buffer, the units that read or write it, with how often.
    users: Vec<BTreeMap<usize, usize>>,
}

impl Index {
    fn new(units: &[Unit], buffers: usize) -> Index {
        let empty = || vec![BTreeMap::new(); buffers];
        let mut index = Index { readers: vec![0; buffers], writers: empty(), users: empty() };
        for (u, unit) in units.iter().enumerate() {
            stages(unit).iter().for_each(|stage| index.add(u, stage));
        }
        index
    }

    /// Buffers of a list of accesses, each once.
    fn buffers(accesses: &[Access]) -> BTreeSet<usize> {
        accesses.iter().map(|access| access.buffer.0).collect()
    }

    /// A stage that unit `u` has from now on.
    fn add(&mut self, u: usize, stage: &Stage) {
        for b in Index::buffers(&stage.reads) {
            self.readers[b] += 1;
            *self.users[b].entry(u).or_default() += 1;
        }
        for b in Index::buffers(&stage.writes) {
            *self.writers[b].entry(u).or_default() += 1;
            *self.users[b].entry(u).or_default() += 1;
        }
    }

    /// A stage that it has no longer.
    fn remove(&mut self, u: usize, stage: &Stage) {
        fn less(map: &mut BTreeMap<usize, usize>, u: usize) {
            let count = map.get_mut(&u).expect("it was counted");
            *count -= 1;
            if *count == 0 {
                map.remove(&u);
            }
        }
        for b in Index::buffers(&stage.reads) {
            self.readers[b] -= 1;
            less(&mut self.users[b], u);
        }
        for b in Index::buffers(&stage.writes) {
            less(&mut self.writers[b], u);
            less(&mut self.users[b], u);
        }
    }

    /// Whether some unit between two others, neither of them, writes a buffer.
    fn is_written_between(&self, buffer: BufferId, a: usize, b: usize) -> bool {
        self.writers[buffer.0].range(a.min(b) + 1..a.max(b)).next().is_some()
    }

    /// Or reads it.
    fn is_used_between(&self, buffer: BufferId, a: usize, b: usize) -> bool {
        self.users[buffer.0].range(a.min(b) + 1..a.max(b)).next().is_some()
    }
}

/// Lets sums over rows take products apart.
pub fn take_products(units: &mut Vec<Unit>, buffers: &mut [Buffer]) {
    let mut index = Index::new(units, buffers.len());
    for s in (0..units.len()).rev() {
        let Some((k, node, factors)) = product_of(units, &index, buffers, s) else { continue };
        let (Unit::Stage(sum), [a, b]) = (&mut units[s], factors) else { unreachable!("a stage") };
        index.remove(s, sum);
        let Work::ReduceRows { from, times, .. } = &mut sum.work else { unreachable!("a sum") };
        let products = &mut buffers[from.access.buffer.0];
        (products.rows, products.stride) = (Rows::One, 1);
        (*from, *times) = (a, Some(b));
        sum.reads = vec![a.access, b.access];
        index.add(s, sum);
        let Unit::Stage(stage) = &units[k] else { unreachable!("a stage") };
        let kernel = kernel_of(&units[k]).expect("it makes the product");
        let rest = part(stage, kernel, buffers, |i| i != node);
        index.remove(k, stage);
        index.add(k, &rest);
        units[k] = Unit::Stage(rest);
    }
    units.retain(|unit| {
        kernel_of(unit).is_none_or(|kernel| {
            !kernel.nodes.is_empty() || kernel.tile.as_ref().is_some_and(|tile| !tile.products.is_empty())
        })
    });
}

/// Lets products over rows sum their right rows, where a stage of its own does.
pub fn join_products(units: &mut Vec<Unit>, buffers: &[Buffer]) {
    let mut index = Index::new(units, buffers.len());
    // The products that may sum their right rows, by what these are, in order.
    let mut products: HashMap<Span, Vec<usize>> = HashMap::new();
    for (p, unit) in units.iter().enumerate() {
        if let Unit::Stage(Stage { work: Work::ReduceProduct { b, pairs: 1, sums: None, .. }, .. }) = unit {
            products.entry(*b).or_default().push(p);
        }
    }
    let mut joined = vec![false; units.len()];
    for s in 0..units.len() {
        let Some((from, into)) = sum_of_rows(&units[s]) else { continue };
        let Some(beside) = products.get_mut(&from) else { continue };
        let fits = |p: usize| {
            let (Unit::Stage(product), Unit::Stage(sum)) = (&units[p], &units[s]) else { unreachable!("stages") };
            product.domain == sum.domain
                && !index.is_written_between(from.access.buffer, s, p)
                && !index.is_used_between(into.access.buffer, s, p)
        };
        let Some(at) = beside.iter().position(|&p| fits(p)) else { continue };
        let p = beside.remove(at);
        joined[s] = true;
        let Unit::Stage(sum) = units[s].clone() else { unreachable!("a stage") };
        index.remove(s, &sum);
        let Unit::Stage(product) = &mut units[p] else { unreachable!("a stage") };
        index.remove(p, product);
        let Work::ReduceProduct { sums, .. } = &mut product.work else { unreachable!("a product") };
        *sums = Some(into);
        product.writes.push(into.access);
        product.name = format!("{} {}", product.name, sum.name);
        index.add(p, product);
    }
    let mut joined = joined.into_iter();
    units.retain(|_| !joined.next().expect("one for each"));
}

/// What a unit sums over its rows and where to, if it is a sum of rows alone to one row.
fn sum_of_rows(unit: &Unit) -> Option<(Span, Span)> {
    match unit {
        Unit::Stage(Stage { work: Work::ReduceRows { from, times: None, into, .. }, .. }) => {
            (into.access.at == At::Shared).then_some((*from, *into))
        }
        _ => None,
    }
}

fn kernel_of(unit: &Unit) -> Option<&Kernel> {
    match unit {
        Unit::Stage(Stage { work: Work::Kernel(kernel), .. }) => Some(kernel),
        _ => None,
    }
}

fn stages(unit: &Unit) -> &[Stage] {
    match unit {
        Unit::Stage(stage) => std::slice::from_ref(stage),
        Unit::Loop(l) => &l.stages,
        Unit::Sweep(_) => unreachable!("sweeps are gathered later"),
    }
}

/// If unit `s` is a sum of products that can be taken apart: the unit that makes them, the node there, and the factors.
fn product_of(units: &[Unit], index: &Index, buffers: &[Buffer], s: usize) -> Option<(usize, usize, [Span; 2])> {
    let Unit::Stage(sum) = &units[s] else { return None };
    let Work::ReduceRows { from, times: None, into, .. } = &sum.work else { return None };
    let products = from.access.buffer;
    let in_time = matches!(sum.domain, Domain::Time(_)) && into.access.at == At::Shared;
    let mut writers = index.writers[products.0].keys().copied();
    let (Some(k), None) = (writers.next(), writers.next()) else { return None };
    let is_one_run = buffers[products.0].keep == Keep::Run && !buffers[products.0].integer;
    if !in_time || index.readers[products.0] != 1 || k >= s || !is_one_run {
        return None;
    }
    let (Unit::Stage(stage), kernel) = (&units[k], kernel_of(&units[k])?) else { return None };
    let stored = |node: &KernelNode| node.stores.iter().any(|&(w, _)| stage.writes[w].buffer == products);
    let mut nodes = (0..kernel.nodes.len()).filter(|&i| stored(&kernel.nodes[i]));
    let (Some(i), None) = (nodes.next(), nodes.next()) else { return None };
    let node = &kernel.nodes[i];
    let is_read = kernel.nodes.iter().flat_map(|other| &other.reads).any(|read| read.source == Source::Node(i));
    let whole = node.stores.len() == 1 && node.stores[0].1 == 0 && from.offset == 0 && from.len == node.len;
    if stage.domain != sum.domain || node.op != KernelOp::Binary(Binary::Mul) || is_read || !whole {
        return None;
    }
    let factor = |at: usize| {
        let read = &node.reads[at];
        let Source::Memory(m) = read.source else { return None };
        let access = stage.reads[m];
        let by_row = matches!(access.at, At::Row(_)) && buffers[access.buffer.0].rows.axis().is_some();
        let stays = !index.is_written_between(access.buffer, k, s);
        let flat = read.is_flat(&node.dims) && (!read.is_scalar() || node.len == 1);
        (by_row && stays && flat).then_some(Span { access, offset: read.offset, len: node.len })
    };
    Some((k, i, [factor(0)?, factor(1)?]))
}

/// Gives sums that are taken in several pieces memory for what they go on from. After sweeps have been gathered.
pub fn carry(plan: &mut Plan) {
    let mut units = std::mem::take(&mut plan.units);
    carry_all(plan, &mut units, false);
    plan.units = units;
}

fn carry_all(plan: &mut Plan, units: &mut [Unit], in_pieces: bool) {
    for unit in units {
        match unit {
            Unit::Stage(stage) => carry_one(plan, stage, in_pieces),
            Unit::Loop(l) => l.stages.iter_mut().for_each(|stage| carry_one(plan, stage, false)),
            Unit::Sweep(sweep) => {
                carry_all(plan, &mut sweep.forth, true);
                carry_all(plan, &mut sweep.between, false);
                carry_all(plan, &mut sweep.back, true);
            }
        }
    }
}

fn carry_one(plan: &mut Plan, stage: &mut Stage, in_pieces: bool) {
    let (is_product, result) = match &stage.work {
        Work::ReduceProduct { into, .. } => (true, Access { buffer: *into, at: At::Shared }),
        Work::ReduceRows { into, .. } | Work::Scatter { into, .. } => (false, into.access),
        _ => return,
    };
    let len = stage.work.carried_len(plan.target.panel);
    let per_sample = result.at != At::Shared;
    let (totals, begun) = match stage.domain {
        // Each step is a piece.
        Domain::EachStep(_) if per_sample => (Rows::Batch, Rows::One),
        Domain::EachStep(_) => (Rows::One, Rows::One),
        Domain::Time(axis) if in_pieces && per_sample => (Rows::BatchIfSegments(axis), Rows::One),
        Domain::Time(axis) if in_pieces => (Rows::IfSegments(axis), Rows::IfUneven(axis)),
        _ => return,
    };
    let mut buffer = |what: &str, rows: Rows, len: usize| {
        let name = format!("{}.{what}", plan.buffers[result.buffer.0].name);
        let stride = plan.target.padded(len);
        // It lives from piece to piece, whatever else runs in between.
        plan.buffers.push(Buffer { name, rows, stride, integer: false, keep: Keep::Always, slot: 0 });
        BufferId(plan.buffers.len() - 1)
    };
    let wide = size_of::<f64>() / plan.target.float_size;
    let totals = buffer("totals", totals, len * wide);
    let begun = is_product.then(|| buffer("begun", begun, len));
    let (Work::ReduceProduct { carried, .. } | Work::ReduceRows { carried, .. } | Work::Scatter { carried, .. }) =
        &mut stage.work
    else {
        unreachable!("a sum")
    };
    *carried = Some(Carried { totals, begun });
}
