//! The turn: an agent answers on a thread. It takes what has arrived, asks the model, runs the tools that the model calls,
//! takes what has arrived meanwhile, and goes on until there is nothing more to say (threads-and-signals 10).
//!
//! Every model call and every tool call is a step. What arrives after the last look begins the next turn, in the commit
//! that ends this one: the store sees to that, whatever way the turn ends.

mod again;
mod calls;
mod endings;
mod hooks;
mod limits;
mod results;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aldis::agent::model::Usage;
use aldis::agent::{
    Agents, Ask, Asked, Budget, Call, Called, Carried, Changes, FinishedStep, Process, Processed, Roster, Stage,
    Stages, Transients, TurnFacts, TurnOptions,
};
use aldis::clock::Instant;
use aldis::message::{AssistantPart, CallState, Chunks, Invocation, Message, Reply, ReplyPart, ThreadSignal};
use aldis::thread::{CallResult, INPUT as INPUT_NAME, TurnInput, turn_of};
use aldis::workflow::{Raced, ThreadDesk};
use aldis::{Context, Failure, Signal, Step, StepContext, Update, Workflow};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use again::Form;
use endings::Ended;
use limits::time_is_up;
use results::Settled;

/// What is delivered to a turn that is under way.
pub const INPUT: Signal<ThreadSignal> = Signal::new(INPUT_NAME);

/// Ends a turn (T12.1).
pub const ABORT: Signal<Abort> = Signal::new("abort");

/// Answers a call that waits for somebody outside (T13.3).
pub const ANSWER: Update<CallAnswer, CallAnswered> = Update::new("answer");

/// Takes back what was delivered to a turn, as long as it has not taken it (T9.10). The turn decides: nobody else takes its
/// signals, so what is answered is so, whatever happens at the same time.
pub const UNSEND: Update<Unsend, Unsent> = Update::new("unsend");

/// The built-in retries of a model call: about two minutes, and longer where the provider asks for it.
const MODEL: Step<Ask, Asked> =
    Step::new("model").attempts(5).backoff(Duration::from_secs(1), 2.0, Duration::from_secs(60)).jitter(0.2);
const TOOL: Step<Call, Called> = Step::new("tool");
/// Processors: before a call of the model, after it, and at the end of the turn (T15.1).
const PREPARE: Step<Process, Processed> = Step::new("prepare");
const REVIEW: Step<Process, Processed> = Step::new("review");
const CONCLUDE: Step<Process, Processed> = Step::new("conclude");
/// Stop conditions, after a step.
const STOP: Step<Vec<FinishedStep>, Option<String>> = Step::new("stop");
const SALVAGE: Step<u32, String> = Step::new("salvage");
const RESULTS: Step<Vec<CallResult>, Vec<Settled>> = Step::new("results");

/// How many of the thread's latest messages are looked through for calls of the client's own tools.
pub const RESULTS_LOOK_BACK: usize = 200;

/// Who ends a turn, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Abort {
    /// Who asked.
    pub by: String,
    /// Whether what was delivered to the turn, and is not taken, is dropped with it (T12.4).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clear: bool,
}

/// An answer to a call that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CallAnswer {
    /// The call.
    pub call: String,
    /// Whether it may run.
    pub approved: bool,
    /// Why, for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For a call that had suspended itself: what it goes on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Value>,
}

/// What became of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallAnswered {
    /// The call goes on with this one; a repeat hears the same (T13.10).
    Taken(CallAnswer),
    /// No such call waits here.
    NotWaiting,
}

/// What is to be taken back, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unsend {
    /// The ids of the signals.
    pub ids: Vec<String>,
    /// Who asked.
    pub by: String,
}

/// What was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unsent {
    /// The ids of those signals that the turn had not taken, and now never does.
    pub ids: Vec<String>,
}

/// What a turn came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Turned {
    /// Why it ended: `stop`, `tool-calls`, `length`, `aborted`, …
    pub reason: String,
    /// How many steps it had.
    pub steps: u32,
    /// The text of its last message.
    pub text: String,
    /// The answer, if one of a form was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Value>,
    /// What ended it although the model would have gone on, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_by: Option<String>,
}

impl Turned {
    /// The answer as `T`, if one of a form was asked for.
    ///
    /// # Errors
    /// If the form was not that of `T`.
    pub fn object<T: DeserializeOwned>(&self) -> Result<Option<T>, serde_json::Error> {
        self.object.as_ref().map(T::deserialize).transpose()
    }
}

/// The workflow that answers for an agent. A turn goes by the agents as they were when it began.
///
/// The name lives as long as the program: there are as many as there are agents.
#[must_use]
pub fn workflow(roster: &Roster, agent: &str) -> Workflow {
    let roster = roster.clone();
    let name: &'static str = String::leak(turn_of(agent));
    Workflow::new(name, move |cx, input| turn(cx, input, roster.clone())).signal(&ABORT).update(&ANSWER).update(&UNSEND)
}

async fn turn(cx: Context, input: TurnInput, roster: Roster) -> Result<Turned, Failure> {
    let options = options_of(&input);
    let turn = Turn::new(&cx, input, options.clone().unwrap_or_default(), roster.as_of(cx.now()));
    // Whatever becomes of the turn, what it was sent stands in the history.
    let entered = turn.open(&cx).await?;
    if let Err(failure) = options {
        turn.enter_joined(cx.now());
        turn.failed(&failure);
        return Err(failure);
    }
    if !turn.take_results(&cx).await.inspect_err(|_| turn.enter_joined(cx.now()))? && !entered {
        return Ok(turn.nothing_new(&cx));
    }
    let until = turn.budget.time_max().map(|span| cx.now() + span);
    let worked = cx.race(cx.scope("work", |cx| turn.clone().work(cx)), cx.signal(&ABORT));
    let worked = cx.race(worked, cx.scope("unsend", unsend));
    let ended = match cx.race(worked, cx.scope("time", |cx| time_is_up(cx, until))).await {
        Raced::First(Raced::First(Raced::First(worked))) => worked,
        Raced::First(Raced::First(Raced::Second(Ok(abort)))) => return turn.aborted(&cx, &abort).await,
        Raced::Second(Ok(())) => return turn.out_of_time(&cx).await,
        Raced::First(Raced::First(Raced::Second(Err(cancelled)))) | Raced::Second(Err(cancelled)) => {
            Err(cancelled.into())
        }
        Raced::First(Raced::Second(failed)) => Err(failed),
    };
    if let Err(failure) = &ended {
        turn.enter_joined(cx.now());
        if cx.is_cancelled() {
            turn.cut_short(String::new(), cx.now());
            turn.thread.show(&turn.chunks.abort());
        } else {
            turn.failed(failure);
        }
    }
    ended
}

/// What the sender asks of the turn. It was read at the door; another build may have been there.
fn options_of(input: &TurnInput) -> Result<TurnOptions, Failure> {
    match input.options.as_str() {
        "null" => Ok(TurnOptions::default()),
        _ => input.options.read().map_err(|e| Failure::new(format!("the turn's options: {e}")).not_retryable()),
    }
}

/// An id for a message. They grow with time, so that the histories of all threads grow at the end of one index.
fn message_id(cx: &Context) -> String {
    let random = *cx.uuid().as_bytes();
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&random[..10]);
    let millis = u64::try_from(cx.now().0).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid().to_string()
}

/// Takes back what is asked, until the turn is cancelled. Who asked, and when, stands in the journal (T9.12).
async fn unsend(cx: Context) -> Failure {
    loop {
        let request = match cx.update(&UNSEND).await {
            Ok(request) => request,
            Err(cancelled) => return cancelled.into(),
        };
        match cx.withdraw_signals(&INPUT, &request.input.ids).await {
            Ok(taken) => request.reply(&Unsent { ids: taken.into_iter().map(|it| it.id).collect() }),
            Err(cancelled) => return cancelled.into(),
        }
    }
}

/// A turn under way. Clones are the same turn.
#[derive(Clone)]
struct Turn {
    thread: ThreadDesk,
    chunks: Chunks,
    agents: Agents,
    input: Arc<TurnInput>,
    options: Arc<TurnOptions>,
    budget: Budget,
    /// Which steps of processors it has.
    stages: Stages,
    so_far: Arc<Mutex<SoFar>>,
}

/// How far it has come.
struct SoFar {
    /// The assistant message that is being written.
    message: String,
    reply: Reply,
    /// As it stands in the history, if it does.
    written: Option<Reply>,
    steps: u32,
    /// What has entered for the next call only.
    transients: Transients,
    /// What processors have changed about the next call, and what they carry.
    changes: Changes,
    carried: Carried,
    /// Whether the last step's answer is not there yet.
    asking: bool,
    usage: Usage,
    model: String,
    response: Option<String>,
    /// The last step's text and calls.
    text: String,
    calls: Vec<Value>,
    /// How many answers had another form than the one that was asked for.
    misfits: u32,
    /// How often processors have had the model try again.
    retries: u32,
    /// What has joined the first call and not entered yet.
    joined: Vec<ThreadSignal>,
    object: Option<Value>,
}

impl SoFar {
    /// What a call of the assistant message has come to.
    fn call_state(&self, call: &str) -> Option<&CallState> {
        self.reply.parts.iter().rev().find_map(|part| match part {
            ReplyPart::Tool(invocation) if invocation.call.id == call => Some(&invocation.state),
            _ => None,
        })
    }
}

impl Turn {
    fn new(cx: &Context, input: TurnInput, options: TurnOptions, agents: Agents) -> Self {
        let so_far = SoFar {
            message: message_id(cx),
            reply: Reply::default(),
            written: None,
            steps: 0,
            transients: Transients::default(),
            changes: Changes::default(),
            carried: Carried::default(),
            asking: false,
            usage: Usage::default(),
            model: String::new(),
            response: None,
            text: String::new(),
            calls: Vec::new(),
            misfits: 0,
            retries: 0,
            joined: Vec::new(),
            object: None,
        };
        Self {
            thread: cx.thread(&input),
            chunks: Chunks::of(cx.run().as_str()),
            stages: agents.stages(&input.agent),
            budget: agents.budget(&input.agent, options.budget),
            agents,
            input: Arc::new(input),
            options: Arc::new(options),
            so_far: Arc::new(Mutex::new(so_far)),
        }
    }

    /// Tells subscribers that it has failed.
    fn failed(&self, failure: &Failure) {
        let name = failure.code.clone().unwrap_or_else(|| "Error".to_owned());
        self.thread.show(&self.chunks.error(&name, &failure.message));
    }

    fn so_far(&self) -> std::sync::MutexGuard<'_, SoFar> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the turn begins with, and what has joined it since, enters the transcript (T10.5, T10.10).
    ///
    /// True if something has.
    async fn open(&self, cx: &Context) -> Result<bool, Failure> {
        let message = self.so_far().message.clone();
        self.thread.show(&self.chunks.start(&self.input.agent, &message));
        let mut first = Vec::with_capacity(self.input.first.len());
        for signal in &self.input.first {
            first.push(signal.read().map_err(|e| Failure::new(format!("the turn's input: {e}")).not_retryable())?);
        }
        let mut entered = !first.is_empty() || !self.input.said.is_empty();
        self.enter(first, cx.now());
        self.enter_said(cx.now())?;
        let joined = cx.try_signals(&INPUT).await?;
        if !joined.is_empty() {
            entered = true;
            let mut so_far = self.so_far();
            so_far.message = message_id(cx);
            so_far.joined = joined;
        }
        // They enter once the hooks of the turn's beginning have run, which do not see them (T10.5).
        if !self.stages.input {
            self.enter_joined(cx.now());
        }
        Ok(entered)
    }

    /// Signals enter the transcript, each echoed, in this order (T6.4). A transient one enters the next call only (T3.19).
    fn enter(&self, signals: Vec<ThreadSignal>, at: Instant) {
        for signal in signals {
            self.enter_one(signal, true, at);
        }
    }

    fn enter_one(&self, signal: ThreadSignal, echo: bool, at: Instant) {
        let signal = signal.entered(at);
        if echo {
            self.thread.show(&self.chunks.echo(&signal));
        }
        if signal.transient {
            self.so_far().transients.add(signal);
        } else {
            self.so_far().transients.precede(&signal.id);
            self.thread.add(&Message::of_signal(0, signal, at));
        }
    }

    /// What a direct call has said enters the transcript, without an echo (H9.6).
    fn enter_said(&self, at: Instant) -> Result<(), Failure> {
        for row in &self.input.said {
            let row: Value = row.read().map_err(|e| Failure::new(format!("the turn's input: {e}")).not_retryable())?;
            let message = Message::of_row(0, &row).map_err(|e| Failure::new(e.to_string()).not_retryable())?;
            self.so_far().transients.precede(&message.id);
            self.thread.add(&message.entered(at));
        }
        Ok(())
    }

    /// Another assistant message begins.
    fn open_message(&self, id: String) {
        let mut so_far = self.so_far();
        so_far.message = id;
        so_far.reply = Reply::default();
        so_far.written = None;
    }

    /// The loop of steps (T10.1).
    async fn work(self, cx: Context) -> Result<Turned, Failure> {
        loop {
            if let Some(stop) = self.process(&cx, Stage::Input).await? {
                return Ok(self.stopped(&cx, &stop));
            }
            let asked = self.ask(&cx).await?;
            if let Some(refusal) = &asked.refusal {
                self.refused(&cx, &asked, refusal).await?;
                continue;
            }
            let stop = match &asked.stop {
                Some(stop) => Some(stop.clone()),
                None => self.process(&cx, Stage::Output).await?,
            };
            if let Some(stop) = stop {
                match self.stop(&cx, &asked, &stop).await? {
                    Some(turned) => return Ok(turned),
                    None => continue,
                }
            }
            let elsewhere = self.run_calls(&cx, &asked).await?;
            // Stop conditions first: what is not taken here begins the next turn (T10.7).
            let limit = self.limit(&cx, &asked, elsewhere).await?;
            let may_continue = limit.is_none();
            let mut taken = if may_continue { cx.try_signals(&INPUT).await? } else { Vec::new() };
            let mut reason = if taken.is_empty() { asked.reply.finish.word() } else { "other" };
            let mut missed = None;
            if taken.is_empty() {
                match self.form(&cx, &asked, limit.as_ref()) {
                    Form::AsItIs => {}
                    Form::Again(told) => (reason, taken) = ("retry", vec![*told]),
                    Form::Missed(failure) => missed = Some(failure),
                }
            }
            let continued = may_continue && (!asked.plans.is_empty() || !taken.is_empty());
            let closed = self.end_step(&cx, taken, reason, continued, asked.reply.usage);
            if let Some(failure) = missed {
                return Err(failure);
            }
            if !continued && let Some(turned) = self.end(&cx, &closed, reason, &asked, limit).await? {
                return Ok(turned);
            }
        }
    }

    /// What was taken enters behind the assistant message, and the step ends (T10.3, T10.4). Gives the message's id.
    fn end_step(&self, cx: &Context, taken: Vec<ThreadSignal>, reason: &str, continued: bool, usage: Usage) -> String {
        self.write(cx.now());
        let closed = self.so_far().message.clone();
        let next = (!taken.is_empty()).then(|| message_id(cx));
        if let Some(next) = &next {
            self.enter(taken, cx.now());
            self.open_message(next.clone());
        }
        let ended = Ended { reason, continued, next: next.as_deref() };
        self.thread.show(&self.finished(&closed, ended, Some(usage), cx.now(), Chunks::step_finish));
        self.note_step();
        closed
    }

    /// Asks the model, once it is durable that it is asked.
    async fn ask(&self, cx: &Context) -> Result<Asked, Failure> {
        let ask = {
            let mut so_far = self.so_far();
            so_far.steps += 1;
            so_far.asking = true;
            let (agent, message) = (self.input.agent.clone(), so_far.message.clone());
            Ask {
                agent,
                step: so_far.steps,
                message,
                at: cx.now(),
                transient: so_far.transients.take(),
                changes: std::mem::take(&mut so_far.changes),
                base: so_far.carried.base.clone(),
            }
        };
        self.thread.show(&self.chunks.step_start(&ask.message, ask.step, false, ask.at));
        let step = self.model_step();
        let facts = TurnFacts {
            thread: self.input.thread.to_string(),
            resource: self.input.resource.clone(),
            options: (*self.options).clone(),
            attempts_max: step.policy().retry.attempts_max,
        };
        let agents = self.agents.clone();
        let body = move |cx: StepContext, ask: Ask| {
            let (agents, facts) = (agents.clone(), facts.clone());
            async move { agents.ask(cx, ask, facts).await }
        };
        let asked = cx.step(&step, ask, body).await?;
        for chunk in asked.unseen(&self.chunks) {
            self.thread.show(&chunk);
        }
        let mut so_far = self.so_far();
        so_far.asking = false;
        so_far.text = asked.reply.text();
        so_far.calls.clear();
        so_far.usage += asked.reply.usage;
        so_far.model.clone_from(&asked.reply.model_id);
        so_far.response.clone_from(&asked.reply.response_id);
        // A call that hooks have kept from coming to anything leaves nothing in the message.
        let came_to_nothing = asked.reply.parts.is_empty() && (asked.stop.is_some() || asked.refusal.is_some());
        if !came_to_nothing {
            let begins = json!({ "type": "step-start" });
            so_far.reply.parts.push(ReplyPart::Other(begins.as_object().cloned().unwrap_or_default()));
            so_far.reply = std::mem::take(&mut so_far.reply).made_by(&asked.reply.model_id, &asked.provider);
        }
        for part in &asked.reply.parts {
            if let AssistantPart::Call(call) = part {
                self.thread.show(&self.chunks.tool_call(call));
                let named = json!({ "toolCallId": call.id, "toolName": call.name, "args": call.arguments });
                so_far.calls.push(named);
            }
            so_far.reply.parts.push(part_of(part));
        }
        Ok(asked)
    }

    /// Writes the assistant message into the history, or what has become of it.
    fn write(&self, at: Instant) {
        let mut so_far = self.so_far();
        let reply = so_far.reply.clone();
        if reply.parts.is_empty() || so_far.written.as_ref() == Some(&reply) {
            return;
        }
        let message = Message::of_reply(0, so_far.message.clone(), reply.clone(), at);
        if so_far.written.replace(reply).is_some() {
            self.thread.rewrite(&message);
        } else {
            self.thread.add(&message);
        }
    }
}

fn part_of(part: &AssistantPart) -> ReplyPart {
    match part {
        AssistantPart::Text(text) => ReplyPart::text(text.clone()),
        AssistantPart::Reasoning { text, signature } => ReplyPart::Reasoning {
            text: text.clone(),
            signature: signature.clone(),
            provider_options: serde_json::Map::new(),
        },
        AssistantPart::Call(call) => {
            ReplyPart::Tool(Invocation { call: call.clone(), state: CallState::Open, approval: None })
        }
    }
}
