//! The crash harness: a scenario is played once in peace, then once for every write it makes and every way in which
//! that write can go wrong. The end must be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::effects::{Attempt, Attempts, Ledger};
use super::kit::{TestKit, after_a_death};
use super::{Database, Error, Setup};
use crate::clock::{Instant, VirtualClock};
use crate::failure::Outcome;
use crate::journal::{Event, Recorded};
use crate::payload::Payload;
use crate::run::StartOptions;
use crate::runtime::Ended;
use crate::store::{self, Fault, Faults, Filter};
use crate::thread::TurnInput;
use crate::workflow::{Published, Signal, Update};

/// Plays a scenario with a crash at every write: [`Crash::of`] says with which setup, [`Crash::survives`] plays it.
#[must_use = "nothing is played before `survives`"]
pub struct Crash<S> {
    setup: S,
    faults: Vec<Fault>,
    journals: Journals,
    opening: bool,
}

/// How far the journals of two worlds must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Journals {
    /// Line by line.
    Same,
    /// In their lines, whatever the order.
    SameLines,
    /// In how the run stands at the end.
    SameEnds,
}

/// What playing a scenario came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survived<T> {
    /// What the scenario returned, in every world.
    pub value: T,
    /// How many physical writes it makes when nothing goes wrong.
    pub writes: u64,
    /// How many worlds were struck.
    pub struck: u64,
    /// How each run ended, with its journal: without places, times and what attempts left.
    pub runs: BTreeMap<String, Vec<String>>,
}

/// A world in which something did not hold.
#[derive(Debug, thiserror::Error)]
#[error("{fault:?} at write {write}: {problem}")]
pub struct Crashed {
    /// What was done to it.
    pub fault: Fault,
    /// At which write, from 1.
    pub write: u64,
    /// What did not hold.
    pub problem: String,
}

/// How many worlds there are at the same time.
const WORLDS_AT_A_TIME: usize = 6;

/// How many runs a process that died is asked for.
const RUNS_MAX: usize = 10_000;

/// How often a client asks again before it gives up.
const ASKS_MAX: usize = 20;

impl<S: Fn(&Ledger) -> Setup> Crash<S> {
    /// For each world a setup is made anew; its bodies may write to the world's ledger.
    pub fn of(setup: S) -> Self {
        Self {
            setup,
            faults: vec![Fault::CrashBefore, Fault::CrashAfter, Fault::LoseAnswer],
            journals: Journals::Same,
            opening: false,
        }
    }

    /// Only these faults.
    pub fn only(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.faults = faults.into_iter().collect();
        self
    }

    /// Strikes at the writes of the first start of Aldis as well, which are the same in every scenario.
    pub fn opening_too(mut self) -> Self {
        self.opening = true;
        self
    }

    /// Bodies run side by side, so their results may be recorded in another order.
    pub fn in_any_order(mut self) -> Self {
        self.journals = Journals::SameLines;
        self
    }

    /// What is recorded depends on who was faster, such as how signals fall into batches, or which turn takes them: only
    /// what the scenario returns, how the runs that are no turns stand at the end, and the invariants are compared.
    pub fn whatever_is_recorded(mut self) -> Self {
        self.journals = Journals::SameEnds;
        self
    }

    /// Plays the scenario in every world and demands of each: what the scenario returns, how every run ends, its journal
    /// and the ledger are as in peace; every history keeps the invariants; every shadow replay agrees; a crash makes
    /// no body begin more than once more, and none begin again whose end was recorded.
    ///
    /// # Errors
    /// What went wrong in peace; or [`Error::Broken`] with the first world that is not as it should be.
    pub async fn survives<T, P>(self, scenario: P) -> Result<Survived<T>, Error>
    where
        T: PartialEq + Debug,
        P: AsyncFn(World) -> Result<T, Error>,
    {
        let mut peace = self.play(Faults::none(), &scenario).await?;
        if !peace.broken.is_empty() {
            return Err(Error::Broken { problems: peace.broken });
        }
        let first = if self.opening { 1 } else { peace.opened + 1 };
        let worlds = self.faults.iter().flat_map(|fault| (first..=peace.writes).map(move |write| (*fault, write)));
        let played = worlds.map(|(fault, write)| {
            let (peace, scenario, this) = (&peace, &scenario, &self);
            async move {
                let faults = Faults::at(write, fault);
                let problem = match this.play(faults.clone(), scenario).await {
                    Ok(world) => peace.differs(&world),
                    Err(error) => Some(error.to_string()),
                };
                match problem {
                    None => Ok(faults.struck()),
                    Some(problem) => Err(Crashed { fault, write, problem }),
                }
            }
        });
        // Several at a time: most of a world's life is waiting for its database.
        let mut played = futures::stream::iter(played).buffered(WORLDS_AT_A_TIME);
        let mut struck = 0;
        while let Some(world) = played.next().await {
            struck += u64::from(world.map_err(|crashed| Error::Broken { problems: vec![crashed.to_string()] })?);
        }
        drop(played);
        let runs = std::mem::take(&mut peace.runs);
        Ok(Survived { value: peace.value, writes: peace.writes, struck, runs })
    }

    async fn play<T, P>(&self, faults: Faults, scenario: &P) -> Result<Played<T>, Error>
    where
        P: AsyncFn(World) -> Result<T, Error>,
    {
        let ledger = Ledger::default();
        let setup = (self.setup)(&ledger);
        let database = Database::of(setup.kind()).await?;
        let world = World::begin(setup, database.clone(), ledger, faults.clone()).await?;
        let opened = faults.writes();
        let value = scenario(world.clone()).await?;
        world.run_to_rest().await?;
        let mut played = world.result(value).await?;
        (played.opened, played.writes) = (opened, faults.writes());
        if self.journals == Journals::SameEnds {
            played.runs.retain(|name, _| !name.starts_with("turn:"));
        }
        for lines in played.runs.values_mut() {
            match self.journals {
                Journals::Same => {}
                Journals::SameLines => lines.sort(),
                Journals::SameEnds => drop(lines.drain(..lines.len().saturating_sub(1))),
            }
        }
        drop(world);
        database.remove().await;
        Ok(played)
    }
}

impl<S> Debug for Crash<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crash").field("faults", &self.faults).finish_non_exhaustive()
    }
}

/// What came of one world.
struct Played<T> {
    value: T,
    opened: u64,
    writes: u64,
    runs: BTreeMap<String, Vec<String>>,
    ledger: BTreeMap<String, String>,
    attempts: BTreeMap<Attempt, u32>,
    broken: Vec<String>,
}

impl<T: PartialEq + Debug> Played<T> {
    /// How a world differs from this one, in which there was peace.
    fn differs(&self, world: &Self) -> Option<String> {
        if !world.broken.is_empty() {
            return Some(world.broken.join("\n"));
        }
        if self.value != world.value {
            return Some(format!("the scenario gave {:?}, in peace {:?}", world.value, self.value));
        }
        for (run, lines) in &self.runs {
            match world.runs.get(run) {
                Some(found) if found == lines => {}
                Some(found) => return Some(format!("run {run} is another:\n{}", aside(lines, found))),
                None => return Some(format!("run {run} is lost")),
            }
        }
        if let Some(more) = world.runs.keys().find(|run| !self.runs.contains_key(*run)) {
            return Some(format!("there is a run {more}, in peace there is none"));
        }
        if self.ledger != world.ledger {
            return Some(format!("the ledger holds {:?}, in peace {:?}", world.ledger, self.ledger));
        }
        // An attempt that was under way when the process died may be made again; one that is recorded never is.
        let more = world.attempts.iter().find(|(attempt, times)| {
            // Where worlds may differ in what they record, a step may be there that was not in peace.
            let in_peace = self.attempts.get(*attempt).copied().unwrap_or(1);
            **times > in_peace + 1
        });
        more.map(|((run, op, attempt), times)| {
            format!("the body of step {op} of run {run} was begun {times} times for attempt {attempt}")
        })
    }
}

/// Two journals side by side, line by line; only what differs.
fn aside(in_peace: &[String], found: &[String]) -> String {
    let lines = (0..in_peace.len().max(found.len())).filter_map(|n| {
        let (was, is) = (in_peace.get(n).map(String::as_str), found.get(n).map(String::as_str));
        (was != is)
            .then(|| format!("  line {}: {:?}, in peace {:?}", n + 1, is.unwrap_or("(none)"), was.unwrap_or("(none)")))
    });
    lines.take(6).collect::<Vec<_>>().join("\n")
}

/// What a scenario acts on: a client that asks again what was not acknowledged, of an engine that may die under its hands
/// and is then started anew. Cheap to clone.
#[derive(Debug, Clone)]
pub struct World(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kit: Mutex<Option<TestKit>>,
    setup: Setup,
    database: Database,
    clock: VirtualClock,
    attempts: Attempts,
    ledger: Ledger,
    faults: Faults,
    left: std::sync::Mutex<Left>,
}

/// What a process that died had left behind: steps whose ends are recorded, and how often their bodies were begun.
#[derive(Debug, Default)]
struct Left {
    ended: BTreeSet<(String, String)>,
    attempts: BTreeMap<Attempt, u32>,
}

impl World {
    async fn begin(setup: Setup, database: Database, ledger: Ledger, faults: Faults) -> Result<Self, Error> {
        let world = Self(Arc::new(Inner {
            kit: Mutex::default(),
            clock: VirtualClock::at(setup.begin),
            setup,
            database,
            attempts: Attempts::default(),
            ledger,
            faults,
            left: std::sync::Mutex::default(),
        }));
        let faulty = world.0.setup.clone().store_options(|options| options.faults = Some(world.0.faults.clone()));
        let opened = tokio::select! {
            biased;
            () = world.0.faults.died() => None,
            kit = world.open(faulty) => Some(kit?),
        };
        let kit = match opened {
            Some(kit) => kit,
            None => world.reopen().await?,
        };
        *world.0.kit.lock().await = Some(kit);
        Ok(world)
    }

    async fn open(&self, setup: Setup) -> Result<TestKit, Error> {
        let inner = &self.0;
        let (database, clock, attempts) = (inner.database.clone(), inner.clock.clone(), inner.attempts.clone());
        TestKit::open(setup, database, clock, attempts, Arc::default()).await
    }

    /// Starts the process that follows one that died.
    async fn reopen(&self) -> Result<TestKit, Error> {
        let left = self.look().await?;
        *self.0.left.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = left;
        after_a_death(&self.0.setup, &self.0.clock);
        self.open(self.0.setup.clone()).await
    }

    /// Looks at what there is, while no process advances the runs.
    async fn look(&self) -> Result<Left, Error> {
        let client = self.0.setup.aldis(&self.0.database).connect().await?;
        let mut left = Left { attempts: self.0.attempts.all(), ..Left::default() };
        for run in client.list(&Filter::default(), RUNS_MAX).await? {
            let journal: Vec<Recorded> = client.by_key(run.key).await?.journal().await?;
            let ended = journal.iter().filter_map(|line| match &line.event {
                Event::StepFinished(e) => Some(&e.op),
                Event::StepFailed(e) => Some(&e.op),
                _ => None,
            });
            left.ended.extend(ended.map(|op| (run.id.to_string(), op.to_string())));
        }
        client.store().close().await;
        Ok(left)
    }

    /// Bodies that were begun again although the end of their step was recorded.
    fn begun_again(&self) -> Vec<String> {
        let left = self.0.left.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let again = self.0.attempts.all().into_iter().filter(|(attempt, times)| {
            let (run, op, _) = attempt;
            left.ended.contains(&(run.clone(), op.clone())) && left.attempts.get(attempt) != Some(times)
        });
        again
            .map(|((run, op, _), _)| {
                format!("run {run}: the body of step {op} was begun again after its end was recorded")
            })
            .collect()
    }

    /// Asks the kit for something that may be asked twice: if the process dies meanwhile, the next one is asked again.
    ///
    /// # Errors
    /// What the last answer was, if it was an error that asking again does not help.
    pub async fn ask<T>(&self, ask: impl AsyncFn(&TestKit) -> Result<T, Error>) -> Result<T, Error> {
        let mut held = self.0.kit.lock().await;
        for asks in 1.. {
            let kit = match held.take() {
                Some(kit) => kit,
                None => self.reopen().await?,
            };
            let answer = tokio::select! {
                biased;
                () = self.0.faults.died(), if !self.after_death(&kit) => None,
                answer = ask(&kit) => Some(answer),
            };
            match answer {
                None => drop(kit.kill().await),
                Some(Err(error)) if asks < ASKS_MAX && may_be_asked_again(&error) => *held = Some(kit),
                Some(answer) => {
                    *held = Some(kit);
                    return answer;
                }
            }
        }
        unreachable!("the last ask returns its answer")
    }

    /// Whether a kit is one that was started after the death that the faults are for.
    fn after_death(&self, kit: &TestKit) -> bool {
        kit.setup().store.faults.is_none()
    }

    // What a scenario does.

    /// Starts a run under an id.
    ///
    /// # Errors
    /// As [`Client::run_as`](crate::runtime::Client::run_as).
    pub async fn start<I: Serialize + ?Sized>(&self, id: &str, workflow: &str, input: &I) -> Result<(), Error> {
        let options = StartOptions { id: Some(parse(id)?), ..StartOptions::default() };
        self.start_with(workflow, input, options).await
    }

    /// Starts a run with options, which must name its id: so it is found again.
    ///
    /// # Errors
    /// As [`Client::start`](crate::runtime::Client::start).
    pub async fn start_with<I: Serialize + ?Sized>(
        &self,
        workflow: &str,
        input: &I,
        options: StartOptions,
    ) -> Result<(), Error> {
        let input = Payload::of(input)?;
        let asked = std::cell::Cell::new(false);
        self.ask(async |kit| {
            // A client that got no answer looks before it asks again.
            if let Some(id) = options.id.as_ref().filter(|_| asked.replace(true))
                && kit.find_in(&options.namespace, id.as_str()).await.is_ok()
            {
                return Ok(());
            }
            kit.start(workflow, input.clone(), options.clone()).await?;
            Ok(())
        })
        .await
    }

    /// Sends a signal under the sender's id.
    ///
    /// # Errors
    /// As [`RunHandle::signal_as`](crate::runtime::RunHandle::signal_as).
    pub async fn signal<T: Serialize>(&self, run: &str, id: &str, signal: &Signal<T>, value: &T) -> Result<(), Error> {
        self.ask(async |kit| {
            kit.find(run).await?.signal_as(id, signal, value).await?;
            Ok(())
        })
        .await
    }

    /// Sends an update under the sender's id and waits for its answer. Time stands still meanwhile.
    ///
    /// # Errors
    /// As [`RunHandle::update_as`](crate::runtime::RunHandle::update_as).
    pub async fn update<I: Serialize, O: DeserializeOwned>(
        &self,
        run: &str,
        id: &str,
        update: &Update<I, O>,
        input: &I,
    ) -> Result<O, Error> {
        self.ask(async |kit| Ok(kit.find(run).await?.update_as(id, update, input).await?)).await
    }

    /// Asks a run to cancel.
    ///
    /// # Errors
    /// As [`RunHandle::cancel`](crate::runtime::RunHandle::cancel).
    pub async fn cancel(&self, run: &str, reason: &str) -> Result<(), Error> {
        self.ask(async |kit| {
            kit.find(run).await?.cancel(reason, "scenario").await?;
            Ok(())
        })
        .await
    }

    /// Lets everything happen that happens by itself at this time.
    ///
    /// # Errors
    /// As [`TestKit::settle`].
    pub async fn settle(&self) -> Result<(), Error> {
        self.ask(async |kit| kit.settle().await).await
    }

    /// Moves the clock on by a span.
    ///
    /// # Errors
    /// As [`TestKit::advance`].
    pub async fn advance(&self, span: Duration) -> Result<(), Error> {
        let until = self.now() + span;
        self.ask(async |kit| kit.advance_to(until).await).await
    }

    /// Moves the clock until nothing happens by itself any more.
    ///
    /// # Errors
    /// As [`TestKit::run_to_rest`].
    pub async fn run_to_rest(&self) -> Result<(), Error> {
        self.ask(async |kit| kit.run_to_rest().await).await
    }

    /// Moves the clock until the run has ended.
    ///
    /// # Errors
    /// As [`TestKit::run_to_end`].
    pub async fn end(&self, run: &str) -> Result<Ended, Error> {
        self.ask(async |kit| kit.run_to_end(&kit.find(run).await?).await).await
    }

    /// Moves the clock until the run has ended, and gives what it returned.
    ///
    /// # Errors
    /// As [`World::end`]; and if it did not complete with such a value.
    pub async fn output<T: DeserializeOwned>(&self, run: &str) -> Result<T, Error> {
        let broken = |problem: String| Error::Broken { problems: vec![format!("run {run}: {problem}")] };
        match self.end(run).await?.outcome {
            Outcome::Completed(output) => output.read().map_err(|e| broken(e.to_string())),
            other => Err(broken(format!("it was to complete, and came to {other:?}"))),
        }
    }

    /// What a run has published under a name.
    ///
    /// # Errors
    /// As [`RunHandle::query`](crate::runtime::RunHandle::query).
    pub async fn query<T: DeserializeOwned>(&self, run: &str, published: &Published<T>) -> Result<Option<T>, Error> {
        self.ask(async |kit| Ok(kit.find(run).await?.query(published).await?)).await
    }

    /// The status word of a run.
    ///
    /// # Errors
    /// If there is no such run.
    pub async fn status(&self, run: &str) -> Result<&'static str, Error> {
        self.ask(async |kit| Ok(kit.find(run).await?.row().await?.status.word())).await
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.clock.now()
    }

    /// A directory of this world's own.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.0.database.directory()
    }

    /// What the bodies of this world have left behind.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    async fn result<T>(&self, value: T) -> Result<Played<T>, Error> {
        let (runs, names, mut broken) = self
            .ask(async |kit| {
                let (mut runs, mut names) = (BTreeMap::new(), BTreeMap::new());
                let redact = kit.redact();
                for run in kit.runs().await? {
                    let journal: Vec<Recorded> = run.journal().await?;
                    let name = unique(&runs, turn(&journal).unwrap_or_else(|| run.id().to_string()));
                    names.insert(run.id().to_string(), name.clone());
                    let mut lines = redact.comparable(&journal);
                    lines.push(format!("is {}", run.row().await?.status.word()));
                    runs.insert(name, lines);
                }
                let broken = match kit.verify().await {
                    Ok(()) => Vec::new(),
                    Err(Error::Broken { problems }) => problems,
                    Err(e) => return Err(e),
                };
                Ok((runs, names, broken))
            })
            .await?;
        broken.extend(self.begun_again());
        if let Some(kit) = self.0.kit.lock().await.take() {
            drop(kit.kill().await);
        }
        let named = |run: &str| names.get(run).cloned().unwrap_or_else(|| run.to_owned());
        let ledger = self.0.ledger.entries().into_iter().map(|(key, what)| match key.split_once(' ') {
            Some((run, op)) => (format!("{} {op}", named(run)), what),
            None => (key, what),
        });
        let attempts = self.0.attempts.all().into_iter().map(|((run, op, n), times)| ((named(&run), op, n), times));
        let (ledger, attempts) = (ledger.collect(), attempts.collect());
        Ok(Played { value, opened: 0, writes: 0, runs, ledger, attempts, broken })
    }
}

/// The id of a turn is another in every world: it is named by what it begins with.
fn turn(journal: &[Recorded]) -> Option<String> {
    let Event::RunQueued(queued) = &journal.first()?.event else { return None };
    let input: TurnInput = queued.input.read().ok().filter(|_| queued.workflow.starts_with("turn:"))?;
    let ids = input.first.iter().chain(&input.said).filter_map(|said| {
        let said: serde_json::Value = said.read().ok()?;
        Some(said["id"].as_str()?.to_owned())
    });
    Some(format!("{} of {} on {}", queued.workflow, ids.collect::<Vec<_>>().join("+"), input.thread))
}

/// Several runs may have had an id, one after the other.
fn unique(runs: &BTreeMap<String, Vec<String>>, id: String) -> String {
    let mut name = id.clone();
    let mut times = 1;
    while runs.contains_key(&name) {
        times += 1;
        name = format!("{id} ({times})");
    }
    name
}

fn parse(id: &str) -> Result<crate::id::RunId, Error> {
    crate::id::RunId::parse(id).map_err(|e| crate::runtime::Error::from(e).into())
}

/// Nothing is known of the outcome, or there was no room: a client asks again.
fn may_be_asked_again(error: &Error) -> bool {
    let Error::Aldis(error) = error else { return false };
    matches!(error.code(), "store_unavailable" | "overloaded")
        || matches!(error, crate::runtime::Error::Store(store::Error::Unavailable { .. }))
}
