//! Scripted faults for the crash harness: what happens at the n-th physical write of this store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// What goes wrong at a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process dies before the write reaches the database.
    CrashBefore,
    /// The process dies after the write, before anybody hears of it.
    CrashAfter,
    /// The write lands, but the connection is lost before its answer: the outcome is unknown to the writer.
    LoseAnswer,
}

/// A script of faults: counts physical writes and strikes at one of them. Clones share the count.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Script>);

#[derive(Debug)]
struct Script {
    fault: Option<Fault>,
    strikes_at: u64,
    writes: AtomicU64,
    dead: AtomicBool,
    died: Notify,
}

impl Faults {
    /// Strikes at write `n`, counted from 1.
    #[must_use]
    pub fn at(n: u64, fault: Fault) -> Self {
        Self::new(n, Some(fault))
    }

    /// Only counts.
    #[must_use]
    pub fn none() -> Self {
        Self::new(u64::MAX, None)
    }

    fn new(strikes_at: u64, fault: Option<Fault>) -> Self {
        Self(Arc::new(Script {
            fault,
            strikes_at,
            writes: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            died: Notify::new(),
        }))
    }

    /// How many writes there were.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.0.writes.load(Ordering::SeqCst)
    }

    /// Whether it struck.
    #[must_use]
    pub fn struck(&self) -> bool {
        self.0.fault.is_some() && self.writes() >= self.0.strikes_at
    }

    /// Whether the process counts as dead.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::SeqCst)
    }

    /// Waits until the process counts as dead.
    pub async fn died(&self) {
        loop {
            let died = self.0.died.notified();
            if self.is_dead() {
                return;
            }
            died.await;
        }
    }

    /// Called by the writer before each physical write; says what is to go wrong with it.
    pub(super) fn next(&self) -> Option<Fault> {
        let n = self.0.writes.fetch_add(1, Ordering::SeqCst) + 1;
        (n == self.0.strikes_at).then_some(self.0.fault).flatten()
    }

    /// The process is dead from here on: nothing is written and nobody hears anything any more.
    pub(super) async fn die(&self) -> ! {
        self.0.dead.store(true, Ordering::SeqCst);
        self.0.died.notify_waiters();
        std::future::pending().await
    }
}
