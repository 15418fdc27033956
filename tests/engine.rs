//! What the engine promises, seen from outside: every scenario runs through the crash harness, on both databases.

#[macro_use]
mod support;

#[path = "engine/steps.rs"]
mod steps;
