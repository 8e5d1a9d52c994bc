//! What single passes do at their edges: names that are taken, axes that stay, sums that leave a loop, sequences of one
//! step's width.

use retrograd_compiler::interpret::interpret;
use retrograd_compiler::ir::types::{Axis, Sizes};
use retrograd_compiler::ir::{Extent, Program};
use retrograd_compiler::simplify::ports;
use retrograd_compiler::time::truncate::separable;
use retrograd_compiler::time::{Lead, carry_state, divide, hoist, truncate, unroll};

use super::{assert_same, checked, encoder_and_decoder, parse, scans, values};

/// A program that reads `x` in the loop `s` with the state `h`; what is computed before, in and behind it.
fn around(before: &str, body: &str, behind: &str) -> Program {
    let lines = |text: &str, indent: &str| -> String {
        text.trim().lines().map(|line| format!("{indent}{}\n", line.trim())).collect()
    };
    parse(&format!(
        "program around {{
  axis T = time
  sequence x: f32[T, B, 3]
  sequence y: f32[T, B]
  batch z: f32[B, 3]
  parameter w: f32[3, 3] = glorot
{}  scan s {{
{}  }}
{}}}
",
        lines(before, "  "),
        lines(body, "    "),
        lines(behind, "  ")
    ))
}

/// The last state of a loop that stores a sequence is the sequence's last step, unless the loop runs backwards.
#[test]
fn a_state_that_is_a_sequence_ends_as_the_sequence_does() {
    let body = "each x: f32[B, 3] = x
         carry h: f32[B, 3] = 0
         %0: f32[B, 3] = sub x, h
         yield d = %0
         next h = x";
    let behind = "%0: f32[T, B, 3] = yield d of s
         %1: f32[B, 3] = final h of s
         output d = %0
         output h = %1";
    let forwards = around("", body, behind);
    let text = ports(&forwards).to_string();
    assert!(text.contains("= last x\n") && !text.contains("final"), "{text}");
    let backwards = parse(&forwards.to_string().replace("scan s {", "scan s reverse {"));
    let text = ports(&backwards).to_string();
    assert!(text.contains("= final h of s\n") && !text.contains("last"), "{text}");
}

/// What a loop reads is the narrowest there is: a part of a sequence, and no sum that would be as wide as its terms.
#[test]
fn a_loop_reads_the_fewest_features() {
    let reads = |program: &Program| -> Vec<usize> {
        let program = hoist(program);
        let [scan] = scans(&program)[..] else { panic!("one loop: {program}") };
        scan.each.iter().map(|port| scan.body.ty(port.value).shape.len()).collect()
    };
    // Three features are read for one. One is cut out before the loop: it is written and read, which is still less.
    let narrow = around(
        "",
        "each x: f32[B, 3] = x
         carry h: f32[B, 1] = 0
         %0: f32[B, 1] = slice x 0..1
         %1: f32[B, 1] = add h, %0
         %2: f32[B, 1] = tanh %1
         next h = %2",
        "%0: f32[B, 1] = final h of s
         output h = %0",
    );
    assert_eq!(reads(&narrow), [1]);
    // A product that is written for the outside is read in the loop as it is, and one number a row beside it.
    let product = around(
        "",
        "shared w: f32[3, 3] = w
         each x: f32[B, 3] = x
         each y: f32[B] = y
         carry h: f32[B, 3] = 0
         %0: f32[B, 3] = dot x, w
         %1: f32[B, 3] = add %0, y
         %2: f32[B, 3] = mul h, %1
         %3: f32[B, 3] = tanh %2
         yield product = %0
         next h = %3",
        "%0: f32[B, 3] = final h of s
         %1: f32[T, B, 3] = yield product of s
         output h = %0
         output product = %1",
    );
    assert_eq!(reads(&product), [1, 3]);
}

/// A quotient is linear in its dividend, so its sum over the steps leaves with that.
#[test]
fn a_sum_of_quotients_leaves_its_loop() {
    let program = around(
        "%0: f32[3] = sum_rows z",
        "shared by: f32[3] = %0
         each x: f32[B, 3] = x
         %0: f32[3] = sum_rows x
         %1: f32[3] = div %0, by
         sum q = %1",
        "%1: f32[3] = total q of s
         output q = %1",
    );
    let hoisted = checked("hoist", hoist(&program));
    assert!(scans(&hoisted).is_empty(), "{hoisted}");
    let sizes = Sizes::new(3, 2);
    let values = values(&program, &sizes, 1);
    assert_same("hoist", &interpret(&hoisted, &values, &sizes), &interpret(&program, &values, &sizes), 1e-12);
}

#[test]
fn an_axis_that_is_not_written_out_keeps_its_name() {
    let program = encoder_and_decoder();
    let flat = checked("unroll", unroll(&program, Axis(0), 2).expect("two steps"));
    assert_eq!(flat.axes, program.axes);
    assert_eq!(flat.time_axes(), [Axis(1)]);
}

/// Names that a pass makes step aside for those that are there, be it of an input or an output.
#[test]
fn names_that_are_taken_are_numbered() {
    let renamed =
        encoder_and_decoder().to_string().replace("image", "kept.0").replace("output summary", "output kept.2");
    let parts = divide(&parse(&renamed), Axis(1)).expect("the decoder runs forwards");
    assert_eq!(parts.kept, ["kept.1", "kept.3"]);

    let plain = around(
        "",
        "each x: f32[B, 3] = x
         carry h: f32[B, 3] = 0
         %0: f32[B, 3] = add h, x
         next h = %0",
        "%0: f32[B, 3] = final h of s
         %1: f32[B, 3] = mul %0, z
         output h = %1",
    );
    let again = truncate(&plain, Lead::Again).expect("a program of steps").program;
    assert!(!again.to_string().contains("h.initial"), "a constant is written where it is read: {again}");
    for (taken, expected) in [("z", "state.s.h"), ("state.s.h", "state.s.h.2")] {
        let program = parse(&plain.to_string().replace(" z", &format!(" {taken}")));
        let (_, states) = carry_state(&program);
        assert_eq!(states.iter().map(|state| &state.input[..]).collect::<Vec<_>>(), [expected]);
        assert_eq!(truncate(&program, Lead::None).expect("no lead").states, [expected]);
    }
}

/// Which programs are a sequence of steps: what their loop reads before it, what is stored after it, and why not.
#[test]
fn a_program_of_steps_reads_nothing_of_all_steps() {
    let body = "batch c: f32[B, 3] = CAPTURED
         each x: f32[B, 3] = READ
         carry h: f32[B, 3] = 0
         %0: f32[B, 3] = mul h, c
         %1: f32[B, 3] = add %0, x
         next h = %1";
    let rows: [(&str, &str, &str, &str, Option<&str>); 6] = [
        ("", "x", "z", "", None),
        ("%0: f32[T, B, 3] = mul x, y", "%0", "z", "", None),
        ("", "x", "z", "update z = %N", None),
        ("%0: f32[B, 3] = last x", "x", "%0", "", Some("all steps")),
        ("%0: f32 = row_count [T, B]\n%1: f32[B, 3] = div z, %0", "x", "%1", "", Some("all steps")),
        ("%0: f32[T, B, 3] = mul x, y", "x", "z", "update x = %0", Some("`x`")),
    ];
    for (before, read, captured, update, refused) in rows {
        let body = body.replace("READ", read).replace("CAPTURED", captured);
        let n = before.lines().count();
        let behind =
            format!("%{n}: f32[B, 3] = final h of s\noutput h = %{n}\n{}", update.replace("%N", &format!("%{n}")));
        let program = around(before, &body, &behind);
        match (separable(&program), refused) {
            (Ok(axis), None) => assert_eq!(axis, Axis(0)),
            (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
            (given, _) => panic!("{given:?}\n{program}"),
        }
    }
}

/// Without a lead, loops may run backwards: they start in each window as they did in each run.
#[test]
fn a_loop_that_runs_backwards_has_windows_without_a_lead() {
    let program = around(
        "",
        "batch z: f32[B, 3] = z
         each x: f32[B, 3] = x
         carry h: f32[B, 3] = z
         %0: f32[B, 3] = mul h, z
         %1: f32[B, 3] = add %0, x
         next h = %1",
        "%0: f32[B, 3] = final h of s
         output h = %0",
    );
    let program = parse(&program.to_string().replace("scan s {", "scan s reverse {"));
    let windows = truncate(&program, Lead::None).expect("there is no lead");
    assert!(windows.states.is_empty());
    let new = checked("truncate", windows.program);
    let sizes = Sizes::new(3, 2);
    let values = values(&new, &sizes, 2);
    assert_same("truncate", &interpret(&new, &values, &sizes), &interpret(&program, &values, &sizes), 0.0);
}

/// What is computed of lengths alone is on the side of the loop that has the lengths.
#[test]
fn lengths_stay_with_the_loop_that_has_them() {
    let program = parse(
        "
program lengths {
  axis T = source
  axis T1 = target
  sequence x: f32[T, B, 3]
  sequence y: f32[T1, B, 3]
  batch long: i32[B]
  batch short: i32[B]
  batch which: f32[B]
  %0: i32[B] = select which, long, short
  %1: f32[T1, B] = within %0
  %2: f32[B, 3] = last x
  %3: f32[T1, B, 3] = add y, %2
  %4: f32[T1, B, 3] = select %1, %3, 0
  output y = %4
}",
    );
    let parts = divide(&program, Axis(1)).expect("it has no loop");
    assert_eq!(parts.kept.len(), 1, "the last step: {}", parts.along);
    assert_eq!(parts.along.ty(parts.along.input("kept.0").expect("it is read").value).extent, Extent::Batch);
    assert!(parts.along.to_string().contains("select which, long, short"), "{}", parts.along);
}
