//! The f64 functions: one call of the standard library or of `libm` an element.
//! They serve gradient checks and as the reference of the f32 ones, so they are
//! made to be right, to about 1e-15 relative, and not to be fast.

use super::{Binary, InstructionSet, Table, Unary};

/// σ(x) from e^−|x|, which neither overflows nor cancels.
fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

/// x σ(x). Below zero e^x is multiplied on as the square of e^(x/2), so that the
/// result may be normal where e^x is not, and underflows gradually.
fn silu(x: f64) -> f64 {
    if x >= 0.0 {
        return x * sigmoid(x);
    }
    // Below, the result is zero.
    let x = if x < -800.0 { -800.0 } else { x };
    let h = (0.5 * x).exp();
    x * h / (1.0 + h * h) * h
}

/// ln(1 + e^x) from e^−|x|, like σ.
fn softplus(x: f64) -> f64 {
    let l = (-x.abs()).exp().ln_1p();
    if x < 0.0 { l } else { x + l }
}

/// Φ(x) = erfc(−x/√2)/2. The relative slope of erfc grows like its argument, so
/// that the half ulp lost in x/√2 would grow into x² half ulps: it is found again
/// with a fused multiply-add and put back to first order.
fn normal_cdf(x: f64) -> f64 {
    // 1/√2 less its f64 value.
    const REST: f64 = -4.833_646_656_726_457e-17;
    let a = -x * std::f64::consts::FRAC_1_SQRT_2;
    let y = libm::erfc(a);
    if !(0.0..40.0).contains(&a) {
        return 0.5 * y;
    }
    let lost = (-x).mul_add(std::f64::consts::FRAC_1_SQRT_2, -a) - x * REST;
    let slope = std::f64::consts::FRAC_2_SQRT_PI * (-a * a).exp();
    0.5 * (y - slope * lost)
}

/// x Φ(x). Relatively accurate as long as Φ(x) is normal, down to −37.5.
fn gelu(x: f64) -> f64 {
    // Below, Φ is zero.
    let x = if x < -40.0 { -40.0 } else { x };
    x * normal_cdf(x)
}

macro_rules! entries {
    ($($name:ident = $f:expr;)*) => {
        $(unsafe extern "C" fn $name(x: *const f64, y: *mut f64, n: usize) {
            for i in 0..n {
                // SAFETY: i < n, and the caller vouches for n elements of both; each
                // is read before it is written, so x may be y.
                unsafe { y.add(i).write($f(x.add(i).read())) }
            }
        })*
    };
}

mod entry {
    entries! {
        exp = f64::exp;
        expm1 = f64::exp_m1;
        ln = f64::ln;
        log1p = f64::ln_1p;
        tanh = f64::tanh;
        sigmoid = super::sigmoid;
        silu = super::silu;
        softplus = super::softplus;
        erf = libm::erf;
        normal_cdf = super::normal_cdf;
        gelu = super::gelu;
        sin = f64::sin;
        cos = f64::cos;
    }

    pub unsafe extern "C" fn pow(x: *const f64, z: *const f64, y: *mut f64, n: usize) {
        for i in 0..n {
            // SAFETY: as for the functions of one variable.
            unsafe { y.add(i).write(x.add(i).read().powf(z.add(i).read())) }
        }
    }

    pub static TABLE: super::Table<f64> = super::Table {
        instruction_set: super::InstructionSet::Portable,
        unary: [
            exp as super::Unary<f64>,
            expm1,
            ln,
            log1p,
            tanh,
            sigmoid,
            silu,
            softplus,
            erf,
            normal_cdf,
            gelu,
            sin,
            cos,
        ],
        binary: [pow as super::Binary<f64>],
    };
}

pub(super) use entry::TABLE;
