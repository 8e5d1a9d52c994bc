//! Which rows of a buffer a stage may mean.
//!
//! A row is named by a block of B rows and by a place within it ([`At`]); a buffer has some number of blocks ([`Rows`]).
//! Here is, case by case, which names are within which buffers for all sizes: there is at least one sample, one step, one
//! segment, and a segment has at least one step. Nothing is computed, since nothing is known of T.

use crate::ir::types::Axis;
use crate::plan::{At, Domain, Loop, Rows};

use super::{Wrong, ensure};

/// How many rows are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// One.
    One,
    /// One for each sample.
    Samples,
    /// One for each sample and step; in a sweep's way, for those of a segment.
    All(Axis),
}

impl Count {
    /// Rows of a stage, at a step if it goes by steps.
    pub fn of_domain(domain: Domain) -> Count {
        match domain {
            Domain::Shared => Count::One,
            Domain::Batch | Domain::EachStep(_) => Count::Samples,
            Domain::Time(axis) => Count::All(axis),
        }
    }
}

/// Where a stage is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// The axis of which it takes steps one at a time.
    pub steps: Option<Axis>,
    /// The axis of the sweep in whose way it is.
    pub window: Option<Axis>,
    /// Whether it is generated code, which takes the one row of a buffer as such only if it is told so.
    pub is_kernel: bool,
}

/// The axis of which a stage takes steps one at a time.
pub fn steps(domain: Domain, l: Option<&Loop>) -> Wrong<Option<Axis>> {
    match (domain, l) {
        (Domain::Shared | Domain::Batch, l) => Ok(l.map(|l| l.axis)),
        (Domain::EachStep(axis), None) => Ok(Some(axis)),
        (Domain::Time(_), None) => Ok(None),
        (_, Some(_)) => Err("it runs over all steps, within a loop".to_string()),
    }
}

/// Whether so many rows from a place on are in a buffer with these rows, at each step.
pub fn verify(rows: Rows, at: At, count: Count, place: Place) -> Wrong {
    // A buffer with rows for one segment has those of the present one, and none outside.
    let of_steps = |axis: Axis, shift: usize| match rows {
        Rows::Time(own) => own == axis && shift == 0,
        Rows::History(own) => own == axis && shift <= 1,
        Rows::Segment(own) => own == axis && shift == 0 && place.window == Some(axis),
        Rows::SegmentHistory(own) => own == axis && shift <= 1 && place.window == Some(axis),
        Rows::One | Rows::Batch | Rows::Checkpoints(_) => false,
        Rows::IfSegments(_) | Rows::BatchIfSegments(_) | Rows::IfUneven(_) => false,
    };
    let is_right = match (at, count) {
        (At::Shared, _) => rows == Rows::One,
        // The one row, whichever row is asked for.
        (At::Row(0), _) if rows == Rows::One => !place.is_kernel,
        (_, Count::One) => false,
        (At::Row(block), Count::Samples) => match rows {
            Rows::One | Rows::IfSegments(_) | Rows::BatchIfSegments(_) | Rows::IfUneven(_) => false,
            Rows::Batch | Rows::Time(_) | Rows::Segment(_) => block == 0,
            Rows::History(_) | Rows::SegmentHistory(_) | Rows::Checkpoints(_) => block <= 1,
        },
        // Within a sweep these would be the rows of its first segment.
        (At::Row(block), Count::All(axis)) => {
            place.window != Some(axis) && !rows.is_of_segment() && of_steps(axis, block)
        }
        (At::Step(shift), Count::Samples) => place.steps.is_some_and(|axis| of_steps(axis, shift)),
        (At::Step(shift), Count::All(axis)) => place.window == Some(axis) && of_steps(axis, shift),
        (At::FromEnd(axis, back), Count::Samples) => match rows {
            Rows::Time(own) | Rows::Segment(own) => own == axis && back == 1,
            Rows::History(own) | Rows::SegmentHistory(own) | Rows::Checkpoints(own) => own == axis && back <= 1,
            Rows::One | Rows::Batch => false,
            Rows::IfSegments(_) | Rows::BatchIfSegments(_) | Rows::IfUneven(_) => false,
        },
        (At::FromEnd(..), Count::All(_)) => false,
    };
    ensure!(is_right, "{count:?} rows at {at:?} are not those of {rows:?} here");
    Ok(())
}
