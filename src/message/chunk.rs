//! The chunks of a thread's stream, as subscribers get them (H4). Pure: each is a JSON value.

use serde_json::{Value, json};

use crate::clock::Instant;
use crate::message::prompt::ToolCall;
use crate::message::reply::{Approval, CallState};
use crate::message::signal::ThreadSignal;

/// The type of the last chunk of a thread that was deleted.
pub const THREAD_DELETED: &str = "data-thread-deleted";

/// Makes the chunks of one run.
#[derive(Debug, Clone)]
pub struct Chunks {
    run: String,
}

/// The tokens that a model was asked to read and wrote, as chunks say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Read.
    pub input: u64,
    /// Written.
    pub output: u64,
    /// Both.
    pub total: u64,
}

/// How a step, or a run, ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished<'a> {
    /// The assistant message that it belongs to.
    pub message: &'a str,
    /// Why: `stop`, `tool-calls`, `length`, `other`, …
    pub reason: &'a str,
    /// Whether another step follows.
    pub continued: bool,
    /// The message of the next step, if signals were taken (T10.4).
    pub next_message: Option<&'a str>,
    /// The text that was said last.
    pub text: &'a str,
    /// The calls that were made.
    pub calls: Vec<Value>,
    /// What it cost.
    pub tokens: Tokens,
    /// The answer's id and the model's name, as the provider gave them.
    pub response: Option<&'a str>,
    /// The model that answered.
    pub model: &'a str,
    /// How often processors have had the model try again.
    pub retries: u32,
    /// When.
    pub at: Instant,
}

/// What has ended a run before its time (H4.5).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tripwire<'a> {
    /// In words.
    pub reason: &'a str,
    /// The processor that did, if one did.
    pub processor: Option<&'a str>,
    /// It had asked for another attempt, and there may be none.
    pub retry: bool,
    /// More, for programs; nothing if null.
    pub metadata: Value,
}

impl<'a> Tripwire<'a> {
    /// With nothing but a reason.
    #[must_use]
    pub fn of(reason: &'a str) -> Self {
        Self { reason, ..Self::default() }
    }
}

impl Chunks {
    /// Of the run with this id.
    #[must_use]
    pub fn of(run: impl Into<String>) -> Self {
        Self { run: run.into() }
    }

    fn chunk(&self, kind: &str, payload: Value) -> Value {
        json!({ "type": kind, "runId": self.run, "from": "AGENT", "payload": payload })
    }

    /// A run begins (H4.2).
    #[must_use]
    pub fn start(&self, agent: &str, message: &str) -> Value {
        self.chunk("start", json!({ "id": agent, "messageId": message }))
    }

    /// A signal has entered the transcript (H4.4).
    #[must_use]
    pub fn echo(&self, signal: &ThreadSignal) -> Value {
        signal.echo(&self.run)
    }

    /// A step begins; `step` counts from 1. `restarted`: what was shown of it before is not part of it any more (T11.11).
    #[must_use]
    pub fn step_start(&self, message: &str, step: u32, restarted: bool, at: Instant) -> Value {
        let mut payload =
            json!({ "messageId": message, "startedAt": at.0, "warnings": [], "request": {}, "stepNumber": step });
        if restarted {
            payload["restarted"] = true.into();
        }
        self.chunk("step-start", payload)
    }

    /// A block of text begins, goes on or ends; with `reasoning`, of thinking.
    #[must_use]
    pub fn text(&self, reasoning: bool, piece: &Piece<'_>) -> Value {
        let kind = |text: &'static str, thinking: &'static str| if reasoning { thinking } else { text };
        match piece {
            Piece::Start(id) => self.chunk(kind("text-start", "reasoning-start"), json!({ "id": id })),
            Piece::More(id, text) => {
                self.chunk(kind("text-delta", "reasoning-delta"), json!({ "id": id, "text": text }))
            }
            Piece::End(id) => self.chunk(kind("text-end", "reasoning-end"), json!({ "id": id })),
        }
    }

    /// A call's arguments are being written: they begin, go on or end.
    #[must_use]
    pub fn tool_input(&self, call: &str, tool: &str, piece: &Piece<'_>) -> Value {
        match piece {
            Piece::Start(_) => {
                self.chunk("tool-call-input-streaming-start", json!({ "toolCallId": call, "toolName": tool }))
            }
            Piece::More(_, text) => {
                self.chunk("tool-call-delta", json!({ "toolCallId": call, "toolName": tool, "argsTextDelta": text }))
            }
            Piece::End(_) => self.chunk("tool-call-input-streaming-end", json!({ "toolCallId": call })),
        }
    }

    /// The model calls a tool.
    #[must_use]
    pub fn tool_call(&self, call: &ToolCall) -> Value {
        self.chunk("tool-call", called(call))
    }

    /// A call waits for somebody's agreement (T13.2).
    #[must_use]
    pub fn tool_call_approval(&self, call: &ToolCall) -> Value {
        let mut payload = called(call);
        payload["resumeSchema"] = approval_schema().to_string().into();
        self.chunk("tool-call-approval", payload)
    }

    /// A call has suspended itself (T13.7).
    #[must_use]
    pub fn tool_call_suspended(&self, call: &ToolCall, shown: &Value) -> Value {
        let mut payload = called(call);
        payload["suspendPayload"] = shown.clone();
        payload["resumeSchema"] = "{}".into();
        self.chunk("tool-call-suspended", payload)
    }

    /// What a call came to; none while it is open.
    #[must_use]
    pub fn tool_result(&self, call: &ToolCall, state: &CallState, approval: Option<&Approval>) -> Option<Value> {
        let mut payload = called(call);
        let kind = match state {
            CallState::Open => return None,
            CallState::Done(result) => {
                payload["result"] = result.clone();
                "tool-result"
            }
            CallState::Failed(error) => {
                payload["error"] = error.clone();
                "tool-error"
            }
            CallState::Denied => {
                let reason = approval.and_then(|approval| approval.reason.clone());
                payload["approval"] = json!({
                    "id": approval.map_or(call.id.as_str(), |approval| approval.id.as_str()),
                    "approved": false,
                    "reason": reason.unwrap_or_else(|| crate::message::DENIED.to_owned()),
                });
                "tool-output-denied"
            }
        };
        Some(self.chunk(kind, payload))
    }

    /// A step has ended (H4.3).
    #[must_use]
    pub fn step_finish(&self, finished: &Finished<'_>) -> Value {
        let mut payload = finished.payload();
        payload["processorRetryCount"] = finished.retries.into();
        self.chunk("step-finish", payload)
    }

    /// The run has ended (H4.3). Terminal.
    #[must_use]
    pub fn finish(&self, finished: &Finished<'_>) -> Value {
        let mut payload = finished.payload();
        payload["response"] =
            json!({ "id": finished.response, "modelId": finished.model, "messages": [], "uiMessages": [] });
        self.chunk("finish", payload)
    }

    /// The run has failed. Terminal.
    #[must_use]
    pub fn error(&self, name: &str, message: &str) -> Value {
        self.chunk("error", json!({ "error": { "message": message, "name": name } }))
    }

    /// The answer of a form that was asked for (H4.5); what finishes the run follows.
    #[must_use]
    pub fn object_result(&self, object: &Value) -> Value {
        json!({ "type": "object-result", "runId": self.run, "from": "AGENT", "object": object })
    }

    /// A processor or a limit has ended the run (T15.7); what finishes it follows.
    #[must_use]
    pub fn tripwire(&self, tripwire: &Tripwire<'_>) -> Value {
        let mut payload = json!({ "reason": tripwire.reason });
        if let Some(processor) = tripwire.processor {
            payload["processorId"] = processor.into();
        }
        if tripwire.retry {
            payload["retry"] = true.into();
        }
        if !tripwire.metadata.is_null() {
            payload["metadata"] = tripwire.metadata.clone();
        }
        self.chunk("tripwire", payload)
    }

    /// The run was aborted (T12.2). Terminal.
    #[must_use]
    pub fn abort(&self) -> Value {
        json!({ "type": "abort", "runId": self.run })
    }

    /// The thread is no more; what follows is of another one under its id (H10.5).
    #[must_use]
    pub fn thread_deleted(&self, thread: &str, at: Instant) -> Value {
        let data = json!({ "threadId": thread, "deletedAt": at.to_string() });
        json!({ "type": THREAD_DELETED, "runId": self.run, "transient": true, "data": data })
    }

    /// What subscribers are shown of a signal that was only put into the history: a run of its own (T11.9, H4.7).
    #[must_use]
    pub fn persisted(&self, agent: &str, signal: &ThreadSignal) -> Vec<Value> {
        let nothing = json!({ "inputTokens": 0, "outputTokens": 0, "totalTokens": 0 });
        vec![
            self.start(agent, &format!("persisted-signal:{}", signal.id)),
            self.echo(signal),
            self.chunk("finish", json!({ "stepResult": { "reason": "stop" }, "output": { "usage": nothing } })),
        ]
    }
}

/// A piece of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// It begins.
    Start(&'a str),
    /// More of it.
    More(&'a str, &'a str),
    /// It is complete.
    End(&'a str),
}

impl Finished<'_> {
    fn payload(&self) -> Value {
        let mut result = json!({ "reason": self.reason, "isContinued": self.continued });
        if let Some(next) = self.next_message {
            result["messageId"] = next.into();
        }
        let Tokens { input, output, total } = self.tokens;
        json!({
            "messageId": self.message,
            "stepResult": result,
            "metadata": { "id": self.response, "timestamp": self.at.to_string(), "modelId": self.model },
            "output": {
                "text": self.text,
                "toolCalls": self.calls,
                "usage": { "inputTokens": input, "outputTokens": output, "totalTokens": total },
            },
        })
    }
}

fn called(call: &ToolCall) -> Value {
    json!({ "toolCallId": call.id, "toolName": call.name, "args": call.arguments })
}

/// The JSON Schema of an answer to a call that needs approval (T13.2).
#[must_use]
pub fn approval_schema() -> Value {
    json!({
        "type": "object",
        "properties": { "approved": { "type": "boolean" }, "reason": { "type": "string" } },
        "required": ["approved"],
    })
}
