//! Who may come in: programs that have a key. A stranger is told so before anything of the request is looked at.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::caller::Caller;
use super::error::Problem;
use super::state::Shared;

/// Lets a request in that has a key, as that key's caller; any request, where no keys are asked for.
pub(super) async fn let_in(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    if shared.options.keys {
        match caller(&shared, request.headers()).await {
            Ok(caller) => drop(request.extensions_mut().insert(caller)),
            Err(problem) => return refused(problem),
        }
    }
    next.run(request).await
}

fn refused(problem: Problem) -> Response {
    let unproven = problem.status == StatusCode::UNAUTHORIZED;
    let mut response = problem.into_response();
    if unproven {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

async fn caller(shared: &Shared, headers: &HeaderMap) -> Result<Caller, Problem> {
    let stranger = |what: &str| {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", what)
            .remedied("send `Authorization: Bearer KEY`; `aldis keys create NAME` makes one")
    };
    let secret = secret(headers).ok_or_else(|| stranger("this server wants to know who asks"))?;
    let key = shared.client.key_of(secret).await?.ok_or_else(|| stranger("this key opens nothing here"))?;
    Ok(Caller { resource: key.resource })
}

/// The key that a request brings, by either of the headers in use.
fn secret(headers: &HeaderMap) -> Option<&str> {
    let given = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = given("authorization").and_then(|text| {
        let (scheme, secret) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    bearer.or_else(|| given("x-api-key"))
}
