//! Every op of the table, outside of loops and in them, with its derivatives, at 0, ±∞, NaN and the largest numbers in places
//! that count: generated code gives the class of result that the interpreter gives, on every instruction set.

#[path = "../../tests/corpus/mod.rs"]
mod corpus;

use retrograd_fuzz::Counts;
use retrograd_fuzz::programs::check;

#[test]
fn every_op_at_numbers_that_are_not_ordinary() {
    let programs = corpus::table::on_sequences().into_iter().chain(corpus::table::in_loops());
    let mut counts = Counts::new();
    let mut cases = 0;
    for program in programs {
        for is_joint in [false, true] {
            // Sizes, values, widths and instruction sets follow from the number.
            for _ in 0..2 {
                cases += 1;
                if let Err(e) = check(program.clone(), cases, is_joint, true, &mut counts) {
                    panic!("`{}`, joint {is_joint}, {cases}: {e}", program.name);
                }
            }
        }
    }
    assert_eq!(counts.get("agree on wild values"), Some(&cases), "{counts:?}");
}
