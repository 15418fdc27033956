//! `aldis approvals`: which runs wait for somebody outside, and with which calls.

use clap::Args;
use serde_json::{Value, json};

use super::error::Error;
use super::run::Past;
use super::{Desk, Exit, print};
use crate::clock::Clock;
use crate::id::ThreadId;
use crate::store::{Page, SuspendedFilter};
use crate::thread::{OpenCall, SuspendedRun};

/// Lists the runs that wait for somebody, and the calls they wait with; the one that waits longest first. Answer one with
/// `aldis approve THREAD CALL`.
#[derive(Debug, Args)]
pub(super) struct Approvals {
    /// Only on this thread
    #[arg(long, value_name = "THREAD")]
    pub(super) thread: Option<String>,
    /// Only on threads of this owner
    #[arg(long, value_name = "NAME")]
    pub(super) resource: Option<String>,
    /// Only runs of this agent
    #[arg(long, value_name = "NAME")]
    pub(super) agent: Option<String>,
    /// Only runs suspended since then: a time as of RFC 3339, or a span before now such as 2h
    #[arg(long, value_name = "WHEN")]
    pub(super) since: Option<Past>,
    /// Only runs suspended before then
    #[arg(long, value_name = "WHEN")]
    pub(super) until: Option<Past>,
    /// How many runs at the most
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(super) limit: usize,
    /// Which page of so many; the first is 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) page: usize,
}

pub(super) async fn run(desk: &Desk, asked: Approvals) -> Result<Exit, Error> {
    let filter = SuspendedFilter {
        thread: asked.thread.as_deref().map(ThreadId::parse).transpose()?,
        resource: asked.resource,
        agent: asked.agent,
        from: asked.since.map(|Past(at)| at),
        to: asked.until.map(|Past(at)| at),
        ..SuspendedFilter::default()
    };
    let page = Page { number: asked.page, size: asked.limit };
    let client = desk.client().await?;
    let suspended = client.suspended_runs(&filter, page).await?;
    client.store().close().await;
    if desk.json() {
        for run in &suspended.items {
            print::json(&object(run))?;
        }
        return Ok(Exit::Good);
    }
    let now = Clock::System.now();
    let row = |run: &SuspendedRun, call: &OpenCall| {
        let asks = call.suspend_payload.as_ref().map_or_else(|| call.args.to_string(), |it| format!("asks {it}"));
        vec![
            run.thread.to_string(),
            run.resource.clone(),
            run.agent.clone(),
            call.call.clone(),
            call.tool.clone(),
            print::from_now(call.since, now),
            call.expires_at.map(|at| print::from_now(at, now)).unwrap_or_default(),
            asks,
        ]
    };
    let rows: Vec<Vec<String>> =
        suspended.items.iter().flat_map(|run| run.calls.iter().map(move |call| row(run, call))).collect();
    let head = ["THREAD", "OWNER", "AGENT", "CALL", "TOOL", "SINCE", "EXPIRES", "WITH"];
    print::text(&print::table(&head, &rows))?;
    if suspended.has_more(page) {
        eprintln!("{} runs wait in all: --page {}", suspended.total, page.number + 1);
    }
    Ok(Exit::Good)
}

fn object(run: &SuspendedRun) -> Value {
    let calls = run.calls.iter().map(|call| {
        json!({
            "call": call.call, "tool": call.tool, "args": call.args, "requires_approval": call.requires_approval,
            "suspend_payload": call.suspend_payload, "since": call.since, "expires_at": call.expires_at,
        })
    });
    json!({
        "run": run.run, "thread": run.thread, "resource": run.resource, "agent": run.agent,
        "suspended_at": run.suspended_at, "calls": calls.collect::<Vec<_>>(),
    })
}
