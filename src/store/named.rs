//! Ids of runs that senders of direct calls have chosen, and that are in use.

use std::collections::HashSet;

use super::receive::Input;
use super::start::CallerTx;
use crate::id::RunId;

/// Those of the chosen ids that a run has, open or ended. A run under such an id is begun once, whatever becomes of it.
pub(super) async fn taken(tx: CallerTx<'_>, inputs: &[Input]) -> Result<HashSet<RunId>, sqlx::Error> {
    let chosen: Vec<(&str, &str)> = inputs
        .iter()
        .filter(|input| input.turn.named)
        .map(|input| (input.namespace.as_str(), input.turn.id.as_str()))
        .collect();
    if chosen.is_empty() {
        return Ok(HashSet::new());
    }
    let found: Vec<String> = twins!(CallerTx: tx, taken(&chosen))?;
    let read = |id: String| RunId::parse(&id).map_err(|e| sqlx::Error::Decode(Box::new(e)));
    found.into_iter().map(read).collect()
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use crate::store::json::Json;

    pub(super) async fn taken(tx: &mut SqliteConnection, chosen: &[(&str, &str)]) -> Result<Vec<String>, sqlx::Error> {
        let mut json = Json::default();
        for (namespace, id) in chosen {
            json.row().text(namespace).text(id);
        }
        sqlx::query_scalar(
            "select r.id
             from json_each($1) c
             cross join runs r on r.namespace = c.value ->> 0 and r.id = c.value ->> 1 and r.latest = 1",
        )
        .bind(json.done())
        .fetch_all(tx)
        .await
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    pub(super) async fn taken(tx: &mut PgConnection, chosen: &[(&str, &str)]) -> Result<Vec<String>, sqlx::Error> {
        let (namespaces, ids): (Vec<&str>, Vec<&str>) = chosen.iter().copied().unzip();
        sqlx::query_scalar(
            "select r.id
             from unnest($1::text[], $2::text[]) as c (namespace, id)
             cross join lateral (
               select id
               from runs
               where namespace = c.namespace
                 and id = c.id
                 and latest = 1
               limit 1
             ) r",
        )
        .bind(&namespaces)
        .bind(&ids)
        .fetch_all(tx)
        .await
    }
}
