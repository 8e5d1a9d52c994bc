//! The plan as a drawing: DOT for Graphviz, and SVG.
//!
//! Each stage is a box with the lines that it has in the plan's text; of a kernel these are its products and nodes. Loops
//! and the ways of sweeps are frames around their stages. There are boxes for the program's inputs and parameters before
//! the stages, and for outputs and updates behind them.
//!
//! An **edge** leads from what writes rows of a buffer to what may read them. Run once, a stage reads what stages before it
//! have written. Within one loop it depends on the rows: a stage reads this step's rows if one before it in the loop has
//! written the same, and otherwise those of the step before. The latter edges would lead upwards: DOT draws them dashed
//! and takes no rank from them, SVG leaves them out. Checkpoints are written and read by the loop whose states they keep.
//!
//! Boxes are numbered in the order in which they run, so all edges but those from step to step lead from a lower number
//! to a higher one, and a frame holds a range of numbers. In SVG, whose frames are laid out one by one, an edge into or
//! out of a frame ends at it.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Access, At, BufferId, Domain, Loop, Plan, Port, Stage, Unit};
use crate::ir::dot::{self, Drawing, TO_NEXT_STEP, quote, quote_lines};
use crate::ir::layout::{self, Block, Picture};
use crate::ir::types::{Axis, DType, Extent, Type};

impl Plan {
    /// The plan in the DOT language of Graphviz, the same text for the same plan: a box for each stage, a frame for each
    /// loop, and edges from what writes a buffer to what reads it, dashed from one step to the next.
    ///
    /// ```
    /// use retrograd_compiler::ir::Program;
    ///
    /// let program = Program::record("sums", |p| {
    ///     let x = p.sequence("x", 3);
    ///     let run = p.scan("cell", |s| {
    ///         let h = s.state("h", 3);
    ///         s.next(h, (h + s.at(x)).tanh())
    ///     });
    ///     p.output("last", run.last());
    /// })?;
    /// let dot = program.plan().to_dot();
    /// assert!(dot.contains(r#"label="loop cell over T\l""#));
    /// assert!(dot.contains(r#""input x" -> "stage 2";"#));
    /// assert!(dot.contains(r#""stage 2" -> "stage 2" [style=dashed, constraint=false];"#));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_dot(&self) -> String {
        let chart = Chart::of(self);
        let mut drawing = Drawing::new(&self.name);
        chart.boxes_in_dot(&mut drawing, &chart.items, 1, &mut 0);
        for &(from, to, way) in &chart.edges() {
            let style = if way == Way::ToNextStep { TO_NEXT_STEP } else { "" };
            let [from, to] = [from, to].map(|i| quote(&chart.boxes[i].id));
            drawing.line(1, &format!("{from} -> {to}{style};"));
        }
        drawing.end()
    }

    /// The plan as SVG, the same text for the same plan: as [`to_dot`](Plan::to_dot), laid out without a tool in
    /// between. Edges from one step to the next are left out.
    ///
    /// ```
    /// use retrograd_compiler::ir::Program;
    ///
    /// let program = Program::record("line", |p| p.output("y", p.affine("line", p.input("x", 3), 2)))?;
    /// let svg = program.plan().to_svg();
    /// assert!(svg.starts_with("<svg") && svg.contains(">p0 = line.b + x · line.w.packed ; [3, 2]</text>"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_svg(&self) -> String {
        let chart = Chart::of(self);
        let edges = chart.edges();
        chart.picture(&chart.items, &edges).document()
    }
}

/// What a box stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Input,
    Parameter,
    Stage,
    Output,
}

/// When what is written is read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Onwards,
    ToNextStep,
}

/// Something that reads and writes buffers.
struct Card {
    id: String,
    lines: Vec<String>,
    kind: Kind,
    reads: Vec<Access>,
    writes: Vec<Access>,
    /// Whether it goes through all steps at once.
    through: bool,
    /// Number of its loop, if it is in one.
    within: Option<usize>,
}

/// A block of rows, one for each sample: the one behind so many others, or behind all steps' blocks and so many more.
#[derive(Clone, Copy)]
enum Place {
    FromBegin(isize),
    FromEnd(isize),
}

impl Place {
    /// Whether it is before another, however many steps there are.
    fn is_before(self, other: Place) -> bool {
        match (self, other) {
            (Place::FromBegin(a), Place::FromBegin(b)) | (Place::FromEnd(a), Place::FromEnd(b)) => a < b,
            _ => false,
        }
    }
}

/// Boxes by number, and frames around them.
enum Item {
    Card(usize),
    Frame { lines: Vec<String>, items: Vec<Item>, boxes: Range<usize> },
}

impl Card {
    /// The first and the last block of rows that an access of it touches.
    fn blocks(&self, at: At) -> [Place; 2] {
        match at {
            At::Shared => [Place::FromBegin(0); 2],
            At::Row(block) if !self.through => [Place::FromBegin(block.cast_signed()); 2],
            At::Row(shift) | At::Step(shift) => {
                [Place::FromBegin(shift.cast_signed()), Place::FromEnd(shift.cast_signed() - 1)]
            }
            At::FromEnd(_, back) => [Place::FromEnd(-back.cast_signed()); 2],
        }
    }
}

impl Item {
    fn boxes(&self) -> Range<usize> {
        match self {
            Item::Card(i) => *i..i + 1,
            Item::Frame { boxes, .. } => boxes.clone(),
        }
    }
}

/// A plan as boxes and frames.
struct Chart<'a> {
    plan: &'a Plan,
    boxes: Vec<Card>,
    items: Vec<Item>,
    /// How many boxes are stages.
    stages: usize,
    loops: usize,
}

impl<'a> Chart<'a> {
    fn of(plan: &'a Plan) -> Chart<'a> {
        let mut chart = Chart { plan, boxes: Vec::new(), items: Vec::new(), stages: 0, loops: 0 };
        let mut items = Vec::new();
        for (kind, word, ports) in
            [(Kind::Input, "input", &plan.inputs), (Kind::Parameter, "parameter", &plan.parameters)]
        {
            for port in ports {
                let dtype = if port.integer { DType::I32 } else { DType::F32 };
                let ty = Type { dtype, extent: port.extent, shape: port.shape.clone().into() };
                let lines = vec![port.name.clone(), ty.to_string()];
                items.push(chart.port(kind, format!("{word} {}", port.name), lines, port));
            }
        }
        items.extend(plan.units.iter().map(|unit| chart.unit(unit, None)));
        for port in &plan.outputs {
            items.push(chart.root(format!("output {}", port.name), port));
        }
        if let Some(port) = &plan.objective {
            items.push(chart.root("objective".to_string(), port));
        }
        for (value, port, parameter) in &plan.updates {
            let ports = if *parameter { &plan.parameters } else { &plan.inputs };
            items.push(chart.root(format!("update {}", ports[*port].name), value));
        }
        chart.items = items;
        chart
    }

    fn add(&mut self, new: Card) -> Item {
        self.boxes.push(new);
        Item::Card(self.boxes.len() - 1)
    }

    fn port(&mut self, kind: Kind, id: String, lines: Vec<String>, port: &Port) -> Item {
        let rows = port.spans.iter().map(|span| span.access).collect();
        let (reads, writes) = if kind == Kind::Output { (rows, vec![]) } else { (vec![], rows) };
        let through = matches!(port.extent, Extent::Time(_));
        self.add(Card { id, lines, kind, reads, writes, through, within: None })
    }

    fn root(&mut self, id: String, port: &Port) -> Item {
        let spans: Vec<String> = port.spans.iter().map(|span| self.plan.span(span)).collect();
        let lines = vec![format!("{id} = {}", spans.join(" ⧺ "))];
        self.port(Kind::Output, id, lines, port)
    }

    fn stage(&mut self, stage: &Stage, swept: Option<Axis>, within: Option<(usize, &Loop)>) -> Item {
        self.stages += 1;
        let (mut reads, mut writes) = (stage.reads.clone(), stage.writes.clone());
        let states = within.iter().flat_map(|(_, l)| &l.states);
        for (kept, state) in states.filter_map(|state| Some((state.checkpoints?, state.begin.buffer))) {
            // Other rows than each other's, so that they join the loop with others and not its stages.
            let touches = |accesses: &[Access]| accesses.iter().any(|access| access.buffer == state);
            for (accesses, at) in [(&mut reads, At::Row(0)), (&mut writes, At::Row(1))] {
                if touches(accesses) {
                    accesses.push(Access { buffer: kept, at });
                }
            }
        }
        let through = matches!(stage.domain, Domain::Time(_));
        let (id, lines) = (format!("stage {}", self.stages), self.plan.lines(stage, swept));
        self.add(Card {
            id,
            lines,
            kind: Kind::Stage,
            reads,
            writes,
            through,
            within: within.map(|(number, _)| number),
        })
    }

    fn frame(&mut self, lines: Vec<String>, fill: impl FnOnce(&mut Self) -> Vec<Item>) -> Item {
        let first = self.boxes.len();
        let items = fill(self);
        Item::Frame { lines, items, boxes: first..self.boxes.len() }
    }

    fn unit(&mut self, unit: &Unit, swept: Option<Axis>) -> Item {
        match unit {
            Unit::Stage(stage) => self.stage(stage, swept, None),
            Unit::Loop(l) => {
                self.loops += 1;
                let number = self.loops;
                let lines = [vec![l.head(swept)], self.plan.checkpoints(l)].concat();
                self.frame(lines, |chart| l.stages.iter().map(|s| chart.stage(s, None, Some((number, l)))).collect())
            }
            Unit::Sweep(sweep) => {
                let [forth, back] = sweep.ways();
                let again = sweep.again();
                self.frame(vec![self.plan.head_of(sweep)], |chart| {
                    let way = |chart: &mut Self, lines: Vec<String>, units: &[Unit]| {
                        chart.frame(lines, |chart| units.iter().map(|u| chart.unit(u, Some(sweep.axis))).collect())
                    };
                    let mut items = vec![way(chart, vec![forth.to_string()], &sweep.forth)];
                    items.extend(sweep.between.iter().map(|unit| chart.unit(unit, None)));
                    if !sweep.back.is_empty() {
                        let lines = std::iter::once(back.to_string()).chain(again).collect();
                        items.push(way(chart, lines, &sweep.back));
                    }
                    items
                })
            }
        }
    }

    /// Which box reads what which has written.
    fn edges(&self) -> BTreeSet<(usize, usize, Way)> {
        let mut writers: Vec<Vec<(usize, At)>> = vec![Vec::new(); self.plan.buffers.len()];
        for (i, writer) in self.boxes.iter().enumerate() {
            for &Access { buffer: BufferId(buffer), at } in &writer.writes {
                writers[buffer].push((i, at));
            }
        }
        let mut edges = BTreeSet::new();
        for (to, reader) in self.boxes.iter().enumerate() {
            for read in &reader.reads {
                for &(from, at) in &writers[read.buffer.0] {
                    let together = reader.within.is_some() && self.boxes[from].within == reader.within;
                    let way = match (together, read.at) {
                        (false, _) => {
                            let [first, last] = reader.blocks(read.at);
                            let [written_first, written_last] = self.boxes[from].blocks(at);
                            let apart = last.is_before(written_first) || written_last.is_before(first);
                            (from < to && !apart).then_some(Way::Onwards)
                        }
                        (true, _) if read.at == at => Some(if from < to { Way::Onwards } else { Way::ToNextStep }),
                        (true, At::Step(_)) => Some(Way::ToNextStep),
                        (true, _) => None,
                    };
                    edges.extend(way.map(|way| (from, to, way)));
                }
            }
        }
        edges
    }

    fn boxes_in_dot(&self, drawing: &mut Drawing, items: &[Item], depth: usize, frames: &mut usize) {
        for item in items {
            match item {
                Item::Card(i) => {
                    let Card { id, lines, kind, .. } = &self.boxes[*i];
                    let (label, style) = match kind {
                        Kind::Input => (quote(&lines.join(": ")), format!(", {}", dot::INPUT)),
                        Kind::Parameter => (quote(&lines.join(": ")), format!(", {}", dot::PARAMETER)),
                        Kind::Stage => (quote_lines(lines), String::new()),
                        Kind::Output => (quote(&lines.join("\n")), format!(", {}", dot::OUTPUT)),
                    };
                    drawing.line(depth, &format!("{} [label={label}{style}];", quote(id)));
                }
                Item::Frame { lines, items, .. } => {
                    *frames += 1;
                    drawing.line(depth, &format!("subgraph \"cluster {frames}\" {{"));
                    drawing.line(depth + 1, &format!("label={}; labeljust=l; style=rounded;", quote_lines(lines)));
                    self.boxes_in_dot(drawing, items, depth + 1, frames);
                    drawing.line(depth, "}");
                }
            }
        }
    }

    fn picture(&self, items: &[Item], edges: &BTreeSet<(usize, usize, Way)>) -> Picture {
        let mut block = Block::default();
        for (place, item) in items.iter().enumerate() {
            let into = |&&(_, to, way): &&(usize, usize, Way)| item.boxes().contains(&to) && way == Way::Onwards;
            let holder = |from: usize| items[..place].iter().position(|item| item.boxes().contains(&from));
            let above: BTreeSet<usize> = edges.iter().filter(into).filter_map(|&(from, ..)| holder(from)).collect();
            let above = above.into_iter().collect();
            // Places are numbered as items are.
            match item {
                Item::Card(i) => {
                    let Card { lines, kind, .. } = &self.boxes[*i];
                    let colour = match kind {
                        Kind::Input => layout::INPUT,
                        Kind::Parameter => layout::PARAMETER,
                        Kind::Stage => "white",
                        Kind::Output => layout::OUTPUT,
                    };
                    block.add(lines.clone(), colour, above)
                }
                Item::Frame { lines, items, .. } => {
                    block.frame(lines.clone(), layout::FRAME, self.picture(items, edges), above)
                }
            };
        }
        block.draw()
    }
}
