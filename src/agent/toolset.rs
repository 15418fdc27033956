//! Tools that come and go: a set that is asked for its tools before each model call.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::Agent;
use super::tool::Tool;
use crate::failure::Failure;

/// How often a call of a tool that comes from a set is tried at the most: what is reached over a connection may come back.
const ATTEMPTS: u32 = 4;

/// Tools that are not known when the agent is declared, such as those of a server that is asked for them.
pub trait Toolset: Send + Sync {
    /// What it is called, in logs and errors.
    fn name(&self) -> &str;

    /// Its tools as they are now. Asked before each model call and each call of one of them, so it is worth remembering.
    ///
    /// # Errors
    /// If they cannot be known now; the step that asked is tried again.
    fn tools(&self) -> BoxFuture<'_, Result<Vec<Arc<dyn Tool>>, Failure>>;
}

impl std::fmt::Debug for dyn Toolset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Toolset({})", self.name())
    }
}

impl Agent {
    /// Gives it the tools of a set. Where names clash the agent's own tools come first, and then the sets in their order.
    #[must_use]
    pub fn toolset(mut self, set: impl Toolset + 'static) -> Self {
        self.toolsets.push(Arc::new(set));
        self
    }

    /// All its tools as they are now, each name once.
    pub(crate) async fn toolbox(&self) -> Result<Vec<Arc<dyn Tool>>, Failure> {
        let mut tools = self.tools.clone();
        for set in &self.toolsets {
            for tool in set.tools().await? {
                let spec = tool.spec();
                if tools.iter().any(|known| known.spec().name == spec.name) {
                    tracing::warn!(
                        agent = self.name,
                        set = set.name(),
                        tool = spec.name,
                        "a tool of this name is there"
                    );
                } else {
                    tools.push(tool);
                }
            }
        }
        Ok(tools)
    }

    /// A tool by its name: its own, without asking any set, or one of a set.
    pub(crate) async fn find_tool(&self, name: &str) -> Result<Option<Arc<dyn Tool>>, Failure> {
        if let Some(tool) = self.tool_named(name) {
            return Ok(Some(Arc::clone(tool)));
        }
        Ok(self.toolbox().await?.into_iter().find(|tool| tool.spec().name == name))
    }

    /// How often a call of a tool is tried at the most.
    #[must_use]
    pub fn attempts_of(&self, tool: &str) -> u32 {
        match self.tool_named(tool) {
            Some(tool) => tool.attempts().max(1),
            None if self.toolsets.is_empty() => 1,
            None => ATTEMPTS,
        }
    }
}
