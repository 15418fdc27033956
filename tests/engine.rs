//! What the engine promises, seen from outside: scenarios run through the crash harness, on both databases.

#[macro_use]
mod support;

#[path = "engine/branches.rs"]
mod branches;
#[path = "engine/changes.rs"]
mod changes;
#[path = "engine/endings.rs"]
mod endings;
#[path = "engine/signals.rs"]
mod signals;
#[path = "engine/starts.rs"]
mod starts;
#[path = "engine/steps.rs"]
mod steps;
#[path = "engine/time.rs"]
mod time;
#[path = "engine/transactions.rs"]
mod transactions;
#[path = "engine/values.rs"]
mod values;
#[path = "engine/workers.rs"]
mod workers;
