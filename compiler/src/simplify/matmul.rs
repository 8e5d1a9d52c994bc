//! Small products within a row, written out as pointwise work and sums.
//!
//! A product within a row is a call of a routine for each row. Its operands and its result are in memory, so it separates the
//! pointwise work before it from the work after it. For a product of few terms, as `v kᵀ` and `M q` are where each sample has a
//! matrix for its state, that costs more than the product itself. Written out, it is part of a row kernel.
//!
//! Before: derivatives have been taken, so what they are made of is written out as well. After: `MatMul` nodes are those
//! for which the routine is faster.

use super::algebra::{binary, emit};
use super::rebuild::Numbered;
use crate::ir::{Binary, Op, Shape, Value};

/// The product a·b, either of which may be stored transposed, as pointwise work and sums; `None` where the routine is faster.
pub fn written_out(g: &mut Numbered, ta: bool, tb: bool, a: Value, b: Value) -> Option<Value> {
    let (sa, sb) = (g.ty(a).shape.clone(), g.ty(b).shape.clone());
    let (m, k) = if ta { (sa.0[1], sa.0[0]) } else { (sa.0[0], sa.0[1]) };
    let n = if tb { sb.0[0] } else { sb.0[1] };
    if !is_small(m, k, n) {
        return None;
    }
    let seen = |g: &mut Numbered, v: Value, dims: &[usize], large: &[usize]| {
        let v = emit(g, Op::Reshape(Shape(dims.to_vec())), &[v]);
        emit(g, Op::Broadcast(Shape(large.to_vec())), &[v])
    };
    if k == 1 {
        let (column, row) = (seen(g, a, &[m, 1], &[m, n]), seen(g, b, &[1, n], &[m, n]));
        return Some(binary(g, Binary::Mul, column, row));
    }
    let (matrix, vector, sums_rows) = if n == 1 {
        (a, b, ta)
    } else if m == 1 {
        (b, a, !tb)
    } else {
        // What is summed over stands where the operands' rows stay in one piece.
        let (dims_a, dims_b, large, sums) = match (ta, tb) {
            (false, false) => ([m, k, 1], [1, k, n], [m, k, n], 1),
            (false, true) => ([m, 1, k], [1, n, k], [m, n, k], 2),
            (true, false) => ([k, m, 1], [k, 1, n], [k, m, n], 0),
            (true, true) => {
                let turned = written_out(g, false, false, b, a)?;
                return Some(emit(g, Op::Transpose(vec![1, 0]), &[turned]));
            }
        };
        let (a, b) = (seen(g, a, &dims_a, &large), seen(g, b, &dims_b, &large));
        let terms = binary(g, Binary::Mul, a, b);
        let sum = emit(g, Op::Sum(Shape(large.to_vec()).with(sums, 1)), &[terms]);
        return Some(emit(g, Op::Reshape(Shape(vec![m, n])), &[sum]));
    };
    let stored = g.ty(matrix).shape.clone();
    let dims = if sums_rows { [k, 1] } else { [1, k] };
    let vector = seen(g, vector, &dims, &stored.0);
    let terms = binary(g, Binary::Mul, matrix, vector);
    let sum = emit(g, Op::Sum(stored.with(usize::from(!sums_rows), 1)), &[terms]);
    Some(emit(g, Op::Reshape(Shape(vec![m, n])), &[sum]))
}

/// Terms of a product of matrices from which on the routine is faster, whatever the shape: 32 × 32 × 32.
const MATRICES: usize = 32 * 32 * 32;

/// Elements of a matrix from which on its product with a vector is faster by the routine: 64 × 64.
const MATRIX: usize = 64 * 64;

/// And if its sides are no multiples of [`PANEL`], which the routine packs and copies: 128 × 128.
const ODD_MATRIX: usize = 128 * 128;

/// Columns that the routine takes at a time where vectors are widest.
const PANEL: usize = 32;

/// Whether writing a product out is faster than calling the routine, for a training step of recurrences whose state, or what
/// they look at, is a matrix (AVX-512, times of the call over those of pointwise work, by `cargo bench --bench matrix_state`):
///
/// | | 4 | 8 | 16 | 32 | 63 | 64 | 96 | 100 | 127 | 128 |
/// |---|---|---|---|---|---|---|---|---|---|---|
/// | `M x`, `xᵀ M` of a matrix in memory | | 3.5 | 3.7 | 1.4 | 2.7 | 0.93 | 0.80 | 1.0 | 1.6 | 0.5 |
/// | the same of a state that a step has just made | 3.7 | 3.8 | 3.3 | 1.3 | 3.1 | 0.95 | | 1.1 | 1.5 | |
/// | `M N` | 1.9 | 1.7 | 1.6 | 0.6 | | 0.4 | | | | |
///
/// An outer product is as many multiplications as elements, and always written out: 2 to 8.
fn is_small(m: usize, k: usize, n: usize) -> bool {
    let elements = [m, k, n].iter().fold(1usize, |product, &n| product.saturating_mul(n));
    let fits_panels = [m, k, n].iter().all(|&n| n == 1 || n.is_multiple_of(PANEL));
    match (k, m, n) {
        (1, ..) => true,
        (_, 1, _) | (_, _, 1) => elements < if fits_panels { MATRIX } else { ODD_MATRIX },
        _ => elements < MATRICES,
    }
}
