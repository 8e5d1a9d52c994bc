//! What a program looks like at each stage of the compiler, as text: for reading, and for snapshot tests.
//!
//! ```
//! use retrograd_compiler::ir::Program;
//!
//! let program = Program::record("blend", |p| {
//!     let x = p.sequence("x", 4);
//!     let run = p.scan("blend", |s| {
//!         let h = s.state("h", 4);
//!         s.next(h, 0.9 * h + s.linear("in", s.at(x), 4))
//!     });
//!     p.minimize(run.last().square().sum());
//! })?;
//! println!("{program}"); // as recorded
//! println!("{}", program.backward()?); // joint: forward and backward
//! println!("{}", program.backward()?.hoisted());
//! println!("{}", program.backward()?.plan());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! CLIF and disassembly of kernels come with a compile that was asked to keep them: see
//! [`compile`](crate::pipeline::compile).

use crate::ir::Program;
use crate::pipeline;
use crate::plan::{self, Checkpointing, Plan, Target};

impl Program {
    /// The program with all that is not on a recurrence moved out of its loops: what the plan is made from.
    pub fn hoisted(&self) -> Program {
        pipeline::lower(self)
    }

    /// The plan for a machine with panels of 16 floats of 32 bits, whatever this machine has: its text is the same
    /// everywhere.
    pub fn plan(&self) -> Plan {
        self.plan_for(Target { panel: 16, float_size: 4 })
    }

    /// The plan for a given machine.
    pub fn plan_for(&self, target: Target) -> Plan {
        plan::plan(&self.hoisted(), target, None)
    }

    /// As [`plan`](Program::plan), with checkpoints: what is kept, and what is computed again.
    pub fn checkpointed_plan(&self, checkpointing: Checkpointing) -> Plan {
        plan::plan(&self.hoisted(), Target { panel: 16, float_size: 4 }, Some(checkpointing))
    }
}
