//! The processors of a turn: what they have sent and changed is done here (T15).

use std::sync::Arc;

use aldis::agent::{Carried, Process, Processed, Sending, Stage, Stages, Stop, changed_reply, shown_reply};
use aldis::clock::Instant;
use aldis::message::Mode;
use aldis::payload::Payload;
use aldis::thread::NewLane;
use aldis::{Context, Failure, StepContext};
use serde_json::Value;

use super::{CONCLUDE, PREPARE, REVIEW, Turn, message_id};

impl Turn {
    /// Has processors look, and does what they say. Some if the turn is to end.
    pub(super) async fn process(&self, cx: &Context, stage: Stage) -> Result<Option<Stop>, Failure> {
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
                joined: if before { so_far.joined.clone() } else { Vec::new() },
                reply: if before { Value::Null } else { shown_reply(&so_far.reply, cx.now()) },
                carried: Carried { transient: so_far.transients.all().to_vec(), ..so_far.carried.clone() },
            }
        };
        let (agents, options) = (self.agents.clone(), Arc::clone(&self.options));
        let body = move |cx: StepContext, asks: Process| {
            let (agents, options) = (agents.clone(), Arc::clone(&options));
            async move { agents.process(cx, asks, (*options).clone()).await }
        };
        let processed = cx.step(step, asks, body).await;
        if processed.is_err() {
            self.enter_joined(cx.now());
        }
        let processed = processed?;
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
            self.open_message(message_id(cx));
        }
        // What has joined the first call stands behind what the hooks of the turn's beginning have sent (T10.5).
        let (first, then) = sent.into_iter().partition(|it| it.quiet);
        self.enter_sent(first, cx.now());
        self.enter_joined(cx.now());
        self.enter_sent(then, cx.now());
        Ok(stop)
    }

    /// What has joined the first call enters, if it has not.
    pub(super) fn enter_joined(&self, at: Instant) {
        let joined = std::mem::take(&mut self.so_far().joined);
        self.enter(joined, at);
    }

    /// What processors have sent enters the transcript, in the order of their calls (T15.2, T15.3).
    pub(super) fn enter_sent(&self, sent: Vec<Sending>, at: Instant) {
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

    /// Processors are told of the steps that have ended.
    pub(super) fn note_step(&self) {
        if self.stages != Stages::default() {
            let step = self.this_step();
            self.so_far().carried.steps.push(step);
        }
    }
}
