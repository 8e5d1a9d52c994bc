//! Random programs, recorded as users record them: any op on any values, in one to three loops and around them.
//!
//! Values stay in range, so that agreement means something: products are squashed now and then, arguments of ln,
//! √, ÷ and powers are kept where these are tame, and what decides (comparisons, maxima, |x|) is shifted by odd
//! numbers so that a structural 0, which engines may round differently, is not a tie.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retrograd::prelude::*;

use super::{energy, record};

/// Most features of a row of any value.
const WIDEST: usize = 120;
/// Sizes of dimensions: around those of vectors, and odd.
const DIMENSIONS: [usize; 12] = [1, 1, 2, 3, 3, 4, 5, 7, 8, 10, 16, 17];

/// The program of a seed.
pub fn program(seed: u64) -> Program {
    record(&format!("random_{seed}"), |p| Random { rng: ChaCha8Rng::seed_from_u64(seed), made: 0 }.program(p))
}

struct Random {
    rng: ChaCha8Rng,
    /// Number of names given.
    made: usize,
}

/// Values that may be used next.
#[derive(Clone, Default)]
struct Pool<'r> {
    floats: Vec<Expr<'r>>,
    /// Integers, with how many there can be.
    integers: Vec<(Expr<'r>, usize)>,
}

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    /// Once in n times.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    fn name(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}{}", self.made)
    }

    fn shape(&mut self) -> Shape {
        let rank = self.of(&[0, 1, 1, 1, 1, 1, 2, 2, 3]);
        let dims: Vec<usize> = (0..rank).map(|_| self.of(&DIMENSIONS)).collect();
        let shape = Shape(dims);
        if shape.len() > 64 { Shape(vec![shape.0[0]]) } else { shape }
    }

    /// Of late values more often than of early ones.
    fn float<'r>(&mut self, pool: &Pool<'r>) -> Expr<'r> {
        let n = pool.floats.len();
        let i = self.below(n).max(self.below(n));
        pool.floats[i]
    }

    fn parameter<'r>(&mut self, s: &Scope<'r>, shape: Shape) -> Expr<'r> {
        let name = self.name("w");
        s.parameter(&name, shape, Init::Normal(0.5))
    }

    /// Some value of this shape: one that has it, or one that is taken there.
    fn like<'r>(&mut self, s: &Scope<'r>, pool: &Pool<'r>, shape: &Shape) -> Expr<'r> {
        let fitting: Vec<Expr> = pool.floats.iter().copied().filter(|v| v.shape() == *shape).collect();
        if !fitting.is_empty() && !self.once_in(4) {
            return self.of(&fitting);
        }
        if self.once_in(6) {
            return self.parameter(s, shape.clone());
        }
        let v = self.float(pool);
        self.take_to(s, v, shape)
    }

    /// A value taken to a shape: as it is, or through a weight.
    fn take_to<'r>(&mut self, s: &Scope<'r>, v: Expr<'r>, shape: &Shape) -> Expr<'r> {
        let given = v.shape();
        if given == *shape {
            return v;
        }
        if given.len() == shape.len() {
            return v.reshape(shape.clone());
        }
        let name = self.name("to");
        if given.rank() > 0 && given.leading() == shape.leading() && shape.rank() > 0 {
            return s.affine(&name, v, shape.last());
        }
        s.linear(&name, v.reshape(given.len()), shape.len()).reshape(shape.clone())
    }

    /// Adds some values to the pool.
    fn grow<'r>(&mut self, s: &Scope<'r>, pool: &mut Pool<'r>, nodes: usize) {
        for _ in 0..nodes {
            if self.once_in(12) {
                self.integer(s, pool);
                continue;
            }
            let x = self.float(pool);
            let y = match self.below(10) {
                0..3 => self.unary(x),
                3..6 => self.binary(s, pool, x),
                6 => self.along(s, x),
                7 => self.shaped(s, pool, x),
                8 => self.product(s, pool, x),
                _ => {
                    let n = self.of(&DIMENSIONS);
                    let shape = if x.shape().rank() == 0 { Shape::from(n) } else { x.shape().with_last(n) };
                    self.take_to(s, x, &shape)
                }
            };
            if y.shape().len() <= WIDEST {
                let y = if self.once_in(3) { y.tanh() } else { y };
                pool.floats.push(y);
            }
        }
    }

    fn unary<'r>(&mut self, x: Expr<'r>) -> Expr<'r> {
        match self.below(36) {
            0 => -x,
            1 => (x + 0.137).abs(),
            2 => (x - 0.0713).sign() * x.cos(),
            3 => (x * x + 0.3).sqrt(),
            4 => x.tanh().exp(),
            5 => x.tanh().expm1(),
            6 => (x * x + 0.5).ln(),
            7 => (x * x).log1p(),
            8 | 9 => x.tanh(),
            10 | 11 => x.sigmoid(),
            12 => x.softplus(),
            13 => (x - 0.0831).relu(),
            14 => x.erf(),
            15 => x.normal_cdf(),
            16 => x.sin(),
            17 => x.cos(),
            18 => x.tanh().powi(self.of(&[0, 1, 2, 3, 4, 5])),
            19 => (x.tanh() + 1.7).powi(self.of(&[-1, -2, -3])),
            20 => (x.sigmoid() + 0.4).powf(self.of(&[0.5, 1.5, -0.7])),
            21 => x.sin().square(),
            22 => (x + 0.0191).clamp(-0.61, 0.73),
            23 => (x + 0.0533).leaky_relu(0.1),
            24 => (x + 0.0237).elu(0.7),
            25 => x.gelu(),
            26 => x.silu(),
            27 => x.log_sigmoid(),
            28 => x * 0.5 + 0.25,
            29 => 1.0 - x,
            30 => 0.7 / (x.sigmoid() + 0.5),
            31 => x.stop_gradient() * x.sin(),
            32 => (x - 0.0917).gt(0.0) * x,
            33 => select((x + 0.0413).lt(0.1), x * 2.0, 0.3),
            34 => x / 3.0 - 0.1,
            _ => x,
        }
    }

    fn binary<'r>(&mut self, s: &Scope<'r>, pool: &Pool<'r>, x: Expr<'r>) -> Expr<'r> {
        // Sometimes what meets by numpy's rule: a scalar, or a dimension of 1.
        let mut shape = x.shape();
        match self.below(6) {
            0 => shape = Shape::scalar(),
            1 if shape.rank() > 0 => {
                let axis = self.below(shape.rank());
                shape = shape.with(axis, 1);
            }
            _ => {}
        }
        let y = self.like(s, pool, &shape);
        match self.below(20) {
            0..3 => x + y,
            3..5 => x - y,
            5..8 => (x * y) * 0.8,
            8 => x / (y * y + 0.7),
            9 => (x.sigmoid() + 0.5).pow(y.tanh()),
            10 => x.minimum(y + 0.0613),
            11 => x.maximum(y - 0.0457),
            12 => x.gt(y + 0.0371) * y,
            13 => select(x.le(y - 0.0279), x, y),
            14 => select(y.ge(0.1123), x.sin(), 0.5) + x.lt(y + 0.0791),
            15 => {
                let gate = y.sigmoid();
                gate * x + (1.0 - gate) * x.tanh()
            }
            16 => x.tanh() * y.sin() - y,
            17 => x.ne(y + 0.0187) * x,
            18 => x.clamp(-0.3 - y.sigmoid(), y.sigmoid() + 0.2),
            _ => (x + 0.4 * y).sin(),
        }
    }

    fn along<'r>(&mut self, s: &Scope<'r>, x: Expr<'r>) -> Expr<'r> {
        let shape = x.shape();
        if shape.rank() == 0 {
            return x.tanh();
        }
        let (axis, name) = (self.below(shape.rank()), self.name("norm"));
        let apart = self.parameter(s, shape);
        match self.below(16) {
            0 => x.sum() * 0.3,
            1 => x.mean(),
            2 => x.sum_axis(axis) * 0.3,
            3 => x - x.mean_axis(axis),
            4 => (x + apart).max(),
            5 => (x + apart).min_axis(axis),
            6 => x * (x + apart).max_axis(axis),
            7 | 8 => x.softmax(),
            9 => x.log_softmax() * 0.2,
            // Of one feature, a norm is ±1 by its sign.
            10 | 11 => s.layer_norm(&name, x + apart * 2.0) * 0.5,
            12 => s.rms_norm(&name, x + apart * 2.0) * 0.5,
            13 => x.sum_features().tanh(),
            14 => x * x.mean_features(),
            _ => x / (x.inner(x) + 0.5).sqrt().reshape([x.shape().leading(), &[1]].concat()),
        }
    }

    fn shaped<'r>(&mut self, s: &Scope<'r>, pool: &Pool<'r>, x: Expr<'r>) -> Expr<'r> {
        let shape = x.shape();
        if shape.rank() == 0 {
            let n = self.of(&DIMENSIONS);
            return x.broadcast(n);
        }
        let axis = self.below(shape.rank());
        let n = shape.0[axis];
        let start = self.below(n);
        let end = start + 1 + self.below(n - start);
        match self.below(10) {
            0..3 => x.slice_axis(axis, start..end),
            3..6 => {
                let width = self.of(&DIMENSIONS);
                let y = self.like(s, pool, &shape.with(axis, width));
                let mut parts = vec![x, y];
                if self.once_in(2) {
                    parts.push(x.slice_axis(axis, start..end));
                }
                if self.once_in(3) {
                    parts.reverse();
                }
                concat_axis(axis, parts)
            }
            6 => stack([x, self.like(s, pool, &shape), x * 0.5]),
            7 => x.transpose(),
            8 => {
                let flat = x.reshape(shape.len());
                if shape.len().is_multiple_of(2) { flat.reshape([2, shape.len() / 2]) } else { flat }
            }
            _ => {
                let mut order: Vec<usize> = (0..shape.rank()).collect();
                let by = self.below(shape.rank());
                order.rotate_left(by);
                x.permute(order)
            }
        }
    }

    fn product<'r>(&mut self, s: &Scope<'r>, pool: &Pool<'r>, x: Expr<'r>) -> Expr<'r> {
        let n = self.of(&[1, 2, 3, 5, 7]);
        let shape = x.shape();
        match shape.rank() {
            1 => match self.below(4) {
                0 => x.outer(self.like(s, pool, &n.into())),
                1 => x.inner(self.like(s, pool, &shape)),
                2 => x.matmul(self.like(s, pool, &[shape.last(), n].into())) * 0.5,
                _ => self.like(s, pool, &[n, shape.last()].into()).matmul(x) * 0.5,
            },
            2 => match self.below(4) {
                0 => x.matmul(x.transpose()) * 0.3,
                1 => x.matmul(self.like(s, pool, &shape.last().into())) * 0.5,
                2 => self.like(s, pool, &[n, shape.0[0]].into()).matmul(x) * 0.5,
                _ => x.matmul(self.like(s, pool, &[shape.last(), n].into())) * 0.5,
            },
            _ => x * x.sin(),
        }
    }

    /// Something with integers: a lookup, a one-hot row, a number, or a choice.
    fn integer<'r>(&mut self, s: &Scope<'r>, pool: &mut Pool<'r>) {
        let vectors: Vec<Expr> = pool.floats.iter().copied().filter(|v| v.shape().rank() == 1).collect();
        if (pool.integers.is_empty() || self.once_in(3)) && !vectors.is_empty() {
            let x = self.of(&vectors);
            let apart = self.parameter(s, x.shape());
            pool.integers.push(((x + apart * 1.5).argmax(), x.units()));
            return;
        }
        if pool.integers.is_empty() {
            return;
        }
        let (i, n) = self.of(&pool.integers);
        let width = self.of(&DIMENSIONS);
        let name = self.name("table");
        let value = match self.below(4) {
            0 | 1 => s.embedding(&name, i, n, width),
            2 => i.one_hot(n),
            _ => i.to_float() * 0.1,
        };
        pool.floats.push(value);
    }

    fn program<'r>(&mut self, p: &Recorder<'r>) {
        let names: &[&str] = if self.once_in(6) { &["time", "other"] } else { &["time"] };
        let axes: Vec<TimeAxis> = names.iter().map(|name| p.axis(name)).collect();
        // Sequences by axis, and what has a row per sample or one for all.
        let mut sequences: Vec<Pool> = Vec::new();
        for (a, axis) in axes.iter().enumerate() {
            let mut pool = Pool::default();
            for i in 0..1 + self.below(3) {
                let shape = self.shape();
                pool.floats.push(axis.sequence(&format!("x{a}_{i}"), shape));
            }
            if self.once_in(2) {
                let n = 2 + self.below(5);
                let label = axis.labels(&format!("i{a}"));
                // A use that bounds it.
                p.output(&format!("hot{a}"), label.one_hot(n));
                pool.integers.push((label, n));
            }
            sequences.push(pool);
        }
        let mut rows = Pool::default();
        let shape = self.shape();
        rows.floats.push(p.input("c", shape));
        let shape = self.shape();
        rows.floats.push(self.parameter(p, shape));
        if self.once_in(3) {
            let shape = self.shape();
            rows.floats.push(p.shared("shared", shape));
        }
        for pool in &mut sequences {
            let nodes = self.below(4);
            self.grow(p, pool, nodes);
        }
        let nodes = self.below(4);
        self.grow(p, &mut rows, nodes);

        let loops = axes.len().max(self.of(&[1, 1, 1, 2, 2, 3]));
        for k in 0..loops {
            self.scan(&format!("loop{k}"), axes[k % axes.len()], &mut sequences[k % axes.len()], &mut rows);
        }
        for pool in &mut sequences {
            // Values of the other axis do not meet these; those of samples do.
            let mut all = pool.clone();
            all.floats.extend(rows.floats.iter().rev().take(3));
            let nodes = self.below(5);
            self.grow(p, &mut all, nodes);
            pool.floats = all.floats.into_iter().filter(|v| v.ty().is_some_and(|t| t.extent > Extent::Batch)).collect();
            if self.once_in(2) {
                let v = self.float(pool);
                let summary = match self.below(3) {
                    0 => v.last(),
                    1 => v.sum_time() * 0.3,
                    _ => v.mean_time(),
                };
                rows.floats.push(summary);
            }
        }
        let nodes = self.below(4);
        self.grow(p, &mut rows, nodes);

        let mut loss = p.constant(0.0);
        for pool in sequences.iter().chain([&rows]) {
            for (i, v) in pool.floats.iter().rev().take(3).enumerate() {
                let shared = v.ty().is_some_and(|t| t.extent == Extent::Shared);
                let name = self.name("y");
                p.output(&name, *v);
                let part = energy(*v);
                let part = if shared { part } else { part.mean_rows() };
                loss += part * (1.0 / (i + 1) as f32);
            }
        }
        p.minimize(loss);
    }

    fn scan<'r>(&mut self, name: &str, axis: TimeAxis<'r>, sequences: &mut Pool<'r>, rows: &mut Pool<'r>) {
        let reverse = self.once_in(3);
        let states: Vec<(String, Shape, Option<Expr>)> = (0..1 + self.below(3))
            .map(|i| {
                let from = self.once_in(3).then(|| self.float(rows));
                let shape = from.map_or_else(|| self.shape(), Expr::shape);
                (format!("s{i}"), shape, from)
            })
            .collect();
        let step = |s: &Step<'r>| {
            let mut pool = rows.clone();
            pool.integers.extend(sequences.integers.iter().map(|&(i, n)| (s.at(i), n)));
            pool.floats.extend(sequences.floats.iter().rev().take(4).map(|&x| s.at(x)));
            let held: Vec<Expr> = states
                .iter()
                .map(|(name, shape, from)| match from {
                    Some(from) => s.state_from(name, *from),
                    None => s.state(name, shape.clone()),
                })
                .collect();
            pool.floats.extend(&held);
            let nodes = 3 + self.below(32);
            self.grow(s, &mut pool, nodes);
            let mut results = Vec::new();
            for &state in &held {
                let same: Vec<Expr> = held.iter().copied().filter(|h| h.shape() == state.shape()).collect();
                let value = match self.below(12) {
                    0 => self.of(&same),
                    1 => self.like(s, &pool, &state.shape()),
                    _ => {
                        let v = self.float(&pool);
                        let v = self.take_to(s, v, &state.shape());
                        if self.once_in(2) { (v + state * 0.3).tanh() } else { v.tanh() }
                    }
                };
                let fits = state.ty().zip(value.ty()).is_some_and(|(s, v)| v.extent <= s.extent);
                // A state that starts as a weight has one row for all as long as it is given such.
                results.push(s.next(state, if fits { value } else { state }));
            }
            for _ in 0..1 + self.below(3) {
                results.push(self.float(&pool));
            }
            results
        };
        let runs = if reverse { axis.scan_reverse(name, step) } else { axis.scan(name, step) };
        for run in &runs {
            match self.below(4) {
                0 => rows.floats.push(run.last()),
                _ => sequences.floats.push(run.all()),
            }
        }
        let state = self.below(states.len());
        rows.floats.push(runs[0].state(&states[state].0));
    }
}
