//! The body of a tool step.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Agents;
use super::around::{Around, CallContext};
use super::tool::{ToolCallContext, ToolOutput};
use crate::failure::Failure;
use crate::message::ToolCall;
use crate::workflow::StepContext;

/// What a tool step is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The agent whose tool it is.
    pub agent: String,
    /// The thread that is answered.
    pub thread: String,
    /// Its owner.
    pub resource: String,
    /// The call.
    pub call: ToolCall,
    /// What somebody outside answered, if it had suspended itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_with: Option<Value>,
}

/// What a tool step came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Called {
    /// The tool's result.
    Done(Value),
    /// It waits for somebody outside, who is shown this.
    Suspended(Value),
}

impl Agents {
    /// Runs one of an agent's tools.
    ///
    /// # Errors
    /// What the tool says, or a hook; or that the agent or the tool is not here any more.
    pub async fn call(
        &self,
        cx: StepContext,
        call: Call,
        request_context: Map<String, Value>,
    ) -> Result<Called, Failure> {
        let Call { agent, thread, resource, call, resumed_with } = call;
        let gone = |what: String| Failure::new(what).code("tool_gone").not_retryable();
        let found = self.get(&agent).ok_or_else(|| gone(format!("Agent with id {agent} not found")))?;
        let tool = found
            .find_tool(&call.name)
            .await?
            .ok_or_else(|| gone(format!("agent {agent} has no tool {:?} now", call.name)))?;
        let around = Around::of(
            found,
            CallContext {
                step: cx.clone(),
                agent: agent.clone(),
                thread: thread.clone(),
                resource: resource.clone(),
                request_context,
            },
        );
        let made = call.clone();
        let host = self.host().clone();
        let context = ToolCallContext { step: cx, call: call.id, thread, resource, agent, resumed_with, host };
        Ok(match tool.call(context, call.arguments).await? {
            ToolOutput::Done(mut value) => {
                around.tool_result(&made, &mut value).await?;
                Called::Done(value)
            }
            ToolOutput::Suspend(value) => Called::Suspended(value),
        })
    }
}
