//! Ready-made processors: the task list, and files of instructions.

use aldis::Failure;
use aldis::agent::{Agent, Function, Instructions, TASKS, ToolCallContext};
use aldis::message::Mode;
use aldis::runtime::{Client, ThreadHandle};
use aldis::store::Window;
use aldis::testing::Error;
use aldis::workflows::demo;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::common::history;
use crate::support::kit;

fn thread(client: &Client) -> ThreadHandle {
    client.agent("demo").thread("t", "ann").expect("an id")
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Look {
    path: String,
}

/// A demonstration agent with a tool that looks at a path.
fn looking(instructions: Instructions) -> Agent {
    let look = Function::new("look", "Looks at a path.", |_: ToolCallContext, look: Look| async move {
        Ok::<_, Failure>(look.path)
    });
    demo::agent().tool(look).processor(instructions)
}

async fn told(thread: &ThreadHandle) -> Result<Vec<(String, String)>, Error> {
    let rows = thread.history(Window::latest(i64::MAX, 100)).await?;
    let signals = rows.iter().filter_map(|row| row.as_signal());
    let told = signals
        .filter_map(|it| Some((it.metadata.get("instructionsFile")?.as_str()?.to_owned(), it.contents.all_text())));
    Ok(told.collect())
}

each_store! {
    // T18.7
    async fn the_task_list_is_a_lane_that_follows_the_tools(kind) {
        let kit = kit(kind).agent(demo::agent().tasks()).start().await?;
        let thread = thread(&kit);
        thread.send("Hello").await?;
        kit.run_to_rest().await?;
        assert_eq!(thread.lanes().await?, []);
        let list = json!({ "tasks": [{ "id": "1", "content": "dig" }, { "id": "2", "content": "plant" }] });
        thread.send(format!("/call task_write {list}\n/call task_complete {{\"id\":\"1\"}}")).await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert!(lines.contains(&"state [x] 1: dig\n[ ] 2: plant".to_owned()), "{lines:?}");
        thread.send("/call task_update {\"id\":\"2\",\"status\":\"in_progress\"}\n/call task_check {}").await?;
        kit.run_to_rest().await?;
        let lane = thread.lanes().await?.remove(0);
        assert_eq!((lane.id.as_str(), lane.version, lane.current_mode), (TASKS, 2, Mode::Snapshot));
        let rows = thread.history(Window::latest(i64::MAX, 100)).await?;
        let last = rows.iter().filter_map(|row| row.as_signal()?.state.clone()).next_back().unwrap();
        assert_eq!(last.value, Some(json!([
            { "id": "1", "content": "dig", "status": "completed" },
            { "id": "2", "content": "plant", "status": "in_progress" },
        ])));
        // What is checked holds the call beside it.
        let lines = history(&thread).await?;
        assert!(lines.iter().any(|line| line.contains("[task_check {}: ") && line.contains(r#""open":1"#)), "{lines:?}");
        kit.finish().await?;
    }

    async fn a_task_that_is_not_there_is_news_for_the_model(kind) {
        let kit = kit(kind).agent(demo::agent().tasks()).start().await?;
        let thread = thread(&kit);
        thread.send("/call task_complete {\"id\":\"7\"}").await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert!(lines[1].contains(r#"there is no task \"7\""#), "{lines:?}");
        assert_eq!(thread.lanes().await?, []);
        kit.finish().await?;
    }

    // T15.4
    async fn instructions_are_read_once_a_tool_has_touched_their_folder(kind) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("src/deep")).unwrap();
        std::fs::create_dir_all(root.join("docs")).unwrap();
        std::fs::write(root.join("AGENTS.md"), "Be brief.").unwrap();
        std::fs::write(root.join("src/AGENTS.md"), "x".repeat(100)).unwrap();
        std::fs::write(root.join("docs/AGENTS.md"), "Not touched.").unwrap();
        std::fs::write(directory.path().join("AGENTS.md"), "Outside.").unwrap();
        let agent = looking(Instructions::under(&root).bytes_max(10)).memory(4);
        let kit = kit(kind).agent(agent).start().await?;
        let thread = thread(&kit);
        thread.send("Hello").await?;
        kit.run_to_rest().await?;
        assert_eq!(told(&thread).await?, []);
        thread.send("/call look {\"path\":\"src/deep/new.rs\"}").await?;
        kit.run_to_rest().await?;
        let expected = [
            ("AGENTS.md".to_owned(), "Be brief.".to_owned()),
            ("src/AGENTS.md".to_owned(), format!("{}\n(cut after 10 bytes)", "x".repeat(10))),
        ];
        assert_eq!(told(&thread).await?, expected);
        // Once per thread, also when the window has moved on.
        for _ in 0..3 {
            thread.send("/call look {\"path\":\"src/main.rs\"}").await?;
            kit.run_to_rest().await?;
        }
        assert_eq!(told(&thread).await?, expected);
        kit.finish().await?;
    }

    async fn nothing_outside_the_root_is_read(kind) {
        let directory = tempfile::tempdir().unwrap();
        let (root, outside) = (directory.path().join("root"), directory.path().join("outside"));
        std::fs::create_dir_all(root.join("linked")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("AGENTS.md"), "secret").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("way-out")).unwrap();
        std::os::unix::fs::symlink(outside.join("AGENTS.md"), root.join("linked/AGENTS.md")).unwrap();
        let kit = kit(kind).agent(looking(Instructions::under(&root))).start().await?;
        let thread = thread(&kit);
        let absolute = outside.join("file").to_string_lossy().into_owned();
        for path in ["way-out/file", "../outside/file", "linked/file", absolute.as_str(), "/etc/passwd"] {
            thread.send(format!("/call look {}", json!({ "path": path }))).await?;
            kit.run_to_rest().await?;
        }
        assert_eq!(told(&thread).await?, []);
        kit.finish().await?;
    }
}
