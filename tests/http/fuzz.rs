//! What the reference allows and what it does not, made up by Schemathesis and sent to the real program: nothing of it is
//! answered by a fault of the server, and every answer is one that the reference has.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::program::Program;

/// How many requests are made up for a route beside those that the reference suggests: half a minute in all.
const CASES: &str = "25";

/// Streams without an end: nobody could tell how one is answered. What is wrong with requests for them is in `streams.rs`.
const ENDLESS: [&str; 3] = ["subscribe", "subscribeEventSource", "observeWorkflow"];

/// Where `.ci/test` installs what `tests/schemathesis/requirements.txt` names.
fn schemathesis() -> PathBuf {
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("schemathesis").join("bin/schemathesis");
    assert!(
        installed.exists(),
        "{} is not there; run `python3 -m venv target/schemathesis` and its `bin/pip install -r \
         tests/schemathesis/requirements.txt`, as .ci/test does",
        installed.display()
    );
    installed
}

#[test]
fn nothing_that_is_asked_makes_the_server_fail() {
    let mut program = Program::start(&["--timeout", "10s"]);
    let run = waiting_run(&program);
    let folder = tempfile::tempdir().expect("a folder");
    // So that it does not talk to agents, threads and runs only that are not there.
    let ids = [("agent", "demo"), ("workflow", "refund"), ("thread", "t"), ("run", run.as_str())];
    let ids: String = ids.map(|(name, id)| format!("\"path.{name}\" = \"{id}\"\n")).concat();
    let config = format!("[parameters]\n{ids}");
    std::fs::write(folder.path().join("schemathesis.toml"), config).expect("a file");
    let mut command = Command::new(schemathesis());
    command.current_dir(folder.path()).args(["--config-file", "schemathesis.toml", "run"]);
    command.arg(format!("http://{}/openapi.json", program.address));
    command.args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--generation-deterministic"]);
    command.args(["--max-examples", CASES, "--request-timeout", "20", "--warnings", "off"]);
    for id in ENDLESS {
        command.args(["--exclude-operation-id", id]);
    }
    let done = command.output().expect("schemathesis runs");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
    assert!(program.lives(), "it has ended\n{out}");
}

/// A run of Ann's thread `t` that waits for her.
fn waiting_run(program: &Program) -> String {
    let body =
        json!({ "message": "/call refund {\"order\":\"A-1\",\"cents\":1}", "threadId": "t", "resourceId": "ann" });
    let sent = program.post("/api/agents/demo/send-message", &body);
    sent["runId"].as_str().expect("a run").to_owned()
}
