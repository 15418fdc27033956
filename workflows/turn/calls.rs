//! The calls of one step of a turn: they run, some wait for somebody outside, and time may settle them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aldis::agent::{Asked, Call, Called, Plan};
use aldis::clock::Instant;
use aldis::message::{Approval, CallState, DENIED, Invocation, ReplyPart, ToolCall};
use aldis::payload::Payload;
use aldis::thread::NewCall;
use aldis::workflow::{Crew, Raced, Request};
use aldis::{Context, Failure, StepContext, StepError};
use serde_json::{Value, json};

use super::{ANSWER, CallAnswer, CallAnswered, TOOL, Turn};

/// The calls of one step, while they run and wait.
pub(super) struct Running<'t> {
    turn: &'t Turn,
    crew: Crew<(ToolCall, Result<Called, StepError>)>,
    /// Calls to begin, with what they are resumed with.
    next: VecDeque<(ToolCall, Option<Value>)>,
    waiting: Vec<Waiting>,
}

/// A call that waits for somebody.
struct Waiting {
    call: ToolCall,
    /// What it was suspended with; none if it waits for approval.
    suspended_with: Option<Value>,
    expires_at: Option<Instant>,
}

/// What happens next to the calls of a step.
enum Happens {
    /// One has ended.
    Ended(Option<(ToolCall, Result<Called, StepError>)>),
    /// Somebody has answered.
    Answered(Request<CallAnswer, CallAnswered>),
    /// Time is up for some.
    Expired,
}

impl<'t> Running<'t> {
    pub(super) fn of(turn: &'t Turn, cx: &Context) -> Self {
        Self { turn, crew: cx.crew(), next: VecDeque::new(), waiting: Vec::new() }
    }

    /// Has a call run, after those before it.
    pub(super) fn run(&mut self, call: &ToolCall) {
        self.next.push_back((call.clone(), None));
    }

    /// Until all are settled.
    pub(super) async fn all(&mut self, cx: &Context, at_once: usize) -> Result<(), Failure> {
        loop {
            while self.crew.running() < at_once
                && let Some((call, resume)) = self.next.pop_front()
            {
                self.begin(cx, call, resume);
            }
            if self.crew.running() == 0 && self.waiting.is_empty() {
                return Ok(());
            }
            match self.happens(cx).await? {
                Happens::Ended(Some((call, called))) => self.ended(cx, &call, called)?,
                Happens::Ended(None) => {}
                Happens::Answered(request) => self.answered(request),
                Happens::Expired => self.expire(cx.now()),
            }
        }
    }

    async fn happens(&mut self, cx: &Context) -> Result<Happens, Failure> {
        if self.waiting.is_empty() {
            return Ok(Happens::Ended(self.crew.done().await));
        }
        let answer = cx.update(&ANSWER);
        let expiry = self.waiting.iter().filter_map(|it| it.expires_at).min();
        // Without a branch that runs the crew would be done at once.
        let idle = self.crew.running() == 0;
        Ok(match (idle, expiry) {
            (true, None) => Happens::Answered(answer.await?),
            (true, Some(at)) => match cx.race(answer, cx.sleep_until(at)).await {
                Raced::First(request) => Happens::Answered(request?),
                Raced::Second(passed) => passed.map(|()| Happens::Expired)?,
            },
            (false, None) => match cx.race(self.crew.done(), answer).await {
                Raced::First(ended) => Happens::Ended(ended),
                Raced::Second(request) => Happens::Answered(request?),
            },
            (false, Some(at)) => match cx.race(self.crew.done(), cx.race(answer, cx.sleep_until(at))).await {
                Raced::First(ended) => Happens::Ended(ended),
                Raced::Second(Raced::First(request)) => Happens::Answered(request?),
                Raced::Second(Raced::Second(passed)) => passed.map(|()| Happens::Expired)?,
            },
        })
    }

    fn begin(&mut self, cx: &Context, call: ToolCall, resumed_with: Option<Value>) {
        let turn = self.turn.clone();
        let scope = format!("call[{}]", call.id);
        self.crew.push(cx.scope(&scope, |cx| async move {
            let asks = Call {
                agent: turn.input.agent.clone(),
                thread: turn.input.thread.to_string(),
                resource: turn.input.resource.clone(),
                call: call.clone(),
                resumed_with,
            };
            let (agents, options) = (turn.agents.clone(), Arc::clone(&turn.options));
            let body = move |cx: StepContext, asks: Call| {
                let (agents, context) = (agents.clone(), options.request_context.clone());
                async move { agents.call(cx, asks, context).await }
            };
            let attempts = turn.agents.get(&turn.input.agent).map_or(1, |agent| agent.attempts_of(&call.name));
            let tool = if attempts > 1 { TOOL.attempts(attempts) } else { TOOL };
            (call, cx.step(&tool, asks, body).await)
        }));
    }

    fn ended(&mut self, cx: &Context, call: &ToolCall, called: Result<Called, StepError>) -> Result<(), Failure> {
        match called {
            Ok(Called::Done(result)) => self.turn.settle(&call.id, CallState::Done(result), None),
            Ok(Called::Suspended(payload)) => self.suspend(cx, call, Some(payload), None),
            Err(cancelled @ StepError::Cancelled { .. }) => return Err(cancelled.into()),
            // A tool that fails is news for the model, not the end of the turn.
            Err(error) => self.turn.settle(&call.id, CallState::Failed(Value::from(error.to_string())), None),
        }
        Ok(())
    }

    /// Leaves a call to somebody outside; they hear of it once that is durable (T13.2a).
    pub(super) fn suspend(
        &mut self,
        cx: &Context,
        call: &ToolCall,
        suspended_with: Option<Value>,
        expires_after_ms: Option<u64>,
    ) {
        let expires_at = expires_after_ms.map(|millis| cx.now() + Duration::from_millis(millis));
        let turn = self.turn;
        let chunk = match &suspended_with {
            None => turn.chunks.tool_call_approval(call),
            Some(payload) => turn.chunks.tool_call_suspended(call, payload),
        };
        turn.thread.show(&chunk);
        let value = json!({
            "args": call.arguments,
            "requiresApproval": suspended_with.is_none(),
            "suspendPayload": suspended_with,
        });
        turn.thread.suspend(NewCall {
            call: call.id.clone(),
            tool: call.name.clone(),
            value: Payload::of(&value).unwrap_or_else(|_| Payload::null()),
            expires_at,
        });
        self.waiting.push(Waiting { call: call.clone(), suspended_with, expires_at });
    }

    fn answered(&mut self, request: Request<CallAnswer, CallAnswered>) {
        let Some(place) = self.waiting.iter().position(|it| it.call.id == request.input.call) else {
            return request.reply(&CallAnswered::NotWaiting);
        };
        let answer = request.input.clone();
        request.reply(&CallAnswered::Taken(answer.clone()));
        let Waiting { call, suspended_with, .. } = self.waiting.remove(place);
        self.turn.thread.settle(call.id.clone());
        let approval = Approval { id: call.id.clone(), approved: Some(answer.approved), reason: answer.reason.clone() };
        match (answer.approved, suspended_with) {
            (true, None) => {
                self.turn.settle(&call.id, CallState::Open, Some(approval));
                self.next.push_back((call, answer.resume));
            }
            (true, Some(_)) => {
                self.next.push_back((call, Some(answer.resume.unwrap_or_else(|| json!({ "approved": true })))));
            }
            (false, _) => self.deny(&call, answer.reason.unwrap_or_else(|| DENIED.to_owned())),
        }
    }

    fn deny(&self, call: &ToolCall, reason: String) {
        let approval = Approval { id: call.id.clone(), approved: Some(false), reason: Some(reason) };
        self.turn.settle(&call.id, CallState::Denied, Some(approval));
    }

    /// Calls that nobody has answered in time count as declined (T13.12).
    fn expire(&mut self, now: Instant) {
        let (expired, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|it| it.expires_at.is_some_and(|at| at <= now));
        self.waiting = waiting;
        for Waiting { call, .. } in expired {
            self.turn.thread.settle(call.id.clone());
            self.deny(&call, "expired".to_owned());
        }
    }
}

impl Turn {
    /// Runs what the model has called, and waits for those whom that needs. True if a call is the client's to run.
    pub(super) async fn run_calls(&self, cx: &Context, asked: &Asked) -> Result<bool, Failure> {
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
        self.show_results(&calls);
        Ok(elsewhere)
    }

    /// Says of a step's calls that they are not made, and why.
    pub(super) fn refuse_calls(&self, asked: &Asked, why: &str) {
        let calls: Vec<&ToolCall> = asked.reply.calls().collect();
        for call in &calls {
            self.settle(&call.id, CallState::Failed(Value::from(why)), None);
        }
        self.show_results(&calls);
    }

    /// Results are shown together, in the model's order (T13.1a).
    fn show_results(&self, calls: &[&ToolCall]) {
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
    }

    /// Notes what a call came to.
    pub(super) fn settle(&self, call: &str, to: CallState, answered: Option<Approval>) {
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
}
