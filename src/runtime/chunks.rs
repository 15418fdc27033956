//! What one run of a thread says, until it ends or rests (H3.5, H8.3).

use std::time::Duration;

use serde_json::Value;

use super::Error;
use super::handle::RunHandle;
use super::subscription::{Seen, Since, Subscription, first_chunk, last_chunk};
use super::thread::ThreadHandle;
use crate::id::RunId;
use crate::run::Status;

/// How often it is looked whether a run rests that has said nothing for a while.
const LOOK: Duration = Duration::from_millis(100);

/// The chunks of one run. Dropping it ends it, and nothing else (H3.7).
#[derive(Debug)]
pub struct RunChunks {
    subscription: Subscription,
    run: RunHandle,
    /// Whether it may rest: then it is looked at.
    may_rest: bool,
    ended: bool,
    /// How many to leave out.
    skips: usize,
}

/// Which of a run's chunks are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From<'a> {
    /// All that are kept.
    Start,
    /// What follows the announcement that this call waits for an answer.
    Call(&'a str),
}

impl ThreadHandle {
    /// All that a run of this thread has said and will say, as far as it is kept (H9.7).
    ///
    /// # Errors
    /// [`Error::UnknownRun`], [`Error::UnknownThread`], [`Error::ForeignThread`].
    pub async fn chunks_of(&self, run: &RunId) -> Result<RunChunks, Error> {
        self.chunks_from(run, From::Start).await
    }

    /// What a run says once a call of it is answered. Ask before the answer is given; of a call that was answered long ago
    /// it tells what followed then (H8.3).
    ///
    /// # Errors
    /// As [`ThreadHandle::chunks_of`].
    pub async fn chunks_after_call(&self, run: &RunId, call: &str) -> Result<RunChunks, Error> {
        self.chunks_from(run, From::Call(call)).await
    }

    /// What a run says after a cursor that was read before it began.
    pub(super) async fn chunks_after(&self, run: &RunId, cursor: i64) -> Result<RunChunks, Error> {
        let run = self.client.find_in(&self.to.namespace, run.as_str()).await?;
        Ok(RunChunks {
            subscription: self.subscribe(Since::Cursor(cursor)),
            run,
            may_rest: false,
            ended: false,
            skips: 0,
        })
    }

    async fn chunks_from(&self, run: &RunId, from: From<'_>) -> Result<RunChunks, Error> {
        let thread = self.require().await?;
        let of_run = |chunk: &Value| chunk["runId"].as_str() == Some(run.as_str());
        let store = self.client.store();
        // First: what is said while its beginning is looked for follows this.
        let last = last_chunk(store, thread.key).await?;
        let (found, may_rest) = match from {
            From::Start => (first_chunk(store, thread.key, of_run).await?.map(|first| first - 1), false),
            From::Call(call) => {
                let announces = |chunk: &Value| {
                    matches!(chunk["type"].as_str(), Some("tool-call-approval" | "tool-call-suspended"))
                        && chunk["payload"]["toolCallId"].as_str() == Some(call)
                };
                (first_chunk(store, thread.key, |chunk| of_run(chunk) && announces(chunk)).await?, true)
            }
        };
        // What is not kept any more is not told; the run may have more to say.
        let cursor = found.unwrap_or(last);
        let run = self.client.find_in(&thread.namespace, run.as_str()).await?;
        Ok(RunChunks { subscription: self.subscribe(Since::Cursor(cursor)), run, may_rest, ended: false, skips: 0 })
    }
}

impl RunChunks {
    /// Leaves out the first so many.
    #[must_use]
    pub fn skipping(self, chunks: usize) -> Self {
        Self { skips: chunks, ..self }
    }

    /// The next chunk; none once the run has ended, or waits for somebody's answer and has nothing else to do.
    ///
    /// # Errors
    /// If the store cannot be read. It may be called again.
    pub async fn next(&mut self) -> Result<Option<Seen>, Error> {
        while !self.ended {
            let Some(seen) = self.seen().await? else { break };
            if seen.chunk["runId"].as_str() != Some(self.run.id().as_str()) {
                continue;
            }
            let kind = seen.chunk["type"].as_str().unwrap_or_default();
            self.ended = matches!(kind, "finish" | "error" | "abort");
            self.may_rest = matches!(kind, "tool-call-approval" | "tool-call-suspended");
            if self.skips == 0 {
                return Ok(Some(seen));
            }
            self.skips -= 1;
        }
        self.ended = true;
        Ok(None)
    }

    /// The next chunk of the thread; none once nothing comes before somebody does something.
    async fn seen(&mut self) -> Result<Option<Seen>, Error> {
        loop {
            // What it has said before it rested is there when it rests.
            let rests = self.may_rest && self.rests().await?;
            if let Some(seen) = self.subscription.try_next().await? {
                return Ok(Some(seen));
            }
            if rests {
                return Ok(None);
            }
            tokio::select! {
                seen = self.subscription.next() => return seen.map(Some),
                () = tokio::time::sleep(LOOK) => self.may_rest |= self.has_stopped().await?,
            }
        }
    }

    /// Whether it has ended, or needs somebody to go on.
    async fn has_stopped(&self) -> Result<bool, Error> {
        Ok(matches!(self.run.row().await?.status, Status::Blocked { .. } | Status::Closed { .. }))
    }

    async fn rests(&self) -> Result<bool, Error> {
        Ok(match self.run.row().await?.status {
            Status::Waiting { .. } | Status::Blocked { .. } | Status::Closed { .. } => true,
            Status::Due { .. } | Status::Running { .. } => false,
        })
    }
}
