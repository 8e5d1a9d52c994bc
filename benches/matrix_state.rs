//! Recurrences whose state is a matrix a sample, each in two spellings: with products, `(m + v.outer(k)).matmul(q)`, as a
//! paper writes them, and with broadcasts and sums, `(m * q).sum()`, which is all pointwise work.
//!
//! `cargo bench --bench matrix_state -- [--seconds S] [--units N ..] [NAME ..]` runs both in turn and prints the best training
//! step of each, and the ratio. It ends with an error if a product takes more than 1.05 times as long as its broadcast
//! spelling.

use std::time::Instant;

use clap::Parser;
use ndarray::Array3;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use retrograd::prelude::*;

#[derive(Parser)]
struct Options {
    /// Time for each line.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Sizes of matrices.
    #[arg(long, num_args = 1.., default_values_t = [4, 7, 8, 16, 32, 64])]
    units: Vec<usize>,
    /// Recurrences, if not all.
    #[arg(value_parser = CELLS.map(|(name, _)| name))]
    names: Vec<String>,
    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How products within a row are written.
#[derive(Clone, Copy, PartialEq)]
enum Spelling {
    Products,
    Broadcasts,
}
use Spelling::{Broadcasts, Products};

impl Spelling {
    /// a bᵀ.
    fn outer<'r>(self, a: Expr<'r>, b: Expr<'r>, n: usize) -> Expr<'r> {
        if self == Products { a.outer(b) } else { a.reshape([n, 1]).broadcast([n, n]) * b }
    }

    /// M x.
    fn times<'r>(self, m: Expr<'r>, x: Expr<'r>) -> Expr<'r> {
        if self == Products { m.matmul(x) } else { (m * x).sum() }
    }

    /// M N.
    fn product<'r>(self, a: Expr<'r>, b: Expr<'r>, n: usize) -> Expr<'r> {
        if self == Products {
            return a.matmul(b);
        }
        let terms = a.reshape([n, n, 1]).broadcast([n, n, n]) * b.reshape([1, n, n]).broadcast([n, n, n]);
        terms.sum_axis(1).reshape([n, n])
    }
}

/// One step of a recurrence: its output.
type Cell = for<'r> fn(&'r Recorder, &Step<'r>, Expr<'r>, usize, Spelling) -> Expr<'r>;

const CELLS: [(&str, Cell); 4] = [
    // Looking at as many places: softmax(K q) V.
    ("attention", |p, s, x, n, spelling| {
        let h = s.state("h", n);
        let keys = p.input("keys", [n, n]);
        let weights = spelling.times(keys, h).softmax();
        let read = match spelling {
            Products => weights.matmul(keys),
            Broadcasts => (weights.reshape([n, 1]).broadcast([n, n]) * keys).sum_axis(0).reshape(n),
        };
        s.next(h, (s.affine("in", x, n) + read).tanh())
    }),
    // M' = λM + v kᵀ, y = M' q.
    ("fast_weights", |_, s, x, n, spelling| {
        let m = s.state("m", [n, n]);
        let [k, v, q] = s.affine("in", x, 3 * n).split();
        let next = s.next(m, m * 0.9 + spelling.outer(v, k, n));
        spelling.times(next, q)
    }),
    // The error of what M tells of a key corrects it: M' = M + β (v − M k) kᵀ.
    ("delta_net", |_, s, x, n, spelling| {
        let m = s.state("m", [n, n]);
        let [k, v, q] = s.affine("in", x, 3 * n).split();
        let (k, beta) = (k.softmax(), s.affine("rate", x, 1).sigmoid());
        let error = beta * (v - spelling.times(m, k));
        let next = s.next(m, m + spelling.outer(error, k, n));
        spelling.times(next, q)
    }),
    // A product of matrices: M' = tanh(M A(x)), of which a row is read.
    ("matrices", |_, s, x, n, spelling| {
        let m = s.state("m", [n, n]);
        let a = s.affine("in", x, n * n).reshape([n, n]);
        let next = s.next(m, (spelling.product(m, a, n) + a).tanh());
        next.slice_axis(0, 0..1).reshape(n)
    }),
];

/// One training step's work.
fn work(cell: Cell, n: usize, spelling: Spelling) -> Box<dyn FnMut()> {
    let program = Program::record("net", |p| {
        let x = p.sequence("x", 8);
        let run = p.scan("cell", |s| cell(p, s, s.at(x), n, spelling));
        p.minimize(run.all().square().mean_features().mean_rows());
    })
    .expect("no mistakes");
    let mut trainer = program.trainer(Sgd::new(1e-6)).threads(1).compile().expect("it compiles here");
    let mut rng = SmallRng::seed_from_u64(1);
    let x = Array3::from_shape_simple_fn((32, 16, 8), || rng.random_range(-1.0f32..1.0));
    let keys = Array3::from_shape_simple_fn((16, n, n), || rng.random_range(-1.0f32..1.0));
    let looks = program.input("cell.keys").is_some();
    Box::new(move || {
        let feed = Feed::new().f32("x", x.view());
        let feed = if looks { feed.f32("cell.keys", keys.view()) } else { feed };
        trainer.step(&feed).expect("its sizes");
    })
}

fn main() {
    let options = Options::parse();
    let mut worst = 0.0f64;
    for (name, cell) in
        CELLS.iter().filter(|(name, _)| options.names.is_empty() || options.names.iter().any(|n| n == name))
    {
        for &n in &options.units {
            let mut works = [Products, Broadcasts].map(|spelling| work(*cell, n, spelling));
            let mut best = [f64::INFINITY; 2];
            let started = Instant::now();
            while started.elapsed().as_secs_f64() < options.seconds {
                for (work, best) in works.iter_mut().zip(&mut best) {
                    let started = Instant::now();
                    work();
                    *best = best.min(started.elapsed().as_secs_f64() * 1e3);
                }
            }
            let [products, broadcasts] = best;
            let ratio = products / broadcasts;
            worst = worst.max(ratio);
            println!(
                "{name:12} {n:3} × {n:<3} {products:9.4} ms with products, {broadcasts:9.4} with broadcasts: {ratio:.2}"
            );
        }
    }
    if worst > 1.05 {
        eprintln!("a product takes {worst:.2} times as long as its broadcast spelling");
        std::process::exit(1);
    }
}
