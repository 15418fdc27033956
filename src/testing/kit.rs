//! An engine on a store of its own, whose time moves by hand.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::script::{Script, Scripted, When};
use super::{Attempts, Database, Error, Setup, history};
use crate::clock::{Clock, Instant, VirtualClock};
use crate::engine::Engine;
use crate::intake::Send;
use crate::journal::Recorded;
use crate::payload::Payload;
use crate::run::Status;
use crate::runtime::{Client, Ended, RunHandle, Runtime};
use crate::signal::SignalKind;
use crate::store::{Filter, Kind};
use crate::workflow::Signal;

/// An engine on a store of its own, whose time moves by hand: a [`Client`] like any other, and more.
///
/// Every commit is checked by replaying its run in a fresh instance; [`TestKit::finish`] says whether all of that held.
#[derive(Debug)]
pub struct TestKit {
    runtime: Runtime,
    database: Database,
    clock: VirtualClock,
    setup: Setup,
    script: Arc<Script>,
    attempts: Attempts,
}

/// After so many moves of the clock nobody believes any more that the runs come to rest.
const MOVES_MAX: usize = 100_000;

/// How many runs are looked through at once.
const PAGE: usize = 500;

impl Deref for TestKit {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.runtime.client()
    }
}

impl TestKit {
    /// A kit on a SQLite file, to be set up.
    #[cfg(feature = "sqlite")]
    pub fn sqlite() -> Setup {
        Setup::new(Kind::Sqlite)
    }

    /// A kit on the Postgres server that `ALDIS_TEST_POSTGRES` names, to be set up.
    #[cfg(feature = "postgres")]
    pub fn postgres() -> Setup {
        Setup::new(Kind::Postgres)
    }

    /// A kit on either database, to be set up.
    pub fn on(kind: Kind) -> Setup {
        Setup::new(kind)
    }

    pub(super) async fn start(setup: Setup, database: Database) -> Result<Self, Error> {
        let clock = VirtualClock::at(setup.begin);
        Self::open(setup, database, clock, Attempts::default(), Arc::default()).await
    }

    pub(super) async fn open(
        setup: Setup,
        database: Database,
        clock: VirtualClock,
        attempts: Attempts,
        script: Arc<Script>,
    ) -> Result<Self, Error> {
        let counted = attempts.clone();
        let aldis = setup.aldis(&database).clock(Clock::Virtual(clock.clone()));
        let aldis = aldis.engine_options(|options| {
            options.on_attempt = Some(Arc::new(move |cx| counted.count(cx)));
        });
        let runtime = aldis.start().await?;
        Ok(Self { runtime, database, clock, setup, script, attempts })
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        self.runtime.engine()
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// How often each body was begun, on this database and since the kit was first started.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// The setup, for another kit or another deploy.
    pub fn setup(&self) -> Setup {
        self.setup.clone()
    }

    // Time.

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The hands of the clock, for another kit or worker that is to share them.
    #[must_use]
    pub fn hands(&self) -> &VirtualClock {
        &self.clock
    }

    /// Lets everything happen that happens by itself at this time. The clock stands still.
    ///
    /// # Errors
    /// If the store cannot be read, or a scripted signal is refused.
    pub async fn settle(&self) -> Result<(), Error> {
        loop {
            self.engine().settled().await;
            let Some(scripted) = self.script.next(&self.runtime, self.now()).await? else { return Ok(()) };
            let run = self.find_in(&scripted.namespace, scripted.run.as_str()).await?;
            run.send(scripted.send.kind, &scripted.send.name, scripted.send.payload, scripted.send.id).await?;
        }
    }

    /// Moves the clock on by a span. Whatever is due on the way happens at its own time, one after the other.
    ///
    /// # Errors
    /// If the store cannot be read, or a scripted signal is refused.
    pub async fn advance(&self, span: Duration) -> Result<(), Error> {
        let until = self.now() + span;
        self.advance_to(until).await
    }

    /// Moves the clock to a time.
    ///
    /// # Errors
    /// As [`TestKit::advance`].
    pub async fn advance_to(&self, until: Instant) -> Result<(), Error> {
        loop {
            self.settle().await?;
            match self.next_wake().await? {
                Some(at) if at <= until => self.clock.set(at),
                _ if self.now() < until => self.clock.set(until),
                _ => return Ok(()),
            }
        }
    }

    /// When something happens next by itself.
    async fn next_wake(&self) -> Result<Option<Instant>, Error> {
        let engine = self.engine().next_wake().await?;
        let now = self.now();
        // What is due and was not taken is for other workers.
        Ok(engine.into_iter().chain(self.script.next_at()).filter(|at| *at > now).min())
    }

    /// Moves the clock from wake to wake until nothing happens by itself any more: every run has ended, is blocked, or
    /// waits for a signal that nobody has scripted.
    ///
    /// # Errors
    /// [`Error::Restless`] for workflows that go on for ever; and as [`TestKit::advance`].
    pub async fn run_to_rest(&self) -> Result<(), Error> {
        for _ in 0..MOVES_MAX {
            self.settle().await?;
            match self.next_wake().await? {
                Some(at) => self.clock.set(at),
                None => return Ok(()),
            }
        }
        Err(Error::Restless { moves: MOVES_MAX, at: self.now() })
    }

    /// Moves the clock from wake to wake until the run has ended.
    ///
    /// # Errors
    /// [`Error::Blocked`] or [`Error::Stuck`] if it does not end; and as [`TestKit::run_to_rest`].
    pub async fn run_to_end(&self, run: &RunHandle) -> Result<Ended, Error> {
        let run = self.of(run).await?;
        for _ in 0..MOVES_MAX {
            self.settle().await?;
            let row = run.row().await?;
            match row.status {
                Status::Closed { .. } => return Ok(run.outcome().await?),
                Status::Blocked { reason } => {
                    return Err(Error::Blocked { run: row.id.to_string(), reason: reason.to_string() });
                }
                Status::Due { .. } | Status::Running { .. } | Status::Waiting { .. } => {}
            }
            match self.next_wake().await? {
                Some(at) => self.clock.set(at),
                None => return Err(self.stuck(&run).await?),
            }
        }
        Err(Error::Restless { moves: MOVES_MAX, at: self.now() })
    }

    async fn stuck(&self, run: &RunHandle) -> Result<Error, Error> {
        let shown = run.show().await?;
        let waits = shown.waits_for.iter().map(|wait| match &wait.name {
            Some(name) => format!("{} {name:?}", wait.kind),
            None => wait.kind.to_owned(),
        });
        let waits: Vec<String> = waits.collect();
        let waits_for = if waits.is_empty() { "nothing".to_owned() } else { waits.join(", ") };
        Ok(Error::Stuck { run: shown.id, status: shown.status, waits_for })
    }

    // Scripts.

    /// Sends a signal when the clock has moved on by a span from now.
    ///
    /// # Errors
    /// If the value has no JSON form.
    pub fn signal_after<T: Serialize>(
        &self,
        span: Duration,
        run: &RunHandle,
        signal: &Signal<T>,
        value: &T,
    ) -> Result<(), Error> {
        self.scripted(When::At(self.now() + span), run, signal.name(), Payload::of(value)?);
        Ok(())
    }

    /// Sends a signal when the run waits for one of that name.
    ///
    /// # Errors
    /// If the value has no JSON form.
    pub fn signal_when_awaited<T: Serialize>(
        &self,
        run: &RunHandle,
        signal: &Signal<T>,
        value: &T,
    ) -> Result<(), Error> {
        self.scripted(When::Awaited, run, signal.name(), Payload::of(value)?);
        Ok(())
    }

    fn scripted(&self, when: When, run: &RunHandle, name: &str, payload: Payload) {
        let (run, namespace) = (run.id().clone(), run.namespace().clone());
        self.script.add(|number| {
            let id = Some(format!("scripted-{number}"));
            let send = Send { kind: SignalKind::Signal, name: name.to_owned(), id, payload };
            Scripted { when, namespace, run, send }
        });
    }

    // Looking.

    /// A run as this kit's client sees it: handles of an earlier life of the kit have no store any more.
    ///
    /// # Errors
    /// If there is no such run here.
    pub async fn of(&self, run: &RunHandle) -> Result<RunHandle, Error> {
        Ok(self.by_key(run.key()).await?)
    }

    /// The run's journal in a form that is the same every time: ids, seeds and the kit's directory are redacted, times
    /// are spans since the run's first line.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn journal(&self, run: &RunHandle) -> Result<String, Error> {
        let journal: Vec<Recorded> = self.of(run).await?.journal().await?;
        Ok(self.redact().print(&journal))
    }

    /// The lines of the run's journal that are the same on every database and however often the process died: without
    /// their places and times, and without what attempts left.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn essence(&self, run: &RunHandle) -> Result<Vec<String>, Error> {
        let journal: Vec<Recorded> = self.of(run).await?.journal().await?;
        Ok(self.redact().comparable(&journal))
    }

    pub(super) fn redact(&self) -> super::Redact {
        self.setup.redact.clone().text(self.database.directory().to_string_lossy(), "<dir>")
    }

    /// Every run there is, oldest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn runs(&self) -> Result<Vec<RunHandle>, Error> {
        let mut runs = Vec::new();
        let mut filter = Filter::default();
        loop {
            let page = self.list(&filter, PAGE).await?;
            let Some(last) = page.last() else { break };
            filter.before = Some(last.key);
            for run in &page {
                runs.push(self.by_key(run.key).await?);
            }
        }
        runs.reverse();
        Ok(runs)
    }

    /// Demands that no shadow replay has failed and that every history keeps the invariants of
    /// [`history`](super::history).
    ///
    /// # Errors
    /// [`Error::Broken`] names everything that does not hold.
    pub async fn verify(&self) -> Result<(), Error> {
        self.engine().settled().await;
        let mut problems = self.engine().shadow_failures();
        for run in self.runs().await? {
            // A journal that this build cannot read is a state that a test may want.
            if let Ok(found) = run.history().await {
                problems.extend(history::check(&found));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Broken { problems }) }
    }

    // Lives.

    /// Kills the process, as far as the store can tell, and starts another on the same database and at the same time;
    /// on Postgres a lease later.
    ///
    /// # Errors
    /// If Aldis does not start.
    pub async fn crash(self) -> Result<Self, Error> {
        let setup = self.setup();
        self.crash_into(setup).await
    }

    /// Kills the process and starts another with other code or options.
    ///
    /// # Errors
    /// If Aldis does not start.
    pub async fn crash_into(self, setup: Setup) -> Result<Self, Error> {
        let Self { runtime, database, clock, attempts, script, .. } = self;
        runtime.kill().await;
        after_a_death(&setup, &clock);
        Self::open(setup, database, clock, attempts, script).await
    }

    /// Stops in good order and starts again with other code or options: a deploy.
    ///
    /// # Errors
    /// If Aldis does not stop or start.
    pub async fn deploy(self, setup: Setup) -> Result<Self, Error> {
        let Self { runtime, database, clock, attempts, script, .. } = self;
        runtime.drain(Duration::ZERO).await?;
        Self::open(setup, database, clock, attempts, script).await
    }

    /// Kills the process and gives back its database.
    pub async fn kill(self) -> Database {
        self.runtime.kill().await;
        self.database
    }

    /// Ends the test: demands what [`TestKit::verify`] demands, stops, and removes the database.
    ///
    /// # Errors
    /// [`Error::Broken`] names everything that does not hold.
    pub async fn finish(self) -> Result<(), Error> {
        self.verify().await?;
        self.runtime.kill().await;
        self.database.remove().await;
        Ok(())
    }
}

/// On Postgres the runs of a dead worker are taken over once its lease has run out.
pub(super) fn after_a_death(setup: &Setup, clock: &VirtualClock) {
    if setup.kind() == Kind::Postgres {
        clock.advance(setup.engine.lease + Duration::from_millis(1));
    }
}
