//! Functions that are short compositions of the op table: their derivatives, engines and fusions are those of the
//! parts, so none of them is known to any later pass. What norms are made around is an op (`ir/ops/norms.rs`).

use std::panic::Location;

use super::Site;
use super::expr::{Expr, exact};
use super::pointwise::select;
use super::recording::Recording;
use crate::error::RecordErrorKind as Kind;
use crate::ir::{Norm, Op};

/// Activations.
impl<'r> Expr<'r> {
    /// x where x > 0, else `slope`·x.
    #[track_caller]
    pub fn leaky_relu(self, slope: f32) -> Expr<'r> {
        select(self.gt(0.0), self, self * slope)
    }

    /// x where x > 0, else α(eˣ − 1). Clevert et al. (2016), "Fast and accurate deep network learning by
    /// exponential linear units". Written max(x, 0) + α·expm1(min(x, 0)), so that nothing overflows.
    ///
    /// One of the two terms is zero, so the sum is exact. Above zero elu is x; below, what scaling makes of the error
    /// of expm1 is at most twice that error in units in the last place, and half a unit for its own rounding.
    #[track_caller]
    pub fn elu(self, alpha: f32) -> Expr<'r> {
        self.relu() + self.minimum(0.0).expm1() * alpha
    }

    /// ln σ(x) = −softplus(−x)
    #[track_caller]
    pub fn log_sigmoid(self) -> Expr<'r> {
        -(-self).softplus()
    }
}

/// Along the last axis: probabilities and norms.
///
/// ```
/// # use retrograd_compiler::ir::Program;
/// # Program::record("doc", |p| {
/// let (scores, values) = (p.input("scores", 7), p.input("values", [7, 16]));
/// p.output("attended", scores.softmax().matmul(values)); // f32[B, 16]
/// # })?;
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
impl<'r> Expr<'r> {
    /// exp(xᵢ) / Σⱼ exp(xⱼ)
    #[track_caller]
    pub fn softmax(self) -> Expr<'r> {
        let Some(x) = self.along_last(Location::caller(), "softmax") else { return self.poisoned() };
        let e = x.less_maximum().exp();
        e / e.sum_last()
    }

    /// xᵢ − ln Σⱼ exp(xⱼ)
    #[track_caller]
    pub fn log_softmax(self) -> Expr<'r> {
        let Some(x) = self.along_last(Location::caller(), "log_softmax") else { return self.poisoned() };
        let x = x.less_maximum();
        x - x.log_sum_exp()
    }

    /// A class drawn at random from softmax(x) along the last axis: `[.., N] → i32[..]`. The chance comes from outside, as
    /// numbers drawn uniformly from \[0, 1) by whoever runs the program, of the shape of x, new ones for each draw; the
    /// program itself gives the same result each time.
    ///
    /// argmaxᵢ (xᵢ − ln(−ln uᵢ)): the Gumbel-max trick, as in Maddison et al. (2014), "A* sampling". No derivative passes.
    /// For a temperature, divide x by it.
    ///
    /// ```
    /// # use retrograd_compiler::ir::Program;
    /// # Program::record("doc", |p| {
    /// let (chance, first) = (p.sequence("chance", 9), p.labels("first")); // f32[T, B, 9], i32[B]
    /// let written = p.scan("write", |s| {
    ///     let (h, last) = (s.state("h", 16), s.state_from("last", first));
    ///     let h = s.next(h, (s.linear("h", h, 16) + s.embedding("words", last, 9, 16)).tanh());
    ///     s.next(last, s.affine("readout", h, 9).sample(s.at(chance)))
    /// });
    /// p.output("written", written.all()); // i32[T, B]
    /// # })?;
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    #[track_caller]
    pub fn sample(self, uniform: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        let Some(((x, given), (u, other))) = self.both_here(uniform, site) else { return self.poisoned() };
        if x.along_last(site, "sample").is_none() {
            return self.poisoned();
        }
        if !other.is_float() || other.shape != given.shape {
            let wanted = "uniform floats of the same shape";
            return self.fail(site, Kind::BadTarget { op: "sample", given, wanted, other });
        }
        (x - (-u.ln()).ln()).argmax()
    }

    /// (x − μ) / √(σ² + ε) · gain + bias, with the mean μ and the (biased) variance σ² of the last axis.
    /// Ba et al. (2016), "Layer normalization".
    #[track_caller]
    pub fn layer_norm(self, gain: Expr<'r>, bias: Expr<'r>, epsilon: f32) -> Expr<'r> {
        let Some(x) = self.along_last(Location::caller(), "layer_norm") else { return self.poisoned() };
        x.norm(true, epsilon) * gain + bias
    }

    /// x / √(mean(x²) + ε) · gain, with the mean of the last axis. Zhang & Sennrich (2019), "Root mean square layer
    /// normalization".
    #[track_caller]
    pub fn rms_norm(self, gain: Expr<'r>, epsilon: f32) -> Expr<'r> {
        let Some(x) = self.along_last(Location::caller(), "rms_norm") else { return self.poisoned() };
        x.norm(false, epsilon) * gain
    }

    /// A value with a last axis, in the frame being recorded.
    pub(super) fn along_last(self, site: Site, op: &'static str) -> Option<Expr<'r>> {
        self.home().ok()?.along_last(site, op, self)
    }

    /// x − max x, so that no exponential overflows. What is subtracted cancels in whatever it is used for, so no
    /// derivative goes through it.
    #[track_caller]
    pub(super) fn less_maximum(self) -> Expr<'r> {
        let site = Location::caller();
        let axis = self.shape().rank().saturating_sub(1);
        self - self.reduce(site, "max", axis, Op::Max).stop_gradient()
    }

    /// ln Σ exp(xᵢ) along the last axis, which stays as 1, where the largest xᵢ is 0.
    ///
    /// Taken by log1p of the sum less 1: what is certain has a loss of 10⁻⁹ and not of 0. A term that is 1 is taken off before it
    /// is added, which is exact and has no derivative.
    #[track_caller]
    pub(super) fn log_sum_exp(self) -> Expr<'r> {
        let is_largest = self.ge(0.0);
        ((self.exp() - is_largest).sum_last() + (is_largest.sum_last() - 1.0)).log1p()
    }

    #[track_caller]
    pub(super) fn sum_last(self) -> Expr<'r> {
        self.reduce(Location::caller(), "sum", self.shape().rank().saturating_sub(1), Op::Sum)
    }

    #[track_caller]
    fn norm(self, centred: bool, epsilon: f32) -> Expr<'r> {
        self.apply(Location::caller(), Op::Norm(Norm { centred, epsilon: exact(epsilon) }), &[])
    }
}

impl Recording {
    /// A value with a last axis, in the frame being recorded.
    pub(super) fn along_last<'r>(&'r self, site: Site, op: &'static str, e: Expr<'r>) -> Option<Expr<'r>> {
        let (x, ty) = self.floats(site, op, e)?;
        if ty.shape.rank() == 0 {
            self.fail(site, Kind::BadAxis { op, axis: 0, given: ty, rank: 0 });
            return None;
        }
        Some(x)
    }
}
