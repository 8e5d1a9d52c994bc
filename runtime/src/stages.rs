//! Every stage of a program's way through the compiler as text: for reading, and for snapshots.
//!
//! Graphs, their drawing and the plan are the same text wherever they are made for the same width of panels. CLIF and
//! machine code are for this machine, and CLIF names routines of the runtime by address, so those are for reading
//! only.

use std::time::Duration;

use retrograd_compiler::ir::Program;
use retrograd_compiler::pipeline::{self, Compiled};
use retrograd_compiler::plan::{Unit, Work};

use crate::error::RunError;
use crate::float::Float;
use crate::session;
use crate::settings::Settings;

/// A program's stages, from the recording to machine code. See [`stages`].
pub struct Stages {
    /// As it was recorded.
    pub recorded: Program,
    /// With the gradient of every parameter, if it has an objective.
    pub joint: Option<Program>,
    /// What the plan is made from: of the joint program, if there is one, after all passes on graphs.
    pub hoisted: Program,
    /// Plan and code.
    pub compiled: Compiled,
    /// Its kernels, in the order in which they run.
    pub kernels: Vec<KernelText>,
}

/// A kernel as text.
#[derive(Clone, Debug)]
pub struct KernelText {
    /// Names of what it computes.
    pub name: String,
    /// The loop it runs in, if any.
    pub within: Option<String>,
    /// Cranelift's input.
    pub clif: String,
    /// Machine code.
    pub disassembly: String,
    /// Bytes of machine code.
    pub code_size: usize,
}

/// Takes a recorded program through all stages, for floats of type `E`.
///
/// ```
/// use retrograd_compiler::ir::Program;
/// use retrograd_runtime::stages::stages;
///
/// let square = Program::record("square", |p| p.minimize(p.affine("line", p.input("x", 3), 1).square().sum()))?;
/// let stages = stages::<f32>(&square)?;
/// let names: Vec<&str> = stages.texts().iter().map(|(name, _)| *name).collect();
/// assert_eq!(names, ["recorded", "joint", "hoisted", "plan", "kernels"]);
/// assert!(stages.joint.as_ref().is_some_and(|joint| joint.output("d.line.w").is_some()));
/// assert!(stages.kernels.iter().all(|k| k.clif.starts_with("function") && k.code_size > 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`RunError::Compile`]: an objective that cannot be differentiated, or a machine that cannot be compiled for.
pub fn stages<E: Float>(program: &Program) -> Result<Stages, RunError> {
    stages_with::<E>(program, Settings::new())
}

/// As [`stages`], with settings.
///
/// # Errors
/// As there, and for settings without a meaning.
pub fn stages_with<E: Float>(program: &Program, settings: impl Into<Settings>) -> Result<Stages, RunError> {
    let joint = match program.objective {
        Some(_) => {
            let failed = |e| RunError::Compile { program: program.name.clone(), reason: Box::new(e) };
            Some(program.backward().map_err(failed)?)
        }
        None => None,
    };
    let whole = joint.as_ref().unwrap_or(program);
    let compiled = session::compile::<E>(whole, &settings.into(), true)?;
    let stages = compiled.plan.units.iter().flat_map(Unit::stages);
    let kernels = stages.filter(|(stage, _)| matches!(stage.work, Work::Kernel(_))).enumerate();
    let kernels = kernels.map(|(i, (stage, within))| {
        let info = compiled.kernels.info(i).clone();
        let (clif, disassembly) = (info.clif.unwrap_or_default(), info.disassembly.unwrap_or_default());
        let within = within.map(|l| l.name.clone());
        KernelText { name: stage.name.clone(), within, clif, disassembly, code_size: info.code_size }
    });
    let kernels = kernels.collect();
    Ok(Stages { recorded: program.clone(), hoisted: pipeline::lower(whole), joint, kernels, compiled })
}

impl Stages {
    /// Each stage's name and text, in order.
    pub fn texts(&self) -> Vec<(&'static str, String)> {
        let mut texts = vec![("recorded", self.recorded.to_string())];
        texts.extend(self.joint.as_ref().map(|joint| ("joint", joint.to_string())));
        texts.push(("hoisted", self.hoisted.to_string()));
        texts.push(("plan", self.compiled.plan.to_string()));
        let kernels = self.kernels.iter().map(|k| {
            let within = k.within.as_ref().map(|l| format!(", in loop {l}")).unwrap_or_default();
            let head = format!("; kernel {}{within}: {} bytes of machine code", k.name, k.code_size);
            format!("{head}\n{}\n{}", k.clif, k.disassembly)
        });
        texts.push(("kernels", kernels.collect::<Vec<_>>().join("\n")));
        texts
    }

    /// How long each stage took that leads to code.
    pub fn times(&self) -> &[(&'static str, Duration)] {
        &self.compiled.times
    }
}
