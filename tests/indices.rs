//! Generated code and lookups trust their indices, so every index is checked on its way in, whichever way that is: an
//! input of a program that was never recorded, an index made inside one, a state out of a file.

use std::path::PathBuf;

use ndarray::arr1;
use retrograd::prelude::*;
use retrograd::runtime::checkpoint::Checkpoint;
use retrograd::runtime::error::RunError;
use retrograd::runtime::session::Session;

/// An error in its own words.
#[track_caller]
fn refused<T>(result: Result<T, RunError>) -> String {
    result.err().expect("a mistake is refused").to_string()
}

#[test]
fn an_input_of_a_program_from_text_has_a_bound() {
    let text = "program lookup {\n  axis T = time\n  batch i: i32[B]\n  parameter table: f32[3, 2] = 0\n  \
                %0: f32[B, 2] = gather table, i\n  output row = %0\n}\n";
    let program = Program::parse(text).expect("well formed");
    let mut session = Session::<f32>::new(&program, 1).expect("code for this machine");
    session.run(&Feed::new().i32("i", arr1(&[0, 2]).view())).expect("indices in range");
    let error = refused(session.run(&Feed::new().i32("i", arr1(&[0, 3]).view())));
    assert_eq!(error, "input `i` has 3 at [1]; allowed are 0 to 2");
}

#[test]
fn an_index_made_inside_a_program_from_text_is_below_the_rows() {
    let text = "program lookup {\n  axis T = time\n  batch x: f32[B, 4]\n  parameter table: f32[3, 2] = 0\n  \
                %0: i32[B] = argmax x\n  %1: f32[B, 2] = gather table, %0\n  output row = %1\n}\n";
    insta::assert_snapshot!(unread(text), @"line 5, column 3: `argmax` over 4 features gives an index below 4, which is used in a table of 3 rows; allowed are 0 to 2");
}

/// A state of integers that is carried from window to window.
fn delayed() -> Program {
    Program::record("delayed", |p| {
        let word = p.labels_sequence("word");
        let table = p.parameter("table", [3, 2], Init::Normal(1.0));
        let first = p.parameter("first", 3, Init::Constant(0.0)).argmax();
        let run = p.scan("delay", |s| {
            let before = s.state_from("before", first);
            s.next(before, s.at(word));
            table.lookup(before)
        });
        p.minimize(run.all().square().mean());
    })
    .expect("a program without mistakes")
}

#[test]
fn a_state_from_a_file_is_in_range() {
    let path: PathBuf = std::env::temp_dir().join(format!("retrograd-indices-{}", std::process::id()));
    let program = delayed();
    let mut trainer = program.trainer(Sgd::new(0.1)).carry_state(true).compile().expect("code for this machine");
    let words = Feed::new().i32_slice("word", &[2, 1], &[1, 2]);
    trainer.step(&words).expect("indices in range");
    trainer.save(&path).expect("a file");
    trainer.load(&path).expect("the file as it was written");

    let mut file = Checkpoint::load(&path).expect("the file as it was written");
    let state = "state.delay.before";
    let before: ndarray::ArrayD<i32> = file.take(state, &[1]).expect("the state, as an integer");
    assert_eq!(before.as_slice(), Some(&[2][..]));
    file.insert(state, arr1(&[3]).into_dyn());
    file.save(&path).expect("a file");
    let error = refused(trainer.load(&path));
    std::fs::remove_file(&path).expect("it is there");
    assert_eq!(error, "input `state.delay.before` has 3 at [0]; allowed are 0 to 2");
    trainer.step(&words).expect("nothing was changed");
}

/// A program from text around a table of three rows; lines are counted from 1.
fn lookup(head: &str, body: &str) -> String {
    format!("program p {{\n  axis T = time\n  parameter w: f32[3, 2] = 0\n{head}{body}}}\n")
}

/// What the parser says of a text.
#[track_caller]
fn unread(text: &str) -> String {
    Program::parse(text).map(|p| p.to_string()).expect_err(text).to_string()
}

#[test]
fn an_integer_constant_is_within_what_it_reaches() {
    let constant = |c: &str| {
        lookup("", &format!("  %0: i32[B] = constant {c}\n  %1: f32[B, 2] = gather w, %0\n  output y = %1\n"))
    };
    assert!(Program::parse(&constant("2")).is_ok());
    for c in ["3", "-1", "1000000"] {
        let error = format!(
            "line 4, column 3: the integer {c} is an index, which is used in a table of 3 rows; allowed are 0 to 2"
        );
        assert_eq!(unread(&constant(c)), error);
    }
    for c in ["0.5", "nan", "inf", "2147483648", "-1e300"] {
        assert!(unread(&constant(c)).contains("an integer constant is a whole number of 32 bits"), "{c}");
    }
}

#[test]
fn a_state_is_within_what_it_reaches_wherever_it_comes_from() {
    // The state starts there; the table is in the body.
    let carry = |start: &str, use_of: &str| {
        let body = format!(
            "  scan s {{\n    shared w: f32[3, 2] = w\n    each x: f32[B] = x\n    carry i: i32[B] = {start}\n    {use_of}\n    \
             yield y = %0\n    next i = i\n  }}\n  %0: f32[T, B, {}] = yield y of s\n  output y = %0\n",
            if use_of.contains("gather") { 2 } else { 3 }
        );
        lookup("  sequence x: f32[T, B]\n", &body)
    };
    let gather = "%0: f32[B, 2] = gather w, i";
    let one_hot = "%0: f32[B, 3] = one_hot i";
    for use_of in [gather, one_hot] {
        assert!(Program::parse(&carry("2", use_of)).is_ok());
        for start in ["1000000", "3", "-5"] {
            let error = unread(&carry(start, use_of));
            let expected =
                format!("the integer {start} is an index, which is used in a table of 3 rows; allowed are 0 to 2");
            assert_eq!(error, format!("line 8, column 5: {expected}"));
        }
    }
}

/// Each door through which an integer goes to a table behind it.
#[test]
fn demands_go_through_every_op_that_moves_integers() {
    let moves = [
        "%1: i32[T, B] = expand %0",
        "%1: i32[B, 1] = reshape %0",
        "%1: i32[B] = select m, %0, %0",
        "%1: i32[B] = select m, j, %0",
    ];
    for line in moves {
        let ty = line.split_once(": i32").unwrap().1.split_once(" =").unwrap().0;
        let rows = format!("{}, 2]", ty.trim_end_matches(']'));
        let text = |c| {
            lookup(
                "  batch m: f32[B]\n  batch j: i32[B]\n",
                &format!("  %0: i32[B] = constant {c}\n  {line}\n  %2: f32{rows} = gather w, %1\n  output y = %2\n"),
            )
        };
        let program = Program::parse(&text("2")).expect(line);
        assert_eq!(program.input("j").unwrap().bound, line.contains('j').then_some(3), "{line}");
        assert!(unread(&text("3")).starts_with("line 6, column 3: the integer 3 is an index"), "{line}");
        assert!(unread(&text("-1")).starts_with("line 6, column 3: the integer -1 is an index"), "{line}");
    }
    let joined = "  batch i: i32[B, 2]\n  batch j: i32[B, 1]\n  sequence k: i32[T, B]\n";
    let body = "  %0: i32[B, 3] = concat i, j\n  %1: i32[B, 2] = slice %0 1..3\n  %2: i32[B, 1, 2] = reshape %1\n  \
                %3: i32[B, 2, 1] = transpose %2 perm=[1, 0]\n  %4: f32[B, 2, 1, 2] = gather w, %3\n  %5: i32[B] = last k\n  \
                %6: f32[B, 3] = one_hot %5\n  output a = %4\n  output b = %6\n";
    let program = Program::parse(&lookup(joined, body)).expect("well formed");
    for name in ["i", "j", "k"] {
        assert_eq!(program.input(name).unwrap().bound, Some(3), "{name}");
    }
}

#[test]
fn what_an_update_leaves_is_in_range_in_the_next_run() {
    // `i` is stored and looked up; `j`, which replaces it, is not.
    let text = lookup(
        "  batch i: i32[B] < 1000\n  batch j: i32[B] < 2000\n",
        "  %0: f32[B, 2] = gather w, i\n  output y = %0\n  update i = j\n",
    );
    let program = Program::parse(&text).expect("well formed");
    let mut session = Session::<f32>::new(&program, 1).expect("code for this machine");
    session.run(&Feed::new().i32("j", arr1(&[2]).view())).expect("in range");
    let error = refused(session.run(&Feed::new().i32("j", arr1(&[3]).view())));
    assert_eq!(error, "input `j` has 3 at [0]; allowed are 0 to 2");
    let constant = text.replace("update i = j\n", "%1: i32[B] = constant 7\n  update i = %1\n");
    assert!(unread(&constant).contains("the integer 7 is an index"), "{}", unread(&constant));
}

#[test]
fn a_stream_checks_integers_that_only_later_steps_look_up() {
    let program = delayed_symbols();
    let mut stream = program.stream(1, 0).expect("code for this machine");
    stream.set_i32("word", &[2]).expect("in range");
    let error = refused(stream.set_i32("word", &[3]));
    assert_eq!(error, "input `word` has 3 at [0]; allowed are 0 to 2");
}

fn delayed_symbols() -> Program {
    Program::record("delayed", |p| {
        let word = p.labels_sequence("word");
        let first = p.labels("first");
        let table = p.parameter("table", [3, 2], Init::Normal(1.0));
        let run = p.scan("delay", |s| {
            let before = s.state_from("before", first);
            s.next(before, s.at(word));
            table.lookup(before)
        });
        p.output("y", run.all());
    })
    .expect("a program without mistakes")
}

/// Integers that a program gives out or keeps are those that were written, in both widths of floats.
#[test]
fn an_integer_constant_has_its_value() {
    let text = "program p {\n  axis T = time\n  batch x: f32[B]\n  %0: i32[B, 5] = constant -7\n  %1: i32[T, B] = constant 1\n  \
                %2: f32[B, 5] = to_float %0\n  output c = %0\n  output t = %1\n  output f = %2\n}\n";
    fn run<E: retrograd::runtime::float::Float>(text: &str) {
        let program = Program::parse(text).expect("well formed");
        let mut session = Session::<E>::new(&program, 1).expect("code for this machine");
        session.run(&Feed::new().f32("x", arr1(&[0.5, 1.5]).view()).steps("time", 3)).expect("a run");
        assert_eq!(session.output_i32("c").unwrap(), ndarray::Array2::from_elem((2, 5), -7).into_dyn());
        assert_eq!(session.output_i32("t").unwrap(), ndarray::Array2::from_elem((3, 2), 1).into_dyn());
        assert!(session.output("f").unwrap().iter().all(|&x| x.into() == -7.0));
    }
    run::<f32>(text);
    run::<f64>(text);
}

/// A stored integer of each sample comes out of a file with as many samples as there were, and in range.
#[test]
fn a_stored_integer_from_a_file_is_in_range() {
    let path: PathBuf = std::env::temp_dir().join(format!("retrograd-stored-{}", std::process::id()));
    let program = Program::record("stored", |p| {
        let (word, before) = (p.labels("word"), p.labels("before"));
        let table = p.parameter("table", [3, 2], Init::Normal(1.0));
        p.minimize(table.lookup(before).square().sum());
        p.update(before, word);
    })
    .expect("a program without mistakes");
    let trainer = || program.trainer(Sgd::new(0.1)).compile().expect("code for this machine");
    let mut first = trainer();
    first.step(&Feed::new().i32("word", arr1(&[2, 1, 0, 2]).view())).expect("in range");
    let error = refused(first.step(&Feed::new().i32("word", arr1(&[2, 3, 0, 2]).view())));
    assert_eq!(error, "input `word` has 3 at [1]; allowed are 0 to 2");
    first.save(&path).expect("a file");
    let mut second = trainer();
    second.load(&path).expect("the file as it was written");
    let words = arr1(&[0, 0, 0, 0]);
    let feed = Feed::new().i32("word", words.view());
    assert_eq!(second.step(&feed).expect("in range").loss, first.step(&feed).expect("in range").loss);

    let mut file = Checkpoint::load(&path).expect("the file as it was written");
    let _: ndarray::ArrayD<i32> = file.take("before", &[4]).expect("the value, as an integer");
    file.insert("before", arr1(&[0, 1, 2, -1]).into_dyn());
    file.save(&path).expect("a file");
    let error = refused(second.load(&path));
    std::fs::remove_file(&path).expect("it is there");
    assert_eq!(error, "input `before` has -1 at [3]; allowed are 0 to 2");
}
