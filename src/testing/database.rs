//! A store of a test's own, gone when the test is over.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::store::Kind;

/// Names the server that Postgres tests may use.
pub const POSTGRES: &str = "ALDIS_TEST_POSTGRES";

/// An empty store, and a directory for whatever else a test writes. Cheap to clone; removed with its last clone.
#[derive(Debug, Clone)]
pub struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: String,
    kind: Kind,
    directory: tempfile::TempDir,
    #[cfg(feature = "postgres")]
    schema: Option<crate::store::Scratch>,
}

/// A scratch database could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// There is no directory for temporary files.
    #[error("no temporary directory can be made; set TMPDIR to a place that can be written")]
    Directory(#[source] std::io::Error),
    /// Nobody has said which Postgres may be used.
    #[error(
        "{POSTGRES} is not set; give it the address of a server on which tests may make schemas, such as postgres://postgres@127.0.0.1/postgres"
    )]
    NoServer,
    /// The server does not give a schema.
    #[cfg(feature = "postgres")]
    #[error("no schema can be made on the server of {POSTGRES}")]
    Postgres(#[source] crate::store::OpenError),
}

impl Database {
    /// A SQLite file in a temporary directory.
    ///
    /// # Errors
    /// If no temporary directory can be made.
    #[cfg(feature = "sqlite")]
    pub fn sqlite() -> Result<Self, DatabaseError> {
        let directory = directory()?;
        let url = format!("sqlite://{}", directory.path().join("aldis.db").display());
        Ok(Self(Arc::new(Inner {
            url,
            kind: Kind::Sqlite,
            directory,
            #[cfg(feature = "postgres")]
            schema: None,
        })))
    }

    /// A schema on the server that `ALDIS_TEST_POSTGRES` names.
    ///
    /// # Errors
    /// If the variable is not set, or the server gives no schema.
    #[cfg(feature = "postgres")]
    pub async fn postgres() -> Result<Self, DatabaseError> {
        let server = std::env::var(POSTGRES).map_err(|_| DatabaseError::NoServer)?;
        let directory = directory()?;
        let schema = crate::store::Scratch::beside(&server).await.map_err(DatabaseError::Postgres)?;
        let url = schema.url().to_owned();
        Ok(Self(Arc::new(Inner { url, kind: Kind::Postgres, directory, schema: Some(schema) })))
    }

    /// Another empty one of the same kind.
    ///
    /// # Errors
    /// As [`Database::sqlite`] and [`Database::postgres`].
    pub async fn another(&self) -> Result<Self, DatabaseError> {
        Self::of(self.kind()).await
    }

    /// An empty one of a kind.
    ///
    /// # Errors
    /// As [`Database::sqlite`] and [`Database::postgres`].
    pub async fn of(kind: Kind) -> Result<Self, DatabaseError> {
        match kind {
            #[cfg(feature = "sqlite")]
            Kind::Sqlite => Self::sqlite(),
            #[cfg(feature = "postgres")]
            Kind::Postgres => Self::postgres().await,
        }
    }

    /// Which database it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// A directory for whatever else a test writes.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.0.directory.path()
    }

    /// A file in that directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Removes the database now, if nobody else has it: a Postgres schema cannot be removed by being dropped.
    pub async fn remove(self) {
        #[cfg(feature = "postgres")]
        if let Some(Inner { schema: Some(schema), .. }) = Arc::into_inner(self.0)
            && let Err(error) = schema.remove().await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "a scratch schema stays on the server");
        }
    }
}

fn directory() -> Result<tempfile::TempDir, DatabaseError> {
    tempfile::Builder::new().prefix("aldis-test-").tempdir().map_err(DatabaseError::Directory)
}
