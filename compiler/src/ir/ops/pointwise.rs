//! Pointwise ops: the same function for every feature.
//!
//! Operands have equal shapes; a scalar operand meets every feature, a narrower extent every row. Tangents are
//! written with the result where that is cheaper: tanh′ = 1 − y², σ′ = y(1 − y).

use crate::ir::dual::{Dual, along};
use crate::ir::graph::{Graph, Value};
use crate::ir::op::{Binary, Eval, Op, Row, Tangent, Transpose, Unary};
use crate::ir::types::{DType, Extent, Type};

fn pointwise_type(arity: usize, operands: &[&Type]) -> Result<Type, String> {
    if operands.len() != arity {
        return Err(format!("it takes {arity} operands"));
    }
    if operands.iter().any(|t| !t.is_float()) {
        return Err("it works on floats; turn integers into floats with to_float".to_string());
    }
    let mut out = operands[0].clone();
    for t in &operands[1..] {
        out.extent = out.extent.join(t.extent).ok_or("sequences on different time axes have no common steps")?;
        if out.shape.rank() == 0 {
            out.shape = t.shape.clone();
        } else if t.shape.rank() != 0 && t.shape != out.shape {
            return Err(format!("shapes {} and {} differ", out.shape, t.shape));
        }
    }
    Ok(out)
}

const fn unary(name: &'static str, tangent: Tangent, eval: fn(&Op, &[Dual]) -> Dual) -> Row {
    Row { name, infer: |_, t| pointwise_type(1, t), tangent, transpose: None, eval: Eval::Pointwise(eval) }
}

/// A rule of the form coefficient(x, y) · ẋ.
macro_rules! scaled {
    (|$g:ident, $x:ident, $y:ident| $coefficient:expr) => {
        Tangent::Rule(|$g, node, tangents| {
            let $x = $g.operands(node)[0];
            let $y = node;
            let _ = ($x, $y);
            let coefficient: Value = $coefficient;
            let tangent = tangents[0].expect("a rule is asked for only where a tangent is");
            $g.binary(Binary::Mul, tangent, coefficient)
        })
    };
}

impl Graph {
    /// A pointwise op of one value.
    pub fn unary(&mut self, op: Unary, x: Value) -> Value {
        self.add(Op::Unary(op), &[x])
    }
    /// A pointwise op of two values.
    pub fn binary(&mut self, op: Binary, x: Value, y: Value) -> Value {
        self.add(Op::Binary(op), &[x, y])
    }
    fn with_scalar(&mut self, op: Binary, x: Value, y: f64) -> Value {
        let y = self.scalar(y);
        self.binary(op, x, y)
    }
    /// y − x for a number y.
    fn scalar_minus(&mut self, y: f64, x: Value) -> Value {
        let y = self.scalar(y);
        self.binary(Binary::Sub, y, x)
    }
}

pub static NEG: Row =
    Row { transpose: Some(|g, _, _, ct| g.unary(Unary::Neg, ct)), ..unary("neg", Tangent::Linear, |_, a| -a[0]) };
pub static ABS: Row =
    unary("abs", scaled!(|g, x, y| g.unary(Unary::Sign, x)), |_, a| a[0].chain(a[0].re.abs(), sign(a[0].re)));
pub static SIGN: Row = unary("sign", Tangent::Zero, |_, a| Dual::new(sign(a[0].re)));
pub static SQRT: Row = unary(
    "sqrt",
    scaled!(|g, x, y| {
        let half = g.scalar(0.5);
        g.binary(Binary::Div, half, y)
    }),
    |_, a| a[0].chain(a[0].re.sqrt(), 0.5 / a[0].re.sqrt()),
);
pub static EXP: Row = unary("exp", scaled!(|g, x, y| y), |_, a| a[0].chain(a[0].re.exp(), a[0].re.exp()));
/// The derivative is exp(x), not y + 1: where y comes near −1, the sum keeps nothing of it.
pub static EXPM1: Row =
    unary("expm1", scaled!(|g, x, y| g.unary(Unary::Exp, x)), |_, a| a[0].chain(a[0].re.exp_m1(), a[0].re.exp()));
pub static LN: Row = unary(
    "ln",
    scaled!(|g, x, y| {
        let one = g.scalar(1.0);
        g.binary(Binary::Div, one, x)
    }),
    |_, a| a[0].chain(a[0].re.ln(), 1.0 / a[0].re),
);
pub static LOG1P: Row = unary(
    "log1p",
    scaled!(|g, x, y| {
        let one = g.scalar(1.0);
        let sum = g.binary(Binary::Add, x, one);
        g.binary(Binary::Div, one, sum)
    }),
    |_, a| a[0].chain(a[0].re.ln_1p(), 1.0 / (1.0 + a[0].re)),
);
pub static TANH: Row = unary(
    "tanh",
    scaled!(|g, x, y| {
        let squared = g.binary(Binary::Mul, y, y);
        g.scalar_minus(1.0, squared)
    }),
    // sech² by cosh, not by 1 − tanh²: an independent form.
    |_, a| a[0].chain(a[0].re.tanh(), a[0].re.cosh().powi(-2)),
);
pub static SIGMOID: Row = unary(
    "sigmoid",
    scaled!(|g, x, y| {
        let rest = g.scalar_minus(1.0, y);
        g.binary(Binary::Mul, y, rest)
    }),
    |_, a| {
        let (x, e) = (a[0].re, (-a[0].re.abs()).exp());
        a[0].chain(logistic(x), e / (1.0 + e).powi(2))
    },
);
/// (x·σ)′ = σ·(1 + x·(1 − σ)): by x alone, so that a loop's derivative needs no second value of it. The x that σ or 1 − σ
/// is to take to 0 is held finite: at ±∞ the slopes are their limits, 1 and 0.
pub static SILU: Row = unary(
    "silu",
    scaled!(|g, x, y| {
        let sigmoid = g.unary(Unary::Sigmoid, x);
        let rest = g.scalar_minus(1.0, sigmoid);
        let x = within(g, x, FLAT);
        let inner = g.binary(Binary::Mul, x, rest);
        let inner = g.with_scalar(Binary::Add, inner, 1.0);
        g.binary(Binary::Mul, sigmoid, inner)
    }),
    |_, a| {
        let (x, e) = (a[0].re, (-a[0].re.abs()).exp());
        a[0].chain(gated(x, logistic(x)), logistic(x) + x.clamp(-FLAT, FLAT) * (e / (1.0 + e).powi(2)))
    },
);
pub static SOFTPLUS: Row = unary("softplus", scaled!(|g, x, y| g.unary(Unary::Sigmoid, x)), |_, a| {
    let (x, e) = (a[0].re, (-a[0].re.abs()).exp());
    a[0].chain(x.max(0.0) + e.ln_1p(), logistic(x))
});
pub static RELU: Row = unary("relu", scaled!(|g, x, y| g.with_scalar(Binary::Gt, x, 0.0)), |_, a| {
    if a[0].re < 0.0 { Dual::new(0.0) } else { a[0].chain(a[0].re, flag(a[0].re > 0.0)) }
});
pub static ERF: Row = unary(
    "erf",
    scaled!(|g, x, y| {
        let bell = bell(g, x, 1.0);
        g.with_scalar(Binary::Mul, bell, std::f64::consts::FRAC_2_SQRT_PI)
    }),
    |_, a| {
        let x = a[0].re;
        a[0].chain(libm::erf(x), std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp())
    },
);
pub static NORMAL_CDF: Row = unary(
    "normal_cdf",
    scaled!(|g, x, y| {
        let bell = bell(g, x, 0.5);
        g.with_scalar(Binary::Mul, bell, FRAC_1_SQRT_TAU)
    }),
    |_, a| a[0].chain(normal_cdf(a[0].re), normal_density(a[0].re)),
);
/// (x·Φ)′ = Φ + x·φ
pub static GELU: Row = unary(
    "gelu",
    scaled!(|g, x, y| {
        let bell = bell(g, x, 0.5);
        let density = g.with_scalar(Binary::Mul, bell, FRAC_1_SQRT_TAU);
        let held = within(g, x, FLAT);
        let slope = g.binary(Binary::Mul, held, density);
        let cdf = g.unary(Unary::NormalCdf, x);
        g.binary(Binary::Add, cdf, slope)
    }),
    |_, a| {
        let x = a[0].re;
        a[0].chain(gated(x, normal_cdf(x)), normal_cdf(x) + x.clamp(-FLAT, FLAT) * normal_density(x))
    },
);
pub static SIN: Row =
    unary("sin", scaled!(|g, x, y| g.unary(Unary::Cos, x)), |_, a| a[0].chain(a[0].re.sin(), a[0].re.cos()));
pub static COS: Row = unary(
    "cos",
    scaled!(|g, x, y| {
        let sine = g.unary(Unary::Sin, x);
        g.unary(Unary::Neg, sine)
    }),
    |_, a| a[0].chain(a[0].re.cos(), -a[0].re.sin()),
);
pub static POWI: Row = unary(
    "powi",
    scaled!(|g, x, y| {
        match exponent(g.op(y)) {
            // x⁰ is constant at 0 too, where 0·x⁻¹ is not a number.
            0 => g.scalar(0.0),
            n => {
                let power = g.unary(Unary::Powi(n.saturating_sub(1)), x);
                g.with_scalar(Binary::Mul, power, f64::from(n))
            }
        }
    }),
    |op, a| {
        let (x, n) = (a[0].re, exponent(op));
        a[0].chain(x.powi(n), if n == 0 { 0.0 } else { f64::from(n) * x.powi(n.saturating_sub(1)) })
    },
);

const FRAC_1_SQRT_TAU: f64 = 0.398_942_280_401_432_7;

/// σ(x) from e^−|x|, which does not overflow.
fn logistic(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

fn normal_density(x: f64) -> f64 {
    FRAC_1_SQRT_TAU * (-0.5 * x * x).exp()
}

/// x times a factor that vanishes at −∞ faster than x grows: there the limit, −0.
fn gated(x: f64, factor: f64) -> f64 {
    if x == f64::NEG_INFINITY { -0.0 } else { x * factor }
}

/// From here on outwards, on either side, σ, Φ and their derivatives are 0 or 1 in 64 bits.
const FLAT: f64 = 1000.0;

/// x, held to −limit ..= limit; NaN stays.
fn within(g: &mut Graph, x: Value, limit: f64) -> Value {
    let above = g.with_scalar(Binary::Max, x, -limit);
    g.with_scalar(Binary::Min, above, limit)
}

/// e^(−s·x²), for s of 1 or ½, to a few units in the last place at any x.
///
/// The exponential would turn the rounding of x², relative, into x²/2 times as much. So x is split (Dekker 1971) into a
/// high part whose square is exact in 32 bits and a small rest, `x² = h² + (x − h)(x + h)`, and each has its exponential.
fn bell(g: &mut Graph, x: Value, s: f64) -> Value {
    /// 2¹² + 1: leaves half of the 24 bits.
    const SPLIT: f64 = 4097.0;
    /// From here on the result is zero in 32 and in 64 bits, and nothing overflows up to here.
    const ZERO_FROM: f64 = 40.0;
    let x = within(g, x, ZERO_FROM);
    let scaled = g.with_scalar(Binary::Mul, x, SPLIT);
    let rest = g.binary(Binary::Sub, scaled, x);
    let high = g.binary(Binary::Sub, scaled, rest);
    let squared = g.binary(Binary::Mul, high, high);
    let (low, sum) = (g.binary(Binary::Sub, x, high), g.binary(Binary::Add, x, high));
    let remainder = g.binary(Binary::Mul, low, sum);
    let [a, b] = [squared, remainder].map(|square| {
        let exponent = g.with_scalar(Binary::Mul, square, -s);
        g.unary(Unary::Exp, exponent)
    });
    g.binary(Binary::Mul, a, b)
}

fn exponent(op: &Op) -> i32 {
    match op {
        Op::Unary(Unary::Powi(n)) => *n,
        _ => unreachable!("the row of powi"),
    }
}

fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x // ±0 and NaN stay
    }
}

fn flag(b: bool) -> f64 {
    f64::from(u8::from(b))
}

const fn binary(
    name: &'static str,
    tangent: Tangent,
    transpose: Option<Transpose>,
    eval: fn(&Op, &[Dual]) -> Dual,
) -> Row {
    Row { name, infer: |_, t| pointwise_type(2, t), tangent, transpose, eval: Eval::Pointwise(eval) }
}

/// Takes a cotangent of the result to the type of operand `i`.
fn to_operand(g: &mut Graph, node: Value, i: usize, ct: Value) -> Value {
    let ty = g.ty(g.operands(node)[i]).clone();
    g.sum_to(ct, &ty)
}

pub static ADD: Row = binary("add", additive(), Some(to_operand), |_, a| a[0] + a[1]);
pub static SUB: Row = binary(
    "sub",
    additive(),
    Some(|g, node, i, ct| {
        let ct = to_operand(g, node, i, ct);
        if i == 1 { g.unary(Unary::Neg, ct) } else { ct }
    }),
    |_, a| a[0] - a[1],
);

/// x ± y: the tangents there are, spread to the result's type where only one is.
const fn additive() -> Tangent {
    Tangent::Rule(|g, node, tangents| {
        let ty = g.ty(node).clone();
        let minus = matches!(g.op(node), Op::Binary(Binary::Sub));
        match (tangents[0], tangents[1]) {
            (Some(x), Some(y)) => g.binary(if minus { Binary::Sub } else { Binary::Add }, x, y),
            (Some(x), None) => g.spread_to(x, &ty),
            (None, Some(y)) => {
                let y = if minus { g.unary(Unary::Neg, y) } else { y };
                g.spread_to(y, &ty)
            }
            (None, None) => unreachable!("a rule is asked for only where a tangent is"),
        }
    })
}

pub static MUL: Row = binary(
    "mul",
    Tangent::Multilinear,
    Some(|g, node, i, ct| {
        let other = g.operands(node)[1 - i];
        let product = g.binary(Binary::Mul, ct, other);
        to_operand(g, node, i, product)
    }),
    |_, a| a[0] * a[1],
);
/// x / y is linear in x only; (x/y)˙ = (ẋ − (x/y)·ẏ) / y.
pub static DIV: Row = binary(
    "div",
    Tangent::Rule(|g, node, tangents| {
        let y = g.operands(node)[1];
        let ty = g.ty(node).clone();
        let along_x = tangents[0].map(|t| {
            let t = g.binary(Binary::Div, t, y);
            g.spread_to(t, &ty)
        });
        let along_y = tangents[1].map(|t| {
            let ratio = g.binary(Binary::Div, node, y);
            let t = g.binary(Binary::Mul, t, ratio);
            g.unary(Unary::Neg, t)
        });
        match (along_x, along_y) {
            (Some(a), Some(b)) => g.binary(Binary::Add, a, b),
            (a, b) => a.or(b).expect("a rule is asked for only where a tangent is"),
        }
    }),
    Some(|g, node, i, ct| {
        assert_eq!(i, 0, "a quotient is linear in its numerator");
        let y = g.operands(node)[1];
        let quotient = g.binary(Binary::Div, ct, y);
        to_operand(g, node, 0, quotient)
    }),
    |_, a| a[0] / a[1],
);
/// (xʸ)˙ = y·xʸ⁻¹·ẋ + xʸ·ln(x)·ẏ. Where the limits are 0 and the formula 0·∞, 0 is chosen: along x for y = 0 (x⁰ is 1
/// everywhere), along y for x = 0 and y ≥ 0 (0ʸ is 0, and at y = 0 what PyTorch says).
pub static POW: Row = binary(
    "pow",
    Tangent::Rule(|g, node, tangents| {
        let (x, y) = (g.operands(node)[0], g.operands(node)[1]);
        let along_x = tangents[0].map(|t| {
            let less = g.with_scalar(Binary::Sub, y, 1.0);
            let power = g.binary(Binary::Pow, x, less);
            let slope = g.binary(Binary::Mul, y, power);
            let slope = if matches!(g.op(y), Op::Constant(y) if *y != 0.0) {
                slope
            } else {
                let (flat, zero) = (g.with_scalar(Binary::Eq, y, 0.0), g.scalar(0.0));
                g.add(Op::Select, &[flat, zero, slope])
            };
            g.binary(Binary::Mul, t, slope)
        });
        let along_y = tangents[1].map(|t| {
            let log = g.unary(Unary::Ln, x);
            let slope = g.binary(Binary::Mul, node, log);
            let (at_zero, above) = (g.with_scalar(Binary::Eq, x, 0.0), g.with_scalar(Binary::Ge, y, 0.0));
            let (flat, zero) = (g.binary(Binary::Mul, at_zero, above), g.scalar(0.0));
            let slope = g.add(Op::Select, &[flat, zero, slope]);
            g.binary(Binary::Mul, t, slope)
        });
        match (along_x, along_y) {
            (Some(a), Some(b)) => g.binary(Binary::Add, a, b),
            (a, b) => a.or(b).expect("a rule is asked for only where a tangent is"),
        }
    }),
    None,
    |_, a| {
        let (x, y) = (a[0].re, a[1].re);
        let value = x.powf(y);
        let along_x = if y == 0.0 { 0.0 } else { y * x.powf(y - 1.0) };
        let along_y = if x == 0.0 && y >= 0.0 { 0.0 } else { value * x.ln() };
        Dual { re: value, du: along(a[0].du, along_x) + along(a[1].du, along_y) }
    },
);

/// min and max: NaN if either is; where both are equal, the first operand has the derivative.
const fn choice(name: &'static str, eval: fn(&Op, &[Dual]) -> Dual) -> Row {
    binary(
        name,
        Tangent::Rule(|g, node, tangents| {
            let (x, y) = (g.operands(node)[0], g.operands(node)[1]);
            let second = match g.op(node) {
                Op::Binary(Binary::Min) => Binary::Lt,
                _ => Binary::Gt,
            };
            let ty = g.ty(node).clone();
            let mask = g.binary(second, y, x);
            let branch = |g: &mut Graph, t: Option<Value>| match t {
                Some(t) => t,
                None => g.constant(0.0, Type::float(Extent::Shared, ())),
            };
            let (a, b) = (branch(g, tangents[0]), branch(g, tangents[1]));
            let t = g.add(Op::Select, &[mask, b, a]);
            g.spread_to(t, &ty)
        }),
        None,
        eval,
    )
}
pub static MIN: Row = choice("min", |_, a| if a[1].re < a[0].re || a[1].re.is_nan() { a[1] } else { a[0] });
pub static MAX: Row = choice("max", |_, a| if a[1].re > a[0].re || a[1].re.is_nan() { a[1] } else { a[0] });

pub static GT: Row = binary("gt", Tangent::Zero, None, |_, a| Dual::new(flag(a[0].re > a[1].re)));
pub static GE: Row = binary("ge", Tangent::Zero, None, |_, a| Dual::new(flag(a[0].re >= a[1].re)));
pub static LT: Row = binary("lt", Tangent::Zero, None, |_, a| Dual::new(flag(a[0].re < a[1].re)));
pub static LE: Row = binary("le", Tangent::Zero, None, |_, a| Dual::new(flag(a[0].re <= a[1].re)));
pub static EQ: Row = binary("eq", Tangent::Zero, None, |_, a| Dual::new(flag(a[0].re == a[1].re)));
pub static NE: Row = binary("ne", Tangent::Zero, None, |_, a| Dual::new(flag(a[0].re != a[1].re)));

pub static SELECT: Row = Row {
    name: "select",
    infer: |_, t| match t {
        // Integers have no broadcast over features: who moves them moves whole rows.
        [mask, a, b] if a.dtype == DType::I32 && a.dtype == b.dtype && a.shape == b.shape => {
            let [x, y] = [a, b].map(|t| Type { dtype: DType::F32, ..(*t).clone() });
            let ty = pointwise_type(3, &[mask, &x, &y])?;
            if ty.shape == a.shape {
                Ok(Type { dtype: DType::I32, ..ty })
            } else {
                Err("a mask chooses features".into())
            }
        }
        _ => pointwise_type(3, t),
    },
    tangent: Tangent::Rule(|g, node, tangents| {
        let mask = g.operands(node)[0];
        let ty = g.ty(node).clone();
        let zero = g.scalar(0.0);
        let t = g.add(Op::Select, &[mask, tangents[1].unwrap_or(zero), tangents[2].unwrap_or(zero)]);
        g.spread_to(t, &ty)
    }),
    transpose: Some(|g, node, i, ct| {
        let mask = g.operands(node)[0];
        let zero = g.scalar(0.0);
        let branch = if i == 1 { [mask, ct, zero] } else { [mask, zero, ct] };
        let chosen = g.add(Op::Select, &branch);
        to_operand(g, node, i, chosen)
    }),
    eval: Eval::Pointwise(|_, a| if a[0].re != 0.0 { a[1] } else { a[2] }),
};

pub static STOP_GRADIENT: Row = unary("stop_gradient", Tangent::Zero, |_, a| Dual::new(a[0].re));

pub static TO_FLOAT: Row = Row {
    infer: |_, t| match t {
        [t] if t.dtype == DType::I32 => Ok(Type { dtype: DType::F32, ..(*t).clone() }),
        _ => Err("it takes one integer value".to_string()),
    },
    ..unary("to_float", Tangent::Zero, |_, a| Dual::new(a[0].re))
};
