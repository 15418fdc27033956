//! `aldis approve --server`: the same over HTTP.

use serde_json::{Value, json};

use super::Approve;
use crate::cli::error::Error;
use crate::cli::{Desk, Exit, print};
use crate::client::Client;

pub(in crate::cli) async fn run(desk: &Desk, client: &Client, asked: &Approve) -> Result<Exit, Error> {
    let resume: Option<Value> = asked
        .resume
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .map_err(|e| Error::Usage(format!("--resume is not JSON: {e}; a text is written '\"so\"'")))?;
    let thread = asked.whose.remote(client, &asked.thread);
    let call = match &asked.call {
        Some(call) => call.clone(),
        None => match &thread.waiting().await?[..] {
            [one] => one.tool_call_id.clone(),
            [] => return Err(Error::Usage(format!("no call waits for an answer on thread {}", asked.thread))),
            many => {
                let calls: Vec<String> =
                    many.iter().map(|it| format!("{} ({})", it.tool_call_id, it.tool_name)).collect();
                return Err(Error::Usage(format!("several calls wait, name one: {}", calls.join(", "))));
            }
        },
    };
    let answered = thread.answer(&call, !asked.decline, asked.reason.as_deref(), resume.as_ref()).await?;
    if desk.json() {
        print::json(&json!({ "accepted": true, "run": answered.run_id, "call": call }))?;
    } else {
        print::line(&format!("call {call}: {}", if asked.decline { "declined" } else { "approved" }))?;
    }
    Ok(Exit::Good)
}
