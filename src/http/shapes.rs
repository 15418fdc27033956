//! What bodies look like, for the reference (`/openapi.json`), where the types that read them are those of other rooms: written
//! down as JSON Schema by hand.

use serde_json::{Value, json};
use utoipa::openapi::{Object, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Names forms, by which handlers refer to them, and writes them down as JSON Schema.
macro_rules! forms {
    ($($name:ident = $schema:expr;)*) => {
        $(
            pub(super) struct $name;

            // Only the name: `utoipa` cannot hold all that these say.
            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    Object::new().into()
                }
            }

            impl ToSchema for $name {}
        )*

        /// All forms, by their names.
        pub(super) fn forms() -> impl Iterator<Item = (&'static str, Value)> {
            [$((stringify!($name), $schema)),*].into_iter()
        }
    };
}

forms! {
    SendMessage = input("message", message(), json!({
        "message": "Hello", "threadId": "t-1", "resourceId": "ann",
    }));
    SendSignal = input("signal", signal(), json!({
        "signal": { "type": "notification", "contents": "The train is late.", "attributes": { "line": 7 } },
        "threadId": "t-1", "resourceId": "ann", "ifIdle": { "behavior": "persist" },
    }));
    SendState = input("state", state(), json!({
        "state": { "id": "browser", "cacheKey": "v3", "contents": "The page shows order A-1." },
        "threadId": "t-1", "resourceId": "ann",
    }));
    CancelQueuedForm = unsend();
    DeleteMessages = delete_messages();
    DirectCallForm = direct_call();
    NewThread = new_thread();
    TurnOptionsForm = turn();
}

/// What all that is sent to a thread has in common; a run, or a thread and its owner, are named.
fn input(what: &str, schema: Value, example: Value) -> Value {
    json!({
        "type": "object",
        "required": [what],
        "properties": {
            what: schema,
            "threadId": id("The thread. With resourceId, unless a run is named."),
            "resourceId": name("The thread's owner."),
            "runId": id("The run that is to take it, instead of whichever has the thread."),
            "ifActive": branch("While a run has the thread.", json!(["deliver", "persist", "discard"]), json!({})),
            "ifIdle": branch("While none has. Not together with runId.", json!(["wake", "persist", "discard"]), json!({
                "streamOptions": turn(),
            })),
            "queueOwnerId": name("The sender's label of what it queues, to take it back by."),
        },
        "anyOf": [
            { "required": ["threadId", "resourceId"], "not": { "required": ["runId"] } },
            { "required": ["runId"], "not": { "required": ["ifIdle"] } },
        ],
        "example": example,
    })
}

fn branch(description: &str, behaviors: Value, more: Value) -> Value {
    let mut properties = json!({
        "behavior": { "type": "string", "enum": behaviors },
        "attributes": attributes(),
    });
    if let (Some(properties), Value::Object(more)) = (properties.as_object_mut(), more) {
        properties.extend(more);
    }
    json!({ "type": "object", "description": description, "properties": properties })
}

/// What ids are made of.
pub(super) const ID: &str = r"^[^/?#\s\u0000-\u001f\u007f-\u009f]+$";

/// Ids hold no `/ ? #`, no space and no control characters.
fn id(description: &str) -> Value {
    json!({ "type": "string", "description": description, "minLength": 1, "maxLength": 200, "pattern": ID })
}

fn name(description: &str) -> Value {
    let pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$";
    json!({ "type": "string", "description": description, "minLength": 1, "maxLength": 200, "pattern": pattern })
}

fn attributes() -> Value {
    json!({
        "type": "object",
        "description": "What the model may see beside the contents.",
        "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_.-]*$" },
        "additionalProperties": { "type": ["string", "number", "boolean", "null"] },
    })
}

fn free(description: &str) -> Value {
    json!({ "type": "object", "description": description, "additionalProperties": true })
}

fn provider_options() -> Value {
    json!({
        "type": "object",
        "description": "Options of the model's providers, by their names.",
        "additionalProperties": { "type": "object" },
    })
}

fn part() -> Value {
    json!({
        "oneOf": [
            {
                "type": "object",
                "required": ["type", "text"],
                "properties": { "type": { "type": "string", "enum": ["text"] }, "text": { "type": "string" } },
            },
            {
                "type": "object",
                "required": ["type", "data", "mediaType"],
                "properties": {
                    "type": { "type": "string", "enum": ["file"] },
                    "data": { "type": "string", "description": "Base64, a data URL or a URL." },
                    "mediaType": { "type": "string", "examples": ["image/png"] },
                    "filename": { "type": "string" },
                },
            },
        ],
    })
}

/// A text or a list of parts.
fn contents() -> Value {
    json!({
        "description": "A text, or parts of texts and files.",
        "oneOf": [{ "type": "string" }, { "type": "array", "items": part() }],
    })
}

fn message() -> Value {
    json!({
        "description": "A text, parts of texts and files, or either with what belongs to it.",
        "oneOf": [
            { "type": "string" },
            { "type": "array", "items": part() },
            {
                "type": "object",
                "required": ["contents"],
                "properties": {
                    "contents": contents(),
                    "attributes": attributes(),
                    "metadata": free("For interfaces; the model never sees it."),
                    "providerOptions": provider_options(),
                },
            },
        ],
    })
}

fn tag() -> Value {
    json!({
        "type": "string",
        "description": "The XML tag by which the model reads it.",
        "pattern": "^[A-Za-z_][A-Za-z0-9_.-]*$",
    })
}

fn signal() -> Value {
    json!({
        "type": "object",
        "required": ["type", "contents"],
        "properties": {
            "id": id("The sender's id: the same again is the same signal."),
            "type": { "type": "string", "enum": ["user", "state", "notification", "reactive"] },
            "tagName": tag(),
            "contents": contents(),
            "attributes": attributes(),
            "metadata": free("For interfaces; the model never sees it."),
            "providerOptions": provider_options(),
            "transient": { "type": "boolean", "description": "In the prompt of the current call only, never stored." },
            "createdAt": { "type": "string", "format": "date-time" },
        },
    })
}

fn state() -> Value {
    json!({
        "type": "object",
        "required": ["id", "cacheKey", "contents"],
        "properties": {
            "id": name("The lane."),
            "cacheKey": name("The producer's name for this content; the same as before is skipped."),
            "contents": contents(),
            "mode": { "type": "string", "enum": ["snapshot", "delta"] },
            "value": { "description": "The snapshot in a form for the producer." },
            "delta": { "description": "The change in a form for the producer." },
            "tagName": tag(),
            "attributes": attributes(),
            "metadata": free("For interfaces; the model never sees it."),
            "providerOptions": provider_options(),
        },
    })
}

/// What a sender may ask of the turn that answers.
fn turn() -> Value {
    json!({
        "type": "object",
        "description": "What is asked of the turn that it begins.",
        "properties": {
            "instructions": { "type": "string", "description": "Instead of the agent's." },
            "maxSteps": { "type": "integer", "minimum": 1, "maximum": 1000 },
            "activeTools": { "type": "array", "items": { "type": "string" }, "description": "The agent's tools that may be called." },
            "requireToolApproval": { "type": "boolean" },
            "clientTools": {
                "type": "object",
                "description": "Tools that the client runs, by name.",
                "additionalProperties": {
                    "type": "object",
                    "properties": { "description": { "type": "string" }, "inputSchema": free("JSON Schema of its arguments.") },
                },
            },
            "modelSettings": {
                "type": "object",
                "properties": {
                    "temperature": { "type": "number" },
                    "topP": { "type": "number" },
                    "maxOutputTokens": { "type": "integer", "minimum": 1, "maximum": 1_000_000 },
                    "stopSequences": { "type": "array", "items": { "type": "string" } },
                    "seed": { "type": "integer", "minimum": 0 },
                },
            },
            "structuredOutput": {
                "type": "object",
                "description": "The answer is to be JSON that fits.",
                "required": ["schema"],
                "properties": { "schema": free("JSON Schema."), "answersMax": { "type": "integer", "minimum": 1, "maximum": 100 } },
            },
            "requestContext": free("Values for tools and processors."),
        },
    })
}

/// Either ids or a label.
fn unsend() -> Value {
    json!({
        "type": "object",
        "required": ["threadId"],
        "properties": {
            "threadId": id("The thread."),
            "resourceId": name("The thread's owner."),
            "signalIds": { "type": "array", "items": { "type": "string" }, "description": "What to take back." },
            "queueOwnerId": name("The label under which it was queued, instead."),
        },
        "oneOf": [{ "required": ["signalIds"] }, { "required": ["queueOwnerId"] }],
        "example": { "threadId": "t-1", "resourceId": "ann", "queueOwnerId": "tab-3" },
    })
}

fn new_thread() -> Value {
    json!({
        "type": "object",
        "required": ["resourceId"],
        "properties": {
            "resourceId": name("The owner. With a key that opens one resource it may be left out."),
            "threadId": id("The thread; the server makes an id where it is absent."),
            "title": { "type": "string" },
            "metadata": free("For interfaces."),
        },
        "example": { "resourceId": "ann", "threadId": "t-1", "title": "A journey" },
    })
}

fn delete_messages() -> Value {
    let one = json!({
        "oneOf": [
            { "type": "string" },
            { "type": "object", "required": ["id"], "properties": { "id": { "type": "string" } } },
        ],
    });
    json!({
        "type": "object",
        "required": ["messageIds"],
        "properties": {
            "messageIds": {
                "description": "One or several, each by its id or as an object that has it.",
                "oneOf": [one, { "type": "array", "minItems": 1, "maxItems": 1000, "items": one }],
            },
            "resourceId": name("Only those of this owner."),
            "threadId": id("Only those of this thread."),
        },
        "example": { "messageIds": ["m1", "m2"] },
    })
}

/// A turn's options stand beside what is said.
fn direct_call() -> Value {
    let mut form = turn();
    let more = json!({
        "messages": {
            "description": "A text, or messages as the AI SDKs write them: `{role, content}`, content a text or parts.",
            "oneOf": [{ "type": "string", "minLength": 1 }, { "type": "array", "minItems": 1, "items": {} }],
        },
        "memory": {
            "type": "object",
            "description": "The thread that it is said on; without one it has one of its own that no list shows.",
            "properties": {
                "thread": {
                    "oneOf": [
                        id("The thread."),
                        {
                            "type": "object",
                            "required": ["id"],
                            "properties": { "id": id("The thread."), "title": { "type": "string" }, "metadata": free("For interfaces.") },
                        },
                    ],
                },
                "resource": name("Its owner."),
            },
        },
        "runId": id("The run's id, chosen by the sender: the same request again with it is the same one."),
        "abortOnDisconnect": { "type": "boolean", "description": "Whether the run ends when nobody waits for its answer." },
    });
    if let (Some(fields), Value::Object(more)) = (form["properties"].as_object_mut(), more) {
        fields.extend(more);
    }
    form["description"] = "What is said, and what is asked of the turn that answers.".into();
    form["required"] = json!(["messages"]);
    form["example"] = json!({ "messages": "Hello", "memory": { "thread": "t-1", "resource": "ann" } });
    form
}
