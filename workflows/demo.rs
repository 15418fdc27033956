//! The demonstration agent: on the offline model, with tools to try calls, approvals and questions with.
//!
//! What it is sent is echoed; lines such as `/call add {"a":1,"b":2}` make it call its tools.

use std::time::Duration;

use aldis::Failure;
use aldis::agent::{Agent, Function, ToolCallContext, ToolOutput};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Its name.
pub const NAME: &str = "demo";

/// How long a refund waits for somebody who agrees.
const AGREE_WITHIN: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, Deserialize, JsonSchema)]
struct Sum {
    /// The first number.
    a: i64,
    /// The second number.
    b: i64,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Refund {
    /// The order.
    order: String,
    /// How much.
    cents: u64,
}

#[derive(Debug, Serialize)]
struct Refunded {
    order: String,
    cents: u64,
    /// The key under which a bank would know the payment.
    key: String,
}

/// The agent.
#[must_use]
pub fn agent() -> Agent {
    let add = Function::new("add", "Adds two numbers.", |_: ToolCallContext, sum: Sum| async move {
        sum.a.checked_add(sum.b).ok_or_else(|| Failure::new("the sum is too large").not_retryable())
    });
    let refund = Function::new("refund", "Pays an order back.", |call: ToolCallContext, refund: Refund| async move {
        let key = call.step.idempotency_key().to_owned();
        Ok::<_, Failure>(Refunded { order: refund.order, cents: refund.cents, key })
    });
    let question = json!({
        "type": "object",
        "properties": { "question": { "type": "string" } },
        "required": ["question"],
    });
    let ask = Function::raw("ask", "Asks a person, and waits for the answer.", question, |call, arguments: Value| {
        Box::pin(async move {
            Ok(match call.resumed_with {
                Some(answer) => ToolOutput::Done(answer),
                None => ToolOutput::Suspend(json!({ "question": arguments["question"] })),
            })
        })
    });
    Agent::new(NAME)
        .description("Echoes, and calls its tools as it is told: add, refund (needs approval), ask (asks a person).")
        .instructions("You are a demonstration.")
        .tool(add)
        .tool(refund.with_approval().expiring_after(AGREE_WITHIN))
        .tool(ask)
}
