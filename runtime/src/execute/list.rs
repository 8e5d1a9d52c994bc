//! A run of one step, as a list.
//!
//! Where every loop has one step and no stage is shared, as in a stream, each run calls the same kernels on the same rows.
//! What calls them is written down when sizes are bound. Beside its weights, which push everything out of the first-level
//! cache, a step of a small cell would wait for each line of the plan that it walks through: an LSTM of 64 units takes
//! 1.9 µs instead of 2.1.
//!
//! What is neither a kernel nor a copy of rows is done as in any run.

use std::ops::Range;

use retrograd_compiler::plan::{Rows, Span, Stage, Work};

use super::share::Share;
use super::{Run, panels};
use crate::float::Float;

/// All that a run does, in order.
pub(super) struct List {
    calls: Vec<Call>,
    /// Addresses of the kernels' accesses, one kernel's behind the other's.
    bases: Vec<*mut u8>,
}

enum Call {
    /// A kernel over rows and panels, and where its accesses are.
    Kernel { kernel: usize, bases: Range<usize>, rows: usize, panels: usize },
    /// Rows, so many bytes of each, and the bytes from row to row.
    Copy { from: *const u8, into: *mut u8, bytes: usize, rows: usize, steps: [usize; 2] },
    /// Another stage, the plan's at this place.
    Other { stage: Box<Stage>, at: usize },
}

impl List {
    /// The list of a run that updates no parameters, once constants are there; `None` if there are more steps than one, or
    /// checkpoints to keep.
    pub(super) fn of<E: Float>(run: &Run<'_, E>) -> Option<List> {
        let plan = &run.compiled.plan;
        let has_checkpoints = plan.buffers.iter().any(|buffer| matches!(buffer.rows, Rows::Checkpoints(_)));
        if has_checkpoints || run.sizes.steps.iter().any(|&steps| steps > 1) {
            return None;
        }
        let mut list = List { calls: Vec::new(), bases: Vec::new() };
        for (at, (stage, _)) in plan.stages().enumerate() {
            if !stage.constant {
                list.add(run, stage, at);
            }
        }
        for (from, port, is_parameter) in &plan.updates {
            assert!(!is_parameter, "a list is not made where parameters change");
            let into = &plan.inputs[*port];
            list.calls.push(copy(run, &from.spans[0], &into.spans[0], run.sizes.rows(from.extent)));
        }
        Some(list)
    }

    fn add<E: Float>(&mut self, run: &Run<'_, E>, stage: &Stage, at: usize) {
        let rows = run.rows_of(stage);
        let bound = &run.bound[at];
        self.calls.push(match &stage.work {
            Work::Copy { from, into, strides, into_strides, .. } if strides == &[1] && into_strides == &[1] => {
                copy(run, from, into, rows)
            }
            Work::Kernel(k) => {
                let first = self.bases.len();
                self.bases.extend(&bound.bases);
                let bases = first..self.bases.len();
                Call::Kernel { kernel: bound.kernel, bases, rows, panels: panels(run.compiled, k) }
            }
            _ => Call::Other { stage: Box::new(stage.clone()), at },
        });
    }

    /// Does it all.
    pub(super) fn run<E: Float>(&self, run: &Run<'_, E>) {
        for call in &self.calls {
            match call {
                // SAFETY: the list was made for the memory and the sizes that are bound, and nobody else is at work.
                Call::Kernel { kernel, bases, rows, panels } => unsafe {
                    let scratch = (*run.own[0].get()).scratch.address(0);
                    run.call(*kernel, &self.bases[bases.clone()], scratch, 0..*rows, 0..*panels);
                },
                Call::Copy { from, into, bytes, rows, steps: [step, step_into] } => {
                    for r in 0..*rows {
                        let (from, into) = (from.wrapping_add(r * step), into.wrapping_add(r * step_into));
                        // SAFETY: as above; both are rows of buffers of the plan, which differ.
                        unsafe { std::ptr::copy_nonoverlapping(from, into, *bytes) };
                    }
                }
                Call::Other { stage, at } => run.stage(stage, *at, 0, Share::WHOLE),
            }
        }
    }
}

/// Copies rows of a span to another of the same type.
fn copy<E: Float>(run: &Run<'_, E>, from: &Span, into: &Span, rows: usize) -> Call {
    let size = run.element_size(from.access.buffer);
    let address = |span: &Span| run.base(&span.access).wrapping_add(span.offset * size);
    let steps = [from, into].map(|span| if run.is_one_row(&span.access) { 0 } else { run.row_bytes(&span.access) });
    Call::Copy { from: address(from).cast_const(), into: address(into), bytes: into.len * size, rows, steps }
}
