//! How exact losses and activations are: swept over all magnitudes that 32 bits hold, values and derivatives, in generated
//! code of 32 bits against formulas in 64 that nothing cancels in.
//!
//! A unit is the distance of two neighbouring floats at the true value. Where a function's derivative goes through zero, or is
//! told by its result near saturation (tanh, sigmoid), the unit is that at the named size instead: see each line of the table.

mod check;
mod corpus;

use corpus::record;
use retrograd::prelude::*;
use retrograd::runtime::session::Session;

/// About 10⁵ numbers: every magnitude from the least normal to 3·10³⁸, and the region around 0 densely.
fn grid(largest: f32) -> Vec<f32> {
    let mut all = vec![0.0f32];
    // Forty thousand floats of each sign, equally many from each binade.
    let (first, last) = (f32::MIN_POSITIVE.to_bits(), largest.to_bits());
    let step = ((last - first) / 40_000).max(1);
    for bits in (first..=last).step_by(step as usize) {
        all.extend([f32::from_bits(bits), -f32::from_bits(bits)]);
    }
    // And the part where functions bend.
    all.extend((-12_000..=12_000).map(|i| i as f32 / 120.0 + 1e-4));
    all.retain(|x| x.abs() <= largest);
    all
}

/// Units in the last place of 32 bits at a number; subnormal results are allowed the least normal one's.
fn unit(x: f64) -> f64 {
    let x = x.abs().max(f64::from(f32::MIN_POSITIVE));
    2f64.powi(x.log2().floor() as i32 - 23)
}

/// Runs `y = f(x)` with its derivative for each number of the grid, each of them a sample.
fn swept(x: &[f32], f: &dyn for<'r> Fn(Expr<'r>) -> Expr<'r>) -> (Vec<f32>, Vec<f32>) {
    let n = x.len();
    let program = record("swept", |p| {
        let w = p.parameter("w", n, Init::Constant(0.0));
        let y = f(w.lookup(p.labels("own")));
        p.output("y", y);
        p.minimize(y.sum_rows());
    });
    let joint = program.backward().expect("an objective");
    let mut session = Session::<f32>::new(&joint, 1).expect("it compiles");
    let w = ndarray::ArrayD::from_shape_vec(vec![n], x.to_vec()).expect("one axis");
    session.set_parameter("w", w.view()).expect("of its shape");
    let own: Vec<i32> = (0..n as i32).collect();
    session.run(&Feed::new().i32_slice("own", &[n], &own)).expect("it runs");
    let read = |name: &str| session.output(name).expect("an output").iter().copied().collect();
    (read("y"), read("d.w"))
}

type Function = Box<dyn Fn(f64) -> f64>;

/// One line of the table.
struct Line {
    name: &'static str,
    /// The largest argument of either sign.
    largest: f32,
    recorded: Box<dyn for<'r> Fn(Expr<'r>) -> Expr<'r>>,
    value: Function,
    slope: Function,
    /// Units that the value and the derivative may be off by.
    allowed: [f64; 2],
    /// The size whose unit a derivative's error is at least measured in, for arguments from and to here.
    coarse: Option<(f64, [f64; 2])>,
}

fn line(
    name: &'static str,
    largest: f32,
    recorded: impl for<'r> Fn(Expr<'r>) -> Expr<'r> + 'static,
    value: impl Fn(f64) -> f64 + 'static,
    slope: impl Fn(f64) -> f64 + 'static,
    allowed: [f64; 2],
) -> Line {
    Line {
        name,
        largest,
        recorded: Box::new(recorded),
        value: Box::new(value),
        slope: Box::new(slope),
        allowed,
        coarse: None,
    }
}

impl Line {
    fn coarse(self, size: f64, between: [f64; 2]) -> Line {
        Line { coarse: Some((size, between)), ..self }
    }
}

fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// e^(−x²/2)/√2π
fn density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
}

/// Φ(−t) for t ≥ 0: by its series up to 3, by Laplace's continued fraction from there on.
fn tail(t: f64) -> f64 {
    if t > 3.0 {
        let fraction = (1..400).rev().fold(t, |rest, k| t + f64::from(k) / rest);
        return density(t) / fraction;
    }
    // Φ(t) − ½ = φ(t)·(t + t³/3 + t⁵/15 + …): Marsaglia (2004), "Evaluating the normal distribution".
    let (mut sum, mut term) = (t, t);
    for k in 1..200 {
        term *= t * t / f64::from(2 * k + 1);
        sum += term;
    }
    0.5 - density(t) * sum
}

fn normal_cdf(x: f64) -> f64 {
    if x < 0.0 { tail(-x) } else { 1.0 - tail(x) }
}

fn erf(x: f64) -> f64 {
    let x = x * std::f64::consts::SQRT_2;
    if x.abs() > 3.0 {
        return x.signum() * (1.0 - 2.0 * tail(x.abs()));
    }
    let (mut sum, mut term) = (x, x);
    for k in 1..200 {
        term *= x * x / f64::from(2 * k + 1);
        sum += term;
    }
    2.0 * density(x) * sum
}

fn lines() -> Vec<Line> {
    let huge = 1e38;
    let mut all = vec![
        line("exp", 87.0, |x| x.exp(), f64::exp, f64::exp, [2.0, 2.0]),
        line("expm1", 87.0, |x| x.expm1(), f64::exp_m1, f64::exp, [2.0, 2.0]),
        line("tanh", huge, |x| x.tanh(), f64::tanh, |x| x.cosh().powi(-2), [2.0, 3.0]).coarse(1.0, [-99.0, 99.0]),
        line("sigmoid", huge, |x| x.sigmoid(), sigmoid, |x| sigmoid(x) * sigmoid(-x), [2.5, 4.5])
            .coarse(0.25, [-1.0, 99.0]),
        line("softplus", huge, |x| x.softplus(), softplus, sigmoid, [2.0, 2.5]),
        line("log_sigmoid", huge, |x| x.log_sigmoid(), |x| -softplus(-x), |x| sigmoid(-x), [2.0, 2.5]),
        // The slope is made of 1 − σ, which rounds to a half unit of 1: that is x/2 units where σ is about to be 1, up to 17.
        line("silu", huge, |x| x.silu(), |x| x * sigmoid(x), |x| sigmoid(x) * (1.0 + x * sigmoid(-x)), [3.0, 9.0])
            .coarse(0.5, [-4.0, 4.0]),
        line("gelu", huge, |x| x.gelu(), |x| x * normal_cdf(x), |x| normal_cdf(x) + x * density(x), [2.0, 8.0])
            .coarse(0.5, [-4.0, 4.0]),
        line("normal_cdf", huge, |x| x.normal_cdf(), normal_cdf, density, [2.0, 6.0]),
        line("erf", huge, |x| x.erf(), erf, |x| std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp(), [2.0, 6.0]),
        line(
            "elu",
            huge,
            |x| x.elu(1.5),
            |x| if x > 0.0 { x } else { 1.5 * x.exp_m1() },
            |x| if x > 0.0 { 1.0 } else { 1.5 * x.exp() },
            [4.0, 4.0],
        ),
        line("ln", huge, |x| x.abs().ln(), |x| x.abs().ln(), |x| 1.0 / x, [1.0, 1.0]),
        line("log1p", huge, |x| x.abs().log1p(), |x| x.abs().ln_1p(), |x| x.signum() / (1.0 + x.abs()), [2.0, 2.0]),
        line("sqrt", huge, |x| x.abs().sqrt(), |x| x.abs().sqrt(), |x| x.signum() * 0.5 / x.abs().sqrt(), [0.51, 2.0]),
    ];
    for t in [0.0f32, 1.0, 0.25, 0.999] {
        let wide = f64::from(t);
        let value = move |x: f64| softplus(-x.abs()) + x.abs() * if x > 0.0 { 1.0 - wide } else { wide };
        // σ(x) − t, of which nothing cancels where t is 0 or 1.
        let slope = move |x: f64| sigmoid(x) * (1.0 - wide) - sigmoid(-x) * wide;
        all.push(line(
            "binary_cross_entropy",
            1e30,
            move |x| x.binary_cross_entropy(x * 0.0 + t),
            value,
            slope,
            [4.0, 4.0],
        ));
        if (0.0..1.0).contains(&t) && t > 0.0 {
            // The derivative goes through zero.
            let last = all.pop().expect("just pushed");
            all.push(last.coarse(wide, [-99.0, 99.0]));
        }
    }
    all
}

#[test]
fn functions_and_slopes_are_exact_to_a_few_units() {
    let mut wrong = Vec::new();
    for Line { name, largest, recorded, value, slope, allowed, coarse } in lines() {
        let x = grid(largest);
        let (y, dy) = swept(&x, &recorded);
        let mut worst = [(0.0, 0.0); 2];
        for (i, &x) in x.iter().enumerate() {
            let wide = f64::from(x);
            let truths = [value(wide), slope(wide)];
            let mut units = truths.map(unit);
            if let Some((size, between)) = coarse
                && between[0] <= wide
                && wide <= between[1]
            {
                units[1] = units[1].max(unit(size));
            }
            for (which, given) in [y[i], dy[i]].into_iter().enumerate() {
                // Subnormals are flushed: a result near them, or x times one, may have lost a term that is one.
                let smallest = 1e-36 * wide.abs().clamp(1.0, 100.0);
                if x == 0.0 || truths[which].abs() < smallest && truths[which] != 0.0 || truths[which].abs() > 3e38 {
                    continue;
                }
                let error = (f64::from(given) - truths[which]).abs() / units[which];
                if error > worst[which].0 || error.is_nan() {
                    worst[which] = (if error.is_nan() { f64::INFINITY } else { error }, wide);
                }
            }
        }
        println!("{name}: value {:.2} at {:e}, slope {:.2} at {:e}", worst[0].0, worst[0].1, worst[1].0, worst[1].1);
        for (what, ((error, x), allowed)) in ["value", "slope"].iter().zip(worst.into_iter().zip(allowed)) {
            if error > allowed {
                wrong.push(format!("{name}: {what} is off by {error:.2} units at {x:e}, and {allowed} are allowed"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Logits that are infinite, and the derivative at 0, which is the middle of both sides.
#[test]
fn binary_cross_entropy_at_the_ends() {
    let (inf, ln2) = (f32::INFINITY, std::f32::consts::LN_2);
    for (t, x, loss) in [
        (0.0, inf, inf),
        (1.0, inf, 0.0),
        (0.0, -inf, 0.0),
        (1.0, -inf, inf),
        (0.5, inf, inf),
        (1.0, 0.0, ln2),
        (0.0, 0.0, ln2),
    ] {
        let (y, dy) = swept(&[x], &move |x: Expr<'_>| x.binary_cross_entropy(select(x.gt(9.0), t, t)));
        assert!((y[0] - loss).abs() <= 1e-7 || y[0] == loss, "x = {x}, t = {t}: {} instead of {loss}", y[0]);
        if x == 0.0 {
            assert_eq!(dy[0], 0.5 - t);
        }
    }
}

/// h' = h + x, where h starts from h0 by one of the ways to say so.
fn running_sum<'r>(s: &Step<'r>, door: &str, x: Expr<'r>, [h0, other]: [Expr<'r>; 2]) -> Expr<'r> {
    if door == "start" || door == "over state_from" {
        s.start("h", h0);
    }
    let h = match door {
        "state_from" => s.state_from("h", h0),
        "over state_from" => s.state_from("h", other),
        _ => s.state("h", ()),
    };
    let next = s.next(h, h + s.at(x));
    if door == "late start" {
        s.start("h", h0);
    }
    next
}

/// A running sum that starts at 100 and begins anew where it is told to: at 100 again, whoever says where it starts, in
/// either direction, with lengths and without.
#[test]
fn what_begins_anew_begins_where_it_was_started() {
    for (door, reverse, lengths) in [
        ("start", false, false),
        ("late start", false, false),
        ("over state_from", false, false),
        ("state_from", false, false),
        ("start", true, false),
        ("start", false, true),
        ("late start", true, true),
    ] {
        let program = record("begins", |p| {
            let time = if lengths { p.lengths("lengths") } else { p.axis("time") };
            let (x, h0) = (time.sequence("x", ()), p.input("h0", ()));
            let time = time.reset_where(time.sequence("begins", ()));
            let starts = [h0, h0 * 0.0 + 7.0];
            let run = if reverse {
                time.scan_reverse("sum", |s| running_sum(s, door, x, starts))
            } else {
                time.scan("sum", |s| running_sum(s, door, x, starts))
            };
            p.output("all", run.all());
        });
        let mut session = Session::<f32>::new(&program, 1).expect("it compiles");
        let mut feed = Feed::new();
        feed = feed.f32_slice("x", &[3, 1], &[1.0; 3]).f32_slice("begins", &[3, 1], &[1.0, 0.0, 1.0]);
        feed = feed.f32_slice("h0", &[1], &[100.0]);
        if lengths {
            feed = feed.i32_slice("lengths", &[1], &[3]);
        }
        session.run(&feed).expect("it runs");
        let given: Vec<f32> = session.output("all").expect("an output").iter().copied().collect();
        let expected = if reverse { [102.0, 101.0, 101.0] } else { [101.0, 102.0, 101.0] };
        assert_eq!(given, expected, "{door}, reverse: {reverse}, lengths: {lengths}");
    }
}

/// Steps are counted as integers: past 2²⁴, which is where whole floats of 32 bits end.
#[test]
fn lengths_beyond_what_floats_count() {
    const STEPS: usize = (1 << 24) + 10;
    let program = record("long", |p| p.output("own", p.lengths("lengths").mask()));
    let mut session = Session::<f32>::new(&program, 1).expect("it compiles");
    for length in [(1 << 24) - 1, 1 << 24, (1 << 24) + 1, (1 << 24) + 5, (1 << 24) + 10] {
        session.run(&Feed::new().i32_slice("lengths", &[1], &[length as i32]).steps("time", STEPS)).expect("it runs");
        let own = session.output("own").expect("an output");
        let count = own.iter().filter(|&&x| x == 1.0).count();
        assert_eq!((count, own[[length - 1, 0]]), (length, 1.0));
        assert!(length == STEPS || own[[length, 0]] == 0.0);
    }
}
