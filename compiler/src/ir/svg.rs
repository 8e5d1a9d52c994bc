//! A program as a picture: SVG, laid out in layers, without a tool in between.
//!
//! It shows what [`dot`](super::dot) shows: every line of the program's text is a box with the same names, and a scan
//! is a frame around its body. Edges go from top to bottom; within a body, a state's next value is a box of its own,
//! below everything, so that the loop back need not be drawn.
//!
//! A body is laid out first (see `layout`), and is a box of its size in the program's picture.

use super::graph::{Graph, Value};
use super::layout::{Block, FRAME, INPUT, OUTPUT, PARAMETER, Picture};
use super::op::Op;
use super::print::{Names, name, starts_inline};
use super::program::Draft;
use super::scan::Scan;

impl Draft {
    /// The program as a drawing: [`svg`].
    pub fn to_svg(&self) -> String {
        svg(self)
    }
}

/// The program as SVG, the same text for the same program.
///
/// Like printing, it asks only that values belong to their graphs.
pub fn svg(program: &Draft) -> String {
    let names = Names::of_program(program);
    let mut boxes = Boxes::new(&names);
    for input in &program.inputs {
        boxes.leaf(input.value, INPUT);
    }
    for parameter in &program.parameters {
        boxes.leaf(parameter.value, PARAMETER);
    }
    boxes.statements();
    for (output, v) in &program.outputs {
        boxes.root(&format!("output {}", name(output)), *v);
    }
    if let Some(v) = program.objective {
        boxes.root("objective", v);
    }
    for update in &program.updates {
        boxes.root(&format!("update {}", names.label(update.target)), update.value);
    }
    boxes.block.draw().document()
}

/// The body of a scan.
fn body(scan: &Scan) -> Picture {
    let names = Names::of_body(scan);
    let mut boxes = Boxes::new(&names);
    for port in scan.each.iter().chain(&scan.captures) {
        boxes.leaf(port.value, "#e8eef2");
    }
    for carry in &scan.carries {
        boxes.leaf(carry.value, "#ead9f2");
    }
    boxes.statements();
    for carry in &scan.carries {
        boxes.root(&format!("next {}", names.label(carry.value)), carry.next);
    }
    for (kind, ports) in [("yield", &scan.yields), ("sum", &scan.sums)] {
        for port in ports {
            boxes.root(&format!("{kind} {}", name(&port.name)), port.value);
        }
    }
    boxes.block.draw()
}

/// The boxes of one graph.
struct Boxes<'a> {
    names: &'a Names<'a>,
    block: Block,
    /// The box of each value that has one.
    of: Vec<Option<usize>>,
}

impl<'a> Boxes<'a> {
    fn new(names: &'a Names<'a>) -> Boxes<'a> {
        Boxes { names, block: Block::default(), of: vec![None; names.graph().len()] }
    }

    fn leaf(&mut self, v: Value, colour: &'static str) {
        self.of[v.index()] =
            Some(self.block.add(vec![self.names.label(v), self.names.ty(v).to_string()], colour, vec![]));
    }

    fn root(&mut self, text: &str, v: Value) {
        let from = self.of[v.index()];
        let lines =
            if from.is_some() { vec![text.to_string()] } else { vec![format!("{text} = {}", self.names.label(v))] };
        self.block.add(lines, OUTPUT, from.into_iter().collect());
    }

    fn statements(&mut self) {
        let (names, graph): (&Names, &Graph) = (self.names, self.names.graph());
        for v in names.statements() {
            let drawn = |(i, o): (usize, &Value)| if starts_inline(graph, v, i) { None } else { self.of[o.index()] };
            let mut above: Vec<usize> = graph.operands(v).iter().enumerate().filter_map(drawn).collect();
            above.sort_unstable();
            above.dedup();
            let place = match graph.op(v) {
                Op::Scan(scan) => self.block.frame(vec![names.statement(v)], FRAME, body(scan), above),
                _ => self.block.add(
                    vec![names.expression(v), format!("{}: {}", names.label(v), names.ty(v))],
                    "white",
                    above,
                ),
            };
            self.of[v.index()] = Some(place);
        }
    }
}
