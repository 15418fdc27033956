//! How many connections a server holds, and how long it waits for them.

use clap::Args;

use crate::config::{Serve, Span};
use crate::http::Options;

/// The file descriptors that are left for everything but connections.
const SPARED: usize = 256;

#[derive(Debug, Args)]
pub(super) struct Connections {
    /// The most connections at a time; more wait for room [default: 10000]
    #[arg(long, env = "ALDIS_CONNECTIONS_MAX", value_name = "N")]
    connections_max: Option<usize>,
    /// How long a client may take for a request's head [default: 10s]
    #[arg(long, env = "ALDIS_HEAD_TIMEOUT", value_name = "SPAN")]
    head_timeout: Option<Span>,
    /// How long a connection is kept open for a next request [default: 75s]
    #[arg(long, env = "ALDIS_IDLE_TIMEOUT", value_name = "SPAN")]
    idle_timeout: Option<Span>,
    /// How long a client may take nothing of an answer [default: 60s]
    #[arg(long, env = "ALDIS_STALL_TIMEOUT", value_name = "SPAN")]
    stall_timeout: Option<Span>,
}

impl Connections {
    /// What was asked, here or by the settings, as far as this process may open files.
    pub(super) fn options(&self, settings: &Serve) -> Options {
        Options {
            connections_max: held(self.connections_max.unwrap_or(settings.connections_max)),
            head_timeout: self.head_timeout.unwrap_or(settings.head_timeout).0,
            idle_timeout: self.idle_timeout.unwrap_or(settings.idle_timeout).0,
            stall_timeout: self.stall_timeout.unwrap_or(settings.stall_timeout).0,
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
