//! A request in the crate's words.

use genai::chat::{
    Binary, CacheControl, ChatMessage, ChatOptions, ChatRequest, ChatResponseFormat, ContentPart, JsonSpec,
    MessageContent, ReasoningEffort, Tool, ToolCall as TheirCall, ToolChoice as TheirChoice, ToolResponse,
};
use serde_json::{Value, json};

use super::ProviderKind;
use crate::agent::model::{Effort, Request, ToolChoice};
use crate::message::{AssistantPart, Part, PromptMessage, ProviderOptions, ToolCall, ToolResult};

/// Before the signature of thinking that the provider keeps to itself; what follows is its block as it came.
pub(super) const REDACTED: &str = "redacted:";

/// The request and its options, or why this kind of provider cannot be asked this.
pub(super) fn chat(kind: ProviderKind, request: &Request) -> Result<(ChatRequest, ChatOptions), String> {
    let mut system = request.system.clone();
    let mut options = options(kind, request);
    if let Some(schema) = &request.output_schema {
        if kind == ProviderKind::Ollama {
            // It is only told that it is to be JSON.
            system.push(format!("Answer with nothing but JSON that fits this JSON Schema: {schema}"));
            options = options.with_response_format(ChatResponseFormat::JsonMode);
        } else {
            options = options.with_response_format(JsonSpec::new("answer", schema.clone()));
        }
    }
    let turn_begins =
        request.messages.iter().rposition(|message| matches!(message, PromptMessage::User { .. })).unwrap_or(0);
    let mut messages = Vec::with_capacity(request.messages.len());
    for (at, said) in request.messages.iter().enumerate() {
        let of_this_turn = at > turn_begins;
        messages.push(message(kind, said, of_this_turn)?);
    }
    let mut chat = ChatRequest::new(messages);
    if !system.is_empty() {
        chat = chat.with_system(system.join("\n\n"));
    }
    // Ollama knows no choice of tools: what may not be called must not be offered.
    let offered = kind != ProviderKind::Ollama || request.tool_choice != ToolChoice::None;
    if offered && !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            let told = Tool::new(tool.name.as_str()).with_schema(tool.input_schema.clone());
            if tool.description.is_empty() { told } else { told.with_description(tool.description.as_str()) }
        });
        chat = chat.with_tools(tools);
        options = match &request.tool_choice {
            ToolChoice::Auto => options,
            ToolChoice::None => options.with_tool_choice(TheirChoice::None),
            ToolChoice::Required => options.with_tool_choice(TheirChoice::Required),
            ToolChoice::Tool(name) => options.with_tool_choice(TheirChoice::tool(name.as_str())),
        };
    }
    Ok((chat, options))
}

fn options(kind: ProviderKind, request: &Request) -> ChatOptions {
    let settings = &request.settings;
    let mut options = ChatOptions {
        temperature: settings.temperature,
        top_p: settings.top_p,
        max_tokens: settings.max_output_tokens,
        stop_sequences: settings.stop.clone(),
        seed: settings.seed,
        reasoning_effort: settings.reasoning.map(|effort| match effort {
            Effort::None => ReasoningEffort::Zero,
            Effort::Low => ReasoningEffort::Low,
            Effort::Medium => ReasoningEffort::Medium,
            Effort::High => ReasoningEffort::High,
        }),
        ..ChatOptions::default()
    };
    options = options
        .with_capture_usage(true)
        .with_capture_content(true)
        .with_capture_reasoning_content(true)
        .with_capture_tool_calls(true);
    // The crate takes an ending such as `-high` for an effort and cuts it off. A server of one's own may well have a
    // model of that name.
    if kind == ProviderKind::OpenaiCompatible
        && options.reasoning_effort.is_none()
        && ReasoningEffort::from_model_name(&request.model).0.is_some()
    {
        options = options.with_extra_body(json!({ "model": request.model, "reasoning_effort": null }));
    }
    options
}

fn message(kind: ProviderKind, message: &PromptMessage, of_this_turn: bool) -> Result<ChatMessage, String> {
    match message {
        PromptMessage::System(text) => Ok(ChatMessage::system(text.as_str())),
        PromptMessage::User { parts, provider_options } => {
            let said = parts.iter().map(|part| user_part(kind, part)).collect::<Result<Vec<_>, _>>()?;
            let message = ChatMessage::user(MessageContent::from_parts(said));
            let options = std::iter::once(provider_options).chain(parts.iter().map(Part::provider_options));
            let cached = options.into_iter().any(asks_for_cache);
            Ok(if cached { message.with_options(CacheControl::Ephemeral) } else { message })
        }
        PromptMessage::Assistant { parts } => {
            Ok(ChatMessage::assistant(MessageContent::from_parts(assistant_parts(kind, parts, of_this_turn))))
        }
        PromptMessage::Tool { results } => {
            let results: Vec<ToolResponse> = results.iter().map(tool_result).collect();
            Ok(ChatMessage::from(results))
        }
    }
}

/// Whether a sender asked Anthropic to keep the prompt up to here.
fn asks_for_cache(options: &ProviderOptions) -> bool {
    let theirs = options.get("anthropic");
    theirs.is_some_and(|theirs| theirs.get("cacheControl").or_else(|| theirs.get("cache_control")).is_some())
}

fn user_part(kind: ProviderKind, part: &Part) -> Result<ContentPart, String> {
    match part {
        Part::Text { text, .. } => Ok(ContentPart::Text(text.clone())),
        Part::File { data, media_type, filename, .. } => {
            let binary = binary(data, media_type, filename.clone())?;
            let is_address = matches!(binary.source, genai::chat::BinarySource::Url(_));
            // The crate would leave these out without a word.
            let takes = match kind {
                ProviderKind::OpenaiCompatible | ProviderKind::Openai => {
                    !is_address || binary.is_image() || binary.is_video()
                }
                ProviderKind::Ollama => !is_address && binary.is_image(),
                ProviderKind::Anthropic | ProviderKind::Gemini => true,
            };
            if takes {
                Ok(ContentPart::Binary(binary))
            } else if is_address {
                Err(format!("it takes no file of type {media_type} by its address; send what is in it"))
            } else {
                Err(format!("it takes no file of type {media_type}"))
            }
        }
    }
}

/// Base64 text, a data URL or a URL.
fn binary(data: &str, media_type: &str, filename: Option<String>) -> Result<Binary, String> {
    if let Some(url) = data.strip_prefix("data:") {
        let (head, content) = url.split_once(',').ok_or("a data URL of a file has no comma")?;
        let declared = head.strip_suffix(";base64").ok_or("a data URL of a file is not in base64")?;
        let media_type = if media_type.is_empty() { declared } else { media_type };
        Ok(Binary::from_base64(media_type, content, filename))
    } else if data.starts_with("http://") || data.starts_with("https://") || data.starts_with("gs://") {
        Ok(Binary::from_url(media_type, data, filename))
    } else {
        Ok(Binary::from_base64(media_type, data, filename))
    }
}

fn assistant_parts(kind: ProviderKind, parts: &[AssistantPart], of_this_turn: bool) -> Vec<ContentPart> {
    let mut theirs = Vec::with_capacity(parts.len());
    // Gemini seals a call rather than the thinking before it.
    let mut seals: Vec<String> = Vec::new();
    for part in parts {
        match part {
            AssistantPart::Text(text) => theirs.push(ContentPart::Text(text.clone())),
            AssistantPart::Reasoning { text, signature } => match (kind, signature) {
                (ProviderKind::Anthropic, Some(signature)) => match signature.strip_prefix(REDACTED) {
                    Some(block) => {
                        if let Ok(block) = serde_json::from_str(block) {
                            theirs.push(ContentPart::from_custom(block, None));
                        }
                    }
                    None => {
                        theirs.push(ContentPart::ThoughtSignature(signature.clone()));
                        theirs.push(ContentPart::ReasoningContent(text.clone()));
                    }
                },
                (ProviderKind::Gemini, Some(signature)) => seals.push(signature.clone()),
                // Servers that show their thinking want it back while they are at the same task, and not later.
                (ProviderKind::OpenaiCompatible, _) if of_this_turn && !text.is_empty() => {
                    theirs.push(ContentPart::ReasoningContent(text.clone()));
                }
                _ => {}
            },
            AssistantPart::Call(ToolCall { id, name, arguments }) => {
                let seals = std::mem::take(&mut seals);
                theirs.push(ContentPart::ToolCall(TheirCall {
                    call_id: id.clone(),
                    fn_name: name.clone(),
                    fn_arguments: as_object(arguments),
                    thought_signatures: (!seals.is_empty()).then_some(seals),
                }));
            }
        }
    }
    theirs
}

/// Providers refuse a past call whose arguments are no object, as those of a model that got them wrong may be.
fn as_object(arguments: &Value) -> Value {
    if arguments.is_object() { arguments.clone() } else { json!({ "malformed_arguments": arguments }) }
}

fn tool_result(result: &ToolResult) -> ToolResponse {
    let text = match &result.output {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let text = if result.is_error { format!("error: {text}") } else { text };
    ToolResponse::new(result.call_id.as_str(), text).with_fn_name(result.name.as_str())
}

/// Whether an id was made up by the crate, which does so anew in each reply, or is none at all.
pub(super) fn is_made_up(kind: ProviderKind, id: &str) -> bool {
    let numbered = |prefix: &str| {
        id.strip_prefix(prefix).is_some_and(|rest| rest.len() < 10 && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match kind {
        ProviderKind::OpenaiCompatible | ProviderKind::Openai => id.is_empty() || numbered("call_"),
        ProviderKind::Gemini => id.is_empty() || id.starts_with("call#"),
        ProviderKind::Anthropic | ProviderKind::Ollama => id.is_empty(),
    }
}

/// An id that no other call has.
pub(super) fn make_up(kind: ProviderKind, name: &str) -> String {
    let random = uuid::Uuid::new_v4();
    match kind {
        // The crate knows by this form that Gemini gave none, and keeps it to itself.
        ProviderKind::Gemini => format!("call#{name}#{}", random.as_u128() as u32),
        _ => format!("call_{}", random.simple()),
    }
}
