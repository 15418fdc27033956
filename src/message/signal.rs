//! A signal before and after acceptance: what the caller says, and what the thread keeps.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::clock::Instant;
use crate::message::attributes::{Attributes, absent_is_none};
use crate::message::contents::{Contents, ProviderOptions, absent_is_empty};
use crate::message::name::Category;
use crate::message::state::StateMark;

/// A signal as its caller sends it (section 3.1). Nothing of it is checked before [`NewSignal::check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewSignal {
    /// The sender's id; the server makes one where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it is.
    #[serde(rename = "type")]
    pub category: Category,
    /// The XML tag; absent means [`Category::default_tag`].
    #[serde(default, rename = "tagName", skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// What it says.
    pub contents: Contents,
    /// What the model may see beside the contents.
    #[serde(default, deserialize_with = "absent_is_none", skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    /// For interfaces; the model never sees it.
    #[serde(default, deserialize_with = "absent_is_empty", skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Options for the prompt message.
    #[serde(default, deserialize_with = "absent_is_empty", skip_serializing_if = "ProviderOptions::is_empty")]
    pub provider_options: ProviderOptions,
    /// In the prompt of the current call only, never stored. For a state signal even `false` is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transient: Option<bool>,
    /// When the sender made it; absent means the moment of acceptance.
    #[serde(default, with = "crate::message::iso::option", skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Instant>,
}

impl NewSignal {
    /// A signal that says this and carries nothing else.
    #[must_use]
    pub fn new(category: Category, contents: impl Into<Contents>) -> Self {
        Self {
            id: None,
            category,
            tag: None,
            contents: contents.into().plain(),
            attributes: Attributes::new(),
            metadata: Map::new(),
            provider_options: ProviderOptions::new(),
            transient: None,
            created_at: None,
        }
    }

    /// A message: a signal of category user.
    #[must_use]
    pub fn user(contents: impl Into<Contents>) -> Self {
        Self::new(Category::User, contents)
    }

    /// With this tag.
    #[must_use]
    pub fn tagged(self, tag: impl Into<String>) -> Self {
        Self { tag: Some(tag.into()), ..self }
    }

    /// With these attributes in place of what was there.
    #[must_use]
    pub fn attributed(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
    }

    /// The tag it will have.
    #[must_use]
    pub fn effective_tag(&self) -> &str {
        self.tag.as_deref().unwrap_or(self.category.default_tag())
    }

    /// The signal as the thread keeps it. The branch's attributes are merged over its own, here and never again (T7.9);
    /// `id` counts only where the sender gave none. The caller has checked it.
    #[must_use]
    pub fn accept(self, id: impl Into<String>, accepted_at: Instant, branch: &Attributes) -> ThreadSignal {
        let tag = self.effective_tag().to_owned();
        let mut metadata = self.metadata;
        if self.category == Category::State {
            // That word in a state signal's metadata is the runtime's: without a lane there is no mark.
            metadata.shift_remove(StateMark::KEY);
        }
        ThreadSignal {
            id: self.id.unwrap_or_else(|| id.into()),
            category: self.category,
            tag,
            contents: self.contents.plain(),
            attributes: self.attributes.merged(branch),
            metadata,
            provider_options: self.provider_options,
            transient: self.transient == Some(true),
            created_at: self.created_at.unwrap_or(accepted_at),
            accepted_at,
            state: None,
        }
    }

    /// The same for two signals that say the same, in whatever form and order of keys they came: the rule by which a
    /// repeated id is a repeat or a contradiction (T20.4). Ids and times do not count. Hexadecimal SHA-256.
    #[must_use]
    pub fn digest(&self) -> String {
        let said = json!([
            "signal/1",
            self.category,
            self.effective_tag(),
            self.contents,
            self.attributes,
            self.metadata,
            self.provider_options,
            self.transient == Some(true),
        ]);
        let mut canonical = String::new();
        write_canonical(&said, &mut canonical);
        Sha256::digest(canonical.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Compact JSON with the keys of every object in order.
fn write_canonical(value: &Value, to: &mut String) {
    match value {
        Value::Object(object) => {
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort_unstable();
            to.push('{');
            for (place, key) in keys.into_iter().enumerate() {
                if place > 0 {
                    to.push(',');
                }
                to.push_str(&Value::from(key.as_str()).to_string());
                to.push(':');
                write_canonical(&object[key], to);
            }
            to.push('}');
        }
        Value::Array(list) => {
            to.push('[');
            for (place, value) in list.iter().enumerate() {
                if place > 0 {
                    to.push(',');
                }
                write_canonical(value, to);
            }
            to.push(']');
        }
        _ => to.push_str(&value.to_string()),
    }
}

/// A signal that a thread has accepted. Its JSON is what echoes and answers carry (T6.6, H6.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct ThreadSignal {
    /// Unique on its thread; also the row's id.
    pub id: String,
    /// What it is.
    pub category: Category,
    /// The XML tag; checked at acceptance, but an imported row may hold any text.
    pub tag: String,
    /// What it says, in plain form.
    pub contents: Contents,
    /// The sender's, with the branch's merged over them.
    pub attributes: Attributes,
    /// For interfaces.
    pub metadata: Map<String, Value>,
    /// Options for the prompt message.
    pub provider_options: ProviderOptions,
    /// In the prompt of the current call only.
    pub transient: bool,
    /// The sender's time until it enters the transcript, then that moment (T6.4).
    pub created_at: Instant,
    /// When the runtime took it; never changes.
    pub accepted_at: Instant,
    /// Its place in a lane; state signals only, and not those of the plain route. Stands in the metadata on the wire.
    pub state: Option<StateMark>,
}

impl ThreadSignal {
    /// The signal as it stands in the transcript, which it entered at `at` (T6.4).
    #[must_use]
    pub fn entered(self, at: Instant) -> Self {
        Self { created_at: at, ..self }
    }

    /// The metadata as interfaces see it, with the state mark in it (T14.2).
    #[must_use]
    pub fn shown_metadata(&self) -> Map<String, Value> {
        let mut metadata = self.metadata.clone();
        if let (Category::State, Some(state)) = (self.category, &self.state) {
            state.write_into(&mut metadata);
        }
        metadata
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    id: String,
    #[serde(rename = "type")]
    category: Category,
    tag_name: Option<String>,
    contents: Contents,
    #[serde(with = "crate::message::iso")]
    created_at: Instant,
    #[serde(with = "crate::message::iso")]
    accepted_at: Instant,
    #[serde(default, deserialize_with = "absent_is_none", skip_serializing_if = "Attributes::is_empty")]
    attributes: Attributes,
    #[serde(default, deserialize_with = "absent_is_empty", skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
    #[serde(default, deserialize_with = "absent_is_empty", skip_serializing_if = "Map::is_empty")]
    provider_options: ProviderOptions,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    transient: bool,
}

impl From<ThreadSignal> for Wire {
    fn from(signal: ThreadSignal) -> Self {
        Self {
            metadata: signal.shown_metadata(),
            id: signal.id,
            category: signal.category,
            tag_name: Some(signal.tag),
            contents: signal.contents,
            created_at: signal.created_at,
            accepted_at: signal.accepted_at,
            attributes: signal.attributes,
            provider_options: signal.provider_options,
            transient: signal.transient,
        }
    }
}

impl From<Wire> for ThreadSignal {
    fn from(wire: Wire) -> Self {
        let mut metadata = wire.metadata;
        let state = StateMark::take(wire.category, &mut metadata);
        Self {
            id: wire.id,
            category: wire.category,
            tag: wire.tag_name.unwrap_or_else(|| wire.category.default_tag().to_owned()),
            contents: wire.contents,
            attributes: wire.attributes,
            metadata,
            provider_options: wire.provider_options,
            transient: wire.transient,
            created_at: wire.created_at,
            accepted_at: wire.accepted_at,
            state,
        }
    }
}
