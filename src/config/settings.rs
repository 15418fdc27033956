//! Every key there is. What stands above a field is what the documentation says of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::secret::{Plain, Secret};
use super::span::Span;
use crate::agent::model::{self, Effort, Timeouts};
use crate::agent::{MEMORY, PROCESSOR_RETRIES, STEPS_MAX};
use crate::{engine, intake};

/// Everything that can be set. What is absent has its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Settings {
    /// Where everything is kept: `sqlite://path` or `postgres://user:password@host/database`. A password is never printed.
    #[schemars(extend("x-flag" = "--store", "x-variable" = "ALDIS_STORE", "x-address" = true))]
    pub store: String,
    /// How `aldis serve` serves.
    pub serve: Serve,
    /// How runs are advanced, by `serve` and `work`.
    pub work: Work,
    /// How long what subscribers see is kept.
    pub retention: Retention,
    /// What is let in.
    pub limits: LimitSettings,
    /// Another name for a model, such as `fast = "openai/gpt-x"`.
    pub models: BTreeMap<String, String>,
    /// Providers of models, by the name before the slash.
    pub providers: BTreeMap<String, ProviderSettings>,
    /// MCP servers, by the name that their tools begin with.
    pub mcp: BTreeMap<String, McpSettings>,
    /// Agents, by name. The name is durable: threads and turns that wait are found by it.
    pub agents: BTreeMap<String, AgentSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            store: "sqlite://aldis.db".to_owned(),
            serve: Serve::default(),
            work: Work::default(),
            retention: Retention::default(),
            limits: LimitSettings::default(),
            models: BTreeMap::new(),
            providers: BTreeMap::new(),
            mcp: BTreeMap::new(),
            agents: BTreeMap::new(),
        }
    }
}

/// How `aldis serve` serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Serve {
    /// Where to listen; port 0 takes a free one. Addresses that other machines can reach need keys.
    #[schemars(with = "String", extend("x-flag" = "--listen", "x-variable" = "ALDIS_LISTEN"))]
    pub listen: SocketAddr,
    /// What the routes begin with.
    #[schemars(extend("x-flag" = "--prefix", "x-variable" = "ALDIS_PREFIX"))]
    #[serde(deserialize_with = "checked_prefix")]
    pub prefix: String,
    /// Origins whose pages may talk to it from a browser; `*` for all.
    #[schemars(extend("x-flag" = "--origin", "x-variable" = "ALDIS_ORIGINS"))]
    pub origins: Vec<String>,
    /// Asks for a key even where the store has none yet and only this machine can reach the server.
    #[schemars(extend("x-flag" = "--require-keys", "x-variable" = "ALDIS_REQUIRE_KEYS"))]
    pub require_keys: bool,
    /// The most bytes of a request's body.
    #[schemars(extend("x-flag" = "--body-max", "x-variable" = "ALDIS_BODY_MAX"))]
    pub body_bytes_max: usize,
    /// How long a request may take; a stream's answer is its first byte.
    #[schemars(extend("x-flag" = "--timeout", "x-variable" = "ALDIS_REQUEST_TIMEOUT"))]
    pub timeout: Span,
    /// How long a stream is silent before it says that it is alive.
    #[schemars(extend("x-flag" = "--heartbeat", "x-variable" = "ALDIS_HEARTBEAT"))]
    pub heartbeat: Span,
    /// The most connections at a time; more wait for room. Nine in ten may be streams. Each is an open file: the limit of the process is raised as far as it may be.
    #[schemars(extend("x-flag" = "--connections-max", "x-variable" = "ALDIS_CONNECTIONS_MAX"))]
    pub connections_max: usize,
    /// How long a client may take for a request's head; then it is cut off.
    #[schemars(extend("x-flag" = "--head-timeout", "x-variable" = "ALDIS_HEAD_TIMEOUT"))]
    pub head_timeout: Span,
    /// How long a connection is kept open for a next request. Let a proxy in front keep its own for less.
    #[schemars(extend("x-flag" = "--idle-timeout", "x-variable" = "ALDIS_IDLE_TIMEOUT"))]
    pub idle_timeout: Span,
    /// How long a client may take nothing of an answer or a stream; then it is cut off.
    #[schemars(extend("x-flag" = "--stall-timeout", "x-variable" = "ALDIS_STALL_TIMEOUT"))]
    pub stall_timeout: Span,
    /// How many keys and tokens from one address may open nothing in a minute; then what comes from there is refused with 429 until the minute is over.
    #[schemars(extend("x-flag" = "--failures-max", "x-variable" = "ALDIS_FAILURES_MAX"))]
    pub failures_max: u32,
    /// The addresses of proxies in front of it, whose `X-Forwarded-For` counts.
    #[schemars(with = "Vec<String>", extend("x-flag" = "--proxy", "x-variable" = "ALDIS_PROXIES"))]
    pub proxies: Vec<IpAddr>,
    /// Tokens (JWT) that open it beside keys.
    pub jwt: Tokens,
}

/// Tokens of others that open a server beside keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Tokens {
    /// Opens to tokens that a key of this JSON Web Key Set has signed with RS256 or ES256. The file is read again when it changes; a broken one changes nothing.
    #[schemars(extend("x-flag" = "--jwt-keys", "x-variable" = "ALDIS_JWT_KEYS"))]
    pub keys: Option<PathBuf>,
    /// Opens to tokens that this secret has signed with HS256: 32 bytes or more. Instead of `keys`; the flag `--jwt-secret-file` and the variables `ALDIS_JWT_SECRET_FILE`, `ALDIS_JWT_SECRET` go before it.
    pub secret: Option<Secret>,
    /// The claim that names the resource whose threads a token opens. A token without it opens nothing.
    #[schemars(extend("x-flag" = "--jwt-claim", "x-variable" = "ALDIS_JWT_CLAIM"))]
    pub claim: String,
    /// Only tokens for this audience (`aud`).
    #[schemars(extend("x-flag" = "--jwt-audience", "x-variable" = "ALDIS_JWT_AUDIENCE"))]
    pub audience: Option<String>,
    /// Only tokens of this issuer (`iss`).
    #[schemars(extend("x-flag" = "--jwt-issuer", "x-variable" = "ALDIS_JWT_ISSUER"))]
    pub issuer: Option<String>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { keys: None, secret: None, claim: "resource".to_owned(), audience: None, issuer: None }
    }
}

fn checked_prefix<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    prefix(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

/// What routes may begin with; nothing for `/`.
///
/// # Errors
/// What it is to look like.
pub fn prefix(text: &str) -> Result<String, String> {
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    match text {
        "" | "/" => Ok(String::new()),
        _ if text.starts_with('/') && text.chars().all(usable) => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("a prefix is a path such as /api, of letters, digits and / - _ .".to_owned()),
    }
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4111)),
            prefix: "/api".to_owned(),
            origins: Vec::new(),
            require_keys: false,
            body_bytes_max: 4 * 1024 * 1024,
            timeout: Span::seconds(30),
            heartbeat: Span::seconds(25),
            connections_max: 10_000,
            head_timeout: Span::seconds(10),
            idle_timeout: Span::seconds(75),
            stall_timeout: Span::seconds(60),
            failures_max: 30,
            proxies: Vec::new(),
            jwt: Tokens::default(),
        }
    }
}

/// How runs are advanced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Work {
    /// How long a worker may be silent before others take over its runs (Postgres).
    #[schemars(extend("x-flag" = "--lease", "x-variable" = "ALDIS_LEASE"))]
    pub lease: Span,
    /// How often the store is looked at when nobody has given a hint.
    #[schemars(extend("x-flag" = "--poll", "x-variable" = "ALDIS_POLL"))]
    pub poll: Span,
    /// The most runs that are worked on at the same time; more stay due in the store.
    #[schemars(extend("x-flag" = "--in-flight-max", "x-variable" = "ALDIS_IN_FLIGHT_MAX"))]
    pub in_flight_max: usize,
    /// The most waiting runs that are kept in memory, so that they go on without a replay.
    #[schemars(extend("x-flag" = "--live-max", "x-variable" = "ALDIS_LIVE_MAX"))]
    pub live_max: usize,
    /// How many connections write (Postgres); runs are spread over them.
    #[schemars(extend("x-flag" = "--writers", "x-variable" = "ALDIS_WRITERS"))]
    pub writers: usize,
    /// How long requests and steps may go on after SIGINT or SIGTERM; asked again, it stops at once.
    #[schemars(extend("x-flag" = "--grace", "x-variable" = "ALDIS_GRACE"))]
    pub grace: Span,
}

impl Default for Work {
    fn default() -> Self {
        let engine = engine::Options::default();
        Self {
            lease: Span(engine.lease),
            poll: Span(engine.poll),
            in_flight_max: engine.in_flight_max,
            live_max: engine.live_max,
            writers: 1,
            grace: Span::seconds(10),
        }
    }
}

/// How long what subscribers see is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Retention {
    /// How long what subscribers of a thread see is kept.
    #[schemars(extend("x-flag" = "--chunks-kept-for", "x-variable" = "ALDIS_CHUNKS_KEPT_FOR"))]
    pub chunks_kept_for: Span,
    /// How many chunks of a thread are kept at the most; the run that has the thread keeps all of its own.
    #[schemars(extend("x-flag" = "--chunks-kept", "x-variable" = "ALDIS_CHUNKS_KEPT"))]
    pub chunks_kept: u64,
}

impl Default for Retention {
    fn default() -> Self {
        let engine = engine::Options::default();
        Self { chunks_kept_for: Span(engine.chunks_kept_for), chunks_kept: engine.chunks_kept }
    }
}

/// What is let in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LimitSettings {
    /// The most bytes of an input, a signal to a run, an update, or a value of a step.
    #[schemars(extend("x-variable" = "ALDIS_PAYLOAD_BYTES_MAX"))]
    pub payload_bytes_max: usize,
    /// The most signals that may be pending at one run.
    #[schemars(extend("x-variable" = "ALDIS_PENDING_MAX"))]
    pub pending_max: u32,
    /// How many turns of a thread may follow each other without an idle moment.
    #[schemars(extend("x-variable" = "ALDIS_FOLLOW_UPS_MAX"))]
    pub follow_ups_max: u32,
    /// The most bytes of a message's contents.
    #[schemars(extend("x-variable" = "ALDIS_CONTENTS_BYTES_MAX"))]
    pub contents_bytes_max: usize,
    /// The most attributes of a signal.
    #[schemars(extend("x-variable" = "ALDIS_ATTRIBUTES_MAX"))]
    pub attributes_max: usize,
    /// The most bytes of an attribute's value, of its name, and of a tag.
    #[schemars(extend("x-variable" = "ALDIS_ATTRIBUTE_BYTES_MAX"))]
    pub attribute_bytes_max: usize,
    /// The most bytes of a message's metadata.
    #[schemars(extend("x-variable" = "ALDIS_METADATA_BYTES_MAX"))]
    pub metadata_bytes_max: usize,
}

impl Default for LimitSettings {
    fn default() -> Self {
        let limits = intake::Limits::default();
        Self {
            payload_bytes_max: limits.payload_bytes_max,
            pending_max: limits.pending_max,
            follow_ups_max: limits.follow_ups_max,
            contents_bytes_max: limits.signals.contents_bytes_max,
            attributes_max: limits.signals.attributes_max,
            attribute_bytes_max: limits.signals.attribute_bytes_max,
            metadata_bytes_max: limits.signals.metadata_bytes_max,
        }
    }
}

/// A provider of models.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProviderSettings {
    /// What its interface is like: `openai`, `anthropic`, `gemini`, `ollama` or `openai_compatible`. If absent, what its name says, else `openai_compatible`.
    pub kind: Option<ProviderKindName>,
    /// Where it is; the kind's own address if absent.
    #[schemars(extend("x-address" = true))]
    pub base_url: Option<String>,
    /// Where its key is.
    pub api_key: Option<Secret>,
    /// How long to wait for what.
    pub timeouts: Waits,
    /// How often and how many at a time this process asks it.
    pub pace: Pace,
}

/// What a provider's interface is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKindName {
    /// Chat completions as OpenAI has them, of whatever server.
    OpenaiCompatible,
    /// OpenAI's.
    Openai,
    /// Anthropic's.
    Anthropic,
    /// Google's.
    Gemini,
    /// Ollama's.
    Ollama,
}

/// How long to wait for a provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Waits {
    /// For a connection.
    pub connect: Span,
    /// For the answer to begin.
    pub headers: Span,
    /// Between two pieces of the answer.
    pub read: Span,
    /// For the whole answer.
    pub total: Span,
}

impl Default for Waits {
    fn default() -> Self {
        let waits = Timeouts::default();
        let span = |millis| Span(std::time::Duration::from_millis(millis));
        Self {
            connect: span(waits.connect_ms),
            headers: span(waits.headers_ms),
            read: span(waits.read_ms),
            total: span(waits.total_ms),
        }
    }
}

/// How often a provider is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Pace {
    /// How many requests may be under way at a time.
    pub concurrent: usize,
    /// How many requests may begin in any minute.
    pub requests_per_minute: Option<u32>,
    /// How many tokens any minute may cost.
    pub tokens_per_minute: Option<u64>,
    /// How long a request waits for its turn before it is left to the step's retries.
    pub wait_max: Span,
}

impl Default for Pace {
    fn default() -> Self {
        let limits = model::Limits::default();
        Self {
            concurrent: limits.concurrent,
            requests_per_minute: limits.requests_per_minute,
            tokens_per_minute: limits.tokens_per_minute,
            wait_max: Span(limits.wait_max),
        }
    }
}

/// An MCP server: a process or an address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct McpSettings {
    /// The program of a server that is a process of this machine.
    pub command: Option<String>,
    /// The program's arguments. Whoever lists processes sees them: a secret goes into `env`.
    pub args: Vec<String>,
    /// The program's environment, beside what finds programs and files.
    pub env: BTreeMap<String, Plain>,
    /// The address of a server that is reached over HTTP.
    #[schemars(extend("x-address" = true))]
    pub url: Option<String>,
    /// Headers of every request; `{ env = "NAME" }` is the whole value, such as `Bearer …`.
    pub headers: BTreeMap<String, Plain>,
    /// Which of its tools are taken, by the server's own names; all if none is named.
    pub only: Vec<String>,
    /// The longest time of a call, or of making the connection.
    pub timeout: Span,
    /// How long what the server says of its tools is believed.
    pub refresh_after: Span,
    /// Whether a person must agree to every call.
    pub approval: bool,
    /// Whether a person must agree to calls of this tool, whatever `approval` says.
    pub approval_of: BTreeMap<String, bool>,
    /// How long an approval is waited for; then the call counts as declined.
    pub approval_expires_after: Option<Span>,
}

impl Default for McpSettings {
    fn default() -> Self {
        Self {
            command: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            url: None,
            headers: BTreeMap::new(),
            only: Vec::new(),
            timeout: Span::seconds(60),
            refresh_after: Span::seconds(300),
            approval: false,
            approval_of: BTreeMap::new(),
            approval_expires_after: None,
        }
    }
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AgentSettings {
    /// What it is for, for people and for other agents.
    pub description: String,
    /// What the model is told above every conversation.
    pub instructions: String,
    /// The same from a file, beside this one unless its path begins at the root; read when the settings are.
    pub instructions_file: Option<PathBuf>,
    /// The model: `offline`, `PROVIDER/MODEL`, or a name from `[models]`.
    pub model: String,
    /// How the model is to answer, unless a sender says otherwise.
    pub answering: Answering,
    /// The most steps of one turn.
    pub steps_max: u32,
    /// What a turn may cost, unless a sender says otherwise.
    pub budget: TurnBudget,
    /// How many of the thread's latest messages it reads.
    pub memory: usize,
    /// How many calls of one step run at the same time.
    pub calls_at_once: usize,
    /// The form of its answers.
    pub output: Option<OutputSettings>,
    /// MCP servers whose tools it has, by their names in `[mcp]`.
    pub mcp: Vec<String>,
    /// Agents that it may ask, each with what the model is told of it.
    pub delegates: BTreeMap<String, String>,
    /// Workflows of the program that it may start, each with what the model is told of it.
    pub workflows: BTreeMap<String, String>,
    /// Whether it keeps a task list.
    pub tasks: bool,
    /// Puts the instruction files of folders that its tools touch before the model.
    pub instruction_files: Option<InstructionFiles>,
    /// How often processors may have the model try again in one turn.
    pub processor_retries: u32,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            description: String::new(),
            instructions: String::new(),
            instructions_file: None,
            model: "offline".to_owned(),
            answering: Answering::default(),
            steps_max: STEPS_MAX,
            budget: TurnBudget::default(),
            memory: MEMORY,
            calls_at_once: 10,
            output: None,
            mcp: Vec::new(),
            delegates: BTreeMap::new(),
            workflows: BTreeMap::new(),
            tasks: false,
            instruction_files: None,
            processor_retries: PROCESSOR_RETRIES,
        }
    }
}

/// How a model is to answer. What is absent is left to the provider.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Answering {
    /// How freely to choose words; 0 is the least.
    pub temperature: Option<f64>,
    /// The share of likeliest words to choose from.
    pub top_p: Option<f64>,
    /// The longest answer, in the provider's tokens.
    pub max_output_tokens: Option<u32>,
    /// Texts at which to stop.
    pub stop: Vec<String>,
    /// For answers that can be had again, where the provider can do that.
    pub seed: Option<u64>,
    /// How long to think first: `none`, `low`, `medium` or `high`.
    #[schemars(with = "Option<String>")]
    pub reasoning: Option<Effort>,
}

/// What a turn may cost. What is absent has no bound of its own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TurnBudget {
    /// Tokens of all its answers together.
    pub tokens_max: Option<u64>,
    /// From its beginning to its end, waiting included.
    pub time_max: Option<Span>,
    /// How long a model may say nothing.
    pub idle_max: Option<Span>,
    /// How often one call of the model is tried; 5 if absent.
    pub attempts_max: Option<u32>,
}

/// The form of an agent's answers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OutputSettings {
    /// The file with the JSON Schema that answers must fit.
    pub schema_file: PathBuf,
    /// How many answers of another form are one too many; 3 if absent.
    pub answers_max: Option<u32>,
}

/// Files of instructions in folders, such as `AGENTS.md`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstructionFiles {
    /// The folder that nothing outside of is read from.
    pub under: PathBuf,
    /// What the files are called; `AGENTS.md` if absent.
    pub names: Vec<String>,
    /// The arguments under which tools name what they touch; the usual ones if absent.
    pub arguments: Vec<String>,
    /// How many bytes of each file are read; 32768 if absent.
    pub bytes_max: Option<usize>,
}
