//! Between extents: sums over rows and their inverse direction, the last step of a sequence, and which steps are a
//! sample's own. All linear but the last, which has no derivative.

use crate::ir::dual::Dual;
use crate::ir::op::{Eval, Op, Row, Tangent};
use crate::ir::types::{DType, Extent, Type};

fn one<'a>(operands: &[&'a Type]) -> Result<&'a Type, String> {
    match operands {
        [t] => Ok(t),
        _ => Err("it takes one operand".to_string()),
    }
}

pub static SUM_ROWS: Row = Row {
    name: "sum_rows",
    infer: |op, t| {
        let Op::SumRows(to) = *op else { unreachable!("the row of sum_rows") };
        let t = one(t)?;
        if !t.is_float() || to >= t.extent || t.extent.join(to).is_none() {
            return Err("it sums floats over rows to a narrower extent".to_string());
        }
        Ok(t.at(to))
    },
    tangent: Tangent::Linear,
    transpose: Some(|g, node, _, ct| {
        let extent = g.ty(g.operands(node)[0]).extent;
        g.add(Op::Expand(extent), &[ct])
    }),
    eval: Eval::Rows(|_, a, sizes, out| {
        let n = out.ty.shape.len();
        let own = out.x.len() / n;
        for r in 0..sizes.rows(a[0].ty.extent) {
            for (o, x) in out.x[(r % own) * n..][..n].iter_mut().zip(a[0].row(r)) {
                *o = *o + *x;
            }
        }
    }),
};

pub static EXPAND: Row = Row {
    name: "expand",
    infer: |op, t| {
        let Op::Expand(to) = *op else { unreachable!("the row of expand") };
        let t = one(t)?;
        if to <= t.extent || t.extent.join(to).is_none() {
            return Err("it repeats rows to a wider extent".to_string());
        }
        Ok(t.at(to))
    },
    tangent: Tangent::Linear,
    transpose: Some(|g, node, _, ct| {
        let extent = g.ty(g.operands(node)[0]).extent;
        g.add(Op::SumRows(extent), &[ct])
    }),
    eval: Eval::Rows(|_, a, _, out| {
        let n = out.ty.shape.len();
        for (r, o) in out.x.chunks_mut(n).enumerate() {
            o.copy_from_slice(a[0].row(r));
        }
    }),
};

pub static LAST: Row = Row {
    name: "last",
    infer: |_, t| {
        let t = one(t)?;
        match t.extent {
            Extent::Time(_) => Ok(t.at(Extent::Batch)),
            _ => Err("only a sequence has a last step".to_string()),
        }
    },
    tangent: Tangent::Linear,
    transpose: Some(|g, node, _, ct| {
        let Extent::Time(axis) = g.ty(g.operands(node)[0]).extent else { unreachable!("checked by the type rule") };
        g.add(Op::PlaceLast(axis), &[ct])
    }),
    eval: Eval::Rows(|_, a, _, out| {
        let from = a[0].x.len() - out.x.len();
        out.x.copy_from_slice(&a[0].x[from..]);
    }),
};

pub static PLACE_LAST: Row = Row {
    name: "place_last",
    infer: |op, t| {
        let Op::PlaceLast(axis) = *op else { unreachable!("the row of place_last") };
        let t = one(t)?;
        if t.extent != Extent::Batch || !t.is_float() {
            return Err("it places a batch value of floats at the end of a sequence".to_string());
        }
        Ok(t.at(Extent::Time(axis)))
    },
    tangent: Tangent::Linear,
    transpose: Some(|g, _, _, ct| g.add(Op::Last, &[ct])),
    eval: Eval::Rows(|_, a, _, out| {
        let from = out.x.len() - a[0].x.len();
        out.x[from..].copy_from_slice(&a[0].x);
    }),
};

pub static WITHIN: Row = Row {
    name: "within",
    infer: |op, t| {
        let Op::Within(axis) = *op else { unreachable!("the row of within") };
        let t = one(t)?;
        if t.dtype != DType::I32 || t.extent != Extent::Batch || t.shape.rank() != 0 {
            return Err("it compares steps with one length for each sample, i32[B]".to_string());
        }
        Ok(Type::float(Extent::Time(axis), ()))
    },
    tangent: Tangent::Zero,
    transpose: None,
    eval: Eval::Rows(|_, a, sizes, out| {
        for (r, o) in out.x.iter_mut().enumerate() {
            let (step, sample) = (r / sizes.batch, r % sizes.batch);
            *o = Dual::new(if (step as f64) < a[0].x[sample].re { 1.0 } else { 0.0 });
        }
    }),
};
