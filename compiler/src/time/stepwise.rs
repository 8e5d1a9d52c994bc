//! What stands in the way of running a program one step at a time.
//!
//! A stream gives after each step what the program gives of the steps so far, at the last of them. So a value can be
//! streamed if a row of it needs no more than the rows up to its step, by way of the states of loops. It cannot
//!
//! - behind a loop that runs backwards, which starts at a last step that is not known yet;
//! - behind a sum over the steps, or their number: a step has one of its own, and nothing keeps the others;
//! - behind a loop that reads what another has at its end: all loops take a step at a time.
//!
//! The loop of [lengths](crate::record::TimeAxis::lengths) counts the steps of a run and reads no sequence: it is no
//! obstacle, and neither are the counts that it starts from.

use crate::error::Place;
use crate::ir::{Extent, Graph, Op, Value};

/// Why a value cannot be given step by step.
#[derive(Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// A loop that runs backwards.
    #[error(
        "loop `{scan}` ({place}) runs from the last step to the first, and there is no last step before the sequence has \
         ended"
    )]
    Backwards {
        /// Name of the loop.
        scan: String,
        /// Where it was recorded.
        place: Place,
    },
    /// Something computed of all steps.
    #[error(
        "it depends on {what} ({place}), which a step at a time does not give; keep a running sum as the state of a scan"
    )]
    AllSteps {
        /// A sum over the steps, or their number.
        what: &'static str,
        /// Where it was recorded.
        place: Place,
    },
    /// A loop that goes on from where another ends.
    #[error(
        "loop `{scan}` ({place}) reads what another loop, or a sequence, has at its end, and all loops of a stream take a \
         step at a time; a decoder along the axis of `{scan}` runs the other one first"
    )]
    AfterTheEnd {
        /// Name of the loop.
        scan: String,
        /// Where it was recorded.
        place: Place,
    },
}

crate::debug_is_display!(Obstacle);

/// For each value of a program's graph, the first thing that stands in the way of giving it step by step.
///
/// ```
/// use retrograd_compiler::{ir::Program, time::obstacles};
/// let program = Program::record("both", |p| {
///     let x = p.sequence("x", 3);
///     let there = p.scan("there", |s| { let h = s.state("h", 3); s.next(h, (h + s.at(x)).tanh()) });
///     let back = p.scan_reverse("back", |s| { let h = s.state("h", 3); s.next(h, (h + s.at(x)).tanh()) });
///     p.output("there", there.all());
///     p.output("both", there.all() + back.all());
/// })?;
/// let obstacles = obstacles(&program.graph);
/// let obstacle = |name| obstacles[program.output(name).unwrap().index()].as_ref();
/// assert!(obstacle("there").is_none());
/// assert!(obstacle("both").unwrap().to_string().starts_with("loop `back` ("));
/// # Ok::<(), retrograd_compiler::error::RecordErrors>(())
/// ```
pub fn obstacles(graph: &Graph) -> Vec<Option<Obstacle>> {
    let timed = |v: Value| matches!(graph.ty(v).extent, Extent::Time(_));
    let mut obstacles: Vec<Option<Obstacle>> = Vec::with_capacity(graph.len());
    // Whether a value is of the end of a loop or of a sequence.
    let mut of_end = vec![false; graph.len()];
    for v in graph.values() {
        let (node, place) = (graph.node(v), Place(graph.node(v).location));
        let ended = node.operands.iter().any(|o| of_end[o.index()]);
        let scan = |scan: &crate::ir::Scan| scan.name.clone();
        let own = match &node.op {
            Op::Within(_) => {
                obstacles.push(None);
                continue;
            }
            Op::Scan(s) if s.reverse => Some(Obstacle::Backwards { scan: scan(s), place }),
            Op::Scan(s) if ended => Some(Obstacle::AfterTheEnd { scan: scan(s), place }),
            Op::Scan(_) | Op::Yield(_) => None,
            Op::Final(_) | Op::Last => {
                of_end[v.index()] = true;
                None
            }
            Op::RowCount(Extent::Time(_)) => Some(Obstacle::AllSteps { what: "the number of steps", place }),
            Op::Total(_) => Some(Obstacle::AllSteps { what: "a sum over the steps of a sequence", place }),
            _ if !timed(v) && node.operands.iter().any(|&o| timed(o)) => {
                Some(Obstacle::AllSteps { what: "a sum over the steps of a sequence", place })
            }
            _ => None,
        };
        of_end[v.index()] |= ended;
        let inherited = || node.operands.iter().find_map(|o| obstacles[o.index()].clone());
        let found = inherited().or(own);
        obstacles.push(found);
    }
    obstacles
}
