//! Messages and signals of a thread as values: what a caller sends, what is accepted, how it is stored, echoed, shown
//! and read by the model.
//!
//! Pure: nothing here waits, reads a clock or knows a store. Rules cite the contract by number (`T3.11`, `H4.4`).

mod contents;
mod prompt;

pub use contents::{Contents, Part, ProviderOptions};
pub use prompt::{AssistantPart, PromptMessage, ToolCall, ToolResult};
