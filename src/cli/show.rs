//! `aldis show`: how a run stands, and why it is not moving.

use std::fmt::Write as _;

use clap::Args;

use super::error::Error;
use super::print::{self, time};
use super::{Desk, Exit};
use crate::clock::{Clock, Instant};
use crate::runtime::{Shown, WaitsFor};

/// Says how a run stands: what it waits for and since when, when it goes on, who has it.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The run's id
    pub(super) run: String,
}

pub(super) async fn run(desk: &Desk, asked: Show) -> Result<Exit, Error> {
    let client = desk.client().await?;
    let shown = client.find(&asked.run).await?.show().await?;
    if desk.json() {
        print::json(&shown)?;
    } else {
        let now = Clock::System.now();
        let live = client.workers().await?.iter().any(|worker| worker.lease_until > now);
        print::text(&text(&shown, live, now))?;
    }
    client.store().close().await;
    Ok(Exit::Good)
}

/// One wait, in words.
pub(super) fn wait(wait: &WaitsFor) -> String {
    let named = wait.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
    let kind = match wait.kind {
        "signals" => "a batch of signals",
        "update" => "an update",
        kind => kind,
    };
    let mut text = format!("{kind}{named}");
    // Writing to a String cannot fail.
    let _ = match (wait.kind, wait.until) {
        ("timer", Some(until)) => write!(text, " until {until}"),
        (_, Some(until)) => write!(text, ", next attempt at {until}"),
        (_, None) => Ok(()),
    };
    if let (Some(failed @ 1..), last) = (wait.attempts_failed, &wait.last_failure) {
        let last = last.as_ref().map(|last| format!(", the last: {last}")).unwrap_or_default();
        let _ = write!(text, ", {failed} attempts failed{last}");
    }
    text
}

fn text(shown: &Shown, live: bool, now: Instant) -> String {
    let time = |at| time(at, now);
    let mut lines = vec![
        format!("run {}: {}", shown.id, shown.status),
        format!("  workflow   {} v{}", shown.workflow, shown.version),
        format!("  created    {}", time(shown.created_at)),
        format!("  changed    {}", time(shown.updated_at)),
        format!("  journal    {} lines", shown.events),
    ];
    for waits in &shown.waits_for {
        lines.push(format!("  waits for  {}, since {}", wait(waits), time(waits.since)));
    }
    if let Some(at) = shown.next_wake {
        lines.push(format!("  goes on    {} at the latest", time(at)));
    }
    if let Some(owner) = &shown.owner {
        let until = shown.lease_until.map(|at| format!(", lease until {}", time(at))).unwrap_or_default();
        lines.push(format!("  owner      {owner}{until}"));
    }
    if let Some(blocked) = &shown.blocked {
        lines.push(format!("  blocked    ({}) {}", blocked.code, blocked.reason));
    }
    if let Some(request) = &shown.cancel_requested {
        lines.push(format!("  cancel     requested: {request}"));
    }
    if shown.undos > 0 {
        lines.push(format!("  undo list  compensations: {}", shown.undos));
    }
    if shown.signals_pending > 0 {
        lines.push(format!("  pending    signals not taken: {}", shown.signals_pending));
    }
    if let Some(output) = &shown.output {
        lines.push(format!("  output     {output}"));
    }
    if let Some(failure) = &shown.failure {
        lines.push(format!("  failure    {failure}"));
    }
    if !live && matches!(shown.status, "due" | "running" | "waiting") {
        lines.push("  nobody advances the runs of this store now; start `aldis work`".into());
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Blocked;

    fn shown() -> Shown {
        Shown {
            id: "order-7".into(),
            namespace: "default".into(),
            workflow: "refund".into(),
            version: 2,
            status: "waiting",
            waits_for: Vec::new(),
            next_wake: None,
            owner: None,
            lease_until: None,
            blocked: None,
            cancel_requested: None,
            undos: 0,
            signals_pending: 0,
            output: None,
            failure: None,
            events: 7,
            created_at: Instant(1_785_000_000_000),
            updated_at: Instant(1_785_000_060_000),
        }
    }

    fn waits(kind: &'static str, name: Option<&str>) -> WaitsFor {
        WaitsFor {
            kind,
            name: name.map(str::to_owned),
            op: "3".into(),
            since: Instant(1_785_000_060_000),
            until: None,
            attempts_failed: None,
            last_failure: None,
        }
    }

    const NOW: Instant = Instant(1_785_000_090_000);

    #[test]
    fn a_waiting_run_says_what_for_since_when_and_until_when() {
        let until = Some(Instant(1_785_086_460_000));
        let timer = WaitsFor { until, ..waits("timer", None) };
        let failed = Some(2);
        let last_failure = Some("the bank is closed".to_owned());
        let step = WaitsFor { until, attempts_failed: failed, last_failure, ..waits("step", Some("pay_out")) };
        let waits_for = vec![waits("signal", Some("approval")), timer, step];
        let shown = Shown { waits_for, next_wake: until, undos: 1, signals_pending: 3, ..shown() };
        insta::assert_snapshot!(text(&shown, true, NOW), @r#"
    run order-7: waiting
      workflow   refund v2
      created    2026-07-25T17:20:00.000Z (1m 30s ago)
      changed    2026-07-25T17:21:00.000Z (30s ago)
      journal    7 lines
      waits for  signal "approval", since 2026-07-25T17:21:00.000Z (30s ago)
      waits for  timer until 2026-07-26T17:21:00.000Z, since 2026-07-25T17:21:00.000Z (30s ago)
      waits for  step "pay_out", next attempt at 2026-07-26T17:21:00.000Z, 2 attempts failed, the last: the bank is closed, since 2026-07-25T17:21:00.000Z (30s ago)
      goes on    2026-07-26T17:21:00.000Z (in 23h 59m) at the latest
      undo list  compensations: 1
      pending    signals not taken: 3
    "#);
    }

    #[test]
    fn a_blocked_run_says_why() {
        let blocked = Blocked { code: "panicked", reason: "the workflow's code panicked: index out of bounds".into() };
        let shown = Shown { status: "blocked", blocked: Some(blocked), ..shown() };
        insta::assert_snapshot!(text(&shown, false, NOW), @r#"
    run order-7: blocked
      workflow   refund v2
      created    2026-07-25T17:20:00.000Z (1m 30s ago)
      changed    2026-07-25T17:21:00.000Z (30s ago)
      journal    7 lines
      blocked    (panicked) the workflow's code panicked: index out of bounds
    "#);
    }

    #[test]
    fn a_running_run_says_who_has_it() {
        let (owner, lease_until) = (Some("worker 4 (pid 7)".to_owned()), Some(Instant(1_785_000_095_000)));
        let shown = Shown { status: "running", owner, lease_until, ..shown() };
        insta::assert_snapshot!(text(&shown, true, NOW), @r#"
    run order-7: running
      workflow   refund v2
      created    2026-07-25T17:20:00.000Z (1m 30s ago)
      changed    2026-07-25T17:21:00.000Z (30s ago)
      journal    7 lines
      owner      worker 4 (pid 7), lease until 2026-07-25T17:21:35.000Z (in 5s)
    "#);
    }

    #[test]
    fn a_due_run_says_that_nobody_is_there() {
        let shown = Shown { status: "due", cancel_requested: Some("enough (by ana)".into()), ..shown() };
        insta::assert_snapshot!(text(&shown, false, NOW), @r#"
    run order-7: due
      workflow   refund v2
      created    2026-07-25T17:20:00.000Z (1m 30s ago)
      changed    2026-07-25T17:21:00.000Z (30s ago)
      journal    7 lines
      cancel     requested: enough (by ana)
      nobody advances the runs of this store now; start `aldis work`
    "#);
    }
}
