//! The tests of a cell of one's own.

use retrograd::prelude::*;
use retrograd::testing::{assert_engines_agree, check_gradients};

#[path = "../examples/custom_cell.rs"]
#[allow(dead_code, reason = "its main")]
mod custom_cell;

fn program() -> Program {
    custom_cell::study("mine", custom_cell::mine, [4, 2, 3]).expect("a cell without mistakes")
}

#[test]
fn gradients() -> Result<(), Box<dyn std::error::Error>> {
    let checked = check_gradients(&program(), &Sizes::new(5, 3))?;
    assert_eq!(checked.elements, checked.of);
    Ok(())
}

#[test]
fn engines() {
    assert_engines_agree(&program(), &Sizes::new(4, 5));
}

/// What the step is, and what the compiler makes of its derivative: a diff shows what an edit did to either.
#[test]
fn snapshots() {
    insta::assert_snapshot!("recorded", program());
    insta::assert_snapshot!("backward", program().backward().expect("an objective"));
}
