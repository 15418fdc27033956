//! What the client's own tools came to, and where it belongs in the history (T13.14).

use aldis::message::{Body, CallState, Invocation, Message, ReplyPart};
use aldis::thread::CallResult;
use aldis::{Context, Failure, StepContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RESULTS, RESULTS_LOOK_BACK, Turn};

/// A message of the history whose open calls have got results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(super) struct Settled {
    /// The message's row, with the results.
    row: Value,
    /// The calls.
    calls: Vec<String>,
}

/// Gives open calls of the history their results. A call that has one keeps it.
async fn settle_open(cx: &StepContext, results: &[CallResult]) -> Result<Vec<Settled>, Failure> {
    let mut settled = Vec::new();
    for mut message in cx.recent(RESULTS_LOOK_BACK).await?.0 {
        let Body::Assistant(reply) = &mut message.body else { continue };
        let mut calls = Vec::new();
        for part in &mut reply.parts {
            let ReplyPart::Tool(invocation) = part else { continue };
            let result = results.iter().find(|it| it.call == invocation.call.id);
            if let (CallState::Open, Some(CallResult { output, failed, .. })) = (&invocation.state, result) {
                let output = output.clone();
                invocation.state = if *failed { CallState::Failed(output) } else { CallState::Done(output) };
                calls.push(invocation.call.id.clone());
            }
        }
        if !calls.is_empty() {
            settled.push(Settled { row: message.to_row("", ""), calls });
        }
    }
    Ok(settled)
}

impl Turn {
    /// What the client's tools came to enters the history where they were called (T13.14). False if nothing of it was new.
    pub(super) async fn take_results(&self, cx: &Context) -> Result<bool, Failure> {
        if self.input.results.is_empty() {
            return Ok(true);
        }
        let body = |cx: StepContext, results: Vec<CallResult>| async move { settle_open(&cx, &results).await };
        let settled = cx.step(&RESULTS, self.input.results.clone(), body).await?;
        for Settled { row, calls } in &settled {
            let message = Message::of_row(0, row).map_err(|e| Failure::new(e.to_string()).not_retryable())?;
            self.thread.rewrite(&message);
            let Body::Assistant(reply) = &message.body else { continue };
            for part in &reply.parts {
                if let ReplyPart::Tool(Invocation { call, state, approval }) = part
                    && calls.contains(&call.id)
                    && let Some(chunk) = self.chunks.tool_result(call, state, approval.as_ref())
                {
                    self.thread.show(&chunk);
                }
            }
        }
        Ok(!settled.is_empty())
    }
}
