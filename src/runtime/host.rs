//! The runtime as tools see it: a client that does not keep the runtime alive.

use std::sync::Weak;

use futures::future::BoxFuture;
use serde_json::Value;

use super::Error;
use super::client::{Client, Inner};
use crate::agent::{Delegated, Host, while_resting};
use crate::failure::Failure;
use crate::intake::SendOptions;
use crate::journal::Event;
use crate::message::{ABORTED, NewSignal};
use crate::payload::Payload;
use crate::run::{IdempotencyKey, KeyKept, StartOptions};
use crate::workflow::StepContext;
use crate::workflows::turn::Turned;

/// How long a start is known by its step's key: longer than any step is tried.
const KEY_KEPT: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3_600);

/// Who ends what was begun for a call that is given up.
const BY: &str = "the call that asked";

/// The runtime that runs the tools: agents are part of it, so they must not own it.
pub(super) struct Here(pub(super) Weak<Inner>);

impl Here {
    fn client(&self) -> Result<Client, Failure> {
        let inner = self.0.upgrade();
        inner.map(|inner| Client { inner }).ok_or_else(|| Failure::new("this process is stopping"))
    }
}

impl Host for Here {
    fn delegate(&self, cx: StepContext, asked: Delegated) -> BoxFuture<'static, Result<Value, Failure>> {
        let client = self.client();
        Box::pin(async move { delegate(client?, cx, asked).await })
    }

    fn run(&self, cx: StepContext, workflow: &'static str, input: Value) -> BoxFuture<'static, Result<Value, Failure>> {
        let client = self.client();
        Box::pin(async move { run(client?, cx, workflow, input).await })
    }
}

async fn delegate(client: Client, cx: StepContext, asked: Delegated) -> Result<Value, Failure> {
    let Delegated { agent, thread, resource, text } = asked;
    let thread = client.agent(&agent).thread(&thread, resource).map_err(failure)?;
    // An attempt that is made again sends the same message, and hears which run has it.
    let message = NewSignal { id: Some(cx.idempotency_key().to_owned()), ..NewSignal::user(text) };
    let sent = thread.send_with(message, SendOptions::default()).await.map_err(failure)?;
    let run = sent.run.ok_or_else(|| Failure::new(format!("agent {agent} was not asked")).not_retryable())?;
    let handle = client.find(run.as_str()).await.map_err(failure)?;
    let Some(turned) = while_resting(&cx, handle.result::<Turned>()).await else {
        until_given_up(&client, &cx).await?;
        thread.abort(BY, Some(&run)).await.map_err(failure)?;
        return Err(given_up());
    };
    let turned = turned.map_err(failure)?;
    if turned.reason == ABORTED {
        let what = format!("agent {agent} was stopped before it had answered");
        return Err(Failure::new(what).code("delegate_aborted").not_retryable());
    }
    Ok(Value::from(turned.text))
}

async fn run(client: Client, cx: StepContext, workflow: &str, input: Value) -> Result<Value, Failure> {
    let key = IdempotencyKey { key: cx.idempotency_key().to_owned(), kept: KeyKept::For(KEY_KEPT) };
    let options = StartOptions { idempotency_key: Some(key), ..StartOptions::default() };
    let (handle, _) = client.start(workflow, Payload::of(&input)?, options).await.map_err(failure)?;
    let Some(value) = while_resting(&cx, handle.result::<Value>()).await else {
        until_given_up(&client, &cx).await?;
        handle.cancel("the call that started it was given up", BY).await.map_err(failure)?;
        return Err(given_up());
    };
    value.map_err(failure)
}

/// Goes on only if the run that asked has given its call up, as its journal says. A body is told to stop for other reasons
/// too: its process stops, or another has taken its run over. Then the call is made again, and finds what was begun.
async fn until_given_up(client: &Client, cx: &StepContext) -> Result<(), Failure> {
    let asking = client.find(cx.run().as_str()).await.map_err(failure)?;
    let history = asking.history().await.map_err(failure)?;
    let gives_up = |event: &Event| match event {
        Event::WaitWithdrawn(withdrawn) => withdrawn.op == cx.op,
        Event::CancelRequested(_) => true,
        _ => false,
    };
    if history.run.status.is_open() && !history.journal.iter().any(|line| gives_up(&line.event)) {
        // It is dropped where it waits.
        std::future::pending::<()>().await;
    }
    Ok(())
}

fn given_up() -> Failure {
    Failure::new("the call was given up").code("call_given_up").not_retryable()
}

/// What went wrong, for the step: what may pass is tried again, everything else is told the model.
fn failure(error: Error) -> Failure {
    let code = error.code();
    let passes = matches!(code, "store_unavailable" | "overloaded" | "stopping");
    let failure = Failure::from(error).code(code);
    if passes { failure } else { failure.not_retryable() }
}
