//! Where work comes from: hints of this process's own writes, word from other processes, and the claim loop with its
//! poll behind it. A lost hint costs a poll, never a run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::driver::Woken;
use crate::clock::Instant;
use crate::store::{Error, Hint, Hints};

/// When due runs are looked for again after that has failed.
const AGAIN: Duration = Duration::from_millis(100);

/// The most runs that are claimed by one statement.
const CLAIM_MAX: usize = 256;

/// Passes on what this process's own writes have told.
pub(super) async fn listen(shared: Arc<Shared>, mut hints: Hints) {
    while hints.some().await {
        // Counted as under way before a look at `hints_waiting` can find nothing.
        let _busy = shared.activity.begin();
        match hints.try_recv() {
            Some(Hint::Signalled { run, signals }) => shared.tell(run, Woken::Signalled { run, signals }),
            Some(Hint::Due) => shared.look_now(),
            Some(Hint::Ended(run)) => shared.tell(run, Woken::Ended { run }),
            Some(Hint::Owned(owned)) => {
                shared.in_flight.fetch_add(1, Ordering::SeqCst);
                shared.tell(owned.history.run.key, Woken::Owned(owned));
            }
            None => {}
        }
    }
}

/// Looks when another process may have written: for due runs, and for signals to runs that are under way here.
pub(super) async fn overhear(shared: Arc<Shared>) {
    loop {
        shared.store.changed().await;
        shared.look_now();
        match shared.store.overheard(shared.worker()).await {
            Ok(heard) => {
                for (run, signals) in heard {
                    shared.tell(run, Woken::Signalled { run, signals });
                }
            }
            Err(Error::Closed) => return,
            Err(e) => {
                tracing::warn!(error = &e as &dyn std::error::Error, "signals of other processes could not be read");
                shared.clock.sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Claims due runs, as many as there is room for.
pub(super) async fn look(shared: Arc<Shared>) {
    let mut knows = shared.registry.tags();
    loop {
        // Workflows join while it runs, and none leaves.
        if knows.len() != shared.registry.len() {
            knows = shared.registry.tags();
        }
        let busy = shared.activity.begin();
        shared.looks_at.store(i64::MAX, Ordering::SeqCst);
        match claim_all(&shared, &knows).await {
            Ok(next) => drop(shared.looks_at.fetch_min(next.map_or(i64::MAX, |at| at.0), Ordering::SeqCst)),
            Err(Error::Closed) => return,
            Err(e) => {
                tracing::warn!(error = &e as &dyn std::error::Error, "due runs could not be claimed; trying again");
                let again = shared.clock.now() + AGAIN;
                shared.looks_at.fetch_min(again.0, Ordering::SeqCst);
            }
        }
        let poll = shared.clock.now() + shared.options.poll;
        shared.polls_at.store(poll.0, Ordering::SeqCst);
        drop(busy);
        loop {
            let at = Instant(shared.looks_at.load(Ordering::SeqCst)).min(poll);
            if at <= shared.clock.now() {
                break;
            }
            tokio::select! {
                () = shared.due.notified() => {}
                () = shared.clock.sleep_until(at) => {}
            }
        }
    }
}

/// Claims until nothing more is due or there is no more room; returns when something is due next.
async fn claim_all(shared: &Shared, knows: &[String]) -> Result<Option<Instant>, Error> {
    while !shared.stop.is_cancelled() {
        let room = shared.options.in_flight_max.saturating_sub(shared.in_flight.load(Ordering::SeqCst));
        let most = room.min(CLAIM_MAX);
        if most == 0 {
            // A run that rests makes room, and says so.
            return Ok(None);
        }
        let now = shared.clock.now();
        let runs = shared.store.claim(shared.worker(), knows, most, now).await?;
        let claimed = runs.len();
        shared.in_flight.fetch_add(claimed, Ordering::SeqCst);
        for run in runs {
            shared.tell(run.key, Woken::Claimed(Box::new(run)));
        }
        if claimed < most {
            // What is still due is for other workers.
            return shared.store.next_wake(now).await;
        }
    }
    Ok(None)
}
