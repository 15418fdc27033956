//! What the model is told when it is to answer again.

use aldis::agent::{Asked, Formed};
use aldis::message::{Attributes, Category, NewSignal, ThreadSignal};
use aldis::{Context, Failure};

use super::Turn;
use super::limits::Limit;

/// What follows from the form of a step's answer.
pub(super) enum Form {
    /// Nothing.
    AsItIs,
    /// The model is told this, and asked again.
    Again(ThreadSignal),
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
                    return Form::Again(feedback(
                        cx,
                        format!(
                            "Your answer does not fit the JSON Schema that was asked for: {problem}. \
                         Answer again, with nothing but JSON that fits it."
                        ),
                    ));
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

/// What the runtime tells the model. It stands in the history, where people are not shown it unless they ask (T6.7).
pub(super) fn feedback(cx: &Context, text: String) -> ThreadSignal {
    NewSignal::new(Category::Reactive, text).accept(cx.uuid().to_string(), cx.now(), &Attributes::new())
}
