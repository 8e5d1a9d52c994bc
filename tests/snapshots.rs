//! The texts of library cells at each stage: a diff shows what an edit did to the compiler's work.

use retrograd::cells;
use retrograd::compiler::ir::Sizes;
use retrograd::compiler::plan::{Checkpointing, Plan, Port, Stage, Unit, Work};
use retrograd::prelude::*;
use retrograd::runtime::optimizer::Adam;
use retrograd::runtime::train::Training;

type Cell = for<'r> fn(&Step<'r>, Expr<'r>, usize) -> Expr<'r>;
type Told = for<'r> fn(&Step<'r>, Expr<'r>, Expr<'r>) -> Expr<'r>;

/// A cell of 16 units over 8 inputs with a readout and a loss at every step.
fn many_to_many(name: &str, cell: Cell) -> Program {
    read_out(name, |p, x| p.scan("cell", |s| cell(s, s.at(x), 16)))
}

/// The same of a cell that is told something of this shape.
fn told(name: &str, shape: &[usize], cell: Told) -> Program {
    read_out(name, |p, x| {
        let about = p.input("about", shape);
        p.scan("cell", |s| cell(s, s.at(x), about))
    })
}

fn read_out(name: &str, scan: impl for<'r> FnOnce(&Recorder<'r>, Expr<'r>) -> Run<'r>) -> Program {
    Program::record(name, |p| {
        let (x, target) = (p.sequence("x", 8), p.labels_sequence("target"));
        let run = scan(p, x);
        p.minimize(p.affine("readout", run.all(), 4).cross_entropy(target));
    })
    .expect("library cells record")
}

/// The net in the letters U, V and W, which has its readout in the step.
fn uvw() -> Program {
    Program::record("rnn_uvw", |p| {
        let (x, target) = (p.sequence("x", 8), p.labels_sequence("target"));
        let (_, logits, _) = p.scan("cell", |s| cells::rnn_uvw(s, s.at(x), 16, 4));
        p.minimize(logits.all().cross_entropy(target));
    })
    .expect("library cells record")
}

fn check(recorded: &Program) {
    let joint = recorded.backward().expect("it has an objective");
    for (stage, text) in [
        ("recorded", recorded.to_string()),
        ("joint", joint.to_string()),
        ("hoisted", joint.hoisted().to_string()),
        ("plan", joint.plan().to_string()),
    ] {
        insta::assert_snapshot!(format!("{}.{stage}", recorded.name), text);
    }
    check_drawings(&joint.plan());
    check_drawings(&joint.checkpointed_plan(Checkpointing::Every(3)));
}

/// The lines of a plan's text that stand for stages, loops and sweeps, sorted.
fn lines_of(plan: &Plan) -> Vec<String> {
    let text = plan.to_string();
    let (stages, _) = text.split_once("\n  memory {").expect("memory comes last");
    let lines = stages.lines().skip(1).map(str::trim).filter(|line| *line != "}" && !line.starts_with("update "));
    let mut lines: Vec<String> = lines.map(|line| line.split(" {").next().unwrap_or(line).to_string()).collect();
    lines.sort();
    lines
}

/// Both drawings of a plan show every line of its text once. The SVG is well formed, and the edges of the DOT join
/// boxes that are there.
fn check_drawings(plan: &Plan) {
    let (svg, dot, name) = (plan.to_svg(), plan.to_dot(), &plan.name);
    assert_eq!(svg, plan.clone().to_svg(), "{name}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}: boxes have places");

    let inner = svg.strip_prefix("<svg ").and_then(|s| s.strip_suffix("</svg>\n")).expect("one element");
    let (mut depth, mut shown) = (0, Vec::new());
    for line in inner.lines().skip(1) {
        let quotes = line.split('>').next().unwrap_or(line).matches('"').count();
        assert_eq!(quotes % 2, 0, "{name}: {line}");
        match line.split([' ', '>']).next() {
            Some("<g") => depth += 1,
            Some("</g") => depth -= 1,
            Some("<rect" | "<path") => assert!(line.ends_with("/>"), "{name}: {line}"),
            Some("<text") => {
                let text = line.split_once('>').and_then(|(_, s)| s.strip_suffix("</text>")).expect("text is closed");
                assert!(!text.contains(['<', '>']), "{name}: {line}");
                for entity in text.split('&').skip(1) {
                    assert!(["amp;", "lt;", "gt;"].iter().any(|e| entity.starts_with(e)), "{name}: {line}");
                }
                shown.push(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"));
            }
            _ => panic!("{name}: {line}"),
        }
        assert!(depth >= 0, "{name}: frames close after they open");
    }
    assert_eq!(depth, 0, "{name}: frames close");

    let boxes: Vec<&str> = dot.lines().filter(|l| l.contains(" [label=")).collect();
    let ids: Vec<&str> = boxes.iter().filter_map(|l| Some(l.split_once(" [label=")?.0.trim())).collect();
    for edge in dot.lines().filter(|l| l.contains(" -> ") && !l.contains("label=")) {
        let (from, to) = edge.trim().trim_end_matches(';').split_once(" -> ").expect("an edge");
        let to = to.split(" [").next().expect("a box");
        assert!(ids.contains(&from) && ids.contains(&to), "{name}: {edge}");
    }

    let in_dot = dot.lines().filter(|l| l.contains("label=")).flat_map(|l| l.split('"')).filter(|s| s.ends_with("\\l"));
    let mut in_dot: Vec<&str> = in_dot.flat_map(|label| label.split_terminator("\\l")).collect();
    in_dot.sort_unstable();
    let lines = lines_of(plan);
    assert_eq!(in_dot, lines, "{name}");
    // The SVG has the texts of ports as well.
    for line in &lines {
        let count = |texts: &[String]| texts.iter().filter(|text| *text == line).count();
        assert_eq!(count(&shown), count(&lines), "{name}: {line}");
    }
}

/// Who reads what which has written: within the loop dashed from the step before, and with checkpoints from one way of a
/// sweep to the other.
#[test]
fn drawing_of_a_plan() {
    let joint = many_to_many("rnn", cells::rnn).backward().expect("it has an objective");
    insta::assert_snapshot!("rnn.plan_dot", joint.plan().to_dot());
    insta::assert_snapshot!("rnn.checkpointed_dot", joint.checkpointed_plan(Checkpointing::Sqrt).to_dot());
}

#[test]
fn stages_of_the_library_cells() {
    let cells: [(&str, Cell); 12] = [
        ("rnn", cells::rnn),
        ("rnn_split", cells::rnn_split),
        ("ind_rnn", cells::ind_rnn),
        ("lstm", cells::lstm),
        ("peephole_lstm", cells::peephole_lstm),
        ("layer_norm_lstm", cells::layer_norm_lstm),
        ("projected_lstm", |s, x, units| cells::projected_lstm(s, x, 2 * units, units)),
        ("min_lstm", cells::min_lstm),
        ("gru", cells::gru),
        ("gru_reset_after", cells::gru_reset_after),
        ("mgu", cells::mgu),
        ("min_gru", cells::min_gru),
    ];
    for (name, cell) in cells {
        check(&many_to_many(name, cell));
    }
    check(&uvw());
}

/// What is read out is the state with which the decoder looks, or has looked.
#[test]
fn stages_of_the_cells_that_are_told_something() {
    let cells: [(&str, &[usize], Told); 3] = [
        ("conditioned_rnn", &[12], |s, x, about| cells::conditioned_rnn(s, x, about, 16)),
        ("dot_attention_decoder", &[5, 12], |s, x, places| cells::dot_attention_decoder(s, x, places, 16).0),
        ("additive_attention_decoder", &[5, 12], |s, x, places| cells::additive_attention_decoder(s, x, places, 16).0),
    ];
    for (name, shape, cell) in cells {
        check(&told(name, shape, cell));
    }
}

/// Where samples have lengths, what must be chosen for a gradient to have nothing of padding, and what need not be,
/// since it is finite there: a state that is held, a gate of it, its norm, a product of these, what a mask has chosen.
#[test]
fn choices_of_cells_with_lengths() {
    let layers = Program::record("layers_with_lengths", |p| {
        let time = p.lengths("lengths");
        let (x, target) = (time.sequence("x", 8), time.labels("target"));
        let below = time.scan("below", |s| cells::lstm(s, s.at(x), 6));
        let above = time.scan_reverse("above", |s| cells::rnn(s, s.at(below.all()).exp(), 6));
        p.minimize(p.affine("readout", above.all(), 4).cross_entropy(target).mean_over(time));
    });
    let finite = Program::record("finite_in_padding", |p| {
        let time = p.lengths("lengths");
        let (x, target) = (time.sequence("x", 8), time.sequence("target", 4));
        let run = time.scan("cell", |s| {
            let h = s.state("h", 6);
            let read = concat([s.layer_norm("norm", h), (h * 0.5 - 1.0).silu(), s.linear("u", h, 2), s.at(x)]);
            let gate = s.linear("gate", h.stop_gradient(), 6).sigmoid();
            s.next(h, gate * s.affine("z", read, 6).tanh())
        });
        let h = run.all();
        let gated = p.affine("gate", h, 6).sigmoid() * p.affine("in", h, 6).tanh();
        let norm = h.layer_norm(p.constant(1.0), p.constant(0.0), 1e-5);
        // Chosen twice in the same rows, and in those of a mask of its own.
        let read = p.affine("read", x, 2);
        let again = select(time.mask(), read * 0.25, 0.0);
        let other = select(p.sequence("mask", ()), read * 0.5, 0.0);
        let made = concat([gated, norm, p.linear("product", h, 2) - h.sum().reshape(1), again, other]);
        p.minimize(p.affine("readout", made, 4).mse(target).mean_over(time));
    });
    let two_masks = Program::record("two_masks", |p| {
        let time = p.lengths("lengths");
        let (x, y) = (time.sequence("x", 3), time.sequence("y", 2));
        let z = p.affine("readout", time.scan("rnn", |s| cells::rnn(s, s.at(x), 5)).all(), 2);
        let own = time.mask() * p.sequence("mask", ());
        let other = select(p.sequence("mask2", ()), 0.0, time.mask());
        p.minimize(z.mse(y).masked_mean(own) + select(other, (z - y).square().mean(), 1.0).mean_over(time));
    });
    for program in [layers, finite, two_masks] {
        let joint = program.expect("it records").backward().expect("it has an objective");
        insta::assert_snapshot!(format!("{}.joint", joint.name), joint.to_string());
    }
}

/// What is kept, and what runs again on the way back.
#[test]
fn plan_with_checkpoints() {
    let plan = many_to_many("lstm", cells::lstm).backward().expect("it has an objective");
    insta::assert_snapshot!("lstm.checkpointed", plan.checkpointed_plan(Checkpointing::Sqrt).to_string());
}

/// Loops in both directions of time, and what runs between the ways of a sweep: what has rows for one segment, what for
/// all steps, and what is made anew on the way back.
#[test]
fn plans_of_both_directions() {
    let ends = Program::record("two_ends", |p| {
        let x = p.sequence("x", 8);
        let forth = p.scan("forth", |s| cells::rnn(s, s.at(x), 8));
        let back = p.scan_reverse("back", |s| cells::rnn(s, s.at(x), 8));
        p.output("both", concat([forth.all(), back.all()]));
        p.output("ends", concat([forth.last(), back.last()]));
    });
    let anew = Program::record("anew_in_both_directions", |p| {
        let time = p.axis("time").reset_where(p.sequence("mask", ()));
        let x = time.sequence("x", 8);
        let there = time.scan("there", |s| {
            let (h, n) = (s.state("h", 8), s.state("n", ()));
            let count = s.next(n, n + 1.0);
            s.next(h, (s.linear("h", h, 8) + s.affine("x", s.at(x), 8)).tanh() / count)
        });
        let back = time.scan_reverse("back", |s| cells::rnn(s, concat([s.at(x), s.at(there.all())]), 8));
        let all = there.all().square().mean() + back.all().square().mean();
        p.minimize(all.mean_rows() + (there.last() * back.last()).sum().mean_rows());
    });
    let deep = Program::record("both_directions", |p| {
        let time = p.axis("time");
        let (x, label) = (time.sequence("x", 8), time.labels("label"));
        let first = cells::bidirectional(p, time, "first", x, 8, &cells::rnn);
        let second = cells::bidirectional(p, time, "second", first.all(), 8, &cells::rnn);
        let loss = p.affine("readout", second.all(), 4).cross_entropy(label);
        p.minimize(loss.mean_over(time) + second.last().square().mean().mean_rows());
    });
    insta::assert_snapshot!("two_ends.plan", ends.expect("it records").plan().to_string());
    let joint = |program: Result<Program, _>| program.expect("it records").backward().expect("it has an objective");
    insta::assert_snapshot!("anew_in_both_directions.plan", joint(anew).plan().to_string());
    let plan = joint(deep).checkpointed_plan(Checkpointing::Every(3));
    insta::assert_snapshot!("both_directions.checkpointed", plan.to_string());
}

/// A kernel leaves a part of a concatenation where it stands, also a last one that ends within a vector; and what is wanted
/// whole is computed whole, also where it is read in slices.
#[test]
fn what_is_wanted_is_written_where_it_stands() {
    let last = Program::record("last_part", |p| {
        let x = p.sequence("x", 16);
        p.output("y", concat([x.tanh(), p.affine("a", x, 3).sigmoid()]));
    });
    let plan = last.expect("it records").plan().to_string();
    assert!(plan.contains("sigmoid p0 -> concat.16..19\n") && !plan.contains("copy concat"), "{plan}");
    let whole = Program::record("wanted_whole", |p| {
        let z = p.linear("a", p.sequence("x", 16), 32);
        p.output("z", z);
        p.output("y", z.slice(..16).tanh() * z.slice(16..32).sigmoid());
    });
    let plan = whole.expect("it records").plan().to_string();
    assert!(plan.contains("p0 = ") && !plan.contains("p1 = "), "{plan}");
}

/// Matrix products of a plan: (before the loops, inside each loop, sums over rows outside, sums over rows inside).
fn products(plan: &Plan) -> (usize, Vec<usize>, usize, usize) {
    let count = |work: &Work| match work {
        Work::Kernel(k) => usize::from(k.tile.as_ref().is_some_and(|t| !t.products.is_empty())),
        _ => 0,
    };
    let sums = |work: &Work| match work {
        Work::ReduceProduct { sums, .. } => 1 + usize::from(sums.is_some()),
        _ => usize::from(matches!(work, Work::ReduceRows { .. })),
    };
    let (mut before, mut inside, mut sums_outside, mut sums_inside) = (0, Vec::<(String, usize)>::new(), 0, 0);
    for (stage, l) in plan.units.iter().flat_map(Unit::stages) {
        let Some(l) = l else {
            before += if inside.is_empty() { count(&stage.work) } else { 0 };
            sums_outside += sums(&stage.work);
            continue;
        };
        if inside.last().is_none_or(|(name, _)| *name != l.name) {
            inside.push((l.name.clone(), 0));
        }
        inside.last_mut().expect("pushed").1 += count(&stage.work);
        sums_inside += sums(&stage.work);
    }
    (before, inside.into_iter().map(|(_, products)| products).collect(), sums_outside, sums_inside)
}

/// One input product before the loop, one recurrent product stage inside (two where one product waits for another), and
/// the same again backwards; weight gradients after the loops.
#[test]
fn nothing_but_the_recurrence_stays_in_the_loop() {
    let cells: [(&str, Cell, usize); 9] = [
        ("rnn", cells::rnn, 1),
        ("rnn_split", cells::rnn_split, 1),
        ("lstm", cells::lstm, 1),
        ("projected_lstm", |s, x, units| cells::projected_lstm(s, x, 2 * units, units), 2),
        ("gru", cells::gru, 2),
        ("gru_reset_after", cells::gru_reset_after, 1),
        ("ind_rnn", cells::ind_rnn, 0),
        ("min_gru", cells::min_gru, 0),
        ("min_lstm", cells::min_lstm, 0),
    ];
    for (name, cell, stages) in cells {
        let plan = many_to_many(name, cell).backward().expect("it has an objective").plan();
        let (before, inside, outside, sums_inside) = products(&plan);
        assert_eq!(before, 1, "{name}: products before the loop");
        assert_eq!(inside, [stages, stages], "{name}: product stages inside the loops");
        assert_eq!(sums_inside, 0, "{name}: sums over rows inside the loops");
        assert!(outside >= 4, "{name}: gradients of weights, biases and the readout come after the loops");
    }
}

/// Layers above the first are one code, forth and back: a kernel's shape is what it is compiled for.
#[test]
fn equal_layers_have_kernels_of_one_shape() {
    let program = Program::record("net", |p| {
        let x = p.sequence("x", 16);
        let run = p.scan("net", |s| {
            (0..4).fold(s.at(x), |x, layer| s.scope(&format!("layer{layer}"), |s| cells::lstm(s, x, 16)))
        });
        p.minimize(run.all().square().mean_features().mean_rows());
    });
    let plan = program.expect("no mistakes").backward().expect("an objective").plan();
    for direction in ["net", "d.net"] {
        let in_loop = plan.units.iter().flat_map(Unit::stages).filter(|(_, l)| l.is_some_and(|l| l.name == direction));
        let shapes = in_loop.filter_map(|(stage, _)| match &stage.work {
            Work::Kernel(kernel) => Some(kernel.shape()),
            _ => None,
        });
        let shapes: Vec<_> = shapes.collect();
        let distinct: std::collections::HashSet<_> = shapes.iter().collect();
        assert_eq!((shapes.len(), distinct.len()), (4, 2), "{direction}\n{plan}");
    }
}

/// An optimiser goes through every parameter, a matrix or three numbers, in place and with the same code; what all have in
/// common, the gradient's norm, is computed before.
#[test]
fn updates_of_all_parameters_are_one_kernel() {
    let program = Program::record("net", |p| {
        let x = p.sequence("x", 16);
        let run = p.scan("net", |s| cells::layer_norm_lstm(s, s.at(x), 24));
        p.minimize(p.affine("readout", run.all(), 3).square().mean_features().mean_rows());
    });
    let program = program.expect("no mistakes");
    let trainer = program.trainer(Adam::new(1e-3)).clip_norm(1.0).compile().expect("it compiles here");
    let plan = &trainer.session().compiled().plan;
    let writes = |stage: &Stage| {
        let parameters = plan.parameters.iter().filter(|port| !port.name.starts_with("optimizer."));
        let is_written = |port: &&Port| stage.writes.iter().any(|a| a.buffer == port.spans[0].access.buffer);
        parameters.filter(is_written).count()
    };
    let (mut shapes, mut parameters) = (std::collections::HashSet::new(), 0);
    for (stage, _) in plan.stages().filter(|(stage, _)| writes(stage) > 0) {
        let Work::Kernel(kernel) = &stage.work else { panic!("a kernel updates parameters\n{plan}") };
        assert_eq!(writes(stage), 1, "{plan}");
        shapes.insert(kernel.shape());
        parameters += 1;
    }
    assert_eq!((parameters, shapes.len()), (8, 1), "w, b, four of the norms, and two of the readout\n{plan}");
    assert!(plan.updates.is_empty(), "nothing is copied behind the step\n{plan}");
}

/// What is computed once for a whole parameter is not computed within the kernel that goes through it in pieces, which
/// would be one piece then.
#[test]
fn a_scalar_leaves_a_flat_kernel_flat() {
    let program = Program::record("decay", |p| {
        let (w, rate) = (p.parameter("w", 5000, Init::Glorot), p.shared("rate", ()));
        p.update(w, w * (rate / 3.0));
    });
    let plan = program.expect("no mistakes").plan();
    let tiles = plan.stages().filter_map(|(stage, _)| match &stage.work {
        Work::Kernel(kernel) => Some(kernel.tile.as_ref().map(|tile| tile.n)),
        _ => None,
    });
    assert_eq!(tiles.collect::<Vec<_>>(), [Some(1), Some(5000)], "{plan}");
}

/// `[h; x]·W`, `h·W_h + x·W_x`, and the letters U, V and W are the same work: all stages are equal but for the names of
/// weights, biases and the state.
#[test]
fn spellings_of_the_vanilla_net_have_the_same_plan() {
    let stages = |program: &Program| {
        let joint = program.backward().expect("it has an objective");
        let (forward, both) = (program.plan(), joint.plan());
        let text = forward.to_string();
        let mut text = text.split("  memory {").next().expect("stages come first").to_string();
        for (name, letter) in [
            ("rnn_uvw", "rnn"),
            ("cell.hh.w", "W"),
            ("cell.hx.w", "W"),
            ("cell.cell.w", "W"),
            ("cell.W", "W"),
            ("cell.U", "W"),
            ("cell.hx.b", "b"),
            ("cell.cell.b", "b"),
            ("cell.b", "b"),
            ("cell.s", "cell.h"),
            ("readout.w", "V"),
            ("cell.V", "V"),
            ("readout.b", "c"),
            ("cell.c", "c"),
            ("#1", ""),
            ("#2", ""),
            ("#3", ""),
        ] {
            text = text.replace(name, letter);
        }
        let sizes = Sizes::new(7, 3);
        (text, forward.flops(&sizes), both.flops(&sizes))
    };
    let joined = stages(&many_to_many("rnn", cells::rnn));
    assert_eq!(joined, stages(&many_to_many("rnn", cells::rnn_split)));
    assert_eq!(joined, stages(&uvw()));
}
