//! Agents: what answers on a thread. For now the port to language models, and the models behind it.
//!
//! A model is asked from inside a step's body, never from workflow code: what it answers is recorded by the step.
//! Knows no store and no journal. After a crash the step is tried again and the model is asked again.

pub mod model;
