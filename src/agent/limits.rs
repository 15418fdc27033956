//! What a turn may cost, and when it is to end although the model would go on.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::processor::FinishedStep;
use super::{Agent, Agents};

/// What a turn may cost; what is absent has no bound of its own. A sender's bound goes before the agent's.
///
/// Time goes on while a call waits for somebody outside, and through crashes. On the wire: `budget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Budget {
    /// Tokens of all its answers together, as the provider counts them. Looked at after each step: the step that exceeds
    /// it is finished, its tools too, and no other follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_max: Option<u64>,
    /// Milliseconds from its beginning to its end. What is under way then is cut, and what was said stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_max_ms: Option<u64>,
    /// Milliseconds in which a model says nothing, before the attempt counts as failed. Waiting for a place at the
    /// provider counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_max_ms: Option<u64>,
    /// How often one call of the model is tried; 5 if nobody says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
}

impl Budget {
    /// Whether nothing is bounded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These bounds, and others where these say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            tokens_max: self.tokens_max.or(other.tokens_max),
            time_max_ms: self.time_max_ms.or(other.time_max_ms),
            idle_max_ms: self.idle_max_ms.or(other.idle_max_ms),
            attempts_max: self.attempts_max.or(other.attempts_max),
        }
    }

    /// How long the turn may take.
    #[must_use]
    pub fn time_max(&self) -> Option<Duration> {
        self.time_max_ms.map(Duration::from_millis)
    }

    /// How long a model may say nothing.
    #[must_use]
    pub fn idle_max(&self) -> Option<Duration> {
        self.idle_max_ms.map(Duration::from_millis)
    }
}

type Asks = dyn Fn(&[FinishedStep]) -> bool + Send + Sync;

/// A condition on which a turn ends although the model would go on.
#[derive(Clone)]
pub(crate) struct StopCondition {
    pub(super) name: String,
    asks: Arc<Asks>,
}

impl fmt::Debug for StopCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StopCondition({})", self.name)
    }
}

impl Agent {
    /// What its turns may cost, unless a sender says otherwise.
    ///
    /// Whether there is a bound of time shapes the journal of a turn, as processors do; how long it is does not.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Ends a turn once this holds. It is asked after each step that another could follow, when the step's tools have
    /// run, with the steps so far; what it says is recorded under its name, and a replay does not ask again.
    ///
    /// The first condition of an agent shapes the journal of its turns, as processors do.
    #[must_use]
    pub fn stop_when(
        mut self,
        name: impl Into<String>,
        holds: impl Fn(&[FinishedStep]) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.stop_conditions.push(StopCondition { name: name.into(), asks: Arc::new(holds) });
        self
    }
}

impl Agents {
    /// What a turn may cost.
    #[must_use]
    pub fn budget(&self, agent: &str, asked: Budget) -> Budget {
        asked.or(self.get(agent).map_or_else(Budget::default, |agent| agent.budget))
    }

    /// The first stop condition of an agent that holds after these steps.
    #[must_use]
    pub fn stops(&self, agent: &str, steps: &[FinishedStep]) -> Option<String> {
        let agent = self.get(agent)?;
        agent.stop_conditions.iter().find(|it| (it.asks)(steps)).map(|it| it.name.clone())
    }
}
