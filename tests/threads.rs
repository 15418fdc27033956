//! Threads, turns and agents, seen from outside: scenarios on both databases, with rules cited by their numbers.

#[macro_use]
mod support;

#[path = "threads/common.rs"]
mod common;
#[path = "threads/lanes.rs"]
mod lanes;
#[path = "threads/processors.rs"]
mod processors;
#[path = "threads/ready.rs"]
mod ready;
#[path = "threads/talk.rs"]
mod talk;
#[path = "threads/tools.rs"]
mod tools;
#[path = "threads/transient.rs"]
mod transient;
