//! Random programs against the interpreter.
//!
//! A text is read, its program is verified, printed and read again, and run by generated code in 64 or 32 bits, on an
//! instruction set of the machine, with one thread or two, with checkpoints or without, as it is or with its
//! derivatives. Numbers must be those of the interpreter, and those with two threads or checkpoints must have the bits of
//! those without. Some cases are given 0, ±∞, NaN and the largest numbers: then NaN must meet NaN, and each infinity itself.
//!
//! **How close.** A number is right if it is off by no more than a small part of the largest number of its array, or of the
//! run. If it is not, the interpreter runs the program again and rounds each op at random, and says how far that moves the
//! number: a program that divides by a difference is not to be blamed. A number of 32 bits that overflows, or that rounding
//! moves by a ten-thousandth, says nothing: then the case is run in 64 bits instead, and counted as `beyond 32 bits`.
//!
//! **What is not finite** must be so in code, too. There is one exception: products of matrices leave out the terms of
//! what is zero by construction, and take a common factor out of a sum, so that an infinite factor may give an infinity
//! where the interpreter, which does neither, gives NaN. Programs with such products are given finite numbers only, and
//! what is not finite of theirs is not compared.

use retrograd::compiler::interpret::{Values, interpret, interpret_rounded};
use retrograd::compiler::ir::{Graph, Op, Program, Sizes};
use retrograd::compiler::plan::Checkpointing;
use retrograd::runtime::feed::is_given;
use retrograd::runtime::float::Float;
use retrograd::runtime::session::{Session, Sharing};
use retrograd::runtime::settings::{InstructionSet, Settings};
use retrograd::testing::{self, Numbers};

use crate::{Counts, Random, Target, generate};

/// How close numbers of one width must be.
struct Width {
    /// Difference that needs no explanation, relative to the largest number of the array.
    limit: f64,
    /// What an op rounds away, relative to its result.
    rounding: f64,
    /// Numbers below it may be taken for zeros.
    least: f64,
}

const F64: Width = Width { limit: 1e-9, rounding: 3e-16, least: f64::MIN_POSITIVE };
const F32: Width = Width { limit: 1e-3, rounding: 1.2e-7, least: f32::MIN_POSITIVE as f64 };
/// How the text begins of a difference that 32 bits may have by themselves.
const BEYOND: &str = "beyond 32 bits: ";
/// How many times the difference that rounding explains is allowed: code rounds within sums and functions, too.
const TIMES: f64 = 100.0;
/// Runs of the interpreter, each with other roundings.
const ROUNDED: u64 = 8;
/// Nodes of a part of a program.
const NODES: usize = 7;
/// Names of all rows of the op table.
const OPS: &str = "constant row_count neg abs sign sqrt exp expm1 ln log1p tanh sigmoid silu softplus relu erf normal_cdf \
                   gelu sin cos powi add sub mul div pow min max gt ge lt le eq ne select stop_gradient to_float dot dot.nt \
                   dot.tn matmul sum max_over layer_norm rms_norm deviation root_mean_square broadcast reshape transpose \
                   slice pad concat gather scatter_add one_hot argmax sum_rows expand last place_last scan yield final total";

/// See the module's text.
pub struct Programs;

fn text(number: u64) -> String {
    let mut rng = Random::new(number, 0);
    let nodes = 1 + rng.below(NODES);
    generate::program(&mut rng, nodes)
}

impl Target for Programs {
    fn run(&mut self, number: u64, counts: &mut Counts) -> Result<(), String> {
        let text = text(number);
        self.run_text(&text, number, counts)
    }

    fn show(&mut self, number: u64) -> String {
        text(number)
    }

    fn run_text(&mut self, text: &str, number: u64, counts: &mut Counts) -> Result<(), String> {
        let mut rng = Random::new(number, 1);
        let program = match Program::parse(text) {
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
        let (is_joint, is_wild) = (!rng.once_in(3), rng.once_in(5));
        check(program, number, is_joint, is_wild, counts)
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

/// Runs a program at random sizes and values, which follow from the number: as it is or with its derivatives, and at ordinary
/// numbers or at 0, ±∞, NaN and the largest.
///
/// # Errors
/// What is wrong.
pub fn check(program: Program, number: u64, is_joint: bool, is_wild: bool, counts: &mut Counts) -> Result<(), String> {
    let mut rng = Random::new(number, 3);
    let mut program = program;
    if program.objective.is_some() && is_joint {
        program = program.backward().map_err(|e| format!("cannot be differentiated: {e}"))?;
        *counts.entry("joint").or_default() += 1;
    }
    count_ops(&program, counts);
    let steps = [1, 2, 3, 5, 7];
    let sizes = Sizes { batch: rng.of(&[1, 2, 3, 5, 9, 17]), steps: vec![rng.of(&steps), rng.of(&steps)] };
    let mut values = testing::values(&program, &sizes, number);
    if is_wild {
        wild(&program, &mut values, &mut rng);
    }
    let sets: Vec<InstructionSet> = InstructionSet::available().collect();
    let set = rng.of(&sets);
    *counts.entry(set.name()).or_default() += 1;
    let settings = Settings::new().instruction_set(set);
    // The largest numbers are beyond 32 bits as soon as anything is done with them.
    let taken = match is_wild || rng.once_in(2) {
        true => run::<f64>(&program, settings, &values, &sizes, &F64, &mut rng),
        // Numbers that 32 bits do not hold, or next to a pole, are checked in 64 bits.
        false => match run::<f32>(&program, settings, &values, &sizes, &F32, &mut rng) {
            Err(e) if e.starts_with(BEYOND) => {
                *counts.entry("beyond 32 bits").or_default() += 1;
                run::<f64>(&program, settings, &values, &sizes, &F64, &mut rng)
            }
            taken => taken,
        },
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
        Err(e) => Err(format!("{set}, T, B = {:?}, {}: {e}", sizes.steps, sizes.batch)),
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

/// Some numbers become those at which arithmetic is another. Subnormals are not among them: generated code takes them for
/// zeros, the interpreter does not.
fn wild(program: &Program, values: &mut Values, rng: &mut Random) {
    let special = [0.0, -0.0, 3e38, -3e38, 1e-30, 1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let special = if has_products(&program.graph) { &special[..6] } else { &special[..] };
    // What updates replace is not given: it is 0 at first.
    let is_kept = |name: &str| program.inputs.iter().any(|i| i.name == name && !is_given(program, i));
    for (name, data) in values.iter_mut().filter(|(_, d)| d.ty.is_float()) {
        if is_kept(name) || rng.once_in(2) {
            continue;
        }
        for x in &mut data.x {
            if rng.once_in(4) {
                x.re = f64::from(rng.of(special) as f32);
            }
        }
    }
}

/// Whether the program was compiled at all.
fn run<E: Float>(
    program: &Program,
    settings: Settings,
    values: &Values,
    sizes: &Sizes,
    width: &Width,
    rng: &mut Random,
) -> Result<bool, String> {
    let mut session = match Session::<E>::new(program, settings) {
        Ok(session) => session,
        Err(_) => return Ok(false),
    };
    let given = testing::run(&mut session, values, sizes).map_err(|e| format!("is not run: {e}"))?;
    let truth = testing::numbers(&interpret(program, values, sizes));
    compare(program, &given, &truth, width, || {
        let rounded = |seed| interpret_rounded(program, values, sizes, width.rounding, seed);
        (1..=ROUNDED).map(|seed| testing::numbers(&rounded(seed))).collect()
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

fn compare(
    program: &Program,
    given: &Numbers,
    truth: &Numbers,
    width: &Width,
    rounded: impl FnOnce() -> Vec<Numbers>,
) -> Result<(), String> {
    let finite = |x: &f64| if x.is_finite() { x.abs() } else { 0.0 };
    let run = truth.values().flatten().map(finite).fold(0.0, f64::max);
    let has_products = has_products(&program.graph);
    let mut wrong = Vec::new();
    for (name, g) in given {
        let t = &truth[name];
        let scale = t.iter().map(finite).fold(0.0, f64::max);
        for (i, (g, t)) in g.iter().zip(t).enumerate() {
            let same = g == t || (g.is_nan() && t.is_nan()) || (has_products && !t.is_finite());
            if !same && ((g - t).is_nan() || (g - t).abs() > width.limit * scale + width.limit * 1e-3 * run) {
                wrong.push((name, i, *g, *t, scale));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let rounded = rounded();
    for (name, i, g, t, scale) in wrong {
        let spread = rounded
            .iter()
            .map(|m| (m[name][i] - t).abs())
            .fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
        if (g - t).is_nan() || (g - t).abs() > TIMES * spread + width.least {
            let is_beyond = (t.is_finite() && !g.is_finite()) || spread > 1e-4 * scale;
            let beyond = if width.least > 1e-300 && is_beyond { BEYOND } else { "" };
            return Err(format!(
                "{beyond}{name}[{i}] is {g:e} instead of {t:e}, where the largest is {scale:e} and rounding moves it by {spread:e}"
            ));
        }
    }
    Ok(())
}

/// Whether matrices are multiplied, in loops or outside.
fn has_products(graph: &Graph) -> bool {
    graph.values().any(|v| match graph.op(v) {
        Op::Dot | Op::DotNt | Op::DotTn | Op::MatMul { .. } => true,
        Op::Scan(scan) => has_products(&scan.body),
        _ => false,
    })
}
