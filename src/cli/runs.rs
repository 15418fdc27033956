//! `aldis runs`: which runs there are.

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::json;

use super::error::Error;
use super::{Desk, Exit, print};
use crate::clock::Clock;
use crate::id::Namespace;
use crate::run::{Run, Status};
use crate::store::Filter;

const STATUSES: [&str; 8] = ["due", "running", "waiting", "blocked", "completed", "failed", "cancelled", "terminated"];

/// Lists runs, newest first.
#[derive(Debug, Args)]
pub(super) struct Runs {
    /// Only runs of this workflow
    #[arg(long)]
    workflow: Option<String>,
    /// Only runs that stand so; may be given several times
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(STATUSES))]
    status: Vec<String>,
    /// How many at the most
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Only runs older than this one: the next page
    #[arg(long, value_name = "RUN")]
    before: Option<String>,
}

pub(super) async fn run(desk: &Desk, asked: Runs) -> Result<Exit, Error> {
    let client = desk.client().await?;
    let before = match &asked.before {
        Some(run) => Some(client.find(run).await?.key()),
        None => None,
    };
    let filter =
        Filter { namespace: Some(Namespace::default()), workflow: asked.workflow, statuses: asked.status, before };
    let runs = client.list(&filter, asked.limit).await?;
    client.store().close().await;
    if desk.json() {
        for run in &runs {
            print::json(&object(run))?;
        }
        return Ok(Exit::Good);
    }
    let now = Clock::System.now();
    let rows: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            vec![
                run.id.to_string(),
                format!("{} v{}", run.workflow, run.version),
                run.status.word().to_owned(),
                run.head.to_string(),
                print::from_now(run.created_at, now),
                print::from_now(run.updated_at, now),
            ]
        })
        .collect();
    print::text(&print::table(&["RUN", "WORKFLOW", "STATUS", "EVENTS", "CREATED", "CHANGED"], &rows))?;
    if runs.len() == asked.limit
        && let Some(last) = runs.last()
    {
        eprintln!("there may be more: --before {}", last.id);
    }
    Ok(Exit::Good)
}

fn object(run: &Run) -> serde_json::Value {
    let mut object = json!({
        "id": run.id,
        "namespace": run.namespace,
        "workflow": run.workflow,
        "version": run.version,
        "status": run.status.word(),
        "events": run.head,
        "signals_pending": run.signals_pending,
        "created_at": run.created_at,
        "updated_at": run.updated_at,
    });
    match &run.status {
        Status::Blocked { reason } => {
            object["blocked"] = json!({ "code": reason.code(), "reason": reason.to_string() });
        }
        Status::Waiting { wake_at: Some(at) } | Status::Due { at } => object["next_wake"] = json!(at),
        Status::Closed { at, .. } => object["closed_at"] = json!(at),
        Status::Waiting { wake_at: None } | Status::Running { .. } => {}
    }
    object
}
