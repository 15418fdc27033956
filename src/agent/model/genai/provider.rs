//! How a provider is reached.

use std::fmt;

use genai::Client;
use genai::adapter::AdapterKind;
use secrecy::SecretString;
use serde::Deserialize;

use crate::agent::model::ModelError;

/// What a provider's interface is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// Chat completions as OpenAI has them, of whatever server; needs a base URL.
    OpenaiCompatible,
    /// OpenAI's chat completions.
    Openai,
    /// Anthropic's messages.
    Anthropic,
    /// Google's Gemini.
    Gemini,
    /// Ollama's own interface.
    Ollama,
}

impl ProviderKind {
    fn default_base_url(self) -> Option<&'static str> {
        match self {
            Self::OpenaiCompatible => None,
            Self::Openai => Some("https://api.openai.com/v1/"),
            Self::Anthropic => Some("https://api.anthropic.com/v1/"),
            Self::Gemini => Some("https://generativelanguage.googleapis.com/v1beta/"),
            Self::Ollama => Some("http://localhost:11434/"),
        }
    }

    pub(super) fn adapter(self, has_key: bool) -> AdapterKind {
        match self {
            // This one is OpenAI's, but for sending no authorization when there is no key.
            Self::OpenaiCompatible if !has_key => AdapterKind::Omlx,
            Self::OpenaiCompatible | Self::Openai => AdapterKind::OpenAI,
            Self::Anthropic => AdapterKind::Anthropic,
            Self::Gemini => AdapterKind::Gemini,
            Self::Ollama => AdapterKind::Ollama,
        }
    }

    fn needs_key(self) -> bool {
        matches!(self, Self::Openai | Self::Anthropic | Self::Gemini)
    }
}

/// How a provider is reached, as configuration says it. Its `Debug` shows no secret.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// What its interface is like.
    pub kind: ProviderKind,
    /// Where it is; the kind's own address if absent. With or without a slash at the end.
    #[serde(default)]
    pub base_url: Option<String>,
    /// The key, where one is needed.
    #[serde(default)]
    pub api_key: Option<SecretString>,
    /// How long to wait for what.
    #[serde(default)]
    pub timeouts: Timeouts,
}

impl ProviderConfig {
    /// A provider of this kind at its own address, without a key.
    #[must_use]
    pub fn new(kind: ProviderKind) -> Self {
        Self { kind, base_url: None, api_key: None, timeouts: Timeouts::default() }
    }

    /// At this address.
    #[must_use]
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = Some(url.into());
        self
    }

    /// With this key.
    #[must_use]
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(SecretString::from(key.into()));
        self
    }
}

impl fmt::Debug for ProviderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderConfig")
            .field("kind", &self.kind)
            .field("base_url", &self.base_url.as_deref().map(shown))
            .field("api_key", &self.api_key)
            .field("timeouts", &self.timeouts)
            .finish()
    }
}

/// An address without what may be secret in it: a user's password, a query.
fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = host.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}/{path}")
        }
        None => "(no address)".to_owned(),
    }
}

/// How long to wait for what, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection.
    pub connect_ms: u64,
    /// For the answer to begin.
    pub headers_ms: u64,
    /// Between two pieces of the answer.
    pub read_ms: u64,
    /// For the whole answer.
    pub total_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect_ms: 10_000, headers_ms: 120_000, read_ms: 120_000, total_ms: 1_200_000 }
    }
}

/// A provider and all its models. Cheap to ask from many tasks at a time; connections are kept and shared.
pub struct Provider {
    pub(super) name: String,
    pub(super) config: ProviderConfig,
    pub(super) base_url: String,
    pub(super) client: Client,
}

impl Provider {
    /// Sets up a provider under the name it is to be known by, such as `openai`.
    ///
    /// # Errors
    /// [`ModelError::Unfit`] if the address is no address, or an address or a key is missing.
    pub fn new(name: impl Into<String>, config: ProviderConfig) -> Result<Self, ModelError> {
        let name = name.into();
        let unfit = |cause: String| ModelError::Unfit { model: format!("{name}/…"), cause };
        let Some(url) = config.base_url.as_deref().or(config.kind.default_base_url()) else {
            return Err(unfit("a provider of kind openai_compatible needs a base_url".to_owned()));
        };
        let base_url = base_url(url).map_err(|problem| unfit(format!("its base_url {}: {problem}", shown(url))))?;
        if config.kind.needs_key() && config.api_key.is_none() {
            return Err(unfit("it needs an api_key".to_owned()));
        }
        let client = super::client(config.timeouts).map_err(unfit)?;
        Ok(Self { name, config, base_url, client })
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}

/// The address with a slash at the end of its path, as paths are joined to it.
fn base_url(url: &str) -> Result<String, String> {
    let mut parsed = reqwest::Url::parse(url).map_err(|problem| problem.to_string())?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err("only http and https are spoken here".to_owned());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("a name or password has no place in an address; use api_key".to_owned());
    }
    if !parsed.path().ends_with('/') {
        let path = format!("{}/", parsed.path());
        parsed.set_path(&path);
    }
    Ok(parsed.to_string())
}
