//! How often and how many at a time a provider is asked.
//!
//! The limits of [`LocalGate`] are those of one process; a gate that several processes share can take its place.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Deltas, Model, ModelError, Reply, Request};

const WINDOW: Duration = Duration::from_secs(60);

/// What one provider allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many requests may be under way at a time.
    pub concurrent: usize,
    /// How many requests may begin in any minute.
    pub requests_per_minute: Option<u32>,
    /// How many tokens any minute may cost. Counted when a reply is there, so a minute may overshoot once.
    pub tokens_per_minute: Option<u64>,
    /// How long a request waits for its turn before it is refused and left to the step's policy.
    pub wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrent: 16, requests_per_minute: None, tokens_per_minute: None, wait_max: Duration::from_secs(60) }
    }
}

/// Who may ask now. One for each provider.
pub trait Gate: Send + Sync {
    /// Waits for a turn; the place is given back when the pass is dropped.
    fn enter(&self) -> BoxFuture<'_, Result<Pass, Held>>;

    /// Tells what an answer cost.
    fn spent(&self, tokens: u64);

    /// Lets nobody in for so long: the provider asked for it.
    fn hold(&self, span: Duration);
}

/// A turn to ask. Dropping it gives the place to the next.
pub struct Pass(#[allow(dead_code, reason = "what it holds is given back when it is dropped")] Box<dyn Any + Send>);

impl Pass {
    /// A pass that gives back `place` when it is dropped.
    pub fn holding(place: impl Any + Send) -> Self {
        Self(Box::new(place))
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pass")
    }
}

/// The turn would come too late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// When it is worth another try.
    pub retry_after: Duration,
    /// What holds it back, in words.
    pub why: String,
}

/// The gate of this process.
pub struct LocalGate {
    limits: Limits,
    places: Arc<Semaphore>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    begun: VecDeque<Instant>,
    spent: VecDeque<(Instant, u64)>,
    held_until: Option<Instant>,
}

impl LocalGate {
    /// A gate with these limits; at least one request may be under way.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let places = limits.concurrent.clamp(1, Semaphore::MAX_PERMITS);
        Self { limits, places: Arc::new(Semaphore::new(places)), seen: Mutex::default() }
    }

    /// Takes a turn now, or says how long to wait and for what.
    fn take(&self, now: Instant) -> Result<(), (Duration, &'static str)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.held_until = seen.held_until.filter(|until| *until > now);
        while seen.begun.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            seen.begun.pop_front();
        }
        while seen.spent.front().is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            seen.spent.pop_front();
        }
        if let Some(until) = seen.held_until {
            return Err((until - now, "the provider asked to be left alone"));
        }
        let left_of = |at: Instant| (at + WINDOW).saturating_duration_since(now);
        if let Some(most) = self.limits.requests_per_minute {
            let most = most.max(1) as usize;
            if let Some(at) = seen.begun.len().checked_sub(most).and_then(|over| seen.begun.get(over)) {
                return Err((left_of(*at), "as many requests as a minute may have have begun"));
            }
        }
        if let Some(most) = self.limits.tokens_per_minute {
            let mut over = seen.spent.iter().map(|(_, tokens)| *tokens).fold(0, u64::saturating_add);
            for (at, tokens) in &seen.spent {
                over = over.saturating_sub(*tokens);
                if over < most.max(1) && over.saturating_add(*tokens) >= most.max(1) {
                    return Err((left_of(*at), "as many tokens as a minute may cost are spent"));
                }
            }
        }
        if self.limits.requests_per_minute.is_some() {
            seen.begun.push_back(now);
        }
        Ok(())
    }
}

impl Gate for LocalGate {
    fn enter(&self) -> BoxFuture<'_, Result<Pass, Held>> {
        Box::pin(async move {
            let deadline = Instant::now() + self.limits.wait_max;
            let Ok(place) = tokio::time::timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await else {
                let why = format!("all of the {} places are taken", self.limits.concurrent.max(1));
                return Err(Held { retry_after: Duration::from_secs(1), why });
            };
            loop {
                let now = Instant::now();
                let Err((wait, why)) = self.take(now) else { break };
                if now + wait > deadline {
                    return Err(Held { retry_after: wait, why: why.to_owned() });
                }
                tokio::time::sleep(wait).await;
            }
            Ok(Pass::holding(place))
        })
    }

    fn spent(&self, tokens: u64) {
        if self.limits.tokens_per_minute.is_some() {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.spent.push_back((Instant::now(), tokens));
        }
    }

    fn hold(&self, span: Duration) {
        let Some(until) = Instant::now().checked_add(span) else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.held_until = Some(seen.held_until.map_or(until, |held| held.max(until)));
    }
}

/// A model behind a gate. A provider that asks to be left alone is left alone by all who ask through the same gate.
pub struct Limited {
    inner: Arc<dyn Model>,
    gate: Arc<dyn Gate>,
}

impl Limited {
    /// The model, with limits of this process.
    #[must_use]
    pub fn new(inner: Arc<dyn Model>, limits: Limits) -> Self {
        Self::behind(inner, Arc::new(LocalGate::new(limits)))
    }

    /// The model, behind a gate that others may pass too.
    #[must_use]
    pub fn behind(inner: Arc<dyn Model>, gate: Arc<dyn Gate>) -> Self {
        Self { inner, gate }
    }
}

impl Model for Limited {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn ask<'a>(&'a self, request: &'a Request, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, ModelError>> {
        Box::pin(async move {
            let pass = self.gate.enter().await.map_err(|Held { retry_after, why }| ModelError::RateLimited {
                model: format!("{}/{}", self.inner.name(), request.model),
                retry_after_ms: Some(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX).max(1)),
                cause: format!("it is held back here, {why}"),
            })?;
            let answer = self.inner.ask(request, deltas).await;
            match &answer {
                Ok(reply) => self.gate.spent(reply.usage.total),
                Err(error) => {
                    if let Some(span) = error.retry_after() {
                        self.gate.hold(span);
                    }
                }
            }
            drop(pass);
            answer
        })
    }
}
