//! Copying a thread: its history up to a message, as a thread of its own. What is copied gets ids of its own, so that nothing
//! that is done to one thread is done to the other.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::lanes;
use super::make::{self, NewThread};
use super::open::Store;
use super::start::CallerTx;
use super::threads::{Message, MessageRow};
use super::turns::{self, Entry};
use super::{Error, writer};
use crate::id::ThreadKey;
use crate::message::Lane;
use crate::payload::Payload;
use crate::thread::NewMessage;

/// How many messages are copied at once.
const PAGE: i64 = 500;

/// What is to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyThread {
    /// The thread whose history is copied.
    pub from: ThreadKey,
    /// The last message that is copied, by its id; all of them if none.
    pub until: Option<String>,
    /// The thread that is made.
    pub to: NewThread,
}

/// Why a thread was not copied. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCopied {
    /// There is a thread of that id.
    #[error("there is a thread {thread} already; a copy needs an id of its own")]
    IdInUse {
        /// The id.
        thread: String,
    },
    /// The history has no such message.
    #[error("there is no message {message} on the thread")]
    UnknownMessage {
        /// The message's id.
        message: String,
    },
}

impl Store {
    /// Copies a thread's history, in its order and with its times, to a new thread; tells how many messages. State lanes
    /// come along if the signal that they stand by does. Calls that wait, the queue and what subscribers were shown stay.
    ///
    /// # Errors
    /// The inner one says why it was not copied; nothing was written. [`Error::Unavailable`], [`Error::Closed`].
    pub async fn copy_thread(&self, asked: CopyThread) -> Result<Result<usize, NotCopied>, Error> {
        let lanes: Vec<String> = self.lanes(asked.from).await?.into_iter().map(|lane| lane.id).collect();
        let asked = Arc::new((asked, lanes));
        let copied = self
            .alone("copy a thread", move |tx, doubtful| {
                let asked = Arc::clone(&asked);
                Box::pin(async move { copy(tx, &asked.0, &asked.1, doubtful).await })
            })
            .await?;
        self.0.shared.flows.ring(super::NEW_THREADS);
        self.0.shared.elsewhere.notify_one();
        Ok(copied)
    }
}

async fn copy(
    mut tx: CallerTx<'_>,
    asked: &CopyThread,
    lanes: &[String],
    doubtful: bool,
) -> Result<Result<usize, NotCopied>, sqlx::Error> {
    writer::begin(tx.again()).await?;
    let there: Option<(i64, i64)> = twins!(CallerTx: tx.again(), there(&asked.to))?;
    let copied = match there {
        // It landed, and nobody was told.
        Some((key, messages)) if doubtful && key == asked.to.key.0 => Ok(usize::try_from(messages).unwrap_or(0)),
        Some(_) => Err(NotCopied::IdInUse { thread: asked.to.id.to_string() }),
        None => match until(tx.again(), asked).await? {
            Err(unknown) => Err(unknown),
            Ok(until) => copy_until(tx.again(), asked, until, lanes).await?,
        },
    };
    writer::end(tx).await?;
    Ok(copied)
}

async fn until(tx: CallerTx<'_>, asked: &CopyThread) -> Result<Result<i64, NotCopied>, sqlx::Error> {
    let Some(message) = &asked.until else { return Ok(Ok(i64::MAX)) };
    let place: Option<i64> = twins!(CallerTx: tx, place(asked.from, message))?;
    Ok(place.ok_or_else(|| NotCopied::UnknownMessage { message: message.clone() }))
}

async fn copy_until(
    mut tx: CallerTx<'_>,
    asked: &CopyThread,
    until: i64,
    lanes: &[String],
) -> Result<Result<usize, NotCopied>, sqlx::Error> {
    let names: Vec<(ThreadKey, &str)> = lanes.iter().map(|lane| (asked.from, lane.as_str())).collect();
    let standing = lanes::standing(tx.again(), &names).await?;
    let mut ids: HashMap<String, String> = HashMap::new();
    let mut copies: Vec<NewMessage> = Vec::new();
    let mut after = 0;
    loop {
        let rows: Vec<MessageRow> = twins!(CallerTx: tx.again(), page(asked.from, after, until, PAGE))?;
        let full = rows.len() as i64 == PAGE;
        for row in rows {
            let message = Message::try_from(row).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
            after = message.seq;
            let id = uuid::Uuid::new_v4().to_string();
            copies.extend(copied(&message, &id, &asked.to));
            ids.insert(message.id, id);
        }
        if !full {
            break;
        }
    }
    // A thread is not older than what is said on it.
    let at = copies.iter().map(|it| it.at).min().map_or(asked.to.at, |first| first.min(asked.to.at));
    make::insert(tx.again(), vec![NewThread { at, ..asked.to.clone() }]).await?;
    let made: Option<(i64, i64)> = twins!(CallerTx: tx.again(), there(&asked.to))?;
    if made.is_none_or(|(key, _)| key != asked.to.key.0) {
        // Somebody was faster.
        return Ok(Err(NotCopied::IdInUse { thread: asked.to.id.to_string() }));
    }
    for some in copies.chunks(PAGE as usize) {
        let entries: Vec<Entry<'_>> =
            some.iter().map(|message| Entry { thread: asked.to.key, run: None, message }).collect();
        turns::add_messages(tx.again(), &entries).await?;
    }
    twins!(CallerTx: tx.again(), made_at(&asked.to))?;
    let lanes: Vec<Lane> = standing.into_values().filter_map(|lane| along(lane, &ids)).collect();
    let lanes: Vec<(ThreadKey, &Lane)> = lanes.iter().map(|lane| (asked.to.key, lane)).collect();
    lanes::track(tx, &lanes).await?;
    Ok(Ok(copies.len()))
}

/// A message under its new id, on its new thread; none, with a warning, if its row is none.
fn copied(message: &Message, id: &str, to: &NewThread) -> Option<NewMessage> {
    let role = ["user", "assistant", "system", "signal"].into_iter().find(|role| *role == message.role)?;
    let category = ["user", "notification", "reactive", "state"].into_iter();
    let category = message.category.as_deref().and_then(|word| category.into_iter().find(|it| *it == word));
    let mut row: Value = message.content.read().ok()?;
    if let Value::Object(fields) = &mut row {
        for (name, value) in [("id", id), ("threadId", to.id.as_str()), ("resourceId", to.resource.as_str())] {
            fields.insert(name.to_owned(), Value::from(value));
        }
    }
    if let Some(own) = row.pointer_mut("/content/metadata/signal/id") {
        *own = Value::from(id);
    }
    if let Some(thread) = row.pointer_mut("/content/metadata/signal/metadata/state/threadId") {
        *thread = Value::from(to.id.as_str());
    }
    let row = Payload::of(&row).ok()?;
    Some(NewMessage { id: id.to_owned(), role, category, row, at: message.created_at, again: false })
}

/// A lane as it stands on the copy, if the signal that it stands by was copied.
fn along(lane: Lane, ids: &HashMap<String, String>) -> Option<Lane> {
    let copies = lane.active_copies.into_iter();
    let copies = copies.filter_map(|copy| Some(crate::message::LaneCopy { id: ids.get(&copy.id)?.clone(), ..copy }));
    Some(Lane {
        last_signal_id: ids.get(&lane.last_signal_id)?.clone(),
        last_snapshot_signal_id: lane.last_snapshot_signal_id.and_then(|id| ids.get(&id).cloned()),
        active_copies: copies.collect(),
        ..lane
    })
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::{MessageRow, NewThread, ThreadKey};

    pub(super) async fn there(tx: &mut SqliteConnection, new: &NewThread) -> Result<Option<(i64, i64)>, sqlx::Error> {
        sqlx::query_as(
            "select t.key, (select count(*) from messages m where m.thread = t.key)
             from threads t
             where t.namespace = $1 and t.id = $2",
        )
        .bind(new.namespace.as_str())
        .bind(new.id.as_str())
        .fetch_optional(tx)
        .await
    }

    pub(super) async fn place(
        tx: &mut SqliteConnection,
        thread: ThreadKey,
        message: &str,
    ) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar("select seq from messages where thread = $1 and id = $2 and deleted_at is null")
            .bind(thread.0)
            .bind(message)
            .fetch_optional(tx)
            .await
    }

    pub(super) async fn page(
        tx: &mut SqliteConnection,
        thread: ThreadKey,
        after: i64,
        until: i64,
        limit: i64,
    ) -> Result<Vec<MessageRow>, sqlx::Error> {
        sqlx::query_as(
            "select seq, id, role, category, run, created_at, content
             from messages
             where thread = $1 and seq > $2 and seq <= $3 and deleted_at is null
             order by seq
             limit $4",
        )
        .bind(thread.0)
        .bind(after)
        .bind(until)
        .bind(limit)
        .fetch_all(tx)
        .await
    }

    pub(super) async fn made_at(tx: &mut SqliteConnection, new: &NewThread) -> Result<(), sqlx::Error> {
        sqlx::query("update threads set created_at = $2, updated_at = max(updated_at, $2) where key = $1")
            .bind(new.key.0)
            .bind(new.at.0)
            .execute(tx)
            .await
            .map(drop)
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::{MessageRow, NewThread, ThreadKey};

    pub(super) async fn there(tx: &mut PgConnection, new: &NewThread) -> Result<Option<(i64, i64)>, sqlx::Error> {
        sqlx::query_as(
            "select t.key, (select count(*) from messages m where m.thread = t.key)
             from threads t
             where t.namespace = $1
               and t.id = $2",
        )
        .bind(new.namespace.as_str())
        .bind(new.id.as_str())
        .fetch_optional(tx)
        .await
    }

    pub(super) async fn place(
        tx: &mut PgConnection,
        thread: ThreadKey,
        message: &str,
    ) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar(
            "select seq
             from messages
             where thread = $1
               and id = $2
               and deleted_at is null",
        )
        .bind(thread.0)
        .bind(message)
        .fetch_optional(tx)
        .await
    }

    pub(super) async fn page(
        tx: &mut PgConnection,
        thread: ThreadKey,
        after: i64,
        until: i64,
        limit: i64,
    ) -> Result<Vec<MessageRow>, sqlx::Error> {
        sqlx::query_as(
            "select seq, id, role, category, run, created_at, content
             from messages
             where thread = $1
               and seq > $2
               and seq <= $3
               and deleted_at is null
             order by seq
             limit $4",
        )
        .bind(thread.0)
        .bind(after)
        .bind(until)
        .bind(limit)
        .fetch_all(tx)
        .await
    }

    pub(super) async fn made_at(tx: &mut PgConnection, new: &NewThread) -> Result<(), sqlx::Error> {
        sqlx::query(
            "update threads
             set created_at = $2,
                 updated_at = greatest(updated_at, $2)
             where key = $1",
        )
        .bind(new.key.0)
        .bind(new.at.0)
        .execute(tx)
        .await
        .map(drop)
    }
}
