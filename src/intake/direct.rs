//! Direct calls at the door: what is said to an agent by somebody who waits for the answer, and what the client's own tools
//! came to. A turn of its own begins with it, after those before it.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::thread::To;
use super::{Door, InputError};
use crate::id::{RunId, RunKey, ThreadKey};
use crate::message::{Message, ToolResult};
use crate::payload::Payload;
use crate::store::{Foresee, Form, Input, NewTurn, Received};
use crate::thread::{CallResult, Routing, check_resource};

/// A direct call, checked against the history that it goes on with.
#[derive(Debug, Clone, PartialEq)]
pub struct Direct {
    /// Its id, unique per thread: the same id with the same contents is the same call.
    pub id: String,
    /// What tells equal contents from different ones.
    pub contents: Value,
    /// The sender's idempotency key.
    pub key: Option<String>,
    /// The id of its run; one is made where it is absent.
    pub run: Option<RunId>,
    /// Messages for the history.
    pub said: Vec<Message>,
    /// What the client's own tools came to.
    pub results: Vec<CallResult>,
    /// What is asked of the turn; nothing if null.
    pub turn: Value,
    /// Whether a thread that is made for it is its own alone, and not listed.
    pub aside: bool,
}

/// What the client's own tools came to, as a turn takes it.
#[must_use]
pub fn call_results(results: Vec<ToolResult>) -> Vec<CallResult> {
    let result = |it: ToolResult| CallResult { call: it.call_id, output: it.output, failed: it.is_error };
    results.into_iter().map(result).collect()
}

impl Direct {
    /// What the client's own tools came to, and nothing else (T13.14).
    #[must_use]
    pub fn results(results: Vec<CallResult>, turn: Value) -> Self {
        let mut calls: Vec<&str> = results.iter().map(|it| it.call.as_str()).collect();
        let id = Self::id_of_results(&mut calls);
        // All of it is JSON already.
        let contents = serde_json::to_value(&results).unwrap_or_default();
        Self { id, contents, key: None, run: None, said: Vec::new(), results, turn, aside: false }
    }

    /// The id of what gives these calls their results: whoever gives them, they are given once.
    #[must_use]
    pub fn id_of_results(calls: &mut [&str]) -> String {
        calls.sort_unstable();
        format!("results:{}", calls.join(","))
    }
}

impl Door {
    /// Has the store take a direct call: a turn of its own begins with it, behind what is under way on the thread and what is
    /// queued; with results of the client's tools ahead of what is queued (T9.7). `keys` are two of this process's own block.
    /// Where the thread is idle the turn is `host`'s at once, if that has the agent.
    ///
    /// # Errors
    /// [`InputError`]; nothing was written.
    pub async fn direct(
        &self,
        keys: (ThreadKey, RunKey),
        to: To,
        direct: Direct,
        host: Option<&dyn Foresee>,
    ) -> Result<Received, InputError> {
        check_resource(&to.resource)?;
        let (workflow, version, host) = self.turn_of(&to.agent, host).await?;
        let at = self.clock.now();
        let limit = self.limits.payload_bytes_max;
        let what = || match direct.said.is_empty() {
            true => format!("the results of the client's tools on thread {}", to.thread),
            false => format!("what is said to agent {} on thread {}", to.agent, to.thread),
        };
        let mut contents = direct.contents;
        contents.sort_all_objects();
        let contents = Payload::of(&contents)?.within(limit, what)?;
        let rows = direct.said.iter().map(|message| message.to_row(to.thread.as_str(), &to.resource));
        let said: Vec<Payload> = rows.map(|row| Payload::of(&row)).collect::<Result<_, _>>()?;
        let turn =
            Payload::of(&direct.turn)?.within(limit, || format!("the options of a turn of agent {}", to.agent))?;
        let nothing = || Form { signal: Payload::null(), row: Payload::null(), shown: Vec::new() };
        let input = Input {
            lane: None,
            thread_key: keys.0,
            only_run: None,
            id: direct.id,
            key: direct.key,
            digest: Sha256::digest(contents.as_str().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect(),
            category: "user",
            routing: Routing { queue: true, ..Routing::default() },
            owner: None,
            active: nothing(),
            idle: nothing(),
            turn: NewTurn {
                run: keys.1,
                named: direct.run.is_some(),
                id: direct.run.unwrap_or_else(RunId::generate),
                seed: uuid::Uuid::new_v4(),
                workflow,
                version,
                options: turn,
                follow_ups: self.limits.follow_ups_max,
                worker: host.map(Foresee::worker),
                first: None,
            },
            results: direct.results,
            said,
            aside: direct.aside,
            at,
            pending_max: i64::from(self.limits.pending_max),
            namespace: to.namespace,
            thread: to.thread,
            resource: to.resource,
            agent: to.agent,
        };
        self.received(input, host).await
    }
}
