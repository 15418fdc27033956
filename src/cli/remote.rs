//! `--server`: commands that ask a server instead of a store. What they print is what they print of a store, as far as the
//! server tells it.

use serde_json::{Map, Value, json};

use super::error::Error;
use super::{Command, Desk, Exit, approvals, approve, doctor, print, runs, send, signal, thread};
use crate::client::{self, Accepted, Client, OpenCall, RunsAsked, SuspendedRun};
use crate::message::Message;

/// The variable that holds the key. There is no flag for it: whoever lists processes would see it.
const KEY: &str = "ALDIS_KEY";

/// Does it there; nothing if the command is about this machine and asks nobody.
pub(super) async fn run(desk: &Desk, server: &str, command: &Command) -> Result<Option<Exit>, Error> {
    let client = Client::new(server)?.key(std::env::var(KEY).unwrap_or_default());
    let exit = match command {
        Command::Send(asked) => send::remote::run(desk, &client, asked).await?,
        Command::Approve(asked) => approve::remote::run(desk, &client, asked).await?,
        Command::Approvals(asked) => approvals(desk, &client, asked).await?,
        Command::Threads(asked) => threads(desk, &client, asked).await?,
        Command::Thread(asked) => history(desk, &client, asked).await?,
        Command::Runs(asked) => runs(desk, &client, asked).await?,
        Command::Show(asked) => show(desk, &client.run(&asked.run).await?)?,
        Command::Journal(asked) => journal(desk, &client, &asked.run).await?,
        Command::Signal(asked) => signal(desk, &client, asked).await?,
        Command::Cancel(asked) => {
            let accepted = client.cancel(&asked.run, &asked.reason).await?;
            told(desk, &asked.run, "request to cancel", accepted)?
        }
        Command::Doctor => doctor::remote(desk, &client).await?,
        #[cfg(feature = "server")]
        Command::Serve(_) => return Ok(None),
        Command::Work(_)
        | Command::Migrate
        | Command::Config(_)
        | Command::Bench(_)
        | Command::BenchResume(_)
        | Command::Completions(_) => return Ok(None),
        Command::Run(_)
        | Command::Wait(_)
        | Command::Replay(_)
        | Command::Answer(_)
        | Command::Abort(_)
        | Command::Unsend(_)
        | Command::Keys(_)
        | Command::Export(_)
        | Command::Import(_) => {
            let what = "this command goes to the store itself; leave --server and ALDIS_SERVER away, and give --store";
            return Err(Error::Usage(what.to_owned()));
        }
    };
    Ok(Some(exit))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

async fn threads(desk: &Desk, client: &Client, asked: &thread::Threads) -> Result<Exit, Error> {
    let listed = client.threads(asked.resource.as_deref(), asked.page, asked.limit).await?;
    if desk.json() {
        for it in &listed.threads {
            print::json(&json!({
                "id": it.id, "resource": it.resource_id, "title": it.title,
                "created_at": it.created_at, "updated_at": it.updated_at,
            }))?;
        }
        return Ok(Exit::Good);
    }
    let row = |it: &crate::client::ThreadRow| {
        vec![it.id.clone(), it.resource_id.clone(), it.title.clone().unwrap_or_default(), it.updated_at.clone()]
    };
    let rows: Vec<Vec<String>> = listed.threads.iter().map(row).collect();
    print::text(&print::table(&["THREAD", "OWNER", "TITLE", "CHANGED"], &rows))?;
    if asked.page.saturating_add(1).saturating_mul(asked.limit) < listed.total {
        eprintln!("{} threads in all: --page {}", listed.total, asked.page + 1);
    }
    Ok(Exit::Good)
}

async fn history(desk: &Desk, client: &Client, asked: &thread::Thread) -> Result<Exit, Error> {
    let thread = asked.whose.remote(client, &asked.thread);
    let rows = thread.messages(asked.limit).await?;
    let waiting: Vec<String> = thread.waiting().await?.into_iter().map(|it| it.tool_call_id).collect();
    let read = (1..).zip(&rows).map(|(number, row)| Message::of_row(number, row));
    let read: Result<Vec<Message>, _> = read.collect();
    let messages = read.map_err(|e| client::Error::Misunderstood { problem: e.to_string() })?;
    // Whether a turn has the thread the server does not say here: what does not wait is then being made.
    thread::told(desk, &messages, asked.model, thread::Open { waiting: &waiting, under_way: true })
}

async fn runs(desk: &Desk, client: &Client, asked: &runs::Runs) -> Result<Exit, Error> {
    let page = client
        .runs(&RunsAsked {
            workflow: asked.workflow.clone(),
            statuses: asked.status.clone(),
            before: asked.before.clone(),
            limit: Some(asked.limit),
        })
        .await?;
    if desk.json() {
        page.runs.iter().try_for_each(print::json)?;
        return Ok(Exit::Good);
    }
    let row = |run: &Map<String, Value>| {
        let told = |key: &str| run.get(key).map(text).unwrap_or_default();
        vec![
            told("id"),
            format!("{} v{}", told("workflow"), told("version")),
            told("status"),
            told("events"),
            told("updated_at"),
        ]
    };
    let rows: Vec<Vec<String>> = page.runs.iter().map(row).collect();
    print::text(&print::table(&["RUN", "WORKFLOW", "STATUS", "EVENTS", "CHANGED"], &rows))?;
    if let Some(before) = page.before {
        eprintln!("there may be more: --before {before}");
    }
    Ok(Exit::Good)
}

/// What the server tells of a run, a line for each thing.
fn show(desk: &Desk, run: &Map<String, Value>) -> Result<Exit, Error> {
    if desk.json() {
        print::json(run)?;
        return Ok(Exit::Good);
    }
    let told = |key: &str| run.get(key).map(text).unwrap_or_default();
    print::line(&format!("run {}: {}", told("id"), told("status")))?;
    for (key, value) in run.iter().filter(|(key, value)| !matches!(key.as_str(), "id" | "status") && !is_nothing(value))
    {
        match value {
            Value::Array(values) => {
                values.iter().try_for_each(|value| print::line(&format!("  {key:<16}  {}", text(value))))?;
            }
            value => print::line(&format!("  {key:<16}  {}", text(value)))?,
        }
    }
    Ok(Exit::Good)
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

async fn journal(desk: &Desk, client: &Client, run: &str) -> Result<Exit, Error> {
    for event in client.journal(run).await? {
        if desk.json() {
            print::json(&event)?;
            continue;
        }
        let told = |key: &str| event.get(key).map(text).unwrap_or_default();
        print::line(format!("{:>5}  {} {}", told("seq"), told("event"), told("name")).trim_end())?;
    }
    Ok(Exit::Good)
}

async fn signal(desk: &Desk, client: &Client, asked: &signal::Signal) -> Result<Exit, Error> {
    let value = signal::value(&asked.value)?;
    let value: Value = value.read().map_err(|e| Error::Usage(e.to_string()))?;
    let accepted = client.signal(&asked.run, &asked.name, &value, asked.id.as_deref()).await?;
    told(desk, &asked.run, &format!("signal {:?}", asked.name), accepted)
}

fn told(desk: &Desk, run: &str, what: &str, accepted: Accepted) -> Result<Exit, Error> {
    let (word, text) = match accepted.repeat {
        false => ("new", "accepted"),
        true => ("already", "was accepted before; nothing was added"),
    };
    if desk.json() {
        print::json(&json!({ "run": run, "accepted": word, "ordinal": accepted.ordinal }))?;
    } else {
        print::line(&format!("{what} to run {run}: {text}"))?;
    }
    Ok(Exit::Good)
}

async fn approvals(desk: &Desk, client: &Client, asked: &approvals::Approvals) -> Result<Exit, Error> {
    let agents = match &asked.agent {
        Some(agent) => vec![agent.clone()],
        None => client.agents().await?,
    };
    let bounds = [
        ("threadId", asked.thread.clone()),
        ("resourceId", asked.resource.clone()),
        ("fromDate", asked.since.map(|it| it.0.to_string())),
        ("toDate", asked.until.map(|it| it.0.to_string())),
        ("page", Some(asked.page.to_string())),
        ("perPage", Some(asked.limit.to_string())),
    ];
    let query: Vec<(&str, String)> = bounds.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let mut rows = Vec::new();
    for agent in agents {
        for run in client.suspended_runs(&agent, &query).await?.runs {
            if desk.json() {
                print::json(&object(&agent, &run))?;
            }
            rows.extend(run.tool_calls.iter().map(|call| row(&agent, &run, call)));
        }
    }
    if !desk.json() {
        print::text(&print::table(&["THREAD", "OWNER", "AGENT", "CALL", "TOOL", "SINCE", "WITH"], &rows))?;
    }
    Ok(Exit::Good)
}

fn object(agent: &str, run: &SuspendedRun) -> Value {
    let calls = run.tool_calls.iter().map(|call| {
        json!({
            "call": call.tool_call_id, "tool": call.tool_name, "args": call.args,
            "requires_approval": call.requires_approval, "suspend_payload": call.suspend_payload,
        })
    });
    json!({
        "run": run.run_id, "thread": run.thread_id, "resource": run.resource_id, "agent": agent,
        "suspended_at": run.suspended_at, "calls": calls.collect::<Vec<_>>(),
    })
}

fn row(agent: &str, run: &SuspendedRun, call: &OpenCall) -> Vec<String> {
    let asks = call.suspend_payload.as_ref().map_or_else(|| call.args.to_string(), |it| format!("asks {it}"));
    vec![
        run.thread_id.clone(),
        run.resource_id.clone(),
        agent.to_owned(),
        call.tool_call_id.clone(),
        call.tool_name.clone(),
        run.suspended_at.clone(),
        asks,
    ]
}
