//! One check for every engine: what a program computes is what the interpreter says it computes, whichever way it is
//! run. Tests hand in programs and sizes; no engine has a test of its own. Everything here returns what it finds
//! rather than panicking, so that the negative control can ask whether it finds anything.
//!
//! Machine code is run on every instruction set that the machine has; see [`sets`].
//!
//! **How close is close.** In 64 bits a number g agrees with the truth t if |g − t| ≤ 10⁻¹⁰·|t| + 10⁻¹²·max|t|, the
//! maximum being over the output: every element must be right relative to itself, down to what is lost when terms of
//! the size of the largest element cancel. In 32 bits, |g − t| ≤ 10⁻⁴·max|t|, or what the
//! program itself makes of rounding explains the difference ([`agree_f32`]). An output all of whose elements cancel
//! (the gradient of what the objective does not depend on) is what is left of numbers that are in other outputs: to
//! each tolerance, 8ε times the largest number of the whole run is added. Equal bits means equal bits. What is no finite
//! number agrees with what is of its class: NaN with NaN, each ∞ with itself. Any NaN has the bits of any other.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod derivatives;
pub mod sets;
pub mod truncated;

use retrograd::compiler::interpret::{Values, interpret};
use retrograd::compiler::ir::op::Data;
use retrograd::compiler::ir::{Axis, Extent, Graph, Op, Program, Sizes, Value};
use retrograd::compiler::pipeline;
use retrograd::compiler::plan::{Checkpointing, Unit};
use retrograd::compiler::time::unroll;
use retrograd::runtime::float::Float;
use retrograd::runtime::session::{Session, Sharing};
pub use retrograd::testing::Numbers;
use retrograd::testing::{self, numbers, results, run};
use sets::{on_each, settings, turn_of};

/// What is found, with the place where.
pub type Found<T = ()> = Result<T, String>;

/// Relative to the element, to the largest element, and to the largest number of the run.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub relative: f64,
    pub floor: f64,
    pub rounding: f64,
}

pub const F64: Tolerance = Tolerance { relative: 1e-10, floor: 1e-12, rounding: 8.0 * f64::EPSILON };
pub const F32: Tolerance = Tolerance { relative: 0.0, floor: 1e-3, rounding: 8.0 * f32::EPSILON as f64 };

/// Checks one array of numbers; `run` is the largest number of the run.
pub fn close(what: &str, given: &[f64], truth: &[f64], run: f64, tolerance: Tolerance) -> Found {
    if given.len() != truth.len() {
        return Err(format!("{what}: {} numbers instead of {}", given.len(), truth.len()));
    }
    let scale = finite(truth.iter());
    for (i, (g, t)) in given.iter().zip(truth).enumerate() {
        let allowed = tolerance.relative * t.abs() + tolerance.floor * scale + tolerance.rounding * run;
        let agrees = match t.is_finite() {
            // A NaN is no agreement.
            true => (g - t).abs() <= allowed,
            false => same(*g, *t),
        };
        if !agrees {
            return Err(format!("{what}[{i}]: {g:e} instead of {t:e}, where the largest is {scale:e}"));
        }
    }
    Ok(())
}

/// Checks all numbers of a run.
pub fn agree(engine: &str, given: &Numbers, truth: &Numbers, tolerance: Tolerance) -> Found {
    let names = |n: &Numbers| n.keys().cloned().collect::<Vec<_>>();
    if names(given) != names(truth) {
        return Err(format!("{engine}: gives {:?} instead of {:?}", names(given), names(truth)));
    }
    let run = largest(truth);
    truth.iter().try_for_each(|(name, t)| close(&format!("{engine}: {name}"), &given[name], t, run, tolerance))
}

/// Checks all numbers of a run in 32 bits: they may be off by what the program makes of rounding.
pub fn agree_f32(program: &Program, values: &Values, sizes: &Sizes, given: &Numbers, truth: &Numbers) -> Found {
    let small = Tolerance { floor: testing::SMALL_F32, ..F32 };
    let Err(found) = agree("f32", given, truth, small) else { return Ok(()) };
    let rounding = testing::rounding_of_f32(program, values, sizes);
    let run = largest(truth);
    for (name, t) in truth {
        let Some(given) = given.get(name) else { return Err(found) };
        let explained = testing::LIMIT_F32 * rounding[name] / finite(t.iter()).max(f64::MIN_POSITIVE);
        let tolerance = Tolerance { floor: small.floor + explained, ..small };
        let what = format!("f32 (rounding explains {:.1e}): {name}", rounding[name]);
        close(&what, given, t, run, tolerance)?;
    }
    Ok(())
}

/// The largest number of a run.
pub fn largest(numbers: &Numbers) -> f64 {
    finite(numbers.values().flatten())
}

/// The largest of those that are finite.
fn finite<'a>(numbers: impl Iterator<Item = &'a f64>) -> f64 {
    numbers.filter(|x| x.is_finite()).fold(0.0, |m, x| m.max(x.abs()))
}

/// Whether two numbers have the same bits, or are both NaN.
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Checks that two runs gave the same bits.
pub fn same_bits(what: &str, given: &Numbers, expected: &Numbers) -> Found {
    for (name, e) in expected {
        let g = given.get(name).ok_or_else(|| format!("{what}: no {name}"))?;
        if let Some(i) = (0..e.len()).find(|&i| !g.get(i).is_some_and(|&x| same(x, e[i]))) {
            return Err(format!("{what}: {name}[{i}] has other bits: {:?} instead of {:e}", g.get(i), e[i]));
        }
    }
    Ok(())
}

// ---- values ---------------------------------------------------------------------------------------------------

/// Random values that an `f32` holds, so that every engine is given the same. Parameters named `positive` have no
/// sign and inputs named `mask` are 0 or 1, with a 1 at every sample's first step. So are the flags of a window, without
/// that.
pub fn values(program: &Program, sizes: &Sizes, seed: u64) -> Values {
    let mut values = testing::values(program, sizes, seed);
    for (name, data) in &mut values {
        for (i, x) in data.x.iter_mut().enumerate() {
            if name.contains("positive") {
                x.re = f64::from((0.5 + x.re.abs()) as f32);
            }
            if name.contains("mask") {
                x.re = f64::from(u8::from(x.re > 0.0 || i < sizes.batch));
            }
            if name.contains("window.") {
                x.re = f64::from(u8::from(x.re > 0.2));
            }
        }
    }
    values
}

/// The same numbers for every parameter and input, by position.
pub fn numbers_at(program: &Program, sizes: &Sizes, number: impl Fn(usize) -> f64) -> Values {
    let mut values = testing::values(program, sizes, 0);
    for data in values.values_mut() {
        data.x.iter_mut().enumerate().for_each(|(i, x)| x.re = if data.ty.is_float() { number(i) } else { 0.0 });
    }
    values
}

/// The values of one sample.
pub fn sample(values: &Values, sizes: &Sizes, b: usize) -> Values {
    let alone = |data: &Data| {
        let width = data.ty.shape.len();
        let x = match data.ty.extent {
            Extent::Shared => data.x.clone(),
            _ => {
                let rows = data.x.chunks(width).enumerate();
                rows.filter(|(r, _)| r % sizes.batch == b).flat_map(|(_, row)| row.to_vec()).collect()
            }
        };
        Data { ty: data.ty.clone(), x }
    };
    values.iter().map(|(name, data)| (name.clone(), alone(data))).collect()
}

/// The values of a program unrolled: `x` is `x.0`, `x.1`, ..
fn unrolled_values(values: &Values, sizes: &Sizes) -> Values {
    let mut new = Values::new();
    for (name, data) in values {
        let Extent::Time(axis) = data.ty.extent else {
            new.insert(name.clone(), data.clone());
            continue;
        };
        let steps = data.x.chunks(data.x.len() / sizes.steps(axis));
        for (t, x) in steps.enumerate() {
            new.insert(format!("{name}.{t}"), Data { ty: data.ty.at(Extent::Batch), x: x.to_vec() });
        }
    }
    new
}

/// The results of an unrolled program as those of the program.
fn rolled(program: &Program, sizes: &Sizes, mut numbers: Numbers) -> Numbers {
    for (name, v) in &program.outputs {
        let Extent::Time(axis) = program.ty(*v).extent else { continue };
        let steps = (0..sizes.steps(axis)).filter_map(|t| numbers.remove(&format!("{name}.{t}")));
        let all = steps.collect::<Vec<_>>().concat();
        numbers.insert(name.clone(), all);
    }
    numbers
}

// ---- engines --------------------------------------------------------------------------------------------------

/// What the interpreter says.
pub fn truth(program: &Program, values: &Values, sizes: &Sizes) -> Numbers {
    numbers(&interpret(program, values, sizes))
}

/// A program as machine code.
pub struct Jit<E: Float> {
    pub session: Session<E>,
}

impl<E: Float> Jit<E> {
    pub fn new(program: &Program, threads: usize) -> Found<Jit<E>> {
        let session = Session::new(program, settings().threads(threads)).map_err(|e| format!("compiling: {e}"))?;
        Ok(Jit { session })
    }

    /// As machine code that keeps only some states.
    pub fn checkpointed(program: &Program, threads: usize, policy: Checkpointing) -> Found<Jit<E>> {
        let session = Session::new(program, settings().threads(threads).checkpointing(policy))
            .map_err(|e| format!("compiling: {e}"))?;
        Ok(Jit { session })
    }

    pub fn run(&mut self, values: &Values, sizes: &Sizes) -> Found<Numbers> {
        run(&mut self.session, values, sizes).map_err(|e| format!("running: {e}"))
    }
}

// ---- properties -----------------------------------------------------------------------------------------------

/// Whether each row of a value comes of that sample's rows alone.
fn by_sample(graph: &Graph, v: Value) -> bool {
    let needed = graph.reachable([v]);
    graph.values().filter(|v| needed[v.index()]).all(|v| match graph.op(v) {
        Op::SumRows(Extent::Shared) | Op::DotTn | Op::ScatterAdd(_) | Op::RowCount(Extent::Batch) => false,
        Op::Scan(scan) => scan.roots().into_iter().all(|root| by_sample(&scan.body, root)),
        _ => true,
    })
}

/// The rows of sample `b` of those outputs in which samples do not meet.
fn rows_of_sample(program: &Program, all: &Numbers, sizes: &Sizes, b: usize) -> Numbers {
    let mut rows = Numbers::new();
    for (name, v) in &program.outputs {
        let ty = program.ty(*v);
        if ty.extent != Extent::Shared && by_sample(&program.graph, *v) {
            let width = ty.shape.len();
            let own = all[name].chunks(width).enumerate().filter(|(r, _)| r % sizes.batch == b);
            rows.insert(name.clone(), own.flat_map(|(_, row)| row.to_vec()).collect());
        }
    }
    rows
}

/// Sizes that cross the tails of row blocks and of panels, and T = 1 and B = 1; one step of all axes.
/// Batches of a sample and of a few; and what tile kernels cut into blocks of 48: one and a rest, two and a rest.
pub fn all_sizes() -> Vec<Sizes> {
    let one_step = Sizes { batch: 3, steps: vec![1; 3] };
    [(1, 1), (2, 3), (5, 7), (3, 50), (7, 1), (2, 98)].map(|(t, b)| sizes(t, b)).into_iter().chain([one_step]).collect()
}

/// The second time axis has another length than the first.
pub fn sizes(steps: usize, batch: usize) -> Sizes {
    Sizes { batch, steps: vec![steps, 1 + steps % 3, 2] }
}

/// How much a check does.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Steps up to which a program is also unrolled: code for each copy takes time.
    pub unroll: usize,
    /// Samples that are run alone, at each size.
    pub alone: usize,
    /// Largest number of threads.
    pub threads: usize,
}

pub const FULL: Effort = Effort { unroll: 5, alone: 3, threads: 3 };

/// The program, and its joint program if it has an objective: all engines agree at all sizes.
pub fn check(program: &Program, sizes: &[Sizes], effort: Effort) -> Found {
    check_engines(program, sizes, effort).map_err(|e| format!("`{}`: {e}", program.name))?;
    if program.objective.is_some() {
        let joint = program.backward().map_err(|e| e.to_string())?;
        check_engines(&joint, sizes, effort).map_err(|e| format!("`{}`, joint: {e}", program.name))?;
        check_order(program, &joint, sizes, effort).map_err(|e| format!("`{}`: {e}", program.name))?;
    }
    Ok(())
}

/// The gradient of a program written out is that of the loop: it does not matter which comes first, the derivative or
/// the writing out.
fn check_order(program: &Program, joint: &Program, all_sizes: &[Sizes], effort: Effort) -> Found {
    let axis = Axis(0);
    let Some(sizes) = all_sizes.iter().find(|s| (2..=effort.unroll).contains(&s.steps(axis))) else { return Ok(()) };
    if program.time_axes().iter().any(|&a| a != axis) {
        return Ok(());
    }
    let flat = unroll(program, axis, sizes.steps(axis)).map_err(|e| e.to_string())?;
    let flat = flat.backward().map_err(|e| e.to_string())?;
    let values = values(program, sizes, 7);
    let gradients = |mut all: Numbers| {
        all.retain(|name, _| name.starts_with("d."));
        all
    };
    let truth = gradients(truth(joint, &values, sizes));
    let given = gradients(Jit::<f64>::new(&flat, 1)?.run(&unrolled_values(&values, sizes), sizes)?);
    agree("written out, then differentiated", &given, &truth, F64)
}

/// One program as it is.
pub fn check_engines(program: &Program, all_sizes: &[Sizes], effort: Effort) -> Found {
    program.verify().map_err(|e| format!("is not well formed: {e}"))?;
    let text = program.to_string();
    let parsed = Program::parse(&text).map_err(|e| format!("its text is not read back: {e}\n{text}"))?;
    if parsed.to_string() != text {
        return Err(format!("its text is read back as another:\n{text}\n{parsed}"));
    }
    let lowered = pipeline::lower(program);
    let mut cases: Vec<Case> = Vec::new();
    for sizes in all_sizes {
        let at = |e: String| format!("T, B = {:?}, {}: {e}", sizes.steps, sizes.batch);
        let values = values(program, sizes, 7);
        let truth = truth(program, &values, sizes);
        if let Some((name, _)) = truth.iter().find(|(_, x)| x.iter().any(|x| !x.is_finite())) {
            return Err(at(format!("{name} is not finite, so it checks nothing")));
        }
        agree("hoisted", &numbers(&interpret(&lowered, &values, sizes)), &truth, F64).map_err(at)?;
        cases.push(Case { sizes, values, truth });
    }
    // Threads, checkpoints and loops that are written out take turns; all else is the same on each set.
    let turn = turn_of(&program.name);
    on_each(|set| {
        let effort = if set == turn { effort } else { Effort { unroll: 0, threads: 1, ..effort } };
        check_code(program, &cases, effort, set == turn)
    })
}

/// What a program is run on, and what must come of it.
struct Case<'a> {
    sizes: &'a Sizes,
    values: Values,
    truth: Numbers,
}

/// Machine code of the present instruction set.
fn check_code(program: &Program, cases: &[Case], effort: Effort, in_segments: bool) -> Found {
    let mut one = Jit::<f64>::new(program, 1)?;
    let mut many: Vec<Jit<f64>> = (2..=effort.threads).map(|n| Jit::new(program, n)).collect::<Found<_>>()?;
    let mut small = Jit::<f32>::new(program, 1)?;
    let mut small_2 = if effort.threads > 1 { Some(Jit::<f32>::new(program, 2)?) } else { None };
    let mut checkpointed = if in_segments { checkpointed(program)? } else { None };
    let mut first: Vec<(Numbers, Numbers)> = Vec::new();
    for Case { sizes, values, truth } in cases {
        let at = |e: String| format!("T, B = {:?}, {}: {e}", sizes.steps, sizes.batch);
        let given = one.run(values, sizes).map_err(at)?;
        agree("f64", &given, truth, F64).map_err(at)?;
        let given_small = small.run(values, sizes).map_err(at)?;
        agree_f32(program, values, sizes, &given_small, truth).map_err(at)?;
        same_bits("f64, once more", &one.run(values, sizes)?, &given).map_err(at)?;
        if program.updates.is_empty() {
            // Constants are there by now: of one step, this run is a list of calls.
            one.session.advance();
            same_bits("f64, on what is there", &results(&one.session), &given).map_err(at)?;
        }
        for sharing in [Sharing::Auto, Sharing::Rows, Sharing::Features] {
            if let Some(jit) = &mut small_2 {
                jit.session.share(sharing);
                same_bits(&format!("f32, 2 threads, {sharing:?}"), &jit.run(values, sizes)?, &given_small)
                    .map_err(at)?;
            }
            for (i, jit) in many.iter_mut().enumerate() {
                jit.session.share(sharing);
                let engine = format!("f64, {} threads, {sharing:?}", i + 2);
                same_bits(&engine, &jit.run(values, sizes)?, &given).map_err(at)?;
            }
        }
        memory(&one).map_err(at)?;
        if let Some(jit) = &mut checkpointed {
            same_bits("f64, checkpoints", &jit.run(values, sizes)?, &given).map_err(at)?;
            memory(jit).map_err(at)?;
        }
        check_unrolled(program, values, sizes, truth, effort).map_err(at)?;
        first.push((given, given_small));
    }
    // Sizes that were seen before, after others: nothing is left of those.
    for (Case { sizes, values, .. }, (given, given_small)) in cases.iter().zip(&first) {
        let at = |e: String| format!("T, B = {:?}, {} after others: {e}", sizes.steps, sizes.batch);
        same_bits("f64", &one.run(values, sizes)?, given).map_err(at)?;
        same_bits("f32", &small.run(values, sizes)?, given_small).map_err(at)?;
        let alone = Sizes { batch: 1, ..(*sizes).clone() };
        let step = sizes.batch.div_ceil(effort.alone.max(1)).max(1);
        for b in (0..sizes.batch).step_by(step).filter(|_| effort.alone > 0 && sizes.batch > 1) {
            let row = sample(values, sizes, b);
            let given = rows_of_sample(program, given, sizes, b);
            let given_small = rows_of_sample(program, given_small, sizes, b);
            if given.is_empty() {
                break;
            }
            same_bits(&format!("f64, sample {b} alone"), &one.run(&row, &alone)?, &given).map_err(at)?;
            same_bits(&format!("f32, sample {b} alone"), &small.run(&row, &alone)?, &given_small).map_err(at)?;
        }
    }
    Ok(())
}

/// Code that keeps every other state, if that is another plan.
fn checkpointed(program: &Program) -> Found<Option<Jit<f64>>> {
    let policy = Checkpointing::Every(2);
    let sweeps = program.checkpointed_plan(policy).units.iter().any(|unit| matches!(unit, Unit::Sweep(_)));
    if sweeps { Jit::checkpointed(program, 1, policy).map(Some) } else { Ok(None) }
}

/// The memory held is what the plan says.
pub fn memory<E: Float>(jit: &Jit<E>) -> Found {
    let session = &jit.session;
    let (promised, held) = (session.compiled().plan.memory(session.sizes()), session.memory());
    if promised == held {
        return Ok(());
    }
    Err(format!("the plan says {promised} bytes of memory, and {held} are held"))
}

fn check_unrolled(program: &Program, values: &Values, sizes: &Sizes, truth: &Numbers, effort: Effort) -> Found {
    let axis = Axis(0);
    if program.time_axes().iter().any(|&a| a != axis) || sizes.steps(axis) > effort.unroll {
        return Ok(());
    }
    let flat = unroll(program, axis, sizes.steps(axis)).map_err(|e| e.to_string())?;
    let values = unrolled_values(values, sizes);
    let interpreted = rolled(program, sizes, numbers(&interpret(&flat, &values, sizes)));
    agree("unrolled", &interpreted, truth, F64)?;
    let given = Jit::<f64>::new(&flat, 1)?.run(&values, sizes)?;
    agree("unrolled f64", &rolled(program, sizes, given), truth, F64)
}

/// Goes through programs and tells of all that fail.
pub fn check_all(programs: impl IntoIterator<Item = Program>, sizes: &[Sizes], effort: Effort) {
    let failures: Vec<String> = programs.into_iter().filter_map(|p| guarded(&p, sizes, effort).err()).collect();
    assert!(failures.is_empty(), "{} programs fail:\n\n{}\n", failures.len(), failures.join("\n\n"));
}

/// [`check`], a panic being a finding too.
pub fn guarded(program: &Program, sizes: &[Sizes], effort: Effort) -> Found {
    std::panic::catch_unwind(|| check(program, sizes, effort)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        Err(format!("`{}`: panics: {text}", program.name))
    })
}
