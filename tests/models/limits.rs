use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aldis::agent::model::{Deltas, Limited, Limits, Model, ModelError, Reply, Request};
use aldis::failure::{Fault, Retry};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use tokio::time::Instant;

use crate::support::{Waiting, asking, reply};

/// Answers at once, and refuses the first time it is asked.
#[derive(Default)]
struct Hasty {
    asked: AtomicUsize,
    refuses_first_for: Option<u64>,
}

impl Model for Hasty {
    fn name(&self) -> &str {
        "hasty"
    }

    fn ask<'a>(&'a self, request: &'a Request, _: &'a Deltas) -> BoxFuture<'a, Result<Reply, ModelError>> {
        Box::pin(async move {
            let first = self.asked.fetch_add(1, Ordering::SeqCst) == 0;
            match self.refuses_first_for {
                Some(ms) if first => Err(ModelError::RateLimited {
                    model: request.model.clone(),
                    retry_after_ms: Some(ms),
                    cause: "slow down".to_owned(),
                }),
                _ => Ok(reply("done")),
            }
        })
    }
}

async fn ask(model: &dyn Model) -> Result<Reply, ModelError> {
    model.ask(&asking("x"), &Deltas::ignored()).await
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_may_be() {
    let waiting = Arc::new(Waiting::default());
    let limited = Arc::new(Limited::new(waiting.clone(), Limits { concurrent: 3, ..Limits::default() }));
    let asks: Vec<_> = (0..10)
        .map(|_| {
            let limited = Arc::clone(&limited);
            tokio::spawn(async move { ask(limited.as_ref()).await })
        })
        .collect();
    for _ in 0..10 {
        while waiting.now.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        waiting.go.notify_one();
        tokio::task::yield_now().await;
    }
    for asked in join_all(asks).await {
        asked.expect("a task").expect("an answer");
    }
    assert_eq!((waiting.most.load(Ordering::SeqCst), waiting.asked.load(Ordering::SeqCst)), (3, 10));
}

#[tokio::test]
async fn a_dropped_call_gives_its_place_back() {
    let waiting = Arc::new(Waiting::default());
    let limited = Limited::new(waiting.clone(), Limits { concurrent: 1, ..Limits::default() });
    let mut first = Box::pin(ask(&limited));
    assert!((&mut first).now_or_never().is_none());
    drop(first);
    waiting.go.notify_one();
    ask(&limited).await.expect("an answer");
}

#[tokio::test(start_paused = true)]
async fn a_minute_has_no_more_requests_than_it_may() {
    let limits = Limits { requests_per_minute: Some(2), ..Limits::default() };
    let limited = Limited::new(Arc::new(Hasty::default()), limits);
    let begun = Instant::now();
    let mut at = Vec::new();
    for _ in 0..5 {
        ask(&limited).await.expect("an answer");
        at.push(begun.elapsed().as_secs());
    }
    assert_eq!(at, [0, 0, 60, 60, 120]);
}

#[tokio::test(start_paused = true)]
async fn a_minute_costs_no_more_tokens_than_it_may_once_they_are_counted() {
    let limits = Limits { tokens_per_minute: Some(3), ..Limits::default() };
    let limited = Limited::new(Arc::new(Hasty::default()), limits);
    let begun = Instant::now();
    let mut at = Vec::new();
    for _ in 0..4 {
        ask(&limited).await.expect("an answer");
        at.push(begun.elapsed().as_secs());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(at, [0, 1, 60, 61]);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_asks_to_be_left_alone_is_left_alone_by_all() {
    let hasty = Hasty { refuses_first_for: Some(5_000), ..Hasty::default() };
    let limited = Limited::new(Arc::new(hasty), Limits::default());
    let begun = Instant::now();
    let refused = ask(&limited).await.expect_err("a refusal");
    assert_eq!(refused.retry(), Retry::AfterMillis(5_000));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    join_all((0..3).map(|_| ask(&limited))).await.into_iter().for_each(|answer| drop(answer.expect("an answer")));
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_too_long_is_told_when_to_come_back() {
    let hasty = Hasty { refuses_first_for: Some(3_600_000), ..Hasty::default() };
    let limited = Limited::new(Arc::new(hasty), Limits::default());
    drop(ask(&limited).await);
    let held = ask(&limited).await.expect_err("held back");
    assert_eq!(held.retry(), Retry::AfterMillis(3_600_000));
    insta::assert_snapshot!(held, @"model hasty/m is asked too often: it is held back here, the provider asked to be left alone");
}
