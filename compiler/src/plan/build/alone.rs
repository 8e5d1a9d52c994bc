//! Stages of one node: copies, sums over rows, lookups, and all else that is no kernel.

use super::{Builder, Home, Pace, Scope, stage};
use crate::ir::Value;
use crate::ir::op::Op;
use crate::ir::types::Extent;
use crate::plan::group::{View, follow_one, is_dense, row_major};
use crate::plan::{Domain, Span, Stage, Work};

impl Builder {
    /// Copies a value, seen through its view, to a home.
    pub(super) fn copy_view(&mut self, scope: &mut Scope, v: Value, into: Home, name: &str, stages: &mut Vec<Stage>) {
        let ty = scope.ty(v).clone();
        let view = scope.groups.view(v).clone();
        let n = ty.shape.len();
        let (domain, pace) = self.pace(scope, ty.extent, std::iter::once(v));
        if let Some(value) = scope.groups.constant(v) {
            stages.push(stage(name, domain, Work::Fill { into: into.span(pace, 0, n), value }));
            return;
        }
        let home = self.home_of(scope, view.base, stages);
        let from = home.span(pace, view.offset, n);
        self.copy(scope, v, from, view.strides, into.span(pace, 0, n), row_major(&ty.shape.0), domain, name, stages);
    }

    #[expect(clippy::too_many_arguments, reason = "a copy has that many sides")]
    fn copy(
        &mut self,
        scope: &Scope,
        v: Value,
        from: Span,
        strides: Vec<usize>,
        into: Span,
        into_strides: Vec<usize>,
        domain: Domain,
        name: &str,
        stages: &mut Vec<Stage>,
    ) {
        let shape = &scope.ty(v).shape;
        let work = if is_dense(&shape.0, &strides) && is_dense(&shape.0, &into_strides) {
            let n = shape.len();
            Work::Copy { from, into, dims: vec![n], strides: vec![1], into_strides: vec![1] }
        } else {
            Work::Copy { from, into, dims: shape.0.clone(), strides, into_strides }
        };
        stages.push(stage(name, domain, work));
    }

    pub(super) fn alone(&mut self, scope: &mut Scope, v: Value, stages: &mut Vec<Stage>) {
        let graph = scope.groups.graph;
        let op = graph.op(v).clone();
        let operands = graph.operands(v).to_vec();
        let ty = graph.ty(v).clone();
        let home = scope.homes[&v];
        let n = ty.shape.len();
        let name = self.buffers[home.buffer.0].name.clone();
        // Ops that sum over rows run over the rows of their operands.
        let extent = match op {
            Op::DotTn | Op::SumRows(_) | Op::ScatterAdd(_) => {
                operands.iter().map(|&o| graph.ty(o).extent).max().expect("they have operands")
            }
            _ => ty.extent,
        };
        let (domain, pace) = self.pace(scope, extent, operands.iter().copied());
        let into = home.span(pace, 0, n);
        let len = |v: Value| graph.ty(v).shape.clone();
        match op {
            Op::DotTn => {
                let stride = len(operands[1]).last();
                let left = self.spans(scope, operands[0], pace, stages);
                let right = self.spans(scope, operands[1], pace, stages);
                // A row holds one pair, or as many as the leading dimensions say.
                let pairs = len(operands[0]).len() / len(operands[0]).last();
                let mut row = 0;
                for &a in &left {
                    let mut column = 0;
                    for &b in &right {
                        let offset = home.offset + row * stride + column;
                        let work = Work::ReduceProduct {
                            a,
                            b,
                            pairs,
                            into: home.buffer,
                            offset,
                            stride,
                            sums: None,
                            carried: None,
                        };
                        stages.push(stage(&name, domain, work));
                        column += b.len / pairs;
                    }
                    row += a.len / pairs;
                }
            }
            Op::SumRows(_) => {
                let mut at = 0;
                for from in self.spans(scope, operands[0], pace, stages) {
                    let into = home.span(Pace { stepwise: false }, at, from.len);
                    at += from.len;
                    stages.push(stage(&name, domain, Work::ReduceRows { from, times: None, into, carried: None }));
                }
            }
            Op::Dot | Op::DotNt => {
                let from = self.span(scope, operands[0], pace, stages);
                let (packed, k) = self.pack(scope, v, 0, ty.shape.last(), stages);
                let (m, n) = (ty.shape.len() / ty.shape.last(), ty.shape.last());
                stages.push(stage(&name, domain, Work::MatrixRows { from, into, m, k, n, packed }));
            }
            Op::MatMul { ta, tb } => {
                let a = self.span(scope, operands[0], pace, stages);
                let b = self.span(scope, operands[1], pace, stages);
                let k = a.len / ty.shape.0[0];
                let mkn = [ty.shape.0[0], k, ty.shape.0[1]];
                stages.push(stage(&name, domain, Work::MatMul { a, b, into, mkn, ta, tb }));
            }
            Op::Gather => {
                let table = self.span(scope, operands[0], pace, stages);
                let index = self.span(scope, operands[1], pace, stages);
                let width = n / index.len;
                stages.push(stage(&name, domain, Work::Gather { table, index, into, width }));
            }
            Op::ScatterAdd(_) => {
                let index = self.span(scope, operands[0], pace, stages);
                let from = self.span(scope, operands[1], pace, stages);
                let width = from.len / index.len;
                stages.push(stage(&name, domain, Work::Scatter { index, from, into, width, carried: None }));
            }
            Op::OneHot(n) => {
                let index = self.span(scope, operands[0], pace, stages);
                stages.push(stage(&name, domain, Work::OneHot { index, into, n }));
            }
            Op::Argmax => {
                let from = self.span(scope, operands[0], pace, stages);
                let n = len(operands[0]).last();
                stages.push(stage(&name, domain, Work::Argmax { from, into, n }));
            }
            Op::ToFloat => {
                let from = self.span(scope, operands[0], pace, stages);
                stages.push(stage(&name, domain, Work::ToFloat { from, into }));
            }
            Op::Select => {
                let [mask, yes, no] = [0, 1, 2].map(|i| self.span(scope, operands[i], pace, stages));
                stages.push(stage(&name, domain, Work::Choose { mask, yes, no, into }));
            }
            Op::PlaceLast(axis) => {
                // Over all rows at once, though the operand has a row per sample only.
                let pace = Pace { stepwise: false };
                let (from, into) = (self.span(scope, operands[0], pace, stages), home.span(pace, 0, n));
                stages.push(stage(&name, Domain::Time(axis), Work::PlaceLast { from, into, axis }));
            }
            Op::Within(axis) => {
                let pace = Pace { stepwise: false };
                let (from, into) = (self.span(scope, operands[0], pace, stages), home.span(pace, 0, n));
                stages.push(stage(&name, Domain::Time(axis), Work::Within { from, into }));
            }
            Op::Concat(axis) => {
                let strides = row_major(&ty.shape.0);
                let mut at = 0;
                for &part in &operands {
                    let start = at * strides[axis];
                    at += len(part).0[axis];
                    self.place_part(scope, part, home, start, &strides, ty.extent, &name, stages);
                }
            }
            Op::Pad { axis, before, .. } => {
                stages.push(stage(&name, domain, Work::Fill { into, value: 0.0 }));
                let strides = row_major(&ty.shape.0);
                let start = before * strides[axis];
                self.place_part(scope, operands[0], home, start, &strides, ty.extent, &name, stages);
            }
            // A view that no reader could follow.
            Op::Slice { .. }
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Broadcast(_)
            | Op::Expand(_)
            | Op::StopGradient => {
                let operand = operands[0];
                let view = scope.groups.view(operand).clone();
                if let Some(value) = scope.groups.constant(operand) {
                    stages.push(stage(&name, domain, Work::Fill { into, value }));
                    return;
                }
                let source = self.home_of(scope, view.base, stages);
                let shape = &graph.ty(operand).shape;
                let inner = View { base: view.base, offset: view.offset, strides: view.strides.clone() };
                let (offset, dims, strides, into_strides) = match follow_one(&op, &inner, shape, &ty.shape) {
                    Some(seen) => (seen.offset, ty.shape.0.clone(), seen.strides, row_major(&ty.shape.0)),
                    // Only a reshape cannot be followed: its features keep their order.
                    None => (view.offset, shape.0.clone(), view.strides, row_major(&shape.0)),
                };
                let from = source.span(pace, offset, n);
                stages.push(stage(&name, domain, Work::Copy { from, into, dims, strides, into_strides }));
            }
            other => panic!("`{}` has no stage", other.name()),
        }
    }

    /// Copies one part of a concat to its place, unless its kernel writes it there.
    #[expect(clippy::too_many_arguments, reason = "a part has that many sides")]
    fn place_part(
        &mut self,
        scope: &mut Scope,
        part: Value,
        home: Home,
        start: usize,
        strides: &[usize],
        extent: Extent,
        name: &str,
        stages: &mut Vec<Stage>,
    ) {
        let shape = scope.ty(part).shape.clone();
        let view = scope.groups.view(part).clone();
        let placed = scope.homes.get(&view.base).is_some_and(|own| {
            view.base == part && own.buffer == home.buffer && own.rows == home.rows && own.offset == home.offset + start
        });
        if placed {
            return;
        }
        let (domain, pace) = self.pace(scope, extent, std::iter::once(part));
        let into = home.span(pace, start, shape.len());
        if let Some(value) = scope.groups.constant(part) {
            if shape.rank() == 1 {
                stages.push(stage(name, domain, Work::Fill { into, value }));
                return;
            }
            let base = self.home_of(scope, view.base, stages);
            let from = base.span(pace, 0, shape.len());
            let work = Work::Copy {
                from,
                into,
                dims: shape.0.clone(),
                strides: vec![0; shape.rank()],
                into_strides: strides.to_vec(),
            };
            stages.push(stage(name, domain, work));
            return;
        }
        let base = self.home_of(scope, view.base, stages);
        let from = base.span(pace, view.offset, shape.len());
        self.copy(scope, part, from, view.strides, into, strides.to_vec(), domain, name, stages);
    }
}
