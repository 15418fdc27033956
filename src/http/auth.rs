//! Who may come in: programs that have a key, or a token that somebody trusted has signed. A stranger is told so before
//! anything of the request is looked at, and after many failed attempts nothing from there is looked at for a while.
//!
//! Nothing that proves anything is compared in a time that tells of it: of keys, SHA-256 digests are looked up, which nobody
//! can steer towards one that is kept; signatures are compared by `jsonwebtoken` in constant time. No key and no token is
//! logged, kept, or repeated in an answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::accept::Peer;
use super::caller::Caller;
use super::error::Problem;
use super::options::Keys;
use super::state::Shared;
use super::token::NotOpened;
use crate::runtime::Error;

/// Lets a request in that proves who asks, as that caller; any request, where nobody has to.
pub(super) async fn let_in(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match admit(&shared, &parts).await {
        Ok(Some(caller)) => drop(parts.extensions.insert(caller)),
        Ok(None) => {}
        Err(problem) => return refused(problem),
    }
    next.run(Request::from_parts(parts, body)).await
}

fn refused(problem: Problem) -> Response {
    let unproven = problem.status == StatusCode::UNAUTHORIZED;
    let mut response = problem.into_response();
    if unproven {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Who asks; nobody in particular, where nobody has to say.
async fn admit(shared: &Shared, request: &Parts) -> Result<Option<Caller>, Problem> {
    if !proof_is_asked_for(shared).await? {
        return Ok(None);
    }
    let proof = proof(&request.headers).ok_or_else(|| stranger("this server wants to know who asks"))?;
    let (from, now) = (source(shared, request), shared.client.clock().now());
    if let Some(rest) = from.and_then(|from| shared.failures.refused_for(from, now)) {
        let problem = Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_failures",
            "too many keys or tokens from this address have opened nothing",
        );
        let ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
        return Err(Problem { retry_after_ms: Some(ms), ..problem });
    }
    match caller(shared, proof).await? {
        Ok(caller) => Ok(Some(caller)),
        Err(why) => {
            if let (NotOpened::Forged(_), Some(from)) = (&why, from) {
                shared.failures.add(from, now);
            }
            Err(stranger(why.to_string()))
        }
    }
}

fn stranger(what: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", what)
        .remedied("send `Authorization: Bearer KEY`; `aldis keys create NAME` makes one")
}

/// Whether anybody has to prove who they are. Once there was a key it stays so, until the server is started again.
async fn proof_is_asked_for(shared: &Shared) -> Result<bool, Error> {
    if shared.options.jwt.is_some() || shared.keyed.load(Ordering::Acquire) {
        return Ok(true);
    }
    let keyed = match shared.options.keys {
        Keys::Ignored => return Ok(false),
        Keys::Required => true,
        Keys::OnceMade => shared.client.has_keys().await?,
    };
    shared.keyed.fetch_or(keyed, Ordering::AcqRel);
    Ok(keyed)
}

/// Whom a key or a token stands for.
async fn caller(shared: &Shared, proof: &str) -> Result<Result<Caller, NotOpened>, Error> {
    if let Some(key) = shared.client.key_of(proof).await? {
        return Ok(Ok(Caller { resource: key.resource }));
    }
    let Some(jwt) = shared.options.jwt.as_ref().filter(|_| !crate::runtime::looks_like_a_key(proof)) else {
        return Ok(Err(NotOpened::Forged("this key opens nothing here")));
    };
    let resource = jwt.resource(proof, shared.client.clock().now()).await;
    Ok(resource.map(|resource| Caller { resource: Some(resource) }))
}

/// What a request brings to prove who asks, by either of the headers in use.
fn proof(headers: &HeaderMap) -> Option<&str> {
    let given = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = given("authorization").and_then(|text| {
        let (scheme, secret) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    bearer.or_else(|| given("x-api-key"))
}

/// The address that a request comes from, if that is known: the last one that is no proxy of ours.
fn source(shared: &Shared, request: &Parts) -> Option<IpAddr> {
    let connected = request.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let peer = request.extensions.get::<Peer>().map(|peer| peer.0).or(connected)?.to_canonical();
    let proxies = &shared.options.proxies;
    if !proxies.contains(&peer) {
        return Some(peer);
    }
    let told = request.headers.get_all("x-forwarded-for").into_iter().filter_map(|told| told.to_str().ok());
    let told: Vec<&str> = told.flat_map(|told| told.split(',')).collect();
    let far = told.iter().rev().map_while(|address| address.trim().parse::<IpAddr>().ok());
    far.map(|address| address.to_canonical()).find(|address| !proxies.contains(address)).or(Some(peer))
}
