//! A place for a store that is thrown away: for measurements and trials beside a database that is in use.

use super::OpenError;
use super::open::without_password;

/// A fresh, empty place beside an existing store. It stays until [`Scratch::remove`]; a SQLite place also goes with its
/// last owner.
#[derive(Debug)]
pub struct Scratch {
    url: String,
    #[cfg(feature = "sqlite")]
    folder: Option<Folder>,
}

#[cfg(feature = "sqlite")]
#[derive(Debug)]
struct Folder(std::path::PathBuf);

#[cfg(feature = "sqlite")]
impl Drop for Folder {
    fn drop(&mut self) {
        // Whoever wanted to hear of a failure has called `remove`.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Scratch {
    /// On the same disk as a SQLite file, or in a schema of its own of the same Postgres database. The store itself is
    /// not touched and need not exist.
    ///
    /// # Errors
    /// [`OpenError`] if the address is no store's or there is no room for another one.
    pub async fn beside(url: &str) -> Result<Self, OpenError> {
        let name = format!("aldis_scratch_{}", uuid::Uuid::now_v7().simple());
        match url.split_once(':').map_or("", |(scheme, _)| scheme) {
            #[cfg(feature = "sqlite")]
            "sqlite" => sqlite::beside(url, &name),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => postgres::beside(url, &name).await,
            _ => Err(OpenError::unknown_scheme(url)),
        }
    }

    /// The address to open. It may hold a password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it is, for people: never with a password.
    #[must_use]
    pub fn location(&self) -> String {
        without_password(&self.url)
    }

    /// Removes it with all that is in it. Whoever has it open should have closed it.
    ///
    /// # Errors
    /// [`OpenError::Unreachable`] if it is still there.
    pub async fn remove(mut self) -> Result<(), OpenError> {
        #[cfg(feature = "sqlite")]
        if let Some(folder) = self.folder.take() {
            let location = self.location();
            return std::fs::remove_dir_all(&folder.0).map_err(|e| OpenError::unreachable(location, e.into()));
        }
        #[cfg(feature = "postgres")]
        postgres::remove(&self.url).await?;
        self.url.clear();
        Ok(())
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::path::{Path, PathBuf};
    use std::str::FromStr;

    use sqlx::sqlite::SqliteConnectOptions;

    use super::{Folder, OpenError, Scratch};

    pub(super) fn beside(url: &str, name: &str) -> Result<Scratch, OpenError> {
        let file = SqliteConnectOptions::from_str(url)
            .map_err(|e| OpenError::BadAddress { url: url.to_owned(), problem: e.to_string() })?;
        let folder: PathBuf = file.get_filename().parent().unwrap_or_else(|| Path::new("")).join(name);
        let location = format!("sqlite://{}", folder.display());
        std::fs::create_dir(&folder).map_err(|e| OpenError::unreachable(location.clone(), e.into()))?;
        Ok(Scratch { url: format!("{location}/aldis.db"), folder: Some(Folder(folder)) })
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::str::FromStr;

    use sqlx::postgres::PgConnectOptions;
    use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

    use super::{OpenError, Scratch, without_password};

    /// How the address names the schema.
    const SCHEMA: &str = "options[search_path]=";

    pub(super) async fn beside(url: &str, name: &str) -> Result<Scratch, OpenError> {
        let mut connection = connect(url).await?;
        let made =
            sqlx::query("select set_config('aldis.scratch', $1, false)").bind(name).execute(&mut connection).await;
        let made = match made {
            Ok(_) => {
                sqlx::query("do $$ begin execute format('create schema %I', current_setting('aldis.scratch')); end $$")
                    .execute(&mut connection)
                    .await
            }
            Err(e) => Err(e),
        };
        made.map_err(|e| OpenError::unreachable(without_password(url), e))?;
        let _ = connection.close().await;
        let join = if url.contains('?') { '&' } else { '?' };
        Ok(Scratch {
            url: format!("{url}{join}{SCHEMA}{name}"),
            #[cfg(feature = "sqlite")]
            folder: None,
        })
    }

    pub(super) async fn remove(url: &str) -> Result<(), OpenError> {
        let mut connection = connect(url).await?;
        // The connection is in the schema; only one that `beside` has named so is dropped.
        let removed = sqlx::query(
            "do $$
             begin
               if current_schema like 'aldis_scratch_%' then
                 execute format('drop schema %I cascade', current_schema);
               end if;
             end $$",
        )
        .execute(&mut connection)
        .await;
        removed.map_err(|e| OpenError::unreachable(without_password(url), e))?;
        let _ = connection.close().await;
        Ok(())
    }

    async fn connect(url: &str) -> Result<PgConnection, OpenError> {
        let address = PgConnectOptions::from_str(url)
            .map_err(|e| OpenError::BadAddress { url: without_password(url), problem: e.to_string() })?
            // That a schema goes with its tables is what is wanted, not worth a notice.
            .options([("client_min_messages", "warning")])
            .disable_statement_logging();
        PgConnection::connect_with(&address).await.map_err(|e| OpenError::unreachable(without_password(url), e))
    }
}
