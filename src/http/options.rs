//! How a server serves.

use std::time::Duration;

/// How a server serves. The defaults are those of `aldis serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What the routes of the wire begin with; the stock client says `/api`.
    pub prefix: String,
    /// The most bytes of a request's body; more is refused with 413.
    pub body_bytes_max: usize,
    /// How long a request may take before it is given up with 408. What it asked may have been done all the same.
    pub timeout: Duration,
    /// How long a stream is silent before a comment says that it is alive (H3.4).
    pub heartbeat: Duration,
    /// Whether only those may ask who have a key (`aldis keys`); for others than this machine's own programs it has to be.
    pub keys: bool,
    /// The origins whose pages may talk to it from a browser; `*` for all. None by default.
    pub origins: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: "/api".to_owned(),
            body_bytes_max: 4 * 1024 * 1024,
            timeout: Duration::from_secs(30),
            heartbeat: Duration::from_secs(25),
            keys: false,
            origins: Vec::new(),
        }
    }
}
