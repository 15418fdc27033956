//! Steps: pieces of a run with an outside effect, whose results are recorded once.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::Stream;
use super::desk::Answer;
use crate::failure::{AttemptFailure, Failure, Fault, Timeout};
use crate::id::{OpId, RunId};
use crate::message::{Lane, Message};
use crate::payload::{Payload, Undecodable};
use crate::retry::RetryPolicy;
use crate::transaction::Tx;

/// A step under its written name, with its types and policy:
/// `const CHARGE: Step<Order, Receipt> = Step::new("charge").attempts(5).timeout(Duration::from_secs(30));`
///
/// The name is durable: a changed name is another step. One attempt is made unless more are asked for.
#[derive(Debug)]
pub struct Step<I, O, E = Failure> {
    name: &'static str,
    policy: StepPolicy,
    of: PhantomData<fn(I) -> Result<O, E>>,
}

/// How a step is tried and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepPolicy {
    /// How often and how soon to try again.
    pub retry: RetryPolicy,
    /// The longest an attempt may take.
    pub timeout: Option<Duration>,
    /// The longest an attempt may go without a sign of progress.
    pub idle_timeout: Option<Duration>,
}

impl<I, O, E> Step<I, O, E> {
    /// A step under its written name: one attempt, no timeout.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        let policy = StepPolicy { retry: RetryPolicy::ONCE, timeout: None, idle_timeout: None };
        Self { name, policy, of: PhantomData }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its policy.
    #[must_use]
    pub const fn policy(&self) -> StepPolicy {
        self.policy
    }

    /// At most `n` attempts, the first included; waits double from one second up to a minute.
    #[must_use]
    pub const fn attempts(mut self, n: u32) -> Self {
        self.policy.retry.attempts_max = n;
        self
    }

    /// Waits `first` after the first failed attempt, and `factor` times as long after each further one, up to `max`.
    #[must_use]
    pub const fn backoff(mut self, first: Duration, factor: f64, max: Duration) -> Self {
        self.policy.retry.first_delay = first;
        self.policy.retry.factor = factor;
        self.policy.retry.delay_max = max;
        self
    }

    /// Spreads the waits by this share of them: 0.2 means between 80 % and 120 %.
    #[must_use]
    pub const fn jitter(mut self, share: f64) -> Self {
        self.policy.retry.jitter = share;
        self
    }

    /// An attempt that takes longer is given up, and counts as failed.
    #[must_use]
    pub const fn timeout(mut self, span: Duration) -> Self {
        self.policy.timeout = Some(span);
        self
    }

    /// An attempt without a sign of progress for this long is given up, and counts as failed.
    #[must_use]
    pub const fn idle_timeout(mut self, span: Duration) -> Self {
        self.policy.idle_timeout = Some(span);
        self
    }

    /// All attempts together, waits included, may take this long.
    #[must_use]
    pub const fn total_timeout(mut self, span: Duration) -> Self {
        self.policy.retry.total = Some(span);
        self
    }
}

/// Why a step gave no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepError<E = Failure> {
    /// The body's last attempt returned this error.
    Failed {
        /// The step.
        step: &'static str,
        /// How many attempts there were.
        attempts: u32,
        /// The error of the last one.
        error: E,
    },
    /// The body's last attempt panicked.
    Panicked {
        /// The step.
        step: &'static str,
        /// How many attempts there were.
        attempts: u32,
        /// The panic's message.
        message: String,
    },
    /// The body ran out of time.
    TimedOut {
        /// The step.
        step: &'static str,
        /// How many attempts there were.
        attempts: u32,
        /// Which limit ran out.
        timeout: Timeout,
    },
    /// The run was asked to cancel before the body was done.
    Cancelled {
        /// The step.
        step: &'static str,
    },
}

impl<E: fmt::Display> fmt::Display for StepError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = |n: &u32| if *n == 1 { "1 attempt".to_owned() } else { format!("{n} attempts") };
        match self {
            Self::Failed { step, attempts, error } => {
                write!(f, "step {step:?} failed after {}: {error}", times(attempts))
            }
            Self::Panicked { step, attempts, message } => {
                write!(f, "step {step:?} panicked after {}: {message}", times(attempts))
            }
            Self::TimedOut { step, attempts, timeout } => {
                write!(f, "step {step:?} timed out after {}: {timeout}", times(attempts))
            }
            Self::Cancelled { step } => write!(f, "step {step:?} was given up: the run was asked to cancel"),
        }
    }
}

impl<E: fmt::Display + fmt::Debug> std::error::Error for StepError<E> {}

pub(super) fn decode_step<O: DeserializeOwned, E: Fault>(
    step: &'static str,
    answer: Answer,
) -> Result<Result<O, StepError<E>>, Undecodable> {
    Ok(match answer {
        Answer::Output(output) => Ok(output.read()?),
        Answer::Failed { attempts, cause: AttemptFailure::Failed(failure) } => {
            Err(StepError::Failed { step, attempts, error: E::from_failure(failure)? })
        }
        Answer::Failed { attempts, cause: AttemptFailure::Panicked(message) } => {
            Err(StepError::Panicked { step, attempts, message })
        }
        Answer::Failed { attempts, cause: AttemptFailure::TimedOut(timeout) } => {
            Err(StepError::TimedOut { step, attempts, timeout })
        }
        Answer::Fired | Answer::Signals(_) | Answer::Cancelled => Err(StepError::Cancelled { step }),
    })
}

/// Messages of a history, and whether what was last shown was shown by the same step.
pub type Recent = (Vec<Message>, bool);

/// What the engine does for a body while it runs.
pub trait Recorder: Send + Sync {
    /// A sign of life, with a checkpoint for the next attempt if there is one.
    fn progress(&self, checkpoint: Option<Payload>);

    /// Appends to one of the run's streams; returns once it is durable.
    fn append(&self, stream: &'static str, value: Payload) -> BoxFuture<'static, Result<(), Failure>>;

    /// Appends to what subscribers see of the thread that the run answers; returns once it is durable.
    fn show(&self, chunks: Vec<Payload>) -> BoxFuture<'static, Result<(), Failure>>;

    /// The latest messages of the history of that thread, in its order; and whether the last of what its subscribers have
    /// seen was shown by an attempt at this step.
    fn recent(&self, limit: usize) -> BoxFuture<'static, Result<Recent, Failure>>;

    /// Rows of the history of that thread by the ids of their messages, with their places, in order.
    fn messages_named(&self, ids: Vec<String>) -> BoxFuture<'static, Result<Vec<(i64, Payload)>, Failure>>;

    /// How the lanes of that thread stand, by their names.
    fn lanes(&self) -> BoxFuture<'static, Result<Vec<Lane>, Failure>>;

    /// The text that subscribers of that thread have seen of a step under way.
    fn shown_text(&self) -> BoxFuture<'static, Result<String, Failure>>;

    /// Waits on the engine's clock.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()>;

    /// Waits until the attempt is to stop.
    fn until_cancelled(&self) -> BoxFuture<'static, ()>;
}

/// What a body knows about itself. Cheap to clone.
#[derive(Clone)]
pub struct StepContext {
    pub(crate) run: RunId,
    pub(crate) op: OpId,
    pub(crate) key: Arc<str>,
    pub(crate) attempt: u32,
    pub(crate) checkpoint: Option<Payload>,
    pub(crate) cancelled: CancellationToken,
    pub(crate) recorder: Arc<dyn Recorder>,
}

/// A checkpoint that cannot be read as the type that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint of step {op} does not fit {expected}: {problem}")]
pub struct CheckpointError {
    op: OpId,
    expected: &'static str,
    problem: Undecodable,
}

impl StepContext {
    /// The run that the step belongs to.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// The same for every attempt at this step, and for no other step of any run: hand it to what the body calls.
    #[must_use]
    pub fn idempotency_key(&self) -> &str {
        &self.key
    }

    /// Which attempt this is, from 1. An attempt whose process died before its result was durable is made again
    /// under the same number.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Fires when the attempt is to stop: the run was cancelled, the step withdrawn, or its time is up.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Waits until the attempt is to stop. A body that only waits counts as resting where time is virtual.
    pub async fn until_cancelled(&self) {
        self.recorder.until_cancelled().await;
    }

    /// Waits on the engine's clock, which tests move by hand. Not durable: an attempt that begins again waits again.
    pub async fn sleep(&self, span: Duration) {
        self.recorder.sleep(span).await;
    }

    /// Says that the body is alive, which resets the idle timeout.
    pub fn progress(&self) {
        self.recorder.progress(None);
    }

    /// Says that the body is alive and how far it has come; the next attempt receives the latest value.
    ///
    /// # Errors
    /// If the value has no JSON form.
    pub fn heartbeat<T: Serialize + ?Sized>(&self, checkpoint: &T) -> Result<(), Failure> {
        self.recorder.progress(Some(Payload::of(checkpoint)?));
        Ok(())
    }

    /// The latest checkpoint of the earlier attempts, if there is one.
    ///
    /// # Errors
    /// [`CheckpointError`] if it does not fit `T`.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, CheckpointError> {
        self.checkpoint.as_ref().map(Payload::read).transpose().map_err(|problem| CheckpointError {
            op: self.op.clone(),
            expected: std::any::type_name::<T>(),
            problem,
        })
    }

    /// Appends to one of the run's streams, marked with this attempt; returns once it is durable.
    ///
    /// # Errors
    /// If the value has no JSON form or the store does not take it.
    pub async fn append<T: Serialize>(&self, stream: &Stream<T>, value: &T) -> Result<(), Failure> {
        self.recorder.append(stream.name(), Payload::of(value)?).await
    }
}

/// What a step of a turn may ask about the thread that the turn answers.
impl StepContext {
    /// Shows chunks to the thread's subscribers; returns once they are durable. They are not part of the step's result:
    /// an attempt that is made again shows its own.
    ///
    /// # Errors
    /// If the run is no turn, or the store does not take them.
    pub async fn show(&self, chunks: Vec<Payload>) -> Result<(), Failure> {
        self.recorder.show(chunks).await
    }

    /// The text that the thread's subscribers have seen since the last step of a turn began, if that step has not ended.
    ///
    /// # Errors
    /// If the run is no turn, or the store cannot be read.
    pub async fn shown_text(&self) -> Result<String, Failure> {
        self.recorder.shown_text().await
    }

    /// The latest messages of the thread's history, in its order, without those that others have put there since the turn
    /// began (T7.4); a row that cannot be read is left out, with a warning. And whether the last thing that the thread's
    /// subscribers have seen was shown by an earlier attempt at this step: then it is not part of any result.
    ///
    /// # Errors
    /// If the run is no turn, or the store cannot be read.
    pub async fn recent(&self, limit: usize) -> Result<(Vec<Message>, bool), Failure> {
        self.recorder.recent(limit).await
    }

    /// Messages of the thread's history by their ids, in its order; those that are not there are left out.
    ///
    /// # Errors
    /// If the run is no turn, or the store cannot be read.
    pub async fn messages_named(&self, ids: Vec<String>) -> Result<Vec<Message>, Failure> {
        Ok(self.read(self.recorder.messages_named(ids).await?))
    }

    /// How the lanes of the thread's state signals stand, by their names.
    ///
    /// # Errors
    /// If the run is no turn, or the store cannot be read.
    pub async fn lanes(&self) -> Result<Vec<Lane>, Failure> {
        self.recorder.lanes().await
    }

    fn read(&self, rows: Vec<(i64, Payload)>) -> Vec<Message> {
        let read = rows.into_iter().filter_map(|(seq, row)| {
            let row: serde_json::Value = row.read().ok()?;
            Message::of_row(seq, &row)
                .inspect_err(|error| tracing::warn!(run = %self.run, %error, "a message of the history is left out"))
                .ok()
        });
        read.collect()
    }
}

impl fmt::Debug for StepContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StepContext({} {}, attempt {})", self.run, self.op, self.attempt)
    }
}

type TransactionalBody = dyn for<'a> Fn(StepContext, &'a mut Tx) -> AttemptIn<'a> + Send + Sync;
type AttemptIn<'a> = BoxFuture<'a, Result<Payload, AttemptFailure>>;
type Attempt = BoxFuture<'static, Result<Payload, AttemptFailure>>;

/// A step's body, its types erased.
#[derive(Clone)]
pub(crate) enum Body {
    /// Runs on its own.
    Plain(Arc<dyn Fn(StepContext) -> Attempt + Send + Sync>),
    /// Runs inside the store's own transaction, which its result is committed with.
    Transactional(Arc<TransactionalBody>),
}

impl Body {
    /// Whether it runs inside the store's own transaction.
    pub(crate) fn is_transactional(&self) -> bool {
        matches!(self, Self::Transactional(_))
    }
}

/// Erases what a body returned.
pub(super) fn erase<O: Serialize, E: Fault>(result: Result<O, E>) -> Result<Payload, AttemptFailure> {
    match result {
        Ok(output) => Payload::of(&output).map_err(|e| AttemptFailure::Failed(Failure::from(e).not_retryable())),
        Err(error) => Err(AttemptFailure::Failed(error.into_failure())),
    }
}
