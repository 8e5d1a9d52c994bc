//! What a recorded program computes, against the same formula written out in plain Rust.

use std::f64::consts::SQRT_2;

use retrograd::compiler::interpret::{Values, interpret, random_values};
use retrograd::compiler::ir::Sizes;
use retrograd::compiler::ir::op::Data;
use retrograd::prelude::*;

const SIZES: (usize, usize) = (3, 2); // T, B

fn record(body: impl for<'r> FnOnce(&Recorder<'r>)) -> Program {
    let program = Program::record("test", body).unwrap_or_else(|e| panic!("{e}"));
    program.verify().unwrap_or_else(|e| panic!("{e}\n{program}"));
    let text = program.to_string();
    assert_eq!(Program::parse(&text).expect("what is printed parses").to_string(), text);
    program
}

/// Values of the inputs and of output `y`, row by row.
struct Ran {
    values: Values,
    y: Vec<Vec<f64>>,
    objective: Option<f64>,
}

fn run(body: impl for<'r> FnOnce(&Recorder<'r>)) -> Ran {
    let program = record(body);
    let sizes = Sizes::new(SIZES.0, SIZES.1);
    let values = random_values(&program, &sizes, 7);
    let outcome = interpret(&program, &values, &sizes);
    let y = outcome.outputs.get("y").map(rows).unwrap_or_default();
    Ran { values, y, objective: outcome.objective.map(|d| d.re) }
}

fn rows(data: &Data) -> Vec<Vec<f64>> {
    data.x.chunks(data.ty.shape.len()).map(|row| row.iter().map(|d| d.re).collect()).collect()
}

impl Ran {
    fn rows(&self, name: &str) -> Vec<Vec<f64>> {
        rows(&self.values[name])
    }

    #[track_caller]
    fn check(&self, expected: Vec<Vec<f64>>) {
        close(&self.y, &expected);
    }
}

#[track_caller]
fn close(given: &[Vec<f64>], expected: &[Vec<f64>]) {
    assert_eq!(given.len(), expected.len(), "rows");
    for (r, (a, b)) in given.iter().zip(expected).enumerate() {
        assert_eq!(a.len(), b.len(), "features of row {r}");
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "row {r}, feature {i}: {a} is not {b}");
        }
    }
}

fn each(x: &[f64], f: impl Fn(f64) -> f64) -> Vec<f64> {
    x.iter().map(|&x| f(x)).collect()
}

/// A function of each feature, on one input of 5 features that has also 0 and large values of both signs.
#[track_caller]
fn pointwise(record: impl for<'r> Fn(Expr<'r>) -> Expr<'r>, expected: impl Fn(f64) -> f64) {
    let program = self::record(|p| p.output("y", record(p.input("x", 5))));
    let sizes = Sizes::new(1, 2);
    let mut values = random_values(&program, &sizes, 3);
    let x = &mut values.get_mut("x").expect("declared").x;
    (x[0].re, x[1].re, x[2].re) = (0.0, 30.0, -30.0);
    let y = &interpret(&program, &values, &sizes).outputs["y"];
    close(&rows(y), &rows(&values["x"]).iter().map(|r| each(r, &expected)).collect::<Vec<_>>());
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let sum: f64 = x.iter().map(|x| x.exp()).sum();
    each(x, |x| x.exp() / sum)
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// x·W for W `[k, n]`, row-major.
fn product(x: &[f64], w: &[f64], n: usize) -> Vec<f64> {
    (0..n).map(|j| x.iter().enumerate().map(|(i, x)| x * w[i * n + j]).sum()).collect()
}

fn zip(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

#[test]
fn operators_and_numbers_on_either_side() {
    pointwise(|x| 1.0 - x * 2.0, |x| 1.0 - x * 2.0);
    pointwise(|x| -x / 4.0 + 0.1, |x| -x / 4.0 + 0.1);
    pointwise(|x| 3.0 / (x * x + 1.0) - x, |x| 3.0 / (x * x + 1.0) - x);
    pointwise(
        |x| {
            let mut y = x;
            y += 1.0;
            y *= x;
            y -= 0.5;
            y /= 2.0;
            y
        },
        |x| ((x + 1.0) * x - 0.5) / 2.0,
    );
}

#[test]
fn activations() {
    pointwise(|x| x.relu(), |x| x.max(0.0));
    pointwise(|x| x.leaky_relu(0.1), |x| if x > 0.0 { x } else { 0.1 * x });
    pointwise(|x| x.elu(1.5), |x| if x > 0.0 { x } else { 1.5 * (x.exp() - 1.0) });
    pointwise(|x| x.gelu(), |x| 0.5 * x * (1.0 + libm_erf(x / SQRT_2)));
    pointwise(|x| x.silu(), |x| x * sigmoid(x));
    pointwise(|x| x.softplus(), |x| if x > 20.0 { x + (-x).exp() } else { (1.0 + x.exp()).ln() });
    pointwise(|x| x.log_sigmoid(), |x| if x < -20.0 { x } else { sigmoid(x).ln() });
    pointwise(|x| x.clamp(-0.5, 0.25), |x| x.clamp(-0.5, 0.25));
    pointwise(|x| x.minimum(0.3).maximum(-x), |x| x.min(0.3).max(-x));
    pointwise(|x| select(x.ge(0.0), x.powi(3), x.square()), |x| if x >= 0.0 { x * x * x } else { x * x });
    pointwise(|x| x.abs().pow(2.5) + (x.square() + 1.0).powf(-0.5), |x| x.abs().powf(2.5) + 1.0 / (x * x + 1.0).sqrt());
    pointwise(
        |x| x.gt(0.0) + x.lt(0.0) * 2.0 + x.eq(0.0) * 4.0,
        |x| {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                2.0
            } else {
                4.0
            }
        },
    );
    pointwise(|x| x.le(0.0) + x.ne(0.0) * 2.0, |x| f64::from(u8::from(x <= 0.0) + 2 * u8::from(x != 0.0)));
}

/// Abramowitz & Stegun 7.1.5: the series of the error function, in steps that converge for these arguments.
fn libm_erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut sum, mut term) = (0.0, x);
    for n in 0..400 {
        sum += term / f64::from(2 * n + 1);
        term *= -x * x / f64::from(n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn broadcasting_is_numpys() {
    let ran = run(|p| {
        let (x, row, column) = (p.input("x", [2, 3]), p.shared("row", 3), p.input("column", [2, 1]));
        p.output("y", (x * row + column) - p.shared("one", 1));
    });
    let (row, one) = (&ran.rows("row")[0], ran.rows("one")[0][0]);
    let expected = ran
        .rows("x")
        .into_iter()
        .zip(ran.rows("column"))
        .map(|(x, column)| (0..6).map(|i| x[i] * row[i % 3] + column[i / 3] - one).collect());
    ran.check(expected.collect());

    let ran = run(|p| p.output("y", p.input("x", 2).broadcast([3, 2])));
    ran.check(ran.rows("x").iter().map(|x| [&x[..], &x[..], &x[..]].concat()).collect());
}

#[test]
fn reductions_and_norms() {
    let x = |p: &Recorder<'_>| p.declare("x", Type::float(Extent::Batch, [2, 3])).shape();
    assert_eq!(record(|p| assert_eq!(x(p), Shape::from([2, 3]))).inputs.len(), 1);

    let halves = |x: &[f64], f: &dyn Fn(&[f64]) -> Vec<f64>| [f(&x[..3]), f(&x[3..])].concat();
    let expect = |ran: &Ran, f: &dyn Fn(&[f64]) -> Vec<f64>| {
        ran.check(ran.rows("x").iter().map(|x| halves(x, f)).collect());
    };
    expect(&run(|p| p.output("y", p.input("x", [2, 3]).sum())), &|x| vec![x.iter().sum()]);
    expect(&run(|p| p.output("y", p.input("x", [2, 3]).mean())), &|x| vec![mean(x)]);
    expect(&run(|p| p.output("y", p.input("x", [2, 3]).max())), &|x| vec![x.iter().copied().fold(f64::MIN, f64::max)]);
    expect(&run(|p| p.output("y", p.input("x", [2, 3]).min())), &|x| vec![x.iter().copied().fold(f64::MAX, f64::min)]);
    expect(&run(|p| p.output("y", p.input("x", [2, 3]).softmax())), &softmax);
    expect(&run(|p| p.output("y", (p.input("x", [2, 3]) * 1.0).log_softmax())), &|x| each(&softmax(x), f64::ln));

    let ran = run(|p| p.output("y", p.input("x", [2, 3]).mean_axis(0)));
    ran.check(ran.rows("x").iter().map(|x| (0..3).map(|i| (x[i] + x[i + 3]) / 2.0).collect()).collect());
    let ran = run(|p| p.output("y", p.input("x", [2, 3]).mean_features()));
    ran.check(ran.rows("x").iter().map(|x| vec![mean(x)]).collect());

    let normed = |x: &[f64], gain: &[f64], bias: &[f64]| {
        let m = mean(x);
        let variance = x.iter().map(|x| (x - m).powi(2)).sum::<f64>() / x.len() as f64;
        (0..x.len()).map(|i| (x[i] - m) / (variance + 1e-5).sqrt() * gain[i] + bias[i]).collect::<Vec<_>>()
    };
    let ran = run(|p| p.output("y", p.layer_norm("norm", p.input("x", [2, 3]))));
    let (gain, bias) = (&ran.rows("norm.gain")[0], &ran.rows("norm.bias")[0]);
    expect(&ran, &|x| normed(x, gain, bias));
    let ran = run(|p| p.output("y", p.rms_norm("norm", p.input("x", [2, 3]))));
    let gain = &ran.rows("norm.gain")[0];
    expect(&ran, &|x| {
        let rms = (x.iter().map(|x| x * x).sum::<f64>() / 3.0 + 1e-5).sqrt();
        zip(x, gain, |x, g| x / rms * g)
    });
}

#[test]
fn softmax_of_large_values_stays_finite() {
    let ran = run(|p| {
        let x = p.input("x", 4) + stack([p.constant(2000.0), p.constant(1000.0), p.constant(-1000.0), p.constant(0.0)]);
        p.output("y", concat([x.softmax(), x.log_softmax()]));
        p.minimize(x.cross_entropy(p.labels("label")));
    });
    assert!(ran.y.iter().flatten().all(|y| y.is_finite()));
    assert!(ran.objective.is_some_and(f64::is_finite));
}

#[test]
fn products() {
    let ran = run(|p| p.output("y", p.input("x", 3).dot(p.parameter("w", [3, 2], Init::Glorot))));
    let w = &ran.rows("w")[0];
    ran.check(ran.rows("x").iter().map(|x| product(x, w, 2)).collect());

    // W x, as papers have it, is the row times the transposed weight.
    let ran = run(|p| p.output("y", p.parameter("w", [2, 3], Init::Glorot).matmul(p.input("x", 3))));
    let w = &ran.rows("w")[0];
    let by_row =
        |w: &[f64], x: &[f64]| w.chunks(x.len()).map(|w| zip(w, x, |w, x| w * x).iter().sum()).collect::<Vec<f64>>();
    ran.check(ran.rows("x").iter().map(|x| by_row(w, x)).collect());

    let ran = run(|p| p.output("y", p.input("a", [2, 3]).matmul(p.input("x", 3))));
    ran.check(ran.rows("a").iter().zip(ran.rows("x")).map(|(a, x)| by_row(a, &x)).collect());
    let ran = run(|p| p.output("y", p.input("x", 3).matmul(p.input("a", [3, 2]))));
    ran.check(ran.rows("a").iter().zip(ran.rows("x")).map(|(a, x)| product(&x, a, 2)).collect());
    let ran = run(|p| p.output("y", p.input("x", [2, 3]).matmul(p.input("a", [3, 2]))));
    let both = ran.rows("x").into_iter().zip(ran.rows("a"));
    ran.check(both.map(|(x, a)| [product(&x[..3], &a, 2), product(&x[3..], &a, 2)].concat()).collect());

    let ran = run(|p| {
        p.output("y", stack([p.input("a", 3).inner(p.input("x", 3)), p.input("a", 3).matmul(p.input("x", 3))]))
    });
    let both = ran.rows("x").into_iter().zip(ran.rows("a"));
    ran.check(both.map(|(x, a)| vec![zip(&x, &a, |x, a| x * a).iter().sum(); 2]).collect());
    let ran = run(|p| p.output("y", p.input("a", 3).outer(p.input("x", 2))));
    let both = ran.rows("x").into_iter().zip(ran.rows("a"));
    ran.check(both.map(|(x, a)| a.iter().flat_map(|a| each(&x, |x| a * x)).collect()).collect());
}

#[test]
fn shapes() {
    let ran = run(|p| {
        let x = p.input("x", [2, 6]);
        let [a, b, c] = x.split();
        let [d, e] = x.split_at([5, 1]);
        p.output("y", concat([c, b, a, e, d, x.slice(1..=2), x.slice(..2)]).slice_axis(0, 1..));
    });
    let order = [4, 5, 2, 3, 0, 1, 5, 0, 1, 2, 3, 4, 1, 2, 0, 1];
    ran.check(ran.rows("x").iter().map(|x| order.map(|i| x[6 + i]).to_vec()).collect());

    let ran = run(|p| {
        let x = p.input("x", [2, 3]);
        let joined = concat_axis(0, [x.transpose(), x.reshape([3, 2]), x.permute([1, 0])]);
        p.output("y", stack([joined.reshape(18), joined.reshape(18)]).slice_axis(0, 1..));
    });
    let order = [0, 3, 1, 4, 2, 5, 0, 1, 2, 3, 4, 5, 0, 3, 1, 4, 2, 5];
    ran.check(ran.rows("x").iter().map(|x| order.map(|i| x[i]).to_vec()).collect());
}

#[test]
fn indices() {
    let ran = run(|p| {
        let word = p.labels("word");
        p.output("y", concat([p.embedding("words", word, 4, 3), word.one_hot(4), stack([word.to_float()])]));
        p.output("argmax", p.input("x", 5).argmax());
    });
    let table = &ran.rows("words.table")[0];
    let expected = ran.rows("word").into_iter().map(|w| {
        let w = w[0] as usize;
        let one_hot: Vec<f64> = (0..4).map(|i| f64::from(u8::from(i == w))).collect();
        [&table[w * 3..][..3], &one_hot, &[w as f64]].concat()
    });
    ran.check(expected.collect());
}

#[test]
fn losses_are_one_number_a_row() {
    let ran = run(|p| p.output("y", p.sequence("x", 4).cross_entropy(p.labels_sequence("label"))));
    let both = ran.rows("x").into_iter().zip(ran.rows("label"));
    ran.check(both.map(|(x, l)| vec![-softmax(&x)[l[0] as usize].ln()]).collect());
    assert_eq!(ran.y.len(), 6, "one for each of 3 steps and 2 samples");

    let against = |loss: for<'r> fn(Expr<'r>, Expr<'r>) -> Expr<'r>, expected: &dyn Fn(f64, f64) -> f64| {
        let ran = run(|p| p.output("y", loss(p.sequence("x", [2, 2]), p.input("target", [2, 2]))));
        let targets = ran.rows("target");
        let rows = ran.rows("x");
        ran.check(rows.iter().enumerate().map(|(r, x)| vec![mean(&zip(x, &targets[r % 2], expected))]).collect());
    };
    against(|x, t| x.mse(t), &|x, t| (x - t).powi(2));
    against(|x, t| x.mae(t), &|x, t| (x - t).abs());
    against(|x, t| x.binary_cross_entropy(t), &|x, t| -t * sigmoid(x).ln() - (1.0 - t) * (1.0 - sigmoid(x)).ln());

    let ran = run(|p| p.output("y", p.sequence("x", 2).accuracy(p.labels_sequence("label"))));
    let both = ran.rows("x").into_iter().zip(ran.rows("label"));
    ran.check(both.map(|(x, l)| vec![f64::from(u8::from((x[1] > x[0]) == (l[0] == 1.0)))]).collect());
}

#[test]
fn sums_and_means_over_rows() {
    let (t, b) = SIZES;
    let at = |x: &[Vec<f64>], step: usize, sample: usize| x[step * b + sample][0];
    let over = |f: &dyn Fn(usize, usize) -> f64| {
        (0..t).flat_map(|s| (0..b).map(move |n| (s, n))).map(|(s, n)| f(s, n)).sum::<f64>()
    };
    let steps = |f: &dyn Fn(usize, usize) -> f64| {
        (0..b).map(|n| vec![(0..t).map(|s| f(s, n)).sum::<f64>()]).collect::<Vec<_>>()
    };

    let ran = run(|p| p.output("y", stack([p.sequence("x", ()).sum_rows(), p.sequence("x", ()).mean_rows()])));
    let x = ran.rows("x");
    let sum = over(&|s, n| at(&x, s, n));
    ran.check(vec![vec![sum, sum / 6.0]]);

    let ran = run(|p| p.output("y", p.sequence("x", ()).mean_time() + p.sequence("x", ()).sum_time() * 10.0));
    let x = ran.rows("x");
    ran.check(steps(&|s, n| at(&x, s, n)).iter().map(|s| vec![s[0] / 3.0 + s[0] * 10.0]).collect());

    let ran = run(|p| {
        let (x, mask) = (p.sequence("x", ()), p.sequence("mask", ()));
        p.output("y", x.masked_mean(mask) + x.masked_sum(mask) * 10.0);
    });
    let (x, mask) = (ran.rows("x"), ran.rows("mask"));
    let (sum, weight) = (over(&|s, n| at(&x, s, n) * at(&mask, s, n)), over(&|s, n| at(&mask, s, n)));
    ran.check(vec![vec![sum / weight + 10.0 * sum]]);

    let ran = run(|p| {
        let (x, mask) = (p.sequence("x", ()), p.sequence("mask", ()));
        p.output("y", x.masked_mean_time(mask) + x.masked_sum_time(mask) * 10.0);
    });
    let (x, mask) = (ran.rows("x"), ran.rows("mask"));
    let (sum, weight) = (steps(&|s, n| at(&x, s, n) * at(&mask, s, n)), steps(&|s, n| at(&mask, s, n)));
    ran.check(sum.iter().zip(&weight).map(|(s, w)| vec![s[0] / w[0] + 10.0 * s[0]]).collect());

    // One mask a sample counts once for each of its steps.
    let ran = run(|p| p.output("y", p.sequence("x", ()).masked_mean(p.input("mask", ()))));
    let (x, mask) = (ran.rows("x"), ran.rows("mask"));
    ran.check(vec![vec![over(&|s, n| at(&x, s, n) * mask[n][0]) / over(&|_, n| mask[n][0])]]);
}

#[test]
fn an_objective_is_the_mean_over_rows() {
    let ran = run(|p| {
        let loss = p.sequence("x", 3).mse(p.sequence("target", 3));
        p.output("y", loss);
        p.minimize(loss);
    });
    let all: Vec<f64> = ran.y.iter().flatten().copied().collect();
    assert!((ran.objective.expect("set") - mean(&all)).abs() < 1e-15);
    let ran = run(|p| p.minimize(p.sequence("x", 3).mean().mean_time().sum_rows()));
    let rows = ran.rows("x");
    let sum: f64 = rows.iter().map(|x| mean(x)).sum();
    assert!((ran.objective.expect("set") - sum / 3.0).abs() < 1e-14);
}

// ---- scans and cells ---------------------------------------------------------------------------------------

/// Runs a cell over x: `[T, B, 3]` with 2 units, and compares every step's h with a step in plain Rust, which has
/// x, the states by position, and parameters by name without the scan's.
#[track_caller]
fn check_cell(
    cell: impl for<'r> Fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>,
    states: usize,
    step: impl Fn(&[f64], &mut [Vec<f64>], &dyn Fn(&str) -> Vec<f64>),
) {
    let ran = run(|p| {
        let x = p.sequence("x", 3);
        let run = p.scan("cell", |s| cell(s, s.at(x), 2));
        p.output("y", concat([run.all(), run.all() - run.last()]));
    });
    let parameter = |name: &str| ran.rows(&format!("cell.{name}"))[0].clone();
    let x = ran.rows("x");
    let mut all = Vec::new();
    let mut states = vec![vec![vec![0.0; 2]; states]; SIZES.1];
    for (row, x) in x.iter().enumerate() {
        let sample = row % SIZES.1;
        step(x, &mut states[sample], &parameter);
        all.push(states[sample][0].clone());
    }
    let expected =
        all.iter().enumerate().map(|(row, h)| [h.clone(), zip(h, &states[row % SIZES.1][0], |a, b| a - b)].concat());
    ran.check(expected.collect());
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    zip(a, b, |a, b| a + b)
}

#[test]
fn vanilla_cells() {
    use retrograd::cells;
    check_cell(cells::rnn, 1, |x, s, p| {
        let z = add(&product(&[&s[0], x].concat(), &p("cell.w"), 2), &p("cell.b"));
        s[0] = each(&z, f64::tanh);
    });
    check_cell(cells::rnn_split, 1, |x, s, p| {
        let z = add(&add(&product(&s[0], &p("hh.w"), 2), &product(x, &p("hx.w"), 2)), &p("hx.b"));
        s[0] = each(&z, f64::tanh);
    });
    check_cell(
        |s, x, units| cells::rnn_uvw(s, x, units, 5).0,
        1,
        |x, s, p| {
            let z = add(&add(&product(&s[0], &p("W"), 2), &product(x, &p("U"), 2)), &p("b"));
            s[0] = each(&z, f64::tanh);
        },
    );
    check_cell(
        |s, x, units| cells::rnn_uvw(s, x, units - 1, 2).2,
        2,
        |x, s, p| {
            let z = s[1][0] * p("W")[0] + product(x, &p("U"), 1)[0] + p("b")[0];
            s[1][0] = z.tanh();
            s[0] = softmax(&add(&product(&s[1][..1], &p("V"), 2), &p("c")));
        },
    );
    check_cell(cells::ind_rnn, 1, |x, s, p| {
        let z = add(&add(&product(x, &p("x.w"), 2), &zip(&p("u"), &s[0], |u, h| u * h)), &p("x.b"));
        s[0] = each(&z, |z| z.max(0.0));
    });
    check_cell(
        |s, x, units| cells::conditioned_rnn(s, x, s.parameter("about", 4, Init::Glorot), units),
        1,
        |x, s, p| {
            let z = add(&product(x, &p("xh.w"), 2), &product(&s[0], &p("hh.w"), 2));
            let z = add(&add(&z, &product(&p("about"), &p("ih.w"), 2)), &p("xh.b"));
            s[0] = each(&z, f64::tanh);
        },
    );
}

/// One step of an LSTM over [h; x], by its weight and bias.
fn lstm(hx: &[f64], c: &mut [f64], w: &[f64], b: &[f64]) -> Vec<f64> {
    let n = c.len();
    let z = add(&product(hx, w, 4 * n), b);
    (0..n)
        .map(|j| {
            c[j] = sigmoid(z[n + j]) * c[j] + sigmoid(z[j]) * z[3 * n + j].tanh();
            sigmoid(z[2 * n + j]) * c[j].tanh()
        })
        .collect()
}

/// One step of a GRU that resets before its product, by its parameters.
fn gru(h: &[f64], x: &[f64], p: &dyn Fn(&str) -> Vec<f64>) -> Vec<f64> {
    let n = h.len();
    let xs = add(&product(x, &p("x.w"), 3 * n), &p("x.b"));
    let gates = each(&add(&xs[..2 * n], &product(h, &p("gates.w"), 2 * n)), sigmoid);
    let reset = zip(&gates[..n], h, |r, h| r * h);
    let candidate = each(&add(&xs[2 * n..], &product(&reset, &p("candidate.w"), n)), f64::tanh);
    (0..n).map(|j| gates[n + j] * h[j] + (1.0 - gates[n + j]) * candidate[j]).collect()
}

/// Three places of four features, the same for all samples.
fn places<'r>(s: &Step<'r>) -> Expr<'r> {
    s.parameter("places", [3, 4], Init::Glorot)
}

/// Softmax of the scores of three places, and the weighted mean of the places.
fn look(scores: &[f64], places: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let weights = softmax(scores);
    (product(&weights, places, 4), weights)
}

#[test]
fn decoders_that_look() {
    use retrograd::cells;
    fn part<'r>((h, context, weights): (Expr<'r>, Expr<'r>, Expr<'r>), i: usize) -> Expr<'r> {
        [h, context.slice(1..3), weights.slice(..2)][i]
    }
    for i in 0..3 {
        check_cell(
            |s, x, units| part(cells::dot_attention_decoder(s, x, places(s), units), i),
            4,
            |x, s, p| {
                let (w, b) = (p("gates.w"), p("gates.b"));
                let hx = [&s[1][..], x, &s[3][..]].concat();
                s[1] = lstm(&hx, &mut s[2], &w, &b);
                let (query, places) = (product(&s[1], &p("query.w"), 4), p("places"));
                let scores: Vec<f64> = places.chunks(4).map(|k| zip(k, &query, |a, b| a * b).iter().sum()).collect();
                let (context, weights) = look(&scores, &places);
                let z = product(&[&context[..], &s[1]].concat(), &p("attended.w"), 2);
                s[3] = each(&add(&z, &p("attended.b")), f64::tanh);
                s[0] = [&s[3][..], &context[1..3], &weights[..2]][i].to_vec();
            },
        );
        check_cell(
            |s, x, units| part(cells::additive_attention_decoder(s, x, places(s), units), i),
            2,
            |x, s, p| {
                let (places, query) = (p("places"), product(&s[1], &p("look.query.w"), 2));
                let (keys, v) = (p("look.keys.w"), p("look.v"));
                let score = |k: &[f64]| -> f64 {
                    zip(&each(&add(&product(k, &keys, 2), &query), f64::tanh), &v, |a, b| a * b).iter().sum()
                };
                let (context, weights) = look(&places.chunks(4).map(score).collect::<Vec<_>>(), &places);
                s[1] = gru(&s[1], &[x, &context[..]].concat(), p);
                s[0] = [&s[1][..], &context[1..3], &weights[..2]][i].to_vec();
            },
        );
    }
}

/// Padding has no weight, whatever is in it.
#[test]
fn a_look_at_places_some_of_which_are_there() {
    let ran = run(|p| {
        let (query, features, mask) = (p.input("query", 4), p.input("features", [3, 4]), p.input("mask", 1));
        // The first and the last place, or the other one.
        let outer = mask.gt(0.0);
        let there = concat([outer, 1.0 - outer, outer]);
        let places = retrograd::cells::Places { features: features * 40.0, mask: Some(there) };
        let (context, weights) = retrograd::cells::dot_attention(query, places.features, places);
        p.output("y", concat([context, weights]));
    });
    let (query, features, mask) = (ran.rows("query"), ran.rows("features"), ran.rows("mask"));
    let expected = (0..SIZES.1).map(|n| {
        let there: Vec<usize> = if mask[n][0] > 0.0 { vec![0, 2] } else { vec![1] };
        let features: Vec<Vec<f64>> = features[n].chunks(4).map(|row| each(row, |x| 40.0 * x)).collect();
        let score = |&l: &usize| zip(&features[l], &query[n], |a, b| a * b).iter().sum();
        let some = softmax(&there.iter().map(score).collect::<Vec<f64>>());
        let weight = |l: usize| there.iter().position(|&i| i == l).map_or(0.0, |i| some[i]);
        let weights: Vec<f64> = (0..3).map(weight).collect();
        [product(&weights, &features.concat(), 4), weights].concat()
    });
    ran.check(expected.collect());
}

#[test]
fn cells_of_cells() {
    use retrograd::cells;
    check_cell(
        |s, x, units| {
            cells::stacked(s, x, &[(&cells::gru, units), (&|s, x, n| cells::residual(s, x, n, &cells::gru), units)])
        },
        3,
        |x, s, p| {
            s[1] = gru(&s[1], x, &|name| p(&format!("layer1.{name}")));
            s[2] = gru(&s[2], &s[1], &|name| p(&format!("layer2.{name}")));
            s[0] = add(&s[1], &s[2]);
        },
    );
    check_cell(
        |s, x, units| cells::residual(s, x, units, &cells::gru),
        2,
        |x, s, p| {
            s[1] = gru(&s[1], x, p);
            s[0] = add(&product(x, &p("shortcut.w"), 2), &s[1]);
        },
    );
}

/// What is drawn is drawn as often as softmax says.
#[test]
fn samples_are_as_likely_as_softmax_says() {
    use rand::{RngExt, SeedableRng};
    let program = record(|p| p.output("y", p.shared("x", 4).broadcast(4).sample(p.input("u", 4)).to_float()));
    let (draws, mut random) = (20_000, rand_chacha::ChaCha8Rng::seed_from_u64(1));
    let sizes = Sizes::new(1, draws);
    let mut values = random_values(&program, &sizes, 3);
    values.get_mut("u").expect("an input").x.iter_mut().for_each(|u| u.re = random.random());
    let y = rows(&interpret(&program, &values, &sizes).outputs["y"]);
    for (class, p) in softmax(&rows(&values["x"])[0]).into_iter().enumerate() {
        let share = y.iter().filter(|y| y[0] == class as f64).count() as f64 / draws as f64;
        let deviation = (p * (1.0 - p) / draws as f64).sqrt();
        assert!((share - p).abs() < 4.0 * deviation, "class {class}: {share} of the draws instead of {p}");
    }
}

fn layer_norm(x: &[f64], gain: &[f64], bias: &[f64]) -> Vec<f64> {
    let m = mean(x);
    let variance = mean(&each(x, |x| (x - m) * (x - m)));
    (0..x.len()).map(|i| (x[i] - m) / (variance + 1e-5).sqrt() * gain[i] + bias[i]).collect()
}

#[test]
fn long_short_term_memory() {
    use retrograd::cells;
    let gates = |x: &[f64], h: &[f64], p: &dyn Fn(&str) -> Vec<f64>| {
        add(&product(&[h, x].concat(), &p("gates.w"), 8), &p("gates.b"))
    };
    check_cell(cells::lstm, 2, |x, s, p| {
        let z = gates(x, &s[0], p);
        for j in 0..2 {
            s[1][j] = sigmoid(z[2 + j]) * s[1][j] + sigmoid(z[j]) * z[6 + j].tanh();
            s[0][j] = sigmoid(z[4 + j]) * s[1][j].tanh();
        }
    });
    check_cell(cells::peephole_lstm, 2, |x, s, p| {
        let z = gates(x, &s[0], p);
        let (pi, pf, po) = (p("peephole.i"), p("peephole.f"), p("peephole.o"));
        for j in 0..2 {
            let c = s[1][j];
            s[1][j] = sigmoid(z[2 + j] + pf[j] * c) * c + sigmoid(z[j] + pi[j] * c) * z[6 + j].tanh();
            s[0][j] = sigmoid(z[4 + j] + po[j] * s[1][j]) * s[1][j].tanh();
        }
    });
    check_cell(cells::layer_norm_lstm, 2, |x, s, p| {
        let z = layer_norm(&gates(x, &s[0], p), &p("gates_norm.gain"), &p("gates_norm.bias"));
        for j in 0..2 {
            s[1][j] = sigmoid(z[2 + j]) * s[1][j] + sigmoid(z[j]) * z[6 + j].tanh();
        }
        let normed = layer_norm(&s[1], &p("c_norm.gain"), &p("c_norm.bias"));
        for j in 0..2 {
            s[0][j] = sigmoid(z[4 + j]) * normed[j].tanh();
        }
    });
    check_cell(
        |s, x, units| cells::projected_lstm(s, x, units, 2),
        2,
        |x, s, p| {
            let m = lstm(&[&s[0][..], x].concat(), &mut s[1], &p("gates.w"), &p("gates.b"));
            s[0] = product(&m, &p("projection.w"), 2);
        },
    );
    check_cell(cells::min_lstm, 1, |x, s, p| {
        let xs = add(&product(x, &p("x.w"), 6), &p("x.b"));
        for j in 0..2 {
            let (f, i) = (sigmoid(xs[j]), sigmoid(xs[2 + j]));
            s[0][j] = f / (f + i) * s[0][j] + i / (f + i) * xs[4 + j];
        }
    });
}

#[test]
fn gated_units() {
    use retrograd::cells;
    check_cell(cells::gru, 1, |x, s, p| s[0] = gru(&s[0], x, p));
    check_cell(cells::gru_reset_after, 1, |x, s, p| {
        let xs = add(&product(x, &p("x.w"), 6), &p("x.b"));
        let hs = add(&product(&s[0], &p("h.w"), 6), &p("h.b"));
        for j in 0..2 {
            let (r, z) = (sigmoid(xs[j] + hs[j]), sigmoid(xs[2 + j] + hs[2 + j]));
            let n = (xs[4 + j] + r * hs[4 + j]).tanh();
            s[0][j] = z * s[0][j] + (1.0 - z) * n;
        }
    });
    check_cell(cells::mgu, 1, |x, s, p| {
        let xs = add(&product(x, &p("x.w"), 4), &p("x.b"));
        let f = each(&add(&xs[..2], &product(&s[0], &p("gate.w"), 2)), sigmoid);
        let forgotten = zip(&f, &s[0], |f, h| f * h);
        let n = each(&add(&xs[2..], &product(&forgotten, &p("candidate.w"), 2)), f64::tanh);
        s[0] = (0..2).map(|j| (1.0 - f[j]) * s[0][j] + f[j] * n[j]).collect();
    });
    check_cell(cells::min_gru, 1, |x, s, p| {
        let xs = add(&product(x, &p("x.w"), 4), &p("x.b"));
        s[0] = (0..2).map(|j| (1.0 - sigmoid(xs[j])) * s[0][j] + sigmoid(xs[j]) * xs[2 + j]).collect();
    });
}

#[test]
fn a_forget_bias_starts_at_one() {
    let program = record(|p| {
        let x = p.sequence("x", 3);
        p.output("y", p.scan("lstm", |s| retrograd::cells::lstm(s, s.at(x), 4)).all());
    });
    let pieces = [0.0, 1.0, 0.0, 0.0].map(Init::Constant).to_vec();
    assert_eq!(program.parameter("lstm.gates.b").expect("made").init, Init::Pieces(pieces));
    assert_eq!(program.ty(program.parameter("lstm.gates.w").expect("made").value).shape, Shape::from([7, 16]));
}

/// What `last` gives, however the value came about and whichever way the scan runs.
#[test]
fn last_is_the_value_at_the_last_step_that_ran() {
    let ran = run(|p| {
        let x = p.sequence("x", 2);
        let (ahead, doubled) = p.scan("ahead", |s| {
            let h = s.state("h", 2);
            let h = s.next(h, h + s.at(x));
            (h, h * 2.0)
        });
        let [back, squared] = p.scan_reverse("back", |s| {
            let h = s.state("h", 2);
            [s.next(h, h * 0.5 + s.at(x)), s.at(x).square()]
        });
        let states = p.scan("states", |s| {
            let h = s.state_from("h", ahead.last());
            s.next(h, h - s.at(x));
        });
        let all = [ahead.last(), doubled.last(), back.last(), squared.last(), states.state("h"), back.all().last()];
        p.output("y", concat(all));
    });
    let x = ran.rows("x");
    let expected = (0..2).map(|n| {
        let feature = |i: usize| [x[n][i], x[2 + n][i], x[4 + n][i]];
        let of = |f: &dyn Fn([f64; 3]) -> f64| vec![f(feature(0)), f(feature(1))];
        let backwards = |[a, b, c]: [f64; 3]| a + 0.5 * (b + 0.5 * c);
        [
            of(&|x| x.iter().sum()),
            of(&|x| 2.0 * x.iter().sum::<f64>()),
            of(&backwards),
            of(&|[a, _, _]| a * a),
            of(&|_| 0.0),
            of(&|[_, _, c]| c),
        ]
        .concat()
    });
    ran.check(expected.collect());
}

#[test]
fn states_start_from_parameters_inputs_and_results() {
    let ran = run(|p| {
        let x = p.sequence("x", 2);
        let start = p.parameter("start", 2, Init::Constant(0.0));
        let given = p.input("given", 2);
        let squashed = given.tanh();
        let run = p.scan("sum", |s| {
            let (a, b) = (s.state_from("a", start), s.state_from("b", squashed));
            s.next(a, a + s.at(x));
            s.next(b, a * b)
        });
        p.update(given, run.last());
        p.output("y", concat([run.state("a"), run.last()]));
    });
    let (x, start, given) = (ran.rows("x"), &ran.rows("start")[0], ran.rows("given"));
    let expected = (0..2).map(|n| {
        let (mut a, mut b) = (start.clone(), each(&given[n], f64::tanh));
        for t in 0..3 {
            b = zip(&a, &b, |a, b| a * b);
            a = add(&a, &x[2 * t + n]);
        }
        [a, b].concat()
    });
    ran.check(expected.collect());
}

/// States of a cell that makes them itself, told before it or after, in a scope or by the scope's name.
#[test]
fn states_of_a_cell_start_where_they_are_told() {
    let ran = run(|p| {
        let (x, given) = (p.sequence("x", 2), p.input("given", 2));
        let start = p.parameter("start", 2, Init::Constant(0.0));
        let sum = |s: &Step<'_>, name: &str| {
            s.scope(name, |s| {
                let (a, b) = (s.state("a", 2), s.state("b", 2));
                s.next(a, a + s.at(x));
                s.next(b, a * b);
            });
        };
        let run = p.scan("sum", |s| {
            s.start("one.a", start);
            sum(s, "one");
            sum(s, "two");
            s.scope("two", |s| s.start("a", given));
            s.start("two.b", given);
        });
        p.output("y", concat(["one.a", "one.b", "two.a", "two.b"].map(|name| run.state(name))));
    });
    let (x, start, given) = (ran.rows("x"), &ran.rows("start")[0], ran.rows("given"));
    let expected = (0..2).map(|n| {
        let (mut a, mut b) = ([start.clone(), given[n].clone()], [vec![0.0; 2], given[n].clone()]);
        for t in 0..3 {
            for i in 0..2 {
                b[i] = zip(&a[i], &b[i], |a, b| a * b);
                a[i] = add(&a[i], &x[2 * t + n]);
            }
        }
        let ([a, a2], [b, b2]) = (a, b);
        [a, b, a2, b2].concat()
    });
    ran.check(expected.collect());
}

#[test]
fn what_is_written_in_a_step_is_in_the_step_and_captured_once() {
    let program = record(|p| {
        let (x, about) = (p.sequence("x", 2), p.input("about", 2));
        let outer = about * 2.0;
        let run = p.scan("loop", |s| {
            let h = s.state("h", 2);
            s.next(h, (h + outer) * outer + s.at(x) - s.at(x) * outer)
        });
        p.output("y", run.all());
    });
    insta::assert_snapshot!(program, @r"
    program test {
      axis T = time
      sequence x: f32[T, B, 2]
      batch about: f32[B, 2]
      %0: f32[B, 2] = mul about, 2
      scan loop {
        batch v: f32[B, 2] = %0
        each x: f32[B, 2] = x
        carry h: f32[B, 2] = 0
        %0: f32[B, 2] = add h, v
        %1: f32[B, 2] = mul %0, v
        %2: f32[B, 2] = add %1, x
        %3: f32[B, 2] = mul x, v
        %4: f32[B, 2] = sub %2, %3
        yield h = %4
        next h = %4
      }
      %1: f32[T, B, 2] = yield h of loop
      output y = %1
    }
    ");
}

#[test]
fn what_is_not_asked_for_is_not_written() {
    let program = record(|p| {
        let x = p.sequence("x", 2);
        let run = p.scan("many_to_one", |s| {
            let h = s.state("h", 2);
            (s.next(h, (h + s.at(x)).tanh()), h * 2.0)
        });
        p.output("y", run.0.last());
    });
    insta::assert_snapshot!(program, @r"
    program test {
      axis T = time
      sequence x: f32[T, B, 2]
      scan many_to_one {
        each x: f32[B, 2] = x
        carry h: f32[B, 2] = 0
        %0: f32[B, 2] = add h, x
        %1: f32[B, 2] = tanh %0
        next h = %1
      }
      %0: f32[B, 2] = final h of many_to_one
      output y = %0
    }
    ");
}

#[test]
fn an_encoder_and_a_decoder_on_their_own_axes() {
    let program = record(|p| {
        let source = p.axis("source").labels("source");
        let encoded = p.scan("encoder", |s| {
            let x = s.embedding("words", s.at(source), 20, 4);
            retrograd::cells::gru(s, x, 6)
        });
        // The decoder feeds on its own output: the index of a word is a state.
        let first = p.labels("first");
        let logits = p.axis("target").scan("decoder", |s| {
            let (h, word) = (s.state_from("h", encoded.last()), s.state_from("word", first));
            let h = s.next(h, s.affine("cell", concat([h, s.embedding("words", word, 10, 4)]), 6).tanh());
            let logits = s.affine("readout", h, 10);
            s.next(word, logits.argmax());
            logits
        });
        p.minimize(logits.all().cross_entropy(p.axis("target").labels("label")));
    });
    let bound = |name: &str| program.input(name).expect("declared").bound;
    assert_eq!((bound("source"), bound("first"), bound("label")), (Some(20), Some(10), Some(10)));
    assert_eq!(program.axes, ["source", "target"]);
    let text = program.to_string();
    assert!(text.contains("carry word: i32[B] = first"), "{text}");
}

#[test]
fn bounds_of_indices_are_the_smallest_table_they_reach() {
    let program = record(|p| {
        let (a, b) = (p.labels_sequence("a"), p.declare("b", Type::int(Extent::Batch, 4)));
        let small = p.shared("small", [3, 2]);
        let run = p.scan("read", |s| (s.at(a), small.lookup(b.slice(..1))));
        p.output("large", p.embedding("large", run.0.all(), 9, 2));
        p.output("hot", run.0.last().one_hot(7));
        p.output("small", run.1.last());
        p.output("free", p.labels("free").to_float());
    });
    let bound = |name: &str| program.input(name).expect("declared").bound;
    assert_eq!((bound("a"), bound("b"), bound("free")), (Some(7), Some(3), None));
}

#[test]
fn the_same_name_is_the_same_weight() {
    let program = record(|p| {
        let (x, y) = (p.input("x", 3), p.input("y", 3));
        p.output("y", p.scope("twin", |p| p.affine("a", x, 2) - p.affine("a", y, 2)));
    });
    assert_eq!(program.parameters.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["twin.a.w", "twin.a.b"]);
}

#[test]
fn a_recording_can_be_extended() {
    let program = record(|p| p.minimize(p.affine("a", p.input("x", 3), 1).mean().square()));
    let objective = program.objective.expect("set");
    let descended = program.extend(|p| {
        let w = p.value("a.w");
        p.update(w, w - 0.1 * p.from_value(objective) * w);
        p.output("loss", p.from_value(objective));
    });
    let descended = descended.expect("no mistakes");
    assert_eq!(descended.verify(), Ok(()));
    assert_eq!((descended.updates.len(), descended.outputs.len()), (1, 1));
    assert_eq!(descended.objective, Some(objective));
}

#[test]
fn numbers_are_what_they_are_written_as() {
    let program = record(|p| p.output("y", p.input("x", ()) * 0.1));
    assert!(program.to_string().contains("mul x, 0.1\n"), "{program}");
    assert!((f64::from(0.1_f32) - 0.1).abs() > 1e-10, "else the conversion would not show");
}

/// The loop over a sequence, and the same step over the list of its rows.
#[test]
fn a_loop_over_a_list_is_the_loop() {
    const NAMES: [&str; 3] = ["x0", "x1", "x2"];
    let looped = record(|p| {
        let x = p.sequence("x", 3);
        let run = p.scan("cell", |s| retrograd::cells::lstm(s, s.at(x), 5));
        p.output("y", run.all());
    });
    let listed = record(|p| {
        let inputs = NAMES.map(|name| p.input(name, 3));
        let run = p.static_rnn("cell", &inputs, |s, x| retrograd::cells::lstm(s, x, 5));
        for (name, h) in ["y0", "y1", "y2"].into_iter().zip(run.all()) {
            p.output(name, *h);
        }
    });
    let sizes = Sizes::new(3, 2);
    let mut values = random_values(&looped, &sizes, 7);
    let whole = interpret(&looped, &values, &sizes);
    let x = values.remove("x").expect("an input");
    for (name, rows) in NAMES.iter().zip(x.x.chunks(2 * 3)) {
        let ty = listed.ty(listed.input(name).expect("an input").value).clone();
        values.insert(name.to_string(), Data { ty, x: rows.to_vec() });
    }
    let steps = interpret(&listed, &values, &sizes);
    let list: Vec<Vec<f64>> = ["y0", "y1", "y2"].iter().flat_map(|name| rows(&steps.outputs[*name])).collect();
    assert_eq!(list, rows(&whole.outputs["y"]));
}
