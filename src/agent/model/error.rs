//! Why a model gave no reply, shaped by what to do next.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Fault, Retry};
use crate::payload::Payload;

/// Why a model gave no reply. Journaled as it is, so it is stable; no key and no header is ever in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum ModelError {
    /// Too many requests, here or at the provider. Try again, not before `retry_after_ms` if it is there.
    #[error("model {model} is asked too often: {cause}")]
    RateLimited {
        /// The provider and its model.
        model: String,
        /// How long to leave it alone, as the provider asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// In whose words.
        cause: String,
    },
    /// The provider is overloaded or broken. Try again.
    #[error("the provider of model {model} is out of order ({}): {cause}", status_word(.status))]
    Unavailable {
        /// The provider and its model.
        model: String,
        /// The status of its answer; absent where the failure came in the stream.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// How long to leave it alone, as the provider asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// In the provider's words.
        cause: String,
    },
    /// No connection came about, or it broke before an answer began. Try again.
    #[error("the provider of model {model} could not be reached: {cause}")]
    Unreachable {
        /// The provider and its model.
        model: String,
        /// What the network said.
        cause: String,
    },
    /// A time limit ran out. Try again.
    #[error("model {model} took too long: {limit}")]
    TimedOut {
        /// The provider and its model.
        model: String,
        /// Which limit it was.
        limit: TimeLimit,
    },
    /// The answer began and did not come to its end. Try again.
    #[error("the answer of model {model} was cut off: {cause}")]
    Cut {
        /// The provider and its model.
        model: String,
        /// How it ended.
        cause: String,
    },
    /// The provider does not accept the key, or not for this model. A person must see to it.
    #[error("the provider of model {model} refused the key (status {status}): {cause}")]
    Unauthorized {
        /// The provider and its model.
        model: String,
        /// 401 or 403.
        status: u16,
        /// In the provider's words.
        cause: String,
    },
    /// The provider does not accept the request, or knows no such model. The same request is of no use again.
    #[error("the provider of model {model} refused the request (status {status}): {cause}")]
    Refused {
        /// The provider and its model.
        model: String,
        /// Such as 400 or 404.
        status: u16,
        /// In the provider's words.
        cause: String,
    },
    /// The request cannot be put to this provider, or the provider is set up wrongly.
    #[error("model {model} cannot be asked this: {cause}")]
    Unfit {
        /// The provider and its model.
        model: String,
        /// What is wrong.
        cause: String,
    },
    /// No model has this name here.
    #[error("no model named {name:?}{}; known: {}", nearest_word(.nearest), .known.join(", "))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The known name that is most like it, if one is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nearest: Option<String>,
        /// All that are known.
        known: Vec<String>,
    },
    /// A recording holds no reply to this request, or could not be kept.
    #[error("{cause}")]
    Unrecorded {
        /// What is missing and how to get it.
        cause: String,
    },
}

/// Which time limit ran out, and how long it was in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum TimeLimit {
    /// Until the answer begins.
    #[error("no answer began within {0} ms")]
    Headers(u64),
    /// Between two pieces of the answer.
    #[error("nothing came for {0} ms in the middle of the answer")]
    Read(u64),
    /// The whole call.
    #[error("the answer was not complete after {0} ms")]
    Total(u64),
}

fn status_word(status: &Option<u16>) -> String {
    status.map_or_else(|| "while it answered".to_owned(), |status| format!("status {status}"))
}

fn nearest_word(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |name| format!(", did you mean {name:?}?"))
}

impl ModelError {
    /// A stable word that code may branch on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "model_rate_limited",
            Self::Unavailable { .. } => "model_unavailable",
            Self::Unreachable { .. } => "model_unreachable",
            Self::TimedOut { .. } => "model_timed_out",
            Self::Cut { .. } => "model_answer_cut",
            Self::Unauthorized { .. } => "model_unauthorized",
            Self::Refused { .. } => "model_request_refused",
            Self::Unfit { .. } => "model_request_unfit",
            Self::UnknownModel { .. } => "model_unknown",
            Self::Unrecorded { .. } => "model_unrecorded",
        }
    }

    /// How long the provider asked to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after_ms, .. } | Self::Unavailable { retry_after_ms, .. } => {
                retry_after_ms.map(Duration::from_millis)
            }
            _ => None,
        }
    }
}

impl Fault for ModelError {
    fn retry(&self) -> Retry {
        match self {
            Self::RateLimited { retry_after_ms, .. } | Self::Unavailable { retry_after_ms, .. } => {
                retry_after_ms.map_or(Retry::ByPolicy, Retry::AfterMillis)
            }
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Cut { .. } => Retry::ByPolicy,
            Self::Unauthorized { .. }
            | Self::Refused { .. }
            | Self::Unfit { .. }
            | Self::UnknownModel { .. }
            | Self::Unrecorded { .. } => Retry::Never,
        }
    }

    fn into_failure(self) -> Failure {
        let (code, retry) = (self.code(), self.retry());
        let details = Payload::of(&self).ok();
        Failure { message: self.to_string(), code: Some(code.to_owned()), details, retry }
    }
}
