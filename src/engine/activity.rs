//! Whether the engine is doing anything: for tests that must know when it rests, and for a graceful stop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::clock::{Clock, Instant};
use crate::store::Store;

/// Counts what is under way.
#[derive(Debug, Default)]
pub(super) struct Activity {
    busy: AtomicUsize,
    /// Grows whenever something begins.
    begun: AtomicUsize,
    bodies: AtomicUsize,
    changed: Notify,
    /// The drivers' own alarms: timers of runs that bodies keep running, timeouts of attempts.
    alarms: Mutex<BTreeMap<Instant, usize>>,
}

/// Something under way; ends when dropped.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

/// A body that has not ended.
#[derive(Debug)]
pub(super) struct BodyUnderWay(Arc<Activity>);

impl Drop for BodyUnderWay {
    fn drop(&mut self) {
        if self.0.bodies.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

/// An alarm that somebody waits for; taken back when dropped.
#[derive(Debug)]
pub(super) struct Alarm {
    activity: Arc<Activity>,
    at: Instant,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut alarms = self.activity.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = alarms.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                alarms.remove(&self.at);
            }
        }
    }
}

impl Activity {
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(self))
    }

    pub(super) fn body(self: &Arc<Self>) -> BodyUnderWay {
        self.bodies.fetch_add(1, Ordering::SeqCst);
        BodyUnderWay(Arc::clone(self))
    }

    pub(super) fn alarm(self: &Arc<Self>, at: Instant) -> Alarm {
        *self.alarms.lock().unwrap_or_else(PoisonError::into_inner).entry(at).or_insert(0) += 1;
        Alarm { activity: Arc::clone(self), at }
    }

    pub(super) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner).keys().next().copied()
    }

    /// Waits until nothing is under way, every hint of the store has been heard, and no alarm and no look is due.
    pub(super) async fn quiet(&self, store: &Store, clock: &Clock, looks_at: [&AtomicI64; 3]) {
        loop {
            let changed = self.changed.notified();
            let begun = self.begun.load(Ordering::SeqCst);
            let resting = self.busy.load(Ordering::SeqCst) == 0;
            let is_due = |at: Instant| at <= clock.now();
            let looks = looks_at.iter().any(|at| is_due(Instant(at.load(Ordering::SeqCst))));
            let due = looks || self.next_alarm().is_some_and(is_due);
            // What leaves one of these places has entered another before, and to enter is to begin: if nothing has begun
            // between the first look and the last, all of them were empty at the same time.
            if resting && !due && store.hints_waiting() == 0 && self.begun.load(Ordering::SeqCst) == begun {
                return;
            }
            if self.busy.load(Ordering::SeqCst) > 0 {
                changed.await;
            } else {
                // A hint or an alarm that is under way is picked up by a task of this runtime.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits until no body runs.
    pub(super) async fn idle_bodies(&self) {
        loop {
            let changed = self.changed.notified();
            if self.bodies.load(Ordering::SeqCst) == 0 && self.busy.load(Ordering::SeqCst) == 0 {
                return;
            }
            changed.await;
        }
    }
}
