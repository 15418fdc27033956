//! Tools: what a model may call, and how it is run, held back or left to somebody outside.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::host::LateHost;
use super::model::ToolSpec;
use crate::failure::{Failure, Fault};
use crate::workflow::StepContext;

/// Something that a model may call.
///
/// A call runs inside a step: its result is recorded once, and a crash before that makes it run again. Hand
/// [`StepContext::idempotency_key`] to what it calls.
pub trait Tool: Send + Sync {
    /// What the model is told of it. The name has 1 to 64 letters, digits, underscores and hyphens.
    fn spec(&self) -> ToolSpec;

    /// Whether a person must agree before it runs with these arguments (T13.1).
    fn needs_approval(&self, arguments: &Value) -> bool {
        let _ = arguments;
        false
    }

    /// How long an answer from outside is waited for; then the call counts as declined (T13.12). For ever if none.
    fn expires_after(&self) -> Option<Duration> {
        None
    }

    /// How often a call is tried at the most, if it fails in a way that another attempt may mend. After the last attempt
    /// the model is told.
    fn attempts(&self) -> u32 {
        1
    }

    /// Runs it.
    fn call(&self, call: ToolCallContext, arguments: Value) -> BoxFuture<'static, Result<ToolOutput, Failure>>;
}

impl std::fmt::Debug for dyn Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tool({})", self.spec().name)
    }
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolOutput {
    /// A value for the model.
    Done(Value),
    /// It waits for somebody outside, who is shown this; it is called again with the answer (T13.7).
    Suspend(Value),
}

/// What a call knows about itself.
#[derive(Debug, Clone)]
pub struct ToolCallContext {
    /// The step that it runs in: its idempotency key, its attempt, whether it is to stop.
    pub step: StepContext,
    /// The call's id.
    pub call: String,
    /// The thread that is answered.
    pub thread: String,
    /// Its owner.
    pub resource: String,
    /// The agent that answers.
    pub agent: String,
    /// What somebody outside answered, if the call had suspended itself.
    pub resumed_with: Option<Value>,
    /// Where the runtime is found.
    pub(crate) host: LateHost,
}

type Run = dyn Fn(ToolCallContext, Value) -> BoxFuture<'static, Result<ToolOutput, Failure>> + Send + Sync;
type NeedsApproval = dyn Fn(&Value) -> bool + Send + Sync;

/// A tool made of a function: its arguments are a type, whose JSON Schema the model is given.
#[derive(Clone)]
pub struct Function {
    spec: ToolSpec,
    approval: Arc<NeedsApproval>,
    expires_after: Option<Duration>,
    run: Arc<Run>,
}

impl Function {
    /// A tool under its name, with a description for the model.
    pub fn new<I, O, E, F, A>(name: impl Into<String>, description: impl Into<String>, run: F) -> Self
    where
        I: DeserializeOwned + JsonSchema,
        O: Serialize,
        E: Fault,
        F: Fn(ToolCallContext, I) -> A + Send + Sync + 'static,
        A: Future<Output = Result<O, E>> + Send + 'static,
    {
        let run = Arc::new(run);
        Self::raw(name, description, schemars::schema_for!(I).to_value(), move |call, arguments| {
            let input = serde_json::from_value::<I>(arguments);
            let begun = input.map(|input| run(call, input));
            async move {
                let begun = begun.map_err(|e| {
                    Failure::new(format!("the arguments do not fit: {e}")).code("tool_arguments").not_retryable()
                })?;
                let output = begun.await.map_err(Fault::into_failure)?;
                let output = serde_json::to_value(output).map_err(|e| Failure::new(e.to_string()).not_retryable())?;
                Ok(ToolOutput::Done(output))
            }
            .boxed()
        })
    }

    /// A tool whose arguments are taken as they are; it may suspend itself.
    pub fn raw<F>(name: impl Into<String>, description: impl Into<String>, input_schema: Value, run: F) -> Self
    where
        F: Fn(ToolCallContext, Value) -> BoxFuture<'static, Result<ToolOutput, Failure>> + Send + Sync + 'static,
    {
        Self {
            spec: ToolSpec { name: name.into(), description: description.into(), input_schema },
            approval: Arc::new(|_| false),
            expires_after: None,
            run: Arc::new(run),
        }
    }

    /// A person must agree to every call.
    #[must_use]
    pub fn with_approval(self) -> Self {
        self.with_approval_if(|_| true)
    }

    /// A person must agree to calls with such arguments.
    #[must_use]
    pub fn with_approval_if(mut self, needed: impl Fn(&Value) -> bool + Send + Sync + 'static) -> Self {
        self.approval = Arc::new(needed);
        self
    }

    /// An answer from outside is waited for so long; then the call counts as declined.
    #[must_use]
    pub fn expiring_after(mut self, span: Duration) -> Self {
        self.expires_after = Some(span);
        self
    }
}

impl Tool for Function {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    fn needs_approval(&self, arguments: &Value) -> bool {
        (self.approval)(arguments)
    }

    fn expires_after(&self) -> Option<Duration> {
        self.expires_after
    }

    fn call(&self, call: ToolCallContext, arguments: Value) -> BoxFuture<'static, Result<ToolOutput, Failure>> {
        (self.run)(call, arguments)
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Function({})", self.spec.name)
    }
}
