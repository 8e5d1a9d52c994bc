//! The plan as text: stages in order, what each reads and writes, and the memory.

use std::fmt;

use super::{
    Access, At, Checkpointing, Domain, Kernel, KernelNode, KernelOp, Loop, Plan, Read, Rows, SUM_BLOCK, Source, Span,
    Stage, Start, Sweep, Unit, Work,
};
use crate::ir::types::Axis;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "plan {} {{", self.name)?;
        for unit in &self.units {
            self.unit(f, unit, "  ", None)?;
        }
        for (value, port, parameter) in &self.updates {
            let ports = if *parameter { &self.parameters } else { &self.inputs };
            writeln!(f, "  update {} = {}", ports[*port].name, self.span(&value.spans[0]))?;
        }
        writeln!(f, "  memory {{")?;
        for slot in &self.slots {
            let rows = match slot.rows {
                Rows::One => String::new(),
                Rows::Batch => " × B".to_string(),
                Rows::Time(a) => format!(" × {}·B", a.letter()),
                Rows::History(a) => format!(" × ({}+1)·B", a.letter()),
                Rows::Segment(a) => format!(" × {}·B", segment(a)),
                Rows::SegmentHistory(a) => format!(" × ({}+1)·B", segment(a)),
                Rows::Checkpoints(a) => format!(" × (⌈{}/{}⌉+1)·B", a.letter(), segment(a)),
                Rows::IfSegments(a) => format!(" if {} < {}", segment(a), a.letter()),
                Rows::BatchIfSegments(a) => format!(" × B if {} < {}", segment(a), a.letter()),
                Rows::IfUneven(a) => {
                    format!(" if {} < {} and {}·B is no multiple of {SUM_BLOCK}", segment(a), a.letter(), segment(a))
                }
            };
            writeln!(f, "    {} bytes{rows}", slot.row_bytes)?;
        }
        writeln!(f, "  }}")?;
        write!(f, "}}")
    }
}

/// The letter of the length of segments of an axis.
fn segment(axis: Axis) -> &'static str {
    ["k", "k1", "k2", "k3"][usize::from(axis.0.min(3))]
}

impl Plan {
    fn unit(&self, f: &mut dyn fmt::Write, unit: &Unit, indent: &str, swept: Option<Axis>) -> fmt::Result {
        let deeper = format!("{indent}  ");
        match unit {
            Unit::Stage(stage) => self.stage(f, stage, indent, swept),
            Unit::Loop(l) => {
                let whole = if self.computes_again() && swept.is_none() { " ; no checkpoints" } else { "" };
                writeln!(f, "{indent}{} {{{whole}", l.head(swept))?;
                for line in self.checkpoints(l) {
                    writeln!(f, "{deeper}{line}")?;
                }
                for stage in &l.stages {
                    self.stage(f, stage, &deeper, None)?;
                }
                writeln!(f, "{indent}}}")
            }
            Unit::Sweep(sweep) => {
                writeln!(f, "{indent}{} {{", self.head_of(sweep))?;
                let [forth, back] = sweep.ways();
                writeln!(f, "{deeper}{forth} {{")?;
                let inner = format!("{deeper}  ");
                for unit in &sweep.forth {
                    self.unit(f, unit, &inner, Some(sweep.axis))?;
                }
                writeln!(f, "{deeper}}}")?;
                for unit in &sweep.between {
                    self.unit(f, unit, &deeper, None)?;
                }
                if !sweep.back.is_empty() {
                    writeln!(f, "{deeper}{back} {{")?;
                    if let Some(again) = sweep.again() {
                        writeln!(f, "{inner}{again}")?;
                    }
                    for unit in &sweep.back {
                        self.unit(f, unit, &inner, Some(sweep.axis))?;
                    }
                    writeln!(f, "{deeper}}}")?;
                }
                writeln!(f, "{indent}}}")
            }
        }
    }

    /// What a sweep is over.
    pub(super) fn head_of(&self, sweep: &Sweep) -> String {
        let (axis, k) = (sweep.axis, segment(sweep.axis));
        let length = match self.checkpointing {
            Some(Checkpointing::Every(n)) => format!("{k} = {n}"),
            Some(Checkpointing::Sqrt) => format!("{k} = ⌈√{}⌉", axis.letter()),
            Some(Checkpointing::Fit(bytes)) => format!("{k} as large as fits {bytes} bytes"),
            Some(Checkpointing::Keep(n)) => format!("{k} = {n}, nothing again"),
            None => format!("{k} as suits a cache"),
        };
        format!("sweep {} in segments of {length}", axis.letter())
    }

    /// A line for each state of a loop that is kept at segments' ends.
    pub(super) fn checkpoints(&self, l: &Loop) -> Vec<String> {
        let name = |buffer| self.name(&Access { buffer, at: At::Shared });
        let kept = l.states.iter().filter_map(|state| Some((state.checkpoints?, state.begin.buffer)));
        kept.map(|(kept, state)| format!("checkpoints {} of {}", name(kept), name(state))).collect()
    }

    /// The lines of a stage.
    pub(super) fn lines(&self, stage: &Stage, swept: Option<Axis>) -> Vec<String> {
        let mut text = String::new();
        self.stage(&mut text, stage, "", swept).expect("a String takes all that is written");
        text.lines().map(|line| line.trim_start().to_string()).collect()
    }

    /// A buffer's name; a number tells buffers of the same name apart.
    fn name(&self, access: &Access) -> String {
        let id = access.buffer.0;
        let name = &self.buffers[id].name;
        let same = self.buffers.iter().enumerate().filter(|(_, b)| b.name == *name);
        let (before, all) = same.fold((0, 0), |(before, all), (i, _)| (before + usize::from(i < id), all + 1));
        if all > 1 { format!("{name}#{}", before + 1) } else { name.clone() }
    }

    fn access(&self, access: &Access) -> String {
        let name = self.name(access);
        match access.at {
            At::Shared | At::Row(0) => name,
            At::Row(block) => format!("{name}[+{block}]"),
            At::Step(0) => format!("{name}[t]"),
            At::Step(shift) => format!("{name}[t+{shift}]"),
            At::FromEnd(axis, 0) => format!("{name}[{}]", axis.letter()),
            At::FromEnd(axis, back) => format!("{name}[{}-{back}]", axis.letter()),
        }
    }

    pub(super) fn span(&self, span: &Span) -> String {
        let name = self.access(&span.access);
        if span.offset == 0 { name } else { format!("{name}.{}..{}", span.offset, span.offset + span.len) }
    }

    fn stage(&self, f: &mut dyn fmt::Write, stage: &Stage, indent: &str, swept: Option<Axis>) -> fmt::Result {
        let rows = match stage.domain {
            Domain::Time(a) if swept == Some(a) => format!("{}·B rows", segment(a)),
            Domain::EachStep(a) if swept == Some(a) => format!("B rows, each of {}", segment(a)),
            Domain::Shared => "one row".to_string(),
            Domain::Batch => "B rows".to_string(),
            Domain::Time(a) => format!("{}·B rows", a.letter()),
            Domain::EachStep(a) => format!("B rows, each {}", a.letter()),
        };
        let s = |span: &Span| self.span(span);
        let text = match &stage.work {
            Work::Kernel(kernel) => return self.kernel(f, stage, kernel, &rows, indent),
            Work::Pack { from, k, n, into, .. } => {
                let from = &self.buffers[from.buffer.0].name;
                let kept = if stage.constant { " ; when parameters change" } else { "" };
                format!("pack {} = {from} [{k}, {n}]{kept}", self.buffers[into.0].name)
            }
            Work::ReduceProduct { a, b, into, offset, sums, .. } => {
                let sum = if swept.is_some() { "+=" } else { "=" };
                let at = if *offset == 0 { String::new() } else { format!("@{offset}") };
                let sums = sums.as_ref().map(|sums| format!(", {} {sum} {}", s(sums), s(b))).unwrap_or_default();
                format!("reduce_product {}{at} {sum} {}ᵀ · {}{sums}", self.buffers[into.0].name, s(a), s(b))
            }
            Work::ReduceRows { from, times, into, .. } => {
                let times = times.as_ref().map(|times| format!(" * {}", s(times))).unwrap_or_default();
                format!("reduce_rows {} {} {}{times}", s(into), if swept.is_some() { "+=" } else { "=" }, s(from))
            }
            Work::MatrixRows { from, into, m, k, n, packed } => {
                format!("product {} = {} · {} [{m}, {k}, {n}]", s(into), s(from), self.buffers[packed.0].name)
            }
            Work::MatMul { a, b, into, mkn, ta, tb } => {
                let t = |t: &bool| if *t { "ᵀ" } else { "" };
                format!("matmul {} = {}{} · {}{} {mkn:?}", s(into), s(a), t(ta), s(b), t(tb))
            }
            Work::Gather { table, index, into, .. } => format!("gather {} = {}[{}]", s(into), s(table), s(index)),
            Work::Scatter { index, from, into, .. } => format!("scatter {}[{}] += {}", s(into), s(index), s(from)),
            Work::OneHot { index, into, n } => format!("one_hot {} = {} of {n}", s(into), s(index)),
            Work::Argmax { from, into, .. } => format!("argmax {} = {}", s(into), s(from)),
            Work::ToFloat { from, into } => format!("to_float {} = {}", s(into), s(from)),
            Work::Choose { mask, yes, no, into } => {
                format!("choose {} = {} ? {} : {}", s(into), s(mask), s(yes), s(no))
            }
            Work::Copy { from, into, dims, strides, .. } if dims.len() > 1 => {
                format!("copy {} = {} {dims:?} strides {strides:?}", s(into), s(from))
            }
            Work::Copy { from, into, .. } => format!("copy {} = {}", s(into), s(from)),
            Work::Fill { into, value } => format!("fill {} = {value}", s(into)),
            Work::Within { from, into } => format!("within {} = {}", s(into), s(from)),
            Work::PlaceLast { from, into, .. } => format!("place_last {} = {}", s(into), s(from)),
        };
        writeln!(f, "{indent}{text} ; {rows}")
    }

    fn kernel(&self, f: &mut dyn fmt::Write, stage: &Stage, kernel: &Kernel, rows: &str, indent: &str) -> fmt::Result {
        match &kernel.tile {
            Some(tile) => writeln!(f, "{indent}tile {} features ; {rows}", tile.n)?,
            None => writeln!(f, "{indent}row kernel ; {rows}")?,
        }
        if let Some(tile) = &kernel.tile {
            for (i, product) in tile.products.iter().enumerate() {
                let terms: Vec<String> = product
                    .segments
                    .iter()
                    .map(|&(read, offset, len)| self.span(&Span { access: stage.reads[read], offset, len }))
                    .collect();
                let packed = self.name(&stage.reads[product.read]);
                let start = product.start.map(|start| match start {
                    Start::Memory(read, offset) => {
                        self.span(&Span { access: stage.reads[read], offset, len: tile.n }) + " + "
                    }
                    Start::Product(before) => format!("p{before} + "),
                });
                let (start, terms) = (start.unwrap_or_default(), terms.join(" ⧺ "));
                writeln!(f, "{indent}  p{i} = {start}{terms} · {packed} ; [{}, {}]", product.k, tile.n)?;
            }
            for &(product, write, offset) in &tile.stores {
                let into = self.span(&Span { access: stage.writes[write], offset, len: tile.n });
                writeln!(f, "{indent}  {into} = p{product}")?;
            }
        }
        for (i, node) in kernel.nodes.iter().enumerate() {
            let name = match node.op {
                KernelOp::Copy => "copy".to_string(),
                KernelOp::Unary(u) => crate::ir::Op::Unary(u).name().to_string(),
                KernelOp::Binary(b) => crate::ir::Op::Binary(b).name().to_string(),
                KernelOp::Select => "select".to_string(),
                KernelOp::Sum => "sum".to_string(),
                KernelOp::Max => "max_over".to_string(),
            };
            let operands: Vec<String> = node.reads.iter().map(|r| self.read(stage, node, r)).collect();
            let stores: String = node
                .stores
                .iter()
                .map(|&(w, offset)| {
                    format!(" -> {}", self.span(&Span { access: stage.writes[w], offset, len: node.len }))
                })
                .collect();
            writeln!(f, "{indent}  %{i} = {name} {}{stores}", operands.join(", "))?;
        }
        Ok(())
    }

    fn read(&self, stage: &Stage, node: &KernelNode, read: &Read) -> String {
        let seen = |name: String| {
            if read.is_flat(&node.dims) || read.is_scalar() {
                name
            } else {
                format!("{name} strides {:?}", read.strides)
            }
        };
        match read.source {
            Source::Node(i) => seen(format!("%{i}")),
            Source::Product(i) => format!("p{i}"),
            Source::Constant(c) => format!("{c}"),
            Source::Memory(a) => seen(self.span(&Span { access: stage.reads[a], offset: read.offset, len: node.len })),
        }
    }
}

impl Loop {
    /// What it is over, in a sweep over an axis or in none.
    pub(super) fn head(&self, swept: Option<Axis>) -> String {
        let over = if swept.is_some() { segment(self.axis) } else { self.axis.letter() };
        format!("loop {} over {over}{}", self.name, if self.reverse { " reverse" } else { "" })
    }
}

impl Sweep {
    /// Its two ways.
    pub(super) fn ways(&self) -> [&'static str; 2] {
        if self.reverse { ["forth reverse", "back"] } else { ["forth", "back reverse"] }
    }

    /// What runs again on the way back, if anything does.
    pub(super) fn again(&self) -> Option<String> {
        let names = self.again.iter().map(|&i| match &self.forth[i] {
            Unit::Stage(stage) => stage.name.clone(),
            Unit::Loop(l) => format!("loop {}", l.name),
            Unit::Sweep(_) => unreachable!("sweeps do not run again"),
        });
        let names: Vec<String> = names.collect();
        (!names.is_empty()).then(|| format!("again {} ; not in the first segment", names.join(", ")))
    }
}

impl Rows {
    /// The time axis, where there is one.
    pub fn axis(self) -> Option<Axis> {
        match self {
            Rows::Time(a) | Rows::History(a) => Some(a),
            Rows::Segment(a) | Rows::SegmentHistory(a) | Rows::Checkpoints(a) => Some(a),
            Rows::IfSegments(a) | Rows::BatchIfSegments(a) | Rows::IfUneven(a) => Some(a),
            Rows::One | Rows::Batch => None,
        }
    }
}
