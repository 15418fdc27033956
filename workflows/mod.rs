//! Workflows that come with Aldis, written with the public face only, as a user's are.

pub mod refund;

use aldis::Workflow;

/// All of them.
#[must_use]
pub fn all() -> Vec<Workflow> {
    vec![refund::workflow()]
}
