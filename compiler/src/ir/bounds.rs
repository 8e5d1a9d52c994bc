//! How large an integer may be: an index must be below the rows of every table that it reaches.
//!
//! Bounds flow from uses to what is used, through all that moves integers about, and into and out of scans; a state
//! hands its bound to its next and initial values, so bodies are walked until nothing changes. At inputs, what
//! arrives is the bound that each run is checked against; at an argmax, it must be met by the number of features.

use std::collections::HashMap;
use std::panic::Location;

use super::{DType, Graph, Op, Program, Scan, Value};

/// An index made inside a program that can be too large for a table it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`argmax` over {classes} features gives an index below {classes}, which is used in a table of {rows} rows")]
pub struct TooLarge {
    /// Where it was recorded.
    pub location: Option<&'static Location<'static>>,
    /// It is below this.
    pub classes: usize,
    /// Rows of the table.
    pub rows: usize,
}

/// The smallest of the tables that a value reaches, for each value.
type Bounds = Vec<Option<usize>>;

/// Sets the bound of every input, and gives the indices made inside the program that exceed theirs. A bound that an
/// input has already is kept where it is smaller.
pub fn derive(program: &mut Program) -> Vec<TooLarge> {
    let mut mistakes = Vec::new();
    let mut bounds = vec![None; program.graph.len()];
    for input in &program.inputs {
        lower(&mut bounds, input.value, input.bound);
    }
    loop {
        let before = bounds.clone();
        mistakes.clear();
        flow(&program.graph, &mut bounds, &mut mistakes);
        // What a run leaves for the next one is read there.
        for update in &program.updates {
            let bound = bounds[update.target.index()];
            lower(&mut bounds, update.value, bound);
        }
        if bounds == before {
            break;
        }
    }
    for input in &mut program.inputs {
        input.bound = bounds[input.value.index()];
    }
    mistakes
}

fn lower(bounds: &mut Bounds, v: Value, to: Option<usize>) {
    let own = &mut bounds[v.index()];
    *own = match (*own, to) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
}

/// Completes the bounds of a graph, given those that come from outside of it.
fn flow(graph: &Graph, bounds: &mut Bounds, mistakes: &mut Vec<TooLarge>) {
    // What is known of a scan's results when we come to the scan, which stands before them.
    let mut results: HashMap<Value, Vec<(Op, Option<usize>)>> = HashMap::new();
    for v in graph.values().rev() {
        let node = graph.node(v);
        let own = bounds[v.index()];
        match &node.op {
            Op::Gather => {
                let rows = graph.ty(node.operands[0]).shape.0[0];
                lower(bounds, node.operands[1], Some(rows));
            }
            Op::OneHot(n) | Op::ScatterAdd(n) => lower(bounds, node.operands[0], Some(*n)),
            Op::Argmax => {
                let classes = graph.ty(node.operands[0]).shape.last();
                if let Some(rows) = own.filter(|&rows| rows < classes) {
                    mistakes.push(TooLarge { location: node.location, classes, rows });
                }
            }
            Op::Yield(_) | Op::Final(_) | Op::Total(_) => {
                results.entry(node.operands[0]).or_default().push((node.op.clone(), own));
            }
            Op::Scan(scan) => {
                let outside = results.remove(&v).unwrap_or_default();
                flow_scan(scan, &node.operands, &outside, bounds, mistakes);
            }
            _ if node.ty.dtype == DType::I32 => {
                // Not into a mask, which is a float.
                for &operand in node.operands.iter().filter(|&&o| graph.ty(o).dtype == DType::I32) {
                    lower(bounds, operand, own);
                }
            }
            _ => {}
        }
    }
}

fn flow_scan(
    scan: &Scan,
    operands: &[Value],
    results: &[(Op, Option<usize>)],
    bounds: &mut Bounds,
    mistakes: &mut Vec<TooLarge>,
) {
    let mut body = vec![None; scan.body.len()];
    for (result, bound) in results {
        match result {
            Op::Yield(i) => lower(&mut body, scan.yields[*i].value, *bound),
            Op::Final(i) => lower(&mut body, scan.carries[*i].next, *bound),
            _ => {}
        }
    }
    let mut found = Vec::new();
    loop {
        let before = body.clone();
        found.clear();
        flow(&scan.body, &mut body, &mut found);
        for carry in &scan.carries {
            let bound = body[carry.value.index()];
            lower(&mut body, carry.next, bound);
        }
        if body == before {
            break;
        }
    }
    mistakes.extend(found);
    let leaves = scan.captures.iter().chain(&scan.each).map(|p| p.value).chain(scan.carries.iter().map(|c| c.value));
    for (&operand, leaf) in operands.iter().zip(leaves) {
        lower(bounds, operand, body[leaf.index()]);
    }
}
