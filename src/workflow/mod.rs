//! The author's desk: how a workflow is declared, and what its code may ask for while it runs.
//!
//! A workflow is a plain `async fn(Context, Input) -> Result<Output, E>` under a written name and version. It asks for
//! durable operations through its [`Context`]; each is an [`Op`] whose identity is taken where the call is written.
//! What it asks for gathers on the desk until the engine seals it into one commit.
//!
//! Knows no database, no task and no thread. Reads no clock: time is that of the journal line being processed.

mod combine;
mod context;
mod conversation;
mod declared;
mod definition;
mod desk;
mod op;
mod registry;
mod step;

pub use combine::{Crew, Durable, ForEach, Join, JoinAll, Next, Race, Raced, Scope};
pub use context::{Context, Request, UpdateOp};
pub use conversation::ThreadDesk;
pub use declared::{Published, Signal, Stream, Update, Validator};
pub use definition::{Definition, Workflow};
pub(crate) use desk::{Answer, Desk, Effects, ThreadEffects, Work};
pub use op::{Cancelled, Op};
pub(crate) use registry::{Checks, Registered};
pub use registry::{InvalidPayload, Registry, RegistryError, UnknownWorkflow};
pub(crate) use step::Body;
pub use step::{CheckpointError, Recent, Recorder, Step, StepContext, StepError, StepPolicy};
