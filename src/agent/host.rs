//! What a tool may ask of the runtime that runs it: another agent's answer, a workflow's outcome.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::SetOnce;

use super::Agent;
use super::model::ToolSpec;
use super::tool::{Tool, ToolCallContext, ToolOutput};
use crate::failure::Failure;
use crate::workflow::{Definition, StepContext};

/// How many agents may ask each other in a row.
pub const DELEGATIONS_MAX: usize = 8;

/// How often a call of such a tool is tried at the most: the store may be out of reach for a moment.
const ATTEMPTS: u32 = 4;

/// The runtime, as tools see it. It is bound once the runtime has started.
pub(crate) trait Host: Send + Sync {
    /// Sends a message to a thread under the step's key, and waits for the answer to it.
    fn delegate(&self, cx: StepContext, asked: Delegated) -> BoxFuture<'static, Result<Value, Failure>>;

    /// Starts a run of a workflow under the step's key, and waits for its value.
    fn run(&self, cx: StepContext, workflow: &'static str, input: Value) -> BoxFuture<'static, Result<Value, Failure>>;
}

/// What another agent is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delegated {
    /// The agent.
    pub(crate) agent: String,
    /// The thread on which it answers; nobody else talks there.
    pub(crate) thread: String,
    /// The thread's owner.
    pub(crate) resource: String,
    /// The message.
    pub(crate) text: String,
}

/// Where the runtime will be found. Clones are the same place.
#[derive(Clone, Default)]
pub(crate) struct LateHost(Arc<SetOnce<Box<dyn Host>>>);

impl LateHost {
    /// Says which runtime it is; the first one stays.
    pub(crate) fn bind(&self, host: impl Host + 'static) {
        // A second one would be of the same agents, and those have one already.
        drop(self.0.set(Box::new(host)));
    }

    /// The runtime; a run that was taken over begins a moment before it is bound.
    async fn get(&self) -> &dyn Host {
        &**self.0.wait().await
    }
}

impl fmt::Debug for LateHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.initialized() { "LateHost(bound)" } else { "LateHost" })
    }
}

impl Agent {
    /// Gives it another agent as a tool, as `ask_name`: it is sent a message, on a thread of its own for each call, and its
    /// answer is the result. After a crash the call finds the same message and waits on.
    ///
    /// The description tells the model what the agent is for.
    #[must_use]
    pub fn delegate(self, agent: impl Into<String>, description: impl Into<String>) -> Self {
        let agent = agent.into();
        let spec = ToolSpec {
            name: usable(&format!("ask_{agent}")),
            description: description.into(),
            input_schema: json!({
                "type": "object",
                "properties": { "message": { "type": "string", "description": "All that the other has to know." } },
                "required": ["message"],
            }),
        };
        self.tool(Delegate { spec, agent })
    }

    /// Gives it a workflow as a tool, under the workflow's name: a call starts a run, and the run's value is the result.
    /// After a crash the call finds the same run and waits on. The workflow is registered by itself, here or elsewhere.
    #[must_use]
    pub fn workflow_tool(self, workflow: impl Into<Definition>, description: impl Into<String>) -> Self {
        let definition: Definition = workflow.into();
        let is_object = definition.input["type"] == "object";
        let input_schema = match is_object {
            true => definition.input.clone(),
            // Models call with an object.
            false => json!({
                "type": "object",
                "properties": { "input": definition.input },
                "required": ["input"],
            }),
        };
        let spec = ToolSpec { name: usable(definition.name), description: description.into(), input_schema };
        self.tool(RunWorkflow { spec, workflow: definition.name, is_object })
    }
}

/// A name as models take it.
fn usable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).take(64).collect()
}

struct Delegate {
    spec: ToolSpec,
    agent: String,
}

impl Tool for Delegate {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    fn attempts(&self) -> u32 {
        ATTEMPTS
    }

    fn call(&self, call: ToolCallContext, arguments: Value) -> BoxFuture<'static, Result<ToolOutput, Failure>> {
        let agent = self.agent.clone();
        Box::pin(async move {
            let text = arguments["message"].as_str().unwrap_or_default().to_owned();
            let thread = thread_of(&call)?;
            let asked = Delegated { agent, thread, resource: call.resource, text };
            Ok(ToolOutput::Done(call.host.get().await.delegate(call.step, asked).await?))
        })
    }
}

/// The thread on which another agent answers a call. It says how many have asked each other, and which call it is for:
/// the step's key is the same for every attempt.
fn thread_of(call: &ToolCallContext) -> Result<String, Failure> {
    const MARK: &str = "~ask";
    let (root, depth) = match call.thread.split_once(MARK) {
        Some((root, rest)) => {
            let depth = rest.split('~').next().and_then(|depth| depth.parse::<usize>().ok()).unwrap_or_default();
            (root, depth + 1)
        }
        None => (call.thread.as_str(), 1),
    };
    if depth > DELEGATIONS_MAX {
        let what = format!("{DELEGATIONS_MAX} agents have asked each other already; answer without asking another");
        return Err(Failure::new(what).code("delegation_too_deep").not_retryable());
    }
    let key = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, call.step.idempotency_key().as_bytes());
    let room = crate::id::ID_BYTES_MAX - 60;
    let root: String = root.char_indices().take_while(|(at, c)| at + c.len_utf8() <= room).map(|(_, c)| c).collect();
    Ok(format!("{root}{MARK}{depth}~{}", key.simple()))
}

struct RunWorkflow {
    spec: ToolSpec,
    workflow: &'static str,
    is_object: bool,
}

impl Tool for RunWorkflow {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    fn attempts(&self) -> u32 {
        ATTEMPTS
    }

    fn call(&self, call: ToolCallContext, mut arguments: Value) -> BoxFuture<'static, Result<ToolOutput, Failure>> {
        let (workflow, is_object) = (self.workflow, self.is_object);
        Box::pin(async move {
            let input = if is_object { arguments } else { arguments["input"].take() };
            Ok(ToolOutput::Done(call.host.get().await.run(call.step, workflow, input).await?))
        })
    }
}

/// Waits for something that other runs do; none if the step is to stop first. The body rests meanwhile, so that time that
/// is moved by hand moves on.
pub(crate) async fn while_resting<T>(cx: &StepContext, waiting: impl Future<Output = T>) -> Option<T> {
    const LOOK: Duration = Duration::from_secs(1);
    const LOOK_MAX: Duration = Duration::from_secs(3_600);
    tokio::pin!(waiting);
    let mut look = LOOK;
    loop {
        tokio::select! {
            biased;
            done = &mut waiting => return Some(done),
            () = cx.cancelled().cancelled() => return None,
            () = cx.sleep(look) => look = (look * 2).min(LOOK_MAX),
        }
    }
}
