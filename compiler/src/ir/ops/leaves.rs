//! Leaves, scans and the results of scans: what the interpreter and the passes know by themselves.

use crate::ir::op::{Eval, Op, Row, Tangent};
use crate::ir::types::{Extent, Type};

const fn leaf(name: &'static str) -> Row {
    Row {
        name,
        infer: |_, _| Err("its type is given where it is made".to_string()),
        tangent: Tangent::Zero,
        transpose: None,
        eval: Eval::Interpreter,
    }
}

pub static PARAMETER: Row = leaf("parameter");
pub static INPUT: Row = leaf("input");
pub static CONSTANT: Row = leaf("constant");
pub static CAPTURE: Row = leaf("capture");
pub static EACH: Row = leaf("each");
pub static CARRY: Row = leaf("carry");

pub static ROW_COUNT: Row = Row { infer: |_, _| Ok(Type::float(Extent::Shared, ())), ..leaf("row_count") };
pub static TRAINING: Row = Row { infer: |_, _| Ok(Type::float(Extent::Shared, ())), ..leaf("training") };

/// The type of a scan node itself says nothing: its results have types.
pub static SCAN: Row =
    Row { infer: |_, _| Ok(Type::float(Extent::Shared, ())), tangent: Tangent::Scan, ..leaf("scan") };
/// Results are added by `Graph::scan_result`, which reads their types off the scan.
pub static YIELD: Row = Row { tangent: Tangent::Scan, ..leaf("yield") };
pub static FINAL: Row = Row { tangent: Tangent::Scan, ..leaf("final") };
pub static TOTAL: Row = Row { tangent: Tangent::Scan, ..leaf("total") };

/// Whether an op is one of a scan's results.
pub fn is_result(op: &Op) -> bool {
    matches!(op, Op::Yield(_) | Op::Final(_) | Op::Total(_))
}
