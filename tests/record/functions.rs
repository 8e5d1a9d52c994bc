//! Functions of values: pointwise, along features, over rows; products, shapes, lookups and losses.

use std::f64::consts::SQRT_2;

use super::*;

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
