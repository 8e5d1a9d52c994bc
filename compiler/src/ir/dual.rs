//! Dual numbers a + b·ε with ε² = 0, in 64 bits: the derivative rides along with the value.
//!
//! The reference evaluation of every op is written on these, so the interpreter yields directional derivatives that
//! owe nothing to the derivative rules they are there to check.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// A value and its derivative along one direction.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Dual {
    /// Value.
    pub re: f64,
    /// Derivative.
    pub du: f64,
}

impl Dual {
    /// A constant.
    pub fn new(re: f64) -> Dual {
        Dual { re, du: 0.0 }
    }

    /// f(x) with f′(x) by the chain rule. A derivative that meets no direction stays out: 0 · ∞ is 0 here.
    pub fn chain(self, value: f64, derivative: f64) -> Dual {
        Dual { re: value, du: along(self.du, derivative) }
    }
}

/// A slope along a direction: none where the direction is none, whatever the slope.
pub fn along(du: f64, slope: f64) -> f64 {
    if du == 0.0 { 0.0 } else { du * slope }
}

impl Add for Dual {
    type Output = Dual;
    fn add(self, o: Dual) -> Dual {
        Dual { re: self.re + o.re, du: self.du + o.du }
    }
}
impl Sub for Dual {
    type Output = Dual;
    fn sub(self, o: Dual) -> Dual {
        Dual { re: self.re - o.re, du: self.du - o.du }
    }
}
impl Mul for Dual {
    type Output = Dual;
    fn mul(self, o: Dual) -> Dual {
        Dual { re: self.re * o.re, du: along(self.du, o.re) + along(o.du, self.re) }
    }
}
impl Div for Dual {
    type Output = Dual;
    fn div(self, o: Dual) -> Dual {
        let q = self.re / o.re;
        let du = self.du - along(o.du, q);
        Dual { re: q, du: if du == 0.0 { 0.0 } else { du / o.re } }
    }
}
impl Neg for Dual {
    type Output = Dual;
    fn neg(self) -> Dual {
        Dual { re: -self.re, du: -self.du }
    }
}
