//! Compile time grows linearly with the number of nodes.
//!
//! Programs that are written out step by step, or have many of something, in two sizes: four times as much of it takes less
//! than eight times as long. What was cubic took 64 times as long, what is quadratic takes 16 times. The bench
//! `compile_time -- --growth` prints the times.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use retrograd_compiler::codegen::COUNTED;
use retrograd_compiler::ir::op::Op;
use retrograd_compiler::ir::{Init, Program, Update};
use retrograd_compiler::plan::{self, Plan, Work};
use retrograd_compiler::record::{Expr, Step, concat};
use retrograd_compiler::{pipeline, time};

fn lstm<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let (h, c) = (s.state("h", units), s.state("c", units));
    let [i, f, o, g] = s.affine("gates", concat([h, x]), 4 * units).split();
    let c1 = s.next(c, f.sigmoid() * c + i.sigmoid() * g.tanh());
    s.next(h, o.sigmoid() * c1.tanh())
}

fn mean_square<'r>(h: Expr<'r>) -> Expr<'r> {
    h.square().mean_features().mean_rows()
}

/// An LSTM over a list of so many inputs, with a loss of all its outputs or of the last.
fn static_rnn(steps: usize, at_all: bool) -> Program {
    Program::record("static", |p| {
        let inputs: Vec<Expr> = (0..steps).map(|t| p.input(&format!("x{t}"), 3)).collect();
        let run = p.static_rnn("cell", &inputs, |s, x| lstm(s, x, 16));
        let loss = mean_square;
        let last = loss(run.last());
        p.minimize(if at_all { run.all().iter().map(|&h| loss(h)).fold(last, |a, b| a + b) } else { last });
    })
    .expect("no mistakes")
}

/// A loop, written out.
fn unrolled(steps: usize) -> Program {
    let program = Program::record("loop", |p| {
        let x = p.sequence("x", 3);
        let run = p.scan("net", |s| s.scope("two", |s| lstm(s, s.scope("one", |s| lstm(s, s.at(x), 16)), 16)));
        p.minimize(mean_square(run.all()));
    });
    let program = program.expect("no mistakes");
    time::unroll(&program, program.time_axes()[0], steps).expect("one axis")
}

/// So many layers, each with parameters of its own.
fn layers(n: usize) -> Program {
    Program::record("layers", |p| {
        let x = p.input("x", 16);
        let y = (0..n).fold(x, |x, i| p.scope(&format!("layer{i}"), |p| p.affine("dense", x, 16).tanh() + x));
        p.minimize(mean_square(y));
    })
    .expect("no mistakes")
}

/// One concat of so many parts.
fn wide(n: usize) -> Program {
    Program::record("wide", |p| {
        let parts: Vec<Expr> = (0..n).map(|i| p.input(&format!("x{i}"), 4).tanh()).collect();
        p.minimize(p.affine("dense", concat(parts), 3).square().mean_features().mean_rows());
    })
    .expect("no mistakes")
}

/// One pointwise function after another.
fn chain(n: usize) -> Program {
    Program::record("chain", |p| {
        let w = p.parameter("w", 8, Init::Constant(1.0));
        let y = (0..n).fold(p.input("x", 8) * w, |x, i| if i % 2 == 0 { x.sin() } else { x * w });
        p.minimize(mean_square(y));
    })
    .expect("no mistakes")
}

/// Slices of a row, which may overlap, joined again.
fn slices(n: usize, width: usize) -> Program {
    Program::record("slices", |p| {
        let x = p.affine("in", p.input("x", 4), n + width);
        let parts: Vec<Expr> = (0..n).map(|i| x.slice(i..i + width).tanh()).collect();
        p.minimize(mean_square(concat(parts)));
    })
    .expect("no mistakes")
}

/// A cell of so many layers, in a loop.
fn deep_cell(n: usize) -> Program {
    Program::record("deep", |p| {
        let x = p.sequence("x", 4);
        let run = p.scan("net", |s| {
            let states: Vec<Expr> = (0..n).map(|i| s.state(&format!("h{i}"), 4)).collect();
            states.into_iter().enumerate().fold(s.at(x), |x, (i, h)| {
                s.scope(&format!("layer{i}"), |s| s.next(h, s.affine("dense", concat([h, x]), 4).tanh()))
            })
        });
        p.minimize(mean_square(run.all()));
    })
    .expect("no mistakes")
}

/// The derivative, and an update of every parameter by its gradient.
fn trained(program: &Program) -> Program {
    let mut draft = program.backward().expect("an objective").into_draft();
    for i in 0..draft.parameters.len() {
        let parameter = &draft.parameters[i];
        let (name, target) = (format!("d.{}", parameter.name), parameter.value);
        let gradient = draft.output(&name).expect("its derivative");
        let rate = draft.graph.scalar(-0.1);
        let step = draft.graph.add(Op::Binary(retrograd_compiler::ir::Binary::Mul), &[gradient, rate]);
        let value = draft.graph.add(Op::Binary(retrograd_compiler::ir::Binary::Add), &[target, step]);
        draft.updates.push(Update { target, value });
    }
    draft.outputs.clear();
    draft.finish().expect("well formed")
}

/// Time that this thread has run, where the system tells: what others do meanwhile does not count. Elsewhere time as it goes by.
fn clock() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let run = told.and_then(|text| text.split(' ').next()?.parse().ok());
    run.map_or_else(|| START.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}

/// The plan, and how long each stage took on the way there.
fn compiled(program: &Program) -> (Plan, Vec<(&'static str, Duration)>) {
    let mut times = Vec::new();
    let mut lap = clock();
    let mut took = |what| {
        let now = clock();
        times.push((what, now.saturating_sub(lap)));
        lap = now;
    };
    let joint = trained(program);
    took("differentiate");
    let lowered = pipeline::lower(&joint);
    took("lower");
    let plan = plan::plan(&lowered, COUNTED, None);
    took("plan");
    plan.verify().expect("sound");
    took("verify");
    let text = joint.to_string();
    took("print");
    Program::parse(&text).expect("it reads back");
    took("parse");
    (plan, times)
}

fn total(times: &[(&str, Duration)]) -> Duration {
    times.iter().map(|(_, time)| *time).sum()
}

/// The best of each stage of two compiles.
fn best(program: &Program) -> Vec<(&'static str, Duration)> {
    let [first, second] = [(), ()].map(|()| compiled(program).1);
    first.into_iter().zip(second).map(|((what, a), (_, b))| (what, a.min(b))).collect()
}

fn grows_linearly(what: &str, make: impl Fn(usize) -> Program, n: usize) {
    let [few, many] = [n, 4 * n].map(|n| best(&make(n)));
    let ratio = total(&many).as_secs_f64() / total(&few).as_secs_f64();
    println!("{what} of {n}: {few:?}, of {}: {many:?}: {ratio:.1}", 4 * n);
    assert!(ratio < 8.0, "{what} of {n}: {few:?}, of {}: {many:?}", 4 * n);
    // A stage that takes longer by the square is not hidden by one that takes longest as yet.
    for ((stage, few), (_, many)) in few.into_iter().zip(many) {
        let grows = many < few * 10 || many < Duration::from_millis(100);
        assert!(grows, "{stage} of {what}: {few:?} for {n}, {many:?} for {}", 4 * n);
    }
}

#[test]
fn lists_of_steps() {
    grows_linearly("static_rnn, loss at the last step", |n| static_rnn(n, false), 150);
    grows_linearly("static_rnn, loss at all steps", |n| static_rnn(n, true), 100);
}

#[test]
fn loops_written_out() {
    grows_linearly("unroll", unrolled, 25);
}

#[test]
fn layers_and_parameters() {
    grows_linearly("layers", layers, 100);
    grows_linearly("layers of a cell", deep_cell, 50);
}

#[test]
fn long_chains() {
    grows_linearly("a chain", chain, 2000);
}

#[test]
fn wide_concats() {
    grows_linearly("a concat", wide, 800);
}

#[test]
fn many_slices() {
    grows_linearly("slices", |n| slices(n, 1), 600);
    grows_linearly("slices that overlap", |n| slices(n, 2), 200);
}

/// Most steps are alike, and have the same code: what does not is at either end, and where sums over all steps end.
#[test]
fn steps_share_their_kernels() {
    let kernels = |steps| {
        let (plan, _) = compiled(&static_rnn(steps, true));
        let shapes = plan.stages().filter_map(|(stage, _)| match &stage.work {
            Work::Kernel(kernel) => Some(kernel.shape()),
            _ => None,
        });
        shapes.collect::<std::collections::HashSet<_>>().len()
    };
    let (few, many) = (kernels(40), kernels(160));
    assert!(many < 2 * few, "{few} kernels for 40 steps, {many} for 160");
}
