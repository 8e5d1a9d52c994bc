//! The graph: nodes in the order they were added, each with one result.
//!
//! Invariants, checked by [`verify`](super::verify): operands come before their users (so node order is a
//! topological order), a node's type is what its op's type rule gives for its operands, and the petgraph edges
//! mirror the operand lists. A scan is one node whose results are taken by [`Op::Yield`],
//! [`Op::Final`] and [`Op::Total`] nodes behind it.
//! This is the only file that touches petgraph; other stages walk values in order and build new graphs, so
//! numbering is deterministic and no rewrite can leave a cycle.

use std::panic::Location;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use super::op::{Op, TypeError};
use super::types::{DType, Extent, Shape, Type};

/// A value of a [`Graph`]: the result of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) u32);

impl Value {
    /// Position in its graph.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One operation with its operands.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// Operands in order.
    pub operands: Vec<Value>,
    /// Type of the result.
    pub ty: Type,
    /// The expression of the user that made it, where there is one.
    pub location: Option<&'static Location<'static>>,
}

/// A directed acyclic graph of operations. See the module's text for its invariants.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: DiGraph<Node, u32>,
    /// Given to each node that is added, so that what is derived from an expression keeps its place.
    pub location: Option<&'static Location<'static>>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values, operands before users.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = Value> + ExactSizeIterator + use<> {
        (0..self.len() as u32).map(Value)
    }

    /// The node that makes a value.
    pub fn node(&self, v: Value) -> &Node {
        &self.nodes[NodeIndex::new(v.index())]
    }

    /// The op that makes a value.
    pub fn op(&self, v: Value) -> &Op {
        &self.node(v).op
    }

    /// For passes that change an op in place; the verifier holds them to the type rule.
    pub fn op_mut(&mut self, v: Value) -> &mut Op {
        &mut self.nodes[NodeIndex::new(v.index())].op
    }

    /// Operands of the node that makes a value.
    pub fn operands(&self, v: Value) -> &[Value] {
        &self.node(v).operands
    }

    /// Type of a value.
    pub fn ty(&self, v: Value) -> &Type {
        &self.node(v).ty
    }

    /// Values that read a value, in order, one for each time they do.
    pub fn users(&self, v: Value) -> Vec<Value> {
        let mut users: Vec<Value> = self
            .nodes
            .neighbors_directed(NodeIndex::new(v.index()), Direction::Outgoing)
            .map(|n| Value(n.index() as u32))
            .collect();
        users.sort();
        users
    }

    /// Adds a node; its type follows from the op's rule.
    ///
    /// # Errors
    /// What the op's type rule says of these operands.
    pub fn try_add(&mut self, op: Op, operands: &[Value]) -> Result<Value, TypeError> {
        let types: Vec<&Type> = operands.iter().map(|&v| self.ty(v)).collect();
        let ty = op.infer(&types)?;
        Ok(self.push(op, operands, ty))
    }

    /// Adds a node of a compiler's pass, whose operands fit by construction.
    #[track_caller]
    pub fn add(&mut self, op: Op, operands: &[Value]) -> Value {
        match self.try_add(op, operands) {
            Ok(v) => v,
            Err(e) => panic!("a pass built a node that does not fit: {e}"),
        }
    }

    /// Adds a node whose type is known: that of an equal node on operands of equal types.
    pub(crate) fn add_again(&mut self, op: Op, operands: &[Value], ty: &Type) -> Value {
        debug_assert_eq!(
            op.infer(&operands.iter().map(|&v| self.ty(v)).collect::<Vec<_>>()).as_ref(),
            Ok(ty),
            "`{}` has the type that its rule gives",
            op.name()
        );
        self.push(op, operands, ty.clone())
    }

    /// Makes room for so many more nodes.
    pub(crate) fn reserve(&mut self, nodes: usize) {
        self.nodes.reserve_nodes(nodes);
        self.nodes.reserve_edges(2 * nodes);
    }

    /// Adds a leaf whose type is given, not inferred.
    pub fn leaf(&mut self, op: Op, ty: Type) -> Value {
        self.push(op, &[], ty)
    }

    /// Adds the node that takes one result of a scan; its type is read off the scan.
    pub fn scan_result(&mut self, scan: Value, result: Op) -> Value {
        let Op::Scan(s) = self.op(scan) else { panic!("only a scan has results") };
        let ty = match result {
            Op::Yield(i) => s.yield_type(i),
            Op::Final(i) => s.final_type(i),
            Op::Total(i) => s.total_type(i),
            _ => panic!("`{}` is not a result of a scan", result.name()),
        };
        self.push(result, &[scan], ty)
    }

    fn push(&mut self, op: Op, operands: &[Value], ty: Type) -> Value {
        let location = self.location;
        let index = self.nodes.add_node(Node { op, operands: operands.to_vec(), ty, location });
        for (i, operand) in operands.iter().enumerate() {
            assert!(operand.index() < index.index(), "an operand must come before its user");
            self.nodes.add_edge(NodeIndex::new(operand.index()), index, i as u32);
        }
        Value(index.index() as u32)
    }

    /// Appends operands to a node in place (a scan that gains a state); they must come before it.
    pub(crate) fn extend_operands(&mut self, v: Value, more: &[Value]) {
        for &operand in more {
            assert!(operand < v, "an operand must come before its user");
            let at = self.operands(v).len() as u32;
            self.nodes.add_edge(NodeIndex::new(operand.index()), NodeIndex::new(v.index()), at);
            self.nodes[NodeIndex::new(v.index())].operands.push(operand);
        }
    }

    /// Which values the roots need, themselves included.
    pub fn reachable(&self, roots: impl IntoIterator<Item = Value>) -> Vec<bool> {
        let mut seen = vec![false; self.len()];
        roots.into_iter().for_each(|root| seen[root.index()] = true);
        // Operands come before their users.
        for v in self.values().rev() {
            if seen[v.index()] {
                self.operands(v).iter().for_each(|o| seen[o.index()] = true);
            }
        }
        seen
    }

    /// The edges as petgraph keeps them: (from, to, operand position).
    pub(crate) fn edges(&self) -> impl Iterator<Item = (Value, Value, u32)> + '_ {
        use petgraph::visit::EdgeRef;
        self.nodes
            .edge_references()
            .map(|e| (Value(e.source().index() as u32), Value(e.target().index() as u32), *e.weight()))
    }

    // ---- what rules of derivatives and passes are written with -------------------------------------------

    /// A float constant of any type.
    pub fn constant(&mut self, value: f64, ty: Type) -> Value {
        self.leaf(Op::Constant(value), ty)
    }

    /// A shared scalar constant.
    pub fn scalar(&mut self, value: f64) -> Value {
        self.constant(value, Type::float(Extent::Shared, ()))
    }

    /// Sums what implicit and explicit broadcasts spread: takes a cotangent to the type of the operand it is for.
    pub fn sum_to(&mut self, v: Value, ty: &Type) -> Value {
        let mut v = v;
        if self.ty(v).shape != ty.shape {
            assert_eq!(ty.shape.rank(), 0, "only scalars broadcast over features implicitly");
            let ones = Shape(vec![1; self.ty(v).shape.rank()]);
            v = self.add(Op::Sum(ones), &[v]);
            v = self.add(Op::Reshape(Shape::scalar()), &[v]);
        }
        if self.ty(v).extent != ty.extent {
            assert!(ty.extent < self.ty(v).extent, "a cotangent is at least as wide as its operand");
            v = self.add(Op::SumRows(ty.extent), &[v]);
        }
        v
    }

    /// Spreads a value to a wider type: the inverse direction of [`sum_to`](Graph::sum_to).
    pub fn spread_to(&mut self, v: Value, ty: &Type) -> Value {
        let mut v = v;
        if self.ty(v).shape != ty.shape {
            assert_eq!(self.ty(v).shape.rank(), 0, "only scalars broadcast over features implicitly");
            v = self.add(Op::Reshape(Shape(vec![1; ty.shape.rank()])), &[v]);
            v = self.add(Op::Broadcast(ty.shape.clone()), &[v]);
        }
        if self.ty(v).extent != ty.extent {
            v = self.add(Op::Expand(ty.extent), &[v]);
        }
        v
    }

    /// Whether a value is a float.
    pub fn is_float(&self, v: Value) -> bool {
        self.ty(v).dtype == DType::F32
    }
}
