//! State signals: what a producer says about a lane, and the mark its signal carries.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Instant;
use crate::message::attributes::{Attributes, absent_is_none};
use crate::message::check::{Limits, Refused};
use crate::message::contents::{Contents, ProviderOptions, absent_is_empty};
use crate::message::name::Category;
use crate::message::signal::{NewSignal, ThreadSignal};

/// Whether a state signal tells the whole truth or a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The whole truth about the lane.
    #[default]
    Snapshot,
    /// A change since what came before.
    Delta,
}

/// What a producer says about its lane (T14.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewState {
    /// The lane, such as `browser`. Required; read as empty where it is absent, and then refused by the check.
    #[serde(default)]
    pub id: String,
    /// The producer's name for this content. Required, like the lane.
    #[serde(default)]
    pub cache_key: String,
    /// Whole truth or change.
    #[serde(default)]
    pub mode: Mode,
    /// What the model reads.
    pub contents: Contents,
    /// The snapshot in a form for the producer; null is the same as absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// The change in a form for the producer; null is the same as absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<Value>,
    /// The XML tag; absent means `state`.
    #[serde(default, rename = "tagName", skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// As for any signal.
    #[serde(default, deserialize_with = "absent_is_none", skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    /// As for any signal; the keys `state`, `value` and `delta` are the runtime's.
    #[serde(default, deserialize_with = "absent_is_empty", skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// As for any signal.
    #[serde(default, deserialize_with = "absent_is_empty", skip_serializing_if = "ProviderOptions::is_empty")]
    pub provider_options: ProviderOptions,
    /// Refused in either value (T3.20).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transient: Option<bool>,
}

impl NewState {
    /// A snapshot of a lane.
    #[must_use]
    pub fn snapshot(lane: impl Into<String>, cache_key: impl Into<String>, contents: impl Into<Contents>) -> Self {
        Self {
            id: lane.into(),
            cache_key: cache_key.into(),
            mode: Mode::Snapshot,
            contents: contents.into().plain(),
            value: None,
            delta: None,
            tag: None,
            attributes: Attributes::new(),
            metadata: Map::new(),
            provider_options: ProviderOptions::new(),
            transient: None,
        }
    }

    /// A change of a lane.
    #[must_use]
    pub fn delta(lane: impl Into<String>, cache_key: impl Into<String>, contents: impl Into<Contents>) -> Self {
        Self { mode: Mode::Delta, ..Self::snapshot(lane, cache_key, contents) }
    }

    /// Checks the lane's own rules (T14.1), then those of any signal.
    ///
    /// # Errors
    /// [`Refused`] names the first rule that is broken.
    pub fn check(&self, limits: &Limits, branches: &[&Attributes]) -> Result<(), Refused> {
        if self.id.is_empty() {
            return Err(Refused::StateIdMissing);
        }
        if self.cache_key.is_empty() {
            return Err(Refused::StateCacheKeyMissing);
        }
        limits.id("state signal id", &self.id)?;
        limits.id("state signal cacheKey", &self.cache_key)?;
        limits.structured("value", self.value.as_ref())?;
        limits.structured("delta", self.delta.as_ref())?;
        self.clone().into_signal().check(limits, branches)
    }

    /// As [`NewSignal::digest`], with the lane, its key and mode, and the producer's own forms.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut signal = self.clone().into_signal();
        let said = serde_json::json!([self.id, self.cache_key, self.mode, self.value, self.delta]);
        signal.metadata.insert(StateMark::KEY.to_owned(), said);
        signal.digest()
    }

    /// The signal without its lane.
    fn into_signal(self) -> NewSignal {
        NewSignal {
            id: None,
            category: Category::State,
            tag: self.tag,
            contents: self.contents,
            attributes: self.attributes,
            metadata: self.metadata,
            provider_options: self.provider_options,
            transient: self.transient,
            created_at: None,
        }
    }

    /// The signal as the thread keeps it, as this version of its lane. The caller has checked it.
    #[must_use]
    pub fn accept(
        mut self,
        id: impl Into<String>,
        accepted_at: Instant,
        branch: &Attributes,
        thread_id: impl Into<String>,
        version: u64,
    ) -> ThreadSignal {
        let mark = StateMark {
            id: std::mem::take(&mut self.id),
            cache_key: std::mem::take(&mut self.cache_key),
            mode: self.mode,
            thread_id: thread_id.into(),
            version,
            value: self.value.take(),
            delta: self.delta.take(),
        };
        for key in [StateMark::KEY, "value", "delta"] {
            self.metadata.shift_remove(key);
        }
        ThreadSignal { state: Some(mark), ..self.into_signal().accept(id, accepted_at, branch) }
    }
}

/// A state signal's place in its lane (T14.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateMark {
    /// The lane.
    pub id: String,
    /// The producer's name for the content.
    pub cache_key: String,
    /// Whole truth or change.
    pub mode: Mode,
    /// The thread the lane belongs to.
    pub thread_id: String,
    /// The lane's version with this signal, from 1.
    pub version: u64,
    /// The snapshot in a form for the producer.
    #[serde(skip)]
    pub value: Option<Value>,
    /// The change in a form for the producer.
    #[serde(skip)]
    pub delta: Option<Value>,
}

impl StateMark {
    /// Where it stands in a signal's metadata; value and delta stand beside it.
    pub(crate) const KEY: &'static str = "state";

    /// Gives the signal in a signal's JSON, its row or its echo the version that its lane has with it.
    pub(crate) fn number(form: &mut Value, version: u64) {
        for place in ["/metadata", "/data/metadata", "/content/metadata/signal/metadata"] {
            if let Some(mark) =
                form.pointer_mut(place).and_then(|metadata| metadata.get_mut(Self::KEY)?.as_object_mut())
            {
                mark.insert("version".to_owned(), version.into());
            }
        }
    }

    pub(crate) fn write_into(&self, metadata: &mut Map<String, Value>) {
        let Self { id, cache_key, mode, thread_id, version, value, delta } = self;
        let mark = serde_json::json!({
            "id": id, "cacheKey": cache_key, "mode": mode, "threadId": thread_id, "version": version,
        });
        metadata.insert(Self::KEY.to_owned(), mark);
        for (key, given) in [("value", value), ("delta", delta)] {
            if let Some(given) = given.as_ref().filter(|given| !given.is_null()) {
                metadata.insert(key.to_owned(), given.clone());
            }
        }
    }

    /// Takes the mark out of the metadata of a state signal, if there is a whole one.
    pub(crate) fn take(category: Category, metadata: &mut Map<String, Value>) -> Option<Self> {
        if category != Category::State {
            return None;
        }
        let mut mark = Self::deserialize(metadata.get(Self::KEY)?).ok()?;
        metadata.shift_remove(Self::KEY);
        mark.value = metadata.shift_remove("value");
        mark.delta = metadata.shift_remove("delta");
        Some(mark)
    }
}
