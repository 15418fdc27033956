//! Signals that a test sends at a time of its own, or when they are waited for.

use std::sync::{Mutex, PoisonError};

use super::Error;
use crate::clock::Instant;
use crate::id::{Namespace, RunId};
use crate::intake::Send;
use crate::runtime::Client;

/// When a scripted signal is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Once the clock has reached this.
    At(Instant),
    /// Once the run waits for a signal of that name.
    Awaited,
}

#[derive(Debug, Clone)]
pub(super) struct Scripted {
    pub(super) when: When,
    pub(super) namespace: Namespace,
    pub(super) run: RunId,
    pub(super) send: Send,
}

/// What is still to be sent, in the order in which it was written.
#[derive(Debug, Default)]
pub(super) struct Script(Mutex<(usize, Vec<Scripted>)>);

impl Script {
    fn lines(&self) -> std::sync::MutexGuard<'_, (usize, Vec<Scripted>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, line: impl FnOnce(usize) -> Scripted) {
        let mut lines = self.lines();
        lines.0 += 1;
        let line = line(lines.0);
        lines.1.push(line);
    }

    /// The earliest time at which something is to be sent.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let at = |line: &Scripted| match line.when {
            When::At(at) => Some(at),
            When::Awaited => None,
        };
        self.lines().1.iter().filter_map(at).min()
    }

    /// Takes out the next signal that is to be sent now.
    pub(super) async fn next(&self, client: &Client, now: Instant) -> Result<Option<Scripted>, Error> {
        let lines = self.lines().1.clone();
        for (place, line) in lines.iter().enumerate() {
            let now = match line.when {
                When::At(at) => at <= now,
                When::Awaited => {
                    let shown = client.find_in(&line.namespace, line.run.as_str()).await?.show().await?;
                    shown.waits_for.iter().any(|wait| wait.name.as_deref() == Some(line.send.name.as_str()))
                }
            };
            if now {
                return Ok(Some(self.lines().1.remove(place)));
            }
        }
        Ok(None)
    }
}
