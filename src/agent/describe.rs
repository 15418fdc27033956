//! What an agent is, for people and programs that choose one.

use serde_json::Value;

use super::Agent;
use super::model::ToolSpec;

/// An agent as it is declared, without the code of its tools.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What the model is told above every conversation.
    pub instructions: String,
    /// The model, as it was declared.
    pub model: String,
    /// Its own tools. Those of its sets are known only while it is asked.
    pub tools: Vec<DescribedTool>,
    /// The most steps of one turn.
    pub steps_max: u32,
}

/// A tool, and whether a person is asked before it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribedTool {
    /// What the model is told of it.
    pub spec: ToolSpec,
    /// Whether a call without arguments needs approval: a rule that looks at them may say otherwise of others.
    pub needs_approval: bool,
}

impl Agent {
    /// Describes it.
    #[must_use]
    pub fn describe(&self) -> Description {
        let tools = self
            .tools
            .iter()
            .map(|tool| DescribedTool { spec: tool.spec(), needs_approval: tool.needs_approval(&Value::Null) });
        Description {
            name: self.name.clone(),
            description: self.description.clone(),
            instructions: self.instructions.clone(),
            model: self.model.clone(),
            tools: tools.collect(),
            steps_max: self.steps_max,
        }
    }
}
