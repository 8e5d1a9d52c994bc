//! A time axis written out: as many copies of each step as there are steps.
//!
//! Before: a program with sequences on an axis. After: that axis is gone. A sequence is `steps` batch values, and so
//! is each input and output that was one (`x` becomes `x.0`, `x.1`, …); a loop is `steps` copies of its body on
//! the same parameters; a sum over all rows is the sum over the steps of the sums over samples. Loops over other
//! axes stay.

use std::collections::HashSet;

use crate::error::Place;
use crate::ir::bounds;
use crate::ir::op::Eval;
use crate::ir::sizes::{plus, times, total};
use crate::ir::{Axis, Binary, Draft, Extent, Graph, Input, Op, Parameter, Program, Scan, Type, Update, Value};
use crate::simplify::rebuild::Numbered;

/// Why an axis cannot be written out.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnrollError {
    /// No steps.
    #[error("a program cannot be unrolled over 0 steps; at least 1 is needed")]
    NoSteps,
    /// More steps than a graph has room for.
    #[error(
        "{steps} steps of a program of {nodes} values are more than a graph of {} values at most has room for; a loop \
         takes any number of steps",
        MOST_VALUES
    )]
    TooManySteps {
        /// As given.
        steps: usize,
        /// Values of the program, those in its loops included.
        nodes: usize,
    },
    /// More steps than the program takes.
    #[error("{steps} steps of a program that takes at most {most} ({place})")]
    PastLimit {
        /// As given.
        steps: usize,
        /// The most.
        most: usize,
        /// Where that was recorded.
        place: Place,
    },
    /// A step's name is taken.
    #[error("the steps of `{sequence}` are to be called `{sequence}.0` and so on, but `{taken}` is there already")]
    NameTaken {
        /// The sequence that is taken apart.
        sequence: String,
        /// The name that is in use.
        taken: String,
    },
}

crate::debug_is_display!(UnrollError);

impl Program {
    /// The program written out over this many steps of each of its time axes: a flat graph in which every step has the
    /// same parameters. See [`unroll`], which does it for one axis.
    ///
    /// ```
    /// use retrograd_compiler::{ir::Program, record::concat};
    /// let program = Program::record("rnn", |p| {
    ///     let x = p.sequence("x", 3);
    ///     let run = p.scan("rnn", |s| {
    ///         let h = s.state("h", 2);
    ///         s.next(h, s.affine("cell", concat([h, s.at(x)]), 2).tanh())
    ///     });
    ///     p.minimize(run.last().square().mean());
    /// })?;
    /// let flat = program.unroll(5)?;
    /// assert_eq!((flat.inputs.len(), flat.parameters.len()), (5, 2));
    /// assert!(flat.to_svg().starts_with("<svg"));
    /// let joint = flat.backward()?; // as good as `program.backward()?.unroll(5)`
    /// # assert!(joint.output("d.rnn.cell.w").is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`unroll`].
    pub fn unroll(&self, steps: usize) -> Result<Program, UnrollError> {
        self.time_axes().into_iter().try_fold(self.clone(), |program, axis| unroll(&program, axis, steps))
    }
}

/// Most values of a program that is written out.
const MOST_VALUES: usize = 1 << 24;

/// What a value became.
#[derive(Clone)]
enum Steps {
    /// It is not on the axis.
    One(Value),
    /// One value a step.
    Each(Vec<Value>),
}

impl Steps {
    /// The value at a step.
    fn at(&self, t: usize) -> Value {
        match self {
            Steps::One(v) => *v,
            Steps::Each(all) => all[t],
        }
    }

    fn one(&self) -> Value {
        match self {
            Steps::One(v) => *v,
            Steps::Each(_) => unreachable!("this value is on the axis"),
        }
    }
}

/// Writes the sequences and loops of an axis out over a number of steps.
///
/// ```
/// use retrograd_compiler::{ir::{Program, types::Axis}, time::unroll};
/// let program = Program::parse("\
/// program sums {
///   axis T = time
///   sequence x: f32[T, B, 3]
///   parameter w: f32[3, 2] = glorot
///   scan sums {
///     shared w: f32[3, 2] = w
///     each x: f32[B, 3] = x
///     carry h: f32[B, 2] = 0
///     %0: f32[B, 2] = dot x, w
///     %1: f32[B, 2] = add h, %0
///     %2: f32[B, 2] = tanh %1
///     next h = %2
///   }
///   %0: f32[B, 2] = final h of sums
///   output h = %0
/// }
/// ")?;
/// assert_eq!(unroll(&program, Axis(0), 2)?.to_string(), "\
/// program sums {
///   axis T = time
///   batch x.0: f32[B, 3]
///   batch x.1: f32[B, 3]
///   parameter w: f32[3, 2] = glorot
///   %0: f32[B, 2] = constant 0
///   %1: f32[B, 2] = dot x.0, w
///   %2: f32[B, 2] = add %0, %1
///   %3: f32[B, 2] = tanh %2
///   %4: f32[B, 2] = dot x.1, w
///   %5: f32[B, 2] = add %3, %4
///   %6: f32[B, 2] = tanh %5
///   output h = %6
/// }
/// ");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If there are no steps or more than a graph has room for, or the name of a step is taken by another input or output.
pub fn unroll(program: &Program, axis: Axis, steps: usize) -> Result<Program, UnrollError> {
    if steps == 0 {
        return Err(UnrollError::NoSteps);
    }
    let within = |v| if let Op::Scan(scan) = program.graph.op(v) { scan.body.len() } else { 0 };
    let nodes = total(program.graph.values().map(|v| plus(1, within(v))));
    if times(nodes, steps) > MOST_VALUES {
        return Err(UnrollError::TooManySteps { steps, nodes });
    }
    let mut unroll = Unroll { g: Numbered::default(), axis, steps };
    let old = &program.graph;
    let mut map: Vec<Option<Steps>> = vec![None; old.len()];
    let mut results: Vec<Option<Results>> = (0..old.len()).map(|_| None).collect();
    let needed = old.reachable(program.roots());
    for v in old.values() {
        let node = old.node(v);
        let face = matches!(node.op, Op::Parameter(_) | Op::Input(_));
        if !needed[v.index()] && !face {
            continue;
        }
        let operands = |map: &[Option<Steps>]| -> Vec<Steps> {
            node.operands.iter().map(|o| map[o.index()].clone().expect("operands come before their users")).collect()
        };
        let new = match &node.op {
            Op::Scan(scan) if scan.axis == axis => {
                results[v.index()] = Some(unroll.scan(scan, &operands(&map)));
                continue;
            }
            Op::Scan(scan) => {
                let operands: Vec<Value> = operands(&map).iter().map(Steps::one).collect();
                Steps::One(unroll.g.scan(Scan::clone(scan), &operands))
            }
            op @ (Op::Yield(i) | Op::Final(i) | Op::Total(i)) => match &results[node.operands[0].index()] {
                None => Steps::One(unroll.g.result(operands(&map)[0].one(), op.clone())),
                Some(results) => match op {
                    Op::Yield(_) => Steps::Each(results.yields[*i].clone()),
                    Op::Final(_) => Steps::One(results.finals[*i]),
                    _ => Steps::One(results.totals[*i]),
                },
            },
            op => unroll.node(op, &node.ty, &operands(&map)),
        };
        map[v.index()] = Some(new);
    }

    let at = |v: Value| map[v.index()].as_ref().expect("all roots are mapped");
    if let Some(l) = program.limits.iter().find(|l| l.axis == axis && l.steps < steps) {
        return Err(UnrollError::PastLimit { steps, most: l.steps, place: l.place });
    }
    let mut new = Draft { name: program.name.clone(), axes: program.axes.clone(), ..Draft::default() };
    for p in &program.parameters {
        new.parameters.push(Parameter { value: at(p.value).one(), ..p.clone() });
    }
    let faces = program.inputs.iter().map(|i| i.name.clone());
    let mut names = Names::new(faces.chain(program.parameters.iter().map(|p| p.name.clone())));
    for input in &program.inputs {
        match at(input.value) {
            Steps::One(v) => new.inputs.push(Input { value: *v, ..input.clone() }),
            Steps::Each(all) => {
                for (t, &value) in all.iter().enumerate() {
                    let name = names.step(&input.name, t)?;
                    new.inputs.push(Input { name, value, bound: input.bound });
                }
            }
        }
    }
    let mut names = Names::new(program.outputs.iter().map(|(name, _)| name.clone()));
    for (name, v) in &program.outputs {
        match at(*v) {
            Steps::One(v) => new.outputs.push((name.clone(), *v)),
            Steps::Each(all) => {
                for (t, &value) in all.iter().enumerate() {
                    new.outputs.push((names.step(name, t)?, value));
                }
            }
        }
    }
    new.objective = program.objective.map(|v| at(v).one());
    for update in &program.updates {
        match (at(update.target), at(update.value)) {
            (Steps::Each(targets), values) => new
                .updates
                .extend(targets.iter().enumerate().map(|(t, &target)| Update { target, value: values.at(t) })),
            (Steps::One(target), value) => new.updates.push(Update { target: *target, value: value.one() }),
        }
    }
    new.graph = unroll.g.finish();
    new.lengths = program.lengths.iter().filter(|(_, own)| *own != axis).cloned().collect();
    new.limits = program.limits.iter().filter(|l| l.axis != axis).copied().collect();
    bounds::derive(&mut new);
    Ok(new.by_pass())
}

/// Names in use.
struct Names(HashSet<String>);

impl Names {
    fn new(names: impl Iterator<Item = String>) -> Names {
        Names(names.collect())
    }

    /// The name of one step of a sequence.
    fn step(&mut self, sequence: &str, t: usize) -> Result<String, UnrollError> {
        let name = step_name(sequence, t);
        if self.0.insert(name.clone()) {
            Ok(name)
        } else {
            Err(UnrollError::NameTaken { sequence: sequence.to_string(), taken: name })
        }
    }
}

fn step_name(sequence: &str, t: usize) -> String {
    format!("{sequence}.{t}")
}

/// What the results of a loop became.
struct Results {
    yields: Vec<Vec<Value>>,
    finals: Vec<Value>,
    totals: Vec<Value>,
}

struct Unroll {
    g: Numbered,
    axis: Axis,
    steps: usize,
}

impl Unroll {
    fn sum(&mut self, terms: impl IntoIterator<Item = Value>) -> Value {
        let add = |sum: Value, v: Value| self.g.add(Op::Binary(Binary::Add), &[sum, v]);
        terms.into_iter().reduce(add).expect("there is at least one step")
    }

    fn each(&mut self, mut step: impl FnMut(&mut Numbered, usize) -> Value) -> Steps {
        Steps::Each((0..self.steps).map(|t| step(&mut self.g, t)).collect())
    }

    /// A node of the top graph.
    fn node(&mut self, op: &Op, ty: &Type, x: &[Steps]) -> Steps {
        let time = Extent::Time(self.axis);
        let values = |t: usize| x.iter().map(|s| s.at(t)).collect::<Vec<Value>>();
        let on_axis = x.iter().any(|s| matches!(s, Steps::Each(_)));
        let batch = ty.at(Extent::Batch);
        match op {
            Op::Input(name) if ty.extent == time => {
                self.each(|g, t| g.leaf(Op::Input(step_name(name, t)), batch.clone()))
            }
            Op::Constant(c) if ty.extent == time => self.each(|g, _| g.constant(*c, batch.clone())),
            Op::Constant(c) => Steps::One(self.g.constant(*c, ty.clone())),
            Op::Parameter(_) | Op::Input(_) => Steps::One(self.g.leaf(op.clone(), ty.clone())),
            Op::RowCount(extent) if *extent == time => {
                let rows = self.g.add(Op::RowCount(Extent::Batch), &[]);
                let steps = self.g.scalar(self.steps as f64);
                Steps::One(self.g.add(Op::Binary(Binary::Mul), &[rows, steps]))
            }
            Op::Expand(to) if *to == time => self.each(|g, t| g.spread(x[0].at(t), &batch)),
            Op::Last if on_axis => Steps::One(x[0].at(self.steps - 1)),
            Op::PlaceLast(axis) if *axis == self.axis => {
                let last = self.steps - 1;
                self.each(|g, t| if t == last { x[0].one() } else { g.constant(0.0, batch.clone()) })
            }
            Op::Within(axis) if *axis == self.axis => {
                let length = self.g.add(Op::ToFloat, &[x[0].one()]);
                self.each(|g, t| {
                    let t = g.scalar(t as f64);
                    g.add(Op::Binary(Binary::Gt), &[length, t])
                })
            }
            Op::SumRows(Extent::Batch) if on_axis => Steps::One(self.sum((0..self.steps).map(|t| x[0].at(t)))),
            op if !on_axis => Steps::One(self.g.add(op.clone(), &values(0))),
            // The other sums over rows: over those of each step, then over the steps.
            op if matches!(op.row().eval, Eval::Rows(_)) => {
                let Steps::Each(sums) = self.each(|g, t| g.add(op.clone(), &values(t))) else { unreachable!() };
                Steps::One(self.sum(sums))
            }
            op => self.each(|g, t| g.add(op.clone(), &values(t))),
        }
    }

    /// A loop over the axis, step by step in its order.
    fn scan(&mut self, scan: &Scan, operands: &[Steps]) -> Results {
        let (captures, rest) = operands.split_at(scan.captures.len());
        let (each, initial) = rest.split_at(scan.each.len());
        let mut states: Vec<Value> = initial.iter().map(Steps::one).collect();
        let mut yields: Vec<Vec<(usize, Value)>> = vec![Vec::new(); scan.yields.len()];
        let mut sums: Vec<Vec<Value>> = vec![Vec::new(); scan.sums.len()];
        for i in 0..self.steps {
            let t = if scan.reverse { self.steps - 1 - i } else { i };
            let map = self.step(&scan.body, |op| match *op {
                Op::Capture(i) => Some(captures[i].one()),
                Op::Each(i) => Some(each[i].at(t)),
                Op::Carry(i) => Some(states[i]),
                _ => None,
            });
            let at = |v: Value| map[v.index()];
            states = scan.carries.iter().map(|c| at(c.next)).collect();
            for (all, port) in yields.iter_mut().zip(&scan.yields) {
                all.push((t, at(port.value)));
            }
            for (all, port) in sums.iter_mut().zip(&scan.sums) {
                all.push(at(port.value));
            }
        }
        let in_time = |mut all: Vec<(usize, Value)>| {
            all.sort();
            all.into_iter().map(|(_, v)| v).collect()
        };
        Results {
            yields: yields.into_iter().map(in_time).collect(),
            finals: states,
            totals: sums.into_iter().map(|terms| self.sum(terms)).collect(),
        }
    }

    /// One copy of a body.
    fn step(&mut self, body: &Graph, leaf: impl Fn(&Op) -> Option<Value>) -> Vec<Value> {
        let mut map: Vec<Value> = Vec::with_capacity(body.len());
        for v in body.values() {
            let node = body.node(v);
            let operands: Vec<Value> = node.operands.iter().map(|o| map[o.index()]).collect();
            map.push(match (leaf(&node.op), &node.op) {
                (Some(value), _) => value,
                (None, Op::Constant(c)) => self.g.constant(*c, node.ty.clone()),
                (None, op) => self.g.add(op.clone(), &operands),
            });
        }
        map
    }
}
