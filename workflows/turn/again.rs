//! What the model is told when it is to answer again.

use aldis::agent::{Asked, Formed, Refusal, Stop};
use aldis::message::{Attributes, Category, Chunks, NewSignal, ThreadSignal};
use aldis::{Context, Failure};

use super::endings::Ended;
use super::limits::Limit;
use super::{Turn, Turned, message_id};

/// What follows from the form of a step's answer.
pub(super) enum Form {
    /// Nothing.
    AsItIs,
    /// The model is told this, and asked again.
    Again(Box<ThreadSignal>),
    /// The turn fails with this.
    Missed(Failure),
}

impl Turn {
    /// What follows from the form of the turn's last answer, if one was asked for.
    pub(super) fn form(&self, cx: &Context, asked: &Asked, limit: Option<&Limit>) -> Form {
        let mut so_far = self.so_far();
        match &asked.formed {
            None => Form::AsItIs,
            Some(Formed::Object(object)) => {
                so_far.reply = std::mem::take(&mut so_far.reply).with_object(object.clone());
                so_far.object = Some(object.clone());
                Form::AsItIs
            }
            Some(Formed::Misfit { problem, answers_max }) => {
                so_far.misfits += 1;
                let answers = so_far.misfits;
                if answers < *answers_max && limit.is_none() {
                    return Form::Again(Box::new(feedback(
                        cx,
                        format!(
                            "Your answer does not fit the JSON Schema that was asked for: {problem}. \
                         Answer again, with nothing but JSON that fits it."
                        ),
                    )));
                }
                let why = limit.map_or_else(String::new, |limit| format!(", and {}", limit.words()));
                let what = format!(
                    "the answer does not fit the JSON Schema that was asked for, after {answers} of {answers_max} \
                     answers{why}: {problem}; ask another model, make the schema simpler, or allow more answers"
                );
                Form::Missed(Failure::new(what).code("answer_misfit").not_retryable())
            }
        }
    }
}

impl Turn {
    /// A hook has ended the turn after a call of the model, or has the model try again (T15.7). Some if that was the end.
    pub(super) async fn stop(&self, cx: &Context, asked: &Asked, stop: &Stop) -> Result<Option<Turned>, Failure> {
        if !self.may_try_again(cx, asked, stop.retry).await? {
            return Ok(Some(self.stopped(cx, stop)));
        }
        self.refuse_calls(asked, &format!("the call was not made: {}", stop.reason));
        let told = vec![feedback(cx, told_of(stop))];
        self.end_step(cx, told, "retry", true, asked.reply.usage);
        Ok(None)
    }

    /// A hook has ended the turn when all was said, or has the model try again. Some if that was the end.
    pub(super) async fn stop_at_end(
        &self,
        cx: &Context,
        asked: &Asked,
        stop: &Stop,
    ) -> Result<Option<Turned>, Failure> {
        if !self.may_try_again(cx, asked, stop.retry).await? {
            return Ok(Some(self.stopped(cx, stop)));
        }
        self.enter(vec![feedback(cx, told_of(stop))], cx.now());
        self.open_message(message_id(cx));
        Ok(None)
    }

    /// A call of the model has come to nothing, and hooks have sent signals, or have it asked again (T15.1).
    pub(super) async fn refused(&self, cx: &Context, asked: &Asked, refusal: &Refusal) -> Result<(), Failure> {
        let again = self.may_try_again(cx, asked, refusal.retry).await?;
        self.write(cx.now());
        let closed = self.so_far().message.clone();
        // What is sent closes the assistant message, as a boundary does (T15.2).
        let next = (!refusal.sent.is_empty()).then(|| message_id(cx));
        if let Some(next) = &next {
            self.enter_sent(refusal.sent.clone(), cx.now());
            self.open_message(next.clone());
        }
        if !again {
            return Err(refusal.failure.clone());
        }
        let ended = Ended { reason: "retry", continued: true, next: next.as_deref() };
        let usage = Some(asked.reply.usage);
        self.thread.show(&self.finished(&closed, ended, usage, cx.now(), Chunks::step_finish));
        self.note_step();
        Ok(())
    }

    /// Whether the model may try again because a processor asks for it; then it has been counted.
    async fn may_try_again(&self, cx: &Context, asked: &Asked, wanted: bool) -> Result<bool, Failure> {
        let retries = self.so_far().retries;
        let may = wanted && asked.retries_max.is_some_and(|max| retries < max);
        if !may || self.limit(cx, asked, false).await?.is_some() {
            return Ok(false);
        }
        self.so_far().retries += 1;
        Ok(true)
    }
}

/// What the model is told by a processor that has it try again.
fn told_of(stop: &Stop) -> String {
    format!("Your answer was not accepted: {}. Answer again with that in mind.", stop.reason)
}

/// What the runtime tells the model. It stands in the history, where people are not shown it unless they ask (T6.7).
pub(super) fn feedback(cx: &Context, text: String) -> ThreadSignal {
    NewSignal::new(Category::Reactive, text).accept(message_id(cx), cx.now(), &Attributes::new())
}
