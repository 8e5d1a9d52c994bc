//! [`Expr`]: a value of a program while it is recorded.

use std::fmt;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};
use std::panic::Location;

use super::Site;
use super::recording::Recording;
use crate::error::RecordErrorKind as Kind;
use crate::ir::{self, Binary, Op, Shape, Type, Unary};

/// A value of a program while it is recorded: it stands for numbers that a run will have.
///
/// It is `Copy` and has the operators `+ − × ÷` and negation, also with an `f32` on either side. Its rows (one, one
/// a sample, or one a step and sample) are its type's business and never written; shapes are those of one row.
/// Shapes that differ meet by numpy's rule: seen from the right, dimensions must be equal or 1, and a scalar meets
/// everything. No method returns a `Result`; see [the module's text](super) for what becomes of mistakes.
#[derive(Clone, Copy)]
pub struct Expr<'r> {
    home: Home<'r>,
    value: Option<Value>,
}

#[derive(Clone, Copy)]
enum Home<'r> {
    Recording(&'r Recording),
    /// Made of no operands, so it cannot know its recording. The mistake is noted when one meets it.
    Nowhere(Site, &'static str),
}

/// A value and the frame it belongs to: 0 is the program, k the body of scan k.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub frame: usize,
    pub value: ir::Value,
}

/// A value of the frame being recorded, with its type.
pub(super) type Typed<'r> = (Expr<'r>, Type);

/// What a pointwise function takes: an [`Expr`] or an `f32`.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'r> {
    /// A recorded value.
    Expr(Expr<'r>),
    /// A number that is the same for every feature.
    Number(f64),
}

impl<'r> From<Expr<'r>> for Operand<'r> {
    fn from(e: Expr<'r>) -> Self {
        Operand::Expr(e)
    }
}

/// The number that the `f32` is written as: 0.1 stands for one tenth, not for the `f32` nearest to it, so texts
/// are readable and a run in 64 bits has all of them.
impl From<f32> for Operand<'_> {
    fn from(x: f32) -> Self {
        Operand::Number(exact(x))
    }
}

/// See `From<f32> for Operand`.
pub(super) fn exact(x: f32) -> f64 {
    x.to_string().parse().expect("a float prints as a float")
}

impl<'r> Expr<'r> {
    pub(super) fn new(recording: &'r Recording, value: Option<Value>) -> Expr<'r> {
        Expr { home: Home::Recording(recording), value }
    }

    /// The result of joining nothing.
    pub(super) fn nowhere(site: Site, op: &'static str) -> Expr<'r> {
        Expr { home: Home::Nowhere(site, op), value: None }
    }

    /// The recording it belongs to, or the place and op that made it of nothing.
    pub(super) fn home(self) -> Result<&'r Recording, (Site, &'static str)> {
        match self.home {
            Home::Recording(recording) => Ok(recording),
            Home::Nowhere(site, op) => Err((site, op)),
        }
    }

    /// `None` if it is poisoned.
    pub(super) fn value(self) -> Option<Value> {
        self.value
    }

    /// Itself and its type in the frame being recorded, into which it is captured. `None` if it is poisoned or its
    /// use here is a mistake, which is noted.
    pub(super) fn here(self, site: Site) -> Option<Typed<'r>> {
        self.home().ok()?.typed(site, self)
    }

    /// [`here`](Expr::here) for methods that only floats have, named for the error.
    pub(super) fn floats_here(self, site: Site, op: &str) -> Option<Typed<'r>> {
        self.home().ok()?.floats(site, op, self)
    }

    /// [`here`](Expr::here) of two values, in the recording of the first that has one.
    pub(super) fn both_here(self, other: Expr<'r>, site: Site) -> Option<(Typed<'r>, Typed<'r>)> {
        let recording = self.home().or(other.home()).ok()?;
        let (a, b) = (recording.typed(site, self), recording.typed(site, other));
        Some((a?, b?))
    }

    /// Notes a mistake about this value, and gives the poisoned value that comes of it.
    pub(super) fn fail(self, site: Site, kind: impl Into<Kind>) -> Expr<'r> {
        match self.home {
            Home::Recording(recording) => recording.fail(site, kind),
            Home::Nowhere(..) => self,
        }
    }

    /// What is recorded, where errors call the op by the method that the user has called.
    pub(super) fn called(self, method: &str, recorded: impl FnOnce() -> Expr<'r>) -> Expr<'r> {
        match self.home {
            Home::Recording(recording) => recording.called(method, recorded),
            Home::Nowhere(..) => recorded(),
        }
    }

    /// The poisoned value that comes of a mistake already noted.
    pub(super) fn poisoned(self) -> Expr<'r> {
        Expr { value: None, ..self }
    }

    /// An op on this and other operands, as it is.
    pub(super) fn apply(self, site: Site, op: Op, more: &[Operand<'r>]) -> Expr<'r> {
        with_operands(self, more, |recording, all| recording.apply(site, op, all))
    }

    /// An op on this and other operands, whose shapes meet by numpy's rule.
    pub(super) fn pointwise(self, site: Site, op: Op, more: &[Operand<'r>]) -> Expr<'r> {
        with_operands(self, more, |recording, all| recording.pointwise(site, op, all))
    }

    pub(super) fn unary(self, site: Site, op: Unary) -> Expr<'r> {
        self.apply(site, Op::Unary(op), &[])
    }

    pub(super) fn binary(self, site: Site, op: Binary, other: impl Into<Operand<'r>>) -> Expr<'r> {
        self.pointwise(site, Op::Binary(op), &[other.into()])
    }

    /// Shape of a row. A scalar's if the value comes of a mistake.
    pub fn shape(self) -> Shape {
        self.ty().map(|t| t.shape).unwrap_or_default()
    }

    /// The last dimension of a row; 1 for a scalar.
    pub fn units(self) -> usize {
        self.shape().last()
    }

    /// Its type, if it is a value of the program or of the step being recorded.
    pub fn ty(self) -> Option<Type> {
        let (Home::Recording(recording), Some(at)) = (self.home, self.value) else { return None };
        recording.with(|state| match at.frame {
            0 => Some(state.program.ty(at.value).clone()),
            frame if frame == state.frame() => Some(state.graph().ty(at.value).clone()),
            _ => None,
        })
    }
}

/// Runs `work` in the recording of the first operand that has one.
fn with_operands<'r>(
    first: Expr<'r>,
    more: &[Operand<'r>],
    work: impl FnOnce(&'r Recording, &[Operand<'r>]) -> Expr<'r>,
) -> Expr<'r> {
    let all: Vec<Operand<'r>> = std::iter::once(first.into()).chain(more.iter().copied()).collect();
    let home = all.iter().find_map(|o| match o {
        Operand::Expr(e) => e.home().ok(),
        Operand::Number(_) => None,
    });
    home.map_or(first, |recording| work(recording, &all))
}

impl fmt::Debug for Expr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match (self.value, self.ty()) {
            (Some(at), Some(ty)) => write!(f, "Expr(%{}: {ty})", at.value.index()),
            (Some(_), None) => write!(f, "Expr(of another step)"),
            _ => write!(f, "Expr(mistake)"),
        }
    }
}

macro_rules! operator {
    ($($trait:ident $method:ident $assign_trait:ident $assign:ident $op:ident;)*) => { $(
        impl<'r, T: Into<Operand<'r>>> $trait<T> for Expr<'r> {
            type Output = Expr<'r>;
            #[track_caller]
            fn $method(self, other: T) -> Expr<'r> {
                self.binary(Location::caller(), Binary::$op, other)
            }
        }
        impl<'r> $trait<Expr<'r>> for f32 {
            type Output = Expr<'r>;
            #[track_caller]
            fn $method(self, other: Expr<'r>) -> Expr<'r> {
                let site = Location::caller();
                match other.home {
                    Home::Recording(r) => r.pointwise(site, Op::Binary(Binary::$op), &[self.into(), other.into()]),
                    Home::Nowhere(..) => other,
                }
            }
        }
        impl<'r, T: Into<Operand<'r>>> $assign_trait<T> for Expr<'r> {
            #[track_caller]
            fn $assign(&mut self, other: T) {
                *self = self.binary(Location::caller(), Binary::$op, other);
            }
        }
    )* };
}
operator! {
    Add add AddAssign add_assign Add;
    Sub sub SubAssign sub_assign Sub;
    Mul mul MulAssign mul_assign Mul;
    Div div DivAssign div_assign Div;
}

impl<'r> Neg for Expr<'r> {
    type Output = Expr<'r>;
    #[track_caller]
    fn neg(self) -> Expr<'r> {
        self.unary(Location::caller(), Unary::Neg)
    }
}
