//! Takes a due run, rebuilds its past, lets its workflow run until it rests, and seals one commit.
//!
//! A driver holds the live futures of the runs it is at work on, delivers one journal line at a time, and hands what the
//! code asked for to the store's writer. Bodies, answers and everything else that leaves the process start only once
//! the commit that decided them is durable. Waiting runs are rows; a bounded number of them is kept live for speed.
//!
//! Owns the worker's lease and every task that advances a run. Knows no SQL, no transport, no model provider.
//! A run whose process dies here loses nothing: what was not committed did not happen.

mod activity;
mod attempt;
mod claims;
mod driver;
mod foresee;
mod lease;
mod live;
mod rehearse;
mod shows;
mod windows;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::attempt::{Mock, MockResult, OnAttempt};
pub use self::rehearse::{Diverged, Rehearsed, rehearse};
use crate::clock::{Clock, Instant};
use crate::failure::Outcome;
use crate::id::{RunKey, WorkerKey};
use crate::payload::Payload;
use crate::store::{self, Refusal, Store};
use crate::workflow::{Registered, Registry};
use activity::{Activity, Busy};
use driver::Woken;
use windows::Windows;

/// What an engine is started with.
#[derive(Clone)]
pub struct Options {
    /// What its workflows were built from; a blocked run is tried again by another build.
    pub build: String,
    /// What people see as the worker's name.
    pub worker: String,
    /// How long a worker may be silent before its runs are taken over (Postgres).
    pub lease: Duration,
    /// How often the store is looked at when nobody has given a hint.
    pub poll: Duration,
    /// How long what subscribers of a thread see is kept (T11.10).
    pub chunks_kept_for: Duration,
    /// How many of a thread's last chunks are kept at the most. The run that has the thread keeps all of its own.
    pub chunks_kept: u64,
    /// The most runs that are worked on at the same time; more stay due in the store.
    pub in_flight_max: usize,
    /// The most waiting runs whose live futures are kept.
    pub live_max: usize,
    /// How many drivers share the runs.
    pub drivers: usize,
    /// The most bytes that a step's output, or any value that a workflow's code gives, may have.
    pub payload_bytes_max: usize,
    /// How long a body may go on after it was told to stop.
    pub stop_grace: Duration,
    /// Which commits are checked by replaying the run in a fresh instance.
    pub shadow: Shadow,
    /// Bodies to run instead of the steps' own, by the step's name.
    pub mocks: Arc<HashMap<String, Mock>>,
    /// Told of every attempt as its body begins: for tests that count.
    pub on_attempt: Option<OnAttempt>,
}

/// Which commits are checked by replaying the run in a fresh instance and comparing every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shadow {
    /// None.
    #[default]
    Off,
    /// One in this many.
    OneIn(u32),
    /// All of them: for tests.
    Always,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            build: env!("CARGO_PKG_VERSION").to_owned(),
            worker: format!("pid {}", std::process::id()),
            lease: Duration::from_secs(10),
            poll: Duration::from_secs(1),
            chunks_kept_for: Duration::from_secs(24 * 3_600),
            chunks_kept: 10_000,
            in_flight_max: 10_000,
            live_max: 1_000,
            drivers: 1,
            payload_bytes_max: crate::payload::PAYLOAD_BYTES_MAX,
            stop_grace: Duration::from_secs(5),
            shadow: Shadow::Off,
            mocks: Arc::default(),
            on_attempt: None,
        }
    }
}

/// Why a local start was not begun. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The store refused it, most often because the id is in use.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The engine is stopping.
    #[error("the engine is stopping and begins no more runs")]
    Stopping,
}

/// A running engine. Dropping it without [`Engine::drain`] is as good as a crash: nothing is lost.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    _lease: store::EngineLease,
}

struct Shared {
    store: Store,
    clock: Clock,
    registry: Registry,
    options: Options,
    worker: AtomicI64,
    mailboxes: Vec<mpsc::UnboundedSender<(Woken, Busy)>>,
    activity: Arc<Activity>,
    shows: Arc<shows::Shows>,
    windows: Windows,
    due: Notify,
    /// Tells those in this process who wait for an update's answer.
    answered: Arc<Notify>,
    /// When the claim loop looks next; a commit with an earlier wake tells it.
    looks_at: AtomicI64,
    /// When it looks at the latest, whoever has told it anything.
    polls_at: AtomicI64,
    /// When the lease is renewed next.
    beats_at: AtomicI64,
    /// After which thread the next look for old chunks begins.
    retains_after: AtomicI64,
    in_flight: std::sync::atomic::AtomicUsize,
    stop: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
    shadow_failures: std::sync::Mutex<Vec<String>>,
    shadow_count: std::sync::atomic::AtomicU32,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("worker", &self.worker).field("workflows", &self.registry.tags()).finish()
    }
}

impl Shared {
    fn worker(&self) -> WorkerKey {
        WorkerKey(self.worker.load(Ordering::Relaxed))
    }

    fn tell(&self, run: RunKey, woken: Woken) {
        let driver = usize::try_from(run.0).unwrap_or(0) % self.mailboxes.len();
        // A driver that is gone has given up its runs: the store has them.
        let _ = self.mailboxes[driver].send((woken, self.activity.begin()));
    }

    /// What tells a run's driver that somebody else than the engine woke its code.
    fn teller(self: &Arc<Self>, run: RunKey) -> live::Tell {
        let shared = Arc::downgrade(self);
        Box::new(move || {
            if let Some(shared) = shared.upgrade() {
                shared.tell(run, Woken::Foreign { run });
            }
        })
    }

    /// Whether the commit that was just applied is to be checked by a replay.
    fn takes_a_shadow(&self) -> bool {
        match self.options.shadow {
            Shadow::Off => false,
            Shadow::Always => true,
            Shadow::OneIn(n) => self.shadow_count.fetch_add(1, Ordering::Relaxed).is_multiple_of(n.max(1)),
        }
    }

    /// Has the claim loop look by `at`.
    fn look_by(&self, at: Instant) {
        if self.looks_at.fetch_min(at.0, Ordering::SeqCst) > at.0 {
            self.due.notify_one();
        }
    }

    /// Has the claim loop look now.
    fn look_now(&self) {
        self.looks_at.store(i64::MIN, Ordering::SeqCst);
        self.due.notify_one();
    }
}

/// A run that this process begins itself: it needs no queue.
#[derive(Debug)]
pub struct Begin {
    /// Its row.
    pub new: store::NewRun,
    /// Its workflow.
    pub(crate) workflow: Arc<Registered>,
    /// Its input, checked.
    pub input: Payload,
    /// When it is asked to cancel.
    pub deadline: Option<Instant>,
    /// Hears how the run ended, if that happens while this engine holds it; dropped otherwise.
    pub ended: oneshot::Sender<Outcome>,
}

impl Engine {
    /// Registers as a worker, takes over what dead workers left, and begins to advance runs.
    ///
    /// # Errors
    /// If the store cannot be reached.
    pub async fn start(
        store: Store,
        lease: store::EngineLease,
        registry: Registry,
        clock: Clock,
        options: Options,
    ) -> Result<Self, store::Error> {
        let worker = lease::register(&store, &registry, &clock, &options).await?;
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
            (0..options.drivers.max(1)).map(|_| mpsc::unbounded_channel()).unzip();
        let hints = store.hints();
        let shared = Arc::new(Shared {
            store,
            clock,
            registry,
            options,
            worker: AtomicI64::new(worker.0),
            mailboxes,
            activity: Arc::default(),
            shows: Arc::default(),
            windows: Windows::default(),
            due: Notify::new(),
            answered: Arc::default(),
            looks_at: AtomicI64::new(i64::MIN),
            polls_at: AtomicI64::new(i64::MAX),
            beats_at: AtomicI64::new(i64::MAX),
            retains_after: AtomicI64::new(0),
            in_flight: 0.into(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
            shadow_failures: std::sync::Mutex::default(),
            shadow_count: 0.into(),
        });
        let tasks = &shared.tasks;
        for (number, inbox) in inboxes.into_iter().enumerate() {
            tasks.spawn(shared.kill.clone().run_until_cancelled_owned(driver::drive(
                Arc::clone(&shared),
                number,
                inbox,
            )));
        }
        tasks.spawn(shared.kill.clone().run_until_cancelled_owned(claims::listen(Arc::clone(&shared), hints)));
        tasks.spawn(shared.kill.clone().run_until_cancelled_owned(claims::look(Arc::clone(&shared))));
        tasks.spawn(shared.kill.clone().run_until_cancelled_owned(claims::overhear(Arc::clone(&shared))));
        tasks.spawn(shared.kill.clone().run_until_cancelled_owned(lease::keep(Arc::clone(&shared))));
        Ok(Self { shared, _lease: lease })
    }

    /// Begins a run here and now: it is owned from its first commit on. Returns once that commit is durable.
    ///
    /// # Errors
    /// [`BeginError`]; nothing was written.
    pub async fn begin(&self, begin: Begin) -> Result<(), BeginError> {
        if self.shared.stop.is_cancelled() {
            return Err(BeginError::Stopping);
        }
        let (reply, answer) = oneshot::channel();
        self.shared.tell(begin.new.key, Woken::Begin { begin: Box::new(begin), reply });
        answer.await.map_err(|_| BeginError::Stopping)?
    }

    /// Whether another run may be begun here, or should rather wait its turn in the store.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.shared.stop.is_cancelled()
            && self.shared.in_flight.load(Ordering::Relaxed) < self.shared.options.in_flight_max
    }

    /// This worker's number.
    #[must_use]
    pub fn worker(&self) -> WorkerKey {
        self.shared.worker()
    }

    /// Rings whenever a commit that answers updates has become durable here.
    #[must_use]
    pub fn answered(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.answered)
    }

    /// These workflows are about to join the registry: other processes hear that this worker knows them, and runs that
    /// another build than `build` has blocked are tried again.
    ///
    /// # Errors
    /// If the store could not be told; nothing has changed here.
    pub(crate) async fn learns(&self, new: &Registry, build: &str) -> Result<(), store::Error> {
        let Shared { store, registry, clock, .. } = &*self.shared;
        let mut knows = registry.tags();
        knows.extend(new.tags());
        store.learn(self.shared.worker(), &knows).await?;
        store.unblock(build, &knows, clock.now()).await?;
        Ok(())
    }

    /// Has the store looked at now: something may have become due.
    pub fn nudge(&self) {
        self.shared.look_now();
    }

    /// Waits until nothing is being done: every run waits, is blocked or has ended, and no message is under way.
    ///
    /// A body that waits for the clock counts as resting.
    pub async fn settled(&self) {
        let shared = &self.shared;
        let looks_at = [&shared.looks_at, &shared.polls_at, &shared.beats_at];
        shared.activity.quiet(&shared.store, &shared.clock, looks_at).await;
    }

    /// When the engine itself looks next, if nothing else happens: the earliest timer that it knows of.
    ///
    /// # Errors
    /// If the store cannot be reached.
    pub async fn next_wake(&self) -> Result<Option<Instant>, store::Error> {
        let now = self.shared.clock.now();
        let looks_at = Instant(self.shared.looks_at.load(Ordering::SeqCst));
        let looks_at = Some(looks_at).filter(|at| *at > now && at.0 < i64::MAX);
        let here = self.shared.activity.next_alarm().into_iter().chain(looks_at).min();
        // What is due and was not taken waits for room, or for another worker.
        let there = self.shared.store.next_wake(now).await?;
        Ok(here.into_iter().chain(there).min())
    }

    /// What shadow replay has found, in words. Empty if all replays agreed.
    #[must_use]
    pub fn shadow_failures(&self) -> Vec<String> {
        self.shared.shadow_failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Begins no more runs, lets bodies go on for `grace` at the most, then gives its runs back to the store.
    ///
    /// # Errors
    /// If the store could not be told; the runs are then taken over when the lease has run out.
    pub async fn drain(&self, grace: Duration) -> Result<(), store::Error> {
        self.shared.stop.cancel();
        tokio::select! {
            () = self.shared.activity.idle_bodies() => {}
            () = self.shared.clock.sleep(grace) => {}
        }
        self.shared.kill.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        let released = self.shared.store.release(self.shared.worker(), self.shared.clock.now()).await?;
        tracing::info!(worker = %self.shared.worker(), released, "engine stopped");
        Ok(())
    }

    /// Stops as a crash would: nothing is written, nothing is given back.
    pub async fn kill(&self) {
        self.shared.kill.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.kill.cancel();
    }
}
