//! What is recorded: which values are captured, written and named, on which axes, with which bounds.

use super::*;

#[test]
fn what_is_written_in_a_step_is_in_the_step_and_captured_once() {
    let program = record(|p| {
        let (x, about) = (p.sequence("x", 2), p.input("about", 2));
        let outer = about * 2.0;
        let run = p.scan("loop", |s| {
            let h = s.state("h", 2);
            s.next(h, (h + outer) * outer + s.at(x) - s.at(x) * outer)
        });
        p.output("y", run.all());
    });
    insta::assert_snapshot!(program, @r"
    program test {
      axis T = time
      sequence x: f32[T, B, 2]
      batch about: f32[B, 2]
      %0: f32[B, 2] = mul about, 2
      scan loop {
        batch v: f32[B, 2] = %0
        each x: f32[B, 2] = x
        carry h: f32[B, 2] = 0
        %0: f32[B, 2] = add h, v
        %1: f32[B, 2] = mul %0, v
        %2: f32[B, 2] = add %1, x
        %3: f32[B, 2] = mul x, v
        %4: f32[B, 2] = sub %2, %3
        yield h = %4
        next h = %4
      }
      %1: f32[T, B, 2] = yield h of loop
      output y = %1
    }
    ");
}

#[test]
fn what_is_not_asked_for_is_not_written() {
    let program = record(|p| {
        let x = p.sequence("x", 2);
        let run = p.scan("many_to_one", |s| {
            let h = s.state("h", 2);
            (s.next(h, (h + s.at(x)).tanh()), h * 2.0)
        });
        p.output("y", run.0.last());
    });
    insta::assert_snapshot!(program, @r"
    program test {
      axis T = time
      sequence x: f32[T, B, 2]
      scan many_to_one {
        each x: f32[B, 2] = x
        carry h: f32[B, 2] = 0
        %0: f32[B, 2] = add h, x
        %1: f32[B, 2] = tanh %0
        next h = %1
      }
      %0: f32[B, 2] = final h of many_to_one
      output y = %0
    }
    ");
}

#[test]
fn an_encoder_and_a_decoder_on_their_own_axes() {
    let program = record(|p| {
        let source = p.axis("source").labels("source");
        let encoded = p.scan("encoder", |s| {
            let x = s.embedding("words", s.at(source), 20, 4);
            retrograd::cells::gru(s, x, 6)
        });
        // The decoder feeds on its own output: the index of a word is a state.
        let first = p.labels("first");
        let logits = p.axis("target").scan("decoder", |s| {
            let (h, word) = (s.state_from("h", encoded.last()), s.state_from("word", first));
            let h = s.next(h, s.affine("cell", concat([h, s.embedding("words", word, 10, 4)]), 6).tanh());
            let logits = s.affine("readout", h, 10);
            s.next(word, logits.argmax());
            logits
        });
        p.minimize(logits.all().cross_entropy(p.axis("target").labels("label")));
    });
    let bound = |name: &str| program.input(name).expect("declared").bound;
    assert_eq!((bound("source"), bound("first"), bound("label")), (Some(20), Some(10), Some(10)));
    assert_eq!(program.axes, ["source", "target"]);
    let text = program.to_string();
    assert!(text.contains("carry word: i32[B] = first"), "{text}");
}

#[test]
fn bounds_of_indices_are_the_smallest_table_they_reach() {
    let program = record(|p| {
        let (a, b) = (p.labels_sequence("a"), p.declare("b", Type::int(Extent::Batch, 4)));
        let small = p.shared("small", [3, 2]);
        let run = p.scan("read", |s| (s.at(a), small.lookup(b.slice(..1))));
        p.output("large", p.embedding("large", run.0.all(), 9, 2));
        p.output("hot", run.0.last().one_hot(7));
        p.output("small", run.1.last());
        p.output("free", p.labels("free").to_float());
    });
    let bound = |name: &str| program.input(name).expect("declared").bound;
    assert_eq!((bound("a"), bound("b"), bound("free")), (Some(7), Some(3), None));
}

#[test]
fn the_same_name_is_the_same_weight() {
    let program = record(|p| {
        let (x, y) = (p.input("x", 3), p.input("y", 3));
        p.output("y", p.scope("twin", |p| p.affine("a", x, 2) - p.affine("a", y, 2)));
    });
    assert_eq!(program.parameters.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["twin.a.w", "twin.a.b"]);
}

#[test]
fn a_recording_can_be_extended() {
    let program = record(|p| p.minimize(p.affine("a", p.input("x", 3), 1).mean().square()));
    let objective = program.objective.expect("set");
    let descended = program.extend(|p| {
        let w = p.value("a.w");
        p.update(w, w - 0.1 * p.from_value(objective) * w);
        p.output("loss", p.from_value(objective));
    });
    let descended = descended.expect("no mistakes");
    assert_eq!(descended.verify(), Ok(()));
    assert_eq!((descended.updates.len(), descended.outputs.len()), (1, 1));
    assert_eq!(descended.objective, Some(objective));
}

#[test]
fn numbers_are_what_they_are_written_as() {
    let program = record(|p| p.output("y", p.input("x", ()) * 0.1));
    assert!(program.to_string().contains("mul x, 0.1\n"), "{program}");
    assert!((f64::from(0.1_f32) - 0.1).abs() > 1e-10, "else the conversion would not show");
}

/// The loop over a sequence, and the same step over the list of its rows.
#[test]
fn a_loop_over_a_list_is_the_loop() {
    const NAMES: [&str; 3] = ["x0", "x1", "x2"];
    let looped = record(|p| {
        let x = p.sequence("x", 3);
        let run = p.scan("cell", |s| retrograd::cells::lstm(s, s.at(x), 5));
        p.output("y", run.all());
    });
    let listed = record(|p| {
        let inputs = NAMES.map(|name| p.input(name, 3));
        let run = p.static_rnn("cell", &inputs, |s, x| retrograd::cells::lstm(s, x, 5));
        for (name, h) in ["y0", "y1", "y2"].into_iter().zip(run.all()) {
            p.output(name, *h);
        }
    });
    let sizes = Sizes::new(3, 2);
    let mut values = random_values(&looped, &sizes, 7);
    let whole = interpret(&looped, &values, &sizes);
    let x = values.remove("x").expect("an input");
    for (name, rows) in NAMES.iter().zip(x.x.chunks(2 * 3)) {
        let ty = listed.ty(listed.input(name).expect("an input").value).clone();
        values.insert(name.to_string(), Data { ty, x: rows.to_vec() });
    }
    let steps = interpret(&listed, &values, &sizes);
    let list: Vec<Vec<f64>> = ["y0", "y1", "y2"].iter().flat_map(|name| rows(&steps.outputs[*name])).collect();
    assert_eq!(list, rows(&whole.outputs["y"]));
}

/// Who catches a panic of a part of a recording goes on as if the part had not been begun.
#[test]
fn a_panic_that_is_caught_leaves_nothing_behind() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let program = Program::record("caught", |p| {
        let x = p.sequence("x", 2);
        let scope = catch_unwind(AssertUnwindSafe(|| {
            p.scope("scope", |p| {
                p.scope("inner", |p| p.parameter("v", 2, Init::Constant(0.0)));
                panic!("in a scope");
            })
        }));
        let scan = catch_unwind(AssertUnwindSafe(|| {
            p.scan("scan", |s| {
                let h = s.state("h", 2);
                s.next(h, h + s.at(x));
                assert_eq!(x.units(), 0, "in a step");
            })
        }));
        let list = catch_unwind(AssertUnwindSafe(|| {
            let y = p.input("y", 2);
            p.static_rnn("list", &[y, y], |_, _| panic!("in a step of a list"));
        }));
        assert!(scope.is_err() && scan.is_err() && list.is_err());
        let run = p.scan("after", |s| {
            let h = s.state("h", 2);
            let w = s.parameter("w", 2, Init::Constant(1.0));
            s.next(h, w * h + s.at(x))
        });
        p.output("y", run.all());
        p.output("w", p.parameter("w", 2, Init::Constant(1.0)));
    })
    .expect("what is left has no mistakes");
    let names: Vec<&str> = program.parameters.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["scope.inner.v", "after.w", "w"]);
    assert_eq!(
        program.graph.values().filter(|&v| matches!(program.graph.op(v), retrograd::compiler::ir::Op::Scan(_))).count(),
        1
    );
}

/// The same where a scan within a scan, which is a mistake, panics.
#[test]
fn a_panic_that_is_caught_in_a_nested_scan_leaves_the_outer_one() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let errors = Program::record("caught", |p| {
        let x = p.sequence("x", 2);
        let run = p.scan("outer", |s| {
            let inner = catch_unwind(AssertUnwindSafe(|| p.scan("inner", |_| assert_eq!(x.units(), 0))));
            assert!(inner.is_err());
            let h = s.state("h", 2);
            s.next(h, h + s.at(x) + p.input("y", 3))
        });
        p.output("y", run.all());
    })
    .expect_err("two mistakes");
    let kinds: Vec<String> = errors.iter().map(|e| e.kind.to_string()).collect();
    assert_eq!(kinds.len(), 2, "{errors}");
    assert!(kinds[0].starts_with("scan `inner` is within a step of scan `outer`"), "{errors}");
    assert!(kinds[1].contains("[2] and [3]") || kinds[1].contains("shapes"), "{errors}");
}

/// A type names its axis by a number: all up to it are there then, whatever names are taken.
#[test]
fn an_axis_by_number_has_a_name_that_is_free() {
    use retrograd::compiler::ir::{Axis, Extent, Type};
    let program = Program::record("axes", |p| {
        p.axis("time1");
        p.output("x", p.declare("x", Type::float(Extent::Time(Axis(2)), 2)));
    })
    .expect("no mistakes");
    assert_eq!(program.axes, ["time1", "time2", "time3"]);
}
