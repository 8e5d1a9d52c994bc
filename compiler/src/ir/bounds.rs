//! How large an integer may be: an index is at least 0 and below the rows of every table that it reaches.
//!
//! Tables make demands, and demands flow from uses to what is used: through all that moves integers about, into and
//! out of scans, from a state to its next and its initial value, and from a stored value to what updates it. They
//! arrive where integers are made, and there are only three such places:
//!
//! * an input: the demand becomes its bound, which every value is checked against that is written there, whether a run
//!   is given it, a caller sets it, or a checkpoint holds it;
//! * a constant: it is in range or a mistake;
//! * an argmax: the number of its features must not exceed the demand.
//!
//! So there is no integer whose range is unknown, and what is compiled need not check any.
//!
//! One number of an input may stand for no index. It must be chosen away before one is needed, in this form:
//! `select (ne (to_float x) c) x other`. What the choice must meet, x must meet where it is not c ([`Ignored`]).
//!
//! Expects a [verified](super::verify) graph. A value keeps the smallest demand, so demands are spread in the order of
//! their size and each value is visited once: the work is linear in the graph, and loops need no second walk.

use std::panic::Location;

use super::verify::At;
use super::{Binary, DType, Draft, Graph, Ignored, Op, Scan, Value};

/// An index made inside a program that is, or can be, outside of a table that it reaches.
#[derive(Clone, Copy, PartialEq, thiserror::Error)]
#[error("{index}, which is used in a table of {rows} rows; allowed are 0 to {}", rows.saturating_sub(1))]
pub struct OutOfRange {
    /// What the index is.
    pub index: Index,
    /// Rows of the smallest table, or width of the smallest one-hot.
    pub rows: usize,
    /// Where the index is made.
    pub at: At,
    /// Where that was recorded, or else where the table is used.
    pub location: Option<&'static Location<'static>>,
}

crate::debug_is_display!(OutOfRange);

/// What is known of an index that is made inside a program.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Index {
    /// From 0 to below a number of features.
    #[error("`argmax` over {0} features gives an index below {0}")]
    Argmax(usize),
    /// One number.
    #[error("the integer {0} is an index")]
    Constant(f64),
}

/// A demand: below so many rows, for a table that is used there.
#[derive(Clone, Copy)]
struct Demand {
    rows: usize,
    location: Option<&'static Location<'static>>,
}

/// The integers of a program as one graph: those of bodies are numbered behind those outside.
#[derive(Default)]
struct Flow<'g> {
    /// Each frame with the scan whose body it is, and the number of its first value.
    frames: Vec<(Option<Value>, &'g Graph, usize)>,
    /// What must be met at the second if it must be met at the first.
    edges: Vec<(usize, usize)>,
    demands: Vec<(Demand, usize)>,
    /// A choice, and the value that it is of where that is not a number.
    choices: Vec<(usize, usize, i32)>,
}

/// Sets the bound of every input, and gives the indices made inside the program that exceed theirs. A bound that an
/// input has already is kept where it is smaller.
pub fn derive(program: &mut Draft) -> Vec<OutOfRange> {
    let mut flow = Flow::of(&program.graph);
    for input in &program.inputs {
        let location = program.graph.node(input.value).location;
        let declared = input.bound.map(|rows| (Demand { rows, location }, input.value.index()));
        flow.demands.extend(declared);
    }
    for update in program.updates.iter().filter(|u| !program.graph.is_float(u.target)) {
        // What a run leaves for the next one is read there.
        flow.edges.push((update.target.index(), update.value.index()));
    }
    program.ignored.clear();
    if flow.demands.is_empty() {
        return Vec::new();
    }
    let met = flow.spread();
    let mistakes = flow.mistakes(&met);
    for &(choice, of, number) in &flow.choices {
        let input = program.inputs.iter().find(|i| i.value.index() == of).expect("choices are of inputs");
        if let Some(Demand { rows, .. }) = met[choice] {
            program.ignored.push(Ignored { value: input.value, rows, number });
        }
    }
    for input in &mut program.inputs {
        input.bound = met[input.value.index()].map(|demand| demand.rows);
    }
    mistakes
}

impl<'g> Flow<'g> {
    fn of(graph: &'g Graph) -> Flow<'g> {
        let mut flow = Flow { frames: vec![(None, graph, 0)], ..Flow::default() };
        let mut first = graph.len();
        let mut bodies = vec![0; graph.len()];
        for v in graph.values() {
            if let Op::Scan(scan) = graph.op(v) {
                bodies[v.index()] = first;
                flow.frames.push((Some(v), &scan.body, first));
                first += scan.body.len();
            }
        }
        for (scan, graph, first) in flow.frames.clone() {
            flow.frame(scan, graph, first, &bodies);
        }
        flow
    }

    fn frame(&mut self, scan: Option<Value>, graph: &Graph, first: usize, bodies: &[usize]) {
        for v in graph.values() {
            let node = graph.node(v);
            let own = first + v.index();
            let mut demand = |rows: usize, index: Value| {
                self.demands.push((Demand { rows, location: node.location }, first + index.index()));
            };
            match &node.op {
                Op::Gather => demand(graph.ty(node.operands[0]).shape.0[0], node.operands[1]),
                Op::OneHot(n) | Op::ScatterAdd(n) => demand(*n, node.operands[0]),
                Op::Scan(scan) => self.scan(scan, &node.operands, bodies[v.index()]),
                Op::Yield(_) | Op::Final(_) if node.ty.dtype == DType::I32 => {
                    let Op::Scan(scan) = graph.op(node.operands[0]) else { unreachable!("verified") };
                    let result = match node.op {
                        Op::Yield(i) => scan.yields[i].value,
                        Op::Final(i) => scan.carries[i].next,
                        _ => unreachable!("one of the two"),
                    };
                    self.edges.push((own, bodies[node.operands[0].index()] + result.index()));
                }
                Op::Select if node.ty.dtype == DType::I32 => {
                    let (yes, no) = (node.operands[1], node.operands[2]);
                    self.edges.push((own, first + no.index()));
                    let number = number_chosen_away(graph, node.operands[0], yes);
                    match number.and_then(|number| Some((self.input(scan, graph, yes)?, number))) {
                        Some((input, number)) => self.choices.push((own, input, number)),
                        None => self.edges.push((own, first + yes.index())),
                    }
                }
                // Moved about.
                _ if node.ty.dtype == DType::I32 => {
                    let moved = node.operands.iter().filter(|&&o| !graph.is_float(o));
                    self.edges.extend(moved.map(|o| (own, first + o.index())));
                }
                _ => {}
            }
        }
    }

    /// The input that a value is, or that a body's leaf reads.
    fn input(&self, scan: Option<Value>, graph: &Graph, v: Value) -> Option<usize> {
        let top = self.frames[0].1;
        let outer = match scan {
            None => v,
            Some(node) => {
                let Op::Scan(scan) = top.op(node) else { unreachable!("a frame is a scan's body") };
                let (captures, each, _) = scan.split_operands(top.operands(node));
                match *graph.op(v) {
                    Op::Capture(i) => captures[i],
                    Op::Each(i) => each[i],
                    _ => return None,
                }
            }
        };
        matches!(top.op(outer), Op::Input(_)).then_some(outer.index())
    }

    fn scan(&mut self, scan: &Scan, operands: &[Value], body: usize) {
        let carries = scan.carries.iter().map(|c| c.value);
        let leaves = scan.captures.iter().chain(&scan.each).map(|p| p.value).chain(carries);
        let integer = |v: &Value| !scan.body.is_float(*v);
        for (leaf, operand) in leaves.zip(operands).filter(|(leaf, _)| integer(leaf)) {
            self.edges.push((body + leaf.index(), operand.index()));
        }
        for carry in scan.carries.iter().filter(|c| integer(&c.value)) {
            self.edges.push((body + carry.value.index(), body + carry.next.index()));
        }
    }

    /// The smallest demand that arrives at each value.
    fn spread(&mut self) -> Vec<Option<Demand>> {
        let values = self.frames.iter().map(|(_, graph, first)| first + graph.len()).max().unwrap_or(0);
        self.edges.sort_unstable();
        let mut from = vec![0; values + 1];
        self.edges.iter().for_each(|(v, _)| from[v + 1] += 1);
        for v in 0..values {
            from[v + 1] += from[v];
        }
        self.demands.sort_by_key(|(demand, v)| (demand.rows, *v));
        let mut met: Vec<Option<Demand>> = vec![None; values];
        let mut next = Vec::new();
        for &(demand, v) in &self.demands {
            next.push(v);
            while let Some(v) = next.pop() {
                // What has a demand has a smaller one.
                if met[v].is_none() {
                    met[v] = Some(demand);
                    next.extend(self.edges[from[v]..from[v + 1]].iter().map(|(_, to)| to));
                }
            }
        }
        met
    }

    /// What is made inside and does not meet its demand.
    fn mistakes(&self, met: &[Option<Demand>]) -> Vec<OutOfRange> {
        let mut mistakes = Vec::new();
        for &(scan, graph, first) in &self.frames {
            for v in graph.values() {
                let Some(Demand { rows, location }) = met[first + v.index()] else { continue };
                let node = graph.node(v);
                let index = match node.op {
                    Op::Argmax => Index::Argmax(graph.ty(node.operands[0]).shape.last()),
                    Op::Constant(x) => Index::Constant(x),
                    _ => continue,
                };
                let fits = match index {
                    Index::Argmax(classes) => classes <= rows,
                    Index::Constant(x) => x >= 0.0 && x < rows as f64,
                };
                if !fits {
                    let at = At { scan, value: v };
                    mistakes.push(OutOfRange { index, rows, at, location: node.location.or(location) });
                }
            }
        }
        mistakes
    }
}

/// The number that a mask says a value is not.
fn number_chosen_away(graph: &Graph, mask: Value, of: Value) -> Option<i32> {
    let Op::Binary(Binary::Ne) = graph.op(mask) else { return None };
    let (float, number) = (graph.operands(mask)[0], graph.operands(mask)[1]);
    let Op::Constant(c) = *graph.op(number) else { return None };
    let is_of = matches!(graph.op(float), Op::ToFloat) && graph.operands(float)[0] == of;
    // A float tells these from their neighbours.
    (is_of && c.fract() == 0.0 && c.abs() < f64::from(1 << 24)).then_some(c as i32)
}
