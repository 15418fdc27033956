//! A run as it goes on, wherever it runs.

use std::time::Duration;

use futures::future::BoxFuture;

use super::told::Told;
use crate::id::Seq;
use crate::runtime::{Error, RunHandle};
use crate::store::History;

/// How often a run is looked at by who follows it.
const LOOK: Duration = Duration::from_millis(100);

/// A run that somebody follows. It holds nothing but its place.
pub(super) struct Watched {
    run: RunHandle,
    /// Done once the run has ended or is blocked: told at once, if that happens in this process.
    settles: Option<BoxFuture<'static, ()>>,
    seen: Option<(Seq, &'static str, i64)>,
}

impl Watched {
    pub(super) fn new(run: RunHandle) -> Self {
        let watched = run.clone();
        // If it cannot be read the next look says so.
        let settles = Box::pin(async move { drop(watched.settled().await) });
        Self { run, settles: Some(settles), seen: None }
    }

    /// The run as it stands, at first; then once it has changed.
    pub(super) async fn next(&mut self) -> Result<History, Error> {
        loop {
            let row = self.run.row().await?;
            let found = (row.head, row.status.word(), row.signals_pending);
            if self.seen != Some(found) {
                self.seen = Some(found);
                return self.run.history().await;
            }
            self.pause().await;
        }
    }

    async fn pause(&mut self) {
        let Some(settles) = &mut self.settles else { return tokio::time::sleep(LOOK).await };
        tokio::select! {
            () = settles => self.settles = None,
            () = tokio::time::sleep(LOOK) => {}
        }
    }

    /// The run once nothing comes before somebody does something, and what its journal tells.
    pub(super) async fn at_rest(&mut self) -> Result<(History, Told), Error> {
        loop {
            let history = self.next().await?;
            let told = Told::of(&history);
            if told.rests(&history) {
                return Ok((history, told));
            }
        }
    }
}
