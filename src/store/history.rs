//! `history`: all that is needed to go on with a run, read at one moment.

use std::collections::HashMap;

use super::Error;
use super::contract::{History, Unreadable};
use super::open::{Inner, Store};
use super::read::{LineRow, payload_of};
use crate::clock::Instant;
use crate::id::RunKey;
use crate::run::Run;
use crate::signal::{Pending, SignalKind};

impl Store {
    /// Row, journal and untaken signals of each run, in the order asked; for each run all three as of one moment. A run
    /// whose journal holds a line that this build cannot read is [`Unreadable`]; the others are not held up by it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a run is missing or its journal has a gap; [`Error::Unavailable`], [`Error::Closed`].
    pub async fn history(&self, runs: &[RunKey]) -> Result<Vec<Result<History, Unreadable>>, Error> {
        self.readable().await?;
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let snapshot =
            twins!(Inner: &self.0.inner, snapshot(runs)).map_err(|e| Error::unavailable("read histories", e))?;
        let Snapshot { rows, mut lines, mut signals } = snapshot;
        let mut rows: HashMap<RunKey, Run> = rows.into_iter().map(|run| (run.key, run)).collect();
        let mut histories = Vec::with_capacity(runs.len());
        for key in runs {
            let missing = || Error::Corrupt { found: format!("no run {key}") };
            let run = rows.remove(key).ok_or_else(missing)?;
            let lines = lines.remove(key).unwrap_or_default();
            let signals = signals.remove(key).unwrap_or_default();
            histories.push(assemble(run, lines, signals)?);
        }
        Ok(histories)
    }
}

/// What the database holds about some runs.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) rows: Vec<Run>,
    /// In the order of `seq`.
    pub(super) lines: HashMap<RunKey, Vec<LineRow>>,
    /// Untaken ones, in the order of `ordinal`.
    pub(super) signals: HashMap<RunKey, Vec<SignalRow>>,
}

fn assemble(run: Run, lines: Vec<LineRow>, signals: Vec<SignalRow>) -> Result<Result<History, Unreadable>, Error> {
    let key = run.key;
    let dense = lines.iter().zip(1_i64..).all(|(line, seq)| line.seq == seq);
    if !dense || run.head.0 != i64::try_from(lines.len()).unwrap_or(i64::MAX) {
        let found = format!("run {key} has {} journal lines and its row says {}", lines.len(), run.head);
        return Err(Error::Corrupt { found });
    }
    let pending = signals.into_iter().map(Pending::try_from).collect::<Result<Vec<_>, _>>()?;
    let mut journal = Vec::with_capacity(lines.len());
    for line in &lines {
        match line.decode() {
            Ok(recorded) => journal.push(recorded),
            Err(problem) => return Ok(Err(Unreadable { run, problem })),
        }
    }
    Ok(Ok(History { run, journal, pending }))
}

/// A signal as stored: `run, ordinal, kind, name, id, payload, accepted_at`.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct SignalRow {
    pub(super) run: i64,
    pub(super) ordinal: i64,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) id: String,
    pub(super) payload: Vec<u8>,
    pub(super) accepted_at: i64,
}

impl TryFrom<SignalRow> for Pending {
    type Error = Error;

    fn try_from(row: SignalRow) -> Result<Self, Error> {
        let kind = SignalKind::from_word(&row.kind).ok_or_else(|| Error::Corrupt {
            found: format!("signal {} of run {}: kind {:?}", row.ordinal, row.run, row.kind),
        })?;
        Ok(Self {
            ordinal: row.ordinal,
            kind,
            name: row.name,
            id: row.id,
            payload: payload_of(row.payload)?,
            accepted_at: Instant(row.accepted_at),
        })
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use futures::TryStreamExt as _;
    use sqlx::sqlite::SqliteRow;
    use sqlx::{Either, Executor as _, FromRow as _, Row as _, SqliteConnection};

    use super::super::open::sqlite::Reads;
    use super::{LineRow, Run, RunKey, SignalRow, Snapshot};
    use crate::store::json::Json;
    use crate::store::read::RunRow;

    pub(super) async fn snapshot(reads: &Reads, runs: &[RunKey]) -> Result<Snapshot, sqlx::Error> {
        let mut connection = reads.pool.acquire().await?;
        let read = read(&mut connection, runs).await;
        if read.is_err() {
            // The transaction may be open; the pool gets no connection in such a state.
            drop(connection.detach());
        }
        read
    }

    // A row through the driver costs more than a line: 128 lines of a journal are folded into one row, with separators
    // that compact JSON cannot hold. Of the largest payloads no more fit into one value.
    async fn read(connection: &mut SqliteConnection, runs: &[RunKey]) -> Result<Snapshot, sqlx::Error> {
        let mut keys = Json::default();
        for run in runs {
            keys.row().int(run.0);
        }
        let query = sqlx::query(
            "begin;

             select 'run', key, namespace, id, workflow, version, status, wake_at, worker, fence, head,
                    signals_accepted, signals_pending, block_code, block_text, closed_at, created_at, updated_at, thread
             from runs
             where key in (select value ->> 0 from json_each($1));

             select 'lines', run,
                    group_concat(
                        seq || char(31) || kind || char(31) || version || char(31) || at || char(31) || payload,
                        char(30))
             from (
                 select run, seq, kind, version, at, payload
                 from journal
                 where run in (select value ->> 0 from json_each($1))
                 order by run, seq
             )
             group by run, (seq - 1) / 128
             order by run, (seq - 1) / 128;

             select 'signal', run, ordinal, kind, name, id, payload, accepted_at
             from signals
             where run in (select value ->> 0 from json_each($1)) and taken = 0
             order by run, ordinal;

             commit",
        )
        .bind(keys.done());
        let mut snapshot = Snapshot::default();
        let mut told = connection.fetch_many(query);
        while let Some(said) = told.try_next().await? {
            if let Either::Right(row) = said {
                note(&mut snapshot, &row)?;
            }
        }
        Ok(snapshot)
    }

    fn note(snapshot: &mut Snapshot, row: &SqliteRow) -> Result<(), sqlx::Error> {
        match row.try_get(0)? {
            "run" => snapshot.rows.push(Run::try_from(RunRow::from_row(row)?)?),
            "lines" => {
                let run = RunKey(row.try_get(1)?);
                let folded: &str = row.try_get(2)?;
                let lines = snapshot.lines.entry(run).or_default();
                for line in folded.split('\u{1e}') {
                    let unfolded = unfold(line);
                    lines.push(unfolded.ok_or_else(|| {
                        sqlx::Error::Decode(format!("run {run}: a journal line that cannot be unfolded").into())
                    })?);
                }
            }
            _ => {
                let signal = SignalRow::from_row(row)?;
                snapshot.signals.entry(RunKey(signal.run)).or_default().push(signal);
            }
        }
        Ok(())
    }

    fn unfold(line: &str) -> Option<LineRow> {
        let mut fields = line.splitn(5, '\u{1f}');
        Some(LineRow {
            seq: fields.next()?.parse().ok()?,
            kind: fields.next()?.to_owned(),
            version: fields.next()?.parse().ok()?,
            at: fields.next()?.parse().ok()?,
            payload: fields.next()?.as_bytes().to_vec(),
        })
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::postgres::PgRow;
    use sqlx::{FromRow, Row};

    use super::super::open::postgres::Reads;
    use super::super::read::RunRow;
    use super::{LineRow, Run, RunKey, SignalRow, Snapshot};

    /// One statement sees one moment. A run is one row: its lines and signals are folded into arrays, which costs a
    /// fraction of a row each.
    pub(super) async fn snapshot(reads: &Reads, runs: &[RunKey]) -> Result<Snapshot, sqlx::Error> {
        let keys: Vec<i64> = runs.iter().map(|run| run.0).collect();
        let keys = &keys;
        let rows = reads
            .read(|mut connection| async move {
                sqlx::query(
                    "select r.key, r.namespace, r.id, r.workflow, r.version, r.status, r.wake_at, r.worker, r.fence,
                                r.head, r.signals_accepted, r.signals_pending, r.block_code, r.block_text, r.closed_at,
                                r.created_at, r.updated_at, r.thread,
                                j.line_seq, j.line_kind, j.line_version, j.line_at, j.line_payload,
                                s.signal_ordinal, s.signal_kind, s.signal_name, s.signal_id, s.signal_payload,
                                s.signal_at
                         from runs r
                         cross join lateral (
                           select array_agg(seq) as line_seq, array_agg(kind) as line_kind,
                                  array_agg(version) as line_version, array_agg(at) as line_at,
                                  array_agg(payload) as line_payload
                           from (
                             select seq, kind, version, at, payload
                             from journal
                             where run = r.key
                             order by seq
                           ) lines
                         ) j
                         cross join lateral (
                           select array_agg(ordinal) as signal_ordinal, array_agg(kind) as signal_kind,
                                  array_agg(name) as signal_name, array_agg(id) as signal_id,
                                  array_agg(payload) as signal_payload, array_agg(accepted_at) as signal_at
                           from (
                             select ordinal, kind, name, id, payload, accepted_at
                             from signals
                             where run = r.key
                               and taken = 0
                             order by ordinal
                           ) waiting
                         ) s
                         where r.key = any ($1)",
                )
                .bind(keys)
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        let mut snapshot = Snapshot::default();
        for row in &rows {
            let run = Run::try_from(RunRow::from_row(row)?)?;
            snapshot.lines.insert(run.key, lines(row)?);
            snapshot.signals.insert(run.key, signals(row, run.key)?);
            snapshot.rows.push(run);
        }
        Ok(snapshot)
    }

    /// Nothing to fold gives no array.
    fn column<'r, T>(row: &'r PgRow, name: &str) -> Result<std::vec::IntoIter<T>, sqlx::Error>
    where
        Vec<T>: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        Ok(row.try_get::<Option<Vec<T>>, _>(name)?.unwrap_or_default().into_iter())
    }

    fn lines(row: &PgRow) -> Result<Vec<LineRow>, sqlx::Error> {
        let seqs = column::<i64>(row, "line_seq")?;
        let mut kinds = column::<String>(row, "line_kind")?;
        let mut versions = column::<i64>(row, "line_version")?;
        let mut ats = column::<i64>(row, "line_at")?;
        let mut payloads = column::<Vec<u8>>(row, "line_payload")?;
        let line = |seq| {
            let (kind, version, at) = (kinds.next()?, versions.next()?, ats.next()?);
            Some(LineRow { seq, kind, version, at, payload: payloads.next()? })
        };
        Ok(seqs.map_while(line).collect())
    }

    fn signals(row: &PgRow, run: RunKey) -> Result<Vec<SignalRow>, sqlx::Error> {
        let ordinals = column::<i64>(row, "signal_ordinal")?;
        let mut kinds = column::<String>(row, "signal_kind")?;
        let mut names = column::<String>(row, "signal_name")?;
        let mut ids = column::<String>(row, "signal_id")?;
        let mut payloads = column::<Vec<u8>>(row, "signal_payload")?;
        let mut ats = column::<i64>(row, "signal_at")?;
        let signal = |ordinal| {
            let (kind, name, id, payload) = (kinds.next()?, names.next()?, ids.next()?, payloads.next()?);
            Some(SignalRow { run: run.0, ordinal, kind, name, id, payload, accepted_at: ats.next()? })
        };
        Ok(ordinals.map_while(signal).collect())
    }
}
