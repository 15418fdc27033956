//! How many connections a server holds, and how long it waits for them.

use clap::Args;

use super::run::Span;
use crate::http::Options;

/// The file descriptors that are left for everything but connections.
const SPARED: usize = 256;

#[derive(Debug, Args)]
pub(super) struct Connections {
    /// The most connections at a time; more wait for room
    #[arg(long, env = "ALDIS_CONNECTIONS_MAX", default_value_t = Options::default().connections_max, value_name = "N")]
    connections_max: usize,
    /// How long a client may take for a request's head
    #[arg(long, env = "ALDIS_HEAD_TIMEOUT", default_value = "10s", value_name = "SPAN")]
    head_timeout: Span,
    /// How long a connection is kept open for a next request
    #[arg(long, env = "ALDIS_IDLE_TIMEOUT", default_value = "75s", value_name = "SPAN")]
    idle_timeout: Span,
    /// How long a client may take nothing of an answer
    #[arg(long, env = "ALDIS_STALL_TIMEOUT", default_value = "60s", value_name = "SPAN")]
    stall_timeout: Span,
}

impl Connections {
    /// What was asked, as far as this process may open files.
    pub(super) fn options(&self) -> Options {
        Options {
            connections_max: held(self.connections_max),
            head_timeout: self.head_timeout.0,
            idle_timeout: self.idle_timeout.0,
            stall_timeout: self.stall_timeout.0,
            ..Options::default()
        }
    }
}

/// How many connections can be held of those that were asked for. Has the system let this process open as many files as it
/// may at the most.
fn held(asked: usize) -> usize {
    let wanted = u64::try_from(asked.saturating_add(SPARED)).unwrap_or(u64::MAX);
    let Ok(files) = rlimit::increase_nofile_limit(wanted) else { return asked };
    if files >= wanted {
        return asked;
    }
    let held = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(SPARED).max(1);
    tracing::warn!(asked, held, files, "fewer connections than asked: raise this process's limit of open files");
    held
}
