//! The block of a scan: its ports, its body, and what it gives out.

use std::collections::HashMap;

use super::tokens::Kind;
use super::{ParseError, Parser, Results, Scope};
use crate::ir::graph::Value;
use crate::ir::op::Op;
use crate::ir::print::name as printed;
use crate::ir::scan::{Carry, Port, Scan};
use crate::ir::types::{Axis, Extent};

/// A scan while it is read.
struct Block {
    scan: Scan,
    scope: Scope,
    captures: Vec<Value>,
    each: Vec<Value>,
    initial: Vec<Value>,
    /// Of each carry, once its `next` is read.
    next: Vec<Option<Value>>,
    yields: HashMap<String, usize>,
    sums: HashMap<String, usize>,
    carries: HashMap<String, usize>,
}

impl Parser {
    /// `scan cell reverse over T1 {` and all up to its brace.
    pub(super) fn scan(&mut self, outer: &mut Scope) -> Result<(), ParseError> {
        let place = self.place();
        let name = self.name()?;
        let reverse = self.eat_word("reverse");
        let axis = if self.eat_word("over") { self.axis()? } else { Axis(0) };
        let mut block = Block {
            scan: Scan::new(name.clone(), axis, reverse),
            scope: Scope::default(),
            captures: Vec::new(),
            each: Vec::new(),
            initial: Vec::new(),
            next: Vec::new(),
            yields: HashMap::new(),
            sums: HashMap::new(),
            carries: HashMap::new(),
        };
        self.sign("{")?;
        self.end_of_line()?;
        while *self.peek() != Kind::Sign("}") {
            let place = self.place();
            self.inner(&mut block, outer)?;
            outer.note(place);
            block.scope.note(place);
            self.end_of_line()?;
        }
        let Block { mut scan, scope, captures, each, initial, next, yields, sums, carries } = block;
        for (carry, next) in scan.carries.iter_mut().zip(next) {
            let missing = || self.place().error(format!("carry {} has no `next`", printed(&carry.name)));
            carry.next = next.ok_or_else(missing)?;
        }
        self.next();
        scan.body = scope.graph;
        let v = outer.graph.add(Op::Scan(Box::new(scan)), &[captures, each, initial].concat());
        outer.note(place);
        outer.bodies.insert(v, scope.places);
        let results = Results { scan: v, yields, finals: carries, totals: sums };
        match outer.scans.insert(name, results) {
            None => Ok(()),
            Some(_) => Err(place.error("there is a scan of this name already")),
        }
    }

    fn inner(&mut self, block: &mut Block, outer: &mut Scope) -> Result<(), ParseError> {
        if let Kind::Value(_) = self.peek() {
            return self.statement(&mut block.scope);
        }
        let expected = self.expected("a line of a scan");
        let Kind::Word(role) = self.next() else { return Err(expected) };
        let place = self.place();
        match role.as_str() {
            "shared" | "batch" | "each" | "carry" => self.port(&role, block, outer),
            "yield" | "sum" => {
                let name = self.name()?;
                self.sign("=")?;
                let at = self.place();
                let value = self.operand(&mut block.scope)?;
                let ty = block.scope.graph.ty(value);
                if role == "yield" && ty.extent != Extent::Batch {
                    return Err(at.error(format!("{ty} has no row for each sample and cannot be yielded")));
                }
                let (ports, names) = match role.as_str() {
                    "yield" => (&mut block.scan.yields, &mut block.yields),
                    _ => (&mut block.scan.sums, &mut block.sums),
                };
                if names.insert(name.clone(), ports.len()).is_some() {
                    return Err(place.error(format!("there is a {role} of this name already")));
                }
                ports.push(Port { name, value });
                Ok(())
            }
            "next" => {
                let name = self.name()?;
                let i = block.carries.get(&name).copied();
                let i = i.ok_or_else(|| place.error(format!("no carry {} is above", printed(&name))))?;
                self.sign("=")?;
                let at = self.place();
                let value = self.operand(&mut block.scope)?;
                let (old, new) = (block.scope.graph.ty(block.scan.carries[i].value), block.scope.graph.ty(value));
                if old != new {
                    return Err(at.error(format!("the carry keeps its type {old}, which is not {new}")));
                }
                match block.next[i].replace(value) {
                    None => Ok(()),
                    Some(_) => Err(place.error("the carry has a `next` already")),
                }
            }
            _ => Err(expected),
        }
    }

    /// `each x: f32[B, 28] = rows`, and the same for captures and carries: a leaf of the body and what it reads.
    fn port(&mut self, role: &str, block: &mut Block, outer: &mut Scope) -> Result<(), ParseError> {
        let place = self.place();
        let name = self.name()?;
        let ty = match role {
            "shared" | "batch" => self.ty_of_role(role)?,
            "each" => self.ty_of_role("batch")?,
            _ => {
                self.sign(":")?;
                let at = self.place();
                let ty = self.ty()?;
                if let Extent::Time(_) = ty.extent {
                    return Err(at.error("a state has no time extent"));
                }
                ty
            }
        };
        self.sign("=")?;
        let at = self.place();
        let scan = &mut block.scan;
        let given = match role {
            // A constant that a state starts from has the state's type.
            "carry" => match self.eat_number()? {
                Some(number) => outer.graph.constant(number, ty.clone()),
                None => self.operand(outer)?,
            },
            _ => self.operand(outer)?,
        };
        let needed = if role == "each" { ty.at(Extent::Time(scan.axis)) } else { ty.clone() };
        if *outer.graph.ty(given) != needed {
            return Err(at.error(format!("expected a value of type {needed}, found {}", outer.graph.ty(given))));
        }
        let body = &mut block.scope.graph;
        let value = match role {
            "each" => {
                let value = body.leaf(Op::Each(scan.each.len()), ty);
                scan.each.push(Port { name: name.clone(), value });
                block.each.push(given);
                value
            }
            "carry" => {
                let value = body.leaf(Op::Carry(scan.carries.len()), ty);
                block.carries.insert(name.clone(), scan.carries.len());
                scan.carries.push(Carry { name: name.clone(), value, next: value });
                block.initial.push(given);
                block.next.push(None);
                value
            }
            _ => {
                let value = body.leaf(Op::Capture(scan.captures.len()), ty);
                scan.captures.push(Port { name: name.clone(), value });
                block.captures.push(given);
                value
            }
        };
        block.scope.declare(&name, value, place)
    }
}
