//! The driver: one task that holds live runs, gives each what has happened to it, and commits what their code asks for.
//!
//! A run has one commit in flight at the most; what happens meanwhile is folded into the next one. All runs that were
//! touched in one round are committed by one call, which the store's writer joins with what others send.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::activity::{Alarm, Busy};
use super::attempt::transactional::{self, Sealing, Transaction};
use super::attempt::{self, Attempt, Job};
use super::foresee::Foreseen;
use super::live::{Batch, Live, Said};
use super::rehearse::shadow;
use super::{Begin, BeginError, Shared};
use crate::clock::Instant;
use crate::failure::Outcome;
use crate::id::{OpId, RunKey};
use crate::journal::RunStarted;
use crate::run::{BlockReason, Run, Status};
use crate::signal::Pending;
use crate::store::{self, Commit, History, Leaves, Owned, Refusal, Unreadable, Verdict};

/// All that can start work here.
pub(super) enum Woken {
    /// A run is to begin in this process.
    Begin { begin: Box<Begin>, reply: oneshot::Sender<Result<(), BeginError>> },
    /// This worker has claimed a run.
    Claimed(Box<Run>),
    /// A run was begun as this worker's own.
    Owned(Box<Owned>),
    /// Signals were accepted for a run.
    Signalled { run: RunKey, signals: Vec<Pending> },
    /// A body has something to say.
    Said { run: RunKey, said: Said },
    /// A transactional step's body has returned; its transaction waits for the commit.
    Seal { run: RunKey, sealing: Sealing },
    /// A transactional step has ended.
    Transacted { run: RunKey, op: OpId, transaction: Transaction },
    /// Somebody else than the engine woke the run's code.
    Foreign { run: RunKey },
    /// Somebody else has ended a run.
    Ended { run: RunKey },
    /// Other workers have taken over this one's runs.
    LeaseLost,
}

/// A run held by a driver.
struct Held {
    state: State,
    /// What is delivered and not durable yet.
    batch: Batch,
    /// What bodies have said and the code has not been shown yet.
    said: VecDeque<Said>,
    /// Signals that came while the run was being read.
    heard: Vec<Pending>,
    bodies: HashMap<OpId, Attempt>,
    /// Transactional steps that wait for their turn.
    transactions: VecDeque<OpId>,
    /// Who waits for the run's first commit.
    reply: Option<oneshot::Sender<Result<(), BeginError>>>,
    /// Who waits for the run's end; dropped when the run is let go, and then has to ask the store.
    ended: Option<oneshot::Sender<Outcome>>,
    /// Whether it is being read to go on without a claim.
    resumes: bool,
    /// Whether it takes a place of those that are limited.
    counted: bool,
    /// When its earliest timer is due, while it is under way here.
    alarm: Option<(Instant, Alarm)>,
    /// Held while something of it is under way.
    busy: Option<Busy>,
    /// Counts its changes, so that an old entry in the queue of the resting is not mistaken for it.
    epoch: u64,
}

enum State {
    /// In memory, nothing in flight.
    Resting(Box<Live>),
    /// In memory, and a commit is in flight that leaves it as told.
    Committing { live: Box<Live>, sealed: Sealed, fenced_by_us: bool },
    /// In memory, and a transactional step has the store's writer.
    Transacting { live: Box<Live>, sealed: Option<Sealed> },
    /// Being read from the store.
    Loading { again: bool },
}

/// What a commit makes of a run, as far as the driver must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Running,
    Waiting,
    Blocked,
    Ended,
}

/// What the driver must know of a commit in flight.
#[derive(Debug, Clone, Copy)]
struct Sealed {
    lines: usize,
    leaves: Left,
    answers: bool,
}

impl Sealed {
    fn of(commit: &Commit) -> Self {
        let leaves = match commit.leaves {
            Leaves::Running(_) => Left::Running,
            Leaves::Waiting { .. } | Leaves::Due { .. } => Left::Waiting,
            Leaves::Blocked { .. } => Left::Blocked,
            Leaves::Closed(_) => Left::Ended,
        };
        Self { lines: commit.lines.len(), leaves, answers: !commit.replies.is_empty() }
    }
}

impl Held {
    fn new(state: State) -> Self {
        Self {
            state,
            batch: Batch::default(),
            said: VecDeque::new(),
            heard: Vec::new(),
            bodies: HashMap::new(),
            transactions: VecDeque::new(),
            reply: None,
            ended: None,
            resumes: false,
            counted: false,
            alarm: None,
            busy: None,
            epoch: 0,
        }
    }
}

/// The next timer's time, and the wait for it.
type Ring = (Instant, BoxFuture<'static, ()>);
type Settled = (Vec<RunKey>, Result<Vec<Verdict>, store::Error>);
type Loaded = (Vec<RunKey>, Result<Vec<Result<History, Unreadable>>, store::Error>);

struct Driver {
    shared: Arc<Shared>,
    held: HashMap<RunKey, Held>,
    /// Runs to look at in this round.
    touched: Vec<RunKey>,
    /// Runs to read.
    to_load: Vec<RunKey>,
    commits: FuturesUnordered<BoxFuture<'static, Settled>>,
    loads: FuturesUnordered<BoxFuture<'static, Loaded>>,
    /// Timers of the runs that are under way here.
    timers: BTreeSet<(Instant, RunKey)>,
    /// Runs that rest in memory without being owned, the one that has rested longest first.
    resting: VecDeque<(RunKey, u64)>,
    resting_count: usize,
    epoch: u64,
}

/// Histories that are read by one call.
const LOAD_MAX: usize = 64;

/// Drives until the engine is stopped.
pub(super) async fn drive(shared: Arc<Shared>, number: usize, mut inbox: mpsc::UnboundedReceiver<(Woken, Busy)>) {
    let mut driver = Driver::new(shared);
    let mut mail = Vec::with_capacity(256);
    let mut alarm: Option<Ring> = None;
    tracing::debug!(driver = number, "driver started");
    loop {
        driver.set_alarm(&mut alarm);
        let mut settled = None;
        let mut loaded = None;
        tokio::select! {
            biased;
            Some(done) = driver.commits.next(), if !driver.commits.is_empty() => settled = Some(done),
            Some(done) = driver.loads.next(), if !driver.loads.is_empty() => loaded = Some(done),
            got = inbox.recv_many(&mut mail, 256) => if got == 0 { return },
            () = async { match &mut alarm { Some((_, ring)) => ring.await, None => std::future::pending().await } } => {
                alarm = None;
            }
        }
        // The tokens are kept until the round is over: nothing may look quiet in between.
        let mut busy = Vec::with_capacity(mail.len() + 1);
        busy.push(driver.shared.activity.begin());
        settled.into_iter().for_each(|(runs, verdicts)| driver.settled(runs, verdicts));
        loaded.into_iter().for_each(|(runs, histories)| driver.loaded(runs, histories));
        while let Ok(more) = inbox.try_recv() {
            mail.push(more);
            if mail.len() >= 1_024 {
                break;
            }
        }
        for (woken, token) in mail.drain(..) {
            busy.push(token);
            driver.wake(woken);
        }
        driver.ring();
        driver.round();
    }
}

impl Driver {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            held: HashMap::new(),
            touched: Vec::new(),
            to_load: Vec::new(),
            commits: FuturesUnordered::new(),
            loads: FuturesUnordered::new(),
            timers: BTreeSet::new(),
            resting: VecDeque::new(),
            resting_count: 0,
            epoch: 0,
        }
    }

    fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    // Timers.

    fn set_alarm(&self, alarm: &mut Option<Ring>) {
        let next = self.timers.first().map(|(at, _)| *at);
        if alarm.as_ref().map(|(at, _)| *at) != next {
            let clock = self.shared.clock.clone();
            *alarm = next.map(|at| {
                let ring: BoxFuture<'static, ()> = Box::pin(async move { clock.sleep_until(at).await });
                (at, ring)
            });
        }
    }

    /// Touches the runs whose timers are due.
    fn ring(&mut self) {
        let now = self.now();
        while let Some((at, run)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.remove(&(at, run));
            self.touched.push(run);
        }
    }

    // What comes in.

    fn wake(&mut self, woken: Woken) {
        match woken {
            Woken::Begin { begin, reply } => self.begin(*begin, reply),
            Woken::Claimed(run) => self.claimed(&run),
            Woken::Owned(owned) => self.owned(*owned),
            Woken::Signalled { run, signals } => self.signalled(run, signals),
            Woken::Said { run, said } => {
                if let Some(held) = self.held.get_mut(&run) {
                    if let Said::Done { op, .. } = &said {
                        held.bodies.remove(op);
                    }
                    held.said.push_back(said);
                    self.touched.push(run);
                }
            }
            Woken::Seal { run, sealing } => self.seal_in(run, sealing),
            Woken::Transacted { run, op, transaction } => self.transacted(run, op, transaction),
            Woken::Foreign { run } => self.foreign(run),
            // Its bodies are told to stop: what they would say is recorded nowhere.
            Woken::Ended { run } => self.drop_run(run),
            Woken::LeaseLost => {
                for (_, held) in std::mem::take(&mut self.held) {
                    self.let_go(held);
                }
                self.timers.clear();
                self.resting.clear();
                self.resting_count = 0;
            }
        }
    }

    fn begin(&mut self, begin: Begin, reply: oneshot::Sender<Result<(), BeginError>>) {
        let Begin { new, workflow, input, deadline, ended } = begin;
        let (run, seed, now) = (new.key, uuid::Uuid::new_v4(), self.now());
        let started = RunStarted {
            run: new.id.clone(),
            workflow: new.workflow.clone(),
            version: new.version,
            build: self.shared.options.build.clone(),
            seed,
            input: Some(input.clone()),
            deadline,
        };
        let (mut live, began) = Live::begin(&new, &workflow, &input, deadline, seed, self.shared.teller(run));
        live.payload_bytes_max = self.shared.options.payload_bytes_max;
        let mut batch = Batch::default();
        let delivered = live.deliver_start(&mut batch, started, Some(Box::new(new)), now);
        let mut held = Held::new(State::Resting(Box::new(live)));
        held.batch = batch;
        held.reply = Some(reply);
        held.ended = Some(ended);
        held.counted = true;
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        self.hold(run, held);
        match began.and(delivered) {
            Ok(()) => self.touched.push(run),
            Err(reason) => self.block(run, reason),
        }
    }

    /// A run that was begun elsewhere in this process: all that would be read of it came along, or it is under way already.
    fn owned(&mut self, owned: Owned) {
        let Owned { history, first } = owned;
        let run = history.run.key;
        let mut held = Held::new(State::Loading { again: false });
        held.counted = true;
        let Some(first) = first else {
            self.hold(run, held);
            return self.revive(run, Ok(history));
        };
        let Some(Foreseen { live, batch }) = Foreseen::of(&first) else {
            self.hold(run, held);
            return self.to_load.push(run);
        };
        held.batch = batch;
        held.state = State::Committing { live, sealed: Sealed::of(&first.commit), fenced_by_us: false };
        self.hold(run, held);
        self.applied(run);
    }

    fn claimed(&mut self, run: &Run) {
        let key = run.key;
        let Some(held) = self.held.get_mut(&key) else {
            let mut held = Held::new(State::Loading { again: false });
            held.counted = true;
            self.hold(key, held);
            self.to_load.push(key);
            return;
        };
        if std::mem::replace(&mut held.counted, true) {
            self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        }
        held.busy.get_or_insert_with(|| self.shared.activity.begin());
        match &mut held.state {
            State::Resting(live) if live.head == run.head && live.seen == run.signals_accepted => {
                live.fence = run.fence;
                live.owned = true;
                self.resting_count -= usize::from(std::mem::take(&mut held.epoch) != 0);
                self.touched.push(key);
            }
            State::Resting(_) => self.reload(key),
            // Whatever is in flight carries the old fence and is going to be refused.
            State::Committing { fenced_by_us, .. } => *fenced_by_us = true,
            State::Transacting { .. } => {}
            State::Loading { again } => *again = true,
        }
    }

    fn signalled(&mut self, run: RunKey, signals: Vec<Pending>) {
        let Some(held) = self.held.get_mut(&run) else {
            self.resume(run, signals);
            return;
        };
        let known = match &mut held.state {
            State::Resting(live) | State::Committing { live, .. } | State::Transacting { live, .. } => {
                live.hear(signals)
            }
            State::Loading { .. } => {
                held.heard.extend(signals);
                true
            }
        };
        if known {
            self.touched.push(run);
        } else if matches!(held.state, State::Resting(_)) {
            self.reload(run);
        }
    }

    /// A run that rests in the store has got signals: it is read and goes on under the fence that it rests with, without
    /// a claim. If a worker claims it meanwhile, that fence is refused and the run is let go.
    fn resume(&mut self, run: RunKey, signals: Vec<Pending>) {
        let room = self.shared.in_flight.load(Ordering::SeqCst) < self.shared.options.in_flight_max;
        if !room || self.shared.stop.is_cancelled() {
            self.shared.look_now();
            return;
        }
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        let mut held = Held::new(State::Loading { again: false });
        held.counted = true;
        held.resumes = true;
        held.heard = signals;
        self.hold(run, held);
        self.to_load.push(run);
    }

    fn foreign(&mut self, run: RunKey) {
        if let Some(Held { state: State::Resting(live), .. }) = self.held.get(&run) {
            let reason = live.foreign_wait();
            self.block(run, reason);
        }
        // While a commit is in flight nothing is lost: the flag is looked at with the next line.
    }

    // Reading.

    /// Drops what is in memory and reads the run again; what bodies have said is kept.
    fn reload(&mut self, run: RunKey) {
        let Some(held) = self.held.get_mut(&run) else { return };
        self.resting_count -= usize::from(std::mem::take(&mut held.epoch) != 0);
        for said in std::mem::take(&mut held.batch).said.into_iter().rev() {
            held.said.push_front(said);
        }
        held.state = State::Loading { again: false };
        held.busy.get_or_insert_with(|| self.shared.activity.begin());
        self.take_alarm(run);
        self.to_load.push(run);
    }

    fn loaded(&mut self, runs: Vec<RunKey>, histories: Result<Vec<Result<History, Unreadable>>, store::Error>) {
        match histories {
            Ok(histories) => {
                for (run, history) in runs.into_iter().zip(histories) {
                    self.revive(run, history);
                }
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    runs = runs.len(),
                    "runs could not be read; they stay in the store"
                );
                // Their rows say Running here: they are given back by reading them again a little later.
                let shared = Arc::clone(&self.shared);
                self.loads.push(Box::pin(async move {
                    shared.clock.sleep(shared.options.poll).await;
                    let histories = shared.store.history(&runs).await;
                    (runs, histories)
                }));
            }
        }
    }

    fn revive(&mut self, run: RunKey, history: Result<History, Unreadable>) {
        let Some(Held { state: State::Loading { again }, .. }) = self.held.get_mut(&run) else { return };
        if std::mem::take(again) {
            self.to_load.push(run);
            return;
        }
        let row = match &history {
            Ok(history) => &history.run,
            Err(unreadable) => &unreadable.run,
        };
        let owned = row.status == (Status::Running { worker: self.shared.worker() });
        let resumes = self.held.get_mut(&run).is_some_and(|held| std::mem::take(&mut held.resumes));
        // What is not registered here is for other workers: the claim loop knows how to tell.
        let known = self.shared.registry.version(&row.workflow, row.version).is_ok();
        let rests = match row.status {
            Status::Due { at } => known && at <= self.now(),
            Status::Waiting { .. } => known,
            Status::Running { .. } | Status::Blocked { .. } | Status::Closed { .. } => false,
        };
        let goes_on = owned || (resumes && rests);
        if !goes_on {
            // Somebody else's, at rest, or ended. If it is due, the claim loop finds it.
            self.drop_run(run);
            if rests {
                self.shared.look_now();
            }
            return;
        }
        match self.rebuild(run, history) {
            Ok((mut live, batch)) => {
                live.owned = owned;
                live.disturbed = !owned;
                live.payload_bytes_max = self.shared.options.payload_bytes_max;
                let Some(held) = self.held.get_mut(&run) else { return };
                let known = live.hear(std::mem::take(&mut held.heard));
                let begun = live.is_begun();
                held.batch = batch;
                held.state = State::Resting(Box::new(live));
                // A body that still runs is not begun a second time.
                if !known {
                    self.reload(run);
                } else if begun {
                    self.touched.push(run);
                } else {
                    self.start_queued(run);
                }
            }
            Err((row, reason)) => self.block_unread(&row, reason),
        }
    }

    fn rebuild(
        &self,
        run: RunKey,
        history: Result<History, Unreadable>,
    ) -> Result<(Live, Batch), (Box<Run>, BlockReason)> {
        let history = history
            .map_err(|unreadable| (Box::new(unreadable.run), BlockReason::Corrupt(unreadable.problem.to_string())))?;
        let row = history.run.clone();
        let blocked = |reason| (Box::new(row.clone()), reason);
        let workflow = self
            .shared
            .registry
            .version(&row.workflow, row.version)
            .map_err(|unknown| blocked(BlockReason::Unregistered(unknown.to_string())))?;
        Live::revive(history, &workflow, &self.shared.options.build, false, self.shared.teller(run)).map_err(blocked)
    }

    /// Begins a run that was accepted to be started later: its first line here is the start.
    fn start_queued(&mut self, run: RunKey) {
        let (build, now) = (self.shared.options.build.clone(), self.now());
        let Some(Held { state: State::Resting(live), batch, .. }) = self.held.get_mut(&run) else { return };
        let started = live.queued_start(build);
        match live.deliver_start(batch, started, None, now) {
            Ok(()) => self.touched.push(run),
            Err(reason) => self.block(run, reason),
        }
    }

    // The round.

    /// Gives every touched run what has happened to it, and sends all their commits by one call.
    fn round(&mut self) {
        let now = self.now();
        let mut commits = Vec::new();
        for run in std::mem::take(&mut self.touched) {
            commits.extend(self.pump(run, now));
        }
        // Reading and blocking may have been asked for above.
        for run in std::mem::take(&mut self.touched) {
            commits.extend(self.pump(run, now));
        }
        if !commits.is_empty() {
            let runs: Vec<RunKey> = commits.iter().map(|commit: &Commit| commit.run).collect();
            let store = self.shared.store.clone();
            self.commits.push(Box::pin(async move {
                let verdicts = store.commit(commits).await;
                (runs, verdicts)
            }));
        }
        while !self.to_load.is_empty() {
            let rest = self.to_load.split_off(self.to_load.len().min(LOAD_MAX));
            let runs = std::mem::replace(&mut self.to_load, rest);
            let store = self.shared.store.clone();
            self.loads.push(Box::pin(async move {
                let histories = store.history(&runs).await;
                (runs, histories)
            }));
        }
        self.evict();
    }

    /// Shows a resting run all that has happened; returns its commit if it needs one.
    fn pump(&mut self, run: RunKey, now: Instant) -> Option<Commit> {
        let worker = self.shared.worker();
        let held = self.held.get_mut(&run)?;
        let State::Resting(live) = &mut held.state else { return None };
        let commit = match live.pump(&mut held.batch, &mut held.said, now) {
            Ok(()) if !live.needs_commit(&held.batch) => {
                self.rest(run);
                return None;
            }
            Ok(()) => live.seal(&mut held.batch, worker, now),
            Err(reason) => {
                tracing::warn!(run = %live.id, reason = %reason, "run blocked");
                live.seal_blocked(&mut held.batch, reason, &self.shared.options.build, now)
            }
        };
        self.send(run, commit)
    }

    /// Marks a run's commit as in flight.
    fn send(&mut self, run: RunKey, commit: Commit) -> Option<Commit> {
        let held = self.held.get_mut(&run)?;
        held.busy.get_or_insert_with(|| self.shared.activity.begin());
        self.resting_count -= usize::from(std::mem::take(&mut held.epoch) != 0);
        let sealed = Sealed::of(&commit);
        let State::Resting(mut live) = std::mem::replace(&mut held.state, State::Loading { again: false }) else {
            return None;
        };
        live.disturbed = false;
        held.state = State::Committing { live, sealed, fenced_by_us: false };
        Some(commit)
    }

    /// Blocks a resting run outside a round.
    fn block(&mut self, run: RunKey, reason: BlockReason) {
        let now = self.now();
        let Some(held) = self.held.get_mut(&run) else { return };
        let State::Resting(live) = &mut held.state else { return };
        tracing::warn!(run = %live.id, reason = %reason, "run blocked");
        let commit = live.seal_blocked(&mut held.batch, reason, &self.shared.options.build, now);
        if let Some(commit) = self.send(run, commit) {
            self.commit_one(commit);
        }
    }

    /// Blocks a run whose journal the code cannot follow: nothing is written to it.
    fn block_unread(&mut self, row: &Run, reason: BlockReason) {
        tracing::warn!(run = %row.id, reason = %reason, "run blocked");
        self.drop_run(row.key);
        let leaves = Leaves::Blocked { reason, build: self.shared.options.build.clone() };
        let commit = Commit::new(row.key, row.fence, row.head, leaves, self.now());
        self.commit_one(Commit { signals_seen: row.signals_accepted, ..commit });
    }

    fn commit_one(&mut self, commit: Commit) {
        let (store, runs, busy) = (self.shared.store.clone(), vec![commit.run], self.shared.activity.begin());
        self.commits.push(Box::pin(async move {
            let verdicts = store.commit(vec![commit]).await;
            drop(busy);
            (runs, verdicts)
        }));
    }

    /// What is to be done once nothing is in flight: bodies begin, timers are set, room is made.
    fn rest(&mut self, run: RunKey) {
        self.begin_bodies(run);
        let now = self.now();
        let Some(held) = self.held.get_mut(&run) else { return };
        let State::Resting(live) = &held.state else { return };
        // Given up last: nobody may think that all is quiet before the alarms are set.
        let _busy = held.busy.take();
        let (owned, wake) = (live.owned, live.next_wake());
        if owned {
            let changed = held.alarm.as_ref().map(|(at, _)| *at) != wake;
            if changed {
                if let Some((at, _)) = held.alarm.take() {
                    self.timers.remove(&(at, run));
                }
                held.alarm = wake.map(|at| (at, self.shared.activity.alarm(at)));
            }
            if let Some(at) = wake {
                self.timers.insert((at, run));
            }
            return;
        }
        if let Some(at) = wake {
            self.shared.look_by(at.max(now));
        }
        self.take_alarm(run);
        self.uncount(run);
        self.epoch += 1;
        if let Some(held) = self.held.get_mut(&run) {
            if held.epoch == 0 {
                self.resting_count += 1;
            }
            held.epoch = self.epoch;
            self.resting.push_back((run, self.epoch));
        }
    }

    fn begin_bodies(&mut self, run: RunKey) {
        let Some(held) = self.held.get_mut(&run) else { return };
        let State::Resting(live) = &mut held.state else { return };
        if !live.owned {
            return;
        }
        for op in live.steps_to_begin() {
            if held.bodies.contains_key(&op) {
                continue;
            }
            let Some((step, work)) = live.step(&op) else { continue };
            if work.body.is_transactional() && !self.shared.options.mocks.contains_key(work.name) {
                held.transactions.push_back(op);
                continue;
            }
            let job = Job {
                run,
                id: live.id.clone(),
                thread: live.thread,
                seed: live.seed(),
                op: op.clone(),
                step: step.clone(),
                work,
            };
            held.bodies.insert(op, attempt::begin(&self.shared, job));
        }
        while let Some(op) = held.transactions.pop_front() {
            let Some((step, work)) = live.step(&op) else { continue };
            let job =
                Job { run, id: live.id.clone(), thread: live.thread, seed: live.seed(), op, step: step.clone(), work };
            transactional::begin(&self.shared, job);
            let State::Resting(live) = std::mem::replace(&mut held.state, State::Loading { again: false }) else {
                return;
            };
            held.state = State::Transacting { live, sealed: None };
            return;
        }
    }

    // Verdicts.

    fn settled(&mut self, runs: Vec<RunKey>, verdicts: Result<Vec<Verdict>, store::Error>) {
        match verdicts {
            Ok(verdicts) => {
                for (run, verdict) in runs.into_iter().zip(verdicts) {
                    match verdict {
                        Verdict::Applied => self.applied(run),
                        Verdict::Refused(refusal) => self.refused(run, refusal),
                    }
                }
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    runs = runs.len(),
                    "commits could not be written; the runs are read again"
                );
                for run in runs {
                    self.unwritten(run, &error);
                }
            }
        }
    }

    fn applied(&mut self, run: RunKey) {
        let Some(held) = self.held.get_mut(&run) else { return };
        let (live, sealed) = match std::mem::replace(&mut held.state, State::Loading { again: false }) {
            State::Committing { live, sealed, .. } => (live, sealed),
            State::Transacting { live, sealed: Some(sealed) } => (live, sealed),
            other => {
                held.state = other;
                return;
            }
        };
        held.state = State::Resting(live);
        if let Some(reply) = held.reply.take() {
            // Whoever asked may have gone; the run is begun all the same.
            let _ = reply.send(Ok(()));
        }
        let State::Resting(live) = &mut held.state else { return };
        live.head = live.head.plus(sealed.lines);
        live.owned = sealed.leaves == Left::Running;
        let gave_up = std::mem::take(&mut held.batch).gave_up;
        if sealed.answers {
            self.shared.answered.notify_waiters();
        }
        // A replay of a blocked run would only meet the cause again.
        if sealed.leaves != Left::Blocked && self.shared.takes_a_shadow() {
            tracing::trace!(run = %live.id, "shadow replay");
            let busy = self.shared.activity.begin();
            self.shared.tasks.spawn(self.shared.kill.clone().run_until_cancelled_owned(shadow(
                Arc::clone(&self.shared),
                run,
                busy,
            )));
        }
        if matches!(sealed.leaves, Left::Blocked | Left::Ended) {
            if let (Left::Ended, Some(ended), Some(outcome)) = (sealed.leaves, held.ended.take(), live.outcome.take()) {
                // Whoever asked may have gone.
                let _ = ended.send(outcome);
            }
            self.drop_run(run);
            return;
        }
        if gave_up {
            held.bodies.retain(|op, body| {
                let open = live.is_open(op);
                if !open {
                    body.give_up();
                }
                open
            });
        }
        // Bodies begin now, not a round later; then whatever has happened meanwhile is looked at.
        self.begin_bodies(run);
        self.touched.push(run);
    }

    fn refused(&mut self, run: RunKey, refusal: Refusal) {
        let Some(held) = self.held.get_mut(&run) else { return };
        if let Some(reply) = held.reply.take() {
            let _ = reply.send(Err(BeginError::Refused(refusal)));
            self.drop_run(run);
            return;
        }
        let ours = matches!(held.state, State::Committing { fenced_by_us: true, .. });
        match refusal {
            Refusal::Fenced { .. } if !ours => {
                tracing::debug!(run = %run, %refusal, "run dropped: it is somebody else's now");
                self.drop_run(run);
            }
            Refusal::Gone | Refusal::IdInUse => {
                tracing::warn!(run = %run, %refusal, "run dropped");
                self.drop_run(run);
            }
            Refusal::Fenced { .. } | Refusal::Moved { .. } | Refusal::Undrained { .. } => {
                tracing::debug!(run = %run, %refusal, "run read again");
                self.reload(run);
            }
        }
    }

    fn unwritten(&mut self, run: RunKey, error: &store::Error) {
        let Some(held) = self.held.get_mut(&run) else { return };
        if let Some(reply) = held.reply.take() {
            let _ = reply.send(Err(BeginError::Store(error.clone())));
            self.drop_run(run);
        } else {
            self.reload(run);
        }
    }

    // Transactional steps.

    fn seal_in(&mut self, run: RunKey, sealing: Sealing) {
        let (now, worker, build) = (self.now(), self.shared.worker(), self.shared.options.build.clone());
        let Some(held) = self.held.get_mut(&run) else { return };
        let State::Transacting { live, sealed } = &mut held.state else { return };
        let Sealing { op, output, seal } = sealing;
        if !live.is_open(&op) {
            // It was given up meanwhile: dropping the sender rolls back what the body wrote.
            return;
        }
        held.said.push_front(Said::Done { op, result: Ok(output) });
        let commit = match live.pump(&mut held.batch, &mut held.said, now) {
            Ok(()) => live.seal(&mut held.batch, worker, now),
            Err(reason) => live.seal_blocked(&mut held.batch, reason, &build, now),
        };
        *sealed = Some(Sealed::of(&commit));
        // If the transaction has ended meanwhile, what it came to is on its way here.
        let _ = seal.send(commit);
    }

    fn transacted(&mut self, run: RunKey, op: OpId, transaction: Transaction) {
        let Some(held) = self.held.get_mut(&run) else { return };
        let State::Transacting { sealed, .. } = &held.state else { return };
        let sealed = sealed.is_some();
        match transaction {
            Transaction::Settled(Ok(Ok(()))) => self.applied(run),
            Transaction::Settled(Ok(Err(refusal))) => self.refused(run, refusal),
            Transaction::Settled(Err(error)) => {
                tracing::error!(run = %run, %op, error = &error as &dyn std::error::Error, "a transactional step could not be written; the run is read again");
                self.unwritten(run, &error);
            }
            Transaction::Failed(cause) if sealed => {
                // The code has gone on in memory with a result that was rolled back: it is rebuilt.
                held.batch.said.retain(|said| !matches!(said, Said::Done { op: done, result: Ok(_) } if *done == op));
                held.batch.said.push(Said::Done { op, result: Err(cause) });
                self.reload(run);
            }
            Transaction::Failed(cause) => {
                let State::Transacting { live, .. } =
                    std::mem::replace(&mut held.state, State::Loading { again: false })
                else {
                    return;
                };
                held.state = State::Resting(live);
                held.said.push_back(Said::Done { op, result: Err(cause) });
                self.touched.push(run);
            }
        }
    }

    // Holding and letting go.

    fn hold(&mut self, run: RunKey, mut held: Held) {
        held.busy = Some(self.shared.activity.begin());
        self.held.insert(run, held);
    }

    fn take_alarm(&mut self, run: RunKey) {
        if let Some(held) = self.held.get_mut(&run)
            && let Some((at, _)) = held.alarm.take()
        {
            self.timers.remove(&(at, run));
        }
    }

    fn uncount(&mut self, run: RunKey) {
        if let Some(held) = self.held.get_mut(&run)
            && std::mem::take(&mut held.counted)
        {
            self.make_room();
        }
    }

    fn make_room(&self) {
        let before = self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        if before >= self.shared.options.in_flight_max {
            self.shared.look_now();
        }
    }

    fn drop_run(&mut self, run: RunKey) {
        self.take_alarm(run);
        if let Some(held) = self.held.remove(&run) {
            self.resting_count -= usize::from(held.epoch != 0);
            self.let_go(held);
        }
    }

    fn let_go(&self, held: Held) {
        held.bodies.values().for_each(Attempt::give_up);
        if held.counted {
            self.make_room();
        }
    }

    /// Lets those go that have rested longest, if there are too many: the store has them.
    fn evict(&mut self) {
        while self.resting_count > self.shared.options.live_max
            || self.resting.len() > 4 * self.shared.options.live_max + 64
        {
            let Some((run, epoch)) = self.resting.pop_front() else { return };
            let rests =
                self.held.get(&run).is_some_and(|held| held.epoch == epoch && matches!(held.state, State::Resting(_)));
            if rests && self.resting_count > self.shared.options.live_max {
                self.drop_run(run);
            } else if rests {
                self.resting.push_back((run, epoch));
            }
        }
    }
}
