//! How the learning rate runs over the steps of training.
//!
//! A schedule is a pure function from the number of a step to a factor of the optimiser's rate, so a resumed run
//! continues with the same bits, and there is no state to save.

use std::f64::consts::PI;

use crate::error::RunError;

/// A course of the learning rate: a factor between 0 and 1 for each step.
///
/// ```
/// use retrograd_runtime::schedule::Schedule;
/// let schedule = Schedule::cosine(1000).warm_up(10);
/// assert_eq!(schedule.factor(0), 0.1);
/// assert_eq!(schedule.factor(10), 1.0);
/// assert!(schedule.factor(1010) < 1e-12);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// The same rate always.
    Constant,
    /// Falls by a factor after each so many steps: factor^⌊n / every⌋.
    Steps {
        /// Steps between falls; 0 is taken as 1.
        every: u64,
        /// What the rate is multiplied with, from 0 to 1.
        factor: f64,
    },
    /// Falls along half a cosine from 1 to `floor`, and stays there (Loshchilov & Hutter 2017, without restarts).
    Cosine {
        /// Steps to the floor.
        over: u64,
        /// The least factor, from 0 to 1.
        floor: f64,
    },
    /// Rises linearly from 1/over at step 0 to 1 at step over − 1, then follows another schedule from its start.
    WarmUp {
        /// Steps of the rise.
        over: u64,
        /// What follows.
        then: Box<Schedule>,
    },
}

impl Schedule {
    /// The same rate always.
    pub fn constant() -> Schedule {
        Schedule::Constant
    }

    /// The rate is multiplied with `factor` after each `every` steps.
    pub fn steps(every: u64, factor: f64) -> Schedule {
        Schedule::Steps { every, factor }
    }

    /// The rate falls to 0 over so many steps, slowly at both ends.
    pub fn cosine(over: u64) -> Schedule {
        Schedule::Cosine { over, floor: 0.0 }
    }

    /// The rate falls to `floor` times itself over so many steps, slowly at both ends.
    pub fn cosine_to(over: u64, floor: f64) -> Schedule {
        Schedule::Cosine { over, floor }
    }

    /// This schedule after a linear rise over so many steps.
    #[must_use]
    pub fn warm_up(self, over: u64) -> Schedule {
        Schedule::WarmUp { over, then: Box::new(self) }
    }

    /// Whether it is a course of rates: each factor is a number from 0 to 1.
    ///
    /// ```
    /// use retrograd_runtime::schedule::Schedule;
    /// assert!(Schedule::cosine_to(10, 0.1).warm_up(3).check().is_ok());
    /// let error = Schedule::steps(100, 5.0).check().unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "the factor of a schedule in steps is 5; it is what the rate falls by: a number from 0 to 1 is needed"
    /// );
    /// ```
    ///
    /// # Errors
    /// A factor or a floor that is no number from 0 to 1.
    pub fn check(&self) -> Result<(), RunError> {
        let check = |setting: &str, x: f64, allowed: &str| match (0.0..=1.0).contains(&x) {
            true => Ok(()),
            false => {
                let (setting, given, allowed) = (setting.to_string(), x.to_string(), allowed.to_string());
                Err(RunError::Setting { setting, given, allowed })
            }
        };
        match self {
            Schedule::Constant => Ok(()),
            Schedule::Steps { factor, .. } => {
                let allowed = "it is what the rate falls by: a number from 0 to 1 is needed";
                check("the factor of a schedule in steps", *factor, allowed)
            }
            Schedule::Cosine { floor, .. } => {
                let allowed = "it is a part of the rate: a number from 0 to 1 is needed";
                check("the floor of a cosine schedule", *floor, allowed)
            }
            Schedule::WarmUp { then, .. } => then.check(),
        }
    }

    /// The factor of the rate at a step, where `done` steps are behind: 0 for the first.
    pub fn factor(&self, done: u64) -> f64 {
        match self {
            Schedule::Constant => 1.0,
            Schedule::Steps { every, factor } => factor.powf((done / (*every).max(1)) as f64),
            Schedule::Cosine { over, floor } if done >= *over => *floor,
            Schedule::Cosine { over, floor } => {
                let part = done as f64 / *over as f64;
                floor + (1.0 - floor) * 0.5 * (1.0 + (PI * part).cos())
            }
            Schedule::WarmUp { over, .. } if done < *over => (done + 1) as f64 / *over as f64,
            Schedule::WarmUp { over, then } => then.factor(done - over),
        }
    }

    /// The rate at a step, where `done` steps are behind.
    pub fn rate(&self, base: f64, done: u64) -> f64 {
        base * self.factor(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: &Schedule, expected: &[f64]) {
        for (n, want) in expected.iter().enumerate() {
            let got = schedule.factor(n as u64);
            assert!((got - want).abs() < 1e-12, "step {n}: {got} instead of {want}");
        }
    }

    #[test]
    fn constant_scales_the_base() {
        assert_eq!(Schedule::constant().rate(3e-3, u64::MAX), 3e-3);
        assert_eq!(Schedule::steps(1, 0.5).rate(8.0, 2), 2.0);
    }

    #[test]
    fn steps_fall_at_their_multiples() {
        check(&Schedule::steps(3, 0.1), &[1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.01]);
        check(&Schedule::steps(0, 0.5), &[1.0, 0.5, 0.25]);
        assert_eq!(Schedule::steps(1, 0.5).factor(u64::MAX), 0.0);
    }

    #[test]
    fn cosine_is_at_its_middle_halfway_and_stays_at_its_floor() {
        check(&Schedule::cosine(4), &[1.0, 0.5 + 0.125f64.sqrt(), 0.5, 0.5 - 0.125f64.sqrt(), 0.0, 0.0]);
        check(&Schedule::cosine_to(2, 0.2), &[1.0, 0.6, 0.2, 0.2]);
        check(&Schedule::cosine_to(0, 0.2), &[0.2]);
        let schedule = Schedule::cosine_to(1000, 0.1);
        assert!((0..1000).all(|n| schedule.factor(n + 1) < schedule.factor(n)));
    }

    #[test]
    fn warm_up_rises_and_hands_over() {
        check(&Schedule::constant().warm_up(4), &[0.25, 0.5, 0.75, 1.0, 1.0]);
        check(&Schedule::steps(2, 0.5).warm_up(2), &[0.5, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25]);
        check(&Schedule::cosine(2).warm_up(0), &[1.0, 0.5, 0.0]);
        check(&Schedule::constant().warm_up(2).warm_up(1), &[1.0, 0.5, 1.0]);
    }
}
