//! What can be computed: [`Op`] names it, [`Row`] says all that is known of it.
//!
//! An op is one row of the table in [`ops`]: name, type rule, tangent, transpose, reference
//! evaluation. Passes ask the row; they do not match on ops unless they are about that very op.

use super::dual::Dual;
use super::graph::{Graph, Value};
use super::ops;
use super::scan::Scan;
use super::sizes::{Sizes, times};
use super::types::{Axis, Extent, Shape, Type};

/// Pointwise functions of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unary {
    /// −x
    Neg,
    /// |x|
    Abs,
    /// −1, 0 or 1
    Sign,
    /// √x
    Sqrt,
    /// eˣ
    Exp,
    /// eˣ − 1, accurate near 0
    Expm1,
    /// Natural logarithm
    Ln,
    /// ln(1 + x), accurate near 0
    Log1p,
    /// Hyperbolic tangent
    Tanh,
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// x·σ(x), −0 at −∞
    Silu,
    /// ln(1 + eˣ)
    Softplus,
    /// max(x, 0)
    Relu,
    /// Error function
    Erf,
    /// Φ(x) = ½ erfc(−x/√2), the standard normal distribution function
    NormalCdf,
    /// x·Φ(x), −0 at −∞
    Gelu,
    /// Sine
    Sin,
    /// Cosine
    Cos,
    /// xⁿ by multiplication
    Powi(i32),
}

/// Pointwise functions of two values. Comparisons give 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Binary {
    /// x + y
    Add,
    /// x − y
    Sub,
    /// x · y
    Mul,
    /// x / y
    Div,
    /// xʸ
    Pow,
    /// y if y < x, else x; NaN if either is
    Min,
    /// y if y > x, else x; NaN if either is
    Max,
    /// x > y
    Gt,
    /// x ≥ y
    Ge,
    /// x < y
    Lt,
    /// x ≤ y
    Le,
    /// x = y
    Eq,
    /// x ≠ y
    Ne,
}

/// What a row is brought to a standard size by, along its last axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// The mean is taken off first: the divisor is then the standard deviation, else the root mean square.
    pub centred: bool,
    /// What is added to the mean of squares, so that nothing is divided by zero.
    pub epsilon: f64,
}

/// An operation with its attributes. Shapes in attributes are those of the result.
#[derive(Clone, Debug)]
pub enum Op {
    /// Leaf: a trained value.
    Parameter(String),
    /// Leaf: a value given at each run.
    Input(String),
    /// Leaf: one number everywhere.
    Constant(f64),
    /// Leaf: the number of rows of an extent, as a shared scalar.
    RowCount(Extent),
    /// Leaf: 1 in a program that training runs, 0 in any other, as a shared scalar. See
    /// [`Program::in_training`](super::Program::in_training).
    Training,
    /// Leaf of a body: a value from outside, by position.
    Capture(usize),
    /// Leaf of a body: a sequence at this step, by position.
    Each(usize),
    /// Leaf of a body: a state before this step, by position.
    Carry(usize),

    /// Pointwise, one operand.
    Unary(Unary),
    /// Pointwise, two operands; a scalar operand meets every feature.
    Binary(Binary),
    /// Pointwise: the second operand where the first is not 0, else the third; both floats, or integers of one shape.
    Select,
    /// The value, through which no derivative passes.
    StopGradient,
    /// An integer as a float.
    ToFloat,

    /// x · W for every row: `[.., K] · [K, N] → [.., N]`; W is shared.
    Dot,
    /// x · Wᵀ for every row: `[.., N] · [K, N]ᵀ → [.., K]`; W is shared.
    DotNt,
    /// Σ over rows of aᵀ · b: `[.., K], [.., N] → [K, N]`, shared. The adjoint of a weight.
    DotTn,
    /// A product within each row, either side transposed first: `[M, K] · [K, N] → [M, N]`.
    MatMul {
        /// The left side is stored as `[K, M]`.
        ta: bool,
        /// The right side is stored as `[N, K]`.
        tb: bool,
    },

    /// Sum along the features where the result's shape has 1.
    Sum(Shape),
    /// Maximum along the features where the result's shape has 1; NaN if one of them is.
    Max(Shape),
    /// (x − μ)/σ or x/ρ along the last axis: see [`Norm`].
    Norm(Norm),
    /// σ or ρ of the last axis, whose length becomes 1: what [`Op::Norm`] divides by.
    Divisor(Norm),
    /// Repeats along the features where the operand's shape has 1.
    Broadcast(Shape),

    /// The same features in another shape.
    Reshape(Shape),
    /// Result dimension i is operand dimension `perm[i]`.
    Transpose(Vec<usize>),
    /// Features `start .. start + len` of one axis.
    Slice {
        /// Axis of the shape.
        axis: usize,
        /// First.
        start: usize,
        /// How many.
        len: usize,
    },
    /// Zeros before and after the features of one axis.
    Pad {
        /// Axis of the shape.
        axis: usize,
        /// Zeros in front.
        before: usize,
        /// Zeros behind.
        after: usize,
    },
    /// Operands one behind another along an axis.
    Concat(usize),

    /// Rows of a table: `[V, D..], i32[s..] → [s.., D..]`.
    Gather,
    /// Sums rows into a table of V rows: `i32[s..], [s.., D..] → [V, D..]`, shared. The adjoint of a gather.
    ScatterAdd(usize),
    /// 1 at the index: `i32[s..] → [s.., N]`.
    OneHot(usize),
    /// Position of the first maximum along the last axis, of the first NaN if there is one: `[s.., N] → i32[s..]`.
    Argmax,

    /// Sum over rows to a narrower extent.
    SumRows(Extent),
    /// The same row for every row of a wider extent.
    Expand(Extent),
    /// The last step of a sequence: time → batch.
    Last,
    /// A value at the last step, zeros before: batch → time. The adjoint of `Last`.
    PlaceLast(Axis),
    /// 1 at the steps before each sample's length, 0 from there on: `i32[B] → f32[T, B]`. Steps are counted as integers.
    Within(Axis),

    /// A loop over time.
    Scan(Box<Scan>),
    /// A sequence that a scan wrote.
    Yield(usize),
    /// A state after a scan's last step.
    Final(usize),
    /// A scan's sum over steps.
    Total(usize),
}

/// Why an op does not fit its operands.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{op}` cannot take {}: {rule}", list(given))]
pub struct TypeError {
    /// Name of the op.
    pub op: String,
    /// Types of the operands.
    pub given: Vec<Type>,
    /// What is asked for, with the numbers of this case.
    pub rule: String,
}

crate::debug_is_display!(TypeError);

fn list(types: &[Type]) -> String {
    let names: Vec<String> = types.iter().map(Type::to_string).collect();
    match names.split_last() {
        None => "no operands".to_string(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// How an op's tangent comes from those of its operands.
#[derive(Clone, Copy)]
pub enum Tangent {
    /// No derivative passes: leaves, comparisons, indices.
    Zero,
    /// The op itself on the tangents of its float operands, zeros where one has none.
    Linear,
    /// The sum over operands of the op with that one replaced by its tangent.
    Multilinear,
    /// A rule: node, its result, operand tangents → tangent. Emitted ops are linear in the tangents.
    Rule(fn(&mut Graph, Value, &[Option<Value>]) -> Value),
    /// The rule is the algorithm on bodies in `differentiate`.
    Scan,
}

/// `(graph, node, which operand, cotangent of the node) → cotangent of that operand`, of the operand's type.
/// The other operands are taken as they are: only called where the node is linear in this operand.
pub type Transpose = fn(&mut Graph, Value, usize, Value) -> Value;

/// One row of an operand as the reference evaluation sees it.
#[derive(Clone, Copy)]
pub struct RowArg<'a> {
    /// Features.
    pub shape: &'a Shape,
    /// Values, row-major.
    pub x: &'a [Dual],
}

/// A whole value as the reference evaluation sees it. Integers are kept in `re`.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Type.
    pub ty: Type,
    /// Row after row.
    pub x: Vec<Dual>,
}

impl Data {
    /// Zeros.
    ///
    /// # Panics
    /// If there is no memory for so many: an oracle has no use for them.
    pub fn zeros(ty: Type, sizes: &Sizes) -> Data {
        let n = times(sizes.rows(ty.extent), ty.shape.len());
        let mut x = Vec::new();
        if let Err(e) = x.try_reserve_exact(n) {
            panic!("no memory to interpret {ty} at {sizes:?}: {e}");
        }
        x.resize(n, Dual::default());
        Data { ty, x }
    }

    /// The features of row `r` out of `rows` rows of an extent at least as wide: the row repeats as types say.
    pub fn row(&self, r: usize) -> &[Dual] {
        let n = self.ty.shape.len();
        let own = self.x.len() / n;
        // A batch value met by a time row: rows are step-major, so the sample is r mod B.
        let r = r % own;
        &self.x[r * n..(r + 1) * n]
    }
}

/// Reference evaluation.
#[derive(Clone, Copy)]
pub enum Eval {
    /// Leaves, scans and their results, which the interpreter knows itself.
    Interpreter,
    /// Feature by feature; scalar operands repeat.
    Pointwise(fn(&Op, &[Dual]) -> Dual),
    /// Row by row: op, operand rows, result shape, result row.
    Row(fn(&Op, &[RowArg], &Shape, &mut [Dual])),
    /// All rows at once: op, operands, sizes, result (zeroed).
    Rows(fn(&Op, &[&Data], &Sizes, &mut Data)),
}

/// All that is known of an op.
pub struct Row {
    /// Name in texts.
    pub name: &'static str,
    /// Type of the result, or the rule that is broken.
    pub infer: fn(&Op, &[&Type]) -> Result<Type, String>,
    /// Forward derivative.
    pub tangent: Tangent,
    /// Transpose, where the op is linear in some operand.
    pub transpose: Option<Transpose>,
    /// Reference evaluation.
    pub eval: Eval,
}

impl Op {
    /// Its row of the table.
    pub fn row(&self) -> &'static Row {
        ops::row(self)
    }

    /// Name in texts.
    pub fn name(&self) -> &'static str {
        self.row().name
    }

    /// Type of the result.
    ///
    /// # Errors
    /// The broken rule, with the operands' types.
    pub fn infer(&self, operands: &[&Type]) -> Result<Type, TypeError> {
        (self.row().infer)(self, operands).map_err(|rule| TypeError {
            op: self.name().to_string(),
            given: operands.iter().map(|&t| t.clone()).collect(),
            rule,
        })
    }

    /// Whether it works feature by feature.
    pub fn is_pointwise(&self) -> bool {
        matches!(self.row().eval, Eval::Pointwise(_))
    }

    /// Whether it has no operands and no computation.
    pub fn is_leaf(&self) -> bool {
        matches!(
            self,
            Op::Parameter(_)
                | Op::Input(_)
                | Op::Constant(_)
                | Op::RowCount(_)
                | Op::Training
                | Op::Capture(_)
                | Op::Each(_)
                | Op::Carry(_)
        )
    }
}
