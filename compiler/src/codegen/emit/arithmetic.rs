//! Pointwise functions of a few instructions, on a vector or on one element.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{Endianness, InstBuilder, InstructionData, MemFlagsData, Opcode, Value, types};

use super::Emit;
use crate::ir::op::{Binary, Unary};
use crate::plan::KernelOp;

impl Emit<'_, '_> {
    pub(super) fn constant(&mut self, c: f64, wide: bool) -> Value {
        let x = if self.lane == types::F32 { self.b.ins().f32const(c as f32) } else { self.b.ins().f64const(c) };
        if wide { self.b.ins().splat(self.vector, x) } else { x }
    }

    /// `if x cc y { then } else { other }`, lane by lane.
    pub(super) fn choose(&mut self, cc: FloatCC, x: Value, y: Value, then: Value, other: Value, wide: bool) -> Value {
        let mask = self.b.ins().fcmp(cc, x, y);
        if !wide {
            return self.b.ins().select(mask, then, other);
        }
        let mask = self.b.ins().bitcast(self.vector, MemFlagsData::new().with_endianness(Endianness::Little), mask);
        self.b.ins().bitselect(mask, then, other)
    }

    pub(super) fn pointwise(&mut self, op: KernelOp, x: &[Value], wide: bool) -> Value {
        match op {
            KernelOp::Copy => x[0],
            KernelOp::Select => {
                let zero = self.constant(0.0, wide);
                self.choose(FloatCC::Equal, x[0], zero, x[2], x[1], wide)
            }
            KernelOp::Unary(u) => self.pointwise_unary(u, x[0], wide),
            KernelOp::Binary(op) => {
                let (x, y) = (x[0], x[1]);
                match op {
                    Binary::Add => self.b.ins().fadd(x, y),
                    Binary::Sub => self.b.ins().fsub(x, y),
                    Binary::Mul => self.b.ins().fmul(x, y),
                    Binary::Div => self.b.ins().fdiv(x, y),
                    // One instruction, `minps` or `maxps`, which gives x where either is NaN.
                    Binary::Min | Binary::Max => {
                        let (less, more) = if op == Binary::Min { (y, x) } else { (x, y) };
                        let chosen = self.choose(FloatCC::LessThan, less, more, y, x, wide);
                        self.nan_of(y, chosen, wide)
                    }
                    Binary::Gt => self.flag(FloatCC::LessThan, y, x, wide),
                    Binary::Ge => self.flag(FloatCC::LessThanOrEqual, y, x, wide),
                    Binary::Lt => self.flag(FloatCC::LessThan, x, y, wide),
                    Binary::Le => self.flag(FloatCC::LessThanOrEqual, x, y, wide),
                    Binary::Eq => self.flag(FloatCC::Equal, x, y, wide),
                    Binary::Ne => {
                        let (zero, one) = (self.constant(0.0, wide), self.constant(1.0, wide));
                        self.choose(FloatCC::Equal, x, y, zero, one, wide)
                    }
                    Binary::Pow => unreachable!("a routine"),
                }
            }
            KernelOp::Sum | KernelOp::Max => unreachable!("reductions are combined"),
        }
    }

    /// `chosen`, or y where y is NaN. Nothing to do for a number that is known.
    pub(super) fn nan_of(&mut self, y: Value, chosen: Value, wide: bool) -> Value {
        if self.is_number(y) {
            return chosen;
        }
        self.choose(FloatCC::Unordered, y, y, y, chosen, wide)
    }

    /// Whether a value is a constant, which is and no NaN.
    fn is_number(&self, v: Value) -> bool {
        let dfg = &self.b.func.dfg;
        let Some(mut inst) = dfg.value_def(v).inst() else { return false };
        if dfg.insts[inst].opcode() == Opcode::Splat {
            let Some(of) = dfg.value_def(dfg.inst_args(inst)[0]).inst() else { return false };
            inst = of;
        }
        match dfg.insts[inst] {
            InstructionData::UnaryIeee32 { imm, .. } => !f32::from_bits(imm.bits()).is_nan(),
            InstructionData::UnaryIeee64 { imm, .. } => !f64::from_bits(imm.bits()).is_nan(),
            _ => false,
        }
    }

    fn flag(&mut self, cc: FloatCC, x: Value, y: Value, wide: bool) -> Value {
        let (zero, one) = (self.constant(0.0, wide), self.constant(1.0, wide));
        self.choose(cc, x, y, one, zero, wide)
    }

    fn pointwise_unary(&mut self, op: Unary, x: Value, wide: bool) -> Value {
        match op {
            Unary::Neg => self.b.ins().fneg(x),
            Unary::Abs => self.b.ins().fabs(x),
            Unary::Sqrt => self.b.ins().sqrt(x),
            Unary::Relu => {
                let zero = self.constant(0.0, wide);
                self.choose(FloatCC::LessThan, x, zero, zero, x, wide)
            }
            Unary::Sign => {
                // ±0 and NaN stay themselves.
                let zero = self.constant(0.0, wide);
                let (one, minus) = (self.constant(1.0, wide), self.constant(-1.0, wide));
                let negative = self.choose(FloatCC::LessThan, x, zero, minus, x, wide);
                self.choose(FloatCC::LessThan, zero, x, one, negative, wide)
            }
            Unary::Powi(n) => {
                let mut left = n.unsigned_abs();
                let (mut power, mut result) = (x, None);
                while left > 0 {
                    if left & 1 == 1 {
                        result = Some(match result {
                            None => power,
                            Some(r) => self.b.ins().fmul(r, power),
                        });
                    }
                    left >>= 1;
                    if left > 0 {
                        power = self.b.ins().fmul(power, power);
                    }
                }
                let one = self.constant(1.0, wide);
                let result = result.unwrap_or(one);
                if n < 0 { self.b.ins().fdiv(one, result) } else { result }
            }
            _ => unreachable!("a routine"),
        }
    }
}
