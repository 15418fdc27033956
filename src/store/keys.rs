//! The keys by which programs prove over HTTP who they are. Of a key its digest is kept, and never the key.

use std::sync::Arc;

use super::Error;
use super::open::{Inner, Store};
use super::start::CallerTx;
use crate::clock::Instant;

/// A key, without what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// By what it is listed and revoked.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The only resource that it opens; all if none.
    pub resource: Option<String>,
    /// When it was made.
    pub created_at: Instant,
    /// Since when it opens nothing.
    pub revoked_at: Option<Instant>,
}

impl Store {
    /// Keeps a key under its digest.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn add_key(&self, key: &ApiKey, digest: &str) -> Result<(), Error> {
        let key = Arc::new((key.clone(), digest.to_owned()));
        self.alone("keep a key", move |tx, _| {
            let key = Arc::clone(&key);
            Box::pin(async move { twins!(CallerTx: tx, add(&key.0, &key.1)) })
        })
        .await
    }

    /// Ends a key; false if there is none of this id. One that was revoked before stays so since then.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn revoke_key(&self, id: &str, at: Instant) -> Result<bool, Error> {
        let id: Arc<str> = id.into();
        self.alone("revoke a key", move |tx, _| {
            let id = Arc::clone(&id);
            Box::pin(async move { twins!(CallerTx: tx, revoke(&id, at)) })
        })
        .await
    }

    /// All keys, revoked ones too, the oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn keys(&self) -> Result<Vec<ApiKey>, Error> {
        self.readable().await?;
        let rows: Vec<KeyRow> =
            twins!(Inner: &self.0.inner, keys()).map_err(|e| Error::unavailable("list the keys", e))?;
        Ok(rows.into_iter().map(ApiKey::from).collect())
    }

    /// Whether there is a key that was not revoked.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn has_keys(&self) -> Result<bool, Error> {
        self.readable().await?;
        twins!(Inner: &self.0.inner, any()).map_err(|e| Error::unavailable("look for keys", e))
    }

    /// The key with a digest, if it was not revoked.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn key_of(&self, digest: &str) -> Result<Option<ApiKey>, Error> {
        self.readable().await?;
        let row: Option<KeyRow> =
            twins!(Inner: &self.0.inner, key_of(digest)).map_err(|e| Error::unavailable("look for a key", e))?;
        Ok(row.map(ApiKey::from))
    }
}

/// A key as stored.
#[derive(Debug, sqlx::FromRow)]
struct KeyRow {
    id: String,
    name: String,
    resource: Option<String>,
    created_at: i64,
    revoked_at: Option<i64>,
}

impl From<KeyRow> for ApiKey {
    fn from(row: KeyRow) -> Self {
        let KeyRow { id, name, resource, created_at, revoked_at } = row;
        Self { id, name, resource, created_at: Instant(created_at), revoked_at: revoked_at.map(Instant) }
    }
}

// The same statements on both: $1 is understood by either.
const ADD: &str = "insert into api_keys (id, name, resource, digest, created_at) values ($1, $2, $3, $4, $5)
     on conflict (id) do nothing";
const REVOKE: &str = "update api_keys set revoked_at = coalesce(revoked_at, $2) where id = $1";
const KEYS: &str = "select id, name, resource, created_at, revoked_at from api_keys order by created_at, id";
const ANY: &str = "select exists (select 1 from api_keys where revoked_at is null)";
const KEY_OF: &str = "select id, name, resource, created_at, revoked_at
     from api_keys where digest = $1 and revoked_at is null";

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::super::open::sqlite::Reads;
    use super::{ADD, ANY, ApiKey, Instant, KEY_OF, KEYS, KeyRow, REVOKE};

    pub(super) async fn add(tx: &mut SqliteConnection, key: &ApiKey, digest: &str) -> Result<(), sqlx::Error> {
        let add = sqlx::query(ADD).bind(&key.id).bind(&key.name).bind(&key.resource).bind(digest);
        add.bind(key.created_at.0).execute(tx).await.map(drop)
    }

    pub(super) async fn revoke(tx: &mut SqliteConnection, id: &str, at: Instant) -> Result<bool, sqlx::Error> {
        Ok(sqlx::query(REVOKE).bind(id).bind(at.0).execute(tx).await?.rows_affected() > 0)
    }

    pub(super) async fn keys(reads: &Reads) -> Result<Vec<KeyRow>, sqlx::Error> {
        sqlx::query_as(KEYS).fetch_all(&reads.pool).await
    }

    pub(super) async fn any(reads: &Reads) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar(ANY).fetch_one(&reads.pool).await
    }

    pub(super) async fn key_of(reads: &Reads, digest: &str) -> Result<Option<KeyRow>, sqlx::Error> {
        sqlx::query_as(KEY_OF).bind(digest).fetch_optional(&reads.pool).await
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::super::open::postgres::Reads;
    use super::{ADD, ANY, ApiKey, Instant, KEY_OF, KEYS, KeyRow, REVOKE};

    pub(super) async fn add(tx: &mut PgConnection, key: &ApiKey, digest: &str) -> Result<(), sqlx::Error> {
        let add = sqlx::query(ADD).bind(&key.id).bind(&key.name).bind(&key.resource).bind(digest);
        add.bind(key.created_at.0).execute(tx).await.map(drop)
    }

    pub(super) async fn revoke(tx: &mut PgConnection, id: &str, at: Instant) -> Result<bool, sqlx::Error> {
        Ok(sqlx::query(REVOKE).bind(id).bind(at.0).execute(tx).await?.rows_affected() > 0)
    }

    pub(super) async fn keys(reads: &Reads) -> Result<Vec<KeyRow>, sqlx::Error> {
        reads.read(|mut connection| async move { sqlx::query_as(KEYS).fetch_all(&mut *connection).await }).await
    }

    pub(super) async fn any(reads: &Reads) -> Result<bool, sqlx::Error> {
        reads.read(|mut connection| async move { sqlx::query_scalar(ANY).fetch_one(&mut *connection).await }).await
    }

    pub(super) async fn key_of(reads: &Reads, digest: &str) -> Result<Option<KeyRow>, sqlx::Error> {
        let read = |mut connection: sqlx::pool::PoolConnection<sqlx::Postgres>| async move {
            sqlx::query_as(KEY_OF).bind(digest).fetch_optional(&mut *connection).await
        };
        reads.read(read).await
    }
}
