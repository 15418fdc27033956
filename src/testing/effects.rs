//! What bodies did: how often each was begun, and what they left behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::workflow::StepContext;

/// Which attempt at which step of which run.
pub type Attempt = (String, String, u32);

/// How often each body was begun. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Attempts(Arc<Mutex<BTreeMap<Attempt, u32>>>);

impl Attempts {
    pub(super) fn count(&self, cx: &StepContext) {
        let attempt = (cx.run.to_string(), cx.op.to_string(), cx.attempt);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(attempt).or_insert(0) += 1;
    }

    /// Each attempt that was begun, by run, operation and number, and how often: more than once only after a crash.
    #[must_use]
    pub fn all(&self) -> BTreeMap<Attempt, u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many bodies were begun for a run.
    #[must_use]
    pub fn of(&self, run: &str) -> u32 {
        self.all().iter().filter(|((of, ..), _)| of == run).map(|(_, times)| times).sum()
    }
}

/// The outside world, as far as bodies write to it: what was entered under each idempotency key. As a bank would, it
/// keeps the first entry of a key, and it outlives every crash. Clones are the same ledger.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<String, (String, u32)>>>);

impl Ledger {
    /// Enters something under a body's idempotency key. A repeat of the key is counted and changes nothing.
    pub fn enter(&self, cx: &StepContext, what: impl Into<String>) {
        // Without the part that stands for the run's seed, which is another in every world.
        let key = format!("{} {}", cx.run, cx.op);
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.entry(key).or_insert_with(|| (what.into(), 0)).1 += 1;
    }

    /// What was entered under each key, by run and operation.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<String, String> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|(key, (what, _))| (key.clone(), what.clone())).collect()
    }

    /// How often each key was used.
    #[must_use]
    pub fn times(&self) -> BTreeMap<String, u32> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|(key, (_, times))| (key.clone(), *times)).collect()
    }
}
