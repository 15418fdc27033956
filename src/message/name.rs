//! The words a signal is marked with: its category, and the names of XML tags and attributes.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a signal is. The sender says; nobody polices it (T3.14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Category {
    /// Something a person wrote.
    User,
    /// A lane's state.
    State,
    /// An outside event.
    Notification,
    /// Context made by the runtime or a processor during a run.
    Reactive,
}

impl Category {
    /// All four.
    pub const ALL: [Self; 4] = [Self::User, Self::State, Self::Notification, Self::Reactive];

    /// The word on the wire and in rows.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::State => "state",
            Self::Notification => "notification",
            Self::Reactive => "reactive",
        }
    }

    /// Reads a word, the two older ones included (T3.11).
    ///
    /// # Errors
    /// [`UnknownCategory`] repeats the word.
    pub fn of_word(word: &str) -> Result<Self, UnknownCategory> {
        match word {
            "user" | "user-message" => Ok(Self::User),
            "state" => Ok(Self::State),
            "notification" => Ok(Self::Notification),
            "reactive" | "system-reminder" => Ok(Self::Reactive),
            _ => Err(UnknownCategory { found: shortened(word) }),
        }
    }

    /// The tag of a signal that names none (T3.11).
    #[must_use]
    pub fn default_tag(self) -> &'static str {
        match self {
            Self::Reactive => "system-reminder",
            Self::User | Self::State | Self::Notification => self.word(),
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Serialize for Category {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for Category {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let word = String::deserialize(from)?;
        Self::of_word(&word).map_err(serde::de::Error::custom)
    }
}

/// A type that is none of the four categories (T3.13).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid signal type: {found}. Use a supported signal type and set tagName for custom XML tags.")]
pub struct UnknownCategory {
    /// The word as it was given, cut after 80 characters.
    pub found: String,
}

/// A name that XML takes as it is: an ASCII letter or underscore, then letters, digits, `_`, `.` and `-` (T3.15).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct XmlName(Arc<str>);

impl XmlName {
    /// Whether a text is such a name.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        let mut bytes = text.bytes();
        bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
    }

    /// Takes a text as the name of a tag.
    ///
    /// # Errors
    /// [`InvalidName::Tag`] if it is no name.
    pub fn tag(text: &str) -> Result<Self, InvalidName> {
        if Self::is_name(text) { Ok(Self(Arc::from(text))) } else { Err(InvalidName::Tag(shortened(text))) }
    }

    /// Takes a text as the name of an attribute.
    ///
    /// # Errors
    /// [`InvalidName::Attribute`] if it is no name.
    pub fn attribute(text: &str) -> Result<Self, InvalidName> {
        if Self::is_name(text) { Ok(Self(Arc::from(text))) } else { Err(InvalidName::Attribute(shortened(text))) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for XmlName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for XmlName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A text that cannot be a name in XML (T3.16), cut after 80 characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// It was to be a tag.
    #[error("Invalid signal XML tag name: {0}")]
    Tag(String),
    /// It was to be an attribute.
    #[error("Invalid signal XML attribute name: {0}")]
    Attribute(String),
}

/// At most 80 characters of a text from outside, for a sentence about it.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
