//! How the database is set, for people who look for what is wrong.

use super::Error;
use super::open::{Inner, Store};

/// A setting, its value, and what is wrong with it, if anything is.
type Setting = (&'static str, String, Option<&'static str>);

impl Store {
    /// The database's settings that durability and speed hang on, each with what is wrong with it, if anything is.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn settings(&self) -> Result<Vec<Setting>, Error> {
        self.readable().await?;
        twins!(Inner: &self.0.inner, settings()).map_err(|e| Error::unavailable("read the database's settings", e))
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::super::open::sqlite::Reads;
    use super::Setting;

    pub(super) async fn settings(reads: &Reads) -> Result<Vec<Setting>, sqlx::Error> {
        let mut connection = reads.pool.acquire().await?;
        let version: String = sqlx::query_scalar("select sqlite_version()").fetch_one(&mut *connection).await?;
        let journal: String = sqlx::query_scalar("pragma journal_mode").fetch_one(&mut *connection).await?;
        let synchronous: i64 = sqlx::query_scalar("pragma synchronous").fetch_one(&mut *connection).await?;
        let pages: i64 = sqlx::query_scalar("pragma page_count").fetch_one(&mut *connection).await?;
        let page: i64 = sqlx::query_scalar("pragma page_size").fetch_one(&mut *connection).await?;
        let wal = (journal != "wal").then_some("readers and the writer hold each other up; it should be wal");
        let full = (synchronous < 2).then_some("what is acknowledged may be lost with the machine's power");
        let synchronous = match synchronous {
            0 => "off",
            1 => "normal",
            2 => "full",
            _ => "extra",
        };
        Ok(vec![
            ("sqlite_version", version, None),
            ("journal_mode", journal, wal),
            ("synchronous", synchronous.to_owned(), full),
            ("size", format!("{} MB", pages * page / 1_048_576), None),
        ])
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::super::open::postgres::Reads;
    use super::Setting;

    pub(super) async fn settings(reads: &Reads) -> Result<Vec<Setting>, sqlx::Error> {
        let read = |mut connection: sqlx::pool::PoolConnection<sqlx::Postgres>| async move {
            sqlx::query_as::<_, (String, String, String, String, String)>(
                "select current_setting('server_version'), current_setting('fsync'),
                        current_setting('full_page_writes'), current_setting('synchronous_commit'),
                        pg_size_pretty(pg_database_size(current_database()))",
            )
            .fetch_one(&mut *connection)
            .await
        };
        let (version, fsync, pages, commit, size) = reads.read(read).await?;
        let off = |value: &str, problem| (value == "off").then_some(problem);
        let lost = "what is acknowledged may be lost with the machine's power";
        Ok(vec![
            ("server_version", version, None),
            ("fsync", fsync.clone(), off(&fsync, lost)),
            ("full_page_writes", pages.clone(), off(&pages, "a torn page may damage the database")),
            ("synchronous_commit", commit.clone(), off(&commit, lost)),
            ("size", size, None),
        ])
    }
}
