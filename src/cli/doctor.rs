//! `aldis doctor`: looks for what is wrong with a store and its runs.

use serde::Serialize;

use super::error::{Error, with_causes};
use super::{Desk, Exit, print};
use crate::client::{self, Client as Server};
use crate::clock::{Clock, Instant};
use crate::run::Status;
use crate::runtime::Client;
use crate::store::Filter;

/// A run that was to go on so many milliseconds ago and has not is overdue.
const OVERDUE_MILLIS: i64 = 30_000;

/// How far a database's clock may be from this machine's.
const OFFSET_MILLIS_MAX: i64 = 1_000;

/// How many runs of a kind are looked at.
const LOOKED_AT: usize = 10_000;

/// How many runs are named.
const NAMED: usize = 10;

/// What was found about one thing.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was looked at.
    check: &'static str,
    /// ok, note or bad.
    state: &'static str,
    /// What was found, and what to do.
    found: String,
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, state: "ok", found: found.into() }
}

fn note(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, state: "note", found: found.into() }
}

fn bad(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, state: "bad", found: found.into() }
}

/// Looks at everything that tends to go wrong. Exit code 1 if something is wrong.
pub(super) async fn run(desk: &Desk) -> Result<Exit, Error> {
    let client = desk.client().await?;
    let now = client.clock().now();
    let mut findings = vec![ok("store", format!("{} is reached", client.store().location()))];
    let schema = client.store().schema().await?;
    findings.push(ok("schema", format!("{} of {}", schema.applied, schema.known)));
    for (setting, value, problem) in client.store().settings().await? {
        findings.push(match problem {
            None => ok("setting", format!("{setting} = {value}")),
            Some(problem) => bad("setting", format!("{setting} = {value}: {problem}")),
        });
    }
    findings.push(clock(&client).await?);
    workers(&client, now, &mut findings).await?;
    for (workflow, status, number) in client.counts().await? {
        findings.push(ok("runs", format!("{number} {status} of {workflow}")));
    }
    blocked(&client, &mut findings).await?;
    overdue(&client, now, &mut findings).await?;
    client.store().close().await;
    told(desk, &findings)
}

/// How far a server's clock may be from this machine's; it tells whole seconds.
const SERVER_OFFSET_SECONDS_MAX: i64 = 5;

/// Looks at a server from outside: whether it is reached, is ready, lets this key in, and knows what time it is.
pub(super) async fn remote(desk: &Desk, server: &Server) -> Result<Exit, Error> {
    let mut findings = Vec::new();
    match server.health().await {
        Ok(health) => {
            findings.push(ok("server", format!("{} is reached", server.base())));
            findings.push(version(&health.version));
            findings.extend(health.at_seconds.map(server_clock));
            findings.push(match server.ready().await {
                Ok(0) => note(
                    "ready",
                    "its store answers; nobody advances runs there: start `aldis work`, or another server",
                ),
                Ok(workers) => ok("ready", format!("its store answers; workers: {workers}")),
                Err(error) => bad("ready", with_causes(&error)),
            });
            findings.push(auth(server).await);
        }
        Err(error) => findings.push(bad("server", with_causes(&error))),
    }
    told(desk, &findings)
}

fn version(of_server: &str) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    match of_server == own {
        true => ok("version", of_server),
        false => note("version", format!("the server's is {of_server}, this program's {own}")),
    }
}

fn server_clock(at_seconds: i64) -> Finding {
    let offset = at_seconds - Clock::System.now().0 / 1_000;
    match offset.abs() <= SERVER_OFFSET_SECONDS_MAX {
        true => ok("clock", format!("{offset} s from this machine's")),
        false => bad("clock", format!("{offset} s from this machine's; set both by NTP")),
    }
}

async fn auth(server: &Server) -> Finding {
    match server.agents().await {
        Ok(agents) => ok("auth", format!("it lets this client in; agents: {}", agents.join(", "))),
        Err(client::Error::Refused { status: 401, .. }) => bad(
            "auth",
            "it does not let this client in; set ALDIS_KEY to a key that `aldis keys create NAME` made there",
        ),
        Err(error) => bad("auth", with_causes(&error)),
    }
}

fn told(desk: &Desk, findings: &[Finding]) -> Result<Exit, Error> {
    for finding in findings {
        if desk.json() {
            print::json(finding)?;
        } else {
            print::line(&format!("{:<4}  {:<8}  {}", finding.state, finding.check, finding.found))?;
        }
    }
    let well = findings.iter().all(|finding| finding.state != "bad");
    Ok(if well { Exit::Good } else { Exit::Bad })
}

async fn clock(client: &Client) -> Result<Finding, Error> {
    let offset = client.store().clock_offset().await?;
    Ok(if offset.abs() <= OFFSET_MILLIS_MAX {
        ok("clock", format!("{offset} ms from the database's"))
    } else {
        bad("clock", format!("{offset} ms from the database's; workers tell leases apart by it: set it by NTP"))
    })
}

async fn workers(client: &Client, now: Instant, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let workers = client.workers().await?;
    let counts = client.counts().await?;
    let open = counts.iter().any(|(_, status, _)| matches!(status.as_str(), "due" | "running" | "waiting"));
    if open && !workers.iter().any(|worker| worker.lease_until > now) {
        findings.push(note("workers", "nobody advances the open runs of this store; start `aldis work`"));
    }
    for worker in workers {
        let told = format!(
            "{} ({}), build {}, knows {}, lease {}",
            worker.key,
            worker.name,
            worker.build,
            worker.knows.join(", "),
            print::from_now(worker.lease_until, now),
        );
        findings.push(if worker.lease_until > now {
            ok("worker", told)
        } else {
            note("worker", format!("{told}: it has died; its runs are taken over by the next worker that looks"))
        });
    }
    Ok(())
}

async fn blocked(client: &Client, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let filter = Filter { statuses: vec!["blocked".into()], ..Filter::default() };
    let runs = client.list(&filter, LOOKED_AT).await?;
    for run in runs.iter().take(NAMED) {
        if let Status::Blocked { reason } = &run.status {
            findings.push(bad("blocked", format!("run {} ({}): {reason}", run.id, reason.code())));
        }
    }
    if runs.len() > NAMED {
        findings.push(bad("blocked", format!("{} more; see `aldis runs --status blocked`", runs.len() - NAMED)));
    }
    Ok(())
}

async fn overdue(client: &Client, now: Instant, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let filter = Filter { statuses: vec!["due".into(), "waiting".into()], ..Filter::default() };
    let late = |status: &Status| match status {
        Status::Due { at } | Status::Waiting { wake_at: Some(at) } => {
            Some(*at).filter(|at| at.0 < now.0 - OVERDUE_MILLIS)
        }
        _ => None,
    };
    let runs = client.list(&filter, LOOKED_AT).await?;
    let mut overdue: Vec<_> = runs.iter().filter_map(|run| Some((late(&run.status)?, run))).collect();
    overdue.sort_by_key(|(at, _)| *at);
    for (at, run) in overdue.iter().take(NAMED) {
        let since = print::span(Clock::System.now().since(*at));
        findings.push(bad("overdue", format!("run {} was to go on {since} ago", run.id)));
    }
    if overdue.len() > NAMED {
        findings.push(bad("overdue", format!("{} more", overdue.len() - NAMED)));
    }
    Ok(())
}
