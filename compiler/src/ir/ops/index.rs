//! By index: lookup in a table and its adjoint, one-hot, argmax.

use crate::ir::dual::Dual;
use crate::ir::op::{Eval, Op, Row, Tangent};
use crate::ir::types::{DType, Extent, Shape, Type};

fn index_shape(t: &Type) -> Result<&Shape, String> {
    if t.dtype == DType::I32 { Ok(&t.shape) } else { Err("the index must be an integer value".to_string()) }
}

/// The index as a position; the caller has checked inputs against their bounds.
fn position(x: Dual) -> usize {
    x.re as usize
}

pub static GATHER: Row = Row {
    name: "gather",
    infer: |_, t| {
        let [table, index] = t else { return Err("it takes a table and an index".to_string()) };
        if !table.is_float() || table.extent != Extent::Shared || table.shape.rank() == 0 {
            return Err("the table must be shared floats of at least one dimension".to_string());
        }
        let mut shape = index_shape(index)?.0.clone();
        shape.extend(&table.shape.0[1..]);
        Ok(Type::float(index.extent, shape))
    },
    tangent: Tangent::Linear,
    transpose: Some(|g, node, _, ct| {
        let (table, index) = (g.operands(node)[0], g.operands(node)[1]);
        let rows = g.ty(table).shape.0[0];
        g.add(Op::ScatterAdd(rows), &[index, ct])
    }),
    eval: Eval::Row(|_, a, _, out| {
        let width = a[0].shape.len() / a[0].shape.0[0];
        for (i, o) in a[1].x.iter().zip(out.chunks_mut(width)) {
            o.copy_from_slice(&a[0].x[position(*i) * width..][..width]);
        }
    }),
};

pub static SCATTER_ADD: Row = Row {
    name: "scatter_add",
    infer: |op, t| {
        let Op::ScatterAdd(n) = *op else { unreachable!("the row of scatter_add") };
        let [index, rows] = t else { return Err("it takes an index and rows".to_string()) };
        let lead = index_shape(index)?;
        if !rows.is_float() || rows.shape.0.get(..lead.rank()) != Some(&lead.0[..]) {
            return Err(format!("rows must be floats whose shape starts with {lead}"));
        }
        if rows.extent.join(index.extent).is_none() {
            return Err("sequences on different time axes have no common steps".to_string());
        }
        let mut shape = vec![n];
        shape.extend(&rows.shape.0[lead.rank()..]);
        Ok(Type::float(Extent::Shared, shape))
    },
    tangent: Tangent::Linear,
    transpose: Some(|g, node, _, ct| {
        let (index, rows) = (g.operands(node)[0], g.operands(node)[1]);
        let ty = g.ty(rows).clone();
        let v = g.add(Op::Gather, &[ct, index]);
        if g.ty(v).extent < ty.extent { g.spread_to(v, &ty) } else { g.sum_to(v, &ty) }
    }),
    eval: Eval::Rows(|_, a, sizes, out| {
        let width = out.ty.shape.len() / out.ty.shape.0[0];
        for r in 0..sizes.rows(a[0].ty.extent.max(a[1].ty.extent)) {
            for (i, row) in a[0].row(r).iter().zip(a[1].row(r).chunks(width)) {
                for (o, x) in out.x[position(*i) * width..][..width].iter_mut().zip(row) {
                    *o = *o + *x;
                }
            }
        }
    }),
};

pub static ONE_HOT: Row = Row {
    name: "one_hot",
    infer: |op, t| {
        let Op::OneHot(n) = *op else { unreachable!("the row of one_hot") };
        let [index] = t else { return Err("it takes one operand".to_string()) };
        let mut shape = index_shape(index)?.0.clone();
        shape.push(n);
        Ok(Type::float(index.extent, shape))
    },
    tangent: Tangent::Zero,
    transpose: None,
    eval: Eval::Row(|_, a, shape, out| {
        for (i, o) in a[0].x.iter().zip(out.chunks_mut(shape.last())) {
            o[position(*i)] = Dual::new(1.0);
        }
    }),
};

pub static ARGMAX: Row = Row {
    name: "argmax",
    infer: |_, t| {
        let [x] = t else { return Err("it takes one operand".to_string()) };
        if !x.is_float() || x.shape.rank() == 0 {
            return Err("it takes floats of at least one dimension".to_string());
        }
        Ok(Type::int(x.extent, x.shape.leading()))
    },
    tangent: Tangent::Zero,
    transpose: None,
    eval: Eval::Row(|_, a, _, out| {
        for (x, o) in a[0].x.chunks(a[0].shape.last()).zip(out) {
            let mut best = 0;
            for (i, v) in x.iter().enumerate() {
                if v.re > x[best].re || v.re.is_nan() && !x[best].re.is_nan() {
                    best = i;
                }
            }
            *o = Dual::new(best as f64);
        }
    }),
};
