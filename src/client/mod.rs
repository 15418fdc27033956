//! A client of `aldis serve`, over HTTP: what the command line uses with `--server`, and any Rust program may.
//!
//! ```no_run
//! use aldis::client::{Client, Error, Message};
//!
//! async fn ask() -> Result<(), Error> {
//!     let client = Client::new("http://127.0.0.1:4111")?.key(std::env::var("ALDIS_KEY").unwrap_or_default());
//!     let thread = client.thread("support", "t-1", "ann");
//!     let mut stream = thread.subscribe(None).await?;
//!     let sent = thread.send(&Message::new("Where is A-1?").id("m-1")).await?; // durable once this returns
//!     loop {
//!         let said = stream.next().await?; // goes on after its cursor, on any server of the store
//!         if said.chunk["type"] == "finish" && said.chunk["runId"] == sent.run.as_str() {
//!             return Ok(());
//!         }
//!     }
//! }
//! ```
//!
//! What the server refuses comes back as [`Error::Refused`], with its code and its remedy. A request is made once; what has an
//! id may be made again, and is the same one. Keys are in no text that comes from here. Knows no store and no engine.

mod error;
mod runs;
mod stream;
mod thread;

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use error::{Error, Issue};
pub use runs::{Accepted, RunsAsked, RunsPage};
pub use stream::{Said, Stream};
pub use thread::{Answered, Listed, Message, OpenCall, Sent, SuspendedRun, SuspendedRuns, Thread, ThreadRow};

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long an answer may take; a stream's is its first byte.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A server that says nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// A server, as its clients see it. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    web: reqwest::Client,
    base: Url,
    key: Option<SecretString>,
}

/// What a server says of itself to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its version.
    pub version: String,
    /// Its clock, in whole seconds since 1970, where it says that.
    pub at_seconds: Option<i64>,
}

impl Client {
    /// A client of a server: `http://host:4111`, or with the prefix of its routes if that is not `/api`.
    ///
    /// # Errors
    /// [`Error::Unusable`] if that is no address of a server.
    pub fn new(server: &str) -> Result<Self, Error> {
        let unusable = |problem: String| Error::Unusable { problem };
        let mut base = Url::parse(server)
            .map_err(|e| unusable(format!("the server's address cannot be understood: {e}; write http://HOST:PORT")))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(unusable(format!("{} is not spoken here; write http://HOST:PORT", base.scheme())));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(unusable("a name or password has no place in the server's address; give a key".to_owned()));
        }
        if base.path() == "/" {
            base.set_path("/api");
        }
        base.set_query(None);
        // An error only says that the process has a provider of cryptography already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let web = reqwest::Client::builder()
            .user_agent(concat!("aldis/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_WITHIN)
            // A stream says that it is alive more often than that.
            .read_timeout(SILENCE_MAX)
            .tcp_nodelay(true)
            // A redirect would take the key to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| unusable(e.without_url().to_string()))?;
        Ok(Self { web, base, key: None })
    }

    /// With this key, unless it is empty.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        let key = key.into();
        self.key = (!key.is_empty()).then(|| SecretString::from(key));
        self
    }

    /// The address that its routes begin with.
    #[must_use]
    pub fn base(&self) -> &str {
        self.base.as_str()
    }

    /// The names of the agents that answer there.
    ///
    /// # Errors
    /// [`Error`]; nothing has changed.
    pub async fn agents(&self) -> Result<Vec<String>, Error> {
        let agents: serde_json::Map<String, Value> = self.get(&["agents"], &[]).await?;
        Ok(agents.into_iter().map(|(name, _)| name).collect())
    }

    /// Whether the server lives; it says nothing of its store.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn health(&self) -> Result<Health, Error> {
        let response = self.sent(self.web.get(self.beside("/health"))).await?;
        let date = response.headers().get("date").and_then(|date| date.to_str().ok());
        let at_seconds =
            date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|at| at.timestamp().as_second());
        let told: Value = read(response).await?;
        Ok(Health { version: told["version"].as_str().unwrap_or_default().to_owned(), at_seconds })
    }

    /// Whether the server can be sent requests: its store answers. Gives the number of workers of the store.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Refused`] with code `stopping` if it is about to end.
    pub async fn ready(&self) -> Result<u64, Error> {
        let told: Value = read(self.sent(self.web.get(self.beside("/ready"))).await?).await?;
        Ok(told["workers"].as_u64().unwrap_or_default())
    }

    /// A route that is not below the prefix.
    fn beside(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // An address that was checked has a path.
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        url
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.web.request(method, self.url(path)).headers(self.headers())
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let bearer = self.key.as_ref().map(|key| HeaderValue::from_str(&format!("Bearer {}", key.expose_secret())));
        // A key that fits into no header opens nothing either: the server says so.
        if let Some(Ok(mut bearer)) = bearer {
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        headers
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T, Error> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        read(self.sent(self.web.get(url).headers(self.headers()).timeout(ANSWER_WITHIN)).await?).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, Error> {
        read(self.sent(self.request(Method::POST, path).json(body).timeout(ANSWER_WITHIN)).await?).await
    }

    /// An answer that is none of a refusal.
    async fn sent(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await.map_err(|source| self.unreachable(source))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(Error::refused(response).await)
    }

    fn unreachable(&self, source: reqwest::Error) -> Error {
        Error::Unreachable { server: self.base.to_string(), source: source.without_url() }
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, Error> {
    let misunderstood = |problem: String| Error::Misunderstood { problem };
    let text = response.text().await.map_err(|e| misunderstood(e.without_url().to_string()))?;
    serde_json::from_str(&text).map_err(|e| misunderstood(e.to_string()))
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}
