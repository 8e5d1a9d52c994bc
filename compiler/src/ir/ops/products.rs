//! Products: of rows with a shared weight (`dot` and its two adjoints, closed under transposition), and of two
//! matrices within each row (`matmul`).

use crate::ir::dual::Dual;
use crate::ir::graph::{Graph, Value};
use crate::ir::op::{Eval, Op, Row, Tangent};
use crate::ir::types::{Extent, Shape, Type};

fn two<'a>(operands: &[&'a Type]) -> Result<(&'a Type, &'a Type), String> {
    match operands {
        [a, b] if a.is_float() && b.is_float() => Ok((a, b)),
        [_, _] => Err("it multiplies floats; turn integers into floats with to_float, or look them up".to_string()),
        _ => Err("it takes two operands".to_string()),
    }
}

/// A row of at least one dimension, and a shared matrix.
fn row_and_weight<'a>(operands: &[&'a Type]) -> Result<(&'a Type, &'a Type), String> {
    let (x, w) = two(operands)?;
    if w.extent != Extent::Shared || w.shape.rank() != 2 {
        return Err("the right side must be a shared matrix (a weight), not a value of each sample; \
                    for a product within each sample use matmul"
            .to_string());
    }
    if x.shape.rank() == 0 {
        return Err("the left side must have at least one dimension".to_string());
    }
    Ok((x, w))
}

/// Takes a cotangent to an operand's type, whether wider or narrower.
fn conform(g: &mut Graph, v: Value, operand: Value) -> Value {
    let ty = g.ty(operand).clone();
    if g.ty(v).extent < ty.extent { g.spread_to(v, &ty) } else { g.sum_to(v, &ty) }
}

pub static DOT: Row = Row {
    name: "dot",
    infer: |_, t| {
        let (x, w) = row_and_weight(t)?;
        let (k, n) = (w.shape.0[0], w.shape.0[1]);
        if x.shape.last() != k {
            return Err(format!(
                "the last dimension of the left side ({}) must equal the first of the weight ({k})",
                x.shape.last()
            ));
        }
        Ok(x.reshaped(x.shape.with_last(n)))
    },
    tangent: Tangent::Multilinear,
    transpose: Some(|g, node, i, ct| {
        let (x, w) = (g.operands(node)[0], g.operands(node)[1]);
        if i == 0 { g.add(Op::DotNt, &[ct, w]) } else { g.add(Op::DotTn, &[x, ct]) }
    }),
    eval: Eval::Row(|_, a, out_shape, out| {
        let (k, n) = (a[1].shape.0[0], a[1].shape.0[1]);
        for l in 0..out_shape.len() / n {
            for j in 0..n {
                let mut sum = Dual::default();
                for i in 0..k {
                    sum = sum + a[0].x[l * k + i] * a[1].x[i * n + j];
                }
                out[l * n + j] = sum;
            }
        }
    }),
};

pub static DOT_NT: Row = Row {
    name: "dot.nt",
    infer: |_, t| {
        let (x, w) = row_and_weight(t)?;
        let (k, n) = (w.shape.0[0], w.shape.0[1]);
        if x.shape.last() != n {
            return Err(format!(
                "the last dimension of the left side ({}) must equal the last of the weight ({n})",
                x.shape.last()
            ));
        }
        Ok(x.reshaped(x.shape.with_last(k)))
    },
    tangent: Tangent::Multilinear,
    transpose: Some(|g, node, i, ct| {
        let (x, w) = (g.operands(node)[0], g.operands(node)[1]);
        if i == 0 { g.add(Op::Dot, &[ct, w]) } else { g.add(Op::DotTn, &[ct, x]) }
    }),
    eval: Eval::Row(|_, a, out_shape, out| {
        let (k, n) = (a[1].shape.0[0], a[1].shape.0[1]);
        for l in 0..out_shape.len() / k {
            for i in 0..k {
                let mut sum = Dual::default();
                for j in 0..n {
                    sum = sum + a[0].x[l * n + j] * a[1].x[i * n + j];
                }
                out[l * k + i] = sum;
            }
        }
    }),
};

pub static DOT_TN: Row = Row {
    name: "dot.tn",
    infer: |_, t| {
        let (a, b) = two(t)?;
        if a.shape.rank() == 0 || a.shape.leading() != b.shape.leading() || b.shape.rank() == 0 {
            return Err(format!("leading dimensions of {} and {} differ", a.shape, b.shape));
        }
        if a.extent.join(b.extent).is_none() {
            return Err("sequences on different time axes have no common steps".to_string());
        }
        Ok(Type::float(Extent::Shared, [a.shape.last(), b.shape.last()]))
    },
    tangent: Tangent::Multilinear,
    transpose: Some(|g, node, i, ct| {
        let (a, b) = (g.operands(node)[0], g.operands(node)[1]);
        let v = if i == 0 { g.add(Op::DotNt, &[b, ct]) } else { g.add(Op::Dot, &[a, ct]) };
        conform(g, v, g.operands(node)[i])
    }),
    eval: Eval::Rows(|_, a, sizes, out| {
        let (k, n) = (a[0].ty.shape.last(), a[1].ty.shape.last());
        let extent = a[0].ty.extent.max(a[1].ty.extent);
        for r in 0..sizes.rows(extent) {
            let (x, y) = (a[0].row(r), a[1].row(r));
            for l in 0..x.len() / k {
                for i in 0..k {
                    for j in 0..n {
                        out.x[i * n + j] = out.x[i * n + j] + x[l * k + i] * y[l * n + j];
                    }
                }
            }
        }
    }),
};

fn transposed(shape: &Shape, t: bool) -> (usize, usize) {
    let (m, n) = (shape.0[0], shape.0[1]);
    if t { (n, m) } else { (m, n) }
}

fn flags(op: &Op) -> (bool, bool) {
    match op {
        Op::MatMul { ta, tb } => (*ta, *tb),
        _ => unreachable!("the row of matmul"),
    }
}

/// With C = op(A)·op(B): the adjoints are products of the same family, so the op is closed under transposition.
pub static MATMUL: Row = Row {
    name: "matmul",
    infer: |op, t| {
        let (a, b) = two(t)?;
        if a.shape.rank() != 2 || b.shape.rank() != 2 {
            return Err("both sides must be matrices within each row".to_string());
        }
        let (ta, tb) = flags(op);
        let ((m, k), (k2, n)) = (transposed(&a.shape, ta), transposed(&b.shape, tb));
        if k != k2 {
            return Err(format!("the inner dimensions {k} and {k2} differ"));
        }
        let extent = a.extent.join(b.extent).ok_or("sequences on different time axes have no common steps")?;
        Ok(Type::float(extent, [m, n]))
    },
    tangent: Tangent::Multilinear,
    transpose: Some(|g, node, i, ct| {
        let (a, b) = (g.operands(node)[0], g.operands(node)[1]);
        let (ta, tb) = flags(g.op(node));
        let (op, pair) = match (i, ta, tb) {
            (0, false, _) => (Op::MatMul { ta: false, tb: !tb }, [ct, b]),
            (0, true, _) => (Op::MatMul { ta: tb, tb: true }, [b, ct]),
            (_, _, false) => (Op::MatMul { ta: !ta, tb: false }, [a, ct]),
            (_, _, true) => (Op::MatMul { ta: true, tb: ta }, [ct, a]),
        };
        let v = g.add(op, &pair);
        conform(g, v, g.operands(node)[i])
    }),
    eval: Eval::Row(|op, a, shape, out| {
        let (ta, tb) = flags(op);
        let (m, n) = (shape.0[0], shape.0[1]);
        let (_, k) = transposed(a[0].shape, ta);
        for r in 0..m {
            for c in 0..n {
                let mut sum = Dual::default();
                for i in 0..k {
                    let x = a[0].x[if ta { i * m + r } else { r * k + i }];
                    let y = a[1].x[if tb { c * k + i } else { i * n + c }];
                    sum = sum + x * y;
                }
                out[r * n + c] = sum;
            }
        }
    }),
};
