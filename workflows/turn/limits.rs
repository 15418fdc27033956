//! What ends a turn although the model would go on: its budget, its agent's stop conditions, the limit of steps.

use std::sync::Arc;
use std::time::Duration;

use aldis::agent::{Asked, FinishedStep};
use aldis::clock::Instant;
use aldis::message::{CallState, Tripwire};
use aldis::workflow::Cancelled;
use aldis::{Context, Failure, Step};
use serde_json::json;

use super::{MODEL, STOP, Turn, Turned};

/// Why no other step follows.
pub(super) enum Limit {
    /// The steps of a turn are counted.
    Steps,
    /// The client has to run a call (T13.14).
    Elsewhere,
    /// The turn has cost what it may.
    Tokens { used: u64, max: u64 },
    /// A stop condition holds.
    Stopped(String),
}

impl Limit {
    /// In words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Steps => "the turn has had as many steps as it may".to_owned(),
            Self::Elsewhere => "the client has to run a tool first".to_owned(),
            Self::Tokens { used, max } => format!("the turn has used {used} tokens and may use {max}"),
            Self::Stopped(name) => format!("the stop condition {name:?} holds"),
        }
    }
}

impl Turn {
    /// The step that asks the model, with what the turn's budget says of it.
    pub(super) fn model_step(&self) -> Step<aldis::agent::Ask, Asked> {
        let mut step = MODEL;
        if let Some(attempts) = self.budget.attempts_max {
            step = step.attempts(attempts.max(1));
        }
        if let Some(idle) = self.budget.idle_max() {
            step = step.idle_timeout(idle.max(Duration::from_millis(1)));
        }
        step
    }

    /// Why no other step may follow, if none may. Looked at before anything is taken (T10.7).
    pub(super) async fn limit(&self, cx: &Context, asked: &Asked, elsewhere: bool) -> Result<Option<Limit>, Failure> {
        let (steps, used) = {
            let so_far = self.so_far();
            (so_far.steps, so_far.usage.total)
        };
        if elsewhere {
            return Ok(Some(Limit::Elsewhere));
        }
        if steps >= asked.steps_max {
            return Ok(Some(Limit::Steps));
        }
        if let Some(max) = self.budget.tokens_max.filter(|max| used >= *max) {
            return Ok(Some(Limit::Tokens { used, max }));
        }
        if !self.stages.stop {
            return Ok(None);
        }
        let mut steps = self.so_far().carried.steps.clone();
        steps.push(self.this_step());
        let (agents, input) = (self.agents.clone(), Arc::clone(&self.input));
        let body = move |_, steps: Vec<FinishedStep>| {
            let stops = agents.stops(&input.agent, &steps);
            async move { Ok::<_, Failure>(stops) }
        };
        Ok(cx.step(&STOP, steps, body).await?.map(Limit::Stopped))
    }

    /// The step that is about to end, with what its calls came to.
    pub(super) fn this_step(&self) -> FinishedStep {
        let so_far = self.so_far();
        let mut calls = so_far.calls.clone();
        for call in &mut calls {
            let state = call["toolCallId"].as_str().and_then(|id| so_far.call_state(id));
            match state {
                Some(CallState::Done(result)) => call["result"] = result.clone(),
                Some(CallState::Failed(error)) => call["error"] = error.clone(),
                Some(CallState::Denied) => call["denied"] = true.into(),
                Some(CallState::Open) | None => {}
            }
        }
        FinishedStep { text: so_far.text.clone(), calls }
    }

    /// Ends a turn whose time is up: what was said stays, marked.
    pub(super) async fn out_of_time(&self, cx: &Context) -> Result<Turned, Failure> {
        self.enter_joined(cx.now());
        self.salvage(cx).await?;
        let millis = self.budget.time_max_ms.unwrap_or_default();
        let words = format!("the turn has taken the {millis} ms that it may take");
        let metadata = json!({ "limit": "time", "max": millis });
        self.thread.show(&self.chunks.tripwire(&Tripwire { metadata, ..Tripwire::of(&words) }));
        let closed = self.so_far().message.clone();
        self.finish(&closed, "other", cx.now());
        Ok(Turned { stopped_by: Some(words), ..self.turned("other") })
    }
}

/// Until the turn's time is up, if that is bounded.
pub(super) async fn time_is_up(cx: Context, until: Option<Instant>) -> Result<(), Cancelled> {
    match until {
        Some(until) => cx.sleep_until(until).await,
        None => std::future::pending().await,
    }
}
