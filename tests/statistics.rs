//! Statistics that training keeps: batch and input normalisation against PyTorch, and who reads and who writes them.

use ndarray::{Array2, Array3, array};
use retrograd::compiler::differentiate::gradient;
use retrograd::norms;
use retrograd::prelude::*;
use retrograd::runtime::session::Session;

/// From `tests/torch/batch_norm.py`: step, what, values row by row.
#[rustfmt::skip]
const TORCH: &[(usize, &str, &[f64])] = &[
    (0, "y", &[-2.00556602811284, 1.28517261437304, 0.177239805544747, 0.334597233129564, 2.36004563920233, 1.47528769062174, -0.259321361186769, 0.52471230937826, 1.92348447247081, 1.66540276687044, -0.695882527918286, 0.714827385626956]),
    (0, "gain", &[2.13429903735408, -7.22437289745045]),
    (0, "bias", &[-2.0, 0.0]),
    (0, "x", &[-1.97635074108229, 0.522231743370547, 2.3584570947335, 0.302379875458291, -2.03795840408104, 0.109925933956128, 4.28548699465205, -0.109925933956128, -0.110928504162493, -0.302379875458291, -2.51870644005973, -0.522231743370547]),
    (0, "mean", &[0.0291666666666667, 0.0125]),
    (0, "variance", &[0.988541666666667, 0.951875]),
    (1, "y", &[1.19588252791829, 0.356737802624514, -1.42348447247081, 1.32163109868774, 0.759321361186769, 0.517553351968386, -1.86004563920233, 1.48244664803161, 0.322760194455253, 0.678368901312257, 2.50556602811284, 1.64326219737549]),
    (1, "gain", &[-8.53719614941632, 4.5028353816284]),
    (1, "bias", &[-2.0, 0.0]),
    (1, "x", &[-1.3436024256086, 0.621070462506607, -0.44371401664997, 0.975989163497668, -0.320498690652461, -0.177459350495531, 0.579389718306169, 0.177459350495531, 0.702605044303677, -0.975989163497668, 0.825820370301185, -0.621070462506607]),
    (1, "mean", &[0.0470833333333333, 0.06125]),
    (1, "variance", &[0.978229166666667, 0.9291875]),
    (2, "y", &[-0.605517843119132, 0.949492743844745, 2.24620830061131, 1.85862335463933, -1.17586307186522, 1.10101451231051, 1.67586307186522, 0.343405669981686, -1.74620830061131, 1.25253628077627, 1.10551784311913, 0.49492743844745]),
    (2, "gain", &[4.18253167747131, 0.90913061079459]),
    (2, "bias", &[-2.0, 0.0]),
    (2, "x", &[-2.89526744438297, 0.00927670665650004, 0.925428365266919, 1.05447013456562, -0.00919714233798455, -0.62464048717606, 3.81149866731191, 0.72668426039756, 2.876873159707, -1.25855768100862, -4.70933560556487, 0.0927670665650004]),
    (2, "mean", &[0.054875, 0.0967916666666667]),
    (2, "variance", &[0.93228125, 0.917935416666667]),
];
const TORCH_EVALUATED: [f64; 4] = [1.7182658779487, 1.57238167013691, 0.941508370767797, -0.515094693998759];

fn normed() -> Program {
    Program::record("normed", |p| {
        let (x, c) = (p.input("x", 2), p.input("c", 2));
        let y = norms::batch_norm(p, "norm", x);
        p.output("y", y);
        p.minimize((y * c).sum().sum_rows());
    })
    .expect("no mistakes")
}

#[test]
fn batch_norm_is_that_of_pytorch() {
    let joint = normed().in_training().backward().expect("an objective");
    let mut draft = joint.to_draft();
    let (objective, x) = (joint.objective.expect("one"), joint.input("x").expect("one").value);
    let dx = gradient(&mut draft.graph, objective, &[x]).expect("one number")[0];
    draft.outputs.push(("dx".to_string(), dx));
    let mut session = Session::<f64>::new(&draft.finish().expect("well formed"), 1).expect("code for this machine");
    session.initialise(0).expect("initialisers that fit");
    session.set_parameter("norm.gain", array![1.5, -0.5].into_dyn().view()).expect("its shape");
    session.set_parameter("norm.bias", array![0.25, 1.0].into_dyn().view()).expect("its shape");
    for step in 0..3 {
        let x = Array2::from_shape_fn((6, 2), |(row, i)| ((step * 7 + row * 5 + i * 3) % 11) as f32 / 4.0 - 1.0);
        let c = Array2::from_shape_fn((6, 2), |(row, i)| ((row * 3 + i * 2) % 5) as f32 - 2.0);
        session.run(&Feed::new().f32("x", x.view()).f32("c", c.view())).expect("it fits");
        for (_, what, expected) in TORCH.iter().filter(|(s, ..)| *s == step) {
            let given = match *what {
                "y" => session.output("y"),
                "x" => session.output("dx"),
                "gain" | "bias" => session.output(&format!("d.norm.{what}")),
                _ => session.parameter(&format!("norm.{what}")),
            };
            let given = given.expect("there is one").into_raw_vec_and_offset().0;
            assert_eq!(given.len(), expected.len(), "{what}");
            for (g, e) in given.iter().zip(*expected) {
                assert!((g - e).abs() <= 1e-12 * e.abs().max(1.0), "step {step}, {what}: {given:?} for {expected:?}");
            }
        }
    }
    let mut evaluated = Session::<f64>::new(&normed().only(&["y"]).expect("one").outside_training(), 1).expect("code");
    for name in ["norm.gain", "norm.bias", "norm.mean", "norm.variance"] {
        let values = session.parameter(name).expect("one");
        evaluated.set_parameter(name, values.view()).expect("its shape");
    }
    let x = array![[1.0, -1.0], [0.5, 3.0]];
    let c = Array2::zeros((2, 2));
    evaluated.run(&Feed::new().f32("x", x.view()).f32("c", c.view())).expect("it fits");
    let y = evaluated.output("y").expect("one").into_raw_vec_and_offset().0;
    assert!(y.iter().zip(TORCH_EVALUATED).all(|(y, e)| (y - e).abs() <= 1e-12), "{y:?}");
    assert_eq!(evaluated.parameter("norm.mean"), session.parameter("norm.mean"), "it reads and does not write");
}

/// A sequence whose features are normed before a loop.
fn sequence() -> Program {
    Program::record("sequence", |p| {
        let x = norms::input_norm(p, "input", p.sequence("x", 2));
        let x = norms::batch_norm(p, "norm", x);
        let run = p.scan("sum", |s| {
            let h = s.state("h", 2);
            s.next(h, (0.5 * h + s.at(x)).tanh())
        });
        p.output("y", run.all());
        p.minimize(p.affine("readout", run.all(), 1).square().mean_features());
    })
    .expect("no mistakes")
}

fn data(step: usize) -> Array3<f32> {
    Array3::from_shape_fn((4, 3, 2), |(t, b, i)| ((t * 5 + b * 3 + i + 7 * step) % 11) as f32 - 2.0)
}

const STATISTICS: [&str; 5] = ["input.count", "input.mean", "input.variance", "norm.mean", "norm.variance"];

#[test]
fn training_writes_and_everything_else_reads() {
    let program = sequence();
    let mut trainer = program.trainer(Adam::new(0.01)).seed(1).compile().expect("an objective");
    let kept = |trainer: &Trainer| STATISTICS.map(|name| trainer.parameter(name).expect("one"));
    let mut before = kept(&trainer);
    for step in 0..3 {
        let x = data(step);
        let feed = Feed::new().f32("x", x.view());
        trainer.step(&feed).expect("it fits");
        let after = kept(&trainer);
        assert!(before.iter().zip(&after).all(|(b, a)| b != a), "a step of training changes all");
        let losses = [trainer.evaluate(&feed), trainer.evaluate(&feed)].map(|loss| loss.expect("it fits"));
        assert_eq!(losses[0], losses[1]);
        assert_eq!(kept(&trainer), after, "evaluation changes none");
        before = after;
    }
    // All rows that were seen, as one.
    let all: Vec<f64> = (0..3).flat_map(|step| data(step).into_iter().step_by(2)).map(f64::from).collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64;
    assert_eq!(before[0].sum(), 36.0);
    assert!((f64::from(before[1][0]) - mean).abs() < 1e-6 && (f64::from(before[2][0]) - variance).abs() < 1e-5);

    // A stream gives what evaluation gives.
    let x = data(5);
    trainer.evaluate(&Feed::new().f32("x", x.view())).expect("it fits");
    let whole = trainer.evaluated("y").expect("an output");
    let mut stream = trainer.stream(3).expect("it runs forwards");
    for (t, rows) in x.outer_iter().enumerate() {
        stream.set_f32("x", rows.as_slice().expect("dense")).expect("its size");
        stream.advance().expect("all is set");
        let mut y = [0.0; 6];
        stream.get_f32("y", &mut y).expect("its size");
        let expected = whole.index_axis(ndarray::Axis(0), t);
        assert!(y.iter().zip(expected.iter()).all(|(y, e)| (y - e).abs() < 1e-6), "{y:?} for {expected}");
    }
    // A refused step changes nothing.
    let mut wrong = data(1);
    wrong[[0, 0, 0]] = f32::NAN;
    trainer.step(&Feed::new().f32("x", wrong.view())).expect_err("not a number");
    assert_eq!(kept(&trainer), before);
    // A checkpoint has them, and they can be set.
    let file = std::env::temp_dir().join(format!("retrograd-statistics-{}", std::process::id()));
    trainer.save(&file).expect("a file");
    let mut other = program.trainer(Adam::new(0.01)).seed(9).compile().expect("an objective");
    other.load(&file).expect("of the same program");
    std::fs::remove_file(&file).expect("it is there");
    assert_eq!(kept(&other), before);
    let feed = Feed::new().f32("x", x.view());
    assert_eq!(other.step(&feed).expect("it fits"), trainer.step(&feed).expect("it fits"));
    trainer.set_parameter("norm.mean", array![1.0, 2.0].into_dyn().view()).expect("its shape");
    let loss = trainer.evaluate(&feed).expect("it fits");
    trainer.set_parameter("norm.mean", array![0.0, 0.0].into_dyn().view()).expect("its shape");
    assert_ne!(trainer.evaluate(&feed).expect("it fits"), loss);
}

#[test]
fn a_program_with_statistics_reads_back() {
    let program = sequence();
    let text = program.to_string();
    assert!(text.contains("  untrained norm.mean: f32[2] = 0\n"), "{text}");
    assert_eq!(Program::parse(&text).expect("a text").to_string(), text);
    let joint = program.in_training().backward().expect("an objective");
    assert!(joint.output("d.norm.gain").is_some() && joint.output("d.norm.mean").is_none());
}

/// What a mask excludes counts for nothing, whatever it is.
#[test]
fn padding_is_not_measured() {
    let program = Program::record("masked", |p| {
        let time = p.lengths("lengths");
        let x = time.sequence("x", 2);
        let y = norms::batch_norm_with(p, "norm", x, Some(time.mask()), 0.1);
        p.output("y", y);
        p.minimize(y.square().mean_features().mean_over(time));
    })
    .expect("no mistakes");
    let run = |padding: f32| {
        let mut x = data(0);
        x.slice_mut(ndarray::s![2.., 1, ..]).fill(padding);
        let mut trainer = program.trainer(Sgd::new(0.1)).compile().expect("an objective");
        let loss =
            trainer.step(&Feed::new().f32("x", x.view()).i32_slice("lengths", &[3], &[4, 2, 4])).expect("finite").loss;
        let kept = ["norm.gain", "norm.mean", "norm.variance"].map(|name| trainer.parameter(name).expect("one"));
        (loss, kept)
    };
    assert_eq!(run(0.0), run(f32::NAN));
}
