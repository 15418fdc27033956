//! How often and how soon to try again: arithmetic only.

use std::time::Duration;

/// When a step is tried again. The default is one attempt: nothing is retried unless it was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// How many attempts at the most, the first included. At least 1.
    pub attempts_max: u32,
    /// The wait after the first failed attempt.
    pub first_delay: Duration,
    /// What each further wait is multiplied by. 1.0 keeps it even.
    pub factor: f64,
    /// The longest wait.
    pub delay_max: Duration,
    /// How far a wait may be off, as a share of it: 0.2 means between 80 % and 120 %.
    pub jitter: f64,
    /// No attempt begins later than this after the step was scheduled.
    pub total: Option<Duration>,
}

impl RetryPolicy {
    /// One attempt.
    pub const ONCE: Self = Self {
        attempts_max: 1,
        first_delay: Duration::from_secs(1),
        factor: 2.0,
        delay_max: Duration::from_secs(60),
        jitter: 0.0,
        total: None,
    };

    /// The wait after `attempts` failed attempts, or `None` when there is to be no further one.
    ///
    /// `dice` is a number in `0.0..1.0` that places the wait within the jitter.
    #[must_use]
    pub fn delay_after(&self, attempts: u32, dice: f64) -> Option<Duration> {
        if attempts >= self.attempts_max {
            return None;
        }
        let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let even = self.first_delay.as_secs_f64() * self.factor.powi(exponent);
        let capped = even.min(self.delay_max.as_secs_f64());
        let placed = capped * (1.0 + self.jitter * (2.0 * dice - 1.0));
        Some(Duration::try_from_secs_f64(placed.max(0.0)).unwrap_or(self.delay_max))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::ONCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let policy = RetryPolicy { attempts_max: 5, delay_max: Duration::from_secs(3), ..RetryPolicy::ONCE };
        let waits: Vec<_> = (1..=5).map(|n| policy.delay_after(n, 0.5).map(|d| d.as_secs())).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(3), Some(3), None]);
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let policy = RetryPolicy { attempts_max: 2, jitter: 0.2, ..RetryPolicy::ONCE };
        assert_eq!(policy.delay_after(1, 0.0), Some(Duration::from_millis(800)));
        assert_eq!(policy.delay_after(1, 1.0), Some(Duration::from_millis(1200)));
    }
}
