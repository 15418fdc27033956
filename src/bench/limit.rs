//! The limit: the store's own writer with nothing around it.

use std::time::{Duration, Instant};

use super::measure::{Measured, spread};
use super::place::Place;
use super::report::{Report, Rounds};
use super::workflows::FILLER;
use super::{Config, Error, Shape};
use crate::clock::Clock;
use crate::id::{Fence, Namespace, OpId, RunId, RunKey, Seq, WorkerKey};
use crate::journal::{
    Event, RunCompleted, RunStarted, SignalAwaited, SignalsTaken, StepFinished, StepScheduled, Taken, WaitMode,
};
use crate::payload::Payload;
use crate::run::Closed;
use crate::store::{Commit, Leaves, Lines, NewRun, Options, Registration, Store, Verdict};

/// The logical commits of one run, as the engine would make them.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Vec<Lines>);

impl Pattern {
    /// A run of so many sequential steps: one commit more than steps.
    pub(super) fn steps(steps: u32) -> Result<Self, Error> {
        let mut commits = Vec::with_capacity(steps as usize + 1);
        for n in 0..=steps {
            let finished = || Ok::<_, Error>(Event::from(StepFinished { op: op(n), output: filler()? }));
            let arrived = if n == 0 { started()? } else { finished()? };
            let asked = if n == steps {
                Event::from(RunCompleted { output: filler()? })
            } else {
                Event::from(StepScheduled { op: op(n + 1), name: "work".into(), input: filler()?, shielded: false })
            };
            commits.push([arrived, asked]);
        }
        Ok(Self::of(commits))
    }

    /// A run that waits for a signal, whose acceptance counts as a commit too.
    pub(super) fn signal() -> Result<Self, Error> {
        let awaited = SignalAwaited { op: op(1), name: "go".into(), mode: WaitMode::One, shielded: false };
        let taken = || {
            let signal = Taken { id: RunId::generate().to_string(), payload: filler()? };
            Ok::<_, Error>(SignalsTaken { op: op(1), signals: vec![signal] }.into())
        };
        Ok(Self::of([
            vec![started()?, awaited.into()],
            vec![taken()?],
            vec![taken()?, RunCompleted { output: filler()? }.into()],
        ]))
    }

    fn of(commits: impl IntoIterator<Item = impl IntoIterator<Item = Event>>) -> Self {
        let at = Clock::System.now();
        let encoded = commits.into_iter().map(|events| {
            let mut lines = Lines::default();
            events.into_iter().for_each(|event| lines.push(at, &event));
            lines
        });
        Self(encoded.collect())
    }

    /// How many commits it has.
    pub(super) fn commits(&self) -> usize {
        self.0.len()
    }
}

fn op(n: u32) -> OpId {
    OpId::new(n.to_string())
}

fn filler() -> Result<Payload, Error> {
    Ok(Payload::of(FILLER).map_err(crate::runtime::Error::from)?)
}

fn started() -> Result<Event, Error> {
    let started = RunStarted {
        run: RunId::generate(),
        workflow: "bench_limit".into(),
        version: 1,
        build: "bench".into(),
        seed: uuid::Uuid::now_v7(),
        input: Some(filler()?),
        deadline: None,
    };
    Ok(started.into())
}

/// Measures the limit on a fresh store: so many runs' worth of commits, from so many tasks. A piece is one commit.
pub(super) async fn measure(config: &Config, pattern: &Pattern, runs: usize) -> Result<Measured, Error> {
    let place = Place::fresh(config).await?;
    let store = place.open(Options::default()).await?;
    let measured = on(&store, config, pattern, (config.in_flight, runs)).await;
    store.close().await;
    place.remove().await?;
    measured
}

/// Measures the limit on a fresh store twice: as [`measure`] does, and with one task for `quiet` commits, whose times are
/// added to `each`.
pub(super) async fn busy_and_quiet(
    config: &Config,
    pattern: &Pattern,
    quiet: usize,
    each: &mut Vec<Duration>,
) -> Result<Measured, Error> {
    let place = Place::fresh(config).await?;
    let store = place.open(Options::default()).await?;
    let busy = on(&store, config, pattern, (config.in_flight, config.runs)).await;
    let alone = on(&store, config, pattern, (1, quiet / pattern.commits())).await;
    store.close().await;
    place.remove().await?;
    each.append(&mut alone?.each);
    busy
}

/// Measures the limit on a store, with so many tasks and runs.
async fn on(
    store: &Store,
    config: &Config,
    pattern: &Pattern,
    (tasks, runs): (usize, usize),
) -> Result<Measured, Error> {
    let now = Clock::System.now();
    let worker = Registration {
        name: "bench".into(),
        build: "bench".into(),
        knows: Vec::new(),
        now,
        lease_until: now + Duration::from_secs(3_600),
    };
    let writes = Writes { store: store.clone(), pattern: pattern.clone(), worker: store.register(worker).await? };
    // The statements are prepared and the file has grown a little before anything counts.
    let warm = writes.clone();
    let warm_up = tasks.max(20);
    let keys = store.reserve_keys(u32::try_from(runs + warm_up).unwrap_or(u32::MAX)).await?;
    let first = keys.start;
    spread(store, (tasks, warm_up), (config, "warming up"), move |n| warm.clone().one(key(first, n))).await?;
    let first = first + i64::try_from(warm_up).unwrap_or(0);
    let mut measured =
        spread(store, (tasks, runs), (config, "measuring the limit"), move |n| writes.clone().one(key(first, n)))
            .await?;
    measured.pieces = runs * pattern.commits();
    // A run's commits wait for each other: each took its share.
    let share = u32::try_from(pattern.commits()).unwrap_or(1);
    measured.each.iter_mut().for_each(|took| *took /= share);
    Ok(measured)
}

fn key(first: i64, n: usize) -> RunKey {
    RunKey(first + i64::try_from(n).unwrap_or(0))
}

#[derive(Clone)]
struct Writes {
    store: Store,
    pattern: Pattern,
    worker: WorkerKey,
}

impl Writes {
    /// Writes one run's commits, one after the other.
    async fn one(self, run: RunKey) -> Result<Duration, Error> {
        let begun = Instant::now();
        let last = self.pattern.commits() - 1;
        let mut head = Seq::NONE;
        for (n, lines) in self.pattern.0.iter().enumerate() {
            let commit = self.commit(run, head, lines.clone(), n == last);
            head = head.plus(lines.len());
            for verdict in self.store.commit(vec![commit]).await? {
                if let Verdict::Refused(refusal) = verdict {
                    return Err(Error::Refused(refusal));
                }
            }
        }
        Ok(begun.elapsed())
    }

    fn commit(&self, run: RunKey, head: Seq, lines: Lines, last: bool) -> Commit {
        let begins = (head == Seq::NONE).then(|| {
            let (namespace, id) = (Namespace::default(), RunId::generate());
            Box::new(NewRun { key: run, namespace, id, workflow: "bench_limit".into(), version: 1, thread: None })
        });
        let leaves = if last { Leaves::Closed(Closed::Completed) } else { Leaves::Running(self.worker) };
        Commit { begins, lines, ..Commit::new(run, Fence::FIRST, head, leaves, Clock::System.now()) }
    }
}

/// The limit as a shape of its own.
pub(super) async fn shape(config: &Config) -> Result<Report, Error> {
    let pattern = Pattern::steps(config.steps)?;
    let mut rounds = Rounds::default();
    for _ in 0..config.rounds {
        let measured = measure(config, &pattern, config.runs).await?;
        rounds.limit.push(measured.clone());
        rounds.shape.push(measured);
    }
    let mut report = rounds.report((Shape::Limit, "commits"), (Place::kind(config), config), Measured::per_s);
    report.own("runs", config.runs);
    report.own("steps", config.steps);
    Ok(report)
}
