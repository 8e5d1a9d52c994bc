//! Every plan of the corpus is sound, for each width of panels and of floats, with checkpoints and without; and a plan that
//! is broken is found to be.

mod corpus;

use corpus::random;
use retrograd::compiler::pipeline;
use retrograd::compiler::plan::{
    self, Access, At, Buffer, Carried, Checkpointing, Domain, Keep, Kernel, Loop, Plan, Rows, Source, Stage, Sweep,
    Target, Unit, Work,
};
use retrograd::prelude::*;

/// Panels of the instruction sets that there are, with both widths of floats.
const TARGETS: [Target; 5] = [
    Target { panel: 8, float_size: 4 },
    Target { panel: 16, float_size: 4 },
    Target { panel: 32, float_size: 4 },
    Target { panel: 4, float_size: 8 },
    Target { panel: 16, float_size: 8 },
];

const POLICIES: [Option<Checkpointing>; 4] =
    [None, Some(Checkpointing::Every(2)), Some(Checkpointing::Sqrt), Some(Checkpointing::Keep(3))];

fn corpus() -> Vec<Program> {
    let families = [
        corpus::cells::programs(),
        corpus::models::programs(),
        corpus::ops::programs(),
        corpus::ops::along_features(),
        corpus::shapes::programs(),
        corpus::loops::programs(),
        corpus::table::on_sequences(),
        corpus::table::in_loops(),
    ];
    let all = families.concat();
    let joint: Vec<Program> = all.iter().filter_map(|program| program.backward().ok()).collect();
    [all, joint].concat()
}

/// All plans of a program.
fn plans(program: &Program) -> impl Iterator<Item = Plan> {
    let lowered = pipeline::lower(program);
    let all = TARGETS.into_iter().flat_map(|target| POLICIES.map(|policy| (target, policy)));
    all.map(move |(target, policy)| plan::plan(&lowered, target, policy))
}

fn check_all(programs: impl IntoIterator<Item = Program>) {
    let mut failures = Vec::new();
    for program in programs {
        let found = plans(&program).find_map(|plan| Some((plan.verify().err()?, plan)));
        if let Some((e, plan)) = found {
            failures.push(format!("{e}\n{:?} {:?}\n{plan}", plan.target, plan.checkpointing));
        }
    }
    assert!(failures.is_empty(), "{} programs fail:\n\n{}\n", failures.len(), failures.join("\n\n"));
}

#[test]
fn plans_of_the_corpus_are_sound() {
    check_all(corpus());
}

#[test]
fn plans_of_random_programs_are_sound() {
    let joint = |seed| random::program(seed).backward().expect("an objective");
    check_all((0..60).flat_map(|seed| [random::program(seed), joint(seed)]));
}

// ---- broken plans ---------------------------------------------------------------------------------------------

/// A training step with most kinds of work in it: lookups, sums of all kinds, states with checkpoints, updates.
fn trained() -> Program {
    let program = corpus::record("trained", |p| {
        let (word, tag, x) = (p.labels_sequence("word"), p.labels_sequence("tag"), p.sequence("x", 3));
        let words = p.embedding("words", word, 7, 5);
        let run = p.scan("lstm", |s| retrograd::cells::lstm(s, concat([s.at(words), s.at(x)]), 20));
        let logits = p.affine("readout", run.all().softmax(), 4);
        let seen = logits.argmax();
        p.output("seen", seen);
        p.output("hits", seen.to_float() + seen.one_hot(4).sum());
        // Large enough that it is not written out.
        let wide = concat([run.all(), run.all().slice(..12)]);
        let product = wide.outer(wide).matmul(wide.outer(wide) + 1.0);
        p.minimize(logits.cross_entropy(tag) + product.square().sum().sum() + run.last().square().sum());
    });
    let joint = program.backward().expect("an objective");
    let clip = retrograd::runtime::optimizer::Clip::default();
    retrograd::runtime::optimizer::training_program(&joint, &Adam::new(0.1), clip).expect("settings with a meaning")
}

fn stages(units: &mut [Unit]) -> Vec<&mut Stage> {
    let mut all = Vec::new();
    for unit in units {
        match unit {
            Unit::Stage(stage) => all.push(stage),
            Unit::Loop(l) => all.extend(&mut l.stages),
            Unit::Sweep(sweep) => {
                let parts = [&mut sweep.forth, &mut sweep.between, &mut sweep.back];
                all.extend(parts.into_iter().flat_map(|units| stages(units)));
            }
        }
    }
    all
}

fn loops(units: &mut [Unit]) -> Vec<&mut Loop> {
    let mut all = Vec::new();
    for unit in units {
        match unit {
            Unit::Stage(_) => {}
            Unit::Loop(l) => all.push(l),
            Unit::Sweep(sweep) => {
                let parts = [&mut sweep.forth, &mut sweep.between, &mut sweep.back];
                all.extend(parts.into_iter().flat_map(|units| loops(units)));
            }
        }
    }
    all
}

fn sweep(plan: &mut Plan) -> &mut Sweep {
    let sweeps =
        plan.units.iter_mut().filter_map(|unit| if let Unit::Sweep(sweep) = unit { Some(sweep) } else { None });
    sweeps.into_iter().next().expect("a sweep")
}

/// Changes the first work that a function wants to change.
fn work(plan: &mut Plan, change: impl Fn(&mut Work) -> bool) {
    assert!(stages(&mut plan.units).into_iter().any(|stage| change(&mut stage.work)), "such work");
}

/// Changes what the first product over rows that is taken in pieces goes on from.
fn in_pieces(plan: &mut Plan, change: impl Fn(&mut [Buffer], &mut Option<Carried>)) {
    let Plan { units, buffers, .. } = plan;
    let carried = stages(units).into_iter().find_map(|stage| match &mut stage.work {
        Work::ReduceProduct { carried, .. } if carried.is_some() => Some(carried),
        _ => None,
    });
    change(buffers, carried.expect("a product in pieces"));
}

fn totals<'b>(buffers: &'b mut [Buffer], carried: &Option<Carried>) -> &'b mut Buffer {
    &mut buffers[carried.expect("it goes on from something").totals.0]
}

/// Whether something is of a pattern, and is changed.
macro_rules! change {
    ($of:expr, $pattern:pat => $change:expr) => {
        match $of {
            $pattern => {
                $change;
                true
            }
            _ => false,
        }
    };
}

/// Changes the first kernel that a function wants to change.
fn kernel(plan: &mut Plan, change: impl Fn(&mut Kernel) -> bool) {
    work(plan, |work| match work {
        Work::Kernel(kernel) => change(kernel),
        _ => false,
    });
}

/// Changes an access of a kernel everywhere.
fn access(stage: &mut Stage, from: Access, into: Access) {
    let Work::Kernel(kernel) = &mut stage.work else { return };
    let listed = stage.reads.iter_mut().chain(&mut stage.writes).chain(kernel.strides.iter_mut().map(|(a, _)| a));
    listed.filter(|a| **a == from).for_each(|a| *a = into);
}

type Breaks = (&'static str, fn(&mut Plan));

/// What a rule says of a plan that breaks it, and how it is broken.
const BREAKS: &[Breaks] = &[
    ("there is no slot", |p| p.buffers[3].slot = 10_000),
    ("are longer than", |p| p.slots.iter_mut().for_each(|slot| slot.row_bytes -= 1)),
    ("are more rows than slot", |p| {
        let slot = p.buffers.iter().find(|b| matches!(b.rows, Rows::Time(_))).expect("rows for all steps").slot;
        p.slots[slot].rows = Rows::Batch;
    }),
    ("it has 0 parts", |p| p.outputs[0].spans.clear()),
    ("has elements of another type", |p| p.outputs[0].integer ^= true),
    ("is kept as", |p| p.buffers[p.parameters[0].spans[0].access.buffer.0].keep = Keep::Run),
    ("elements of shape", |p| p.parameters[0].shape.push(2)),
    ("reach past the row", |p| p.parameters[0].spans[0].offset += 1000),
    ("rows at", |p| p.outputs[0].spans[0].access.at = At::Row(2)),
    ("is one float, which is kept", |p| p.row_counts[0].0 = p.inputs[0].spans[0].access.buffer),
    // Rows.
    ("rows at Step(1) are not those of", |p| {
        let is_kernel =
            |s: &&mut Stage| matches!(s.work, Work::Kernel(_)) && s.writes.iter().any(|w| w.at == At::Step(0));
        let stage = stages(&mut p.units).into_iter().find(is_kernel);
        let stage = stage.expect("a stage that goes by steps");
        let own = *stage.writes.iter().find(|w| w.at == At::Step(0)).expect("found");
        access(stage, own, Access { at: At::Step(1), ..own });
    }),
    ("rows at", |p| loops(&mut p.units)[0].states[0].end.at = At::FromEnd(Axis(0), 2)),
    ("rows at", |p| loops(&mut p.units)[0].states[0].begin.at = At::FromEnd(Axis(1), 0)),
    ("a state of another axis", |p| loops(&mut p.units)[0].states[0].axis = Axis(1)),
    ("what runs again is not in the way forth", |p| sweep(p).again.push(1000)),
    ("something else than steps of its axis", |p| {
        let sweep = sweep(p);
        sweep.axis = Axis(2);
    }),
    // Works.
    ("is not in the list", |p| {
        let stage = stages(&mut p.units).into_iter().find(|s| matches!(s.work, Work::Gather { .. }));
        stage.expect("a lookup").reads.clear();
    }),
    ("elements", |p| work(p, |w| change!(w, Work::Gather { into, .. } => into.offset += 64))),
    ("rows of", |p| work(p, |w| change!(w, Work::Gather { width, .. } => *width += 1))),
    ("rows of", |p| work(p, |w| change!(w, Work::Scatter { width, .. } => *width += 1))),
    ("classes", |p| work(p, |w| change!(w, Work::OneHot { n, .. } => *n += 1))),
    ("scores", |p| work(p, |w| change!(w, Work::Argmax { n, .. } => *n += 1))),
    ("", |p| work(p, |w| change!(w, Work::ToFloat { from, .. } => from.len += 1))),
    ("times", |p| work(p, |w| change!(w, Work::MatMul { mkn, .. } => mkn[1] += 1))),
    ("pairs of a row", |p| work(p, |w| change!(w, Work::ReduceProduct { pairs, .. } => *pairs = 0))),
    ("that are", |p| work(p, |w| change!(w, Work::ReduceProduct { stride, .. } => *stride = 1))),
    ("elements", |p| work(p, |w| change!(w, Work::ReduceProduct { offset, .. } => *offset += 10_000))),
    ("sums of", |p| work(p, |w| change!(w, Work::ReduceRows { into, .. } => into.len += 1))),
    ("to go on from where", |p| in_pieces(p, |_, carried| *carried = None)),
    ("blocks that have begun", |p| in_pieces(p, |_, carried| carried.iter_mut().for_each(|c| c.begun = None))),
    ("is not for sums of", |p| in_pieces(p, |buffers, carried| totals(buffers, carried).stride = 1)),
    ("of what a sum goes on from, has", |p| {
        let slot = p.slots.len();
        in_pieces(p, |buffers, carried| {
            let totals = totals(buffers, carried);
            (totals.rows, totals.slot) = (Rows::One, slot);
        });
        p.slots.push(retrograd::compiler::plan::Slot { rows: Rows::One, row_bytes: 1 << 20 });
    }),
    ("is not its own", |p| in_pieces(p, |buffers, carried| totals(buffers, carried).keep = Keep::Run)),
    ("is not its own", |p| {
        let back = &mut sweep(p).back;
        let is_in_pieces =
            |u: &&Unit| matches!(u, Unit::Stage(s) if matches!(s.work, Work::ReduceProduct { carried: Some(_), .. }));
        let again = back.iter().find(is_in_pieces).expect("a product in pieces").clone();
        back.push(again);
    }),
    ("a matrix without", |p| work(p, |w| change!(w, Work::Pack { k, .. } => *k = 0))),
    ("elements", |p| work(p, |w| change!(w, Work::Pack { from, .. } => from.k_stride += 1000))),
    ("elements", |p| work(p, |w| change!(w, Work::Pack { n, .. } => *n += 1000))),
    ("on of", |p| work(p, |w| change!(w, Work::Pack { k_offset, .. } => *k_offset += 1))),
    ("of another type", |p| {
        let whose = stages(&mut p.units).into_iter().find_map(|s| match s.work {
            Work::Gather { index, .. } => Some(index.access.buffer),
            _ => None,
        });
        let id = whose.expect("a lookup");
        p.buffers[id.0].integer = false;
        p.inputs.iter_mut().filter(|i| i.spans[0].access.buffer == id).for_each(|i| i.integer = false);
    }),
    // Kernels.
    ("are not its own", |p| {
        kernel(p, |k| {
            k.reads += 1;
            true
        })
    }),
    ("elements apart", |p| {
        kernel(p, |k| {
            k.strides[0].1 += 1;
            true
        })
    }),
    ("which is not before it", |p| {
        kernel(p, |k| {
            let last = k.nodes.len();
            let mut reads = k.nodes.iter_mut().flat_map(|n| &mut n.reads);
            reads.find(|r| matches!(r.source, Source::Node(_))).map(|r| r.source = Source::Node(last)).is_some()
        });
    }),
    ("there is no access", |p| {
        kernel(p, |k| {
            let mut reads = k.nodes.iter_mut().flat_map(|n| &mut n.reads);
            reads.find(|r| matches!(r.source, Source::Memory(_))).map(|r| r.source = Source::Memory(999)).is_some()
        });
    }),
    ("there is no result", |p| {
        kernel(p, |k| k.nodes.iter_mut().find_map(|n| n.stores.first_mut()).map(|s| s.0 = 999).is_some());
    }),
    ("operands for", |p| {
        kernel(p, |k| k.nodes.iter_mut().find(|n| n.reads.len() > 1).map(|n| n.reads.truncate(1)).is_some());
    }),
    ("a loop over", |p| kernel(p, |k| k.nodes.first_mut().map(|n| n.dims = vec![0]).is_some())),
    ("elements", |p| {
        kernel(p, |k| k.nodes.iter_mut().find(|n| n.into.is_none()).map(|n| n.len += 1).is_some());
    }),
    ("a reduction of", |p| {
        let sum = |n: &&mut retrograd::compiler::plan::KernelNode| n.into.is_some();
        kernel(p, |k| k.nodes.iter_mut().find(sum).map(|n| n.into = Some(vec![9; n.dims.len()])).is_some());
    }),
    ("is read by a view", |p| {
        kernel(p, |k| {
            let mut reads = k.nodes.iter_mut().flat_map(|n| &mut n.reads);
            reads.find(|r| matches!(r.source, Source::Product(_))).map(|r| r.offset = 1).is_some()
        });
    }),
    ("there is no product", |p| {
        kernel(p, |k| {
            let mut reads = k.nodes.iter_mut().flat_map(|n| &mut n.reads);
            reads.find(|r| matches!(r.source, Source::Product(_))).map(|r| r.source = Source::Product(99)).is_some()
        });
    }),
    ("has segments of", |p| kernel(p, |k| product(k).map(|x| x.k += 1).is_some())),
    ("has the panels of another", |p| kernel(p, |k| product(k).map(|x| x.packed.0 += 1).is_some())),
    ("which is not before it", |p| {
        kernel(p, |k| product(k).map(|x| x.start = Some(retrograd::compiler::plan::Start::Product(7))).is_some());
    }),
    ("elements", |p| {
        let far = |s: &mut (usize, usize)| s.1 += 10_000;
        kernel(p, |k| k.nodes.iter_mut().find_map(|n| n.stores.first_mut()).map(far).is_some());
    }),
    ("touches the same elements otherwise", |p| {
        // The state that a step multiplies is the one that it writes.
        let names: Vec<String> = p.buffers.iter().map(|b| b.name.clone()).collect();
        let is_h = |a: &Access| a.at == At::Step(1) && names[a.buffer.0] == "lstm.h";
        let mut stages = loops(&mut p.units).remove(0).stages.iter_mut();
        let stage = stages.find(|s| s.writes.iter().any(is_h)).expect("a state");
        let own = *stage.writes.iter().find(|w| is_h(w)).expect("found");
        access(stage, own, Access { at: At::Step(0), ..own });
    }),
    ("which is the same memory", |p| {
        let pair = stages(&mut p.units).into_iter().find_map(|s| match &s.work {
            Work::Kernel(_) if s.domain == Domain::Batch || matches!(s.domain, Domain::Time(_)) => {
                let (read, write) = (s.reads.iter(), s.writes.first()?);
                Some((read.clone().find(|r| r.buffer != write.buffer)?.buffer, write.buffer))
            }
            _ => None,
        });
        let (read, write) = pair.expect("a kernel that reads and writes");
        let slot = p.slots.len();
        let row_bytes = 8 * p.buffers[read.0].stride.max(p.buffers[write.0].stride);
        p.slots.push(retrograd::compiler::plan::Slot { rows: Rows::History(Axis(0)), row_bytes });
        for id in [read, write] {
            p.buffers[id.0].slot = slot;
            if p.buffers[id.0].rows != Rows::History(Axis(0)) {
                p.buffers[id.0].rows = Rows::Time(Axis(0));
            }
        }
    }),
    // Order.
    ("is read before it is written", |p| {
        let at = p.units.iter().position(|u| matches!(u, Unit::Stage(s) if matches!(s.work, Work::Pack { .. })));
        p.units.remove(at.expect("weights are packed"));
    }),
    ("is read before it is written", |p| sweep(p).forth.reverse()),
    ("", |p| sweep(p).back.reverse()),
    ("has no state to go on from", |p| {
        let unset = |u: &Unit| matches!(u, Unit::Stage(s) if s.name.starts_with("lstm.") && matches!(s.work, Work::Fill { .. }));
        p.units.retain(|u| !unset(u));
    }),
];

fn product(kernel: &mut Kernel) -> Option<&mut retrograd::compiler::plan::Product> {
    kernel.tile.as_mut()?.products.first_mut()
}

/// Each rule is broken once, and says so.
#[test]
fn a_broken_plan_is_found() {
    let whole = plan::plan(&pipeline::lower(&trained()), TARGETS[0], Some(Checkpointing::Every(2)));
    assert_eq!(whole.verify(), Ok(()));
    let mut missed = Vec::new();
    for (i, (reason, breaks)) in BREAKS.iter().enumerate() {
        let mut plan = whole.clone();
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| breaks(&mut plan)));
        match (broken, plan.verify()) {
            (Err(_), _) => missed.push(format!("{i}, `{reason}`: it could not be broken\n{whole}")),
            (_, Ok(())) => missed.push(format!("{i}, `{reason}`: not found")),
            (_, Err(e)) if !e.reason.contains(reason) => missed.push(format!("{i}, `{reason}`: found as `{e}`")),
            _ => {}
        }
    }
    assert!(missed.is_empty(), "{} of {}:\n{}", missed.len(), BREAKS.len(), missed.join("\n"));
}

/// A stage that is left out, or runs too early, is missed by what reads its result.
#[test]
fn stages_left_out_or_out_of_order_are_found() {
    let (mut left_out, mut swapped, mut missed) = (0, 0, Vec::new());
    for policy in POLICIES {
        let whole = plan::plan(&pipeline::lower(&trained()), TARGETS[1], policy);
        let units = whole.units.len();
        for i in 0..units {
            let mut plan = whole.clone();
            let unit = plan.units.remove(i);
            left_out += 1;
            // What is updated in place is there before, too.
            let old =
                whole.parameters.iter().chain(&whole.inputs).map(|p| p.spans[0].access.buffer).collect::<Vec<_>>();
            let all = unit.stages().into_iter().flat_map(|(stage, _)| stage.writes.clone()).collect::<Vec<_>>();
            if plan.verify().is_ok() && all.iter().any(|w| !old.contains(&w.buffer)) {
                missed.push(format!("{policy:?}: unit {i} is left out"));
            }
            for j in i + 1..units {
                let reads =
                    |unit: &Unit| unit.stages().into_iter().flat_map(|(s, _)| s.reads.clone()).collect::<Vec<_>>();
                let later = reads(&whole.units[j]);
                let needs = all.iter().any(|w| !old.contains(&w.buffer) && later.iter().any(|r| r.buffer == w.buffer));
                if !needs {
                    continue;
                }
                let mut plan = whole.clone();
                plan.units.swap(i, j);
                swapped += 1;
                if plan.verify().is_ok() {
                    missed.push(format!("{policy:?}: units {i} and {j} are swapped"));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{} of {left_out} and {swapped}:\n{}", missed.len(), missed.join("\n"));
    assert!(left_out > 40 && swapped > 40, "{left_out} left out, {swapped} swapped");
}

/// Two buffers that are both wanted at some time cannot have one slot: whichever of a pair of lives that meet is given the
/// other's, it is found. Which lives meet is asked of the plan as it was: those that share no slot and are read or written
/// in one and the same unit.
#[test]
fn lives_that_meet_in_one_slot_are_found() {
    let whole = plan::plan(&pipeline::lower(&trained()), TARGETS[1], None);
    let mut tried = 0;
    for unit in &whole.units {
        let accesses = unit.stages().into_iter().flat_map(|(s, _)| [s.reads.clone(), s.writes.clone()].concat());
        let mut buffers: Vec<usize> = accesses.map(|a| a.buffer.0).collect();
        buffers.sort_unstable();
        buffers.dedup();
        if !matches!(unit, Unit::Stage(_)) {
            continue;
        }
        for (&a, &b) in buffers.iter().flat_map(|a| buffers.iter().map(move |b| (a, b))).filter(|(a, b)| a < b) {
            let mut plan = whole.clone();
            let (own, other) = (plan.buffers[a].clone(), plan.buffers[b].clone());
            let Some(rows) = own.rows.join(other.rows) else { continue };
            let row_bytes = plan.slots[own.slot].row_bytes.max(plan.slots[other.slot].row_bytes);
            plan.slots.push(retrograd::compiler::plan::Slot { rows, row_bytes });
            let slot = plan.slots.len() - 1;
            plan.buffers[a].slot = slot;
            plan.buffers[b].slot = slot;
            tried += 1;
            assert!(plan.verify().is_err(), "`{}` and `{}` have one slot", own.name, other.name);
        }
    }
    assert!(tried > 50, "{tried} pairs");
}

/// What a run leaves for the next must be kept.
#[test]
fn packed_weights_that_are_not_kept_are_found() {
    let forward = corpus::cells::program("lstm", retrograd::cells::lstm, 3, 5);
    let mut plan = plan::plan(&pipeline::lower(&forward), TARGETS[1], None);
    assert_eq!(plan.verify(), Ok(()));
    let pack = plan.stages().find(|(s, _)| s.constant).map(|(s, _)| s.writes[0].buffer);
    plan.buffers[pack.expect("weights are packed when they change").0].keep = Keep::Run;
    let error = plan.verify().expect_err("the next run finds nothing");
    assert!(error.reason.contains("is read before it is written"), "{error}");
}
