//! The chunk by which a subscriber learns that a signal has entered the transcript (T6.6), and the answer its sender gets.

use serde_json::{Value, json};

use crate::message::name::Category;
use crate::message::signal::ThreadSignal;

impl ThreadSignal {
    /// The echo on the stream of this run.
    #[must_use]
    pub fn echo(&self, run_id: &str) -> Value {
        let kind = match self.category {
            Category::User => "data-user-message",
            Category::State | Category::Notification | Category::Reactive => "data-signal",
        };
        // The chunk's own flag says that it is not a stored part; the signal's stands in its data (T3.23).
        json!({ "type": kind, "runId": run_id, "transient": true, "data": self })
    }

    /// The signal as its sender's answer holds it (H6.2).
    #[must_use]
    pub fn answer(&self) -> Value {
        let mut answer = json!(self);
        if let Value::Object(answer) = &mut answer {
            answer.insert("__isCreatedSignal".to_owned(), Value::Bool(true));
        }
        answer
    }
}

/// Which echoes a subscriber in this process does not want (T6.9).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HideSignals {
    /// It wants them all.
    #[default]
    None,
    /// It wants none.
    All,
    /// It wants those of other categories.
    Of(Vec<Category>),
}

impl HideSignals {
    /// Whether the echo of such a signal is left out.
    #[must_use]
    pub fn hides(&self, category: Category) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Of(categories) => categories.contains(&category),
        }
    }
}
