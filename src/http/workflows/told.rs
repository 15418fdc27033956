//! A run's journal in the words of workflows: records as they are streamed, and results (H11.2 to H11.4).
//!
//! Each record follows from one line of the journal, so a run's records are always the same and can be counted.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::value;
use crate::clock::Instant;
use crate::failure::{AttemptFailure, Failure, Outcome};
use crate::id::{OpId, Seq};
use crate::journal::{Event, Recorded, Taken};
use crate::run::{Closed, Run, Status};
use crate::signal::{Pending, SignalKind};
use crate::store::History;

/// What a journal has told so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The last line that was taken.
    pub(super) head: Seq,
    run: String,
    input: Value,
    begun: bool,
    steps: Vec<Step>,
    /// Which of the steps are neither answered nor given up.
    open: HashMap<OpId, usize>,
    outcome: Option<Outcome>,
}

/// A step, or a wait for a signal or an update.
#[derive(Debug)]
pub(super) struct Step {
    /// Its name; where names repeat, the later ones count on: `charge`, `charge#2`.
    pub(super) id: String,
    pub(super) name: String,
    op: OpId,
    /// The line that asked for it.
    pub(super) seq: Seq,
    payload: Value,
    started_at: Instant,
    ended_at: Option<Instant>,
    pub(super) is: Is,
}

/// How a step stands.
#[derive(Debug)]
pub(super) enum Is {
    Running,
    /// It waits for a signal or an update.
    Suspended(SignalKind),
    Success(Value),
    Failed(Value),
    Canceled,
    /// The code has given it up: a lost race.
    Skipped,
}

impl Is {
    fn word(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Suspended(_) => "suspended",
            Self::Success(_) => "success",
            Self::Failed(_) => "failed",
            Self::Canceled => "canceled",
            Self::Skipped => "skipped",
        }
    }
}

impl Step {
    /// What both its records and its result say.
    fn body(&self) -> Map<String, Value> {
        let mut body = Map::new();
        let mut say = |key: &str, value: Value| body.insert(key.to_owned(), value);
        say("status", self.is.word().into());
        say("payload", self.payload.clone());
        say("startedAt", json!(self.started_at));
        if let Some(ended_at) = self.ended_at {
            say("endedAt", json!(ended_at));
        }
        match &self.is {
            Is::Suspended(_) => {
                say("suspendedAt", json!(self.started_at));
                say("suspendPayload", self.suspend_payload());
            }
            Is::Success(output) => drop(say("output", output.clone())),
            Is::Failed(error) => drop(say("error", error.clone())),
            Is::Running | Is::Canceled | Is::Skipped => {}
        }
        body
    }

    fn suspend_payload(&self) -> Value {
        match self.is {
            Is::Suspended(kind) => json!({ "kind": kind.word(), "name": self.name }),
            _ => Value::Null,
        }
    }

    fn record(&self, kind: &str, run: &str) -> Value {
        let mut payload = self.body();
        payload.insert("id".to_owned(), json!(self.id));
        payload.insert("stepName".to_owned(), json!(self.name));
        payload.insert("stepCallId".to_owned(), json!(self.op.as_str()));
        record(kind, run, &payload.into())
    }
}

impl Told {
    /// All that a run's journal tells.
    pub(super) fn of(history: &History) -> Self {
        let mut told = Self::default();
        told.read(history);
        told
    }

    /// Takes the lines that are new, and gives what they say.
    pub(super) fn read(&mut self, history: &History) -> Vec<Value> {
        let mut records = Vec::new();
        let head = self.head;
        for line in history.journal.iter().filter(move |line| line.seq > head) {
            self.take(line, &mut records);
        }
        records
    }

    fn take(&mut self, line: &Recorded, records: &mut Vec<Value>) {
        self.head = line.seq;
        match &line.event {
            Event::RunQueued(queued) => {
                self.run = queued.run.to_string();
                self.input = value(&queued.input);
            }
            Event::RunStarted(started) => {
                self.run = started.run.to_string();
                self.begun = true;
                if let Some(input) = &started.input {
                    self.input = value(input);
                }
                records.push(record("workflow-start", &self.run, &json!({ "workflowId": started.workflow })));
            }
            Event::StepScheduled(step) => {
                self.begin(line, &step.op, &step.name, value(&step.input));
                self.say(&step.op, "workflow-step-start", records);
            }
            Event::SignalAwaited(wait) => {
                self.begin(line, &wait.op, &wait.name, Value::Null);
                self.say(&wait.op, "workflow-step-start", records);
                if let Some(&at) = self.open.get(&wait.op) {
                    self.steps[at].is = Is::Suspended(wait.mode.takes());
                }
                self.say(&wait.op, "workflow-step-suspended", records);
            }
            Event::StepFinished(step) => self.end(&step.op, line.at, Is::Success(value(&step.output)), records),
            Event::StepFailed(step) => self.end(&step.op, line.at, Is::Failed(error_of(&step.cause)), records),
            Event::SignalsTaken(taken) => self.end(&taken.op, line.at, Is::Success(given(&taken.signals)), records),
            Event::WaitWithdrawn(wait) => self.end(&wait.op, line.at, Is::Skipped, records),
            Event::RunCompleted(_) | Event::RunFailed(_) | Event::RunCancelled(_) | Event::RunTerminated(_) => {
                self.finish(line, records);
            }
            _ => {}
        }
    }

    fn begin(&mut self, line: &Recorded, op: &OpId, name: &str, payload: Value) {
        let before = self.steps.iter().filter(|step| step.name == name).count();
        self.open.insert(op.clone(), self.steps.len());
        self.steps.push(Step {
            id: if before == 0 { name.to_owned() } else { format!("{name}#{}", before + 1) },
            name: name.to_owned(),
            op: op.clone(),
            seq: line.seq,
            payload,
            started_at: line.at,
            ended_at: None,
            is: Is::Running,
        });
    }

    fn say(&self, op: &OpId, kind: &str, records: &mut Vec<Value>) {
        if let Some(&at) = self.open.get(op) {
            records.push(self.steps[at].record(kind, &self.run));
        }
    }

    /// Of what is no step, such as a timer, nothing is told.
    fn end(&mut self, op: &OpId, at: Instant, is: Is, records: &mut Vec<Value>) {
        let Some(step) = self.open.remove(op).and_then(|place| self.steps.get_mut(place)) else { return };
        step.is = is;
        step.ended_at = Some(at);
        let finished = json!({ "id": step.id, "stepName": step.name, "stepCallId": step.op.as_str(), "metadata": {} });
        records.push(step.record("workflow-step-result", &self.run));
        records.push(record("workflow-step-finish", &self.run, &finished));
    }

    fn finish(&mut self, line: &Recorded, records: &mut Vec<Value>) {
        let mut left: Vec<(usize, OpId)> = self.open.iter().map(|(op, place)| (*place, op.clone())).collect();
        left.sort_unstable_by_key(|(place, _)| *place);
        for (_, op) in left {
            self.end(&op, line.at, Is::Canceled, records);
        }
        self.outcome = line.event.clone().outcome();
        let (word, metadata) = match &self.outcome {
            Some(Outcome::Completed(_)) | None => ("success", json!({})),
            Some(Outcome::Failed(failure)) => ("failed", json!({ "errorMessage": failure.message })),
            Some(Outcome::Cancelled { reason, .. } | Outcome::Terminated { reason }) => {
                records.push(record("workflow-canceled", &self.run, &json!({ "reason": reason })));
                ("canceled", json!({ "reason": reason }))
            }
        };
        let usage = json!({ "inputTokens": 0, "outputTokens": 0, "totalTokens": 0 });
        let payload = json!({ "workflowStatus": word, "metadata": metadata, "output": { "usage": usage } });
        records.push(record("workflow-finish", &self.run, &payload));
    }

    pub(super) fn has_ended(&self) -> bool {
        self.outcome.is_some()
    }

    /// What it waits for from outside, oldest first.
    pub(super) fn suspended(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| matches!(step.is, Is::Suspended(_)))
    }

    /// The word for how a run stands (H11.3).
    pub(super) fn status(&self, run: &Run) -> &'static str {
        match run.status {
            Status::Due { .. } if !self.begun => "pending",
            Status::Due { .. } | Status::Running { .. } => "running",
            Status::Waiting { .. } if self.suspended().next().is_some() => "suspended",
            Status::Waiting { .. } => "waiting",
            Status::Blocked { .. } => "paused",
            Status::Closed { how: Closed::Completed, .. } => "success",
            Status::Closed { how: Closed::Failed, .. } => "failed",
            Status::Closed { how: Closed::Cancelled | Closed::Terminated, .. } => "canceled",
        }
    }

    /// Whether nothing comes before somebody does something.
    pub(super) fn rests(&self, history: &History) -> bool {
        let goes_on = |sent: &Pending| {
            sent.kind == SignalKind::Cancel
                || self
                    .suspended()
                    .any(|step| step.name == sent.name && matches!(step.is, Is::Suspended(k) if k == sent.kind))
        };
        match self.status(&history.run) {
            "pending" | "running" | "waiting" => false,
            "suspended" => !history.pending.iter().any(goes_on),
            _ => true,
        }
    }

    /// H11.2.
    pub(super) fn result(&self, run: &Run) -> Value {
        let status = self.status(run);
        let mut steps = self.steps();
        steps.insert("input".to_owned(), self.input.clone());
        let mut result = json!({ "status": status, "steps": steps, "input": self.input, "runId": run.id });
        if let Some((key, value)) = self.ending() {
            result[key] = value;
        }
        if status == "suspended" {
            result["suspended"] = self.suspended().map(|step| json!([step.id])).collect();
            result["suspendPayload"] = self.by_id(self.suspended(), Step::suspend_payload).into();
        }
        if let Status::Blocked { reason } = &run.status {
            result["blocked"] = json!({ "code": reason.code(), "reason": reason.to_string() });
        }
        result
    }

    /// A field of a run as it is looked up (H11.3); none if there is no such field.
    pub(super) fn field(&self, name: &str) -> Option<Value> {
        let ending = |wanted| self.ending().filter(|(key, _)| *key == wanted).map_or(Value::Null, |(_, value)| value);
        let nowhere = |_: &Step| json!([]);
        Some(match name {
            "payload" => self.input.clone(),
            "result" => ending("result"),
            "error" => ending("error"),
            "steps" => self.steps().into(),
            "activeStepsPath" => {
                self.by_id(self.steps.iter().filter(|step| matches!(step.is, Is::Running)), nowhere).into()
            }
            "suspendedPaths" => self.by_id(self.suspended(), nowhere).into(),
            "serializedStepGraph" => json!([]),
            "waitingPaths" | "resumeLabels" => json!({}),
            _ => return None,
        })
    }

    fn steps(&self) -> Map<String, Value> {
        self.by_id(self.steps.iter(), |step| step.body().into())
    }

    fn by_id<'a>(&self, steps: impl Iterator<Item = &'a Step>, of: impl Fn(&Step) -> Value) -> Map<String, Value> {
        steps.map(|step| (step.id.clone(), of(step))).collect()
    }

    /// What it came to, and by which word that is told.
    fn ending(&self) -> Option<(&'static str, Value)> {
        match self.outcome.as_ref()? {
            Outcome::Completed(output) => Some(("result", value(output))),
            Outcome::Failed(failure) => Some(("error", error(failure))),
            Outcome::Cancelled { .. } | Outcome::Terminated { .. } => None,
        }
    }
}

fn record(kind: &str, run: &str, payload: &Value) -> Value {
    json!({ "type": kind, "runId": run, "from": "WORKFLOW", "payload": payload })
}

fn error(failure: &Failure) -> Value {
    json!({ "name": failure.code.as_deref().unwrap_or("Error"), "message": failure.message })
}

fn error_of(cause: &AttemptFailure) -> Value {
    match cause {
        AttemptFailure::Failed(failure) => error(failure),
        AttemptFailure::Panicked(_) => json!({ "name": "Panic", "message": cause.to_string() }),
        AttemptFailure::TimedOut(_) => json!({ "name": "TimeoutError", "message": cause.to_string() }),
    }
}

/// What was given to a wait: the value, or several in a list.
fn given(signals: &[Taken]) -> Value {
    match signals {
        [one] => value(&one.payload),
        many => many.iter().map(|taken| value(&taken.payload)).collect(),
    }
}
