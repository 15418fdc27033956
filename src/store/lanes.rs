//! `lanes`: the tracking of state signals. It is read and written in the transaction that accepts one, under the lock of
//! its thread's row: of two producers at once, the later sees what the earlier has left (T14.6).

use std::collections::HashMap;

use super::open::{Inner, Store};
use super::start::CallerTx;
use super::{Error, read};
use crate::clock::Instant;
use crate::id::ThreadKey;
use crate::message::{Lane, Mode};

/// What a state signal says of its lane, at the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneChange {
    /// The lane.
    pub lane: String,
    /// The producer's name for the content.
    pub cache_key: String,
    /// Whole truth or change.
    pub mode: Mode,
}

/// Lanes as they stand, by thread and name.
pub(super) type Standing = HashMap<(ThreadKey, String), Lane>;

impl Store {
    /// How the lanes of a thread stand, by their names.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`]; [`Error::Corrupt`] for a row that contradicts itself.
    pub async fn lanes(&self, thread: ThreadKey) -> Result<Vec<Lane>, Error> {
        self.readable().await?;
        let rows: Vec<LaneRow> =
            twins!(Inner: &self.0.inner, lanes(thread)).map_err(|e| Error::unavailable("read the lanes", e))?;
        let lanes = rows.into_iter().map(|row| row.lane().map(|(_, lane)| lane));
        lanes.collect::<Result<_, _>>().map_err(|found| Error::Corrupt { found })
    }
}

/// How lanes stand, in a transaction that holds their threads.
pub(super) async fn standing(tx: CallerTx<'_>, of: &[(ThreadKey, &str)]) -> Result<Standing, sqlx::Error> {
    if of.is_empty() {
        return Ok(Standing::new());
    }
    let rows: Vec<LaneRow> = twins!(CallerTx: tx, standing(of))?;
    let lanes = rows.into_iter().map(|row| row.lane().map(|(thread, lane)| ((thread, lane.id.clone()), lane)));
    lanes.collect::<Result<_, _>>().map_err(|found| sqlx::Error::Decode(found.into()))
}

/// Notes how lanes stand from now on.
pub(super) async fn track(tx: CallerTx<'_>, lanes: &[(ThreadKey, &Lane)]) -> Result<(), sqlx::Error> {
    if lanes.is_empty() {
        return Ok(());
    }
    twins!(CallerTx: tx, track(lanes))
}

/// A lane's signals that the model could see, as they are kept.
fn copies(lane: &Lane) -> Result<String, sqlx::Error> {
    serde_json::to_string(&lane.active_copies).map_err(|e| sqlx::Error::Encode(Box::new(e)))
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Snapshot => "snapshot",
        Mode::Delta => "delta",
    }
}

/// `thread, lane, cache_key, mode, version, last_signal, last_snapshot, updated_at, copies`
#[derive(Debug, sqlx::FromRow)]
struct LaneRow {
    thread: i64,
    lane: String,
    cache_key: String,
    mode: String,
    version: i64,
    last_signal: String,
    last_snapshot: Option<String>,
    updated_at: i64,
    copies: Vec<u8>,
}

impl LaneRow {
    fn lane(self) -> Result<(ThreadKey, Lane), String> {
        let corrupt = |found: String| format!("lane {:?} of thread {}: {found}", self.lane, self.thread);
        let mode = [Mode::Snapshot, Mode::Delta].into_iter().find(|mode| word(*mode) == self.mode);
        let lane = Lane {
            current_mode: mode.ok_or_else(|| corrupt(format!("its mode is {:?}", self.mode)))?,
            version: u64::try_from(self.version).map_err(|e| corrupt(e.to_string()))?,
            active_copies: read::payload_of(self.copies)
                .map_err(|e| corrupt(e.to_string()))?
                .read()
                .map_err(|e| corrupt(e.to_string()))?,
            id: self.lane.clone(),
            current_cache_key: self.cache_key,
            last_signal_id: self.last_signal,
            last_snapshot_signal_id: self.last_snapshot,
            updated_at: Instant(self.updated_at),
        };
        Ok((ThreadKey(self.thread), lane))
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::super::open::sqlite::Reads;
    use super::{Lane, LaneRow, ThreadKey, copies, word};
    use crate::store::json::Json;

    pub(super) async fn lanes(reads: &Reads, thread: ThreadKey) -> Result<Vec<LaneRow>, sqlx::Error> {
        sqlx::query_as(
            "select thread, lane, cache_key, mode, version, last_signal, last_snapshot, updated_at, copies
             from lanes
             where thread = $1
             order by lane",
        )
        .bind(thread.0)
        .fetch_all(&reads.pool)
        .await
    }

    pub(super) async fn standing(
        tx: &mut SqliteConnection,
        of: &[(ThreadKey, &str)],
    ) -> Result<Vec<LaneRow>, sqlx::Error> {
        let mut json = Json::default();
        for (thread, lane) in of {
            json.row().int(thread.0).text(lane);
        }
        sqlx::query_as(
            "select l.thread, l.lane, l.cache_key, l.mode, l.version, l.last_signal, l.last_snapshot, l.updated_at, l.copies
             from (select distinct value ->> 0 as thread, value ->> 1 as lane from json_each($1)) n
             cross join lanes l on l.thread = n.thread and l.lane = n.lane",
        )
        .bind(json.done())
        .fetch_all(tx)
        .await
    }

    pub(super) async fn track(tx: &mut SqliteConnection, lanes: &[(ThreadKey, &Lane)]) -> Result<(), sqlx::Error> {
        let mut json = Json::default();
        for (thread, it) in lanes {
            let row = json.row().int(thread.0).text(&it.id).text(&it.current_cache_key).text(word(it.current_mode));
            row.int(i64::try_from(it.version).unwrap_or(i64::MAX)).text(&it.last_signal_id);
            match &it.last_snapshot_signal_id {
                Some(snapshot) => row.text(snapshot),
                None => row.null(),
            };
            row.int(it.updated_at.0).text(&copies(it)?);
        }
        sqlx::query(
            "insert into lanes (thread, lane, cache_key, mode, version, last_signal, last_snapshot, updated_at, copies)
             select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
                    cast(value ->> 8 as blob)
             from json_each($1)
             where true
             on conflict (thread, lane) do update
             set cache_key = excluded.cache_key, mode = excluded.mode, version = excluded.version,
                 last_signal = excluded.last_signal, last_snapshot = excluded.last_snapshot,
                 updated_at = excluded.updated_at, copies = excluded.copies",
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

    use super::super::open::postgres::Reads;
    use super::{Lane, LaneRow, ThreadKey, copies, word};

    pub(super) async fn lanes(reads: &Reads, thread: ThreadKey) -> Result<Vec<LaneRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select thread, lane, cache_key, mode, version, last_signal, last_snapshot, updated_at, copies
                     from lanes
                     where thread = $1
                     order by lane collate \"C\"",
                )
                .bind(thread.0)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn standing(tx: &mut PgConnection, of: &[(ThreadKey, &str)]) -> Result<Vec<LaneRow>, sqlx::Error> {
        let threads: Vec<i64> = of.iter().map(|(thread, _)| thread.0).collect();
        let lanes: Vec<&str> = of.iter().map(|(_, lane)| *lane).collect();
        sqlx::query_as(
            "select thread, lane, cache_key, mode, version, last_signal, last_snapshot, updated_at, copies
             from lanes
             where (thread, lane) in (select * from unnest($1::bigint[], $2::text[]))",
        )
        .bind(&threads)
        .bind(&lanes)
        .fetch_all(tx)
        .await
    }

    pub(super) async fn track(tx: &mut PgConnection, lanes: &[(ThreadKey, &Lane)]) -> Result<(), sqlx::Error> {
        let threads: Vec<i64> = lanes.iter().map(|(thread, _)| thread.0).collect();
        let names: Vec<&str> = lanes.iter().map(|(_, it)| it.id.as_str()).collect();
        let keys: Vec<&str> = lanes.iter().map(|(_, it)| it.current_cache_key.as_str()).collect();
        let modes: Vec<&str> = lanes.iter().map(|(_, it)| word(it.current_mode)).collect();
        let versions: Vec<i64> = lanes.iter().map(|(_, it)| i64::try_from(it.version).unwrap_or(i64::MAX)).collect();
        let signals: Vec<&str> = lanes.iter().map(|(_, it)| it.last_signal_id.as_str()).collect();
        let snapshots: Vec<Option<&str>> = lanes.iter().map(|(_, it)| it.last_snapshot_signal_id.as_deref()).collect();
        let ats: Vec<i64> = lanes.iter().map(|(_, it)| it.updated_at.0).collect();
        let copies: Vec<Vec<u8>> =
            lanes.iter().map(|(_, it)| copies(it).map(String::into_bytes)).collect::<Result<_, _>>()?;
        sqlx::query(
            "insert into lanes (thread, lane, cache_key, mode, version, last_signal, last_snapshot, updated_at, copies)
             select *
             from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[],
                         $8::bigint[], $9::bytea[])
             on conflict (thread, lane) do update
             set cache_key = excluded.cache_key,
                 mode = excluded.mode,
                 version = excluded.version,
                 last_signal = excluded.last_signal,
                 last_snapshot = excluded.last_snapshot,
                 updated_at = excluded.updated_at,
                 copies = excluded.copies",
        )
        .bind(&threads)
        .bind(&names)
        .bind(&keys)
        .bind(&modes)
        .bind(&versions)
        .bind(&signals)
        .bind(&snapshots)
        .bind(&ats)
        .bind(&copies)
        .execute(tx)
        .await
        .map(drop)
    }
}
