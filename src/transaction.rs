//! The store's own transaction, lent to the body of a transactional step.

/// A transaction of the store's database. What the body writes through it is committed with the step's result, or not
/// at all. The body must neither commit it nor roll it back.
#[derive(Debug)]
pub struct Tx(pub(crate) Connection);

/// The connection that the transaction is open on; the store takes it back afterwards.
#[derive(Debug)]
pub(crate) enum Connection {
    #[cfg(feature = "sqlite")]
    Sqlite(Box<sqlx::SqliteConnection>),
    #[cfg(feature = "postgres")]
    Postgres(Box<sqlx::pool::PoolConnection<sqlx::Postgres>>),
}

impl Tx {
    /// The connection, if the store is SQLite.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(&mut self) -> Option<&mut sqlx::SqliteConnection> {
        match &mut self.0 {
            Connection::Sqlite(connection) => Some(connection),
            #[cfg(feature = "postgres")]
            Connection::Postgres(_) => None,
        }
    }

    /// The connection, if the store is Postgres.
    #[cfg(feature = "postgres")]
    pub fn postgres(&mut self) -> Option<&mut sqlx::PgConnection> {
        match &mut self.0 {
            Connection::Postgres(connection) => Some(connection),
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(_) => None,
        }
    }
}
