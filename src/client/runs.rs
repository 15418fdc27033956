//! Runs of every workflow.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Client, Error};

/// Which runs are asked for; by default the newest hundred of all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunsAsked {
    /// Only those of this workflow.
    pub workflow: Option<String>,
    /// Only those that stand so.
    pub statuses: Vec<String>,
    /// Only those before this one: the next page.
    pub before: Option<String>,
    /// How many at the most, up to 1000.
    pub limit: Option<usize>,
}

/// Runs, newest first.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RunsPage {
    /// Each as `aldis runs --json` shows it.
    pub runs: Vec<Map<String, Value>>,
    /// With which the next page begins, if there may be one.
    pub before: Option<String>,
}

/// Something was accepted for a run. It is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Accepted {
    /// Its number among all that the run was sent.
    pub ordinal: i64,
    /// It had been accepted before: nothing was added.
    pub repeat: bool,
}

#[derive(Deserialize)]
struct Events {
    events: Vec<Map<String, Value>>,
}

impl Client {
    /// Runs, newest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn runs(&self, asked: &RunsAsked) -> Result<RunsPage, Error> {
        let statuses = (!asked.statuses.is_empty()).then(|| asked.statuses.join(","));
        let query = [
            ("workflow", asked.workflow.clone()),
            ("status", statuses),
            ("before", asked.before.clone()),
            ("limit", asked.limit.map(|limit| limit.to_string())),
        ];
        let query: Vec<(&str, String)> = query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        self.get(&["runs"], &query).await
    }

    /// How a run stands, and what it waits for: as `aldis show --json`.
    ///
    /// # Errors
    /// [`Error`]; code `run_unknown` if there is none.
    pub async fn run(&self, run: &str) -> Result<Map<String, Value>, Error> {
        self.get(&["runs", run], &[]).await
    }

    /// What happened in a run: as `aldis journal --json`.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn journal(&self, run: &str) -> Result<Vec<Map<String, Value>>, Error> {
        self.get::<Events>(&["runs", run, "journal"], &[]).await.map(|events| events.events)
    }

    /// Sends a signal to a run. With an `id` it may be sent again, and is the same one.
    ///
    /// # Errors
    /// [`Error`]; nothing was accepted if it is [`Error::Refused`].
    pub async fn signal(&self, run: &str, name: &str, value: &Value, id: Option<&str>) -> Result<Accepted, Error> {
        self.post(&["runs", run, "signal"], &json!({ "name": name, "payload": value, "id": id })).await
    }

    /// Asks a run to cancel.
    ///
    /// # Errors
    /// As [`Client::signal`].
    pub async fn cancel(&self, run: &str, reason: &str) -> Result<Accepted, Error> {
        self.post(&["runs", run, "cancel"], &json!({ "reason": reason })).await
    }
}
