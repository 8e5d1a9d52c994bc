//! How a program is compiled and run: settings that change how long it takes and how much memory, and which
//! instructions it uses, but not what it computes.
//!
//! A [`Session`](crate::session::Session) is made with [`Settings`], and so are streams and decoders; a
//! [`Trainer`](crate::train::Trainer) passes its own on to all that it makes.

use std::env;
use std::sync::OnceLock;

pub use retrograd_compiler::codegen::{InstructionSet, UnknownInstructionSet};
use retrograd_compiler::plan::Checkpointing;

use crate::error::RunError;

/// The environment variable that chooses the instruction set where settings do not. It is read once.
pub const INSTRUCTION_SET_VARIABLE: &str = "RETROGRAD_INSTRUCTION_SET";

/// How a program is compiled and run. Where only a number of threads matters, that number is settings, too.
///
/// ```
/// use ndarray::arr2;
/// use retrograd_compiler::ir::Program;
/// use retrograd_runtime::feed::Feed;
/// use retrograd_runtime::session::Session;
/// use retrograd_runtime::settings::{InstructionSet, Settings};
///
/// let program = Program::record("twice", |p| p.output("y", 2.0 * p.input("x", 2)))?;
/// let settings = Settings::new().threads(2).instruction_set(InstructionSet::Portable);
/// for mut session in [Session::<f32>::new(&program, settings)?, Session::new(&program, 2)?] {
///     session.run(&Feed::new().f32("x", arr2(&[[1.0, 2.0]]).view()))?;
///     assert_eq!(session.output("y").unwrap(), arr2(&[[2.0, 4.0]]).into_dyn());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub(crate) threads: usize,
    pub(crate) checkpointing: Option<Checkpointing>,
    instruction_set: Option<InstructionSet>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::new()
    }
}

impl From<usize> for Settings {
    fn from(threads: usize) -> Settings {
        Settings::new().threads(threads)
    }
}

impl From<&Settings> for Settings {
    fn from(settings: &Settings) -> Settings {
        *settings
    }
}

impl Settings {
    /// One thread, no checkpointing, and the fastest instruction set that this machine has, unless the environment
    /// variable `RETROGRAD_INSTRUCTION_SET` names another.
    pub fn new() -> Settings {
        Settings { threads: 1, checkpointing: None, instruction_set: None }
    }

    /// Number of threads. Results have the same bits whatever it is.
    pub fn threads(mut self, threads: usize) -> Settings {
        self.threads = threads;
        self
    }

    /// Keeps only some states of the loops and computes the others again: memory for time. Results have the same bits.
    ///
    /// ```
    /// use retrograd_compiler::ir::{Program, Sizes};
    /// use retrograd_compiler::plan::Checkpointing;
    /// use retrograd_runtime::session::Session;
    /// use retrograd_runtime::settings::Settings;
    ///
    /// let program = Program::record("follow", |p| {
    ///     let x = p.sequence("x", 1);
    ///     let run = p.scan("follow", |s| {
    ///         let h = s.state("h", 64);
    ///         s.next(h, s.affine("cell", s.at(x), 64).tanh() * 0.5 + h * 0.5)
    ///     });
    ///     p.minimize(run.all().square().mean_features().mean_rows());
    /// })?
    /// .backward()?;
    /// let whole = Session::<f32>::new(&program, 1)?;
    /// let session = Session::<f32>::new(&program, Settings::new().checkpointing(Checkpointing::Sqrt))?;
    /// let memory = |session: &Session<f32>| session.compiled().plan.memory(&Sizes::new(10_000, 4));
    /// assert!(2 * memory(&session) < memory(&whole));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn checkpointing(mut self, checkpointing: Checkpointing) -> Settings {
        self.checkpointing = Some(checkpointing);
        self
    }

    /// The instructions that are used. Different sets may give different bits: see [`InstructionSet`]. Compiling fails
    /// where the machine does not have it.
    ///
    /// ```
    /// use retrograd_compiler::ir::Program;
    /// use retrograd_runtime::session::Session;
    /// use retrograd_runtime::settings::{InstructionSet, Settings};
    ///
    /// let program = Program::record("twice", |p| p.output("y", 2.0 * p.input("x", 2)))?;
    /// let portable = Session::<f32>::new(&program, Settings::new().instruction_set(InstructionSet::Portable))?;
    /// assert_eq!(portable.compiled().instruction_set, InstructionSet::Portable);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn instruction_set(mut self, set: InstructionSet) -> Settings {
        self.instruction_set = Some(set);
        self
    }

    /// As they are for single steps, which need no checkpoints.
    pub(crate) fn one_step(self) -> Settings {
        Settings { checkpointing: None, ..self }
    }

    /// The instruction set that programs are compiled for with these settings: the one that was set, or that the
    /// environment variable names, or the fastest that this machine has.
    ///
    /// # Errors
    /// If that is none that this machine has.
    pub fn chosen_instruction_set(&self) -> Result<InstructionSet, RunError> {
        match self.instruction_set {
            Some(set) if set.is_available() => Ok(set),
            Some(set) => Err(unavailable("the instruction set", set.name())),
            None => of_environment(),
        }
    }
}

/// What the environment says, once and for all.
fn of_environment() -> Result<InstructionSet, RunError> {
    static SAID: OnceLock<Result<InstructionSet, String>> = OnceLock::new();
    let said = SAID.get_or_init(|| match env::var_os(INSTRUCTION_SET_VARIABLE) {
        None => Ok(InstructionSet::best()),
        Some(word) if word.is_empty() => Ok(InstructionSet::best()),
        Some(word) => {
            let word = word.to_string_lossy().into_owned();
            let set = word.parse().ok().filter(|set: &InstructionSet| set.is_available());
            set.ok_or(word)
        }
    });
    said.clone().map_err(|word| unavailable(&format!("the environment variable {INSTRUCTION_SET_VARIABLE}"), &word))
}

fn unavailable(setting: &str, given: &str) -> RunError {
    let available = InstructionSet::available().map(|set| format!("`{set}`")).collect::<Vec<_>>();
    RunError::Setting {
        setting: setting.to_string(),
        given: format!("`{given}`"),
        allowed: format!("this machine has {}", available.join(", ")),
    }
}
