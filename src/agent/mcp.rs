//! Tools of MCP servers: a server is a child process, or is reached over HTTP, and its tools are an agent's tools.
//!
//! A connection is made when it is first needed, kept, and made anew once it is lost. What a server says of its tools is
//! remembered for a while, or until it says that they have changed. No type of `rmcp` leaves this file, and no secret does:
//! every text that comes from a server or its connection has passed [`Secrets::hide`].

use std::collections::HashMap;
use std::process::Stdio;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ClientConfig, Implementation,
    JsonObject, RequestMetaObject,
};
use rmcp::service::{NotificationContext, RoleClient, RunningService, ServiceError};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ClientHandler, ServiceExt as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use sha2::Digest as _;
use tokio::sync::Mutex;

use super::Agent;
use super::model::ToolSpec;
use super::tool::{Tool, ToolCallContext, ToolOutput};
use super::toolset::Toolset;
use crate::failure::Failure;

/// The key of a request's metadata under which a server finds the call's idempotency key.
pub const IDEMPOTENCY_KEY: &str = "aldis/idempotency-key";

/// How long a name of a tool may be.
const NAME_MAX: usize = 64;

/// What a child process sees of this one's environment.
const ENVIRONMENT: [&str; 8] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ", "SHELL"];

/// An MCP server: `McpServer::process("files", "mcp-files").arg("/srv")`, `McpServer::http("crm", "https://crm.example/mcp")`.
/// Clones share its connection.
#[derive(Clone)]
pub struct McpServer {
    config: Config,
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Config {
    name: String,
    reached: Reached,
    /// The call's longest time, its connection's included.
    timeout: Duration,
    /// How long what a server says of its tools is believed.
    refresh: Duration,
    /// Which of its tools are taken; all if none is named.
    only: Vec<String>,
    approval: Approval,
    secrets: Secrets,
}

#[derive(Clone)]
enum Reached {
    Process { program: String, args: Vec<String>, env: Vec<(String, SecretString)> },
    Http { url: String, headers: Vec<(String, SecretString)> },
}

/// Which calls a person must agree to.
#[derive(Clone, Default)]
struct Approval {
    all: bool,
    tools: HashMap<String, bool>,
    expires_after: Option<Duration>,
}

/// What may not be told.
#[derive(Clone, Default)]
struct Secrets(Vec<SecretString>);

#[derive(Default)]
struct Shared {
    connection: Mutex<Option<Arc<Connection>>>,
    listed: std::sync::Mutex<Option<Listed>>,
    /// Whether the server has said that its tools have changed.
    changed: Arc<AtomicBool>,
}

/// What a server has said of its tools.
struct Listed {
    tools: Vec<(String, ToolSpec)>,
    at: Instant,
}

type Connection = RunningService<RoleClient, Ears>;

/// Hears what a server says by itself.
#[derive(Clone)]
struct Ears {
    changed: Arc<AtomicBool>,
}

impl ClientHandler for Ears {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(ClientCapabilities::default(), Implementation::new("aldis", env!("CARGO_PKG_VERSION")))
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.store(true, Ordering::SeqCst);
    }
}

impl McpServer {
    /// A server that is a child process, spoken to over its standard input and output. Its tools are known to models as
    /// `name_tool`. It sees of this process's environment what finds programs and files, and no more.
    #[must_use]
    pub fn process(name: impl Into<String>, program: impl Into<String>) -> Self {
        Self::new(name.into(), Reached::Process { program: program.into(), args: Vec::new(), env: Vec::new() })
    }

    /// A server that is reached over streamable HTTP. Its tools are known to models as `name_tool`.
    #[must_use]
    pub fn http(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self::new(name.into(), Reached::Http { url: url.into(), headers: Vec::new() })
    }

    fn new(name: String, reached: Reached) -> Self {
        let config = Config {
            name,
            reached,
            timeout: Duration::from_secs(60),
            refresh: Duration::from_secs(300),
            only: Vec::new(),
            approval: Approval::default(),
            secrets: Secrets::default(),
        };
        Self { config, shared: Arc::default() }
    }

    /// An argument of the process. It is seen by whoever lists processes: a secret goes into [`McpServer::env`].
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        if let Reached::Process { args, .. } = &mut self.config.reached {
            args.push(arg.into());
        }
        self
    }

    /// A variable of the process's environment; its value is told to nobody else.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        let value = value.into();
        if let Reached::Process { env, .. } = &mut self.config.reached {
            self.config.secrets.0.push(value.clone());
            env.push((name.into(), value));
        }
        self
    }

    /// A header of every request; its value is told to nobody else.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        let value = value.into();
        if let Reached::Http { headers, .. } = &mut self.config.reached {
            // `Bearer x` is as secret as `x`.
            let word = value.expose_secret().split_whitespace().last().unwrap_or_default().to_owned();
            self.config.secrets.0.extend([value.clone(), SecretString::from(word)]);
            headers.push((name.into(), value));
        }
        self
    }

    /// The longest time that a call may take, or a connection; a minute if nothing is said. A call that takes longer is
    /// cancelled, and the model is told.
    #[must_use]
    pub fn timeout(mut self, span: Duration) -> Self {
        self.config.timeout = span;
        self
    }

    /// How long what the server says of its tools is believed, unless it says that they have changed; five minutes if
    /// nothing is said.
    #[must_use]
    pub fn refresh_after(mut self, span: Duration) -> Self {
        self.config.refresh = span;
        self
    }

    /// Takes only these of its tools, by the server's own names.
    #[must_use]
    pub fn only(mut self, tools: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.only.extend(tools.into_iter().map(Into::into));
        self
    }

    /// A person must agree to every call, except of tools for which [`McpServer::approval_of`] says otherwise.
    #[must_use]
    pub fn with_approval(mut self) -> Self {
        self.config.approval.all = true;
        self
    }

    /// Whether a person must agree to calls of a tool, by the server's own name.
    #[must_use]
    pub fn approval_of(mut self, tool: impl Into<String>, needed: bool) -> Self {
        self.config.approval.tools.insert(tool.into(), needed);
        self
    }

    /// An approval is waited for so long; then the call counts as declined.
    #[must_use]
    pub fn approval_expiring_after(mut self, span: Duration) -> Self {
        self.config.approval.expires_after = Some(span);
        self
    }

    /// The connection, made anew if there is none or it was lost.
    async fn connection(&self) -> Result<Arc<Connection>, Failure> {
        let mut held = self.shared.connection.lock().await;
        if let Some(connection) = &*held
            && !connection.is_closed()
            && !connection.is_transport_closed()
        {
            return Ok(Arc::clone(connection));
        }
        *held = None;
        let connected = tokio::time::timeout(self.config.timeout, self.connect()).await;
        let connection = connected.map_err(|_| self.lost("it did not answer in time"))??;
        let connection = Arc::new(connection);
        *held = Some(Arc::clone(&connection));
        Ok(connection)
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let ears = Ears { changed: Arc::clone(&self.shared.changed) };
        let service = match &self.config.reached {
            Reached::Process { program, args, env } => {
                let mut command = tokio::process::Command::new(program);
                command.args(args).env_clear();
                command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
                command.envs(env.iter().map(|(name, value)| (name, value.expose_secret())));
                let started = TokioChildProcess::builder(command).stderr(Stdio::null()).spawn();
                let (process, _) = started.map_err(|e| self.lost(&format!("it could not be started: {e}")))?;
                ears.serve(process).await
            }
            Reached::Http { url, headers } => {
                // An error only says that the process has a provider of cryptography already.
                drop(rustls::crypto::ring::default_provider().install_default());
                let mut sent = HashMap::with_capacity(headers.len());
                for (name, value) in headers {
                    let unusable = || {
                        let what = format!("header {name:?} of MCP server {:?} is not usable", self.config.name);
                        Failure::new(what).code("mcp_header").not_retryable()
                    };
                    let mut secret = HeaderValue::from_str(value.expose_secret()).map_err(|_| unusable())?;
                    secret.set_sensitive(true);
                    sent.insert(HeaderName::from_str(name).map_err(|_| unusable())?, secret);
                }
                let config = StreamableHttpClientTransportConfig::with_uri(url.as_str()).custom_headers(sent);
                ears.serve(StreamableHttpClientTransport::from_config(config)).await
            }
        };
        service.map_err(|e| self.lost(&e.to_string()))
    }

    /// A connection that is not to be had, or is gone: another attempt makes another one.
    fn lost(&self, why: &str) -> Failure {
        let Config { name, secrets, .. } = &self.config;
        let why = secrets.hide(why);
        Failure::new(format!("MCP server {name:?} cannot be reached: {}", cut(&why))).code("mcp_unreachable")
    }

    /// What a request came to; a connection that was lost with it is not used again.
    async fn failed(&self, connection: &Arc<Connection>, error: ServiceError) -> Failure {
        match &error {
            ServiceError::McpError(said) => {
                let said = self.config.secrets.hide(&said.message);
                let what = format!("MCP server {:?} refuses: {}", self.config.name, cut(&said));
                Failure::new(what).code("mcp_refused").not_retryable()
            }
            ServiceError::TransportSend(_) | ServiceError::TransportClosed => {
                let mut held = self.shared.connection.lock().await;
                if held.as_ref().is_some_and(|it| Arc::ptr_eq(it, connection)) {
                    *held = None;
                }
                self.lost(&error.to_string())
            }
            other => {
                let said = self.config.secrets.hide(&other.to_string());
                let what = format!("MCP server {:?} cannot be understood: {}", self.config.name, cut(&said));
                Failure::new(what).code("mcp_misunderstood").not_retryable()
            }
        }
    }

    /// What the server says of its tools: `(its own name, what models are told)`.
    async fn listed(&self) -> Result<Vec<(String, ToolSpec)>, Failure> {
        let known = {
            let listed = self.shared.listed.lock().unwrap_or_else(PoisonError::into_inner);
            listed.as_ref().map(|it| (it.tools.clone(), it.at.elapsed() < self.config.refresh))
        };
        // Before it is asked: what changes while it answers is asked again.
        let changed = self.shared.changed.swap(false, Ordering::SeqCst);
        match known {
            Some((tools, true)) if !changed => Ok(tools),
            known => match (self.list().await, known) {
                (Err(failure), Some((tools, _))) => {
                    self.shared.changed.fetch_or(changed, Ordering::SeqCst);
                    tracing::warn!(server = self.config.name, %failure, "its tools are taken as they were last known");
                    Ok(tools)
                }
                (listed, _) => listed,
            },
        }
    }

    async fn list(&self) -> Result<Vec<(String, ToolSpec)>, Failure> {
        let connection = self.connection().await?;
        let asked = tokio::time::timeout(self.config.timeout, connection.peer().list_all_tools()).await;
        let found = match asked {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(self.failed(&connection, error).await),
            Err(_) => return Err(self.lost("it did not list its tools in time")),
        };
        let wanted = |name: &str| self.config.only.is_empty() || self.config.only.iter().any(|it| it == name);
        let tools: Vec<(String, ToolSpec)> = found
            .into_iter()
            .filter(|tool| wanted(&tool.name))
            .map(|tool| {
                let spec = ToolSpec {
                    name: known_as(&self.config.name, &tool.name),
                    description: tool.description.map(|it| it.into_owned()).or(tool.title).unwrap_or_default(),
                    input_schema: Value::Object((*tool.input_schema).clone()),
                };
                (tool.name.into_owned(), spec)
            })
            .collect();
        let listed = Listed { tools: tools.clone(), at: Instant::now() };
        *self.shared.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some(listed);
        Ok(tools)
    }

    async fn call(&self, tool: &str, call: ToolCallContext, arguments: Value) -> Result<ToolOutput, Failure> {
        let connection = self.connection().await?;
        let arguments: Option<JsonObject> = match arguments {
            Value::Object(arguments) => Some(arguments),
            _ => None,
        };
        let mut params = CallToolRequestParams::new(tool.to_owned());
        params.arguments = arguments;
        let key = json!({ IDEMPOTENCY_KEY: call.step.idempotency_key() });
        params.meta = serde_json::from_value::<RequestMetaObject>(key).ok();
        // Dropping the request tells the server that its answer is not wanted any more.
        let asked = tokio::select! {
            asked = tokio::time::timeout(self.config.timeout, connection.peer().call_tool_once(params)) => asked,
            // Not `until_cancelled`: a body that talks to a server is at work, and not at rest.
            () = call.step.cancelled().cancelled() => {
                return Err(Failure::new("the call was given up").code("mcp_cancelled").not_retryable());
            }
        };
        let answered = asked.map_err(|_| {
            let (name, timeout) = (&self.config.name, self.config.timeout);
            let what = format!("MCP server {name:?} did not answer within {timeout:?}; the call was cancelled");
            Failure::new(what).code("mcp_timeout").not_retryable()
        })?;
        match answered {
            Err(error) => Err(self.failed(&connection, error).await),
            Ok(CallToolResponse::Complete(result)) => self.answer(&result),
            Ok(_) => {
                let what = format!("MCP server {:?} wants more than the call's arguments", self.config.name);
                Err(Failure::new(what).code("mcp_misunderstood").not_retryable())
            }
        }
    }

    /// A result as the model is told it: what is structured if something is, one text as a text, else all of its parts.
    fn answer(&self, result: &CallToolResult) -> Result<ToolOutput, Failure> {
        let parts: Vec<Value> = result.content.iter().filter_map(|part| serde_json::to_value(part).ok()).collect();
        let texts: Vec<&str> =
            parts.iter().filter(|part| part["type"] == "text").filter_map(|part| part["text"].as_str()).collect();
        if result.is_error == Some(true) {
            let said = self.config.secrets.hide(&texts.join("\n"));
            return Err(Failure::new(said).code("mcp_tool_error").not_retryable());
        }
        let mut value = match &result.structured_content {
            Some(structured) => structured.clone(),
            None if texts.len() == parts.len() => Value::from(texts.join("\n")),
            None => Value::from(parts),
        };
        self.config.secrets.hide_in(&mut value);
        Ok(ToolOutput::Done(value))
    }
}

impl Toolset for McpServer {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn tools(&self) -> BoxFuture<'_, Result<Vec<Arc<dyn Tool>>, Failure>> {
        Box::pin(async move {
            let tools = self.listed().await?.into_iter().map(|(name, spec)| {
                let needed = self.config.approval.tools.get(&name).copied().unwrap_or(self.config.approval.all);
                Arc::new(McpTool { server: self.clone(), name, spec, approval: needed }) as Arc<dyn Tool>
            });
            Ok(tools.collect())
        })
    }
}

impl Agent {
    /// Gives it the tools of an MCP server, as `server_tool`.
    #[must_use]
    pub fn mcp(self, server: McpServer) -> Self {
        self.toolset(server)
    }
}

/// A tool of a server.
struct McpTool {
    server: McpServer,
    /// The server's own name of it.
    name: String,
    spec: ToolSpec,
    approval: bool,
}

impl Tool for McpTool {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    fn needs_approval(&self, _: &Value) -> bool {
        self.approval
    }

    fn expires_after(&self) -> Option<Duration> {
        self.server.config.approval.expires_after
    }

    fn call(&self, call: ToolCallContext, arguments: Value) -> BoxFuture<'static, Result<ToolOutput, Failure>> {
        let (server, name) = (self.server.clone(), self.name.clone());
        Box::pin(async move { server.call(&name, call, arguments).await })
    }
}

/// The name under which models know a server's tool: 1 to 64 letters, digits, underscores and hyphens. One that had to be
/// changed for that ends with a part of its digest, so that two never become one.
fn known_as(server: &str, tool: &str) -> String {
    let full = format!("{server}_{tool}");
    let usable = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if full.len() <= NAME_MAX && full.chars().all(usable) {
        return full;
    }
    let digest = sha2::Sha256::digest(format!("{server}/{tool}").as_bytes());
    let plain: String = full.chars().map(|c| if usable(c) { c } else { '_' }).take(NAME_MAX - 9).collect();
    format!("{plain}_{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
}

/// The beginning of a text that somebody else has written.
fn cut(text: &str) -> String {
    text.chars().take(500).collect()
}

impl Secrets {
    fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            let secret = secret.expose_secret();
            // What is shorter is no secret, and would be found in many words.
            if secret.len() >= 4 && text.contains(secret) {
                text = text.replace(secret, "[secret]");
            }
        }
        text
    }

    fn hide_in(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.hide(text),
            Value::Array(values) => values.iter_mut().for_each(|it| self.hide_in(it)),
            Value::Object(fields) => fields.values_mut().for_each(|it| self.hide_in(it)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

impl std::fmt::Debug for McpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its address and its environment may hold secrets.
        write!(f, "McpServer({})", self.config.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_model_takes_is_changed_and_stays_its_own() {
        assert_eq!(known_as("crm", "find-customer"), "crm_find-customer");
        let (one, other) = (known_as("crm", "find.customer"), known_as("crm", "find/customer"));
        assert!(one.starts_with("crm_find_customer_") && one != other, "{one} {other}");
        let long = known_as("crm", &"x".repeat(100));
        assert_eq!(long.len(), NAME_MAX);
        assert_ne!(long, known_as("crm", &"x".repeat(101)));
    }

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        let server = McpServer::http("crm", "https://crm.example/mcp?key=1").header("authorization", "Bearer abc-def");
        let mut value = json!({ "said": ["Bearer abc-def", { "key": "it is abc-def" }], "n": 1 });
        server.config.secrets.hide_in(&mut value);
        assert_eq!(value, json!({ "said": ["[secret]", { "key": "it is [secret]" }], "n": 1 }));
        assert_eq!(format!("{server:?}"), "McpServer(crm)");
        assert!(!server.lost("no abc-def").message.contains("abc"));
    }
}
