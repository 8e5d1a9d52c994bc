//! A program divided at a time axis: what is there before the axis begins, and what runs along it.
//!
//! Before: a program some of whose loops run over the axis, such as those of a decoder. After: two programs that give
//! the same outputs between them. The first has nothing of the axis, such as an encoder and all that is made of its
//! states; the second has the rest, and takes the values of the first that it reads as inputs. So the first is computed
//! once, and the second step by step.

use super::infer::Same;
use crate::error::Place;
use crate::ir::{Axis, Draft, Extent, Graph, Input, Op, Program, Value};
use crate::simplify::rebuild::{Numbered, copy_face, rewrite, walk, with_graph};

/// A program in two parts; see [`divide`].
#[derive(Clone, Debug)]
pub struct Divided {
    /// Without the axis. Its outputs are those of the program that have nothing of the axis, and the kept values.
    pub before: Program,
    /// Along the axis: the outputs that have something of it.
    pub along: Program,
    /// Names of the kept values, which are outputs of the first part and inputs of the second.
    pub kept: Vec<String>,
}

/// Why a program cannot be divided.
#[derive(Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DivideError {
    /// A loop that reads the axis from its end.
    #[error(
        "loop `{scan}` ({place}) runs along the time axis `{axis}` from its last step to the first, not step by step"
    )]
    Backwards {
        /// Name of the scan.
        scan: String,
        /// Where it was recorded.
        place: Place,
        /// Name of the axis.
        axis: String,
    },
    /// The program stores values from run to run.
    #[error("the program updates `{target}` after each run, which a part of it cannot do")]
    Updates {
        /// Name of the first target.
        target: String,
    },
}

crate::debug_is_display!(DivideError);

/// Divides a program at an axis. The objective and what only it needs are left out, and so are outputs that have
/// something of the axis and of another axis behind it.
///
/// # Errors
/// If a loop over the axis reads it in reverse, or the program has updates.
pub fn divide(program: &Program, axis: Axis) -> Result<Divided, DivideError> {
    if let Some(update) = program.updates.first() {
        let (Op::Parameter(target) | Op::Input(target)) = program.graph.op(update.target) else {
            unreachable!("updates are of parameters and inputs");
        };
        return Err(DivideError::Updates { target: target.clone() });
    }
    let sides = sides(&program.graph, axis);
    let on = |side: Side| -> Vec<(String, Value)> {
        program.outputs.iter().filter(|(_, v)| sides[v.index()] == side).cloned().collect()
    };
    let mut first = Draft { outputs: on(Side::Before), objective: None, ..program.to_draft() };
    let second = Draft { outputs: on(Side::Along), ..first.clone() };

    let needed = second.graph.reachable(second.roots());
    let along = |v: &Value| needed[v.index()] && sides[v.index()] == Side::Along;
    let mut kept: Vec<Value> = Vec::new();
    for v in second.graph.values().filter(along) {
        let node = second.graph.node(v);
        if let Op::Scan(scan) = &node.op
            && scan.reverse
        {
            let axis = program.axes[usize::from(axis.0)].clone();
            let place = Place(node.location);
            return Err(DivideError::Backwards { scan: scan.name.clone(), place, axis });
        }
        // Leaves are in both parts.
        let made = |o: &&Value| sides[o.index()] == Side::Before && !second.graph.node(**o).operands.is_empty();
        kept.extend(node.operands.iter().filter(made));
    }
    kept.sort();
    kept.dedup();

    let taken = |name: &str| program.inputs.iter().any(|i| i.name == name) || program.output(name).is_some();
    let mut names = (0..).map(|i| format!("kept.{i}")).filter(|name| !taken(name));
    let kept: Vec<(String, Value)> = kept.into_iter().map(|v| (names.next().expect("numbers do not end"), v)).collect();
    first.outputs.extend(kept.iter().cloned());
    let live = first.graph.reachable(first.roots());
    first.inputs.retain(|i| live[i.value.index()]);

    let mut g = Numbered::default();
    let mut seeds = vec![None; second.graph.len()];
    copy_face(&second, &mut g, &mut seeds);
    let mut inputs = Vec::new();
    for (name, v) in &kept {
        let value = g.leaf(Op::Input(name.clone()), second.graph.ty(*v).clone());
        seeds[v.index()] = Some(value);
        inputs.push(Input { name: name.clone(), value, bound: None });
    }
    let map = walk(&Same, &second.graph, &second.roots(), None, seeds, &mut g);
    let mut second = with_graph(&second, g.finish(), &map);
    second.inputs.extend(inputs);
    let live = second.graph.reachable(second.roots());
    second.inputs.retain(|i| live[i.value.index()]);
    let kept = kept.into_iter().map(|(name, _)| name).collect();
    Ok(Divided { before: rewrite(&first, &Same), along: rewrite(&second, &Same), kept })
}

/// Where a value is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// It has nothing of the axis.
    Before,
    /// It has something of the axis.
    Along,
    /// It has something of the axis and, behind that, of another one.
    Beyond,
}

fn sides(graph: &Graph, axis: Axis) -> Vec<Side> {
    let mut sides: Vec<Side> = Vec::with_capacity(graph.len());
    let of_lengths = of_lengths(graph, axis);
    for v in graph.values() {
        let node = graph.node(v);
        let operand = |side: Side| node.operands.iter().any(|o| sides[o.index()] == side);
        // A loop's node has no rows of its own; how many rows a time axis has is of that axis.
        let runs = match &node.op {
            Op::Scan(scan) => Some(scan.axis),
            Op::RowCount(Extent::Time(axis)) => Some(*axis),
            _ => match node.ty.extent {
                Extent::Time(axis) => Some(axis),
                _ => None,
            },
        };
        let own = runs == Some(axis);
        let side = match (own || operand(Side::Along), operand(Side::Beyond)) {
            (_, true) => Side::Beyond,
            (true, _) if own || runs.is_none() => Side::Along,
            (true, _) => Side::Beyond,
            (false, _) if of_lengths[v.index()] => Side::Along,
            (false, _) => Side::Before,
        };
        sides.push(side);
    }
    sides
}

/// What is computed for nothing but the lengths of samples along an axis: it stays with the loop that reads it, so that
/// whoever runs that loop may say the lengths, or leave them out.
fn of_lengths(graph: &Graph, axis: Axis) -> Vec<bool> {
    let (mut by_loop, mut by_others) = (vec![false; graph.len()], vec![false; graph.len()]);
    for v in graph.values().rev() {
        let counts = matches!(graph.op(v), Op::Within(own) if *own == axis);
        let alone = by_loop[v.index()] && !by_others[v.index()];
        for o in graph.operands(v) {
            let list = if counts || alone { &mut by_loop } else { &mut by_others };
            list[o.index()] = true;
        }
    }
    let alone = |v: Value| by_loop[v.index()] && !by_others[v.index()] && !graph.operands(v).is_empty();
    graph.values().map(alone).collect()
}
