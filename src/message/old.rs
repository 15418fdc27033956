//! Reading what others and older versions wrote: shapes are tried, and what is not understood is left out.

use serde_json::{Map, Value};

use crate::clock::Instant;
use crate::message::contents::{Contents, Part};
use crate::message::iso;

/// The first of these keys that holds a text.
pub(crate) fn text(object: &Map<String, Value>, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| object.get(*key)?.as_str().map(str::to_owned))
}

/// The first of these keys that holds an object, or an empty one.
pub(crate) fn object(of: &Map<String, Value>, keys: &[&str]) -> Map<String, Value> {
    keys.iter().find_map(|key| of.get(*key)?.as_object().cloned()).unwrap_or_default()
}

/// An instant as RFC 3339 or as milliseconds.
pub(crate) fn instant(object: &Map<String, Value>, key: &str) -> Option<Instant> {
    match object.get(key)? {
        Value::String(text) => iso::parse(text),
        // Only an instant that can be written again.
        Value::Number(millis) => {
            millis.as_i64().filter(|millis| jiff::Timestamp::from_millisecond(*millis).is_ok()).map(Instant)
        }
        _ => None,
    }
}

pub(crate) struct File {
    pub data: String,
    pub media_type: String,
    pub filename: Option<String>,
}

/// A file part in any of its spellings.
pub(crate) fn file_of(part: &Map<String, Value>) -> Option<File> {
    let data = text(part, &["data", "image", "url"])?;
    let is_image = part.get("type").and_then(Value::as_str) == Some("image");
    let unknown = if is_image { "image/*" } else { "application/octet-stream" };
    let media_type = text(part, &["mimeType", "mediaType"]).unwrap_or_else(|| unknown.to_owned());
    Some(File { data, media_type, filename: text(part, &["filename"]) })
}

/// A text or file part in any of its spellings.
pub(crate) fn part_of(part: &Value) -> Option<Part> {
    let part = match part {
        Value::String(text) => return Some(Part::text(text.as_str())),
        part => part.as_object()?,
    };
    let provider_options = object(part, &["providerMetadata", "providerOptions"]);
    match part.get("type").and_then(Value::as_str)? {
        "text" => Some(Part::Text { text: text(part, &["text"])?, provider_options }),
        "file" | "image" => {
            let File { data, media_type, filename } = file_of(part)?;
            Some(Part::File { data, media_type, filename, provider_options })
        }
        _ => None,
    }
}

/// Contents in an older shape (T22.3): a text, a list of texts or parts, or a message with role and content. None if
/// they are not understood as a whole.
pub(crate) fn contents_of(value: &Value) -> Option<Contents> {
    match value {
        Value::String(text) => Some(Contents::from(text.as_str())),
        Value::Array(parts) => parts.iter().map(part_of).collect::<Option<Vec<_>>>().map(Contents::from),
        Value::Object(message) if message.contains_key("role") => contents_of(message.get("content")?),
        _ => None,
    }
}

/// The parts of a row's content, whatever the format: its parts, or else its text.
pub(crate) fn parts_of(content: &Value) -> Vec<Part> {
    match content {
        Value::String(text) => vec![Part::text(text.as_str())],
        Value::Array(parts) => parts.iter().filter_map(part_of).collect(),
        Value::Object(content) => match content.get("parts").or_else(|| content.get("content")) {
            Some(Value::Array(parts)) => parts.iter().filter_map(part_of).collect(),
            Some(Value::String(text)) => vec![Part::text(text.as_str())],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}
