//! The body of a model step: reads the thread, asks the model, shows what it says as it comes.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::around::{Around, CallContext, Refusal};
use super::model::{Deltas, Finish, ModelError, Reply, Request, Resolved, Settings, ToolSpec, Usage};
use super::options::TurnOptions;
use super::output::{Formed, StructuredOutput, problems};
use super::prepare::{Base, Changes, window};
use super::processor::{Hook, HookContext, Stop};
use super::showing::{Ended, PIECES_MAX, Showing, Shown};
use super::tool::Tool;
use super::transient::{Transient, Transients};
use super::{Agent, Agents};
use crate::clock::Instant;
use crate::failure::{Failure, Fault};
use crate::message::{AssistantPart, Chunks, Message, Piece, PromptMessage, ToolCall};
use crate::payload::Payload;
use crate::workflow::StepContext;

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
    /// The provider that was asked, as [`Models`](super::model::Models) knows it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provider: String,
    /// What is to become of its calls, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plans: Vec<Plan>,
    /// What subscribers have seen of its blocks of text and thinking, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shown: Vec<Shown>,
    /// What its text is, if it calls no tool and an answer of a form was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formed: Option<Formed>,
    /// A hook around the call has ended the turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// The call has come to nothing, and hooks have something to say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// How often processors may have the model try again, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries_max: Option<u32>,
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

/// What a model step is to know of its turn, beside what is recorded with it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TurnFacts {
    /// The thread that is answered.
    pub thread: String,
    /// Its owner.
    pub resource: String,
    /// What the sender asks of the turn.
    pub options: TurnOptions,
    /// How often the step is tried.
    pub attempts_max: u32,
}

impl Agents {
    /// Asks the agent's model to go on with the thread that the step's run answers.
    ///
    /// # Errors
    /// What the model says, or that the agent is not here, or that the history cannot be read, or what a hook says.
    pub async fn ask(&self, cx: StepContext, ask: Ask, turn: TurnFacts) -> Result<Asked, Failure> {
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
                let mut messages = window(history, ask.base.as_ref(), &turn.options);
                Transients::place(&ask.transient, &mut messages);
                messages
            }
        };
        let mut around = Around::of(
            agent,
            CallContext {
                step: cx.clone(),
                agent: agent.name.clone(),
                thread: turn.thread,
                resource: turn.resource,
                request_context: turn.options.request_context.clone(),
            },
        );
        let Changes { model, system, tools, tool_choice, settings, .. } = ask.changes;
        let options = TurnOptions {
            active_tools: tools.or(turn.options.active_tools),
            tool_choice: tool_choice.or(turn.options.tool_choice),
            ..turn.options
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
        request.model.clone_from(&resolved.id);
        let answered = answer(&resolved, request, &mut around, chunks).await?;
        let provider = resolved.model.name();
        let answered = match answered {
            Answered::Reply(reply, shown) => (reply, shown),
            Answered::Failed(failure, shown) => {
                let last_attempt = cx.attempt() >= turn.attempts_max;
                let context =
                    HookContext::of(around.context.clone(), (ask.step, ask.at), messages, self.limits).await?;
                let Some(refusal) = around.failed(&failure, last_attempt, context).await? else { return Err(failure) };
                let seen = cx.shown_text().await?;
                let parts = if seen.is_empty() { Vec::new() } else { vec![AssistantPart::Text(seen)] };
                let reply = partial(parts, "error", &resolved.id);
                return Ok(Asked { refusal: Some(refusal), ..Asked::of(agent, &options, provider, (reply, shown)) });
            }
        };
        let asked = Asked::of(agent, &options, provider, answered);
        if around.stop.is_some() {
            return Ok(Asked { stop: around.stop, ..asked });
        }
        let formed = match output(agent, &options) {
            Some(output) if asked.reply.calls().next().is_none() => Some(output.formed(&asked.reply)?),
            _ => None,
        };
        let plans = asked.reply.calls().map(|call| plan(&toolbox, &options, &asked.reply, call)).collect();
        Ok(Asked { plans, formed, ..asked })
    }
}

/// What became of one call.
enum Answered {
    /// There is an answer, or as much of it as a hook has let through before it ended the turn.
    Reply(Reply, Vec<Shown>),
    /// There is none.
    Failed(Failure, Vec<Shown>),
}

/// Asks the model once, with the hooks around that.
async fn answer(
    resolved: &Resolved,
    mut request: Request,
    around: &mut Around,
    chunks: Chunks,
) -> Result<Answered, Failure> {
    let cx = around.context.step.clone();
    let in_its_place = around.request(&mut request).await?;
    if around.stop.is_some() {
        return Ok(Answered::Reply(partial(Vec::new(), "tripwire", &request.model), Vec::new()));
    }
    let (deltas, pieces) = Deltas::channel(PIECES_MAX);
    let mut showing = Showing::new(&cx, chunks, pieces);
    let asking = async {
        let reply = match in_its_place {
            Some(reply) => Ok(reply),
            // The provider's own name of the model may have been changed with the rest.
            None => resolved.model.ask(&request, &deltas).await,
        };
        drop(deltas);
        reply
    };
    let aborted = || Failure::new("the turn was aborted").not_retryable();
    let reply = if around.has(Hook::OutputStream) {
        let through = async { tokio::try_join!(asking.map(Ok), showing.through(around)) };
        let through = tokio::select! {
            biased;
            through = through => through,
            () = cx.cancelled().cancelled() => return Err(aborted()),
        };
        match through {
            Ok((reply, ())) => reply,
            Err(Ended::Failed(failure)) => return Err(failure),
            Err(Ended::Stopped) => {
                let reply = partial(showing.passed(), "tripwire", &request.model);
                return Ok(Answered::Reply(reply, showing.shown));
            }
        }
    } else {
        tokio::pin!(asking);
        // The model first: what answers at once has nothing shown piece by piece.
        tokio::select! {
            biased;
            reply = &mut asking => reply,
            failed = showing.until_failed() => return Err(failed),
            () = cx.cancelled().cancelled() => return Err(aborted()),
        }
    };
    // What was noted is seen before the end of the step is.
    showing.written().await?;
    let mut reply = match reply.map_err(ModelError::into_failure) {
        Ok(reply) => reply,
        Err(failure) if around.has(Hook::ApiError) => return Ok(Answered::Failed(failure, showing.shown)),
        Err(failure) => return Err(failure),
    };
    around.response(&request, &reply).await?;
    if around.has(Hook::OutputStream) {
        showing.settle(&mut reply, around).await?;
    }
    Ok(Answered::Reply(reply, showing.shown))
}

/// An answer that has not come to its end.
fn partial(parts: Vec<AssistantPart>, why: &str, model: &str) -> Reply {
    Reply {
        parts,
        finish: Finish::Other(why.to_owned()),
        usage: Usage::default(),
        response_id: None,
        model_id: model.to_owned(),
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
    std::iter::once(instructions).chain(&options.system).filter(|text| !text.is_empty()).cloned().collect()
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
    if let Some(problem) = broken(&call.arguments) {
        return refuse(format!("the arguments of {:?} are not JSON: {problem}", call.name));
    }
    if let Err(problem) = fits(&tool.spec().input_schema, &call.arguments) {
        return refuse(format!("the arguments of {:?} do not fit: {problem}", call.name));
    }
    if options.require_tool_approval || tool.needs_approval(&call.arguments) {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        return Plan::Approve { expires_after_ms: tool.expires_after().map(millis) };
    }
    Plan::Run
}

/// What is wrong with arguments that could not be read: models pass on what they have made of them as a text.
fn broken(arguments: &Value) -> Option<serde_json::Error> {
    serde_json::from_str::<serde::de::IgnoredAny>(arguments.as_str()?).err()
}

/// Whether arguments fit a tool's schema; a schema that does not work checks nothing here, the tool has its own eyes.
fn fits(schema: &Value, arguments: &Value) -> Result<(), String> {
    let Ok(checks) = jsonschema::options().offline().build(schema) else { return Ok(()) };
    problems(&checks, arguments, 3).map_or(Ok(()), Err)
}

impl Asked {
    fn of(agent: &Agent, options: &TurnOptions, provider: &str, (reply, shown): (Reply, Vec<Shown>)) -> Self {
        Self {
            reply,
            provider: provider.to_owned(),
            plans: Vec::new(),
            shown,
            formed: None,
            stop: None,
            refusal: None,
            steps_max: options.max_steps.unwrap_or(agent.steps_max).max(1),
            calls_at_once: agent.calls_at_once,
            retries_max: (!agent.processors.is_empty()).then_some(agent.processor_retries),
        }
    }

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
