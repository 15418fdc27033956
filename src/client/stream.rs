//! A stream that comes back: after a lost connection it goes on behind the last chunk that was seen.

use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use sse_stream::{Sse, SseStream};
use tokio::time::Instant;

use super::{Client, Error};

/// How long it tries to come back before it gives up, unless it is said.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long it waits between two tries at first, and at the most.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// Something that was said on a thread.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Where it stands: go on after it, on any server of the store.
    pub cursor: String,
    /// What was said.
    pub chunk: Value,
}

/// What is said on a thread, without a gap and without a repeat, across lost connections and servers that were killed.
pub struct Stream {
    client: Client,
    path: Vec<String>,
    thread: String,
    resource: String,
    after: Option<String>,
    patience: Duration,
    from_the_first: bool,
    events: Option<Events>,
}

type Events = Pin<Box<dyn futures::Stream<Item = Result<Sse, sse_stream::Error>> + Send>>;

impl Stream {
    pub(super) async fn open(
        client: Client,
        path: Vec<String>,
        thread: String,
        resource: String,
        after: Option<&str>,
    ) -> Result<Self, Error> {
        let after = after.map(str::to_owned);
        let mut stream =
            Self { client, path, thread, resource, after, patience: PATIENCE, from_the_first: false, events: None };
        stream.events = Some(stream.connect(stream.after.as_deref()).await?);
        Ok(stream)
    }

    /// How long it tries to come back before it gives up; five minutes if nothing is said.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// If it has to come back before it has seen anything, it begins with the first chunk that is kept: nothing is missed,
    /// and there may be chunks from before it began. If nothing is said, it begins with the current run then.
    #[must_use]
    pub fn missing_nothing(mut self) -> Self {
        self.from_the_first = true;
        self
    }

    /// The next chunk. Waits as long as nothing is said.
    ///
    /// # Errors
    /// What the server refuses for good, or why it could not be reached for as long as there was patience.
    pub async fn next(&mut self) -> Result<Said, Error> {
        loop {
            if self.events.is_none() {
                self.events = Some(self.come_back().await?);
            }
            match self.said().await {
                Some(said) => return Ok(said),
                None => self.events = None,
            }
        }
    }

    /// The next chunk of this connection; none if it is gone.
    async fn said(&mut self) -> Option<Said> {
        let events = self.events.as_mut()?;
        loop {
            let event = events.next().await?.ok()?;
            // What keeps the connection alive says nothing.
            let Some(data) = event.data else { continue };
            let Ok(chunk) = serde_json::from_str::<Value>(&data) else { continue };
            let Some(cursor) = chunk["cursor"].as_str().map(str::to_owned) else { continue };
            self.after = Some(cursor.clone());
            return Some(Said { cursor, chunk });
        }
    }

    async fn come_back(&self) -> Result<Events, Error> {
        let until = Instant::now() + self.patience;
        let mut again = AGAIN;
        loop {
            let first = self.from_the_first.then_some("0");
            let connected = match self.connect(self.after.as_deref().or(first)).await {
                // The first chunks of all are not kept any longer, and none of them was wanted.
                Err(Error::Refused { code, .. }) if code == "chunks_gone" && self.after.is_none() => {
                    self.connect(None).await
                }
                connected => connected,
            };
            match connected {
                Err(error) if error.may_pass() && Instant::now() + again < until => {
                    tokio::time::sleep(again).await;
                    again = (again * 2).min(AGAIN_MAX);
                }
                connected => return connected,
            }
        }
    }

    async fn connect(&self, after: Option<&str>) -> Result<Events, Error> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let body = json!({ "threadId": self.thread, "resourceId": self.resource, "after": after });
        let request = self.client.request(Method::POST, &path).json(&body);
        let response = self.client.sent(request).await?;
        Ok(Box::pin(SseStream::from_bytes_stream(response.bytes_stream())))
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("thread", &self.thread).field("after", &self.after).finish_non_exhaustive()
    }
}
