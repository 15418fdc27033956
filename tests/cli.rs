//! The program `aldis`, seen from outside: exit codes, what it prints, and what a SIGKILL leaves behind.
//!
//! The Postgres half wants `ALDIS_TEST_POSTGRES`; `.ci/test` brings one up.
#![cfg(feature = "cli")]

#[path = "cli/commands.rs"]
mod commands;
#[path = "cli/config.rs"]
mod config;
#[path = "cli/examples.rs"]
mod examples;
#[path = "cli/kill.rs"]
mod kill;
#[path = "cli/packaging.rs"]
mod packaging;
#[cfg(feature = "llm")]
#[path = "cli/providers.rs"]
mod providers;
#[path = "cli/refusals.rs"]
mod refusals;
#[path = "cli/reload.rs"]
mod reload;
#[path = "cli/remote.rs"]
mod remote;
#[cfg(feature = "llm")]
#[allow(dead_code, reason = "the tests of models use the rest")]
#[path = "models/server.rs"]
mod server;
#[path = "cli/support.rs"]
mod support;
#[path = "cli/threads.rs"]
mod threads;
