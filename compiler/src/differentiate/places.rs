//! Where cotangents count.
//!
//! What a selection leaves out has the cotangent 0, and so has all that only it was computed from. But 0 times a slope
//! that is ∞ or NaN is NaN: at padding, behind the end of a sample, a step is computed with whatever stands there. So
//! the cotangent of what a row is chosen of is not made 0 where another row is chosen: it says instead **where it counts**
//! ([`Rows`]), and is any number elsewhere. Row by row that needs no care: what is no number stays in rows that do not
//! count. Where rows meet, in a sum over them or in a cotangent that counts elsewhere as well, those that do not count are
//! chosen away first ([`Places::settle`]), and so are the rows that they are multiplied with, unless these are finite there
//! ([`Places::is_finite`]).
//!
//! This holds for rows that a mask of one number a row chooses, and which no parameter has a part in: the lengths of
//! samples, masks of sums and means, beginnings of sequences. Features are chosen as they were: their cotangents are 0
//! where another is chosen, and what comes of 0·∞ is the user's to prevent, as it is everywhere else.

use std::collections::HashMap;

use crate::ir::types::{DType, Extent};
use crate::ir::{Binary, Graph, Op, Scan, Unary, Value};

/// Some rows: those where a mask is not 0, or those where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rows {
    /// One float a row.
    pub mask: Value,
    /// Where it is not 0.
    pub chosen: bool,
}

/// A cotangent, or a part of one.
#[derive(Clone, Copy, Debug)]
pub struct Cotangent {
    /// Of the type of the value that it is of.
    pub value: Value,
    /// The rows that count, if not all do. The others stand for 0.
    pub rows: Option<Rows>,
    /// Whether the others are 0.
    pub settled: bool,
}

impl Cotangent {
    /// One that counts in all rows.
    pub fn new(value: Value) -> Cotangent {
        Cotangent { value, rows: None, settled: true }
    }
}

/// What has arrived at a value so far: a sum for each choice of rows.
#[derive(Clone, Debug, Default)]
pub struct Arrived(Vec<Cotangent>);

impl Arrived {
    /// Adds a part.
    pub fn add(&mut self, graph: &mut Graph, part: Cotangent) {
        match self.0.iter_mut().find(|sum| sum.rows == part.rows) {
            Some(sum) => {
                sum.value = graph.binary(Binary::Add, sum.value, part.value);
                sum.settled &= part.settled;
            }
            None => self.0.push(part),
        }
    }
}

/// What a body's leaves stand for outside, so that it can be asked whether they are finite.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    /// The graph in which the scan is.
    pub graph: &'a Graph,
    /// The sequences that it reads.
    pub each: &'a [Value],
    /// Its states.
    pub scan: &'a Scan,
}

/// What is known of one graph while cotangents run through it.
#[derive(Default)]
pub struct Places {
    /// Values with the rows that do not count made 0.
    settled: HashMap<(Value, Rows), Value>,
}

/// How many values are looked at to find that one is finite.
const LOOKS: usize = 200;

impl Places {
    /// The rows that a `select` chooses its first or second value in, if it chooses rows, by a mask that no parameter has
    /// a part in.
    pub fn chosen_by(&self, graph: &Graph, v: Value, first: bool) -> Option<Rows> {
        let mask = graph.operands(v)[0];
        let ty = graph.ty(mask);
        let by_row = ty.shape.rank() == 0 && ty.extent != Extent::Shared;
        (by_row && is_given(graph, mask, &mut LOOKS.clone())).then_some(Rows { mask, chosen: first })
    }

    /// The sum of what has arrived.
    pub fn sum(&mut self, graph: &mut Graph, arrived: &Arrived) -> Option<Cotangent> {
        let mut parts = arrived.0.clone();
        if parts.len() < 2 {
            return parts.pop();
        }
        let mut total = None;
        // Where one counts and the other does not, and the other way round: a choice, of which both are whole.
        let mut i = 0;
        while i < parts.len() {
            let other = parts[i].rows.map(|rows| Rows { chosen: !rows.chosen, ..rows });
            let pair = other.and_then(|other| parts.iter().position(|part| part.rows == Some(other)));
            match pair {
                Some(j) => {
                    let rows = parts[i].rows.expect("it has a pair");
                    let (yes, no) = if rows.chosen { (i, j) } else { (j, i) };
                    let both = graph.add(Op::Select, &[rows.mask, parts[yes].value, parts[no].value]);
                    add(graph, &mut total, both);
                    parts.remove(j.max(i));
                    parts.remove(j.min(i));
                }
                None => i += 1,
            }
        }
        // Those that are left count here and there: each is 0 elsewhere, and so is the sum where none of them counts.
        let mut rows = if total.is_none() { parts[0].rows } else { None };
        for part in parts {
            let value = self.settle(graph, part);
            add(graph, &mut total, value);
            rows = match (rows, part.rows) {
                (Some(a), Some(b)) => Some(either(graph, a, b)),
                _ => None,
            };
        }
        total.map(|value| Cotangent { value, rows, settled: true })
    }

    /// A coefficient as it is in the rows that count; it need not be finite in others.
    pub fn coefficient(&mut self, graph: &mut Graph, v: Value, rows: Rows) -> Value {
        let needs_choice = graph.is_float(v) && !self.is_factor_finite(graph, v, rows, None);
        if needs_choice { self.choose(graph, v, rows) } else { v }
    }

    /// The cotangent with 0 in the rows that do not count.
    pub fn settle(&mut self, graph: &mut Graph, ct: Cotangent) -> Value {
        match ct.rows {
            Some(rows) if !ct.settled => self.choose(graph, ct.value, rows),
            _ => ct.value,
        }
    }

    /// As settled as it is known: what was settled once is not settled anew.
    pub fn known(&self, ct: Cotangent) -> Cotangent {
        match ct.rows.and_then(|rows| self.settled.get(&(ct.value, rows))) {
            Some(&value) => Cotangent { value, settled: true, ..ct },
            None => ct,
        }
    }

    /// A value, and 0 in the rows that do not count. What stands side by side is chosen side by side, so that it need not be
    /// put together for this.
    fn choose(&mut self, graph: &mut Graph, v: Value, rows: Rows) -> Value {
        if let Some(&known) = self.settled.get(&(v, rows)) {
            return known;
        }
        let chosen = match graph.op(v).clone() {
            op @ (Op::Concat(_) | Op::Pad { .. }) => {
                let parts: Vec<Value> = graph.operands(v).to_vec();
                let parts: Vec<Value> = parts.into_iter().map(|part| self.choose(graph, part, rows)).collect();
                graph.add(op, &parts)
            }
            Op::Binary(Binary::Add) if graph.operands(v).iter().all(|&o| is_side_by_side(graph, o)) => {
                let (a, b) = (graph.operands(v)[0], graph.operands(v)[1]);
                let (a, b) = (self.choose(graph, a, rows), self.choose(graph, b, rows));
                graph.binary(Binary::Add, a, b)
            }
            Op::Constant(0.0) => v,
            _ => {
                let zero = graph.scalar(0.0);
                let operands = if rows.chosen { [rows.mask, v, zero] } else { [rows.mask, zero, v] };
                let chosen = graph.add(Op::Select, &operands);
                let ty = graph.ty(v).clone();
                // A mask of more rows than the value is for rows that come of it.
                if *graph.ty(chosen) == ty { chosen } else { v }
            }
        };
        self.settled.insert((v, rows), chosen);
        self.settled.insert((chosen, rows), chosen);
        chosen
    }

    /// Rebuilds what a rule has just added, from value `before` on, with sums over rows of those that count alone; gives what
    /// `result` is then.
    pub fn guard(
        &mut self,
        graph: &mut Graph,
        before: usize,
        result: Value,
        rows: Rows,
        outside: Option<Outside>,
    ) -> Value {
        let new: Vec<Value> = graph.values().skip(before).collect();
        let mut map: HashMap<Value, Value> = HashMap::new();
        for v in new {
            let op = graph.op(v).clone();
            let mut operands: Vec<Value> =
                graph.operands(v).iter().map(|o| map.get(o).copied().unwrap_or(*o)).collect();
            for o in &mut operands {
                match op {
                    // One factor is made 0; for the other, finite is enough.
                    Op::DotTn => *o = self.factor(graph, *o, rows, outside),
                    Op::SumRows(_) | Op::ScatterAdd(_) if graph.is_float(*o) => *o = self.choose(graph, *o, rows),
                    _ => {}
                }
            }
            if operands != graph.operands(v) {
                let again = graph.add(op, &operands);
                map.insert(v, again);
            }
        }
        map.get(&result).copied().unwrap_or(result)
    }

    /// A factor of a sum over rows, as it is where it is finite in the rows that do not count.
    fn factor(&mut self, graph: &mut Graph, v: Value, rows: Rows, outside: Option<Outside>) -> Value {
        if self.settled.contains_key(&(v, rows)) || !self.is_factor_finite(graph, v, rows, outside) {
            if let op @ Op::Concat(_) = graph.op(v).clone() {
                let parts = graph.operands(v).to_vec();
                let parts: Vec<Value> = parts.into_iter().map(|o| self.factor(graph, o, rows, outside)).collect();
                return graph.add(op, &parts);
            }
            return self.choose(graph, v, rows);
        }
        v
    }

    fn is_factor_finite(&self, graph: &Graph, v: Value, rows: Rows, outside: Option<Outside>) -> bool {
        is_finite(graph, v, rows, outside, &mut LOOKS.clone())
    }

    /// Whether the rows that do not count stay 0 through the transpose of a node, along one operand.
    pub fn stays_settled(&self, graph: &Graph, v: Value, i: usize, rows: Rows, outside: Option<Outside>) -> bool {
        match graph.op(v) {
            Op::Dot | Op::DotNt => i == 0,
            Op::Binary(Binary::Mul) => self.is_factor_finite(graph, graph.operands(v)[1 - i], rows, outside),
            Op::Binary(Binary::Add | Binary::Sub) | Op::Unary(Unary::Neg) | Op::Select => true,
            Op::Sum(_) | Op::Broadcast(_) | Op::Reshape(_) | Op::Transpose(_) => true,
            Op::Slice { .. } | Op::Pad { .. } | Op::Concat(_) | Op::SumRows(_) | Op::Expand(_) => true,
            Op::Last | Op::PlaceLast(_) => true,
            _ => false,
        }
    }
}

fn add(graph: &mut Graph, sum: &mut Option<Value>, v: Value) {
    *sum = Some(sum.map_or(v, |sum| graph.binary(Binary::Add, sum, v)));
}

/// The rows that are among one or the other.
fn either(graph: &mut Graph, a: Rows, b: Rows) -> Rows {
    if a == b {
        return a;
    }
    let (zero, one) = (graph.scalar(0.0), graph.scalar(1.0));
    let other = if b.chosen { b.mask } else { graph.add(Op::Select, &[b.mask, zero, one]) };
    let operands = if a.chosen { [a.mask, one, other] } else { [a.mask, other, one] };
    Rows { mask: graph.add(Op::Select, &operands), chosen: true }
}

/// The samples of which some row counts: what a sum over their steps counts for.
pub fn samples(graph: &mut Graph, rows: Rows) -> Rows {
    let mask = match (graph.op(rows.mask), rows.chosen) {
        // A sample has as many rows as its length says.
        (Op::Within(_), true) => {
            let lengths = graph.operands(rows.mask)[0];
            graph.add(Op::ToFloat, &[lengths])
        }
        (_, chosen) => {
            let (zero, one) = (graph.scalar(0.0), graph.scalar(1.0));
            let operands = if chosen { [rows.mask, one, zero] } else { [rows.mask, zero, one] };
            let count = graph.add(Op::Select, &operands);
            graph.add(Op::SumRows(Extent::Batch), &[count])
        }
    };
    Rows { mask, chosen: true }
}

/// The mask outside of a scan of whose steps only those count where it is not 0: elsewhere all states stay as they are, and
/// what is given out is chosen away within the step. Lengths of samples are such masks. `within` marks the values of the
/// body that are looked at.
pub fn steps_that_count(scan: &Scan, each: &[Value], within: &[bool]) -> Option<Value> {
    let body = &scan.body;
    let carries = || scan.carries.iter().filter(|c| within[c.next.index()]);
    let given = || scan.yields.iter().chain(&scan.sums).map(|p| p.value).filter(|v| within[v.index()]);
    let mask_of = |v: Value| match body.op(v) {
        Op::Select => Some(body.operands(v)[0]),
        _ => None,
    };
    let mask = carries().map(|c| c.next).chain(given()).next().and_then(mask_of)?;
    let Op::Each(port) = *body.op(mask) else { return None };
    let is_zero = |v: Value| matches!(body.op(v), Op::Constant(c) if *c == 0.0);
    let held = carries().all(|c| mask_of(c.next) == Some(mask) && body.operands(c.next)[2] == c.value);
    let zeroed = given().all(|v| mask_of(v) == Some(mask) && is_zero(body.operands(v)[2]));
    (held && zeroed).then(|| each[port])
}

/// The rows that are among both.
pub fn both(graph: &mut Graph, a: Rows, b: Rows) -> Rows {
    if a == b {
        return a;
    }
    let (zero, one) = (graph.scalar(0.0), graph.scalar(1.0));
    let other = if b.chosen { b.mask } else { graph.add(Op::Select, &[b.mask, zero, one]) };
    let operands = if a.chosen { [a.mask, other, zero] } else { [a.mask, zero, other] };
    Rows { mask: graph.add(Op::Select, &operands), chosen: true }
}

/// Pads, or a sum of some.
fn is_side_by_side(graph: &Graph, v: Value) -> bool {
    match graph.op(v) {
        Op::Pad { .. } => true,
        Op::Binary(Binary::Add) => graph.operands(v).iter().all(|&o| is_side_by_side(graph, o)),
        _ => false,
    }
}

/// Whether no parameter has a part in a value, as far as the graph tells.
fn is_given(graph: &Graph, v: Value, looks: &mut usize) -> bool {
    if *looks == 0 {
        return false;
    }
    *looks -= 1;
    match graph.op(v) {
        Op::Parameter(_) | Op::Carry(_) => false,
        _ => graph.operands(v).iter().all(|&o| is_given(graph, o, looks)),
    }
}

/// Whether a value is between −1 and 1, whatever it comes of, but for NaN.
fn is_bounded(graph: &Graph, v: Value) -> bool {
    match graph.op(v) {
        Op::Constant(c) => c.abs() <= 1.0,
        Op::Unary(u) => matches!(
            u,
            Unary::Tanh | Unary::Sigmoid | Unary::Erf | Unary::NormalCdf | Unary::Sin | Unary::Cos | Unary::Sign
        ),
        Op::Binary(b) => {
            matches!(b, Binary::Gt | Binary::Ge | Binary::Lt | Binary::Le | Binary::Eq | Binary::Ne)
        }
        Op::OneHot(_) => true,
        Op::Reshape(_) | Op::Slice { .. } | Op::Broadcast(_) | Op::Expand(_) | Op::Transpose(_) => {
            is_bounded(graph, graph.operands(v)[0])
        }
        _ => false,
    }
}

/// Whether a value is finite in the rows that do not count, provided that weights and states are finite where rows count.
/// States that are held there are what they were in the last row that counts.
fn is_finite(graph: &Graph, v: Value, rows: Rows, outside: Option<Outside>, looks: &mut usize) -> bool {
    if *looks == 0 {
        return false;
    }
    *looks -= 1;
    if v == rows.mask && rows.chosen {
        return true;
    }
    let ty = graph.ty(v);
    if ty.dtype != DType::F32 || ty.extent < graph.ty(rows.mask).extent {
        // What other rows have too counts there.
        return true;
    }
    let operands = graph.operands(v);
    let all = |looks: &mut usize| operands.iter().all(|&o| is_finite(graph, o, rows, outside, looks));
    match graph.op(v) {
        Op::Constant(c) => c.is_finite(),
        Op::RowCount(_) | Op::Capture(_) | Op::OneHot(_) | Op::ToFloat | Op::Gather => true,
        Op::Carry(i) => outside.is_some_and(|outside| {
            let carry = &outside.scan.carries[*i];
            let held = if rows.chosen { 2 } else { 1 };
            let next = graph.operands(carry.next);
            matches!(graph.op(carry.next), Op::Select) && next[0] == rows.mask && next[held] == v
        }),
        Op::Each(i) => outside.is_some_and(|outside| {
            let mask = match graph.op(rows.mask) {
                Op::Each(m) => outside.each[*m],
                _ => return false,
            };
            is_finite(outside.graph, outside.each[*i], Rows { mask, ..rows }, None, looks)
        }),
        Op::Yield(i) => {
            let node = operands[0];
            let Op::Scan(scan) = graph.op(node) else { return false };
            let (_, each, _) = scan.split_operands(graph.operands(node));
            let Some(port) = each.iter().position(|&o| o == rows.mask) else { return false };
            let inner = Rows { mask: scan.each[port].value, ..rows };
            is_finite(&scan.body, scan.yields[*i].value, inner, Some(Outside { graph, each, scan }), looks)
        }
        Op::Select => {
            let is_mask = operands[0] == rows.mask;
            match (is_mask, rows.chosen) {
                (true, true) => is_finite(graph, operands[2], rows, outside, looks),
                (true, false) => is_finite(graph, operands[1], rows, outside, looks),
                _ => operands[1..].iter().all(|&o| is_finite(graph, o, rows, outside, looks)),
            }
        }
        Op::Unary(u) => {
            let finite = matches!(
                u,
                Unary::Neg
                    | Unary::Abs
                    | Unary::Sign
                    | Unary::Relu
                    | Unary::Tanh
                    | Unary::Sigmoid
                    | Unary::Silu
                    | Unary::Gelu
                    | Unary::Softplus
                    | Unary::Erf
                    | Unary::NormalCdf
                    | Unary::Sin
                    | Unary::Cos
            );
            finite && all(looks)
        }
        Op::Binary(Binary::Mul) => operands.iter().any(|&o| is_bounded(graph, o)) && all(looks),
        Op::Binary(Binary::Div | Binary::Pow) => false,
        Op::Binary(_) | Op::StopGradient => all(looks),
        Op::Dot | Op::DotNt => is_finite(graph, operands[0], rows, outside, looks),
        Op::Norm(norm) => norm.epsilon > 0.0 && all(looks),
        Op::Sum(_) | Op::Max(_) | Op::Broadcast(_) | Op::Reshape(_) | Op::Transpose(_) => all(looks),
        Op::Slice { .. } | Op::Pad { .. } | Op::Concat(_) | Op::Expand(_) => all(looks),
        _ => false,
    }
}
