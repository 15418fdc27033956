//! Threads, turns and agents, seen from outside: scenarios on both databases, with rules cited by their numbers.

#[macro_use]
mod support;

#[path = "threads/clients.rs"]
mod clients;
#[path = "threads/common.rs"]
mod common;
#[path = "threads/delegates.rs"]
mod delegates;
#[cfg(feature = "mcp")]
#[path = "threads/mcp.rs"]
mod mcp;
#[path = "threads/queue.rs"]
mod queue;
#[path = "threads/talk.rs"]
mod talk;
#[path = "threads/tools.rs"]
mod tools;
