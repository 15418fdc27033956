//! Whether the server lives, whether it can be sent requests, and what it has counted.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::error::Problem;
use super::state::Shared;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready))
}

/// What is not for everybody who may know that the server lives.
pub(super) fn counts() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// The process answers; it says nothing about the store.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    tag = "Server",
    summary = "Says that the process answers",
    description = "It says nothing of the store.",
    security(()),
    responses((status = 200, description = "It does", body = Object, example = json!({ "status": "ok", "version": "0.1.0" })))
)]
async fn health() -> axum::Json<Value> {
    axum::Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// The store answers, and the server is not about to end.
#[utoipa::path(
    get,
    path = "/ready",
    operation_id = "ready",
    tag = "Server",
    summary = "Says whether requests can be sent here",
    description = "The store answers, and the server is not about to end; else 503.",
    security(()),
    responses((status = 200, description = "They can", body = Object, example = json!({ "status": "ready", "workers": 1 })))
)]
async fn ready(State(shared): State<Shared>) -> Result<axum::Json<Value>, Problem> {
    if shared.draining.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "this server is about to end"));
    }
    let workers = shared.client.workers().await?.len();
    Ok(axum::Json(json!({ "status": "ready", "workers": workers })))
}

#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "Server",
    summary = "Counts, as Prometheus reads them",
    description = "Not for keys that open one resource.",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"))
)]
async fn metrics(State(shared): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    caller.sees_everything()?;
    let text = shared.metrics.text();
    let text = text.map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", e.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
