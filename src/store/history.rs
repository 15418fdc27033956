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
    use super::super::open::sqlite::Reads;
    use super::{RunKey, Snapshot};

    pub(super) async fn snapshot(_reads: &Reads, _runs: &[RunKey]) -> Result<Snapshot, sqlx::Error> {
        todo!()
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::super::open::postgres::Reads;
    use super::{RunKey, Snapshot};

    /// One snapshot: a repeatable-read transaction, or one statement.
    pub(super) async fn snapshot(_reads: &Reads, _runs: &[RunKey]) -> Result<Snapshot, sqlx::Error> {
        todo!()
    }
}
