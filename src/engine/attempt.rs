//! One attempt at a step: a task of its own, with its limits of time, its cancellation and what it reports.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::activity::{Alarm, Busy};
use super::driver::Woken;
use super::live::{OpenStep, Said, panic_message};
use crate::clock::Instant;
use crate::failure::{AttemptFailure, Failure, Timeout};
use crate::id::{OpId, RunId, RunKey, ThreadKey};
use crate::message::Lane;
use crate::payload::Payload;
use crate::store::Chunk;
use crate::workflow::{Body, Recent, Recorder, StepContext, Work};

/// A body to run instead of a step's own: it gets the step's input as JSON.
pub type Mock = Arc<dyn Fn(StepContext, Payload) -> BoxFuture<'static, MockResult> + Send + Sync>;

/// Told of an attempt whose body begins.
pub type OnAttempt = Arc<dyn Fn(&StepContext) + Send + Sync>;

/// What a mock returns: the step's output as JSON, or how the attempt failed.
pub type MockResult = Result<Payload, AttemptFailure>;

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Attempt {
    cancel: CancellationToken,
    life: Weak<Life>,
}

impl Attempt {
    /// Tells the body to stop; it is dropped if it has not after the grace.
    pub(super) fn give_up(&self) {
        if let Some(life) = self.life.upgrade() {
            life.is_told_to_stop();
        }
        self.cancel.cancel();
    }
}

/// What one attempt is about.
pub(super) struct Job {
    pub(super) run: RunKey,
    pub(super) id: RunId,
    pub(super) thread: Option<ThreadKey>,
    pub(super) seed: uuid::Uuid,
    pub(super) op: OpId,
    pub(super) work: Arc<Work>,
    pub(super) step: OpenStep,
}

impl Job {
    fn attempt(&self) -> u32 {
        self.step.attempts_failed + 1
    }

    /// Refuses an output over the limit: trying again would give the same.
    fn fitting(&self, output: Payload, limit: usize) -> MockResult {
        let field = || format!("the output of step {:?} of run {}", self.work.name, self.id);
        output.within(limit, field).map_err(|e| AttemptFailure::Failed(Failure::from(e).not_retryable()))
    }

    /// What the body knows about itself.
    fn context(&self, shared: &Arc<Shared>, cancel: &CancellationToken, life: &Arc<Life>) -> StepContext {
        let reports = Reports {
            shared: Arc::clone(shared),
            run: self.run,
            thread: self.thread,
            op: self.op.clone(),
            attempt: self.attempt(),
            cancel: cancel.clone(),
            life: Arc::clone(life),
        };
        StepContext {
            run: self.id.clone(),
            op: self.op.clone(),
            // The id alone would not do: another run may be started under it later.
            key: format!("{}:{}:{}", self.id, &self.seed.simple().to_string()[..8], self.op).into(),
            attempt: self.attempt(),
            checkpoint: self.step.checkpoint.clone(),
            cancelled: cancel.clone(),
            recorder: Arc::new(reports),
        }
    }
}

/// Begins an attempt. What comes of it is told to the run's driver, once.
pub(super) fn begin(shared: &Arc<Shared>, job: Job) -> Attempt {
    let cancel = shared.kill.child_token();
    let life = Life::begin(shared);
    let attempt = Attempt { cancel: cancel.clone(), life: Arc::downgrade(&life) };
    let under_way = shared.activity.body();
    let shared = Arc::clone(shared);
    let kill = shared.kill.clone();
    let tasks = shared.tasks.clone();
    tasks.spawn(kill.run_until_cancelled_owned(async move {
        let cx = job.context(&shared, &cancel, &life);
        if let Some(told) = &shared.options.on_attempt {
            told(&cx);
        }
        let (work, mock) = (Arc::clone(&job.work), shared.options.mocks.get(job.work.name).cloned());
        // Inside the future, so that a body that panics before its first await is caught as well.
        let body = AssertUnwindSafe(async move {
            match (mock, &work.body) {
                (Some(mock), _) => mock(cx, work.input.clone()).await,
                (None, Body::Plain(body)) => body(cx).await,
                (None, Body::Transactional(_)) => Err(AttemptFailure::Failed(
                    Failure::new("a transactional step has no transaction here; this is a defect of the engine")
                        .not_retryable(),
                )),
            }
        });
        let result = within_limits(&shared, &job, body.catch_unwind(), &cancel, &life).await;
        if let Some(result) = result {
            let result = result.and_then(|output| job.fitting(output, shared.options.payload_bytes_max));
            shared.tell(job.run, Woken::Said { run: job.run, said: Said::Done { op: job.op, result } });
        }
        // Only now: the word has been given to the driver.
        life.has_reacted();
        drop(under_way);
        drop(life);
    }));
    attempt
}

type Caught = Result<MockResult, Box<dyn std::any::Any + Send>>;

/// Runs a body until it ends, its time is up or it is given up. None if nobody waits for its result any more.
async fn within_limits(
    shared: &Arc<Shared>,
    job: &Job,
    body: impl Future<Output = Caught>,
    cancel: &CancellationToken,
    life: &Arc<Life>,
) -> Option<MockResult> {
    let caught = |caught: Caught| caught.unwrap_or_else(|panic| Err(AttemptFailure::Panicked(panic_message(&*panic))));
    let policy = &job.work.policy;
    let limits = Limits {
        began: shared.clock.now(),
        attempt: policy.timeout,
        idle: policy.idle_timeout,
        total: policy.retry.total.map(|total| (job.step.since, total)),
    };
    let alarm = limits.next(life).map(|(at, _)| shared.activity.alarm(at));
    tokio::pin!(body);
    let timeout = tokio::select! {
        biased;
        result = &mut body => return Some(caught(result)),
        () = cancel.cancelled() => None,
        timeout = limits.run_out(shared, life, alarm) => Some(timeout),
    };
    cancel.cancel();
    // It was told to stop; what it still returns counts only if nobody has said yet that its time is up.
    let wound_up = tokio::select! {
        biased;
        _ = &mut body => true,
        () = wait_out(shared, life, shared.clock.now() + shared.options.stop_grace) => false,
    };
    if !wound_up {
        tracing::warn!(run = %job.id, step = job.work.name, op = %job.op, "a body did not stop in time and was dropped");
    }
    timeout.map(|timeout| Err(AttemptFailure::TimedOut(timeout)))
}

/// The limits of one attempt.
struct Limits {
    began: Instant,
    attempt: Option<Duration>,
    idle: Option<Duration>,
    total: Option<(Instant, Duration)>,
}

impl Limits {
    /// The one that runs out first, as things stand.
    fn next(&self, life: &Life) -> Option<(Instant, Timeout)> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let limits = [
            self.attempt.map(|span| (self.began + span, Timeout::Attempt(millis(span)))),
            self.idle.map(|span| (life.last_sign().max(self.began) + span, Timeout::Idle(millis(span)))),
            self.total.map(|(since, span)| (since + span, Timeout::Total(millis(span)))),
        ];
        limits.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Returns when the first of them has run out. The alarm for it is set already, before the body is first polled.
    async fn run_out(&self, shared: &Arc<Shared>, life: &Arc<Life>, mut alarm: Option<Alarm>) -> Timeout {
        loop {
            let Some((at, timeout)) = self.next(life) else {
                return std::future::pending().await;
            };
            if at <= shared.clock.now() {
                life.is_told_to_stop();
                return timeout;
            }
            // The next alarm is set before the last one is taken back: nobody may look past it in between.
            alarm.replace(shared.activity.alarm(at));
            tokio::select! {
                () = shared.clock.sleep_until(at) => {}
                () = life.signs.notified() => {}
            }
        }
    }
}

/// Waits on the engine's clock, as somebody who rests.
async fn rest_until(shared: &Arc<Shared>, life: &Arc<Life>, at: Instant) {
    let alarm = shared.activity.alarm(at);
    let resting = life.rest();
    shared.clock.sleep_until(at).await;
    // Busy again before the alarm is taken back: nobody may think meanwhile that all is quiet.
    drop(resting);
    drop(alarm);
}

/// Waits for a body that was told to stop and has not.
async fn wait_out(shared: &Arc<Shared>, life: &Arc<Life>, at: Instant) {
    let alarm = shared.activity.alarm(at);
    life.has_reacted();
    rest_until(shared, life, at).await;
    // It is dropped now, whatever it still rests on; until that is told nobody may think that all is quiet.
    life.is_told_to_stop();
    drop(alarm);
}

/// Whether a body is doing something, and when it last said so.
#[derive(Debug)]
struct Life {
    shared: Arc<Shared>,
    state: Mutex<(usize, Option<Busy>, Instant)>,
    signs: Notify,
    /// Held from the moment at which the body is told to stop until it has had the chance to, and while it is dropped.
    stopping: Mutex<Option<Busy>>,
}

impl Life {
    fn begin(shared: &Arc<Shared>) -> Arc<Self> {
        let state = Mutex::new((0, Some(shared.activity.begin()), shared.clock.now()));
        Arc::new(Self { shared: Arc::clone(shared), state, signs: Notify::new(), stopping: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, (usize, Option<Busy>, Instant)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sign(&self) {
        self.state().2 = self.shared.clock.now();
        self.signs.notify_one();
    }

    fn last_sign(&self) -> Instant {
        self.state().2
    }

    /// Counts as busy, even if the body rests: it is about to be woken.
    fn is_told_to_stop(&self) {
        let busy = self.shared.activity.begin();
        self.stopping.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(busy);
    }

    fn has_reacted(&self) {
        self.stopping.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn rest(self: &Arc<Self>) -> Resting {
        let mut state = self.state();
        state.0 += 1;
        state.1 = None;
        Resting(Arc::clone(self))
    }
}

/// While it lives, its body counts as resting.
struct Resting(Arc<Life>);

impl Drop for Resting {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.0 -= 1;
        if state.0 == 0 {
            state.1 = Some(self.0.shared.activity.begin());
        }
    }
}

/// How many chunks of a step under way are looked through for what was said.
const SHOWN_MAX: usize = 10_000;

/// What a body can say and ask while it runs.
struct Reports {
    shared: Arc<Shared>,
    run: RunKey,
    thread: Option<ThreadKey>,
    op: OpId,
    attempt: u32,
    cancel: CancellationToken,
    life: Arc<Life>,
}

impl Reports {
    fn turn(&self) -> Result<ThreadKey, Failure> {
        self.thread.ok_or_else(|| Failure::new("the run answers no thread").not_retryable())
    }

    /// What marks the chunks of every attempt at this step.
    fn part(&self) -> String {
        format!("{}:{}", self.run, self.op)
    }
}

impl Recorder for Reports {
    fn progress(&self, checkpoint: Option<Payload>) {
        self.life.sign();
        if let Some(value) = checkpoint
            && !self.cancel.is_cancelled()
        {
            let said = Said::Checkpoint { op: self.op.clone(), value };
            self.shared.tell(self.run, Woken::Said { run: self.run, said });
        }
    }

    fn append(&self, stream: &'static str, value: Payload) -> BoxFuture<'static, Result<(), Failure>> {
        self.life.sign();
        let part = format!("{}#{}", self.op, self.attempt);
        let chunk = Chunk { stream: stream.to_owned(), part, value };
        let (shared, run) = (Arc::clone(&self.shared), self.run);
        async move {
            let at = shared.clock.now();
            shared.store.append(run, vec![chunk], at).await.map_err(Failure::from)
        }
        .boxed()
    }

    fn show(&self, chunks: Vec<Payload>) -> BoxFuture<'static, Result<(), Failure>> {
        self.life.sign();
        let (shared, thread, part, stop) = (Arc::clone(&self.shared), self.turn(), self.part(), self.cancel.clone());
        async move {
            let thread = thread?;
            let stopped = || Failure::new("the attempt was told to stop: nothing more of it is shown").not_retryable();
            let show = shared.shows.begin(thread, &stop).ok_or_else(stopped)?;
            let (tasks, kill, busy) = (shared.tasks.clone(), shared.kill.clone(), shared.activity.begin());
            // A body that is dropped leaves what it has begun to write to itself; a process that dies does not.
            let written = tasks.spawn(kill.run_until_cancelled_owned(async move {
                let at = shared.clock.now();
                let written = shared.store.show(thread, &part, chunks, at).await;
                drop((show, busy));
                written
            }));
            written.await.ok().flatten().ok_or_else(stopped)?.map_err(Failure::from)
        }
        .boxed()
    }

    fn recent(&self, limit: usize) -> BoxFuture<'static, Result<Recent, Failure>> {
        let (shared, thread, part, run) = (Arc::clone(&self.shared), self.turn(), self.part(), self.run);
        async move {
            let thread = thread?;
            shared.shows.landed(thread).await;
            let window = shared.windows.of(thread, limit);
            let seen = window.as_ref().map(|window| window.seen);
            let mut recent = shared.store.recent(thread, run, limit, seen).await?;
            let was_showing = recent.last_part.take().is_some_and(|last| last == part);
            let messages = shared.windows.join(thread, limit, window, recent, |error| {
                tracing::warn!(%run, %error, "a message of the history is left out");
            });
            Ok((messages, was_showing))
        }
        .boxed()
    }

    fn messages_named(&self, ids: Vec<String>) -> BoxFuture<'static, Result<Vec<(i64, Payload)>, Failure>> {
        let (shared, thread) = (Arc::clone(&self.shared), self.turn());
        async move {
            let rows = shared.store.messages_named(thread?, &ids).await?;
            Ok(rows.into_iter().map(|row| (row.seq, row.content)).collect())
        }
        .boxed()
    }

    fn lanes(&self) -> BoxFuture<'static, Result<Vec<Lane>, Failure>> {
        let (shared, thread) = (Arc::clone(&self.shared), self.turn());
        async move { Ok(shared.store.lanes(thread?).await?) }.boxed()
    }

    fn shown_text(&self) -> BoxFuture<'static, Result<String, Failure>> {
        let (shared, thread) = (Arc::clone(&self.shared), self.turn());
        async move {
            let (thread, mut pieces) = (thread?, Vec::new());
            shared.shows.landed(thread).await;
            for chunk in shared.store.last_chunks(thread, SHOWN_MAX).await?.into_iter().rev() {
                let chunk: serde_json::Value = chunk.value.read()?;
                match chunk["type"].as_str() {
                    Some("step-start" | "step-finish") => break,
                    Some("text-delta") => pieces.push(chunk["payload"]["text"].as_str().unwrap_or_default().to_owned()),
                    _ => {}
                }
            }
            pieces.reverse();
            Ok(pieces.concat())
        }
        .boxed()
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        let (shared, life, at) = (Arc::clone(&self.shared), Arc::clone(&self.life), self.shared.clock.now() + span);
        async move { rest_until(&shared, &life, at).await }.boxed()
    }

    fn until_cancelled(&self) -> BoxFuture<'static, ()> {
        let (life, cancel) = (Arc::clone(&self.life), self.cancel.clone());
        async move {
            let _resting = life.rest();
            cancel.cancelled().await;
        }
        .boxed()
    }
}

/// The part of a transactional step that runs inside the store's transaction.
pub(super) mod transactional {
    use tokio::sync::oneshot;

    use super::{
        Arc, AssertUnwindSafe, AttemptFailure, Body, Duration, Failure, FutureExt, Job, Life, OpId, Payload, RunKey,
        Shared, Timeout, Woken, panic_message,
    };
    use crate::store::{Commit, Transacted};

    /// What is asked of the driver from within the transaction: the commit that the body's result leads to.
    pub(in crate::engine) struct Sealing {
        pub(in crate::engine) op: OpId,
        pub(in crate::engine) output: Payload,
        pub(in crate::engine) seal: oneshot::Sender<Commit>,
    }

    /// How a transactional step went.
    pub(in crate::engine) enum Transaction {
        /// The commit's verdict: applied, or why not.
        Settled(Result<Result<(), crate::store::Refusal>, crate::store::Error>),
        /// The attempt failed and nothing was written.
        Failed(AttemptFailure),
    }

    const DEADLINE: Duration = Duration::from_secs(5);

    /// Opens a transaction and runs the body in it. The driver begins no other commit of the run meanwhile.
    pub(in crate::engine) fn begin(shared: &Arc<Shared>, job: Job) {
        let under_way = (shared.activity.body(), shared.activity.begin());
        let shared = Arc::clone(shared);
        let kill = shared.kill.clone();
        let tasks = shared.tasks.clone();
        tasks.spawn(kill.run_until_cancelled_owned(async move {
            let cancel = shared.kill.child_token();
            let life = Life::begin(&shared);
            let cx = job.context(&shared, &cancel, &life);
            if let Some(told) = &shared.options.on_attempt {
                told(&cx);
            }
            let deadline = job.work.policy.timeout.unwrap_or(DEADLINE);
            let (run, op, work) = (job.run, job.op.clone(), Arc::clone(&job.work));
            let end = job.op.clone();
            let mock = shared.options.mocks.get(work.name).cloned();
            let asks = Arc::clone(&shared);
            let transacted = shared
                .store
                .transact(deadline, move |mut tx| async move {
                    let attempt = AssertUnwindSafe(async {
                        match (mock, &work.body) {
                            (Some(mock), _) => mock(cx, work.input.clone()).await,
                            (None, Body::Transactional(body)) => body(cx, &mut tx).await,
                            (None, Body::Plain(body)) => body(cx).await,
                        }
                    });
                    let output = match attempt.catch_unwind().await {
                        Ok(result) => job.fitting(result?, asks.options.payload_bytes_max)?,
                        Err(panic) => return Err(AttemptFailure::Panicked(panic_message(&*panic))),
                    };
                    let (seal, sealed) = oneshot::channel();
                    asks.tell(run, Woken::Seal { run, sealing: Sealing { op, output, seal } });
                    sealed
                        .await
                        .map_err(|_| AttemptFailure::Failed(Failure::new("the step is not waited for any more")))
                })
                .await;
            let transaction = match transacted {
                Ok(Transacted::Applied) => Transaction::Settled(Ok(Ok(()))),
                Ok(Transacted::Refused(refusal)) => Transaction::Settled(Ok(Err(refusal))),
                Ok(Transacted::Aborted(cause)) => Transaction::Failed(cause),
                Ok(Transacted::Panicked(message)) => Transaction::Failed(AttemptFailure::Panicked(message)),
                Ok(Transacted::TimedOut) => {
                    let millis = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                    Transaction::Failed(AttemptFailure::TimedOut(Timeout::Attempt(millis)))
                }
                Err(e) => Transaction::Settled(Err(e)),
            };
            tell_end(&shared, run, end, transaction);
            drop(under_way);
        }));
    }

    fn tell_end(shared: &Shared, run: RunKey, op: OpId, transaction: Transaction) {
        shared.tell(run, Woken::Transacted { run, op, transaction });
    }
}
