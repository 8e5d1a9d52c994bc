//! Every pointwise op, and every op along features, in a loop and around it.

use retrograd::prelude::*;

use super::{energy, record};

type Function = for<'r> fn(Expr<'r>) -> Expr<'r>;
type Function2 = for<'r> fn(Expr<'r>, Expr<'r>) -> Expr<'r>;

/// Functions of one value. Arguments of `positive` ones are at least ½.
pub const FUNCTIONS: [(&str, Function); 34] = [
    ("neg", |x| -x),
    ("abs", |x| x.abs()),
    ("sign", |x| x.sign() * x.cos()),
    ("sqrt_positive", |x| x.sqrt()),
    ("exp", |x| x.exp()),
    ("expm1", |x| x.expm1()),
    ("ln_positive", |x| x.ln()),
    ("log1p_positive", |x| x.log1p()),
    ("tanh", |x| x.tanh()),
    ("sigmoid", |x| x.sigmoid()),
    ("softplus", |x| x.softplus()),
    ("relu", |x| x.relu()),
    ("erf", |x| x.erf()),
    ("normal_cdf", |x| x.normal_cdf()),
    ("sin", |x| x.sin()),
    ("cos", |x| x.cos()),
    ("powi_0", |x| x.powi(0) + x),
    ("powi_1", |x| x.powi(1)),
    ("powi_2", |x| x.powi(2)),
    ("powi_5", |x| x.powi(5)),
    ("powi_minus_1_positive", |x| x.powi(-1)),
    ("powi_minus_3_positive", |x| x.powi(-3)),
    ("powf_positive", |x| x.powf(1.7)),
    ("square", |x| x.square()),
    ("clamp", |x| x.clamp(-0.4, 0.3)),
    ("leaky_relu", |x| x.leaky_relu(0.1)),
    ("elu", |x| x.elu(0.7)),
    ("gelu", |x| x.gelu()),
    ("silu", |x| x.silu()),
    ("log_sigmoid", |x| x.log_sigmoid()),
    ("affine_of_constants", |x| (2.0 - x) * 3.0 / 4.0 - 1.0),
    ("inverse_positive", |x| 1.0 / x),
    ("stop_gradient", |x| x * x.stop_gradient()),
    ("identity", |x| x),
];

/// Functions of two values, the second away from 0 where `positive`.
pub const FUNCTIONS_2: [(&str, Function2); 17] = [
    ("add", |x, y| x + y),
    ("sub", |x, y| x - y),
    ("mul", |x, y| x * y),
    ("div_positive", |x, y| x / y),
    ("pow_positive", |x, y| y.pow(x)),
    ("minimum", |x, y| x.minimum(y)),
    ("maximum", |x, y| x.maximum(y)),
    ("gt", |x, y| x.gt(y) * x),
    ("ge", |x, y| x.ge(y) * y),
    ("lt", |x, y| x.lt(y) * x + y),
    ("le", |x, y| x.le(y) * y + x),
    ("eq", |x, y| x.eq(y) + y),
    ("ne", |x, y| x.ne(y) * x * y),
    ("select", |x, y| select(x.gt(0.0), x * y, x - y)),
    ("select_number", |x, y| select(y.lt(0.2), 0.5, x)),
    ("inner", |x, y| x * x.inner(y)),
    ("clamp_by", |x, y| x.clamp(-y.abs(), y.abs())),
];

/// A function before the loop on a sequence, in the loop on a state that depends on itself, on a parameter, and
/// behind it.
fn function(name: &str, f: Function) -> Program {
    record(name, |p| {
        let positive = name.contains("positive");
        let x = p.sequence(if positive { "positive_x" } else { "x" }, 5);
        let w = p.parameter(if positive { "positive_w" } else { "w" }, 5, Init::Normal(0.5));
        let outside = f(x);
        let run = p.scan("loop", |s| {
            let h = s.state("h", 5);
            let z = s.at(x) + h * 0.25;
            let z = if positive { z.abs() + 0.3 } else { z };
            let h1 = s.next(h, (f(z) * 0.5 + f(w)).tanh());
            (h1, f(z))
        });
        p.output("outside", outside);
        p.output("h", run.0.all());
        p.output("inside", run.1.all());
        p.output("shared", f(w));
        p.minimize((energy(run.1.all()) + energy(run.0.all()) * 2.0).mean_rows() + energy(f(w)));
    })
}

/// A function of two values of all pairs of extents, and of a scalar and features.
fn function_2(name: &str, f: Function2) -> Program {
    record(name, |p| {
        let positive = name.contains("positive");
        let named = |n: &str| if positive { format!("positive_{n}") } else { n.to_string() };
        let (x, c) = (p.sequence("x", 7), p.input(&named("c"), 7));
        let y = p.sequence(&named("y"), 7);
        let scalar = p.sequence(&named("scalar"), ());
        let w = p.parameter(&named("w"), 7, Init::Normal(0.5));
        let run = p.scan("loop", |s| {
            let h = s.state("h", 7);
            let other = s.linear("h", h, 7).tanh();
            let other = if positive { other.abs() + 0.4 } else { other };
            let a = f(s.at(x), other);
            let b = f(h + s.at(x), c);
            let h1 = s.next(h, (a + b * 0.5 + f(s.at(x), w) * 0.3).tanh());
            (h1, f(h1, w))
        });
        p.output("h", run.0.all());
        p.output("time_time", f(x, y));
        p.output("time_batch", f(x, c));
        p.output("batch_shared", f(c, w));
        p.output("shared_shared", f(w * 0.3, w));
        p.output("features_scalar", f(x, scalar.reshape(1).broadcast(7)));
        p.minimize(
            energy(run.0.all()).mean_rows()
                + energy(run.1.all()).mean_rows()
                + energy(f(w * 0.3, w))
                + energy(f(c, w)).mean_rows()
                + energy(f(x, c) * w).mean_rows(),
        );
    })
}

type Along = for<'r> fn(&Scope<'r>, Expr<'r>) -> Expr<'r>;

/// Along the features of a `[n]`; the result is of any shape.
pub const ALONG: [(&str, Along); 20] = [
    ("sum", |_, x| x * x.sum()),
    ("sum_of_product", |_, x| (x * x).sum()),
    ("mean", |_, x| x - x.mean()),
    ("mean_features", |_, x| x.mean_features()),
    ("max", |_, x| x * x.max()),
    ("min", |_, x| x.min()),
    ("softmax", |_, x| x.softmax()),
    ("log_softmax", |_, x| x.log_softmax()),
    ("layer_norm", |p, x| p.layer_norm("norm", x)),
    ("rms_norm", |p, x| p.rms_norm("norm", x)),
    ("two_norms", |p, x| p.rms_norm("rms", p.layer_norm("layer", x * 3.0).tanh())),
    ("softmax_of_softmax", |_, x| (x.softmax() * 5.0).softmax()),
    ("unit_vector", |_, x| x / (x.inner(x) + 0.1).sqrt()),
    ("soft_of_sum", |_, x| x.sum().tanh() * x.softmax()),
    ("sum_axis", |_, x| x.sum_axis(0) + x),
    ("max_axis", |_, x| x - x.max_axis(0)),
    ("min_axis", |_, x| x * x.min_axis(0)),
    ("mean_axis", |_, x| x + x.mean_axis(0)),
    ("argmax", |_, x| x * x.argmax().to_float()),
    ("one_hot_of_argmax", |_, x| x * x.argmax().one_hot(x.units())),
];

fn along(name: &str, f: Along, n: usize) -> Program {
    record(&format!("{name}_{n}"), |p| {
        let x = p.sequence("x", n);
        let w = p.parameter("w", n, Init::Normal(0.5));
        let run = p.scan("loop", |s| {
            let h = s.state("h", n);
            let z = f(s, s.linear("h", h, n) + s.at(x) * w);
            (s.next(h, (z + s.at(x)).tanh()), z)
        });
        p.output("h", run.0.all());
        p.output("z", run.1.all());
        p.output("outside", f(p, x));
        p.minimize(energy(run.1.all()).mean_rows() + energy(f(p, x * w)).mean_rows() + energy(f(p, w)));
    })
}

/// All functions.
pub fn programs() -> Vec<Program> {
    let one = FUNCTIONS.iter().map(|(name, f)| function(name, *f));
    one.chain(FUNCTIONS_2.iter().map(|(name, f)| function_2(name, *f))).collect()
}

/// All reductions, at widths around a vector's.
pub fn along_features() -> Vec<Program> {
    ALONG.iter().flat_map(|(name, f)| [1, 5, 17].map(|n| along(name, *f, n))).collect()
}
