//! How parameters start.
//!
//! Each parameter draws from a stream of its own: ChaCha8 keyed by the seed, its stream number a hash of the
//! parameter's name. So adding, removing or reordering parameters leaves the others' values as they were, and the
//! same seed gives the same bits on every machine.
//!
//! A parameter is seen as a matrix `[k, n]`: n is the last dimension, k all others together. Pieces are blocks of
//! columns (the gates of a cell); fans are those of the whole matrix, orthogonality is that of each block.

use ndarray::ArrayD;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retrograd_compiler::ir::{Init, Parameter, Program, Shape};

use crate::error::RunError;

/// The first values of all parameters of a program, in its order.
///
/// # Errors
/// The first initialiser that cannot fill its parameter.
pub fn parameters(program: &Program, seed: u64) -> Result<Vec<ArrayD<f32>>, RunError> {
    program.parameters.iter().map(|p| parameter(p, &program.ty(p.value).shape, seed)).collect()
}

/// The first value of one parameter.
///
/// # Errors
/// Numbers of the initialiser that make no distribution, or pieces that do not divide the last dimension.
pub fn parameter(parameter: &Parameter, shape: &Shape, seed: u64) -> Result<ArrayD<f32>, RunError> {
    let columns = shape.last();
    let matrix = Matrix { rows: shape.len() / columns, columns };
    let mut values = vec![0.0; shape.len()];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(fnv1a(FNV_START, parameter.name.as_bytes()));
    fill(&parameter.init, matrix, 0..columns, &mut values, &mut rng)
        .map_err(|rule| RunError::Initialiser { parameter: parameter.name.clone(), rule })?;
    Ok(ArrayD::from_shape_vec(shape.0.clone(), values).expect("as many values as the shape asks for"))
}

#[derive(Clone, Copy)]
struct Matrix {
    rows: usize,
    columns: usize,
}

/// Some columns of a row-major matrix.
struct Block<'a> {
    values: &'a mut [f32],
    width: usize,
    columns: std::ops::Range<usize>,
}

impl Block<'_> {
    /// Row after row. Generic, so that a draw is inlined: there are millions.
    fn fill_with(&mut self, mut draw: impl FnMut() -> f64) {
        for row in self.values.chunks_exact_mut(self.width) {
            row[self.columns.clone()].fill_with(|| draw() as f32);
        }
    }
}

/// Fills some columns of a row-major matrix.
fn fill(
    init: &Init,
    matrix: Matrix,
    columns: std::ops::Range<usize>,
    values: &mut [f32],
    rng: &mut ChaCha8Rng,
) -> Result<(), String> {
    let finite = |name: &str, numbers: &[f64]| match numbers.iter().find(|x| !x.is_finite()) {
        Some(x) => Err(format!("{name} of {x}; a finite number is needed")),
        None => Ok(()),
    };
    let mut block = Block { values, width: matrix.columns, columns: columns.clone() };
    match init {
        Init::Constant(value) => {
            finite("a constant", &[*value])?;
            block.fill_with(|| *value);
        }
        Init::Uniform(low, high) => {
            finite("a uniform distribution with a limit", &[*low, *high])?;
            if low > high {
                return Err(format!("a uniform distribution from {low} to {high}; the first is to be the lower"));
            }
            block.fill_with(|| uniform(*low, *high, rng));
        }
        Init::Normal(deviation) => {
            finite("a normal distribution with a standard deviation", &[*deviation])?;
            if *deviation < 0.0 {
                return Err(format!("a normal distribution with standard deviation {deviation}; at least 0 is needed"));
            }
            let mut normal = Normal::default();
            block.fill_with(|| deviation * normal.draw(rng));
        }
        Init::Glorot => {
            let limit = (6.0 / (matrix.rows + matrix.columns) as f64).sqrt();
            block.fill_with(|| uniform(-limit, limit, rng));
        }
        Init::He => {
            let deviation = (2.0 / matrix.rows as f64).sqrt();
            let mut normal = Normal::default();
            block.fill_with(|| deviation * normal.draw(rng));
        }
        Init::Orthogonal(gain) => {
            finite("an orthogonal matrix with a gain", &[*gain])?;
            let (k, n) = (matrix.rows, columns.len());
            // The shorter side's vectors are orthonormal: rows of [k, n] if k ≤ n, else its columns.
            let (count, length) = (k.min(n), k.max(n));
            let q = orthonormal(count, length, rng);
            let mut entries = (0..k * n).map(|at| {
                let (i, j) = (at / n, at % n);
                gain * if k <= n { q[i * length + j] } else { q[j * length + i] }
            });
            block.fill_with(|| entries.next().expect("one for each place"));
        }
        Init::Pieces(pieces) => {
            let n = columns.len();
            if pieces.is_empty() || !n.is_multiple_of(pieces.len()) {
                return Err(format!("{} pieces do not divide {n} columns equally", pieces.len()));
            }
            let width = n / pieces.len();
            for (i, piece) in pieces.iter().enumerate() {
                let start = columns.start + i * width;
                fill(piece, matrix, start..start + width, block.values, rng)?;
            }
        }
    }
    Ok(())
}

fn uniform(low: f64, high: f64, rng: &mut ChaCha8Rng) -> f64 {
    // 24 bits fill an f32; a draw of 32 bits is half the work of one of 64.
    low + (high - low) * f64::from(rng.random::<f32>())
}

/// Standard normal numbers by Box & Muller (1958), which makes them in pairs.
#[derive(Default)]
struct Normal {
    second: Option<f64>,
}

impl Normal {
    fn draw(&mut self, rng: &mut ChaCha8Rng) -> f64 {
        if let Some(second) = self.second.take() {
            return second;
        }
        // 1 − u is in (0, 1], where the logarithm is finite.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        self.second = Some(radius * sine);
        radius * cosine
    }
}

/// `count ≤ length` orthonormal vectors, one behind another, uniformly distributed over all such sets.
///
/// Gram–Schmidt on normal vectors is the QR decomposition with a positive diagonal of R, which is what makes Q
/// uniform (Stewart 1980). The modified form loses ε·κ of orthogonality; a vector that is almost in the span of
/// those before it (κ > 10⁶) is drawn again, so what is lost is far below the rounding to f32.
fn orthonormal(count: usize, length: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut normal = Normal::default();
    let mut q: Vec<f64> = Vec::with_capacity(count * length);
    while q.len() < count * length {
        let mut v: Vec<f64> = (0..length).map(|_| normal.draw(rng)).collect();
        for u in q.chunks_exact(length) {
            let along = dot(u, &v);
            v.iter_mut().zip(u).for_each(|(x, y)| *x -= along * y);
        }
        let norm = dot(&v, &v).sqrt();
        // A normal vector is about √length long.
        if norm > 1e-6 * (length as f64).sqrt() {
            q.extend(v.iter().map(|x| x / norm));
        }
    }
    q
}

/// Eight partial sums, so that it vectorises.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (x, y) in a8.iter().zip(b8) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f64>() + rest
}

/// The hash of Fowler, Noll and Vo (1a, 64 bits): a few lines that never change, unlike the standard library's.
/// Continues from `hash`; a new one starts from [`FNV_START`].
pub(crate) fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

pub(crate) const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

#[cfg(test)]
mod tests {
    use retrograd_compiler::ir::{Graph, Op, Type};

    use super::*;

    fn make(name: &str, init: Init, shape: &[usize], seed: u64) -> Result<ArrayD<f32>, RunError> {
        let ty = Type::float(retrograd_compiler::ir::Extent::Shared, shape);
        let value = Graph::new().leaf(Op::Parameter(name.to_string()), ty);
        parameter(&Parameter { name: name.to_string(), value, init, trained: true }, &Shape::from(shape), seed)
    }

    /// Mean, standard deviation, excess kurtosis, least and largest.
    fn moments(init: Init, shape: &[usize]) -> [f64; 5] {
        let a = make("w", init, shape, 7).unwrap().mapv(f64::from);
        let mean = a.mean().unwrap();
        let central = |n: i32| a.mapv(|x| (x - mean).powi(n)).mean().unwrap();
        let fold = |f: fn(f64, f64) -> f64| a.iter().copied().reduce(f).unwrap();
        [mean, central(2).sqrt(), central(4) / central(2).powi(2) - 3.0, fold(f64::min), fold(f64::max)]
    }

    fn near(got: f64, want: f64, tolerance: f64) {
        assert!((got - want).abs() < tolerance, "{got} instead of {want}");
    }

    #[test]
    fn distributions_have_their_moments() {
        // 10⁵ samples: a mean is within 5/√10⁵ = 0.016 deviations, a kurtosis within 5·√(24/10⁵) = 0.08.
        let shape = [250, 400];
        let [mean, deviation, kurtosis, least, largest] = moments(Init::Uniform(-1.0, 3.0), &shape);
        near(mean, 1.0, 0.02);
        near(deviation, 4.0 / 12f64.sqrt(), 0.02);
        near(kurtosis, -1.2, 0.08);
        assert!((-1.0..-0.99).contains(&least) && (2.99..3.0).contains(&largest));

        let [mean, deviation, kurtosis, least, largest] = moments(Init::Normal(0.5), &shape);
        near(mean, 0.0, 0.01);
        near(deviation, 0.5, 0.01);
        near(kurtosis, 0.0, 0.08);
        assert!(least < -1.9 && largest > 1.9 && least > -3.0 && largest < 3.0);
    }

    #[test]
    fn fans_are_those_of_the_matrix() {
        let limit = (6.0 / 650f64).sqrt();
        let [_, deviation, _, least, largest] = moments(Init::Glorot, &[250, 400]);
        near(deviation, limit / 3f64.sqrt(), 0.001);
        assert!(least > -limit && least < -0.99 * limit && largest < limit && largest > 0.99 * limit);
        // Leading dimensions count as fan-in.
        near(moments(Init::He, &[250, 400])[1], (2.0 / 250f64).sqrt(), 0.001);
        near(moments(Init::He, &[10, 25, 400])[1], (2.0 / 250f64).sqrt(), 0.001);
        // A gate of a cell has the fans of all gates together.
        near(moments(Init::Pieces(vec![Init::Glorot; 4]), &[250, 400])[1], limit / 3f64.sqrt(), 0.001);
    }

    #[test]
    fn orthogonal_matrices_are_orthogonal() {
        for (k, n) in [(1, 1), (7, 7), (64, 64), (5, 40), (40, 5), (1, 9), (9, 1)] {
            let w = make("w", Init::Orthogonal(1.5), &[k, n], 3).unwrap().mapv(f64::from);
            let w = w.into_shape_with_order((k, n)).unwrap();
            let product = if k <= n { w.dot(&w.t()) } else { w.t().dot(&w) };
            for ((i, j), &x) in product.indexed_iter() {
                near(x, if i == j { 2.25 } else { 0.0 }, 1e-6);
            }
        }
    }

    #[test]
    fn orthogonal_matrices_have_no_preferred_direction() {
        // The first entry of a uniform orthogonal 2 × 2 matrix is the cosine of a uniform angle: variance ½.
        let first: Vec<f64> =
            (0..4000).map(|seed| f64::from(make("w", Init::Orthogonal(1.0), &[2, 2], seed).unwrap()[[0, 0]])).collect();
        let mean = first.iter().sum::<f64>() / 4000.0;
        near(mean, 0.0, 0.06);
        near(first.iter().map(|x| x * x).sum::<f64>() / 4000.0, 0.5, 0.03);
    }

    #[test]
    fn pieces_fill_their_columns() {
        let init = Init::Pieces(vec![
            Init::Constant(0.0),
            Init::Constant(1.0),
            Init::Pieces(vec![Init::Constant(2.0), Init::Constant(3.0)]),
        ]);
        let w = make("w", init.clone(), &[2, 12], 0).unwrap();
        let row = [0., 0., 0., 0., 1., 1., 1., 1., 2., 2., 3., 3.];
        assert_eq!(w.as_slice().unwrap(), [row, row].concat());
        assert_eq!(make("b", init, &[12], 0).unwrap().as_slice().unwrap(), row);

        let gates = Init::Pieces(vec![Init::Orthogonal(1.0); 3]);
        let w = make("w", gates, &[8, 24], 0).unwrap().mapv(f64::from).into_shape_with_order((8, 24)).unwrap();
        for gate in 0..3 {
            let block = w.slice(ndarray::s![.., 8 * gate..8 * (gate + 1)]);
            block.dot(&block.t()).indexed_iter().for_each(|((i, j), &x)| near(x, f64::from(u8::from(i == j)), 1e-6));
        }
        assert!((w[[0, 0]] - w[[0, 8]]).abs() > 1e-9, "each gate is drawn anew");
    }

    #[test]
    fn a_parameter_depends_on_seed_and_name_alone() {
        let draw = |name, seed| make(name, Init::Normal(1.0), &[16], seed).unwrap();
        assert_eq!(draw("gates.w", 1), draw("gates.w", 1));
        assert_ne!(draw("gates.w", 1), draw("gates.w", 2));
        assert_ne!(draw("gates.w", 1), draw("gates.v", 1));

        let program = |names: &[&str]| {
            let mut p = retrograd_compiler::ir::Draft::new("test");
            for &name in names {
                let ty = Type::float(retrograd_compiler::ir::Extent::Shared, [3, 5]);
                let value = p.graph.leaf(Op::Parameter(name.to_string()), ty);
                p.parameters.push(Parameter { name: name.to_string(), value, init: Init::Glorot, trained: true });
            }
            parameters(&p.finish().unwrap(), 9).unwrap()
        };
        assert_eq!(program(&["a", "b"])[1], program(&["new", "b", "a"])[1]);
    }

    #[test]
    fn numbers_that_make_no_distribution_are_refused() {
        let text = |init| make("gates.w", init, &[4, 6], 0).unwrap_err().to_string();
        assert_eq!(
            text(Init::Uniform(1.0, -1.0)),
            "parameter `gates.w` cannot be initialised: a uniform distribution from 1 to -1; the first is to be the lower"
        );
        assert!(
            text(Init::Normal(-0.1))
                .ends_with("a normal distribution with standard deviation -0.1; at least 0 is needed")
        );
        assert!(text(Init::Constant(f64::NAN)).ends_with("a constant of NaN; a finite number is needed"));
        assert!(text(Init::Pieces(vec![Init::He; 4])).ends_with("4 pieces do not divide 6 columns equally"));
        assert!(text(Init::Pieces(vec![])).ends_with("0 pieces do not divide 6 columns equally"));
    }
}
