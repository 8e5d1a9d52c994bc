//! Texts of random programs: any op of the table on any values that it fits, in loops and around them.
//!
//! An op is chosen, then operands until the op's own type rule takes them, so whatever the rule takes occurs. Dimensions
//! are of a few sizes for each program, so that shapes meet. Numbers are kept where agreement means something: what
//! grows is squashed, arguments of ln, √, ÷ and powers are kept positive, and what decides (comparisons, signs, maxima)
//! looks at values that are given or at ones that are shifted by odd numbers, since a structural 0 may be rounded to
//! either side.
//!
//! What a text says of integers, it can keep: each has a bound that follows from where it is from.

use std::fmt::Write;

use retrograd::compiler::ir::op::{Binary, Norm, Unary};
use retrograd::compiler::ir::{Axis, DType, Extent, Op, Shape, Type};

use crate::Random;

/// Most features of a row.
const WIDEST: usize = 64;
const UNARY: [Unary; 19] = [
    Unary::Neg,
    Unary::Abs,
    Unary::Sign,
    Unary::Sqrt,
    Unary::Exp,
    Unary::Expm1,
    Unary::Ln,
    Unary::Log1p,
    Unary::Tanh,
    Unary::Sigmoid,
    Unary::Silu,
    Unary::Softplus,
    Unary::Relu,
    Unary::Erf,
    Unary::NormalCdf,
    Unary::Gelu,
    Unary::Sin,
    Unary::Cos,
    Unary::Powi(0),
];
const BINARY: [Binary; 13] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Div,
    Binary::Pow,
    Binary::Min,
    Binary::Max,
    Binary::Gt,
    Binary::Ge,
    Binary::Lt,
    Binary::Le,
    Binary::Eq,
    Binary::Ne,
];

#[derive(Clone)]
struct Named {
    label: String,
    ty: Type,
    /// Integers are below it.
    bound: usize,
    /// Given from outside: no rounding has been at it.
    is_given: bool,
}

/// A program or the body of a loop while it is written.
struct Block {
    values: Vec<Named>,
    lines: Vec<String>,
    count: usize,
    in_body: bool,
}

struct Generator<'r> {
    rng: &'r mut Random,
    dimensions: Vec<usize>,
    axes: u8,
}

/// The text of a program with so many nodes, about.
pub fn program(rng: &mut Random, nodes: usize) -> String {
    let mut dimensions = vec![1];
    for _ in 0..2 {
        dimensions.push(rng.of(&[2, 3, 4, 5, 7, 8, 9, 16, 17, 33]));
    }
    let axes = if rng.once_in(5) { 2 } else { 1 };
    Generator { rng, dimensions, axes }.program(nodes)
}

impl Generator<'_> {
    fn dimension(&mut self) -> usize {
        if self.rng.once_in(12) { self.rng.of(&[6, 10, 31]) } else { self.rng.of(&self.dimensions) }
    }

    fn shape(&mut self) -> Shape {
        let rank = self.rng.of(&[0, 1, 1, 1, 1, 2, 2, 3]);
        let mut shape = Shape((0..rank).map(|_| self.dimension()).collect());
        while shape.len() > WIDEST {
            shape.0.pop();
        }
        shape
    }

    fn program(mut self, nodes: usize) -> String {
        let mut text = format!("program {} {{\n", self.rng.of(&["random", "\"odd name\"", "a.b"]));
        for axis in 0..self.axes {
            let _ = writeln!(text, "  axis {} = {}", Axis(axis).letter(), ["time", "other"][usize::from(axis)]);
        }
        let mut block = Block { values: Vec::new(), lines: Vec::new(), count: 0, in_body: false };
        let mut parameters = String::new();
        let mut stored = Vec::new();
        // The first inputs are sequences of each axis, so that there are rows.
        let extents: Vec<Extent> = (0..self.axes).map(|a| Extent::Time(Axis(a))).collect();
        let inputs = extents.len() + 2 + self.rng.below(4);
        for i in 0..inputs {
            let extent = match i {
                i if i < extents.len() => extents[i],
                _ => self.rng.of(&[[Extent::Batch, Extent::Batch, Extent::Shared].as_slice(), &extents].concat()),
            };
            let is_integer = i >= extents.len() && self.rng.once_in(4);
            let shape = if is_integer && !self.rng.once_in(3) { Shape::scalar() } else { self.shape() };
            let name = self.name("x", i);
            let bound = 1 + self.rng.below(6);
            let mut ty = Type::float(extent, shape);
            if is_integer {
                ty.dtype = DType::I32;
            }
            let role = match extent {
                Extent::Shared => "shared",
                Extent::Batch => "batch",
                Extent::Time(_) => "sequence",
            };
            let _ = write!(text, "  {role} {name}: {ty}");
            let _ = if is_integer { writeln!(text, " < {bound}") } else { writeln!(text) };
            if !is_integer && extent == Extent::Shared {
                stored.push(block.values.len());
            }
            block.values.push(Named { label: name, ty, bound, is_given: true });
        }
        for i in 0..2 + self.rng.below(4) {
            let shape = if i == 0 { Shape(vec![self.dimension(), self.dimension()]) } else { self.shape() };
            let (name, ty) = (self.name("w", i), Type::float(Extent::Shared, shape));
            let init = self.rng.of(&["glorot", "normal(0.5)", "0.25", "uniform(-1, 1)"]);
            let init = if ty.shape.rank() == 2 { init } else { "normal(0.5)" };
            let _ = writeln!(parameters, "  parameter {name}: {ty} = {init}");
            stored.push(block.values.len());
            block.values.push(Named { label: name, ty, bound: 0, is_given: true });
        }
        let leaves = block.values.len();
        self.constants(&mut block);
        let before = 1 + self.rng.below(nodes);
        self.grow(&mut block, before);
        for k in 0..self.rng.of(&[0, 1, 1, 1, 1, 2]) {
            self.scan(&mut block, k, nodes);
        }
        let after = self.rng.below(nodes);
        self.grow(&mut block, after);
        self.outputs(&mut block, leaves, &stored);
        text + &parameters + &block.lines.concat() + "}\n"
    }

    /// A name, now and then one that must be quoted.
    fn name(&mut self, kind: &str, i: usize) -> String {
        if self.rng.once_in(20) { format!("\"{kind} {i}λ\"") } else { format!("{kind}{i}") }
    }

    fn outputs(&mut self, block: &mut Block, leaves: usize, stored: &[usize]) {
        let made: Vec<usize> = (leaves..block.values.len()).collect();
        let mut loss: Option<usize> = None;
        let mut outputs = Vec::new();
        for (n, &i) in made.iter().rev().enumerate() {
            if n > 0 && !self.rng.once_in(3) {
                continue;
            }
            if !block.values[i].label.starts_with('%') {
                continue;
            }
            outputs.push(i);
            if outputs.len() < 4 && block.values[i].ty.is_float() {
                let part = self.shared_scalar(block, i);
                loss = match (loss, part) {
                    (Some(l), Some(p)) => self.emit(block, Op::Binary(Binary::Add), &[l, p]),
                    (l, p) => l.or(p),
                };
            }
        }
        for (n, i) in outputs.into_iter().enumerate() {
            block.lines.push(format!("  output y{n} = {}\n", block.values[i].label));
        }
        if let Some(loss) = loss.filter(|_| !self.rng.once_in(6)) {
            block.lines.push(format!("  objective {}\n", block.values[loss].label));
        } else if loss.is_none() {
            block.lines.push("  output none = 1\n".to_string());
        }
        if self.rng.once_in(4) {
            let target = &block.values[self.rng.of(stored)];
            let fits: Vec<&Named> =
                block.values.iter().filter(|v| v.ty == target.ty && v.label != target.label).collect();
            if !fits.is_empty() {
                block.lines.push(format!("  update {} = {}\n", target.label, self.rng.of(&fits).label));
            }
        }
    }

    /// Squashed, and summed over features and rows.
    fn shared_scalar(&mut self, block: &mut Block, i: usize) -> Option<usize> {
        let squash = Op::Unary(self.rng.of(&[Unary::Tanh, Unary::Sin]));
        let mut v = self.emit(block, squash, &[i])?;
        let shape = block.values[v].ty.shape.clone();
        if shape.rank() > 0 {
            v = self.emit(block, Op::Sum(Shape(vec![1; shape.rank()])), &[v])?;
            v = self.emit(block, Op::Reshape(Shape::scalar()), &[v])?;
        }
        let extent = block.values[v].ty.extent;
        if extent != Extent::Shared {
            v = self.emit(block, Op::SumRows(Extent::Shared), &[v])?;
            let rows = self.leaf(block, &format!("row_count [{}]", extent.letters()), Type::float(Extent::Shared, ()));
            v = self.emit(block, Op::Binary(Binary::Div), &[v, rows])?;
        }
        Some(v)
    }

    fn constants(&mut self, block: &mut Block) {
        for x in [0.0, 1.0, -0.5, 2.0] {
            if self.rng.once_in(2) {
                continue;
            }
            let extent = self.rng.of(&[Extent::Shared, Extent::Shared, Extent::Batch]);
            let ty = Type::float(extent, if self.rng.once_in(2) { Shape::scalar() } else { self.shape() });
            self.constant(block, x, ty);
        }
    }

    fn constant(&mut self, block: &mut Block, x: f64, ty: Type) -> usize {
        if ty == Type::float(Extent::Shared, ()) {
            block.values.push(Named { label: format!("{x}"), ty, bound: 0, is_given: false });
            return block.values.len() - 1;
        }
        self.leaf(block, &format!("constant {x}"), ty)
    }

    fn leaf(&mut self, block: &mut Block, text: &str, ty: Type) -> usize {
        let indent = if block.in_body { "    " } else { "  " };
        let label = format!("%{}", block.count);
        block.count += 1;
        block.lines.push(format!("{indent}{label}: {ty} = {text}\n"));
        block.values.push(Named { label, ty, bound: 0, is_given: false });
        block.values.len() - 1
    }

    /// Writes an op, if it takes these operands.
    fn emit(&mut self, block: &mut Block, op: Op, operands: &[usize]) -> Option<usize> {
        let types: Vec<&Type> = operands.iter().map(|&i| &block.values[i].ty).collect();
        let ty = op.infer(&types).ok()?;
        if ty.shape.len() > WIDEST || (block.in_body && matches!(ty.extent, Extent::Time(_))) {
            return None;
        }
        let bound = match &op {
            Op::Argmax => types[0].shape.last(),
            Op::Select => block.values[operands[1]].bound.max(block.values[operands[2]].bound),
            _ => operands.first().map_or(0, |&i| block.values[i].bound),
        };
        let labels: Vec<&str> = operands.iter().map(|&i| block.values[i].label.as_str()).collect();
        let text = format!("{}{} {}{}", op.name(), suffix(&op), labels.join(", "), attributes(&op));
        let v = self.leaf(block, &text, ty);
        block.values[v].bound = bound;
        Some(v)
    }

    /// A float, of late ones more often.
    fn float(&mut self, block: &Block) -> usize {
        let floats: Vec<usize> = (0..block.values.len()).filter(|&i| block.values[i].ty.is_float()).collect();
        let n = floats.len();
        floats[self.rng.below(n).max(self.rng.below(n))]
    }

    /// An operand for a partner: of the same shape, or a scalar, or whatever.
    fn beside(&mut self, block: &Block, i: usize) -> usize {
        let shape = &block.values[i].ty.shape;
        let fits: Vec<usize> = (0..block.values.len())
            .filter(|&j| block.values[j].ty.is_float())
            .filter(|&j| block.values[j].ty.shape == *shape || block.values[j].ty.shape.rank() == 0)
            .collect();
        self.rng.of(&fits)
    }

    /// A value for what decides: one that was given, or one that is shifted.
    fn decided(&mut self, block: &mut Block, i: usize) -> Option<usize> {
        if block.values[i].is_given { Some(i) } else { self.shifted(block, i) }
    }

    /// A value and an odd number.
    fn shifted(&mut self, block: &mut Block, i: usize) -> Option<usize> {
        let x = self.rng.of(&[0.0713, -0.0391, 0.1337]);
        let shift = self.constant(block, x, Type::float(Extent::Shared, ()));
        self.emit(block, Op::Binary(Binary::Add), &[i, shift])
    }

    /// x² + ½.
    fn positive(&mut self, block: &mut Block, i: usize) -> Option<usize> {
        let square = self.emit(block, Op::Unary(Unary::Powi(2)), &[i])?;
        let half = self.constant(block, 0.5, Type::float(Extent::Shared, ()));
        self.emit(block, Op::Binary(Binary::Add), &[square, half])
    }

    fn grow(&mut self, block: &mut Block, nodes: usize) {
        for _ in 0..nodes {
            for _ in 0..20 {
                let Some(v) = self.node(block) else { continue };
                // What grows is squashed, and so are others now and then.
                if block.values[v].ty.is_float() && self.rng.once_in(3) {
                    self.emit(block, Op::Unary(Unary::Tanh), &[v]);
                }
                break;
            }
        }
    }

    fn squashed(&mut self, block: &mut Block, i: usize) -> Option<usize> {
        self.emit(block, Op::Unary(Unary::Tanh), &[i])
    }

    fn node(&mut self, block: &mut Block) -> Option<usize> {
        let x = self.float(block);
        let ty = block.values[x].ty.clone();
        let shape = ty.shape.clone();
        let axis = self.rng.below(shape.rank().max(1));
        let n = shape.0.get(axis).copied().unwrap_or(1);
        match self.rng.below(26) {
            0..4 => self.unary(block, x),
            4..8 => self.binary(block, x),
            8 => {
                let (a, b) = (self.beside(block, x), self.beside(block, x));
                let c = self.decided(block, a)?;
                let gate = if self.rng.once_in(2) {
                    let zero = self.constant(block, 0.0, Type::float(Extent::Shared, ()));
                    self.emit(block, Op::Binary(Binary::Gt), &[c, zero])?
                } else {
                    c
                };
                let mut operands = [gate, x, b];
                if self.rng.once_in(3) {
                    operands.swap(1, 2);
                }
                self.emit(block, Op::Select, &operands)
            }
            9 => self.emit(block, Op::StopGradient, &[x]),
            10 => {
                let start = self.rng.below(n);
                let len = 1 + self.rng.below(n - start);
                self.emit(block, Op::Slice { axis, start, len }, &[x])
            }
            11 => {
                let (before, after) = (self.rng.below(3), self.rng.below(3));
                self.emit(block, Op::Pad { axis, before, after }, &[x])
            }
            12 => {
                let parts: Vec<usize> = (0..1 + self.rng.below(3)).map(|_| self.float(block)).collect();
                let mut operands = vec![x];
                for p in parts {
                    let fits = block.values[p].ty.shape.rank() == shape.rank()
                        && (0..shape.rank()).all(|d| d == axis || block.values[p].ty.shape.0[d] == shape.0[d]);
                    operands.push(if fits { p } else { x });
                }
                self.emit(block, Op::Concat(axis), &operands)
            }
            13 => {
                let to = self.rng.of(&[
                    Shape(vec![shape.len()]),
                    Shape(vec![1, shape.len()]),
                    Shape(vec![shape.len(), 1]),
                    Shape(shape.0.iter().rev().copied().collect()),
                    if shape.len() == 1 { Shape::scalar() } else { Shape(vec![shape.len()]) },
                ]);
                self.emit(block, Op::Reshape(to), &[x])
            }
            14 => {
                let mut order: Vec<usize> = (0..shape.rank()).collect();
                order.rotate_left(axis);
                if self.rng.once_in(2) {
                    order.reverse();
                }
                self.emit(block, Op::Transpose(order), &[x])
            }
            15 if shape.rank() > 0 => {
                let reduced = if self.rng.once_in(2) { shape.with(axis, 1) } else { Shape(vec![1; shape.rank()]) };
                if self.rng.once_in(3) {
                    // Two equal features decide by rounding, unless each is shifted by a number of its own.
                    let given = (0..block.values.len())
                        .filter(|&i| block.values[i].is_given && block.values[i].ty.shape == shape);
                    let given: Vec<usize> = given.filter(|&i| block.values[i].ty.is_float()).collect();
                    if given.is_empty() {
                        return None;
                    }
                    let apart = self.rng.of(&given);
                    let shifted = self.emit(block, Op::Binary(Binary::Add), &[x, apart])?;
                    let op = if self.rng.once_in(2) { Op::Argmax } else { Op::Max(reduced) };
                    return self.emit(block, op, &[shifted]);
                }
                let sum = self.emit(block, Op::Sum(reduced), &[x])?;
                self.squashed(block, sum)
            }
            16 if shape.rank() > 0 => {
                let to = self.dimension();
                if shape.0[axis] == 1 { self.emit(block, Op::Broadcast(shape.with(axis, to)), &[x]) } else { None }
            }
            17 if shape.rank() > 0 => {
                let norm = Norm { centred: self.rng.once_in(2), epsilon: self.rng.of(&[0.5, 0.1]) };
                let op = if self.rng.once_in(3) { Op::Divisor(norm) } else { Op::Norm(norm) };
                self.emit(block, op, &[x])
            }
            18..21 => {
                let op = match self.rng.below(6) {
                    0 | 1 => Op::Dot,
                    2 => Op::DotNt,
                    3 => Op::DotTn,
                    _ => Op::MatMul { ta: self.rng.once_in(2), tb: self.rng.once_in(2) },
                };
                for _ in 0..12 {
                    let y = self.float(block);
                    if let Some(v) = self.emit(block, op.clone(), &[x, y]) {
                        return self.squashed(block, v);
                    }
                }
                None
            }
            21 | 22 => self.index(block, x),
            23 => {
                let time = Extent::Time(Axis(self.rng.below(usize::from(self.axes)) as u8));
                let to = self.rng.of(&[Extent::Shared, Extent::Batch, time]);
                if self.rng.once_in(2) && to < ty.extent {
                    let sum = self.emit(block, Op::SumRows(to), &[x])?;
                    return self.squashed(block, sum);
                }
                self.emit(block, Op::Expand(to), &[x])
            }
            24 => {
                let axis = Axis(self.rng.below(usize::from(self.axes)) as u8);
                let op = self.rng.of(&[Op::Last, Op::PlaceLast(axis)]);
                self.emit(block, op, &[x])
            }
            _ => {
                let extent = self.rng.of(&[Extent::Batch, Extent::Time(Axis(0))]);
                if block.in_body && extent != Extent::Batch {
                    return None;
                }
                let rows =
                    self.leaf(block, &format!("row_count [{}]", extent.letters()), Type::float(Extent::Shared, ()));
                self.emit(block, Op::Binary(Binary::Div), &[x, rows])
            }
        }
    }

    fn unary(&mut self, block: &mut Block, x: usize) -> Option<usize> {
        let mut op = self.rng.of(&UNARY);
        let x = match op {
            Unary::Abs | Unary::Sign | Unary::Relu => self.decided(block, x)?,
            Unary::Sqrt | Unary::Ln | Unary::Log1p => self.positive(block, x)?,
            Unary::Exp | Unary::Expm1 => self.squashed(block, x)?,
            Unary::Powi(_) => {
                op = Unary::Powi(self.rng.of(&[-3, -2, -1, 0, 1, 2, 3, 4, 5]));
                if matches!(op, Unary::Powi(n) if n < 0) { self.positive(block, x)? } else { self.squashed(block, x)? }
            }
            _ => x,
        };
        self.emit(block, Op::Unary(op), &[x])
    }

    fn binary(&mut self, block: &mut Block, x: usize) -> Option<usize> {
        let mut op = self.rng.of(&BINARY);
        // What was computed may be equal by a rounding that moves it nowhere else.
        if matches!(op, Binary::Eq | Binary::Ne) && !block.values[x].is_given {
            op = Binary::Gt;
        }
        let mut y = self.beside(block, x);
        let mut x = x;
        match op {
            Binary::Div => y = self.positive(block, y)?,
            Binary::Pow => {
                x = self.positive(block, x)?;
                y = self.squashed(block, y)?;
                let v = self.emit(block, Op::Binary(op), &[x, y])?;
                return self.squashed(block, v);
            }
            Binary::Mul => {
                let v = self.emit(block, Op::Binary(op), &[x, y])?;
                return self.squashed(block, v);
            }
            Binary::Add | Binary::Sub => {}
            // What decides: a number beside its own tanh is as good as equal where both are small.
            _ => {
                let (a, b) = (self.shifted(block, x)?, self.squashed(block, y)?);
                (x, y) = (a, b);
            }
        }
        if self.rng.once_in(3) && !matches!(op, Binary::Div) {
            (x, y) = (y, x);
        }
        self.emit(block, Op::Binary(op), &[x, y])
    }

    /// Something with integers.
    fn index(&mut self, block: &mut Block, x: usize) -> Option<usize> {
        let integers: Vec<usize> = (0..block.values.len()).filter(|&i| !block.values[i].ty.is_float()).collect();
        if integers.is_empty() {
            return None;
        }
        let i = self.rng.of(&integers);
        let bound = block.values[i].bound;
        match self.rng.below(6) {
            0 => self.emit(block, Op::ToFloat, &[i]).and_then(|v| self.squashed(block, v)),
            1 => {
                let n = bound + self.rng.below(3);
                self.emit(block, Op::OneHot(n), &[i])
            }
            2 => {
                let rows = bound + self.rng.below(3);
                let sum = self.emit(block, Op::ScatterAdd(rows), &[i, x])?;
                self.squashed(block, sum)
            }
            3 => {
                let j = self.rng.of(&integers);
                let gate = self.decided(block, x)?;
                self.emit(block, Op::Select, &[gate, i, j])
            }
            _ => {
                let fits = |t: &Named| {
                    t.ty.is_float()
                        && t.ty.extent == Extent::Shared
                        && t.ty.shape.rank() > 0
                        && t.ty.shape.0[0] >= bound
                };
                let tables: Vec<usize> = (0..block.values.len()).filter(|&t| fits(&block.values[t])).collect();
                if tables.is_empty() {
                    return None;
                }
                let table = self.rng.of(&tables);
                self.emit(block, Op::Gather, &[table, i])
            }
        }
    }

    fn scan(&mut self, outer: &mut Block, k: usize, nodes: usize) {
        let axis = Axis(self.rng.below(usize::from(self.axes)) as u8);
        let time = Extent::Time(axis);
        let mut body = Block { values: Vec::new(), lines: Vec::new(), count: 0, in_body: true };
        let (mut captures, mut each, mut carries) = (Vec::new(), Vec::new(), Vec::new());
        for (n, v) in outer.values.clone().into_iter().enumerate() {
            if !(v.label.starts_with('%') || v.is_given) {
                continue;
            }
            match v.ty.extent {
                Extent::Time(a) if a == axis && self.rng.once_in(2) => {
                    let ty = v.ty.at(Extent::Batch);
                    each.push(format!("    each e{n}: {ty} = {}\n", v.label));
                    body.values.push(Named { label: format!("e{n}"), ty, bound: v.bound, is_given: v.is_given });
                }
                Extent::Shared | Extent::Batch if self.rng.once_in(2) => {
                    let role = if v.ty.extent == Extent::Shared { "shared" } else { "batch" };
                    captures.push(format!("    {role} c{n}: {} = {}\n", v.ty, v.label));
                    body.values.push(Named { label: format!("c{n}"), ..v });
                }
                _ => {}
            }
        }
        // States start from a value or a number.
        let mut states = Vec::new();
        let starts: Vec<Named> = outer
            .values
            .iter()
            .filter(|v| !matches!(v.ty.extent, Extent::Time(_)) && v.ty.is_float())
            .cloned()
            .collect();
        for n in 0..self.rng.of(&[0, 1, 1, 1, 2, 3]) {
            let from = self.rng.of(&starts);
            let is_value = (from.label.starts_with('%') || from.is_given) && self.rng.once_in(2);
            let (ty, from) = match is_value {
                true => (from.ty, from.label),
                false => (Type::float(Extent::Batch, self.shape()), self.rng.of(&["0", "1", "-0.5"]).to_string()),
            };
            carries.push(format!("    carry s{n}: {ty} = {from}\n"));
            states.push((format!("s{n}"), ty.clone()));
            body.values.push(Named { label: format!("s{n}"), ty, bound: 0, is_given: false });
        }
        // States of integers: what is next is below the same bound.
        let integers: Vec<Named> = outer
            .values
            .iter()
            .filter(|v| !v.ty.is_float() && v.ty.extent == Extent::Batch && v.label.len() > 1)
            .cloned()
            .collect();
        if !integers.is_empty() && self.rng.once_in(2) {
            let from = self.rng.of(&integers);
            carries.push(format!("    carry k0: {} = {}\n", from.ty, from.label));
            states.push(("k0".to_string(), from.ty.clone()));
            body.values.push(Named { label: "k0".to_string(), is_given: false, ..from });
        }
        self.constants(&mut body);
        if !body.values.iter().any(|v| v.ty.is_float()) {
            self.constant(&mut body, 1.5, Type::float(Extent::Batch, 2));
        }
        let nodes = 1 + self.rng.below(nodes);
        self.grow(&mut body, nodes);
        let mut tail = String::new();
        let (mut yields, mut sums) = (Vec::new(), Vec::new());
        for n in 0..self.rng.of(&[0, 1, 1, 2, 3]) {
            let v = self.float(&body);
            let Named { label, ty, .. } = body.values[v].clone();
            if ty.extent == Extent::Batch {
                let _ = writeln!(tail, "    yield y{n} = {label}");
                yields.push((format!("y{n}"), ty.at(time)));
            }
        }
        for n in 0..self.rng.of(&[0, 0, 1, 2]) {
            let v = self.float(&body);
            let Named { label, ty, .. } = body.values[v].clone();
            let _ = writeln!(tail, "    sum t{n} = {label}");
            sums.push((format!("t{n}"), ty));
        }
        for (name, ty) in &states {
            let bound = body.values.iter().find(|v| v.label == *name).map_or(0, |v| v.bound);
            let fits: Vec<usize> =
                (0..body.values.len()).filter(|&i| body.values[i].ty == *ty && body.values[i].bound <= bound).collect();
            let mut next = fits[self.rng.below(fits.len()).max(self.rng.below(fits.len()))];
            if ty.is_float() && !self.rng.once_in(6) {
                next = self.squashed(&mut body, next).unwrap_or(next);
            }
            let _ = writeln!(tail, "    next {name} = {}", body.values[next].label);
        }
        if yields.is_empty() && sums.is_empty() && states.is_empty() {
            return;
        }
        let reverse = if self.rng.once_in(3) { " reverse" } else { "" };
        let over = if axis == Axis(0) { String::new() } else { format!(" over {}", axis.letter()) };
        let head = [captures, each, carries].concat().concat();
        outer.lines.push(format!("  scan loop{k}{reverse}{over} {{\n{head}{}{tail}  }}\n", body.lines.concat()));
        for (port, ty) in yields {
            self.leaf(outer, &format!("yield {port} of loop{k}"), ty);
        }
        for (port, ty) in states {
            let bound = body.values.iter().find(|v| v.label == port).map_or(0, |v| v.bound);
            let v = self.leaf(outer, &format!("final {port} of loop{k}"), ty);
            outer.values[v].bound = bound;
        }
        for (port, ty) in sums {
            let v = self.leaf(outer, &format!("{} {port} of loop{k}", Op::Total(0).name()), ty);
            self.squashed(outer, v).unwrap_or(v);
        }
    }
}

fn suffix(op: &Op) -> &'static str {
    match op {
        Op::MatMul { ta: true, tb: true } => ".tt",
        Op::MatMul { ta: true, .. } => ".tn",
        Op::MatMul { tb: true, .. } => ".nt",
        _ => "",
    }
}

fn attributes(op: &Op) -> String {
    let along = |axis: usize| if axis == 0 { String::new() } else { format!(" axis={axis}") };
    match op {
        Op::Unary(Unary::Powi(n)) => format!(" n={n}"),
        Op::Norm(norm) | Op::Divisor(norm) => format!(" epsilon={}", norm.epsilon),
        Op::Transpose(perm) => format!(" perm={perm:?}"),
        Op::Slice { axis, start, len } => format!(" {start}..{}{}", start + len, along(*axis)),
        Op::Pad { axis, before, after } => format!(" before={before} after={after}{}", along(*axis)),
        Op::Concat(axis) => along(*axis),
        _ => String::new(),
    }
}
