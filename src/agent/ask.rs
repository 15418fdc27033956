//! The body of a model step: reads the thread, asks the model, shows what it says as it comes.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use super::model::{Delta, Deltas, Finish, ModelError, Reply, Request, Settings, ToolSpec};
use super::options::TurnOptions;
use super::output::{Formed, StructuredOutput, problems};
use super::prepare::{Base, Changes, window};
use super::tool::Tool;
use super::transient::{Transient, Transients};
use super::{Agent, Agents};
use crate::clock::Instant;
use crate::failure::{Failure, Fault};
use crate::message::{AssistantPart, Chunks, Message, Piece, PromptMessage, ToolCall};
use crate::payload::Payload;
use crate::workflow::StepContext;

/// How many pieces of an answer may wait to be shown before the model is slowed down.
const PIECES_MAX: usize = 256;

/// What a model step is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// The agent that asks.
    pub agent: String,
    /// Which step of the turn, from 1.
    pub step: u32,
    /// The assistant message that the answer goes into.
    pub message: String,
    /// When the step was begun.
    pub at: Instant,
    /// Signals that are in this prompt only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transient: Vec<Transient>,
    /// What processors have changed about it.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub changes: Changes,
    /// What they have changed for the whole turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
}

/// What a model step came to: the answer, and all that was decided about it, so that nothing is decided again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// What the model answered.
    pub reply: Reply,
    /// What is to become of its calls, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plans: Vec<Plan>,
    /// What subscribers have seen of its blocks of text and thinking, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shown: Vec<Shown>,
    /// What its text is, if it calls no tool and an answer of a form was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formed: Option<Formed>,
    /// The most steps that the turn may have.
    pub steps_max: u32,
    /// How many calls may run at the same time.
    pub calls_at_once: usize,
}

/// What is to become of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// It runs.
    Run,
    /// Somebody must agree first (T13.6a).
    Approve {
        /// How long that is waited for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_after_ms: Option<u64>,
    },
    /// The client runs it (T13.14).
    Elsewhere,
    /// It cannot run; the model is told why.
    Refuse {
        /// Why.
        error: String,
    },
}

/// How far a block was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The block, as subscribers know it.
    pub id: String,
    /// How many bytes of it were shown.
    pub bytes: usize,
    /// Whether its end was.
    pub ended: bool,
}

impl Agents {
    /// Asks the agent's model to go on with the thread that the step's run answers.
    ///
    /// # Errors
    /// What the model says, or that the agent is not here, or that the history cannot be read.
    pub async fn ask(&self, cx: StepContext, ask: Ask, options: TurnOptions) -> Result<Asked, Failure> {
        let agent = self.get(&ask.agent).ok_or_else(|| unknown_agent(self, &ask.agent))?;
        let chunks = Chunks::of(cx.run().as_str());
        let (history, was_showing) = cx.recent(agent.memory).await?;
        if was_showing {
            let again = chunks.step_start(&ask.message, ask.step, true, ask.at);
            cx.show(vec![Payload::of(&again)?]).await?;
        }
        let messages = match ask.changes.messages() {
            Some(changed) => changed,
            None => {
                let mut messages = window(history, ask.base.as_ref());
                Transients::place(&ask.transient, &mut messages);
                messages
            }
        };
        let Changes { model, system, tools, tool_choice, settings, .. } = ask.changes;
        let options = TurnOptions {
            active_tools: tools.or(options.active_tools),
            tool_choice: tool_choice.or(options.tool_choice),
            ..options
        };
        let resolved = self.models.resolve(model.as_ref().unwrap_or(&agent.model)).map_err(Fault::into_failure)?;
        let toolbox = agent.toolbox().await?;
        let mut request = request(agent, &toolbox, &options, &messages);
        if let Some(system) = system.or(ask.base.and_then(|base| base.system)) {
            request.system = system;
        }
        if let Some(settings) = settings {
            request.settings = settings;
        }
        let (deltas, pieces) = Deltas::channel(PIECES_MAX);
        let mut showing = Showing { cx: cx.clone(), chunks, pieces, shown: Vec::new(), write: None };
        let reply = {
            let asking = async {
                let reply = resolved.ask(request, &deltas).await;
                drop(deltas);
                reply
            };
            tokio::pin!(asking);
            // The model first: what answers at once has nothing shown piece by piece.
            tokio::select! {
                biased;
                reply = &mut asking => reply,
                failed = showing.until_failed() => return Err(failed),
                () = cx.cancelled().cancelled() => return Err(Failure::new("the turn was aborted").not_retryable()),
            }
        };
        // What was noted is seen before the end of the step is.
        showing.written().await?;
        let reply = reply.map_err(ModelError::into_failure)?;
        let formed = match output(agent, &options) {
            Some(output) if reply.calls().next().is_none() => Some(output.formed(&reply)?),
            _ => None,
        };
        let plans = reply.calls().map(|call| plan(&toolbox, &options, &reply, call)).collect();
        Ok(Asked {
            plans,
            shown: showing.shown,
            formed,
            steps_max: options.max_steps.unwrap_or(agent.steps_max).max(1),
            calls_at_once: agent.calls_at_once,
            reply,
        })
    }
}

pub(super) fn unknown_agent(agents: &Agents, name: &str) -> Failure {
    let known: Vec<&str> = agents.all().map(|agent| agent.name()).collect();
    Failure::new(format!("Agent with id {name} not found; here are: {}", known.join(", ")))
        .code("agent_unknown")
        .not_retryable()
}

/// What is asked of the model: instructions, the window of the history, the tools that may be called.
fn request(agent: &Agent, tools: &[Arc<dyn Tool>], options: &TurnOptions, history: &[Message]) -> Request {
    let mut messages: Vec<PromptMessage> = Vec::new();
    for message in history {
        let (prompt, warnings) = message.prompt();
        for warning in warnings {
            tracing::warn!(message = message.id, %warning, "a message of the history is read differently");
        }
        messages.extend(prompt);
    }
    // A window may begin in the middle of an exchange; results without their calls are refused by providers.
    let begin = messages.iter().position(|it| !matches!(it, PromptMessage::Tool { .. })).unwrap_or(messages.len());
    messages.drain(..begin);
    let active = |name: &str| options.active_tools.as_ref().is_none_or(|active| active.iter().any(|it| it == name));
    let mut tools: Vec<ToolSpec> = tools.iter().map(|tool| tool.spec()).filter(|spec| active(&spec.name)).collect();
    tools.extend(options.client_tools.iter().map(|(name, tool)| ToolSpec {
        name: name.clone(),
        description: tool.description.clone(),
        input_schema: tool.input_schema.clone(),
    }));
    Request {
        system: system(agent, options),
        messages,
        tools,
        tool_choice: options.tool_choice.clone().unwrap_or_default(),
        settings: settings(agent, options),
        output_schema: output(agent, options).map(|output| output.schema.clone()),
        ..Request::default()
    }
}

/// The form that the answer is to have.
fn output<'a>(agent: &'a Agent, options: &'a TurnOptions) -> Option<&'a StructuredOutput> {
    options.structured_output.as_ref().or(agent.output.as_ref())
}

/// The texts above the conversation, unless processors say otherwise.
pub(super) fn system(agent: &Agent, options: &TurnOptions) -> Vec<String> {
    let instructions = options.instructions.as_ref().unwrap_or(&agent.instructions);
    if instructions.is_empty() { Vec::new() } else { vec![instructions.clone()] }
}

/// How the model is to answer, unless processors say otherwise.
pub(super) fn settings(agent: &Agent, options: &TurnOptions) -> Settings {
    options.model_settings.as_ref().map_or(agent.settings.clone(), |it| it.over(&agent.settings))
}

/// What is to become of a call. Decided once, here: it is recorded with the answer.
fn plan(tools: &[Arc<dyn Tool>], options: &TurnOptions, reply: &Reply, call: &ToolCall) -> Plan {
    let refuse = |error: String| Plan::Refuse { error };
    if reply.finish == Finish::Length && reply.calls().last().is_some_and(|last| last.id == call.id) {
        return refuse("the answer was cut at its longest; the call may not be whole and was not run".to_owned());
    }
    let active = options.active_tools.as_ref().is_none_or(|active| active.contains(&call.name));
    let Some(tool) = tools.iter().find(|tool| tool.spec().name == call.name).filter(|_| active) else {
        if options.client_tools.contains_key(&call.name) {
            return Plan::Elsewhere;
        }
        let known: Vec<String> = tools.iter().map(|tool| tool.spec().name).collect();
        return refuse(format!("there is no tool {:?}; there are: {}", call.name, known.join(", ")));
    };
    if let Err(problem) = fits(&tool.spec().input_schema, &call.arguments) {
        return refuse(format!("the arguments of {:?} do not fit: {problem}", call.name));
    }
    if options.require_tool_approval || tool.needs_approval(&call.arguments) {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        return Plan::Approve { expires_after_ms: tool.expires_after().map(millis) };
    }
    Plan::Run
}

/// Whether arguments fit a tool's schema; a schema that does not work checks nothing here, the tool has its own eyes.
fn fits(schema: &Value, arguments: &Value) -> Result<(), String> {
    let Ok(checks) = jsonschema::options().offline().build(schema) else { return Ok(()) };
    problems(&checks, arguments, 3).map_or(Ok(()), Err)
}

/// Shows pieces of an answer as they come; while some are written, more gather.
struct Showing {
    cx: StepContext,
    chunks: Chunks,
    pieces: mpsc::Receiver<Delta>,
    shown: Vec<Shown>,
    /// What is noted and not written yet.
    write: Option<BoxFuture<'static, Result<(), Failure>>>,
}

impl Showing {
    /// Shows until a write fails; otherwise for ever.
    async fn until_failed(&mut self) -> Failure {
        let mut pieces = Vec::with_capacity(PIECES_MAX);
        loop {
            if let Err(failure) = self.written().await {
                return failure;
            }
            if self.pieces.recv_many(&mut pieces, PIECES_MAX).await == 0 {
                // The model has said all; its reply is on its way.
                return std::future::pending().await;
            }
            // Noted before it is written: a piece may be shown twice by nobody.
            let chunks: Vec<Value> = pieces.drain(..).map(|piece| self.note(piece)).collect();
            let chunks: Result<Vec<Payload>, _> = chunks.iter().map(Payload::of).collect();
            let cx = self.cx.clone();
            self.write = Some(Box::pin(async move { cx.show(chunks?).await }));
        }
    }

    /// Waits until what was noted is written; may be given up and asked again.
    async fn written(&mut self) -> Result<(), Failure> {
        let Some(write) = &mut self.write else { return Ok(()) };
        let written = write.await;
        self.write = None;
        written
    }

    fn note(&mut self, piece: Delta) -> Value {
        match piece {
            Delta::TextStart { id } => self.block(false, id),
            Delta::Text { id, text } => self.more(false, &id, &text),
            Delta::TextEnd { id } => self.end(false, &id),
            Delta::ReasoningStart { id } => self.block(true, id),
            Delta::Reasoning { id, text } => self.more(true, &id, &text),
            Delta::ReasoningEnd { id } => self.end(true, &id),
            Delta::ToolInputStart { id, name } => self.chunks.tool_input(&id, &name, &Piece::Start(&id)),
            Delta::ToolInput { id, name, text } => self.chunks.tool_input(&id, &name, &Piece::More(&id, &text)),
            Delta::ToolInputEnd { id } => self.chunks.tool_input(&id, "", &Piece::End(&id)),
        }
    }

    fn block(&mut self, reasoning: bool, id: String) -> Value {
        let chunk = self.chunks.text(reasoning, &Piece::Start(&id));
        self.shown.push(Shown { id, bytes: 0, ended: false });
        chunk
    }

    fn more(&mut self, reasoning: bool, id: &str, text: &str) -> Value {
        if let Some(block) = self.shown.iter_mut().rev().find(|block| block.id == id) {
            block.bytes += text.len();
        }
        self.chunks.text(reasoning, &Piece::More(id, text))
    }

    fn end(&mut self, reasoning: bool, id: &str) -> Value {
        if let Some(block) = self.shown.iter_mut().rev().find(|block| block.id == id) {
            block.ended = true;
        }
        self.chunks.text(reasoning, &Piece::End(id))
    }
}

impl Asked {
    /// The chunks of the answer's text and thinking that subscribers have not seen.
    #[must_use]
    pub fn unseen(&self, chunks: &Chunks) -> Vec<Value> {
        let blocks = self.reply.parts.iter().filter_map(|part| match part {
            AssistantPart::Text(text) => Some((false, text)),
            AssistantPart::Reasoning { text, .. } if !text.is_empty() => Some((true, text)),
            AssistantPart::Reasoning { .. } | AssistantPart::Call(_) => None,
        });
        let mut unseen = Vec::new();
        for (n, (reasoning, text)) in blocks.enumerate() {
            let seen = self.shown.get(n);
            let id = seen.map_or_else(|| format!("block-{n}"), |seen| seen.id.clone());
            if seen.is_none() {
                unseen.push(chunks.text(reasoning, &Piece::Start(&id)));
            }
            let rest = seen.map_or(Some(text.as_str()), |seen| text.get(seen.bytes..)).unwrap_or_default();
            if !rest.is_empty() {
                unseen.push(chunks.text(reasoning, &Piece::More(&id, rest)));
            }
            if seen.is_none_or(|seen| !seen.ended) {
                unseen.push(chunks.text(reasoning, &Piece::End(&id)));
            }
        }
        unseen
    }
}
