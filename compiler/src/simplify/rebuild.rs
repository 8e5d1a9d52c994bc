//! The walk that all rewrites share: an old graph is read in order and a new one is made.
//!
//! Graphs are append-only and operands come before users, so one forward walk with a map from old values to new
//! ones is enough. The new graph is [`Numbered`]: a node with the op and operands of an earlier one is that earlier
//! one (value numbering, constants by their bits). Only what the roots need is visited, so dead code falls away by
//! itself; parameters and inputs are the face of a program and are kept in any case.
//!
//! A pass says what to put for a node ([`Rewrite::node`]) or for a scan ([`Rewrite::scan`]), in terms of operands
//! that are already values of the new graph.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHasher};

pub use super::body::Body;
use crate::ir::{
    Binary, Draft, Extent, Graph, Ignored, Input, Op, Parameter, Program, Scan, Shape, Type, Unary, Update, Value,
};

/// A graph under construction in which no node occurs twice.
#[derive(Default)]
pub struct Numbered {
    graph: Graph,
    /// Nodes by what makes them equal, as a number: op, operands, and the type of a constant. Who finds its number taken by
    /// another node looks at the next one.
    known: FxHashMap<u64, Value>,
    /// Where each part of a concatenation ends, of those that were asked for: one may be sliced as often as it has parts.
    ends: FxHashMap<Value, Rc<[usize]>>,
}

impl Deref for Numbered {
    type Target = Graph;
    fn deref(&self) -> &Graph {
        &self.graph
    }
}

impl Numbered {
    /// The graph.
    pub fn finish(mut self) -> Graph {
        self.graph.location = None;
        self.graph
    }

    /// The node with this op and these operands, added if it is not there yet.
    #[track_caller]
    pub fn add(&mut self, op: Op, operands: &[Value]) -> Value {
        match self.find_node(&op, operands) {
            Ok(v) => v,
            Err(free) => {
                let v = self.graph.add(op, operands);
                self.known.insert(free, v);
                v
            }
        }
    }

    /// As [`add`](Numbered::add), for the op of another graph's node whose operands have the types of these.
    fn add_again(&mut self, op: &Op, operands: &[Value], ty: &Type) -> Value {
        match self.find_node(op, operands) {
            Ok(v) => v,
            Err(free) => {
                let v = self.graph.add_again(op.clone(), operands, ty);
                self.known.insert(free, v);
                v
            }
        }
    }

    /// The node with this op and these operands; or the number that is free for it.
    fn find_node(&self, op: &Op, operands: &[Value]) -> Result<Value, u64> {
        let commutes = matches!(op, Op::Binary(Binary::Add | Binary::Mul));
        let mut hasher = FxHasher::default();
        hash_op(op, &mut hasher);
        match operands {
            &[x, y] if commutes => (x.min(y), x.max(y)).hash(&mut hasher),
            _ => operands.hash(&mut hasher),
        }
        let equal = |own: &[Value]| own == operands || commutes && own[0] == operands[1] && own[1] == operands[0];
        self.find(hasher.finish(), |g, v| is_same(g.op(v), op) && equal(g.operands(v)))
    }

    /// The node of this number; or the number that is free for it.
    fn find(&self, mut key: u64, same: impl Fn(&Graph, Value) -> bool) -> Result<Value, u64> {
        while let Some(&v) = self.known.get(&key) {
            if same(&self.graph, v) {
                return Ok(v);
            }
            key = key.wrapping_add(1);
        }
        Err(key)
    }

    /// A constant of any type.
    pub fn constant(&mut self, value: f64, ty: Type) -> Value {
        let op = Op::Constant(value);
        let mut hasher = FxHasher::default();
        hash_op(&op, &mut hasher);
        ty.hash(&mut hasher);
        let key = match self.find(hasher.finish(), |g, v| is_same(g.op(v), &op) && *g.ty(v) == ty) {
            Ok(v) => return v,
            Err(free) => free,
        };
        let v = self.graph.leaf(op, ty);
        self.known.insert(key, v);
        v
    }

    /// A shared scalar constant.
    pub fn scalar(&mut self, value: f64) -> Value {
        self.constant(value, Type::float(Extent::Shared, ()))
    }

    /// A leaf that is not numbered: a parameter, an input or a port of a body.
    pub fn leaf(&mut self, op: Op, ty: Type) -> Value {
        self.graph.leaf(op, ty)
    }

    /// One result of a scan of this graph.
    pub fn result(&mut self, scan: Value, result: Op) -> Value {
        let mut hasher = FxHasher::default();
        hash_op(&result, &mut hasher);
        [scan].as_slice().hash(&mut hasher);
        let key = match self.find(hasher.finish(), |g, v| is_same(g.op(v), &result) && *g.operands(v) == [scan]) {
            Ok(v) => return v,
            Err(free) => free,
        };
        let v = self.graph.scan_result(scan, result);
        self.known.insert(key, v);
        v
    }

    /// A scan; scans are not numbered.
    pub fn scan(&mut self, scan: Scan, operands: &[Value]) -> Value {
        self.graph.add(Op::Scan(Box::new(scan)), operands)
    }

    /// Repeats a value over features and rows until it has a wider type; itself if it has it.
    pub fn spread(&mut self, v: Value, ty: &Type) -> Value {
        let mut v = v;
        if self.ty(v).shape != ty.shape {
            v = self.add(Op::Reshape(Shape(vec![1; ty.shape.rank()])), &[v]);
            v = self.add(Op::Broadcast(ty.shape.clone()), &[v]);
        }
        if self.ty(v).extent != ty.extent {
            v = self.add(Op::Expand(ty.extent), &[v]);
        }
        v
    }

    /// How many rows of `wide` there are for each of `narrow`, as a shared scalar.
    pub fn rows_for_each(&mut self, wide: Extent, narrow: Extent) -> Value {
        let count = self.add(Op::RowCount(wide), &[]);
        if narrow == Extent::Shared {
            return count;
        }
        let each = self.add(Op::RowCount(narrow), &[]);
        self.add(Op::Binary(Binary::Div), &[count, each])
    }

    /// Where each part of a concatenation ends along its axis.
    pub fn ends_of_parts(&mut self, concat: Value) -> Rc<[usize]> {
        if let Some(ends) = self.ends.get(&concat) {
            return ends.clone();
        }
        let &Op::Concat(axis) = self.op(concat) else { panic!("only a concatenation has parts") };
        let ends = self.operands(concat).iter().scan(0, |end, &part| {
            *end += self.ty(part).shape.0[axis];
            Some(*end)
        });
        let ends: Rc<[usize]> = ends.collect();
        self.ends.insert(concat, ends.clone());
        ends
    }

    /// The number of a constant.
    pub fn number(&self, v: Value) -> Option<f64> {
        match self.op(v) {
            Op::Constant(x) => Some(*x),
            _ => None,
        }
    }
}

fn extent_code(extent: Extent) -> u64 {
    match extent {
        Extent::Shared => 0,
        Extent::Batch => 1,
        Extent::Time(axis) => 2 + u64::from(axis.0),
    }
}

/// What an op holds besides its row, number by number.
fn attributes(op: &Op, mut take: impl FnMut(u64)) {
    let mut list = |dims: &[usize]| dims.iter().for_each(|&d| take(d as u64));
    match op {
        Op::Constant(x) => take(x.to_bits()),
        Op::RowCount(e) | Op::SumRows(e) | Op::Expand(e) => take(extent_code(*e)),
        Op::Unary(Unary::Powi(n)) => take(*n as u64),
        Op::Sum(s) | Op::Max(s) | Op::Broadcast(s) | Op::Reshape(s) => list(&s.0),
        Op::Norm(norm) | Op::Divisor(norm) => take(norm.epsilon.to_bits()),
        Op::Transpose(perm) => list(perm),
        Op::Slice { axis, start, len } => list(&[*axis, *start, *len]),
        Op::Pad { axis, before, after } => list(&[*axis, *before, *after]),
        Op::MatMul { ta, tb } => list(&[usize::from(*ta), usize::from(*tb)]),
        Op::PlaceLast(axis) | Op::Within(axis) => list(&[usize::from(axis.0)]),
        Op::Concat(n) | Op::ScatterAdd(n) | Op::OneHot(n) => list(&[*n]),
        Op::Yield(i) | Op::Final(i) | Op::Total(i) | Op::Capture(i) | Op::Each(i) | Op::Carry(i) => list(&[*i]),
        Op::Parameter(_) | Op::Input(_) | Op::Unary(_) | Op::Binary(_) | Op::Select | Op::StopGradient => {}
        Op::Training => {}
        Op::ToFloat | Op::Dot | Op::DotNt | Op::DotTn | Op::Gather | Op::Argmax | Op::Last | Op::Scan(_) => {}
    }
}

fn hash_op(op: &Op, hasher: &mut FxHasher) {
    op.name().hash(hasher);
    attributes(op, |number| hasher.write_u64(number));
}

fn is_same(a: &Op, b: &Op) -> bool {
    // Most ops have no attributes, and those that have some need no list on the heap.
    let few = |op: &Op| {
        let (mut few, mut n) = ([0; 8], 0);
        attributes(op, |number| {
            if let Some(place) = few.get_mut(n) {
                *place = number;
            }
            n += 1;
        });
        (few, n)
    };
    let all = |op: &Op| {
        let mut all = Vec::new();
        attributes(op, |number| all.push(number));
        all
    };
    if !std::ptr::eq(a.row(), b.row()) {
        return false;
    }
    let (one, other) = (few(a), few(b));
    one == other && (one.1 <= one.0.len() || all(a) == all(b))
}

/// A number that tells programs of different structure apart.
pub fn fingerprint(program: &Program) -> u64 {
    let mut hasher = FxHasher::default();
    hash_graph(&program.graph, &mut hasher);
    program.roots().hash(&mut hasher);
    hasher.finish()
}

fn hash_graph(graph: &Graph, hasher: &mut FxHasher) {
    graph.len().hash(hasher);
    for v in graph.values() {
        let node = graph.node(v);
        hash_op(&node.op, hasher);
        (&node.operands, &node.ty).hash(hasher);
        if let Op::Scan(scan) = &node.op {
            hash_graph(&scan.body, hasher);
            (scan.axis, scan.reverse, scan.roots(), scan.captures.len(), scan.each.len()).hash(hasher);
            (scan.carries.len(), scan.yields.len(), scan.sums.len()).hash(hasher);
        }
    }
}

/// Which results of a scan something needs.
pub struct Used {
    /// By yield.
    pub yields: Vec<bool>,
    /// By carry.
    pub finals: Vec<bool>,
    /// By sum.
    pub totals: Vec<bool>,
}

impl Used {
    /// The body values for which something outside asks, finals aside.
    pub fn roots(&self, scan: &Scan) -> Vec<Value> {
        let ports = scan.yields.iter().zip(&self.yields).chain(scan.sums.iter().zip(&self.totals));
        ports.filter(|(_, used)| **used).map(|(port, _)| port.value).collect()
    }
}

/// What stands for the results of a scan that are used.
pub struct Results {
    /// By yield.
    pub yields: Vec<Option<Value>>,
    /// By carry.
    pub finals: Vec<Option<Value>>,
    /// By sum.
    pub totals: Vec<Option<Value>>,
}

/// Where a rewrite is asked for a node.
pub struct Site<'a, F> {
    /// The graph that is being made.
    pub g: &'a mut Numbered,
    /// The graph that is being read.
    pub old: &'a Graph,
    /// The node in it.
    pub value: Value,
    /// New values of the old ones before it.
    pub map: &'a [Option<Value>],
    /// What the pass wanted to know of the old graph.
    pub facts: &'a mut F,
}

/// A pass over all graphs of a program.
pub trait Rewrite {
    /// What it must know of a whole graph before it sees the first node.
    type Facts;

    /// Finds that out. `roots` are read from outside the graph; `scan` is given for a body.
    fn facts(&self, graph: &Graph, roots: &[Value], scan: Option<&Scan>) -> Self::Facts;

    /// What to put for a node with these new operands; `None` for the same op.
    fn node(&self, _site: Site<Self::Facts>, _op: &Op, _operands: &[Value]) -> Option<Value> {
        None
    }

    /// What to put for a scan: by default the same with a rewritten body.
    fn scan(&self, g: &mut Numbered, scan: &Scan, operands: &[Value], used: &Used) -> Results
    where
        Self: Sized,
    {
        let mut body = Body::like(scan);
        let seeds = body.copy_ports(scan, operands);
        let map = walk(self, &scan.body, &scan.roots(), Some(scan), seeds, &mut body.g);
        body.copy_results(scan, &map, used, g)
    }
}

/// Runs a pass over the nodes that `roots` need. Leaves, and nodes that are to be replaced without being asked for,
/// are in `seeds`.
pub fn walk<R: Rewrite>(
    rule: &R,
    old: &Graph,
    roots: &[Value],
    scan: Option<&Scan>,
    seeds: Vec<Option<Value>>,
    g: &mut Numbered,
) -> Vec<Option<Value>> {
    let mut map = seeds;
    g.graph.reserve(old.len());
    g.known.reserve(old.len());
    let mut facts = rule.facts(old, roots, scan);
    let needed = old.reachable(roots.iter().copied());
    let mut results: HashMap<Value, Results> = HashMap::new();
    for v in old.values() {
        let node = old.node(v);
        if !needed[v.index()] || map[v.index()].is_some() || matches!(node.op, Op::Constant(_)) {
            continue;
        }
        constants(old, &node.operands, g, &mut map);
        g.graph.location = node.location;
        let new = |v: &Value| map[v.index()].expect("operands come before their users");
        let put = match &node.op {
            Op::Scan(scan) => {
                let operands: Vec<Value> = node.operands.iter().map(new).collect();
                let mut used = Used {
                    yields: vec![false; scan.yields.len()],
                    finals: vec![false; scan.carries.len()],
                    totals: vec![false; scan.sums.len()],
                };
                for user in old.users(v).into_iter().filter(|u| needed[u.index()]) {
                    match *old.op(user) {
                        Op::Yield(i) => used.yields[i] = true,
                        Op::Final(i) => used.finals[i] = true,
                        Op::Total(i) => used.totals[i] = true,
                        ref op => unreachable!("`{}` does not read a scan", op.name()),
                    }
                }
                results.insert(v, rule.scan(g, scan, &operands, &used));
                continue;
            }
            Op::Yield(i) => results[&node.operands[0]].yields[*i].expect("a pass gives all used results"),
            Op::Final(i) => results[&node.operands[0]].finals[*i].expect("a pass gives all used results"),
            Op::Total(i) => results[&node.operands[0]].totals[*i].expect("a pass gives all used results"),
            op => {
                let operands: Vec<Value> = node.operands.iter().map(new).collect();
                let site = Site { g: &mut *g, old, value: v, map: &map, facts: &mut facts };
                rule.node(site, op, &operands).unwrap_or_else(|| g.add_again(op, &operands, &node.ty))
            }
        };
        assert_eq!(g.ty(put), &node.ty, "a rewrite of `{}` keeps the type", node.op.name());
        map[v.index()] = Some(put);
    }
    g.graph.location = None;
    constants(old, roots, g, &mut map);
    map
}

/// Constants are made where they are first used, so that their order tells nothing of history.
fn constants(old: &Graph, used: &[Value], g: &mut Numbered, map: &mut [Option<Value>]) {
    for v in used.iter().filter(|v| map[v.index()].is_none()).copied().collect::<Vec<_>>() {
        if let Op::Constant(x) = old.op(v) {
            g.graph.location = old.node(v).location;
            map[v.index()] = Some(g.constant(*x, old.ty(v).clone()));
        }
    }
}

/// Runs a pass over a program.
pub fn rewrite<R: Rewrite>(program: &Draft, rule: &R) -> Program {
    let mut g = Numbered::default();
    let mut seeds = vec![None; program.graph.len()];
    copy_face(program, &mut g, &mut seeds);
    let map = walk(rule, &program.graph, &program.roots(), None, seeds, &mut g);
    with_graph(program, g.finish(), &map).by_pass()
}

/// Copies the parameters and inputs that the program declares, used or not, in the order of their nodes.
pub fn copy_face(program: &Draft, g: &mut Numbered, seeds: &mut [Option<Value>]) {
    let parameters = program.parameters.iter().map(|p| p.value);
    let mut leaves: Vec<Value> = parameters.chain(program.inputs.iter().map(|i| i.value)).collect();
    leaves.sort();
    for v in leaves {
        let node = program.graph.node(v);
        g.graph.location = node.location;
        seeds[v.index()] = Some(g.leaf(node.op.clone(), node.ty.clone()));
    }
    g.graph.location = None;
}

/// The same program around a new graph.
pub fn with_graph(program: &Draft, graph: Graph, map: &[Option<Value>]) -> Draft {
    let new = |v: Value| map[v.index()].expect("a walk maps all roots");
    Draft {
        name: program.name.clone(),
        graph,
        parameters: program.parameters.iter().map(|p| Parameter { value: new(p.value), ..p.clone() }).collect(),
        inputs: program.inputs.iter().map(|i| Input { value: new(i.value), ..i.clone() }).collect(),
        outputs: program.outputs.iter().map(|(name, v)| (name.clone(), new(*v))).collect(),
        objective: program.objective.map(new),
        updates: program.updates.iter().map(|u| Update { target: new(u.target), value: new(u.value) }).collect(),
        axes: program.axes.clone(),
        lengths: program.lengths.clone(),
        limits: program.limits.clone(),
        ignored: program.ignored.iter().filter_map(|i| Some(Ignored { value: map[i.value.index()]?, ..*i })).collect(),
    }
}
