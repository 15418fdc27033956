//! What workflows are registered, with their schemas: any process can check a start or a signal without the code.

use std::sync::Arc;

use super::Error;
use super::contract::Declared;
use super::open::{Inner, Store};
use super::read::payload_of;
use super::start::CallerTx;
use crate::clock::Instant;

impl Store {
    /// Keeps what a process has registered; a workflow and version that is there already gets the new schemas.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn declare(&self, declared: &[Declared], now: Instant) -> Result<(), Error> {
        let declared: Arc<[Declared]> = declared.into();
        self.alone("declare workflows", move |tx, _| {
            let declared = Arc::clone(&declared);
            Box::pin(async move { twins!(CallerTx: tx, declare(&declared, now)) })
        })
        .await
    }

    /// Every workflow and version ever declared, sorted by both.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`]; [`Error::Corrupt`] for a schema that is no JSON.
    pub async fn declared(&self) -> Result<Vec<Declared>, Error> {
        self.readable().await?;
        let rows =
            twins!(Inner: &self.0.inner, declared()).map_err(|e| Error::unavailable("list declared workflows", e))?;
        rows.into_iter().map(Declared::try_from).collect()
    }
}

/// A declared workflow as stored: `workflow, version, input, output, signals`; the schemas are JSON texts.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct DeclaredRow {
    workflow: String,
    version: i64,
    input: String,
    output: String,
    signals: String,
}

impl TryFrom<DeclaredRow> for Declared {
    type Error = Error;

    fn try_from(row: DeclaredRow) -> Result<Self, Error> {
        Ok(Self {
            version: u32::try_from(row.version)
                .map_err(|_| Error::Corrupt { found: format!("workflow {} v{}", row.workflow, row.version) })?,
            workflow: row.workflow,
            input: payload_of(row.input.into_bytes())?,
            output: payload_of(row.output.into_bytes())?,
            signals: payload_of(row.signals.into_bytes())?,
        })
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::super::open::sqlite::Reads;
    use super::{Declared, DeclaredRow, Instant};
    use crate::store::json::Json;

    pub(super) async fn declare(
        tx: &mut SqliteConnection,
        declared: &[Declared],
        now: Instant,
    ) -> Result<(), sqlx::Error> {
        let mut rows = Json::default();
        for it in declared {
            let row = rows.row();
            row.text(&it.workflow).int(i64::from(it.version));
            row.text(it.input.as_str()).text(it.output.as_str()).text(it.signals.as_str());
        }
        sqlx::query(
            "insert into declared (workflow, version, input, output, signals, declared_at)
             select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, $2
             from json_each($1)
             where true
             on conflict (workflow, version) do update
             set input = excluded.input,
                 output = excluded.output,
                 signals = excluded.signals,
                 declared_at = excluded.declared_at",
        )
        .bind(rows.done())
        .bind(now.0)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn declared(reads: &Reads) -> Result<Vec<DeclaredRow>, sqlx::Error> {
        sqlx::query_as(
            "select workflow, version, input, output, signals
             from declared
             order by workflow, version",
        )
        .fetch_all(&reads.pool)
        .await
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::super::open::postgres::Reads;
    use super::{Declared, DeclaredRow, Instant};

    pub(super) async fn declare(tx: &mut PgConnection, declared: &[Declared], now: Instant) -> Result<(), sqlx::Error> {
        // One statement cannot write a row twice: of two with the same name and version the later one counts. In the
        // order of their names, so that two processes that declare at the same time do not wait in a circle.
        let latest: std::collections::BTreeMap<(&str, u32), &Declared> =
            declared.iter().map(|it| ((it.workflow.as_str(), it.version), it)).collect();
        let column = |of: fn(&Declared) -> &str| latest.values().map(|it| of(it).to_owned()).collect::<Vec<_>>();
        let versions: Vec<i64> = latest.keys().map(|(_, version)| i64::from(*version)).collect();
        sqlx::query(
            "insert into declared (workflow, version, input, output, signals, declared_at)
             select d.workflow, d.version, d.input, d.output, d.signals, $6
             from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[])
               as d (workflow, version, input, output, signals)
             on conflict (workflow, version) do update
             set input = excluded.input,
                 output = excluded.output,
                 signals = excluded.signals,
                 declared_at = excluded.declared_at",
        )
        .bind(column(|it| &it.workflow))
        .bind(versions)
        .bind(column(|it| it.input.as_str()))
        .bind(column(|it| it.output.as_str()))
        .bind(column(|it| it.signals.as_str()))
        .bind(now.0)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn declared(reads: &Reads) -> Result<Vec<DeclaredRow>, sqlx::Error> {
        // The order of bytes, whatever language the database speaks.
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select workflow, version, input, output, signals
                         from declared
                         order by workflow collate \"C\", version",
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }
}
