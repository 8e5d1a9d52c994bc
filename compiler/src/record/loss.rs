//! Losses: one number for each row. [`Recorder::minimize`](super::Recorder::minimize) takes the mean over rows;
//! for anything else (sums, masks, weights) say so with the methods over rows, and minimise the result.
//!
//! Shapes must agree exactly: numpy's broadcast, so handy in formulas, hides mistakes in losses.

use std::panic::Location;

use super::Site;
use super::expr::{Expr, Operand, Value};
use super::pointwise::select;
use crate::error::RecordErrorKind as Kind;
use crate::ir::{Binary, DType, Extent, Op, Type};

/// Losses.
///
/// ```
/// # use retrograd_compiler::ir::Program;
/// # Program::record("doc", |p| {
/// let logits = p.affine("readout", p.sequence("x", 8), 10); // f32[T, B, 10]
/// let label = p.labels_sequence("label"); // i32[T, B]
/// let loss = logits.cross_entropy(label); // f32[T, B]
/// p.output("per_sample", loss.mean_time());
/// p.output("accuracy", logits.accuracy(label).mean_rows());
/// p.minimize(loss); // its mean over steps and samples
/// # })?;
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
impl<'r> Expr<'r> {
    /// −ln softmax(x)\[label\] along the last axis, x being logits: `[.., N], i32[..]`. A label that is an input is
    /// checked at run time to be below N. More than one label a row: the mean of theirs.
    ///
    /// A class whose logit is −∞ is ruled out: it has the probability 0, and its logit the derivative 0. Where the label
    /// itself is ruled out, the loss is ∞. A row whose logits are all −∞, or which has one that is ∞ or NaN, has no
    /// distribution: its loss is NaN.
    #[track_caller]
    pub fn cross_entropy(self, labels: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        let Some((x, one_hot)) = self.labelled(site, "cross_entropy", labels) else { return self.poisoned() };
        // ln Σ exp(x − m) − (x − m)[label]: the maximum m cancels.
        let x = x.less_maximum();
        let log_sum = x.log_sum_exp().reshape(x.shape().leading().to_vec());
        let loss = log_sum - x.chosen(site, one_hot).sum();
        loss.mean_features()
    }

    /// [`cross_entropy`](Expr::cross_entropy) where one number stands for no label, as −100 does for others: 0 there, with
    /// no gradient. Of more than one label a row, the mean of those that are labels. A mean over the rows that have one is
    /// a masked one, with [`is_label`](Expr::is_label) as the mask.
    ///
    /// ```
    /// # use retrograd_compiler::ir::Program;
    /// # Program::record("doc", |p| {
    /// let logits = p.affine("readout", p.sequence("x", 8), 10);
    /// let label = p.labels_sequence("label"); // from 0 to 9, or −100
    /// p.minimize(logits.cross_entropy_ignoring(label, -100).masked_mean(label.is_label(-100)));
    /// # })?;
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    ///
    /// A run checks labels that are an input, or an input [at](super::Step::at) a step: each is below N or the number that is
    /// ignored, of which floats tell those apart that are nearer to 0 than 2²⁴.
    #[track_caller]
    pub fn cross_entropy_ignoring(self, labels: Expr<'r>, ignored: i32) -> Expr<'r> {
        let site = Location::caller();
        let Some(((_, _), (labels, ty))) = self.both_here(labels, site) else { return self.poisoned() };
        if ty.dtype != DType::I32 {
            // It says what is wrong with them.
            return self.cross_entropy(labels);
        }
        let is_label = labels.is_label(ignored);
        let Ok(recording) = labels.home() else { return self.poisoned() };
        let zero = recording.make(|state| {
            let frame = state.frame();
            let graph = state.graph();
            graph.location = Some(site);
            Some(Value { frame, value: graph.constant(0.0, Type::int(Extent::Shared, ty.shape.clone())) })
        });
        let labels = is_label.apply(site, Op::Select, &[labels.into(), zero.into()]);
        let Some((x, one_hot)) = self.labelled(site, "cross_entropy_ignoring", labels) else { return self.poisoned() };
        let x = x.less_maximum();
        let loss = x.exp().sum().ln() - x.chosen(site, one_hot).sum();
        let loss = loss.chosen(site, is_label);
        if ty.shape.rank() == 0 {
            return loss;
        }
        let count = is_label.sum_features();
        select(count, loss.sum_features() / count.maximum(1.0), 0.0)
    }

    /// 1 where an integer is another number than the one that is ignored, else 0.
    #[track_caller]
    pub fn is_label(self, ignored: i32) -> Expr<'r> {
        let site = Location::caller();
        let number = Operand::Number(f64::from(ignored));
        self.apply(site, Op::ToFloat, &[]).binary(site, Binary::Ne, number)
    }

    /// The labelled feature along the last axis: `[.., N], i32[..] → [..]`. It is chosen, so what the other features hold,
    /// NaN and −∞ included, reaches neither its value nor a derivative.
    ///
    /// ```
    /// # use retrograd_compiler::ir::Program;
    /// # Program::record("doc", |p| {
    /// let log_p = p.input("logits", 10).log_softmax();
    /// let loss = -log_p.pick(p.labels("label")); // f32[B]: the cross-entropy
    /// # p.minimize(loss);
    /// # })?;
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    #[track_caller]
    pub fn pick(self, labels: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        match self.labelled(site, "pick", labels) {
            Some((x, one_hot)) => x.chosen(site, one_hot).sum(),
            None => self.poisoned(),
        }
    }

    /// The features where a mask of the same shape is not 0, and 0 elsewhere.
    fn chosen(self, site: Site, mask: Expr<'r>) -> Expr<'r> {
        mask.pointwise(site, Op::Select, &[self.into(), Operand::Number(0.0)])
    }

    /// 1 where the largest feature is the labelled one, else 0; the mean where a row has more than one label.
    #[track_caller]
    pub fn accuracy(self, labels: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        if self.labelled(site, "accuracy", labels).is_none() {
            return self.poisoned();
        }
        self.argmax().to_float().eq(labels.to_float()).mean_features()
    }

    /// Mean of (x − target)² over the features of a row.
    #[track_caller]
    pub fn mse(self, target: Expr<'r>) -> Expr<'r> {
        let Some((x, target)) = self.against(Location::caller(), "mse", target) else { return self.poisoned() };
        (x - target).square().mean_features()
    }

    /// Mean of |x − target| over the features of a row.
    #[track_caller]
    pub fn mae(self, target: Expr<'r>) -> Expr<'r> {
        let Some((x, target)) = self.against(Location::caller(), "mae", target) else { return self.poisoned() };
        (x - target).abs().mean_features()
    }

    /// Mean of −t·ln σ(x) − (1 − t)·ln(1 − σ(x)) over the features of a row, x being logits and t in \[0, 1\].
    ///
    /// Written `softplus(−|x|) + |x|·w`, where w is how far the target is from the side that x is on: 1 − t where x > 0, else
    /// t. Both terms are positive, so nothing cancels: a loss of 10⁻⁸ is as exact as one of 10, and so is its derivative
    /// σ(x) − t. An infinite x gives 0 where its target agrees, else ∞.
    #[track_caller]
    pub fn binary_cross_entropy(self, target: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        let Some((x, target)) = self.against(site, "binary_cross_entropy", target) else { return self.poisoned() };
        let is_positive = x.gt(0.0);
        // Not `abs`, whose derivative at 0 is neither side's.
        let size = select(is_positive, x, -x);
        let distance = select(is_positive, 1.0 - target, target);
        let infinite_and_right = size.gt(f32::MAX) * distance.eq(0.0);
        ((-size).softplus() + select(infinite_and_right, 0.0, size * distance)).mean_features()
    }

    /// Itself and a target of its shape.
    fn against(self, site: Site, op: &'static str, target: Expr<'r>) -> Option<(Expr<'r>, Expr<'r>)> {
        let ((x, given), (target, other)) = self.both_here(target, site)?;
        x.floats_here(site, op)?;
        if !other.is_float() || other.shape != given.shape {
            self.fail(site, Kind::BadTarget { op, given, wanted: "a float target of the same shape", other });
            return None;
        }
        Some((x, target))
    }

    /// Itself and its labels as one-hot rows.
    fn labelled(self, site: Site, op: &'static str, labels: Expr<'r>) -> Option<(Expr<'r>, Expr<'r>)> {
        let ((x, given), (labels, other)) = self.both_here(labels, site)?;
        x.along_last(site, op)?;
        if other.dtype != DType::I32 || other.shape.0 != given.shape.leading() {
            let wanted = Type::int(given.extent, given.shape.leading());
            self.fail(site, Kind::BadLabels { given, wanted, labels: other });
            return None;
        }
        Some((x, labels.apply(site, Op::OneHot(given.shape.last()), &[])))
    }
}
