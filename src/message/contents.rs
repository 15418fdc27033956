//! What a signal says: a text, or parts of text and files.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Options by provider name, each a JSON object, passed on to that provider. Empty is the same as absent.
pub type ProviderOptions = Map<String, Value>;

/// Reads an absent or null map as an empty one.
pub(crate) fn absent_is_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Map<String, Value>, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// What a signal says. Read from JSON it is always in its plain form, see [`Contents::plain`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// One text; may be empty, which makes a marker.
    Text(String),
    /// Several parts, or one that is more than a plain text.
    Parts(Vec<Part>),
}

/// One part of [`Contents`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum Part {
    /// A text.
    Text {
        /// The text.
        text: String,
        /// Options for this part alone.
        #[serde(default, deserialize_with = "absent_is_empty", skip_serializing_if = "ProviderOptions::is_empty")]
        provider_options: ProviderOptions,
    },
    /// A file; an image is a file with an image's media type.
    File {
        /// Base64 text, a data URL or a URL; passed on as it is.
        data: String,
        /// Such as `image/png`.
        media_type: String,
        /// What the sender calls it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filename: Option<String>,
        /// Options for this part alone.
        #[serde(default, deserialize_with = "absent_is_empty", skip_serializing_if = "ProviderOptions::is_empty")]
        provider_options: ProviderOptions,
    },
}

impl Part {
    /// A plain text part.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), provider_options: ProviderOptions::new() }
    }

    /// A file without a name.
    #[must_use]
    pub fn file(data: impl Into<String>, media_type: impl Into<String>) -> Self {
        Self::File {
            data: data.into(),
            media_type: media_type.into(),
            filename: None,
            provider_options: ProviderOptions::new(),
        }
    }

    /// The options for this part alone.
    #[must_use]
    pub fn provider_options(&self) -> &ProviderOptions {
        match self {
            Self::Text { provider_options, .. } | Self::File { provider_options, .. } => provider_options,
        }
    }
}

impl Contents {
    /// The plain form (T4.3): one text part without options is a text, and no parts at all are the empty text.
    #[must_use]
    pub fn plain(self) -> Self {
        match self {
            Self::Text(text) => Self::Text(text),
            Self::Parts(mut parts) => {
                if parts.is_empty() {
                    return Self::Text(String::new());
                }
                match parts.as_mut_slice() {
                    [Part::Text { text, provider_options }] if provider_options.is_empty() => {
                        Self::Text(std::mem::take(text))
                    }
                    _ => Self::Parts(parts),
                }
            }
        }
    }

    /// As parts: a text is one text part.
    #[must_use]
    pub fn to_parts(&self) -> Vec<Part> {
        match self.clone().plain() {
            Self::Text(text) => vec![Part::text(text)],
            Self::Parts(parts) => parts,
        }
    }
}

impl From<&str> for Contents {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Contents {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<Part>> for Contents {
    fn from(parts: Vec<Part>) -> Self {
        Self::Parts(parts).plain()
    }
}

impl Serialize for Contents {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.clone().plain() {
            Self::Text(text) => to.serialize_str(&text),
            Self::Parts(parts) => parts.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Contents {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // By hand rather than untagged, so that a wrong part is named in the error.
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Contents;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of parts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Contents, E> {
                Ok(Contents::from(text))
            }

            fn visit_string<E>(self, text: String) -> Result<Contents, E> {
                Ok(Contents::from(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Contents, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = from.next_element()? {
                    parts.push(part);
                }
                Ok(Contents::from(parts))
            }
        }

        from.deserialize_any(Either)
    }
}
