//! A product at the end of one step becomes one at the start of the next.
//!
//! Before: a hoisted program. A loop that runs backwards ends each step with the product that takes the adjoint of the
//! gates to the adjoint of the state, `δh' = δz·Wᵀ`, and begins the next one with pointwise work on it. After: `δz` is
//! what is carried, and each step begins with `δh = δz·Wᵀ`. So a step is one product and the pointwise work behind it,
//! which is the form of a forward step too, and the form that a tile kernel computes at one go.
//!
//! The algebra, for a state `c` whose next value is `r + v·W`, W being the same at every step:
//!
//! ```text
//! c₀ = i,  cₜ₊₁ = rₜ + vₜ·W     becomes     r₀' = i,  v₀' = 0,  cₜ = rₜ' + vₜ'·W,  rₜ₊₁' = rₜ,  vₜ₊₁' = vₜ
//! ```
//!
//! A state without `r` must start from 0. What the outside wants of the last `c` is computed behind the loop, by the
//! same formula. This is done where `v` is written for the outside anyway (weight gradients read it): its history then
//! serves as the state, and nothing more is stored. A state whose values are seen from outside stays as it is.

use crate::ir::{Binary, Extent, Graph, Op, Program, Scan, Value};
use crate::simplify::rebuild::{Body, Numbered, Results, Rewrite, Used, rewrite, walk};

/// Rotates products of all loops.
///
/// ```
/// use retrograd_compiler::{ir::Program, time::rotate};
/// let program = Program::parse("\
/// program adjoint {
///   axis T = time
///   sequence dy: f32[T, B, 2]
///   parameter w: f32[2, 2] = glorot
///   scan adjoint reverse {
///     shared w: f32[2, 2] = w
///     each dy: f32[B, 2] = dy
///     carry dh: f32[B, 2] = 0
///     %0: f32[B, 2] = add dy, dh
///     %1: f32[B, 2] = sin %0
///     %2: f32[B, 2] = dot.nt %1, w
///     yield dz = %1
///     next dh = %2
///   }
///   %0: f32[T, B, 2] = yield dz of adjoint
///   output dz = %0
/// }
/// ")?;
/// assert!(rotate(&program).to_string().contains("\
///     carry dz: f32[B, 2] = 0
///     %0: f32[B, 2] = dot.nt dz, w
///     %1: f32[B, 2] = add dy, %0
///     %2: f32[B, 2] = sin %1
///     yield dz = %2
///     next dz = %2
/// "));
/// # Ok::<(), retrograd_compiler::ir::parse::ParseError>(())
/// ```
pub fn rotate(program: &Program) -> Program {
    rewrite(program, &Rotate)
}

struct Rotate;

/// A product among the terms of a state's next value.
struct Product {
    /// With which op.
    op: Op,
    /// What is multiplied.
    v: Value,
    /// The capture by which: its leaf and its number.
    w: (Value, usize),
}

/// A state's next value taken apart: `Σ products + Σ rest`.
struct Sum {
    products: Vec<Product>,
    rest: Vec<Value>,
}

impl Sum {
    /// The terms of state `i`, if it is to be rotated. `initial` is the number that it starts from, if it is one.
    fn of(scan: &Scan, used: &Used, i: usize, initial: Option<f64>) -> Option<Sum> {
        let (body, carry) = (&scan.body, &scan.carries[i]);
        let seen = used.roots(scan);
        let others = (0..scan.carries.len()).filter(|&j| j != i).map(|j| scan.carries[j].next);
        let elsewhere: Vec<Value> = others.chain(seen.iter().copied()).collect();
        let is_own = |v: Value, users: usize| body.users(v).len() == users && !elsewhere.contains(&v);
        if seen.contains(&carry.value) || !is_own(carry.next, 0) {
            return None;
        }
        let mut sum = Sum { products: Vec::new(), rest: Vec::new() };
        let mut terms = vec![(carry.next, 0)];
        while let Some((term, users)) = terms.pop() {
            let operands = body.operands(term);
            let own = is_own(term, users);
            match body.op(term) {
                Op::Binary(Binary::Add) if own && operands.iter().all(|&o| body.ty(o) == body.ty(term)) => {
                    terms.extend(operands.iter().rev().map(|&o| (o, 1)));
                }
                op @ (Op::Dot | Op::DotNt) if own && seen.contains(&operands[0]) => match body.op(operands[1]) {
                    Op::Capture(number) => {
                        sum.products.push(Product { op: op.clone(), v: operands[0], w: (operands[1], *number) });
                    }
                    _ => sum.rest.push(term),
                },
                _ => sum.rest.push(term),
            }
        }
        let starts = !sum.rest.is_empty() || initial == Some(0.0);
        let rotates = !sum.products.is_empty() && starts && body.ty(carry.value).extent == Extent::Batch;
        rotates.then_some(sum)
    }
}

fn add_all(g: &mut Numbered, terms: impl IntoIterator<Item = Value>) -> Option<Value> {
    terms.into_iter().reduce(|a, b| g.add(Op::Binary(Binary::Add), &[a, b]))
}

/// What the state of a multiplied value is called: as it is for the outside.
fn name(scan: &Scan, v: Value) -> String {
    let port = scan.yields.iter().find(|port| port.value == v).expect("what is multiplied is written for the outside");
    let taken = |name: &str| scan.carries.iter().any(|c| c.name == name);
    let numbered = || (1..).map(|i| format!("{}_{i}", port.name)).find(|n| !taken(n)).expect("numbers do not end");
    if taken(&port.name) { numbered() } else { port.name.clone() }
}

impl Rewrite for Rotate {
    type Facts = ();
    fn facts(&self, _: &Graph, _: &[Value], _: Option<&Scan>) {}

    fn scan(&self, g: &mut Numbered, scan: &Scan, operands: &[Value], used: &Used) -> Results {
        let (captures, each, initial) = scan.split_operands(operands);
        let sums: Vec<Option<Sum>> =
            (0..scan.carries.len()).map(|i| Sum::of(scan, used, i, g.number(initial[i]))).collect();

        let mut body = Body::like(scan);
        let mut seeds = vec![None; scan.body.len()];
        for (port, &v) in scan.captures.iter().zip(captures) {
            seeds[port.value.index()] = Some(body.capture(&port.name, v, scan.body.ty(port.value)));
        }
        for (port, &v) in scan.each.iter().zip(each) {
            seeds[port.value.index()] = Some(body.each(&port.name, v, scan.body.ty(port.value)));
        }
        // States by number: those that stay, then what is multiplied.
        let mut nexts: Vec<Vec<Value>> = Vec::new();
        let mut stays: Vec<Option<usize>> = Vec::new();
        let mut leaves: Vec<Option<Value>> = Vec::new();
        for (i, carry) in scan.carries.iter().enumerate() {
            let next = match &sums[i] {
                None => vec![carry.next],
                Some(sum) => sum.rest.clone(),
            };
            let leaf = (!next.is_empty()).then(|| {
                nexts.push(next);
                body.carry(&carry.name, initial[i], scan.body.ty(carry.value))
            });
            stays.push(leaf.map(|_| nexts.len() - 1));
            leaves.push(leaf);
        }
        // For each rotated state, the numbers of its products' states.
        let mut multiplied: Vec<Vec<usize>> = vec![Vec::new(); scan.carries.len()];
        for (i, carry) in scan.carries.iter().enumerate() {
            let Some(sum) = &sums[i] else {
                seeds[carry.value.index()] = leaves[i];
                continue;
            };
            let mut terms: Vec<Value> = leaves[i].into_iter().collect();
            for product in &sum.products {
                let ty = scan.body.ty(product.v);
                let zero = g.constant(0.0, ty.clone());
                let leaf = body.carry(&self::name(scan, product.v), zero, ty);
                multiplied[i].push(nexts.len());
                nexts.push(vec![product.v]);
                let w = seeds[product.w.0.index()].expect("captures are leaves");
                terms.push(body.g.add(product.op.clone(), &[leaf, w]));
            }
            seeds[carry.value.index()] = add_all(&mut body.g, terms);
        }

        let roots: Vec<Value> = used.roots(scan).into_iter().chain(nexts.iter().flatten().copied()).collect();
        let map = walk(self, &scan.body, &roots, Some(scan), seeds, &mut body.g);
        let new = |v: Value| map[v.index()].expect("a walk maps all roots");
        for (number, terms) in nexts.iter().enumerate() {
            let next = add_all(&mut body.g, terms.iter().map(|&v| new(v))).expect("a state has a next value");
            body.next(number, next);
        }
        let yields: Vec<Option<usize>> = scan
            .yields
            .iter()
            .zip(&used.yields)
            .map(|(port, used)| used.then(|| body.yielded(&port.name, new(port.value))))
            .collect();
        let totals: Vec<Option<usize>> = scan
            .sums
            .iter()
            .zip(&used.totals)
            .map(|(port, used)| used.then(|| body.total(&port.name, new(port.value))))
            .collect();
        let node = body.place(g);
        let finals = (0..scan.carries.len()).map(|i| {
            if !used.finals[i] {
                return None;
            }
            let rest = stays[i].map(|number| g.result(node, Op::Final(number)));
            let mut terms: Vec<Value> = rest.into_iter().collect();
            for (product, &number) in sums[i].iter().flat_map(|sum| &sum.products).zip(&multiplied[i]) {
                let last = g.result(node, Op::Final(number));
                terms.push(g.add(product.op.clone(), &[last, captures[product.w.1]]));
            }
            add_all(g, terms)
        });
        Results {
            finals: finals.collect(),
            yields: yields.into_iter().map(|i| i.map(|i| g.result(node, Op::Yield(i)))).collect(),
            totals: totals.into_iter().map(|i| i.map(|i| g.result(node, Op::Total(i)))).collect(),
        }
    }
}
