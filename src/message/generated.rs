//! What a run has said, put together from its chunks: what a caller that waits for the whole answer gets (H9.4).

use serde_json::{Map, Value, json};

use crate::message::reply::DENIED;

/// Why a run has ended that has failed.
const FAILED: &str = "error";

/// Why a run has ended that somebody has aborted.
const ABORTED: &str = "aborted";

/// Why a run says no more that waits for somebody's answer.
const SUSPENDED: &str = "suspended";

/// The whole answer of a run. Chunks are taken in their order; what a step had shown before it was begun again is dropped
/// (T11.11).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Generated {
    /// The run.
    pub run: String,
    /// Why it ended: `stop`, `tool-calls`, `length`, `error`, `aborted`, `tripwire`, …; none while more may come.
    pub finish: Option<String>,
    /// Its steps: a call of the model each, with what its tools came to.
    pub steps: Vec<GeneratedStep>,
    /// The text that was said last.
    pub text: String,
    /// What all of it cost, in tokens.
    pub usage: Value,
    /// The answer of the form that was asked for.
    pub object: Option<Value>,
    /// Why it has failed: `message` and `name`.
    pub error: Option<Value>,
    /// What has ended it before its time: `reason`, and more.
    pub tripwire: Option<Value>,
    /// The calls that wait for somebody's answer.
    pub waiting: Vec<Value>,
    /// What calls of an earlier run came to, which it goes on from.
    settled: Vec<Value>,
}

/// One call of the model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GeneratedStep {
    /// The message that it belongs to.
    pub message: String,
    /// What was said, thought and called, as parts of a model's message, in their order.
    pub parts: Vec<Value>,
    /// The calls, as chunks.
    pub calls: Vec<Value>,
    /// What they came to, as chunks.
    pub results: Vec<Value>,
    /// Why it ended.
    pub finish: String,
    /// What it cost.
    pub usage: Value,
    /// The provider's id of it, the model and the time.
    pub response: Value,
}

impl Generated {
    /// Of the run with this id, which has said nothing yet.
    #[must_use]
    pub fn of(run: impl Into<String>) -> Self {
        Self { run: run.into(), ..Self::default() }
    }

    /// Takes a chunk of the run.
    pub fn take(&mut self, chunk: &Value) {
        let payload = &chunk["payload"];
        match chunk["type"].as_str().unwrap_or_default() {
            "step-start" => self.begin(payload),
            "text-start" => self.part(json!({ "type": "text", "text": "" })),
            "reasoning-start" => self.part(json!({ "type": "reasoning", "text": "" })),
            kind @ ("text-delta" | "reasoning-delta") => self.more(kind, &text(&payload["text"])),
            "tool-call" => self.call(chunk),
            "tool-result" | "tool-error" | "tool-output-denied" => self.result(chunk),
            "tool-call-approval" | "tool-call-suspended" => self.waiting.push(payload.clone()),
            "step-finish" => self.end_step(payload),
            "object-result" => self.object = Some(chunk["object"].clone()),
            "tripwire" => self.tripwire = Some(payload.clone()),
            "error" => self.fail(payload["error"].clone()),
            "abort" => self.finish = Some(ABORTED.to_owned()),
            "finish" => {
                self.finish = Some(text(&payload["stepResult"]["reason"]));
                self.usage = payload["output"]["usage"].clone();
                self.text = text(&payload["output"]["text"]);
            }
            _ => {}
        }
    }

    /// The run has failed, with a `message` and a `name`.
    pub fn fail(&mut self, error: Value) {
        self.error = Some(error);
        self.finish = Some(FAILED.to_owned());
    }

    /// Why it says no more.
    #[must_use]
    pub fn finish_reason(&self) -> &str {
        match &self.finish {
            Some(reason) => reason,
            None if self.waiting.is_empty() => "unknown",
            None => SUSPENDED,
        }
    }

    /// All calls, as chunks.
    #[must_use]
    pub fn calls(&self) -> Vec<Value> {
        self.steps.iter().flat_map(|step| step.calls.iter().cloned()).collect()
    }

    /// What all calls came to, as chunks.
    #[must_use]
    pub fn results(&self) -> Vec<Value> {
        self.settled.iter().chain(self.steps.iter().flat_map(|step| &step.results)).cloned().collect()
    }

    /// The messages that it has made, as models are given them. Those of one row have its id.
    #[must_use]
    pub fn messages(&self) -> Vec<Value> {
        self.steps.iter().flat_map(GeneratedStep::messages).collect()
    }

    /// The messages that it has made, as interfaces show them.
    #[must_use]
    pub fn shown(&self) -> Vec<Value> {
        let mut shown: Vec<Value> = Vec::new();
        for step in self.steps.iter().filter(|step| !step.parts.is_empty()) {
            let parts = step.shown();
            match shown.last_mut().filter(|last| last["id"] == step.message.as_str()) {
                Some(last) => last["parts"].as_array_mut().into_iter().for_each(|all| all.extend(parts.clone())),
                None => shown.push(json!({ "id": step.message, "role": "assistant", "parts": parts })),
            }
        }
        shown
    }

    /// Its steps, as an answer tells them.
    #[must_use]
    pub fn told_steps(&self) -> Vec<Value> {
        self.steps.iter().map(GeneratedStep::to_json).collect()
    }

    /// What a `finish` on a stream of the caller's own says more than one on a subscription (H4.3); `given` is what was said
    /// to it.
    #[must_use]
    pub fn finished(&self, mut finish: Value, given: &[Value]) -> Value {
        let made = self.messages();
        let payload = &mut finish["payload"];
        payload["output"]["steps"] = self.told_steps().into();
        payload["response"]["messages"] = made.clone().into();
        payload["response"]["uiMessages"] = self.shown().into();
        let all: Vec<&Value> = given.iter().chain(&made).collect();
        payload["messages"] = json!({ "all": all, "user": given, "nonUser": made });
        finish
    }

    /// The chunks that follow an `error` on a stream of the caller's own, where every run ends with `finish` (H4.5).
    #[must_use]
    pub fn closing(&self) -> [Value; 2] {
        let last = self.steps.last();
        let payload = json!({
            "messageId": last.map(|step| step.message.as_str()).unwrap_or_default(),
            "stepResult": { "reason": FAILED, "isContinued": false },
            "metadata": last.map(|step| step.response.clone()).unwrap_or_default(),
            "output": { "text": self.text, "toolCalls": [], "usage": self.usage_or_nothing() },
        });
        let chunk = |kind: &str| json!({ "type": kind, "runId": self.run, "from": "AGENT", "payload": payload });
        [chunk("step-finish"), chunk("finish")]
    }

    /// The answer as the wire has it (H9.4); `given` is what was said to it.
    #[must_use]
    pub fn to_json(&self, given: &[Value]) -> Value {
        let last = self.steps.last();
        let mut response = last.map(|step| step.response.clone()).filter(Value::is_object).unwrap_or_else(|| json!({}));
        let made = self.messages();
        response["messages"] = made.clone().into();
        response["uiMessages"] = self.shown().into();
        let thought: Vec<&Value> = self.steps.iter().flat_map(|step| step.of_type("reasoning")).collect();
        let all: Vec<&Value> = given.iter().chain(&made).collect();
        let mut answer = json!({
            "runId": self.run,
            "text": self.text,
            "finishReason": self.finish_reason(),
            "usage": last.map_or_else(|| self.usage_or_nothing(), |step| step.usage.clone()),
            "totalUsage": self.usage_or_nothing(),
            "steps": self.told_steps(),
            "toolCalls": self.calls(),
            "toolResults": self.results(),
            "reasoning": thought,
            "reasoningText": thought.iter().filter_map(|part| part["text"].as_str()).collect::<String>(),
            "sources": [],
            "files": [],
            "warnings": [],
            "request": {},
            "response": response,
            "messages": all,
        });
        let more = [("object", &self.object), ("error", &self.error), ("tripwire", &self.tripwire)];
        for (name, value) in more {
            if let Some(value) = value {
                answer[name] = value.clone();
            }
        }
        if self.finish_reason() == SUSPENDED {
            answer["suspendPayload"] = self.waiting.first().cloned().unwrap_or_default();
        }
        answer
    }

    fn usage_or_nothing(&self) -> Value {
        match self.usage.is_null() {
            true => json!({ "inputTokens": 0, "outputTokens": 0, "totalTokens": 0 }),
            false => self.usage.clone(),
        }
    }

    fn begin(&mut self, payload: &Value) {
        if payload["restarted"] == true {
            self.steps.pop();
        }
        self.steps.push(GeneratedStep { message: text(&payload["messageId"]), ..GeneratedStep::default() });
    }

    fn part(&mut self, part: Value) {
        if let Some(step) = self.steps.last_mut() {
            step.parts.push(part);
        }
    }

    fn more(&mut self, kind: &str, more: &str) {
        let kind = kind.trim_end_matches("-delta");
        let part = self.steps.last_mut().and_then(|step| step.parts.iter_mut().rev().find(|part| part["type"] == kind));
        if let Some(Value::String(said)) = part.and_then(|part| part.get_mut("text")) {
            said.push_str(more);
        }
    }

    fn call(&mut self, chunk: &Value) {
        let payload = &chunk["payload"];
        let (id, name) = (&payload["toolCallId"], &payload["toolName"]);
        self.part(json!({ "type": "tool-call", "toolCallId": id, "toolName": name, "input": payload["args"] }));
        if let Some(step) = self.steps.last_mut() {
            step.calls.push(chunk.clone());
        }
    }

    fn result(&mut self, chunk: &Value) {
        let call = &chunk["payload"]["toolCallId"];
        self.waiting.retain(|it| it["toolCallId"] != *call);
        let step =
            self.steps.iter_mut().rev().find(|it| it.calls.iter().any(|it| it["payload"]["toolCallId"] == *call));
        match step {
            Some(step) => step.results.push(chunk.clone()),
            None => self.settled.push(chunk.clone()),
        }
    }

    fn end_step(&mut self, payload: &Value) {
        self.text = text(&payload["output"]["text"]);
        if let Some(step) = self.steps.last_mut() {
            step.finish = text(&payload["stepResult"]["reason"]);
            step.usage = payload["output"]["usage"].clone();
            step.response = payload["metadata"].clone();
        }
    }
}

impl GeneratedStep {
    fn of_type<'s>(&'s self, kind: &'s str) -> impl Iterator<Item = &'s Value> {
        self.parts.iter().filter(move |part| part["type"] == kind)
    }

    /// What was said.
    #[must_use]
    pub fn text(&self) -> String {
        self.of_type("text").filter_map(|part| part["text"].as_str()).collect()
    }

    fn messages(&self) -> Vec<Value> {
        if self.parts.is_empty() {
            return Vec::new();
        }
        let mut messages = vec![json!({ "id": self.message, "role": "assistant", "content": self.parts })];
        if !self.results.is_empty() {
            let results: Vec<Value> = self.results.iter().map(result_part).collect();
            messages.push(json!({ "role": "tool", "content": results }));
        }
        messages
    }

    /// Its parts as interfaces have them: a call with its result is one.
    fn shown(&self) -> Vec<Value> {
        let parts = self.parts.iter().map(|part| match part["type"].as_str() {
            Some("tool-call") => self.shown_call(part),
            _ => part.clone(),
        });
        std::iter::once(json!({ "type": "step-start" })).chain(parts).collect()
    }

    fn shown_call(&self, call: &Value) -> Value {
        let name = call["toolName"].as_str().unwrap_or_default();
        let mut shown = Map::from_iter([
            ("type".to_owned(), format!("tool-{name}").into()),
            ("toolCallId".to_owned(), call["toolCallId"].clone()),
            ("input".to_owned(), call["input"].clone()),
        ]);
        let result = self.results.iter().find(|it| it["payload"]["toolCallId"] == call["toolCallId"]);
        let (state, told) = match result.map(outcome) {
            None => ("input-available", None),
            Some((output, false)) => ("output-available", Some(("output", output))),
            Some((error, true)) => ("output-error", Some(("errorText", as_text(&error).into()))),
        };
        shown.insert("state".to_owned(), state.into());
        shown.extend(told.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(shown)
    }

    fn to_json(&self) -> Value {
        let thought: Vec<&Value> = self.of_type("reasoning").collect();
        json!({
            "text": self.text(),
            "reasoning": thought,
            "toolCalls": self.calls,
            "toolResults": self.results,
            "finishReason": self.finish,
            "usage": self.usage,
            "warnings": [],
            "request": {},
            "response": self.response,
        })
    }
}

/// What a call came to, and whether that is an error.
fn outcome(chunk: &Value) -> (Value, bool) {
    let payload = &chunk["payload"];
    match chunk["type"].as_str() {
        Some("tool-result") => (payload["result"].clone(), false),
        Some("tool-error") => (payload["error"].clone(), true),
        _ => (payload["approval"]["reason"].as_str().unwrap_or(DENIED).into(), true),
    }
}

fn result_part(chunk: &Value) -> Value {
    let payload = &chunk["payload"];
    let (output, is_error) = outcome(chunk);
    let kind = if is_error { "error-json" } else { "json" };
    json!({
        "type": "tool-result",
        "toolCallId": payload["toolCallId"],
        "toolName": payload["toolName"],
        "output": { "type": kind, "value": output },
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;
    use crate::message::Given;

    fn chunk(kind: &str, payload: Value) -> Value {
        json!({ "type": kind, "runId": "run-1", "from": "AGENT", "payload": payload })
    }

    fn of(chunks: &[Value]) -> Generated {
        let mut generated = Generated::of("run-1");
        chunks.iter().for_each(|chunk| generated.take(chunk));
        generated
    }

    fn said(text: &str) -> [Value; 2] {
        [chunk("text-start", json!({ "id": "t" })), chunk("text-delta", json!({ "id": "t", "text": text }))]
    }

    fn step(number: u32, restarted: bool) -> Value {
        chunk("step-start", json!({ "messageId": "m", "stepNumber": number, "restarted": restarted }))
    }

    fn ends(kind: &str, reason: &str, text: &str, total: u64) -> Value {
        let usage = json!({ "totalTokens": total });
        chunk(kind, json!({ "stepResult": { "reason": reason }, "output": { "text": text, "usage": usage } }))
    }

    // H9.4, T11.11
    #[test]
    fn a_run_with_a_call_is_put_together_and_what_was_begun_again_counts_once() {
        let called = json!({ "toolCallId": "c", "toolName": "add", "args": { "a": 1 } });
        let result = json!({ "toolCallId": "c", "toolName": "add", "args": { "a": 1 }, "result": 3 });
        let mut chunks = vec![chunk("start", json!({})), step(1, false)];
        chunks.extend(said("Let me se"));
        chunks.push(step(1, true));
        chunks.extend(said("Let me see."));
        chunks.extend([chunk("tool-call", called), chunk("tool-result", result)]);
        chunks.extend([ends("step-finish", "tool-calls", "Let me see.", 5), step(2, false)]);
        chunks.extend(said("It is 3"));
        chunks.extend([ends("step-finish", "stop", "It is 3", 2), ends("finish", "stop", "It is 3", 7)]);
        let generated = of(&chunks);
        let answer = generated.to_json(&[]);
        assert_eq!(
            (&answer["text"], &answer["finishReason"], &answer["runId"]),
            (&json!("It is 3"), &json!("stop"), &json!("run-1"))
        );
        assert_eq!((&answer["totalUsage"]["totalTokens"], &answer["usage"]["totalTokens"]), (&json!(7), &json!(2)));
        assert_eq!(answer["steps"].as_array().unwrap().len(), 2);
        assert_eq!(answer["steps"][0]["text"], "Let me see.");
        assert_eq!(answer["toolCalls"][0]["payload"]["toolName"], "add");
        assert_eq!(answer["toolResults"][0]["payload"]["result"], 3);
        // What it has said can be given back, as one message of several steps.
        let messages = answer["response"]["messages"].clone();
        assert_eq!(messages.as_array().unwrap().len(), 3);
        assert_eq!(Given::read("messages", &messages).unwrap().messages().len(), 1);
        let prompt = |messages: &Value| {
            let given = Given::read("messages", messages).unwrap();
            given.messages()[0].clone().message(String::new, Instant(0)).prompt().0
        };
        assert_eq!(prompt(&answer["response"]["uiMessages"]), prompt(&messages));
    }

    // H9.4: an approval is waited for.
    #[test]
    fn a_run_that_waits_says_for_what() {
        let call = json!({ "toolCallId": "c", "toolName": "pay", "args": {} });
        let waits = of(&[step(1, false), chunk("tool-call", call.clone()), chunk("tool-call-approval", call.clone())]);
        let answer = waits.to_json(&[]);
        assert_eq!(
            (&answer["finishReason"], &answer["suspendPayload"]["toolName"]),
            (&json!("suspended"), &json!("pay"))
        );
        let mut declined = waits;
        declined.take(&chunk(
            "tool-output-denied",
            json!({ "toolCallId": "c", "toolName": "pay", "approval": { "reason": "no" } }),
        ));
        assert!(declined.waiting.is_empty());
        assert_eq!(declined.messages()[1]["content"][0]["output"], json!({ "type": "error-json", "value": "no" }));
    }

    // H4.5
    #[test]
    fn a_run_that_has_failed_ends_all_the_same_where_its_caller_reads() {
        let failed = of(&[step(1, false), chunk("error", json!({ "error": { "name": "Error", "message": "gone" } }))]);
        let answer = failed.to_json(&[]);
        assert_eq!((&answer["finishReason"], &answer["error"]["message"]), (&json!("error"), &json!("gone")));
        let [step, finish] = failed.closing();
        assert_eq!((&step["type"], &finish["type"]), (&json!("step-finish"), &json!("finish")));
        assert_eq!(finish["payload"]["stepResult"], json!({ "reason": "error", "isContinued": false }));
    }
}
