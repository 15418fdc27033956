//! Aldis, a durable runtime for AI agents that wait: every step journaled, in SQLite or Postgres, with replay.
//!
//! A newcomer begins at [`Aldis`] and [`workflow::Context`]. The house, from the ground up; a room imports lower floors only, and
//! `tests/house.rs` holds it:
//!
//! | floor | room | what it is for |
//! |---|---|---|
//! | 0 | [`id`] [`clock`] [`payload`] [`retry`] | identities, time as an argument, JSON with a size, backoff arithmetic |
//! | 1 | [`run`] [`signal`] [`thread`] [`failure`] [`transaction`] | the nouns: values and their states |
//! | 1 | [`message`] | what is said on a thread: its form when sent, stored, echoed, shown and read by the model |
//! | 2 | [`journal`] | what happened: events, their encoding, the fold from events to status, the replay cursor; pure |
//! | 3 | [`workflow`] | the author's desk: how a workflow is declared and what its code may ask for |
//! | 3 | [`store`] | the contract and its two databases; the only room that knows SQL |
//! | 4 | [`engine`] | takes a due run, rebuilds its past, lets it run until it rests, seals one commit |
//! | 4 | [`intake`] | the door in: checks what arrives and has the store accept it |
//! | 4 | [`agent`] | what answers on a thread: agents, tools, processors, the port to language models and the models behind it |
//! | 5 | [`runtime`] | assembly and life: set up, start, drain, stop; clients and handles |
//! | 5 | `config` | `aldis.toml` and `ALDIS_…` variables: settings, and the agents and models that they declare |
//! | – | [`workflows`] | the runtime's own workflows and the demonstration, on the public face only |
//! | 6 | `http` | the server: the wire of threads, agents and runs for clients in any language |
//! | 6 | `client` | a client of that server, whose streams come back |
//! | 6 | `testing` `bench` | the test kit and crash harness; the measuring of stores |
//! | 7 | `cli`, `main.rs` | the program `aldis` |
//!
//! A message to a thread walks `intake/thread` → `store/receive` → `engine` → the turn in `workflows/turn` through
//! `workflow/context` and `agent` → `store/commit` and `store/turns` → whoever subscribes.
//!
//! A signal walks `intake/signal` → `store/accept` → `engine/claims` → `store/history` → `journal/replay` → the workflow through
//! `workflow/context` → `engine/live` → `store/commit`: down to the store once, up to the author once, down once.
#![warn(missing_docs)]

extern crate self as aldis;

pub mod clock;
pub mod id;
pub mod payload;
pub mod retry;

pub mod failure;
pub mod message;
pub mod run;
pub mod signal;
pub mod thread;
pub mod transaction;

pub mod journal;

pub mod store;
pub mod workflow;

pub mod agent;
pub mod engine;
pub mod intake;

pub mod runtime;

#[cfg(feature = "config")]
pub mod config;

pub mod bench;

#[cfg(feature = "server")]
pub mod http;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "cli")]
pub mod cli;

#[cfg(feature = "testing")]
pub mod testing;

#[path = "../workflows/mod.rs"]
pub mod workflows;

pub use agent::Agent;
pub use failure::{Failure, Fault, Outcome};
pub use runtime::{Aldis, Client, Ended, Error, RunHandle, Runtime, Settled};
pub use workflow::{Context, Published, Signal, Step, StepContext, StepError, Stream, Update, Workflow};

/// The program in the README compiles.
#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
