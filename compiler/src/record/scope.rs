//! [`Scope`]: what a program and a step have in common, which is making parameters.

use std::panic::Location;

use super::Site;
use super::expr::{Expr, exact};
use super::recording::Recording;
use crate::ir::{Extent, Init, Op, Shape, Type};

/// A place where parameters are made: [`Recorder`](super::Recorder) and [`Step`](super::Step) both are one.
///
/// A layer without state is a function of `&Scope`, and serves before, in and after a scan:
///
/// ```
/// # use retrograd_compiler::{ir::Program, record::{Expr, Scope}};
/// fn mlp<'r>(p: &Scope<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
///     p.affine("down", p.affine("up", x, 4 * units).gelu(), units)
/// }
/// let program = Program::record("two", |p| {
///     let x = p.sequence("x", 16);
///     let run = p.scan("loop", |s| {
///         let h = s.state("h", 8);
///         s.next(h, (h + mlp(s, s.at(x), 8)).tanh())
///     });
///     p.output("y", p.scope("head", |p| mlp(p, run.last(), 8)));
/// })?;
/// assert!(program.parameter("loop.up.w").is_some() && program.parameter("head.down.b").is_some());
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
///
/// Asking again for a name is asking for the same weight: it must have the same shape and initialiser. So a layer
/// called twice in one scope shares its weights, and two layers of one kind need a [`scope`](Scope::scope) each.
pub struct Scope<'r> {
    pub(super) recording: &'r Recording,
}

impl<'r> Scope<'r> {
    /// What `part` makes has its name behind this one: `encoder.gates.w`.
    #[track_caller]
    pub fn scope<R>(&self, name: &str, part: impl FnOnce(&Self) -> R) -> R {
        self.recording.scoped(Location::caller(), name, || part(self))
    }

    /// A trained value, one for the whole program.
    #[track_caller]
    pub fn parameter(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Expr<'r> {
        let (site, shape) = (Location::caller(), shape.into());
        self.recording.make(|state| state.parameter(site, name, shape, init, true))
    }

    /// A stored value that training keeps but does not train, one for the whole program: a running mean. It has no
    /// gradient and no optimiser; an [`update`](super::Recorder::update) says what it is after each step of training.
    /// Evaluation, streams and decoders read what training has left, and do not change it. Checkpoints have it with the
    /// parameters, and it is read and set by name as they are.
    ///
    /// ```
    /// # use retrograd_compiler::ir::{Init, Program};
    /// let program = Program::record("centred", |p| {
    ///     let x = p.input("x", 3);
    ///     let mean = p.statistic("mean", 3, Init::Constant(0.0));
    ///     p.update(mean, 0.9 * mean + 0.1 * x.mean_rows());
    ///     p.output("centred", x - mean);
    /// })?;
    /// assert!(!program.parameter("mean").unwrap().trained);
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    #[track_caller]
    pub fn statistic(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Expr<'r> {
        let (site, shape) = (Location::caller(), shape.into());
        self.recording.make(|state| state.parameter(site, name, shape, init, false))
    }

    /// The first value in training, the second in evaluation, in streams and in decoders. Which one it is is decided
    /// before the program is compiled, so the other costs nothing, and inputs that only it reads are not asked for. A
    /// program that is run as it was recorded, without a trainer, is not in training; see
    /// [`Program::in_training`](crate::ir::Program::in_training).
    ///
    /// ```
    /// # use retrograd_compiler::ir::Program;
    /// # Program::record("doc", |p| {
    /// // Dropout, with a mask of 0 and 2 that the caller draws.
    /// let (x, mask) = (p.input("x", 64), p.input("mask", 64));
    /// let x = p.when_training(x * mask, x);
    /// # p.output("x", x);
    /// # })?;
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    #[track_caller]
    pub fn when_training(&self, training: Expr<'r>, otherwise: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        let flag = self.recording.make(|state| state.training(site));
        flag.pointwise(site, Op::Select, &[training.into(), otherwise.into()])
    }

    /// A number.
    #[track_caller]
    pub fn constant(&self, value: f32) -> Expr<'r> {
        self.full((), value)
    }

    /// A number everywhere.
    #[track_caller]
    pub fn full(&self, shape: impl Into<Shape>, value: f32) -> Expr<'r> {
        let (site, shape) = (Location::caller(), shape.into());
        self.recording.make(|state| {
            if !state.check_shape(site, &shape) {
                return None;
            }
            let frame = state.frame();
            let graph = state.graph();
            graph.location = Some(site);
            let value = graph.constant(exact(value), Type::float(Extent::Shared, shape));
            Some(super::expr::Value { frame, value })
        })
    }

    /// x·W with a weight `name.w` of shape `[k, units]`, k being the last dimension of x. Glorot.
    #[track_caller]
    pub fn linear(&self, name: &str, x: Expr<'r>, units: usize) -> Expr<'r> {
        let site = Location::caller();
        self.recording.scoped(site, name, || self.weighted(site, "linear", x, units, Init::Glorot))
    }

    /// x·W + b with a weight `name.w` of shape `[k, units]`, k being the last dimension of x, and a bias `name.b`.
    /// The weight starts by Glorot, the bias at 0.
    #[track_caller]
    pub fn affine(&self, name: &str, x: Expr<'r>, units: usize) -> Expr<'r> {
        self.affine_with(name, x, units, Init::Glorot, Init::Constant(0.0))
    }

    /// [`affine`](Scope::affine) with initialisers of the weight and of the bias; [`Init::Pieces`] has one for each
    /// gate, such as a forget bias of 1.
    #[track_caller]
    pub fn affine_with(&self, name: &str, x: Expr<'r>, units: usize, weight: Init, bias: Init) -> Expr<'r> {
        let site = Location::caller();
        self.recording.scoped(site, name, || {
            let product = self.weighted(site, "affine", x, units, weight);
            if product.value().is_none() {
                return product;
            }
            let b = self.recording.make(|state| state.parameter(site, "b", units.into(), bias, true));
            product.pointwise(site, Op::Binary(crate::ir::Binary::Add), &[b.into()])
        })
    }

    fn weighted(&self, site: Site, method: &str, x: Expr<'r>, units: usize, init: Init) -> Expr<'r> {
        // The shape of the weight follows from x, so a mistaken x has none.
        let Some((x, ty)) = self.recording.floats(site, method, x) else { return self.recording.make(|_| None) };
        let w = self.recording.make(|state| state.parameter(site, "w", [ty.shape.last(), units].into(), init, true));
        self.recording.called(method, || self.recording.apply(site, Op::Dot, &[x.into(), w.into()]))
    }

    /// Rows of a trained table `name.table` of shape `[vocabulary, units]` at indices `i32[s..]`: `[s.., units]`.
    /// The table starts normal with deviation 1.
    #[track_caller]
    pub fn embedding(&self, name: &str, index: Expr<'r>, vocabulary: usize, units: usize) -> Expr<'r> {
        let site = Location::caller();
        self.recording.scoped(site, name, || {
            let table = self
                .recording
                .make(|state| state.parameter(site, "table", [vocabulary, units].into(), Init::Normal(1.0), true));
            self.recording.called("embedding", || self.recording.apply(site, Op::Gather, &[table.into(), index.into()]))
        })
    }

    /// [`Expr::layer_norm`] with a trained `name.gain`, starting at 1, and `name.bias`, starting at 0; ε = 10⁻⁵.
    #[track_caller]
    pub fn layer_norm(&self, name: &str, x: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        let Some(x) = self.recording.along_last(site, "layer_norm", x) else { return self.recording.make(|_| None) };
        let [gain, bias] = self.vectors(site, name, x.units(), [("gain", 1.0), ("bias", 0.0)]);
        x.layer_norm(gain, bias, 1e-5)
    }

    /// [`Expr::rms_norm`] with a trained `name.gain`, starting at 1; ε = 10⁻⁵.
    #[track_caller]
    pub fn rms_norm(&self, name: &str, x: Expr<'r>) -> Expr<'r> {
        let site = Location::caller();
        let Some(x) = self.recording.along_last(site, "rms_norm", x) else { return self.recording.make(|_| None) };
        let [gain] = self.vectors(site, name, x.units(), [("gain", 1.0)]);
        x.rms_norm(gain, 1e-5)
    }

    fn vectors<const N: usize>(&self, site: Site, name: &str, units: usize, each: [(&str, f64); N]) -> [Expr<'r>; N] {
        self.recording.scoped(site, name, || {
            each.map(|(name, start)| {
                self.recording.make(|state| state.parameter(site, name, units.into(), Init::Constant(start), true))
            })
        })
    }
}
