//! Threads: what is sent to them, what was said on them, and the calls that wait for somebody.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Client, Error, Stream};

/// A message to an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    text: String,
    category: String,
    id: Option<String>,
}

impl Message {
    /// A user's message.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), category: "user".to_owned(), id: None }
    }

    /// The sender's own id of it: the same again is the same message.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// A signal of another category: `notification`, `reactive` or `state`.
    #[must_use]
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.category = category.into();
        self
    }
}

/// What became of a message. It is durable.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// The run that takes it; the message's own id if no run does.
    #[serde(rename = "runId")]
    pub run: String,
    /// The message as it was accepted.
    pub signal: Map<String, Value>,
    /// Where it went: `wake`, `deliver`, `persist` or `discard`.
    pub action: String,
}

impl Sent {
    /// The message's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.signal.get("id").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether a run takes it.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        matches!(self.action.as_str(), "wake" | "deliver")
    }
}

/// A thread, its owner, and the agent that answers.
#[derive(Debug, Clone)]
pub struct Thread {
    client: Client,
    agent: String,
    thread: String,
    resource: String,
}

/// A thread in a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThreadRow {
    /// Its id.
    pub id: String,
    /// Its owner.
    pub resource_id: String,
    /// Its title.
    pub title: Option<String>,
    /// When it was made, as of RFC 3339.
    pub created_at: String,
    /// When it was changed.
    pub updated_at: String,
}

/// Threads of a page.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// The one that was changed last first.
    pub threads: Vec<ThreadRow>,
    /// How many there are in all.
    pub total: usize,
}

/// A run that waits for somebody.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SuspendedRun {
    /// The run.
    pub run_id: String,
    /// Its thread.
    pub thread_id: String,
    /// The thread's owner.
    pub resource_id: String,
    /// Since when, as of RFC 3339.
    pub suspended_at: String,
    /// With which calls.
    pub tool_calls: Vec<OpenCall>,
}

/// A call that waits for somebody.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenCall {
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub tool_name: String,
    /// What it is called with.
    pub args: Value,
    /// Whether somebody must agree.
    pub requires_approval: bool,
    /// What it asks, if it asks something.
    #[serde(default)]
    pub suspend_payload: Option<Value>,
}

/// Runs that wait for somebody; the one that waits longest first.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SuspendedRuns {
    /// Those of the page.
    pub runs: Vec<SuspendedRun>,
    /// How many there are in all.
    pub total: usize,
}

/// An answer was taken.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    /// The run that goes on with it.
    #[serde(default)]
    pub run_id: Option<String>,
}

#[derive(Deserialize)]
struct Messages {
    messages: Vec<Value>,
}

impl Client {
    /// A thread, answered by an agent. Nothing is asked of the server yet.
    #[must_use]
    pub fn thread(&self, agent: impl Into<String>, thread: impl Into<String>, resource: impl Into<String>) -> Thread {
        Thread { client: self.clone(), agent: agent.into(), thread: thread.into(), resource: resource.into() }
    }

    /// Threads, of one owner or of all whose threads the key opens.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn threads(&self, resource: Option<&str>, page: usize, per_page: usize) -> Result<Listed, Error> {
        let mut query = vec![
            ("page", page.to_string()),
            ("perPage", per_page.to_string()),
            ("orderBy", r#"{"field":"updatedAt","direction":"DESC"}"#.to_owned()),
        ];
        query.extend(resource.map(|resource| ("resourceId", resource.to_owned())));
        self.get(&["memory", "threads"], &query).await
    }

    /// Runs of an agent that wait for somebody. `asked` holds parameters of the route: `threadId`, `resourceId`, `fromDate`,
    /// `toDate`, `page`, `perPage`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn suspended_runs(&self, agent: &str, asked: &[(&str, String)]) -> Result<SuspendedRuns, Error> {
        self.get(&["agents", agent, "suspended-runs"], asked).await
    }
}

impl Thread {
    /// Sends a message: it wakes the agent, or is taken by the run that is under way.
    ///
    /// # Errors
    /// [`Error`]; nothing was accepted if it is [`Error::Refused`].
    pub async fn send(&self, message: &Message) -> Result<Sent, Error> {
        let Message { text, category, id } = message;
        let signal = match category.as_str() {
            "user" => json!({ "type": "user", "contents": text, "id": id }),
            other => json!({ "type": other, "contents": text, "id": id }),
        };
        let mut body = json!({ "threadId": self.thread, "resourceId": self.resource, "signal": signal });
        if id.is_none()
            && let Some(signal) = body["signal"].as_object_mut()
        {
            signal.remove("id");
        }
        self.post("signals", &body).await
    }

    /// Sends a message that gets a run of its own, after those before it.
    ///
    /// # Errors
    /// As [`Thread::send`].
    pub async fn queue(&self, message: &Message) -> Result<Sent, Error> {
        let body = json!({ "threadId": self.thread, "resourceId": self.resource, "message": message.text });
        let path = ["agents", &self.agent, "queue-message"];
        let request = self.client.request(reqwest::Method::POST, &path).json(&body).timeout(super::ANSWER_WITHIN);
        let request = match &message.id {
            Some(id) => request.header("idempotency-key", id),
            None => request,
        };
        super::read(self.client.sent(request).await?).await
    }

    /// What is said on it, after this cursor; from the current run's beginning if there is none. What is sent once this has
    /// returned is seen.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn subscribe(&self, after: Option<&str>) -> Result<Stream, Error> {
        let path = ["agents", &self.agent, "threads", "subscribe"].map(str::to_owned);
        Stream::open(self.client.clone(), path.to_vec(), self.thread.clone(), self.resource.clone(), after).await
    }

    /// Its latest messages, oldest first, as they are stored.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn messages(&self, limit: usize) -> Result<Vec<Value>, Error> {
        let query = [
            ("resourceId", self.resource.clone()),
            ("perPage", limit.to_string()),
            ("orderBy", r#"{"field":"createdAt","direction":"DESC"}"#.to_owned()),
        ];
        let path = ["memory", "threads", &self.thread, "messages"];
        self.client.get::<Messages>(&path, &query).await.map(|page| page.messages)
    }

    /// The calls that wait for somebody.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn waiting(&self) -> Result<Vec<OpenCall>, Error> {
        let asked = [("threadId", self.thread.clone()), ("resourceId", self.resource.clone())];
        let runs = self.client.suspended_runs(&self.agent, &asked).await?.runs;
        Ok(runs.into_iter().flat_map(|run| run.tool_calls).collect())
    }

    /// Answers a call that waits: lets it run or declines it, or gives what it asks. The same answer again is the same one.
    ///
    /// # Errors
    /// [`Error`]; code `call_not_waiting` or `call_answered_otherwise`.
    pub async fn answer(
        &self,
        call: &str,
        approved: bool,
        reason: Option<&str>,
        resume: Option<&Value>,
    ) -> Result<Answered, Error> {
        let mut body = json!({
            "threadId": self.thread, "resourceId": self.resource, "toolCallId": call, "approved": approved, "reason": reason,
        });
        if let Some(resume) = resume {
            body["resumeData"] = resume.clone();
        }
        self.post("send-tool-approval", &body).await
    }

    async fn post<T: serde::de::DeserializeOwned>(&self, route: &str, body: &Value) -> Result<T, Error> {
        self.client.post(&["agents", &self.agent, route], body).await
    }
}
