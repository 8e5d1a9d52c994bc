//! Feature by feature: functions of one value, of two, and the choice between two.

use std::panic::Location;

use super::expr::{Expr, Operand};
use crate::ir::{Binary, Op, Unary};

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident $op:ident;)*) => {
        /// Pointwise functions.
        impl<'r> Expr<'r> { $(
            $(#[$doc])*
            #[track_caller]
            pub fn $name(self) -> Expr<'r> {
                self.unary(Location::caller(), Unary::$op)
            }
        )* }
    };
}
unary! {
    /// eˣ
    exp Exp;
    /// eˣ − 1, accurate near 0.
    expm1 Expm1;
    /// Natural logarithm.
    ln Ln;
    /// ln(1 + x), accurate near 0.
    log1p Log1p;
    /// √x
    sqrt Sqrt;
    /// Hyperbolic tangent.
    tanh Tanh;
    /// σ(x) = 1 / (1 + e⁻ˣ)
    sigmoid Sigmoid;
    /// max(x, 0); its derivative at 0 is 0.
    relu Relu;
    /// x·σ(x), also called swish. Elfwing et al. (2018), "Sigmoid-weighted linear units". At −∞ it is its limit, −0.
    silu Silu;
    /// ln(1 + eˣ)
    softplus Softplus;
    /// Sine.
    sin Sin;
    /// Cosine.
    cos Cos;
    /// |x|; its derivative at 0 is 0.
    abs Abs;
    /// −1, 0 or 1; no derivative passes.
    sign Sign;
    /// Error function, 2/√π · ∫₀ˣ e^(−t²) dt.
    erf Erf;
    /// Φ(x) = ½ erfc(−x/√2), the distribution function of the standard normal.
    normal_cdf NormalCdf;
    /// x·Φ(x), with the normal distribution function itself, not its tanh approximation. Hendrycks & Gimpel (2016),
    /// "Gaussian error linear units". At −∞ it is its limit, −0.
    gelu Gelu;
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident $op:ident;)*) => {
        /// Pointwise functions of two values, the other an [`Expr`] or an `f32`. Comparisons give 1 or 0.
        impl<'r> Expr<'r> { $(
            $(#[$doc])*
            #[track_caller]
            pub fn $name(self, other: impl Into<Operand<'r>>) -> Expr<'r> {
                self.binary(Location::caller(), Binary::$op, other)
            }
        )* }
    };
}
binary! {
    /// xʸ. For a whole number [`powi`](Expr::powi) is faster, and defined for negative x.
    pow Pow;
    /// The smaller of the two at each feature; where they are equal, the derivative goes to `self`.
    minimum Min;
    /// The larger of the two at each feature; where they are equal, the derivative goes to `self`.
    maximum Max;
    /// x > y
    gt Gt;
    /// x ≥ y
    ge Ge;
    /// x < y
    lt Lt;
    /// x ≤ y
    le Le;
    /// x = y
    eq Eq;
    /// x ≠ y
    ne Ne;
}

/// More pointwise functions.
///
/// ```
/// # use retrograd_compiler::{ir::Program, record::select};
/// # Program::record("doc", |p| {
/// let x = p.input("x", 3);
/// let folded = select(x.lt(0.0), -x, x.powi(2)); // −x where x < 0, else x²
/// p.output("y", (1.0 - folded.clamp(0.0, 1.0)) * 0.5);
/// # })?;
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
impl<'r> Expr<'r> {
    /// xⁿ by multiplication.
    #[track_caller]
    pub fn powi(self, n: i32) -> Expr<'r> {
        self.unary(Location::caller(), Unary::Powi(n))
    }

    /// xʸ for a number y.
    #[track_caller]
    pub fn powf(self, y: f32) -> Expr<'r> {
        self.binary(Location::caller(), Binary::Pow, y)
    }

    /// x², as a product.
    #[track_caller]
    pub fn square(self) -> Expr<'r> {
        self.binary(Location::caller(), Binary::Mul, self)
    }

    /// min(max(x, low), high)
    #[track_caller]
    pub fn clamp(self, low: impl Into<Operand<'r>>, high: impl Into<Operand<'r>>) -> Expr<'r> {
        let site = Location::caller();
        self.binary(site, Binary::Max, low).binary(site, Binary::Min, high)
    }

    /// The value, through which no derivative passes.
    #[track_caller]
    pub fn stop_gradient(self) -> Expr<'r> {
        self.apply(Location::caller(), Op::StopGradient, &[])
    }

    /// An integer as a float.
    #[track_caller]
    pub fn to_float(self) -> Expr<'r> {
        self.apply(Location::caller(), Op::ToFloat, &[])
    }
}

/// `yes` where the condition is not 0, else `no`, feature by feature. The derivative goes to what was chosen; what was not
/// has the derivative 0.
///
/// 0 times a slope that is infinite or no number is NaN, here as in PyTorch and JAX: in `select(x.gt(0.0), x.ln(), 0.0)` the
/// logarithm is computed at 0 as well, and its slope there is ∞. Choose its operand too:
/// `select(x.gt(0.0), select(x.gt(0.0), x, 1.0).ln(), 0.0)`. Where the condition is one number a row and no parameter has a
/// part in it, as a mask of padding, that is not needed: no gradient of a parameter takes the rows that were not chosen.
///
/// A decoder that learns to live with its own mistakes reads the true word with a probability, else what it said itself
/// (scheduled sampling, Bengio et al. 2015): here by a number drawn uniformly for each step and sample.
///
/// ```
/// # use retrograd_compiler::{ir::Program, record::select};
/// # Program::record("doc", |p| {
/// let (before, next) = (p.labels_sequence("before"), p.labels_sequence("next"));
/// let (uniform, truth) = (p.sequence("uniform", ()), p.shared("truth", ())); // f32[T, B], f32[]
/// let logits = p.scan("decoder", |s| {
///     let (h, own) = (s.state("h", 16), s.state("own", 8));
///     let told = s.embedding("words", s.at(before), 9, 8);
///     let read = select(s.at(uniform).lt(truth), told, own);
///     let h = s.next(h, (s.linear("h", h, 16) + s.affine("x", read, 16)).tanh());
///     let logits = s.affine("readout", h, 9);
///     s.next(own, s.embedding("words", logits.argmax(), 9, 8));
///     logits
/// });
/// p.minimize(logits.all().cross_entropy(next));
/// # })?;
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
#[track_caller]
pub fn select<'r>(condition: Expr<'r>, yes: impl Into<Operand<'r>>, no: impl Into<Operand<'r>>) -> Expr<'r> {
    condition.pointwise(Location::caller(), Op::Select, &[yes.into(), no.into()])
}
