//! Numbers that must not count, and numbers that must: 0, ±∞, NaN and the largest.
//!
//! What lengths, masks, ruled-out classes and refused steps exclude reaches neither a value nor a gradient; what is not
//! excluded gives the same class of result (a number, ∞, −∞ or NaN) in the interpreter and in generated code.

mod check;
mod corpus;

use check::{Jit, Numbers, agree, numbers_at, truth};
use corpus::record;
use ndarray::Array3;
use retrograd::cells;
use retrograd::compiler::interpret::{Values, interpret};
use retrograd::compiler::ir::Sizes;
use retrograd::compiler::ir::dual::Dual;
use retrograd::compiler::pipeline;
use retrograd::compiler::plan::Checkpointing;
use retrograd::prelude::*;
use retrograd::runtime::error::RunError;
use retrograd::runtime::session::Session;
use retrograd::runtime::settings::{InstructionSet, Settings};
use retrograd::runtime::train::TrainerBuilder;
use retrograd::testing::numbers;

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// A program in every engine.
struct Engines {
    program: Program,
    lowered: Program,
    f64: Vec<(String, Jit<f64>)>,
    f32: Vec<(String, Jit<f32>)>,
}

impl Engines {
    fn new(program: &Program) -> Engines {
        let (mut f64, mut f32) = (Vec::new(), Vec::new());
        for set in InstructionSet::available() {
            let one = Settings::new().instruction_set(set);
            let two = one.threads(2);
            let checkpoints = one.checkpointing(Checkpointing::Every(2));
            for (engine, settings) in [("1 thread", one), ("2 threads", two), ("checkpoints", checkpoints)] {
                let session = Session::new(program, settings).unwrap();
                f64.push((format!("f64, {set}, {engine}"), Jit { session }));
            }
            f32.push((format!("f32, {set}"), Jit { session: Session::new(program, one).unwrap() }));
        }
        Engines { program: program.clone(), lowered: pipeline::lower(program), f64, f32 }
    }

    fn run(&mut self, values: &Values, sizes: &Sizes) -> Vec<(String, Numbers)> {
        let mut all = vec![
            ("interpreted".to_string(), truth(&self.program, values, sizes)),
            ("hoisted".to_string(), numbers(&interpret(&self.lowered, values, sizes))),
        ];
        all.extend(self.f64.iter_mut().map(|(name, jit)| (name.clone(), jit.run(values, sizes).unwrap())));
        all.extend(self.f32.iter_mut().map(|(name, jit)| (name.clone(), jit.run(values, sizes).unwrap())));
        all
    }
}

/// Checks outputs, and gradients of the objective by name, of a run on given values; values that are not given are 0.
#[track_caller]
fn check(program: &Program, sizes: &Sizes, given: &[(&str, &[f64])], expected: &[(&str, &[f64])]) {
    let joint = if program.objective.is_some() { program.backward().unwrap() } else { program.clone() };
    let mut values = numbers_at(&joint, sizes, |_| 0.0);
    for (name, x) in given {
        let data = values.get_mut(*name).unwrap_or_else(|| panic!("a value named {name}"));
        assert_eq!(data.x.len(), x.len(), "{name}");
        data.x = x.iter().map(|&x| Dual::new(x)).collect();
    }
    for (engine, all) in Engines::new(&joint).run(&values, sizes) {
        let wanted: Numbers = expected.iter().map(|(name, x)| (name.to_string(), x.to_vec())).collect();
        let mut found = all;
        found.retain(|name, _| wanted.contains_key(name));
        agree(&engine, &found, &wanted, check::F32).unwrap();
    }
}

/// Logits `x + w`, so that the gradient of w is that of the logits.
fn classifier(loss: impl for<'r> Fn(Expr<'r>, Expr<'r>) -> Expr<'r>) -> Program {
    record("classifier", |p| {
        let logits = p.input("x", 3) + p.parameter("w", 3, Init::Constant(0.0));
        p.minimize(loss(logits, p.labels("label")));
    })
}

#[test]
fn a_class_that_is_ruled_out_has_no_part_in_the_loss() {
    let one = Sizes::new(1, 1);
    let direct = classifier(|x, label| x.cross_entropy(label));
    let picked = classifier(|x, label| -x.log_softmax().pick(label));
    for program in [direct, picked] {
        let case = |x: [f64; 3], label: f64, loss: f64, slope: [f64; 3]| {
            let expected: [(&str, &[f64]); 2] = [("objective", &[loss]), ("d.w", &slope)];
            check(&program, &one, &[("x", &x), ("label", &[label])], &expected);
        };
        case([0.0, 0.0, -INF], 0.0, 2.0f64.ln(), [-0.5, 0.5, 0.0]);
        case([-INF, 0.0, -INF], 1.0, 0.0, [0.0, 0.0, 0.0]);
        case([3e38, 1.0, -2e38], 0.0, 0.0, [0.0, 0.0, 0.0]);
        case([3e38, 1.0, -2e38], 1.0, 3e38, [1.0, -1.0, 0.0]);
        case([-3e38, -3e38, -INF], 0.0, 2.0f64.ln(), [-0.5, 0.5, 0.0]);
        // The label itself is ruled out: what has the probability 0 costs ∞.
        case([0.0, 0.0, -INF], 2.0, INF, [0.5, 0.5, -1.0]);
        // No distribution.
        case([-INF, -INF, -INF], 0.0, NAN, [NAN; 3]);
        case([0.0, NAN, 0.0], 0.0, NAN, [NAN; 3]);
    }
}

#[test]
fn probabilities_of_what_is_ruled_out_are_0() {
    let program = record("softmax", |p| {
        let x = p.input("x", 3) + p.parameter("w", 3, Init::Constant(0.0));
        p.output("softmax", x.softmax());
        p.output("log", x.log_softmax());
        p.minimize((x.softmax() * p.input("y", 3)).sum());
    });
    let expected: [(&str, &[f64]); 3] =
        [("softmax", &[0.5, 0.5, 0.0]), ("log", &[-2.0f64.ln(), -2.0f64.ln(), -INF]), ("d.w", &[-0.25, 0.25, 0.0])];
    let given: [(&str, &[f64]); 2] = [("x", &[7.0, 7.0, -INF]), ("y", &[1.0, 2.0, 3.0])];
    check(&program, &Sizes::new(1, 1), &given, &expected);
}

/// Means and sums with masks choose their rows; of nothing they are 0, and so is the gradient.
#[test]
fn a_mask_chooses() {
    let program = record("masked", |p| {
        let w = p.parameter("w", (), Init::Constant(0.0));
        let (x, mask) = (p.sequence("x", ()) * (1.0 + w), p.sequence("mask", ()));
        p.output("sum", x.masked_sum(mask));
        p.output("mean", x.masked_mean(mask));
        p.output("sums", x.masked_sum_time(mask));
        p.output("means", x.masked_mean_time(mask));
        p.minimize(x.masked_mean(mask));
    });
    let sizes = Sizes::new(2, 2);
    let case = |x: [f64; 4], mask: [f64; 4], sum: f64, mean: f64, sums: [f64; 2], means: [f64; 2]| {
        let given: [(&str, &[f64]); 2] = [("x", &x), ("mask", &mask)];
        let slope = [mean];
        let expected: [(&str, &[f64]); 5] =
            [("sum", &[sum]), ("mean", &[mean]), ("sums", &sums), ("means", &means), ("d.w", &slope)];
        check(&program, &sizes, &given, &expected);
    };
    for padding in [0.0, NAN, INF, -INF, 3e38] {
        case([1.0, 2.0, 4.0, padding], [1.0, 1.0, 1.0, 0.0], 7.0, 7.0 / 3.0, [5.0, 2.0], [2.5, 2.0]);
        case([1.0, padding, 4.0, padding], [0.5, 0.0, 2.0, 0.0], 8.5, 3.4, [8.5, 0.0], [3.4, 0.0]);
        case([padding; 4], [0.0; 4], 0.0, 0.0, [0.0; 2], [0.0; 2]);
    }
    // What counts, counts.
    case([1.0, 2.0, NAN, 3.0], [1.0, 1.0, 1.0, 0.0], NAN, NAN, [NAN, 2.0], [NAN, 2.0]);
}

/// At base 0, as PyTorch has it: no NaN along the exponent, nothing at all at (0, 0).
#[test]
fn powers_of_0() {
    let program = record("powers", |p| {
        let (x, y) = (p.parameter("x", 5, Init::Constant(0.0)), p.parameter("y", 5, Init::Constant(0.0)));
        p.output("z", x.pow(y));
        p.minimize((x.pow(y) * p.input("one", 5)).sum());
    });
    let (x, y) = ([0.0, 0.0, 0.0, 2.0, 0.0], [2.0, 0.5, 0.0, 0.0, 1.0]);
    let along_y = [0.0, 0.0, 0.0, 2.0f64.ln(), 0.0];
    let given: [(&str, &[f64]); 3] = [("x", &x), ("y", &y), ("one", &[1.0; 5])];
    let expected: [(&str, &[f64]); 3] =
        [("z", &[0.0, 0.0, 1.0, 1.0, 0.0]), ("d.x", &[0.0, INF, 0.0, 0.0, 1.0]), ("d.y", &along_y)];
    check(&program, &Sizes::new(1, 1), &given, &expected);
    // The dual numbers know it too: they are what gradients are checked against.
    let mut values = numbers_at(&program, &Sizes::new(1, 1), |_| 1.0);
    values.get_mut("x").unwrap().x = x.map(Dual::new).to_vec();
    values.get_mut("y").unwrap().x = y.iter().map(|&y| Dual { re: y, du: 1.0 }).collect();
    let z = interpret(&program, &values, &Sizes::new(1, 1)).outputs["z"].clone();
    assert_eq!(z.x.iter().map(|z| z.du).collect::<Vec<_>>(), along_y);
}

/// Gates of an input that is ±∞ have their limits as slopes.
#[test]
fn slopes_at_infinity_are_limits() {
    let program = record("gates", |p| {
        let w = p.parameter("w", 2, Init::Constant(0.0));
        let x = p.input("x", 2) + w;
        let sum = x.silu() + x.gelu() + x.sigmoid() + x.tanh() + x.softplus() + x.relu() + x.elu(1.0) + x.erf();
        p.minimize(sum.sum());
    });
    let joint = program.backward().unwrap();
    let mut values = numbers_at(&joint, &Sizes::new(1, 1), |_| 0.0);
    values.get_mut("x").unwrap().x = [INF, -INF].map(Dual::new).to_vec();
    for (engine, all) in Engines::new(&joint).run(&values, &Sizes::new(1, 1)) {
        // silu, gelu, softplus, relu and elu go on with slope 1, the others are flat.
        assert_eq!(all["d.w"], [5.0, 0.0], "{engine}");
    }
}

/// NaN is passed on, from whichever side it comes, in vectors, in tails and across the lanes of a sum.
#[test]
fn nan_is_passed_on() {
    for n in [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33] {
        let program = record("nan", |p| {
            let (x, y) = (p.input("x", n), p.input("y", n));
            for (name, z) in [
                ("maximum", x.maximum(y)),
                ("minimum", x.minimum(y)),
                ("above", x.maximum(0.0)),
                ("below", x.minimum(0.0)),
                ("clamped", x.clamp(-1.0, 1.0)),
                ("relu", x.relu()),
                ("abs", x.abs()),
                ("sign", x.sign()),
                ("max", x.max()),
                ("min", x.min()),
                ("sum", x.sum()),
                ("equal", x.eq(y)),
                ("unequal", x.ne(y)),
                ("greater", x.gt(y)),
                ("not_less", x.ge(y)),
                ("less", x.lt(y)),
                ("not_greater", x.le(y)),
                ("chosen", select(x, 1.0, 2.0)),
                ("softmax", x.softmax()),
                ("argmax", x.argmax().to_float()),
            ] {
                p.output(name, z);
            }
        });
        let (sizes, mut engines) = (Sizes::new(1, 1), Engines::new(&program));
        for at in 0..n {
            for (x_at, y_at) in [(NAN, 1.0), (1.0, NAN), (NAN, NAN), (INF, -INF), (-INF, 3.0)] {
                let mut values = numbers_at(&program, &sizes, |i| [0.25, -0.5, 2.0][i % 3]);
                values.get_mut("x").unwrap().x[at].re = x_at;
                values.get_mut("y").unwrap().x[at].re = y_at;
                let expected = truth(&program, &values, &sizes);
                if x_at.is_nan() {
                    let is_nan = |name: &str| expected[name].iter().all(|x| x.is_nan());
                    assert!(is_nan("max") && is_nan("min") && is_nan("softmax") && expected["maximum"][at].is_nan());
                    assert_eq!(expected["argmax"], [at as f64], "NaN is the largest, as in PyTorch");
                }
                for (engine, all) in engines.run(&values, &sizes) {
                    agree(&engine, &all, &expected, check::F32).unwrap_or_else(|e| panic!("{n} features, {at}: {e}"));
                }
            }
        }
    }
}

/// A refused step changes nothing: parameters, moments, the program's own updates, carried states, to the bit.
#[test]
fn a_refused_step_changes_nothing() {
    let program = record("running", |p| {
        let x = p.sequence("x", 2);
        let run = p.scan("rnn", |s| {
            let h = s.state("h", 2);
            s.next(h, (s.linear("h", h, 2) + s.affine("x", s.at(x), 2)).tanh())
        });
        let (mean, count) = (p.shared("mean", 2), p.shared("count", ()));
        p.update(mean, 0.9 * mean + 0.1 * x.mean_rows());
        p.update(count, count + 1.0);
        p.minimize(run.last().square().sum() + mean.square().sum());
    });
    let feed = |x: f32| Array3::from_elem((3, 1, 2), x);
    let (good, bad) = (feed(0.5), feed(f32::NAN));
    for builder in [0, 1, 2, 3] {
        let trainer = || {
            let builder_of = program.trainer(Adam::new(0.01)).seed(3);
            match builder {
                0 => builder_of,
                1 => builder_of.carry_state(true),
                2 => builder_of.truncate(3, 2),
                _ => builder_of.truncate(3, 5),
            }
            .compile()
            .unwrap()
        };
        let (mut plain, mut disturbed) = (trainer(), trainer());
        for step in 0..4 {
            // A bad step first of all, and between others.
            let refused = disturbed.step(&Feed::new().f32("x", bad.view()));
            assert!(matches!(refused, Err(RunError::NonFiniteLoss { .. })), "{refused:?}");
            let a = plain.step(&Feed::new().f32("x", good.view())).unwrap();
            let b = disturbed.step(&Feed::new().f32("x", good.view())).unwrap();
            assert_eq!(a.loss.to_bits(), b.loss.to_bits(), "builder {builder}, step {step}");
            for name in plain.session().parameter_names() {
                let bits = |t: &Trainer| -> Vec<u32> {
                    t.session().parameter(name).unwrap().iter().map(|x| x.to_bits()).collect()
                };
                assert_eq!(bits(&plain), bits(&disturbed), "builder {builder}, {name} after step {step}");
            }
        }
    }
}

#[test]
fn schedules_and_settings_are_numbers() {
    let program = record("line", |p| p.minimize(p.affine("line", p.input("x", 1), 1).mse(p.input("y", 1))));
    let refused = |builder: TrainerBuilder<'_>| match builder.compile() {
        Err(e @ RunError::Setting { .. }) => e.to_string(),
        Err(e) => panic!("another error: {e}"),
        Ok(_) => panic!("taken"),
    };
    for factor in [f64::NAN, -3.0, 5.0, f64::INFINITY] {
        for schedule in [Schedule::steps(1, factor), Schedule::cosine_to(10, factor).warm_up(3)] {
            let error = refused(program.trainer(Sgd::new(0.1)).schedule(schedule));
            assert!(error.contains("a number from 0 to 1 is needed"), "{error}");
        }
    }
    for x in [f64::NAN, -1.0, f64::INFINITY, 1e39] {
        refused(program.trainer(Sgd::new(x)));
        refused(program.trainer(Sgd::new(0.1).momentum(x)));
        refused(program.trainer(Sgd::new(0.1).weight_decay(x)));
        refused(program.trainer(RmsProp::new(0.1).decay(x)));
        refused(program.trainer(Adam::new(0.1).betas(x, 0.9)));
        refused(program.trainer(Adam::new(0.1).betas(0.9, x)));
        refused(program.trainer(AdamW::new(0.1).weight_decay(x)));
        refused(program.trainer(Sgd::new(0.1)).clip_norm(x));
        refused(program.trainer(Sgd::new(0.1)).clip_value(x));
    }
    for x in [f64::NAN, -1.0, 0.0, f64::INFINITY, 1e-46] {
        refused(program.trainer(Adam::new(0.1).epsilon(x)));
        refused(program.trainer(RmsProp::new(0.1).epsilon(x)));
        refused(program.trainer(Sgd::new(0.1)).clip_norm(x));
    }
}

/// Places that are padding, whatever they hold, are not looked at.
#[test]
fn attention_does_not_look_at_padding() {
    let program = record("look", |p| {
        let (query, keys, mask) = (p.input("query", 2), p.input("keys", [3, 2]), p.input("there", 3));
        let q = query * p.parameter("w", 2, Init::Constant(1.0));
        let places = cells::Places { features: keys, mask: Some(mask) };
        let (by_product, _) = cells::dot_attention(q, keys, places);
        let (by_net, _) = p.scope("net", |p| cells::additive_attention(p, q, keys, places, 4));
        p.minimize((by_product + by_net).square().sum());
    });
    let joint = program.backward().unwrap();
    let sizes = Sizes::new(1, 2);
    let mut engines = Engines::new(&joint);
    let mut run = |padding: f64| {
        let mut values = numbers_at(&joint, &sizes, |i| [0.25, -0.5, 2.0, 0.125, -1.0][i % 5]);
        values.get_mut("there").unwrap().x = [1.0, 1.0, 0.0, 0.0, 1.0, 0.0].map(Dual::new).to_vec();
        for i in [4, 5, 6, 7, 10, 11] {
            values.get_mut("keys").unwrap().x[i].re = padding;
        }
        engines.run(&values, &sizes)
    };
    let clean = run(0.0);
    for padding in [1.0, NAN, INF, -INF, 3e38] {
        for ((engine, given), (_, expected)) in run(padding).iter().zip(&clean) {
            check::same_bits(engine, given, expected).unwrap();
            assert!(expected.values().flatten().all(|x| x.is_finite()), "{engine}");
        }
    }
}

/// The derivative of what is computed at padding is 0·∞ there: it is chosen away. By hand: |x·W| is 5 at x = (3, 4) with
/// W = 1, and its slope x·(x·W)/5.
#[test]
fn padding_reaches_no_gradient_by_hand() {
    let program = record("root", |p| {
        let time = p.lengths("lengths");
        let x = time.sequence("x", 2);
        let run = time.scan("s", |s| {
            let h = s.state("h", ());
            s.next(h, h + s.linear("in", s.at(x), 2).square().sum().sqrt())
        });
        p.minimize(run.last());
    });
    for padding in [0.0, NAN, INF, -INF, 3e38] {
        let x = [3.0, 4.0, padding, padding];
        let given: [(&str, &[f64]); 3] = [("x", &x), ("lengths", &[1.0]), ("s.in.w", &[1.0, 0.0, 0.0, 1.0])];
        let expected: [(&str, &[f64]); 2] = [("objective", &[5.0]), ("d.s.in.w", &[1.8, 2.4, 2.4, 3.2])];
        check(&program, &Sizes::new(2, 1), &given, &expected);
    }
}

/// All functions of numbers, each where the numbers of padding have no value or no slope.
fn every_pointwise(x: Expr<'_>) -> Expr<'_> {
    let positive = x.square() + 0.25;
    let parts = [
        -x,
        x.abs(),
        positive.sqrt(),
        x.exp() * 0.1,
        x.expm1() * 0.1,
        positive.ln(),
        positive.log1p(),
        x.tanh(),
        x.sigmoid(),
        x.silu(),
        x.softplus(),
        x.relu(),
        x.elu(1.0),
        x.gelu(),
        x.erf(),
        x.sin(),
        x.cos(),
        x.powi(3) * 0.1,
        positive.powi(-1),
        positive.pow(x.tanh()),
        x + positive,
        x - positive,
        x * positive,
        x / positive,
        x.minimum(positive * 0.3),
        x.maximum(positive * 0.3),
        select(x.gt(0.1), x, positive),
        x.stop_gradient(),
    ];
    parts.into_iter().reduce(|sum, part| sum + part).expect("some").mean() * 0.1
}

/// All ops that look at a row as a whole.
fn every_other_op(x: Expr<'_>) -> Expr<'_> {
    let (one, bias) = (x.stop_gradient() * 0.0 + 1.0, x * 0.1);
    let parts = [
        x.sum(),
        x.max(),
        x.mean(),
        x.softmax().inner(x),
        x.log_softmax().mean(),
        x.layer_norm(one, bias, 1e-3).square().mean() * x.sum(),
        x.rms_norm(one, 1e-3).sum(),
        x.outer(x).sum_features(),
        x.outer(x).matmul(x).sum(),
        x.slice(1..).sum() * concat([x, x * 2.0]).slice(2..4).mean(),
        x.reshape([3, 1]).broadcast([3, 2]).transpose().permute([1, 0]).sum_features(),
        stack([x, x.sin()]).max_axis(0).sum_features(),
    ];
    parts.into_iter().reduce(|sum, part| sum + part).expect("some") * 0.1
}

/// Programs whose samples have lengths or masks, with slopes that are infinite or no number at what padding may hold.
fn padded() -> Vec<Program> {
    let cell = |name: &'static str, cell: for<'r> fn(&Step<'r>, Expr<'r>) -> Expr<'r>| {
        record(name, |p| {
            let time = p.lengths("lengths");
            let (x, y) = (time.sequence("x", 3), time.sequence("y", 2));
            let forth = time.scan("forth", |s| cell(s, s.at(x)));
            let back = time.scan_reverse("back", |s| cell(s, concat([s.at(x), s.at(forth.all())])));
            let loss = p.affine("readout", concat([back.all(), x]), 2).mse(y).mean_over(time);
            p.output("all", back.all());
            p.minimize(loss + (forth.last() * back.last()).sum().sum_rows() * 0.1);
        })
    };
    let mut all = vec![
        cell("lstm", |s, x| cells::lstm(s, x, 5)),
        cell("gru", |s, x| cells::gru(s, x, 5)),
        cell("peephole", |s, x| cells::peephole_lstm(s, x, 5)),
        cell("layer_norm", |s, x| cells::layer_norm_lstm(s, x, 5)),
        cell("rnn", |s, x| cells::rnn(s, x, 5)),
        cell("roots_and_logarithms", |s, x| {
            let h = s.state("h", 5);
            let root = x.square().sum().sqrt().reshape(1);
            let scaled = x / root + (x.abs() + 0.1).ln() * 0.1 + (x.abs() + 0.1).pow(0.5) + (x.abs() + 1.0).powi(-1);
            let gain = s.parameter("gain", 5, Init::Constant(0.5));
            let z = s.linear("x", scaled, 5) + s.affine("h", (h + 1.5).ln(), 5);
            s.next(h, z.tanh() * gain * (x.sum().exp() + 1.0).ln().tanh())
        }),
        cell("attention", |s, x| {
            let h = s.state("h", 5);
            let z = s.affine("gates", concat([x, h]), 5);
            s.next(h, z.softmax() * z.log_softmax() + z.max().reshape(1) * 0.1)
        }),
    ];
    all.push(record("at_the_top", |p| {
        let time = p.lengths("lengths");
        let (x, y) = (time.sequence("x", 3), time.sequence("y", 2));
        let root = x.square().sum().sqrt().reshape(1);
        let z = p.affine("first", concat([x / root, (x.abs() + 0.1).ln()]), 4);
        let gain = p.parameter("gain", 2, Init::Constant(0.5));
        p.minimize((p.affine("readout", z.tanh(), 2) * gain / root).mse(y).mean_over(time));
    }));
    all.push(record("two_masks", |p| {
        let time = p.lengths("lengths");
        let (x, y) = (time.sequence("x", 3), time.sequence("y", 2));
        let run = time.scan("rnn", |s| cells::rnn(s, s.at(x), 5));
        let z = p.affine("readout", run.all() + x.sum().reshape(1), 2);
        let own = time.mask() * p.sequence("mask", ());
        let other = time.mask() * (1.0 - p.sequence("mask2", ()));
        p.minimize(z.mse(y).masked_mean(own) + ((z.square() + 0.1).ln() - y).square().mean().masked_mean(other));
    }));
    all.push(record("words", |p| {
        let time = p.lengths("lengths");
        let (word, next) = (time.labels("word"), time.labels("next"));
        let words = p.embedding("words", word, 7, 4);
        let run = time.scan("lstm", |s| cells::lstm(s, s.at(words), 5));
        p.minimize(p.affine("readout", run.all(), 6).cross_entropy(next).mean_over(time));
    }));
    let of_rows = |name: &'static str, f: for<'r> fn(Expr<'r>) -> Expr<'r>| {
        let above = record(&format!("{name}_above"), |p| {
            let time = p.lengths("lengths");
            let (x, y) = (time.sequence("x", 3), time.sequence("y", ()));
            let w = p.parameter("w", 3, Init::Constant(0.7));
            p.minimize((f(x * w) - y).square().mean_over(time));
        });
        let within = record(&format!("{name}_within"), |p| {
            let time = p.lengths("lengths");
            let (x, y) = (time.sequence("x", 3), time.sequence("y", ()));
            let w = p.parameter("w", 3, Init::Constant(0.7));
            let run = time.scan("s", |s| {
                let h = s.state("h", ());
                s.next(h, (h * 0.5 + f(s.at(x) * w + h)).sin())
            });
            p.minimize((run.all() - y).square().mean_over(time) + run.last().mean_rows());
        });
        [above, within]
    };
    all.extend(of_rows("every_pointwise", every_pointwise));
    all.extend(of_rows("every_other_op", every_other_op));
    all.push(record("per_sample", |p| {
        let time = p.lengths("lengths");
        let (x, y) = (time.sequence("x", 3), time.sequence("y", 4));
        let about = p.input("x_about", 3);
        let run = time.scan("rnn", |s| {
            let h = s.state("h", 4);
            let z = s.affine("about", about, 4) + s.linear("x", s.at(x), 4) + s.linear("h", h, 4);
            s.next(h, (z * s.parameter("gain", 4, Init::Constant(0.5)) + about.sum().exp().reshape(1)).tanh())
        });
        p.minimize(run.all().mse(y).mean_over(time));
    }));
    all.push(record("begins_anew", |p| {
        let time = p.lengths("lengths").reset_where(p.sequence("mask", ()));
        let (x, y) = (time.sequence("x", 3), time.sequence("y", 5));
        let run = time.scan("gru", |s| cells::gru(s, s.at(x), 5));
        p.minimize(run.all().mse(y).mean_over(time));
    }));
    all
}

const LENGTHS: [usize; 6] = [5, 1, 3, 4, 2, 5];

/// What stands in padding changes no bit of outputs and gradients, in any engine, on any instruction set.
#[test]
fn padding_changes_no_bit() {
    let sizes = Sizes::new(5, LENGTHS.len());
    for program in padded() {
        let joint = program.backward().unwrap();
        let mut engines = Engines::new(&joint);
        let mut run = |padding: f64| {
            let mut values = check::values(&joint, &sizes, 3);
            for (name, data) in &mut values {
                let width = data.ty.shape.len();
                if name == "lengths" {
                    data.x = LENGTHS.iter().map(|&n| Dual::new(n as f64)).collect();
                } else if matches!(data.ty.extent, Extent::Time(_)) && !name.contains("mask") {
                    // Labels too: any number, but for the interpreter, which looks them up.
                    let padding = if data.ty.is_float() { padding } else { 1.0 };
                    for (row, x) in data.x.chunks_mut(width).enumerate() {
                        if row / LENGTHS.len() >= LENGTHS[row % LENGTHS.len()] {
                            x.fill(Dual::new(padding));
                        }
                    }
                }
            }
            engines.run(&values, &sizes)
        };
        let clean = run(1.0);
        let (_, truth) = &clean[0];
        for (engine, given) in &clean {
            let what = format!("{}, {engine}", program.name);
            assert!(given.values().flatten().all(|x| x.is_finite()), "{what}: {given:?}");
            let tolerance = if engine.starts_with("f32") { check::F32 } else { check::F64 };
            agree(&what, given, truth, tolerance).unwrap();
        }
        for padding in [0.0, NAN, INF, -INF, 3e38] {
            for ((engine, given), (_, expected)) in run(padding).iter().zip(&clean) {
                check::same_bits(&format!("{}, {engine}, padding {padding}", program.name), given, expected).unwrap();
            }
        }
    }
}

/// Past a sample's end a label may be any number; before it, it may not.
#[test]
fn labels_at_padding_are_not_looked_at() {
    let program = padded().into_iter().find(|p| p.name == "words").unwrap();
    let joint = program.backward().unwrap();
    let sizes = Sizes::new(3, 2);
    let mut values = check::values(&joint, &sizes, 3);
    values.get_mut("lengths").unwrap().x = [3.0, 1.0].map(Dual::new).to_vec();
    let mut jit = Jit::<f32>::new(&joint, 1).unwrap();
    let mut run = |at: usize, label: f64| {
        let mut values = values.clone();
        for name in ["word", "next"] {
            values.get_mut(name).unwrap().x[at].re = label;
        }
        jit.run(&values, &sizes)
    };
    // Sample 1 has one step: its second is row 3, its third row 5.
    let clean = run(3, 0.0).unwrap();
    for label in [-100, -1, 6, i32::MAX, i32::MIN] {
        for at in [3, 5] {
            check::same_bits(&format!("{label} at {at}"), &run(at, f64::from(label)).unwrap(), &clean).unwrap();
        }
        for at in [1, 4] {
            let error = run(at, f64::from(label)).unwrap_err();
            assert!(error.contains("allowed are 0 to"), "{error}");
        }
    }
}

/// All samples without a step: the loss is 0, and so is the gradient.
#[test]
fn nothing_but_padding_is_0() {
    for program in padded() {
        let joint = program.backward().unwrap();
        let sizes = Sizes::new(2, 2);
        let mut values = check::values(&joint, &sizes, 3);
        values.get_mut("lengths").unwrap().x = vec![Dual::new(0.0); 2];
        for (name, data) in values.iter_mut().filter(|(name, _)| !name.contains("mask")) {
            if data.ty.extent != Extent::Shared && data.ty.is_float() {
                data.x.fill(Dual::new(if name.starts_with('x') { NAN } else { INF }));
            }
        }
        for (engine, all) in Engines::new(&joint).run(&values, &sizes) {
            for (name, x) in &all {
                assert!(x.iter().all(|&x| x == 0.0), "{}, {engine}: {name} is {x:?}", program.name);
            }
        }
    }
}

/// A number that stands for no label: it has no part in the loss, and others are refused.
#[test]
fn a_label_that_is_ignored() {
    let recorded = |within: bool| {
        record("ignoring", |p| {
            let (x, label) = (p.sequence("x", 3), p.labels_sequence("label"));
            let w = p.parameter("w", 3, Init::Constant(0.0));
            let loss = match within {
                false => (x + w).cross_entropy_ignoring(label, -100),
                true => p.scan("s", |s| (s.at(x) + w).cross_entropy_ignoring(s.at(label), -100)).all(),
            };
            p.output("loss", loss);
            p.minimize(loss.masked_mean(label.is_label(-100)));
        })
    };
    for program in [recorded(false), recorded(true)] {
        let ln2 = 2.0f64.ln();
        let x = [0.0, 0.0, -INF, 0.0, 0.0, -INF];
        let case = |label: [f64; 2], loss: [f64; 2], mean: f64, slope: [f64; 3]| {
            let given: [(&str, &[f64]); 2] = [("x", &x), ("label", &label)];
            let expected: [(&str, &[f64]); 3] = [("loss", &loss), ("objective", &[mean]), ("d.w", &slope)];
            check(&program, &Sizes::new(2, 1), &given, &expected);
        };
        case([0.0, -100.0], [ln2, 0.0], ln2, [-0.5, 0.5, 0.0]);
        case([0.0, 1.0], [ln2, ln2], ln2, [0.0, 0.0, 0.0]);
        case([-100.0, -100.0], [0.0, 0.0], 0.0, [0.0, 0.0, 0.0]);
        let mut trainer = program.trainer(Sgd::new(0.1)).compile().unwrap();
        let (x, label) = (Array3::zeros((2, 1, 3)), [1, -100]);
        let feed = Feed::new().f32("x", x.view()).i32_slice("label", &[2, 1], &label);
        assert!((trainer.step(&feed).unwrap().loss - 3.0f64.ln()).abs() < 1e-6);
        // Its text knows it too.
        let read = Program::parse(&program.to_string()).unwrap();
        for program in [&program, &read] {
            let mut values = numbers_at(program, &Sizes::new(2, 1), |_| 0.0);
            for wrong in [-1.0, 3.0, -101.0] {
                values.get_mut("label").unwrap().x[1].re = wrong;
                let error = Jit::<f32>::new(program, 1).unwrap().run(&values, &Sizes::new(2, 1)).unwrap_err();
                let text =
                    format!("running: input `label` has {wrong} at [1, 0]; allowed are 0 to 2, and -100 for no label");
                assert_eq!(error, text);
            }
        }
    }
    // Where it would be looked up it is no index.
    let program = record("looked_up", |p| {
        let label = p.labels("label");
        let words = p.embedding("words", label, 3, 2);
        p.minimize(p.affine("readout", words, 3).cross_entropy_ignoring(label, -100));
    });
    let mut values = numbers_at(&program, &Sizes::new(1, 1), |_| 0.0);
    values.get_mut("label").unwrap().x[0].re = -100.0;
    let error = Jit::<f32>::new(&program, 1).unwrap().run(&values, &Sizes::new(1, 1)).unwrap_err();
    assert_eq!(error, "running: input `label` has -100 at [0]; allowed are 0 to 2");
}
