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
//! Before: a plan's units without sweeps. After: the same sums, of fewer stages; what held the products has one row.

use super::kernel::{KernelNode, KernelOp, Source};
use super::sweep::apart::part;
use super::{Access, At, Buffer, BufferId, Domain, Keep, Kernel, Rows, Span, Stage, Unit, Work};
use crate::ir::Binary;

/// Lets sums over rows take products apart.
pub fn take_products(units: &mut Vec<Unit>, buffers: &mut [Buffer]) {
    for s in (0..units.len()).rev() {
        let Some((k, node, factors)) = product_of(units, buffers, s) else { continue };
        let (Unit::Stage(sum), [a, b]) = (&mut units[s], factors) else { unreachable!("a stage") };
        let Work::ReduceRows { from, times, .. } = &mut sum.work else { unreachable!("a sum") };
        let products = &mut buffers[from.access.buffer.0];
        (products.rows, products.stride) = (Rows::One, 1);
        (*from, *times) = (a, Some(b));
        sum.reads = vec![a.access, b.access];
        let Unit::Stage(stage) = &units[k] else { unreachable!("a stage") };
        let kernel = kernel_of(&units[k]).expect("it makes the product");
        let rest = part(stage, kernel, buffers, |i| i != node);
        units[k] = Unit::Stage(rest);
    }
    units.retain(|unit| {
        kernel_of(unit).is_none_or(|kernel| {
            !kernel.nodes.is_empty() || kernel.tile.as_ref().is_some_and(|tile| !tile.products.is_empty())
        })
    });
}

/// Lets products over rows sum their right rows, where a stage of its own does.
pub fn join_products(units: &mut Vec<Unit>) {
    let mut s = 0;
    while s < units.len() {
        let Some((p, into)) = product_beside(units, s) else {
            s += 1;
            continue;
        };
        let Unit::Stage(sum) = units.remove(s) else { unreachable!("a stage") };
        let Unit::Stage(product) = &mut units[if p < s { p } else { p - 1 }] else { unreachable!("a stage") };
        let Work::ReduceProduct { sums, .. } = &mut product.work else { unreachable!("a product") };
        *sums = Some(into);
        product.writes.push(into.access);
        product.name = format!("{} {}", product.name, sum.name);
    }
}

/// If unit `s` sums the rows that a product over rows has on its right, and may as well be done there: that product, and
/// where the sum goes.
fn product_beside(units: &[Unit], s: usize) -> Option<(usize, Span)> {
    let Unit::Stage(sum) = &units[s] else { return None };
    let Work::ReduceRows { from, times: None, into } = &sum.work else { return None };
    if into.access.at != At::Shared {
        return None;
    }
    let is_beside = |p: &usize| {
        let Unit::Stage(product) = &units[*p] else { return false };
        let Work::ReduceProduct { b, pairs: 1, sums: None, .. } = &product.work else { return false };
        let between = &units[s.min(*p) + 1..s.max(*p)];
        let is_free = between.iter().flat_map(stages).all(|stage| {
            let touches = |list: &[Access], buffer: BufferId| list.iter().any(|access| access.buffer == buffer);
            !touches(&stage.writes, from.access.buffer)
                && !touches(&stage.writes, into.access.buffer)
                && !touches(&stage.reads, into.access.buffer)
        });
        b == from && product.domain == sum.domain && is_free
    };
    (0..units.len()).find(is_beside).map(|p| (p, *into))
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
fn product_of(units: &[Unit], buffers: &[Buffer], s: usize) -> Option<(usize, usize, [Span; 2])> {
    let Unit::Stage(sum) = &units[s] else { return None };
    let Work::ReduceRows { from, times: None, into } = &sum.work else { return None };
    let products = from.access.buffer;
    let in_time = matches!(sum.domain, Domain::Time(_)) && into.access.at == At::Shared;
    let touches = |list: &[Access], buffer: BufferId| list.iter().any(|access| access.buffer == buffer);
    let readers = units.iter().flat_map(stages).filter(|stage| touches(&stage.reads, products)).count();
    let writes = |unit: &Unit, buffer| stages(unit).iter().any(|stage| touches(&stage.writes, buffer));
    let mut writers = (0..units.len()).filter(|&k| writes(&units[k], products));
    let (Some(k), None) = (writers.next(), writers.next()) else { return None };
    if !in_time || readers != 1 || k >= s || buffers[products.0].keep != Keep::Run || buffers[products.0].integer {
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
        let stays = units[k + 1..s].iter().all(|unit| !writes(unit, access.buffer));
        let flat = read.is_flat(&node.dims) && (!read.is_scalar() || node.len == 1);
        (by_row && stays && flat).then_some(Span { access, offset: read.offset, len: node.len })
    };
    Some((k, i, [factor(0)?, factor(1)?]))
}
