//! Truncated programs against what owes nothing to the pass that makes them, nor to the rules that derive them.
//!
//! A window and its lead are run one after the other by the interpreter, on dual numbers, each as the program with its
//! states as inputs. Where a gradient is to stop, the duals of the states are set to 0 between the two; where a
//! sequence begins, its states are the initial values, duals included. The dual part of the window's objective along a
//! direction of the parameters must be that direction times the gradient which the truncated program gives in one run.

use retrograd::compiler::interpret::{Values, evaluate, interpret};
use retrograd::compiler::ir::dual::Dual;
use retrograd::compiler::ir::op::Data;
use retrograd::compiler::ir::{Extent, Op, Program, Sizes};
use retrograd::compiler::time::truncate::{EMPTY, FRESH, KEEP, RESET, lead_name, separable};
use retrograd::compiler::time::{CarriedState, Lead, carry_state, truncate};

use super::sets::{on, turn_of};
use super::{F64, Found, Jit, agree, close, truth, values};

/// Checks a program with each kind of lead, interpreted and as machine code of 64 bits; whether it is one that can be
/// truncated.
pub fn check_truncated(program: &Program) -> Found<bool> {
    let recorded = program.with_outputs(|_| false);
    if recorded.objective.is_none() || separable(&recorded).is_err() {
        return Ok(false);
    }
    for lead in [Lead::None, Lead::Forward, Lead::Again] {
        // Sets take turns.
        let set = turn_of(&format!("{} {lead:?}", program.name));
        let truncated = truncate(&recorded, lead).map_err(|e| e.to_string())?;
        truncated.program.verify().map_err(|e| format!("{lead:?}: {e}"))?;
        let joint = open(&truncated.program).backward().map_err(|e| e.to_string())?;
        let text = joint.to_string();
        let parsed = Program::parse(&text).map_err(|e| format!("{lead:?}: its text is not read back: {e}"))?;
        if parsed.to_string() != text {
            return Err(format!("{lead:?}: its text is read back as another:\n{text}"));
        }
        let sizes = |window, lead, batch| {
            let mut steps = vec![1; joint.axes.len().max(1)];
            steps[0] = window;
            if let Some(axis) = truncated.lead_axis {
                steps[usize::from(axis.0)] = lead;
            }
            Sizes { batch, steps }
        };
        let sizes = [sizes(3, 2, 3), sizes(1, 4, 2)];
        let mut code = on(set, || Jit::<f64>::new(&joint, 1))?;
        for (sizes, (empty, keep)) in sizes.iter().zip([(0.0, 1), (1.0, 4)]) {
            check_gradient(&recorded, &joint, lead, sizes, &mut code, empty, keep)
                .map_err(|e| format!("{set}, {lead:?}, T, B = {:?}, {}: {e}", sizes.steps, sizes.batch))?;
        }
    }
    Ok(true)
}

/// The program with its states as plain inputs, and what they become as outputs `next.<state>`.
fn open(program: &Program) -> Program {
    let mut open = program.to_draft();
    let (states, rest) = open.updates.drain(..).partition(|u| match program.graph.op(u.target) {
        Op::Input(name) => name.starts_with("state."),
        _ => false,
    });
    let states: Vec<_> = states;
    open.updates = rest;
    for update in states {
        let Op::Input(name) = program.graph.op(update.target) else { unreachable!("an input, as found above") };
        open.outputs.push((format!("next.{name}"), update.value));
    }
    open.finish().expect("only names have changed")
}

/// The program that carries its states, run in pieces.
struct Pieces<'a> {
    program: Program,
    states: Vec<CarriedState>,
    recorded: &'a Program,
    batch: usize,
    values: &'a Values,
}

type States = Vec<Data>;

impl Pieces<'_> {
    /// Inputs of these steps, of the window or of its lead.
    fn given(&self, of_lead: bool, from: usize, to: usize, states: &States) -> Values {
        let mut given = Values::new();
        for p in &self.recorded.parameters {
            given.insert(p.name.clone(), self.values[&p.name].clone());
        }
        for input in &self.recorded.inputs {
            let ty = self.recorded.ty(input.value);
            let timed = matches!(ty.extent, Extent::Time(_));
            let data = &self.values[&if of_lead && timed { lead_name(&input.name) } else { input.name.clone() }];
            let step = self.batch * ty.shape.len();
            let x = if timed { data.x[from * step..to * step].to_vec() } else { data.x.clone() };
            given.insert(input.name.clone(), Data { ty: ty.clone(), x });
        }
        for (state, data) in self.states.iter().zip(states) {
            given.insert(state.input.clone(), data.clone());
        }
        given
    }

    fn sizes(&self, steps: usize) -> Sizes {
        Sizes { batch: self.batch, steps: vec![steps; self.recorded.axes.len().max(1)] }
    }

    /// Goes on over these steps: the objective as if they were all, and the states behind them.
    fn run(&self, of_lead: bool, from: usize, to: usize, states: States) -> (Dual, States) {
        if from == to {
            return (Dual::default(), states);
        }
        let outcome = interpret(&self.program, &self.given(of_lead, from, to, &states), &self.sizes(to - from));
        let next = |state: &CarriedState| {
            let (_, data) = outcome.updates.iter().find(|(name, _)| *name == state.input).expect("it has an update");
            data.clone()
        };
        (outcome.objective.expect("an objective"), self.states.iter().map(next).collect())
    }

    /// States that are the initial values for the samples that are flagged.
    fn begin(&self, states: States, flags: &[Dual]) -> States {
        let wanted: Vec<_> = self.states.iter().map(|s| s.initial).collect();
        let initial = evaluate(&self.program, &self.given(false, 0, 1, &states), &self.sizes(1), &wanted);
        let chosen = states.into_iter().zip(initial).map(|(mut state, initial)| {
            let width = state.ty.shape.len();
            for b in (0..flags.len()).filter(|&b| flags[b].re != 0.0) {
                let row = b * width..(b + 1) * width;
                state.x[row.clone()].copy_from_slice(&initial.x[row]);
            }
            state
        });
        chosen.collect()
    }
}

/// Nothing that depends on the parameters.
fn constant(mut states: States) -> States {
    states.iter_mut().flat_map(|s| &mut s.x).for_each(|x| x.du = 0.0);
    states
}

/// Flags at single rows.
fn flag(values: &mut Values, name: &str, rows: impl Iterator<Item = usize>) {
    let x = &mut values.get_mut(name).expect("an input of the truncated program").x;
    x.fill(Dual::default());
    rows.for_each(|row| x[row].re = 1.0);
}

fn check_gradient(
    recorded: &Program,
    joint: &Program,
    lead: Lead,
    sizes: &Sizes,
    code: &mut Jit<f64>,
    empty: f64,
    keep: usize,
) -> Found {
    let (batch, window, before) = (sizes.batch, sizes.steps[0], *sizes.steps.last().expect("an axis"));
    let mut values = values(joint, sizes, 13);
    let mut wave = (0..).map(|i| (1.0 + f64::from(i)).sin());
    for p in &recorded.parameters {
        values.get_mut(&p.name).expect("a parameter").x.iter_mut().for_each(|x| x.du = wave.next().expect("endless"));
    }
    match lead {
        Lead::None => flag(&mut values, FRESH, 0..1),
        Lead::Forward => {
            flag(&mut values, FRESH, 0..1);
            values.get_mut(EMPTY).expect("an input").x[0].re = empty;
        }
        Lead::Again => {
            // One sample begins in the lead and another in the window; the state is kept `keep` steps on.
            flag(&mut values, &lead_name(RESET), 0..1);
            flag(&mut values, RESET, 1..2);
            let steps = |from: usize, n: usize| (keep > from && keep <= from + n).then(|| keep - from - 1);
            let rows = |t: Option<usize>| t.map_or(0..0, |t| t * batch..(t + 1) * batch);
            flag(&mut values, &lead_name(KEEP), rows(steps(0, before)));
            flag(&mut values, KEEP, rows(steps(before, window)));
        }
    }
    let given = code.run(&values, sizes)?;
    agree("f64", &given, &truth(joint, &values, sizes), F64)?;

    let (program, states) = carry_state(recorded);
    let start: States = states.iter().map(|s| values[&s.input].clone()).collect();
    let pieces = Pieces { program, states, recorded, batch, values: &values };
    let (objective, next) = match lead {
        Lead::None => pieces.run(false, 0, window, pieces.begin(start, &values[FRESH].x)),
        Lead::Forward => {
            let start = pieces.begin(start, &values[FRESH].x);
            let led = constant(pieces.run(true, 0, before, start.clone()).1);
            pieces.run(false, 0, window, if empty == 0.0 { led } else { start })
        }
        Lead::Again => {
            let start = pieces.begin(start, &values[&lead_name(RESET)].x[..batch]);
            let middle = keep.min(before);
            let kept = pieces.run(true, 0, middle, start).1;
            let led = pieces.run(true, middle, before, kept.clone()).1;
            let led = pieces.begin(led, &values[RESET].x[..batch]);
            let rest = keep - middle;
            let kept = if rest > 0 { pieces.run(false, 0, rest, led.clone()).1 } else { kept };
            (pieces.run(false, 0, window, led).0, kept)
        }
    };

    let largest = super::largest(&given);
    close("objective", &given["objective"], &[objective.re], largest, F64)?;
    for (state, data) in pieces.states.iter().zip(&next) {
        let expected: Vec<f64> = data.x.iter().map(|x| x.re).collect();
        close(&state.input, &given[&format!("next.{}", state.input)], &expected, largest, F64)?;
    }
    let mut slope = (0.0, 0.0);
    for p in &recorded.parameters {
        for (d, w) in given[&format!("d.{}", p.name)].iter().zip(&values[&p.name].x) {
            slope = (slope.0 + d * w.du, slope.1 + (d * w.du).abs());
        }
    }
    // Terms of the sum cancel: what is left has the rounding of the largest.
    close("slope", &[slope.0], &[objective.du], 10.0 * slope.1, F64)
}
