//! What the port to language models promises, seen from outside: no real provider is asked, and no clock is waited for.

#[cfg(feature = "llm")]
#[path = "models/anthropic.rs"]
mod anthropic;
#[cfg(feature = "llm")]
#[path = "models/failures.rs"]
mod failures;
#[path = "models/limits.rs"]
mod limits;
#[path = "models/offline.rs"]
mod offline;
#[cfg(feature = "llm")]
#[path = "models/openai.rs"]
mod openai;
#[cfg(feature = "llm")]
#[path = "models/others.rs"]
mod others;
#[path = "models/recorded.rs"]
mod recorded;
#[path = "models/registry.rs"]
mod registry;
#[cfg(feature = "llm")]
#[path = "models/server.rs"]
#[allow(dead_code, reason = "the tests of threads use the rest")]
mod server;
#[path = "models/support.rs"]
mod support;
