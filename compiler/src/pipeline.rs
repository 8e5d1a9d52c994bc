//! The way of a program through the compiler, on one page.
//!
//! Each stage is called once, checked in debug builds, and timed.

use std::time::{Duration, Instant};

use crate::codegen::{self, CompiledKernels, InstructionSet, KernelTable, Precision};
use crate::error::CodegenError;
use crate::ir::Program;
use crate::plan::{self, Checkpointing, Plan, Target};
use crate::{simplify, time};

/// A program as machine code with its plan.
pub struct Compiled {
    /// What runs in which order, over which memory.
    pub plan: Plan,
    /// The machine code of the plan's kernels.
    pub kernels: CompiledKernels,
    /// Width of its floats.
    pub precision: Precision,
    /// The instructions that it uses.
    pub instruction_set: InstructionSet,
    /// How long each stage took.
    pub times: Vec<(&'static str, Duration)>,
}

impl Compiled {
    /// How long compiling took in all.
    pub fn time(&self) -> Duration {
        self.times.iter().map(|(_, t)| *t).sum()
    }
}

/// Compiles a program, recorded or differentiated, for the routines in `table`; with checkpoints, where it trades time for
/// memory. `texts` also keeps CLIF and disassembly of each kernel.
///
/// # Errors
/// If code cannot be generated for this machine, or the plan is not sound, which is a fault of this compiler.
pub fn compile(
    program: &Program,
    precision: Precision,
    table: &KernelTable,
    checkpointing: Option<Checkpointing>,
    texts: bool,
) -> Result<Compiled, CodegenError> {
    let mut times = Vec::new();
    let started = Instant::now();
    let hoisted = lower(program);
    times.push(("hoist", started.elapsed()));
    let started = Instant::now();
    let target = Target { panel: table.panel(), float_size: precision.size() };
    let plan = plan::plan(&hoisted, target, checkpointing);
    times.push(("plan", started.elapsed()));
    let started = Instant::now();
    plan.verify()?;
    times.push(("verify", started.elapsed()));
    let kernels = codegen::compile(&plan, precision, table, texts)?;
    times.push(("generate code", kernels.time()));
    Ok(Compiled { plan, kernels, precision, instruction_set: table.instruction_set(), times })
}

/// The passes on graphs: from a recorded or joint program to what the plan is made from.
///
/// Expects a program whose derivatives have been taken: what only matters to them is dropped here.
pub fn lower(program: &Program) -> Program {
    let program = simplify::write_out(program);
    let hoisted = time::hoist(&program);
    debug_assert_eq!(hoisted.verify(), Ok(()), "hoisting keeps programs well formed");
    let rotated = time::rotate(&hoisted);
    debug_assert_eq!(rotated.verify(), Ok(()), "rotating keeps programs well formed");
    rotated
}
