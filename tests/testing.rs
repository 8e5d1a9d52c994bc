//! The help for users' tests: it passes what is right, and finds what is wrong.

use retrograd::compiler::ir::Op;
use retrograd::prelude::*;
use retrograd::testing::{self, TestError, check_engines, check_engines_at, check_gradients, values};
use retrograd::{cells, compiler::interpret::interpret};

fn program(cell: for<'r> fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>) -> Program {
    Program::record("net", |p| {
        let (x, label) = (p.sequence("x", 3), p.labels("label"));
        let run = p.scan("cell", |s| cell(s, s.at(x), 5));
        let logits = p.affine("readout", run.last(), 4);
        p.output("class", logits.argmax());
        p.minimize(logits.cross_entropy(label));
    })
    .expect("no mistakes")
}

#[test]
fn library_cells_pass() {
    let sizes = Sizes::new(4, 3);
    for cell in [cells::lstm as for<'r> fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>, cells::gru, cells::rnn] {
        let program = program(cell);
        let checked = check_gradients(&program, &sizes).unwrap();
        let of = program.parameters.iter().map(|p| program.ty(p.value).shape.len()).sum::<usize>();
        assert_eq!((checked.elements, checked.of), (of, of));
        check_engines(&program, &sizes).unwrap();
    }
}

/// A control: of e^(w+20) − e²⁰·eʷ nothing but rounding is left, in which no two ways to compute it agree.
#[test]
fn noise_is_no_gradient() {
    let program = Program::record("noise", |p| {
        let w = p.parameter("w", 9, Init::Normal(1.0));
        p.minimize(((w + 20.0).exp() - w.exp() * p.constant(20.0).exp()).sum());
    });
    let found = check_gradients(&program.unwrap(), &Sizes::new(1, 1)).unwrap_err();
    assert!(matches!(&found, TestError::Gradient { worst, .. } if worst.name == "d.w"), "{found}");
    assert!(found.to_string().starts_with("program `noise`: of the gradient, d.w["), "{found}");
}

#[test]
fn errors_are_of_elements() {
    let e = |given: f64, expected: f64| testing::Element {
        name: "d.w".to_string(),
        index: 7,
        given,
        expected,
        largest: 1.0,
    };
    assert_eq!(e(0.0, 0.0).error(), 0.0);
    assert_eq!(e(f64::NAN, 1.0).error(), f64::INFINITY);
    assert_eq!(e(1.0, f64::NAN).error(), f64::INFINITY);
    assert!((e(1.01e-3, 1e-3).error() - 1e-5 / 0.011).abs() < 1e-9);
    assert_eq!(
        e(2.0, 1.0).to_string(),
        "d.w[7] is 2e0 instead of 1e0 (error 9.9e-1, where the largest element is 1e0)"
    );
}

#[test]
fn without_an_objective_there_is_no_gradient() {
    let program = Program::record("plain", |p| p.output("y", p.input("x", 3) * 2.0)).unwrap();
    assert!(matches!(check_gradients(&program, &Sizes::new(1, 2)), Err(TestError::Differentiate(_))));
    check_engines(&program, &Sizes::new(1, 2)).unwrap();
}

#[test]
fn what_is_not_finite_checks_nothing() {
    let program = Program::record("logarithm", |p| {
        let w = p.parameter("w", 3, Init::Constant(1.0));
        p.minimize((p.input("x", 3) * 0.0 * w).ln().sum());
    });
    let (program, sizes) = (program.unwrap(), Sizes::new(1, 2));
    let found = check_engines(&program, &sizes).unwrap_err();
    assert!(matches!(&found, TestError::NotFinite { name, .. } if name == "objective"), "{found}");
    // At values that were chosen, the class of what is not finite is compared.
    check_engines_at(&program, &values(&program, &sizes, 7), &sizes).unwrap();
}

/// Updates of parameters are compared too, and inputs that an update replaces start at 0.
#[test]
fn stored_values() {
    let program = Program::record("counts", |p| {
        let (w, x) = (p.parameter("w", 2, Init::Constant(0.0)), p.input("x", 2));
        let sum = p.shared("sum", 2);
        p.update(w, w * 2.0 + x.mean_rows());
        p.update(sum, sum + x.sum_rows());
        p.output("so_far", sum + 1.0);
    })
    .unwrap();
    let sizes = Sizes::new(1, 3);
    check_engines(&program, &sizes).unwrap();
    let values = values(&program, &sizes, 3);
    let mut session = retrograd::runtime::session::Session::<f64>::new(&program, 1).unwrap();
    let given = testing::run(&mut session, &values, &sizes).unwrap();
    assert_eq!(given["so_far"], [1.0, 1.0]);
    let truth = testing::numbers(&interpret(&program, &values, &sizes));
    assert_eq!(given["new w"].len(), 2);
    assert!(given["new w"].iter().zip(&truth["new w"]).all(|(g, t)| (g - t).abs() < 1e-12));
}

/// Every stage has its text, and each kernel its code.
#[test]
fn stages_as_text() {
    let stages = retrograd::runtime::stages::stages::<f32>(&program(cells::gru)).unwrap();
    let texts = stages.texts();
    assert_eq!(texts[0].1, stages.recorded.to_string());
    assert_eq!(Program::parse(&texts[2].1).unwrap().to_string(), texts[2].1);
    assert!(texts[3].1.contains("loop d.cell over k reverse {"), "{}", texts[3].1);
    assert!(stages.kernels.iter().any(|k| k.within.as_deref() == Some("cell")));
    assert!(stages.kernels.iter().all(|k| k.clif.starts_with("function") && !k.disassembly.is_empty()));
    // What has no objective has no joint program.
    let plain = Program::record("plain", |p| p.output("y", p.input("x", 3) * 2.0)).unwrap();
    let stages = retrograd::runtime::stages::stages::<f64>(&plain).unwrap();
    assert!(stages.joint.is_none() && stages.texts().len() == 4);
    assert!(stages.hoisted.graph.values().any(|v| matches!(stages.hoisted.graph.op(v), Op::Binary(_))));
}
