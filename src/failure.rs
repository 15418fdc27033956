//! What went wrong in a body, as data: it is journaled, so it is stable, versioned and free of Rust types.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::payload::{Payload, Undecodable};

/// Why a step or a run failed. Made from any error with `?`; its causes are kept in the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened, causes included, each after a colon.
    pub message: String,
    /// A stable word that code may branch on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The typed error that this came from, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Payload>,
    /// Whether the step is to be tried again.
    #[serde(default, skip_serializing_if = "Retry::is_by_policy")]
    pub retry: Retry,
}

/// What an error says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// As the step's policy says.
    #[default]
    ByPolicy,
    /// Not at all, whatever the policy says.
    Never,
    /// Not before this many milliseconds, if the policy allows another attempt.
    AfterMillis(u64),
}

impl Retry {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
    fn is_by_policy(&self) -> bool {
        *self == Self::ByPolicy
    }
}

impl Failure {
    /// A failure with a message.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: None, details: None, retry: Retry::ByPolicy }
    }

    /// Gives it a stable word that code may branch on.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Says that trying again is of no use.
    #[must_use]
    pub fn not_retryable(mut self) -> Self {
        self.retry = Retry::Never;
        self
    }

    /// Says that the next attempt, if the policy allows one, must not begin before `span` has passed.
    #[must_use]
    pub fn retry_after(mut self, span: Duration) -> Self {
        self.retry = Retry::AfterMillis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Self::new(message)
    }
}

/// An error type that a step may fail with and still have in hand, typed, after a replay.
///
/// [`Failure`] is one. An own type needs `Serialize`, `Deserialize` and `Display`; [`Fault::retry`] lets it decide for
/// each of its values whether the step is tried again.
pub trait Fault: Serialize + DeserializeOwned + fmt::Display + fmt::Debug + Send + 'static {
    /// Whether the step is to be tried again after this error.
    fn retry(&self) -> Retry {
        Retry::ByPolicy
    }

    /// The error as the journal keeps it.
    fn into_failure(self) -> Failure {
        let details = Payload::of(&self).ok();
        Failure { message: self.to_string(), code: None, details, retry: self.retry() }
    }

    /// The error as the journal kept it.
    ///
    /// # Errors
    /// [`Undecodable`] if the journal's form does not fit the type any more.
    fn from_failure(failure: Failure) -> Result<Self, Undecodable> {
        failure.details.unwrap_or_else(Payload::null).read()
    }
}

impl Fault for Failure {
    fn retry(&self) -> Retry {
        self.retry
    }

    fn into_failure(self) -> Failure {
        self
    }

    fn from_failure(failure: Failure) -> Result<Self, Undecodable> {
        Ok(failure)
    }
}

/// How an attempt at a step ended, when it did not end well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptFailure {
    /// The body returned an error.
    Failed(Failure),
    /// The body panicked with this message.
    Panicked(String),
    /// The body ran out of time.
    TimedOut(Timeout),
}

/// Which of a step's limits ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timeout {
    /// The time for one attempt, in milliseconds.
    Attempt(u64),
    /// The time without a sign of progress, in milliseconds.
    Idle(u64),
    /// The time for all attempts together, in milliseconds.
    Total(u64),
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attempt(ms) => write!(f, "an attempt took more than {ms} ms"),
            Self::Idle(ms) => write!(f, "no sign of progress for {ms} ms"),
            Self::Total(ms) => write!(f, "all attempts together took more than {ms} ms"),
        }
    }
}

impl fmt::Display for AttemptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::Panicked(message) => write!(f, "the body panicked: {message}"),
            Self::TimedOut(timeout) => write!(f, "timed out: {timeout}"),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The workflow returned this.
    Completed(Payload),
    /// The workflow returned an error.
    Failed(Failure),
    /// The run was cancelled and its workflow wound up.
    Cancelled {
        /// Why, in the words of who asked.
        reason: String,
        /// What the workflow returned, compensations that failed included.
        failure: Failure,
    },
    /// The run was stopped without cleaning up.
    Terminated {
        /// Why, in the words of who asked.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the gateway did not answer")]
    struct Gateway(#[source] std::io::Error);

    #[test]
    fn a_failure_keeps_the_causes_of_its_error() {
        let failure = Failure::from(Gateway(std::io::Error::other("connection reset")));
        insta::assert_snapshot!(failure, @"the gateway did not answer: connection reset");
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Declined {
        code: u16,
    }

    impl fmt::Display for Declined {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "the card was declined with code {}", self.code)
        }
    }

    impl Fault for Declined {
        fn retry(&self) -> Retry {
            Retry::Never
        }
    }

    #[test]
    fn a_typed_error_survives_the_journal() {
        let failure = Declined { code: 51 }.into_failure();
        let line = serde_json::to_string(&failure).unwrap();
        insta::assert_snapshot!(line, @r#"{"message":"the card was declined with code 51","details":{"code":51},"retry":"never"}"#);
        let back: Failure = serde_json::from_str(&line).unwrap();
        assert_eq!(Declined::from_failure(back).unwrap(), Declined { code: 51 });
    }
}
