//! Gated units with one state: h' is a blend of h and a candidate.

use crate::prelude::*;

/// ```text
/// r = σ(x·W_xr + h·W_hr + b_r)
/// z = σ(x·W_xz + h·W_hz + b_z)
/// n = tanh(x·W_xn + (r⊙h)·W_hn + b_n)
/// h' = z⊙h + (1 − z)⊙n
/// ```
/// Cho et al. (2014), "Learning phrase representations using RNN encoder–decoder". The reset is before the product,
/// as in the paper; libraries that have it behind compute another function.
///
/// Parameters: `x.w` `[inputs, 3 units]`, `x.b`, `gates.w` `[units, 2 units]`, `candidate.w` `[units, units]`.
/// State: `h`.
#[track_caller]
pub fn gru<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let h = s.state("h", units);
    s.next(h, gated(s, h, x, units))
}

/// What [`gru`] makes of a state h.
#[track_caller]
pub(super) fn gated<'r>(s: &Step<'r>, h: Expr<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let [xr, xz, xn] = s.affine("x", x, 3 * units).split();
    let [hr, hz] = s.linear("gates", h, 2 * units).split();
    let (r, z) = ((xr + hr).sigmoid(), (xz + hz).sigmoid());
    let n = (xn + s.linear("candidate", r * h, units)).tanh();
    z * h + (1.0 - z) * n
}

/// The GRU that resets behind its product, so that a step has one product instead of two which wait for each other:
/// ```text
/// r = σ(x·W_xr + b_xr + h·W_hr + b_hr)
/// z = σ(x·W_xz + b_xz + h·W_hz + b_hz)
/// n = tanh(x·W_xn + b_xn + r⊙(h·W_hn + b_hn))
/// h' = z⊙h + (1 − z)⊙n
/// ```
/// The first version of Cho et al. (2014), and what cuDNN, PyTorch (`nn.GRU`) and Keras (`reset_after=True`) compute.
/// Not the same function as [`gru`]. The gates' order and both biases are PyTorch's: its weights, transposed, are these.
///
/// Parameters: `x.w` `[inputs, 3 units]`, `x.b`, `h.w` `[units, 3 units]`, `h.b`. State: `h`.
#[track_caller]
pub fn gru_reset_after<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let h = s.state("h", units);
    let [xr, xz, xn] = s.affine("x", x, 3 * units).split();
    let [hr, hz, hn] = s.affine("h", h, 3 * units).split();
    let (r, z) = ((xr + hr).sigmoid(), (xz + hz).sigmoid());
    let n = (xn + r * hn).tanh();
    s.next(h, z * h + (1.0 - z) * n)
}

/// The minimal gated unit: one gate both forgets and resets.
/// ```text
/// f = σ(x·W_xf + h·W_hf + b_f)
/// n = tanh(x·W_xn + (f⊙h)·W_hn + b_n)
/// h' = (1 − f)⊙h + f⊙n
/// ```
/// Zhou et al. (2016), "Minimal gated unit for recurrent neural networks".
///
/// Parameters: `x.w` `[inputs, 2 units]`, `x.b`, `gate.w`, `candidate.w` `[units, units]`. State: `h`.
#[track_caller]
pub fn mgu<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let h = s.state("h", units);
    let [xf, xn] = s.affine("x", x, 2 * units).split();
    let f = (xf + s.linear("gate", h, units)).sigmoid();
    let n = (xn + s.linear("candidate", f * h, units)).tanh();
    s.next(h, (1.0 - f) * h + f * n)
}

/// A GRU whose gate and candidate do not see h, so that nothing but a blend is left in the loop:
/// ```text
/// z = σ(x·W_z + b_z)
/// n = x·W_n + b_n
/// h' = (1 − z)⊙h + z⊙n
/// ```
/// Feng et al. (2024), "Were RNNs all we needed?"
///
/// Parameters: `x.w` `[inputs, 2 units]`, `x.b`. State: `h`.
#[track_caller]
pub fn min_gru<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let h = s.state("h", units);
    let [z, n] = s.affine("x", x, 2 * units).split();
    let z = z.sigmoid();
    s.next(h, (1.0 - z) * h + z * n)
}
