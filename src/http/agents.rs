//! Which agents there are (H9.1, H9.2).

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Problem;
use super::state::Shared;
use crate::agent::{DescribedTool, Description};
use crate::runtime::Error;
use crate::thread::turn_of;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(describe))
}

/// All agents of this store, by their names. Of those that other programs have declared the name is all that is known.
#[utoipa::path(
    get,
    path = "/agents",
    operation_id = "listAgents",
    tag = "Agents",
    summary = "Lists agents",
    description = "All agents of this store, by their names.",
    params(
        ("partial" = Option<bool>, Query, description = "Shorter is fine; takes no effect")
    ),
    responses((status = 200, description = "Agents by their names", body = Object, example = json!({ "demo": { "id": "demo", "name": "demo", "description": "", "instructions": "Be brief.", "tools": { "add": { "id": "add", "description": "Adds", "inputSchema": "{\"json\":{\"type\":\"object\"}}", "requireApproval": false } }, "provider": "offline", "modelId": "offline", "defaultOptions": { "maxSteps": 10 } } })))
)]
async fn list(State(shared): State<Shared>) -> Result<axum::Json<Value>, Problem> {
    let mut agents: BTreeMap<String, Value> = BTreeMap::new();
    let turn = turn_of("");
    for declared in shared.client.store().declared().await.map_err(Error::from)? {
        if let Some(name) = declared.workflow.strip_prefix(&turn) {
            agents.insert(name.to_owned(), elsewhere(name));
        }
    }
    for agent in shared.client.agents().all() {
        agents.insert(agent.name().to_owned(), described(&agent.describe()));
    }
    Ok(axum::Json(json!(agents)))
}

#[utoipa::path(
    get,
    path = "/agents/{agent}",
    operation_id = "describeAgent",
    tag = "Agents",
    summary = "Describes an agent",
    description = "Its instructions, its model and its tools. Of an agent of another program its name is all that is known.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1)
    ),
    responses((status = 200, description = "The agent", body = Object, example = json!({ "id": "demo", "name": "demo", "description": "", "instructions": "Be brief.", "tools": { "add": { "id": "add", "description": "Adds", "inputSchema": "{\"json\":{\"type\":\"object\"}}", "requireApproval": false } }, "provider": "offline", "modelId": "offline", "defaultOptions": { "maxSteps": 10 } })))
)]
async fn describe(State(shared): State<Shared>, Path(agent): Path<String>) -> Result<axum::Json<Value>, Problem> {
    if let Some(agent) = shared.client.agents().get(&agent) {
        return Ok(axum::Json(described(&agent.describe())));
    }
    shared.agent(&agent).await?;
    Ok(axum::Json(elsewhere(&agent)))
}

/// An agent whose code is in another program.
fn elsewhere(name: &str) -> Value {
    described(&Description {
        name: name.to_owned(),
        description: String::new(),
        instructions: String::new(),
        model: String::new(),
        tools: Vec::new(),
        steps_max: crate::agent::STEPS_MAX,
    })
}

fn described(agent: &Description) -> Value {
    let (provider, model) = agent.model.split_once('/').unwrap_or((&agent.model, &agent.model));
    let tools: Map<String, Value> = agent.tools.iter().map(|tool| (tool.spec.name.clone(), of_tool(tool))).collect();
    json!({
        "id": agent.name,
        "name": agent.name,
        "description": agent.description,
        "instructions": agent.instructions,
        "agents": {},
        "tools": tools,
        "workflows": {},
        "skills": [],
        "workspaceTools": [],
        "browserTools": [],
        "hasBrowser": false,
        "inputProcessors": [],
        "outputProcessors": [],
        "provider": provider,
        "modelId": model,
        "supportsMemory": true,
        "defaultOptions": { "maxSteps": agent.steps_max },
        "defaultGenerateOptionsLegacy": {},
        "defaultStreamOptionsLegacy": {},
        "source": "code",
    })
}

/// Schemas are JSON in a text, as the client's helper wants them (H9.2).
fn of_tool(tool: &DescribedTool) -> Value {
    let schema = json!({ "json": tool.spec.input_schema });
    json!({
        "id": tool.spec.name,
        "description": tool.spec.description,
        "inputSchema": schema.to_string(),
        "requireApproval": tool.needs_approval,
    })
}
