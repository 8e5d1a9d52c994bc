//! The graph and its ops: the floor on which every pass stands.
//!
//! [`types`] says what a value is, [`sizes`] how much there is of it, [`graph`] how values hang together, [`op`] what can be computed, and [`ops`]
//! has one row for each op with all that is known of it. [`program`] is a graph with its inputs, parameters and
//! outputs.

pub mod bounds;
pub mod dot;
pub mod dual;
pub mod graph;
pub(crate) mod layout;
pub mod op;
pub mod ops;
pub mod parse;
pub mod print;
pub mod program;
pub mod scan;
pub mod sizes;
pub mod svg;
pub mod types;
pub mod verify;

pub use graph::{Graph, Node, Value};
pub use op::{Binary, Norm, Op, Row, TypeError, Unary};
pub use program::{Draft, Ignored, Init, Input, Limit, Parameter, Program, Update};
pub use scan::{Carry, Scan};
pub use sizes::Sizes;
pub use types::{Axis, DType, Extent, Shape, Type};
