//! The reference of the routes for programs: OpenAPI 3.1 at `/openapi.json`, made from the handlers, so that a route which is
//! not in it is not served. What all routes have in common is said here once: how to prove who asks, and what a refusal is.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{Issue, Problem};
use super::state::Shared;
use super::{docs, shapes};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Aldis",
        description = "Agents that wait: threads, messages, signals and runs, kept durably. What was answered with 200 to \
                       something sent is on disk. Fields of a body that are not known are ignored; instants are texts such \
                       as `2026-01-02T03:04:05.000Z`, except under `/runs`, where they are milliseconds since 1970.",
    ),
    components(schemas(Problem, Issue)),
    tags(
        (name = "Agents", description = "Which agents there are."),
        (name = "Messages and signals", description = "What is sent to a thread, and taken back."),
        (name = "Direct calls", description = "Something is said, and its answer comes with the request's own."),
        (name = "Subscriptions", description = "What is said on a thread, as it is said."),
        (name = "Approvals", description = "Calls that wait for somebody."),
        (name = "Threads", description = "Threads and their messages, as interfaces list them."),
        (name = "Workflows", description = "Workflows and their runs, as interfaces speak of them."),
        (name = "Runs", description = "Runs of every workflow, as who operates Aldis looks at them."),
        (name = "Server", description = "How the server is."),
    )
)]
struct Common;

/// What is said of all routes, before there is one.
pub(super) fn common() -> utoipa::openapi::OpenApi {
    Common::openapi()
}

/// The reference, for programs and for people.
#[derive(Debug)]
pub(super) struct Reference {
    json: Bytes,
    page: Bytes,
}

impl Reference {
    pub(super) fn new(document: &utoipa::openapi::OpenApi) -> Self {
        // Plain data with texts as keys cannot fail to become JSON.
        let document = completed(serde_json::to_value(document).unwrap_or_default());
        Self { json: format!("{document:#}\n").into(), page: docs::page(&document).into() }
    }
}

/// The routes of the reference itself.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(openapi)).routes(routes!(page))
}

#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "Server",
    summary = "This reference, for programs",
    description = "OpenAPI 3.1.",
    security(()),
    responses((status = 200, description = "The document", body = Object))
)]
async fn openapi(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], shared.reference.json.clone()).into_response()
}

#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "docs",
    tag = "Server",
    summary = "This reference, for people",
    description = "A page without scripts and without anything from elsewhere.",
    security(()),
    responses((status = 200, description = "The page", body = String, content_type = "text/html"))
)]
async fn page(State(shared): State<Shared>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        // Its own style, and nothing else from anywhere.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
        ),
    ];
    (headers, shared.reference.page.clone()).into_response()
}

/// Fields that mean the same in every body: what they say, and whether they are ids.
const FIELDS: [(&str, &str, bool); 7] = [
    ("threadId", "The thread.", true),
    ("resourceId", "The thread's owner; with a key that opens one resource, that one counts.", false),
    ("runId", "The run.", true),
    ("expectedRunId", "Only if this run has the thread.", true),
    ("toolCallId", "The call.", false),
    ("approved", "Whether it may run.", false),
    ("reason", "Why, for the model and for the journal.", false),
];

/// Says of a form's fields what is the same everywhere.
fn explained(form: &mut Value) {
    for (field, says, is_id) in FIELDS {
        let described = form.get_mut("properties").and_then(|fields| fields.get_mut(field)?.as_object_mut());
        let Some(described) = described else { continue };
        described.entry("description").or_insert_with(|| says.into());
        if is_id {
            described.insert("minLength".to_owned(), 1.into());
            described.insert("maxLength".to_owned(), 200.into());
            described.insert("pattern".to_owned(), shapes::ID.into());
        }
    }
}

/// With what all operations have in common.
fn completed(mut document: Value) -> Value {
    for (name, form) in shapes::forms() {
        document["components"]["schemas"][name] = form;
    }
    let forms = document["components"]["schemas"].as_object_mut().into_iter();
    forms.flat_map(|forms| forms.values_mut()).for_each(explained);
    document["components"]["securitySchemes"] = json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A key (`aldis keys create NAME`), or a token (JWT) of whoever the server was told of.",
        },
        "key": { "type": "apiKey", "in": "header", "name": "x-api-key", "description": "A key." },
    });
    // A server of one machine may ask nobody.
    document["security"] = json!([{ "bearer": [] }, { "key": [] }, {}]);
    let refusal = json!({
        "description": "A refusal. 5xx only where nothing was accepted, so that it may be sent again.",
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in paths.filter_map(Value::as_object_mut).flat_map(|path| path.values_mut()) {
        if let Some(responses) = operation["responses"].as_object_mut() {
            responses.insert("default".to_owned(), refusal.clone());
        }
    }
    document
}
