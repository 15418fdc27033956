//! What is told when a command cannot be done.

use std::process::ExitCode;

use serde_json::json;

use super::REFUSED;
use crate::{bench, runtime, store};

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The command cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// The runtime refused or failed.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// Nothing could be measured.
    #[error(transparent)]
    Bench(#[from] bench::Error),
    /// A file, the terminal or the system failed.
    #[error("{what}")]
    Io {
        /// What could not be done.
        what: String,
        /// The system's own words.
        #[source]
        source: std::io::Error,
    },
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Runtime(error.into())
    }
}

impl Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Runtime(error) | Self::Bench(bench::Error::Runtime(error)) => error.code(),
            Self::Bench(_) => "bench_failed",
            Self::Io { .. } => "io",
        }
    }

    /// Tells it on standard error, with all its causes.
    pub(super) fn told(&self, json: bool) -> ExitCode {
        let text = with_causes(self);
        if json {
            eprintln!("{}", json!({ "error": text, "code": self.code() }));
        } else {
            eprintln!("aldis: {text}");
        }
        ExitCode::from(REFUSED)
    }
}

/// An error's text and those of its causes, each after a colon, none twice.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
