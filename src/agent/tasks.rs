//! A task list that the model keeps: four tools that change it, and a lane that shows it (T18.7).
//!
//! The list is nowhere but in the thread: the lane's newest snapshot, with the calls after it applied in their order.
//! What a call does follows from its arguments alone, so tools that run side by side and the lane come to the same list.

use std::collections::HashSet;
use std::fmt::Write as _;

use futures::FutureExt as _;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::processor::{Hook, Hooked, Processor, StateHook};
use super::{Agent, Function, ToolCallContext};
use crate::failure::Failure;
use crate::message::{Body, CallState, Message, Mode, NewState, ReplyPart, ThreadSignal, ToolCall};

/// The lane.
pub const TASKS: &str = "tasks";

/// How many messages after the last snapshot are looked through for calls.
const CALLS_WITHIN: usize = 500;

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    /// What the other tools call it.
    pub id: String,
    /// What is to be done.
    pub content: String,
    /// How far it is.
    #[serde(default)]
    pub status: TaskStatus,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Not begun.
    #[default]
    Pending,
    /// Begun.
    InProgress,
    /// Done.
    Completed,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Write {
    /// The whole list; it takes the place of the one before.
    tasks: Vec<Task>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Update {
    /// The task.
    id: String,
    /// What is to be done, if that changes.
    #[serde(default)]
    content: Option<String>,
    /// How far it is, if that changes.
    #[serde(default)]
    status: Option<TaskStatus>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Complete {
    /// The task.
    id: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Check {}

impl Agent {
    /// Gives it a task list: the tools `task_write`, `task_update`, `task_complete` and `task_check`, and the lane
    /// `tasks` in which it reads the list (T18.7).
    #[must_use]
    pub fn tasks(self) -> Self {
        self.tool(tool::<Write>("task_write", "Writes the task list anew."))
            .tool(tool::<Update>("task_update", "Changes a task of the list."))
            .tool(tool::<Complete>("task_complete", "Marks a task of the list as completed."))
            .tool(tool::<Check>("task_check", "Shows the task list, and how many tasks are open."))
            .processor(TaskLane)
    }
}

fn tool<I: Serialize + DeserializeOwned + JsonSchema + Send + 'static>(
    name: &'static str,
    description: &'static str,
) -> Function {
    Function::new(name, description, move |call: ToolCallContext, input: I| async move {
        let asked = ToolCall { id: call.call.clone(), name: name.to_owned(), arguments: serde_json::to_value(&input)? };
        let mut tasks = before(&call).await?;
        apply(&mut tasks, &asked).map_err(|problem| Failure::new(problem).code("task").not_retryable())?;
        let open = tasks.iter().filter(|task| task.status != TaskStatus::Completed).count();
        Ok::<_, Failure>(json!({ "tasks": tasks, "open": open }))
    })
}

/// The list in front of a call.
async fn before(call: &ToolCallContext) -> Result<Vec<Task>, Failure> {
    let lanes = call.step.lanes().await?;
    let snapshot = lanes.into_iter().find(|lane| lane.id == TASKS).and_then(|lane| lane.last_snapshot_signal_id);
    let snapshot = match snapshot {
        Some(id) => call.step.messages_named(vec![id]).await?.pop(),
        None => None,
    };
    let (history, _) = call.step.recent(CALLS_WITHIN).await?;
    let after = snapshot.as_ref().map_or(0, |message| message.seq);
    let later: Vec<Message> = history.into_iter().filter(|message| message.seq > after).collect();
    Ok(folded(snapshot.as_ref().and_then(Message::as_signal), &later, Some(&call.call)))
}

/// The list of a snapshot with the calls after it, up to one.
fn folded(snapshot: Option<&ThreadSignal>, later: &[Message], until: Option<&str>) -> Vec<Task> {
    let value = snapshot.and_then(|signal| signal.state.as_ref()?.value.clone());
    let mut tasks: Vec<Task> = value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
    let calls = later.iter().filter_map(|message| match &message.body {
        Body::Assistant(reply) => Some(&reply.parts),
        _ => None,
    });
    let calls = calls.flatten().filter_map(|part| match part {
        ReplyPart::Tool(call) if !matches!(call.state, CallState::Denied) => Some(&call.call),
        _ => None,
    });
    for call in calls.take_while(|call| until.is_none_or(|until| call.id != until)) {
        // A call that cannot be applied has failed, and has changed nothing.
        let _ = apply(&mut tasks, call);
    }
    tasks
}

/// What a call does to the list. A call that cannot be made leaves it as it is.
fn apply(tasks: &mut Vec<Task>, call: &ToolCall) -> Result<(), String> {
    fn read<I: DeserializeOwned>(call: &ToolCall) -> Result<I, String> {
        serde_json::from_value(call.arguments.clone()).map_err(|e| e.to_string())
    }
    match call.name.as_str() {
        "task_write" => {
            let Write { tasks: written } = read(call)?;
            let mut ids = HashSet::new();
            if let Some(twice) = written.iter().find(|task| !ids.insert(task.id.as_str())) {
                return Err(format!("task {:?} is in the list twice; give each an id of its own", twice.id));
            }
            *tasks = written;
        }
        "task_update" => {
            let Update { id, content, status } = read(call)?;
            let task = named(tasks, &id)?;
            task.status = status.unwrap_or(task.status);
            if let Some(content) = content {
                task.content = content;
            }
        }
        "task_complete" => {
            let Complete { id } = read(call)?;
            named(tasks, &id)?.status = TaskStatus::Completed;
        }
        _ => {}
    }
    Ok(())
}

fn named<'t>(tasks: &'t mut [Task], id: &str) -> Result<&'t mut Task, String> {
    let known: Vec<String> = tasks.iter().map(|task| task.id.clone()).collect();
    let unknown = || format!("there is no task {id:?}; there are: {}", known.join(", "));
    tasks.iter_mut().find(|task| task.id == id).ok_or_else(unknown)
}

/// The lane of the list.
struct TaskLane;

impl Processor for TaskLane {
    fn id(&self) -> &str {
        TASKS
    }

    fn hooks(&self) -> &[Hook] {
        &[Hook::State]
    }

    fn compute_state_signal<'h>(&'h self, hook: StateHook<'h>) -> Hooked<'h, Option<NewState>> {
        async move {
            let snapshot = hook.last_snapshot();
            let messages = hook.context.messages();
            let place = snapshot.and_then(|it| messages.iter().position(|message| message.id == it.id));
            let later = place.map_or(messages, |place| &messages[place + 1..]);
            let tasks = folded(snapshot, later, None);
            if tasks.is_empty() && snapshot.is_none() {
                return Ok(None);
            }
            let value: Value = serde_json::to_value(&tasks)?;
            let key: String =
                Sha256::digest(value.to_string().as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect();
            let state = NewState { mode: Mode::Snapshot, ..NewState::snapshot(TASKS, key, shown(&tasks)) };
            Ok(Some(NewState { value: Some(value), ..state }))
        }
        .boxed()
    }
}

/// The list as the model reads it.
fn shown(tasks: &[Task]) -> String {
    let mut text = String::new();
    for Task { id, content, status } in tasks {
        let mark = match status {
            TaskStatus::Pending => ' ',
            TaskStatus::InProgress => '~',
            TaskStatus::Completed => 'x',
        };
        let _ = writeln!(text, "[{mark}] {id}: {content}");
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: Value) -> ToolCall {
        ToolCall { id: name.to_owned(), name: name.to_owned(), arguments }
    }

    #[test]
    fn calls_change_the_list_in_their_order() {
        let mut tasks = Vec::new();
        let list = json!({ "tasks": [{ "id": "1", "content": "dig" }, { "id": "2", "content": "plant" }] });
        apply(&mut tasks, &call("task_write", list)).unwrap();
        apply(&mut tasks, &call("task_update", json!({ "id": "2", "status": "in_progress" }))).unwrap();
        apply(&mut tasks, &call("task_complete", json!({ "id": "1" }))).unwrap();
        insta::assert_snapshot!(shown(&tasks), @r"
        [x] 1: dig
        [~] 2: plant
        ");
        let unknown = apply(&mut tasks, &call("task_complete", json!({ "id": "3" }))).unwrap_err();
        insta::assert_snapshot!(unknown, @r#"there is no task "3"; there are: 1, 2"#);
        let twice = json!({ "tasks": [{ "id": "1", "content": "a" }, { "id": "1", "content": "b" }] });
        assert!(apply(&mut tasks, &call("task_write", twice)).is_err());
        assert_eq!(tasks.len(), 2);
    }
}
