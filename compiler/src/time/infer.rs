//! What is left of a program that does not train: outputs and updates, without the objective.

use crate::ir::{Graph, Program, Scan};
use crate::simplify::rebuild::{Rewrite, rewrite};

/// The program without its objective, and without the inputs that nothing else reads: targets and labels. An input that
/// an update replaces stays, whoever reads it.
///
/// ```
/// use retrograd_compiler::{ir::Program, time::infer};
/// let program = Program::record("follow", |p| {
///     let (x, target) = (p.input("x", 3), p.input("target", 3));
///     let y = p.affine("y", x, 3);
///     p.output("y", y);
///     p.minimize(y.mse(target));
/// })?;
/// let alone = infer(&program);
/// assert_eq!(alone.inputs.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["x"]);
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
pub fn infer(program: &Program) -> Program {
    restrict(&program.without_objective(), |_| true)
}

/// The program without the outputs whose names are not to be kept, and without the inputs that nothing else reads. An input
/// that an update replaces stays, whoever reads it.
pub fn restrict(program: &Program, keep: impl Fn(&str) -> bool) -> Program {
    let mut draft = program.to_draft();
    draft.outputs.retain(|(name, _)| keep(name));
    let live = draft.graph.reachable(draft.roots().into_iter().chain(draft.updates.iter().map(|u| u.target)));
    draft.inputs.retain(|i| live[i.value.index()]);
    // Leaves that are declared no more must go from the graph, too.
    rewrite(&draft, &Same)
}

/// The same program, without what no root needs.
pub(super) struct Same;

impl Rewrite for Same {
    type Facts = ();
    fn facts(&self, _: &Graph, _: &[crate::ir::Value], _: Option<&Scan>) {}
}
