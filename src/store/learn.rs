//! What a worker knows, when it has come to know more.

use std::sync::Arc;

use super::Error;
use super::open::Store;
use super::start::CallerTx;
use crate::id::WorkerKey;

impl Store {
    /// A worker knows these workflows from now on, as `name v1`. Without it, runs of those that nobody was known to know
    /// would be blocked. A worker whose row is gone introduces itself again, with all that it knows.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn learn(&self, worker: WorkerKey, knows: &[String]) -> Result<(), Error> {
        let knows: Arc<str> = serde_json::Value::from(knows.to_vec()).to_string().into();
        self.alone("say what a worker knows", move |tx, _| {
            let knows = Arc::clone(&knows);
            Box::pin(async move { twins!(CallerTx: tx, learn(worker, &knows)) })
        })
        .await
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::WorkerKey;

    pub(super) async fn learn(tx: &mut SqliteConnection, worker: WorkerKey, knows: &str) -> Result<(), sqlx::Error> {
        let update = sqlx::query("update workers set knows = $2 where key = $1");
        update.bind(worker.0).bind(knows).execute(tx).await.map(drop)
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::WorkerKey;

    pub(super) async fn learn(tx: &mut PgConnection, worker: WorkerKey, knows: &str) -> Result<(), sqlx::Error> {
        let update = sqlx::query("update workers set knows = $2 where key = $1");
        update.bind(worker.0).bind(knows).execute(tx).await.map(drop)
    }
}
