//! How a run goes on from what the client's own tools came to (T13.14).

use serde_json::Value;

use super::Error;
use super::thread::{ThreadHandle, message_of};
use crate::agent::TurnOptions;
use crate::id::RunKey;
use crate::message::Message;
use crate::store::Window;
use crate::thread::{CallResult, TurnInput};
use crate::workflows::turn::RESULTS_LOOK_BACK;

impl ThreadHandle {
    /// The first of the calls, and the options of the run that goes on: those given, and where they say nothing those of the
    /// turn that made the calls.
    ///
    /// # Errors
    /// [`Error::NotWaiting`] if the history has no such call.
    pub(super) async fn goes_on(
        &self,
        results: &[CallResult],
        options: &TurnOptions,
    ) -> Result<(String, Value), Error> {
        let thread = self.require().await?;
        let rows = self.client.store().messages(thread.key, Window::latest(i64::MAX, RESULTS_LOOK_BACK)).await?;
        let messages: Vec<(Option<RunKey>, Message)> =
            rows.iter().filter_map(|row| Some((row.run, message_of(row)?))).collect();
        let not_waiting = |call: &str| Error::NotWaiting { thread: self.to.thread.to_string(), call: call.to_owned() };
        let mut made_by = Vec::with_capacity(results.len());
        for CallResult { call, .. } in results {
            let made = messages.iter().find(|(_, message)| message.has_call(call));
            made_by.push(made.ok_or_else(|| not_waiting(call))?.0);
        }
        let first = results.first().ok_or_else(|| not_waiting(""))?;
        let mut options = Self::turn(options)?;
        if let Some(run) = made_by.into_iter().flatten().next()
            && let Some(before) = self.options_of(run).await?
        {
            leave_as_it_was(&mut options, before);
        }
        Ok((first.call.clone(), options))
    }

    /// What a turn of the thread was asked for, if that is still kept.
    async fn options_of(&self, run: RunKey) -> Result<Option<Value>, Error> {
        match self.client.by_key(run).await {
            Ok(run) => Ok(run.input::<TurnInput>().await?.options.read().ok()),
            Err(Error::UnknownRun { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// What options say nothing of is as it was.
fn leave_as_it_was(options: &mut Value, before: Value) {
    if let (Value::Object(options), Value::Object(before)) = (options, before) {
        for (name, value) in before {
            options.entry(name).or_insert(value);
        }
    }
}
