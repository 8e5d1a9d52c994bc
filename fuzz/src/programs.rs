//! Random programs against the interpreter.
//!
//! A text is read, its program is verified, printed and read again, and run by generated code in 64 or 32 bits, on an
//! instruction set of the machine, with one thread or two, with checkpoints or without, as it is or with its
//! derivatives. Numbers must be those of the interpreter, and those with two threads or checkpoints must have the bits of
//! those without. Some cases are given 0, ±∞, NaN and the largest numbers: then NaN must meet NaN, and each infinity itself.
//!
//! **How close.** A number is right if it is off by no more than `LIMIT_64` or `LIMIT_32` of the largest number of its
//! array, or of the run. If it is not, the interpreter says how much the number moves when what is given moves by a unit
//! in the last place: a program that divides by a difference is not to be blamed.

use retrograd::compiler::interpret::{Values, interpret};
use retrograd::compiler::ir::{Op, Program, Sizes};
use retrograd::compiler::plan::Checkpointing;
use retrograd::runtime::float::Float;
use retrograd::runtime::session::{Session, Sharing};
use retrograd::runtime::settings::{InstructionSet, Settings};
use retrograd::testing::{self, Numbers};

use crate::{Counts, Random, Target, generate};

const LIMIT_64: f64 = 1e-9;
const LIMIT_32: f64 = 1e-3;
/// Nodes of a part of a program.
const NODES: usize = 7;
/// Names of all rows of the op table.
const OPS: &str = "constant row_count neg abs sign sqrt exp expm1 ln log1p tanh sigmoid silu softplus relu erf normal_cdf \
                   gelu sin cos powi add sub mul div pow min max gt ge lt le eq ne select stop_gradient to_float dot dot_nt \
                   dot_tn matmul sum max_over layer_norm rms_norm deviation root_mean_square broadcast reshape transpose \
                   slice pad concat gather scatter_add one_hot argmax sum_rows expand last place_last scan yield final total";

/// See the module's text.
pub struct Programs;

struct Case {
    text: String,
    rng: Random,
}

fn case(number: u64) -> Case {
    let mut rng = Random::new(number, 0);
    let nodes = 1 + rng.below(NODES);
    Case { text: generate::program(&mut rng, nodes), rng: Random::new(number, 1) }
}

impl Target for Programs {
    fn run(&mut self, number: u64, counts: &mut Counts) -> Result<(), String> {
        let Case { text, mut rng } = case(number);
        let program = match Program::parse(&text) {
            Ok(program) => program,
            // What the generator writes fits by the type rules; there are limits that it does not know.
            Err(_) => {
                *counts.entry("refused as text").or_default() += 1;
                return Ok(());
            }
        };
        program.verify().map_err(|e| format!("was read and is not well formed: {e}"))?;
        let printed = program.to_string();
        match Program::parse(&printed) {
            Ok(again) if again.to_string() == printed => {}
            Ok(again) => return Err(format!("its text is read as another:\n{printed}\n{again}")),
            Err(e) => return Err(format!("its text is not read back: {e}\n{printed}")),
        }
        let mut program = program;
        if program.objective.is_some() && !rng.once_in(3) {
            program = program.backward().map_err(|e| format!("cannot be differentiated: {e}"))?;
            *counts.entry("joint").or_default() += 1;
        }
        count_ops(&program, counts);
        let steps = [1, 2, 3, 5, 7];
        let sizes = Sizes { batch: rng.of(&[1, 2, 3, 5, 9, 17]), steps: vec![rng.of(&steps), rng.of(&steps)] };
        let mut values = testing::values(&program, &sizes, number);
        let is_wild = rng.once_in(5);
        if is_wild {
            wild(&mut values, &mut rng);
        }
        let sets: Vec<InstructionSet> = InstructionSet::ALL.into_iter().filter(|s| s.is_available()).collect();
        let set = rng.of(&sets);
        *counts.entry(set.name()).or_default() += 1;
        let settings = Settings::new().instruction_set(set);
        // The largest numbers are beyond 32 bits as soon as anything is done with them.
        let taken = match is_wild || rng.once_in(2) {
            true => check::<f64>(&program, settings, &values, &sizes, LIMIT_64, &mut rng),
            false => check::<f32>(&program, settings, &values, &sizes, LIMIT_32, &mut rng),
        };
        match taken {
            Ok(true) => {
                *counts.entry(if is_wild { "agree on wild values" } else { "agree" }).or_default() += 1;
                Ok(())
            }
            Ok(false) => {
                *counts.entry("refused by the compiler").or_default() += 1;
                Ok(())
            }
            Err(e) => Err(format!("{set:?}, T, B = {:?}, {}: {e}", sizes.steps, sizes.batch)),
        }
    }

    fn show(&mut self, number: u64) -> String {
        case(number).text
    }

    fn covered(&self, counts: &Counts, cases: u64) -> Result<(), String> {
        let missing: Vec<&str> = OPS
            .split_whitespace()
            .filter(|op| !counts.keys().any(|name| name.strip_prefix("op.") == Some(op)))
            .collect();
        match cases < 2000 || missing.is_empty() {
            true => Ok(()),
            false => Err(format!("{cases} programs have none of {}", missing.join(", "))),
        }
    }
}

fn count_ops(program: &Program, counts: &mut Counts) {
    let mut graphs = vec![&program.graph];
    while let Some(graph) = graphs.pop() {
        for v in graph.values() {
            *counts.entry(counted(graph.op(v).name())).or_default() += 1;
            if let Op::Scan(scan) = graph.op(v) {
                graphs.push(&scan.body);
            }
        }
    }
}

/// `op.` before the name; made once.
fn counted(name: &'static str) -> &'static str {
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};
    static NAMES: Mutex<Option<HashMap<&'static str, &'static str>>> = Mutex::new(None);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    names.get_or_insert_default().entry(name).or_insert_with(|| String::leak(format!("op.{name}")))
}

/// Some numbers become those at which arithmetic is another.
fn wild(values: &mut Values, rng: &mut Random) {
    let special = [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 3e38, -3e38, 1e-40, 1.0];
    for data in values.values_mut().filter(|d| d.ty.is_float()) {
        if rng.once_in(2) {
            continue;
        }
        for x in &mut data.x {
            if rng.once_in(4) {
                x.re = f64::from(rng.of(&special) as f32);
            }
        }
    }
}

/// Whether the program was compiled at all.
fn check<E: Float>(
    program: &Program,
    settings: Settings,
    values: &Values,
    sizes: &Sizes,
    limit: f64,
    rng: &mut Random,
) -> Result<bool, String> {
    let mut session = match Session::<E>::new(program, settings) {
        Ok(session) => session,
        Err(_) => return Ok(false),
    };
    let given = testing::run(&mut session, values, sizes).map_err(|e| format!("is not run: {e}"))?;
    let truth = testing::numbers(&interpret(program, values, sizes));
    compare(&given, &truth, limit, || {
        let moved = |seed| testing::numbers(&interpret(program, &nudged(values, limit, seed), sizes));
        [moved(1), moved(2), moved(3)].into()
    })?;
    let other = match rng.below(4) {
        0 => settings.threads(2),
        1 => settings.checkpointing(Checkpointing::Every(2)),
        _ => return Ok(true),
    };
    let mut session = Session::<E>::new(program, other).map_err(|e| format!("is not compiled again: {e}"))?;
    session.share(rng.of(&[Sharing::Auto, Sharing::Rows, Sharing::Features]));
    let again = testing::run(&mut session, values, sizes).map_err(|e| format!("is not run again: {e}"))?;
    for (name, x) in &given {
        let differs =
            |i: &usize| again[name][*i].to_bits() != x[*i].to_bits() && !(x[*i].is_nan() && again[name][*i].is_nan());
        if let Some(i) = (0..x.len()).find(differs) {
            return Err(format!("{other:?}: {name}[{i}] is {:e} instead of {:e}", again[name][i], x[i]));
        }
    }
    Ok(true)
}

/// Values that are off by a rounding.
fn nudged(values: &Values, limit: f64, seed: u64) -> Values {
    let by = if limit == LIMIT_64 { 1e-14 } else { 1e-6 };
    let mut rng = Random::new(seed, 2);
    let mut values = values.clone();
    for data in values.values_mut().filter(|d| d.ty.is_float()) {
        for x in &mut data.x {
            x.re *= 1.0 + by * (rng.below(2001) as f64 / 1000.0 - 1.0);
        }
    }
    values
}

fn compare(given: &Numbers, truth: &Numbers, limit: f64, moved: impl FnOnce() -> Vec<Numbers>) -> Result<(), String> {
    let finite = |x: &f64| if x.is_finite() { x.abs() } else { 0.0 };
    let run = truth.values().flatten().map(finite).fold(0.0, f64::max);
    let mut wrong = Vec::new();
    for (name, g) in given {
        let t = &truth[name];
        let scale = t.iter().map(finite).fold(0.0, f64::max);
        for (i, (g, t)) in g.iter().zip(t).enumerate() {
            let same = g == t || (g.is_nan() && t.is_nan());
            if !same && ((g - t).is_nan() || (g - t).abs() > limit * scale + limit * 1e-3 * run) {
                wrong.push((name, i, *g, *t, scale));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let moved = moved();
    for (name, i, g, t, scale) in wrong {
        let spread = moved
            .iter()
            .map(|m| (m[name][i] - t).abs())
            .fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
        if (g - t).is_nan() || (g - t).abs() > 1e3 * spread {
            return Err(format!(
                "{name}[{i}] is {g:e} instead of {t:e}, where the largest is {scale:e} and a nudge moves it by {spread:e}"
            ));
        }
    }
    Ok(())
}
