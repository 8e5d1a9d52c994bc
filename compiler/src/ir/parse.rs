//! The way back from a text to its program.
//!
//! [`parse`] reads what [`print`](super::print) writes, whose module describes the form, and comments from `;` to the
//! end of a line. Types are inferred again and must agree with the written ones. A program that comes out is
//! [verified](super::verify), and prints as the text that went in, but for comments, blank lines, dead values and
//! numbers. What goes in may be anything: a text that is not a program is an error with a place, never a panic.
//!
//! The grammar, with `⏎` for an end of line:
//!
//! ```text
//! program   = "program" name "{" ⏎ { line ⏎ } "}"
//! line      = "axis" axis "=" name [ "<=" integer ]
//!           | ( "sequence" | "batch" | "shared" ) name ":" type [ "<" integer ]
//!           | ( "parameter" | "untrained" ) name ":" type "=" init
//!           | statement
//!           | "scan" name [ "reverse" ] [ "over" axis ] "{" ⏎ { inner ⏎ } "}"
//!           | "output" name "=" operand | "objective" operand | "update" name "=" operand
//! inner     = ( "shared" | "batch" | "each" | "carry" ) name ":" type "=" operand
//!           | statement
//!           | ( "yield" | "sum" | "next" ) name "=" operand
//! statement = "%" integer ":" type "=" op
//! op        = ( "yield" | "final" | "total" ) name "of" name | word operands attributes
//! operand   = "%" integer | name | number
//! init      = number | word [ "(" number { "," number } ")" ] | "[" init { "," init } "]"
//! ```

mod block;
mod tokens;

use std::collections::{HashMap, HashSet};

use super::graph::{Graph, Value};
use super::op::{Binary, Norm, Op, Unary};
use super::print::{name as printed, role};
use super::program::{Draft, Init, Input, Limit, Parameter, Program, Update};
use super::types::{Axis, DType, Extent, Shape, Type};
use super::verify::At;
use tokens::{Kind, Place, tokens};

/// Why a text is not a program.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What was expected and what is there.
    pub message: String,
}

crate::debug_is_display!(ParseError);

impl Program {
    /// The program that a text describes: [`parse`].
    ///
    /// # Errors
    /// The first place where the text is not a program.
    pub fn parse(text: &str) -> Result<Program, ParseError> {
        parse(text)
    }
}

/// Reads a printed program.
///
/// # Errors
/// The first place where the text is not a program: its form, a name or number without a value, an operand that does
/// not fit, or a type that is not the inferred one.
///
/// ```
/// use retrograd_compiler::ir::Program;
/// let text = "\
/// program square {
///   batch x: f32[B, 3]
///   %0: f32[B, 3] = mul x, x
///   output y = %0
/// }
/// ";
/// let program = Program::parse(text)?;
/// assert_eq!(program.to_string(), text);
///
/// let error = Program::parse(&text.replace("mul x, x", "mul x")).unwrap_err();
/// assert_eq!(error.to_string(), "line 3, column 19: `mul` cannot take f32[B, 3]: it takes 2 operands");
/// # Ok::<(), retrograd_compiler::ir::parse::ParseError>(())
/// ```
pub fn parse(text: &str) -> Result<Program, ParseError> {
    let tokens = tokens(text)?;
    Parser { tokens, at: 0 }.program()
}

/// The values of one graph that a line can speak of.
#[derive(Default)]
struct Scope {
    graph: Graph,
    /// Where each value is written.
    places: Vec<Place>,
    /// The same for the bodies of scans.
    bodies: HashMap<Value, Vec<Place>>,
    named: HashMap<String, Value>,
    numbered: HashMap<usize, Value>,
    scans: HashMap<String, Results>,
    /// Names of outputs.
    outputs: HashSet<String>,
}

/// A scan that has been read, and which of its ports has which name.
struct Results {
    scan: Value,
    yields: HashMap<String, usize>,
    finals: HashMap<String, usize>,
    totals: HashMap<String, usize>,
}

struct Parser {
    tokens: Vec<(Kind, Place)>,
    at: usize,
}

/// Sizes above this cannot be run, and sums of them could overflow.
const MAX_SIZE: usize = i32::MAX as usize;

impl Parser {
    fn peek(&self) -> &Kind {
        &self.tokens[self.at].0
    }

    /// Where the next word stands.
    fn place(&self) -> Place {
        self.tokens[self.at].1
    }

    fn next(&mut self) -> Kind {
        let kind = self.peek().clone();
        // The end stays: it can be read again and again.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        kind
    }

    fn expected(&self, what: &str) -> ParseError {
        self.place().error(format!("expected {what}, found {}", self.peek()))
    }

    fn eat(&mut self, sign: &str) -> bool {
        let there = matches!(self.peek(), Kind::Sign(s) if *s == sign);
        if there {
            self.next();
        }
        there
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let there = matches!(self.peek(), Kind::Word(w) if w == word);
        if there {
            self.next();
        }
        there
    }

    fn sign(&mut self, sign: &str) -> Result<(), ParseError> {
        if self.eat(sign) { Ok(()) } else { Err(self.expected(&format!("`{sign}`"))) }
    }

    fn word(&mut self, word: &str) -> Result<(), ParseError> {
        if self.eat_word(word) { Ok(()) } else { Err(self.expected(&format!("`{word}`"))) }
    }

    fn end_of_line(&mut self) -> Result<(), ParseError> {
        if *self.peek() != Kind::NewLine {
            return Err(self.expected("the end of the line"));
        }
        self.skip_empty_lines();
        Ok(())
    }

    fn skip_empty_lines(&mut self) {
        while *self.peek() == Kind::NewLine {
            self.next();
        }
    }

    fn name(&mut self) -> Result<String, ParseError> {
        match self.peek().clone() {
            Kind::Word(name) | Kind::Quoted(name) => {
                self.next();
                Ok(name)
            }
            _ => Err(self.expected("a name")),
        }
    }

    fn size(&mut self) -> Result<usize, ParseError> {
        let Kind::Number(digits) = self.peek() else { return Err(self.expected("a whole number")) };
        match digits.parse() {
            Ok(n) if n <= MAX_SIZE => {
                self.next();
                Ok(n)
            }
            _ => Err(self.expected(&format!("a whole number from 0 to {MAX_SIZE}"))),
        }
    }

    /// A number, if the next word is one.
    fn eat_number(&mut self) -> Result<Option<f64>, ParseError> {
        let number = match self.peek() {
            Kind::Number(digits) => digits.parse().map_err(|_| self.expected("a number"))?,
            Kind::Word(word) if word == "nan" => f64::NAN,
            Kind::Word(word) if word == "inf" => f64::INFINITY,
            _ => return Ok(None),
        };
        self.next();
        Ok(Some(number))
    }

    fn number(&mut self) -> Result<f64, ParseError> {
        self.eat_number()?.ok_or_else(|| self.expected("a number"))
    }

    /// `(item, item)`, `[item, item]`: at least one.
    fn list<T>(
        &mut self,
        [open, close]: [&str; 2],
        item: impl Fn(&mut Parser) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        self.sign(open)?;
        let mut items = vec![item(self)?];
        while self.eat(",") {
            items.push(item(self)?);
        }
        self.sign(close)?;
        Ok(items)
    }

    fn axis(&mut self) -> Result<Axis, ParseError> {
        let axis = (0..Axis::MAX).map(Axis).find(|a| matches!(self.peek(), Kind::Word(w) if w == a.letter()));
        let axis = axis.ok_or_else(|| self.expected("a time axis (`T`, `T1`, `T2` or `T3`)"))?;
        self.next();
        Ok(axis)
    }

    /// `[T, B, 3]`, `[3]`, or nothing: the extent and the features.
    fn rows(&mut self) -> Result<(Extent, Shape), ParseError> {
        let (mut extent, mut dims) = (Extent::Shared, Vec::new());
        if !self.eat("[") || self.eat("]") {
            return Ok((extent, Shape(dims)));
        }
        let mut more = true;
        if self.eat_word("B") {
            extent = Extent::Batch;
            more = self.eat(",");
        } else if matches!(self.peek(), Kind::Word(_)) {
            extent = Extent::Time(self.axis()?);
            self.sign(",")?;
            self.word("B")?;
            more = self.eat(",");
        }
        let mut len = 1usize;
        while more {
            let place = self.place();
            let n = self.size()?;
            len = match len.checked_mul(n) {
                Some(0) => return Err(place.error("expected a dimension of at least 1, found `0`")),
                Some(len) if len <= Shape::MAX_LEN => len,
                _ => return Err(place.error(format!("a row has at most {} features", Shape::MAX_LEN))),
            };
            if dims.len() == Shape::MAX_RANK {
                return Err(place.error(format!("a row has at most {} dimensions", Shape::MAX_RANK)));
            }
            dims.push(n);
            more = self.eat(",");
        }
        self.sign("]")?;
        Ok((extent, Shape(dims)))
    }

    fn ty(&mut self) -> Result<Type, ParseError> {
        let types = [DType::F32, DType::I32];
        let dtype = types.into_iter().find(|t| matches!(self.peek(), Kind::Word(w) if *w == t.to_string()));
        let dtype = dtype.ok_or_else(|| self.expected("a type (`f32` or `i32`)"))?;
        self.next();
        let (extent, shape) = self.rows()?;
        Ok(Type { dtype, extent, shape })
    }

    /// `: type` after a role that the extent must suit.
    fn ty_of_role(&mut self, wanted: &str) -> Result<Type, ParseError> {
        self.sign(":")?;
        let place = self.place();
        let ty = self.ty()?;
        if role(ty.extent) != wanted {
            return Err(place.error(format!("{ty} is not the type of a `{wanted}` but of a `{}`", role(ty.extent))));
        }
        Ok(ty)
    }

    fn operand(&mut self, scope: &mut Scope) -> Result<Value, ParseError> {
        if let Some(number) = self.eat_number()? {
            return Ok(scope.graph.scalar(number));
        }
        let (place, found) = (self.place(), self.peek().to_string());
        let value = match self.next() {
            Kind::Value(n) => scope.numbered.get(&n),
            Kind::Word(name) | Kind::Quoted(name) => scope.named.get(&name),
            _ => return Err(place.error(format!("expected a value, found {found}"))),
        };
        value.copied().ok_or_else(|| place.error(format!("no value {found} is defined above in this block")))
    }

    fn program(mut self) -> Result<Program, ParseError> {
        self.skip_empty_lines();
        self.word("program")?;
        let mut program = Draft::new(self.name()?);
        let mut scope = Scope::default();
        self.sign("{")?;
        self.end_of_line()?;
        while !self.eat("}") {
            let place = self.place();
            self.line(&mut program, &mut scope)?;
            scope.note(place);
            self.end_of_line()?;
        }
        self.skip_empty_lines();
        if *self.peek() != Kind::End {
            return Err(self.expected("the end of the text"));
        }
        program.graph = std::mem::take(&mut scope.graph);
        program.finish().map_err(|e| e.at.and_then(|at| scope.place_of(at)).unwrap_or(self.place()).error(e.message))
    }

    fn line(&mut self, program: &mut Draft, scope: &mut Scope) -> Result<(), ParseError> {
        if let Kind::Value(_) = self.peek() {
            return self.statement(scope);
        }
        let (place, expected) = (self.place(), self.expected("a line of a program"));
        let Kind::Word(role) = self.next() else { return Err(expected) };
        match role.as_str() {
            "axis" => {
                let axis = self.axis()?;
                if axis != Axis(program.axes.len().try_into().unwrap_or(u8::MAX)) {
                    return Err(place.error("axes are named in order, each once"));
                }
                self.sign("=")?;
                program.axes.push(self.name()?);
                if self.eat("<=") {
                    program.limits.push(Limit { axis, steps: self.size()?, place: crate::error::Place(None) });
                }
            }
            "sequence" | "batch" | "shared" => {
                let at = self.place();
                let name = self.name()?;
                let ty = self.ty_of_role(&role)?;
                let bound = if self.eat("<") { Some(self.size()?) } else { None };
                if self.eat_word("lengths") {
                    if !self.eat_word("of") {
                        return Err(self.expected("`of`"));
                    }
                    program.lengths.push((name.clone(), self.axis()?));
                }
                let value = scope.graph.leaf(Op::Input(name.clone()), ty);
                scope.declare(&name, value, at)?;
                program.inputs.push(Input { name, value, bound });
            }
            "parameter" | "untrained" => {
                let at = self.place();
                let name = self.name()?;
                let ty = self.ty_of_role("shared")?;
                self.sign("=")?;
                let init = self.init(0)?;
                let value = scope.graph.leaf(Op::Parameter(name.clone()), ty);
                scope.declare(&name, value, at)?;
                program.parameters.push(Parameter { name, value, init, trained: role == "parameter" });
            }
            "scan" => self.scan(scope)?,
            "output" => {
                let at = self.place();
                let name = self.name()?;
                if !scope.outputs.insert(name.clone()) {
                    return Err(at.error(format!("there is an output {} already", printed(&name))));
                }
                self.sign("=")?;
                program.outputs.push((name, self.operand(scope)?));
            }
            "objective" => {
                if program.objective.is_some() {
                    return Err(place.error("there is one objective at most"));
                }
                let at = self.place();
                let value = self.operand(scope)?;
                let ty = scope.graph.ty(value);
                if *ty != Type::float(Extent::Shared, ()) {
                    return Err(at.error(format!("the objective must be a shared float scalar, not {ty}")));
                }
                program.objective = Some(value);
            }
            "update" => {
                let at = self.place();
                let name = self.name()?;
                let target = scope.named.get(&name).copied();
                let target = target.ok_or_else(|| at.error(format!("no parameter or input {}", printed(&name))))?;
                self.sign("=")?;
                let at = self.place();
                let value = self.operand(scope)?;
                let (old, new) = (scope.graph.ty(target), scope.graph.ty(value));
                if old != new {
                    return Err(at.error(format!("{} of type {old} cannot become {new}", printed(&name))));
                }
                program.updates.push(Update { target, value });
            }
            _ => return Err(expected),
        }
        Ok(())
    }

    fn init(&mut self, depth: usize) -> Result<Init, ParseError> {
        if depth > Init::MAX_DEPTH {
            return Err(self.place().error(format!("more than {} levels of pieces", Init::MAX_DEPTH)));
        }
        if let Some(number) = self.eat_number()? {
            return Ok(Init::Constant(number));
        }
        if *self.peek() == Kind::Sign("[") {
            return Ok(Init::Pieces(self.list(["[", "]"], |p| p.init(depth + 1))?));
        }
        let expected = self.expected(
            "an initialiser: a number, `glorot`, `he`, `uniform(low, high)`, `normal(deviation)`, `orthogonal(gain)`, \
             or a list of them",
        );
        let Kind::Word(kind) = self.next() else { return Err(expected) };
        let numbers = if *self.peek() == Kind::Sign("(") { self.list(["(", ")"], Parser::number)? } else { Vec::new() };
        match (kind.as_str(), &numbers[..]) {
            ("glorot", []) => Ok(Init::Glorot),
            ("he", []) => Ok(Init::He),
            ("uniform", &[low, high]) => Ok(Init::Uniform(low, high)),
            ("normal", &[deviation]) => Ok(Init::Normal(deviation)),
            ("orthogonal", &[gain]) => Ok(Init::Orthogonal(gain)),
            _ => Err(expected),
        }
    }

    /// `%3: f32[B, 4] = op`
    fn statement(&mut self, scope: &mut Scope) -> Result<(), ParseError> {
        let place = self.place();
        let Kind::Value(number) = self.next() else { unreachable!("asked where a line starts with one") };
        self.sign(":")?;
        let written = self.place();
        let ty = self.ty()?;
        self.sign("=")?;
        let value = self.op(scope, &ty)?;
        let inferred = scope.graph.ty(value);
        if *inferred != ty {
            return Err(written.error(format!("the type is {inferred}, not {ty}")));
        }
        if scope.numbered.insert(number, value).is_some() {
            return Err(place.error(format!("there is a value %{number} already")));
        }
        Ok(())
    }

    /// An op with its operands and attributes; attributes that texts leave to the type are read off the type.
    fn op(&mut self, scope: &mut Scope, ty: &Type) -> Result<Value, ParseError> {
        let place = self.place();
        let Kind::Word(word) = self.peek().clone() else { return Err(self.expected("an op")) };
        self.next();
        match word.as_str() {
            "yield" | "final" | "total" => return self.result(&word, scope),
            "constant" => {
                let number = self.number()?;
                return Ok(scope.graph.constant(number, ty.clone()));
            }
            "training" => return Ok(scope.graph.add(Op::Training, &[])),
            "row_count" => {
                let (extent, shape) = self.rows()?;
                if shape.rank() != 0 {
                    return Err(place.error("expected an extent: `[]`, `[B]` or `[T, B]`"));
                }
                return Ok(scope.graph.add(Op::RowCount(extent), &[]));
            }
            _ => {}
        }
        let mut operands = vec![self.operand(scope)?];
        while self.eat(",") {
            operands.push(self.operand(scope)?);
        }
        let op = match word.as_str() {
            "powi" => Op::Unary(Unary::Powi(self.exponent()?)),
            "matmul" => Op::MatMul { ta: false, tb: false },
            "matmul.tn" => Op::MatMul { ta: true, tb: false },
            "matmul.nt" => Op::MatMul { ta: false, tb: true },
            "matmul.tt" => Op::MatMul { ta: true, tb: true },
            "sum" => Op::Sum(ty.shape.clone()),
            "max_over" => Op::Max(ty.shape.clone()),
            "layer_norm" => Op::Norm(self.norm(true)?),
            "rms_norm" => Op::Norm(self.norm(false)?),
            "deviation" => Op::Divisor(self.norm(true)?),
            "root_mean_square" => Op::Divisor(self.norm(false)?),
            "broadcast" => Op::Broadcast(ty.shape.clone()),
            "reshape" => Op::Reshape(ty.shape.clone()),
            "transpose" => Op::Transpose(self.permutation()?),
            "slice" => {
                let at = self.place();
                let start = self.size()?;
                self.sign("..")?;
                let end = self.size()?;
                let len = end.checked_sub(start).ok_or_else(|| at.error(format!("{end} is before {start}")))?;
                Op::Slice { axis: self.along()?, start, len }
            }
            "pad" => {
                let (before, after) = (self.attribute("before")?, self.attribute("after")?);
                Op::Pad { axis: self.along()?, before, after }
            }
            "concat" => Op::Concat(self.along()?),
            "scatter_add" => Op::ScatterAdd(ty.shape.0.first().copied().unwrap_or(1)),
            "one_hot" => Op::OneHot(ty.shape.last()),
            "sum_rows" => Op::SumRows(ty.extent),
            "expand" => Op::Expand(ty.extent),
            "place_last" => match ty.extent {
                Extent::Time(axis) => Op::PlaceLast(axis),
                _ => return Err(place.error(format!("`place_last` makes a sequence, not {ty}"))),
            },
            "within" => match ty.extent {
                Extent::Time(axis) => Op::Within(axis),
                _ => return Err(place.error(format!("`within` makes a sequence, not {ty}"))),
            },
            _ => plain(&word).ok_or_else(|| place.error(format!("there is no op `{word}`")))?,
        };
        scope.graph.try_add(op, &operands).map_err(|e| place.error(e.to_string()))
    }

    /// `yield out of lstm`
    fn result(&mut self, word: &str, scope: &mut Scope) -> Result<Value, ParseError> {
        let at = self.place();
        let port = self.name()?;
        self.word("of")?;
        let at_scan = self.place();
        let name = self.name()?;
        let missing = || at_scan.error(format!("no scan {} is above", printed(&name)));
        let results = scope.scans.get(&name).ok_or_else(missing)?;
        let op = match word {
            "yield" => results.yields.get(&port).copied().map(Op::Yield),
            "final" => results.finals.get(&port).copied().map(Op::Final),
            _ => results.totals.get(&port).copied().map(Op::Total),
        };
        let op = op.ok_or_else(|| at.error(format!("scan {} has no {word} {}", printed(&name), printed(&port))))?;
        Ok(scope.graph.scan_result(results.scan, op))
    }

    /// `axis=1`, or nothing for 0.
    fn along(&mut self) -> Result<usize, ParseError> {
        if matches!(self.peek(), Kind::Word(w) if w == "axis") { self.attribute("axis") } else { Ok(0) }
    }

    fn attribute(&mut self, word: &str) -> Result<usize, ParseError> {
        self.word(word)?;
        self.sign("=")?;
        self.size()
    }

    fn norm(&mut self, centred: bool) -> Result<Norm, ParseError> {
        self.word("epsilon")?;
        self.sign("=")?;
        Ok(Norm { centred, epsilon: self.number()? })
    }

    fn exponent(&mut self) -> Result<i32, ParseError> {
        self.word("n")?;
        self.sign("=")?;
        let n = match self.peek() {
            Kind::Number(digits) => digits.parse().ok(),
            _ => None,
        };
        let n = n.ok_or_else(|| self.expected("a whole number of 32 bits"))?;
        self.next();
        Ok(n)
    }

    fn permutation(&mut self) -> Result<Vec<usize>, ParseError> {
        self.word("perm")?;
        self.sign("=")?;
        self.sign("[")?;
        let mut perm = Vec::new();
        while !self.eat("]") {
            if !perm.is_empty() {
                self.sign(",")?;
            }
            perm.push(self.size()?);
        }
        Ok(perm)
    }
}

impl Scope {
    /// Notes that the values that are new are written there.
    fn note(&mut self, place: Place) {
        self.places.resize(self.graph.len(), place);
    }

    fn place_of(&self, At { scan, value }: At) -> Option<Place> {
        let places = match scan {
            None => &self.places,
            Some(scan) => self.bodies.get(&scan)?,
        };
        places.get(value.index()).copied()
    }

    fn declare(&mut self, name: &str, value: Value, place: Place) -> Result<(), ParseError> {
        match self.named.insert(name.to_string(), value) {
            None => Ok(()),
            Some(_) => Err(place.error(format!("the name {} is taken", printed(name)))),
        }
    }
}

/// The op of a name that says all.
fn plain(word: &str) -> Option<Op> {
    use Binary::{Add, Div, Eq, Ge, Gt, Le, Lt, Max, Min, Mul, Ne, Pow, Sub};
    use Unary::{Abs, Cos, Erf, Exp, Expm1, Gelu, Ln, Log1p, Neg, NormalCdf};
    use Unary::{Relu, Sigmoid, Sign, Silu, Sin, Softplus, Sqrt, Tanh};
    let unary = [
        Neg, Abs, Sign, Sqrt, Exp, Expm1, Ln, Log1p, Tanh, Sigmoid, Silu, Softplus, Relu, Erf, NormalCdf, Gelu, Sin,
        Cos,
    ];
    let binary = [Add, Sub, Mul, Div, Pow, Min, Max, Gt, Ge, Lt, Le, Eq, Ne];
    let others =
        [Op::Select, Op::StopGradient, Op::ToFloat, Op::Dot, Op::DotNt, Op::DotTn, Op::Gather, Op::Argmax, Op::Last];
    let pointwise = unary.into_iter().map(Op::Unary).chain(binary.into_iter().map(Op::Binary));
    pointwise.chain(others).find(|op| op.name() == word)
}
