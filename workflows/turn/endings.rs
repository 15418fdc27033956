//! How steps and turns end, and what subscribers are told of it.

use aldis::agent::model::Usage;
use aldis::agent::{Asked, Stage, Stop};
use aldis::clock::Instant;
use aldis::message::{ABORTED, Chunks, Finished, ReplyPart, Tokens, Tripwire};
use aldis::{Context, Failure};
use serde_json::{Value, json};

use super::limits::Limit;
use super::{Abort, INPUT, SALVAGE, Turn, Turned};

/// How a step ended.
#[derive(Clone, Copy)]
pub(super) struct Ended<'a> {
    pub(super) reason: &'a str,
    pub(super) continued: bool,
    pub(super) next: Option<&'a str>,
}

impl Turn {
    /// Ends a turn that has nothing to answer: all its calls have had their results before.
    pub(super) fn nothing_new(&self, cx: &Context) -> Turned {
        let (message, reason) = (self.so_far().message.clone(), "stop".to_owned());
        self.finish(&message, &reason, cx.now());
        self.turned(&reason)
    }

    /// What the turn has come to.
    pub(super) fn turned(&self, reason: &str) -> Turned {
        let so_far = self.so_far();
        Turned {
            reason: reason.to_owned(),
            steps: so_far.steps,
            text: so_far.text.clone(),
            object: so_far.object.clone(),
            stopped_by: None,
        }
    }

    /// A processor has ended the turn (T15.7).
    pub(super) fn stopped(&self, cx: &Context, stop: &Stop) -> Turned {
        self.write(cx.now());
        self.thread.show(&self.chunks.tripwire(&Tripwire {
            processor: Some(&stop.processor_id),
            retry: stop.retry,
            ..Tripwire::of(&stop.reason)
        }));
        let closed = self.so_far().message.clone();
        self.finish(&closed, "tripwire", cx.now());
        let words = format!("the processor {:?} has ended the turn: {}", stop.processor_id, stop.reason);
        Turned { stopped_by: Some(words), ..self.turned("tripwire") }
    }

    /// Nothing more is to be said; or the model would go on, and may not. None if it is to try again after all.
    pub(super) async fn end(
        &self,
        cx: &Context,
        closed: &str,
        reason: &str,
        asked: &Asked,
        limit: Option<Limit>,
    ) -> Result<Option<Turned>, Failure> {
        if let Some(stop) = self.process(cx, Stage::Result).await? {
            return self.stop_at_end(cx, asked, &stop).await;
        }
        // A limit counts where the model would have gone on.
        let limit = limit.filter(|_| !asked.plans.is_empty());
        let object = self.so_far().object.clone();
        if let Some(object) = object {
            self.thread.show(&self.chunks.object_result(&object));
        }
        let (reason, stopped_by) = match limit {
            Some(limit @ Limit::Tokens { used, max }) => {
                let words = limit.words();
                let metadata = json!({ "limit": "tokens", "used": used, "max": max });
                self.thread.show(&self.chunks.tripwire(&Tripwire { metadata, ..Tripwire::of(&words) }));
                ("length", Some(words))
            }
            Some(limit @ Limit::Stopped(_)) => (reason, Some(limit.words())),
            Some(Limit::Steps | Limit::Elsewhere) | None => (reason, None),
        };
        self.finish(closed, reason, cx.now());
        Ok(Some(Turned { stopped_by, ..self.turned(reason) }))
    }

    /// Tells subscribers that the turn has ended.
    pub(super) fn finish(&self, closed: &str, reason: &str, at: Instant) {
        let ended = Ended { reason, continued: false, next: None };
        self.thread.show(&self.finished(closed, ended, None, at, Chunks::finish));
    }

    pub(super) fn finished(
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
            retries: so_far.retries,
            at,
        };
        chunk(&self.chunks, &finished)
    }

    /// Ends the turn as somebody has asked: what was said so far stays, marked (T12.3). What it has not taken begins the turn
    /// that follows, unless it is to be dropped (T12.4): then the journal says what was taken, and nothing else does.
    pub(super) async fn aborted(&self, cx: &Context, abort: &Abort) -> Result<Turned, Failure> {
        self.enter_joined(cx.now());
        self.salvage(cx).await?;
        if abort.clear {
            drop(cx.try_signals(&INPUT).await?);
        }
        self.thread.show(&self.chunks.abort());
        Ok(self.turned(ABORTED))
    }

    /// What was said so far stays, marked: nothing more comes of what is under way.
    pub(super) async fn salvage(&self, cx: &Context) -> Result<(), Failure> {
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
        Ok(())
    }

    /// Closes the assistant message as it stands: a call without a result is closed with it, when the history is read.
    pub(super) fn cut_short(&self, seen: String, at: Instant) {
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
