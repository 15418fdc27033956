//! How a server serves.

use std::net::IpAddr;
use std::time::Duration;

use super::token::Jwt;

/// How a server serves. The defaults are those of `aldis serve`.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the routes of the wire begin with; the stock client says `/api`.
    pub prefix: String,
    /// The most bytes of a request's body; more is refused with 413.
    pub body_bytes_max: usize,
    /// How long a request may take before it is given up with 408. What it asked may have been done all the same.
    pub timeout: Duration,
    /// How long a client may take for a request's head, from connecting or from the head's first byte; then it is cut off.
    pub head_timeout: Duration,
    /// How long a connection is kept open for a next request.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of an answer, or of a stream; then it is cut off.
    pub stall_timeout: Duration,
    /// The most connections at a time; more wait until there is room, and none is kept open for a next request while there is no
    /// more. Nine in ten may be streams, a stream beyond that is refused with 503. Each takes a file descriptor, and up to
    /// some 100 kB while it is busy.
    pub connections_max: usize,
    /// How long a stream is silent before a comment says that it is alive (H3.4).
    pub heartbeat: Duration,
    /// When only those may ask who have a key (`aldis keys`). Where others than this machine's own programs can reach it,
    /// it has to be always.
    pub keys: Keys,
    /// Tokens of others that open it beside keys. Where it is set, everybody has to prove who they are.
    pub jwt: Option<Jwt>,
    /// How many keys and tokens that open nothing are looked at from one address in a minute (of IPv6: from one /64); then
    /// everything that brings one is refused from there with 429 until the minute is over. Addresses are known where
    /// [`Server::serve`](super::Server::serve) accepts, or axum's `ConnectInfo<SocketAddr>` is there.
    pub failures_max: u32,
    /// The proxies in front of it: of what comes from there, `X-Forwarded-For` says from where.
    pub proxies: Vec<IpAddr>,
    /// The origins whose pages may talk to it from a browser; `*` for all. None by default.
    pub origins: Vec<String>,
}

/// When only those may ask who have a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keys {
    /// Always.
    Required,
    /// From the first key on that is made in the store, also while the server runs. Until then everybody may ask; that is
    /// looked up at each request.
    #[default]
    OnceMade,
    /// Never: somebody in front of it sees to that.
    Ignored,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: "/api".to_owned(),
            body_bytes_max: 4 * 1024 * 1024,
            timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(60),
            connections_max: 10_000,
            heartbeat: Duration::from_secs(25),
            keys: Keys::OnceMade,
            jwt: None,
            failures_max: 30,
            proxies: Vec::new(),
            origins: Vec::new(),
        }
    }
}

impl Options {
    /// How many connections may be streams, so that some are left for requests.
    pub(super) fn streams_max(&self) -> i64 {
        let spared = self.connections_max / 10;
        i64::try_from(self.connections_max - spared).unwrap_or(i64::MAX)
    }
}
