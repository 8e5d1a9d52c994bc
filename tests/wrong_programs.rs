//! Every mistake that a recording can have, and the text that it gets: a file with the mistake, a snapshot with the
//! text, side by side in `tests/wrong`.

use std::collections::BTreeSet;
use std::path::Path;

use retrograd::prelude::*;

mod wrong;

/// Nothing panics, every mistake is found, and its text names file and line, what was given and what is allowed.
#[test]
fn texts() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("wrong");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, body) in wrong::PROGRAMS {
            let errors = Program::record(*name, body).expect_err(name);
            for error in &errors {
                let file = Path::new(error.location.file()).file_stem();
                assert_eq!(file, Some(name.as_ref()), "the place is the user's: {error}");
            }
            insta::assert_snapshot!(*name, errors);
        }
    });
}

/// A file that the list forgets would test nothing.
#[test]
fn every_file_is_a_program() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let files: BTreeSet<String> = std::fs::read_dir(directory)
        .expect("the corpus is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| path.file_stem().expect("a file").to_string_lossy().into_owned())
        .filter(|name| name != "mod")
        .collect();
    let listed: BTreeSet<String> = wrong::PROGRAMS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(files, listed);
}
