//! The bodies of the steps in which processors run: before a call of the model, after it, and at the end of a turn.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::around::CallContext;
use super::ask::{settings, system, unknown_agent};
use super::model::{Settings, ToolChoice};
use super::options::TurnOptions;
use super::processor::{
    Draft, FinishedStep, Hook, HookContext, InputHook, OutputHook, Processor, Scratch, Sending, StateHook, Stop,
};
use super::transient::{Transient, Transients};
use super::window::{LaneWindow, wanted};
use super::{Agent, Agents};
use crate::clock::Instant;
use crate::failure::Failure;
use crate::message::{Body, Limits, Message, NewState, Reply, ThreadSignal};
use crate::workflow::StepContext;

/// Which hooks a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Those before a call of the model.
    Input,
    /// Those after it.
    Output,
    /// Those at the end.
    Result,
}

/// What a step of hooks is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Which of them.
    pub stage: Stage,
    /// The agent that answers.
    pub agent: String,
    /// The thread.
    pub thread: String,
    /// Its owner.
    pub resource: String,
    /// Which step of the turn, from 1.
    pub step: u32,
    /// When it was begun.
    pub at: Instant,
    /// The assistant message as it stands, of the stages after a call: its row.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub reply: Value,
    /// What has joined the first call: it enters once the first hooks have run (T10.5).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<ThreadSignal>,
    /// What the turn has carried so far.
    #[serde(default, skip_serializing_if = "Carried::is_empty")]
    pub carried: Carried,
}

/// What hooks of one step leave for those of the next.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Carried {
    /// The steps that have ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<FinishedStep>,
    /// What processors keep for themselves.
    #[serde(skip_serializing_if = "Scratch::is_empty")]
    pub scratch: Scratch,
    /// What was changed for the whole turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// What has entered for the next call only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transient: Vec<Transient>,
}

impl Carried {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What [`Processor::process_input`] has changed, for the whole turn.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Base {
    /// The texts above the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Vec<String>>,
    /// The messages, up to a place of the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Row>>,
    /// That place.
    #[serde(default)]
    pub until: i64,
}

/// A message in the result of a step: its place, and its row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row(pub i64, pub Value);

/// What hooks came to: all that the turn acts on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Processed {
    /// What they have sent, in the order of the calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sent: Vec<Sending>,
    /// What they have changed about the call to come.
    #[serde(skip_serializing_if = "Changes::is_empty")]
    pub changes: Changes,
    /// What was changed for the whole turn, if that was in this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// What processors keep for themselves.
    #[serde(skip_serializing_if = "Scratch::is_empty")]
    pub scratch: Scratch,
    /// The last message, if it was changed: its row.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub reply: Value,
    /// The turn is to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
}

/// What hooks have changed about one call of the model; what is absent stays as it was.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// Another model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Other texts above the conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<Vec<String>>,
    /// Other messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Row>>,
    /// Other tools that may be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// Whether they may or must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    /// How to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
}

impl Changes {
    /// Whether nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The messages of the call, if they were changed.
    pub(super) fn messages(&self) -> Option<Vec<Message>> {
        self.messages.as_deref().map(read)
    }
}

/// Which steps of hooks a turn has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stages {
    /// One before every call.
    pub input: bool,
    /// One after every call.
    pub output: bool,
    /// One at the end.
    pub result: bool,
    /// One after every step, for stop conditions.
    pub stop: bool,
}

impl Agents {
    /// Which steps of hooks the turns of an agent have.
    #[must_use]
    pub fn stages(&self, agent: &str) -> Stages {
        let Some(agent) = self.get(agent) else { return Stages::default() };
        let has = |hook: Hook| agent.processors.iter().any(|it| it.hooks().contains(&hook));
        Stages {
            input: !agent.processors.is_empty(),
            output: has(Hook::OutputStep),
            result: has(Hook::OutputResult),
            stop: !agent.stop_conditions.is_empty(),
        }
    }

    /// Runs the hooks of a stage, one after the other in the order in which the agent has them (T14.13).
    ///
    /// # Errors
    /// What a hook says, or that the agent is not here, or that the history cannot be read.
    pub async fn process(&self, cx: StepContext, asks: Process, options: TurnOptions) -> Result<Processed, Failure> {
        let agent = self.get(&asks.agent).ok_or_else(|| unknown_agent(self, &asks.agent))?;
        let mut running = Running::begin(cx, agent, &asks, &options, self.limits).await?;
        match asks.stage {
            Stage::Input => running.inputs(agent, &asks).await?,
            Stage::Output => running.outputs(agent, Hook::OutputStep).await?,
            Stage::Result => running.outputs(agent, Hook::OutputResult).await?,
        }
        Ok(running.processed())
    }
}

/// Hooks that are run in one step.
struct Running {
    context: HookContext,
    draft: Draft,
    /// The draft as it was.
    was: Draft,
    reply: Reply,
    reply_was: Reply,
    scratch_was: Scratch,
    transients: Vec<Transient>,
    base: Option<Base>,
}

impl Running {
    async fn begin(
        cx: StepContext,
        agent: &Agent,
        asks: &Process,
        options: &TurnOptions,
        limits: Limits,
    ) -> Result<Self, Failure> {
        let carried = asks.carried.clone();
        let (history, _) = cx.recent(agent.memory).await?;
        let mut messages = window(history, carried.base.as_ref(), options);
        Transients::place(&carried.transient, &mut messages);
        let reply = match Message::of_row(0, &asks.reply).map(|message| message.body) {
            Ok(Body::Assistant(reply)) => reply,
            _ => Reply::default(),
        };
        let draft = Draft {
            model: agent.model.clone(),
            system: carried
                .base
                .as_ref()
                .and_then(|base| base.system.clone())
                .unwrap_or_else(|| system(agent, options)),
            tools: options.active_tools.clone(),
            tool_choice: options.tool_choice.clone().unwrap_or_default(),
            settings: settings(agent, options),
        };
        let call = CallContext {
            step: cx,
            agent: agent.name.clone(),
            thread: asks.thread.clone(),
            resource: asks.resource.clone(),
            request_context: options.request_context.clone(),
        };
        let mut context = HookContext::of(call, (asks.step, asks.at), messages, limits).await?;
        context.steps = carried.steps;
        context.scratch.clone_from(&carried.scratch);
        Ok(Self {
            context,
            was: draft.clone(),
            draft,
            reply_was: reply.clone(),
            reply,
            scratch_was: carried.scratch,
            transients: carried.transient,
            base: None,
        })
    }

    async fn inputs(&mut self, agent: &Agent, asks: &Process) -> Result<(), Failure> {
        if asks.step == 1 {
            self.context.quiet = true;
            for processor in self.each(agent, Hook::Input) {
                if self.begins(&processor) {
                    let hook = InputHook { context: &mut self.context, draft: &mut self.draft };
                    processor.process_input(hook).await?;
                }
            }
            self.context.quiet = false;
            self.keep_base();
            self.join(&asks.joined, asks.at);
        }
        for processor in agent.processors.clone() {
            if processor.hooks().contains(&Hook::InputStep) && self.begins(&processor) {
                let hook = InputHook { context: &mut self.context, draft: &mut self.draft };
                processor.process_input_step(hook).await?;
            }
            if processor.hooks().contains(&Hook::State) && self.begins(&processor) {
                self.compute(&processor).await?;
            }
        }
        Ok(())
    }

    /// What has joined the first call stands at the end, where the hooks before each call see it (T10.5).
    fn join(&mut self, joined: &[ThreadSignal], at: Instant) {
        for signal in joined {
            let message = Message::of_signal(0, signal.clone(), at);
            self.context.messages.push(message.clone());
            self.context.unchanged.push(message);
        }
    }

    async fn compute(&mut self, processor: &Arc<dyn Processor>) -> Result<(), Failure> {
        let lane = processor.state_id().unwrap_or(processor.id()).to_owned();
        let tracking = self.context.tracking(&lane).cloned();
        let wanted = wanted(&lane, &self.context.messages, tracking.as_ref());
        let stored = match wanted.is_empty() {
            true => Vec::new(),
            false => self.context.step.messages_named(wanted).await?,
        };
        let window = LaneWindow::of(&lane, &self.context.messages, &stored, tracking.as_ref());
        let hook = StateHook { context: &mut self.context, window, lane: lane.clone() };
        if let Some(state) = processor.compute_state_signal(hook).await? {
            let id = if state.id.is_empty() { lane } else { state.id.clone() };
            self.context.accept(NewState { id, ..state })?;
        }
        Ok(())
    }

    async fn outputs(&mut self, agent: &Agent, kind: Hook) -> Result<(), Failure> {
        for processor in self.each(agent, kind) {
            if self.begins(&processor) {
                let hook = OutputHook { context: &mut self.context, reply: &mut self.reply };
                match kind {
                    Hook::OutputStep => processor.process_output_step(hook).await?,
                    _ => processor.process_output_result(hook).await?,
                }
            }
        }
        if kind == Hook::OutputStep {
            self.reply.clone_from(&self.reply_was);
        }
        Ok(())
    }

    fn each(&self, agent: &Agent, hook: Hook) -> Vec<Arc<dyn Processor>> {
        agent.processors.iter().filter(|it| it.hooks().contains(&hook)).cloned().collect()
    }

    /// Whether a processor's hook is to be called; then it is its.
    fn begins(&mut self, processor: &Arc<dyn Processor>) -> bool {
        processor.id().clone_into(&mut self.context.processor);
        self.context.stop.is_none()
    }

    /// What is changed until here is changed for the whole turn; the rest of the draft stays as it was.
    fn keep_base(&mut self) {
        let system = (self.draft.system != self.was.system).then(|| self.draft.system.clone());
        let changed = self.context.messages != self.context.unchanged;
        let lasts = |row: &Row| !self.transients.iter().any(|it| row.1["id"] == it.signal.id.as_str());
        let messages = changed.then(|| self.rows().into_iter().filter(lasts).collect());
        let until = self.context.unchanged.iter().map(|it| it.seq).max().unwrap_or_default();
        if system.is_some() || messages.is_some() {
            self.base = Some(Base { system, messages, until });
        }
        self.draft = Draft { system: self.draft.system.clone(), ..self.was.clone() };
        self.was.clone_from(&self.draft);
        self.context.unchanged.clone_from(&self.context.messages);
    }

    fn rows(&self) -> Vec<Row> {
        let (thread, resource) = (&self.context.thread, &self.context.resource);
        self.context.messages.iter().map(|it| Row(it.seq, it.to_row(thread, resource))).collect()
    }

    fn processed(self) -> Processed {
        let rows = || self.rows();
        let (is, was) = (&self.draft, &self.was);
        let changes = Changes {
            model: (is.model != was.model).then(|| is.model.clone()),
            system: (is.system != was.system).then(|| is.system.clone()),
            messages: (self.context.messages != self.context.unchanged).then(rows),
            tools: if is.tools == was.tools { None } else { is.tools.clone() },
            tool_choice: (is.tool_choice != was.tool_choice).then(|| is.tool_choice.clone()),
            settings: (is.settings != was.settings).then(|| is.settings.clone()),
        };
        let reply = if self.reply == self.reply_was {
            Value::Null
        } else {
            let message = Message::of_reply(0, "reply", self.reply.clone(), self.context.at);
            message.to_row(&self.context.thread, &self.context.resource)
        };
        let scratch = if self.context.scratch == self.scratch_was { Scratch::new() } else { self.context.scratch };
        Processed { sent: self.context.sent, changes, base: self.base, scratch, reply, stop: self.context.stop }
    }
}

/// The window of the history, with what was changed for the whole turn.
pub(super) fn window(history: Vec<Message>, base: Option<&Base>, options: &TurnOptions) -> Vec<Message> {
    let Some(Base { messages: Some(rows), until, .. }) = base else {
        return options.context().into_iter().chain(history).collect();
    };
    let mut messages = read(rows);
    let new = |it: &Message| it.seq > *until && messages.iter().all(|known| known.id != it.id);
    let new: Vec<Message> = history.into_iter().filter(new).collect();
    messages.extend(new);
    messages
}

fn read(rows: &[Row]) -> Vec<Message> {
    rows.iter().filter_map(|Row(seq, row)| Message::of_row(*seq, row).ok()).collect()
}

/// The assistant message in a processor's result, if it was changed.
#[must_use]
pub fn changed_reply(processed: &Processed) -> Option<Reply> {
    match Message::of_row(0, &processed.reply).ok()?.body {
        Body::Assistant(reply) => Some(reply),
        _ => None,
    }
}

/// An assistant message as a step of hooks is given it.
#[must_use]
pub fn shown_reply(reply: &Reply, at: Instant) -> Value {
    Message::of_reply(0, "reply", reply.clone(), at).to_row("", "")
}
