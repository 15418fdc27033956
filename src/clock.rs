//! Time as an argument: instants, and the clock that the runtime reads in production and tests set by hand.
//!
//! No other room reads the machine's clock. No statement in the store calls the database's `now()`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Sub};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Instant(pub i64);

impl Instant {
    /// Milliseconds since the epoch.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// How long from `earlier` until here; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Rounds up to whole milliseconds, so that nothing is ever early.
    fn add(self, later: Duration) -> Self {
        let millis = later.as_nanos().div_ceil(1_000_000);
        Self(self.0.saturating_add(i64::try_from(millis).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(earlier.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Instant {
    /// RFC 3339 in UTC, with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The time, and a way to wait for it. Cheap to clone; clones are the same clock.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that moves only when it is told to.
    Virtual(VirtualClock),
}

impl Clock {
    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Instant {
        match self {
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Instant(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Self::Virtual(clock) => clock.now(),
        }
    }

    /// Waits until `at`; returns at once if that has passed.
    pub async fn sleep_until(&self, at: Instant) {
        match self {
            // One millisecond more than the rounded difference: the machine's clock must have reached `at`.
            Self::System => loop {
                let now = self.now();
                if now >= at {
                    return;
                }
                tokio::time::sleep(at.since(now)).await;
            },
            Self::Virtual(clock) => clock.sleep_until(at).await,
        }
    }

    /// Waits for a span of this clock's time.
    pub async fn sleep(&self, span: Duration) {
        self.sleep_until(self.now() + span).await;
    }
}

/// A clock for tests: stands still until [`VirtualClock::advance`] moves it, then wakes exactly what is due, in order.
#[derive(Debug, Clone)]
pub struct VirtualClock(Arc<Mutex<Hands>>);

#[derive(Debug)]
struct Hands {
    now: Instant,
    ordinal: u64,
    sleepers: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
}

impl VirtualClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn at(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Hands { now, ordinal: 0, sleepers: BTreeMap::new() })))
    }

    fn hands(&self) -> std::sync::MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What time it stands at.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.hands().now
    }

    /// Moves to `at` (never back) and wakes all who waited for a time up to it, earliest first.
    pub fn set(&self, at: Instant) {
        let due = {
            let mut hands = self.hands();
            hands.now = hands.now.max(at);
            let next = Instant(hands.now.0.saturating_add(1));
            let later = hands.sleepers.split_off(&(next, 0));
            std::mem::replace(&mut hands.sleepers, later)
        };
        for wake in due.into_values() {
            // A sleeper that was dropped has nobody to wake.
            let _ = wake.send(());
        }
    }

    /// Moves on by `span`.
    pub fn advance(&self, span: Duration) {
        self.set(self.now() + span);
    }

    /// The earliest time that somebody still waits for.
    #[must_use]
    pub fn next_sleeper(&self) -> Option<Instant> {
        let mut hands = self.hands();
        hands.sleepers.retain(|_, wake| !wake.is_closed());
        hands.sleepers.keys().next().map(|(at, _)| *at)
    }

    async fn sleep_until(&self, at: Instant) {
        let woken = {
            let mut hands = self.hands();
            if hands.now >= at {
                return;
            }
            let (wake, woken) = oneshot::channel();
            hands.ordinal += 1;
            let key = (at, hands.ordinal);
            hands.sleepers.insert(key, wake);
            woken
        };
        // The sender lives in the clock that `self` keeps alive; it is only dropped by being sent.
        let _ = woken.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_reads_as_rfc_3339() {
        insta::assert_snapshot!(Instant(1_785_000_000_123), @"2026-07-25T17:20:00.123Z");
    }

    #[test]
    fn adding_a_fraction_of_a_millisecond_is_never_early() {
        assert_eq!(Instant(10) + Duration::from_micros(1), Instant(11));
    }

    #[tokio::test]
    async fn a_virtual_clock_wakes_exactly_what_is_due() {
        let hands = VirtualClock::at(Instant(0));
        let clock = Clock::Virtual(hands.clone());
        let [soon, late] = [5, 50].map(|at| {
            let clock = clock.clone();
            tokio::spawn(async move { clock.sleep_until(Instant(at)).await })
        });
        while hands.hands().sleepers.len() < 2 {
            tokio::task::yield_now().await;
        }
        hands.set(Instant(10));
        soon.await.unwrap();
        assert!(!late.is_finished());
        assert_eq!(hands.next_sleeper(), Some(Instant(50)));
        late.abort();
    }
}
