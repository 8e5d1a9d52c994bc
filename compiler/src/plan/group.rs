//! Which nodes run together in one stage.
//!
//! Works on one graph: the top level or a body. Shape ops are not work but **views** of the value behind them; a
//! view that no reader can follow is made solid, a copy. What remains is put into groups, in an order that respects
//! all dependences: products open tiles, pointwise nodes follow their operands into a tile or a row group,
//! reductions along features live in row groups, everything else is a group of its own. Then what only a later
//! group reads sinks into it, so that it never reaches memory.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::ir::op::Op;
use crate::ir::types::{Extent, Shape};
use crate::ir::{Graph, Value};

/// Values of one group that products may add to, so that kernels stay of a size.
const MEMBERS: usize = 64;

/// Values of one group. Much of what is done with a kernel, above all the choice of registers, takes more than twice the
/// time for twice the nodes: a chain of 10,000 functions takes 9 ms a kernel of 64 nodes to generate code for, 30 of 128, 160
/// of 256 and 900 of 512. No kernel of the library's cells comes near.
const LARGEST: usize = 128;

/// Values of one group that what has no part in it may add to: the rest is for what goes on from there, so that the update
/// of one parameter among many is not cut in two.
const SHARED: usize = LARGEST / 2;

/// A value as a view of another: feature (i₀, ..) of the value is feature `offset + Σ iₖ·strides[k]` of the base.
#[derive(Clone, Debug)]
pub struct View {
    pub base: Value,
    pub offset: usize,
    pub strides: Vec<usize>,
}

impl View {
    fn whole(v: Value, shape: &Shape) -> View {
        View { base: v, offset: 0, strides: row_major(&shape.0) }
    }

    /// Whether the features lie one behind another.
    pub fn is_dense(&self, shape: &Shape) -> bool {
        is_dense(&shape.0, &self.strides)
    }
}

/// Strides of a dense array.
pub fn row_major(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for d in (0..dims.len().saturating_sub(1)).rev() {
        strides[d] = strides[d + 1] * dims[d + 1];
    }
    strides
}

/// Whether strides are those of a dense array; dimensions of 1 do not matter.
pub fn is_dense(dims: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    for (&n, &s) in dims.iter().zip(strides).rev() {
        if n != 1 && s != expected {
            return false;
        }
        expected *= n;
    }
    true
}

/// What a node is to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Known without work: leaves, results of scans, the last step of a sequence.
    Given,
    /// Another value seen differently.
    View,
    /// Feature by feature.
    Pointwise,
    /// Sum or maximum along features.
    Reduce,
    /// A row times a shared matrix.
    Product,
    /// Several values one behind another that all readers take part by part: it is never put together.
    Parts,
    /// A stage of its own.
    Alone,
    /// A loop.
    Scan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Products with pointwise work over the same n features.
    Tile { n: usize },
    /// Pointwise work and reductions, row by row.
    Row { n: usize },
    /// One node.
    Alone,
    /// A loop.
    Scan,
}

/// Nodes that run together.
#[derive(Clone, Debug)]
pub struct Group {
    pub kind: Kind,
    pub extent: Extent,
    /// In order.
    pub members: Vec<Value>,
}

/// A graph analysed and grouped.
pub struct Grouping<'a> {
    pub graph: &'a Graph,
    pub live: Vec<bool>,
    pub class: Vec<Class>,
    pub views: Vec<View>,
    pub groups: Vec<Group>,
    /// Group of each value that has one.
    pub group_of: Vec<Option<usize>>,
    /// Columns that each product takes at a time.
    pub unit: Vec<usize>,
    /// Readers of each base value, through views: (reader, operand position).
    pub readers: Vec<Vec<(Value, usize)>>,
    /// Values that must be in memory for a reader outside the graph.
    pub wanted: HashSet<Value>,
}

fn base_class(g: &Graph, v: Value) -> Class {
    match g.op(v) {
        op if op.is_leaf() => Class::Given,
        Op::Yield(_) | Op::Final(_) | Op::Total(_) | Op::Last => Class::Given,
        Op::Slice { .. } | Op::Reshape(_) | Op::Transpose(_) | Op::Broadcast(_) | Op::Expand(_) => Class::View,
        Op::StopGradient => Class::View,
        Op::Scan(_) => Class::Scan,
        Op::ToFloat => Class::Alone,
        Op::Select if !g.is_float(v) => Class::Alone,
        Op::Sum(_) | Op::Max(_) => Class::Reduce,
        Op::Dot | Op::DotNt if g.ty(g.operands(v)[0]).shape.rank() == 1 => Class::Product,
        op if op.is_pointwise() => Class::Pointwise,
        _ => Class::Alone,
    }
}

/// Analyses and groups one graph. `wanted` are values that something outside reads; `pad` is the padding of rows.
/// `given` are the strides of captured weights, where they are not dense.
pub fn group<'a>(graph: &'a Graph, wanted: &[Value], given: &HashMap<Value, Vec<usize>>, pad: usize) -> Grouping<'a> {
    let mut whole: HashSet<Value> = HashSet::new();
    loop {
        let grouping = attempt(graph, wanted, given, &whole, pad);
        // A product that ends in memory is stored as one piece unless its pieces keep to whole pads.
        let split: Vec<Value> = grouping
            .products()
            .filter(|&v| {
                let unit = grouping.unit[v.index()];
                unit != graph.ty(v).shape.len() && !unit.is_multiple_of(pad) && grouping.needs_memory(v)
            })
            .collect();
        if split.is_empty() {
            return grouping;
        }
        whole.extend(split);
    }
}

fn attempt<'a>(
    graph: &'a Graph,
    wanted: &[Value],
    given: &HashMap<Value, Vec<usize>>,
    whole: &HashSet<Value>,
    pad: usize,
) -> Grouping<'a> {
    let n = graph.len();
    let live = graph.reachable(wanted.iter().copied());
    let mut this = Grouping {
        graph,
        live,
        class: graph.values().map(|v| base_class(graph, v)).collect(),
        views: Vec::with_capacity(n),
        groups: Vec::new(),
        group_of: vec![None; n],
        unit: graph.values().map(|v| graph.ty(v).shape.len()).collect(),
        readers: vec![Vec::new(); n],
        wanted: HashSet::new(),
    };
    this.find_views(given);
    this.wanted = wanted.iter().map(|v| this.views[v.index()].base).collect();
    this.find_readers();
    this.find_parts(pad);
    this.find_units(whole);
    this.form_groups();
    this.sink();
    this
}

/// Groups that have room, by what they are, so that nobody need go through all of them.
#[derive(Default)]
struct Places {
    /// Those with fewer values than [`MEMBERS`], and with fewer than [`SHARED`].
    by_room: [HashMap<(Kind, Extent), BTreeSet<usize>>; 2],
}

impl Places {
    const ROOM: [usize; 2] = [MEMBERS, SHARED];

    /// A group has so many values now.
    fn update(&mut self, group: &Group, index: usize) {
        for (places, room) in self.by_room.iter_mut().zip(Places::ROOM) {
            let of_kind = places.entry((group.kind, group.extent)).or_default();
            if group.members.len() < room {
                of_kind.insert(index);
            } else {
                of_kind.remove(&index);
            }
        }
    }

    /// The first group of a kind from a place on that a product may add to.
    fn for_product(&self, kind: Kind, extent: Extent, from: usize) -> Option<usize> {
        self.by_room[0].get(&(kind, extent))?.range(from..).next().copied()
    }

    /// The first that anything else may add to.
    fn first(&self, kind: Kind, extent: Extent, from: usize) -> Option<usize> {
        self.by_room[1].get(&(kind, extent))?.range(from..).next().copied()
    }
}

impl Grouping<'_> {
    /// All products that are computed.
    pub fn products(&self) -> impl Iterator<Item = Value> + '_ {
        self.graph.values().filter(|v| self.live[v.index()] && self.class[v.index()] == Class::Product)
    }

    /// The view through which a value is read.
    pub fn view(&self, v: Value) -> &View {
        &self.views[v.index()]
    }

    /// Whether a value is a constant, seen through views.
    pub fn constant(&self, v: Value) -> Option<f64> {
        match self.graph.op(self.view(v).base) {
            Op::Constant(c) => Some(*c),
            _ => None,
        }
    }

    /// Whether a computed value is read outside its group, so that it must have a home.
    pub fn needs_memory(&self, v: Value) -> bool {
        let own = self.group_of[v.index()];
        self.wanted.contains(&v) || self.readers[v.index()].iter().any(|(user, _)| self.group_of[user.index()] != own)
    }

    /// What a value is computed from in its own group, itself included. Groups run one after another, so nothing leads from
    /// a group through another one and back.
    pub fn needed_within_group(&self, v: Value) -> HashSet<Value> {
        let own = self.group_of[v.index()];
        let (mut needed, mut open) = (HashSet::from([v]), vec![v]);
        while let Some(v) = open.pop() {
            let bases = self.graph.operands(v).iter().map(|&o| self.view(o).base);
            open.extend(bases.filter(|base| self.group_of[base.index()] == own && needed.insert(*base)));
        }
        needed
    }

    /// Does a reader take any strides in this operand, or must features lie one behind another?
    fn takes_strides(&self, user: Value, operand: usize) -> bool {
        match self.class[user.index()] {
            Class::Pointwise | Class::Reduce | Class::View => true,
            Class::Scan => match self.graph.op(user) {
                Op::Scan(scan) if operand < scan.captures.len() => {
                    only_weight(&scan.body, scan.captures[operand].value)
                }
                _ => false,
            },
            // The matrix is packed from any strides.
            Class::Product => operand == 1,
            Class::Alone => match self.graph.op(user) {
                Op::Dot | Op::DotNt => operand == 1,
                Op::Concat(_) | Op::Pad { .. } => true,
                // A view made solid copies from any strides.
                _ => base_class(self.graph, user) == Class::View,
            },
            _ => false,
        }
    }

    /// Views from the leaves on; views that cannot be followed become copies.
    fn find_views(&mut self, given: &HashMap<Value, Vec<usize>>) {
        let graph = self.graph;
        // A value read by someone who needs its features in a row must have them so: mark before views form.
        let mut dense = vec![false; graph.len()];
        for v in graph.values().filter(|v| self.live[v.index()]) {
            for (i, operand) in graph.operands(v).iter().enumerate() {
                dense[operand.index()] |= !self.takes_strides(v, i);
            }
        }
        for v in graph.values() {
            let shape = &graph.ty(v).shape;
            let view = match (self.class[v.index()], graph.op(v)) {
                (Class::View, op) => {
                    let operand = graph.operands(v)[0];
                    let inner = self.views[operand.index()].clone();
                    let from = &graph.ty(operand).shape;
                    follow(op, inner, from, shape)
                }
                _ => None,
            };
            let view = match view {
                Some(view) if !dense[v.index()] || view.is_dense(shape) || self.is_constant(view.base) => view,
                _ => {
                    if self.class[v.index()] == Class::View {
                        self.class[v.index()] = Class::Alone;
                    }
                    match given.get(&v) {
                        Some(strides) => View { base: v, offset: 0, strides: strides.clone() },
                        None => View::whole(v, shape),
                    }
                }
            };
            self.views.push(view);
        }
    }

    fn is_constant(&self, v: Value) -> bool {
        matches!(self.graph.op(v), Op::Constant(_))
    }

    fn find_readers(&mut self) {
        for v in self.graph.values().filter(|v| self.live[v.index()]) {
            if self.class[v.index()] == Class::View {
                continue;
            }
            for (i, operand) in self.graph.operands(v).iter().enumerate() {
                let base = self.views[operand.index()].base;
                self.readers[base.index()].push((v, i));
            }
        }
    }

    /// A concat that only products and sums over rows read need not be put together: each takes it part by part. Where
    /// its parts' own kernels can write it in one piece, that is better still, and it stays a value.
    fn find_parts(&mut self, pad: usize) {
        for v in self.graph.values().filter(|v| self.live[v.index()]) {
            let taken_apart = |&(user, i): &(Value, usize)| match self.graph.op(user) {
                Op::Dot | Op::DotNt => i == 0 && self.class[user.index()] == Class::Product,
                Op::DotTn | Op::SumRows(_) => {
                    self.graph.operands(user).iter().all(|&o| self.graph.ty(o).shape.rank() == 1)
                }
                _ => false,
            };
            let is_concat = matches!(self.graph.op(v), Op::Concat(0)) && self.graph.ty(v).shape.rank() == 1;
            if !is_concat || self.wanted.contains(&v) || !self.readers[v.index()].iter().all(taken_apart) {
                continue;
            }
            let parts = self.graph.operands(v);
            let dense = parts.iter().all(|&p| {
                self.view(p).is_dense(&self.graph.ty(p).shape) && self.class[self.view(p).base.index()] != Class::Parts
            });
            if dense && !self.is_written_whole(v, pad) {
                self.class[v.index()] = Class::Parts;
            }
        }
    }

    /// Whether the kernels of a concat's parts can write them right into it.
    pub fn is_written_whole(&self, concat: Value, pad: usize) -> bool {
        let parts = self.graph.operands(concat);
        let mut before = 0;
        (0..parts.len()).all(|i| {
            let start = before;
            before += self.graph.ty(parts[i]).shape.len();
            self.is_written_in_place(concat, (i, start), pad)
        })
    }

    /// The first element of a value within a concat along the first axis that it can be computed in, as one of its parts.
    pub fn place_in(&self, part: Value, concat: Value, pad: usize) -> Option<usize> {
        if !matches!(self.graph.op(concat), Op::Concat(0)) || self.class[concat.index()] != Class::Alone {
            return None;
        }
        let parts = self.graph.operands(concat);
        let i = parts.iter().position(|&p| p == part)?;
        let before = parts[..i].iter().map(|&p| self.graph.ty(p).shape.len()).sum();
        self.can_be_written_in_place(concat, (i, before), pad).then_some(before)
    }

    /// Whether a part of a concat along the first axis, by number and first element, is computed where it stands: it can
    /// be, and is not wanted elsewhere.
    pub fn is_written_in_place(&self, concat: Value, part: (usize, usize), pad: usize) -> bool {
        !self.wanted.contains(&self.graph.operands(concat)[part.0]) && self.can_be_written_in_place(concat, part, pad)
    }

    /// What kernels write ends on whole pads; sums over rows write exactly their elements.
    fn can_be_written_in_place(&self, concat: Value, (i, before): (usize, usize), pad: usize) -> bool {
        let parts = self.graph.operands(concat);
        let part = parts[i];
        let len = |v: Value| self.graph.ty(v).shape.len();
        let exact = matches!(self.graph.op(part), Op::DotTn | Op::SumRows(_) | Op::ScatterAdd(_));
        let padded = before.is_multiple_of(pad) && (len(part).is_multiple_of(pad) || i + 1 == parts.len());
        let made = match self.class[part.index()] {
            Class::Pointwise => padded,
            Class::Product => padded && self.unit[part.index()] == len(part),
            Class::Alone => exact,
            _ => false,
        };
        let concats = |&(user, _): &(Value, usize)| matches!(self.graph.op(user), Op::Concat(_));
        made && self.view(part).base == part
            && self.graph.ty(part).extent == self.graph.ty(concat).extent
            && self.readers[part.index()].iter().filter(|r| concats(r)).count() == 1
    }

    /// The values that stand one behind another in an operand: itself, if it is in one piece.
    pub fn parts(&self, v: Value) -> Vec<Value> {
        let base = self.view(v).base;
        if base == v && self.class[v.index()] == Class::Parts { self.graph.operands(v).to_vec() } else { vec![v] }
    }

    /// A product that is read only in equal slices by pointwise work is taken slice by slice.
    fn find_units(&mut self, whole: &HashSet<Value>) {
        for v in self.products().collect::<Vec<_>>() {
            if whole.contains(&v) || self.wanted.contains(&v) || self.readers[v.index()].is_empty() {
                continue;
            }
            let n = self.graph.ty(v).shape.len();
            let mut unit = None;
            for &(user, i) in &self.readers[v.index()] {
                let operand = self.graph.operands(user)[i];
                let (view, shape) = (self.view(operand), &self.graph.ty(operand).shape);
                let len = shape.len();
                let fits = self.class[user.index()] == Class::Pointwise
                    && view.is_dense(shape)
                    && view.offset.is_multiple_of(len)
                    && n.is_multiple_of(len)
                    && unit.is_none_or(|u| u == len)
                    && len > 1;
                if !fits {
                    unit = None;
                    break;
                }
                unit = Some(len);
            }
            if let Some(unit) = unit {
                self.unit[v.index()] = unit;
            }
        }
    }

    fn form_groups(&mut self) {
        let mut places = Places::default();
        for v in self.graph.values() {
            if !self.live[v.index()] {
                continue;
            }
            let extent = self.graph.ty(v).extent;
            let n = self.graph.ty(v).shape.len();
            // The latest group that makes an operand, and the first in which all operands are at hand. No group behind these
            // makes an operand, so all of a kind there are alike.
            let after = self.operand_groups(v).map(|(g, _)| g).max();
            let at_hand = self.operand_groups(v).map(|(g, done)| g + usize::from(done)).max().unwrap_or(0);
            let has_room = |i: usize| self.groups[i].extent == extent && self.groups[i].members.len() < LARGEST;
            let own = after.filter(|&i| i == at_hand && has_room(i));
            let behind = at_hand + usize::from(own.is_some());
            let (place, kind) = match self.class[v.index()] {
                Class::Given | Class::View | Class::Parts => continue,
                Class::Alone => (None, Kind::Alone),
                Class::Scan => (None, Kind::Scan),
                Class::Product => {
                    let kind = Kind::Tile { n: self.unit[v.index()] };
                    (places.for_product(kind, extent, after.map_or(0, |g| g + 1)), kind)
                }
                Class::Pointwise => {
                    let own = own.filter(|&i| self.welcomes(i, &self.groups[i], v, n, after));
                    let (row, tile) = (Kind::Row { n }, Kind::Tile { n });
                    let fits_tile = self.fits_tile(usize::MAX, v, n);
                    let tile = if fits_tile { places.first(tile, extent, behind) } else { None };
                    let others = || places.first(row, extent, behind).into_iter().chain(tile).min();
                    (own.or_else(others), row)
                }
                Class::Reduce => {
                    let n = self.graph.ty(self.graph.operands(v)[0]).shape.len();
                    let own = own.filter(|&i| {
                        let is_row = matches!(self.groups[i].kind, Kind::Row { .. });
                        is_row && self.may_join(i, &self.groups[i], v, n)
                    });
                    let kind = Kind::Row { n };
                    (own.or_else(|| places.first(kind, extent, behind)), kind)
                }
            };
            let place = place.unwrap_or_else(|| {
                self.groups.push(Group { kind, extent, members: Vec::new() });
                self.groups.len() - 1
            });
            self.groups[place].members.push(v);
            places.update(&self.groups[place], place);
            self.group_of[v.index()] = Some(place);
        }
    }

    /// The groups that make a node's operands, and whether each must be done before the node: results of a scan, and
    /// the last step of a sequence, which no row of the sequence's own group can see.
    fn operand_groups(&self, v: Value) -> impl Iterator<Item = (usize, bool)> + '_ {
        let operands = self.graph.operands(v).iter().flat_map(|&o| self.parts(o));
        operands.filter_map(|o| {
            let base = self.view(o).base;
            let behind = match self.graph.op(base) {
                // Results of scans and last steps come when what they are of has run.
                Op::Yield(_) | Op::Final(_) | Op::Total(_) => self.graph.operands(base)[0],
                Op::Last => self.view(self.graph.operands(base)[0]).base,
                _ => base,
            };
            let behind = match self.graph.op(behind) {
                Op::Yield(_) | Op::Final(_) | Op::Total(_) => self.graph.operands(behind)[0],
                _ => behind,
            };
            self.group_of[behind.index()].map(|g| (g, behind != base))
        })
    }

    /// Whether pointwise node `v` may join group `i`.
    fn welcomes(&self, i: usize, g: &Group, v: Value, n: usize, after: Option<usize>) -> bool {
        match g.kind {
            Kind::Tile { n: own } => own == n && self.fits_tile(i, v, n),
            Kind::Row { n: own } => (own == n || after == Some(i)) && self.may_join(i, g, v, n),
            _ => false,
        }
    }

    /// What is shared has one row, of parameters or of what becomes of them, and is worked on in pieces, by all threads:
    /// nothing there waits for a reduction over the same row, nor sees it through a view. What is left has no bond but its
    /// length, and is taken apart by parameter later, so that the updates of all have one code.
    fn may_join(&self, i: usize, g: &Group, v: Value, n: usize) -> bool {
        let inside = |o: &&Value| self.group_of[self.view(**o).base.index()] == Some(i);
        g.extent != Extent::Shared
            || self.graph.operands(v).iter().filter(inside).all(|&o| {
                let (view, shape) = (self.view(o), &self.graph.ty(o).shape);
                let whole = view.is_dense(shape) && shape.len() == n && self.graph.ty(view.base).shape.len() == n;
                self.class[view.base.index()] == Class::Pointwise && whole
            })
    }

    /// Whether all operands of a pointwise node can be read in the flat loop of tile `i`.
    fn fits_tile(&self, i: usize, v: Value, n: usize) -> bool {
        self.graph.operands(v).iter().all(|&o| {
            if self.constant(o).is_some() {
                return true;
            }
            let (view, shape) = (self.view(o), &self.graph.ty(o).shape);
            let inside = self.group_of[view.base.index()] == Some(i);
            let flat = view.is_dense(shape) && shape.len() == n;
            if !inside {
                return flat || view.strides.iter().all(|&s| s == 0);
            }
            match self.class[view.base.index()] {
                Class::Product => flat && view.offset.is_multiple_of(n),
                _ => flat && view.offset == 0 && self.graph.ty(view.base).shape.len() == n,
            }
        })
    }

    /// Moves what one later group alone reads to that group, together with all that it needs of its own group and that
    /// nobody else there needs.
    fn sink(&mut self) {
        for v in self.graph.values().rev() {
            if !self.live[v.index()] || !matches!(self.class[v.index()], Class::Pointwise | Class::Product) {
                continue;
            }
            let own = self.group_of[v.index()].expect("what is computed is grouped");
            let Some(&(user, _)) = self.readers[v.index()].first() else { continue };
            let Some(target) = self.group_of[user.index()] else { continue };
            if target == own || self.groups[target].extent != self.graph.ty(v).extent {
                continue;
            }
            // Of what is read elsewhere, too, nothing need be looked at.
            let only_there =
                self.readers[v.index()].iter().all(|&(user, _)| self.group_of[user.index()] == Some(target));
            if self.wanted.contains(&v) || !only_there {
                continue;
            }
            let room = match self.groups[target].kind {
                Kind::Tile { .. } => MEMBERS,
                _ => LARGEST,
            };
            let fits = |moved: &Vec<Value>| {
                self.groups[target].members.len() + moved.len() <= room
                    && moved.iter().all(|&m| self.can_sink(m, moved, target))
            };
            // With all that it needs; or with that of it which is not in memory anyway.
            let cones = [false, true].into_iter().map(|stored| self.needed_of_own_group(v, own, stored));
            let Some(moved) = cones.into_iter().find(fits) else { continue };
            self.groups[own].members.retain(|m| !moved.contains(m));
            for m in moved {
                let members = &mut self.groups[target].members;
                let at = members.partition_point(|&other| other < m);
                members.insert(at, m);
                self.group_of[m.index()] = Some(target);
            }
        }
    }

    /// A value and all of its own group that it is computed from; or only as far as what is stored for others.
    fn needed_of_own_group(&self, v: Value, own: usize, up_to_stored: bool) -> Vec<Value> {
        let mut needed = vec![v];
        let mut seen = HashSet::from([v]);
        let mut next = 0;
        while next < needed.len() {
            for &o in self.graph.operands(needed[next]) {
                let base = self.view(o).base;
                let stored = up_to_stored && self.needs_memory(base);
                if self.group_of[base.index()] == Some(own) && !stored && seen.insert(base) {
                    needed.push(base);
                }
            }
            next += 1;
        }
        needed
    }

    /// Whether a value can be computed in group `target`, where others of its group move along.
    fn can_sink(&self, m: Value, along: &[Value], target: usize) -> bool {
        let n = self.graph.ty(m).shape.len();
        let there = |&(user, _): &(Value, usize)| self.group_of[user.index()] == Some(target) || along.contains(&user);
        if self.wanted.contains(&m) || !self.readers[m.index()].iter().all(there) {
            return false;
        }
        match (self.groups[target].kind, self.class[m.index()]) {
            (Kind::Tile { n: wide }, Class::Product) => {
                let unit = self.unit[m.index()];
                let in_units = |&(user, i): &(Value, usize)| {
                    let operand = self.graph.operands(user)[i];
                    let (view, shape) = (self.view(operand), &self.graph.ty(operand).shape);
                    self.class[user.index()] == Class::Pointwise
                        && view.is_dense(shape)
                        && shape.len() == unit
                        && view.offset.is_multiple_of(unit)
                };
                wide == unit && self.readers[m.index()].iter().all(in_units)
            }
            (Kind::Tile { n: wide }, Class::Pointwise) => {
                wide == n && self.fits_tile(target, m, n) && self.read_flat(m)
            }
            // What is flat is gone through in pieces, by all threads: one number a row would make it one piece, and what is
            // shared must not join a sum, which is one already.
            (Kind::Row { n: wide }, Class::Pointwise) if n == 1 && wide > 1 => along.len() == 1 && self.reduces(target),
            (Kind::Row { n: wide }, Class::Pointwise) => {
                let shared = self.groups[target].extent == Extent::Shared;
                wide == n && self.read_flat(m) && !(shared && self.reduces(target))
            }
            _ => false,
        }
    }

    /// Whether a group holds a sum or a maximum along features.
    fn reduces(&self, group: usize) -> bool {
        self.groups[group].members.iter().any(|m| self.class[m.index()] == Class::Reduce)
    }

    /// Whether all readers work feature by feature, as far as they read the value, and read it so.
    fn read_flat(&self, v: Value) -> bool {
        let n = self.graph.ty(v).shape.len();
        self.readers[v.index()].iter().all(|&(user, i)| {
            let operand = self.graph.operands(user)[i];
            let (view, shape) = (self.view(operand), &self.graph.ty(operand).shape);
            let wide = match self.class[user.index()] {
                Class::Pointwise => self.graph.ty(user).shape.len(),
                Class::Reduce => shape.len(),
                _ => return false,
            };
            wide == n && view.is_dense(shape) && shape.len() == n
        })
    }
}

/// Whether a body reads a capture as the matrix of products only: packing takes it at any strides.
fn only_weight(body: &Graph, leaf: Value) -> bool {
    body.users(leaf).iter().all(|&user| {
        matches!(body.op(user), Op::Dot | Op::DotNt) && body.operands(user)[0] != leaf && body.operands(user)[1] == leaf
    })
}

/// A view of a view; `None` if strides cannot say it.
pub fn follow_one(op: &Op, inner: &View, from: &Shape, to: &Shape) -> Option<View> {
    follow(op, inner.clone(), from, to)
}

fn follow(op: &Op, inner: View, from: &Shape, to: &Shape) -> Option<View> {
    let View { base, mut offset, strides } = inner;
    let strides = match op {
        Op::StopGradient | Op::Expand(_) => strides,
        Op::Slice { axis, start, .. } => {
            offset += start * strides[*axis];
            strides
        }
        Op::Transpose(perm) => perm.iter().map(|&p| strides[p]).collect(),
        Op::Broadcast(_) => {
            let pairs = strides.iter().zip(from.0.iter().zip(&to.0));
            pairs.map(|(&s, (f, t))| if f == t { s } else { 0 }).collect()
        }
        Op::Reshape(_) => reshape(&from.0, &strides, &to.0)?,
        _ => return None,
    };
    Some(View { base, offset, strides })
}

/// Strides after a reshape: dense stays dense, a scalar stays a scalar, dimensions of 1 come and go.
fn reshape(from: &[usize], strides: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    if is_dense(from, strides) {
        return Some(row_major(to));
    }
    if from.iter().zip(strides).all(|(&n, &s)| n == 1 || s == 0) {
        return Some(vec![0; to.len()]);
    }
    let mut real = from.iter().zip(strides).filter(|(n, _)| **n != 1);
    let mut out = Vec::with_capacity(to.len());
    for &n in to {
        if n == 1 {
            out.push(0);
        } else {
            let (&m, &s) = real.next()?;
            if m != n {
                return None;
            }
            out.push(s);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::reshape;

    /// Dimensions, their strides, dimensions as which they are to be seen, and the strides of these.
    type Row = (&'static [usize], &'static [usize], &'static [usize], Option<&'static [usize]>);

    #[test]
    fn strides_of_a_reshape() {
        let rows: [Row; 6] = [
            (&[2, 3], &[3, 1], &[6], Some(&[1])),
            // One number, seen as any shape.
            (&[4], &[0], &[2, 2], Some(&[0, 0])),
            (&[1, 4], &[7, 0], &[2, 1, 2], Some(&[0, 0, 0])),
            // Transposed, and repeated along one axis: what is 1 comes and goes.
            (&[3, 2], &[1, 3], &[3, 1, 2], Some(&[1, 0, 3])),
            (&[3, 4], &[0, 1], &[1, 3, 4], Some(&[0, 0, 1])),
            (&[3, 2], &[1, 3], &[6], None),
        ];
        for (from, strides, to, expected) in rows {
            assert_eq!(reshape(from, strides, to).as_deref(), expected, "{from:?} at {strides:?} as {to:?}");
        }
    }
}
