//! `aldis runs`: which runs there are.

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::error::Error;
use super::{Desk, Exit, print};
use crate::clock::Clock;
use crate::id::Namespace;
use crate::store::Filter;

const STATUSES: [&str; 8] = ["due", "running", "waiting", "blocked", "completed", "failed", "cancelled", "terminated"];

/// Lists runs, newest first.
#[derive(Debug, Args)]
pub(super) struct Runs {
    /// Only runs of this workflow
    #[arg(long)]
    pub(super) workflow: Option<String>,
    /// Only runs that stand so; may be given several times
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(STATUSES))]
    pub(super) status: Vec<String>,
    /// How many at the most
    #[arg(long, default_value_t = 50)]
    pub(super) limit: usize,
    /// Only runs older than this one: the next page
    #[arg(long, value_name = "RUN")]
    pub(super) before: Option<String>,
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
            print::json(&run.summary())?;
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
