//! Agents: what answers on a thread. Their declaration, their tools, their processors, and the models that they ask.
//!
//! An agent is asked and its tools are run from inside steps of a turn, never from workflow code: what they answer is
//! recorded by the step, and after a crash only what was not recorded is done again. Knows no store and no journal.

mod around;
mod ask;
mod call;
mod describe;
mod host;
mod instructions;
mod limits;
#[cfg(feature = "mcp")]
mod mcp;
pub mod model;
mod options;
mod output;
mod prepare;
mod processor;
mod roster;
mod showing;
mod tasks;
mod tool;
mod toolset;
mod transient;
mod window;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use around::{CallContext, ErrorHook, Refusal, RequestHook, ResponseHook, StreamHook, ToolResultHook};
pub use ask::{Ask, Asked, Plan, TurnFacts};
pub use call::{Call, Called};
pub use describe::{DescribedTool, Description};
pub use host::DELEGATIONS_MAX;
pub(crate) use host::{Delegated, Host, LateHost, while_resting};
pub use instructions::Instructions;
pub use limits::Budget;
#[cfg(feature = "mcp")]
pub use mcp::{IDEMPOTENCY_KEY, McpServer};
pub use options::{ClientTool, ModelSettings, TurnOptions};
pub use output::{ANSWERS_MAX, Formed, StructuredOutput};
pub use prepare::{Base, Carried, Changes, Process, Processed, Row, Stage, Stages, changed_reply, shown_reply};
pub use processor::{
    Draft, FinishedStep, Hook, HookContext, Hooked, InputHook, OutputHook, Processor, Scratch, Sending, StateAccepted,
    StateHook, Stop,
};
pub use roster::{RENEWALS_KEPT, Roster};
pub use showing::Shown;
pub use tasks::{TASKS, Task, TaskStatus};
pub use tool::{Function, Tool, ToolCallContext, ToolOutput};
pub use toolset::Toolset;
pub use transient::{Transient, Transients};

use limits::StopCondition;
use model::{Models, Settings};

use crate::message::Limits;

/// The most steps of a turn, unless its agent or its sender says otherwise (T7.11).
pub const STEPS_MAX: u32 = 5;

/// How often processors may have a model try again in one turn, unless its agent says otherwise.
pub const PROCESSOR_RETRIES: u32 = 3;

/// How many messages of its thread an agent reads, unless it says otherwise.
pub const MEMORY: usize = 40;

/// An agent, as it is declared: `Agent::new("support").instructions("Be kind.").model("openai/gpt-x").tool(refund)`.
///
/// The name is durable: turns that wait are found by it. Instructions, model, tools and limits may change from one deploy to
/// the next; a turn that is under way goes on with what it finds at its next step. Whether it has processors may not: a
/// turn that is under way is blocked then, until it is as before.
#[derive(Debug, Clone)]
pub struct Agent {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) instructions: String,
    pub(crate) model: String,
    pub(crate) settings: Settings,
    pub(crate) tools: Vec<Arc<dyn Tool>>,
    pub(crate) toolsets: Vec<Arc<dyn Toolset>>,
    pub(crate) processors: Vec<Arc<dyn Processor>>,
    pub(crate) steps_max: u32,
    pub(crate) memory: usize,
    pub(crate) calls_at_once: usize,
    pub(crate) output: Option<StructuredOutput>,
    pub(crate) budget: Budget,
    pub(crate) processor_retries: u32,
    pub(crate) stop_conditions: Vec<StopCondition>,
}

impl Agent {
    /// An agent without instructions or tools, on the offline model.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            instructions: String::new(),
            model: "offline".to_owned(),
            settings: Settings::default(),
            tools: Vec::new(),
            toolsets: Vec::new(),
            processors: Vec::new(),
            steps_max: STEPS_MAX,
            memory: MEMORY,
            calls_at_once: 10,
            output: None,
            budget: Budget::default(),
            processor_retries: PROCESSOR_RETRIES,
            stop_conditions: Vec::new(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for, for people and for other agents.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// What the model is told above every conversation.
    #[must_use]
    pub fn instructions(mut self, instructions: impl Into<String>) -> Self {
        self.instructions = instructions.into();
        self
    }

    /// The model, by a name that [`Models`] resolves.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// How the model is to answer, unless a sender says otherwise.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Gives it a tool.
    #[must_use]
    pub fn tool(mut self, tool: impl Tool + 'static) -> Self {
        self.tools.push(Arc::new(tool));
        self
    }

    /// Gives it a processor; they run in this order (T14.13).
    #[must_use]
    pub fn processor(mut self, processor: impl Processor + 'static) -> Self {
        self.processors.push(Arc::new(processor));
        self
    }

    /// How often its processors may have the model try again in one turn (T15.7).
    #[must_use]
    pub fn processor_retries(mut self, retries: u32) -> Self {
        self.processor_retries = retries;
        self
    }

    /// The most steps of one turn.
    #[must_use]
    pub fn steps_max(mut self, steps: u32) -> Self {
        self.steps_max = steps.max(1);
        self
    }

    /// The form of its answers, unless a sender asks for another: `agent.output(StructuredOutput::of::<Verdict>())`.
    #[must_use]
    pub fn output(mut self, output: StructuredOutput) -> Self {
        self.output = Some(output);
        self
    }

    /// How many of the thread's latest messages it reads.
    #[must_use]
    pub fn memory(mut self, messages: usize) -> Self {
        self.memory = messages.max(1);
        self
    }

    /// How many calls of one step run at the same time (T13.1a).
    #[must_use]
    pub fn calls_at_once(mut self, calls: usize) -> Self {
        self.calls_at_once = calls.max(1);
        self
    }

    pub(crate) fn tool_named(&self, name: &str) -> Option<&Arc<dyn Tool>> {
        self.tools.iter().find(|tool| tool.spec().name == name)
    }
}

/// The agents of a program, and the models that they may ask. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Agents {
    agents: Arc<BTreeMap<String, Arc<Agent>>>,
    models: Arc<Models>,
    host: LateHost,
    limits: Limits,
}

impl Agents {
    /// Agents on these models.
    #[must_use]
    pub fn new(agents: impl IntoIterator<Item = Agent>, models: Models) -> Self {
        let agents = agents.into_iter().map(|agent| (agent.name.clone(), Arc::new(agent))).collect();
        Self {
            agents: Arc::new(agents),
            models: Arc::new(models),
            host: LateHost::default(),
            limits: Limits::default(),
        }
    }

    /// The same, with limits for the signals that processors send (T3.18).
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// An agent by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Agent>> {
        self.agents.get(name)
    }

    /// All of them, by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.agents.values()
    }

    /// Where tools find the runtime.
    pub(crate) fn host(&self) -> &LateHost {
        &self.host
    }

    /// The models.
    #[must_use]
    pub fn models(&self) -> &Models {
        &self.models
    }
}
