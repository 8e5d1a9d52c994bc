//! A recorded program as training runs it, and as everything else does.
//!
//! Before: a program in which some values are chosen by [`Op::Training`]: batch statistics in training and running ones
//! elsewhere, dropout in training and none elsewhere. After: the choice is made, so the branch that was not taken is
//! gone with the inputs that only it reads, and costs nothing. It is made before derivatives are taken and before a
//! program is divided or streamed, since these look at what depends on what.

use super::algebra::emit;
use super::rebuild::{Rewrite, Site, rewrite};
use crate::ir::{Draft, Graph, Op, Program, Scan, Value};

impl Program {
    /// This program as training runs it: `when_training` is its first branch.
    ///
    /// ```
    /// use retrograd_compiler::ir::Program;
    /// let program = Program::record("noisy", |p| {
    ///     let (x, noise) = (p.input("x", 3), p.input("noise", 3));
    ///     p.output("y", p.when_training(x + noise, x));
    /// })?;
    /// assert!(program.in_training().input("noise").is_some());
    /// assert!(program.outside_training().input("noise").is_none());
    /// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
    /// ```
    pub fn in_training(&self) -> Program {
        decided(&self.to_draft(), 1.0)
    }

    /// This program as evaluation, streams and decoders run it: `when_training` is its second branch, and parameters stay
    /// as they are. Inputs that nothing reads any more are gone.
    pub fn outside_training(&self) -> Program {
        let mut draft = self.to_draft();
        let is_parameter = |v: Value| self.parameters.iter().any(|p| p.value == v);
        draft.updates.retain(|u| !is_parameter(u.target));
        decided(&draft, 0.0)
    }
}

/// The program with the choice made. Inputs that only the other branch read are dropped; those that nothing read before
/// stay.
fn decided(program: &Draft, training: f64) -> Program {
    let asks = |graph: &Graph| graph.values().any(|v| matches!(graph.op(v), Op::Training));
    let in_body = |v: Value| matches!(program.graph.op(v), Op::Scan(scan) if asks(&scan.body));
    if !asks(&program.graph) && !program.graph.values().any(in_body) {
        return program.clone().by_pass();
    }
    let reads = |program: &Draft| {
        let roots = program.updates.iter().map(|u| u.target).chain(program.roots());
        program.graph.reachable(roots.collect::<Vec<_>>())
    };
    let before = reads(program);
    let was_read: Vec<bool> = program.inputs.iter().map(|i| before[i.value.index()]).collect();
    let mut decided = rewrite(program, &Decide(training)).into_draft();
    let after = reads(&decided);
    let mut was_read = was_read.into_iter();
    decided.inputs.retain(|i| was_read.next() == Some(false) || after[i.value.index()]);
    // Leaves that are declared no more must go from the graph, too.
    rewrite(&decided, &Decide(training))
}

struct Decide(f64);

impl Rewrite for Decide {
    type Facts = ();
    fn facts(&self, _: &Graph, _: &[Value], _: Option<&Scan>) {}

    fn node(&self, site: Site<()>, op: &Op, operands: &[Value]) -> Option<Value> {
        match op {
            Op::Training => Some(site.g.scalar(self.0)),
            Op::Select if site.g.number(operands[0]).is_some() => Some(emit(site.g, Op::Select, operands)),
            _ => None,
        }
    }
}
