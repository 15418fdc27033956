//! Direct calls: something is said to an agent by somebody who waits for the whole answer (H9.3 to H9.6).

use std::fmt;

use serde_json::{Value, json};
use uuid::Uuid;

use super::Error;
use super::chunks::RunChunks;
use super::subscription::last_chunk;
use super::thread::{AgentHandle, ThreadHandle, check_turn};
use crate::agent::TurnOptions;
use crate::failure::Outcome;
use crate::id::{RunId, ThreadKey};
use crate::intake::{Direct, InputError, call_results};
use crate::message::{Generated, Given, Message, New};
use crate::run::Status;
use crate::store::{Foresee, NotReceived, Received, Window};
use crate::thread::CallResult;
use crate::workflows::turn::{RESULTS_LOOK_BACK, Turned};

/// What the ids of threads derive from that are made for one call and its repeats.
const ASIDE: Uuid = Uuid::from_u128(0x6f3c_24ad_8e51_4a7b_9d0f_51b2_c47e_90aa);

/// Something that is to be said to an agent, whose answer is waited for. Nothing happens before it is started.
#[derive(Debug, Clone)]
#[must_use = "nothing is said before it is started"]
pub struct DirectCall {
    to: Target,
    given: Given,
    options: TurnOptions,
    run: Option<RunId>,
    key: Option<String>,
}

#[derive(Debug, Clone)]
enum Target {
    Thread(ThreadHandle),
    /// A thread of the call's own, of this owner.
    Aside(AgentHandle, String),
}

/// A direct call that was accepted. It is durable: whoever waits for it may go away.
#[derive(Debug, Clone)]
pub struct DirectRun {
    thread: ThreadHandle,
    run: RunId,
    repeat: bool,
    /// The cursor that its chunks follow, if it is new.
    after: i64,
}

impl ThreadHandle {
    /// Something to be said on this thread, whose answer is waited for: `thread.direct("Hello").generate().await?`.
    ///
    /// What is said stands in the history as messages of role `user`, and subscribers get no echo of it (H9.6). It has a run
    /// of its own, behind the one that has the thread and behind what is queued (T2.6); where it gives what the client's own
    /// tools came to, ahead of what is queued (T9.7).
    pub fn direct(&self, given: impl Into<Given>) -> DirectCall {
        DirectCall::to(Target::Thread(self.clone()), given.into())
    }
}

impl AgentHandle {
    /// Something to be said outside of every conversation, by this owner. It gets a thread of its own, which no list shows:
    /// it keeps what was said as any thread does, is found by its run, and can be deleted.
    pub fn direct(&self, resource: impl Into<String>, given: impl Into<Given>) -> DirectCall {
        DirectCall::to(Target::Aside(self.clone(), resource.into()), given.into())
    }
}

impl DirectCall {
    fn to(to: Target, given: Given) -> Self {
        Self { to, given, options: TurnOptions::default(), run: None, key: None }
    }

    /// What is asked of the turn.
    pub fn options(self, options: TurnOptions) -> Self {
        Self { options, ..self }
    }

    /// The id of its run. The same id with the same messages is the same call, on this thread; no other run may have it. What
    /// goes on from the client's own tools is a run with an id of its own, one for each such id.
    pub fn run_id(self, run: RunId) -> Self {
        Self { run: Some(run), ..self }
    }

    /// A repeat with the same key within a day is the same call (T20.5).
    pub fn idempotency_key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Has it accepted. Once this returns it is durable, and its run begins as soon as the thread is free.
    ///
    /// # Errors
    /// If nothing is said, the agent is not known, or the thread is somebody else's; [`Error::NotWaiting`] for the result of a
    /// call that nobody has made; [`Error::AnsweredOtherwise`] for other results than before; if the id or the key came
    /// before with other messages, or the id is that of another run. Nothing was written.
    pub async fn start(self) -> Result<DirectRun, Error> {
        let thread = self.thread()?;
        let (New { messages, results }, after) = self.new_here(&thread).await?;
        if messages.is_empty() && results.is_empty() {
            let problem = "there is nothing new in them: expected what a user says, or what the client's tools came to";
            return Err(Error::Messages { problem: problem.to_owned() });
        }
        let turn = ThreadHandle::turn(&self.options)?;
        check_turn(&turn)?;
        let client = &thread.client;
        let at = client.clock().now();
        let said: Vec<Message> = messages.into_iter().map(|it| it.message(|| Uuid::now_v7().to_string(), at)).collect();
        let results = call_results(results);
        let direct = Direct {
            id: self.id(&results),
            contents: self.contents(&said, &results),
            key: self.key.clone(),
            run: self.run.clone().filter(|_| !self.continues()),
            said,
            results,
            turn,
            aside: matches!(self.to, Target::Aside(..)),
        };
        let keys = (ThreadKey(client.next_key().await?.0), client.next_key().await?);
        let engine = client.engine_with_room();
        let host = engine.as_deref().map(|engine| engine as &dyn Foresee);
        let Received { run, repeat, .. } =
            client.inner.door.direct(keys, thread.to.clone(), direct, host).await.map_err(|e| self.refused(e))?;
        let nobody = || Error::NotWaiting { thread: thread.to.thread.to_string(), call: String::new() };
        Ok(DirectRun { run: run.ok_or_else(nobody)?, thread, repeat, after })
    }

    /// Has it accepted, and waits for the whole answer.
    ///
    /// # Errors
    /// As [`DirectCall::start`]; then only if the store cannot be read. A run that fails says so in its answer.
    pub async fn generate(self) -> Result<Generated, Error> {
        self.start().await?.generated().await
    }

    /// Whether it goes on from what the client's own tools came to.
    fn continues(&self) -> bool {
        !self.given.answers().is_empty()
    }

    /// The thread; of one of the call's own, that of its repeats.
    fn thread(&self) -> Result<ThreadHandle, Error> {
        let (agent, resource) = match &self.to {
            Target::Thread(thread) => return Ok(thread.clone()),
            Target::Aside(agent, resource) => (agent, resource),
        };
        let id = match (&self.run, &self.key) {
            (None, None) => Uuid::new_v4(),
            (run, key) => {
                let named = json!([agent.name(), resource, run, key, self.given.answers()]);
                Uuid::new_v5(&ASIDE, named.to_string().as_bytes())
            }
        };
        agent.thread(&id.to_string(), resource)
    }

    /// What of it is new on a thread, and the cursor of the last chunk there.
    async fn new_here(&self, thread: &ThreadHandle) -> Result<(New, i64), Error> {
        let found = thread.find().await?;
        let after = match &found {
            Some(found) => last_chunk(thread.client.store(), found.key).await?,
            None => 0,
        };
        let goes_on = matches!(self.to, Target::Thread(_)) && self.given.looks_back();
        let history = match found {
            Some(_) if goes_on => thread.history(Window::latest(i64::MAX, RESULTS_LOOK_BACK)).await?,
            _ => Vec::new(),
        };
        let unknown = |call| Error::NotWaiting { thread: thread.to.thread.to_string(), call };
        Ok((self.given.new_to(&history).map_err(unknown)?, after))
    }

    /// What makes two calls on a thread the same one.
    fn id(&self, results: &[CallResult]) -> String {
        let mut calls: Vec<&str> = self.given.answers().iter().map(String::as_str).collect();
        match (&self.to, &self.run) {
            // Whoever else gives these results, by whatever way.
            (Target::Thread(_), _) if !results.is_empty() && self.continues() => Direct::id_of_results(&mut calls),
            (Target::Thread(_), Some(run)) => format!("run:{run}:{}", calls.join(",")),
            (Target::Thread(_), None) => Uuid::new_v4().to_string(),
            // The thread is that of this call and its repeats.
            (Target::Aside(..), _) => "direct".to_owned(),
        }
    }

    fn contents(&self, said: &[Message], results: &[CallResult]) -> Value {
        match said.is_empty() {
            true => json!(results),
            false => self.given.to_json(),
        }
    }

    fn refused(&self, error: InputError) -> Error {
        match (error, self.given.answers().first()) {
            (InputError::NotReceived(NotReceived::Conflict { id }), Some(call)) if id.starts_with("results:") => {
                Error::AnsweredOtherwise { call: call.clone() }
            }
            (error, _) => error.into(),
        }
    }
}

impl DirectRun {
    /// The run that answers.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// The thread that it answers.
    #[must_use]
    pub fn thread(&self) -> &ThreadHandle {
        &self.thread
    }

    /// Whether it had been accepted before: nothing was added, and its answer is that of the first.
    #[must_use]
    pub fn is_repeat(&self) -> bool {
        self.repeat
    }

    /// What the run says, from its first chunk on, until it ends or waits for somebody. Of a repeat, what is kept of it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn chunks(&self) -> Result<RunChunks, Error> {
        match self.repeat {
            true => self.thread.chunks_of(&self.run).await,
            false => self.thread.chunks_after(&self.run, self.after).await,
        }
    }

    /// Waits for the whole answer: until the run has ended, waits for somebody, or cannot go on by itself.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn generated(&self) -> Result<Generated, Error> {
        let mut generated = Generated::of(self.run.as_str());
        let mut chunks = self.chunks().await?;
        while let Some(seen) = chunks.next().await? {
            generated.take(&seen.chunk);
        }
        self.complete(&mut generated).await?;
        Ok(generated)
    }

    /// Adds what its chunks have not said, because they are not kept any more or the run cannot go on.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn complete(&self, generated: &mut Generated) -> Result<(), Error> {
        if generated.finish.is_some() || !generated.waiting.is_empty() {
            return Ok(());
        }
        let run = self.thread.client.find_in(&self.thread.to.namespace, self.run.as_str()).await?;
        match run.row().await?.status {
            Status::Blocked { reason } => generated.fail(failed("Blocked", &reason)),
            Status::Closed { .. } => ended(generated, run.outcome().await?.outcome),
            Status::Due { .. } | Status::Running { .. } | Status::Waiting { .. } => {}
        }
        Ok(())
    }
}

fn failed(name: &str, why: &impl fmt::Display) -> Value {
    json!({ "name": name, "message": why.to_string() })
}

fn ended(generated: &mut Generated, outcome: Outcome) {
    match outcome {
        Outcome::Completed(output) => match output.read::<Turned>() {
            Ok(turned) => {
                generated.finish = Some(turned.reason);
                generated.text = turned.text;
                generated.object = turned.object;
            }
            Err(problem) => generated.fail(failed("Undecodable", &problem)),
        },
        Outcome::Failed(failure) => {
            let name = failure.code.clone().unwrap_or_else(|| "Error".to_owned());
            generated.fail(failed(&name, &failure.message));
        }
        Outcome::Cancelled { .. } | Outcome::Terminated { .. } => generated.finish = Some("aborted".to_owned()),
    }
}
