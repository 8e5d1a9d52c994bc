//! Random programs: any op on any values that it fits, in a loop and around it.

use retrograd_compiler::ir::scan::{Carry, Port, Scan};
use retrograd_compiler::ir::types::{Axis, DType};
use retrograd_compiler::ir::{
    Binary, Draft, Extent, Graph, Init, Input, Norm, Op, Parameter, Program, Shape, Type, Unary, Value,
};

const TIME: Extent = Extent::Time(Axis(0));

/// SplitMix64 (Steele, Lea & Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    /// A continuous op: reordered sums must not flip it.
    fn op(&mut self, shape: &Shape) -> Op {
        let axis = self.below(shape.rank().max(1));
        let n = shape.0.get(axis).copied().unwrap_or(1);
        let reduced = if shape.rank() == 0 { shape.clone() } else { shape.with(axis, 1) };
        let start = self.below(n);
        let extents = [Extent::Shared, Extent::Batch, TIME];
        let unary = [Unary::Neg, Unary::Tanh, Unary::Sigmoid, Unary::Abs, Unary::Relu, Unary::Powi(2), Unary::Powi(1)];
        let binary = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Add, Binary::Min, Binary::Max];
        match self.below(24) {
            0..=4 => Op::Binary(self.of(&binary)),
            5 | 6 => Op::Unary(self.of(&unary)),
            7 | 8 => Op::Slice { axis, start, len: 1 + self.below(n - start) },
            9 => Op::Pad { axis, before: self.below(3), after: self.below(3) },
            10 | 11 => Op::Concat(axis),
            12 => Op::Reshape(self.of(&[Shape(vec![shape.len()]), Shape(vec![1, shape.len()]), Shape::scalar()])),
            13 => Op::Transpose((0..shape.rank()).rev().collect()),
            14 => Op::Sum(reduced),
            15 => Op::Broadcast(self.of(&[Shape(vec![4]), Shape(vec![2, 4]), Shape(vec![4, 4])])),
            16 => Op::Dot,
            17 => Op::DotNt,
            18 => Op::DotTn,
            19 => Op::MatMul { ta: self.below(2) == 0, tb: self.below(2) == 0 },
            20 => Op::SumRows(self.of(&extents)),
            21 => Op::Expand(self.of(&extents)),
            22 => self.of(&[Op::Last, Op::PlaceLast(Axis(0)), Op::StopGradient, Op::Select]),
            _ => {
                let norm = Norm { centred: self.below(2) == 0, epsilon: 0.5 };
                let norms = [Op::Norm(norm), Op::Divisor(norm)];
                self.of(&[[Op::Max(reduced), Op::Gather, Op::ScatterAdd(5), Op::OneHot(2)].as_slice(), &norms].concat())
            }
        }
    }

    /// Adds nodes on the values of a graph.
    fn grow(&mut self, g: &mut Graph, nodes: usize, bounded: bool) {
        let values = |g: &Graph| g.values().filter(|v| !matches!(g.op(*v), Op::Scan(_))).collect::<Vec<_>>();
        for _ in 0..100 * nodes {
            if g.len() >= nodes {
                break;
            }
            let all = values(g);
            let first = self.of(&all);
            if g.ty(first).shape.rank() == 0 && self.below(3) > 0 {
                continue;
            }
            let op = self.op(&g.ty(first).shape.clone());
            let mut operands = vec![first];
            while operands.len() < 3 {
                // A value of the same shape fits more often.
                let other = self.of(&all);
                if g.ty(other).shape == g.ty(first).shape || self.below(4) == 0 {
                    operands.push(other);
                }
            }
            // A mask that is a constant or an input: a computed one could flip by rounding.
            if matches!(op, Op::Select) {
                operands.rotate_right(1);
                operands[0] = all[0];
            }
            // The integers there are, are below 2.
            if matches!(op, Op::Gather) && g.ty(first).shape.0.first().is_none_or(|&rows| rows < 2) {
                continue;
            }
            for n in 1..=3 {
                let types: Vec<&Type> = operands[..n].iter().map(|&v| g.ty(v)).collect();
                let Ok(ty) = op.infer(&types) else { continue };
                let in_body = !matches!(ty.extent, Extent::Time(_));
                if ty.shape.len() > 40 || (bounded && !in_body) {
                    continue;
                }
                let v = g.add(op.clone(), &operands[..n]);
                // Products and sums are kept small, so that rounding stays small too.
                let sums = !op.is_pointwise() || matches!(op, Op::Binary(Binary::Mul) | Op::Unary(Unary::Powi(_)));
                if sums && ty.is_float() && self.below(2) == 0 {
                    g.add(Op::Unary(Unary::Tanh), &[v]);
                }
                break;
            }
        }
    }

    fn constants(&mut self, g: &mut Graph) {
        for x in [0.0, 1.0, -1.0, 0.5] {
            let extent = self.of(&[Extent::Shared, Extent::Batch]);
            let shape = self.of(&[vec![], vec![4], vec![1]]);
            g.constant(x, Type::float(extent, shape));
        }
    }

    fn scan(&mut self, g: &mut Graph, reverse: bool) {
        let mut scan = Scan::new("loop", Axis(0), reverse);
        let mut operands: [Vec<Value>; 3] = Default::default();
        let all: Vec<Value> = g.values().filter(|v| !matches!(g.op(*v), Op::Scan(_))).collect();
        self.constants(&mut scan.body);
        for &v in &all {
            let ty = g.ty(v).clone();
            let leaf = |op: Op, ty: Type, body: &mut Graph| body.leaf(op, ty);
            match ty.extent {
                Extent::Time(_) if self.below(2) == 0 => {
                    let value = leaf(Op::Each(operands[1].len()), ty.at(Extent::Batch), &mut scan.body);
                    scan.each.push(Port { name: "x".into(), value });
                    operands[1].push(v);
                }
                Extent::Shared | Extent::Batch if ty.shape.len() > 1 || self.below(4) == 0 => {
                    let value = leaf(Op::Capture(operands[0].len()), ty, &mut scan.body);
                    scan.captures.push(Port { name: "w".into(), value });
                    operands[0].push(v);
                }
                _ => {}
            }
        }
        let states: Vec<Value> = all
            .into_iter()
            .filter(|&v| g.is_float(v) && !matches!(g.ty(v).extent, Extent::Time(_)) && g.ty(v).shape.rank() < 2)
            .collect();
        for _ in 0..self.below(3) {
            let initial = self.of(&states);
            let value = scan.body.leaf(Op::Carry(operands[2].len()), g.ty(initial).clone());
            scan.carries.push(Carry { name: "h".into(), value, next: value });
            operands[2].push(initial);
        }
        let leaves = scan.body.len();
        self.grow(&mut scan.body, leaves + 14, true);
        let values: Vec<Value> = scan.body.values().filter(|v| scan.body.is_float(*v)).collect();
        for i in 0..scan.carries.len() {
            let ty = scan.body.ty(scan.carries[i].value).clone();
            let fits: Vec<Value> = values.iter().copied().filter(|v| *scan.body.ty(*v) == ty).collect();
            let last = fits[fits.len().saturating_sub(1 + self.below(2).min(fits.len() - 1))];
            scan.carries[i].next = scan.body.add(Op::Unary(Unary::Tanh), &[last]);
            if self.below(8) == 0 {
                scan.carries[i].next = self.of(&fits);
            }
        }
        for _ in 0..4 {
            let value = values[values.len() - 1 - self.below(14.min(values.len()))];
            if scan.body.ty(value).extent == Extent::Batch {
                scan.yields.push(Port { name: "y".into(), value });
            }
            let value = values[values.len() - 1 - self.below(14.min(values.len()))];
            if self.below(2) == 0 {
                scan.sums.push(Port { name: "s".into(), value });
            }
        }
        let results = (scan.yields.len(), scan.carries.len(), scan.sums.len());
        let node = g.add(Op::Scan(Box::new(scan)), &operands.concat());
        let yields = (0..results.0).map(Op::Yield);
        for result in yields.chain((0..results.1).map(Op::Final)).chain((0..results.2).map(Op::Total)) {
            g.scan_result(node, result);
        }
    }

    /// A program with one or two loops.
    pub fn program(&mut self) -> Program {
        let mut p = Draft::new("random");
        let g = &mut p.graph;
        for (name, ty) in [
            ("m", Type::float(Extent::Batch, 4)),
            ("x", Type::float(TIME, 4)),
            ("y", Type::float(TIME, 3)),
            ("c", Type::float(Extent::Batch, 4)),
            ("i", Type { dtype: DType::I32, ..Type::float(TIME, ()) }),
        ] {
            let value = g.leaf(Op::Input(name.into()), ty.clone());
            p.inputs.push(Input { name: name.into(), value, bound: (!ty.is_float()).then_some(2) });
        }
        for (name, shape) in [("w", vec![4, 4]), ("u", vec![8, 3]), ("v", vec![3, 4]), ("b", vec![4])] {
            let value = g.leaf(Op::Parameter(name.into()), Type::float(Extent::Shared, shape));
            p.parameters.push(Parameter { name: name.into(), value, init: Init::Glorot, trained: true });
        }
        self.constants(g);
        self.grow(g, 18, false);
        let reverse = self.below(2) == 0;
        self.scan(g, reverse);
        let n = g.len();
        self.grow(g, n + 5, false);
        if self.below(2) == 0 {
            self.scan(g, !reverse);
        }
        let n = g.len();
        self.grow(g, n + 5, false);
        let used = g.reachable(g.values().flat_map(|v| g.operands(v).to_vec()).collect::<Vec<_>>());
        for v in g.values().filter(|v| !used[v.index()] && g.is_float(*v)) {
            if !matches!(g.op(v), Op::Scan(_)) {
                p.outputs.push((format!("o{}", v.index()), v));
            }
        }
        p.axes = vec!["time".into()];
        p.finish().expect("well formed")
    }
}
