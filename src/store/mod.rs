//! Where everything is kept: one contract, two databases. The only room that knows SQL.
//!
//! The contract is the verbs of the walk ([`accept`](Store::accept), [`claim`](Store::claim),
//! [`history`](Store::history), [`commit`](Store::commit)) and a short list beside it (start, turn, worker leases,
//! wake, read, stream, declare, import; of threads: receive, make, list, copy, erase, forget, unsend, suspended, retain). A verb is one file; where SQLite and Postgres take different statements, the twins
//! stand side by side in it. Time is an argument of every statement. Nothing above this room knows which database it is.
//!
//! Owns the writer: whatever waits is gathered into one physical transaction, and each commit gets its own verdict.
//! Never runs a workflow, never reads the clock. What was acknowledged is on disk; what was not acknowledged is resolved
//! by reading, never by assuming.

/// Runs the twin of a verb that fits the database: `twins!(CallerTx: tx, claim(worker))`.
macro_rules! twins {
    ($kind:ident : $on:expr, $verb:ident ( $($arg:expr),* $(,)? )) => {
        match $on {
            #[cfg(feature = "sqlite")]
            $kind::Sqlite(it) => sqlite::$verb(it $(, $arg)*).await,
            #[cfg(feature = "postgres")]
            $kind::Postgres(it) => postgres::$verb(it $(, $arg)*).await,
        }
    };
}

mod accept;
mod claim;
mod commit;
mod contract;
mod copy;
mod declare;
mod erase;
mod fault;
mod forget;
mod history;
mod import;
#[cfg(feature = "sqlite")]
mod json;
mod keys;
mod lanes;
mod learn;
mod listing;
mod make;
mod named;
mod open;
mod owner;
mod page;
mod read;
mod receive;
mod retain;
mod scratch;
mod settings;
mod start;
mod stream;
mod suspended;
mod threads;
mod turn;
mod turns;
mod unsend;
mod wake;
mod worker;
mod writer;

pub use contract::{
    Addressee, Arrival, Chunk, Commit, Declared, Durability, Filter, Hint, History, Leaves, Line, Lines, NewRun,
    Options, Owned, Preconditions, Read, Refusal, Start, StartRefused, Started, Transacted, Unreadable, Verdict,
    Worker,
};
pub use copy::{CopyThread, NotCopied};
pub use erase::{Erase, Erased};
pub use fault::{Fault, Faults};
pub use forget::Home;
pub use keys::ApiKey;
pub use lanes::LaneChange;
pub use listing::{AROUND_MAX, Around, MessageFilter, ThreadFilter, ThreadOrder};
pub use make::{NewThread, ThreadChange};
pub use open::{EngineLease, Kind, OpenError, Schema, Stats, Store};
pub use page::{Page, Paged};
pub use receive::{First, Foresee, Form, Input, NEW_THREADS, NewTurn, NotReceived, Received};
pub use retain::{Kept, Retain, Retained};
pub use scratch::Scratch;
pub use start::CallerTx;
pub use suspended::SuspendedFilter;
pub use threads::{Message, Recent, RecentRow, Seen, WaitingCall, Window};
pub use turns::ThreadPart;
pub use unsend::{Unsend, Which};
pub use wake::Hints;
pub use worker::Registration;

/// What went wrong with the store itself.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database could not be reached or refused the write for now. Nothing is known to be lost; the same call may
    /// be made again: commits carry fence and head, arrivals their id.
    #[error("the store is not available: {what}")]
    Unavailable {
        /// What was being done.
        what: &'static str,
        /// The database's own words.
        #[source]
        source: std::sync::Arc<sqlx::Error>,
    },
    /// More waits for the writer than may wait. Nothing was written; try again later.
    #[error("the store is overloaded: {waiting} requests wait for its writer; slow down and try again")]
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
    /// Stored data contradicts itself. Do not retry.
    #[error("the store holds something impossible: {found}")]
    Corrupt {
        /// What was found, and where.
        found: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}
