//! Derivatives of generated code against what owes nothing to the rules that derived it.
//!
//! A gradient that machine code computed in 64 bits must be, element by element, the dual part that the interpreter
//! finds for the *undifferentiated* program with that element's direction, and the limit of central differences of
//! the undifferentiated program's machine code. The product of the Hessian and a vector, by reverse over reverse and
//! by forward over reverse, must be the dual part of the gradient.
//!
//! Tolerances are relative to the element; the floor, relative to the largest element of the same parameter, is for
//! elements that are small because larger terms cancel: those carry the rounding of these terms. Where all elements
//! cancel, 8ε of the largest number of the run is left.

use retrograd::compiler::interpret::{Values, interpret, seed_tangents};
use retrograd::compiler::ir::{Binary, Input, Op, Program, Shape, Sizes};

use super::sets::{on_each, turn_of};
use super::{Found, Jit, Numbers, Tolerance, close, largest, values};

const ROUNDING: f64 = 8.0 * f64::EPSILON;
pub const DUAL: Tolerance = Tolerance { relative: 1e-10, floor: 1e-12, rounding: ROUNDING };
/// Differences of f carry its rounding, ε·|f| / h, which for h = 10⁻³ is 10⁻¹³·|f|.
pub const DIFFERENCES: Tolerance = Tolerance { relative: 1e-7, floor: 1e-9, rounding: ROUNDING / 1e-3 };
pub const SECOND: Tolerance = Tolerance { relative: 1e-8, floor: 1e-10, rounding: ROUNDING };

/// Which elements of a parameter are looked at: all up to this many, else as many, evenly spread.
const ELEMENTS: usize = 60;

fn elements(n: usize) -> impl Iterator<Item = usize> {
    (0..n).step_by(n.div_ceil(ELEMENTS))
}

fn picked(x: &[f64]) -> Vec<f64> {
    elements(x.len()).map(|i| x[i]).collect()
}

/// Names of the parameters that are differentiated.
fn names(p: &Program) -> Vec<String> {
    p.parameters.iter().map(|p| p.name.clone()).collect()
}

/// First-order checks: `joint` is to give the gradient of `program` as outputs `d.<parameter>`.
pub fn check_gradient(program: &Program, joint: &Program, sizes: &Sizes, differences: bool) -> Found {
    let values = values(program, sizes, 11);
    let mut expected: Vec<(String, Vec<f64>)> = Vec::new();
    for name in names(program) {
        let duals: Vec<f64> = elements(values[&name].x.len())
            .map(|i| {
                let mut values = values.clone();
                values.get_mut(&name).expect("a parameter").x[i].du = 1.0;
                interpret(program, &values, sizes).objective.expect("an objective").du
            })
            .collect();
        if !duals.iter().all(|x| x.is_finite()) {
            return Err(format!("the derivative by {name} is not finite, so it checks nothing"));
        }
        expected.push((name, duals));
    }
    on_each(|set| {
        let given = Jit::<f64>::new(joint, 1)?.run(&values, sizes)?;
        let run = largest(&given);
        // Differences, which many runs are needed for, take turns.
        let differences = differences && set == turn_of(&program.name);
        let mut code = if differences { Some(Jit::<f64>::new(program, 1)?) } else { None };
        for (name, duals) in &expected {
            let gradient = given.get(&format!("d.{name}")).ok_or_else(|| format!("no gradient of {name}"))?;
            close(&format!("d.{name} against duals"), &picked(gradient), duals, run, DUAL)?;
            if let Some(code) = &mut code {
                let slopes: Vec<f64> =
                    elements(gradient.len()).map(|i| slope(code, &values, sizes, name, i)).collect::<Found<_>>()?;
                close(&format!("d.{name} against differences"), &picked(gradient), &slopes, run, DIFFERENCES)?;
            }
        }
        Ok(())
    })
}

/// Central differences with steps h and h/2, extrapolated: their errors are even powers of h, of which the first
/// cancels.
fn slope(code: &mut Jit<f64>, values: &Values, sizes: &Sizes, name: &str, i: usize) -> Found<f64> {
    let mut at = |step: f64| -> Found<f64> {
        let mut values = values.clone();
        values.get_mut(name).expect("a parameter").x[i].re += step;
        Ok(code.run(&values, sizes)?["objective"][0])
    };
    let mut central = |h: f64| -> Found<f64> { Ok((at(h)? - at(-h)?) / (2.0 * h)) };
    let h = 1e-3;
    Ok((4.0 * central(h / 2.0)? - central(h)?) / 3.0)
}

/// Second-order checks.
pub fn check_hessian(program: &Program, sizes: &Sizes) -> Found {
    let joint = program.backward().map_err(|e| e.to_string())?;
    let mut values = values(program, sizes, 11);
    seed_tangents(&mut values, &names(program), 5);
    values.values_mut().flat_map(|data| &mut data.x).for_each(|x| x.du = f64::from(x.du as f32));
    let expected = interpret(&joint, &values, sizes);
    let mut given = values.clone();
    for name in names(program) {
        let mut direction = values[&name].clone();
        direction.x.iter_mut().for_each(|x| (x.re, x.du) = (x.du, 0.0));
        given.insert(format!("dot.{name}"), direction.clone());
        given.insert(format!("v.{name}"), direction);
    }
    let modes = [
        ("reverse over reverse", along(program, &joint).backward().map_err(|e| e.to_string())?, "d."),
        ("forward over reverse", joint.jvp().map_err(|e| e.to_string())?, "dot.d."),
    ];
    for (mode, twice, prefix) in modes {
        on_each(|_| {
            let run: Numbers = Jit::<f64>::new(&twice, 1)?.run(&given, sizes)?;
            for name in names(program) {
                let product = &run[&format!("{prefix}{name}")];
                let expected: Vec<f64> = expected.outputs[&format!("d.{name}")].x.iter().map(|x| x.du).collect();
                close(&format!("{mode}, {name}"), product, &expected, largest(&run), SECOND)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The program of ⟨gradient, v⟩ with inputs `v.<parameter>`.
fn along(program: &Program, joint: &Program) -> Program {
    let mut along = joint.to_draft();
    let outputs = std::mem::take(&mut along.outputs);
    let mut sum = along.graph.scalar(0.0);
    for parameter in &program.parameters {
        let wanted = format!("d.{}", parameter.name);
        let gradient = outputs.iter().find(|(name, _)| *name == wanted).expect("reverse mode's").1;
        let name = format!("v.{}", parameter.name);
        let v = along.graph.leaf(Op::Input(name.clone()), program.ty(parameter.value).clone());
        along.inputs.push(Input { name, value: v, bound: None });
        let product = along.graph.binary(Binary::Mul, gradient, v);
        let part = total(&mut along, product);
        sum = along.graph.binary(Binary::Add, sum, part);
    }
    along.objective = Some(sum);
    along.finish().expect("well formed")
}

/// The sum of all features of a shared value.
fn total(p: &mut retrograd::compiler::ir::Draft, v: retrograd::compiler::ir::Value) -> retrograd::compiler::ir::Value {
    let ones = Shape(vec![1; p.ty(v).shape.rank()]);
    let sum = p.graph.add(Op::Sum(ones), &[v]);
    p.graph.add(Op::Reshape(Shape::scalar()), &[sum])
}
