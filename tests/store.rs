//! The store's contract: what every verb promises, asked of SQLite and of Postgres alike.
//!
//! Each case is written once; [`each_store!`] makes `…::sqlite` and `…::postgres` of it, each on a store of its own.
//! The Postgres half wants `ALDIS_TEST_POSTGRES`, the address of a server where databases may be made; `.ci/test` brings
//! one up.

#[macro_use]
#[path = "store/support.rs"]
mod support;

#[path = "store/accept.rs"]
mod accept;
#[path = "store/claim.rs"]
mod claim;
#[path = "store/commit.rs"]
mod commit;
#[path = "store/declare.rs"]
mod declare;
#[path = "store/fault.rs"]
mod fault;
#[path = "store/history.rs"]
mod history;
#[path = "store/import.rs"]
mod import;
#[path = "store/keeping.rs"]
mod keeping;
#[path = "store/lanes.rs"]
mod lanes;
#[path = "store/open.rs"]
mod open;
#[path = "store/postgres.rs"]
mod postgres;
#[path = "store/read.rs"]
mod read;
#[path = "store/retain.rs"]
mod retain;
#[path = "store/routing.rs"]
mod routing;
#[path = "store/start.rs"]
mod start;
#[path = "store/stream.rs"]
mod stream;
#[path = "store/suspended.rs"]
mod suspended;
#[path = "store/threads.rs"]
mod threads;
#[path = "store/turn.rs"]
mod turn;
#[path = "store/wake.rs"]
mod wake;
#[path = "store/worker.rs"]
mod worker;
