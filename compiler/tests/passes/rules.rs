//! Rules of `simplify` one by one, where they fire and where they must not: each row is what a rule rests on, statements,
//! and what becomes of them. What the statements may read is in `super::with_head`.

use retrograd_compiler::simplify::simplify;

use super::{parse, with_head};

const ROWS: &[(&str, &str, &str)] = &[
    (
        "a sum and the same with its terms exchanged are one value",
        "%0: f32[B, 4] = add x, y
         %1: f32[B, 4] = add y, x
         output o = %0
         output p = %1",
        "%0: f32[B, 4] = add x, y
         output o = %0
         output p = %0",
    ),
    (
        "division by -1 is a sign",
        "%0: f32[B, 4] = div x, -1
         %1: f32[B, 4] = add y, %0
         output o = %1",
        "%0: f32[B, 4] = sub y, x
         output o = %0",
    ),
    (
        "an op goes before a broadcast only where all its operands are broadcast from one shape",
        "%0: f32[B, 1, 4] = reshape x
         %1: f32[B, 2, 4] = broadcast %0
         %2: f32[B, 2, 1] = reshape z
         %3: f32[B, 2, 4] = broadcast %2
         %4: f32[B, 2, 4] = add %1, %3
         output o = %4",
        "",
    ),
    (
        "pads along the second axis that tile it are one concatenation along it",
        "%0: f32[B, 2, 2] = reshape x
         %1: f32[B, 2, 4] = pad %0 before=0 after=2 axis=1
         %2: f32[B, 2, 2] = reshape y
         %3: f32[B, 2, 4] = pad %2 before=2 after=0 axis=1
         %4: f32[B, 2, 4] = add %1, %3
         output o = %4",
        "%0: f32[B, 2, 2] = reshape x
         %1: f32[B, 2, 2] = reshape y
         %2: f32[B, 2, 4] = concat %0, %1 axis=1
         output o = %2",
    ),
    (
        "pads along different axes are not",
        "%0: f32[B, 1, 2] = reshape z
         %1: f32[B, 2, 2] = pad %0 before=0 after=1
         %2: f32[B, 2, 1] = reshape z
         %3: f32[B, 2, 2] = pad %2 before=1 after=0 axis=1
         %4: f32[B, 2, 2] = add %1, %3
         output o = %4",
        "",
    ),
    (
        "nor do they merge one within the other",
        "%0: f32[B, 2, 2] = reshape x
         %1: f32[B, 3, 2] = pad %0 before=1 after=0
         %2: f32[B, 3, 3] = pad %1 before=0 after=1 axis=1
         output o = %2",
        "",
    ),
    (
        "concatenations without zeros are added as they are",
        "%0: f32[B, 6] = concat x, z
         %1: f32[B, 6] = concat y, z
         %2: f32[B, 6] = add %0, %1
         output o = %2",
        "",
    ),
    (
        "one part between zeros is a pad",
        "%0: f32[2] = constant 0
         %1: f32[B, 6] = concat x, %0
         output o = %1",
        "%0: f32[B, 6] = pad x before=0 after=2
         output o = %0",
    ),
    (
        "neighbours that are the same constant are one",
        "%0: f32[1] = constant 1
         %1: f32[3] = constant 1
         %2: f32[B, 8] = concat x, %0, %1
         output o = %2",
        "%0: f32[4] = constant 1
         %1: f32[B, 8] = concat x, %0
         output o = %1",
    ),
    (
        "the zeros of a pad need no product",
        "%0: f32[B, 6] = pad x before=2 after=0
         %1: f32[B, 3] = dot %0, w
         output o = %1",
        "%0: f32[4, 3] = slice w 2..6
         %1: f32[B, 3] = dot x, %0
         output o = %1",
    ),
    (
        "a pad that adds rows within a sample is no part of a product",
        "%0: f32[B, 3] = slice x 0..3
         %1: f32[B, 1, 3] = reshape %0
         %2: f32[B, 2, 3] = pad %1 before=1 after=0
         %3: f32[B, 2, 6] = dot %2, v
         output o = %3",
        "",
    ),
    (
        "a slice of rows within a sample cuts no weight",
        "%0: f32[B, 2, 2] = reshape x
         %1: f32[6, 2] = slice w 0..2 axis=1
         %2: f32[B, 2, 6] = dot.nt %0, %1
         %3: f32[B, 1, 6] = slice %2 0..1
         output o = %3",
        "",
    ),
    (
        "a slice of what is repeated along features repeats less",
        "%0: f32[B, 1, 4] = reshape x
         %1: f32[B, 3, 4] = broadcast %0
         %2: f32[B, 2, 4] = slice %1 1..3
         output o = %2",
        "%0: f32[B, 1, 4] = reshape x
         %1: f32[B, 2, 4] = broadcast %0
         output o = %1",
    ),
    (
        "slices go through one pointwise op after another",
        "%0: f32[B, 4] = tanh x
         %1: f32[B, 4] = sigmoid %0
         %2: f32[B, 1] = slice %1 0..1
         %3: f32[B, 3] = slice %1 1..4
         output o = %2
         output p = %3",
        "%0: f32[B, 1] = slice x 0..1
         %1: f32[B, 1] = tanh %0
         %2: f32[B, 1] = sigmoid %1
         %3: f32[B, 3] = slice x 1..4
         %4: f32[B, 3] = tanh %3
         %5: f32[B, 3] = sigmoid %4
         output o = %2
         output p = %5",
    ),
    (
        "the sum over steps of what only the last step has is what that has",
        "%0: f32[T, B, 4] = place_last x
         %1: f32[B, 4] = sum_rows %0
         output o = %1",
        "output o = x",
    ),
];

#[test]
fn rules_fire_where_they_may() {
    let mut wrong = String::new();
    for (why, statements, expected) in ROWS {
        let expected = with_head(if expected.is_empty() { statements } else { expected });
        let given = simplify(&parse(&with_head(statements))).to_string();
        if given != expected {
            wrong += &format!("{why}: given\n{given}instead of\n{expected}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
