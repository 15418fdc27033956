//! Hooks around one call of the model, and one call of a tool (T15.1). They run inside that call's step: what they change
//! is part of its recorded result. None of them sends signals (T15.2) but the one for failures.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Agent;
use super::model::{Reply, Request};
use super::processor::{Hook, HookContext, Processor, Sending, Stop};
use crate::failure::{Failure, Retry};
use crate::message::ToolCall;
use crate::workflow::StepContext;

/// What every hook knows: which step it runs in, and for whom.
#[derive(Debug, Clone)]
pub struct CallContext {
    pub(super) step: StepContext,
    pub(super) agent: String,
    pub(super) thread: String,
    pub(super) resource: String,
    pub(super) request_context: Map<String, Value>,
}

impl CallContext {
    /// The step that the hook runs in: its attempt, its idempotency key, whether it is to stop.
    #[must_use]
    pub fn step(&self) -> &StepContext {
        &self.step
    }

    /// The agent that answers.
    #[must_use]
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// The thread that is answered.
    #[must_use]
    pub fn thread(&self) -> &str {
        &self.thread
    }

    /// Its owner.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// What the sender gave for tools and processors.
    #[must_use]
    pub fn request_context(&self) -> &Map<String, Value> {
        &self.request_context
    }
}

/// The prompt as it goes out. What is changed is changed for this call only.
#[derive(Debug)]
pub struct RequestHook<'h> {
    /// What the hook knows.
    pub context: &'h CallContext,
    /// What is asked.
    pub request: &'h mut Request,
    /// An answer in the model's place; hooks that follow are not called, nor is the model.
    pub answer: &'h mut Option<Reply>,
    stop: &'h mut Option<Stop>,
    processor: &'h str,
}

/// The model's answer, to be looked at.
#[derive(Debug)]
pub struct ResponseHook<'h> {
    /// What the hook knows.
    pub context: &'h CallContext,
    /// What was asked.
    pub request: &'h Request,
    /// What was answered.
    pub reply: &'h Reply,
    stop: &'h mut Option<Stop>,
    processor: &'h str,
}

/// A piece of an answer, before anybody sees it.
#[derive(Debug)]
pub struct StreamHook<'h> {
    /// What the hook knows.
    pub context: &'h CallContext,
    /// Whether it is thinking rather than text for the reader.
    pub reasoning: bool,
    /// All of its block that was let through before.
    pub so_far: &'h str,
    /// The piece; leave it empty to drop it.
    pub text: &'h mut String,
    stop: &'h mut Option<Stop>,
    processor: &'h str,
}

/// What a tool has returned, before the model reads it. If the hook fails, the call has.
#[derive(Debug)]
pub struct ToolResultHook<'h> {
    /// What the hook knows.
    pub context: &'h CallContext,
    /// The call.
    pub call: &'h ToolCall,
    /// Its result, to be changed.
    pub result: &'h mut Value,
}

/// A call of the model that has failed for good: no other attempt of its step would follow.
#[derive(Debug)]
pub struct ErrorHook<'h> {
    /// What every hook knows, and may ask. What it sends closes the assistant message (T15.2).
    pub context: &'h mut HookContext,
    /// Why it failed; the code is that of the model's error.
    pub failure: &'h Failure,
    /// Set it to have the model asked again, in another step, as often as processors may ask.
    pub retry: &'h mut bool,
}

/// Ending the turn from within a call of the model.
macro_rules! stops {
    ($($hook:ident)*) => {$(
        impl $hook<'_> {
            /// Ends the turn with a reason (T15.7); hooks that follow are not called.
            pub fn abort(&mut self, reason: impl Into<String>) {
                *self.stop = Some(Stop::of(reason, self.processor));
            }

            /// Asks for another attempt, with the reason as feedback to the model (T15.7).
            pub fn retry(&mut self, reason: impl Into<String>) {
                *self.stop = Some(Stop { retry: true, ..Stop::of(reason, self.processor) });
            }
        }
    )*};
}

stops!(RequestHook ResponseHook StreamHook);

/// A call of the model that has come to nothing, and what hooks say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub failure: Failure,
    /// Whether the model is to be asked again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retry: bool,
    /// What hooks have sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent: Vec<Sending>,
}

/// The hooks around one call.
pub(super) struct Around {
    pub(super) context: CallContext,
    processors: Vec<Arc<dyn Processor>>,
    /// What a hook has ended the turn with.
    pub(super) stop: Option<Stop>,
}

impl Around {
    pub(super) fn of(agent: &Agent, context: CallContext) -> Self {
        Self { context, processors: agent.processors.clone(), stop: None }
    }

    /// Whether a processor has this hook.
    pub(super) fn has(&self, hook: Hook) -> bool {
        self.processors.iter().any(|it| it.hooks().contains(&hook))
    }

    fn each(&self, hook: Hook) -> Vec<Arc<dyn Processor>> {
        self.processors.iter().filter(|it| it.hooks().contains(&hook)).cloned().collect()
    }

    /// The prompt as it goes out; an answer, if one is given in the model's place.
    pub(super) async fn request(&mut self, request: &mut Request) -> Result<Option<Reply>, Failure> {
        let mut answer = None;
        for it in self.each(Hook::LlmRequest) {
            if self.stop.is_none() && answer.is_none() {
                let Self { context, stop, .. } = self;
                let hook = RequestHook { context, request, answer: &mut answer, stop, processor: it.id() };
                it.process_llm_request(hook).await?;
            }
        }
        Ok(answer)
    }

    pub(super) async fn response(&mut self, request: &Request, reply: &Reply) -> Result<(), Failure> {
        for it in self.each(Hook::LlmResponse) {
            if self.stop.is_none() {
                let Self { context, stop, .. } = self;
                it.process_llm_response(ResponseHook { context, request, reply, stop, processor: it.id() }).await?;
            }
        }
        Ok(())
    }

    /// A piece of an answer; what is left of it.
    pub(super) async fn piece(&mut self, reasoning: bool, so_far: &str, mut text: String) -> Result<String, Failure> {
        for it in self.each(Hook::OutputStream) {
            if self.stop.is_none() && !text.is_empty() {
                let Self { context, stop, .. } = self;
                let text = &mut text;
                let hook = StreamHook { context, reasoning, so_far, text, stop, processor: it.id() };
                it.process_output_stream(hook).await?;
            }
        }
        // What a hook has ended the turn for is not let through.
        Ok(if self.stop.is_some() { String::new() } else { text })
    }

    pub(super) async fn tool_result(&self, call: &ToolCall, result: &mut Value) -> Result<(), Failure> {
        for it in self.each(Hook::ToolResult) {
            it.process_tool_result(ToolResultHook { context: &self.context, call, result }).await?;
        }
        Ok(())
    }

    /// Hooks for a call that has failed, if no other attempt would follow. What is to be recorded; none if the failure
    /// is all there is to say.
    pub(super) async fn failed(
        &self,
        failure: &Failure,
        last_attempt: bool,
        mut context: HookContext,
    ) -> Result<Option<Refusal>, Failure> {
        if failure.retry != Retry::Never && !last_attempt {
            return Ok(None);
        }
        let mut retry = false;
        for it in self.each(Hook::ApiError) {
            it.id().clone_into(&mut context.processor);
            it.process_api_error(ErrorHook { context: &mut context, failure, retry: &mut retry }).await?;
        }
        let sent = std::mem::take(&mut context.sent);
        let says = retry || !sent.is_empty();
        Ok(says.then(|| Refusal { failure: failure.clone(), retry, sent }))
    }
}
