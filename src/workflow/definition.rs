//! The declaration of a workflow: its written name and version, its code, and the schemas of what goes in and out.

use std::sync::Arc;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::context::Context;
use super::{Signal, Update};
use crate::failure::Failure;
use crate::payload::{Payload, Undecodable};

pub(crate) type Code = BoxFuture<'static, Result<Payload, Failure>>;
type Begin = dyn Fn(Context, &Payload) -> Result<Code, Undecodable> + Send + Sync;
type Check = dyn Fn(&Payload) -> Result<(), String> + Send + Sync;

/// A workflow as it is declared: `Workflow::new("refund", refund).version(2).signal(&APPROVAL)`.
///
/// The name is durable: it is written, never derived, and sleeping runs are found by it.
#[derive(Clone)]
pub struct Workflow(Definition);

/// A declared workflow, its types erased.
#[derive(Clone)]
pub struct Definition {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) begin: Arc<Begin>,
    pub(crate) input: Value,
    pub(crate) output: Value,
    pub(crate) signals: Vec<Accepts>,
}

/// A signal or update that a workflow declares to accept.
#[derive(Clone)]
pub(crate) struct Accepts {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) schema: Value,
    pub(crate) check: Option<Arc<Check>>,
}

impl Workflow {
    /// Declares a workflow under its written name; version 1 unless said otherwise.
    ///
    /// The code is a plain `async fn(Context, Input) -> Result<Output, E>`, where `E` is [`Failure`] or any error.
    pub fn new<I, O, E, F, A>(name: &'static str, code: F) -> Self
    where
        I: DeserializeOwned + JsonSchema,
        O: Serialize + JsonSchema,
        E: Into<Failure>,
        F: Fn(Context, I) -> A + Send + Sync + 'static,
        A: Future<Output = Result<O, E>> + Send + 'static,
    {
        let code = Arc::new(code);
        let begin = Arc::new(move |cx: Context, input: &Payload| {
            let run = code(cx.clone(), input.read()?);
            Ok(Box::pin(async move {
                let returned = run.await.map(|output| Payload::of(&output)).map_err(Into::<Failure>::into);
                match returned {
                    Ok(output) => output.map_err(Failure::from),
                    Err(mut failure) => {
                        for problem in cx.unwind().await {
                            failure.message.push_str("; ");
                            failure.message.push_str(&problem);
                        }
                        Err(failure)
                    }
                }
            }) as Code)
        });
        Self(Definition {
            name,
            version: 1,
            begin,
            input: schemars::schema_for!(I).to_value(),
            output: schemars::schema_for!(O).to_value(),
            signals: Vec::new(),
        })
    }

    /// Gives it a version. Runs keep the version that they began on.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.0.version = version;
        self
    }

    /// Declares a signal that it accepts, so that senders are checked before anything is written.
    #[must_use]
    pub fn signal<T: JsonSchema>(mut self, signal: &Signal<T>) -> Self {
        let schema = schemars::schema_for!(T).to_value();
        self.0.signals.push(Accepts { name: signal.name(), kind: "signal", schema, check: None });
        self
    }

    /// Declares an update that it answers, with its validator.
    #[must_use]
    pub fn update<I, O>(mut self, update: &Update<I, O>) -> Self
    where
        I: DeserializeOwned + JsonSchema + 'static,
    {
        let check = update.validator().map(|validator| {
            Arc::new(move |payload: &Payload| {
                let input: I = payload.read().map_err(|e| e.to_string())?;
                validator(&input)
            }) as Arc<Check>
        });
        let schema = schemars::schema_for!(I).to_value();
        self.0.signals.push(Accepts { name: update.name(), kind: "update", schema, check });
        self
    }
}

impl From<Workflow> for Definition {
    fn from(workflow: Workflow) -> Self {
        workflow.0
    }
}

impl Definition {
    /// `name v1`: how a worker says what it can run.
    #[must_use]
    pub fn tag(&self) -> String {
        format!("{} v{}", self.name, self.version)
    }

    /// The schemas of what it accepts, as the store keeps them.
    pub(crate) fn signals_as_json(&self) -> Value {
        self.signals
            .iter()
            .map(|accepts| (accepts.name.to_owned(), json!({ "kind": accepts.kind, "schema": accepts.schema })))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

impl std::fmt::Debug for Workflow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Workflow({})", self.0.tag())
    }
}

impl std::fmt::Debug for Definition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Definition({})", self.tag())
    }
}
