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
    let program = Program::parse(text).expect("well formed");
    let error = refused(Session::<f32>::new(&program, 1));
    insta::assert_snapshot!(error, @"program `lookup` could not be compiled: `argmax` over 4 features gives an index below 4, which is used in a table of 3 rows");
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
