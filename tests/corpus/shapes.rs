//! Odd sizes: slices, joins, views of views, and what is shared by all rows.

use retrograd::prelude::*;

use super::{energy, record};

/// Parts of 3 + 1 + 7 features, none at a vector's boundary, joined in a loop for a product.
fn unaligned_concat() -> Program {
    record("unaligned_concat_in_loop", |p| {
        let (x, y) = (p.sequence("x", 3), p.sequence("y", 1));
        let run = p.scan("loop", |s| {
            let h = s.state("h", 7);
            let z = concat([s.at(x) * 2.0, s.at(y).tanh(), h * h]);
            s.next(h, s.affine("cell", z, 7).tanh())
        });
        p.output("h", run.all());
        p.minimize(energy(run.all()));
    })
}

/// The last ten steps joined for a product: one sum of ten products, each of which starts from the one before.
fn delay_line() -> Program {
    record("delay_line", |p| {
        let x = p.sequence("x", 3);
        let run = p.scan("loop", |s| {
            let taps: Vec<Expr> = (0..10).map(|i| s.state(&format!("tap{i}"), 3)).collect();
            let next = s.affine("cell", concat(taps.clone()), 3).tanh() + s.at(x);
            std::iter::once(next)
                .chain(taps.clone())
                .zip(taps)
                .map(|(value, tap)| s.next(tap, value))
                .last()
                .expect("taps")
        });
        p.output("oldest", run.all());
        p.minimize(energy(run.all()));
    })
}

fn splits(name: &str, n: usize) -> Program {
    record(&format!("{name}_{n}"), |p| {
        let x = p.sequence("x", 4 * n);
        let run = p.scan("loop", |s| {
            let h = s.state("h", n);
            let z = s.linear("h", h, 4 * n) + s.at(x);
            let [a, b, c, d] = z.split();
            let [first, rest] = z.tanh().split_at([1, 4 * n - 1]);
            s.next(h, (a * b.sigmoid() + c.sin() * d + rest.slice(..n) * first).tanh())
        });
        p.output("h", run.all());
        p.output("slice", run.all().slice(n / 2..));
        p.output("reversed", concat([run.all().slice(n - 1..), run.all().slice(..1)]));
        p.minimize(energy(run.all().slice(n / 2..)));
    })
}

fn grids() -> Program {
    record("grids", |p| {
        let x = p.sequence("x", [3, 5]);
        let w = p.parameter("w", [5, 3], Init::Normal(0.5));
        let run = p.scan("loop", |s| {
            let h = s.state("h", [5, 3]);
            let z = s.at(x).transpose() + h;
            let rows = z.sum_axis(0);
            let columns = z.max_axis(1);
            let z = z * columns + rows * 0.2 + w;
            s.next(h, z.reshape(15).reshape([3, 5]).transpose().tanh())
        });
        p.output("h", run.all());
        p.output("transposed", run.all().transpose());
        p.output("flat", run.all().reshape(15));
        p.output("row", run.all().slice_axis(0, 1..4));
        p.output("column", run.all().slice_axis(1, 2..));
        p.output("w", w.transpose());
        p.minimize(energy(run.all()));
    })
}

/// A sum over all features and sums over their last dimension, in one kernel or, with checkpoints, in two: the order of
/// each is its own.
fn sums_of_one_shape() -> Program {
    record("sums_of_one_shape", |p| {
        let x = p.sequence("x", [10, 5]);
        let run = p.scan("loop", |s| {
            let h = s.state("h", [10, 5]);
            s.next(h, (s.at(x) + h * 0.3).tanh())
        });
        // Behind a product, so that both sums read what another kernel has made.
        let z = p.affine("cell", run.all().reshape(50), 50).reshape([10, 5]);
        let w = p.parameter("w", [10, 5], Init::Normal(0.5));
        let sums = (z.sin() * 0.7 + z * z).sum_features();
        p.output("sums", sums);
        p.minimize(energy(p.rms_norm("norm", z + w)) + sums.mean_rows() * 0.3);
    })
}

/// Features of rank 2 through a weight.
fn rank_2_dot() -> Program {
    record("rank_2_through_dot", |p| {
        let x = p.sequence("x", [3, 5]);
        let run = p.scan("loop", |s| {
            let h = s.state("h", [3, 7]);
            s.next(h, (s.linear("h", h, 7) + s.affine("x", s.at(x), 7)).tanh())
        });
        p.output("h", run.all());
        p.output("outside", p.linear("outside", x, 10));
        p.minimize((energy(run.all()) + energy(p.value("outside"))) * 0.5);
    })
}

fn rank_3() -> Program {
    record("rank_3", |p| {
        let x = p.sequence("x", [2, 3, 5]);
        let run = p.scan("loop", |s| {
            let h = s.state("h", [3, 2, 5]);
            let z = s.at(x).permute([1, 0, 2]) + h.slice_axis(2, 1..2);
            s.next(h, (s.linear("z", z, 5) * z.mean_axis(0)).tanh())
        });
        p.output("h", run.all());
        p.output("permuted", run.all().permute([2, 0, 1]));
        p.minimize(energy(run.all()));
    })
}

fn stacks() -> Program {
    record("stacks_and_joins", |p| {
        let (x, c) = (p.sequence("x", 5), p.input("c", 5));
        let w = p.parameter("w", 5, Init::Normal(0.5));
        let run = p.scan("loop", |s| {
            let h = s.state("h", 5);
            let grid = stack([h, s.at(x), c, w]);
            let wide = concat_axis(1, [grid, grid.slice_axis(1, 0..3) * 2.0]);
            let tall = concat_axis(0, [wide, wide.slice_axis(0, 1..2)]);
            s.next(h, (tall.sum_axis(0).slice(3..).reshape(5) * tall.mean()).tanh())
        });
        p.output("h", run.all());
        p.output("grid", stack([x, x * 2.0, run.all()]));
        p.minimize(energy(run.all()));
    })
}

fn broadcasts() -> Program {
    record("broadcasts", |p| {
        let (x, column) = (p.sequence("x", [1, 5]), p.input("column", [3, 1]));
        let w = p.parameter("w", [3, 5], Init::Normal(0.5));
        let one = p.parameter("one", 1, Init::Constant(0.5));
        let run = p.scan("loop", |s| {
            let h = s.state("h", [3, 5]);
            let z = s.at(x) * column + w * h.slice_axis(0, 0..1);
            let z = z + s.at(x).broadcast([3, 5]) * one;
            s.next(h, (z / (1.5 + h.square().sum_axis(1))).tanh())
        });
        p.output("h", run.all());
        p.output("wide", column.broadcast([2, 3, 4]));
        p.output("w", one.broadcast(10));
        p.minimize(energy(run.all()));
    })
}

/// One number a row, in the loop and around it.
fn scalars() -> Program {
    record("scalar_rows", |p| {
        let (x, rate, gain) = (p.sequence("x", ()), p.input("rate", ()), p.parameter("gain", (), Init::Constant(0.5)));
        let run = p.scan("loop", |s| {
            let (a, b) = (s.state("a", ()), s.state("b", 3));
            let a1 = s.next(a, (a * gain + s.at(x) * rate.sigmoid()).tanh());
            let b1 = s.next(b, (b * a1 + s.at(x)).sin());
            (a1, b1.sum() * a1)
        });
        p.output("a", run.0.all());
        p.output("sum", run.1.all());
        p.output("x", x * x);
        p.minimize(run.1.all().square() + run.0.all());
    })
}

fn products() -> Program {
    record("products_within_samples", |p| {
        let (a, b, v) = (p.sequence("a", [3, 5]), p.input("b", [5, 7]), p.sequence("v", 3));
        let w = p.parameter("w", [7, 3], Init::Normal(0.5));
        let run = p.scan("loop", |s| {
            let h = s.state("h", [3, 7]);
            let z = s.at(a).matmul(b) + h;
            let z = z.matmul(w).matmul(h) * 0.3 + s.at(v).outer(b.slice_axis(0, 2..3).reshape(7));
            let read = s.at(v).matmul(z);
            let z = z + read * s.at(a).matmul(s.at(a).transpose()).sum_features() * 0.05;
            s.next(h, z.tanh())
        });
        p.output("h", run.all());
        p.output("vector", v.matmul(a));
        p.output("inner", v.matmul(v));
        p.output("matrix_vector", a.transpose().matmul(v));
        p.output("weight_vector", w.matmul(v));
        p.output("outer", v.outer(v));
        p.minimize(energy(run.all()));
    })
}

/// Products within samples of sizes 1, of no whole vectors, and from the sizes on at which they are calls of a routine; each
/// operand stored either way, as derivatives have them.
fn products_of_sizes() -> Program {
    record("products_of_sizes", |p| {
        let x = p.sequence("x", 3);
        let run = p.scan("loop", |s| {
            let h = s.state("h", 3);
            let z = s.affine("z", concat([h, s.at(x)]), 3);
            // Matrices of any size of a few numbers.
            let row = |n: usize, at: usize| {
                let many = n / 3 + 2;
                let numbers = z.broadcast([many, 3]).reshape(3 * many).slice(at % 3..at % 3 + n);
                (numbers * 0.5).tanh()
            };
            let matrix = |m: usize, n: usize, at: usize| row(m, at).outer(row(n, at + 1)) + 0.1;
            let mut sum = h * 0.1;
            for (m, k, n) in [
                (1, 1, 1),
                (1, 4, 1),
                (3, 1, 2),
                (1, 3, 5),
                (6, 2, 1),
                (2, 3, 4),
                (5, 9, 17),
                (33, 32, 32),
                (34, 32, 31),
            ] {
                let (a, b) = (matrix(m, k, m), matrix(k, n, n));
                let (a, b) = if m % 2 == 1 { (a, b) } else { (b.transpose(), a.transpose()) };
                sum += a.matmul(b).mean_features() * 0.1;
            }
            let wide = matrix(64, 64, 1);
            let seen = wide.matmul(row(64, 2)) + row(64, 0).matmul(wide);
            s.next(h, (sum + seen.mean_features() * 0.01).tanh())
        });
        p.output("h", run.all());
        p.minimize(energy(run.all()));
    })
}

/// What has one row for all samples: products of weights, reductions over them, normalised weights.
fn shared() -> Program {
    record("weights_of_weights", |p| {
        let x = p.sequence("x", 5);
        let a = p.parameter("a", [5, 3], Init::Normal(0.5));
        let b = p.parameter("b", [3, 7], Init::Normal(0.5));
        let g = p.parameter("g", [7, 7], Init::Normal(0.5));
        let low_rank = a.dot(b);
        let norms = (g.square().sum_axis(0) + 0.1).sqrt();
        let unit = g / norms;
        let run = p.scan("loop", |s| {
            let h = s.state("h", 7);
            s.next(h, (h.dot(unit) + s.at(x).dot(low_rank) + b.softmax().mean_axis(0).reshape(7)).tanh())
        });
        p.output("low_rank", low_rank);
        p.output("unit", unit);
        p.output("norm", g.square().sum_features().sqrt());
        p.output("h", run.all());
        p.output("gram", g.transpose().dot(g));
        p.minimize(energy(run.all()).mean_rows() + g.square().mean_features() * 0.01 + a.abs().sum_features() * 0.1);
    })
}

/// Weights whose parts are used apart and together, transposed and as they are.
fn views_of_weights() -> Program {
    record("views_of_weights", |p| {
        let x = p.sequence("x", 3);
        let w = p.parameter("w", [10, 14], Init::Normal(0.4));
        let run = p.scan("loop", |s| {
            let h = s.state("h", 7);
            let z = concat([h, s.at(x)]).dot(w);
            let again = h.dot(w.slice_axis(0, ..7).slice(7..));
            let tied = z.slice(..3).dot(w.slice_axis(0, 7..10).slice_axis(1, 0..7));
            let back = z.slice(..7).dot(w.slice_axis(0, 1..8).slice_axis(1, 0..7).transpose());
            s.next(h, (z.slice(7..) + again * tied + back * 0.2).tanh())
        });
        p.output("h", run.all());
        p.output("corner", w.slice_axis(0, 3..4).slice(9..));
        p.minimize(energy(run.all()));
    })
}

/// Normalised over the batch: what a sample gets depends on its mates.
fn over_the_batch() -> Program {
    record("normalised_over_batch", |p| {
        let x = p.sequence("x", 5);
        let run = p.scan("loop", |s| {
            let h = s.state("h", 5);
            let z = s.linear("h", h, 5) + s.at(x);
            let centred = z - z.mean_rows();
            s.next(h, (centred / (centred.square().mean_rows() + 0.5).sqrt()).tanh())
        });
        let h = run.all();
        p.output("h", h - h.mean_rows());
        p.output("over_time", h - h.mean_time());
        p.minimize(energy(h));
    })
}

/// Several lookups in a table of rank 3, and with indices of rank 1.
fn lookups() -> Program {
    record("lookups", |p| {
        let (i, pair) = (p.labels_sequence("i"), p.declare("pair", Type::int(Extent::Batch, 2)));
        let table = p.parameter("table", [5, 2, 3], Init::Normal(0.5));
        let run = p.scan("loop", |s| {
            let h = s.state("h", [2, 3]);
            s.next(h, (h * table.lookup(s.at(i)) + table.lookup(pair).sum_axis(0).reshape([2, 3])).tanh())
        });
        p.output("h", run.all());
        p.output("looked", table.lookup(i));
        p.minimize(energy(run.all()));
    })
}

/// The last step, and a value that stands at the last step only.
fn last_and_place() -> Program {
    record("last", |p| {
        let x = p.sequence("x", 5);
        let y = p.affine("up", x, 7).tanh();
        p.output("last", y.last());
        p.output("last_of_input", x.last());
        p.output("part", y.last().slice(2..5));
        p.minimize(energy(y.last()) + energy(p.affine("readout", x.last(), 3)));
    })
}

/// What is seen of a sequence's end at each of its steps.
fn last_at_every_step() -> Program {
    record("last_at_every_step", |p| {
        let x = p.sequence("x", 5);
        let y = p.affine("up", x, 7).tanh();
        p.output("above", y.last().le(y - 0.0279));
        p.output("less", y - y.last());
        p.output("norm", y.softmax() * y.softmax().last().sum());
        p.minimize(energy(y * y.last() + x.last().sum()));
    })
}

/// Products that have no loop at all.
fn without_a_loop() -> Program {
    record("mlp_of_batch", |p| {
        let x = p.input("x", 17);
        let y = p.affine("down", p.affine("up", x, 33).relu(), 5);
        p.output("y", y);
        p.minimize(y.cross_entropy(p.labels("label")));
    })
}

fn without_inputs() -> Program {
    record("parameters_only", |p| {
        let w = p.parameter("w", [3, 5], Init::Normal(0.5));
        p.output("w", w.softmax());
        p.minimize(energy(w.dot(w.transpose())));
    })
}

/// All of them.
pub fn programs() -> Vec<Program> {
    let mut all = vec![
        unaligned_concat(),
        delay_line(),
        grids(),
        sums_of_one_shape(),
        rank_2_dot(),
        rank_3(),
        stacks(),
        broadcasts(),
        scalars(),
        products(),
        products_of_sizes(),
        shared(),
        views_of_weights(),
        over_the_batch(),
        lookups(),
        last_and_place(),
        last_at_every_step(),
        without_a_loop(),
        without_inputs(),
    ];
    all.extend([1, 3, 5, 10, 16].map(|n| splits("splits", n)));
    all
}
