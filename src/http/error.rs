//! The one form of an error on the wire (H2): `{"error", "code", "issues"?, "remedy"?}`, and what each refusal is in HTTP.

use std::any::Any;
use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::intake::InputError;
use crate::runtime::Error;

/// How long a client is asked to wait where there is too much to do.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request was not done. Its JSON is the body of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The status of the answer.
    #[serde(skip)]
    pub status: StatusCode,
    /// What is wrong, for people.
    pub error: String,
    /// The same for programs; never changes.
    pub code: &'static str,
    /// Which fields are wrong, if it is a matter of fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub issues: Vec<Issue>,
    /// What may help, where the sentence does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Cow<'static, str>>,
    /// When to try again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Issue {
    /// Its dotted path; `root` for the whole, `body` for what is no JSON.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl Problem {
    /// A problem without more to say.
    pub(super) fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), code, issues: Vec::new(), remedy: None, retry_after_ms: None }
    }

    /// With what may help.
    pub(super) fn remedied(self, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// A field of the body that is wrong.
    pub(super) fn body(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid("Invalid request body", field, message)
    }

    /// A parameter of the query that is wrong.
    pub(super) fn query(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid("Invalid query parameters", field, message)
    }

    fn invalid(what: &str, field: impl Into<String>, message: impl Into<String>) -> Self {
        let issue = Issue { field: field.into(), message: message.into() };
        Self { issues: vec![issue], ..Self::new(StatusCode::BAD_REQUEST, "request_invalid", what) }
    }

    /// The thread is somebody else's.
    pub(super) fn foreign_thread() -> Self {
        Self::new(StatusCode::FORBIDDEN, "thread_foreign", "Access denied: thread belongs to a different resource")
    }

    /// There is no such thread.
    pub(super) fn no_thread() -> Self {
        Self::new(StatusCode::NOT_FOUND, "thread_unknown", "Thread not found")
    }

    /// Connections are kept for requests.
    pub(super) fn too_many_streams() -> Self {
        let what = "this server has as many streams open as it may have";
        Self {
            retry_after_ms: Some(RETRY_AFTER.as_millis() as u64),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", what)
        }
        .remedied("come again, or ask another server; who operates it may raise its connections-max")
    }

    /// It was given up.
    pub(super) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the request took too long and was given up")
            .remedied("what it asked may have been done; send it again with the same id or Idempotency-Key")
    }

    /// The run that was addressed is not there, or has ended (H2.3).
    pub(super) fn no_active_run() -> Self {
        Self::new(StatusCode::NOT_FOUND, "run_not_active", "No active agent run found for signal target")
            .remedied("leave runId out to reach the thread itself")
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::Input(InputError::UnknownAgent { agent, known }) => {
                let problem =
                    Self::new(StatusCode::NOT_FOUND, "agent_unknown", format!("Agent with id {agent} not found"));
                return match known.is_empty() {
                    true => problem.remedied("no agent is declared in this store"),
                    false => problem.remedied(format!("here are: {}", known.join(", "))),
                };
            }
            Error::UnknownThread { .. } => return Self::no_thread(),
            Error::ForeignThread { .. } => return Self::foreign_thread(),
            _ => {}
        }
        let code = error.code();
        match code {
            "thread_foreign" => return Self::foreign_thread(),
            "run_not_active" => return Self::no_active_run(),
            _ => {}
        }
        let status = status_of(code);
        let too_much = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let remedy = match &error {
            Error::Input(InputError::Signal(refused)) => refused.remedy().map(Cow::Borrowed),
            _ => None,
        };
        Self {
            remedy,
            retry_after_ms: too_much.then_some(RETRY_AFTER.as_millis() as u64),
            ..Self::new(status, code, with_causes(&error))
        }
    }
}

/// The status of a refusal. 5xx only where nothing was accepted: clients send it again (H1.7).
fn status_of(code: &str) -> StatusCode {
    match code {
        "agent_unknown" | "thread_unknown" | "call_not_waiting" | "run_unknown" | "run_not_active"
        | "workflow_unknown" => StatusCode::NOT_FOUND,
        "chunks_gone" => StatusCode::GONE,
        "thread_foreign" => StatusCode::FORBIDDEN,
        "call_answered_otherwise"
        | "signal_conflict"
        | "message_ambiguous"
        | "run_closed"
        | "run_id_in_use"
        | "run_open"
        | "run_ended"
        | "update_unanswered"
        | "state_unchanged" => StatusCode::CONFLICT,
        "payload_too_large" | "too_many_bytes" | "too_many_attributes" => StatusCode::PAYLOAD_TOO_LARGE,
        "too_many_pending" | "overloaded" => StatusCode::TOO_MANY_REQUESTS,
        "store_unavailable" | "store_closed" | "stopping" => StatusCode::SERVICE_UNAVAILABLE,
        "store_corrupt" | "store_not_opened" | "registry_invalid" | "engine_elsewhere" | "journal_unreadable"
        | "workflow_unusable" | "value_unencodable" | "value_undecodable" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// An error's text and those of its causes, each after a colon, none twice.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::error!(code = self.code, error = self.error, "a request could not be done");
        }
        let retry = self.retry_after_ms.map(|ms| HeaderValue::from(ms.div_ceil(1_000)));
        let mut response = (self.status, axum::Json(&self)).into_response();
        if let Some(retry) = retry {
            response.headers_mut().insert(header::RETRY_AFTER, retry);
        }
        response
    }
}

/// H12.2.
pub(super) async fn no_such_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "route_unknown", "Not found")
}

pub(super) async fn no_such_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed")
}

/// A request that was given up, in our form (H1.5).
pub(super) async fn in_json(response: Response) -> Response {
    let is_ours = response.headers().contains_key(header::CONTENT_TYPE);
    let mut response = match response.status() {
        StatusCode::REQUEST_TIMEOUT if !is_ours => Problem::too_slow().into_response(),
        _ => response,
    };
    // The rest of the request is not read any more, so the connection ends with this: the client is not to use it again.
    if matches!(response.status(), StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A handler that has panicked: a fault of ours, told without its insides.
pub(super) fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let said = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref::<&str>().copied());
    tracing::error!(panic = said.unwrap_or("without words"), "a handler has panicked");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server has failed on this request")
        .remedied("its log says more, under the request's id")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{self, NotReceived};

    #[test]
    fn a_refusal_says_what_is_wrong_and_what_helps() {
        let unknown = InputError::UnknownAgent { agent: "x".into(), known: vec!["demo".into()] };
        let problem = Problem::from(Error::from(unknown));
        assert_eq!(problem.status, StatusCode::NOT_FOUND);
        insta::assert_snapshot!(
            serde_json::to_string(&problem).unwrap(),
            @r#"{"error":"Agent with id x not found","code":"agent_unknown","remedy":"here are: demo"}"#
        );
    }

    #[test]
    fn too_much_is_told_with_when_to_come_back() {
        let problem = Problem::from(Error::from(InputError::from(NotReceived::TooManyPending {
            thread: crate::id::ThreadId::parse("t").unwrap(),
            pending: 5,
            limit: 5,
        })));
        assert_eq!((problem.status, problem.retry_after_ms), (StatusCode::TOO_MANY_REQUESTS, Some(1_000)));
    }

    #[test]
    fn a_store_that_is_out_of_reach_is_worth_another_try() {
        let problem = Problem::from(Error::from(store::Error::Closed));
        assert_eq!(problem.status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
