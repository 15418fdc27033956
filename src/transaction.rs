//! The store's own transaction, lent to the body of a transactional step.

use tokio::sync::oneshot;

/// A transaction of the store's database. What the body writes through it is committed with the step's result, or not
/// at all. The body must neither commit it nor roll it back. Dropping it gives the connection back to the store.
#[derive(Debug)]
pub struct Tx(Option<(Connection, oneshot::Sender<Connection>)>);

/// The connection that the transaction is open on.
#[derive(Debug)]
pub(crate) enum Connection {
    #[cfg(feature = "sqlite")]
    Sqlite(Box<sqlx::SqliteConnection>),
    #[cfg(feature = "postgres")]
    Postgres(Box<sqlx::PgConnection>),
}

impl Tx {
    /// Lends a connection; it comes back through the receiver when the transaction is dropped.
    pub(crate) fn lend(connection: Connection) -> (Self, oneshot::Receiver<Connection>) {
        let (home, back) = oneshot::channel();
        (Self(Some((connection, home))), back)
    }

    /// The connection, if the store is SQLite.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(&mut self) -> Option<&mut sqlx::SqliteConnection> {
        match &mut self.0 {
            Some((Connection::Sqlite(connection), _)) => Some(connection),
            _ => None,
        }
    }

    /// The connection, if the store is Postgres.
    #[cfg(feature = "postgres")]
    pub fn postgres(&mut self) -> Option<&mut sqlx::PgConnection> {
        match &mut self.0 {
            Some((Connection::Postgres(connection), _)) => Some(connection),
            _ => None,
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some((connection, home)) = self.0.take() {
            // The store stops waiting for it only when it is itself being dropped; then the connection goes too.
            let _ = home.send(connection);
        }
    }
}
