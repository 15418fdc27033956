//! Threads, turns and agents, seen from outside: scenarios on both databases, with rules cited by their numbers.

#[macro_use]
mod support;

#[path = "threads/around.rs"]
mod around;
#[path = "threads/budgets.rs"]
mod budgets;
#[path = "threads/clients.rs"]
mod clients;
#[path = "threads/common.rs"]
mod common;
#[path = "threads/crashes.rs"]
mod crashes;
#[path = "threads/delegates.rs"]
mod delegates;
#[path = "threads/direct.rs"]
mod direct;
#[path = "threads/edges.rs"]
mod edges;
#[path = "threads/failures.rs"]
mod failures;
#[path = "threads/hammer.rs"]
mod hammer;
#[path = "threads/hook_crashes.rs"]
mod hook_crashes;
#[path = "threads/hooks.rs"]
mod hooks;
#[path = "threads/keeping.rs"]
mod keeping;
#[path = "threads/lanes.rs"]
mod lanes;
#[cfg(feature = "mcp")]
#[path = "threads/mcp.rs"]
mod mcp;
#[path = "threads/processors.rs"]
mod processors;
#[cfg(feature = "llm")]
#[path = "threads/providers.rs"]
mod providers;
#[path = "threads/queue.rs"]
mod queue;
#[path = "threads/ready.rs"]
mod ready;
#[path = "threads/routing.rs"]
mod routing;
#[cfg(feature = "llm")]
#[allow(dead_code, reason = "the tests of models use the rest")]
#[path = "models/server.rs"]
mod server;
#[path = "threads/streams.rs"]
mod streams;
#[path = "threads/structured.rs"]
mod structured;
#[path = "threads/talk.rs"]
mod talk;
#[path = "threads/tools.rs"]
mod tools;
#[path = "threads/transient.rs"]
mod transient;
