//! Norms that keep statistics: what training measures of its batches, and everything else reads.
//!
//! In training, [`batch_norm`] normalises by the mean and the variance of the batch and keeps running ones; [`input_norm`]
//! normalises by those of all that training has seen. Evaluation, streams and decoders use what was kept and change
//! nothing; checkpoints have it. Each feature has statistics of its own, over samples and, of a sequence, over steps.
//!
//! ```
//! use retrograd::{cells, norms, prelude::*};
//!
//! let program = Program::record("normed", |p| {
//!     let x = norms::input_norm(p, "input", p.sequence("x", 4));
//!     let run = p.scan("lstm", |s| cells::lstm(s, s.at(x), 8));
//!     let y = norms::batch_norm(p, "norm", run.all());
//!     p.output("y", y);
//!     p.minimize(p.affine("readout", y, 1).square().mean_features());
//! })?;
//! let mut trainer = program.trainer(Adam::new(1e-3)).compile()?;
//! let x = ndarray::Array3::from_shape_fn((5, 2, 4), |(t, b, i)| (3 * t + b + i) as f32);
//! trainer.step(&Feed::new().f32("x", x.view()))?;
//! assert_eq!(trainer.parameter("input.count").unwrap().sum(), 10.0); // rows seen
//! let mut stream = trainer.stream(1)?; // reads what training has measured
//! # stream.set_f32("x", &[0.0; 4])?; stream.advance()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::prelude::*;

/// Batch normalisation (Ioffe & Szegedy 2015): (x − μ) / √(σ² + 10⁻⁵) · gain + bias.
///
/// In training μ and σ² are the batch's mean and (biased) variance, through which gradients run, and the running ones go a
/// tenth of the way to the batch's mean and unbiased variance. Elsewhere they are the running ones. This is PyTorch's
/// `BatchNorm1d` with its defaults.
///
/// Parameters: `name.gain`, starting at 1, and `name.bias`, at 0. Statistics: `name.mean`, starting at 0, and
/// `name.variance`, at 1. All have the shape of x's features.
#[track_caller]
pub fn batch_norm<'r>(p: &Recorder<'r>, name: &str, x: Expr<'r>) -> Expr<'r> {
    batch_norm_with(p, name, x, None, 0.1)
}

/// As [`batch_norm`], over the rows whose mask is not 0, one number a row ([`TimeAxis::mask`] for samples of different
/// lengths), and with another share of a batch in the running statistics.
#[track_caller]
pub fn batch_norm_with<'r>(
    p: &Recorder<'r>,
    name: &str,
    x: Expr<'r>,
    mask: Option<Expr<'r>>,
    momentum: f32,
) -> Expr<'r> {
    p.scope(name, |p| {
        let shape = x.shape();
        let gain = p.parameter("gain", shape.clone(), Init::Constant(1.0));
        let bias = p.parameter("bias", shape.clone(), Init::Constant(0.0));
        let running_mean = p.statistic("mean", shape.clone(), Init::Constant(0.0));
        let running_variance = p.statistic("variance", shape, Init::Constant(1.0));
        let Batch { count, mean, variance } = Batch::of(x, mask);
        // Of a single row there is no variance, and none is kept: its 0 times 1.
        let unbiased = variance * (count / (count - 1.0).maximum(1.0));
        p.update(running_mean, (1.0 - momentum) * running_mean + momentum * mean);
        p.update(running_variance, (1.0 - momentum) * running_variance + momentum * unbiased);
        let (mean, variance) = (p.when_training(mean, running_mean), p.when_training(variance, running_variance));
        (x - mean) / (variance + 1e-5).sqrt() * gain + bias
    })
}

/// Inputs with a mean of 0 and a variance of 1, by what training has seen so far: (x − μ) / √(σ² + 10⁻⁵), where μ and σ² are
/// of all rows of all steps of training, the present one included (Chan et al. 1983, updating formulae). No gradient runs
/// through μ and σ².
///
/// Statistics: `name.count`, the rows seen, as a float, `name.mean`, starting at 0, and `name.variance`, at 1.
#[track_caller]
pub fn input_norm<'r>(p: &Recorder<'r>, name: &str, x: Expr<'r>) -> Expr<'r> {
    input_norm_with(p, name, x, None)
}

/// As [`input_norm`], of the rows whose mask is not 0.
#[track_caller]
pub fn input_norm_with<'r>(p: &Recorder<'r>, name: &str, x: Expr<'r>, mask: Option<Expr<'r>>) -> Expr<'r> {
    p.scope(name, |p| {
        let shape = x.shape();
        let count = p.statistic("count", (), Init::Constant(0.0));
        let mean = p.statistic("mean", shape.clone(), Init::Constant(0.0));
        let variance = p.statistic("variance", shape, Init::Constant(1.0));
        let batch = Batch::of(x.stop_gradient(), mask);
        let total = (count + batch.count).maximum(1.0);
        let (old, new) = (count / total, batch.count / total);
        let away = batch.mean - mean;
        let mean_now = mean + away * new;
        let variance_now = variance * old + batch.variance * new + away.square() * (old * new);
        p.update(count, count + batch.count);
        p.update(mean, mean_now);
        p.update(variance, variance_now);
        let (mean, variance) = (p.when_training(mean_now, mean), p.when_training(variance_now, variance));
        (x - mean) / (variance + 1e-5).sqrt()
    })
}

/// What is measured of one batch.
struct Batch<'r> {
    /// Rows.
    count: Expr<'r>,
    mean: Expr<'r>,
    variance: Expr<'r>,
}

impl<'r> Batch<'r> {
    #[track_caller]
    fn of(x: Expr<'r>, mask: Option<Expr<'r>>) -> Batch<'r> {
        let Some(mask) = mask else {
            let mean = x.mean_rows();
            return Batch { count: x.row_count(), mean, variance: (x - mean).square().mean_rows() };
        };
        let count = select(mask, 1.0, 0.0).sum_rows();
        let rows = count.maximum(1.0);
        // Chosen, not multiplied: what a mask excludes may be anything.
        let mean = select(mask, x, 0.0).sum_rows() / rows;
        let away = select(mask, x, mean) - mean;
        Batch { count, mean, variance: away.square().sum_rows() / rows }
    }
}
