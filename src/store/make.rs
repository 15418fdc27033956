//! Making threads and changing what clients keep with them (H10.3, H10.4). A thread that is made under the id of one that was
//! deleted goes on counting where that one had come to: no cursor of before means anything else now.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::open::Store;
use super::receive::{NEW_THREADS, NotReceived};
use super::start::CallerTx;
use super::{Error, writer};
use crate::clock::Instant;
use crate::id::{Namespace, ThreadId, ThreadKey};
use crate::payload::Payload;

/// A thread that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewThread {
    /// Its key, from a block that this process reserved.
    pub key: ThreadKey,
    /// Its namespace.
    pub namespace: Namespace,
    /// What the outside calls it.
    pub id: ThreadId,
    /// Its owner.
    pub resource: String,
    /// What people call it.
    pub title: String,
    /// What clients keep with it: a JSON object, or null.
    pub metadata: Payload,
    /// Whether it is not listed: it is one direct call's.
    pub aside: bool,
    /// When.
    pub at: Instant,
}

/// What is to be changed about a thread; what is left out stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadChange {
    /// Its namespace.
    pub namespace: Namespace,
    /// The thread.
    pub id: ThreadId,
    /// Who it must belong to; anybody if none.
    pub resource: Option<String>,
    /// What people call it.
    pub title: Option<String>,
    /// What clients keep with it, instead of what they kept; the key `mastra` stays (H10.4).
    pub metadata: Option<Payload>,
    /// When.
    pub at: Instant,
}

impl Store {
    /// Makes a thread; one that is there and belongs to the same owner gets the title and the metadata (H10.3).
    ///
    /// # Errors
    /// The inner one is [`NotReceived::Foreign`]: it belongs to somebody else, and nothing was written.
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn make_thread(&self, new: NewThread, change: ThreadChange) -> Result<Result<(), NotReceived>, Error> {
        let asked = Arc::new((new, change));
        let made = self
            .alone("make a thread", move |tx, _| {
                let asked = Arc::clone(&asked);
                Box::pin(async move { make(tx, &asked.0, &asked.1).await })
            })
            .await?;
        self.0.shared.flows.ring(NEW_THREADS);
        self.0.shared.elsewhere.notify_one();
        Ok(made)
    }

    /// Changes a thread; false if it is not there.
    ///
    /// # Errors
    /// As [`Store::make_thread`].
    pub async fn change_thread(&self, change: ThreadChange) -> Result<Result<bool, NotReceived>, Error> {
        let change = Arc::new(change);
        self.alone("change a thread", move |mut tx, _| {
            let asked = Arc::clone(&change);
            Box::pin(async move {
                writer::begin(tx.again()).await?;
                let changed = change_it(tx.again(), &asked).await?;
                writer::end(tx).await?;
                Ok(changed)
            })
        })
        .await
    }
}

async fn make(
    mut tx: CallerTx<'_>,
    new: &NewThread,
    change: &ThreadChange,
) -> Result<Result<(), NotReceived>, sqlx::Error> {
    writer::begin(tx.again()).await?;
    let made = match change_it(tx.again(), change).await? {
        Ok(false) => {
            insert(tx.again(), vec![new.clone()]).await?;
            // Somebody may have been faster.
            change_it(tx.again(), change).await?.map(drop)
        }
        found => found.map(drop),
    };
    writer::end(tx).await?;
    Ok(made)
}

async fn change_it(mut tx: CallerTx<'_>, change: &ThreadChange) -> Result<Result<bool, NotReceived>, sqlx::Error> {
    let kept: Option<KeptRow> = twins!(CallerTx: tx.again(), kept(&change.namespace, &change.id))?;
    let Some(kept) = kept else { return Ok(Ok(false)) };
    if change.resource.as_ref().is_some_and(|resource| *resource != kept.resource) {
        return Ok(Err(NotReceived::Foreign));
    }
    let metadata = change.metadata.as_ref().map(|given| kept.replaced_by(given)).transpose()?;
    twins!(CallerTx: tx, change(kept.key, change.title.as_deref(), metadata.as_ref(), change.at))?;
    Ok(Ok(true))
}

/// Makes threads; one that is there by now stays as it is.
pub(super) async fn insert(tx: CallerTx<'_>, mut new: Vec<NewThread>) -> Result<(), sqlx::Error> {
    new.sort_by(|a, b| (a.namespace.as_str(), a.id.as_str()).cmp(&(b.namespace.as_str(), b.id.as_str())));
    new.dedup_by(|a, b| a.namespace == b.namespace && a.id == b.id);
    twins!(CallerTx: tx, insert(&new))
}

/// A thread as a change finds it: `key, resource, metadata`
#[derive(Debug, sqlx::FromRow)]
struct KeptRow {
    key: i64,
    resource: String,
    metadata: Vec<u8>,
}

impl KeptRow {
    /// The metadata that is given, with what the runtime keeps under `mastra`.
    fn replaced_by(&self, given: &Payload) -> Result<Payload, sqlx::Error> {
        let corrupt = |e: String| sqlx::Error::Decode(format!("the metadata of thread {}: {e}", self.key).into());
        let old = super::read::payload_of(self.metadata.clone()).map_err(|e| corrupt(e.to_string()))?;
        let mut old: Value = old.read().map_err(|e| corrupt(e.to_string()))?;
        let mut new: Value = given.read().map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
        let own = old.get_mut("mastra").and_then(Value::as_object_mut);
        let mut own: Map<String, Value> = own.map(std::mem::take).unwrap_or_default();
        if let Some(Value::Object(given)) = new.get_mut("mastra").map(Value::take) {
            own.extend(given);
        }
        // How lanes stand is shown there, and kept elsewhere.
        own.shift_remove("stateSignals");
        if let Value::Object(fields) = &mut new {
            fields.shift_remove("mastra");
        }
        if !own.is_empty() {
            if !new.is_object() {
                new = Value::Object(Map::new());
            }
            new["mastra"] = Value::Object(own);
        }
        Payload::of(&new).map_err(|e| sqlx::Error::Encode(Box::new(e)))
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::{Instant, KeptRow, Namespace, NewThread, Payload, ThreadId};
    use crate::store::json::Json;

    pub(super) async fn kept(
        tx: &mut SqliteConnection,
        namespace: &Namespace,
        id: &ThreadId,
    ) -> Result<Option<KeptRow>, sqlx::Error> {
        sqlx::query_as("select key, resource, metadata from threads where namespace = $1 and id = $2")
            .bind(namespace.as_str())
            .bind(id.as_str())
            .fetch_optional(tx)
            .await
    }

    pub(super) async fn change(
        tx: &mut SqliteConnection,
        thread: i64,
        title: Option<&str>,
        metadata: Option<&Payload>,
        at: Instant,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "update threads
             set title = coalesce($2, title), metadata = coalesce(cast($3 as blob), metadata),
                 updated_at = max(updated_at, $4)
             where key = $1",
        )
        .bind(thread)
        .bind(title)
        .bind(metadata.map(Payload::as_str))
        .bind(at.0)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn insert(tx: &mut SqliteConnection, new: &[NewThread]) -> Result<(), sqlx::Error> {
        let mut json = Json::default();
        for it in new {
            let row = json.row().int(it.key.0).text(it.namespace.as_str()).text(it.id.as_str());
            row.text(&it.resource).int(it.at.0).text(&it.title).text(it.metadata.as_str()).int(it.aside.into());
        }
        sqlx::query(
            "insert into threads (key, namespace, id, resource, title, metadata, aside, last_seq, created_at, updated_at)
             select n.value ->> 0, n.value ->> 1, n.value ->> 2, n.value ->> 3, n.value ->> 5,
                    cast(n.value ->> 6 as blob), n.value ->> 7, coalesce(d.last_seq, 0), n.value ->> 4, n.value ->> 4
             from json_each($1) n
             left join deleted_threads d on d.namespace = n.value ->> 1 and d.id = n.value ->> 2
             where true
             on conflict do nothing;

             insert into streams (run, stream, place, part, at, value)
             select t.key, 'chunks', d.last_chunk, 'deleted', d.deleted_at, d.chunk
             from json_each($1) n
             cross join deleted_threads d on d.namespace = n.value ->> 1 and d.id = n.value ->> 2
             cross join threads t on t.key = n.value ->> 0
             where true
             on conflict do nothing",
        )
        .bind(json.done())
        .execute(tx)
        .await
        .map(drop)
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::{Instant, KeptRow, Namespace, NewThread, Payload, ThreadId};

    pub(super) async fn kept(
        tx: &mut PgConnection,
        namespace: &Namespace,
        id: &ThreadId,
    ) -> Result<Option<KeptRow>, sqlx::Error> {
        sqlx::query_as(
            "select key, resource, metadata
             from threads
             where namespace = $1
               and id = $2
             for no key update",
        )
        .bind(namespace.as_str())
        .bind(id.as_str())
        .fetch_optional(tx)
        .await
    }

    pub(super) async fn change(
        tx: &mut PgConnection,
        thread: i64,
        title: Option<&str>,
        metadata: Option<&Payload>,
        at: Instant,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "update threads
             set title = coalesce($2, title),
                 metadata = coalesce($3, metadata),
                 updated_at = greatest(updated_at, $4)
             where key = $1",
        )
        .bind(thread)
        .bind(title)
        .bind(metadata.map(|it| it.as_str().as_bytes()))
        .bind(at.0)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn insert(tx: &mut PgConnection, new: &[NewThread]) -> Result<(), sqlx::Error> {
        let keys: Vec<i64> = new.iter().map(|it| it.key.0).collect();
        let namespaces: Vec<&str> = new.iter().map(|it| it.namespace.as_str()).collect();
        let ids: Vec<&str> = new.iter().map(|it| it.id.as_str()).collect();
        let resources: Vec<&str> = new.iter().map(|it| it.resource.as_str()).collect();
        let titles: Vec<&str> = new.iter().map(|it| it.title.as_str()).collect();
        let metadata: Vec<&[u8]> = new.iter().map(|it| it.metadata.as_str().as_bytes()).collect();
        let aside: Vec<bool> = new.iter().map(|it| it.aside).collect();
        let ats: Vec<i64> = new.iter().map(|it| it.at.0).collect();
        sqlx::query(
            "with made as (
               insert into threads (key, namespace, id, resource, title, metadata, aside, last_seq, created_at, updated_at)
               select n.key, n.namespace, n.id, n.resource, n.title, n.metadata, n.aside,
                      coalesce((
                        select d.last_seq
                        from deleted_threads d
                        where d.namespace = n.namespace
                          and d.id = n.id), 0),
                      n.at, n.at
               from unnest(
                      $1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::boolean[], $8::bigint[])
                 as n (key, namespace, id, resource, title, metadata, aside, at)
               order by n.namespace, n.id
               on conflict do nothing
               returning key, namespace, id
             )
             insert into streams (run, stream, place, part, at, value)
             select made.key, 'chunks', d.last_chunk, 'deleted', d.deleted_at, d.chunk
             from made
             cross join lateral (
               select last_chunk, deleted_at, chunk
               from deleted_threads
               where namespace = made.namespace
                 and id = made.id
               limit 1
             ) d",
        )
        .bind(&keys)
        .bind(&namespaces)
        .bind(&ids)
        .bind(&resources)
        .bind(&titles)
        .bind(&metadata)
        .bind(&aside)
        .bind(&ats)
        .execute(tx)
        .await
        .map(drop)
    }
}
