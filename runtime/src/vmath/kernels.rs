//! The f32 bodies: one branch-free expression per function, written for one
//! element and meant to be inlined into a loop that LLVM turns into vectors.
//!
//! What keeps them vectorisable:
//!
//! * choices are `if` expressions over values already computed, which become
//!   blends; nothing returns early and nothing is called;
//! * rounding to an integer is the addition of a magic number ([`MAGIC`]), whose
//!   low bits then *are* the integer, so no float-to-int conversion (saturating
//!   in Rust) is needed;
//! * a multiply-add is [`fma`], which is a fused instruction only where the
//!   target has one. `f32::mul_add` elsewhere would be a library call.
//!
//! NaN travels through the arithmetic. Clamps are therefore written
//! `if x > LIMIT { LIMIT } else { x }`, never `x.min(LIMIT)`: the comparison is
//! false for NaN, which keeps it (and is the very definition of `minps`).

use super::coefficients as c;

/// One function of one variable, as the loops of [`super::entry`] take it.
pub(super) trait Elementwise {
    /// The function at one point; `FMA` says whether the target fuses.
    fn at<const FMA: bool>(x: f32) -> f32;

    /// Repairs results of a block for inputs that [`Elementwise::at`] does not
    /// cover. Only sine and cosine have such inputs.
    #[inline(always)]
    fn patch<const N: usize>(_x: &[f32; N], _y: &mut [f32; N]) {}
}

/// 1.5 · 2^23: added to |v| < 2^22 it leaves the nearest integer to v in the low
/// bits of the sum, in two's complement.
const MAGIC: f32 = 12_582_912.0;
/// The same for f64, 1.5 · 2^52.
const MAGIC64: f64 = 6_755_399_441_055_744.0;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two pieces; the first has 9 significant bits, so that its product with
/// an integer of up to 15 bits is exact even without a fused multiply-add.
const LN2_HI: f32 = 355.0 / 512.0;
const LN2_LO: f32 = -2.121_944_4e-4;

#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn fma64<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

macro_rules! estrin {
    ($name:ident, $fma:ident, $type:ident) => {
        /// `Σ k[i] xⁱ` for up to 16 coefficients, by Estrin's scheme: pairs, pairs of
        /// pairs and so on, which is log2 of the length deep where Horner's rule is
        /// as deep as the polynomial is long.
        ///
        /// The indices and the tests on them are constants once inlined. A loop that
        /// halves an array says the same in fewer words, but LLVM does not unroll
        /// it, and a loop that holds another is not vectorised.
        #[inline(always)]
        fn $name<const FMA: bool, const N: usize>(k: [$type; N], x: $type) -> $type {
            const { assert!(0 < N && N <= 16) };
            type K<const N: usize> = [$type; N];
            #[inline(always)]
            fn two<const FMA: bool, const N: usize>(k: K<N>, i: usize, x: $type) -> $type {
                if i + 1 < N { $fma::<FMA>(k[i + 1], x, k[i]) } else { k[i] }
            }
            #[inline(always)]
            fn four<const FMA: bool, const N: usize>(k: K<N>, i: usize, x: $type) -> $type {
                let low = two::<FMA, N>(k, i, x);
                if i + 5 == N {
                    // A fifth goes in at the same depth, and spares the fourth power.
                    let high = $fma::<FMA>(two::<FMA, N>(k, i + 3, x), x, k[i + 2]);
                    $fma::<FMA>(high, x * x, low)
                } else if i + 2 < N {
                    $fma::<FMA>(two::<FMA, N>(k, i + 2, x), x * x, low)
                } else {
                    low
                }
            }
            #[inline(always)]
            fn eight<const FMA: bool, const N: usize>(k: K<N>, i: usize, x: $type) -> $type {
                let low = four::<FMA, N>(k, i, x);
                let x4 = (x * x) * (x * x);
                if i + 5 < N { $fma::<FMA>(four::<FMA, N>(k, i + 4, x), x4, low) } else { low }
            }
            let low = eight::<FMA, N>(k, 0, x);
            let x4 = (x * x) * (x * x);
            if N > 9 { $fma::<FMA>(eight::<FMA, N>(k, 8, x), x4 * x4, low) } else { low }
        }
    };
}
estrin!(poly, fma, f32);
estrin!(poly64, fma64, f64);

/// x = n ln 2 + r with |r| ≤ ln(2)/2 (and a hair). Returns r, and a word whose low
/// bits are n + `BIAS`; [`pow2`] looks at the lowest nine. Needs |x| < 2^14; a NaN
/// comes back as r.
///
/// With a bias of 127 the word is ready for [`pow2`] as it is.
#[inline(always)]
fn split_exp<const FMA: bool, const BIAS: i32>(x: f32) -> (u32, f32) {
    let magic = MAGIC + BIAS as f32;
    let t = fma::<FMA>(x, LOG2_E, magic);
    let n = t - magic;
    let r = fma::<FMA>(n, -LN2_HI, x);
    let r = fma::<FMA>(n, -LN2_LO, r);
    (t.to_bits(), r)
}

/// [`split_exp`] for |x| ≤ 20. ln 2 happens to lie within 2e-9 of an f32, so close
/// that with a fused multiply-add one piece will do for small n.
#[inline(always)]
fn split_exp_short<const FMA: bool, const BIAS: i32>(x: f32) -> (u32, f32) {
    if FMA {
        let magic = MAGIC + BIAS as f32;
        let t = fma::<FMA>(x, LOG2_E, magic);
        let r = fma::<FMA>(t - magic, -std::f32::consts::LN_2, x);
        (t.to_bits(), r)
    } else {
        split_exp::<FMA, BIAS>(x)
    }
}

/// 2^(e − 127), given e in the lowest eight bits of a word and a zero above them.
#[inline(always)]
fn pow2(word: u32) -> f32 {
    f32::from_bits(word << 23)
}

/// 2^n in f64 for −1023 < n < 1024.
#[inline(always)]
fn pow2_64(n: i64) -> f64 {
    f64::from_bits((n.wrapping_add(1023) as u64) << 52)
}

/// s e^r for a power of two s and the r of [`split_exp`].
#[inline(always)]
fn exp_reduced<const FMA: bool>(s: f32, r: f32) -> f32 {
    fma::<FMA>(s, expm1_reduced::<FMA>(r), s)
}

/// e^r − 1 for the r of [`split_exp`], relatively accurate.
#[inline(always)]
fn expm1_reduced<const FMA: bool>(r: f32) -> f32 {
    let q = poly::<FMA, 5>(c::EXP, r);
    fma::<FMA>(r * r, q, r)
}

/// e^x for −110 ≤ x ≤ 90 as a product whose first factor is far inside the normal
/// range and whose second is a power of two: multiplying rounds once, into the
/// subnormals or to infinity as the case may be.
#[inline(always)]
fn exp_halves<const FMA: bool>(x: f32) -> (f32, f32) {
    // Twice 127, so that the halves have theirs.
    let (n, r) = split_exp::<FMA, 254>(x);
    let half = n >> 1;
    (exp_reduced::<FMA>(pow2(half), r), pow2(n.wrapping_sub(half)))
}

/// e^x for −110 ≤ x ≤ 90.
#[inline(always)]
fn exp_in_range<const FMA: bool>(x: f32) -> f32 {
    let (e, s) = exp_halves::<FMA>(x);
    e * s
}

/// e^−|x|.
#[inline(always)]
fn exp_neg_abs<const FMA: bool>(x: f32) -> f32 {
    let a = -x.abs();
    exp_in_range::<FMA>(if a < -105.0 { -105.0 } else { a })
}

pub(super) struct Exp;
impl Elementwise for Exp {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> f32 {
        let x = if x > 90.0 { 90.0 } else { x };
        let x = if x < -105.0 { -105.0 } else { x };
        exp_in_range::<FMA>(x)
    }
}

pub(super) struct Expm1;
impl Elementwise for Expm1 {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> f32 {
        // e^89 overflows, and its n is 128, whose half below is still finite.
        let v = if x > 89.0 { 89.0 } else { x };
        let v = if v < -20.0 { -20.0 } else { v };
        // Half the result, 2^(n-1) (e^r - 1) + (2^(n-1) - 1/2), fits when the result does.
        let (n, r) = split_exp::<FMA, 126>(v);
        let s = pow2(n);
        let half = fma::<FMA>(s, expm1_reduced::<FMA>(r), s - 0.5);
        let y = half + half;
        // Halving loses the last bit of a subnormal, and the sum the sign of a zero.
        if x.abs() < 1e-10 { x } else { y }
    }
}

/// k ln 2 + ln(1 + f) for −0.293 ≤ f ≤ 0.415 and |k| < 2^15.
#[inline(always)]
fn log_reduced<const FMA: bool>(k: f32, f: f32) -> f32 {
    let p = poly::<FMA, 9>(c::LOG1P, f);
    let f2 = f * f;
    // The small terms first: -f²/2 + f³ P(f) + k·LN2_LO, then f, then k·LN2_HI (exact).
    let t = fma::<FMA>(f2 * f, p, k * LN2_LO);
    let t = fma::<FMA>(f2, -0.5, t);
    fma::<FMA>(k, LN2_HI, f + t)
}

/// k such that 2^-k u lies in [√½, √2), from the bits of a positive normal u.
#[inline(always)]
fn log_exponent(bits: u32) -> i32 {
    // Bits of √½: adding the distance to 1 makes the exponent field step at √2.
    const SQRT_HALF: u32 = 0x3f35_04f3;
    (bits.wrapping_sub(SQRT_HALF) as i32) >> 23
}

/// An i32 below 2^22 in size to f32, through [`MAGIC`].
#[inline(always)]
fn small_to_f32(k: i32) -> f32 {
    f32::from_bits(MAGIC.to_bits().wrapping_add(k as u32)) - MAGIC
}

pub(super) struct Ln;
impl Elementwise for Ln {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> f32 {
        let tiny = x < f32::MIN_POSITIVE;
        let u = if tiny { x * 8_388_608.0 } else { x };
        let bits = u.to_bits();
        let k = log_exponent(bits);
        let m = f32::from_bits(bits.wrapping_sub((k as u32) << 23));
        let k = if tiny { k.wrapping_sub(23) } else { k };
        let y = log_reduced::<FMA>(small_to_f32(k), m - 1.0);
        log_special(x, x, y)
    }
}

/// The logarithm of `u` where `y` does not hold: `u` negative, zero, infinite or NaN.
/// `x` is what +∞ and NaN answer with.
#[inline(always)]
fn log_special(u: f32, x: f32, y: f32) -> f32 {
    let y = if u < f32::INFINITY { y } else { x };
    let y = if u == 0.0 { f32::NEG_INFINITY } else { y };
    if u < 0.0 { f32::NAN } else { y }
}

/// ln(1 + x) for x > −1 finite.
#[inline(always)]
fn log1p_in_range<const FMA: bool>(x: f32) -> f32 {
    let k = log_exponent((1.0 + x).to_bits());
    // 2^-k (1 + x) - 1 with a single rounding. Above 2^25 the one is lost, rightly.
    // 2^-k is applied in halves because it may be subnormal.
    let word = 254u32.wrapping_sub(k as u32);
    let half = word >> 1;
    let (s, t) = (pow2(half), pow2(word.wrapping_sub(half)));
    let f = fma::<FMA>(x * s, t, fma::<FMA>(s, t, -1.0));
    log_reduced::<FMA>(small_to_f32(k), f)
}

pub(super) struct Log1p;
impl Elementwise for Log1p {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> f32 {
        let y = log_special(1.0 + x, x, log1p_in_range::<FMA>(x));
        if x.abs() < 1e-10 { x } else { y }
    }
}

pub(super) struct Tanh;
impl Elementwise for Tanh {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> f32 {
        let a = x.abs();
        // tanh 9.02 rounds to 1, and so does everything above.
        let a = if a > 10.0 { 10.0 } else { a };
        // e = expm1(2a)/2, from 2^(n-1).
        let (n, r) = split_exp_short::<FMA, 126>(a + a);
        let s = pow2(n);
        let e = fma::<FMA>(s, expm1_reduced::<FMA>(r), s - 0.5);
        // e/(e + 1) suffers the rounding of e, of the sum and of the quotient. While e
        // is small, e - e·e/(e + 1) is the same and suffers the last two but little.
        // A rational function of x² takes two thirds of the time and is off by 4.5 units.
        let h = e / (e + 1.0);
        let y = if e < 0.5 { fma::<FMA>(-e, h, e) } else { h };
        y.copysign(x)
    }
}

pub(super) struct Sigmoid;
impl Elementwise for Sigmoid {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> f32 {
        // Above 20 one is all that is left of the sum; at -105 the result is zero.
        let v = if x < -105.0 { -105.0 } else { x };
        let v = if v > 20.0 { 20.0 } else { v };
        // e^-v = q/s, both far inside the normal range, so that 1/(1 + q/s) = s/(s + q) rounds into the subnormals once.
        let (n, r) = split_exp::<FMA, 254>(-v);
        let half = n >> 1;
        let q = exp_reduced::<FMA>(pow2(half), r);
        let s = pow2(half.wrapping_sub(n).wrapping_add(254));
        s / (s + q)
    }
}

pub(super) struct Silu;
impl Elementwise for Silu {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> f32 {
        // At -110 the result is zero, and so is it below: (-110) e^-110 is less than half
        // the least subnormal.
        let x = if x < -110.0 { -110.0 } else { x };
        let a = -x.abs();
        let (e, s) = exp_halves::<FMA>(if a < -110.0 { -110.0 } else { a });
        let h = e * s;
        let h = h / (1.0 + h);
        // As in the sigmoid, with x on t before the last power of two.
        let (t, s) = if x < 0.0 { (x * e, s) } else { (x, 1.0) };
        let y = fma::<FMA>(-t, h, t) * s;
        // What is taken from x above 20 does not show, but from infinity it does; and the
        // sum loses the sign of a zero.
        let y = if x > 20.0 { x } else { y };
        y.copysign(x)
    }
}

pub(super) struct Softplus;
impl Elementwise for Softplus {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> f32 {
        let e = exp_neg_abs::<FMA>(x);
        let l = log1p_in_range::<FMA>(e);
        let l = if e < 1e-10 { e } else { l };
        // `x < 0` and not `x > 0`, so that a NaN is added to the sum.
        l + if x < 0.0 { 0.0 } else { x }
    }
}

pub(super) struct Erf;
impl Elementwise for Erf {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> f32 {
        let a = x.abs();
        let s = x * x;
        let near = fma::<FMA>(poly::<FMA, 7>(c::ERF_NEAR, s), x, x);
        // erfc(4) is below half an ulp of one.
        let t = if a > 4.0 { 4.0 } else { a };
        let (n, r) = split_exp::<FMA, 127>(poly::<FMA, 8>(c::ERF_FAR, t));
        let far = 1.0 - exp_reduced::<FMA>(pow2(n), r);
        if a < 0.9375 { near } else { far.copysign(x) }
    }
}

/// 2^t in f64 for |t| < 1000, to about 2^-34.
#[inline(always)]
fn exp2_64<const FMA: bool>(t: f64) -> f64 {
    let m = t + MAGIC64;
    let f = t - (m - MAGIC64);
    let n = (m.to_bits() as i64).wrapping_sub(MAGIC64.to_bits() as i64);
    poly64::<FMA, 8>(c::EXP2, f) * pow2_64(n)
}

/// Φ(x), rounded to f32 only by the caller.
#[inline(always)]
fn normal_cdf_64<const FMA: bool>(x: f32) -> f64 {
    let v = f64::from(x);
    let t = v.abs();
    // Φ(-14.5) is below half the least subnormal.
    let t = if t > 14.5 { 14.5 } else { t };
    let u = 1.0 / fma64::<FMA>(t, 0.25, 1.0);
    // t² is exact: 24 bits squared.
    let e = exp2_64::<FMA>(t * t * (-0.5 * std::f64::consts::LOG2_E));
    let tail = e * poly64::<FMA, 12>(c::MILLS, u);
    if v < 0.0 { tail } else { 1.0 - tail }
}

pub(super) struct NormalCdf;
impl Elementwise for NormalCdf {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> f32 {
        normal_cdf_64::<FMA>(x) as f32
    }
}

pub(super) struct Gelu;
impl Elementwise for Gelu {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> f32 {
        // From here down the result is less than half the least subnormal.
        let t = if x < -14.5 { -14.5 } else { x };
        (f64::from(t) * normal_cdf_64::<FMA>(t)) as f32
    }
}

/// Up to here the three-piece reduction of [`sin_cos`] is exact enough: the
/// multiple of π/2 stays below 2^20.
const TRIG_LIMIT: f32 = 1_048_576.0;

/// sin(r + q π/2) for |r| ≤ π/4, of which only the last two bits of `q` matter.
#[inline(always)]
fn sin_quadrant<const FMA: bool>(r: f64, q: u64) -> f64 {
    let s = r * r;
    let sin = fma64::<FMA>(r * s, poly64::<FMA, 4>(c::SIN, s), r);
    let cos = fma64::<FMA>(s * s, poly64::<FMA, 4>(c::COS, s), fma64::<FMA>(s, -0.5, 1.0));
    let y = if q & 1 == 0 { sin } else { cos };
    f64::from_bits(y.to_bits() ^ ((q & 2) << 62))
}

/// sin(x + shift π/2) for |x| ≤ [`TRIG_LIMIT`].
#[inline(always)]
fn sin_cos<const FMA: bool>(x: f32, shift: u64) -> f32 {
    let x = f64::from(x);
    let m = fma64::<FMA>(x, std::f64::consts::FRAC_2_PI, MAGIC64);
    let n = m - MAGIC64;
    // n times either of the first two pieces is exact, and the first difference too.
    let r = fma64::<FMA>(n, -c::HALF_PI[0], x);
    let r = fma64::<FMA>(n, -c::HALF_PI[1], r);
    let r = fma64::<FMA>(n, -c::HALF_PI[2], r);
    sin_quadrant::<FMA>(r, m.to_bits().wrapping_add(shift)) as f32
}

/// sin(x + shift π/2) for |x| > [`TRIG_LIMIT`], after Payne and Hanek: of 2/π only
/// the bits that can reach the fraction and the last two integer bits of x · 2/π are
/// multiplied.
fn sin_cos_large(x: f32, shift: u64) -> f32 {
    if !x.is_finite() {
        return f32::NAN;
    }
    let bits = x.abs().to_bits();
    // |x| = mantissa · 2^exponent; |x| ≥ TRIG_LIMIT makes exponent ≥ -3.
    let mantissa = u128::from(bits & 0x007f_ffff | 0x0080_0000);
    let exponent = (bits >> 23) as i32 - 150;
    // Bits of 2/π of weight above 2^(2-exponent) give multiples of 4, whole turns:
    // the window starts at the bit of weight 2^(1-exponent) and is 104 bits wide, so
    // that its product with 24 bits of mantissa fits 128 and is a number of quarter
    // turns, modulo 4, in units of 2^-102. The word of zeros that leads the table
    // keeps the start from being negative: 59 <= start <= 166.
    let start = (exponent + 62) as usize;
    let word = |i: usize| u128::from(c::TWO_OVER_PI[start / 64 + i]);
    let high = (word(0) << 64 | word(1)) << (start % 64);
    let window = (high | word(2) >> 1 >> (63 - start % 64)) >> 24;
    // Drop whole turns: keep 104 bits, 2 of them integer, and round to a quadrant.
    let turns = (mantissa * window) << 24;
    let quadrant = (turns.wrapping_add(1 << 125) >> 126) as u64;
    let fraction = turns.wrapping_sub(u128::from(quadrant) << 126) as i128;
    let r = fraction as f64 * (std::f64::consts::FRAC_PI_2 / 2f64.powi(126));
    // Reflect a negative x: x = -(r + quadrant π/2).
    let (r, quadrant) = if x < 0.0 { (-r, quadrant.wrapping_neg()) } else { (r, quadrant) };
    sin_quadrant::<false>(r, quadrant.wrapping_add(shift)) as f32
}

/// Replaces the results for large and infinite inputs, if a block has any.
#[inline(always)]
fn patch_large<const N: usize>(x: &[f32; N], y: &mut [f32; N], shift: u64) {
    let mut large = false;
    for v in x {
        large |= v.abs() > TRIG_LIMIT;
    }
    if large {
        replace_large(x, y, shift);
    }
}

/// Out of line and not unrolled, to leave the loop that hardly ever calls it small.
#[cold]
#[inline(never)]
fn replace_large(x: &[f32], y: &mut [f32], shift: u64) {
    for (v, y) in x.iter().zip(y) {
        if v.abs() > TRIG_LIMIT {
            *y = sin_cos_large(*v, shift);
        }
    }
}

pub(super) struct Sin;
impl Elementwise for Sin {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> f32 {
        let y = sin_cos::<FMA>(x, 0);
        // The reduction adds +0 to -0.
        if x == 0.0 { x } else { y }
    }
    #[inline(always)]
    fn patch<const N: usize>(x: &[f32; N], y: &mut [f32; N]) {
        patch_large(x, y, 0);
    }
}

pub(super) struct Cos;
impl Elementwise for Cos {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> f32 {
        sin_cos::<FMA>(x, 1)
    }
    #[inline(always)]
    fn patch<const N: usize>(x: &[f32; N], y: &mut [f32; N]) {
        patch_large(x, y, 1);
    }
}

/// Whether a non-negative v is an integer: above 2^23 every f32 is, and below it
/// the sum with 2^23 rounds to one.
#[inline(always)]
fn is_integer(v: f32) -> bool {
    v >= 8_388_608.0 || (v + 8_388_608.0) - 8_388_608.0 == v
}

/// x^y with the special cases of IEEE 754 `pow`: 2^(y log2|x|) in f64, whose
/// conversion to f32 does overflow, underflow and the only rounding that shows.
#[inline(always)]
pub(super) fn pow<const FMA: bool>(x: f32, y: f32) -> f32 {
    let ax = x.abs();
    // Every f32 is a normal f64, subnormals included.
    let bits = f64::from(ax).to_bits();
    const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    // The arithmetic shift of a 64-bit lane is not in AVX2: bias, shift, unbias.
    let k = (bits.wrapping_sub(SQRT_HALF).wrapping_add(1 << 62) >> 52).wrapping_sub(1 << 10);
    let m = f64::from_bits(bits.wrapping_sub(k << 52));
    let k = f64::from_bits(MAGIC64.to_bits().wrapping_add(k)) - MAGIC64;
    let s = (m - 1.0) / (m + 1.0);
    let l = fma64::<FMA>(s, poly64::<FMA, 6>(c::LOG2, s * s), k);
    let l = if ax == 0.0 { f64::NEG_INFINITY } else { l };
    let l = if ax < f32::INFINITY { l } else { f64::from(ax) };

    let t = l * f64::from(y);
    let t = if t > 200.0 { 200.0 } else { t };
    let t = if t < -200.0 { -200.0 } else { t };
    let p = exp2_64::<FMA>(t) as f32;

    let ay = y.abs();
    let integer = is_integer(ay);
    let odd = integer && !is_integer(0.5 * ay);
    let negative = x.to_bits() >> 31 == 1;
    let p = if negative && odd { -p } else { p };
    // A negative finite base, not -0, with a fractional exponent.
    let p = if x < 0.0 && ax < f32::INFINITY && !integer { f32::NAN } else { p };
    // 1^y, x^0 and (-1)^±inf are 1 whatever the other operand, NaN included.
    let one = x == 1.0 || y == 0.0 || (ax == 1.0 && ay == f32::INFINITY);
    if one { 1.0 } else { p }
}
