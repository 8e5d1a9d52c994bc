//! How long segments are: a plan knows the policy, and sizes give the lengths.
//!
//! Segments of k steps need memory for k steps and for ⌈T/k⌉ checkpoints, and T − k steps are computed twice: the way
//! back begins with a segment whose values are still there, and the segment that may be shorter is the one it ends with.
//! So of all lengths that fit a limit the largest costs least.

use super::{Plan, Unit};
use crate::ir::types::{Axis, Sizes};

/// How many steps lie between two states that are kept, where a program trades time for memory: of all other states and
/// of what the backward pass needs of the steps between, only one segment is held at a time, and computed again.
///
/// Gradients have the same bits as without, whichever it is.
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
}

/// Lengths of the segments of each time axis in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Steps of each axis, and of its segments.
    lengths: [(usize, usize); Axis::MAX as usize],
}

impl Segments {
    /// Segments of the length that is given for each number of steps, and at least 1 and at most all.
    fn new(sizes: &Sizes, length: impl Fn(usize) -> usize) -> Segments {
        let of = |axis: usize| {
            let steps = sizes.steps(Axis(axis as u8));
            (steps, length(steps).clamp(1, steps))
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
            None => Segments::new(sizes, |steps| steps),
            Some(Checkpointing::Every(k)) => Segments::new(sizes, |_| k),
            Some(Checkpointing::Sqrt) => Segments::new(sizes, |steps| {
                let root = steps.isqrt();
                root + usize::from(root * root < steps)
            }),
            Some(Checkpointing::Fit(bytes)) => self.fitting(sizes, bytes),
        }
    }

    /// The longest segments that fit; if none do, those that need least.
    fn fitting(&self, sizes: &Sizes, bytes: usize) -> Segments {
        let most = self.swept_axes().into_iter().map(|axis| sizes.steps(axis)).max().unwrap_or(1);
        let mut least: Option<(usize, Segments)> = None;
        for k in (1..=most).rev() {
            let segments = Segments::new(sizes, |steps| (steps * k).div_ceil(most));
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
        fn of(units: &[Unit], axes: &mut Vec<Axis>) {
            for unit in units {
                if let Unit::Sweep(sweep) = unit {
                    axes.push(sweep.axis);
                    of(&sweep.between, axes);
                }
            }
        }
        let mut axes = Vec::new();
        of(&self.units, &mut axes);
        axes
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
}
