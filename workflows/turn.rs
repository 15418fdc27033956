//! The turn: an agent answers on a thread. It takes what has arrived, asks the model, runs the tools that the model calls,
//! takes what has arrived meanwhile, and goes on until there is nothing more to say (threads-and-signals 10).
//!
//! Every model call and every tool call is a step. What arrives after the last look begins the next turn, in the commit
//! that ends this one: the store sees to that, whatever way the turn ends.

mod calls;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aldis::agent::model::Usage;
use aldis::agent::{
    Agents, Ask, Asked, Call, Called, Carried, Changes, FinishedStep, Plan, Process, Processed, Sending, Stage, Stages,
    Stop, Transients, TurnOptions, changed_reply, shown_reply,
};
use aldis::clock::Instant;
use aldis::message::{
    ABORTED, Approval, AssistantPart, Body, CallState, Chunks, Finished, Invocation, Message, Mode, Reply, ReplyPart,
    ThreadSignal, Tokens, ToolCall,
};
use aldis::payload::Payload;
use aldis::thread::{CallResult, INPUT as INPUT_NAME, NewLane, TurnInput, turn_of};
use aldis::workflow::{Raced, ThreadDesk};
use aldis::{Context, Failure, Signal, Step, StepContext, Update, Workflow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use calls::Running;

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
const SALVAGE: Step<u32, String> = Step::new("salvage");
const RESULTS: Step<Vec<CallResult>, Vec<Settled>> = Step::new("results");

/// How many of the thread's latest messages are looked through for calls of the client's own tools.
pub const RESULTS_LOOK_BACK: usize = 200;

/// Who ends a turn, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Abort {
    /// Who asked.
    pub by: String,
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
}

/// The workflow that answers for an agent.
///
/// The name lives as long as the program: there are as many as there are agents.
#[must_use]
pub fn workflow(agents: &Agents, agent: &str) -> Workflow {
    let agents = agents.clone();
    let name: &'static str = String::leak(turn_of(agent));
    Workflow::new(name, move |cx, input| turn(cx, input, agents.clone())).signal(&ABORT).update(&ANSWER).update(&UNSEND)
}

async fn turn(cx: Context, input: TurnInput, agents: Agents) -> Result<Turned, Failure> {
    let options = options_of(&input);
    let turn = Turn::new(&cx, input, options.clone().unwrap_or_default(), agents);
    // Whatever becomes of the turn, what it was sent stands in the history.
    let entered = turn.open(&cx).await?;
    if let Err(failure) = options {
        turn.failed(&failure);
        return Err(failure);
    }
    if !turn.take_results(&cx).await? && !entered {
        return Ok(turn.nothing_new(&cx));
    }
    let worked = cx.race(cx.scope("work", |cx| turn.clone().work(cx)), cx.signal(&ABORT));
    let ended = match cx.race(worked, cx.scope("unsend", unsend)).await {
        Raced::First(Raced::First(worked)) => worked,
        Raced::First(Raced::Second(Ok(_))) => return turn.aborted(&cx).await,
        Raced::First(Raced::Second(Err(cancelled))) => Err(cancelled.into()),
        Raced::Second(failed) => Err(failed),
    };
    if let Err(failure) = &ended {
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

/// A message of the history whose open calls have got results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Settled {
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

/// A turn under way. Clones are the same turn.
#[derive(Clone)]
struct Turn {
    thread: ThreadDesk,
    chunks: Chunks,
    agents: Agents,
    input: Arc<TurnInput>,
    options: Arc<TurnOptions>,
    /// Which steps of processors it has.
    stages: Stages,
    so_far: Arc<Mutex<SoFar>>,
}

/// How far it has come.
struct SoFar {
    /// The assistant message that is being written.
    message: String,
    reply: Reply,
    /// Whether it stands in the history already.
    written: bool,
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
}

impl Turn {
    fn new(cx: &Context, input: TurnInput, options: TurnOptions, agents: Agents) -> Self {
        let so_far = SoFar {
            message: cx.uuid().to_string(),
            reply: Reply::default(),
            written: false,
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
        };
        Self {
            thread: cx.thread(&input),
            chunks: Chunks::of(cx.run().as_str()),
            stages: agents.stages(&input.agent),
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
        let mut entered = !first.is_empty();
        self.enter(first, cx.now());
        let joined = cx.try_signals(&INPUT).await?;
        if !joined.is_empty() {
            entered = true;
            self.enter(joined, cx.now());
            self.so_far().message = cx.uuid().to_string();
        }
        Ok(entered)
    }

    /// Ends a turn that has nothing to answer: all its calls have had their results before.
    fn nothing_new(&self, cx: &Context) -> Turned {
        let (message, reason) = (self.so_far().message.clone(), "stop".to_owned());
        let ended = Ended { reason: &reason, continued: false, next: None };
        self.thread.show(&self.finished(&message, ended, None, cx.now(), Chunks::finish));
        Turned { reason, steps: 0, text: String::new() }
    }

    /// What the client's tools came to enters the history where they were called (T13.14). False if nothing of it was new.
    async fn take_results(&self, cx: &Context) -> Result<bool, Failure> {
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

    /// Has processors look, and does what they say. Some if the turn is to end.
    async fn process(&self, cx: &Context, stage: Stage) -> Result<Option<Stop>, Failure> {
        let step = match stage {
            Stage::Input if self.stages.input => &PREPARE,
            Stage::Output if self.stages.output => &REVIEW,
            Stage::Result if self.stages.result => &CONCLUDE,
            _ => return Ok(None),
        };
        let asks = {
            let so_far = self.so_far();
            let before = stage == Stage::Input;
            Process {
                stage,
                agent: self.input.agent.clone(),
                thread: self.input.thread.to_string(),
                resource: self.input.resource.clone(),
                step: so_far.steps + u32::from(before),
                at: cx.now(),
                reply: if before { Value::Null } else { shown_reply(&so_far.reply, cx.now()) },
                carried: Carried { transient: so_far.transients.all().to_vec(), ..so_far.carried.clone() },
            }
        };
        let (agents, options) = (self.agents.clone(), Arc::clone(&self.options));
        let body = move |cx: StepContext, asks: Process| {
            let (agents, options) = (agents.clone(), Arc::clone(&options));
            async move { agents.process(cx, asks, (*options).clone()).await }
        };
        let processed = cx.step(step, asks, body).await?;
        let changed = changed_reply(&processed);
        let Processed { sent, changes, base, scratch, stop, .. } = processed;
        {
            let mut so_far = self.so_far();
            so_far.changes = changes;
            so_far.carried.base = base.or(so_far.carried.base.take());
            if !scratch.is_empty() {
                so_far.carried.scratch = scratch;
            }
            if let Some(changed) = changed {
                so_far.text = changed.whole_text();
                so_far.reply = changed;
            }
        }
        if stage != Stage::Input {
            self.write(cx.now());
        } else if !sent.is_empty() {
            // What is sent before a call closes the assistant message, as a boundary does (T15.2).
            self.open_message(cx.uuid().to_string());
        }
        self.enter_sent(sent, cx.now());
        Ok(stop)
    }

    /// What processors have sent enters the transcript, in the order of their calls (T15.2, T15.3).
    fn enter_sent(&self, sent: Vec<Sending>, at: Instant) {
        for Sending { signal, window, again, quiet } in sent {
            if let Some(mark) = &signal.state {
                self.thread.track(NewLane {
                    lane: mark.id.clone(),
                    signal: signal.id.clone(),
                    cache_key: mark.cache_key.clone(),
                    is_delta: mark.mode == Mode::Delta,
                    version: mark.version,
                    again,
                    window: Payload::of(&window).unwrap_or_else(|_| Payload::null()),
                });
            }
            self.enter_one(signal, !quiet, at);
        }
    }

    /// Another assistant message begins.
    fn open_message(&self, id: String) {
        let mut so_far = self.so_far();
        so_far.message = id;
        so_far.reply = Reply::default();
        so_far.written = false;
    }

    /// A processor has ended the turn (T15.7).
    fn stopped(&self, cx: &Context, stop: &Stop) -> Turned {
        self.write(cx.now());
        self.thread.show(&self.chunks.tripwire(&stop.reason, &stop.processor_id));
        let closed = self.so_far().message.clone();
        let ended = Ended { reason: "tripwire", continued: false, next: None };
        self.thread.show(&self.finished(&closed, ended, None, cx.now(), Chunks::finish));
        let so_far = self.so_far();
        Turned { reason: "tripwire".to_owned(), steps: so_far.steps, text: so_far.text.clone() }
    }

    /// The loop of steps (T10.1).
    async fn work(self, cx: Context) -> Result<Turned, Failure> {
        loop {
            if let Some(stop) = self.process(&cx, Stage::Input).await? {
                return Ok(self.stopped(&cx, &stop));
            }
            let asked = self.ask(&cx).await?;
            if let Some(stop) = self.process(&cx, Stage::Output).await? {
                return Ok(self.stopped(&cx, &stop));
            }
            let elsewhere = self.run_calls(&cx, &asked).await?;
            // Stop conditions first: what is not taken here begins the next turn (T10.7).
            let steps = self.so_far().steps;
            let may_continue = steps < asked.steps_max && !elsewhere;
            let taken = if may_continue { cx.try_signals(&INPUT).await? } else { Vec::new() };
            let continued = may_continue && (!asked.plans.is_empty() || !taken.is_empty());
            let reason = if taken.is_empty() { asked.reply.finish.word().to_owned() } else { "other".to_owned() };
            self.write(cx.now());
            let closed = self.so_far().message.clone();
            let next = (!taken.is_empty()).then(|| cx.uuid().to_string());
            if let Some(next) = &next {
                self.enter(taken, cx.now());
                self.open_message(next.clone());
            }
            let ended = Ended { reason: &reason, continued, next: next.as_deref() };
            self.thread.show(&self.finished(&closed, ended, Some(asked.reply.usage), cx.now(), Chunks::step_finish));
            self.note_step();
            if !continued {
                if let Some(stop) = self.process(&cx, Stage::Result).await? {
                    return Ok(self.stopped(&cx, &stop));
                }
                let ended = Ended { reason: &reason, continued: false, next: None };
                self.thread.show(&self.finished(&closed, ended, None, cx.now(), Chunks::finish));
                let so_far = self.so_far();
                return Ok(Turned { reason, steps, text: so_far.text.clone() });
            }
        }
    }

    /// Processors are told of the steps that have ended.
    fn note_step(&self) {
        if self.stages != Stages::default() {
            let mut so_far = self.so_far();
            let step = FinishedStep { text: so_far.text.clone(), calls: so_far.calls.clone() };
            so_far.carried.steps.push(step);
        }
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
        let (agents, options) = (self.agents.clone(), Arc::clone(&self.options));
        let body = move |cx: StepContext, ask: Ask| {
            let (agents, options) = (agents.clone(), Arc::clone(&options));
            async move { agents.ask(cx, ask, (*options).clone()).await }
        };
        let asked = cx.step(&MODEL, ask, body).await?;
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
        let begins = json!({ "type": "step-start" });
        so_far.reply.parts.push(ReplyPart::Other(begins.as_object().cloned().unwrap_or_default()));
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

    /// Runs what the model has called, and waits for those whom that needs. True if a call is the client's to run.
    async fn run_calls(&self, cx: &Context, asked: &Asked) -> Result<bool, Failure> {
        let calls: Vec<&ToolCall> = asked.reply.calls().collect();
        if calls.is_empty() {
            return Ok(false);
        }
        let mut running = Running::of(self, cx);
        let mut elsewhere = false;
        for (call, plan) in calls.iter().copied().zip(&asked.plans) {
            match plan {
                Plan::Run => running.run(call),
                Plan::Approve { expires_after_ms } => running.suspend(cx, call, None, *expires_after_ms),
                Plan::Elsewhere => elsewhere = true,
                Plan::Refuse { error } => self.settle(&call.id, CallState::Failed(Value::from(error.as_str())), None),
            }
        }
        // The calls are in the history while they are under way, and while somebody is asked.
        self.write(cx.now());
        running.all(cx, asked.calls_at_once).await?;
        // Results are shown together, in the model's order (T13.1a).
        let so_far = self.so_far();
        for call in calls {
            let invocation = so_far.reply.parts.iter().rev().find_map(|part| match part {
                ReplyPart::Tool(invocation) if invocation.call.id == call.id => Some(invocation),
                _ => None,
            });
            if let Some(Invocation { state, approval, .. }) = invocation
                && let Some(chunk) = self.chunks.tool_result(call, state, approval.as_ref())
            {
                self.thread.show(&chunk);
            }
        }
        Ok(elsewhere)
    }

    /// Notes what a call came to.
    fn settle(&self, call: &str, to: CallState, answered: Option<Approval>) {
        let mut so_far = self.so_far();
        let invocation = so_far.reply.parts.iter_mut().rev().find_map(|part| match part {
            ReplyPart::Tool(invocation) if invocation.call.id == call => Some(invocation),
            _ => None,
        });
        if let Some(invocation) = invocation {
            invocation.state = to;
            if answered.is_some() {
                invocation.approval = answered;
            }
        }
    }

    /// Writes the assistant message into the history, or what has become of it.
    fn write(&self, at: Instant) {
        let mut so_far = self.so_far();
        if so_far.reply.parts.is_empty() {
            return;
        }
        let message = Message::of_reply(0, so_far.message.clone(), so_far.reply.clone(), at);
        if std::mem::replace(&mut so_far.written, true) {
            self.thread.rewrite(&message);
        } else {
            self.thread.add(&message);
        }
    }

    fn finished(
        &self,
        message: &str,
        ended: Ended<'_>,
        usage: Option<Usage>,
        at: Instant,
        chunk: impl Fn(&Chunks, &Finished<'_>) -> Value,
    ) -> Value {
        let so_far = self.so_far();
        let usage = usage.unwrap_or(so_far.usage);
        let finished = Finished {
            message,
            reason: ended.reason,
            continued: ended.continued,
            next_message: ended.next,
            text: &so_far.text,
            calls: so_far.calls.clone(),
            tokens: Tokens { input: usage.input, output: usage.output, total: usage.total },
            response: so_far.response.as_deref(),
            model: &so_far.model,
            at,
        };
        chunk(&self.chunks, &finished)
    }

    /// Ends the turn as somebody has asked: what was said so far stays, marked (T12.3).
    async fn aborted(&self, cx: &Context) -> Result<Turned, Failure> {
        let (steps, asking) = {
            let so_far = self.so_far();
            (so_far.steps, so_far.asking)
        };
        // What subscribers have seen of an answer under way is in no step's result.
        let seen = match asking {
            true => cx.step(&SALVAGE, steps, |cx, _| async move { cx.shown_text().await }).await?,
            false => String::new(),
        };
        self.cut_short(seen, cx.now());
        self.thread.show(&self.chunks.abort());
        let text = self.so_far().text.clone();
        Ok(Turned { reason: ABORTED.to_owned(), steps, text })
    }

    /// Closes the assistant message as it stands: a call without a result is closed with it, when the history is read.
    fn cut_short(&self, seen: String, at: Instant) {
        {
            let mut so_far = self.so_far();
            if !seen.is_empty() {
                so_far.reply.parts.push(ReplyPart::text(seen.clone()));
                so_far.text = seen;
            }
            so_far.reply = std::mem::take(&mut so_far.reply).cut_short();
        }
        self.write(at);
    }
}

/// How a step ended.
#[derive(Clone, Copy)]
struct Ended<'a> {
    reason: &'a str,
    continued: bool,
    next: Option<&'a str>,
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
