//! Workflows that come with Aldis, written with the public face only, as a user's are.

pub mod demo;
pub mod refund;
pub mod turn;

use aldis::Workflow;

/// Those that any program can run; a turn belongs to its agent.
#[must_use]
pub fn all() -> Vec<Workflow> {
    vec![refund::workflow()]
}
