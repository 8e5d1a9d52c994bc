//! A program as a drawing: the DOT language of Graphviz.
//!
//! Every line of the program's text is a box with the same names, so that the two can be read side by side. A scan is
//! a frame around its body: edges from outside end at the leaves of its ports, results start at what the body gives
//! out, and a dashed edge leads from the next value of a state back to the state. Constants stand within the boxes.

use std::fmt::Write;

use super::graph::{Graph, Value};
use super::op::Op;
use super::print::{Names, name, starts_inline};
use super::program::Draft;
use super::scan::Scan;

impl Draft {
    /// The program as a graph for Graphviz: [`dot`].
    pub fn to_dot(&self) -> String {
        dot(self)
    }
}

/// The program in the DOT language, the same text for the same program.
///
/// Like printing, it asks only that values belong to their graphs.
pub fn dot(program: &Draft) -> String {
    let (graph, names) = (&program.graph, Names::of_program(program));
    let mut drawing = Drawing::new(&program.name);
    for input in &program.inputs {
        drawing.leaf(1, "", &names, input.value, INPUT);
    }
    for parameter in &program.parameters {
        drawing.leaf(1, "", &names, parameter.value, PARAMETER);
    }
    for v in names.statements() {
        if let Op::Scan(scan) = graph.op(v) {
            drawing.scan(&names, v, scan);
            continue;
        }
        drawing.computed(1, "", &names, v);
        match (graph.op(v), graph.operands(v)) {
            (Op::Yield(_) | Op::Final(_) | Op::Total(_), &[from]) => drawing.result(&names, v, from),
            (_, operands) => {
                for &operand in operands {
                    drawing.edge(1, &node(graph, &names, "", operand), &id("", &names.label(v)), "");
                }
            }
        }
    }
    for (output, v) in &program.outputs {
        drawing.root(&names, &format!("output {}", name(output)), *v);
    }
    if let Some(v) = program.objective {
        drawing.root(&names, "objective of training", v);
    }
    for update in &program.updates {
        drawing.root(&names, &format!("update {}", names.label(update.target)), update.value);
    }
    drawing.end()
}

/// How boxes look: what comes in, what is learnt, and what goes out; and edges from one step to the next.
pub(crate) const INPUT: &str = "shape=cds, style=filled, fillcolor=lightblue";
pub(crate) const PARAMETER: &str = "shape=ellipse, style=filled, fillcolor=lightyellow";
pub(crate) const OUTPUT: &str = "shape=house, style=filled, fillcolor=lightgreen";
pub(crate) const TO_NEXT_STEP: &str = " [style=dashed, constraint=false]";

/// A text in DOT, line by line.
pub(crate) struct Drawing {
    text: String,
}

impl Drawing {
    /// A graph of this name, with nothing in it.
    pub fn new(name: &str) -> Drawing {
        let mut drawing = Drawing { text: String::new() };
        drawing.line(0, &format!("digraph {} {{", quote(name)));
        drawing.line(1, "rankdir=TB; node [shape=box, fontname=\"monospace\"]; edge [fontname=\"monospace\"];");
        drawing
    }

    /// The whole text.
    pub fn end(self) -> String {
        self.text + "}\n"
    }

    pub fn line(&mut self, depth: usize, line: &str) {
        writeln!(self.text, "{:1$}{line}", "", 2 * depth).expect("a String takes all that is written");
    }

    fn leaf(&mut self, depth: usize, scope: &str, names: &Names, v: Value, style: &str) {
        let label = names.label(v);
        let text = format!("{label}: {}", names.ty(v));
        self.line(depth, &format!("{} [label={}, {style}];", id(scope, &label), quote(&text)));
    }

    fn computed(&mut self, depth: usize, scope: &str, names: &Names, v: Value) {
        let label = names.label(v);
        let text = format!("{}\n{label}: {}", names.expression(v), names.ty(v));
        self.line(depth, &format!("{} [label={}];", id(scope, &label), quote(&text)));
    }

    /// An edge, if something is drawn where it starts.
    fn edge(&mut self, depth: usize, from: &Option<String>, to: &str, style: &str) {
        if let Some(from) = from {
            self.line(depth, &format!("{from} -> {to}{style};"));
        }
    }

    fn root(&mut self, names: &Names, text: &str, v: Value) {
        let label = quote(&format!("{text} = {}", names.label(v)));
        self.line(1, &format!("{} [label={label}, {OUTPUT}];", quote(text)));
        self.edge(1, &node(names.graph(), names, "", v), &quote(text), "");
    }

    /// A frame with the body, and the edges into it.
    fn scan(&mut self, outer: &Names, v: Value, scan: &Scan) {
        let (body, names, scope) = (&scan.body, Names::of_body(scan), outer.label(v));
        self.line(1, &format!("subgraph {} {{", quote(&format!("cluster {scope}"))));
        self.line(2, &format!("label={}; style=rounded;", quote(&outer.statement(v))));
        let leaves = scan.captures.iter().chain(&scan.each).map(|p| p.value);
        let leaves: Vec<Value> = leaves.chain(scan.carries.iter().map(|c| c.value)).collect();
        for &leaf in &leaves {
            let shape = match body.op(leaf) {
                Op::Each(_) => "cds",
                Op::Carry(_) => "box, peripheries=2",
                _ => "ellipse",
            };
            self.leaf(2, &scope, &names, leaf, &format!("shape={shape}"));
        }
        for v in names.statements() {
            self.computed(2, &scope, &names, v);
            for &operand in body.operands(v) {
                self.edge(2, &node(body, &names, &scope, operand), &id(&scope, &names.label(v)), "");
            }
        }
        for carry in &scan.carries {
            let (next, state) = (node(body, &names, &scope, carry.next), id(&scope, &names.label(carry.value)));
            self.edge(2, &next, &state, TO_NEXT_STEP);
        }
        self.line(1, "}");
        for (i, (&operand, &leaf)) in outer.graph().operands(v).iter().zip(&leaves).enumerate() {
            if !starts_inline(outer.graph(), v, i) {
                let from = node(outer.graph(), outer, "", operand);
                self.edge(1, &from, &id(&scope, &names.label(leaf)), "");
            }
        }
    }

    /// The edge from within a scan to the node outside that takes a result.
    fn result(&mut self, outer: &Names, v: Value, from: Value) {
        let Op::Scan(scan) = outer.graph().op(from) else { return };
        let given = match *outer.graph().op(v) {
            Op::Yield(i) => scan.yields.get(i).map(|p| p.value),
            Op::Final(i) => scan.carries.get(i).map(|c| c.next),
            Op::Total(i) => scan.sums.get(i).map(|p| p.value),
            _ => None,
        };
        if let Some(given) = given {
            let from = node(&scan.body, &Names::of_body(scan), &outer.label(from), given);
            self.edge(1, &from, &id("", &outer.label(v)), "");
        }
    }
}

/// Where edges from a value start: a constant within its users' boxes has no box.
fn node(graph: &Graph, names: &Names, scope: &str, v: Value) -> Option<String> {
    let label = names.label(v);
    let drawn = !matches!(graph.op(v), Op::Constant(_)) || label.starts_with('%');
    drawn.then(|| id(scope, &label))
}

/// Printed names hold no `/` outside of quotes, so values of bodies and of the program have different ids.
fn id(scope: &str, label: &str) -> String {
    quote(&if scope.is_empty() { label.to_string() } else { format!("{scope}/{label}") })
}

/// A string of DOT. A new line stays one: everything else that DOT would take as its own is escaped.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", escape(text).replace('\n', "\\n"))
}

/// A string of DOT with lines that begin at the left.
pub(crate) fn quote_lines(lines: &[String]) -> String {
    let lines: String = lines.iter().map(|line| escape(line) + "\\l").collect();
    format!("\"{lines}\"")
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
