//! The server, seen from outside: scenarios on both databases, with the wire's rules cited by their numbers.
//!
//! Requests go to the router itself; the real program behind a socket is what `tests/clients.rs` is for.
#![cfg(feature = "server")]

#[macro_use]
mod support;

#[path = "http/approvals.rs"]
mod approvals;
#[path = "http/auth.rs"]
mod auth;
#[path = "http/connections.rs"]
mod connections;
#[cfg(feature = "cli")]
#[path = "http/fuzz.rs"]
mod fuzz;
#[path = "http/generate.rs"]
mod generate;
#[path = "http/health.rs"]
mod health;
#[path = "http/memory.rs"]
mod memory;
#[cfg(feature = "cli")]
#[path = "http/program.rs"]
mod program;
#[path = "http/reference.rs"]
mod reference;
#[path = "http/refusals.rs"]
mod refusals;
#[path = "http/runs.rs"]
mod runs;
#[path = "http/send.rs"]
mod send;
#[path = "http/served.rs"]
mod served;
#[path = "http/streams.rs"]
mod streams;
#[cfg(feature = "cli")]
#[path = "http/tokens.rs"]
mod tokens;
#[path = "http/workflows.rs"]
mod workflows;
