//! Tools of MCP servers: a server that is a child process, and one over HTTP.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aldis::agent::{Agent, IDEMPOTENCY_KEY, McpServer};
use aldis::testing::{Error, TestKit};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler, ServiceExt as _};
use serde_json::{Value, json};

use crate::common::{chunks, history};
use crate::support::kit;

/// A server with a few tools, and what has been done with it.
#[derive(Clone, Default)]
struct Server {
    lists: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    cancelled: Arc<AtomicBool>,
    grown: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
}

fn tool(name: &'static str) -> Tool {
    let schema = json!({ "type": "object", "properties": { "a": { "type": "integer" }, "b": { "type": "integer" } } });
    let Value::Object(schema) = schema else { unreachable!() };
    Tool::new(name, format!("The tool {name}."), Arc::new(schema))
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        let mut tools: Vec<Tool> = ["add", "fail", "whisper", "slow", "die", "grow", "key"].map(tool).to_vec();
        if self.grown.load(Ordering::SeqCst) {
            tools.push(tool("new"));
        }
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let number = |name: &str| request.arguments.as_ref().and_then(|it| it.get(name)?.as_i64()).unwrap_or_default();
        let said = match &*request.name {
            "add" => (number("a") + number("b")).to_string(),
            "fail" => return Ok(CallToolResult::error(vec![ContentBlock::text("out of paper")]).into()),
            "whisper" => format!("I was told {}", std::env::var("TOKEN").unwrap_or_default()),
            "key" => context.meta.0.get(IDEMPOTENCY_KEY).map(ToString::to_string).unwrap_or_default(),
            "slow" => {
                context.ct.cancelled().await;
                self.cancelled.store(true, Ordering::SeqCst);
                String::new()
            }
            // The first time it goes down before it answers.
            "die"
                if std::env::var("ALDIS_TEST_DIES")
                    .is_ok_and(|file| std::fs::write(&file, "").is_ok() && once(&file)) =>
            {
                std::process::exit(1)
            }
            "grow" => {
                self.grown.store(true, Ordering::SeqCst);
                context
                    .peer
                    .notify_tool_list_changed()
                    .await
                    .map_err(|e| ErrorData::internal_error(e.to_string(), None))?;
                "grown".into()
            }
            "new" | "die" => format!("{} is there", request.name),
            other => return Err(ErrorData::invalid_params(format!("no tool {other}"), None)),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(said)]).into())
    }
}

/// Whether this is the first process that asks about the file.
fn once(file: &str) -> bool {
    std::fs::OpenOptions::new().create_new(true).write(true).open(format!("{file}.died")).is_ok()
}

/// No test: the server, as a child process of one. What the test harness prints goes elsewhere.
#[tokio::test]
async fn child() {
    if std::env::var_os("ALDIS_TEST_MCP").is_none() {
        return;
    }
    let out = tokio::fs::File::from_std(std::fs::OpenOptions::new().write(true).open("/proc/self/fd/3").unwrap());
    let server = Server::default().serve((tokio::io::stdin(), out)).await.unwrap();
    server.waiting().await.unwrap();
}

fn process() -> McpServer {
    let exe = std::env::current_exe().unwrap().display().to_string();
    McpServer::process("calc", "sh")
        .arg("-c")
        .arg("exec 3>&1 >/dev/null; exec \"$0\" --exact mcp::child --nocapture")
        .arg(exe)
        .env("ALDIS_TEST_MCP", "1")
        .env("TOKEN", "open-sesame")
}

/// A server over HTTP, which wants to see a token.
struct Web {
    at: SocketAddr,
    server: Server,
    task: tokio::task::JoinHandle<()>,
}

impl Web {
    async fn start(server: Server, at: &str) -> Self {
        let listener = tokio::net::TcpListener::bind(at).await.unwrap();
        let at = listener.local_addr().unwrap();
        let made = server.clone();
        let service = StreamableHttpService::new(
            move || Ok(made.clone()),
            Arc::new(LocalSessionManager::default()),
            StreamableHttpServerConfig::default(),
        );
        let broken = Arc::clone(&server.broken);
        let guard = axum::middleware::from_fn(move |request: axum::extract::Request, next: axum::middleware::Next| {
            let broken = broken.load(Ordering::SeqCst);
            async move {
                let token = request.headers().get("authorization").and_then(|it| it.to_str().ok()).unwrap_or_default();
                match token {
                    _ if broken => Err((axum::http::StatusCode::INTERNAL_SERVER_ERROR, "no Bearer web-token today")),
                    "Bearer web-token" => Ok(next.run(request).await),
                    _ => Err((axum::http::StatusCode::UNAUTHORIZED, "who are you?")),
                }
            }
        });
        let router = axum::Router::new().nest_service("/mcp", service).layer(guard);
        let task = tokio::spawn(async move { axum::serve(listener, router).into_future().await.unwrap() });
        Self { at, server, task }
    }

    fn client(&self) -> McpServer {
        McpServer::http("calc", format!("http://{}/mcp", self.at)).header("authorization", "Bearer web-token")
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn told(kind: aldis::store::Kind, server: McpServer, said: &str) -> Result<(TestKit, Vec<String>), Error> {
    let kit = kit(kind).agent(Agent::new("demo").mcp(server)).start().await?;
    let thread = kit.agent("demo").thread("t", "ann")?;
    thread.send(said).await?;
    kit.run_to_rest().await?;
    let lines = history(&thread).await?;
    Ok((kit, lines))
}

each_store! {
    async fn a_child_process_has_tools(kind) {
        let said = "/call calc_add {\"a\":1,\"b\":2}\n/call calc_fail {}\n/call calc_whisper {}\n/call calc_key {}\n/call calc_fly {}";
        let (kit, lines) = told(kind, process(), said).await?;
        let answer = &lines[1];
        assert!(answer.contains(r#"[calc_add {"a":1,"b":2}: "3"]"#), "{answer}");
        // A tool's own failure is news for the model.
        assert!(answer.contains("[calc_fail {}: failed") && answer.contains("out of paper"), "{answer}");
        assert!(answer.contains(r#"[calc_whisper {}: "I was told [secret]"]"#), "{answer}");
        assert!(answer.contains("work/call[") && answer.contains("/1"), "{answer}");
        assert!(answer.contains("there is no tool \\\"calc_fly\\\"; there are: calc_add,"), "{answer}");
        let runs = kit.list(&aldis::store::Filter::default(), 10).await?;
        let journal = kit.journal(&kit.find(runs[0].id.as_str()).await?).await?;
        assert!(!journal.contains("open-sesame"), "{journal}");
        kit.finish().await?;
    }

    async fn a_child_process_that_dies_in_a_call_is_started_again_and_called_again(kind) {
        let place = tempfile::tempdir().unwrap();
        let server = process().env("ALDIS_TEST_DIES", place.path().join("died").display().to_string());
        let (kit, lines) = told(kind, server, "/call calc_die {}").await?;
        assert!(lines[1].contains(r#"[calc_die {}: "die is there"]"#), "{lines:?}");
        kit.finish().await?;
    }

    async fn a_server_over_http_has_tools_and_may_get_more(kind) {
        let web = Web::start(Server::default(), "127.0.0.1:0").await;
        let kit = kit(kind).agent(Agent::new("demo").mcp(web.client())).start().await?;
        let thread = kit.agent("demo").thread("t", "ann")?;
        thread.send("/call calc_add {\"a\":1,\"b\":2}").await?;
        kit.run_to_rest().await?;
        thread.send("/call calc_add {\"a\":3,\"b\":4}").await?;
        kit.run_to_rest().await?;
        // What it said of its tools is remembered.
        assert_eq!(web.server.lists.load(Ordering::SeqCst), 1);
        let lines = history(&thread).await?;
        assert!(lines[3].contains(r#": "7"]"#), "{lines:?}");
        thread.send("/call calc_grow {}").await?;
        kit.run_to_rest().await?;
        // Its word that they have changed comes beside the answer, and may come a moment later.
        let mut lines = Vec::new();
        for _ in 0..100 {
            thread.send("/call calc_new {}").await?;
            kit.run_to_rest().await?;
            lines = history(&thread).await?;
            if lines.iter().any(|line| line.contains("new is there")) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(lines.iter().any(|line| line.contains(r#"[calc_new {}: "new is there"]"#)), "{lines:?}");
        assert!(web.server.lists.load(Ordering::SeqCst) > 1);
        kit.finish().await?;
    }

    async fn a_call_that_takes_too_long_is_cancelled_and_the_model_is_told(kind) {
        let web = Web::start(Server::default(), "127.0.0.1:0").await;
        let (kit, lines) = told(kind, web.client().timeout(Duration::from_millis(500)), "/call calc_slow {}").await?;
        assert!(lines[1].contains("did not answer within 500ms; the call was cancelled"), "{lines:?}");
        for _ in 0..500 {
            if web.server.cancelled.load(Ordering::SeqCst) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(web.server.cancelled.load(Ordering::SeqCst));
        assert_eq!(web.server.calls.load(Ordering::SeqCst), 1);
        kit.finish().await?;
    }

    async fn a_server_that_cannot_be_reached_fails_the_turn_and_tells_no_secret(kind) {
        let web = Web::start(Server::default(), "127.0.0.1:0").await;
        web.server.broken.store(true, Ordering::SeqCst);
        let kit = kit(kind).agent(Agent::new("demo").mcp(web.client())).start().await?;
        let thread = kit.agent("demo").thread("t", "ann")?;
        let sent = thread.send("Hello").await?;
        kit.run_to_rest().await?;
        let seen = chunks(&kit, &thread).await?;
        let last = seen.last().unwrap();
        assert!(last.contains("MCP server \\\"calc\\\" cannot be reached"), "{seen:?}");
        let journal = kit.journal(&kit.find(sent.run.unwrap().as_str()).await?).await?;
        assert!(journal.matches("StepAttemptFailed").count() == 4, "{journal}");
        assert!(!journal.contains("web-token") && !last.contains("web-token"), "{journal}");
        // Once it is back, so are its tools.
        web.server.broken.store(false, Ordering::SeqCst);
        thread.send("/call calc_add {\"a\":1,\"b\":2}").await?;
        kit.run_to_rest().await?;
        assert!(history(&thread).await?.last().unwrap().contains(r#": "3"]"#));
        kit.finish().await?;
    }

    async fn a_server_that_was_started_anew_is_connected_to_anew(kind) {
        let web = Web::start(Server::default(), "127.0.0.1:0").await;
        let kit = kit(kind).agent(Agent::new("demo").mcp(web.client())).start().await?;
        let thread = kit.agent("demo").thread("t", "ann")?;
        thread.send("/call calc_add {\"a\":1,\"b\":2}").await?;
        kit.run_to_rest().await?;
        let at = web.at.to_string();
        drop(web);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let web = Web::start(Server::default(), &at).await;
        thread.send("/call calc_add {\"a\":3,\"b\":4}").await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert!(lines.last().unwrap().contains(r#": "7"]"#), "{lines:?}");
        assert_eq!(web.server.calls.load(Ordering::SeqCst), 1);
        kit.finish().await?;
    }

    // T13.1
    async fn calls_of_some_of_its_tools_need_a_person(kind) {
        let web = Web::start(Server::default(), "127.0.0.1:0").await;
        let server = web.client().with_approval().approval_of("fail", false).only(["add", "fail"]);
        let kit = kit(kind).agent(Agent::new("demo").mcp(server)).start().await?;
        let thread = kit.agent("demo").thread("t", "ann")?;
        thread.send("/call calc_add {\"a\":1,\"b\":2}\n/call calc_fail {}\n/call calc_key {}").await?;
        kit.settle().await?;
        let waiting = thread.waiting().await?;
        assert_eq!(waiting.iter().map(|it| it.tool.as_str()).collect::<Vec<_>>(), ["calc_add"]);
        thread.approve(&waiting[0].call).await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert!(lines[1].contains(r#": "3"]"#) && lines[1].contains("there are: calc_add, calc_fail"), "{lines:?}");
        kit.finish().await?;
    }
}
