//! A schema of its own on a Postgres server: a whole store for one test, made and removed in milliseconds.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// A schema that nobody else uses. It stays if it is not removed.
#[derive(Debug)]
pub struct ScratchSchema {
    server: String,
    name: String,
    url: String,
}

impl ScratchSchema {
    /// Makes one on a server.
    ///
    /// # Errors
    /// If the server cannot be reached or does not allow it.
    pub async fn make(server: &str) -> Result<Self, sqlx::Error> {
        let name = format!("aldis_{}", uuid::Uuid::new_v4().simple());
        let join = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{join}options[search_path]={name}");
        // The name is made here, of letters and digits.
        administer(server, format!("create schema {name}")).await?;
        Ok(Self { server: server.to_owned(), name, url })
    }

    /// The address of a store in it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Removes it with all that is in it.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn remove(self) -> Result<(), sqlx::Error> {
        administer(&self.server, format!("drop schema if exists {} cascade", self.name)).await
    }
}

async fn administer(server: &str, statement: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(server).await?;
    // A cascade names every table that goes.
    connection.execute("set client_min_messages = warning").await?;
    connection.execute(AssertSqlSafe(statement)).await?;
    connection.close().await
}
