//! Processors: code of a program that looks at every turn of an agent, and may put things into it (T15).
//!
//! Hooks run inside steps of the turn. What they send and change is the step's recorded result, and the turn acts on that
//! alone: after a crash, only hooks whose result was not recorded run again (T14.14, T15.8).

use std::collections::BTreeMap;
use std::ops::Deref;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::around::{CallContext, ErrorHook, RequestHook, ResponseHook, StreamHook, ToolResultHook};
use super::model::{Settings, ToolChoice};
use super::window::LaneWindow;
use crate::clock::Instant;
use crate::failure::Failure;
use crate::message::{
    Attributes, Category, Lane, LaneCopy, Limits, Message, NewSignal, NewState, Refused, Reply, ThreadSignal,
};

/// A hook of a processor (T15.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// [`Processor::process_input`].
    Input,
    /// [`Processor::process_input_step`].
    InputStep,
    /// [`Processor::compute_state_signal`].
    State,
    /// [`Processor::process_llm_request`].
    LlmRequest,
    /// [`Processor::process_llm_response`].
    LlmResponse,
    /// [`Processor::process_output_stream`].
    OutputStream,
    /// [`Processor::process_api_error`].
    ApiError,
    /// [`Processor::process_output_step`].
    OutputStep,
    /// [`Processor::process_tool_result`].
    ToolResult,
    /// [`Processor::process_output_result`].
    OutputResult,
}

/// What a hook comes to.
pub type Hooked<'h, T = ()> = BoxFuture<'h, Result<T, Failure>>;

/// Code that looks at every turn of an agent. A hook that fails ends the turn.
///
/// Whether an agent has processors, and whether one of them has output hooks, shapes the journal of its turns. A turn that
/// is under way when a deploy changes that is blocked when it is next replayed, until a worker of the earlier shape is
/// back: leave a processor that does nothing, or give the changed agent another name. What hooks do may change freely.
pub trait Processor: Send + Sync {
    /// Its name, unique in its agent.
    fn id(&self) -> &str;

    /// The lane that it owns, if that is not called as itself (T14.8).
    fn state_id(&self) -> Option<&str> {
        None
    }

    /// The hooks that it has; no other is called.
    fn hooks(&self) -> &[Hook];

    /// Once, before the first step.
    fn process_input<'h>(&'h self, hook: InputHook<'h>) -> Hooked<'h> {
        let _ = hook;
        async { Ok(()) }.boxed()
    }

    /// Before every call of the model.
    fn process_input_step<'h>(&'h self, hook: InputHook<'h>) -> Hooked<'h> {
        let _ = hook;
        async { Ok(()) }.boxed()
    }

    /// Before every call of the model, after its own input hook: how its lane stands. Nothing means no change (T14.8).
    fn compute_state_signal<'h>(&'h self, hook: StateHook<'h>) -> Hooked<'h, Option<NewState>> {
        let _ = hook;
        async { Ok(None) }.boxed()
    }

    /// The prompt as it goes out: it may be changed for this call, or answered in the model's place.
    fn process_llm_request<'h>(&'h self, hook: RequestHook<'h>) -> Hooked<'h> {
        let _ = hook;
        async { Ok(()) }.boxed()
    }

    /// The model's answer, or that of a hook in its place, as it came.
    fn process_llm_response<'h>(&'h self, hook: ResponseHook<'h>) -> Hooked<'h> {
        let _ = hook;
        async { Ok(()) }.boxed()
    }

    /// Each piece of text and thinking, before anybody sees it: it may be changed or dropped. What is stored, and what the
    /// model reads of it later, is what was let through. Calls of tools and their arguments are not pieces.
    fn process_output_stream<'h>(&'h self, hook: StreamHook<'h>) -> Hooked<'h> {
        let _ = hook;
        async { Ok(()) }.boxed()
    }

    /// A call of the model has failed, and no other attempt of its step follows.
    fn process_api_error<'h>(&'h self, hook: ErrorHook<'h>) -> Hooked<'h> {
        let _ = hook;
        async { Ok(()) }.boxed()
    }

    /// What a tool has returned, before the model reads it. Not asked of a call that has failed or was declined.
    fn process_tool_result<'h>(&'h self, hook: ToolResultHook<'h>) -> Hooked<'h> {
        let _ = hook;
        async { Ok(()) }.boxed()
    }

    /// After every call of the model, before its tools run.
    fn process_output_step<'h>(&'h self, hook: OutputHook<'h>) -> Hooked<'h> {
        let _ = hook;
        async { Ok(()) }.boxed()
    }

    /// Once, at the end.
    fn process_output_result<'h>(&'h self, hook: OutputHook<'h>) -> Hooked<'h> {
        let _ = hook;
        async { Ok(()) }.boxed()
    }
}

impl std::fmt::Debug for dyn Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Processor({})", self.id())
    }
}

/// A step of the turn that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FinishedStep {
    /// What the model said.
    pub text: String,
    /// What it called: `toolCallId`, `toolName`, `args`, and `result`, `error` or `denied` where that was settled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Value>,
}

/// A signal that a hook has sent, and is to enter the transcript.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// The signal.
    pub signal: ThreadSignal,
    /// Of a state signal: the lane's signals in the window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub window: Vec<LaneCopy>,
    /// Of a state signal: the lane says this already, and its copy was out of sight (T14.10).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// Nobody is shown it: there is no stream yet (T15.1).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
}

/// What a state signal of a processor came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateAccepted {
    /// It enters the transcript.
    Sent(Box<ThreadSignal>),
    /// Its lane says this already, where the model can see it.
    Unchanged,
}

/// Values that a processor keeps for itself while a turn lasts, by processor.
pub type Scratch = BTreeMap<String, Map<String, Value>>;

/// What hooks know that see the conversation, and what they may ask. It is a [`CallContext`] too: the step, the agent, the
/// thread and its owner.
#[derive(Debug)]
pub struct HookContext {
    call: CallContext,
    pub(super) number: u32,
    pub(super) at: Instant,
    pub(super) steps: Vec<FinishedStep>,
    pub(super) scratch: Scratch,
    pub(super) messages: Vec<Message>,
    /// The messages as they are but for what hooks have changed.
    pub(super) unchanged: Vec<Message>,
    pub(super) lanes: Vec<Lane>,
    pub(super) sent: Vec<Sending>,
    pub(super) quiet: bool,
    pub(super) limits: Limits,
    pub(super) stop: Option<Stop>,
    /// Whose hook it is.
    pub(super) processor: String,
}

/// A processor has ended the turn (T15.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// Why.
    pub reason: String,
    /// Whose hook it was.
    pub processor_id: String,
    /// The model is to try again, with the reason as feedback, if it may.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retry: bool,
}

impl Stop {
    pub(super) fn of(reason: impl Into<String>, processor: &str) -> Self {
        Self { reason: reason.into(), processor_id: processor.to_owned(), retry: false }
    }
}

impl Deref for HookContext {
    type Target = CallContext;

    fn deref(&self) -> &CallContext {
        &self.call
    }
}

impl HookContext {
    /// For hooks that run in this step of the turn, with these messages in the window.
    pub(super) async fn of(
        call: CallContext,
        (step, at): (u32, Instant),
        messages: Vec<Message>,
        limits: Limits,
    ) -> Result<Self, Failure> {
        Ok(Self {
            lanes: call.step.lanes().await?,
            call,
            number: step.saturating_sub(1),
            at,
            steps: Vec::new(),
            scratch: Scratch::new(),
            unchanged: messages.clone(),
            messages,
            sent: Vec::new(),
            quiet: false,
            limits,
            stop: None,
            processor: String::new(),
        })
    }

    /// The number of the step, from 0.
    #[must_use]
    pub fn step_number(&self) -> u32 {
        self.number
    }

    /// The steps that have ended.
    #[must_use]
    pub fn steps(&self) -> &[FinishedStep] {
        &self.steps
    }

    /// How often the hook was run before, and failed.
    #[must_use]
    pub fn retry_count(&self) -> u32 {
        self.step.attempt() - 1
    }

    /// The time of the step.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.at
    }

    /// The messages in the window, with what hooks have sent and changed.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// What this processor keeps for itself while the turn lasts.
    pub fn state(&mut self) -> &mut Map<String, Value> {
        self.scratch.entry(self.processor.clone()).or_default()
    }

    /// How a lane stood before, with what hooks of this step have sent.
    #[must_use]
    pub fn tracking(&self, lane: &str) -> Option<&Lane> {
        self.lanes.iter().find(|it| it.id == lane)
    }

    /// Sends a signal: it stands at the end of the transcript, and is echoed in the order of the calls once the hook has
    /// returned (T15.2, T15.3). It is not routed (T15.5). The signal as it is stored.
    ///
    /// # Errors
    /// [`Refused`], if it breaks a rule of signals, or is a state signal: those have a lane.
    pub fn send(&mut self, signal: NewSignal) -> Result<ThreadSignal, Refused> {
        signal.check(&self.limits, &[])?;
        let id = uuid::Uuid::new_v4().to_string();
        let signal = signal.accept(id, self.at, &Attributes::new());
        self.push(Sending { signal: signal.clone(), window: Vec::new(), again: false, quiet: self.quiet });
        Ok(signal)
    }

    /// Ends the turn with a reason (T15.7); hooks that follow are not called.
    pub fn abort(&mut self, reason: impl Into<String>) {
        self.stop = Some(Stop::of(reason, &self.processor));
    }

    /// Asks for another attempt with the reason as feedback to the model (T15.7); hooks that follow are not called. After
    /// as many attempts as the agent allows, and before a call of the model, it is as good as [`abort`](Self::abort).
    pub fn retry(&mut self, reason: impl Into<String>) {
        self.stop = Some(Stop { retry: true, ..Stop::of(reason, &self.processor) });
    }

    fn push(&mut self, sending: Sending) {
        let message = Message::of_signal(0, sending.signal.clone(), self.at);
        self.messages.push(message.clone());
        self.unchanged.push(message);
        self.sent.push(sending);
    }

    /// Accepts a state signal (T14.8), unless its lane says this already where the model can see it (T14.10).
    pub(super) fn accept(&mut self, state: NewState) -> Result<StateAccepted, Refused> {
        state.check(&self.limits, &[])?;
        let lane = state.id.clone();
        let before = self.tracking(&lane);
        let says = before.is_some_and(|before| before.says(&state.cache_key, state.mode));
        let copies = self.copies(&lane);
        if says && copies.iter().any(|copy| copy.cache_key == state.cache_key && copy.mode == state.mode) {
            return Ok(StateAccepted::Unchanged);
        }
        let version = match before {
            Some(before) if says => before.version,
            before => Lane::next_version(before),
        };
        let id = uuid::Uuid::new_v4().to_string();
        let signal = state.accept(id, self.at, &Attributes::new(), self.thread.clone(), version);
        if let Some(mark) = &signal.state {
            let after = Lane::after(before, &lane, LaneCopy::of(&signal.id, mark), &copies, self.at);
            self.lanes.retain(|it| it.id != lane);
            self.lanes.push(after);
        }
        self.push(Sending { signal: signal.clone(), window: copies, again: says, quiet: self.quiet });
        Ok(StateAccepted::Sent(Box::new(signal)))
    }

    /// The lane's signals in the window.
    fn copies(&self, lane: &str) -> Vec<LaneCopy> {
        let signals = self.messages.iter().filter_map(Message::as_signal);
        let marked = signals.filter(|signal| signal.category == Category::State);
        let marked = marked.filter_map(|signal| Some((signal, signal.state.as_ref()?)));
        marked.filter(|(_, mark)| mark.id == lane).map(|(signal, mark)| LaneCopy::of(&signal.id, mark)).collect()
    }
}

/// What is about to be asked of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The model, by a name that [`Models`](super::model::Models) resolves.
    pub model: String,
    /// The texts above the conversation.
    pub system: Vec<String>,
    /// The agent's tools that may be called; all if absent.
    pub tools: Option<Vec<String>>,
    /// Whether tools may or must be called.
    pub tool_choice: ToolChoice,
    /// How the model is to answer.
    pub settings: Settings,
}

/// What an input hook may do. In [`Processor::process_input`] only the system texts and the messages may be changed, for
/// the whole turn; in [`Processor::process_input_step`] everything, for the step.
#[derive(Debug)]
pub struct InputHook<'h> {
    /// What every hook knows, and may ask.
    pub context: &'h mut HookContext,
    /// What is about to be asked.
    pub draft: &'h mut Draft,
}

impl InputHook<'_> {
    /// The messages of the prompt, to be changed. The history stays as it is.
    pub fn messages(&mut self) -> &mut Vec<Message> {
        &mut self.context.messages
    }
}

/// What a processor that owns a lane is told of it (T14.9).
#[derive(Debug)]
pub struct StateHook<'h> {
    /// What every hook knows, and may ask.
    pub context: &'h mut HookContext,
    pub(super) window: LaneWindow,
    pub(super) lane: String,
}

impl StateHook<'_> {
    /// The lane.
    #[must_use]
    pub fn lane(&self) -> &str {
        &self.lane
    }

    /// The lane's tracking before this.
    #[must_use]
    pub fn tracking(&self) -> Option<&Lane> {
        self.context.tracking(&self.lane)
    }

    /// The lane's signals in the window, oldest first; if the window has no snapshot, those that tracking knows.
    #[must_use]
    pub fn active(&self) -> &[ThreadSignal] {
        &self.window.active
    }

    /// Whether the window holds a snapshot of the lane; what is only stored does not count.
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        self.window.has_snapshot
    }

    /// The newest snapshot, from the window, else from the history.
    #[must_use]
    pub fn last_snapshot(&self) -> Option<&ThreadSignal> {
        self.window.last_snapshot.as_ref()
    }

    /// The changes after it, oldest first.
    #[must_use]
    pub fn deltas_since_snapshot(&self) -> &[ThreadSignal] {
        &self.window.deltas
    }

    /// Accepts a state signal now; so a processor may keep several lanes. An empty lane is its own.
    ///
    /// # Errors
    /// [`Refused`], if it breaks a rule of state signals.
    pub fn send_state(&mut self, state: NewState) -> Result<StateAccepted, Refused> {
        let id = if state.id.is_empty() { self.lane.clone() } else { state.id.clone() };
        self.context.accept(NewState { id, ..state })
    }
}

/// What an output hook may do.
#[derive(Debug)]
pub struct OutputHook<'h> {
    /// What every hook knows, and may ask.
    pub context: &'h mut HookContext,
    /// The assistant message: in [`Processor::process_output_step`] with what the model has just made, and before its
    /// tools have run; in [`Processor::process_output_result`] the last one, which may be changed.
    pub reply: &'h mut Reply,
}
