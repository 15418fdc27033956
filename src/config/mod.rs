//! `aldis.toml`: settings, models, MCP servers and agents from a file and from `ALDIS_…` variables.
//!
//! [`Config::read`] reads and checks a file; [`Config::people`] makes the agents and models that it declares. Every key is a
//! field of [`Settings`], and the table in `docs/configuration.md` is made from those fields. A key that is not known is an
//! error, with its place in the file and the nearest key that is. All that is wrong is told at once.
//!
//! Secrets are named, never written: `{ env = "NAME" }` or `{ file = "PATH" }`. No text that comes from here holds one.
//! Decides nothing about runs, opens no store, and starts nothing.

mod build;
mod check;
mod keys;
mod place;
mod problem;
mod read;
mod secret;
mod settings;
mod span;

pub use build::{Base, People};
pub use check::Line;
pub use keys::{Key, keys, table};
pub use place::Place;
pub use problem::{Problem, Problems};
pub use read::{Config, DEFAULT_FILE, Environment};
pub use secret::{Plain, Secret};
pub use settings::{
    AgentSettings, Answering, InstructionFiles, LimitSettings, McpSettings, OutputSettings, Pace, ProviderKindName,
    ProviderSettings, Retention, Serve, Settings, Tokens, TurnBudget, Waits, Work, prefix,
};
pub use span::Span;
