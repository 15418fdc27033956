//! Why a request was not done.

use std::fmt;

use reqwest::Response;
use serde::Deserialize;

/// Why a request was not done, by what its sender does next. No key is in its text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server has refused it. Nothing was accepted.
    #[error("{}", told(.error, .issues, .remedy.as_deref()))]
    Refused {
        /// The status of the answer.
        status: u16,
        /// The server's code for it; never changes.
        code: String,
        /// What is wrong, for people.
        error: String,
        /// What may help, where the sentence does not say.
        remedy: Option<String>,
        /// Which fields are wrong, if it is a matter of fields.
        issues: Vec<Issue>,
    },
    /// The server does not answer. What was asked may have been done: what has an id may be sent again.
    #[error("the server at {server} cannot be reached")]
    Unreachable {
        /// Its address.
        server: String,
        /// What the connection says.
        #[source]
        source: reqwest::Error,
    },
    /// The answer is none of a server of Aldis.
    #[error(
        "the server's answer cannot be understood: {problem}; is it a server of Aldis, and of a version that fits?"
    )]
    Misunderstood {
        /// What is wrong with it.
        problem: String,
    },
    /// The client cannot be set up like that.
    #[error("{problem}")]
    Unusable {
        /// What is wrong.
        problem: String,
    },
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Issue {
    /// Its dotted path.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// The body of a refusal.
#[derive(Deserialize)]
struct Problem {
    error: String,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    remedy: Option<String>,
    #[serde(default)]
    issues: Vec<Issue>,
}

impl Error {
    /// The server's code for a refusal; for the others one of our own.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            Self::Unreachable { .. } => "server_unreachable",
            Self::Misunderstood { .. } => "server_misunderstood",
            Self::Unusable { .. } => "usage",
        }
    }

    /// Whether another try, a little later, may have another outcome.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Unreachable { .. } => true,
            Self::Misunderstood { .. } | Self::Unusable { .. } => false,
        }
    }

    pub(super) async fn refused(response: Response) -> Self {
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        match serde_json::from_str::<Problem>(&text) {
            Ok(Problem { error, code, remedy, issues }) => {
                let code = code.unwrap_or_else(|| "refused".to_owned());
                Self::Refused { status: status.as_u16(), code, error, remedy, issues }
            }
            // Something between here and the server has answered.
            Err(_) => Self::Refused {
                status: status.as_u16(),
                code: "refused".to_owned(),
                error: format!("the server has answered {status}"),
                remedy: None,
                issues: Vec::new(),
            },
        }
    }
}

fn told(error: &str, issues: &[Issue], remedy: Option<&str>) -> impl fmt::Display {
    let issues = issues.iter().map(|issue| format!("; {}: {}", issue.field, issue.message));
    let remedy = remedy.map(|remedy| format!("; {remedy}"));
    std::iter::once(error.to_owned()).chain(issues).chain(remedy).collect::<String>()
}
