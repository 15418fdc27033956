//! JSON as the runtime carries it: checked once, then passed on byte for byte.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The most bytes one payload may have unless the configuration says otherwise: 4 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One JSON value as text. Cheap to clone.
#[derive(Clone)]
pub struct Payload(Arc<RawValue>);

/// A value that has no JSON form, such as a map whose keys are not texts.
#[derive(Debug, thiserror::Error)]
#[error("a value of type {of} cannot be written as JSON")]
pub struct Unencodable {
    of: &'static str,
    source: serde_json::Error,
}

/// A payload that is not what the code expects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at {path}: {problem}")]
pub struct Undecodable {
    /// Where in the payload, such as `lines[2].price`; `.` is the whole.
    pub path: String,
    /// What was expected and what was found.
    pub problem: String,
}

/// A payload over the limit. Nothing of it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{field} has {size} bytes, the limit is {limit}; keep large data elsewhere and pass a reference, or raise payload_bytes_max"
)]
pub struct TooLarge {
    /// Which value it is, such as `input of run r_7`.
    pub field: String,
    /// Its size in bytes.
    pub size: usize,
    /// The most it may have.
    pub limit: usize,
}

impl Payload {
    /// Writes a value as compact JSON.
    ///
    /// # Errors
    /// [`Unencodable`] if the value has no JSON form.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, Unencodable> {
        serde_json::value::to_raw_value(value)
            .map(|raw| Self(Arc::from(raw)))
            .map_err(|source| Unencodable { of: std::any::type_name::<T>(), source })
    }

    /// Takes JSON text from outside.
    ///
    /// # Errors
    /// [`Undecodable`] with line and column if it is not one JSON value.
    pub fn parse(text: &str) -> Result<Self, Undecodable> {
        let value: &RawValue =
            serde_json::from_str(text).map_err(|e| Undecodable { path: ".".into(), problem: e.to_string() })?;
        // Compact: a journal line is one line, whatever the sender's layout was.
        let compact = if value.get().contains(['\n', '\r', '\t']) {
            let value: serde_json::Value =
                serde_json::from_str(text).map_err(|e| Undecodable { path: ".".into(), problem: e.to_string() })?;
            serde_json::value::to_raw_value(&value)
                .map_err(|e| Undecodable { path: ".".into(), problem: e.to_string() })?
        } else {
            value.to_owned()
        };
        Ok(Self(Arc::from(compact)))
    }

    /// The JSON value `null`.
    #[must_use]
    pub fn null() -> Self {
        Self(Arc::from(RawValue::NULL.to_owned()))
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.as_str().len()
    }

    /// Reads it as a value of the code's type.
    ///
    /// # Errors
    /// [`Undecodable`] with the path of what does not fit.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Undecodable> {
        // The path costs time, so it is looked for only once reading has failed.
        serde_json::from_str(self.as_str()).or_else(|first| {
            let mut from = serde_json::Deserializer::from_str(self.as_str());
            serde_path_to_error::deserialize(&mut from).map_err(|e| Undecodable {
                path: e.path().to_string(),
                problem: if e.inner().to_string().is_empty() { first.to_string() } else { e.inner().to_string() },
            })
        })
    }

    /// Refuses a payload of more than `limit` bytes; `field` says in the error what it is.
    ///
    /// # Errors
    /// [`TooLarge`] names the field, its size and the limit.
    pub fn within(self, limit: usize, field: impl FnOnce() -> String) -> Result<Self, TooLarge> {
        let size = self.size();
        if size <= limit { Ok(self) } else { Err(TooLarge { field: field(), size, limit }) }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Payload {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(from).map(|raw| Self(Arc::from(raw)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "read only to fail")]
    struct Order {
        lines: Vec<Line>,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "read only to fail")]
    struct Line {
        price: u64,
    }

    #[test]
    fn a_payload_that_does_not_fit_names_the_path() {
        let payload = Payload::parse(r#"{"lines":[{"price":1},{"price":"two"}]}"#).unwrap();
        insta::assert_snapshot!(payload.read::<Order>().unwrap_err(), @r#"at lines[1].price: invalid type: string "two", expected u64 at line 1 column 36"#);
    }

    #[test]
    fn a_payload_over_the_limit_names_field_size_and_limit() {
        let payload = Payload::of("0123456789").unwrap();
        let refused = payload.within(8, || "input of run r_7".into()).unwrap_err();
        insta::assert_snapshot!(refused, @"input of run r_7 has 12 bytes, the limit is 8; keep large data elsewhere and pass a reference, or raise payload_bytes_max");
    }

    #[test]
    fn text_with_line_breaks_is_made_compact_and_large_numbers_survive() {
        let payload = Payload::parse("{\n  \"id\": 9007199254740993\n}").unwrap();
        assert_eq!(payload.as_str(), r#"{"id":9007199254740993}"#);
    }
}
