//! A subscription to a thread: its chunks in order, without a gap and without a repeat, from a cursor on (section 11).
//!
//! A subscriber is a cursor and a bell. What it has not seen it reads from the store, so one that is slow costs nobody
//! anything, and one that comes back goes on where it was, on whatever process. Those that keep up share what one of them
//! has read.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde_json::Value;

use super::Error;
use super::client::Client;
use super::thread::ThreadHandle;
use crate::id::ThreadKey;
use crate::message::{Category, HideSignals, THREAD_DELETED};
use crate::store::{NEW_THREADS, Store};

/// How many chunks are read at once.
const PAGE: usize = 256;

/// How far back the beginning of a run is looked for.
const LOOK_BACK: usize = 10_000;

/// How long a subscriber sleeps at the most before it looks again.
const POLL: Duration = Duration::from_secs(5);

/// How many chunks of a thread are kept for its subscribers here.
const TAIL: usize = 1_024;

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Since {
    /// With the first chunk of the run that has the thread, if one has it; else with what comes (T11.3).
    #[default]
    CurrentRun,
    /// After the chunk with this cursor (T11.10); 0 for all that is kept.
    Cursor(i64),
    /// With what comes.
    Now,
}

/// A chunk of a thread's stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its place: give it to go on after it.
    pub cursor: i64,
    /// The chunk.
    pub chunk: Arc<Value>,
}

/// What subscribers here share, by thread; forgotten with the last one of a thread.
#[derive(Debug, Default)]
pub(super) struct Feeds(Mutex<HashMap<ThreadKey, Weak<Feed>>>);

impl Feeds {
    fn of(&self, thread: ThreadKey) -> Arc<Feed> {
        let mut feeds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get(&thread).and_then(Weak::upgrade) {
            return feed;
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let feed = Arc::default();
        feeds.insert(thread, Arc::downgrade(&feed));
        feed
    }
}

/// The last chunks of a thread that some subscriber here has read, without a gap.
#[derive(Debug, Default)]
struct Feed {
    tail: Mutex<VecDeque<Seen>>,
    /// Held by the one that reads the store for all.
    reading: tokio::sync::Mutex<()>,
}

/// Where a cursor lies against the tail.
enum Lies {
    /// What follows it is there.
    Inside,
    /// At its end, or there is no tail yet: the store has to be asked.
    AtTheEnd,
    /// Before it.
    Behind,
}

impl Feed {
    /// Reads what follows a cursor, a page of it at the most.
    async fn read(&self, store: &Store, thread: ThreadKey, cursor: i64, to: &mut VecDeque<Seen>) -> Result<(), Error> {
        match self.copy(cursor, to) {
            Lies::Inside => return Ok(()),
            Lies::Behind => {
                to.extend(read(store, thread, cursor).await?);
                return Ok(());
            }
            Lies::AtTheEnd => {}
        }
        let _reading = self.reading.lock().await;
        // Another one may have read it meanwhile.
        if !matches!(self.copy(cursor, to), Lies::AtTheEnd) {
            return Ok(());
        }
        let seen = read(store, thread, cursor).await?;
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(seen.iter().cloned());
        let too_many = tail.len().saturating_sub(TAIL);
        tail.drain(..too_many);
        to.extend(seen);
        Ok(())
    }

    fn copy(&self, cursor: i64, to: &mut VecDeque<Seen>) -> Lies {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        match (tail.front(), tail.back()) {
            (Some(first), _) if cursor + 1 < first.cursor => Lies::Behind,
            (Some(_), Some(last)) if cursor < last.cursor => {
                let from = tail.partition_point(|seen| seen.cursor <= cursor);
                to.extend(tail.iter().skip(from).take(PAGE).cloned());
                Lies::Inside
            }
            _ => Lies::AtTheEnd,
        }
    }
}

async fn read(store: &Store, thread: ThreadKey, cursor: i64) -> Result<Vec<Seen>, Error> {
    let chunks = store.chunks(thread, cursor, PAGE).await?;
    let seen = |read: crate::store::Read| {
        let chunk = Arc::new(read.value.read::<Value>().unwrap_or_default());
        Seen { cursor: read.offset, chunk }
    };
    Ok(chunks.into_iter().map(seen).collect())
}

/// The cursor of the first chunk of this kind that is kept.
pub(super) async fn first_chunk(
    store: &Store,
    thread: ThreadKey,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Option<i64>, Error> {
    let chunks = store.last_chunks(thread, LOOK_BACK).await?;
    let first = chunks.iter().find(|chunk| chunk.value.read().is_ok_and(|value: Value| wanted(&value)));
    Ok(first.map(|first| first.offset))
}

/// The cursor of the last chunk of a thread; 0 if there is none.
pub(super) async fn last_chunk(store: &Store, thread: ThreadKey) -> Result<i64, Error> {
    Ok(store.last_chunks(thread, 1).await?.last().map_or(0, |last| last.offset))
}

/// A subscription to a thread. Dropping it ends it, and nothing else (T11.6).
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    thread: ThreadHandle,
    since: Since,
    /// The thread, once it is there, and the cursor of the last chunk that was read.
    at: Option<(ThreadKey, i64)>,
    read: VecDeque<Seen>,
    feed: Option<Arc<Feed>>,
    hides: HideSignals,
}

impl Subscription {
    pub(super) fn new(client: Client, thread: ThreadHandle, since: Since) -> Self {
        client.listens();
        Self { client, thread, since, at: None, read: VecDeque::new(), feed: None, hides: HideSignals::None }
    }

    /// Leaves out the echoes of some signals (T6.9).
    #[must_use]
    pub fn hiding(mut self, hides: HideSignals) -> Self {
        self.hides = hides;
        self
    }

    /// Finds where it begins, so that nothing that comes later is missed; none if the thread is not there yet. The first
    /// [`Subscription::next`] does it otherwise.
    ///
    /// # Errors
    /// If the thread is somebody else's, or the store cannot be read.
    pub async fn ready(&mut self) -> Result<Option<i64>, Error> {
        if self.at.is_none() {
            self.at = self.begin().await?;
            if self.at.is_none() && !matches!(self.since, Since::Cursor(_)) {
                // Whatever is shown there once it is made, comes later than now.
                self.since = Since::Cursor(0);
            }
        }
        Ok(self.at.map(|(_, cursor)| cursor))
    }

    /// The next chunk; waits for it. After the last chunk of a thread that was deleted it goes on with the thread that is
    /// made under its id.
    ///
    /// # Errors
    /// [`Error::ChunksGone`] if what follows the cursor is not kept any longer, and again until another subscription begins
    /// where it says. If the thread is somebody else's, or the store cannot be read; then it may be called again.
    pub async fn next(&mut self) -> Result<Seen, Error> {
        loop {
            if let Some(seen) = self.pop() {
                return Ok(seen);
            }
            let store = self.client.store().clone();
            // The bell first: what comes after it is heard, what came before it is read.
            let key = self.at.map_or(NEW_THREADS, |(thread, _)| thread.0);
            let bell = store.flows(key);
            let rung = bell.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if self.ready().await?.is_some() && self.fill().await? {
                continue;
            }
            if self.at.is_some_and(|(thread, _)| thread.0 != key) {
                continue;
            }
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// The next chunk that is there already; none if whatever comes is still to be said.
    ///
    /// # Errors
    /// As [`Subscription::next`].
    pub async fn try_next(&mut self) -> Result<Option<Seen>, Error> {
        loop {
            if let Some(seen) = self.pop() {
                return Ok(Some(seen));
            }
            if self.ready().await?.is_none() || !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// The next chunk that was read and is not hidden.
    fn pop(&mut self) -> Option<Seen> {
        while let Some(seen) = self.read.pop_front() {
            if is_the_end(&seen.chunk) {
                // What still stands there was said after the end.
                self.read.clear();
                self.feed = None;
                self.since = Since::Cursor(seen.cursor);
                self.at = None;
            }
            if !self.is_hidden(&seen.chunk) {
                return Some(seen);
            }
        }
        None
    }

    async fn fill(&mut self) -> Result<bool, Error> {
        let Some((thread, cursor)) = &mut self.at else { return Ok(false) };
        let thread = *thread;
        let feed = self.feed.get_or_insert_with(|| self.client.inner.feeds.of(thread));
        feed.read(self.client.store(), thread, *cursor, &mut self.read).await?;
        let follows = follows(&self.read, *cursor);
        if let (0, Some(first)) = (follows, self.read.front()) {
            let gone = Error::ChunksGone { cursor: *cursor, first: first.cursor, after: first.cursor - 1 };
            self.read.clear();
            return Err(gone);
        }
        self.read.truncate(follows);
        if let Some(last) = self.read.back() {
            *cursor = last.cursor;
        }
        Ok(!self.read.is_empty())
    }

    async fn begin(&self) -> Result<Option<(ThreadKey, i64)>, Error> {
        let Some(thread) = self.thread.find().await? else { return Ok(None) };
        let store = self.client.store();
        let cursor = match (self.since, &thread.current) {
            (Since::Cursor(cursor), _) => {
                let last = store.kept_chunks(thread.key).await?.map_or(0, |kept| kept.last);
                // One of another thread says nothing here.
                if cursor > last { 0 } else { cursor }
            }
            (Since::CurrentRun, Some(current)) => {
                let of_run = |chunk: &Value| chunk["runId"].as_str() == Some(current.run.as_str());
                match first_chunk(store, thread.key, of_run).await? {
                    Some(first) => first - 1,
                    // It has not said anything yet.
                    None => last_chunk(store, thread.key).await?,
                }
            }
            (Since::Now | Since::CurrentRun, _) => last_chunk(store, thread.key).await?,
        };
        Ok(Some((thread.key, cursor)))
    }

    fn is_hidden(&self, chunk: &Value) -> bool {
        let is_echo = matches!(chunk["type"].as_str(), Some("data-user-message" | "data-signal"));
        let category = chunk["data"]["type"].as_str().and_then(|word| Category::of_word(word).ok());
        is_echo && category.is_some_and(|category| self.hides.hides(category))
    }
}

/// Whether a thread ends with this chunk.
fn is_the_end(chunk: &Value) -> bool {
    chunk["type"] == THREAD_DELETED
}

/// How many of these chunks follow a cursor without a gap. All that is kept follows 0; a thread that was deleted took its
/// chunks with it, which its last two say.
fn follows(read: &VecDeque<Seen>, cursor: i64) -> usize {
    let mut last = if read.iter().take(2).any(|seen| is_the_end(&seen.chunk)) { 0 } else { cursor };
    let mut follows = |seen: &&Seen| {
        let follows = seen.cursor == last + 1 || last == 0;
        last = seen.cursor;
        follows
    };
    read.iter().take_while(|seen| follows(seen)).count()
}

/// How many messages are queued on a thread, as that changes (T9.11). Dropping it ends it.
#[derive(Debug)]
pub struct QueueCounts {
    client: Client,
    thread: ThreadHandle,
    owner: Option<String>,
    last: Option<i64>,
}

impl QueueCounts {
    pub(super) fn new(client: Client, thread: ThreadHandle, owner: Option<String>) -> Self {
        client.listens();
        Self { client, thread, owner, last: None }
    }

    /// The count as it stands, at first; then the next one that differs. Counts that follow each other quickly may be
    /// told as one.
    ///
    /// # Errors
    /// If the thread is somebody else's, or the store cannot be read. It may be called again.
    pub async fn next(&mut self) -> Result<i64, Error> {
        loop {
            let key = self.thread.find().await?.map_or(NEW_THREADS, |thread| thread.key.0);
            // The bell first: what changes after it is heard, what changed before it is read.
            let bell = self.client.store().flows(key);
            let rung = bell.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            let count = self.thread.queue_count(self.owner.as_deref()).await?;
            if self.last.replace(count) != Some(count) {
                return Ok(count);
            }
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}
