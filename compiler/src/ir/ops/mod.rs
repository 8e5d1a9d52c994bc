//! The op table: one row an op, by family.
//!
//! Tests go over all of it, with a match that a new op does not compile without, so that a row without a
//! passing gradient check, a print and parse round trip and agreement of all engines cannot land.

mod features;
mod index;
pub(crate) mod leaves;
mod norms;
mod pointwise;
mod products;
mod rows;
mod shape;

use super::op::{Binary, Op, Row, Unary};

/// The row of an op.
pub fn row(op: &Op) -> &'static Row {
    match op {
        Op::Parameter(_) => &leaves::PARAMETER,
        Op::Input(_) => &leaves::INPUT,
        Op::Constant(_) => &leaves::CONSTANT,
        Op::RowCount(_) => &leaves::ROW_COUNT,
        Op::Training => &leaves::TRAINING,
        Op::Capture(_) => &leaves::CAPTURE,
        Op::Each(_) => &leaves::EACH,
        Op::Carry(_) => &leaves::CARRY,
        Op::Unary(u) => match u {
            Unary::Neg => &pointwise::NEG,
            Unary::Abs => &pointwise::ABS,
            Unary::Sign => &pointwise::SIGN,
            Unary::Sqrt => &pointwise::SQRT,
            Unary::Exp => &pointwise::EXP,
            Unary::Expm1 => &pointwise::EXPM1,
            Unary::Ln => &pointwise::LN,
            Unary::Log1p => &pointwise::LOG1P,
            Unary::Tanh => &pointwise::TANH,
            Unary::Sigmoid => &pointwise::SIGMOID,
            Unary::Silu => &pointwise::SILU,
            Unary::Softplus => &pointwise::SOFTPLUS,
            Unary::Relu => &pointwise::RELU,
            Unary::Erf => &pointwise::ERF,
            Unary::NormalCdf => &pointwise::NORMAL_CDF,
            Unary::Gelu => &pointwise::GELU,
            Unary::Sin => &pointwise::SIN,
            Unary::Cos => &pointwise::COS,
            Unary::Powi(_) => &pointwise::POWI,
        },
        Op::Binary(b) => match b {
            Binary::Add => &pointwise::ADD,
            Binary::Sub => &pointwise::SUB,
            Binary::Mul => &pointwise::MUL,
            Binary::Div => &pointwise::DIV,
            Binary::Pow => &pointwise::POW,
            Binary::Min => &pointwise::MIN,
            Binary::Max => &pointwise::MAX,
            Binary::Gt => &pointwise::GT,
            Binary::Ge => &pointwise::GE,
            Binary::Lt => &pointwise::LT,
            Binary::Le => &pointwise::LE,
            Binary::Eq => &pointwise::EQ,
            Binary::Ne => &pointwise::NE,
        },
        Op::Select => &pointwise::SELECT,
        Op::StopGradient => &pointwise::STOP_GRADIENT,
        Op::ToFloat => &pointwise::TO_FLOAT,
        Op::Dot => &products::DOT,
        Op::DotNt => &products::DOT_NT,
        Op::DotTn => &products::DOT_TN,
        Op::MatMul { .. } => &products::MATMUL,
        Op::Sum(_) => &features::SUM,
        Op::Max(_) => &features::MAX,
        Op::Norm(norm) if norm.centred => &norms::LAYER_NORM,
        Op::Norm(_) => &norms::RMS_NORM,
        Op::Divisor(norm) if norm.centred => &norms::DEVIATION,
        Op::Divisor(_) => &norms::ROOT_MEAN_SQUARE,
        Op::Broadcast(_) => &features::BROADCAST,
        Op::Reshape(_) => &shape::RESHAPE,
        Op::Transpose(_) => &shape::TRANSPOSE,
        Op::Slice { .. } => &shape::SLICE,
        Op::Pad { .. } => &shape::PAD,
        Op::Concat(_) => &shape::CONCAT,
        Op::Gather => &index::GATHER,
        Op::ScatterAdd(_) => &index::SCATTER_ADD,
        Op::OneHot(_) => &index::ONE_HOT,
        Op::Argmax => &index::ARGMAX,
        Op::SumRows(_) => &rows::SUM_ROWS,
        Op::Expand(_) => &rows::EXPAND,
        Op::Last => &rows::LAST,
        Op::PlaceLast(_) => &rows::PLACE_LAST,
        Op::Within(_) => &rows::WITHIN,
        Op::Scan(_) => &leaves::SCAN,
        Op::Yield(_) => &leaves::YIELD,
        Op::Final(_) => &leaves::FINAL,
        Op::Total(_) => &leaves::TOTAL,
    }
}
