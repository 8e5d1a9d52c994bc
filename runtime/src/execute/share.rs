//! How a team shares a stage or a loop.
//!
//! * By *rows*: each member takes some rows, and in a loop takes them through all steps without meeting the others. It reads
//!   all weights, so a few rows each are not worth it: one row takes as long as reading the weights from a cache.
//! * By *features*: each member takes some panels of all rows, and reads its part of the weights. In a loop all meet
//!   behind each stage, since the next one reads all features. Stages without panels are shared by rows as ever.
//! * *Alone*: one member does what is done by the time that a team has met.
//!
//! Each element of a result is computed by one member and in one order, whichever it is: bits do not depend on it.

use std::ops::Range;

/// Work below which one member does all: some microseconds, in operations of a product (see
/// [`Plan::effort`](retrograd_compiler::plan::Plan::effort)).
const ALONE: usize = 1 << 18;
/// Work between two meetings of a loop from which on they are worth it.
const MEETING: usize = 1 << 17;
/// Rows of each member from which on a team shares by rows: two of 256 units take as long either way, of 1024 units less by
/// rows; one takes half as long again.
const ROWS_EACH: usize = 2;

/// How a team shares what it does. Results have the same bits whichever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// By rows, by features, or not at all, as there are rows and work.
    #[default]
    Auto,
    /// By rows, however small: for tests and measuring.
    Rows,
    /// By features, however small: for tests and measuring.
    Features,
}

/// How one stage or loop is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Nobody,
    Rows,
    Features,
}

/// What is to be shared.
pub(super) struct Piece {
    /// Rows that can be had apart.
    pub rows: usize,
    /// Work in all.
    pub work: usize,
    /// In a loop, work between two meetings, and whether it can do without them if each member has its rows.
    pub in_loop: Option<(usize, bool)>,
}

impl Sharing {
    /// How so many members share this.
    pub(super) fn of(self, piece: &Piece, members: usize) -> By {
        let is_row_by_row = piece.in_loop.is_none_or(|(_, is_row_by_row)| is_row_by_row);
        let by_rows = if is_row_by_row { By::Rows } else { By::Nobody };
        match self {
            _ if members == 1 => By::Nobody,
            Sharing::Rows => by_rows,
            Sharing::Features => By::Features,
            Sharing::Auto if piece.work < ALONE => By::Nobody,
            Sharing::Auto if piece.rows >= ROWS_EACH * members && is_row_by_row => By::Rows,
            Sharing::Auto if piece.in_loop.is_none_or(|(between, _)| between >= MEETING) => By::Features,
            Sharing::Auto if piece.rows > 1 => by_rows,
            Sharing::Auto => By::Nobody,
        }
    }
}

/// A member's part of what is shared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub member: usize,
    members: usize,
    by_features: bool,
}

impl Share {
    /// All of it.
    pub(super) const WHOLE: Share = Share { member: 0, members: 1, by_features: false };

    pub(super) fn new(member: usize, members: usize, by: By) -> Share {
        Share { member, members, by_features: by == By::Features }
    }

    /// Its part of `0..n`; parts differ by one at most.
    pub(super) fn of(self, n: usize) -> Range<usize> {
        n * self.member / self.members..n * (self.member + 1) / self.members
    }

    /// Its part of so many rows by so many panels; `is_one_row` if rows are one that all share.
    pub(super) fn tile(self, rows: usize, panels: usize, is_one_row: bool) -> (Range<usize>, Range<usize>) {
        if self.by_features || is_one_row { (0..rows, self.of(panels)) } else { (self.of(rows), 0..panels) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_if_there_are_enough_else_features_if_there_is_work() {
        let by = |rows, between, row_by_row, members| {
            let work = 100 * between;
            Sharing::Auto.of(&Piece { rows, work, in_loop: Some((between, row_by_row)) }, members)
        };
        assert_eq!(by(4, MEETING, true, 2), By::Rows);
        assert_eq!(by(3, MEETING, true, 2), By::Features);
        assert_eq!(by(3, MEETING - 1, true, 2), By::Rows);
        assert_eq!(by(1, MEETING - 1, true, 2), By::Nobody);
        assert_eq!(by(1000, MEETING, true, 1), By::Nobody);
        // A sum over rows in a loop: no member can go on without the others.
        assert_eq!(by(1000, MEETING, false, 2), By::Features);
        assert_eq!(by(1000, MEETING - 1, false, 2), By::Nobody);
        assert_eq!(Sharing::Auto.of(&Piece { rows: 1000, work: ALONE - 1, in_loop: None }, 2), By::Nobody);
    }

    #[test]
    fn parts_cover_all_once() {
        for members in 1..5 {
            for n in 0..9 {
                let parts = (0..members).flat_map(|member| Share::new(member, members, By::Rows).of(n));
                assert!(parts.eq(0..n), "{n} among {members}");
            }
        }
        let second = |by| Share::new(1, 2, by);
        assert_eq!(second(By::Rows).tile(6, 4, false), (3..6, 0..4));
        assert_eq!(second(By::Features).tile(6, 4, false), (0..6, 2..4));
        assert_eq!(second(By::Rows).tile(1, 4, true), (0..1, 2..4));
    }
}
