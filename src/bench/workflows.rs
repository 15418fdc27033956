//! The workflows that are measured, written as a user writes them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aldis::{Context, Failure, Signal, Step, Workflow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a step takes and gives: about as long as makes a journal line of a hundred bytes.
pub(super) const FILLER: &str = "0123456789abcdef0123456789abcdef";

const STEP: Step<String, String> = Step::new("work");
pub(super) const GO: Signal<String> = Signal::new("go");

pub(super) const SEQ: &str = "bench_seq";
pub(super) const WAIT: &str = "bench_wait";
pub(super) const FANOUT: &str = "bench_fanout";

/// How much a run has to do.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct Work {
    pub(super) steps: u32,
}

/// When each step's body was begun.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks(Arc<Mutex<Vec<Instant>>>);

impl Marks {
    fn mark(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }

    pub(super) fn taken(&self) -> Vec<Instant> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) fn all() -> Vec<Workflow> {
    vec![Workflow::new(SEQ, seq), Workflow::new(WAIT, wait).signal(&GO), Workflow::new(FANOUT, fanout)]
}

/// As [`SEQ`], and notes when each body begins.
pub(super) fn marking(marks: Marks) -> Workflow {
    Workflow::new(SEQ, move |cx, work| marked(cx, work, marks.clone()))
}

async fn seq(cx: Context, work: Work) -> Result<u32, Failure> {
    for _ in 0..work.steps {
        cx.step(&STEP, FILLER.to_owned(), |_, text| async move { Ok(text) }).await?;
    }
    Ok(work.steps)
}

async fn marked(cx: Context, work: Work, marks: Marks) -> Result<u32, Failure> {
    for _ in 0..work.steps {
        let marks = marks.clone();
        let body = move |_, text| {
            marks.mark();
            async move { Ok(text) }
        };
        cx.step(&STEP, FILLER.to_owned(), body).await?;
    }
    Ok(work.steps)
}

async fn wait(cx: Context, _: Work) -> Result<String, Failure> {
    Ok(cx.signal(&GO).await?)
}

async fn fanout(cx: Context, work: Work) -> Result<usize, Failure> {
    let steps = (0..work.steps).map(|_| cx.step(&STEP, FILLER.to_owned(), |_, text| async move { Ok(text) }));
    let done = cx.join_all(steps).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(done.len())
}
