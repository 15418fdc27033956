//! Requests read by hand, so that whatever is wrong with one is told in our form (H2.2).

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::error::Problem;
use super::state::Shared;
use crate::clock::Instant;

/// A JSON body. An absent one is read as `{}`, and the content type does not count (H1.2); unknown fields are ignored (H1.4).
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Problem> {
        // Here too, because not every answer is bound in time.
        let read = tokio::time::timeout(shared.options.timeout, Bytes::from_request(request, shared));
        let bytes = read.await.map_err(|_| Problem::too_slow())?.map_err(unread)?;
        let bytes: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let read = serde_path_to_error::deserialize(&mut json).map_err(|e| unfit(&e))?;
        json.end().map_err(|e| Problem::body("body", e.to_string()))?;
        Ok(Self(read))
    }
}

fn unread(rejection: BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the request's body is too large")
                .remedied("keep large files elsewhere and send their addresses")
        }
        _ => Problem::body("body", rejection.body_text()),
    }
}

/// Some fields of a body that was read.
pub(super) fn part<T: DeserializeOwned>(body: &serde_json::Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(body).map_err(|e| unfit(&e))
}

fn unfit(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let said = error.inner().to_string();
    if !error.inner().is_data() {
        return Problem::body("body", said);
    }
    // Where in the text is of no use to who wrote it as an object.
    let said = said.rfind(" at line ").map_or(said.as_str(), |end| &said[..end]);
    let path = error.path().to_string();
    let within = if path == "." { "" } else { path.as_str() };
    let missing = said.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    let field = match (within, missing) {
        ("", None) => "root".to_owned(),
        (within, None) => within.to_owned(),
        ("", Some(name)) => name.to_owned(),
        (within, Some(name)) => format!("{within}.{name}"),
    };
    Problem::body(field, said)
}

/// The parameters of the query, by their names; of several of one name the last.
pub(super) struct Query(BTreeMap<String, String>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|e| Problem::query("root", e.body_text()))?;
        Ok(Self(pairs.0.into_iter().collect()))
    }
}

impl Query {
    /// A parameter that is there and not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|text| !text.is_empty()).cloned()
    }

    /// A parameter that has to be there.
    pub(super) fn required(&self, name: &str) -> Result<String, Problem> {
        self.text(name).ok_or_else(|| Problem::query(name, "it is required"))
    }

    /// A number that is not negative.
    pub(super) fn count(&self, name: &str, default: usize) -> Result<usize, Problem> {
        match self.text(name) {
            Some(text) => text
                .parse()
                .map_err(|_| Problem::query(name, format!("expected a number that is not negative, found {text:?}"))),
            None => Ok(default),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name).as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(Problem::query(name, format!("expected true or false, found {other:?}"))),
        }
    }

    /// A parameter that holds JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let read = serde_json::from_str(&text);
        read.map(Some).map_err(|e| Problem::query(name, format!("it cannot be read as JSON: {e}")))
    }
}

/// An instant as the wire writes it.
pub(super) fn instant(name: &str, text: &str) -> Result<Instant, Problem> {
    let at: Result<jiff::Timestamp, _> = text.parse();
    at.map(|at| Instant(at.as_millisecond()))
        .map_err(|e| Problem::query(name, format!("expected an instant such as 2026-01-02T03:04:05.000Z: {e}")))
}

/// The sender's key of a request that it may repeat (H13.1).
pub(super) struct IdempotencyKey(pub(super) Option<String>);

/// The most bytes of such a key.
const KEY_BYTES_MAX: usize = 255;

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.headers)
    }
}

impl IdempotencyKey {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get("idempotency-key") else { return Ok(Self(None)) };
        let text = value.to_str().ok().filter(|text| !text.is_empty() && text.len() <= KEY_BYTES_MAX);
        let invalid = || {
            let what = format!("an Idempotency-Key has 1 to {KEY_BYTES_MAX} visible ASCII characters");
            Problem::new(StatusCode::BAD_REQUEST, "idempotency_key_invalid", what)
        };
        text.map(|text| Self(Some(text.to_owned()))).ok_or_else(invalid)
    }
}
