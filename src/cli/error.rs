//! What is told when a command cannot be done.

use std::io;
use std::process::ExitCode;

use serde_json::json;

use super::REFUSED;
use crate::intake::{CatalogueError, StartError};
use crate::store::StartRefused;
use crate::{bench, client, config, runtime, store};

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The command cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// The runtime refused or failed.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The settings do not hold.
    #[error(transparent)]
    Config(#[from] config::Problems),
    /// A server refused, or could not be asked.
    #[error(transparent)]
    Server(#[from] client::Error),
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
        source: io::Error,
    },
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Runtime(error.into())
    }
}

impl From<store::OpenError> for Error {
    fn from(error: store::OpenError) -> Self {
        Self::Runtime(error.into())
    }
}

impl Error {
    /// Says what could not be done with a file, the terminal or the system.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    fn code(&self) -> &str {
        match self {
            Self::Usage(_) => "usage",
            Self::Config(_) => "config_invalid",
            Self::Server(error) => error.code(),
            Self::Runtime(error) | Self::Bench(bench::Error::Runtime(error)) => error.code(),
            Self::Bench(_) => "bench_failed",
            Self::Io { .. } => "io",
        }
    }

    /// Tells it on standard error, with all its causes and what may help.
    pub(super) fn told(&self, json: bool) -> ExitCode {
        if matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe) {
            // Whoever reads has had enough, as `head` has.
            return ExitCode::SUCCESS;
        }
        let mut text = with_causes(self);
        if let Some(hint) = self.hint() {
            text.push_str("; ");
            text.push_str(&hint);
        }
        if json {
            eprintln!("{}", json!({ "error": text, "code": self.code() }));
        } else {
            eprintln!("aldis: {text}");
        }
        ExitCode::from(REFUSED)
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Runtime(runtime::Error::Start(StartError::Catalogue(CatalogueError::Unknown(unknown)))) => {
                let names = unknown.registered.iter().map(|tag| tag.rsplit_once(" v").map_or(tag.as_str(), |(n, _)| n));
                nearest(&unknown.asked, names).map(|name| format!("did you mean {name:?}?"))
            }
            Self::Runtime(runtime::Error::Start(StartError::Refused(StartRefused::Open { .. }))) => {
                Some("`aldis wait` waits for that run".into())
            }
            Self::Runtime(runtime::Error::Open(store::OpenError::Unreachable { location, .. }))
                if location.starts_with("sqlite:") =>
            {
                Some("`aldis run`, `aldis work` and `aldis migrate` make a store where there is none".into())
            }
            _ => None,
        }
    }
}

/// The name that was probably meant.
pub(super) fn nearest<'a>(asked: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = names.map(|name| (strsim::jaro_winkler(asked, name), name)).filter(|(likeness, _)| *likeness > 0.75);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_the_name_that_was_meant() {
        assert_eq!(nearest("refnud", ["refund", "turn"].into_iter()), Some("refund"));
    }

    #[test]
    fn a_name_like_no_other_finds_none() {
        assert_eq!(nearest("xyz", ["refund", "turn"].into_iter()), None);
    }
}
