//! Scans, the library's cells, attention, and where states start.

use super::*;

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
