//! The worker's lease: registered at the start, renewed while the process lives, and what is done for dead workers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::driver::Woken;
use super::{Options, Shared};
use crate::clock::{Clock, Instant};
use crate::id::{RunKey, ThreadKey, WorkerKey};
use crate::store::{Error, Kind, Registration, Retain, Store};
use crate::workflow::Registry;

/// Registers this process as a worker, takes over what dead ones left, and gives blocked runs to this build.
pub(super) async fn register(
    store: &Store,
    registry: &Registry,
    clock: &Clock,
    options: &Options,
) -> Result<WorkerKey, Error> {
    let now = store_now(store, clock).await?;
    let knows = registry.tags();
    let registration = Registration {
        name: options.worker.clone(),
        build: options.build.clone(),
        knows: knows.clone(),
        now,
        lease_until: now + options.lease,
    };
    let worker = store.register(registration).await?;
    let taken = match store.kind() {
        // The file's lock proves that every other engine is gone.
        Kind::Sqlite => store.take_over_all(Some(worker), now).await?,
        Kind::Postgres => store.take_over(now).await?,
    };
    let unblocked = store.unblock(&options.build, &knows, now).await?;
    store.block_unknown(&options.build, now).await?;
    tracing::info!(%worker, build = options.build, taken, unblocked, "engine started");
    Ok(worker)
}

/// Workers judge each other's leases by the database's clock, as each has measured it.
async fn store_now(store: &Store, clock: &Clock) -> Result<Instant, Error> {
    let offset = match clock {
        Clock::System => store.clock_offset().await?,
        Clock::Virtual(_) => 0,
    };
    Ok(Instant(clock.now().0.saturating_add(offset)))
}

/// Renews the lease at a third of its length and looks after the runs of dead workers.
pub(super) async fn keep(shared: Arc<Shared>) {
    loop {
        let at = shared.clock.now() + shared.options.lease / 3;
        shared.beats_at.store(at.0, Ordering::SeqCst);
        shared.clock.sleep_until(at).await;
        let _busy = shared.activity.begin();
        match beat(&shared).await {
            Ok(0) => {}
            Ok(taken) => {
                tracing::info!(worker = %shared.worker(), taken, "took over the runs of workers whose lease ran out");
                shared.look_now();
            }
            Err(e) => {
                tracing::warn!(worker = %shared.worker(), error = &e as &dyn std::error::Error, "the lease could not be renewed")
            }
        }
    }
}

async fn beat(shared: &Arc<Shared>) -> Result<u64, Error> {
    let (store, options) = (&shared.store, &shared.options);
    let now = store_now(store, &shared.clock).await?;
    if !store.heartbeat(shared.worker(), now, now + options.lease).await? {
        // Others have taken this worker's runs. What is under way here is refused by its fences; it begins anew.
        let old = shared.worker();
        let new = register(store, &shared.registry, &shared.clock, options).await?;
        shared.worker.store(new.0, Ordering::SeqCst);
        tracing::warn!(%old, %new, "the lease was lost; this process goes on as another worker");
        for driver in 0..shared.mailboxes.len() {
            shared.tell(RunKey(i64::try_from(driver).unwrap_or(0)), Woken::LeaseLost);
        }
        shared.look_now();
    }
    let taken = store.take_over(now).await?;
    store.block_unknown(&options.build, now).await?;
    retain(shared, now).await?;
    Ok(taken)
}

/// How many threads are looked at for old chunks at once, and how many chunks leave at once.
const LOOKED_AT: usize = 1_000;
const LEAVE: usize = 10_000;

/// How often that is done at one beat while much is to leave.
const ROUNDS: usize = 4;

/// Takes away what subscribers of threads are not shown any longer, a bounded piece of it.
async fn retain(shared: &Shared, now: Instant) -> Result<(), Error> {
    for _ in 0..ROUNDS {
        let asked = Retain {
            after: ThreadKey(shared.retains_after.load(Ordering::SeqCst)),
            threads: LOOKED_AT,
            chunks: LEAVE,
            before: now - shared.options.chunks_kept_for,
            keep: shared.options.chunks_kept,
        };
        let retained = shared.store.retain_chunks(asked).await?;
        shared.retains_after.store(retained.next.0, Ordering::SeqCst);
        if retained.chunks < LEAVE as u64 {
            break;
        }
    }
    Ok(())
}
