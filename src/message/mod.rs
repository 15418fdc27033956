//! Messages and signals of a thread as values: what a caller sends, what is accepted, how it is stored, echoed, shown
//! and read by the model.
//!
//! Pure: nothing here waits, reads a clock or knows a store. Rules cite the contract by number (`T3.11`, `H4.4`).
//!
//! A [`NewSignal`] is checked and accepted, becomes a [`ThreadSignal`], and from then on has three forms for three
//! readers: its row, its echo, and what [`ThreadSignal::render`] gives the model.

mod attributes;
mod check;
mod chunk;
mod contents;
mod echo;
mod generated;
mod given;
mod iso;
mod lane;
mod name;
mod old;
mod prompt;
mod render;
mod reply;
mod row;
mod signal;
mod state;
mod view;

pub use attributes::{Attributes, NotScalar, Scalar};
pub use check::{Limits, Refused};
pub use chunk::{Chunks, Finished, Piece, THREAD_DELETED, Tokens, Tripwire, approval_schema};
pub use contents::{Contents, Part, ProviderOptions};
pub use echo::HideSignals;
pub use generated::{Generated, GeneratedStep};
pub use given::{Given, GivenMessage, New, Unfit};
pub use lane::{Lane, LaneCopy};
pub use name::{Category, InvalidName, UnknownCategory, XmlName};
pub use prompt::{AssistantPart, PromptMessage, ToolCall, ToolResult};
pub use render::{RENDERING, Warning};
pub use reply::{ABORTED, Approval, CallState, DENIED, Invocation, Reply, ReplyPart};
pub use row::{Body, Message, Role, Said, Unreadable};
pub use signal::{NewSignal, ThreadSignal};
pub use state::{Mode, NewState, StateMark};
pub use view::Shown;
