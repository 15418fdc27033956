//! Who asks, and whose threads they may see.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::error::Problem;
use crate::thread::Thread;

/// Who asks. Where nobody has to prove who they are, everybody may see everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Caller {
    /// The only resource whose threads it may touch; all if none.
    pub(super) resource: Option<String>,
}

impl Caller {
    /// The resource that a request is about: the caller's own in place of what the request says (H1.8).
    pub(super) fn resource(&self, asked: Option<String>) -> Option<String> {
        self.resource.clone().or(asked)
    }

    /// Whether it may see what belongs to no thread.
    pub(super) fn sees_everything(&self) -> Result<(), Problem> {
        match self.resource {
            None => Ok(()),
            Some(_) => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "resource_only",
                "Access denied: what belongs to no thread is not for those who may see one resource only",
            )),
        }
    }

    /// What journals say of who asked.
    pub(super) fn name(&self) -> &str {
        self.resource.as_deref().unwrap_or("a client over HTTP")
    }

    /// Whether it may see a thread; where the request names an owner too, whether that one may (T2.3).
    pub(super) fn may_see(&self, thread: &Thread, asked: Option<String>) -> Result<(), Problem> {
        match self.resource(asked) {
            Some(resource) if resource != thread.resource => Err(Problem::foreign_thread()),
            _ => Ok(()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}
