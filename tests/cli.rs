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
#[path = "cli/refusals.rs"]
mod refusals;
#[path = "cli/reload.rs"]
mod reload;
#[path = "cli/remote.rs"]
mod remote;
#[path = "cli/support.rs"]
mod support;
#[path = "cli/threads.rs"]
mod threads;
