//! Threads, turns and agents, seen from outside: scenarios on both databases, with rules cited by their numbers.

#[macro_use]
mod support;

#[path = "threads/common.rs"]
mod common;
#[path = "threads/crashes.rs"]
mod crashes;
#[path = "threads/failures.rs"]
mod failures;
#[path = "threads/hammer.rs"]
mod hammer;
#[path = "threads/routing.rs"]
mod routing;
#[path = "threads/streams.rs"]
mod streams;
#[path = "threads/talk.rs"]
mod talk;
#[path = "threads/tools.rs"]
mod tools;
