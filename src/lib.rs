//! Aldis, a durable runtime for AI agents that wait.
#![warn(missing_docs)]

pub mod clock;
pub mod failure;
pub mod id;
pub mod payload;
pub mod retry;

pub mod run;
pub mod signal;
pub mod transaction;

pub mod journal;

pub mod store;
pub mod workflow;

pub mod engine;
