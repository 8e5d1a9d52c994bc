//! Over rows: samples and steps. The only ways to a narrower extent, apart from a scan's own results.

use std::panic::Location;

use super::Site;
use super::expr::{Expr, Operand};
use super::recorder::TimeAxis;
use crate::error::RecordErrorKind as Kind;
use crate::ir::{Binary, Extent, Op, Type};

/// Sums and means over samples and steps.
///
/// A *masked* one weighs each row: its mask is one number a row (or one a sample, for all of its steps), most often 0
/// for padding and 1 for the rest. A row whose weight is 0 is left out, not multiplied with 0: whatever it holds, NaN and
/// ∞ included, it reaches neither the result nor a gradient. Where the weights sum to 0 there is nothing to take the mean
/// of: it is 0 then, and so is its gradient.
///
/// ```
/// # use retrograd_compiler::ir::Program;
/// # Program::record("doc", |p| {
/// let (y, target) = (p.sequence("y", 2), p.sequence("target", 2));
/// let mask = p.sequence("mask", ()); // 0 where a sequence has ended
/// let loss = y.mse(target); // f32[T, B]
/// p.output("per_sample", loss.masked_mean_time(mask));
/// p.minimize(loss.masked_mean(mask));
/// # })?;
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
impl<'r> Expr<'r> {
    /// Sum over all rows: of samples, and of steps if it is a sequence.
    #[track_caller]
    pub fn sum_rows(self) -> Expr<'r> {
        self.over_rows(Location::caller(), "sum_rows", Extent::Shared, None, false)
    }

    /// Mean over all rows: of samples, and of steps if it is a sequence.
    #[track_caller]
    pub fn mean_rows(self) -> Expr<'r> {
        self.over_rows(Location::caller(), "mean_rows", Extent::Shared, None, true)
    }

    /// Sum over the steps of each sample: `[T, B, ..] → [B, ..]`.
    #[track_caller]
    pub fn sum_time(self) -> Expr<'r> {
        self.over_rows(Location::caller(), "sum_time", Extent::Batch, None, false)
    }

    /// Mean over the steps of each sample: `[T, B, ..] → [B, ..]`.
    #[track_caller]
    pub fn mean_time(self) -> Expr<'r> {
        self.over_rows(Location::caller(), "mean_time", Extent::Batch, None, true)
    }

    /// Σ mask·x over all rows.
    #[track_caller]
    pub fn masked_sum(self, mask: Expr<'r>) -> Expr<'r> {
        self.over_rows(Location::caller(), "masked_sum", Extent::Shared, Some(mask), false)
    }

    /// Σ mask·x / Σ mask over all rows.
    #[track_caller]
    pub fn masked_mean(self, mask: Expr<'r>) -> Expr<'r> {
        self.over_rows(Location::caller(), "masked_mean", Extent::Shared, Some(mask), true)
    }

    /// Σ mask·x over the steps of each sample.
    #[track_caller]
    pub fn masked_sum_time(self, mask: Expr<'r>) -> Expr<'r> {
        self.over_rows(Location::caller(), "masked_sum_time", Extent::Batch, Some(mask), false)
    }

    /// Σ mask·x / Σ mask over the steps of each sample.
    #[track_caller]
    pub fn masked_mean_time(self, mask: Expr<'r>) -> Expr<'r> {
        self.over_rows(Location::caller(), "masked_mean_time", Extent::Batch, Some(mask), true)
    }

    /// Mean over all rows of a sequence but padding: over each sample's own steps, and over samples. 0 where there is
    /// nothing but padding. See [`TimeAxis::lengths`].
    #[track_caller]
    pub fn mean_over(self, time: TimeAxis<'r>) -> Expr<'r> {
        self.over_own_steps(Location::caller(), "mean_over", time, true)
    }

    /// Sum over all rows of a sequence but padding.
    #[track_caller]
    pub fn sum_over(self, time: TimeAxis<'r>) -> Expr<'r> {
        self.over_own_steps(Location::caller(), "sum_over", time, false)
    }

    fn over_own_steps(self, site: Site, name: &'static str, time: TimeAxis<'r>, mean: bool) -> Expr<'r> {
        let Some((x, ty)) = self.floats_here(site, name) else { return self.poisoned() };
        if ty.extent != Extent::Time(time.number()) {
            let rule = "it goes over the steps of a sequence on this axis, and this is none";
            return self.fail(site, Kind::BadExtent { op: name, given: ty, rule });
        }
        let Some(own) = time.own_steps() else { return x.over_rows(site, name, Extent::Shared, None, mean) };
        // Chosen, not multiplied: padding may have no number for a loss.
        let zero = Operand::Number(0.0);
        let sum = own.pointwise(site, Op::Select, &[x.into(), zero]).apply(site, Op::SumRows(Extent::Shared), &[]);
        if !mean {
            return sum;
        }
        let count = own.apply(site, Op::SumRows(Extent::Shared), &[]);
        sum.over_weight(site, count)
    }

    /// A sum over its weight; 0 where the weight is 0.
    fn over_weight(self, site: Site, weight: Expr<'r>) -> Expr<'r> {
        let none = weight.binary(site, Binary::Eq, 0.0);
        let choose = |yes: Operand<'r>, no: Operand<'r>| none.pointwise(site, Op::Select, &[yes, no]);
        // The division too has no 0 in it, whose derivative would be 0·∞.
        let weight = choose(Operand::Number(1.0), weight.into());
        let mean = self.pointwise(site, Op::Binary(Binary::Div), &[weight.into()]);
        choose(Operand::Number(0.0), mean.into())
    }

    /// How many rows it has, as one number for the program: of samples, and of steps if it is a sequence. A value that all
    /// samples share has one.
    #[track_caller]
    pub fn row_count(self) -> Expr<'r> {
        let site = Location::caller();
        match self.here(site) {
            Some((x, ty)) => match x.home() {
                Ok(recording) => recording.apply(site, Op::RowCount(ty.extent), &[]),
                Err(_) => self.poisoned(),
            },
            None => self.poisoned(),
        }
    }

    /// The last step of a sequence: `[T, B, ..] → [B, ..]`.
    #[track_caller]
    pub fn last(self) -> Expr<'r> {
        self.apply(Location::caller(), Op::Last, &[])
    }

    fn over_rows(self, site: Site, name: &'static str, to: Extent, mask: Option<Expr<'r>>, mean: bool) -> Expr<'r> {
        // A mask may be of a recording where x is of none, so both are looked at first.
        let Some(((x, ty), _)) = self.both_here(mask.unwrap_or(self), site) else { return self.poisoned() };
        let rows = match mask {
            _ if x.floats_here(site, name).is_none() => None,
            None => Some((x, ty.extent, None)),
            Some(mask) => x.masked(site, name, &ty, mask),
        };
        let Some((x, from, mask)) = rows else { return self.poisoned() };
        if from <= to {
            let rule = match to {
                Extent::Shared => "it has one row for all samples, so there is nothing to go over",
                _ => "it goes over the steps of a sequence, and this is none",
            };
            return self.fail(site, Kind::BadExtent { op: name, given: ty, rule });
        }
        let sum = |x: Expr<'r>| x.apply(site, Op::SumRows(to), &[]);
        if !mean {
            return sum(x);
        }
        let weight = match (mask, x.home()) {
            (Some(mask), _) => return sum(x).over_weight(site, sum(mask)),
            (None, Ok(recording)) => {
                // Rows of a batch value are those of its samples; steps are what a sequence has more.
                let count = |extent| recording.apply(site, Op::RowCount(extent), &[]);
                match to {
                    Extent::Shared => count(from),
                    _ => count(from).pointwise(site, Op::Binary(Binary::Div), &[count(to).into()]),
                }
            }
            (None, Err(_)) => return self.poisoned(),
        };
        sum(x).pointwise(site, Op::Binary(Binary::Div), &[weight.into()])
    }

    /// mask·x, or 0 where the mask is 0, its extent, and the mask at that extent.
    fn masked(
        self,
        site: Site,
        op: &'static str,
        ty: &Type,
        mask: Expr<'r>,
    ) -> Option<(Expr<'r>, Extent, Option<Expr<'r>>)> {
        let (mask, other) = mask.here(site)?;
        if !other.is_float() || other.shape.rank() != 0 {
            let wanted = "one float for each row as its mask";
            self.fail(site, Kind::BadTarget { op, given: ty.clone(), wanted, other });
            return None;
        }
        let product = self.pointwise(site, Op::Binary(Binary::Mul), &[mask.into()]);
        // Chosen, not multiplied: what is left out may have no number.
        let product = mask.pointwise(site, Op::Select, &[product.into(), Operand::Number(0.0)]);
        let (_, joint) = product.here(site)?;
        let mask = match other.extent < joint.extent {
            true => mask.apply(site, Op::Expand(joint.extent), &[]),
            false => mask,
        };
        Some((product, joint.extent, Some(mask)))
    }
}
