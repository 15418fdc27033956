//! A place with a store of its own, the program run there, and processes that end with the test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use aldis::store::Scratch;
use aldis::{Aldis, Client};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder and a store for one test.
pub struct Place {
    pub folder: TempDir,
    pub store: String,
    scratch: Option<Scratch>,
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    /// Its standard output as JSON objects, one a line.
    pub fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?} is no JSON: {e}; {self:?}"));
        self.out.lines().map(parse).collect()
    }
}

impl Place {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("sqlite://{}", folder.path().join("aldis.db").display());
        Self { folder, store, scratch: None }
    }

    pub async fn postgres() -> Self {
        let server = std::env::var("ALDIS_TEST_POSTGRES").expect(
            "the Postgres half needs ALDIS_TEST_POSTGRES, an address such as postgres://u@host/db; .ci/test sets it",
        );
        let scratch = Scratch::beside(&server).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { folder, store: scratch.url().to_owned(), scratch: Some(scratch) }
    }

    pub async fn remove(self) {
        if let Some(scratch) = self.scratch {
            scratch.remove().await.unwrap();
        }
    }

    fn command(&self, program: &Path, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command.current_dir(self.folder.path()).env("ALDIS_STORE", &self.store).env("ALDIS_LOG", "off").args(args);
        command.env_remove("RENAMED");
        command
    }

    /// Runs the program to its end.
    pub fn aldis(&self, args: &[&str]) -> Done {
        done(assert_cmd::Command::from_std(self.command(&aldis(), args)))
    }

    /// Runs the program to its end with something on standard input.
    pub fn aldis_with(&self, args: &[&str], input: &str) -> Done {
        let mut command = assert_cmd::Command::from_std(self.command(&aldis(), args));
        command.write_stdin(input);
        done(command)
    }

    /// Runs the program to its end with these variables.
    pub fn aldis_under(&self, variables: &[(&str, &str)], args: &[&str]) -> Done {
        let mut command = self.command(&aldis(), args);
        command.envs(variables.iter().copied());
        done(assert_cmd::Command::from_std(command))
    }

    /// Runs an example to its end.
    pub fn example(&self, name: &str, variables: &[(&str, &str)], args: &[&str]) -> Done {
        let mut command = self.command(&example(name), args);
        command.envs(variables.iter().copied());
        done(assert_cmd::Command::from_std(command))
    }

    /// Begins the program and reads its first line.
    pub fn begin(&self, args: &[&str]) -> Going {
        Going::of(self.command(&aldis(), args))
    }

    /// Begins the program with these variables and reads its first line.
    pub fn begin_under(&self, variables: &[(&str, &str)], args: &[&str]) -> Going {
        let mut command = self.command(&aldis(), args);
        command.envs(variables.iter().copied());
        Going::of(command)
    }

    /// Begins an example and reads its first line.
    pub fn begin_example(&self, name: &str, args: &[&str]) -> Going {
        Going::of(self.command(&example(name), args))
    }

    /// Waits until a run stands so.
    pub async fn until(&self, run: &str, status: &str) {
        let client = self.client().await;
        let reached = async {
            loop {
                let found = client.find(run).await;
                if let Ok(handle) = found
                    && handle.row().await.unwrap().status.word() == status
                {
                    return;
                }
                // A hint where there is one; who waits for another process looks again all the same.
                let _ = tokio::time::timeout(Duration::from_millis(50), client.store().changed()).await;
            }
        };
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            panic!("run {run} is not {status}: {}", self.aldis(&["show", run]).out);
        }
        client.store().close().await;
    }

    async fn client(&self) -> Client {
        Aldis::open(&self.store).connect().await.unwrap()
    }

    /// Writes a refund's order into a file and gives its name.
    pub fn order(&self, approve_within_seconds: u32) -> String {
        let file = self.folder.path().join("order.json");
        let order = serde_json::json!({
            "order": "A-1", "amount_cents": 4999, "customer": "kim",
            "approve_within_seconds": approve_within_seconds, "ledger": self.ledger()
        });
        std::fs::write(&file, order.to_string()).unwrap();
        file.display().to_string()
    }

    /// The file that the refund's steps write into.
    pub fn ledger(&self) -> PathBuf {
        self.folder.path().join("refunds.jsonl")
    }

    /// What the refund's steps did to the outside: the first key of each line of the ledger.
    pub fn effects(&self) -> Vec<String> {
        let lines = std::fs::read_to_string(self.ledger()).unwrap_or_default();
        let first =
            |line: &str| serde_json::from_str::<serde_json::Map<String, Value>>(line).unwrap().into_iter().next();
        lines.lines().map(|line| first(line).unwrap().0).collect()
    }

    /// The names of the events in a run's journal, each with the name that it carries.
    pub fn events(&self, run: &str) -> Vec<String> {
        let lines = self.aldis(&["journal", run, "--json"]).json();
        let told = |line: &Value| match line["name"].as_str() {
            Some(name) => format!("{} {name}", line["event"].as_str().unwrap()),
            None => line["event"].as_str().unwrap().to_owned(),
        };
        lines.iter().map(told).collect()
    }
}

fn done(mut command: assert_cmd::Command) -> Done {
    let output = command.timeout(PATIENCE).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

fn aldis() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_aldis"))
}

fn example(name: &str) -> PathBuf {
    let file = aldis().with_file_name("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(file.exists(), "{} is not built; run `cargo build --examples`", file.display());
    file
}

/// A process under way. It is killed when the test ends.
pub struct Going {
    child: Child,
    out: BufReader<ChildStdout>,
    /// The first line that it printed.
    pub first: String,
}

impl Going {
    fn of(mut command: std::process::Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        Self { child, out, first: first.trim_end().to_owned() }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        let asked = std::process::Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status().unwrap();
        assert_eq!(asked.code(), Some(0));
    }

    /// The next line that it prints.
    pub fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// SIGTERM, and then its exit code.
    pub fn stop(mut self) -> i32 {
        let asked = std::process::Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert_eq!(asked.code(), Some(0));
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Waits for its end: its exit code, and what else it printed.
    pub fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.out, &mut rest).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), rest)
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
