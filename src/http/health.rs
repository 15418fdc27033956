//! Whether the server lives, whether it can be sent requests, and what it has counted.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::caller::Caller;
use super::error::Problem;
use super::state::Shared;

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/health", get(health)).route("/ready", get(ready))
}

/// What is not for everybody who may know that the server lives.
pub(super) fn counts() -> Router<Shared> {
    Router::new().route("/metrics", get(metrics))
}

/// The process answers; it says nothing about the store.
async fn health() -> axum::Json<Value> {
    axum::Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// The store answers, and the server is not about to end.
async fn ready(State(shared): State<Shared>) -> Result<axum::Json<Value>, Problem> {
    if shared.draining.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "this server is about to end"));
    }
    let workers = shared.client.workers().await?.len();
    Ok(axum::Json(json!({ "status": "ready", "workers": workers })))
}

async fn metrics(State(shared): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    caller.sees_everything()?;
    let text = shared.metrics.text();
    let text = text.map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", e.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
