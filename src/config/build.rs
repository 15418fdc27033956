//! From settings to the agents and models that they declare.
//!
//! Made anew when the settings are read again; a server or a provider whose settings and secrets are the same as before is
//! the same one, with its connections.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::check::without_secrets;
use super::problem::{Problem, Problems};
use super::read::{Config, Environment, nearest};
use super::secret::{Plain, names_a_secret};
use super::settings::{AgentSettings, McpSettings, ProviderKindName, ProviderSettings};
use crate::agent::model::{self, Limited, Model, Models, Provider, ProviderConfig, ProviderKind, Settings, Timeouts};
use crate::agent::{Agent, Budget, Instructions, McpServer, StructuredOutput};
use crate::workflow::Definition;

/// What the program itself brings; the settings add to it, and go before it where names are the same.
#[derive(Debug, Clone, Default)]
pub struct Base {
    /// Its agents.
    pub agents: Vec<Agent>,
    /// Agents that are there as long as nobody declares another.
    pub otherwise: Vec<Agent>,
    /// Its models.
    pub models: Models,
    /// Its workflows, which agents may start.
    pub workflows: Vec<Definition>,
}

/// The agents and the models, ready to be asked.
#[derive(Debug, Clone, Default)]
pub struct People {
    /// The agents.
    pub agents: Vec<Agent>,
    /// The models that they ask.
    pub models: Models,
    providers: BTreeMap<String, Kept<ProviderSettings, Arc<dyn Model>>>,
    servers: BTreeMap<String, Kept<McpSettings, McpServer>>,
}

/// What was made, and of what.
#[derive(Clone)]
struct Kept<S, T> {
    settings: S,
    secrets: Vec<SecretString>,
    made: T,
}

impl<S: PartialEq, T> Kept<S, T> {
    fn is_of(&self, settings: &S, secrets: &[SecretString]) -> bool {
        let same = |(a, b): (&SecretString, &SecretString)| a.expose_secret() == b.expose_secret();
        self.settings == *settings && self.secrets.len() == secrets.len() && self.secrets.iter().zip(secrets).all(same)
    }
}

impl<S, T> fmt::Debug for Kept<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

impl Config {
    /// Makes the agents and models that the settings declare, beside those of the program. Files and variables that hold
    /// secrets, instructions and schemas are read now. No provider or server is asked anything.
    ///
    /// # Errors
    /// All that is wrong, each with its place.
    pub fn people(&self, base: &Base, environment: &Environment, before: Option<&People>) -> Result<People, Problems> {
        let mut maker = Maker { config: self, environment, problems: Vec::new() };
        let providers = maker.providers(before);
        let servers = maker.servers(before);
        let models = providers.values().fold(base.models.clone(), |models, kept| models.with(Arc::clone(&kept.made)));
        let models =
            self.settings.models.iter().fold(models, |models, (name, model)| models.named(name.clone(), model.clone()));
        maker.check_models(&models);
        let mut agents = base.agents.clone();
        if agents.is_empty() && self.settings.agents.is_empty() {
            agents.extend(base.otherwise.iter().cloned());
        }
        let known: Vec<String> = names(&agents).chain(self.settings.agents.keys().cloned()).collect();
        for (name, settings) in &self.settings.agents {
            let surroundings = Surroundings { models: &models, servers: &servers, base, agents: &known };
            let agent = maker.agent(name, settings, &surroundings);
            agents.retain(|it| it.name() != name);
            agents.push(agent);
        }
        Problems::or(maker.problems, People { agents, models, providers, servers })
    }
}

fn names(agents: &[Agent]) -> impl Iterator<Item = String> {
    agents.iter().map(|agent| agent.name().to_owned())
}

/// What an agent may refer to.
struct Surroundings<'a> {
    models: &'a Models,
    servers: &'a BTreeMap<String, Kept<McpSettings, McpServer>>,
    base: &'a Base,
    agents: &'a [String],
}

/// Makes one thing after the other, and gathers what is wrong.
struct Maker<'a> {
    config: &'a Config,
    environment: &'a Environment,
    problems: Vec<Problem>,
}

impl Maker<'_> {
    fn wrong(&mut self, path: &[&str], what: impl fmt::Display) {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        self.problems.push(self.config.problem(&path, what));
    }

    fn read(&mut self, path: &[&str], file: &Path) -> Option<String> {
        let file = self.config.folder().join(file);
        match std::fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(error) => {
                self.wrong(path, format!("{} cannot be read: {error}", file.display()));
                None
            }
        }
    }

    fn providers(&mut self, before: Option<&People>) -> BTreeMap<String, Kept<ProviderSettings, Arc<dyn Model>>> {
        let mut made = BTreeMap::new();
        for (name, settings) in &self.config.settings.providers {
            if name == "offline" || name.contains('/') {
                self.wrong(&["providers", name], "a provider is named by one word, and not `offline`");
                continue;
            }
            let Some(secrets) = self.api_key(name, settings) else { continue };
            let kept = before.and_then(|it| it.providers.get(name)).filter(|it| it.is_of(settings, &secrets));
            let kept = kept.cloned().or_else(|| {
                let provider = self.provider(name, settings, secrets.first())?;
                Some(Kept { settings: settings.clone(), secrets, made: provider })
            });
            made.extend(kept.map(|kept| (name.clone(), kept)));
        }
        made
    }

    /// The key, if there is to be one; nothing if it is not to be had.
    fn api_key(&mut self, name: &str, settings: &ProviderSettings) -> Option<Vec<SecretString>> {
        match settings.api_key.as_ref().map(|it| it.get(self.environment, self.config.folder())) {
            None => Some(Vec::new()),
            Some(Ok(secret)) => Some(vec![secret]),
            Some(Err(what)) => {
                self.wrong(&["providers", name, "api_key"], what);
                None
            }
        }
    }

    fn provider(
        &mut self,
        name: &str,
        settings: &ProviderSettings,
        key: Option<&SecretString>,
    ) -> Option<Arc<dyn Model>> {
        let config = ProviderConfig {
            kind: kind(name, settings.kind),
            base_url: settings.base_url.clone(),
            api_key: key.cloned(),
            timeouts: Timeouts {
                connect_ms: settings.timeouts.connect.millis(),
                headers_ms: settings.timeouts.headers.millis(),
                read_ms: settings.timeouts.read.millis(),
                total_ms: settings.timeouts.total.millis(),
            },
        };
        let pace = model::Limits {
            concurrent: settings.pace.concurrent,
            requests_per_minute: settings.pace.requests_per_minute,
            tokens_per_minute: settings.pace.tokens_per_minute,
            wait_max: settings.pace.wait_max.0,
        };
        match Provider::new(name, config) {
            Ok(provider) => Some(Arc::new(Limited::new(Arc::new(provider), pace))),
            Err(error) => {
                self.wrong(&["providers", name], error);
                None
            }
        }
    }

    fn servers(&mut self, before: Option<&People>) -> BTreeMap<String, Kept<McpSettings, McpServer>> {
        let mut made = BTreeMap::new();
        for (name, settings) in &self.config.settings.mcp {
            let Some(values) = self.values(name, settings) else { continue };
            let secrets: Vec<SecretString> = values.iter().map(|(_, value)| value.clone()).collect();
            let kept = before.and_then(|it| it.servers.get(name)).filter(|it| it.is_of(settings, &secrets));
            let kept = kept.cloned().or_else(|| {
                let server = self.server(name, settings, values)?;
                Some(Kept { settings: settings.clone(), secrets, made: server })
            });
            made.extend(kept.map(|kept| (name.clone(), kept)));
        }
        made
    }

    /// The variables of a server's process, or the headers of its requests.
    fn values(&mut self, name: &str, settings: &McpSettings) -> Option<Vec<(String, SecretString)>> {
        let mut values = Vec::new();
        let mut whole = true;
        for (table, entries) in [("env", &settings.env), ("headers", &settings.headers)] {
            for (key, value) in entries {
                let got = match value {
                    Plain::Text(_) if names_a_secret(key) => {
                        Err(r#"this looks like a secret; write where it is: { env = "NAME" } or { file = "PATH" }"#
                            .to_owned())
                    }
                    Plain::Text(text) => Ok(SecretString::from(text.clone())),
                    Plain::Secret(secret) => secret.get(self.environment, self.config.folder()),
                };
                match got {
                    Ok(value) => values.push((key.clone(), value)),
                    Err(what) => {
                        self.wrong(&["mcp", name, table, key], what);
                        whole = false;
                    }
                }
            }
        }
        whole.then_some(values)
    }

    fn server(&mut self, name: &str, settings: &McpSettings, values: Vec<(String, SecretString)>) -> Option<McpServer> {
        let server = match (&settings.command, &settings.url) {
            (Some(command), None) if settings.headers.is_empty() => {
                let server = settings.args.iter().fold(McpServer::process(name, command), |it, arg| it.arg(arg));
                values.into_iter().fold(server, |it, (name, value)| it.env(name, value))
            }
            (None, Some(url)) if settings.env.is_empty() && settings.args.is_empty() => {
                if !url.starts_with("http://") && !url.starts_with("https://") {
                    let what = format!(
                        "{} is no address; write one that begins with http:// or https://",
                        without_secrets(url)
                    );
                    self.wrong(&["mcp", name, "url"], what);
                    return None;
                }
                values.into_iter().fold(McpServer::http(name, url), |it, (name, value)| it.header(name, value))
            }
            _ => {
                let what = "a server has either a command, with args and env, or a url, with headers";
                self.wrong(&["mcp", name], what);
                return None;
            }
        };
        let server = server.timeout(settings.timeout.0).refresh_after(settings.refresh_after.0).only(&settings.only);
        let server = if settings.approval { server.with_approval() } else { server };
        let server = settings.approval_of.iter().fold(server, |it, (tool, needed)| it.approval_of(tool, *needed));
        Some(match settings.approval_expires_after {
            Some(span) => server.approval_expiring_after(span.0),
            None => server,
        })
    }

    fn check_models(&mut self, models: &Models) {
        for name in self.config.settings.models.keys() {
            self.check_model(&["models", name], name, models);
        }
    }

    fn check_model(&mut self, path: &[&str], name: &str, models: &Models) {
        let settings = &self.config.settings;
        let full = settings.models.get(name).map_or(name, String::as_str);
        // What is wrong with a provider is told with the provider.
        let declared = full.split_once('/').is_some_and(|(provider, _)| settings.providers.contains_key(provider));
        if let Err(error) = models.resolve(name)
            && !declared
        {
            self.wrong(path, error);
        }
    }

    fn agent(&mut self, name: &str, settings: &AgentSettings, around: &Surroundings<'_>) -> Agent {
        let agent = Agent::new(name)
            .description(&settings.description)
            .instructions(self.instructions(name, settings))
            .model(&settings.model)
            .settings(answering(settings))
            .steps_max(settings.steps_max)
            .budget(budget(settings))
            .memory(settings.memory)
            .calls_at_once(settings.calls_at_once)
            .processor_retries(settings.processor_retries);
        self.check_model(&["agents", name, "model"], &settings.model, around.models);
        let agent = self.servers_of(agent, settings, around);
        let agent = self.delegates_of(agent, settings, around);
        let agent = self.workflows_of(agent, settings, around);
        let agent = if settings.tasks { agent.tasks() } else { agent };
        let agent = self.instruction_files_of(agent, settings);
        self.output_of(agent, settings)
    }

    fn instructions(&mut self, name: &str, settings: &AgentSettings) -> String {
        let Some(file) = &settings.instructions_file else { return settings.instructions.clone() };
        if !settings.instructions.is_empty() {
            self.wrong(
                &["agents", name, "instructions_file"],
                "there are instructions beside it; write one of the two",
            );
        }
        self.read(&["agents", name, "instructions_file"], file).unwrap_or_default()
    }

    fn servers_of(&mut self, mut agent: Agent, settings: &AgentSettings, around: &Surroundings<'_>) -> Agent {
        for (number, server) in settings.mcp.iter().enumerate() {
            match around.servers.get(server) {
                Some(kept) => agent = agent.mcp(kept.made.clone()),
                // What is wrong with it is told already.
                None if self.config.settings.mcp.contains_key(server) => {}
                None => {
                    let known = self.config.settings.mcp.keys().map(String::as_str);
                    let what = unknown("MCP server", server, "in [mcp]", known);
                    self.wrong(&["agents", agent.name(), "mcp", &number.to_string()], what);
                }
            }
        }
        agent
    }

    fn delegates_of(&mut self, mut agent: Agent, settings: &AgentSettings, around: &Surroundings<'_>) -> Agent {
        for (other, meaning) in &settings.delegates {
            if !around.agents.contains(other) {
                let what = unknown("agent", other, "here", around.agents.iter().map(String::as_str));
                self.wrong(&["agents", agent.name(), "delegates", other], what);
            }
            agent = agent.delegate(other, meaning);
        }
        agent
    }

    fn workflows_of(&mut self, mut agent: Agent, settings: &AgentSettings, around: &Surroundings<'_>) -> Agent {
        for (workflow, meaning) in &settings.workflows {
            let workflows = &around.base.workflows;
            match workflows.iter().filter(|it| it.name == workflow).max_by_key(|it| it.version) {
                Some(definition) => agent = agent.workflow_tool(definition.clone(), meaning),
                None => {
                    let what = unknown("workflow", workflow, "in this program", workflows.iter().map(|it| it.name));
                    self.wrong(&["agents", agent.name(), "workflows", workflow], what);
                }
            }
        }
        agent
    }

    fn instruction_files_of(&mut self, agent: Agent, settings: &AgentSettings) -> Agent {
        let Some(files) = &settings.instruction_files else { return agent };
        let root = self.config.folder().join(&files.under);
        if files.under == PathBuf::new() || !root.is_dir() {
            let what = format!("{} is no folder; say which one the files are below", root.display());
            self.wrong(&["agents", agent.name(), "instruction_files", "under"], what);
        }
        let mut instructions = Instructions::under(root);
        if !files.names.is_empty() {
            instructions = instructions.named(&files.names);
        }
        if !files.arguments.is_empty() {
            instructions = instructions.touched_by(&files.arguments);
        }
        if let Some(bytes) = files.bytes_max {
            instructions = instructions.bytes_max(bytes);
        }
        agent.processor(instructions)
    }

    fn output_of(&mut self, agent: Agent, settings: &AgentSettings) -> Agent {
        let Some(wanted) = &settings.output else { return agent };
        let name = agent.name().to_owned();
        let path = ["agents", &name, "output", "schema_file"];
        let Some(text) = self.read(&path, &wanted.schema_file) else { return agent };
        let schema: Value = match serde_json::from_str(&text) {
            Ok(schema) => schema,
            Err(error) => {
                self.wrong(&path, format!("{} is no JSON: {error}", wanted.schema_file.display()));
                return agent;
            }
        };
        let output = StructuredOutput { schema, answers_max: wanted.answers_max };
        if let Err(problem) = output.check() {
            self.wrong(&path, problem);
        }
        agent.output(output)
    }
}

/// What to say of a name that nothing has.
fn unknown<'a>(what: &str, name: &str, here: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no {what} {name:?} {here}; did you mean {near:?}?"),
        None if known.is_empty() => format!("there is no {what} {name:?} {here}; there is none at all"),
        None => format!("there is no {what} {name:?} {here}; there are: {}", known.join(", ")),
    }
}

fn kind(name: &str, said: Option<ProviderKindName>) -> ProviderKind {
    match (said, name) {
        (Some(ProviderKindName::Openai), _) | (None, "openai") => ProviderKind::Openai,
        (Some(ProviderKindName::Anthropic), _) | (None, "anthropic") => ProviderKind::Anthropic,
        (Some(ProviderKindName::Gemini), _) | (None, "gemini") => ProviderKind::Gemini,
        (Some(ProviderKindName::Ollama), _) | (None, "ollama") => ProviderKind::Ollama,
        (Some(ProviderKindName::OpenaiCompatible) | None, _) => ProviderKind::OpenaiCompatible,
    }
}

fn answering(settings: &AgentSettings) -> Settings {
    let said = &settings.answering;
    Settings {
        temperature: said.temperature,
        top_p: said.top_p,
        max_output_tokens: said.max_output_tokens,
        stop: said.stop.clone(),
        seed: said.seed,
        reasoning: said.reasoning,
    }
}

fn budget(settings: &AgentSettings) -> Budget {
    let said = &settings.budget;
    Budget {
        tokens_max: said.tokens_max,
        time_max_ms: said.time_max.map(super::Span::millis),
        idle_max_ms: said.idle_max.map(super::Span::millis),
        attempts_max: said.attempts_max,
    }
}
