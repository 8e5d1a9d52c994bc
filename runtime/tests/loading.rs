//! A checkpoint is signed with a checksum that anyone can compute, so every value in it is looked at before training
//! goes on from it; and it is of one program, by its name.

use std::path::PathBuf;

use ndarray::{Array3, ArrayD, arr1};
use retrograd_compiler::ir::Program;
use retrograd_runtime::checkpoint::Checkpoint;
use retrograd_runtime::feed::Feed;
use retrograd_runtime::optimizer::Adam;
use retrograd_runtime::train::{Trainer, Training};

fn trainer(name: &str) -> Trainer {
    let program = Program::record(name, |p| {
        let (x, y) = (p.sequence("x", 1), p.sequence("y", 1));
        let run = p.scan("rnn", |s| {
            let h = s.state("h", 3);
            s.next(h, (s.linear("h", h, 3) + s.affine("x", s.at(x), 3)).tanh())
        });
        p.minimize(p.affine("out", run.all(), 1).mse(y));
    });
    program.expect("a program").trainer(Adam::new(0.1)).truncate(2, 4).compile().expect("code for this machine")
}

/// Changes a good file, and says how training takes it.
fn load(name: &str, change: impl FnOnce(&mut Checkpoint)) -> String {
    let path: PathBuf = std::env::temp_dir().join(format!("retrograd-loading-{name}-{}", std::process::id()));
    let mut trainer = trainer("net");
    let x = Array3::from_shape_fn((6, 2, 1), |(t, b, _)| (t + b) as f32 * 0.1);
    let feed = Feed::new().f32("x", x.view()).f32("y", x.view());
    trainer.sequence(&feed).expect("three steps");
    trainer.reset_samples(&[1]).expect("there are two samples");
    trainer.save(&path).expect("a file");
    let mut file = Checkpoint::load(&path).expect("the file as it was written");
    change(&mut file);
    file.save(&path).expect("a file");
    let before: Vec<_> = ["rnn.h.w", "out.b"].map(|p| trainer.parameter(p)).to_vec();
    let taken = trainer.load(&path);
    std::fs::remove_file(&path).expect("it is there");
    match taken {
        Ok(()) => "taken".to_string(),
        Err(e) => {
            assert_eq!(["rnn.h.w", "out.b"].map(|p| trainer.parameter(p)).to_vec(), before, "nothing is changed");
            trainer.sequence(&feed).expect("nothing is changed");
            e.to_string().replace(&path.display().to_string(), "FILE")
        }
    }
}

#[test]
fn the_file_as_it_was_written_is_taken() {
    assert_eq!(load("same", |_| {}), "taken");
    assert_eq!(load("zero", |c| c.note("rate", 0)), "taken");
}

#[test]
fn every_number_is_one_that_training_can_have() {
    for rate in ["NaN", "inf", "-inf", "-1", "1e39"] {
        let expected = format!("FILE: note `rate` is `{rate}`; a number of at least 0 is needed that 32 bits hold");
        assert_eq!(load("rate", |c| c.note("rate", rate)), expected);
    }
    assert_eq!(load("text", |c| c.note("rate", "fast")), "FILE: note `rate` is `fast`; a value of type f64 is needed");
    assert_eq!(
        load("steps", |c| c.note("steps", u64::MAX)),
        format!("FILE: note `steps` is `{}`; at most 2^53 is allowed", u64::MAX)
    );
    assert_eq!(
        load("resets", |c| c.note("resets", "0 2")),
        "FILE: note `resets` is `0 2`; samples of a batch of 2 are needed, which are 0 to 1"
    );
    assert_eq!(
        load("words", |c| c.note("resets", "first")),
        "FILE: note `resets` is `first`; samples of a batch of 2 are needed, which are 0 to 1"
    );
    assert_eq!(
        load("held", |c| c.note("held", 7)),
        "FILE: note `held` is `7`; fewer steps are needed than gradients run back over"
    );
    assert!(load("batch", |c| c.note("batch", usize::MAX)).contains("has shape"));
    assert_eq!(
        load("moment", |c| c.insert("optimizer.out.b.v", arr1(&[f32::NAN]).into_dyn())),
        "FILE: tensor `optimizer.out.b.v` holds NaN; numbers are needed"
    );
    let flags = |c: &mut Checkpoint| {
        let name = c.names().find(|n| n.starts_with("held.") && *n != "held.x" && *n != "held.y").map(str::to_string);
        let name = name.expect("where samples began");
        let steps: usize = c.get_note("held").and_then(|n| n.parse().ok()).expect("steps are held");
        c.insert(name, ArrayD::<f32>::from_elem(vec![steps, 2], 0.5));
    };
    assert!(load("flags", flags).ends_with("holds 0.5; 0 or 1 is needed"));
}

#[test]
fn a_program_of_another_name_is_refused_unless_its_name_is_given() {
    let path: PathBuf = std::env::temp_dir().join(format!("retrograd-loading-name-{}", std::process::id()));
    trainer("net").save(&path).expect("a file");
    let mut other = trainer("other");
    let error = other.load(&path).expect_err("another name").to_string();
    assert_eq!(
        error.replace(&path.display().to_string(), "FILE"),
        "FILE is of program `net`, and this is program `other`; if it only has a new name, `Trainer::load_renamed` takes the \
         old one"
    );
    other.load_renamed(&path, "net", &[]).expect("the old name");
    // The name that is given must be the one in the file.
    assert!(other.load_renamed(&path, "third", &[]).is_err());
    std::fs::remove_file(&path).expect("it is there");
}
