//! How long segments are: a plan knows the policy, and sizes give the lengths.
//!
//! Where nothing is computed again, what is made and used up within a segment should come out of a cache: the longer a
//! segment, the less of it does. But each segment reads and writes again what is summed over rows (weight gradients), and
//! the more segments, the more often. So its values have some multiple of the bytes of those sums, and no fewer than a
//! cache holds anyway.
//!
//! With checkpoints, segments of k steps need memory for k steps and for ⌈T/k⌉ checkpoints, and T − k steps are computed
//! twice: the way back begins with a segment whose values are still there, and the segment that may be shorter is the one
//! it ends with. So of all lengths that fit a limit the largest costs least.

use super::{Plan, Rows, Sweep, Unit};
use crate::ir::Sizes;
use crate::ir::sizes::{times, total};
use crate::ir::types::Axis;

/// How many steps make a segment, and what is kept of them. A training step goes through a sequence segment by segment,
/// and values that are made and used up within one need memory for one only.
///
/// With all but [`Keep`](Checkpointing::Keep) it trades time for memory: it keeps a state every so many steps, and of all
/// other states and of what the backward pass needs of the steps between holds one segment at a time, computed again.
///
/// Gradients have the same bits, whichever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Checkpointing {
    /// Every k-th state is kept. 1 keeps them all, and computes all else again; T or more keeps all in one segment.
    Every(usize),
    /// Every ⌈√T⌉-th: memory for about 2·√T steps instead of T, for less than one forward pass more.
    #[default]
    Sqrt,
    /// As few steps are computed again as a number of bytes allows, for all values of the program. A run whose sizes
    /// cannot fit is refused. With several time axes the same part of each is a segment.
    Fit(usize),
    /// Nothing is computed again: all that the backward pass needs of the forward pass is kept. Segments have so many
    /// steps, where a program that asks for nothing has as many as suit a cache.
    Keep(usize),
}

impl Checkpointing {
    /// Whether steps are computed again.
    pub fn computes_again(self) -> bool {
        !matches!(self, Checkpointing::Keep(_))
    }
}

/// Bytes of a segment's own values that are no reason for another segment.
const CACHE: usize = 2 << 20;
/// Bytes of a segment's own values to each byte that is read and written again for it.
const WORTH: usize = 8;

/// Lengths of segments up to which each is tried to meet a limit.
const TRIED: usize = 1 << 16;

/// Lengths of the segments of each time axis in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Steps of each axis, and of its segments.
    lengths: [(usize, usize); Axis::MAX as usize],
}

impl Segments {
    /// Segments of the length that is given for each number of steps, and at least 1 and at most all.
    pub(super) fn new(sizes: &Sizes, length: impl Fn(usize) -> usize) -> Segments {
        Segments::of(sizes, |_, steps| length(steps))
    }

    /// The same, where the length depends on the axis too.
    fn of(sizes: &Sizes, length: impl Fn(Axis, usize) -> usize) -> Segments {
        let of = |axis: usize| {
            let axis = Axis(axis as u8);
            let steps = sizes.steps(axis);
            (steps, length(axis, steps).min(steps).max(1))
        };
        Segments { lengths: std::array::from_fn(of) }
    }

    /// Steps of a segment; the first of the way forth may have fewer.
    pub fn steps(&self, axis: Axis) -> usize {
        self.lengths[usize::from(axis.0)].1
    }

    /// Number of segments.
    pub fn count(&self, axis: Axis) -> usize {
        let (all, steps) = self.lengths[usize::from(axis.0)];
        all.div_ceil(steps)
    }

    /// First step of a segment and number of its steps. Segments are counted in the order of the way forth, from the
    /// end of the axis if that is `reverse`.
    pub fn segment(&self, axis: Axis, reverse: bool, index: usize) -> (usize, usize) {
        let (all, steps) = self.lengths[usize::from(axis.0)];
        // Counted from where the way forth ends, all but the last are full.
        let behind = (self.count(axis) - 1 - index) * steps;
        let len = steps.min(all - behind);
        (if reverse { behind } else { all - behind - len }, len)
    }
}

impl Plan {
    /// How long segments are at these sizes.
    pub fn segments(&self, sizes: &Sizes) -> Segments {
        match self.checkpointing {
            None => self.suiting_a_cache(sizes),
            Some(Checkpointing::Every(k) | Checkpointing::Keep(k)) => Segments::new(sizes, |_| k),
            Some(Checkpointing::Sqrt) => Segments::new(sizes, |steps| {
                let root = steps.isqrt();
                root + usize::from(root * root < steps)
            }),
            Some(Checkpointing::Fit(bytes)) => self.fitting(sizes, bytes),
        }
    }

    /// Whether some steps are computed again.
    pub fn computes_again(&self) -> bool {
        self.checkpointing.is_some_and(Checkpointing::computes_again)
    }

    /// Segments whose own values are worth what is read and written again for each, all about equally long.
    fn suiting_a_cache(&self, sizes: &Sizes) -> Segments {
        let sums = self.sums_of_segments();
        Segments::of(sizes, |axis, steps| {
            let is_own = |rows: Rows| rows.is_of_segment() && rows.axis() == Some(axis);
            let row = self.slots.iter().filter(|slot| is_own(slot.rows)).map(|slot| slot.row_bytes);
            let row = total(row);
            if row == 0 {
                return steps;
            }
            let bytes = CACHE.max(times(WORTH, sums[usize::from(axis.0)]));
            let length = bytes.div_ceil(times(row, sizes.batch.max(1))).max(1);
            steps.div_ceil(steps.div_ceil(length).max(1))
        })
    }

    /// For each axis the bytes of what its segments' sums over rows add to.
    fn sums_of_segments(&self) -> [usize; Axis::MAX as usize] {
        let mut bytes = [0; Axis::MAX as usize];
        for sweep in self.sweeps() {
            let stages = sweep.back.iter().flat_map(Unit::stages);
            bytes[usize::from(sweep.axis.0)] +=
                total(stages.map(|(stage, _)| times(stage.work.summed(), self.target.float_size)));
        }
        bytes
    }

    /// The longest segments that fit; if none do, those that need least. Of more than [`TRIED`] lengths, one in a thousand
    /// is tried, so that the answer is as near to the longest and comes at once for any number of steps.
    fn fitting(&self, sizes: &Sizes, bytes: usize) -> Segments {
        let most = self.swept_axes().into_iter().map(|axis| sizes.steps(axis)).max().unwrap_or(1);
        let mut least: Option<(usize, Segments)> = None;
        let shorter = |&k: &usize| match k {
            0 | 1 => None,
            k if k <= TRIED => Some(k - 1),
            k => Some(k - k / 1024),
        };
        for k in std::iter::successors(Some(most.max(1)), shorter) {
            // `steps·k/most`, rounded up: at most `steps`, but not on the way.
            let part = |steps: usize| (steps as u128 * k as u128).div_ceil(most.max(1) as u128) as usize;
            let segments = Segments::new(sizes, part);
            let memory = self.memory_in(sizes, &segments);
            if memory <= bytes {
                return segments;
            }
            if least.as_ref().is_none_or(|(best, _)| memory < *best) {
                least = Some((memory, segments));
            }
        }
        least.expect("there is a length").1
    }

    /// Axes that some sweep runs over.
    pub(super) fn swept_axes(&self) -> Vec<Axis> {
        self.sweeps().into_iter().map(|sweep| sweep.axis).collect()
    }

    /// All sweeps, also those between the ways of others.
    fn sweeps(&self) -> Vec<&Sweep> {
        fn of<'p>(units: &'p [Unit], sweeps: &mut Vec<&'p Sweep>) {
            for unit in units {
                if let Unit::Sweep(sweep) = unit {
                    sweeps.push(sweep);
                    of(&sweep.between, sweeps);
                }
            }
        }
        let mut sweeps = Vec::new();
        of(&self.units, &mut sweeps);
        sweeps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_an_axis() {
        for steps in 1..20 {
            for k in 1..22 {
                let segments = Segments::new(&Sizes::new(steps, 3), |_| k);
                for reverse in [false, true] {
                    let mut covered: Vec<usize> = Vec::new();
                    for i in 0..segments.count(Axis(0)) {
                        let (start, len) = segments.segment(Axis(0), reverse, i);
                        assert!(len == segments.steps(Axis(0)) || i == 0 && len > 0 && len < k);
                        let own = start..start + len;
                        if reverse { covered.extend(own.rev()) } else { covered.extend(own) }
                    }
                    if reverse {
                        covered.reverse();
                    }
                    assert_eq!(covered, (0..steps).collect::<Vec<_>>());
                }
            }
        }
    }
    /// Segments of the root of the steps are never shorter than it; the longest that fit are found in a moment, of any
    /// number of steps.
    #[test]
    fn lengths_are_chosen() {
        let program = crate::ir::Program::record("rnn", |p| {
            let x = p.sequence("x", 3);
            let run = p.scan("rnn", |s| {
                let h = s.state("h", 4);
                s.next(h, (s.linear("h", h, 4) + s.affine("x", s.at(x), 4)).tanh())
            });
            p.minimize(run.all().square().mean_features().mean_rows());
        });
        let joint = program.expect("no mistakes").backward().expect("an objective");
        let roots = joint.checkpointed_plan(Checkpointing::Sqrt);
        let root = |steps: usize| roots.segments(&Sizes::new(steps, 2)).steps(Axis(0));
        assert_eq!([1, 2, 3, 4, 5, 9, 10, 16, 17].map(root), [1, 2, 2, 2, 3, 3, 4, 4, 5]);
        let least = joint.checkpointed_plan(Checkpointing::Fit(0)).segments(&Sizes::new(1 << 40, 1)).steps(Axis(0));
        assert!((1..1 << 30).contains(&least), "near the root, where memory is least: {least}");
    }
}
