//! Optimisers: how a gradient changes a parameter, recorded like any cell and compiled with the backward pass.
//!
//! [`training_program`] takes a joint program, whose outputs `d.<parameter>` are gradients, and records behind it
//!
//! 1. the norm of all gradients together, as the output [`GRADIENT_NORM`];
//! 2. clipping, by that norm and then by value ([`Clip`]);
//! 3. for each parameter that is trained and has a gradient the rule of an [`Optimizer`], as an update of the parameter and of the rule's states.
//!
//! What the runtime gives at each step are two shared inputs, [`RATE`] and [`STEP`]. States are shared inputs
//! `optimizer.<parameter>.<state>` of the parameter's shape, zero before the first step, each the target of an
//! update. So everything is pointwise on the parameter: one fused loop over w, g and the moments.
//!
//! A step whose loss or gradient is not finite changes nothing: each update chooses the old value then, those that the
//! program had before (running statistics, carried states) like those of the optimiser. What was learnt is safe, and the
//! session says what happened.
//!
//! In the formulas below, g is the clipped gradient, η the rate of the schedule, t the step counted from 1.

use std::collections::HashMap;

use retrograd_compiler::error::RecordErrors;
use retrograd_compiler::ir::{Op, Program, Shape, Value};
use retrograd_compiler::record::{Expr, Operand, Recorder, select};

use crate::error::RunError;

/// Input: η, the learning rate at this step.
pub const RATE: &str = "optimizer.rate";
/// Input: t, the number of this step, counted from 1, as a float. From 2²⁴ it stands still in 32 bits; whatever
/// depends on it has long been constant by then.
pub const STEP: &str = "optimizer.step";
/// Output: the Euclidean norm of all gradients together, before clipping.
pub const GRADIENT_NORM: &str = "gradient_norm";

/// How a gradient changes a parameter.
///
/// A rule is recorded once for each parameter; what it needs of the run it asks its [`Rule`].
///
/// ```
/// use retrograd_compiler::record::Expr;
/// use retrograd_runtime::optimizer::{Optimizer, Rule};
///
/// /// The sign of the momentum.
/// struct Signum(f64);
///
/// impl Optimizer for Signum {
///     fn name(&self) -> &str {
///         "signum"
///     }
///     fn rate(&self) -> f64 {
///         self.0
///     }
///     fn update<'r>(&self, rule: &Rule<'_, 'r>, w: Expr<'r>, g: Expr<'r>) -> Expr<'r> {
///         let m = rule.state("m");
///         let m = rule.next(m, 0.9 * m + 0.1 * g);
///         w - rule.rate() * m.sign()
///     }
/// }
/// ```
pub trait Optimizer {
    /// Its name, for texts and checkpoints.
    fn name(&self) -> &str;

    /// The learning rate that a [schedule](crate::schedule::Schedule) scales.
    fn rate(&self) -> f64;

    /// The new value of a parameter `w` with gradient `g`.
    fn update<'r>(&self, rule: &Rule<'_, 'r>, w: Expr<'r>, g: Expr<'r>) -> Expr<'r>;

    /// Whether its settings have a meaning.
    ///
    /// # Errors
    /// The first that has none.
    fn check(&self) -> Result<(), RunError> {
        not_negative("the learning rate", self.rate())
    }
}

/// What the rule of an optimiser is recorded with, for one parameter.
pub struct Rule<'a, 'r> {
    p: &'a Recorder<'r>,
    parameter: &'a str,
    w: Expr<'r>,
    /// 1 where the step is to be taken.
    sound: Expr<'r>,
}

impl<'r> Rule<'_, 'r> {
    /// Full name of the parameter: `encoder.gates.w`.
    ///
    /// ```
    /// # use retrograd_compiler::record::Expr;
    /// # use retrograd_runtime::optimizer::{Optimizer, Rule};
    /// /// Descent that shrinks matrices and leaves biases alone.
    /// struct Decaying(f64);
    ///
    /// impl Optimizer for Decaying {
    ///     # fn name(&self) -> &str { "decaying" }
    ///     # fn rate(&self) -> f64 { self.0 }
    ///     fn update<'r>(&self, rule: &Rule<'_, 'r>, w: Expr<'r>, g: Expr<'r>) -> Expr<'r> {
    ///         let g = if rule.name().ends_with(".b") || rule.shape().rank() < 2 { g } else { g + 0.01 * w };
    ///         w - rule.rate() * g
    ///     }
    /// }
    /// ```
    pub fn name(&self) -> &str {
        self.parameter
    }

    /// Shape of the parameter.
    pub fn shape(&self) -> Shape {
        self.w.shape()
    }

    /// η, the learning rate at this step.
    pub fn rate(&self) -> Expr<'r> {
        self.p.value(RATE)
    }

    /// t, the number of this step, counted from 1.
    pub fn step(&self) -> Expr<'r> {
        self.p.value(STEP)
    }

    /// A state like the parameter, 0 before the first step.
    pub fn state(&self, name: &str) -> Expr<'r> {
        let scopes = std::iter::once("optimizer").chain(self.parameter.split('.'));
        within(self.p, &scopes.collect::<Vec<_>>(), |p| p.shared(name, self.w.shape()))
    }

    /// Gives a state its value after this step, and returns that value.
    pub fn next(&self, state: Expr<'r>, value: Expr<'r>) -> Expr<'r> {
        self.p.update(state, select(self.sound, value, state));
        value
    }

    /// 1 − βᵗ, what a mean with decay β that started from 0 lacks after t steps. Written −expm1(t·ln β), which does
    /// not cancel for β near 1; for large t it is 1. So it is for β = 0,
    /// whose logarithm is kept finite.
    fn correction(&self, beta: f64) -> Expr<'r> {
        -(self.step() * Operand::Number(beta.ln().max(-1e3))).expm1()
    }
}

fn within<'r, R>(p: &Recorder<'r>, scopes: &[&str], part: impl FnOnce(&Recorder<'r>) -> R) -> R {
    match scopes {
        [] => part(p),
        [first, rest @ ..] => p.scope(first, |p| within(p, rest, part)),
    }
}

/// β·mean + (1 − β)·x
fn decay<'r>(beta: f64, mean: Expr<'r>, x: Expr<'r>) -> Expr<'r> {
    mean * Operand::Number(beta) + x * Operand::Number(1.0 - beta)
}

/// Stochastic gradient descent, with momentum as in Sutskever et al. (2013), the rate outside of the velocity:
///
/// g′ = g + λ·w,  v ← μ·v + g′,  w ← w − η·v,  or by Nesterov w ← w − η·(g′ + μ·v).
#[derive(Clone, Debug, PartialEq)]
pub struct Sgd {
    rate: f64,
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
}

impl Sgd {
    /// Plain descent: w ← w − η·g.
    pub fn new(rate: f64) -> Sgd {
        Sgd { rate, momentum: 0.0, nesterov: false, weight_decay: 0.0 }
    }

    /// μ, in `[0, 1)`.
    #[must_use]
    pub fn momentum(self, momentum: f64) -> Sgd {
        Sgd { momentum, ..self }
    }

    /// Looks ahead along the momentum.
    #[must_use]
    pub fn nesterov(self, nesterov: bool) -> Sgd {
        Sgd { nesterov, ..self }
    }

    /// λ: adds λ·w to the gradient of every parameter.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Sgd {
        Sgd { weight_decay, ..self }
    }
}

impl Optimizer for Sgd {
    fn name(&self) -> &str {
        "sgd"
    }

    fn rate(&self) -> f64 {
        self.rate
    }

    fn update<'r>(&self, rule: &Rule<'_, 'r>, w: Expr<'r>, g: Expr<'r>) -> Expr<'r> {
        let g = if self.weight_decay == 0.0 { g } else { g + w * Operand::Number(self.weight_decay) };
        if self.momentum == 0.0 {
            return w - rule.rate() * g;
        }
        let v = rule.state("v");
        let v = rule.next(v, v * Operand::Number(self.momentum) + g);
        let along = if self.nesterov { g + v * Operand::Number(self.momentum) } else { v };
        w - rule.rate() * along
    }

    fn check(&self) -> Result<(), RunError> {
        not_negative("the learning rate of SGD", self.rate)?;
        fraction("the momentum of SGD", self.momentum)?;
        not_negative("the weight decay of SGD", self.weight_decay)
    }
}

/// RMSProp (Tieleman & Hinton 2012, lecture 6.5): s ← α·s + (1 − α)·g²,  w ← w − η·g / (√s + ε).
#[derive(Clone, Debug, PartialEq)]
pub struct RmsProp {
    rate: f64,
    decay: f64,
    epsilon: f64,
}

impl RmsProp {
    /// α = 0.9 as in the lecture, ε = 10⁻⁸.
    pub fn new(rate: f64) -> RmsProp {
        RmsProp { rate, decay: 0.9, epsilon: 1e-8 }
    }

    /// α, in `[0, 1)`.
    #[must_use]
    pub fn decay(self, decay: f64) -> RmsProp {
        RmsProp { decay, ..self }
    }

    /// ε, above 0.
    #[must_use]
    pub fn epsilon(self, epsilon: f64) -> RmsProp {
        RmsProp { epsilon, ..self }
    }
}

impl Optimizer for RmsProp {
    fn name(&self) -> &str {
        "rmsprop"
    }

    fn rate(&self) -> f64 {
        self.rate
    }

    fn update<'r>(&self, rule: &Rule<'_, 'r>, w: Expr<'r>, g: Expr<'r>) -> Expr<'r> {
        let s = rule.state("s");
        let s = rule.next(s, decay(self.decay, s, g.square()));
        w - rule.rate() * g / (s.sqrt() + Operand::Number(self.epsilon))
    }

    fn check(&self) -> Result<(), RunError> {
        not_negative("the learning rate of RMSProp", self.rate)?;
        fraction("the decay of RMSProp", self.decay)?;
        positive("the epsilon of RMSProp", self.epsilon)
    }
}

/// Adam (Kingma & Ba 2015, algorithm 1):
///
/// m ← β₁·m + (1 − β₁)·g,  v ← β₂·v + (1 − β₂)·g²,
/// w ← w − η · m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε).
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    rate: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
}

impl Adam {
    /// β₁ = 0.9, β₂ = 0.999 and ε = 10⁻⁸ as in the paper.
    pub fn new(rate: f64) -> Adam {
        Adam { rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }

    /// β₁ and β₂, in `[0, 1)`.
    #[must_use]
    pub fn betas(self, beta1: f64, beta2: f64) -> Adam {
        Adam { beta1, beta2, ..self }
    }

    /// ε, above 0.
    #[must_use]
    pub fn epsilon(self, epsilon: f64) -> Adam {
        Adam { epsilon, ..self }
    }

    /// η · m̂ / (√v̂ + ε). The corrections are scalars, so a parameter's loop has one root and one division.
    fn step<'r>(&self, rule: &Rule<'_, 'r>, g: Expr<'r>) -> Expr<'r> {
        let (m, v) = (rule.state("m"), rule.state("v"));
        let m = rule.next(m, decay(self.beta1, m, g));
        let v = rule.next(v, decay(self.beta2, v, g.square()));
        let rate = rule.rate() / rule.correction(self.beta1);
        let root = v.sqrt() / rule.correction(self.beta2).sqrt();
        rate * m / (root + Operand::Number(self.epsilon))
    }
}

impl Optimizer for Adam {
    fn name(&self) -> &str {
        "adam"
    }

    fn rate(&self) -> f64 {
        self.rate
    }

    fn update<'r>(&self, rule: &Rule<'_, 'r>, w: Expr<'r>, g: Expr<'r>) -> Expr<'r> {
        w - self.step(rule, g)
    }

    fn check(&self) -> Result<(), RunError> {
        not_negative("the learning rate of Adam", self.rate)?;
        fraction("the first beta of Adam", self.beta1)?;
        fraction("the second beta of Adam", self.beta2)?;
        positive("the epsilon of Adam", self.epsilon)
    }
}

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2, the decay scaled by the rate as well):
/// w ← w − η · (m̂ / (√v̂ + ε) + λ·w), for every parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    adam: Adam,
    weight_decay: f64,
}

impl AdamW {
    /// Adam's constants, and λ = 0.01.
    pub fn new(rate: f64) -> AdamW {
        AdamW { adam: Adam::new(rate), weight_decay: 0.01 }
    }

    /// β₁ and β₂, in `[0, 1)`.
    #[must_use]
    pub fn betas(self, beta1: f64, beta2: f64) -> AdamW {
        AdamW { adam: self.adam.betas(beta1, beta2), ..self }
    }

    /// ε, above 0.
    #[must_use]
    pub fn epsilon(self, epsilon: f64) -> AdamW {
        AdamW { adam: self.adam.epsilon(epsilon), ..self }
    }

    /// λ, at least 0.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> AdamW {
        AdamW { weight_decay, ..self }
    }
}

impl Optimizer for AdamW {
    fn name(&self) -> &str {
        "adamw"
    }

    fn rate(&self) -> f64 {
        self.adam.rate
    }

    fn update<'r>(&self, rule: &Rule<'_, 'r>, w: Expr<'r>, g: Expr<'r>) -> Expr<'r> {
        let decayed = w - rule.rate() * Operand::Number(self.weight_decay) * w;
        decayed - self.adam.step(rule, g)
    }

    fn check(&self) -> Result<(), RunError> {
        self.adam.check()?;
        not_negative("the weight decay of AdamW", self.weight_decay)
    }
}

/// Bounds for gradients before the rule sees them. Both may be set: first the norm is limited, then each value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clip {
    /// Largest norm of all gradients together; longer ones are scaled down to it (Pascanu et al. 2013).
    pub norm: Option<f64>,
    /// Largest absolute value of each element.
    pub value: Option<f64>,
}

impl Clip {
    fn check(&self) -> Result<(), RunError> {
        self.norm.map_or(Ok(()), |x| positive("the limit of the gradient's norm", x))?;
        self.value.map_or(Ok(()), |x| positive("the limit of the gradient's values", x))
    }
}

/// Records a step of training behind a joint program. See the module's text for what it adds.
///
/// # Errors
/// Settings without a meaning, or names that the step needs and the program has already.
///
/// # Panics
/// If the program is not joint: an output `d.<parameter>` is missing.
pub fn training_program(joint: &Program, optimizer: &dyn Optimizer, clip: Clip) -> Result<Program, RunError> {
    optimizer.check()?;
    clip.check()?;
    // What no derivative reaches has a gradient of 0, and is left alone: no decay, no moments.
    let is_reached = |gradient: Value| !matches!(joint.graph.op(gradient), Op::Constant(zero) if *zero == 0.0);
    let trained = joint.parameters.iter().filter(|p| p.trained);
    let outputs: HashMap<&str, Value> = joint.outputs.iter().map(|(name, v)| (name.as_str(), *v)).collect();
    let gradients = trained.map(|parameter| {
        let gradient = outputs.get(format!("d.{}", parameter.name).as_str()).copied();
        (parameter, gradient.expect("a joint program has the gradient of each trained parameter"))
    });
    let gradients: Vec<_> = gradients.filter(|&(_, gradient)| is_reached(gradient)).collect();
    // Its own updates are recorded anew, as choices.
    let mut own = joint.to_draft();
    own.updates.clear();
    let own = own.finish().expect("a program without updates is one");
    let recorded = own.extend(|p| {
        p.scope("optimizer", |p| (p.shared("rate", ()), p.shared("step", ())));
        let gradients: Vec<_> = gradients.iter().map(|&(w, g)| (w, p.from_value(g))).collect();
        let squares = gradients.iter().map(|(_, g)| g.square().sum_features());
        let norm = squares.reduce(|a, b| a + b).unwrap_or_else(|| p.constant(0.0)).sqrt();
        p.output(GRADIENT_NORM, norm);

        let sound = match joint.objective {
            Some(loss) => finite(norm) * finite(p.from_value(loss)),
            None => finite(norm),
        };
        for update in &joint.updates {
            let target = p.from_value(update.target);
            p.update(target, select(sound, p.from_value(update.value), target));
        }
        // min(1, limit/norm) without a division by 0.
        let scale = clip.norm.map(|limit| {
            let limit = Operand::Number(limit);
            p.constant(1.0) * limit / norm.maximum(limit)
        });
        for (parameter, g) in gradients {
            let w = p.from_value(parameter.value);
            let rule = Rule { p, parameter: &parameter.name, w, sound };
            let g = scale.map_or(g, |scale| g * scale);
            let g = clip.value.map_or(g, |limit| g.clamp(Operand::Number(-limit), Operand::Number(limit)));
            p.update(w, select(sound, optimizer.update(&rule, w, g), w));
        }
    });
    recorded.map_err(|e: RecordErrors| RunError::Compile { program: joint.name.clone(), reason: Box::new(e) })
}

/// 1 for a finite number, else 0: a comparison with NaN is 0.
fn finite(x: Expr<'_>) -> Expr<'_> {
    x.abs().le(f32::MAX)
}

fn require(setting: &str, given: f64, allowed: &'static str, fits: bool) -> Result<(), RunError> {
    let error =
        || RunError::Setting { setting: setting.to_string(), given: given.to_string(), allowed: allowed.to_string() };
    if fits { Ok(()) } else { Err(error()) }
}

fn not_negative(setting: &str, x: f64) -> Result<(), RunError> {
    let allowed = "a number of at least 0 is needed that 32 bits hold";
    require(setting, x, allowed, (0.0..=f64::from(f32::MAX)).contains(&x))
}

fn positive(setting: &str, x: f64) -> Result<(), RunError> {
    // Less than the least normal number would be 0 in a run, and divided by.
    let allowed = "a number above 0 is needed, from 1.2e-38 to 3.4e38";
    require(setting, x, allowed, (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&x))
}

fn fraction(setting: &str, x: f64) -> Result<(), RunError> {
    require(setting, x, "a number from 0 to below 1 is needed", (0.0..1.0).contains(&x))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use retrograd_compiler::interpret::{Values, interpret};
    use retrograd_compiler::ir::dual::Dual;
    use retrograd_compiler::ir::op::Data;
    use retrograd_compiler::ir::{Init, Sizes};

    use super::*;

    /// A joint program whose gradients are inputs: parameters `cell.w` of shape [2, 2] and `b`, loss as given.
    fn given_gradients() -> Program {
        let mut joint = Program::record("given", |p| {
            p.scope("cell", |p| p.parameter("w", [2, 2], Init::Glorot));
            p.parameter("b", (), Init::Constant(0.0));
            p.shared("gw", [2, 2]);
            p.shared("gb", ());
            p.minimize(p.shared("loss", ()));
        })
        .unwrap()
        .into_draft();
        for (name, input) in [("d.cell.w", "gw"), ("d.b", "gb")] {
            let value = joint.input(input).unwrap().value;
            joint.outputs.push((name.to_string(), value));
        }
        joint.finish().unwrap()
    }

    /// A training program with all it stores, run by the interpreter.
    struct Training {
        program: Program,
        values: Values,
    }

    impl Training {
        fn new(joint: &Program, optimizer: &dyn Optimizer, clip: Clip) -> Training {
            let program = training_program(joint, optimizer, clip).unwrap();
            let leaves = program.parameters.iter().map(|p| (&p.name, p.value));
            let leaves = leaves.chain(program.inputs.iter().map(|i| (&i.name, i.value)));
            let zero = |v| Data::zeros(program.ty(v).clone(), &Sizes::new(1, 1));
            let values = leaves.map(|(name, v)| (name.clone(), zero(v))).collect();
            Training { program, values }
        }

        fn set(&mut self, name: &str, x: &[f64]) {
            let data = &mut self.values.get_mut(name).unwrap().x;
            assert_eq!(data.len(), x.len());
            data.iter_mut().zip(x).for_each(|(d, &x)| *d = Dual::new(x));
        }

        fn get(&self, name: &str) -> Vec<f64> {
            self.values[name].x.iter().map(|d| d.re).collect()
        }

        /// Takes a step; gives the norm of the gradient.
        fn step(&mut self, rate: f64, step: f64) -> f64 {
            self.set(RATE, &[rate]);
            self.set(STEP, &[step]);
            let outcome = interpret(&self.program, &self.values, &Sizes::new(1, 1));
            self.values.extend(outcome.updates);
            outcome.outputs[GRADIENT_NORM].x[0].re
        }
    }

    fn near(got: &[f64], want: &[f64], what: &str) {
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() <= 1e-12 * w.abs().max(1e-3), "{what}: {got:?} instead of {want:?}");
        }
    }

    const START: [f64; 5] = [0.5, -1.25, 0.0, 2.0, -0.75];

    /// Runs an optimiser beside a formula for one weight: (w, g, η, t, its states) → w.
    fn check(optimizer: &dyn Optimizer, formula: impl Fn(f64, f64, f64, i32, &mut BTreeMap<&str, f64>) -> f64) {
        let mut training = Training::new(&given_gradients(), optimizer, Clip::default());
        let (mut w, mut states) = (START, vec![BTreeMap::new(); 5]);
        training.set("cell.w", &w[..4]);
        training.set("b", &w[4..]);
        for t in 1..=12 {
            let rate = 0.1 / f64::from(t);
            let g: Vec<f64> = (0..5).map(|i| (f64::from(t * 7 + i * 3)).sin() * 10f64.powi(i - 2)).collect();
            training.set("gw", &g[..4]);
            training.set("gb", &g[4..]);
            let norm = training.step(rate, f64::from(t));
            near(&[norm], &[g.iter().map(|x| x * x).sum::<f64>().sqrt()], "norm");
            for i in 0..5 {
                w[i] = formula(w[i], g[i], rate, t, &mut states[i]);
            }
            let what = format!("{} at step {t}", optimizer.name());
            near(&[training.get("cell.w"), training.get("b")].concat(), &w, &what);
            for state in states[0].keys() {
                let of = |i: usize| states[i][state];
                near(&training.get(&format!("optimizer.cell.w.{state}")), &[of(0), of(1), of(2), of(3)], &what);
                near(&training.get(&format!("optimizer.b.{state}")), &[of(4)], &what);
            }
        }
    }

    #[test]
    fn sgd() {
        check(&Sgd::new(0.1), |w, g, rate, _, _| w - rate * g);
        check(&Sgd::new(0.1).weight_decay(0.02), |w, g, rate, _, _| w - rate * (g + 0.02 * w));
        check(&Sgd::new(0.1).momentum(0.9), |w, g, rate, _, s| {
            let v = s.entry("v").or_default();
            *v = 0.9 * *v + g;
            w - rate * *v
        });
        check(&Sgd::new(0.1).momentum(0.9).nesterov(true).weight_decay(0.02), |w, g, rate, _, s| {
            let v = s.entry("v").or_default();
            let g = g + 0.02 * w;
            *v = 0.9 * *v + g;
            w - rate * (g + 0.9 * *v)
        });
    }

    #[test]
    fn rmsprop() {
        check(&RmsProp::new(0.1).decay(0.95).epsilon(1e-6), |w, g, rate, _, states| {
            let s = states.entry("s").or_default();
            *s = 0.95 * *s + 0.05 * g * g;
            w - rate * g / (s.sqrt() + 1e-6)
        });
    }

    /// The paper's form, with hats.
    fn adam(betas: (f64, f64), epsilon: f64, g: f64, t: i32, states: &mut BTreeMap<&str, f64>) -> f64 {
        let m = states.entry("m").or_default();
        *m = betas.0 * *m + (1.0 - betas.0) * g;
        let m_hat = *m / (1.0 - betas.0.powi(t));
        let v = states.entry("v").or_default();
        *v = betas.1 * *v + (1.0 - betas.1) * g * g;
        let v_hat = *v / (1.0 - betas.1.powi(t));
        m_hat / (v_hat.sqrt() + epsilon)
    }

    #[test]
    fn adam_and_adamw() {
        check(&Adam::new(0.1), |w, g, rate, t, s| w - rate * adam((0.9, 0.999), 1e-8, g, t, s));
        check(&Adam::new(0.1).betas(0.0, 0.5).epsilon(1e-3), |w, g, rate, t, s| {
            w - rate * adam((0.0, 0.5), 1e-3, g, t, s)
        });
        check(&AdamW::new(0.1).betas(0.8, 0.99).weight_decay(0.05), |w, g, rate, t, s| {
            w - rate * (adam((0.8, 0.99), 1e-8, g, t, s) + 0.05 * w)
        });
    }

    #[test]
    fn bias_correction_holds_at_the_first_step_and_after_millions() {
        // With v = g² and m = g the step is η·sign(g), if the corrections are 1.
        for (step, m, v) in [(1.0, 0.0, 0.0), (f64::from(1 << 24), 3.0, 9.0), (1e30, 3.0, 9.0)] {
            let mut training = Training::new(&given_gradients(), &Adam::new(0.1), Clip::default());
            training.set("gb", &[3.0]);
            training.set("optimizer.b.m", &[m]);
            training.set("optimizer.b.v", &[v]);
            training.step(0.1, step);
            let moved = training.get("b")[0];
            assert!((moved + 0.1).abs() < 1e-9, "step {step}: {moved}");
        }
    }

    #[test]
    fn clipping() {
        // The norm of the gradient is 13.
        let clipped = |clip: Clip, size: f64| {
            let mut training = Training::new(&given_gradients(), &Sgd::new(1.0), clip);
            training.set("gw", &[3.0, -4.0, 0.0, 0.0].map(|x| x * size));
            training.set("gb", &[12.0 * size]);
            near(&[training.step(-1.0, 1.0)], &[13.0 * size], "the norm that is told is that before clipping");
            [training.get("cell.w"), training.get("b")].concat()
        };
        let norm = |limit| Clip { norm: Some(limit), value: None };
        let scaled = |by: f64| [3.0, -4.0, 0.0, 0.0, 12.0].map(|x| x * by);
        near(&clipped(norm(26.0), 1.0), &scaled(1.0), "a short gradient");
        near(&clipped(norm(6.5), 1.0), &scaled(0.5), "a long gradient");
        near(&clipped(norm(6.5), 0.0), &scaled(0.0), "no gradient");
        near(&clipped(Clip { norm: None, value: Some(3.5) }, 1.0), &[3.0, -3.5, 0.0, 0.0, 3.5], "by value");
        near(&clipped(Clip { norm: Some(6.5), value: Some(1.75) }, 1.0), &[1.5, -1.75, 0.0, 0.0, 1.75], "by both");
    }

    #[test]
    fn a_step_that_is_not_finite_changes_nothing() {
        for (loss, g) in [(f64::NAN, 1.0), (f64::INFINITY, 1.0), (1.0, f64::NAN), (1.0, f64::NEG_INFINITY)] {
            let mut training =
                Training::new(&given_gradients(), &Adam::new(0.1), Clip { norm: Some(1.0), value: None });
            training.set("gw", &[1.0, 2.0, 3.0, 4.0]);
            training.set("loss", &[0.5]);
            training.step(0.1, 1.0);
            let before = training.values.clone();
            training.set("loss", &[loss]);
            training.set("gw", &[1.0, g, 3.0, 4.0]);
            training.step(0.1, 2.0);
            for update in &training.program.updates {
                let leaf = |v| training.program.graph.op(v);
                let (retrograd_compiler::ir::Op::Parameter(name) | retrograd_compiler::ir::Op::Input(name)) =
                    leaf(update.target)
                else {
                    panic!("updates replace leaves")
                };
                assert_eq!(training.values[name], before[name], "{name} with loss {loss}, gradient {g}");
            }
        }
    }

    #[test]
    fn a_recorded_program_learns() {
        // Linear regression with a known answer: y = x·W for samples that span the space.
        let program = Program::record("regression", |p| {
            let x = p.input("x", 2);
            let y = p.input("y", 1);
            p.minimize(p.linear("map", x, 1).mse(y));
        })
        .unwrap();
        let joint = program.backward().unwrap();
        let optimizers: [&dyn Optimizer; 5] = [
            &Sgd::new(0.1),
            &Sgd::new(0.03).momentum(0.9).nesterov(true),
            &RmsProp::new(0.003),
            &Adam::new(0.03),
            &AdamW::new(0.03).weight_decay(0.0),
        ];
        for optimizer in optimizers {
            let mut training = Training::new(&joint, optimizer, Clip { norm: Some(5.0), value: None });
            training.set("x", &[1.0, 2.0]);
            training.set("y", &[0.0]);
            for t in 1..=1500 {
                // One sample at a time, in turns: W = (2, −1).
                let x = [[1.0, 2.0], [1.0, -1.0], [0.5, 1.0]][t % 3];
                training.set("x", &x);
                training.set("y", &[2.0 * x[0] - x[1]]);
                training.step(optimizer.rate(), t as f64);
            }
            let w = training.get("map.w");
            let miss = (w[0] - 2.0).abs().max((w[1] + 1.0).abs());
            assert!(miss < 0.02, "{}: {w:?}", optimizer.name());
        }
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        let text = |optimizer: &dyn Optimizer, clip: Clip| {
            training_program(&given_gradients(), optimizer, clip).unwrap_err().to_string()
        };
        let free = Clip::default();
        assert_eq!(
            text(&Adam::new(-1.0), free),
            "the learning rate of Adam is -1; a number of at least 0 is needed that 32 bits hold"
        );
        assert_eq!(
            text(&Adam::new(0.1).betas(0.9, 1.0), free),
            "the second beta of Adam is 1; a number from 0 to below 1 is needed"
        );
        assert_eq!(
            text(&Sgd::new(0.1).momentum(f64::NAN), free),
            "the momentum of SGD is NaN; a number from 0 to below 1 is needed"
        );
        assert_eq!(
            text(&Sgd::new(0.1), Clip { norm: Some(0.0), value: None }),
            "the limit of the gradient's norm is 0; a number above 0 is needed, from 1.2e-38 to 3.4e38"
        );
        let mut joint = given_gradients().into_draft();
        joint.outputs.push((GRADIENT_NORM.to_string(), joint.parameters[0].value));
        let joint = joint.finish().unwrap();
        let e = training_program(&joint, &Sgd::new(0.1), free).unwrap_err();
        assert!(matches!(e, RunError::Compile { .. }) && e.to_string().contains("`gradient_norm`"), "{e}");
    }
}
