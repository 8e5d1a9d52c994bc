//! Vector maths: elementary functions from arrays to arrays.
//!
//! Compiled graphs call these on tiles that lie in the first-level cache. A graph
//! spends its transcendental time in `tanh`, `sigmoid` and `exp`, and asks of the
//! others that they be right everywhere.
//!
//! # Invariants
//!
//! * Every f32 result is within [`Function::bound`] units in the last place of the
//!   true value, over **all** 2³² inputs, subnormal results included (their unit is
//!   the spacing of the subnormals). `examples/ulp.rs` checks each one.
//! * NaN in, NaN out (but for the cases in which IEEE 754 gives `pow` a value).
//!   Zeros keep their signs, overflow goes to infinity, underflow is gradual.
//! * An infinity gives the limit of the function, where there is one: `silu` and
//!   `gelu` of −∞ are −0, although x times the factor would be −∞ · 0, not a number.
//! * An element's result depends on that element alone: not on its place in the
//!   array, nor on its neighbours. Instruction sets that fuse multiply and add
//!   agree with one another bit for bit; the portable code, which cannot fuse,
//!   differs within the bound.
//! * Nothing is allocated and nothing panics.
//!
//! # How it is made
//!
//! Each function is one branch-free expression of one element (`kernels.rs`),
//! inlined into a loop over a block of constant length (`entry.rs`), which LLVM
//! turns into vectors. A macro compiles that loop for AVX-512, AVX2 with FMA, NEON
//! and whatever the target has anyway, and [`Table::of`] an instruction set hands it
//! out, if the machine has it.
//!
//! Coefficients are minimax ones, found by `derive.py` with the Remez exchange.
//!
//! # Methods
//!
//! * **exp**: x = n ln 2 + r after Cody and Waite, ln 2 in two pieces; a polynomial
//!   of degree 6 for e^r; 2ⁿ multiplied on in two halves, so that both ends of the
//!   range round once.
//! * **expm1**: the same r; 2ⁿ(e^r − 1) + (2ⁿ − 1), where for small x n is 0 and
//!   the relatively accurate polynomial stands alone.
//! * **tanh**: h = e/(e + 1) with e = expm1(2|x|)/2, or e − e·h where e is small; the
//!   sign is copied, so the function is odd to the bit.
//! * **sigmoid**: with e = exp(−|x|), t − t·e/(1 + e), where t is e below zero and 1
//!   above. Where e is subnormal 1 + e is 1 and nothing is lost.
//! * **silu**: the same t − t·e/(1 + e) with x multiplied into t before the second half
//!   of the power of two, for x e^x is normal where e^x no longer is.
//! * **ln**: x = 2^k (1 + f) with 1 + f in [√½, √2); f − f²/2 + f³P(f) + k ln 2, the
//!   arrangement of Cephes.
//! * **log1p**: the same, with k from the rounded 1 + x but f = 2^−k x + (2^−k − 1)
//!   from x itself, in one rounding.
//! * **softplus**: max(x, 0) + log1p(exp(−|x|)).
//! * **erf**: x + xP(x²) up to 15/16, 1 − e^P(|x|) beyond, where P approximates
//!   ln erfc.
//! * **normal_cdf**: Φ(−t) = e^(−t²/2) M(t), where M is Mills' ratio over √(2π), a
//!   smooth function and a polynomial in 1/(1 + t/4). In f32, t² would lose what
//!   the exponential magnifies: f64 lanes hold it exactly.
//! * **gelu**: x times that Φ(x), still in f64, and rounded once.
//! * **sin, cos**: f64 lanes. A Cody–Waite reduction by π/2 in three pieces up to
//!   2²⁰; larger arguments, if a block has any, are done one by one after Payne and
//!   Hanek in integer arithmetic.
//! * **pow**: f64 lanes; log2 m as an odd polynomial in (m − 1)/(m + 1), then 2^t.
//!   The conversion to f32 does overflow, underflow and rounding.
//!
//! The f64 versions (`double.rs`) call the standard library and `libm` element by
//! element, whatever the instruction set: they serve gradient checks, and are the truth
//! the f32 ones are held to.

mod coefficients;
mod double;
mod entry;
mod kernels;
#[cfg(test)]
mod tests;

use retrograd_compiler::codegen::InstructionSet;

/// `y[i] = f(x[i])` for `i < n`.
///
/// # Safety
///
/// `x` must be readable and `y` writable for `n` elements, aligned for `E` but no
/// more. `y` may be `x`; otherwise the two must not overlap. The machine must have
/// the instruction set of the [`Table`] the function came from.
///
/// Any `n` is right; the f32 functions are made for multiples of 16, and pay for a
/// whole block of that length where less is left.
pub type Unary<E> = unsafe extern "C" fn(x: *const E, y: *mut E, n: usize);

/// `y[i] = f(x[i], z[i])` for `i < n`.
///
/// # Safety
///
/// As [`Unary`], with `z` readable like `x`; `y` may be either of them.
pub type Binary<E> = unsafe extern "C" fn(x: *const E, z: *const E, y: *mut E, n: usize);

/// The functions of one variable. The discriminants are fixed: they index
/// [`Table::unary`], and compiled graphs may store them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Function {
    /// e^x
    Exp = 0,
    /// e^x − 1
    Expm1 = 1,
    /// The natural logarithm.
    Ln = 2,
    /// ln(1 + x)
    Log1p = 3,
    /// The hyperbolic tangent.
    Tanh = 4,
    /// 1/(1 + e^−x)
    Sigmoid = 5,
    /// x σ(x)
    Silu = 6,
    /// ln(1 + e^x)
    Softplus = 7,
    /// The error function.
    Erf = 8,
    /// Φ(x) = erfc(−x/√2)/2, the distribution function of the standard normal.
    NormalCdf = 9,
    /// x Φ(x)
    Gelu = 10,
    /// The sine.
    Sin = 11,
    /// The cosine.
    Cos = 12,
}

impl Function {
    /// Every function, in the order of the discriminants.
    pub const ALL: [Function; 13] = [
        Function::Exp,
        Function::Expm1,
        Function::Ln,
        Function::Log1p,
        Function::Tanh,
        Function::Sigmoid,
        Function::Silu,
        Function::Softplus,
        Function::Erf,
        Function::NormalCdf,
        Function::Gelu,
        Function::Sin,
        Function::Cos,
    ];

    /// The name by which people ask for the function.
    pub const fn name(self) -> &'static str {
        match self {
            Function::Exp => "exp",
            Function::Expm1 => "expm1",
            Function::Ln => "ln",
            Function::Log1p => "log1p",
            Function::Tanh => "tanh",
            Function::Sigmoid => "sigmoid",
            Function::Silu => "silu",
            Function::Softplus => "softplus",
            Function::Erf => "erf",
            Function::NormalCdf => "normal_cdf",
            Function::Gelu => "gelu",
            Function::Sin => "sin",
            Function::Cos => "cos",
        }
    }

    /// The largest error of the f32 version, in units in the last place of the
    /// correctly rounded result, that the tests let pass.
    pub const fn bound(self) -> f64 {
        match self {
            // What `Expr::elu` makes of it, scaled and rounded once more, stays below 4.
            Function::Expm1 => 1.75,
            Function::Exp | Function::Tanh | Function::Sigmoid => 2.5,
            _ => 4.0,
        }
    }
}

/// The functions of two variables, which index [`Table::binary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum BinaryFunction {
    /// x^y with the special cases of IEEE 754.
    Pow = 0,
}

impl BinaryFunction {
    /// Every function, in the order of the discriminants.
    pub const ALL: [BinaryFunction; 1] = [BinaryFunction::Pow];

    /// The name by which people ask for the function.
    pub const fn name(self) -> &'static str {
        match self {
            BinaryFunction::Pow => "pow",
        }
    }

    /// As [`Function::bound`].
    pub const fn bound(self) -> f64 {
        match self {
            BinaryFunction::Pow => 2.0,
        }
    }
}

/// The entry points for one element type and one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Table<E> {
    /// The instructions that they use; those of `f64` are portable, and run with any others.
    pub instruction_set: InstructionSet,
    /// Indexed by [`Function`].
    pub unary: [Unary<E>; Function::ALL.len()],
    /// Indexed by [`BinaryFunction`].
    pub binary: [Binary<E>; BinaryFunction::ALL.len()],
}

impl<E> Table<E> {
    /// The entry point of `function`.
    pub fn unary(&self, function: Function) -> Unary<E> {
        self.unary[function as usize]
    }

    /// The entry point of `function`.
    pub fn binary(&self, function: BinaryFunction) -> Binary<E> {
        self.binary[function as usize]
    }
}

impl Table<f32> {
    /// The best table this machine can run.
    pub fn detect() -> &'static Table<f32> {
        Table::<f32>::of(InstructionSet::best()).expect("it is available")
    }

    /// The table of an instruction set; `None` if this machine does not have it.
    pub fn of(set: InstructionSet) -> Option<&'static Table<f32>> {
        entry::TABLES.iter().copied().find(|table| table.instruction_set == set && set.is_available())
    }

    /// Every table this machine can run, best first; the portable one is last.
    pub fn all_supported() -> Vec<&'static Table<f32>> {
        InstructionSet::available().filter_map(Table::<f32>::of).collect()
    }
}

impl Table<f64> {
    /// The best table this machine can run.
    pub fn detect() -> &'static Table<f64> {
        &double::TABLE
    }

    /// Every table this machine can run: there is one, which calls the standard
    /// library and `libm` element by element.
    pub fn all_supported() -> Vec<&'static Table<f64>> {
        vec![&double::TABLE]
    }
}

/// |got − truth| in units in the last place of `truth` rounded to f32. Infinite if
/// one is NaN and the other is not, or one is infinite and the other is not; a
/// finite truth beyond the range of f32 rounds to infinity like any other result.
pub fn ulp_error(got: f32, truth: f64) -> f64 {
    let rounded = truth as f32;
    if rounded.is_nan() || rounded.is_infinite() || !got.is_finite() {
        let same = got.to_bits() == rounded.to_bits() || got.is_nan() && rounded.is_nan();
        return if same { 0.0 } else { f64::INFINITY };
    }
    // The exponent of the ulp: that of the value less 23, subnormals all alike.
    let exponent = ((rounded.to_bits() >> 23 & 0xff) as i32).max(1) - 150;
    (f64::from(got) - truth).abs() * f64::from_bits(((1023 - exponent) as u64) << 52)
}
